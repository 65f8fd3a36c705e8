//! A TSM file as a sequence of bytes: header, blocks, statistics, index, footer (`tsm-format`, section 2).
//!
//! Owns: [`FileWriter`], which says what bytes come next, and the functions that check what was read.
//! Invariants: bytes come out in file order and none is changed later, so a file of any size is written with the
//! memory of its index and statistics; no block is handed out before its CRC was verified.
//! Knows nothing of files: the caller writes what it is given and reads the ranges that it is told.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use std::ops::Range;

use tidemill_column::FieldType;

use crate::cursor::Cursor;
use crate::directory::{Directory, DirectoryError, DirectoryWriter};
use crate::index::{CRC_BYTES, Entry, FileIndex, HEADER_BYTES, INDEX_BYTES_MAX, IndexError, IndexFull, IndexWriter};
use crate::statistics::{
    BlockStatistics, RECORD_BYTES_MAX, Statistics, StatisticsError, StatisticsWriter, TRAILER_BYTES, index_crc_of,
    section_range,
};

/// Magic number and version.
pub const HEADER: [u8; HEADER_BYTES as usize] = [0x16, 0xd1, 0x16, 0xd1, 1];

/// Bytes of the footer: the offset of the index.
pub const FOOTER_BYTES: usize = 8;

/// Size from which on upstream begins another file. A threshold, not a limit: offsets are u64.
pub const FILE_BYTES_THRESHOLD: u64 = 2 << 30;

/// Most bytes of a block: its size with CRC is a u32.
pub const BLOCK_BYTES_MAX: usize = (u32::MAX - CRC_BYTES) as usize;

/// The file cannot take a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Index(#[from] IndexFull),
    #[error("a block of {bytes} bytes; the format allows {BLOCK_BYTES_MAX}")]
    BlockTooLarge { bytes: usize },
}

/// What a finished file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSummary {
    pub byte_count: u64,
    /// Where the directory of pages starts: statistics records end there, and the section's trailer ends at the index.
    pub directory_offset: u64,
    pub index_offset: u64,
    pub key_count: usize,
    pub block_count: u64,
    /// Time of the first point, ns.
    pub min_time: i64,
    /// Time of the last point, ns.
    pub max_time: i64,
}

/// Says what bytes a file consists of. Every method appends to a buffer of the caller, who may write out and clear it
/// at any time in between.
#[derive(Debug)]
pub struct FileWriter {
    position: u64,
    index: IndexWriter,
    statistics: StatisticsWriter,
    directory: DirectoryWriter,
}

impl FileWriter {
    /// Appends the header.
    pub fn begin(out: &mut Vec<u8>) -> FileWriter {
        out.extend_from_slice(&HEADER);
        FileWriter {
            position: HEADER_BYTES,
            index: IndexWriter::new(),
            statistics: StatisticsWriter::new(),
            directory: DirectoryWriter::default(),
        }
    }

    /// Appends CRC and bytes of a block of `key` with points from `min_time` to `max_time`; `statistics` is `None` when they are not known.
    ///
    /// # Errors
    /// If the format has no room for the block in this file; nothing is appended then and the file can be finished.
    ///
    /// # Panics
    /// If the keys do not ascend, the blocks of a key do not follow each other in time, or the block, its type and
    /// its statistics are not of each other.
    #[expect(clippy::too_many_arguments, reason = "an index entry, its block and where they go")]
    pub fn push_block(
        &mut self,
        key: &[u8],
        field_type: FieldType,
        min_time: i64,
        max_time: i64,
        block: &[u8],
        statistics: Option<&BlockStatistics>,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        self.push_entry(key, field_type, min_time, max_time, block, statistics)?;
        out.extend_from_slice(&crc32fast::hash(block).to_be_bytes());
        out.extend_from_slice(block);
        Ok(())
    }

