//! The index of a file: which blocks each key has, when they are and where (`tsm-format`, section 2).
//!
//! Owns: the index bytes both ways and the search in them.
//! Invariants: keys are sorted and unique; entries of a key are in time order and do not overlap; every block lies
//! between header and index. All of it is asserted by the writer and checked once by [`FileIndex::parse`]; after that
//! every look-up is infallible.
//! Knows nothing of what a block holds.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use std::ops::Range;

use tidemill_column::FieldType;

use crate::cursor::Cursor;
use crate::key::KEY_BYTES_MAX;

/// Bytes of one entry.
pub const ENTRY_BYTES: usize = 28;

/// Most blocks of one key in one file: their count is a u16.
pub const ENTRIES_MAX: usize = u16::MAX as usize;

/// Most bytes of an index: positions of keys are kept as u32.
pub const INDEX_BYTES_MAX: usize = u32::MAX as usize;

/// Bytes of the CRC before each block, counted in [`Entry::size`].
pub const CRC_BYTES: u32 = 4;

/// Bytes before the first block.
pub(crate) const HEADER_BYTES: u64 = 5;

/// One block of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Time of the first point, ns.
    pub min_time: i64,
    /// Time of the last point, ns.
    pub max_time: i64,
    /// Position of the block's CRC in the file.
    pub offset: u64,
    /// Bytes of the block, its CRC included.
    pub size: u32,
}

impl Entry {
    fn of(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let mut cursor = Cursor::new(bytes);
        let parsed = (|| {
            Some(Entry { min_time: cursor.i64()?, max_time: cursor.i64()?, offset: cursor.u64()?, size: cursor.u32()? })
        })();
        // Four reads of 28 bytes together: always there.
        parsed.unwrap_or(Entry { min_time: 0, max_time: 0, offset: 0, size: 0 })
    }

    fn push_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.min_time.to_be_bytes());
        out.extend_from_slice(&self.max_time.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
    }

    /// The bytes of the file that CRC and block take.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(u64::from(self.size))
    }
}

/// A key cannot take this block; start another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexFull {
    #[error("a key of {bytes} bytes; the format allows {KEY_BYTES_MAX}")]
    KeyTooLong { bytes: usize },
    #[error("max blocks exceeded: the key has {ENTRIES_MAX} blocks in this file")]
    Entries,
    #[error("the index would exceed {INDEX_BYTES_MAX} bytes")]
    Bytes,
}

/// Collects the index while blocks are written.
#[derive(Debug, Default)]
pub struct IndexWriter {
    bytes: Vec<u8>,
    /// The key that the last entry belongs to, as range of `bytes`; empty before the first.
    key: Range<usize>,
    field_type: Option<FieldType>,
    entry_count: usize,
    key_count: usize,
    block_count: u64,
    max_time: i64,
    times: Option<(i64, i64)>,
}

impl IndexWriter {
    pub fn new() -> IndexWriter {
        IndexWriter::default()
    }

