//! Why points could not be read.

use std::io;

/// A read that failed. It names the place, and no point of the damaged range has reached the reader.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error("{file}: {what} at offset {offset}")]
    Damaged { file: String, offset: u64, what: String },
    #[error("{file}: {error}")]
    Io { file: String, error: String },
    /// No copy of its blocks can be read now.
    #[error("{file}: {error}")]
    Pool { file: String, error: String },
}

impl ReadError {
    pub(crate) fn io(file: &str, error: &io::Error) -> ReadError {
        ReadError::Io { file: file.to_string(), error: error.to_string() }
    }

    pub(crate) fn damaged(file: &str, offset: u64, what: impl std::fmt::Display) -> ReadError {
        ReadError::Damaged { file: file.to_string(), offset, what: what.to_string() }
    }
}