    /// As [`FileWriter::push_block`], for a block of another file as it is stored there, its CRC before it.
    /// [`verify_block`] has checked it.
    ///
    /// # Errors
    /// As [`FileWriter::push_block`].
    ///
    /// # Panics
    /// As [`FileWriter::push_block`], and if there is no CRC.
    #[expect(clippy::too_many_arguments, reason = "an index entry, its block and where they go")]
    #[allow(clippy::expect_used, reason = "a block without its CRC is the caller's mistake and documented to panic")]
    pub fn push_stored_block(
        &mut self,
        key: &[u8],
        field_type: FieldType,
        min_time: i64,
        max_time: i64,
        stored: &[u8],
        statistics: Option<&BlockStatistics>,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        let block = stored.get(CRC_BYTES as usize..).expect("a stored block begins with its CRC");
        self.push_entry(key, field_type, min_time, max_time, block, statistics)?;
        out.extend_from_slice(stored);
        Ok(())
    }

    fn push_entry(
        &mut self,
        key: &[u8],
        field_type: FieldType,
        min_time: i64,
        max_time: i64,
        block: &[u8],
        statistics: Option<&BlockStatistics>,
    ) -> Result<(), WriteError> {
        assert_eq!(block.first(), Some(&field_type.code()), "a block begins with its type");
        if let Some(statistics) = statistics {
            assert_eq!(statistics.summary.field_type(), field_type, "statistics of another type");
            assert_eq!(
                (statistics.first_time, statistics.last_time),
                (min_time, max_time),
                "statistics of other points"
            );
        }
        if block.len() > BLOCK_BYTES_MAX {
            return Err(WriteError::BlockTooLarge { bytes: block.len() });
        }
        // Positions of records are kept as u32, as those of keys are.
        if self.statistics.byte_count() > INDEX_BYTES_MAX - RECORD_BYTES_MAX {
            return Err(WriteError::Index(IndexFull::Bytes));
        }
        let size = block.len() as u32 + CRC_BYTES;
        let (at, keys) = (self.index.bytes().len(), self.index.key_count());
        self.index.push(key, field_type, &Entry { min_time, max_time, offset: self.position, size })?;
        if self.index.key_count() > keys {
            self.directory.begin_key(key, self.index.bytes(), at, self.statistics.records());
        }
        self.statistics.push(statistics);
        self.position += u64::from(size);
        Ok(())
    }

    /// Bytes of statistics, directory and index, which stay in memory until the file is finished.
    pub fn tail_byte_count(&self) -> usize {
        self.statistics.byte_count() + self.directory.byte_count() + self.index.bytes().len() + FOOTER_BYTES
    }

    /// Bytes that the file would have if it were finished now.
    pub fn byte_count(&self) -> u64 {
        self.position + self.tail_byte_count() as u64
    }

    /// Whether no block was pushed: such a file is not kept.
    pub fn is_empty(&self) -> bool {
        self.index.block_count() == 0
    }

    /// Appends statistics, index and footer.
    ///
    /// # Panics
    /// If the file holds no block.
    pub fn finish(self, out: &mut Vec<u8>) -> FileSummary {
        let byte_count = self.byte_count();
        let times = self.index.time_range();
        assert!(times.is_some(), "a file without blocks is not written");
        let (min_time, max_time) = times.unwrap_or_default();
        let directory_offset = self.position + self.statistics.records().len() as u64;
        let mut directory = Vec::with_capacity(self.directory.byte_count());
        self.directory.finish(self.index.bytes(), self.statistics.records(), &mut directory);
        let index_offset = self.position + (self.statistics.byte_count() + directory.len()) as u64;
        self.statistics.finish(&directory, index_crc_of(self.index.bytes(), index_offset), out);
        out.extend_from_slice(self.index.bytes());
        out.extend_from_slice(&index_offset.to_be_bytes());
        FileSummary {
            byte_count,
            directory_offset,
            index_offset,
            key_count: self.index.key_count(),
            block_count: self.index.block_count(),
            min_time,
            max_time,
        }
    }
}

/// The bytes read are not those of a TSM file. Offsets count from the start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    #[error("not a TSM file: it begins with {found:02x?}")]
    Header { found: [u8; 4] },
    #[error("a TSM file of the unknown version {found}")]
    Version { found: u8 },
    #[error("a TSM file of {file_size} bytes is too short or ends in the index offset {index_offset}")]
    Footer { file_size: u64, index_offset: u64 },
    #[error("{found} bytes at {offset} where {expected} were to be read")]
    Short { offset: u64, expected: u64, found: u64 },
    #[error("the block at {offset} has CRC {found:#010x}, not {expected:#010x}")]
    BlockCrc { offset: u64, expected: u32, found: u32 },
    #[error("the index at {offset}: {source}")]
    Index { offset: u64, source: IndexError },
    #[error("the page at {offset} has CRC {found:#010x}, not {expected:#010x}")]
    PageCrc { offset: u64, expected: u32, found: u32 },
    #[error("the statistics at or before {offset}: {source}")]
    Statistics { offset: u64, source: StatisticsError },
    #[error("the directory before {offset}: {source}")]
    Directory { offset: u64, source: DirectoryError },
}

