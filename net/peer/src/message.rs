//! The messages of the transport itself, and checked reading of archives in place.
//!
//! Owns [`Hello`] and [`Heartbeats`]. Invariants: bytes from a peer become an archive only after rkyv has checked all of
//! it; archives are unaligned, so that they are read where they arrived. What raft, queries and files put into payloads
//! is theirs: they can use [`check`] and [`archive`] for it.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use bytes::Bytes;
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Portable, Serialize};

/// Of this protocol; another one does not talk to this one.
pub const PROTOCOL_VERSION: u32 = 1;

/// The first message of each side.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub version: u32,
    /// Must be what the certificate says.
    pub node: u64,
    pub core: u16,
    /// Whom the sender believes to talk to; none when it was called by somebody that it does not know yet.
    pub wanted: Option<(u64, u16)>,
    /// Drawn anew at each start of the sender's process: a changed one says that all older connections are dead.
    pub incarnation: u64,
}

/// Heartbeats of all groups between two cores, in the order of their groups.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeats {
    pub beats: Vec<Heartbeat>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub group: u64,
    pub payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the archive in a message is damaged")]
pub struct ArchiveError;

/// The archive in `bytes`, at any alignment, after all of it was checked.
pub fn check<T>(bytes: &[u8]) -> Result<&T::Archived, ArchiveError>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, Error>> + Portable,
{
    rkyv::access::<T::Archived, Error>(bytes).map_err(|_| ArchiveError)
}

/// The bytes of a value, for [`check`]. Fails only when memory does.
pub fn archive<T>(value: &T) -> Result<Bytes, ArchiveError>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>,
{
    let bytes = rkyv::to_bytes::<Error>(value).map_err(|_| ArchiveError)?;
    Ok(Bytes::from_owner(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn heartbeats_are_read_in_place_at_any_offset(
            beats in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20), shift in 0usize..8,
        ) {
            let value = Heartbeats {
                beats: beats.into_iter().map(|(group, payload)| Heartbeat { group, payload }).collect(),
            };
            let mut bytes = vec![0; shift];
            bytes.extend_from_slice(&archive(&value).unwrap());
            let read = check::<Heartbeats>(&bytes[shift..]).unwrap();
            prop_assert_eq!(read.beats.len(), value.beats.len());
            for (read, written) in read.beats.iter().zip(&value.beats) {
                prop_assert_eq!(read.group, written.group);
                prop_assert_eq!(&read.payload[..], &written.payload[..]);
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(heartbeats) = check::<Heartbeats>(&bytes) {
                heartbeats.beats.iter().for_each(|beat| assert!(beat.payload.len() <= bytes.len()));
            }
            let _ = check::<Hello>(&bytes);
        }
    }
}
