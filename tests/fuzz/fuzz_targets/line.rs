//! Bodies of line protocol: the parser must agree with the slow second parser in points and in error texts, and what it
//! parsed must come back from the split. The first byte chooses the precision.

#![no_main]

#[path = "../../../core/line/tests/oracle/mod.rs"]
mod oracle;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tidemill_line::{
    Batch, ParseOptions, Parsed, PartitionBatch, PartitionMap, Precision, ShardGroupRange, SplitPlan, Splitter, ValueRef,
};

const NOW: i64 = 1_700_000_000_123_456_789;

fuzz_target!(|data: &[u8]| {
    let Some((&first, body)) = data.split_first() else { return };
    let precision = match first % 3 {
        0 => Precision::Nanosecond,
        1 => Precision::Millisecond,
        _ => Precision::Hour,
    };
    let options = ParseOptions { precision, now_ns: NOW, validate_keys: false };
    let expected = oracle::parse(body, precision.multiplier_ns(), precision.truncate_ns(NOW));
    BATCH.with_borrow_mut(|batch| {
        let Ok(parsed) = batch.parse(body, &options) else { return };
        assert_eq!(outcome(&parsed, body), expected);
        check_split(&parsed);
        // Every line that holds one goes another way then.
        batch.take_unsigned(true);
        let _ = batch.parse(body, &options);
        batch.take_unsigned(false);
    });
});

thread_local! {
    /// Kept from input to input, as a connection keeps it from body to body.
    static BATCH: RefCell<Batch> = RefCell::new(Batch::new(1));
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

fn owned(value: ValueRef<'_>) -> oracle::Value {
    match value {
        ValueRef::Float(value) => oracle::Value::Float(value.to_bits()),
        ValueRef::Integer(value) => oracle::Value::Integer(value),
        ValueRef::Boolean(value) => oracle::Value::Boolean(value),
        ValueRef::String(value) => oracle::Value::String(value.to_vec()),
        ValueRef::Unsigned(value) => panic!("an unsigned value {value}"),
    }
}

fn check_split(parsed: &Parsed<'_>) {
    let shard_groups =
        [ShardGroupRange { id: 1, start: i64::MIN, end: 5 }, ShardGroupRange { id: 2, start: 5, end: i64::MAX }];
    let plan = SplitPlan {
        database: 1,
        retention_policy: 1,
        shard_groups: &shard_groups,
        partitions: PartitionMap::single(2),
        session: 1,
        sequence: 1,
    };
    let images = Splitter::new().split(parsed, &plan, |_, _| true).unwrap();
    let rows: usize = images
        .iter()
        .flat_map(|image| {
            let batch = PartitionBatch::parse(&image.bytes).unwrap();
            batch.series().flat_map(|series| series.groups()).map(|group| group.row_count).collect::<Vec<_>>()
        })
        .sum();
    assert_eq!(rows, parsed.rows().len());
}