    /// Adds a block of `key`.
    ///
    /// # Errors
    /// If the format has no room for it; nothing is added then.
    ///
    /// # Panics
    /// If `key` sorts before the last one or changes its type, or the entry's times do not follow those of the last.
    pub fn push(&mut self, key: &[u8], field_type: FieldType, entry: &Entry) -> Result<(), IndexFull> {
        if key.len() > KEY_BYTES_MAX {
            return Err(IndexFull::KeyTooLong { bytes: key.len() });
        }
        assert!(entry.min_time <= entry.max_time, "a block from {} to {}", entry.min_time, entry.max_time);
        let last_key = self.bytes.get(self.key.clone()).unwrap_or_default();
        let same = self.entry_count > 0 && last_key == key;
        if same && self.entry_count == ENTRIES_MAX {
            return Err(IndexFull::Entries);
        }
        let added = ENTRY_BYTES + if same { 0 } else { key.len() + 5 };
        if self.bytes.len() + added > INDEX_BYTES_MAX {
            return Err(IndexFull::Bytes);
        }
        if same {
            assert!(self.field_type == Some(field_type), "a key holds values of one type in a file");
            assert!(entry.min_time > self.max_time, "blocks of a key follow each other in time");
            self.entry_count += 1;
        } else {
            assert!(self.entry_count == 0 || last_key < key, "keys of a file ascend");
            self.bytes.extend_from_slice(&(key.len() as u16).to_be_bytes());
            self.key = self.bytes.len()..self.bytes.len() + key.len();
            self.bytes.extend_from_slice(key);
            self.bytes.extend_from_slice(&[field_type.code(), 0, 0]);
            self.field_type = Some(field_type);
            self.entry_count = 1;
            self.key_count += 1;
        }
        entry.push_to(&mut self.bytes);
        let count_at = self.key.end + 1;
        if let Some(count) = self.bytes.get_mut(count_at..count_at + 2) {
            count.copy_from_slice(&(self.entry_count as u16).to_be_bytes());
        }
        self.max_time = entry.max_time;
        self.block_count += 1;
        let (min, max) = self.times.unwrap_or((entry.min_time, entry.max_time));
        self.times = Some((min.min(entry.min_time), max.max(entry.max_time)));
        Ok(())
    }

    /// The index so far, as it goes into the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn key_count(&self) -> usize {
        self.key_count
    }

    pub fn block_count(&self) -> u64 {
        self.block_count
    }

    /// First and last time of all blocks.
    pub fn time_range(&self) -> Option<(i64, i64)> {
        self.times
    }
}

/// The index is not what the format allows. Offsets count from the start of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    #[error("the index of {bytes} bytes exceeds {INDEX_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("the index does not fit a file of {file_size} bytes")]
    OutsideFile { file_size: u64 },
    #[error("the key record at {offset} of the index ends past the index")]
    Truncated { offset: usize },
    #[error("the key at {offset} of the index does not sort after the one before it")]
    KeyOrder { offset: usize },
    #[error("the key at {offset} of the index has the unknown block type {code}")]
    BlockType { offset: usize, code: u8 },
    #[error("the key at {offset} of the index has no blocks")]
    NoEntries { offset: usize },
    #[error("block {block} of the key at {offset} of the index ends before it begins or overlaps the one before it")]
    EntryTimes { offset: usize, block: usize },
    #[error("block {block} of the key at {offset} of the index lies outside the blocks of the file")]
    EntryRange { offset: usize, block: usize },
}

/// One key and its blocks.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    pub key: &'a [u8],
    pub field_type: FieldType,
    pub entries: Entries<'a>,
}

/// Blocks of a key in time order; at least one.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> Entries<'a> {
    /// How many there are, at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn entry(&self, block: usize) -> Option<Entry> {
        self.entries.get(block).map(Entry::of)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Entry> + ExactSizeIterator + use<'a> {
        self.entries.iter().map(Entry::of)
    }

    /// The blocks that may hold points from `min_time` to `max_time`, both inclusive.
    pub fn overlapping(&self, min_time: i64, max_time: i64) -> Range<usize> {
        let start = self.entries.partition_point(|entry| Entry::of(entry).max_time < min_time);
        let end = self.entries.partition_point(|entry| Entry::of(entry).min_time <= max_time);
        start..end.max(start)
    }

    /// First and last time of all blocks.
    pub fn time_range(&self) -> (i64, i64) {
        let first = self.entries.first().map_or(i64::MAX, |entry| Entry::of(entry).min_time);
        let last = self.entries.last().map_or(i64::MIN, |entry| Entry::of(entry).max_time);
        (first, last)
    }
}

/// The index of a file in memory: its bytes and where each key begins.
#[derive(Clone, Debug)]
pub struct FileIndex {
    bytes: Vec<u8>,
    key_offsets: Vec<u32>,
    block_count: u64,
    blocks_end: u64,
    time_range: (i64, i64),
}

