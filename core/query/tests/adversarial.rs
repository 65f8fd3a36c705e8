//! Statements and data that try to break the arithmetic of time and limits, or to make memory grow.

mod source;

use source::{MemorySource, Run, SECOND, text, worked_example_source};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_column::{Column, Points, Value, Values};
use tidemill_influxql::{Statement, parse_statement};
use tidemill_query::{
    BlockSummary, CompileOptions, Merge, MergeDemand, PartDemand, PartExec, Plan, ResultColumn, ScanSeries,
    SelectLimits, compile,
};

fn answer(source: &MemorySource, query: &str, run: &Run) -> String {
    source.run(query, run).map_or_else(|error| format!("error: {error}"), |answer| text(&answer))
}

fn plan(source: &MemorySource, query: &str) -> Arc<Plan> {
    let Ok(Statement::Select(select)) = parse_statement(query) else { panic!("{query}") };
    let options = CompileOptions { now_ns: 200 * SECOND, ..CompileOptions::default() };
    Arc::new(compile(&select, &options).unwrap().plan(vec![source.schema(0, "n")]).unwrap())
}

#[test]
fn points_at_the_ends_of_time_have_windows() {
    let mut source = MemorySource::default();
    for time in [i64::MIN + 2, -1, 0, i64::MAX - 1] {
        source.point("m", vec![], time, BTreeMap::from([("v".to_owned(), Value::Integer(1))]));
    }
    for interval in ["1ns", "1h", "10000w"] {
        let query = format!(
            "SELECT count(v) FROM m WHERE time >= -9223372036854775806 AND time <= 9223372036854775806 \
             GROUP BY time({interval}, 7ns) FILL(none)"
        );
        let counts = source.run(&query, &Run::default()).unwrap();
        let ResultColumn::Values(Column { values: Values::Integer(counts), .. }) = &counts[0].values[1] else {
            panic!("counts are integers")
        };
        assert_eq!(counts.iter().sum::<i64>(), 4, "{interval}");
    }
    assert_eq!(answer(&source, "SELECT last(v), first(v) FROM m", &Run::default()), "m last,first 0:1,1");
}

#[test]
fn huge_limits_and_offsets_answer_nothing_or_everything() {
    let source = worked_example_source();
    let max = i64::MAX;
    for (query, expected) in [
        (format!("SELECT v FROM n LIMIT {max} OFFSET {max}"), ""),
        (format!("SELECT v FROM n LIMIT {max} OFFSET 7"), "n v 90:10"),
        (format!("SELECT mean(v) FROM n LIMIT {max} OFFSET {max}"), ""),
        (format!("SELECT v FROM n SLIMIT {max} SOFFSET {max}"), ""),
        (format!("SELECT top(v, {max}) FROM n LIMIT {max} OFFSET 7"), "n top 90:10"),
    ] {
        assert_eq!(answer(&source, &query, &Run::default()), expected, "{query}");
    }
}

#[test]
fn an_empty_range_reads_nothing() {
    let source = worked_example_source();
    for query in [
        "SELECT v FROM n WHERE time > 10s AND time < 10s",
        "SELECT count(v) FROM n WHERE time > 10s AND time < 5s GROUP BY time(1s)",
        "SELECT count(v) FROM n WHERE time > 9223372036854775806",
    ] {
        assert_eq!(answer(&source, query, &Run::default()), "", "{query}");
    }
}

#[test]
fn too_many_windows_are_refused_and_open_ranges_are_shortened() {
    let source = worked_example_source();
    let limits = SelectLimits { max_select_buckets: 5, ..SelectLimits::default() };
    let run = Run { now_ns: 95 * SECOND, limits, ..Run::default() };
    let bounded = "SELECT count(v) FROM n WHERE time >= 0 AND time < 60s GROUP BY time(10s)";
    assert_eq!(answer(&source, bounded, &run), "error: max-select-buckets limit exceeded: (6/5)");
    let open = "SELECT count(v) FROM n GROUP BY time(10s)";
    assert_eq!(answer(&source, open, &run), "n count 50:1 60:1 70:0 80:0 90:1");
    let everything = "SELECT count(v) FROM n WHERE time >= -9223372036854775805 GROUP BY time(1ns)";
    assert!(answer(&source, everything, &run).starts_with("error: max-select-buckets limit exceeded: ("));
}

