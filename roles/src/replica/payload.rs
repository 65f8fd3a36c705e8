//! What entries carry and what comes of them.

use tidemill_meta::MetaError;
use tidemill_raft::LogIndex;
use tidemill_store::{Applied, write_prefix};

/// An entry's payload on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A partition batch as the splitter sealed it.
    Batch(Vec<u8>),
    /// A command of the store or of the metadata, encoded.
    Command(Vec<u8>),
}

/// What applying an entry gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Store(Applied),
    /// The index tells whose turn it is when all cores follow.
    Meta(LogIndex, Result<tidemill_meta::Applied, MetaError>),
    /// The entry that opens a term.
    Opened,
}

const WRITE_PREFIX: [u8; 1] = [write_prefix()];

impl Payload {
    /// The bytes in the log, in parts that follow each other.
    pub fn parts(&self) -> [&[u8]; 2] {
        match self {
            Payload::Batch(image) => [&WRITE_PREFIX, image],
            Payload::Command(bytes) => [bytes, &[]],
        }
    }

    pub fn byte_size(&self) -> usize {
        match self {
            Payload::Batch(bytes) | Payload::Command(bytes) => bytes.len(),
        }
    }
}

impl tidemill_raft::Payload for Payload {
    fn byte_size(&self) -> usize {
        Payload::byte_size(self)
    }
}