impl FileIndex {
    /// Checks the whole index of a file of `file_size` bytes. Keeps `bytes` and four bytes a key.
    ///
    /// # Errors
    /// The first thing that is not as the format wants it, an index without keys included.
    pub fn parse(bytes: Vec<u8>, file_size: u64) -> Result<FileIndex, IndexError> {
        if bytes.len() > INDEX_BYTES_MAX {
            return Err(IndexError::TooLarge { bytes: bytes.len() });
        }
        let index_offset = file_size
            .checked_sub(crate::file::FOOTER_BYTES as u64 + bytes.len() as u64)
            .filter(|offset| *offset >= HEADER_BYTES)
            .ok_or(IndexError::OutsideFile { file_size })?;
        FileIndex::parse_within(bytes, index_offset)
    }

    /// Checks a page of an index (see [`crate::directory`]): whole keys of a file whose blocks end at `limit`. What
    /// [`FileIndex`] says of the file is then said of these keys.
    ///
    /// # Errors
    /// As [`FileIndex::parse`].
    pub fn parse_page(bytes: Vec<u8>, limit: u64) -> Result<FileIndex, IndexError> {
        if bytes.len() > INDEX_BYTES_MAX {
            return Err(IndexError::TooLarge { bytes: bytes.len() });
        }
        FileIndex::parse_within(bytes, limit)
    }

    fn parse_within(bytes: Vec<u8>, limit: u64) -> Result<FileIndex, IndexError> {
        let mut key_offsets = Vec::new();
        let mut block_count = 0u64;
        let mut blocks_end = HEADER_BYTES;
        let mut time_range = (i64::MAX, i64::MIN);
        let mut last_key: Option<&[u8]> = None;
        let mut cursor = Cursor::new(&bytes);
        while !cursor.is_empty() || key_offsets.is_empty() {
            let offset = bytes.len() - cursor.rest().len();
            let record = record_at(&mut cursor).ok_or(IndexError::Truncated { offset })?;
            if last_key.is_some_and(|last| last >= record.key) {
                return Err(IndexError::KeyOrder { offset });
            }
            last_key = Some(record.key);
            let code = record.type_code;
            FieldType::from_code(code).ok_or(IndexError::BlockType { offset, code })?;
            if record.entries.is_empty() {
                return Err(IndexError::NoEntries { offset });
            }
            let mut last_time = None;
            for (block, entry) in record.entries.iter().map(Entry::of).enumerate() {
                if entry.max_time < entry.min_time || last_time.is_some_and(|last| last >= entry.min_time) {
                    return Err(IndexError::EntryTimes { offset, block });
                }
                last_time = Some(entry.max_time);
                let range = entry.range();
                if range.start < HEADER_BYTES || entry.size <= CRC_BYTES || range.end > limit {
                    return Err(IndexError::EntryRange { offset, block });
                }
                blocks_end = blocks_end.max(range.end);
                time_range = (time_range.0.min(entry.min_time), time_range.1.max(entry.max_time));
            }
            block_count += record.entries.len() as u64;
            // Held against INDEX_BYTES_MAX above.
            key_offsets.push(offset as u32);
        }
        key_offsets.shrink_to_fit();
        Ok(FileIndex { bytes, key_offsets, block_count, blocks_end, time_range })
    }

    pub fn key_count(&self) -> usize {
        self.key_offsets.len()
    }

    pub fn block_count(&self) -> u64 {
        self.block_count
    }

    /// First and last time of all blocks.
    pub fn time_range(&self) -> (i64, i64) {
        self.time_range
    }

    /// Where the last block ends.
    pub fn blocks_end(&self) -> u64 {
        self.blocks_end
    }

    /// Bytes that the index takes in memory.
    pub fn byte_size(&self) -> usize {
        self.bytes.capacity() + self.key_offsets.capacity() * 4
    }

