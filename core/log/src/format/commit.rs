//! What is written and synced at once.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | crc32c of all that follows, padding included |
//! | 4 | 4 | magic |
//! | 8 | 8 | log id |
//! | 16 | 8 | sequence of the segment |
//! | 24 | 8 | number of the commit, from 1 |
//! | 32 | 8 | oldest segment that is still needed |
//! | 40 | 4 | crc of the commit before |
//! | 44 | 4 | 1: sealed, the next commit is in the next segment |
//! | 48 | 4 | bytes of frames |
//! | 52 | 4 | number of frames |
//! | 56 | 8 | zero |
//! | 64 | | frames, then zeros up to the block |

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use super::{u32_at, u64_at};
use tidemill_disk::BLOCK_BYTES;

pub const COMMIT_HEADER_BYTES: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"TMLC");
const FLAG_SEALED: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitHeader {
    pub log_id: u64,
    pub sequence: u64,
    pub number: u64,
    pub oldest: u64,
    pub previous_crc: u32,
    pub sealed: bool,
    pub frames_bytes: u32,
    pub frames: u32,
}

impl CommitHeader {
    /// Length on disk.
    pub fn commit_bytes(&self) -> usize {
        (COMMIT_HEADER_BYTES + self.frames_bytes as usize).next_multiple_of(BLOCK_BYTES)
    }

    /// Writes the header in front of the frames, which are in their place, and zeros behind them.
    /// `commit` is as long as [`CommitHeader::commit_bytes`]. Returns the crc.
    pub fn seal(&self, commit: &mut [u8]) -> u32 {
        assert!(commit.len() == self.commit_bytes(), "a commit fills its blocks");
        let mut fields = [0u8; COMMIT_HEADER_BYTES];
        let flags = if self.sealed { FLAG_SEALED } else { 0 };
        let values: [(usize, &[u8]); 9] = [
            (4, &MAGIC.to_le_bytes()),
            (8, &self.log_id.to_le_bytes()),
            (16, &self.sequence.to_le_bytes()),
            (24, &self.number.to_le_bytes()),
            (32, &self.oldest.to_le_bytes()),
            (40, &self.previous_crc.to_le_bytes()),
            (44, &flags.to_le_bytes()),
            (48, &self.frames_bytes.to_le_bytes()),
            (52, &self.frames.to_le_bytes()),
        ];
        for (at, value) in values {
            for (place, byte) in fields.iter_mut().skip(at).zip(value) {
                *place = *byte;
            }
        }
        let (head, body) = commit.split_at_mut(COMMIT_HEADER_BYTES);
        head.copy_from_slice(&fields);
        body.split_at_mut(self.frames_bytes as usize).1.fill(0);
        let crc = crc32c::crc32c(commit.split_at(4).1);
        commit.split_at_mut(4).0.copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// The fields as they stand, unchecked but for flags that this version does not know. `None`: too short.
    fn parse(bytes: &[u8]) -> Option<CommitHeader> {
        Some(CommitHeader {
            log_id: u64_at(bytes, 8)?,
            sequence: u64_at(bytes, 16)?,
            number: u64_at(bytes, 24)?,
            oldest: u64_at(bytes, 32)?,
            previous_crc: u32_at(bytes, 40)?,
            sealed: u32_at(bytes, 44)? & FLAG_SEALED != 0,
            frames_bytes: u32_at(bytes, 48)?,
            frames: u32_at(bytes, 52)?,
        })
    }
}

/// What the start of a block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Zeros or payload.
    Nothing,
    /// A commit of an earlier use of the file, if its checksum says so.
    Stale(CommitHeader),
    /// It began as a commit of this segment, or was one before damage: of magic, log id and sequence at least two are
    /// right.
    Remains,
    /// A header that wants its checksum checked over [`CommitHeader::commit_bytes`].
    Commit(CommitHeader),
}

/// Reads a header that should belong to this log and segment, with at most `room` bytes left for the commit.
pub fn claim(block: &[u8], log_id: u64, sequence: u64, room: usize) -> Claim {
    let Some(header) = CommitHeader::parse(block) else { return Claim::Nothing };
    let right = [u32_at(block, 4) == Some(MAGIC), header.log_id == log_id, header.sequence == sequence];
    let fits = header.commit_bytes() <= room;
    if right == [true, true, false] && header.sequence < sequence && fits {
        return Claim::Stale(header);
    }
    match right.iter().filter(|right| **right).count() {
        3 if fits => Claim::Commit(header),
        2 | 3 => Claim::Remains,
        _ => Claim::Nothing,
    }
}

/// The crc of the commit, if its bytes have it.
pub fn verify(commit: &[u8]) -> Option<u32> {
    let crc = crc32c::crc32c(commit.get(4..)?);
    (u32_at(commit, 0) == Some(crc)).then_some(crc)
}

/// The frames of a verified commit.
pub fn frames<'a>(header: &CommitHeader, commit: &'a [u8]) -> &'a [u8] {
    let end = COMMIT_HEADER_BYTES.saturating_add(header.frames_bytes as usize);
    commit.get(COMMIT_HEADER_BYTES..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_comes_back_and_every_flip_is_seen() {
        let header = CommitHeader {
            log_id: 0x1122_3344_5566_7788,
            sequence: 3,
            number: 77,
            oldest: 2,
            previous_crc: 0xdead_beef,
            sealed: true,
            frames_bytes: 100,
            frames: 2,
        };
        let mut bytes = vec![0xdb; BLOCK_BYTES];
        let crc = header.seal(&mut bytes);
        assert_eq!(claim(&bytes, header.log_id, 3, BLOCK_BYTES), Claim::Commit(header));
        assert_eq!(claim(&bytes, header.log_id, 4, BLOCK_BYTES), Claim::Stale(header));
        assert_eq!(claim(&bytes, header.log_id, 2, BLOCK_BYTES), Claim::Remains);
        assert_eq!(claim(&bytes, header.log_id, 3, BLOCK_BYTES - 1), Claim::Remains);
        assert_eq!(claim(&bytes, 1, 4, BLOCK_BYTES), Claim::Nothing);
        assert_eq!(verify(&bytes), Some(crc));
        assert_eq!(frames(&header, &bytes), vec![0xdb; 100]);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(&bytes), None, "bit {bit}");
            assert_ne!(claim(&bytes, header.log_id, 3, BLOCK_BYTES), Claim::Nothing, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
