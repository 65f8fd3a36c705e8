//! The parser against the slow second parser, on lines that are nearly right; and bodies through the split and back.

mod oracle;

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidemill_line::{
    Batch, ColumnSlice, ParseOptions, Parsed, PartitionBatch, PartitionMap, Precision, ShardGroupRange, SplitPlan,
    Splitter, ValueRef,
};

const NOW: i64 = 1_700_000_000_123_456_789;

fn owned(value: ValueRef<'_>) -> oracle::Value {
    match value {
        ValueRef::Float(value) => oracle::Value::Float(value.to_bits()),
        ValueRef::Integer(value) => oracle::Value::Integer(value),
        ValueRef::Boolean(value) => oracle::Value::Boolean(value),
        ValueRef::String(value) => oracle::Value::String(value.to_vec()),
        ValueRef::Unsigned(value) => panic!("an unsigned value {value}"),
    }
}

fn outcome(parsed: &Parsed<'_>, body: &[u8]) -> oracle::Outcome {
    let points = parsed.rows().iter().map(|row| oracle::Point {
        key: parsed.series(row.series).key.to_vec(),
        measurement: parsed.schema(row.schema).measurement().into_owned(),
        fields: parsed.values(row).map(|(name, value)| (name.to_vec(), owned(value))).collect(),
        time: row.time,
    });
    oracle::Outcome {
        points: points.collect(),
        dropped: parsed.dropped().iter().map(|point| parsed.dropped_text(point)).collect(),
        errors: parsed.errors().iter().map(|error| error.display(body).to_string()).collect(),
    }
}

fn check(batch: &mut Batch, body: &[u8], precision: Precision) {
    let options = ParseOptions { precision, now_ns: NOW, validate_keys: false };
    let parsed = batch.parse(body, &options).unwrap();
    let expected = oracle::parse(body, precision.multiplier_ns(), precision.truncate_ns(NOW));
    assert_eq!(outcome(&parsed, body), expected, "{:?}", body.escape_ascii().to_string());
    assert_eq!(parsed.error_count(), expected.errors.len());
    for row in parsed.rows() {
        let series = parsed.series(row.series);
        assert_eq!(series.hash, xxhash_rust::xxh3::xxh3_64(series.key));
        let part = &series.key[..series.measurement_len];
        assert_eq!(tidemill_line::series_key::measurement_part(series.key), part);
    }
    let mut keys: Vec<_> = (0..parsed.series_count()).map(|number| parsed.series(number as u32).key).collect();
    keys.sort_unstable();
    assert!(keys.is_sorted_by(|a, b| a < b), "a series is there twice: {keys:?}");
    check_split(&parsed);
}

/// Rows by shard group, partition and series, each in order of arrival.
type Stored = BTreeMap<(u64, u32, Vec<u8>), Vec<(i64, oracle::Fields)>>;

fn check_split(parsed: &Parsed<'_>) {
    let cuts = [i64::MIN, -1_000, 0, 1, 5, 1_000_000_000, NOW, i64::MAX];
    let shard_groups: Vec<_> = cuts
        .windows(2)
        .enumerate()
        .map(|(id, pair)| ShardGroupRange { id: id as u64, start: pair[0], end: pair[1] })
        .collect();
    for partition_count in [1, 4] {
        let plan = SplitPlan {
            database: 3,
            retention_policy: 4,
            shard_groups: &shard_groups,
            partitions: PartitionMap::single(partition_count),
            session: 5,
            sequence: 6,
        };
        let keep = |row: usize| row % 7 != 3;
        let images = Splitter::new().split(parsed, &plan, |index, _| keep(index)).unwrap();
        let mut expected = Stored::new();
        for (_, row) in parsed.rows().iter().enumerate().filter(|(index, _)| keep(*index)) {
            let group = shard_groups.iter().find(|group| (group.start..group.end).contains(&row.time)).unwrap();
            let series = parsed.series(row.series);
            let partition = ((u128::from(series.hash) * u128::from(partition_count)) >> 64) as u32;
            let fields = parsed.values(row).map(|(name, value)| (name.to_vec(), owned(value))).collect();
            expected.entry((group.id, partition, series.key.to_vec())).or_default().push((row.time, fields));
        }
        let mut found = Stored::new();
        for image in &images {
            let batch = PartitionBatch::parse(&image.bytes).unwrap();
            let header = batch.header();
            assert_eq!((header.database, header.retention_policy, header.session, header.sequence), (3, 4, 5, 6));
            assert_eq!((header.shard_group, header.partition), (image.shard_group, image.partition));
            for series in batch.series() {
                assert_eq!(series.hash, xxhash_rust::xxh3::xxh3_64(series.key));
                let rows = series.groups().flat_map(|group| rows_of(&group)).collect();
                let old = found.insert((image.shard_group, image.partition, series.key.to_vec()), rows);
                assert!(old.is_none(), "one series twice in an image");
            }
        }
        assert_eq!(found, expected);
    }
}

