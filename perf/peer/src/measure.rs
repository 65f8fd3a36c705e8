//! Processor time, histograms, threads on cores: what every candidate is measured with.

use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Wall and processor time of the whole process since its making.
pub struct Meter {
    start: Instant,
    cpu: Duration,
}

impl Meter {
    pub fn start() -> Meter {
        Meter { start: Instant::now(), cpu: cpu_time() }
    }

    /// Wall and processor seconds.
    pub fn seconds(&self) -> (f64, f64) {
        (self.start.elapsed().as_secs_f64(), (cpu_time() - self.cpu).as_secs_f64())
    }
}

fn cpu_time() -> Duration {
    // SAFETY: the structure is plain integers, all zero is one of its values, and the kernel fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Nanoseconds up to ten seconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 10_000_000_000, 3).expect("the bounds are constants")
}

/// Keeps the calling thread on one core.
pub fn pin(core: usize) {
    // SAFETY: an empty set is all zero; the set lives through the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}

/// One run of moving bytes.
pub struct Bulk {
    pub bytes: u64,
    pub wall: f64,
    pub cpu: f64,
    pub note: String,
}

impl Bulk {
    pub fn print(&self, name: &str, mtu: u16) {
        let gib = self.bytes as f64 / (1u64 << 30) as f64;
        println!(
            "{name:<16} mtu {mtu:<5} {:>7.0} MB/s {:>7.3} CPU-s/GiB  {}",
            self.bytes as f64 / self.wall / 1e6,
            self.cpu / gib,
            self.note
        );
    }
}

/// One run of questions and answers.
pub struct Small {
    pub latency: Histogram<u64>,
    pub wall: f64,
    pub cpu: f64,
}

impl Small {
    pub fn print(&self, name: &str, window: usize) {
        let us = |quantile: f64| self.latency.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "{name:<16} window {window:<4} p50 {:>7.1} us  p90 {:>7.1}  p99 {:>7.1}  p99.9 {:>8.1}  {:>8.0} messages/s  {:>5.1} CPU-us/message",
            us(0.5),
            us(0.9),
            us(0.99),
            us(0.999),
            self.latency.len() as f64 / self.wall,
            self.cpu * 1e6 / self.latency.len() as f64
        );
    }
}
