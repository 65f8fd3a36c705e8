use super::*;
use crate::encode::{Format, TimeFormat};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tidemill_column::{Column, FieldType, Strings, Value, Values};
use tidemill_query::ResultColumn;

fn shape(statement_count: usize) -> Shape {
    let statements = vec![StatementShape::default(); statement_count];
    Shape { chunk_size: 10_000, document_bytes_max: 1 << 30, statements, ..Shape::default() }
}

fn chunked(statement_count: usize, chunk_size: usize) -> Shape {
    Shape { chunked: true, chunk_size, ..shape(statement_count) }
}

/// Rows `rows` of a series named `name` with a time and a value column, both counting.
fn series(name: &str, rows: std::ops::Range<i64>, partial: bool) -> ResultSeries {
    ResultSeries {
        name: name.into(),
        tags: [].into(),
        columns: ["time".to_owned(), "v".to_owned()].into(),
        values: vec![
            ResultColumn::Time(rows.clone().collect()),
            ResultColumn::Values(Column::dense(Values::Integer(rows.collect()))),
        ],
        partial,
    }
}

fn rows(statement: u32, name: &str, rows: std::ops::Range<i64>, partial: bool, more: bool) -> Piece {
    Piece::Series { statement, series: series(name, rows, partial), more }
}

fn floats(name: &str, values: Vec<f64>) -> Piece {
    let series = ResultSeries {
        name: name.into(),
        tags: [].into(),
        columns: ["v".to_owned()].into(),
        values: vec![ResultColumn::Values(Column::dense(Values::Float(values)))],
        partial: false,
    };
    Piece::Series { statement: 0, series, more: false }
}

fn error(statement: u32, text: &str) -> Piece {
    Piece::Error { statement, text: text.to_owned() }
}

/// All bytes, and how many flushes they took.
fn answer_as(format: Format, shape: Shape, pieces: Vec<Piece>) -> (Vec<u8>, usize) {
    let mut answer = Answer::new(format.encoder(TimeFormat::Epoch { unit_ns: 1 }), shape);
    let mut pieces = pieces.into_iter();
    let (mut out, mut flush_count) = (Vec::new(), 0);
    loop {
        if answer.should_flush() {
            let is_end = answer.is_finished();
            out.extend(answer.take());
            flush_count += 1;
            if is_end {
                return (out, flush_count);
            }
        }
        match answer.wants_piece() {
            true => answer.push(pieces.next()),
            false => answer.step(),
        }
    }
}

fn json_text(shape: Shape, pieces: Vec<Piece>) -> String {
    String::from_utf8(answer_as(Format::Json, shape, pieces).0).unwrap()
}

#[test]
fn pieces_of_a_series_become_one_and_statements_stay_apart() {
    let pieces = vec![
        rows(0, "a", 0..2, true, true),
        rows(0, "a", 2..3, false, true),
        rows(0, "b", 0..1, false, false),
        Piece::StatementDone(0),
        Piece::StatementDone(1),
    ];
    let expected = concat!(
        r#"{"results":[{"statement_id":0,"series":[{"name":"a","columns":["time","v"],"values":[[0,0],[1,1],[2,2]]},"#,
        r#"{"name":"b","columns":["time","v"],"values":[[0,0]]}]},{"statement_id":1}]}"#,
        "\n"
    );
    assert_eq!(json_text(shape(2), pieces), expected);
    assert_eq!(json_text(shape(0), Vec::new()), "{}\n");
    assert_eq!(json_text(chunked(0, 1), Vec::new()), "");
}

#[test]
fn an_error_replaces_its_result_and_stops_the_rest() {
    let pieces = || vec![Piece::StatementDone(0), rows(1, "a", 0..2, false, false), error(1, "no \"good\"")];
    let expected = concat!(
        r#"{"results":[{"statement_id":0},{"statement_id":1,"error":"no \"good\""},"#,
        r#"{"statement_id":2,"error":"not executed"}]}"#,
        "\n"
    );
    assert_eq!(json_text(shape(3), pieces()), expected);
    let expected = concat!(
        "{\"results\":[{\"statement_id\":0}]}\n",
        r#"{"results":[{"statement_id":1,"series":[{"name":"a","columns":["time","v"],"values":[[0,0],[1,1]]}],"partial":true}]}"#,
        "\n{\"results\":[{\"statement_id\":1,\"error\":\"no \\\"good\\\"\"}]}\n",
        "{\"results\":[{\"statement_id\":2,\"error\":\"not executed\"}]}\n",
    );
    assert_eq!(json_text(chunked(3, 100), pieces()), expected);
    assert_eq!(
        json_text(shape(1), vec![rows(0, "a", 0..1, false, false)]),
        "{\"results\":[{\"statement_id\":0,\"error\":\"the answer ended early\"}]}\n"
    );
    assert!(json_text(shape(2), vec![Piece::StatementDone(1)]).contains(ENDED_EARLY));
}