/// Checks the first bytes of a file.
///
/// # Errors
/// If they are not [`HEADER`].
pub fn verify_header(head: &[u8]) -> Result<(), FileError> {
    let short = FileError::Short { offset: 0, expected: HEADER_BYTES, found: head.len() as u64 };
    let [a, b, c, d, version] = *head.first_chunk().ok_or(short)?;
    let [magic @ .., known_version] = HEADER;
    if [a, b, c, d] != magic {
        return Err(FileError::Header { found: [a, b, c, d] });
    }
    if version != known_version {
        return Err(FileError::Version { found: version });
    }
    Ok(())
}

/// Where the parts of a file lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub file_size: u64,
    pub index: Range<u64>,
}

impl Layout {
    /// From the last [`FOOTER_BYTES`] of a file.
    ///
    /// # Errors
    /// If the index would not lie between header and footer.
    pub fn of(footer: &[u8; FOOTER_BYTES], file_size: u64) -> Result<Layout, FileError> {
        let index_offset = u64::from_be_bytes(*footer);
        let index_end = file_size.saturating_sub(FOOTER_BYTES as u64);
        if index_offset < HEADER_BYTES || index_offset >= index_end {
            return Err(FileError::Footer { file_size, index_offset });
        }
        Ok(Layout { file_size, index: index_offset..index_end })
    }

    /// The bytes before the index that end the statistics section, if there is one.
    pub fn statistics_trailer(&self) -> Option<Range<u64>> {
        let start = self.index.start.checked_sub(TRAILER_BYTES as u64).filter(|start| *start >= HEADER_BYTES)?;
        Some(start..self.index.start)
    }

    /// Checks the index that was read from [`Layout::index`].
    ///
    /// # Errors
    /// See [`FileIndex::parse`].
    pub fn parse_index(&self, bytes: Vec<u8>) -> Result<FileIndex, FileError> {
        let expected = self.index.end - self.index.start;
        if bytes.len() as u64 != expected {
            return Err(FileError::Short { offset: self.index.start, expected, found: bytes.len() as u64 });
        }
        FileIndex::parse(bytes, self.file_size).map_err(|source| FileError::Index { offset: self.index.start, source })
    }

    /// Where the statistics section lies, from the bytes of [`Layout::statistics_trailer`]; `None` in a file without.
    ///
    /// Every file of [`FileWriter`] has one, and with it the only CRC of its index: whoever opens a file known to be our
    /// own treats `None` as damage.
    ///
    /// # Errors
    /// If the trailer is damaged.
    pub fn statistics(
        &self,
        trailer: &[u8; TRAILER_BYTES],
        index: &FileIndex,
    ) -> Result<Option<Range<u64>>, FileError> {
        section_range(trailer, self.index.start, index.blocks_end()).map_err(|source| self.statistics_error(source))
    }

    /// Checks the section that was read from [`Layout::statistics`], and the index by the CRC that it holds.
    ///
    /// # Errors
    /// See [`Statistics::parse`] and [`Directory::parse`].
    pub fn parse_statistics(&self, section: Vec<u8>, index: &FileIndex) -> Result<(Statistics, Directory), FileError> {
        let section_bytes = section.len() as u64;
        let (statistics, directory) =
            Statistics::parse(section, index).map_err(|source| self.statistics_error(source))?;
        let directory_offset = self.index.start - (directory.len() + TRAILER_BYTES) as u64;
        let records = self.index.start - section_bytes..directory_offset;
        let directory = Directory::parse(&directory, self.index.clone(), records)
            .map_err(|source| FileError::Directory { offset: self.index.start, source })?;
        Ok((statistics, directory))
    }

