//! What a query uses, counted across cores.
//!
//! Owns: the request's memory and its flags ([`RunningQuery`]), the counts of one statement ([`Account`]), and the
//! charges that whoever holds bytes of a query keeps beside them ([`Charge`]).
//! Invariants: a charge is released when it is dropped, whichever core drops it; a query that was killed, has timed
//! out or lost its client is seen as such by every part at its next check.
//! Knows nothing of plans and rows.

use crate::{
    data::MemoryGauge,
    query::{QueryLimits, error::Stopped},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tidemill_query::{QueryError, SelectLimits};

/// What all queries of the process hold together.
#[derive(Debug)]
pub struct QueryMemory {
    bytes: AtomicU64,
    bytes_max: u64,
    gauge: Arc<MemoryGauge>,
}

/// One request, shared by all cores that work for it.
#[derive(Debug)]
pub struct RunningQuery {
    pub(super) id: u64,
    /// The normalised text of all of its statements.
    pub(super) text: String,
    pub(super) database: String,
    /// Monotonic ns.
    pub(super) started_ns: u64,
    deadline_ns: Option<u64>,
    bytes_max: u64,
    bytes: AtomicU64,
    memory: Arc<QueryMemory>,
    killed: AtomicBool,
}

/// What one statement of a request counts.
#[derive(Debug)]
pub struct Account {
    query: Arc<RunningQuery>,
    limits: SelectLimits,
    points: AtomicU64,
    series: AtomicU64,
    abandoned: AtomicBool,
}

/// Bytes held for a query.
#[derive(Debug)]
pub struct Charge {
    query: Arc<RunningQuery>,
    bytes: u64,
}

impl QueryMemory {
    pub fn new(bytes_max: u64, gauge: Arc<MemoryGauge>) -> QueryMemory {
        QueryMemory { bytes: AtomicU64::new(0), bytes_max, gauge }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

impl RunningQuery {
    pub(super) fn new(
        id: u64,
        text: String,
        database: String,
        now_ns: u64,
        limits: &QueryLimits,
        memory: &Arc<QueryMemory>,
    ) -> RunningQuery {
        let timeout_ns = limits.query_timeout_ns;
        RunningQuery {
            id,
            text,
            database,
            started_ns: now_ns,
            deadline_ns: (timeout_ns > 0).then(|| now_ns.saturating_add(timeout_ns)),
            bytes_max: limits.query_memory_bytes_max,
            bytes: AtomicU64::new(0),
            memory: memory.clone(),
            killed: AtomicBool::new(false),
        }
    }

    /// What this node does of a query that runs at another one, under its number there.
    pub(super) fn of_another_node(
        id: u64,
        now_ns: u64,
        limits: &QueryLimits,
        memory: &Arc<QueryMemory>,
    ) -> RunningQuery {
        RunningQuery::new(id, String::new(), String::new(), now_ns, limits, memory)
    }

    /// Asks it to stop; false if that was asked before.
    pub(super) fn kill(&self) -> bool {
        !self.killed.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Whether it may go on at this monotonic time.
    pub(super) fn check(&self, now_ns: u64) -> Result<(), Stopped> {
        if self.is_killed() {
            return Err(Stopped::Killed);
        }
        match self.deadline_ns {
            Some(deadline_ns) if now_ns > deadline_ns => Err(Stopped::TimedOut),
            _ => Ok(()),
        }
    }

    /// A charge of nothing yet.
    pub(super) fn charge(self: &Arc<Self>) -> Charge {
        Charge { query: self.clone(), bytes: 0 }
    }
}

impl Account {
    pub(super) fn new(query: Arc<RunningQuery>, limits: SelectLimits) -> Account {
        Account {
            query,
            limits,
            points: AtomicU64::new(0),
            series: AtomicU64::new(0),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Nobody waits for the statement's answer any more.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    pub(super) fn check(&self, now_ns: u64) -> Result<(), Stopped> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(Stopped::Abandoned);
        }
        self.query.check(now_ns)
    }

    /// Counts points that were read.
    pub(super) fn add_points(&self, points: u64) -> Result<(), QueryError> {
        let before = self.points.fetch_add(points, Ordering::Relaxed);
        self.limits.check_points(before + points)
    }

    /// The number of the query.
    pub(super) fn query_id(&self) -> u64 {
        self.query.id
    }

    /// Points and series that were counted so far.
    pub(super) fn counted(&self) -> (u64, u64) {
        (self.points.load(Ordering::Relaxed), self.series.load(Ordering::Relaxed))
    }

    /// Counts series that are scanned.
    pub(super) fn add_series(&self, series: u64) -> Result<(), QueryError> {
        let before = self.series.fetch_add(series, Ordering::Relaxed);
        self.limits.check_series(before + series)
    }

    pub(super) fn charge(&self) -> Charge {
        self.query.charge()
    }
}

impl Charge {
    /// Changes the charge to `bytes`.
    ///
    /// # Errors
    /// The query holds more than its budget, or all queries together do, or the process is at its limit; the charge
    /// stands all the same until it is dropped.
    pub fn set(&mut self, bytes: usize) -> Result<(), Stopped> {
        let bytes = bytes as u64;
        let before = std::mem::replace(&mut self.bytes, bytes);
        let query = &self.query;
        if bytes <= before {
            query.bytes.fetch_sub(before - bytes, Ordering::Relaxed);
            query.memory.bytes.fetch_sub(before - bytes, Ordering::Relaxed);
            return Ok(());
        }
        let more = bytes - before;
        let held = query.bytes.fetch_add(more, Ordering::Relaxed) + more;
        let memory = &query.memory;
        let all = memory.bytes.fetch_add(more, Ordering::Relaxed) + more;
        if held > query.bytes_max {
            return Err(Stopped::OverBudget { query: query.id, budget: query.bytes_max });
        }
        if all > memory.bytes_max {
            return Err(Stopped::QueriesOverBudget { query: query.id, budget: memory.bytes_max });
        }
        if memory.gauge.refuses_queries() {
            return Err(Stopped::AtMemoryLimit { query: query.id, limit: memory.gauge.limit_bytes() });
        }
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.query.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.query.memory.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(bytes_max: u64) -> Arc<QueryMemory> {
        Arc::new(QueryMemory::new(bytes_max, Arc::new(MemoryGauge::new(u64::MAX))))
    }

    fn query(limits: &QueryLimits) -> Arc<RunningQuery> {
        Arc::new(RunningQuery::new(7, "SELECT v FROM m".into(), "d".into(), 100, limits, &memory(u64::MAX)))
    }

    #[test]
    fn all_queries_share_a_budget_and_the_process_has_a_limit() {
        let memory = memory(1000);
        let query =
            |id| Arc::new(RunningQuery::new(id, String::new(), String::new(), 0, &QueryLimits::default(), &memory));
        let (mut one, mut two) = (query(1).charge(), query(2).charge());
        one.set(600).unwrap();
        let error = two.set(500).unwrap_err();
        assert_eq!(error.to_string(), "query 2 needs more memory than the budget of all queries, 1000 bytes, has left");
        drop(two);
        assert_eq!((memory.bytes(), one.set(1000)), (600, Ok(())));
        drop(one);
        assert_eq!(memory.bytes(), 0);
        let full = Arc::new(QueryMemory::new(1000, Arc::new(MemoryGauge::new(1 << 10))));
        let query = Arc::new(RunningQuery::new(3, String::new(), String::new(), 0, &QueryLimits::default(), &full));
        let error = query.charge().set(1).unwrap_err();
        assert_eq!(error.to_string(), "query 3 needs more memory, and the server is at its limit of 1024 bytes");
    }

    #[test]
    fn charges_of_all_holders_count_against_one_budget_and_are_given_back() {
        let query = query(&QueryLimits { query_memory_bytes_max: 1000, ..QueryLimits::default() });
        let (mut one, mut two) = (query.charge(), query.charge());
        one.set(600).unwrap();
        two.set(400).unwrap();
        let error = two.set(401).unwrap_err();
        assert_eq!(error.to_string(), "query 7 needs more memory than its budget of 1000 bytes");
        drop(two);
        one.set(1000).unwrap();
        drop(one);
        assert_eq!(query.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn stops_are_seen_in_the_order_of_their_weight() {
        let query = query(&QueryLimits { query_timeout_ns: 50, ..QueryLimits::default() });
        let account = Account::new(query.clone(), SelectLimits { max_select_point: 5, ..SelectLimits::default() });
        assert_eq!(account.check(150), Ok(()));
        assert_eq!(account.check(151), Err(Stopped::TimedOut));
        assert!(query.kill() && !query.kill());
        assert_eq!(account.check(151), Err(Stopped::Killed));
        account.abandon();
        assert_eq!(account.check(151), Err(Stopped::Abandoned));
        assert!(account.add_points(5).is_ok());
        assert_eq!(account.add_points(1).unwrap_err().to_string(), "max-select-point limit exceeed: (6/5)");
    }
}
