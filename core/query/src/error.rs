//! Why a statement is refused.

/// Errors of checks, plans and limits. The texts of the first kinds are upstream's, word for word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A rule of the language is broken; the text is upstream's.
    #[error("{0}")]
    Invalid(String),
    /// More windows than `max-select-buckets` allows.
    #[error("max-select-buckets limit exceeded: ({buckets}/{limit})")]
    TooManyBuckets { buckets: u64, limit: u64 },
    /// More series than `max-select-series` allows.
    #[error("max-select-series limit exceeded: ({series}/{limit})")]
    TooManySeries { series: u64, limit: u64 },
    /// More points than `max-select-point` allows. The spelling is upstream's.
    #[error("max-select-point limit exceeed: ({points}/{limit})")]
    TooManyPoints { points: u64, limit: u64 },
}

impl QueryError {
    pub(crate) fn invalid(text: impl Into<String>) -> QueryError {
        QueryError::Invalid(text.into())
    }
}