#[test]
fn an_error_behind_the_held_part_stands_beside_the_rows() {
    let row_count = 200_000;
    let pieces = vec![rows(0, "a", 0..row_count, true, true), error(0, "late")];
    let (bytes, flush_count) = answer_as(Format::Json, shape(2), pieces);
    assert!(flush_count > 3);
    let document: Json = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(document["results"][0]["series"][0]["values"].as_array().unwrap().len() as i64, row_count);
    assert_eq!(document["results"][0]["error"], "late");
    assert_eq!(document["results"][1], json!({"statement_id": 1, "error": "not executed"}));
}

#[test]
fn chunks_are_cut_joined_and_marked() {
    let pieces = vec![
        rows(0, "a", 0..3, true, true),
        rows(0, "a", 3..5, false, true),
        rows(0, "b", 0..2, false, false),
        Piece::StatementDone(0),
    ];
    let text = json_text(chunked(1, 2), pieces);
    let documents: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary: Vec<_> = documents
        .iter()
        .map(|document| {
            let result = &document["results"][0];
            let series = &result["series"][0];
            let count = series["values"].as_array().unwrap().len();
            (series["name"].as_str().unwrap(), count, series["partial"] == true, result["partial"] == true)
        })
        .collect();
    let expected = [("a", 2, true, true), ("a", 2, true, true), ("a", 1, false, true), ("b", 2, false, false)];
    assert_eq!(summary, expected);
}

#[test]
fn a_service_that_cannot_tell_whether_more_follows_gets_the_right_marks() {
    let pieces = vec![
        rows(0, "a", 0..2, false, false),
        rows(0, "a", 2..4, false, false),
        rows(0, "b", 0..1, false, false),
        Piece::StatementDone(0),
    ];
    let told = vec![rows(0, "a", 0..4, false, true), rows(0, "b", 0..1, false, false), Piece::StatementDone(0)];
    assert_eq!(json_text(chunked(1, 2), pieces), json_text(chunked(1, 2), told));
}

#[test]
fn whole_statements_are_neither_cut_nor_marked() {
    let mut shape = chunked(1, 2);
    shape.statements[0].is_whole = true;
    let pieces = vec![rows(0, "a", 0..5, false, true), rows(0, "b", 0..1, false, false), Piece::StatementDone(0)];
    let text = json_text(shape, pieces);
    assert_eq!(text.lines().count(), 2);
    assert!(!text.contains("partial"), "{text}");
}

#[test]
fn the_row_limit_cuts_and_stops() {
    let limited = |limit, first: i64| {
        let pieces = vec![
            rows(0, "a", 0..first, false, true),
            rows(0, "b", 0..5, false, false),
            Piece::StatementDone(0),
            Piece::StatementDone(1),
        ];
        let text = json_text(Shape { row_count_max: limit, ..shape(2) }, pieces);
        serde_json::from_str::<Json>(&text).unwrap()
    };
    let cut = limited(3, 5);
    assert_eq!(cut["results"].as_array().unwrap().len(), 1);
    let series = cut["results"][0]["series"].as_array().unwrap().clone();
    assert_eq!(
        (series.len(), &series[0]["partial"], series[0]["values"].as_array().unwrap().len()),
        (1, &json!(true), 3)
    );
    let exact = limited(3, 3);
    assert_eq!(exact["results"][0]["series"].as_array().unwrap().len(), 1);
    assert!(exact["results"][0]["series"][0].get("partial").is_none());
    let second = limited(4, 3);
    assert_eq!(second["results"][0]["series"][1]["values"].as_array().unwrap().len(), 1);
    assert_eq!(limited(8, 3)["results"][0]["series"][1]["values"].as_array().unwrap().len(), 5);
    assert_eq!(limited(9, 3)["results"].as_array().unwrap().len(), 2);
}

#[test]
fn messages_and_warnings_come_behind_the_series() {
    let mut shape = shape(1);
    shape.statements[0].warning = Some("careful".to_owned());
    let message = Piece::Message { statement: 0, level: "info".to_owned(), text: "x".to_owned() };
    let text = json_text(shape, vec![message, rows(0, "a", 0..1, false, false), Piece::StatementDone(0)]);
    let expected = r#"]}],"messages":[{"level":"warning","text":"careful"},{"level":"info","text":"x"}]}]}"#;
    assert!(text.ends_with(&format!("{expected}\n")), "{text}");
}

