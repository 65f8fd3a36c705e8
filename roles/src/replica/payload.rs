//! What entries carry and what comes of them.

use bytes::Bytes;
use tidemill_meta::MetaError;
use tidemill_raft::{Content, LogIndex, Membership, MembershipError};
use tidemill_store::{Applied, members_prefix, write_prefix};

/// An entry's payload on its way into the log. Clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A partition batch as the splitter sealed it.
    Batch(Bytes),
    /// A command of the store or of the metadata, encoded.
    Command(Bytes),
    /// An entry as it stands in a log: from this node's, or from another node.
    Logged(Bytes),
}

/// What applying an entry gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Store(Applied),
    /// The index tells whose turn it is when all cores follow.
    Meta(LogIndex, Result<tidemill_meta::Applied, MetaError>),
    Pool(tidemill_pool::Applied),
    /// The entry that opens a term.
    Opened,
}

const WRITE_PREFIX: [u8; 1] = [write_prefix()];
const _: () = assert!(tidemill_meta::COMMAND_PREFIX != members_prefix());
const _: () = assert!(tidemill_pool::COMMAND_PREFIX != members_prefix());

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
pub fn logged(bytes: Bytes) -> Result<Content<Payload>, MembershipError> {
    Ok(match members_in(&bytes) {
        Some(members) => Content::Members(Membership::decode(members)?),
        None if bytes.is_empty() => Content::Opening,
        None => Content::Data(Payload::Logged(bytes)),
    })
}

/// The members that an entry brings, if it is one that brings members.
pub fn members_in(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split_first().filter(|(first, _)| **first == members_prefix()).map(|(_, members)| members)
}

/// The entry that brings these members, as it stands in a log.
pub fn members_entry(members: &Membership) -> Payload {
    let mut bytes = vec![members_prefix()];
    bytes.extend_from_slice(&members.encode());
    Payload::Logged(bytes.into())
}

/// Whether the bytes of a proposal can stand in a log without being taken for an entry of another kind.
pub fn is_plain(payload: &Payload) -> bool {
    let [first, rest] = payload.parts();
    let first = first.first().or(rest.first());
    first.is_some_and(|first| *first != members_prefix())
}

impl tidemill_raft::Payload for Payload {
    fn byte_size(&self) -> usize {
        Payload::byte_size(self)
    }
}
