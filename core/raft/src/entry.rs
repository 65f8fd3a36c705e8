//! What a log holds.

use crate::{EntryId, LogIndex, Membership, NodeId, Term};
use alloc::{rc::Rc, sync::Arc, vec::Vec};

/// What the shell replicates. Where a group has more than one member, payloads are cloned once for the log's tail and
/// once for each message: a reference-counted pointer.
pub trait Payload: Clone {
    /// Bytes on the wire and in the log, about.
    fn byte_size(&self) -> usize;
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<P> {
    pub term: Term,
    pub index: LogIndex,
    pub content: Content<P>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<P> {
    /// The empty entry with which a leader opens its term (thesis, section 6.4).
    Opening,
    Data(P),
    /// In force from its append on (thesis, section 4.1).
    Members(Membership),
}

/// What must be durable before anything of the term is answered (R5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: Term,
    /// Zero: nobody yet.
    pub vote: NodeId,
}

/// Bytes that an entry weighs beside its payload.
pub const ENTRY_OVERHEAD_BYTES: usize = 32;

impl<P> Entry<P> {
    pub fn id(&self) -> EntryId {
        EntryId { term: self.term, index: self.index }
    }
}

impl<P: Payload> Entry<P> {
    pub fn byte_size(&self) -> usize {
        let content = match &self.content {
            Content::Opening => 0,
            Content::Data(payload) => payload.byte_size(),
            Content::Members(members) => members.byte_size(),
        };
        content.saturating_add(ENTRY_OVERHEAD_BYTES)
    }
}

impl<P> Content<P> {
    pub fn data(&self) -> Option<&P> {
        match self {
            Content::Data(payload) => Some(payload),
            Content::Opening | Content::Members(_) => None,
        }
    }
}

macro_rules! bytes_payload {
    ($($of:ty),*) => {
        $(impl Payload for $of {
            fn byte_size(&self) -> usize {
                self.len()
            }
        })*
    };
}

bytes_payload!(Rc<[u8]>, Arc<[u8]>, Vec<u8>);

impl Payload for u64 {
    fn byte_size(&self) -> usize {
        size_of::<u64>()
    }
}
