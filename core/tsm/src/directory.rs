//! The directory of a file: where the pages of its index and its statistics lie, and what key each begins with.
//!
//! Owns: cutting an index into pages of whole keys, the directory's bytes, and the search for the page of a key. With it
//! a reader keeps about half a byte a key in memory and reads one page to find a key; without it, it would have to parse
//! the whole index.
//!
//! ```text
//! directory: u16 length and bytes of the last key of the file, then the pages in index order
//! page:      u32 bytes of it in the index · u32 CRC of them · u32 bytes of its keys' statistics records · u32 CRC of
//!            them · u16 length and bytes of its separator
//! ```
//! The separator of the first page is its first key; that of another is the shortest prefix of its first key that sorts
//! behind the last key of the page before it. The directory lies inside the statistics section, which upstream never
//! looks at.
//!
//! Invariants: pages cover index and records without a gap; a page is handed out only after its CRC was verified; the
//! same index gives the same pages.
//! Knows nothing of files: the caller reads the ranges that it is told.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use std::ops::Range;

use crate::cursor::Cursor;
use crate::file::FileError;
use crate::index::{FileIndex, INDEX_BYTES_MAX, record_at};
use crate::statistics::Statistics;

/// A page ends with the key that takes it past so many bytes. About a hundred keys: a read of 8 KiB costs a device what
/// one of 4 KiB does, and the directory takes half of the memory.
pub const PAGE_BYTES: usize = 8 * 1024;

/// The directory is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    #[error("the directory of pages ends inside a page's record")]
    Truncated,
    #[error("page {page} of the index does not begin behind the one before it")]
    Order { page: usize },
    #[error("the pages do not cover index and statistics")]
    Coverage,
    #[error("the index is cut at byte {offset} or its keys do not ascend there")]
    Index { offset: u64 },
}

/// Where each page is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Separators behind each other.
    separators: Vec<u8>,
    pages: Vec<PageRecord>,
    last_key: Box<[u8]>,
    /// Where index and statistics records lie in the file.
    index: Range<u64>,
    statistics: Range<u64>,
}

/// Offsets count from the start of index, records and separators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PageRecord {
    index_end: u32,
    index_crc: u32,
    statistics_end: u32,
    statistics_crc: u32,
    separator_end: u32,
}

const NOTHING: PageRecord =
    PageRecord { index_end: 0, index_crc: 0, statistics_end: 0, statistics_crc: 0, separator_end: 0 };

/// What is to be read for a page. Ranges count from the start of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub index: Range<u64>,
    index_crc: u32,
    /// Empty in a file without statistics.
    pub statistics: Range<u64>,
    statistics_crc: u32,
}

impl Directory {
    /// Checks the directory of a file whose index and statistics records lie at these offsets.
    ///
    /// # Errors
    /// The first thing that is not as it was written.
    pub fn parse(bytes: &[u8], index: Range<u64>, statistics: Range<u64>) -> Result<Directory, DirectoryError> {
        let mut cursor = Cursor::new(bytes);
        let last_key = counted(&mut cursor).ok_or(DirectoryError::Truncated)?.into();
        let mut directory = Directory { separators: Vec::new(), pages: Vec::new(), last_key, index, statistics };
        let mut last_separator: Option<&[u8]> = None;
        while !cursor.is_empty() {
            let record = page_of(&mut cursor).ok_or(DirectoryError::Truncated)?;
            let (index_bytes, index_crc, statistics_bytes, statistics_crc, separator) = record;
            let page = directory.pages.len();
            if index_bytes == 0 || last_separator.is_some_and(|last| last >= separator) {
                return Err(DirectoryError::Order { page });
            }
            last_separator = Some(separator);
            let before = directory.pages.last().copied().unwrap_or(NOTHING);
            let ends =
                before.index_end.checked_add(index_bytes).zip(before.statistics_end.checked_add(statistics_bytes));
            let (index_end, statistics_end) = ends.ok_or(DirectoryError::Coverage)?;
            directory.separators.extend_from_slice(separator);
            let separator_end = u32::try_from(directory.separators.len()).map_err(|_| DirectoryError::Coverage)?;
            directory.pages.push(PageRecord { index_end, index_crc, statistics_end, statistics_crc, separator_end });
        }
        directory.complete()
    }