fn rows_of(group: &tidemill_line::RowGroup<'_>) -> Vec<(i64, oracle::Fields)> {
    let mut rows: Vec<(i64, oracle::Fields)> = group.times().map(|time| (time, Vec::new())).collect();
    for (field, column) in group.columns() {
        let values: Vec<oracle::Value> = match column {
            ColumnSlice::Float(_) => column.floats().map(|value| oracle::Value::Float(value.to_bits())).collect(),
            ColumnSlice::Integer(_) => column.integers().map(oracle::Value::Integer).collect(),
            ColumnSlice::Boolean(_) => column.booleans().map(oracle::Value::Boolean).collect(),
            ColumnSlice::String { .. } => column.strings().map(|value| oracle::Value::String(value.to_vec())).collect(),
            // Only damage makes one.
            ColumnSlice::Unsigned(_) => column.unsigneds().map(|bits| oracle::Value::Integer(bits as i64)).collect(),
        };
        assert_eq!(values.len(), rows.len());
        rows.iter_mut().zip(values).for_each(|(row, value)| row.1.push((field.name.to_vec(), value)));
    }
    rows
}

/// Pieces that lines are made of, right and wrong.
fn piece() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        " ",
        " ",
        ",",
        ",",
        "=",
        "=",
        "\"",
        "\\",
        "\n",
        "\n",
        "m",
        "cpu",
        "a=b",
        ",a=b",
        ",b=a",
        ",time=1",
        "time=1",
        " f=1",
        " f=2i",
        ",g=t",
        " s=\"x\"",
        "=\"",
        "\" 1\n",
        "1",
        "1i",
        "-",
        ".",
        "e5",
        "e",
        "+",
        "true",
        "F",
        "9223372036854775807",
        "9",
        "i",
        "u",
        "#",
        "\t",
        "\0",
        "\r",
        "\\ ",
        "\\,",
        "\\=",
        "\\\"",
        "\\\\",
        "n",
        "N",
        " 10",
        "  ",
        "é",
    ])
}

