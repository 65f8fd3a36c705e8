//! Speed of the parser on one core, alone and with the split: `cargo run --release -p tidemill-line --example parse_speed`,
//! optionally with `W1`, `W2` or `W3` for one workload alone.
//!
//! The three workloads are those of the performance goals: W1, one series after the other with two fields; W2, ten tags
//! and ten fields of interleaved hosts; W3, every row another of a million series. Bodies have the size that clients
//! send, and all bodies of a workload together do not fit the caches.

use std::fmt::Write;
use std::time::{Duration, Instant};

use tidemill_line::{
    Batch, ParseOptions, PartitionBatch, PartitionMap, Precision, ShardGroupRange, SplitPlan, Splitter,
};

struct Workload {
    name: &'static str,
    bodies: Vec<Vec<u8>>,
    rows: usize,
    precision: Precision,
}

fn main() {
    for workload in [devices(1_000), devices(5_000), hosts(), series(5_000), series(400_000)] {
        if std::env::args().nth(1).is_none_or(|wanted| workload.name.starts_with(&wanted)) {
            measure(&workload);
        }
    }
}

/// A linear congruential generator: the bytes are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn devices(rows_per_body: usize) -> Workload {
    let mut numbers = Numbers(1);
    let bodies = (0..500_000 / rows_per_body)
        .map(|device| {
            let mut body = String::new();
            for row in 0..rows_per_body {
                let (id, time) = (device + 1, 1_563_249_700_000 + row * 1_000);
                let humidity = numbers.below(400_000) as f64 / 10_000.0;
                let group = id % 100;
                let temperature = numbers.below(100);
                let _ = writeln!(
                    body,
                    "devices,devgroup={group},devid={id},devname=dev_{id} humidity={humidity:.4},temperature={temperature}i {time}",
                );
            }
            body.into_bytes()
        })
        .collect();
    let name = if rows_per_body == 1_000 { "W1 1000 rows a body" } else { "W1 5000 rows a body" };
    Workload { name, bodies, rows: 500_000, precision: Precision::Millisecond }
}

fn hosts() -> Workload {
    let mut numbers = Numbers(2);
    let fields = ["user", "system", "idle", "nice", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];
    let bodies = (0..100)
        .map(|step| {
            let mut body = String::new();
            for host in 0..1_000 {
                let _ = write!(
                    body,
                    "cpu,arch=x64,datacenter=eu-central-1a,hostname=host_{host},os=Ubuntu16.10,rack={},region=eu-central-1,\
                     service={},service_environment=test,service_version=1,team=SF",
                    host % 100,
                    host % 20
                );
                for (index, field) in fields.iter().enumerate() {
                    let separator = if index == 0 { ' ' } else { ',' };
                    let _ = write!(body, "{separator}usage_{field}={}", numbers.below(101));
                }
                let _ = writeln!(body, " {}", 1_451_606_400_000_000_000u64 + step * 10_000_000_000);
            }
            body.into_bytes()
        })
        .collect();
    Workload { name: "W2 1000 hosts interleaved", bodies, rows: 100_000, precision: Precision::Nanosecond }
}

fn series(rows_per_body: usize) -> Workload {
    let mut numbers = Numbers(3);
    let bodies = (0..800_000 / rows_per_body)
        .map(|body_index| {
            let mut body = String::new();
            for row in 0..rows_per_body {
                let id = (body_index * rows_per_body + row) * 7_919 % 1_000_000;
                let value = numbers.below(1_000_000);
                let _ = writeln!(body, "m,id=s{id},zone=z{} v={value} 1563249700000000000", id % 50);
            }
            body.into_bytes()
        })
        .collect();
    let name = if rows_per_body == 5_000 { "W3 5000 series a body" } else { "W3 400000 series a body" };
    Workload { name, bodies, rows: 800_000, precision: Precision::Nanosecond }
}

fn measure(workload: &Workload) {
    let bytes: usize = workload.bodies.iter().map(Vec::len).sum();
    let mut batch = Batch::new(42);
    let options = ParseOptions { precision: workload.precision, now_ns: 0, validate_keys: false };
    let mut checked = 0;
    let parse = best_of(|| {
        checked = 0;
        for body in &workload.bodies {
            let Ok(parsed) = batch.parse(body, &options) else { continue };
            assert_eq!(parsed.error_count(), 0);
            checked += parsed.rows().len();
        }
    });
    assert_eq!(checked, workload.rows);
    report(workload, "parse", bytes, parse);

    let all = [ShardGroupRange { id: 1, start: i64::MIN, end: i64::MAX }];
    let plan = SplitPlan {
        database: 1,
        retention_policy: 1,
        shard_groups: &all,
        partitions: PartitionMap::single(16),
        session: 1,
        sequence: 1,
    };
    let mut splitter = Splitter::new();
    let mut images = Vec::new();
    let split = best_of(|| {
        for body in &workload.bodies {
            let Ok(parsed) = batch.parse(body, &options) else { continue };
            images = splitter.split(&parsed, &plan, |_, _| true).unwrap_or_default();
        }
    });
    report(workload, "parse + split", bytes, split);
    // The images of one body over and over: the check that the owning core makes.
    let repeats = 20 * workload.bodies.len();
    let image_bytes = repeats * images.iter().map(|image| image.bytes.len()).sum::<usize>();
    let check = best_of(|| {
        for _ in 0..repeats {
            for image in &images {
                assert!(PartitionBatch::parse(&image.bytes).is_ok());
            }
        }
    });
    report(workload, "check images", image_bytes / 20, check / 20);
}

fn best_of(mut run: impl FnMut()) -> Duration {
    let timed = |run: &mut dyn FnMut()| {
        let (start, start_on_cpu) = (Instant::now(), on_cpu());
        run();
        match (start_on_cpu, on_cpu()) {
            (Some(start), Some(end)) => end.saturating_sub(start),
            _ => start.elapsed(),
        }
    };
    (0..9).map(|_| timed(&mut run)).min().unwrap_or_default()
}

/// Time that this thread ran on a core, so that the other work of the machine does not count; Linux tells.
fn on_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn report(workload: &Workload, what: &str, bytes: usize, time: Duration) {
    let seconds = time.as_secs_f64();
    println!(
        "{:26} {what:13} {:7.0} MB/s {:6.2} M rows/s {:6.1} ns/row",
        workload.name,
        bytes as f64 / seconds / 1e6,
        workload.rows as f64 / seconds / 1e6,
        seconds * 1e9 / workload.rows as f64,
    );
}
