//! A record as a frame.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | crc32c of all that follows |
//! | 4 | 4 | length of the payload |
//! | 8 | 1 | kind: 1 entry, 2 hard state |
//! | 9 | 3 | zero |
//! | 12 | 4 | group |
//! | 16 | 8 | term |
//! | 24 | 8 | index of the entry; of a hard state, the newest index that was known to be committed |
//! | 32 | | payload: the entry's, or the vote (8 bytes, or none) |

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use super::{u32_at, u64_at};
use crate::Record;
use tidemill_raft::{GroupId, LogIndex, Term};

pub const FRAME_HEADER_BYTES: usize = 32;

/// Largest frame with its header: bounds what a reader holds in memory. Above the largest request body that is split
/// by partition, below a quarter of the default segment.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;

/// Bytes of the frame that carries the vote of a group at most.
pub const HARD_STATE_FRAME_BYTES: usize = FRAME_HEADER_BYTES + 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the frame ends behind its commit")]
    Truncated,
    #[error("the frame's checksum is wrong")]
    Checksum,
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    #[error("frame with a payload of impossible length")]
    Length,
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHead {
    kind: u8,
    group: GroupId,
    term: Term,
    index: u64,
}

impl FrameHead {
    pub fn entry(group: GroupId, term: Term, index: LogIndex) -> FrameHead {
        FrameHead { kind: KIND_ENTRY, group, term, index: index.0 }
    }

    pub fn hard_state(group: GroupId, term: Term, committed: LogIndex) -> FrameHead {
        FrameHead { kind: KIND_HARD_STATE, group, term, index: committed.0 }
    }

    /// Fills `out`, which is exactly as long as the frame, with the parts of the payload one behind the other.
    pub fn encode(&self, parts: &[&[u8]], out: &mut [u8]) {
        let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
        assert!(out.len() == FRAME_HEADER_BYTES + payload_bytes, "a frame has its exact place");
        let (head, mut payload) = out.split_at_mut(FRAME_HEADER_BYTES);
        for part in parts {
            let (place, rest) = payload.split_at_mut(part.len());
            place.copy_from_slice(part);
            payload = rest;
        }
        let mut fields = [0u8; FRAME_HEADER_BYTES];
        let length = (payload_bytes as u32).to_le_bytes();
        let values: [(usize, &[u8]); 5] = [
            (4, &length),
            (8, &[self.kind]),
            (12, &self.group.0.to_le_bytes()),
            (16, &self.term.0.to_le_bytes()),
            (24, &self.index.to_le_bytes()),
        ];
        for (at, value) in values {
            for (place, byte) in fields.iter_mut().skip(at).zip(value) {
                *place = *byte;
            }
        }
        head.copy_from_slice(&fields);
        let crc = out.split_at(4).1;
        let crc = crc32c::crc32c(crc).to_le_bytes();
        out.split_at_mut(4).0.copy_from_slice(&crc);
    }
}

/// The first record of `bytes` and the length of its frame.
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), FrameError> {
    let length = u32_at(bytes, 4).ok_or(FrameError::Truncated)? as usize;
    if length > FRAME_BYTES_MAX - FRAME_HEADER_BYTES {
        return Err(FrameError::Length);
    }
    let end = FRAME_HEADER_BYTES + length;
    let covered = bytes.get(4..end).ok_or(FrameError::Truncated)?;
    if u32_at(bytes, 0) != Some(crc32c::crc32c(covered)) {
        return Err(FrameError::Checksum);
    }
    let payload = bytes.get(FRAME_HEADER_BYTES..end).ok_or(FrameError::Truncated)?;
    let group = GroupId(u32_at(bytes, 12).ok_or(FrameError::Truncated)?);
    let term = Term(u64_at(bytes, 16).ok_or(FrameError::Truncated)?);
    let index = LogIndex(u64_at(bytes, 24).ok_or(FrameError::Truncated)?);
    let record = match bytes.get(8).copied().ok_or(FrameError::Truncated)? {
        KIND_ENTRY => Record::Entry { group, term, index, payload },
        KIND_HARD_STATE if payload.is_empty() => Record::HardState { group, term, vote: None, committed: index },
        KIND_HARD_STATE if payload.len() == 8 => {
            Record::HardState { group, term, vote: u64_at(payload, 0), committed: index }
        }
        KIND_HARD_STATE => return Err(FrameError::Length),
        kind => return Err(FrameError::UnknownKind(kind)),
    };
    Ok((record, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(head: FrameHead, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![0xdb; FRAME_HEADER_BYTES + parts.iter().map(|part| part.len()).sum::<usize>()];
        head.encode(parts, &mut out);
        out
    }

    proptest! {
        #[test]
        fn entries_come_back(group: u32, term: u64, index: u64, parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..4), tail in prop::collection::vec(any::<u8>(), 0..9)) {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let mut bytes = encode(FrameHead::entry(GroupId(group), Term(term), LogIndex(index)), &parts);
            let length = bytes.len();
            bytes.extend(tail);
            let payload = parts.concat();
            let expected = Record::Entry { group: GroupId(group), term: Term(term), index: LogIndex(index), payload: &payload };
            prop_assert_eq!(decode(&bytes), Ok((expected, length)));
        }

        #[test]
        fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn every_flip_and_every_cut_is_seen() {
        let head = FrameHead::hard_state(GroupId(3), Term(9), LogIndex(5));
        let state = |vote| Record::HardState { group: GroupId(3), term: Term(9), vote, committed: LogIndex(5) };
        let bytes = encode(head, &[&7u64.to_le_bytes()]);
        assert_eq!(decode(&bytes), Ok((state(Some(7)), 40)));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), Err(FrameError::Truncated));
        }
        let unvoted = encode(head, &[]);
        assert_eq!(decode(&unvoted).unwrap().0, state(None));
        assert_eq!(decode(&encode(head, &[&[1]])), Err(FrameError::Length));
    }
}