#[test]
fn infinity_has_no_spelling_in_json() {
    let pieces = || vec![floats("a", vec![1.0, f64::NAN, f64::NEG_INFINITY]), Piece::StatementDone(0)];
    assert_eq!(json_text(shape(1), pieces()), "{\"error\":\"json: unsupported value: -Inf\"}\n");
    assert_eq!(json_text(chunked(1, 10), pieces()), "{\"error\":\"json: unsupported value: -Inf\"}\n");
    let mut many = vec![1.5; 400_000];
    many.push(f64::INFINITY);
    let (bytes, _) = answer_as(Format::Json, shape(1), vec![floats("a", many), Piece::StatementDone(0)]);
    let document: Json = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(document["results"][0]["error"], "json: unsupported value: +Inf");
    assert_eq!(document["results"][0]["series"][0]["values"].as_array().unwrap().len(), 400_000);
    let (csv, _) = answer_as(Format::Csv, shape(1), pieces());
    assert_eq!(csv, b"name,tags,v\na,,1\na,,NaN\na,,-Inf\n");
}

#[test]
fn columns_without_rows_and_lists_and_nulls() {
    let series = ResultSeries {
        name: "".into(),
        tags: [("b".to_owned(), "x<".to_owned()), ("r".to_owned(), String::new())].into(),
        columns: ["user".to_owned(), "hosts".to_owned(), "s".to_owned()].into(),
        values: vec![
            ResultColumn::Values(Column::absent(FieldType::Boolean, 1)),
            ResultColumn::StringLists(vec![vec!["a".to_owned(), "b\n".to_owned()]]),
            ResultColumn::Values(Column::dense(Values::String(Strings::from_iter([&b"\xffq"[..]])))),
        ],
        partial: false,
    };
    let mut empty = series.clone();
    empty.values = vec![
        ResultColumn::Values(Column::new(FieldType::Boolean)),
        ResultColumn::StringLists(Vec::new()),
        ResultColumn::Values(Column::new(FieldType::String)),
    ];
    let one = |series| vec![Piece::Series { statement: 0, series, more: false }, Piece::StatementDone(0)];
    let head =
        r#"{"results":[{"statement_id":0,"series":[{"tags":{"b":"x\u003c","r":""},"columns":["user","hosts","s"]"#;
    assert_eq!(json_text(shape(1), one(empty)), format!("{head}}}]}}]}}\n"));
    let expected = format!("{head},\"values\":[[null,[\"a\",\"b\\n\"],\"\\ufffdq\"]]}}]}}]}}\n");
    assert_eq!(json_text(shape(1), one(series)), expected);
}

#[test]
fn csv_has_a_header_a_statement_and_forgets_failed_ones() {
    let tagged = |name: &str, tags: &[(&str, &str)]| {
        let mut series = series(name, 0..1, false);
        series.tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Piece::Series { statement: 0, series, more: true }
    };
    let mut other = series("c", 0..1, false);
    other.columns = ["time".to_owned(), "w".to_owned()].into();
    let pieces = vec![
        tagged("a", &[("host", "a b"), ("none", ""), ("region", "us")]),
        tagged("b,\"", &[]),
        Piece::Series { statement: 0, series: other, more: false },
        Piece::StatementDone(0),
        Piece::StatementDone(1),
        rows(2, "d", 0..1, false, false),
        Piece::StatementDone(2),
        rows(3, "e", 0..1, false, false),
        error(3, "bad"),
    ];
    let (bytes, _) = answer_as(Format::Csv, shape(4), pieces);
    let expected = "name,tags,time,v\na,\"host=a\\ b,region=us\",0,0\n\"b,\"\"\",,0,0\n\nname,tags,time,w\nc,,0,0\n\n\
        name,tags,time,v\nd,,0,0\n";
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    let pieces = vec![rows(0, "a", 0..3, false, false), Piece::StatementDone(0)];
    let (bytes, _) = answer_as(Format::TextCsv, chunked(1, 1), pieces);
    assert_eq!(bytes, b"name,tags,time,v\na,,0,0\na,,1,1\na,,2,2\n");
}

#[test]
fn message_pack_lengths_fit() {
    let pieces = || vec![Piece::StatementDone(0), rows(1, "a", 0..2, false, false), Piece::StatementDone(1)];
    let mut expected = b"\x81\xa7results\xdd\x00\x00\x00\x02".to_vec();
    expected.extend(b"\x82\xacstatement_id\x00\xa6series\xdd\x00\x00\x00\x00");
    expected
        .extend(b"\x82\xacstatement_id\x01\xa6series\xdd\x00\x00\x00\x01\x83\xa4name\xa1a\xa7columns\x92\xa4time\xa1v");
    expected.extend(b"\xa6values\xdd\x00\x00\x00\x02\x92\x00\x00\x92\x01\x01");
    assert_eq!(answer_as(Format::MessagePack, shape(2), pieces()).0, expected);
    let (failed, _) = answer_as(Format::MessagePack, shape(1), vec![rows(0, "a", 0..1, false, false), error(0, "e")]);
    assert_eq!(failed, b"\x81\xa7results\xdd\x00\x00\x00\x01\x81\xa5error\xa1e");
    let small = Shape { document_bytes_max: 40, ..shape(2) };
    let (refused, _) = answer_as(Format::MessagePack, small, pieces());
    assert!(refused.starts_with(b"\x81\xa5error\xd9"), "{refused:?}");
}