    fn complete(mut self) -> Result<Directory, DirectoryError> {
        let last = self.pages.last().copied().unwrap_or(NOTHING);
        let length = |range: &Range<u64>| range.end.checked_sub(range.start);
        let covers = length(&self.index) == Some(last.index_end.into())
            && length(&self.statistics) == Some(last.statistics_end.into());
        let last_page = self.pages.len().saturating_sub(1);
        if !covers || self.pages.is_empty() || self.separator(last_page) > self.last_key.as_ref() {
            return Err(DirectoryError::Coverage);
        }
        self.separators.shrink_to_fit();
        self.pages.shrink_to_fit();
        Ok(self)
    }

    pub fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// First and last key of the file.
    pub fn key_range(&self) -> (&[u8], &[u8]) {
        (self.separator(0), &self.last_key)
    }

    /// The page that holds `key` if the file does; `None` outside of the file's keys.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        if key > self.last_key.as_ref() {
            return None;
        }
        let mut range = 0..self.pages.len();
        while !range.is_empty() {
            let middle = range.start + range.len() / 2;
            if self.separator(middle) <= key {
                range.start = middle + 1;
            } else {
                range.end = middle;
            }
        }
        range.start.checked_sub(1)
    }

    /// Where a page lies.
    pub fn page(&self, number: usize) -> Option<Page> {
        let record = self.pages.get(number)?;
        let before = self.record_before(number);
        let part =
            |whole: &Range<u64>, start: u32, end: u32| whole.start + u64::from(start)..whole.start + u64::from(end);
        Some(Page {
            index: part(&self.index, before.index_end, record.index_end),
            index_crc: record.index_crc,
            statistics: part(&self.statistics, before.statistics_end, record.statistics_end),
            statistics_crc: record.statistics_crc,
        })
    }

    /// Bytes that the directory takes in memory.
    pub fn byte_size(&self) -> usize {
        self.separators.capacity() + self.pages.capacity() * size_of::<PageRecord>() + self.last_key.len()
    }

    fn record_before(&self, number: usize) -> PageRecord {
        number.checked_sub(1).and_then(|before| self.pages.get(before)).copied().unwrap_or(NOTHING)
    }

    fn separator(&self, number: usize) -> &[u8] {
        let start = self.record_before(number).separator_end as usize;
        let end = self.pages.get(number).map_or(start, |record| record.separator_end as usize);
        self.separators.get(start..end).unwrap_or_default()
    }
}

impl Page {
    /// Checks the page that was read from [`Page::index`] of a file whose blocks end at `blocks_end`.
    ///
    /// # Errors
    /// If its CRC is wrong, or it is not as the format wants it.
    pub fn parse_index(&self, bytes: Vec<u8>, blocks_end: u64) -> Result<FileIndex, FileError> {
        verify(&self.index, self.index_crc, &bytes)?;
        let offset = self.index.start;
        FileIndex::parse_page(bytes, blocks_end).map_err(|source| FileError::Index { offset, source })
    }

    /// Checks the records that were read from [`Page::statistics`]; `index` is the page's.
    ///
    /// # Errors
    /// If their CRC is wrong, or a record does not fit its block.
    pub fn parse_statistics(&self, bytes: Vec<u8>, index: &FileIndex) -> Result<Statistics, FileError> {
        verify(&self.statistics, self.statistics_crc, &bytes)?;
        let offset = self.statistics.start;
        Statistics::parse_page(bytes, index).map_err(|source| FileError::Statistics { offset, source })
    }
}

fn verify(range: &Range<u64>, expected: u32, bytes: &[u8]) -> Result<(), FileError> {
    let (offset, length) = (range.start, range.end - range.start);
    if bytes.len() as u64 != length {
        return Err(FileError::Short { offset, expected: length, found: bytes.len() as u64 });
    }
    let found = crc32fast::hash(bytes);
    if found != expected {
        return Err(FileError::PageCrc { offset, expected, found });
    }
    Ok(())
}

