//! What entries carry and what comes of them.

use bytes::Bytes;
use tidemill_meta::MetaError;
use tidemill_raft::{Content, LogIndex};
use tidemill_store::{Applied, write_prefix};

/// An entry's payload on its way into the log. Clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A partition batch as the splitter sealed it.
    Batch(Bytes),
    /// A command of the store or of the metadata, encoded.
    Command(Bytes),
    /// Either of them as it stands in a log: from this node's, or from another node.
    Logged(Bytes),
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
            Payload::Command(bytes) | Payload::Logged(bytes) => [bytes, &[]],
        }
    }

    pub fn byte_size(&self) -> usize {
        match self {
            Payload::Batch(bytes) | Payload::Command(bytes) | Payload::Logged(bytes) => bytes.len(),
        }
    }
}

/// An entry as its bytes in a log tell it; empty ones open a term.
pub fn logged(bytes: Bytes) -> Content<Payload> {
    if bytes.is_empty() { Content::Opening } else { Content::Data(Payload::Logged(bytes)) }
}

impl tidemill_raft::Payload for Payload {
    fn byte_size(&self) -> usize {
        Payload::byte_size(self)
    }
}