/// Takes pieces of the answer until `enough`, watching what is held.
fn watch(source: &MemorySource, query: &str, enough: usize, bytes_max: usize) -> usize {
    let plan = plan(source, query);
    let scan = plan.scans()[0].clone();
    let mut part = PartExec::new(scan, vec![ScanSeries { key: b"n"[..].into(), tags: vec![] }]);
    let mut supplied = 0;
    let mut merge = Merge::new(plan, 1, 1000);
    let mut rows = 0;
    while rows < enough {
        assert!(merge.bytes_held() < bytes_max, "{query}: {} bytes held", merge.bytes_held());
        match merge.poll().unwrap() {
            MergeDemand::Rows(series) => rows += series.row_count(),
            MergeDemand::Done => break,
            MergeDemand::Part { scan, part: number } => loop {
                assert!(part.bytes_held() < bytes_max, "{query}: {} bytes held", part.bytes_held());
                match part.poll() {
                    PartDemand::Points(series) => {
                        let times: Vec<i64> = (0..1000).map(|row| (supplied * 1000 + row) * SECOND).collect();
                        let values = Values::Float(vec![1.0; 1000]);
                        let points = Points { times, columns: vec![Some(Column::dense(values))] };
                        supplied += 1;
                        part.supply(series, (supplied <= 200).then_some(points));
                    }
                    PartDemand::Emit(output) => {
                        merge.supply(scan, number, Some(output));
                        break;
                    }
                    PartDemand::Done => {
                        merge.supply(scan, number, None);
                        break;
                    }
                }
            },
        }
    }
    rows
}

#[test]
fn rows_and_empty_windows_stream_through_bounded_memory() {
    let source = worked_example_source();
    assert_eq!(watch(&source, "SELECT v FROM n", usize::MAX, 1 << 20), 200_000);
    // A billion empty windows: they are made as they are taken.
    let sparse = "SELECT mean(v) FROM n WHERE time >= 0 AND time < 1000000000s GROUP BY time(1s) FILL(0) LIMIT 500000";
    assert_eq!(watch(&source, sparse, usize::MAX, 32 << 20), 500_000);
    let all = "SELECT mean(v) FROM n WHERE time >= -1000000000s AND time < 1000s GROUP BY time(1s)";
    assert!(watch(&source, all, 300_000, 8 << 20) >= 300_000);
    // A series that has its LIMIT is done, however many empty windows lie behind or between its rows.
    let gap = "SELECT mean(v) FROM n WHERE time >= 0 AND time < 9000000000s GROUP BY time(1ns) LIMIT 3";
    assert_eq!(watch(&source, gap, usize::MAX, 32 << 20), 3);
    // All values of one window are sent on in pieces; the merge must hold them.
    assert_eq!(watch(&source, "SELECT count(v), mean(v) FROM n", usize::MAX, 1 << 20), 1);
}

#[test]
fn the_pieces_of_one_large_window_are_joined() {
    let source = worked_example_source();
    let plan = plan(&source, "SELECT median(v), count(v), stddev(v) FROM n");
    let mut part = PartExec::new(plan.scans()[0].clone(), vec![ScanSeries { key: b"n"[..].into(), tags: vec![] }]);
    let mut merge = Merge::new(plan, 1, 1000);
    let rows = 1_000_000i64;
    let mut given = false;
    let mut outputs = 0;
    loop {
        match merge.poll().unwrap() {
            MergeDemand::Rows(series) => {
                let value = |column: usize| match &series.values[column] {
                    ResultColumn::Values(column) => column.value(0).unwrap(),
                    _ => panic!("a column of values"),
                };
                assert_eq!(value(1), Value::Float((rows - 1) as f64 / 2.0));
                assert_eq!(value(2), Value::Integer(rows));
                break;
            }
            MergeDemand::Done => panic!("no answer"),
            MergeDemand::Part { scan, part: number } => loop {
                match part.poll() {
                    PartDemand::Points(series) => {
                        let batch = Points {
                            times: (0..rows).collect(),
                            columns: vec![Some(Column::dense(Values::Float((0..rows).map(|v| v as f64).collect())))],
                        };
                        part.supply(series, (!given).then_some(batch));
                        given = true;
                    }
                    PartDemand::Emit(output) => {
                        outputs += 1;
                        merge.supply(scan, number, Some(output));
                        break;
                    }
                    PartDemand::Done => {
                        merge.supply(scan, number, None);
                        break;
                    }
                }
            },
        }
    }
    assert!(outputs >= 1);
}