fn counted<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let length = cursor.u16()?;
    cursor.take(usize::from(length))
}

fn page_of<'a>(cursor: &mut Cursor<'a>) -> Option<(u32, u32, u32, u32, &'a [u8])> {
    Some((cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?, counted(cursor)?))
}

/// The shortest prefix of `key` that sorts behind `last`, which sorts before `key`.
fn separator_of<'a>(last: &[u8], key: &'a [u8]) -> &'a [u8] {
    let shared = last.iter().zip(key).take_while(|(a, b)| a == b).count();
    key.get(..shared + 1).unwrap_or(key)
}

/// Cuts pages while an index is written.
#[derive(Debug, Default)]
pub(crate) struct DirectoryWriter {
    pages: Vec<u8>,
    /// Where the page that is being filled starts, in index and records.
    index_start: usize,
    statistics_start: usize,
    separator: Vec<u8>,
    /// The newest key, as a range of the index.
    key: Range<usize>,
}

impl DirectoryWriter {
    /// A new key's record begins at `at` of `index`; the records of the keys before it are `statistics`.
    pub(crate) fn begin_key(&mut self, key: &[u8], index: &[u8], at: usize, statistics: &[u8]) {
        if at == 0 {
            self.separator = key.to_vec();
        } else if at - self.index_start >= PAGE_BYTES {
            self.cut(index.get(..at).unwrap_or_default(), statistics);
            self.separator = separator_of(index.get(self.key.clone()).unwrap_or_default(), key).to_vec();
        }
        self.key = at + 2..at + 2 + key.len();
    }

    fn cut(&mut self, index: &[u8], statistics: &[u8]) {
        for (start, bytes) in [(&mut self.index_start, index), (&mut self.statistics_start, statistics)] {
            let page = bytes.get(*start..).unwrap_or_default();
            self.pages.extend_from_slice(&(page.len() as u32).to_be_bytes());
            self.pages.extend_from_slice(&crc32fast::hash(page).to_be_bytes());
            *start = bytes.len();
        }
        push_counted(&self.separator, &mut self.pages);
    }

    /// Bytes that the directory would have if it were finished now.
    pub(crate) fn byte_count(&self) -> usize {
        self.pages.len() + 2 + self.key.len() + 16 + 2 + self.separator.len()
    }

    /// Appends the directory of `index` and `statistics`, which are complete.
    pub(crate) fn finish(mut self, index: &[u8], statistics: &[u8], out: &mut Vec<u8>) {
        self.cut(index, statistics);
        push_counted(index.get(self.key.clone()).unwrap_or_default(), out);
        out.extend_from_slice(&self.pages);
    }
}

