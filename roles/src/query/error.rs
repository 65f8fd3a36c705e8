//! Why a statement fails.

use crate::data::message::{CallError, MetaChangeError};
use tidemill_influxql::ConditionError;
use tidemill_query::QueryError;

/// A statement's error. Where upstream has the same error, the text is upstream's.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StatementError {
    #[error("database name required")]
    DatabaseRequired,
    #[error("database not found: {0}")]
    DatabaseNotFound(String),
    #[error("retention policy not found: {0}")]
    PolicyNotFound(String),
    #[error("default retention policy not set for: {0}")]
    NoDefaultPolicy(String),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Condition(#[from] ConditionError),
    #[error(transparent)]
    Meta(#[from] MetaChangeError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A rule of one statement; the text is upstream's.
    #[error("{0}")]
    Invalid(String),
    /// What a part of the query said on its core.
    #[error("{0}")]
    Part(String),
    #[error("partition {0} ended its part of the query without saying so")]
    PartLost(u32),
    /// Parsed, but not executed yet.
    #[error("{0} is not supported yet")]
    NotSupported(&'static str),
}

/// Why a query was stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    #[error("query interrupted")]
    Killed,
    #[error("query-timeout limit exceeded")]
    TimedOut,
    #[error("query engine shutdown")]
    ShuttingDown,
    #[error("query {query} needs more memory than its budget of {budget} bytes")]
    OverBudget { query: u64, budget: u64 },
    #[error("query {query} needs more memory than the budget of all queries, {budget} bytes, has left")]
    QueriesOverBudget { query: u64, budget: u64 },
    #[error("query {query} needs more memory, and the server is at its limit of {limit} bytes")]
    AtMemoryLimit { query: u64, limit: u64 },
    /// Nobody waits for the answer any more.
    #[error("the client has gone")]
    Abandoned,
}