    /// The index as it is in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key at `position` in sorted order.
    pub fn key(&self, position: usize) -> Option<Key<'_>> {
        let offset = *self.key_offsets.get(position)? as usize;
        let record = record_at(&mut Cursor::new(self.bytes.get(offset..)?))?;
        let field_type = FieldType::from_code(record.type_code)?;
        Some(Key { key: record.key, field_type, entries: Entries { entries: record.entries } })
    }

    /// The position of `key`, if the file holds it.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let position = self.lower_bound(key);
        (self.key_bytes(position)? == key).then_some(position)
    }

    /// The position of the first key that is not below `key`; the number of keys if all are.
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        self.key_offsets.partition_point(|offset| self.key_bytes_at(*offset).is_some_and(|other| other < key))
    }

    /// All keys, in sorted order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Key<'_>> {
        (0..self.key_count()).filter_map(|position| self.key(position))
    }

    fn key_bytes(&self, position: usize) -> Option<&[u8]> {
        self.key_bytes_at(*self.key_offsets.get(position)?)
    }

    fn key_bytes_at(&self, offset: u32) -> Option<&[u8]> {
        let mut cursor = Cursor::new(self.bytes.get(offset as usize..)?);
        let length = cursor.u16()?;
        cursor.take(usize::from(length))
    }
}

pub(crate) struct Record<'a> {
    pub(crate) key: &'a [u8],
    type_code: u8,
    entries: &'a [[u8; ENTRY_BYTES]],
}