/// Keys and separators are at most [`crate::key::KEY_BYTES_MAX`] long.
fn push_counted(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Makes the directory of a file that has none (one of upstream's) from its index, read once from start to end.
/// Holds one page and one key at a time.
#[derive(Debug)]
pub struct DirectoryBuilder {
    directory: Directory,
    /// Of the page that is being filled.
    page: crc32fast::Hasher,
    page_start: u64,
    taken: u64,
    pending: Vec<u8>,
}

impl DirectoryBuilder {
    /// For a file whose index lies there.
    pub fn new(index: Range<u64>) -> DirectoryBuilder {
        let statistics = index.start..index.start;
        let (separators, pages, last_key) = (Vec::new(), Vec::new(), Box::default());
        let directory = Directory { separators, pages, last_key, index, statistics };
        DirectoryBuilder { directory, page: crc32fast::Hasher::new(), page_start: 0, taken: 0, pending: Vec::new() }
    }

    /// Takes the next bytes of the index.
    ///
    /// # Errors
    /// If keys do not ascend, or the index is larger than the format allows.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), DirectoryError> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let mut cursor = Cursor::new(&pending);
        loop {
            let at = pending.len() - cursor.rest().len();
            let Some(record) = record_at(&mut cursor) else {
                self.pending = pending.split_off(at);
                return Ok(());
            };
            let end = pending.len() - cursor.rest().len();
            self.take(record.key, pending.get(at..end).unwrap_or_default())?;
        }
    }

    fn take(&mut self, key: &[u8], record: &[u8]) -> Result<(), DirectoryError> {
        let directory = &mut self.directory;
        let offset = self.taken;
        if offset == 0 {
            directory.separators.extend_from_slice(key);
        } else {
            if directory.last_key.as_ref() >= key || offset + record.len() as u64 > INDEX_BYTES_MAX as u64 {
                return Err(DirectoryError::Index { offset });
            }
            if offset - self.page_start >= PAGE_BYTES as u64 {
                let separator = separator_of(&directory.last_key, key);
                let crc = std::mem::take(&mut self.page).finalize();
                directory.cut(offset, crc);
                directory.separators.extend_from_slice(separator);
                self.page_start = offset;
            }
        }
        self.page.update(record);
        self.taken += record.len() as u64;
        directory.last_key = key.into();
        Ok(())
    }

    /// # Errors
    /// If the bytes were not those of the whole index.
    pub fn finish(mut self) -> Result<Directory, DirectoryError> {
        if !self.pending.is_empty() || self.taken == 0 {
            return Err(DirectoryError::Index { offset: self.taken });
        }
        self.directory.cut(self.taken, self.page.finalize());
        self.directory.complete()
    }
}

impl Directory {
    /// Ends a page at `index_end` of an index without statistics; all separators so far are there.
    fn cut(&mut self, index_end: u64, index_crc: u32) {
        // Both are held against INDEX_BYTES_MAX.
        let (index_end, separator_end) = (index_end as u32, self.separators.len() as u32);
        self.pages.push(PageRecord { index_end, index_crc, statistics_end: 0, statistics_crc: 0, separator_end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block;
    use crate::file::{FileBytes, FileWriter};
    use crate::statistics::BlockStatistics;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use tidemill_column::Values;

    /// A file with so many blocks a key.
    fn file(keys: &BTreeMap<Vec<u8>, usize>) -> Vec<u8> {
        let (mut out, mut body) = (Vec::new(), Vec::new());
        block::encode(&[7], &Values::Integer(vec![4]), 0..1, &mut body).unwrap();
        let mut writer = FileWriter::begin(&mut out);
        for (key, blocks) in keys {
            for time in 0..*blocks as i64 {
                let statistics = BlockStatistics::of(&[time], &Values::Integer(vec![time]), 0..1);
                let field_type = tidemill_column::FieldType::Integer;
                writer.push_block(key, field_type, time, time, &body, Some(&statistics), &mut out).unwrap();
            }
        }
        assert_eq!(writer.byte_count(), writer.finish(&mut out).byte_count);
        out
    }

    fn slice(bytes: &[u8], range: &Range<u64>) -> Vec<u8> {
        bytes[range.start as usize..range.end as usize].to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn pages_hold_what_was_written_where_it_is_looked_for(
            keys in proptest::collection::btree_map(proptest::collection::vec(97u8..100, 0..300), 1usize..60, 1..120),
            piece in 1usize..5000,
        ) {
            let bytes = file(&keys);
            let open = FileBytes::open(&bytes).unwrap();
            let directory = open.directory.unwrap();
            let pages: Vec<(FileIndex, Statistics)> = (0..directory.page_count()).map(|number| {
                let page = directory.page(number).unwrap();
                let index = page.parse_index(slice(&bytes, &page.index), open.index.blocks_end()).unwrap();
                let statistics = page.parse_statistics(slice(&bytes, &page.statistics), &index).unwrap();
                (index, statistics)
            }).collect();
            let all = pages.iter().flat_map(|(index, _)| index.iter().map(|key| key.key.to_vec()));
            prop_assert!(all.eq(keys.keys().cloned()));
            for (key, blocks) in &keys {
                let (index, statistics) = &pages[directory.find(key).unwrap()];
                let position = index.find(key).unwrap();
                prop_assert_eq!(index.key(position).unwrap().entries.len(), *blocks);
                prop_assert!(statistics.of_key(index, position).map(|one| one.unwrap().first_time).eq(0..*blocks as i64));
                for other in [key[..key.len() / 2].to_vec(), [&key[..], b"a"].concat()] {
                    let found = directory.find(&other).is_some_and(|page| pages[page].0.find(&other).is_some());
                    prop_assert_eq!(found, keys.contains_key(&other));
                }
            }
            prop_assert_eq!(directory.key_range(), (&keys.keys().next().unwrap()[..], &keys.keys().last().unwrap()[..]));
            // A file without a directory gets the same pages.
            let mut builder = DirectoryBuilder::new(open.layout.index.clone());
            open.index.bytes().chunks(piece).for_each(|piece| builder.push(piece).unwrap());
            let built = builder.finish().unwrap();
            prop_assert_eq!(&built.separators, &directory.separators);
            for number in 0..directory.page_count() {
                let (ours, theirs) = (built.page(number).unwrap(), directory.page(number).unwrap());
                prop_assert_eq!((ours.index, ours.index_crc), (theirs.index, theirs.index_crc));
                prop_assert!(ours.statistics.is_empty());
            }
        }

        #[test]
        fn any_bytes_are_a_directory_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..80), at in 0usize..80, to in any::<u8>()) {
            let _ = Directory::parse(&bytes, 100..200, 50..60);
            let mut damaged = vec![0, 1, b'k'];
            damaged.extend_from_slice(&100u32.to_be_bytes());
            damaged.extend_from_slice(&[0; 4]);
            damaged.extend_from_slice(&10u32.to_be_bytes());
            damaged.extend_from_slice(&[0, 0, 0, 0, 0, 1, b'a']);
            prop_assert!(Directory::parse(&damaged, 100..200, 50..60).is_ok());
            if let Some(byte) = damaged.get_mut(at) {
                *byte = to;
            }
            if let Ok(directory) = Directory::parse(&damaged, 100..200, 50..60) {
                prop_assert_eq!(directory.page(0).map(|page| (page.index, page.statistics)), Some((100..200, 50..60)));
                prop_assert!(directory.find(b"a").is_none_or(|page| page == 0));
            }
        }
    }

    #[test]
    fn a_page_whose_bytes_changed_is_refused() {
        let keys = (0..400).map(|number| (format!("key{number:05}").into_bytes(), 1)).collect();
        let bytes = file(&keys);
        let open = FileBytes::open(&bytes).unwrap();
        let directory = open.directory.unwrap();
        assert!(directory.page_count() > 1);
        assert!(directory.byte_size() < keys.len(), "less than a byte a key");
        let page = directory.page(1).unwrap();
        let (mut index, mut statistics) = (slice(&bytes, &page.index), slice(&bytes, &page.statistics));
        let good = page.parse_index(index.clone(), open.index.blocks_end()).unwrap();
        index[20] ^= 1;
        statistics[20] ^= 1;
        assert!(
            matches!(page.parse_index(index, 1 << 20), Err(FileError::PageCrc { offset, .. }) if offset == page.index.start)
        );
        assert!(matches!(page.parse_statistics(statistics, &good), Err(FileError::PageCrc { .. })));
        assert!(matches!(page.parse_index(Vec::new(), 1 << 20), Err(FileError::Short { .. })));
    }

    #[test]
    fn an_index_that_ends_early_or_is_out_of_order_gives_no_directory() {
        let keys = (0..400).map(|number| (format!("key{number:05}").into_bytes(), 1)).collect();
        let bytes = file(&keys);
        let index = FileBytes::open(&bytes).unwrap().index;
        let range = 0..index.bytes().len() as u64;
        let mut short = DirectoryBuilder::new(range.clone());
        short.push(&index.bytes()[..index.bytes().len() - 1]).unwrap();
        assert!(short.finish().is_err());
        let mut twice = DirectoryBuilder::new(range.clone());
        twice.push(index.bytes()).unwrap();
        assert_eq!(twice.push(index.bytes()), Err(DirectoryError::Index { offset: range.end }));
        assert!(DirectoryBuilder::new(0..0).finish().is_err());
    }
}
