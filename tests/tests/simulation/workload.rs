//! Batches of points and their images.

use super::truth::{Cell, DATABASE, Deed, GROUP_WIDTH, SHARD_GROUPS};
use tidemill_column::Value;
use tidemill_disk::sim::Prng;
use tidemill_line::{Batch, ParseOptions, Precision, ShardGroupRange, SplitPlan, Splitter};
use tidemill_store::{Command, Measurements, TagCondition};
use xxhash_rust::xxh3::xxh3_64;

pub const PARTITIONS: u32 = 4;
const SERIES: u64 = 12;

/// What one request brings: per partition batch its image and its cells.
pub struct Request {
    pub parts: Vec<(u32, Vec<u8>, Deed)>,
}

/// A request of a few points whose values tell them from all others.
pub fn request(prng: &mut Prng, number: u64, points_max: u64, text_bytes_max: u64) -> Request {
    let mut lines = String::new();
    let mut cells = Vec::new();
    for point in 0..1 + prng.below(points_max) {
        let series = format!("m,host=h{},rack=r{}", prng.below(SERIES), prng.below(2));
        // Mostly in order, some late, some the same time again.
        let base = (number / 8 * 100) as i64;
        let time = match prng.below(8) {
            0 => prng.below(base as u64 + 1) as i64 / 100 * 100,
            _ => base,
        };
        let time = time % GROUP_WIDTH + prng.below(SHARD_GROUPS) as i64 * GROUP_WIDTH;
        let identity = number * 100 + point;
        let mut fields = vec![("number", Value::Integer(identity as i64), format!("number={identity}i"))];
        if prng.one_in(2) {
            let share = identity as f64 * 0.25;
            fields.push(("share", Value::Float(share), format!("share={share}")));
        }
        if prng.one_in(3) {
            let text = format!("{identity} {}", "x".repeat(prng.below(text_bytes_max) as usize));
            fields.push(("text", Value::String(text.as_bytes().into()), format!("text=\"{text}\"")));
        }
        let texts: Vec<&str> = fields.iter().map(|(_, _, text)| text.as_str()).collect();
        lines.push_str(&format!("{series} {} {time}\n", texts.join(",")));
        cells.extend(fields.into_iter().map(|(field, value, _)| Cell { series: series.clone(), field, time, value }));
    }
    Request { parts: split(&lines, &cells) }
}

fn partition_of(series: &str) -> u32 {
    (xxh3_64(series.as_bytes()) >> (64 - PARTITIONS.trailing_zeros())) as u32
}

fn split(lines: &str, cells: &[Cell]) -> Vec<(u32, Vec<u8>, Deed)> {
    let mut batch = Batch::new(1);
    let options = ParseOptions { precision: Precision::Nanosecond, now_ns: 0, validate_keys: false };
    let parsed = batch.parse(lines.as_bytes(), &options).expect("a short body");
    assert_eq!(parsed.error_text(), None);
    let range = |id: u64| {
        let start = (id as i64 - 1) * GROUP_WIDTH;
        ShardGroupRange { id, start, end: start + GROUP_WIDTH }
    };
    let shard_groups: Vec<ShardGroupRange> = (1..=SHARD_GROUPS).map(range).collect();
    let plan = SplitPlan {
        database: DATABASE,
        retention_policy: 1,
        shard_groups: &shard_groups,
        partition_count: PARTITIONS,
        session: 0,
        sequence: 0,
    };
    let images = Splitter::new().split(&parsed, &plan, |_, _| true).expect("the plan covers all times");
    let part = |image: tidemill_line::PartitionImage| {
        let is_in = |cell: &&Cell| {
            partition_of(&cell.series) == image.partition
                && cell.time.div_euclid(GROUP_WIDTH) as u64 + 1 == image.shard_group
        };
        let cells: Vec<Cell> = cells.iter().filter(is_in).cloned().collect();
        assert!(!cells.is_empty());
        (image.partition, image.bytes, Deed::Write(cells))
    };
    images.into_iter().map(part).collect()
}

/// A delete of one rack, everywhere or in a stretch of time.
pub fn delete(prng: &mut Prng) -> (Command, Deed) {
    let rack = format!("r{}", prng.below(2));
    let start = prng.below(GROUP_WIDTH as u64 * SHARD_GROUPS) as i64;
    let (min_time, max_time) = if prng.one_in(3) { (i64::MIN, i64::MAX) } else { (start, start + GROUP_WIDTH / 2) };
    let condition = TagCondition::Equal { key: b"rack".to_vec(), value: rack.as_bytes().to_vec() };
    let measurements = Measurements::Named(vec![b"m".to_vec()]);
    let command = Command::Delete { database: DATABASE, measurements, condition, min_time, max_time };
    (command, Deed::Delete { ending: format!(",rack={rack}"), min_time, max_time })
}