    fn statistics_error(&self, source: StatisticsError) -> FileError {
        FileError::Statistics { offset: self.index.start, source }
    }
}

/// The block in `stored`, which was read from [`Entry::range`], after its CRC was verified.
///
/// # Errors
/// If `stored` has another size than the entry says, or the CRC is not that of the block.
pub fn verify_block<'a>(entry: &Entry, stored: &'a [u8]) -> Result<&'a [u8], FileError> {
    let (offset, expected) = (entry.offset, u64::from(entry.size));
    let short = FileError::Short { offset, expected, found: stored.len() as u64 };
    if stored.len() as u64 != expected {
        return Err(short);
    }
    let mut cursor = Cursor::new(stored);
    let expected = cursor.u32().ok_or(short)?;
    let found = crc32fast::hash(cursor.rest());
    if found != expected {
        return Err(FileError::BlockCrc { offset, expected, found });
    }
    Ok(cursor.rest())
}

/// A whole file in memory: for tools, tests and files too small to bother.
#[derive(Clone, Debug)]
pub struct FileBytes<'a> {
    bytes: &'a [u8],
    pub layout: Layout,
    pub index: FileIndex,
    /// `None` in a file of upstream.
    pub statistics: Option<Statistics>,
    /// `None` in a file of upstream.
    pub directory: Option<Directory>,
}

impl<'a> FileBytes<'a> {
    /// Checks everything but the blocks.
    ///
    /// # Errors
    /// The first part that is not as it should be.
    pub fn open(bytes: &'a [u8]) -> Result<FileBytes<'a>, FileError> {
        verify_header(bytes)?;
        let file_size = bytes.len() as u64;
        let footer = bytes.last_chunk().ok_or(FileError::Footer { file_size, index_offset: 0 })?;
        let layout = Layout::of(footer, file_size)?;
        let index = layout.parse_index(slice_of(bytes, &layout.index)?.to_vec())?;
        let (mut statistics, mut directory) = (None, None);
        if let Some(range) = layout.statistics_trailer()
            && let Some(trailer) = slice_of(bytes, &range)?.first_chunk()
            && let Some(section) = layout.statistics(trailer, &index)?
        {
            let (records, pages) = layout.parse_statistics(slice_of(bytes, &section)?.to_vec(), &index)?;
            for number in 0..pages.page_count() {
                if let Some(page) = pages.page(number) {
                    let keys = page.parse_index(slice_of(bytes, &page.index)?.to_vec(), index.blocks_end())?;
                    page.parse_statistics(slice_of(bytes, &page.statistics)?.to_vec(), &keys)?;
                }
            }
            (statistics, directory) = (Some(records), Some(pages));
        }
        Ok(FileBytes { bytes, layout, index, statistics, directory })
    }

    /// The block of `entry`, its CRC verified.
    ///
    /// # Errors
    /// If the CRC is wrong.
    pub fn block(&self, entry: &Entry) -> Result<&'a [u8], FileError> {
        verify_block(entry, slice_of(self.bytes, &entry.range())?)
    }
}