#[test]
fn summaries_of_blocks_stand_for_their_rows() {
    let source = worked_example_source();
    let query = "SELECT count(v), sum(v), mean(v), min(v), max(v), first(v), last(v), spread(v) FROM n \
                 WHERE time >= 0 AND time < 100s GROUP BY time(50s)";
    let expected = answer(&source, query, &Run::default());
    let plan = plan(&source, query);
    let scan = plan.scans()[0].clone();
    assert_eq!(scan.window_bounds(60 * SECOND), (50 * SECOND, 100 * SECOND - 1));
    let mut part = PartExec::new(scan, vec![ScanSeries { key: b"n"[..].into(), tags: vec![] }]);
    let summary = |rows: &[(i64, f64)]| {
        let extreme = |better: fn(f64, f64) -> bool| {
            rows.iter().fold(rows[0], |best, row| if better(row.1, best.1) { *row } else { best })
        };
        let (least, most) = (extreme(|a, b| a < b), extreme(|a, b| a > b));
        BlockSummary {
            column: 0,
            count: rows.len() as u64,
            min_time: rows[0].0 * SECOND,
            max_time: rows[rows.len() - 1].0 * SECOND,
            min: (Value::Float(least.1), least.0 * SECOND),
            max: (Value::Float(most.1), most.0 * SECOND),
            sum: Some(Value::Float(rows.iter().map(|row| row.1).sum())),
            first: Value::Float(rows[0].1),
            last: Value::Float(rows[rows.len() - 1].1),
        }
    };
    let PartDemand::Points(series) = part.poll() else { panic!("rows are wanted") };
    assert!(part.accepts_statistics(series));
    part.supply_statistics(
        series,
        &[
            summary(&[(0, 1.0), (10, 3.0)]),
            summary(&[(20, 2.0), (30, 5.0), (40, 8.0)]),
            summary(&[(50, 7.0), (60, 7.0), (90, 10.0)]),
        ],
    );
    part.supply(series, None);
    let mut merge = Merge::new(plan, 1, 100);
    let mut rows = Vec::new();
    loop {
        match merge.poll().unwrap() {
            MergeDemand::Part { scan, part: number } => match part.poll() {
                PartDemand::Emit(output) => merge.supply(scan, number, Some(output)),
                PartDemand::Done => merge.supply(scan, number, None),
                PartDemand::Points(_) => panic!("all rows were given"),
            },
            MergeDemand::Rows(series) => rows.push(series),
            MergeDemand::Done => break,
        }
    }
    assert_eq!(text(&rows), expected);
}

#[test]
fn rows_decide_where_a_field_is_filtered_or_cast() {
    let source = worked_example_source();
    for (query, accepts) in [
        ("SELECT count(v) FROM n", true),
        ("SELECT count(v) FROM n WHERE v > 3", false),
        ("SELECT count(v) FROM n WHERE host = ''", true),
        ("SELECT sum(v::integer) FROM n", false),
        ("SELECT median(v) FROM n", false),
        ("SELECT max(v), i FROM n", false),
    ] {
        let plan = plan(&source, query);
        let mut part = PartExec::new(plan.scans()[0].clone(), vec![ScanSeries { key: b"n"[..].into(), tags: vec![] }]);
        let PartDemand::Points(series) = part.poll() else { panic!("rows are wanted") };
        assert_eq!(part.accepts_statistics(series), accepts, "{query}");
    }
}

#[test]
fn the_newest_rows_come_first_where_only_the_last_value_counts() {
    let source = worked_example_source();
    assert!(plan(&source, "SELECT last(v) FROM n").scans()[0].descending());
    assert!(!plan(&source, "SELECT last(v), first(v) FROM n").scans()[0].descending());
    assert!(!plan(&source, "SELECT last(v) FROM n GROUP BY time(1s)").scans()[0].descending());
    assert!(plan(&source, "SELECT v FROM n ORDER BY time DESC").scans()[0].descending());
    // One batch is enough.
    let plan = plan(&source, "SELECT last(v) FROM n");
    let mut part = PartExec::new(plan.scans()[0].clone(), vec![ScanSeries { key: b"n"[..].into(), tags: vec![] }]);
    let PartDemand::Points(series) = part.poll() else { panic!("rows are wanted") };
    let batch = Points { times: vec![5], columns: vec![Some(Column::dense(Values::Float(vec![1.0])))] };
    part.supply(series, Some(batch));
    assert!(matches!(part.poll(), PartDemand::Emit(_)));
}

#[test]
fn shards_that_disagree_on_a_type_give_what_converts() {
    let mut source = MemorySource::default();
    for line in ["m v=1i 0", "m v=2.5 10", "m v=\"x\" 20", "m v=true 30", "m w=1 40"] {
        source.line(line);
    }
    let run = Run::default();
    assert_eq!(answer(&source, "SELECT v FROM m", &run), "m v 0:1 10:2.5");
    assert_eq!(answer(&source, "SELECT v::string FROM m", &run), "m v 20:\"x\"");
    assert_eq!(answer(&source, "SELECT sum(v), count(v) FROM m", &run), "m sum,count 0:3.5,2");
    assert_eq!(answer(&source, "SELECT sum(v::integer) FROM m", &run), "m sum 0:3");
    assert_eq!(answer(&source, "SELECT w FROM m WHERE v = 'x'", &run), "");
}

#[test]
fn a_count_is_missing_before_the_first_value_of_an_open_range_and_zero_behind_it() {
    let mut source = MemorySource::default();
    for line in ["m v=1 0", "m v=1 10", "m w=1 20"] {
        source.line(line);
    }
    let run = Run::default();
    let query = "SELECT count(v), count(w) FROM m GROUP BY time(10s) LIMIT 4";
    assert_eq!(answer(&source, query, &run), "m count,count_1 0:1,null 10:1,null 20:0,1 30:0,0");
    let bounded = "SELECT count(v), count(w) FROM m WHERE time >= 0 GROUP BY time(10s) LIMIT 4";
    assert_eq!(answer(&source, bounded, &run), "m count,count_1 0:1,0 10:1,0 20:0,1 30:0,0");
}
