//! The queries that run in this process, for all cores to list and to stop.
//!
//! Owns: the table and the numbers of queries. One slab holds the queries, generation-checked, so that a key that was
//! read a moment ago never names another query; a row of slots holds the keys, because a slab cannot be walked.
//! Invariants: a query is listed from its start until its [`RunningGuard`] is dropped; ids are never used twice.
//! Knows nothing of what the queries do.

use crate::query::{
    QueryLimits,
    account::{QueryMemory, RunningQuery},
};
use sharded_slab::Slab;
use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

/// Queries that can be listed at the same time: more than connections that are worth serving.
const RUNNING_MAX: usize = 4096;
/// A slot without a query.
const FREE: usize = usize::MAX;

static RUNNING: LazyLock<RunningQueries> = LazyLock::new(RunningQueries::default);

/// The table of the process.
pub(crate) struct RunningQueries {
    queries: Slab<Arc<RunningQuery>>,
    slots: Box<[AtomicUsize]>,
    started: AtomicU64,
    /// What is added to the count of queries to make a number.
    base: AtomicU64,
    count: AtomicU64,
    finished: AtomicU64,
    /// Of those that have ended, together.
    duration_ns: AtomicU64,
}

/// What the table has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryFigures {
    pub active: u64,
    pub started: u64,
    pub finished: u64,
    pub duration_ns: u64,
}

/// No more queries may start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("max-concurrent-queries limit exceeded({count}, {limit})")]
pub(super) struct TooManyQueries {
    count: u64,
    limit: u64,
}

/// Why a query was not killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KillError {
    #[error("no such query id: {0}")]
    Unknown(u64),
    #[error("already killed")]
    Already,
}

/// Keeps a query in the table.
pub(super) struct RunningGuard {
    table: &'static RunningQueries,
    query: Arc<RunningQuery>,
    key: usize,
    slot: usize,
    begun: Instant,
    /// Queries that took longer are logged; 0 means none.
    log_after_ns: u64,
}

impl Default for RunningQueries {
    fn default() -> RunningQueries {
        RunningQueries {
            queries: Slab::new(),
            slots: (0..RUNNING_MAX).map(|_| AtomicUsize::new(FREE)).collect(),
            started: AtomicU64::new(0),
            base: AtomicU64::new(0),
            count: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            duration_ns: AtomicU64::new(0),
        }
    }
}

impl RunningQueries {
    /// The one table of the process.
    pub(crate) fn of_process() -> &'static RunningQueries {
        &RUNNING
    }

    /// Numbers of queries are above this one.
    pub(super) fn number_from(&self, base: u64) {
        self.base.store(base, Ordering::Relaxed);
    }

    /// Enters a query. `now_ns` is monotonic.
    pub(super) fn start(
        &'static self,
        text: String,
        database: String,
        now_ns: u64,
        limits: &QueryLimits,
        memory: &Arc<QueryMemory>,
    ) -> Result<RunningGuard, TooManyQueries> {
        let id = self.base.load(Ordering::Relaxed) + self.started.fetch_add(1, Ordering::Relaxed) + 1;
        let limit = match limits.max_concurrent_queries {
            0 => RUNNING_MAX as u64,
            limit => limit.min(RUNNING_MAX as u64),
        };
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let refuse = || {
            self.count.fetch_sub(1, Ordering::Relaxed);
            TooManyQueries { count, limit }
        };
        if count > limit {
            return Err(refuse());
        }
        let query = Arc::new(RunningQuery::new(id, text, database, now_ns, limits, memory));
        let Some(key) = self.queries.insert(query.clone()) else { return Err(refuse()) };
        // The count keeps one slot free for each that gets here; neighbours in time start at neighbouring slots.
        let start = id as usize % RUNNING_MAX;
        let slots = (start..RUNNING_MAX).chain(0..start);
        let free =
            |slot: &usize| self.slots[*slot].compare_exchange(FREE, key, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        match slots.into_iter().find(free) {
            Some(slot) => {
                let log_after_ns = limits.log_after_ns;
                Ok(RunningGuard { table: self, query, key, slot, begun: Instant::now(), log_after_ns })
            }
            None => {
                self.queries.remove(key);
                Err(refuse())
            }
        }
    }

    /// The queries that run now, by id.
    pub(super) fn list(&self) -> Vec<Arc<RunningQuery>> {
        let keys = self.slots.iter().map(|slot| slot.load(Ordering::Acquire)).filter(|key| *key != FREE);
        let mut queries: Vec<_> = keys.filter_map(|key| self.queries.get(key).map(|query| (*query).clone())).collect();
        queries.sort_by_key(|query: &Arc<RunningQuery>| query.id);
        queries
    }

    /// What was counted so far.
    pub(crate) fn figures(&self) -> QueryFigures {
        QueryFigures {
            active: self.count.load(Ordering::Relaxed),
            started: self.started.load(Ordering::Relaxed),
            finished: self.finished.load(Ordering::Relaxed),
            duration_ns: self.duration_ns.load(Ordering::Relaxed),
        }
    }

    /// Asks a query to stop.
    pub(super) fn kill(&self, id: u64) -> Result<(), KillError> {
        let query = self.list().into_iter().find(|query| query.id == id).ok_or(KillError::Unknown(id))?;
        if query.kill() { Ok(()) } else { Err(KillError::Already) }
    }
}