/// A line that is well written.
fn good_line() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        "m",
        "cpu,host=[ab]",
        "cpu,(r=x,host=a|host=a,r=x)",
        r"q,a\\=b=c\\ d,e=[1-3]",
        "m,time=1",
        "m,a==b"
    ];
    let value = prop_oneof![
        "-?[0-9]{1,4}(\\.[0-9]{0,4})?",
        "-?[0-9]{1,19}\\.[0-9]{0,6}(e-?[0-9]{1,2})?",
        "-?[0-9]{1,18}i",
        "[tTfF]|true|FALSE",
        "\"([a-c ,=\n]|\\\\\"|\\\\\\\\|\\\\n){0,6}\"",
    ];
    let field = (prop_oneof![4 => "[fgh]", 1 => "time", 1 => r"f\\ g", 1 => "\"k\"", 1 => r"a\\\\"], value)
        .prop_map(|(name, value)| format!("{name}={value}"));
    let time = prop_oneof!["", " -?[0-9]{1,3} {0,2}", " {1,3}[0-9]{10,19}"];
    (key, proptest::collection::vec(field, 1..5), time)
        .prop_map(|(key, fields, time)| format!("{key} {}{time}", fields.join(",")))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let bad = proptest::collection::vec(piece(), 1..12).prop_map(|pieces| pieces.concat());
    let repeated = (good_line(), 1usize..4).prop_map(|(line, times)| vec![line; times].join("\n"));
    let line = prop_oneof![3 => good_line(), 2 => repeated, 2 => bad];
    let bytes = proptest::collection::vec(line, 1..8).prop_map(|lines| lines.join("\n").into_bytes());
    let change = (any::<proptest::sample::Index>(), proptest::sample::select(&b"=, \"\\\n1e.it-\t\0"[..]), 0u8..3);
    (bytes, proptest::collection::vec(change, 0..4)).prop_map(|(mut bytes, changes)| {
        for (index, byte, kind) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

fn precision() -> impl Strategy<Value = Precision> {
    proptest::sample::select(vec![Precision::Nanosecond, Precision::Millisecond, Precision::Hour])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn nearly_right_bodies_parse_as_by_the_second_parser(
        first in body(), second in body(), precision in precision(), seed in any::<u64>(),
    ) {
        let mut batch = Batch::new(seed);
        check(&mut batch, &first, precision);
        // The buffers of the first body must not shine through.
        check(&mut batch, &second, precision);
    }

    #[test]
    fn soup_of_pieces_parses_as_by_the_second_parser(
        pieces in proptest::collection::vec(piece(), 1..25), precision in precision(),
    ) {
        check(&mut Batch::new(7), pieces.concat().as_bytes(), precision);
    }

    #[test]
    fn taking_unsigned_integers_changes_no_other_line(
        body in body(), at in any::<proptest::sample::Index>(), unsigned in "-?[0-9]{0,21}u",
    ) {
        let options = ParseOptions { precision: Precision::Nanosecond, now_ns: NOW, validate_keys: false };
        let mut batch = Batch::new(1);
        let mut plain: Vec<u8> = body.into_iter().filter(|byte| *byte != b'u').collect();
        let expected = outcome(&batch.parse(&plain, &options).unwrap(), &plain);
        batch.take_unsigned(true);
        prop_assert_eq!(outcome(&batch.parse(&plain, &options).unwrap(), &plain), expected);
        // Wherever one stands.
        let at = at.index(plain.len() + 1);
        plain.splice(at..at, unsigned.bytes());
        let parsed = batch.parse(&plain, &options).unwrap();
        prop_assert!(parsed.rows().iter().all(|row| parsed.values(row).count() > 0));
    }

    #[test]
    fn damaged_images_are_refused_or_readable(body in body(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut batch = Batch::new(1);
        let options = ParseOptions { precision: Precision::Second, now_ns: NOW, validate_keys: false };
        let parsed = batch.parse(&body, &options).unwrap();
        let all = [ShardGroupRange { id: 1, start: i64::MIN, end: i64::MAX }];
        let plan = SplitPlan {
            database: 1, retention_policy: 1, shard_groups: &all, partitions: PartitionMap::single(1), session: 1, sequence: 1,
        };
        for mut image in Splitter::new().split(&parsed, &plan, |_, _| true).unwrap() {
            let cut = at.index(image.bytes.len());
            prop_assert!(PartitionBatch::parse(&image.bytes[..cut]).is_err());
            image.bytes[cut] = byte;
            if let Ok(batch) = PartitionBatch::parse(&image.bytes) {
                let rows: usize = batch.series().flat_map(|series| series.groups()).map(|group| rows_of(&group).len()).sum();
                prop_assert_eq!(rows, batch.header().row_count as usize);
            }
        }
    }
}