#[test]
fn message_pack_integers_are_minimal_and_times_are_extensions() {
    let values = [0, 127, 128, 255, 256, 65_535, 65_536, 1 << 32, -1, -32, -33, -128, -129, -32_769, -(1 << 32)];
    let mut encoder = Format::MessagePack.encoder(TimeFormat::Rfc3339);
    let mut out = Vec::new();
    let mut series = series("a", 0..1, false);
    series.columns = ["time".to_owned(), "v".to_owned()].into();
    series.values = vec![
        ResultColumn::Time(vec![-1; values.len()]),
        ResultColumn::Values(Column::dense(Values::Integer(values.to_vec()))),
    ];
    encoder.rows(&mut out, &series, 0..values.len()).unwrap();
    let time = b"\x92\xc7\x0c\x05\xff\xff\xff\xff\xff\xff\xff\xff\x3b\x9a\xc9\xff";
    let numbers: Vec<&[u8]> = vec![
        b"\x00",
        b"\x7f",
        b"\xcc\x80",
        b"\xcc\xff",
        b"\xcd\x01\x00",
        b"\xcd\xff\xff",
        b"\xce\x00\x01\x00\x00",
        b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00",
        b"\xff",
        b"\xe0",
        b"\xd0\xdf",
        b"\xd0\x80",
        b"\xd1\xff\x7f",
        b"\xd2\xff\xff\x7f\xff",
        b"\xd3\xff\xff\xff\xff\x00\x00\x00\x00",
    ];
    let expected: Vec<u8> = numbers.into_iter().flat_map(|number| [&time[..], number].concat()).collect();
    assert_eq!(out, expected);
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<f64>().prop_filter("spellable", |value| value.is_finite()).prop_map(Value::Float),
        any::<i64>().prop_map(Value::Integer),
        any::<u64>().prop_map(Value::Unsigned),
        any::<bool>().prop_map(Value::Boolean),
        any::<String>().prop_map(|text| Value::String(text.into_bytes().into())),
    ]
}

proptest! {
    #[test]
    fn json_reads_back(cells in proptest::collection::vec((value(), any::<bool>()), 1..20), name in any::<String>(), chunk in 1usize..4) {
        let mut columns = FieldType::ALL.map(Column::new);
        for (value, is_there) in &cells {
            for column in &mut columns {
                match *is_there && value.field_type() == column.values.field_type() {
                    true => column.push(value),
                    false => column.push_null(),
                }
            }
        }
        let series = ResultSeries {
            name: name.as_str().into(),
            tags: [("k".to_owned(), name.clone())].into(),
            columns: FieldType::ALL.map(|field_type| field_type.name().to_owned()).into(),
            values: columns.clone().map(ResultColumn::Values).into(),
            partial: false,
        };
        let expected: Vec<Json> = (0..cells.len()).map(|row| columns.iter().map(|column| match column.value(row) {
            None => Json::Null,
            Some(Value::Float(value)) if value == 0.0 && value.is_sign_negative() => json!(-0.0),
            Some(Value::Float(value)) => json!(value),
            Some(Value::Integer(value)) => json!(value),
            Some(Value::Unsigned(value)) => json!(value),
            Some(Value::Boolean(value)) => json!(value),
            Some(Value::String(text)) => json!(String::from_utf8(text.into()).unwrap()),
        }).collect()).collect();
        let pieces = || vec![Piece::Series { statement: 0, series: series.clone(), more: false }, Piece::StatementDone(0)];
        let rows_of = |text: &str| -> Vec<Json> {
            text.lines().flat_map(|line| {
                let document: Json = serde_json::from_str(line).unwrap();
                let series = &document["results"][0]["series"][0];
                assert_eq!(series["tags"]["k"], name.as_str());
                series["values"].as_array().unwrap().clone()
            }).collect()
        };
        for text in [json_text(shape(1), pieces()), json_text(chunked(1, chunk), pieces())] {
            let rows = rows_of(&text);
            prop_assert_eq!(rows.len(), expected.len());
            for (row, expected) in rows.iter().zip(&expected) {
                for (cell, expected) in row.as_array().unwrap().iter().zip(expected.as_array().unwrap()) {
                    // Whole floats are spelled without a point and read back as integers.
                    prop_assert!(cell == expected || cell.as_f64() == expected.as_f64(), "{} {}", cell, expected);
                }
            }
        }
    }
}
