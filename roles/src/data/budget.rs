//! What a core may hold in memory.
//!
//! The limit of the process is cut into shares per core, and a share into named parts; a part is a promise of whoever
//! takes it, counted where it is held. What does not fit is refused with the name of the part.
//!
//! | part | of the share | what it is, and what happens at its end |
//! |---|---|---|
//! | `io` | 2/32, at most 16 MiB | buffers that are registered with the core's rings; reads and flushes wait for one |
//! | `rows` | 6/32 | rows that are in no file yet; writes slow from 3/4 of it on, then 503 |
//! | `bodies` | 2/32 | bodies of requests, decompressed; 503. A single body may be as long as this |
//! | `parsing` | 4/32 | parsed bodies and what they are cut into; 503, or 413 for a body that would never fit |
//! | `log-queue` | 2/32 | entries between their proposal and their application; 503 |
//! | `index` | 6/32 | series and their postings, values of tags that are counted; new series are refused by name, known ones go on |
//! | `files` | 4/32, at most 512 MiB of it for blocks | indexes of open files and blocks read from them; the least used go |
//! | `queries` | 4/32, of all cores together | what queries hold, answers under way included; the query fails, and says so |
//!
//! The other 2/32 are for what nobody counts: the program, stacks, connections, the allocator's own. Because such a sum
//! can be wrong, the resident memory of the process is measured as well ([`super::memory_gauge`]).

/// Parts of a share.
const PARTS: usize = 32;
const IO_BYTES_MAX: usize = 16 << 20;
/// The executor registers no less.
const IO_BYTES_MIN: usize = 1 << 20;
/// Rows that a core gathers before it writes files: more makes no larger blocks, and a restart replays it.
const MEMTABLE_BYTES_MAX: usize = 64 << 20;
const MEMTABLE_BYTES_MIN: usize = 1 << 20;
/// Blocks of files: the working set of dashboards.
const CACHE_BYTES_MAX: usize = 512 << 20;
/// From this part of its share on, writes are slowed.
const SLOW_NUMERATOR: usize = 3;
const SLOW_DENOMINATOR: usize = 4;
/// A write just before the limit waits so long; the wait grows linearly up to it.
const SLOW_MS_MAX: u64 = 50;
/// What a connection without a request takes: its task, and a buffer of 8 KiB for a head.
const CONNECTION_BYTES: usize = 16 << 10;

/// Shares of one core, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub io_bytes: usize,
    /// Rows in active and frozen memtables; past it writes are refused.
    pub rows_bytes_max: usize,
    /// Rows in active memtables that make the core write files.
    pub memtable_bytes_max: usize,
    pub bodies_bytes_max: usize,
    pub parsing_bytes_max: usize,
    pub log_queue_bytes_max: usize,
    pub index_bytes_max: usize,
    pub files_bytes_max: usize,
    /// Blocks of files, a part of `files_bytes_max`.
    pub cache_bytes_max: usize,
    /// Connections that the core has open, where the configuration does not say.
    pub connection_count_max: usize,
}

/// Whether a write may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Now,
    /// After so many milliseconds.
    After(u64),
    /// Not now: 503.
    Refused,
}

impl Budget {
    pub fn new(memory_limit_bytes: u64, cores: usize) -> Budget {
        let share = (memory_limit_bytes / cores as u64) as usize;
        let part = share / PARTS;
        let rows_bytes_max = 6 * part;
        let files_bytes_max = 4 * part;
        Budget {
            io_bytes: (2 * part).clamp(IO_BYTES_MIN, IO_BYTES_MAX),
            rows_bytes_max,
            memtable_bytes_max: (rows_bytes_max / 2).clamp(MEMTABLE_BYTES_MIN, MEMTABLE_BYTES_MAX),
            bodies_bytes_max: 2 * part,
            parsing_bytes_max: 4 * part,
            log_queue_bytes_max: 2 * part,
            index_bytes_max: 6 * part,
            files_bytes_max,
            cache_bytes_max: (files_bytes_max / 2).min(CACHE_BYTES_MAX),
            connection_count_max: part / CONNECTION_BYTES,
        }
    }

    /// What all queries of the process may hold together.
    pub fn queries_bytes_max(memory_limit_bytes: u64) -> u64 {
        memory_limit_bytes / PARTS as u64 * 4
    }

    /// The answer to a write while the core holds `rows_bytes` of rows.
    pub fn admit(&self, rows_bytes: usize) -> Admission {
        let slow = self.rows_bytes_max / SLOW_DENOMINATOR * SLOW_NUMERATOR;
        if rows_bytes < slow {
            return Admission::Now;
        }
        if rows_bytes >= self.rows_bytes_max {
            return Admission::Refused;
        }
        let above = (rows_bytes - slow) as u64;
        Admission::After(1 + above * SLOW_MS_MAX / (self.rows_bytes_max - slow) as u64)
    }
}

/// Bytes that parsing a body takes beside it, with the images that it is cut into: rows and values in columns, twice. A
/// line takes 24 bytes whatever is in it, 8 more for each value, and so much again in its image, where the key of each
/// series stands as well; buffers double as they grow.
pub fn parsing_bytes(body: &[u8]) -> usize {
    let lines = memchr::memchr_iter(b'\n', body).count() + 1;
    2 * body.len() + 64 * lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admission_slows_before_it_refuses() {
        let budget = Budget::new(1 << 30, 2);
        let full = budget.rows_bytes_max;
        assert_eq!(budget.admit(0), Admission::Now);
        assert_eq!(budget.admit(full), Admission::Refused);
        let waits: Vec<u64> = (75..100)
            .map(|percent| match budget.admit(full / 100 * percent + 100) {
                Admission::After(ms) => ms,
                other => panic!("{percent}: {other:?}"),
            })
            .collect();
        assert!(waits.is_sorted() && waits[24] > 40, "{waits:?}");
    }

    #[test]
    fn the_parts_fit_into_every_limit_and_leave_something() {
        for (limit, cores) in [(64u64 << 20, 1), (64 << 20, 4), (192 << 20, 2), (1 << 30, 2), (64 << 30, 8)] {
            let budget = Budget::new(limit, cores);
            assert!(budget.memtable_bytes_max <= budget.rows_bytes_max && budget.connection_count_max > 0);
            let core = budget.io_bytes
                + budget.rows_bytes_max
                + budget.bodies_bytes_max
                + budget.parsing_bytes_max
                + budget.log_queue_bytes_max
                + budget.index_bytes_max
                + budget.files_bytes_max;
            let all = core as u64 * cores as u64 + Budget::queries_bytes_max(limit);
            assert!(all <= limit / 32 * 30 && budget.cache_bytes_max <= budget.files_bytes_max, "{limit} {cores}");
        }
    }

    #[test]
    fn parsing_is_counted_with_its_lines() {
        assert_eq!(parsing_bytes(b"m v=1 1\nm v=1 2"), 2 * 15 + 128);
    }
}
