//! The first block of a segment.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | crc32c of the rest of the block |
//! | 4 | 4 | version |
//! | 8 | 8 | magic |
//! | 16 | 8 | log id |
//! | 24 | 8 | sequence |
//! | 32 | 8 | bytes of the segment |
//! | 40 | | zeros up to the block |

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use super::{u32_at, u64_at};
use tidemill_disk::BLOCK_BYTES;

const MAGIC: [u8; 8] = *b"TMLOGSEG";
pub const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub log_id: u64,
    pub sequence: u64,
    pub segment_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    Damaged,
    /// Whole, but of a version that this program does not read.
    Version(u32),
}

impl SegmentHeader {
    /// Fills the first block.
    pub fn encode(&self, block: &mut [u8]) {
        assert!(block.len() == BLOCK_BYTES, "the header is a block");
        block.fill(0);
        let values: [(usize, &[u8]); 5] = [
            (4, &VERSION.to_le_bytes()),
            (8, &MAGIC),
            (16, &self.log_id.to_le_bytes()),
            (24, &self.sequence.to_le_bytes()),
            (32, &self.segment_bytes.to_le_bytes()),
        ];
        for (at, value) in values {
            for (place, byte) in block.iter_mut().skip(at).zip(value) {
                *place = *byte;
            }
        }
        let crc = crc32c::crc32c(block.split_at(4).1).to_le_bytes();
        block.split_at_mut(4).0.copy_from_slice(&crc);
    }

    pub fn decode(block: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let covered = block.get(4..BLOCK_BYTES).ok_or(HeaderError::Damaged)?;
        if u32_at(block, 0) != Some(crc32c::crc32c(covered)) || block.get(8..16) != Some(MAGIC.as_slice()) {
            return Err(HeaderError::Damaged);
        }
        match u32_at(block, 4) {
            Some(VERSION) => {}
            Some(version) => return Err(HeaderError::Version(version)),
            None => return Err(HeaderError::Damaged),
        }
        let field = |at| u64_at(block, at).ok_or(HeaderError::Damaged);
        Ok(SegmentHeader { log_id: field(16)?, sequence: field(24)?, segment_bytes: field(32)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_every_flip_is_seen() {
        let header = SegmentHeader { log_id: 5, sequence: 6, segment_bytes: 7 };
        let mut block = vec![0xdb; BLOCK_BYTES];
        header.encode(&mut block);
        assert_eq!(SegmentHeader::decode(&block), Ok(header));
        for bit in 0..block.len() * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&block), Err(HeaderError::Damaged), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
        block[4] = 2;
        let crc = crc32c::crc32c(&block[4..]).to_le_bytes();
        block[..4].copy_from_slice(&crc);
        assert_eq!(SegmentHeader::decode(&block), Err(HeaderError::Version(2)));
        assert_eq!(SegmentHeader::decode(&block[..100]), Err(HeaderError::Damaged));
    }
}
