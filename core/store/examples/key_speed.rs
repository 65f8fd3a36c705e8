//! What keys cost: `cargo run --release -p tidemill-store --example key_speed`.
//!
//! A file of a million keys: bytes in memory a key, opening the partition, and reading series by chance and in the order
//! of their keys, with a cache that holds all pages and one that holds few. The disk is simulated: what is measured is
//! CPU; reads of the disk are counted.

use std::{cell::Cell, rc::Rc, time::Instant};
use tidemill_disk::sim::{Executor, Prng, SimDisk};
use tidemill_line::{Batch, ParseOptions, PartitionMap, Precision, ShardGroupRange, SplitPlan, Splitter};
use tidemill_raft::{LogIndex, Term};
use tidemill_store::{
    Command, DatabaseId, Entry, Partition, ReadCache, ScanField, SeriesId, ShardGroupId, TagPredicate,
};

const SERIES: usize = 1_000_000;
const SERIES_PER_BODY: usize = 10_000;

async fn open(disk: &SimDisk, cache_bytes: usize) -> (Partition<SimDisk>, Rc<ReadCache>) {
    let cache = Rc::new(ReadCache::new(cache_bytes));
    let partition = Partition::open(disk.clone(), "p".into(), cache.clone(), Rc::new(Cell::new(0))).await;
    (partition.expect("a sound disk"), cache)
}

async fn fill(disk: &SimDisk) {
    let (partition, _) = open(disk, 0).await;
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
    for body in 0..SERIES / SERIES_PER_BODY {
        let line = |row: usize| {
            let series = body * SERIES_PER_BODY + row;
            format!(
                "m,host=host-{series:07},region=region-{:03} value={}.5 1600000000000000000\n",
                series % 100,
                series % 17
            )
        };
        let text: String = (0..SERIES_PER_BODY).map(line).collect();
        let parsed = batch.parse(text.as_bytes(), &options).expect("a body of usual size");
        for image in splitter.split(&parsed, &plan, |_, _| true).expect("the plan covers all times") {
            index = index.next();
            partition.apply(Term(1), index, Some(Entry::Write(&image.bytes))).expect("a sound image");
        }
    }
    partition.apply(Term(1), index.next(), Some(Entry::Command(Command::PLAIN_FLUSH))).expect("a flush");
    partition.maintain().await.expect("room");
}

async fn read(partition: &Partition<SimDisk>, cache: &ReadCache, series: &[u32], what: &str) {
    let fields: Rc<[ScanField]> = {
        let index = partition.index(DatabaseId(1)).expect("a database");
        Rc::new([ScanField::of(&index, b"m", b"value")])
    };
    let view = partition.view(&[ShardGroupId(1)]);
    let before = cache.figures();
    let started = Instant::now();
    let mut rows = 0;
    for id in series {
        let mut cursor = partition.cursor(&view, DatabaseId(1), SeriesId(*id), &fields, (i64::MIN, i64::MAX), false);
        while let Some(points) = cursor.next().await.expect("sound files") {
            rows += points.len();
        }
    }
    let after = cache.figures();
    println!(
        "{what}: {:.2} us a series, {rows} rows, {} reads of the disk, {} MiB in the cache",
        started.elapsed().as_secs_f64() * 1e6 / series.len() as f64,
        after.misses - before.misses,
        after.bytes >> 20,
    );
}

fn main() {
    Executor::new(1).block_on(async {
        let disk = SimDisk::new(1);
        disk.set_yields(false);
        fill(&disk).await;
        for cache_bytes in [1 << 30, 4 << 20] {
            let started = Instant::now();
            let (partition, cache) = open(&disk, cache_bytes).await;
            let figures = partition.figures();
            println!(
                "cache of {} MiB: opened in {:.0} ms, {} files of {} MiB, {:.2} bytes a key in memory",
                cache_bytes >> 20,
                started.elapsed().as_secs_f64() * 1e3,
                figures.files,
                figures.disk_bytes >> 20,
                figures.file_bytes as f64 / SERIES as f64,
            );
            let all: Vec<u32> = {
                let index = partition.index(DatabaseId(1)).expect("a database");
                index.select(b"m", &TagPredicate::All).iter().collect()
            };
            let mut prng = Prng::new(1);
            let some: Vec<u32> = (0..100_000).map(|_| all[prng.below(all.len() as u64) as usize]).collect();
            read(&partition, &cache, &some, "by chance, once").await;
            read(&partition, &cache, &some, "by chance, again").await;
            read(&partition, &cache, &all, "all in order").await;
        }
    });
}
