//! What applying and flushing cost: `cargo run --release -p tidemill-store --example apply_speed`.
//!
//! w1: runs of 1 000 rows of one of 1 000 series, two fields. w2: 4 000 hosts x 10 fields, interleaved by time. w3: a
//! million series x 10 rows of one field, interleaved. The disk is simulated: what is measured is CPU.

use std::{cell::Cell, rc::Rc, time::Instant};
use tidemill_disk::sim::{Executor, SimDisk};
use tidemill_line::{Batch, ParseOptions, PartitionMap, Precision, ShardGroupRange, SplitPlan, Splitter};
use tidemill_raft::{LogIndex, Term};
use tidemill_store::{Command, Entry, Partition, ReadCache};

/// Images of bodies of lines.
fn images(bodies: impl Iterator<Item = String>) -> Vec<Vec<u8>> {
    let mut batch = Batch::new(1);
    let mut splitter = Splitter::new();
    let options = ParseOptions { precision: Precision::Nanosecond, now_ns: 0, validate_keys: false };
    let shard_groups = [ShardGroupRange { id: 1, start: 0, end: i64::MAX }];
    let mut all = Vec::new();
    for body in bodies {
        let parsed = batch.parse(body.as_bytes(), &options).expect("a body of usual size");
        assert_eq!(parsed.error_count(), 0);
        let plan = SplitPlan {
            database: 1,
            retention_policy: 1,
            shard_groups: &shard_groups,
            partitions: PartitionMap::single(1),
            session: 0,
            sequence: 0,
        };
        let images = splitter.split(&parsed, &plan, |_, _| true).expect("the plan covers all times");
        all.extend(images.into_iter().map(|image| image.bytes));
    }
    all
}

fn w1(rows: usize) -> Vec<Vec<u8>> {
    images((0..rows / 1000).map(|request| {
        let line = |row: usize| {
            let number = request * 1000 + row;
            let value = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
            let time = 1_600_000_000_000_000_000 + (request / 1000 * 1000 + row) as u64 * 1_000_000_000;
            format!(
                "reference,devgroup=g{},device=device-{:04} value={}.{},state={}i {time}\n",
                request % 100,
                request % 1000,
                value / 100,
                value % 100,
                value % 5
            )
        };
        (0..1000).map(line).collect()
    }))
}

fn w2(rows: usize) -> Vec<Vec<u8>> {
    let hosts = 4000;
    images((0..rows / 5000).map(|request| {
        let line = |row: usize| {
            let number = request * 5000 + row;
            let time = 1_600_000_000_000_000_000 + (number / hosts) as u64 * 10_000_000_000;
            let host = number % hosts;
            let fields: Vec<String> =
                (0..10).map(|field| format!("usage_{field}={}", (number * 7 + field * 13) % 100)).collect();
            format!(
                "cpu,hostname=host_{host},region=eu-west-{},datacenter=dc-{},rack={},os=Ubuntu16.10,arch=x64,team=SF,\
                 service={},service_version=1,service_environment=test {} {time}\n",
                host % 3,
                host % 7,
                host % 100,
                host % 19,
                fields.join(",")
            )
        };
        (0..5000).map(line).collect()
    }))
}

fn w3(series: usize) -> Vec<Vec<u8>> {
    images((0..series * 10 / 5000).map(|request| {
        let line = |row: usize| {
            let number = request * 5000 + row;
            let time = 1_600_000_000_000_000_000 + (number / series) as u64 * 10_000_000_000;
            let one = number % series;
            format!("m,host=host-{one:07},dc=dc{} v={} {time}\n", one % 10, number % 1000)
        };
        (0..5000).map(line).collect()
    }))
}

fn measure(name: &str, rows: usize, images: Vec<Vec<u8>>) {
    let executor = Executor::new(1);
    executor.block_on(async {
        let disk = SimDisk::new(1);
        disk.set_yields(false);
        let cache = Rc::new(ReadCache::new(0));
        let partition = Partition::open(disk, "p".into(), cache, Rc::new(Cell::new(0))).await.expect("an empty disk");
        let started = Instant::now();
        for (at, image) in images.iter().enumerate() {
            partition.apply(Term(1), LogIndex(at as u64 + 1), Some(Entry::Write(image))).expect("a sound image");
        }
        let applied = started.elapsed();
        let figures = partition.figures();
        let started = Instant::now();
        let index = LogIndex(images.len() as u64 + 1);
        partition.apply(Term(1), index, Some(Entry::Command(Command::PLAIN_FLUSH))).expect("a flush");
        let frozen = started.elapsed();
        partition.maintain().await.expect("room");
        let flushed = started.elapsed();
        let per_row = |time: std::time::Duration| time.as_nanos() as f64 / rows as f64;
        println!(
            "{name}: {rows} rows, apply {:.1} ns/row, flush {:.1} ns/row (freeze {:.2} ms); memtable {:.1} B/row, {:.0} \
             B/series; index {:.0} B/series; files {:.2} B/row on disk, {:.0} B/series in memory",
            per_row(applied),
            per_row(flushed),
            frozen.as_secs_f64() * 1e3,
            figures.active_bytes as f64 / rows as f64,
            figures.active_bytes as f64 / figures.series as f64,
            figures.index_bytes as f64 / figures.series as f64,
            partition.figures().disk_bytes as f64 / rows as f64,
            partition.figures().file_bytes as f64 / figures.series as f64,
        );
    });
}

fn main() {
    let chosen = std::env::args().nth(1);
    let is_chosen = |name: &str| chosen.as_deref().is_none_or(|chosen| chosen == name);
    if is_chosen("w1") {
        measure("w1", 2_000_000, w1(2_000_000));
    }
    if is_chosen("w2") {
        measure("w2", 1_000_000, w2(1_000_000));
    }
    if is_chosen("w3") {
        measure("w3", 3_000_000, w3(300_000));
    }
}