pub(crate) fn record_at<'a>(cursor: &mut Cursor<'a>) -> Option<Record<'a>> {
    let length = cursor.u16()?;
    let key = cursor.take(usize::from(length))?;
    let type_code = cursor.u8()?;
    let count = cursor.u16()?;
    let (entries, []) = cursor.take(usize::from(count) * ENTRY_BYTES)?.as_chunks() else { return None };
    Some(Record { key, type_code, entries })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entry(min_time: i64, max_time: i64, offset: u64) -> Entry {
        Entry { min_time, max_time, offset, size: 10 }
    }

    fn written(blocks: &[(&[u8], Entry)]) -> Vec<u8> {
        let mut writer = IndexWriter::new();
        blocks.iter().for_each(|(key, entry)| writer.push(key, FieldType::Float, entry).unwrap());
        writer.bytes().to_vec()
    }

    /// As [`written`], but believing everything.
    fn forged(records: &[(&[u8], u8, &[Entry])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, code, entries) in records {
            bytes.extend_from_slice(&(key.len() as u16).to_be_bytes());
            bytes.extend_from_slice(key);
            bytes.push(*code);
            bytes.extend_from_slice(&(entries.len() as u16).to_be_bytes());
            entries.iter().for_each(|entry| entry.push_to(&mut bytes));
        }
        bytes
    }

    fn error_of(records: &[(&[u8], u8, &[Entry])]) -> IndexError {
        let bytes = forged(records);
        let file_size = 1000 + bytes.len() as u64 + 8;
        FileIndex::parse(bytes, file_size).unwrap_err()
    }

    proptest! {
        #[test]
        fn what_was_written_is_found(keys in proptest::collection::btree_map(proptest::collection::vec(0u8..3, 0..6), 1usize..5, 1..30)) {
            let keys: BTreeMap<Vec<u8>, usize> = keys;
            let mut writer = IndexWriter::new();
            for (key, blocks) in &keys {
                for block in 0..*blocks as i64 {
                    writer.push(key, FieldType::String, &entry(block * 10, block * 10 + 5, 5 + block as u64)).unwrap();
                }
            }
            prop_assert_eq!(writer.key_count(), keys.len());
            let file_size = 1000 + writer.bytes().len() as u64 + 8;
            let index = FileIndex::parse(writer.bytes().to_vec(), file_size).unwrap();
            prop_assert_eq!(index.block_count(), writer.block_count());
            prop_assert_eq!(Some(index.time_range()), writer.time_range());
            prop_assert!(index.iter().map(|key| key.key.to_vec()).eq(keys.keys().cloned()));
            for (position, (key, blocks)) in keys.iter().enumerate() {
                prop_assert_eq!(index.find(key), Some(position));
                let entries = index.key(position).unwrap().entries;
                prop_assert_eq!(entries.len(), *blocks);
                prop_assert_eq!(entries.overlapping(5, 10), 0..(*blocks).min(2));
                prop_assert_eq!(entries.overlapping(6, 9), 1..1);
                let mut longer = key.clone();
                longer.push(9);
                prop_assert_eq!(index.find(&longer), None);
            }
        }

        #[test]
        fn any_damage_is_an_error_or_an_index_that_answers(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = written(&[(b"a", entry(0, 5, 5)), (b"a", entry(6, 9, 15)), (b"bc", entry(1, 2, 25))]);
            let at = at.index(bytes.len());
            bytes[at] = to;
            bytes.truncate(1 + cut.index(bytes.len()));
            if let Ok(index) = FileIndex::parse(bytes, 1000) {
                for position in 0..index.key_count() {
                    let key = index.key(position).unwrap();
                    prop_assert_eq!(index.find(key.key), Some(position));
                    prop_assert!(key.entries.iter().all(|entry| entry.range().end <= index.blocks_end()));
                }
            }
        }
    }

    #[test]
    fn each_rule_is_checked() {
        let good = entry(0, 5, 5);
        assert_eq!(error_of(&[(b"b", 0, &[good]), (b"a", 0, &[good])]), IndexError::KeyOrder { offset: 32 + 2 });
        assert_eq!(error_of(&[(b"a", 0, &[good]), (b"a", 0, &[good])]), IndexError::KeyOrder { offset: 32 + 2 });
        assert_eq!(error_of(&[(b"a", 5, &[good])]), IndexError::BlockType { offset: 0, code: 5 });
        assert_eq!(error_of(&[(b"a", 0, &[])]), IndexError::NoEntries { offset: 0 });
        assert_eq!(error_of(&[(b"a", 0, &[entry(1, 0, 5)])]), IndexError::EntryTimes { offset: 0, block: 0 });
        assert_eq!(error_of(&[(b"a", 0, &[good, entry(5, 6, 5)])]), IndexError::EntryTimes { offset: 0, block: 1 });
        for bad in [entry(0, 1, 4), entry(0, 1, 991), entry(0, 1, u64::MAX - 3), Entry { size: 4, ..good }] {
            assert_eq!(error_of(&[(b"a", 0, &[bad])]), IndexError::EntryRange { offset: 0, block: 0 });
        }
        assert_eq!(error_of(&[]), IndexError::Truncated { offset: 0 });
        assert_eq!(FileIndex::parse(vec![0; 10], 17).unwrap_err(), IndexError::OutsideFile { file_size: 17 });
    }

    #[test]
    fn a_key_takes_65535_blocks_and_no_more() {
        let mut writer = IndexWriter::new();
        for block in 0..ENTRIES_MAX as i64 {
            writer.push(b"k", FieldType::Float, &entry(block, block, 5)).unwrap();
        }
        let next = entry(ENTRIES_MAX as i64, ENTRIES_MAX as i64, 5);
        assert_eq!(writer.push(b"k", FieldType::Float, &next), Err(IndexFull::Entries));
        assert_eq!(writer.push(&vec![0; 65536], FieldType::Float, &next), Err(IndexFull::KeyTooLong { bytes: 65536 }));
        writer.push(b"l", FieldType::Float, &next).unwrap();
        let bytes = writer.bytes().to_vec();
        let file_size = 1000 + bytes.len() as u64 + 8;
        assert_eq!(FileIndex::parse(bytes, file_size).unwrap().key(0).unwrap().entries.len(), ENTRIES_MAX);
    }

    #[test]
    #[should_panic(expected = "keys of a file ascend")]
    fn unsorted_keys_are_a_mistake_of_the_caller() {
        written(&[(b"b", entry(0, 1, 5)), (b"a", entry(0, 1, 5))]);
    }
}
