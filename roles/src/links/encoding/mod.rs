//! Messages, calls and replies as bytes.
//!
//! | bytes | |
//! |---|---|
//! | any | payload: batches, commands, a manifest, one behind the other |
//! | any | rkyv archive: everything else, with the lengths of the parts of the payload |
//! | 4 | length of the archive, little-endian |
//! | 8 | shape of the cluster that the sender believes in, little-endian |
//!
//! The payload is copied once, into the message; at the other end its parts are slices of what arrived. The archive is
//! checked once and read where it stands: it needs no alignment.
//!
//! Invariants: nothing of a node with another shape is looked at (it would mean other partitions); what was encoded is
//! decoded to the same; any other bytes are refused or give a value, in memory that is bounded by the bytes themselves.
//! That a decoded raft message makes sense is for [`tidemill_raft::Message::check`].

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod calls;
mod messages;

pub use calls::{Answered, Asked, decode_answered, decode_asked, encode_answered, encode_asked};
pub use messages::{decode_message, encode_message};

use bytes::Bytes;
use rkyv::{
    Archive, Portable, Serialize,
    api::high::{HighSerializer, HighValidator, to_bytes_in},
    bytecheck::CheckBytes,
    rancor::Error,
    ser::allocator::ArenaHandle,
};

/// Room that the archive of a message without entries needs, about.
const ARCHIVE_BYTES: usize = 128;
const TAIL_BYTES: usize = size_of::<u32>() + size_of::<u64>();

/// Bytes that are no message of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("too short")]
    Short,
    #[error("the node has other partitions or members in its configuration")]
    Shape,
    #[error("the archive is damaged")]
    Archive,
    #[error("the parts of the payload are not as long as it is")]
    Payload,
    #[error("more entries than a message may have")]
    TooMany,
    #[error("the members of a group cannot be read")]
    Members,
    #[error("no data in an entry of data")]
    Empty,
    #[error("a group that does not exist")]
    Group,
}

/// The payload's parts, then the archive, its length and the shape.
fn seal<'a, T>(shape: u64, value: &T, payload: impl Iterator<Item = &'a [u8]> + Clone) -> Bytes
where
    T: for<'b> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'b>, Error>>,
{
    let payload_bytes: usize = payload.clone().map(<[u8]>::len).sum();
    let mut bytes = Vec::with_capacity(payload_bytes + ARCHIVE_BYTES + TAIL_BYTES);
    payload.for_each(|part| bytes.extend_from_slice(part));
    #[expect(clippy::expect_used, reason = "an own value: only an archive of more than 2 GiB fails, memory goes first")]
    let mut bytes = to_bytes_in::<_, Error>(value, bytes).expect("own values can be archived");
    let archive_bytes = (bytes.len() - payload_bytes) as u32;
    bytes.extend_from_slice(&archive_bytes.to_le_bytes());
    bytes.extend_from_slice(&shape.to_le_bytes());
    bytes.into()
}

/// The archive, checked, and the payload in front of it.
fn unseal<T>(shape: u64, bytes: &[u8]) -> Result<(&T::Archived, &[u8]), DecodeError>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, Error>> + Portable,
{
    let (bytes, found) = bytes.split_last_chunk().ok_or(DecodeError::Short)?;
    let (bytes, length) = bytes.split_last_chunk().ok_or(DecodeError::Short)?;
    if u64::from_le_bytes(*found) != shape {
        return Err(DecodeError::Shape);
    }
    let length = u32::from_le_bytes(*length) as usize;
    let (payload, archive) = bytes
        .len()
        .checked_sub(length)
        .and_then(|payload_bytes| bytes.split_at_checked(payload_bytes))
        .ok_or(DecodeError::Short)?;
    let archived = tidemill_peer::message::check::<T>(archive).map_err(|_| DecodeError::Archive)?;
    Ok((archived, payload))
}

/// The shape that some bytes say they are of.
pub(super) fn shape_of(bytes: &[u8]) -> Option<u64> {
    bytes.last_chunk().map(|shape| u64::from_le_bytes(*shape))
}

/// Deals the parts of a payload out.
struct Parts(Bytes);

impl Parts {
    fn new(payload: &[u8], whole: &Bytes) -> Parts {
        // Of an empty slice nothing is to be kept.
        Parts(if payload.is_empty() { Bytes::new() } else { whole.slice_ref(payload) })
    }

    fn take(&mut self, length: u32) -> Result<Bytes, DecodeError> {
        let length = length as usize;
        if length > self.0.len() { Err(DecodeError::Payload) } else { Ok(self.0.split_to(length)) }
    }

    fn rest(self) -> Bytes {
        self.0
    }

    fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Payload) }
    }
}
