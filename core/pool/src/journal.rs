//! Which chunks of a file have arrived, as a file beside it.
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | `TMPARTS1` |
//! | 8..16 | size of the file, little-endian |
//! | 16..48 | its name |
//! | 48..52 | crc32c of these 48 bytes |
//! | ..4096 | zeros |
//! | from 4096, in each 4096: 102 records of 40 | value of the chunk (32), its number (4), crc32c of the file's name and these 36 (4) |
//!
//! A record has its place by its number and its own checksum, so that blocks may be written again at any time, in any
//! order, and torn: what is damaged is a chunk that is not here. Nor does a record have to wait for its chunk's write: who
//! goes on with the file reads each chunk again and compares its value.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::{
    FileId,
    chunks::{ChunkValue, chunk_count, file_of},
};

/// Unit in which a journal is written.
pub const JOURNAL_BLOCK_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"TMPARTS1";
const HEADER_BYTES: usize = 48;
const RECORD_BYTES: usize = 40;
const RECORDS_IN_BLOCK: u32 = (JOURNAL_BLOCK_BYTES / RECORD_BYTES) as u32;

/// The chunks of one file that are here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    file: FileId,
    size: u64,
    values: Vec<Option<ChunkValue>>,
}

/// Bytes that are no journal, or one that was not written to its end when it was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no journal of a file that arrives")]
pub struct BadJournal;

impl Journal {
    /// Of a file of which nothing is here.
    pub fn new(file: FileId, size: u64) -> Journal {
        Journal { file, size, values: vec![None; chunk_count(size) as usize] }
    }

    pub fn read(bytes: &[u8]) -> Result<Journal, BadJournal> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(BadJournal)?;
        let crc: &[u8; 4] = rest.first_chunk().ok_or(BadJournal)?;
        let rest = header.strip_prefix(MAGIC).ok_or(BadJournal)?;
        let (size, name) = rest.split_first_chunk().ok_or(BadJournal)?;
        let (size, file) = (u64::from_le_bytes(*size), FileId(name.try_into().map_err(|_| BadJournal)?));
        let count = chunk_count(size);
        // The bytes that are there bound what is allocated.
        let wanted = block_count(count) as usize * JOURNAL_BLOCK_BYTES;
        if u32::from_le_bytes(*crc) != crc32c::crc32c(header) || bytes.len() < wanted {
            return Err(BadJournal);
        }
        let records = bytes.chunks_exact(JOURNAL_BLOCK_BYTES).skip(1).flat_map(|block| block.as_chunks().0);
        let values: Vec<Option<ChunkValue>> =
            (0..count).zip(records).map(|(number, record)| value_of(&file, number, record)).collect();
        if values.len() == count as usize { Ok(Journal { file, size, values }) } else { Err(BadJournal) }
    }

    pub fn file(&self) -> FileId {
        self.file
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn count(&self) -> u32 {
        self.values.len() as u32
    }

    /// Where a chunk begins, and its bytes.
    pub fn place(&self, number: u32) -> (u64, usize) {
        let begin = u64::from(number) * crate::CHUNK_BYTES as u64;
        (begin, self.size.saturating_sub(begin).min(crate::CHUNK_BYTES as u64) as usize)
    }

    /// The value of a chunk that is here.
    pub fn value(&self, number: u32) -> Option<ChunkValue> {
        self.values.get(number as usize).copied().flatten()
    }

    /// The chunk is here, and its value is this; or it is not, after all.
    pub fn note(&mut self, number: u32, value: Option<ChunkValue>) {
        if let Some(known) = self.values.get_mut(number as usize) {
            *known = value;
        }
    }

    /// Chunks that are not here, ascending.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.values).filter(|(_, value)| value.is_none()).map(|(number, _)| number)
    }

    /// What the chunks are together, if all are here. It is for the caller to compare it with the name that was asked for.
    pub fn whole(&self) -> Option<FileId> {
        let values: Option<Vec<ChunkValue>> = self.values.iter().copied().collect();
        file_of(&values?)
    }

    /// Blocks of [`JOURNAL_BLOCK_BYTES`].
    pub fn block_count(&self) -> u32 {
        block_count(self.count())
    }

    /// The block that the record of a chunk stands in; that of the header is 0.
    pub fn block_of(number: u32) -> u32 {
        1 + number / RECORDS_IN_BLOCK
    }

    /// Writes a block, all of its bytes.
    pub fn write_block(&self, block: u32, out: &mut [u8; JOURNAL_BLOCK_BYTES]) {
        out.fill(0);
        let Some(first) = block.checked_sub(1) else {
            let header = [&MAGIC[..], &self.size.to_le_bytes(), &self.file.0].concat();
            let crc = crc32c::crc32c(&header).to_le_bytes();
            out.iter_mut().zip(header.into_iter().chain(crc)).for_each(|(out, byte)| *out = byte);
            return;
        };
        let numbers = first.saturating_mul(RECORDS_IN_BLOCK)..;
        for (record, number) in out.as_chunks_mut::<RECORD_BYTES>().0.iter_mut().zip(numbers) {
            if let Some(value) = self.value(number) {
                let crc = crc_of(&self.file, number, &value).to_le_bytes();
                let bytes = value.into_iter().chain(number.to_le_bytes()).chain(crc);
                record.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
            }
        }
    }
}

