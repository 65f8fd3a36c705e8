//! Histograms, processor time, processors: what all candidates are measured with.

use anyhow::{Context, Result};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2Serializer},
};
use std::time::Duration;

/// What is measured at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Proposals in flight, in the whole cluster.
    pub window: usize,
    pub payload_bytes: usize,
    pub warm_up: Duration,
    pub length: Duration,
}

/// What came of it.
pub struct Figures {
    pub commits: u64,
    pub seconds: f64,
    /// From the proposal, or the first byte of the request, to the answer; nanoseconds.
    pub latency: Histogram<u64>,
    /// Processor seconds of all nodes, and of a client beside them.
    pub cpu_seconds: f64,
    pub client_cpu_seconds: f64,
    pub note: String,
}

impl Figures {
    pub fn commits_per_second(&self) -> f64 {
        self.commits as f64 / self.seconds
    }

    pub fn ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }

    pub fn bytes_per_second(&self, payload_bytes: usize) -> f64 {
        self.commits_per_second() * payload_bytes as f64
    }
}

/// Nanoseconds up to a minute, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("the bounds are constants")
}

pub fn to_hex(histogram: &Histogram<u64>) -> Result<String> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub fn from_hex(text: &str) -> Result<Histogram<u64>> {
    let digits = (0..text.len() / 2).map(|at| text.get(2 * at..2 * at + 2).context("hexadecimal digits"));
    let bytes: Vec<u8> = digits.map(|pair| Ok(u8::from_str_radix(pair?, 16)?)).collect::<Result<_>>()?;
    Deserializer::new().deserialize(&mut &bytes[..]).map_err(|error| anyhow::anyhow!("{error:?}"))
}

/// Processor seconds of this process.
pub fn own_cpu_seconds() -> f64 {
    // SAFETY: the structure is plain integers, all zero is one of its values, and the kernel fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Processor seconds of another process since its start.
pub fn cpu_seconds_of(process: u32) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name in parentheses may hold anything; user and system time are the 12th and 13th field behind it.
    let fields: Vec<&str> = text.rsplit_once(") ").context("a stat line")?.1.split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).context("a stat field");
    // SAFETY: asks for a number.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Ok((ticks(11)? + ticks(12)?) / ticks_per_second)
}

/// Processors that this process may use.
pub fn processors() -> Vec<usize> {
    // SAFETY: an empty set is all zero; the set lives through the calls.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &raw mut set);
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &set)).collect()
    }
}

/// Keeps the calling thread, and those that it starts, on one processor.
pub fn pin(processor: usize) {
    // SAFETY: as above.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_come_back_from_their_text() {
        let mut written = histogram();
        [1_000, 5_000_000, 59_000_000_000].into_iter().for_each(|value| written.saturating_record(value));
        assert_eq!(from_hex(&to_hex(&written).unwrap()).unwrap(), written);
        assert!(from_hex("zz").is_err() && from_hex("00").is_err());
    }

    #[test]
    fn a_busy_process_has_used_processor_time() {
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        assert!(own_cpu_seconds() > 0.0);
        assert!(cpu_seconds_of(std::process::id()).unwrap() > 0.0);
        assert!(!processors().is_empty());
    }
}
