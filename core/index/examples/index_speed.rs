//! What an index of many series costs: `cargo run --release -p tidemill-index --example index_speed -- 10000000`.
//!
//! The series are spread over 16 partitions by their hash, as the server does it. For each of two shapes (a host of its
//! own for each series, and ten series a host): bytes a series by the index's word and by the process, the rate of new
//! series and the longest single one, the bytes of the file, and the time of a restart on two threads.

use std::time::{Duration, Instant};
use tidemill_index::{Delta, ImageReader, ImageWriter, SeriesIndex, Written};
use xxhash_rust::xxh3::xxh3_64;

const PARTITIONS: usize = 16;

fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

/// CPU seconds of the process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    // Of hundred ticks a second (proc_pid_stat(5)).
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn image(index: &mut SeriesIndex) -> (Vec<u8>, (u64, u32)) {
    let mut writer = ImageWriter::begin();
    let mark = index.mark();
    let (born, series, fields, epoch) = (mark.born, mark.series, mark.fields, mark.epoch);
    let mut delta = Delta::new(1, mark, None);
    while delta.push_next(index, &mut writer) {}
    writer.push_state(1, index, (series, fields), &Default::default());
    writer.push_commit([(1, Written { born, series, fields, epoch, version: 0 })].into_iter());
    (std::mem::take(writer.pending()), writer.end())
}

fn restore(bytes: &[u8], end: (u64, u32)) -> SeriesIndex {
    let (mut reader, mut at) = (ImageReader::default(), 0);
    while at < bytes.len() {
        at += reader.read_frame(&bytes[at..]).expect("it was just written");
    }
    reader.finish(end.0, end.1).expect("it was just written").indexes.remove(0).finish().expect("keys are there once")
}

fn measure(name: &str, count: usize, key: impl Fn(usize) -> String) {
    let before = rss_bytes();
    let mut partitions: Vec<SeriesIndex> = (0..PARTITIONS).map(|_| SeriesIndex::born_at(1)).collect();
    let (mut longest, mut inserting) = (Duration::ZERO, Duration::ZERO);
    for first in (0..count).step_by(5000) {
        let keys: Vec<String> = (first..count.min(first + 5000)).map(&key).collect();
        for key in &keys {
            let hash = xxh3_64(key.as_bytes());
            let partition = &mut partitions[(hash >> 60) as usize];
            let started = Instant::now();
            let id = partition.insert(hash, key.as_bytes());
            partition.watermarks_mut(1).raise(id, 1_600_000_000_000_000_000 + i64::from(id.0 % 1000));
            let took = started.elapsed();
            inserting += took;
            longest = longest.max(took);
        }
    }
    let said: usize = partitions.iter().map(SeriesIndex::byte_size).sum();
    let grown = rss_bytes() - before;
    let images: Vec<_> = partitions.iter_mut().map(image).collect();
    drop(partitions);
    let bytes: usize = images.iter().map(|(bytes, _)| bytes.len()).sum();
    let (started, cpu_before) = (Instant::now(), cpu_seconds());
    std::thread::scope(|scope| {
        for half in images.chunks(PARTITIONS / 2) {
            // A name of their own, so that a profiler tells them apart.
            let thread = std::thread::Builder::new().name("restore".to_owned());
            let spawned = thread.spawn_scoped(scope, move || {
                let restored: Vec<SeriesIndex> = half.iter().map(|(bytes, end)| restore(bytes, *end)).collect();
                std::hint::black_box(&restored);
            });
            spawned.expect("a thread can be made");
        }
    });
    println!(
        "{name}: {count} series, {:.1} bytes a series ({:.1} of the process), {:.2} M new series a second, the longest \
         {:.2} ms; file {:.1} bytes a series; restored by two threads in {:.2} s, {:.2} CPU s",
        said as f64 / count as f64,
        grown as f64 / count as f64,
        count as f64 / inserting.as_secs_f64() / 1e6,
        longest.as_secs_f64() * 1e3,
        bytes as f64 / count as f64,
        started.elapsed().as_secs_f64(),
        cpu_seconds() - cpu_before,
    );
}

fn main() {
    let count = std::env::args().nth(1).map_or(1_000_000, |count| count.parse().expect("a number of series"));
    measure("a host of its own", count, |number| format!("m,dc=dc{},host=host_{number:07}", number % 10));
    measure("ten series a host", count, |number| format!("m,dev=sd{},host=host_{:07}", number % 10, number / 10));
}