fn slice_of<'a>(bytes: &'a [u8], range: &Range<u64>) -> Result<&'a [u8], FileError> {
    let start = usize::try_from(range.start).ok();
    let end = usize::try_from(range.end).ok();
    start.zip(end).and_then(|(start, end)| bytes.get(start..end)).ok_or(FileError::Short {
        offset: range.start,
        expected: range.end.saturating_sub(range.start),
        found: (bytes.len() as u64).saturating_sub(range.start),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block;
    use proptest::prelude::*;
    use tidemill_column::Values;

    /// A file of two keys with two and one blocks.
    fn sample() -> (Vec<u8>, FileSummary) {
        let mut out = Vec::new();
        let mut writer = FileWriter::begin(&mut out);
        let times: Vec<i64> = (0..20).map(|row| row * 10).collect();
        let floats = Values::Float((0..20).map(|row| f64::from(row) * 0.5).collect());
        let texts = Values::String((0..20).map(|_| &b"text"[..]).collect());
        for (key, values, rows) in
            [(b"a#!~#f", &floats, 0..10), (b"a#!~#f", &floats, 10..20), (b"b#!~#s", &texts, 0..20)]
        {
            let mut bytes = Vec::new();
            block::encode(&times, values, rows.clone(), &mut bytes).unwrap();
            let statistics = BlockStatistics::of(&times, values, rows.clone());
            let (first, last) = (times[rows.start], times[rows.end - 1]);
            writer.push_block(key, values.field_type(), first, last, &bytes, Some(&statistics), &mut out).unwrap();
        }
        let summary = writer.finish(&mut out);
        (out, summary)
    }

    #[test]
    fn a_written_file_opens_with_its_statistics() {
        let (bytes, summary) = sample();
        assert_eq!(summary.byte_count, bytes.len() as u64);
        assert_eq!((summary.key_count, summary.block_count, summary.min_time, summary.max_time), (2, 3, 0, 190));
        let file = FileBytes::open(&bytes).unwrap();
        assert_eq!(file.layout.index.start, summary.index_offset);
        let statistics = file.statistics.as_ref().unwrap();
        for (position, key) in file.index.iter().enumerate() {
            for ((number, entry), known) in key.entries.iter().enumerate().zip(statistics.of_key(&file.index, position))
            {
                let (mut times, mut values) = (Vec::new(), Values::new(key.field_type));
                let count = block::decode(file.block(&entry).unwrap(), &mut times, &mut values).unwrap();
                assert_eq!(known, Some(BlockStatistics::of(&times, &values, 0..count)));
                assert_eq!(known, statistics.of_block(&file.index, position, number));
            }
        }
        assert_eq!(statistics.of_block(&file.index, 0, 2), None);
        assert_eq!(statistics.of_block(&file.index, 2, 0), None);
    }

    #[test]
    fn every_flipped_bit_of_a_file_is_noticed() {
        let (bytes, _) = sample();
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            let Ok(file) = FileBytes::open(&damaged) else { continue };
            // A damaged trailer magic makes the section unknown bytes, as in a file of upstream: no data is touched.
            let unknown_section = file.statistics.is_none() && at / 8 >= file.layout.index.start as usize - 8;
            let mut blocks = file.index.iter().flat_map(|key| key.entries.iter());
            assert!(unknown_section || blocks.any(|entry| file.block(&entry).is_err()), "bit {at}");
        }
    }

    #[test]
    fn blocks_without_known_statistics_are_marked_so() {
        let mut out = Vec::new();
        let mut writer = FileWriter::begin(&mut out);
        let mut bytes = Vec::new();
        block::encode(&[1], &Values::Integer(vec![4]), 0..1, &mut bytes).unwrap();
        writer.push_block(b"k", FieldType::Integer, 1, 1, &bytes, None, &mut out).unwrap();
        writer.finish(&mut out);
        let file = FileBytes::open(&out).unwrap();
        assert_eq!(file.statistics.unwrap().of_key(&file.index, 0).collect::<Vec<_>>(), [None]);
    }

    #[test]
    fn a_refused_block_leaves_a_file_that_can_be_finished() {
        let (mut out, mut bytes) = (Vec::new(), Vec::new());
        let mut writer = FileWriter::begin(&mut out);
        block::encode(&[1], &Values::Integer(vec![4]), 0..1, &mut bytes).unwrap();
        writer.push_block(b"k", FieldType::Integer, 1, 1, &bytes, None, &mut out).unwrap();
        let before = out.len();
        let refused = writer.push_block(&vec![b'l'; 65536], FieldType::Integer, 1, 1, &bytes, None, &mut out);
        assert_eq!(refused, Err(WriteError::Index(IndexFull::KeyTooLong { bytes: 65536 })));
        assert_eq!(out.len(), before);
        writer.finish(&mut out);
        assert_eq!(FileBytes::open(&out).unwrap().index.block_count(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_open_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200), footer in 0u64..300) {
            let bytes: Vec<u8> = HEADER.into_iter().chain(bytes).chain(footer.to_be_bytes()).collect();
            if let Ok(file) = FileBytes::open(&bytes) {
                for entry in file.index.iter().flat_map(|key| key.entries.iter()) {
                    let _ = file.block(&entry);
                }
            }
        }

        #[test]
        fn a_cut_file_does_not_open(cut in any::<prop::sample::Index>()) {
            let (bytes, _) = sample();
            prop_assert!(FileBytes::open(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }
}