impl RunningGuard {
    pub(super) fn query(&self) -> &Arc<RunningQuery> {
        &self.query
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.table.slots[self.slot].store(FREE, Ordering::Release);
        self.table.queries.remove(self.key);
        self.table.count.fetch_sub(1, Ordering::Relaxed);
        let duration_ns = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.table.finished.fetch_add(1, Ordering::Relaxed);
        self.table.duration_ns.fetch_add(duration_ns, Ordering::Relaxed);
        if self.log_after_ns > 0 && duration_ns > self.log_after_ns {
            let (query, id) = (&self.query.text, self.query.id);
            tracing::warn!(id, query, duration_ms = duration_ns / 1_000_000, "detected slow query");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> &'static RunningQueries {
        Box::leak(Box::default())
    }

    fn memory() -> Arc<QueryMemory> {
        Arc::new(QueryMemory::new(u64::MAX, Arc::new(crate::data::MemoryGauge::new(u64::MAX))))
    }

    #[test]
    fn queries_are_listed_while_they_run_and_stop_by_their_id() {
        let table = table();
        let start = |text: &str| table.start(text.into(), "d".into(), 0, &QueryLimits::default(), &memory()).unwrap();
        let (one, two) = (start("one"), start("two"));
        let ids = |table: &RunningQueries| table.list().iter().map(|query| query.id).collect::<Vec<_>>();
        assert_eq!(ids(table), [1, 2]);
        drop(one);
        assert_eq!(ids(table), [2]);
        assert_eq!(table.kill(1), Err(KillError::Unknown(1)));
        assert_eq!(table.kill(2), Ok(()));
        assert!(two.query().is_killed());
        assert_eq!(table.kill(2).unwrap_err().to_string(), "already killed");
        assert_eq!(start("three").query().id, 3);
    }

    #[test]
    fn a_limit_refuses_and_room_comes_back() {
        let table = table();
        let limits = QueryLimits { max_concurrent_queries: 2, ..QueryLimits::default() };
        let start = || table.start(String::new(), String::new(), 0, &limits, &memory());
        let first = start().unwrap();
        let _second = start().unwrap();
        let error = start().err().unwrap();
        assert_eq!(error.to_string(), "max-concurrent-queries limit exceeded(3, 2)");
        drop(first);
        assert!(start().is_ok());
    }

    #[test]
    fn threads_that_come_and_go_leave_nothing_behind() {
        let table = table();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    for _ in 0..500 {
                        let limits = QueryLimits::default();
                        let _guard = table.start(String::new(), String::new(), 0, &limits, &memory()).unwrap();
                        table.list();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(table.list().is_empty());
        assert_eq!((table.count.load(Ordering::Relaxed), table.started.load(Ordering::Relaxed)), (0, 2000));
    }
}
