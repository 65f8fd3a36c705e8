//! The resident memory of the process, and what to do when it comes near the limit.
//!
//! Owns: the newest measurement and its thresholds. The parts of [`super::budget`] are counted where they are held;
//! that sum leaves out the allocator's own and whatever a counter does not see, and the operator promised the machine a
//! limit on what the process takes. So the process is measured, too, and the nearer it is to the limit the more is
//! refused, in this order: new series, what queries ask for, writes.
//!
//! It also keeps the allocator from holding what was given back to it. glibc's keeps freed memory for later unless told
//! otherwise: measured after a storm of queries at a limit of 192 MiB, 150 MiB that nobody used, and a server that
//! refused everything for ever. So large blocks go to the system as soon as they are freed, and when the process is near
//! its limit the holes between small ones are given back, too.
//! Knows nothing of who holds what.

use crate::side_thread;
use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Of the limit, in 32nds: from here on each of them is refused. Between two measurements a core takes a few MiB.
const SERIES_REFUSED_AT: u64 = 29;
const QUERIES_REFUSED_AT: u64 = 30;
const WRITES_REFUSED_AT: u64 = 31;
const WHOLE: u64 = 32;
/// From here on the gauge is read more often.
const NEAR: u64 = 24;

/// How often the process is measured, and how often when it is near its limit.
const MEASURE_EVERY: Duration = Duration::from_millis(100);
const MEASURE_EVERY_NEAR: Duration = Duration::from_millis(10);
/// Giving back holes costs some milliseconds for each 100 MiB.
const TRIM_EVERY: Duration = Duration::from_millis(500);
/// Blocks from this size on are the system's again when they are freed; without a fixed size the allocator raises it to
/// 32 MiB by itself.
const SYSTEM_BLOCK_BYTES: libc::c_int = 256 << 10;

/// Tells the allocator what it may keep. Before other threads are made.
pub fn bound_allocator(cores: usize) {
    // The cores and one for all other threads: more of them are more places with holes.
    let arenas = libc::c_int::try_from(cores + 1).unwrap_or(libc::c_int::MAX);
    for (option, value) in [
        (libc::M_ARENA_MAX, arenas),
        (libc::M_MMAP_THRESHOLD, SYSTEM_BLOCK_BYTES),
        (libc::M_TRIM_THRESHOLD, SYSTEM_BLOCK_BYTES),
    ] {
        // SAFETY: sets a number of the allocator; it is documented for any time.
        if unsafe { libc::mallopt(option, value) } == 0 {
            tracing::warn!(option, value, "the allocator does not take an option");
        }
    }
}

/// Shared by all cores.
#[derive(Debug)]
pub struct MemoryGauge {
    limit_bytes: u64,
    page_bytes: u64,
    resident_bytes: AtomicU64,
    resident_bytes_max: AtomicU64,
}

impl MemoryGauge {
    pub fn new(limit_bytes: u64) -> MemoryGauge {
        // SAFETY: only reads a constant of the system.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let gauge = MemoryGauge {
            limit_bytes,
            page_bytes: page_bytes.max(4096) as u64,
            resident_bytes: AtomicU64::new(0),
            resident_bytes_max: AtomicU64::new(0),
        };
        gauge.measure();
        gauge
    }

    /// Measures until nobody else holds the gauge, on a thread of its own: giving back holes must not hold up a core.
    pub fn watch(self: &Arc<MemoryGauge>) -> io::Result<()> {
        let gauge = Arc::downgrade(self);
        let watch = move || {
            let mut trimmed = Instant::now();
            while let Some(gauge) = gauge.upgrade() {
                gauge.measure();
                if gauge.refuses_series() && trimmed.elapsed() > TRIM_EVERY {
                    // SAFETY: only the allocator's free memory changes hands.
                    unsafe { libc::malloc_trim(0) };
                    trimmed = Instant::now();
                    gauge.measure();
                }
                let pause = if gauge.is_near() { MEASURE_EVERY_NEAR } else { MEASURE_EVERY };
                drop(gauge);
                thread::sleep(pause);
            }
        };
        side_thread::spawn("memory-gauge", watch)
    }

    /// Reads the size of the process: some microseconds. A kernel that does not tell leaves the parts alone to hold the
    /// limit.
    pub fn measure(&self) {
        let Ok(text) = fs::read_to_string("/proc/self/statm") else { return };
        if let Some(pages) = resident_pages(&text) {
            let bytes = pages.saturating_mul(self.page_bytes);
            self.resident_bytes.store(bytes, Ordering::Relaxed);
            self.resident_bytes_max.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// As measured last.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_bytes.load(Ordering::Relaxed)
    }

    /// The largest measurement so far.
    pub fn resident_bytes_max(&self) -> u64 {
        self.resident_bytes_max.load(Ordering::Relaxed)
    }

    /// Worth looking at more often.
    pub fn is_near(&self) -> bool {
        self.is_above(NEAR)
    }

    pub fn refuses_series(&self) -> bool {
        self.is_above(SERIES_REFUSED_AT)
    }

    pub fn refuses_queries(&self) -> bool {
        self.is_above(QUERIES_REFUSED_AT)
    }

    pub fn refuses_writes(&self) -> bool {
        self.is_above(WRITES_REFUSED_AT)
    }

    fn is_above(&self, part: u64) -> bool {
        self.resident_bytes() > self.limit_bytes / WHOLE * part
    }
}

/// The second field of `/proc/self/statm` (proc_pid_statm(5)).
fn resident_pages(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_measured_and_more_is_refused_the_larger_it_is() {
        let gauge = MemoryGauge::new(u64::MAX);
        assert!(gauge.resident_bytes() > 100_000 && gauge.resident_bytes_max() >= gauge.resident_bytes());
        assert!(!gauge.is_near() && !gauge.refuses_series());
        let limit = gauge.resident_bytes() / 59 * 64;
        let gauge = MemoryGauge { limit_bytes: limit, ..gauge };
        assert!(gauge.is_near() && gauge.refuses_series() && !gauge.refuses_queries() && !gauge.refuses_writes());
        let gauge = MemoryGauge { limit_bytes: limit / 2, ..gauge };
        assert!(gauge.refuses_queries() && gauge.refuses_writes());
    }

    #[test]
    fn a_line_of_statm() {
        assert_eq!(resident_pages("1000 234 50 1 0 600 0\n"), Some(234));
        assert_eq!(resident_pages(""), None);
    }
}