fn block_count(chunks: u32) -> u32 {
    1 + chunks.div_ceil(RECORDS_IN_BLOCK)
}

fn crc_of(file: &FileId, number: u32, value: &ChunkValue) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&file.0), value);
    crc32c::crc32c_append(crc, &number.to_le_bytes())
}

fn value_of(file: &FileId, number: u32, record: &[u8; RECORD_BYTES]) -> Option<ChunkValue> {
    let (value, rest) = record.split_first_chunk()?;
    let (found, crc) = rest.split_first_chunk()?;
    let crc = u32::from_le_bytes(crc.try_into().ok()?);
    let is_right = u32::from_le_bytes(*found) == number && crc == crc_of(file, number, value);
    is_right.then_some(*value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CHUNK_BYTES;
    use proptest::{collection::vec, prelude::*};

    fn bytes_of(journal: &Journal) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..journal.block_count() {
            let mut block = [0xee; JOURNAL_BLOCK_BYTES];
            journal.write_block(number, &mut block);
            bytes.extend_from_slice(&block);
        }
        bytes
    }

    prop_compose! {
        fn journal()(file: [u8; 32], chunks in 0..400u64, rest in 0..CHUNK_BYTES as u64, noted in vec((any::<u32>(), any::<[u8; 32]>()), 0..50)) -> Journal {
            let mut journal = Journal::new(FileId(file), chunks * CHUNK_BYTES as u64 + rest);
            for (number, value) in noted {
                journal.note(number % journal.count(), Some(value));
            }
            journal
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(journal in journal()) {
            prop_assert_eq!(Journal::read(&bytes_of(&journal)), Ok(journal));
        }

        #[test]
        fn damage_takes_chunks_away_and_invents_none(
            journal in journal(), at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = bytes_of(&journal);
            bytes.truncate(bytes.len() - cut.index(bytes.len()) / 8);
            let at = at.index(bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
            if let Ok(read) = Journal::read(&bytes) {
                prop_assert_eq!((read.file(), read.size()), (journal.file(), journal.size()));
                for number in 0..journal.count() {
                    prop_assert!(read.value(number).is_none() || read.value(number) == journal.value(number));
                }
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read_in_bounded_memory(bytes in vec(any::<u8>(), 0..9000), size: u64, has_magic: bool) {
            let mut bytes = bytes;
            if has_magic && bytes.len() > 60 {
                bytes[..8].copy_from_slice(MAGIC);
                bytes[8..16].copy_from_slice(&size.to_le_bytes());
                let crc = crc32c::crc32c(&bytes[..HEADER_BYTES]);
                bytes[HEADER_BYTES..][..4].copy_from_slice(&crc.to_le_bytes());
            }
            if let Ok(journal) = Journal::read(&bytes) {
                prop_assert!(journal.count() as usize * RECORD_BYTES <= bytes.len());
            }
        }
    }

    #[test]
    fn a_record_of_another_file_or_place_is_none() {
        let mut journal = Journal::new(FileId([1; 32]), 9 * CHUNK_BYTES as u64);
        journal.note(3, Some([7; 32]));
        let mut bytes = bytes_of(&journal);
        let record = bytes[JOURNAL_BLOCK_BYTES + 3 * RECORD_BYTES..][..RECORD_BYTES].to_vec();
        bytes[JOURNAL_BLOCK_BYTES + 4 * RECORD_BYTES..][..RECORD_BYTES].copy_from_slice(&record);
        let read = Journal::read(&bytes).unwrap();
        assert_eq!((read.value(3), read.value(4), read.missing().count()), (Some([7; 32]), None, 8));
        let mut other = bytes_of(&Journal::new(FileId([2; 32]), 9 * CHUNK_BYTES as u64));
        other[JOURNAL_BLOCK_BYTES..].copy_from_slice(&bytes[JOURNAL_BLOCK_BYTES..]);
        assert_eq!(Journal::read(&other).unwrap().missing().count(), 9);
    }

    #[test]
    fn places_cover_the_file() {
        for size in [0, 1, CHUNK_BYTES as u64, 3 * CHUNK_BYTES as u64 + 9] {
            let journal = Journal::new(FileId([0; 32]), size);
            let ends = (0..journal.count()).fold(0, |end, number| {
                let (begin, bytes) = journal.place(number);
                assert_eq!(begin, end);
                begin + bytes as u64
            });
            assert_eq!((ends, journal.place(journal.count()).1), (size, 0));
        }
    }
}
