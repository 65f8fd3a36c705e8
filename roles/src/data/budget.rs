//! What a core may hold in memory.
//!
//! The limit of the process is cut into shares per core; a share is a promise of the part that takes it. Tables, from
//! which each part's share follows:
//!
//! | part | share of the limit | why |
//! |---|---|---|
//! | rows not yet in files | 1/3 | the only part that grows with the speed of writes; admission slows from 3/4 of it on |
//! | active memtables | at most 64 MiB a core of these | more makes no larger blocks, and a restart replays it |
//! | blocks read from files | 1/8, at most 128 MiB a core | the working set of dashboards |

/// Rows that a core gathers before it writes files.
const MEMTABLE_BYTES_MAX: usize = 64 << 20;
const MEMTABLE_BYTES_MIN: usize = 1 << 20;
const CACHE_BYTES_MAX: usize = 128 << 20;
/// From this part of its share on, writes are slowed.
const SLOW_NUMERATOR: usize = 3;
const SLOW_DENOMINATOR: usize = 4;
/// A write just before the limit waits so long; the wait grows linearly up to it.
const SLOW_MS_MAX: u64 = 50;

/// Shares of one core, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Rows in active and frozen memtables and in the log's queue; past it writes are refused.
    pub rows_bytes_max: usize,
    /// Rows in active memtables that make the core write files.
    pub memtable_bytes_max: usize,
    pub cache_bytes_max: usize,
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
        Budget {
            rows_bytes_max: share / 3,
            memtable_bytes_max: (share / 8).clamp(MEMTABLE_BYTES_MIN, MEMTABLE_BYTES_MAX),
            cache_bytes_max: (share / 8).min(CACHE_BYTES_MAX),
        }
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
    fn a_small_limit_keeps_its_parts_inside() {
        for (limit, cores) in [(64u64 << 20, 1), (1 << 30, 2), (64 << 30, 8)] {
            let budget = Budget::new(limit, cores);
            assert!(budget.memtable_bytes_max <= budget.rows_bytes_max);
            let all = (budget.rows_bytes_max + budget.cache_bytes_max) * cores;
            assert!(all as u64 <= limit / 2, "{limit} {cores}");
        }
    }
}
