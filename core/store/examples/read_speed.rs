//! What reading costs: `cargo run --release -p tidemill-store --example read_speed`.
//!
//! 1 000 series x 10 000 rows x 2 fields in 40 files: a decode of everything, of one field, a summary by block
//! statistics, and opening cursors. The disk is simulated and the cache holds all: what is measured is CPU.

use std::{cell::Cell, rc::Rc, time::Instant};
use tidemill_column::FieldType;
use tidemill_disk::sim::{Executor, SimDisk};
use tidemill_line::{Batch, ParseOptions, PartitionMap, Precision, ShardGroupRange, SplitPlan, Splitter};
use tidemill_raft::{LogIndex, Term};
use tidemill_store::{
    Batch as Summarised, Command, DatabaseId, Entry, Partition, ReadCache, ScanField, SeriesId, ShardGroupId,
    TagPredicate,
};

const SERIES: usize = 1000;
const FILES: usize = 40;
const ROWS_PER_FILE: usize = 250;

async fn filled(disk: SimDisk) -> Partition<SimDisk> {
    let cache = Rc::new(ReadCache::new(1 << 30));
    let partition = Partition::open(disk, "p".into(), cache, Rc::new(Cell::new(0))).await.expect("an empty disk");
    let (mut batch, mut splitter) = (Batch::new(1), Splitter::new());
    let options = ParseOptions { precision: Precision::Nanosecond, now_ns: 0, validate_keys: false };
    let shard_groups = [ShardGroupRange { id: 1, start: 0, end: i64::MAX }];
    let plan = SplitPlan {
        database: 1,
        retention_policy: 1,
        shard_groups: &shard_groups,
        partitions: PartitionMap::single(1),
        session: 0,
        sequence: 0,
    };
    let mut index = LogIndex(0);
    for file in 0..FILES {
        for series in 0..SERIES {
            let line = |row: usize| {
                let number = file * ROWS_PER_FILE + row;
                let value = (number as u64 + series as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
                let time = 1_600_000_000_000_000_000 + number as u64 * 1_000_000_000;
                let (whole, part) = (value / 100, value % 100);
                format!("m,device=device-{series:04} value={whole}.{part},state={}i {time}\n", value % 5)
            };
            let body: String = (0..ROWS_PER_FILE).map(line).collect();
            let parsed = batch.parse(body.as_bytes(), &options).expect("a body of usual size");
            for image in splitter.split(&parsed, &plan, |_, _| true).expect("the plan covers all times") {
                index = index.next();
                partition.apply(Term(1), index, Some(Entry::Write(&image.bytes))).expect("a sound image");
            }
        }
        index = index.next();
        partition.apply(Term(1), index, Some(Entry::Command(Command::PLAIN_FLUSH))).expect("a flush");
        partition.maintain().await.expect("room");
    }
    partition
}

fn fields(partition: &Partition<SimDisk>, names: &[&str]) -> Rc<[ScanField]> {
    let index = partition.index(DatabaseId(1)).expect("a database");
    names.iter().map(|name| ScanField::of(&index, b"m", name.as_bytes())).collect()
}

async fn scan(partition: &Partition<SimDisk>, names: &[&str], descending: bool) {
    let fields = fields(partition, names);
    let series: Vec<u32> =
        partition.index(DatabaseId(1)).expect("a database").select(b"m", &TagPredicate::All).iter().collect();
    let view = partition.view(&[ShardGroupId(1)]);
    let (mut rows, mut opening) = (0, 0);
    let started = Instant::now();
    for id in &series {
        let opened = Instant::now();
        let mut cursor =
            partition.cursor(&view, DatabaseId(1), SeriesId(*id), &fields, (i64::MIN, i64::MAX), descending);
        opening += opened.elapsed().as_nanos();
        while let Some(points) = cursor.next().await.expect("sound files") {
            rows += points.len();
        }
    }
    let direction = if descending { "descending" } else { "ascending" };
    println!(
        "decode of {names:?} {direction}: {:.1} ns/row over {rows} rows, cursor open {:.2} us",
        started.elapsed().as_nanos() as f64 / rows as f64,
        opening as f64 / 1e3 / series.len() as f64,
    );
}

/// Counts by block statistics alone.
async fn summarise(partition: &Partition<SimDisk>) {
    let fields = fields(partition, &["value", "state"]);
    let series: Vec<u32> =
        partition.index(DatabaseId(1)).expect("a database").select(b"m", &TagPredicate::All).iter().collect();
    let view = partition.view(&[ShardGroupId(1)]);
    let types = [FieldType::Float, FieldType::Integer];
    let (mut values, mut rows) = (0, 0);
    let started = Instant::now();
    for id in &series {
        let mut cursor = partition.cursor(&view, DatabaseId(1), SeriesId(*id), &fields, (i64::MIN, i64::MAX), false);
        while let Some(batch) = cursor.next_with(&types, &mut |_, _| true).await.expect("sound files") {
            match batch {
                Summarised::Points(points) => rows += points.len(),
                Summarised::Summary(summary) => {
                    values += summary.iter().flatten().map(|one| u64::from(one.count)).sum::<u64>();
                }
            }
        }
    }
    println!(
        "summary: {values} values without a read, {rows} rows decoded, {:.2} ms",
        started.elapsed().as_secs_f64() * 1e3
    );
}

fn main() {
    Executor::new(1).block_on(async {
        let disk = SimDisk::new(1);
        disk.set_yields(false);
        let partition = filled(disk).await;
        println!("{:?}", partition.figures());
        for _ in 0..2 {
            scan(&partition, &["value"], false).await;
            scan(&partition, &["value", "state"], false).await;
        }
        scan(&partition, &["value", "state"], true).await;
        summarise(&partition).await;
        summarise(&partition).await;
    });
}
