//! What queries may use.

use tidemill_query::SelectLimits;

/// Bytes that one query may hold on all cores together: a select of every row of a few thousand series fits, and two
/// of them do not take a small server down.
const QUERY_MEMORY_BYTES_MAX: u64 = 512 << 20;

/// Limits of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// `max-select-point`, `max-select-series`, `max-select-buckets`; 0 means none.
    pub select: SelectLimits,
    /// Bytes that one request may hold on all cores together.
    pub query_memory_bytes_max: u64,
    /// Requests that may run at the same time; 0 means as many as there is room to list.
    pub max_concurrent_queries: u64,
    /// How long a request may run, ns; 0 means for ever.
    pub query_timeout_ns: u64,
    /// Requests that took longer are logged when they end, ns; 0 means none.
    pub log_after_ns: u64,
    /// Every request is logged when it begins, secrets left out.
    pub logs_queries: bool,
    /// CREATE DATABASE makes a default retention policy (`retention-autocreate`).
    pub autocreate_policy: bool,
}

impl Default for QueryLimits {
    fn default() -> QueryLimits {
        QueryLimits {
            select: SelectLimits::default(),
            query_memory_bytes_max: QUERY_MEMORY_BYTES_MAX,
            max_concurrent_queries: 0,
            query_timeout_ns: 0,
            log_after_ns: 0,
            logs_queries: false,
            autocreate_policy: true,
        }
    }
}
