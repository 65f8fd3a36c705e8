//! Why an operation of the log failed.

use crate::decision::Finding;
use std::{io, sync::Arc};

/// The log stopped at its first failed write or sync; this is that failure.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log stopped: {message}")]
pub struct Poisoned {
    pub kind: io::ErrorKind,
    pub message: Arc<str>,
}

impl Poisoned {
    pub(crate) fn new(doing: &str, error: &io::Error) -> Poisoned {
        Poisoned { kind: error.kind(), message: format!("{doing}: {error}").into() }
    }
}

/// Nothing of the record was taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    #[error("a frame of {bytes} bytes is larger than {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    /// Answer 507 or 503; appending works again, without a restart, once a segment can be made or is released.
    #[error("the log has no room: the disk is full or the log is at its largest size")]
    Full,
    /// Too much waits for its commit, or the next segment is just being prepared; see [`crate::Log::room`].
    #[error("too many bytes wait for their commit")]
    Busy,
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    #[error("the log is closed")]
    Closed,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },
    /// Going on would lose or invent entries. See [`crate::decision`].
    #[error("log refused: {finding} in {file} at offset {offset}: {detail}")]
    Refused { finding: Finding, file: String, offset: u64, detail: String },
    #[error("log options: {0}")]
    Options(String),
}

/// The second reading of what the open had found good failed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("reading {file} at offset {offset}: {source}")]
    Io { file: String, offset: u64, source: io::Error },
    #[error("{file} at offset {offset} was good when the log was opened and is not any more")]
    Changed { file: String, offset: u64 },
}
