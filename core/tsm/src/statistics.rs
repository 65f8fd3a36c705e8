//! What is known of a block without reading it: count, sum, first, last, smallest and largest value with their times.
//!
//! Owns: computing the statistics of some points, and the statistics section of a file.
//!
//! The section lies between the last block and the index. Upstream finds the index by the footer and blocks by the
//! absolute offsets in it, so it never looks at these bytes: one file stays one file, for its hash and for shipping.
//!
//! ```text
//! section: records, then the directory of pages ([`crate::directory`]), then the trailer
//! records: one for each block, in index order
//! trailer: u64 bytes of records · u64 bytes of the directory · u32 number of records · u32 CRC of index and footer
//!          · u32 CRC of all before it in the section · 8 bytes "TMSTATS2"
//! record:  uvarint count; 0: nothing is known and nothing follows
//!   string:             nothing more
//!   count 1:            the value
//!   else:               first, last, min, max, sum, then the times of min and max as uvarint ns after the block's first
//!   value of float:     8 bytes; of integer and unsigned: (u)varint, and for last, min and max the varint difference
//!                       from first; of boolean: 1 byte
//!   sum:                as a value; integers wrap; of booleans the uvarint number of trues
//! ```
//! First and last time of a block are its index entry's. The CRC over index and footer is there because upstream's
//! format has none, and every byte read from a disk is to be verified.
//!
//! Invariants: equal values of min (max) are represented by the earliest, as upstream's selectors do. The sum adds from
//! the first to the last value, so it equals what a scan of that one block gives, bit for bit.
//! Knows nothing of queries.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use std::ops::Range;

use tidemill_column::{FieldType, Values};

use crate::cursor::{Cursor, push_uvarint, push_varint};
use crate::error::BLOCK_POINTS_MAX;
use crate::index::{Entry, FileIndex};

/// Ends a statistics section.
const MAGIC: [u8; 8] = *b"TMSTATS2";

/// Bytes at the end of a section that tell how long it is.
pub const TRAILER_BYTES: usize = 36;

/// Most bytes of a record: count, five values and two times, each a uvarint at most.
pub(crate) const RECORD_BYTES_MAX: usize = 8 * 10;

/// Values of one type; `S` is the type of their sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent<T, S = T> {
    pub first: T,
    pub last: T,
    pub min: T,
    pub max: T,
    /// Time of the earliest smallest value, ns.
    pub min_time: i64,
    /// Time of the earliest largest value, ns.
    pub max_time: i64,
    /// Floats: added from first to last. Integers: modulo 2^64. Booleans: how many are true.
    pub sum: S,
}

/// What is known of the values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Summary {
    Float(Extent<f64>),
    Integer(Extent<i64>),
    Boolean(Extent<bool, u64>),
    /// Strings are only counted: their first and last would take as many bytes as the strings are long.
    String,
    Unsigned(Extent<u64>),
}

impl Summary {
    pub fn field_type(&self) -> FieldType {
        match self {
            Summary::Float(_) => FieldType::Float,
            Summary::Integer(_) => FieldType::Integer,
            Summary::Boolean(_) => FieldType::Boolean,
            Summary::String => FieldType::String,
            Summary::Unsigned(_) => FieldType::Unsigned,
        }
    }
}

/// What is known of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockStatistics {
    /// Points, at least one.
    pub count: u32,
    /// Time of the first point, ns.
    pub first_time: i64,
    /// Time of the last point, ns.
    pub last_time: i64,
    pub summary: Summary,
}

impl BlockStatistics {
    /// The statistics of rows `rows` of `times` and `values`.
    ///
    /// # Panics
    /// If there is no row, more than a block holds, or the rows exceed either side.
    #[allow(clippy::indexing_slicing, reason = "rows out of range are the caller's mistake and documented to panic")]
    pub fn of(times: &[i64], values: &Values, rows: Range<usize>) -> BlockStatistics {
        assert!(!rows.is_empty() && rows.len() <= BLOCK_POINTS_MAX, "a block of {} points", rows.len());
        assert!(rows.end <= values.len(), "rows {rows:?} of {} values", values.len());
        let count = rows.len() as u32;
        let times = &times[rows.clone()];
        let summary = match values {
            Values::Float(values) => {
                Summary::Float(extent(times, &values[rows], |sum, value| sum + value, |value| value))
            }
            Values::Integer(values) => Summary::Integer(extent(times, &values[rows], i64::wrapping_add, |value| value)),
            Values::Unsigned(values) => {
                Summary::Unsigned(extent(times, &values[rows], u64::wrapping_add, |value| value))
            }
            Values::Boolean(values) => {
                Summary::Boolean(extent(times, &values[rows], |sum, value| sum + u64::from(value), u64::from))
            }
            Values::String(_) => Summary::String,
        };
        BlockStatistics { count, first_time: times[0], last_time: times[times.len() - 1], summary }
    }
}

#[allow(clippy::indexing_slicing, reason = "callers hold at least one value and as many times")]
fn extent<T: Copy + PartialOrd, S>(
    times: &[i64],
    values: &[T],
    add: impl Fn(S, T) -> S,
    sum_of: impl Fn(T) -> S,
) -> Extent<T, S> {
    let first = values[0];
    let (mut min, mut max, mut sum) = (first, first, sum_of(first));
    for value in &values[1..] {
        min = if *value < min { *value } else { min };
        max = if *value > max { *value } else { max };
        sum = add(sum, *value);
    }
    // Carrying positions along would make the loop above branch; a second search ends at the first hit.
    let time_of = |wanted: T| times[values.iter().position(|value| *value == wanted).unwrap_or(0)];
    Extent { first, last: values[values.len() - 1], min, max, min_time: time_of(min), max_time: time_of(max), sum }
}

/// Collects the records while blocks are written.
#[derive(Debug, Default)]
pub struct StatisticsWriter {
    records: Vec<u8>,
    record_count: u32,
}

impl StatisticsWriter {
    pub fn new() -> StatisticsWriter {
        StatisticsWriter::default()
    }

    /// Adds the record of the next block in index order; `None` when nothing is known of it.
    pub fn push(&mut self, statistics: Option<&BlockStatistics>) {
        self.record_count += 1;
        match statistics {
            Some(statistics) => push_record(statistics, &mut self.records),
            None => push_uvarint(&mut self.records, 0),
        }
    }

    /// Bytes that the section takes so far, without its directory.
    pub fn byte_count(&self) -> usize {
        self.records.len() + TRAILER_BYTES
    }

    /// The records so far.
    pub fn records(&self) -> &[u8] {
        &self.records
    }

    /// Appends the section; `index_crc` is the CRC-32 of the index and the footer that will follow.
    pub fn finish(self, directory: &[u8], index_crc: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.records);
        out.extend_from_slice(directory);
        out.extend_from_slice(&(self.records.len() as u64).to_be_bytes());
        out.extend_from_slice(&(directory.len() as u64).to_be_bytes());
        out.extend_from_slice(&self.record_count.to_be_bytes());
        out.extend_from_slice(&index_crc.to_be_bytes());
        let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_be_bytes());
        out.extend_from_slice(&MAGIC);
    }
}

/// The statistics section is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatisticsError {
    #[error("the statistics section is not where its trailer says")]
    Range,
    #[error("the statistics section has CRC {found:#010x}, not {expected:#010x}")]
    Crc { expected: u32, found: u32 },
    #[error("the index and footer have CRC {found:#010x}, not {expected:#010x}")]
    IndexCrc { expected: u32, found: u32 },
    #[error("the statistics section holds {records} records for {blocks} blocks")]
    RecordCount { records: u64, blocks: u64 },
    #[error("the statistics of block {block} of key number {position} are malformed")]
    Record { position: usize, block: usize },
}

/// Where the statistics section of a file lies, from the [`TRAILER_BYTES`] before its index; `None` in a file without.
///
/// The magic alone decides nothing, since the last block of a file of upstream may end in any bytes that a client wrote:
/// a section also begins exactly where the last block ends.
///
/// # Errors
/// If a trailer that no block covers claims another place.
pub fn section_range(
    trailer: &[u8; TRAILER_BYTES],
    index_offset: u64,
    blocks_end: u64,
) -> Result<Option<Range<u64>>, StatisticsError> {
    let room = index_offset.saturating_sub(blocks_end);
    if room < TRAILER_BYTES as u64 || !trailer.ends_with(&MAGIC) {
        return Ok(None);
    }
    let mut fields = Cursor::new(trailer);
    let (records, directory) = (fields.u64().unwrap_or(u64::MAX), fields.u64().unwrap_or(u64::MAX));
    let claimed = records.checked_add(directory).and_then(|sum| sum.checked_add(TRAILER_BYTES as u64));
    if claimed == Some(room) { Ok(Some(blocks_end..index_offset)) } else { Err(StatisticsError::Range) }
}

/// The statistics of all blocks of a file, or of a page of its index: their records and where those of each key begin.
#[derive(Clone, Debug)]
pub struct Statistics {
    records: Vec<u8>,
    key_offsets: Vec<u32>,
}

impl Statistics {
    /// Checks the whole section against the index of its file, and the index against the section. Keeps the records and
    /// four bytes a key, and returns the bytes of the directory too.
    ///
    /// # Errors
    /// If a CRC is wrong or a record does not fit its block.
    pub fn parse(mut section: Vec<u8>, index: &FileIndex) -> Result<(Statistics, Vec<u8>), StatisticsError> {
        let (parts, trailer) = section.split_last_chunk::<TRAILER_BYTES>().ok_or(StatisticsError::Range)?;
        let mut fields = Cursor::new(trailer);
        let (Some(record_bytes), Some(directory_bytes), Some(record_count), Some(index_crc), Some(crc)) =
            (fields.u64(), fields.u64(), fields.u32(), fields.u32(), fields.u32())
        else {
            return Err(StatisticsError::Range);
        };
        let found = crc32fast::hash(section.get(..section.len() - 12).unwrap_or_default());
        if crc != found {
            return Err(StatisticsError::Crc { expected: crc, found });
        }
        let fills = record_bytes.checked_add(directory_bytes) == Some(parts.len() as u64);
        if !fills || record_bytes > u32::MAX.into() || !trailer.ends_with(&MAGIC) {
            return Err(StatisticsError::Range);
        }
        let found = index_crc_of(index.bytes(), index.blocks_end() + section.len() as u64);
        if index_crc != found {
            return Err(StatisticsError::IndexCrc { expected: index_crc, found });
        }
        if u64::from(record_count) != index.block_count() {
            return Err(StatisticsError::RecordCount { records: record_count.into(), blocks: index.block_count() });
        }
        let directory = parts.get(record_bytes as usize..).unwrap_or_default().to_vec();
        section.truncate(record_bytes as usize);
        Ok((Statistics::parse_page(section, index)?, directory))
    }

    /// Checks the records of a page; `index` is the page of the index that they belong to. Their CRC is the caller's.
    ///
    /// # Errors
    /// If a record does not fit its block.
    pub fn parse_page(records: Vec<u8>, index: &FileIndex) -> Result<Statistics, StatisticsError> {
        if records.len() > u32::MAX as usize {
            return Err(StatisticsError::Range);
        }
        let mut key_offsets = Vec::with_capacity(index.key_count());
        let mut cursor = Cursor::new(&records);
        for (position, key) in index.iter().enumerate() {
            key_offsets.push((records.len() - cursor.rest().len()) as u32);
            for (block, entry) in key.entries.iter().enumerate() {
                record_of(&mut cursor, key.field_type, &entry).ok_or(StatisticsError::Record { position, block })?;
            }
        }
        if !cursor.is_empty() {
            return Err(StatisticsError::Range);
        }
        Ok(Statistics { records, key_offsets })
    }

    /// The statistics of the blocks of the key at `position` of `index`, in their order; `None` for a block of which
    /// nothing is known. `index` is the one that [`Statistics::parse`] was given.
    pub fn of_key<'a>(
        &'a self,
        index: &'a FileIndex,
        position: usize,
    ) -> impl Iterator<Item = Option<BlockStatistics>> + 'a {
        let offset = self.key_offsets.get(position).map_or(self.records.len(), |offset| *offset as usize);
        let mut cursor = Cursor::new(self.records.get(offset..).unwrap_or_default());
        index.key(position).into_iter().flat_map(move |key| {
            let field_type = key.field_type;
            key.entries.iter().map(move |entry| record_of(&mut cursor, field_type, &entry).flatten())
        })
    }

    /// The statistics of block `block` of the key at `position`, if known. Walks over the records before it; for many
    /// blocks of a key use [`Statistics::of_key`].
    pub fn of_block(&self, index: &FileIndex, position: usize, block: usize) -> Option<BlockStatistics> {
        self.of_key(index, position).nth(block).flatten()
    }

    /// Bytes that the statistics take in memory.
    pub fn byte_size(&self) -> usize {
        self.records.capacity() + self.key_offsets.capacity() * 4
    }
}

/// The CRC-32 of an index and the footer behind it.
pub(crate) fn index_crc_of(index: &[u8], index_offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(index);
    hasher.update(&index_offset.to_be_bytes());
    hasher.finalize()
}

fn push_record(statistics: &BlockStatistics, out: &mut Vec<u8>) {
    assert!(statistics.count >= 1, "the statistics of no points");
    push_uvarint(out, statistics.count.into());
    let single = statistics.count == 1;
    let (min_time, max_time) = match &statistics.summary {
        Summary::String => return,
        Summary::Float(extent) => {
            out.extend_from_slice(&extent.first.to_be_bytes());
            if !single {
                for value in [extent.last, extent.min, extent.max, extent.sum] {
                    out.extend_from_slice(&value.to_be_bytes());
                }
            }
            (extent.min_time, extent.max_time)
        }
        Summary::Integer(extent) => {
            push_varint(out, extent.first);
            if !single {
                for value in [extent.last, extent.min, extent.max] {
                    push_varint(out, value.wrapping_sub(extent.first));
                }
                push_varint(out, extent.sum);
            }
            (extent.min_time, extent.max_time)
        }
        Summary::Unsigned(extent) => {
            push_uvarint(out, extent.first);
            if !single {
                for value in [extent.last, extent.min, extent.max] {
                    push_varint(out, value.wrapping_sub(extent.first).cast_signed());
                }
                push_uvarint(out, extent.sum);
            }
            (extent.min_time, extent.max_time)
        }
        Summary::Boolean(extent) => {
            out.push(extent.first.into());
            if !single {
                out.extend([extent.last, extent.min, extent.max].map(u8::from));
                push_uvarint(out, extent.sum);
            }
            (extent.min_time, extent.max_time)
        }
    };
    if !single {
        for time in [min_time, max_time] {
            push_uvarint(out, time.wrapping_sub(statistics.first_time).cast_unsigned());
        }
    }
}

/// The record at the cursor: `None` when it is malformed, `Some(None)` when it says that nothing is known.
fn record_of(cursor: &mut Cursor<'_>, field_type: FieldType, entry: &Entry) -> Option<Option<BlockStatistics>> {
    let count = cursor.uvarint()?;
    if count == 0 {
        return Some(None);
    }
    let count = u32::try_from(count).ok().filter(|count| *count as usize <= BLOCK_POINTS_MAX)?;
    // One point has one time; more have as many as ever.
    if (count == 1) != (entry.min_time == entry.max_time) {
        return None;
    }
    let single = count == 1;
    let summary = match field_type {
        FieldType::String => Summary::String,
        FieldType::Float => {
            let first = cursor.u64().map(f64::from_bits)?;
            let others = |cursor: &mut Cursor<'_>, _| cursor.u64().map(f64::from_bits);
            let sum = |cursor: &mut Cursor<'_>| cursor.u64().map(f64::from_bits);
            Summary::Float(extent_of(cursor, single, entry, first, first, others, sum)?)
        }
        FieldType::Integer => {
            let first = cursor.varint()?;
            let others = |cursor: &mut Cursor<'_>, first: i64| Some(first.wrapping_add(cursor.varint()?));
            Summary::Integer(extent_of(cursor, single, entry, first, first, others, |cursor| cursor.varint())?)
        }
        FieldType::Unsigned => {
            let first = cursor.uvarint()?;
            let others =
                |cursor: &mut Cursor<'_>, first: u64| Some(first.wrapping_add(cursor.varint()?.cast_unsigned()));
            Summary::Unsigned(extent_of(cursor, single, entry, first, first, others, |cursor| cursor.uvarint())?)
        }
        FieldType::Boolean => {
            let boolean = |cursor: &mut Cursor<'_>| match cursor.u8()? {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            };
            let first = boolean(cursor)?;
            let others = |cursor: &mut Cursor<'_>, _| boolean(cursor);
            Summary::Boolean(extent_of(cursor, single, entry, first, first.into(), others, |cursor| cursor.uvarint())?)
        }
    };
    Some(Some(BlockStatistics { count, first_time: entry.min_time, last_time: entry.max_time, summary }))
}

fn extent_of<T: Copy, S>(
    cursor: &mut Cursor<'_>,
    single: bool,
    entry: &Entry,
    first: T,
    first_sum: S,
    other: impl Fn(&mut Cursor<'_>, T) -> Option<T>,
    sum: impl FnOnce(&mut Cursor<'_>) -> Option<S>,
) -> Option<Extent<T, S>> {
    if single {
        let time = entry.min_time;
        let (last, min, max) = (first, first, first);
        return Some(Extent { first, last, min, max, min_time: time, max_time: time, sum: first_sum });
    }
    let (last, min, max) = (other(cursor, first)?, other(cursor, first)?, other(cursor, first)?);
    let sum = sum(cursor)?;
    let time = |cursor: &mut Cursor<'_>| {
        let after = cursor.uvarint()?;
        let span = entry.max_time.wrapping_sub(entry.min_time).cast_unsigned();
        (after <= span).then(|| entry.min_time.wrapping_add(after.cast_signed()))
    };
    let (min_time, max_time) = (time(cursor)?, time(cursor)?);
    Some(Extent { first, last, min, max, min_time, max_time, sum })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry_of(statistics: &BlockStatistics) -> Entry {
        Entry { min_time: statistics.first_time, max_time: statistics.last_time, offset: 5, size: 10 }
    }

    fn all_types(words: &[u64]) -> Vec<Values> {
        let floats =
            words.iter().map(|word| f64::from_bits(*word)).map(|value| if value.is_nan() { 1.5 } else { value });
        let texts: Vec<String> = words.iter().map(u64::to_string).collect();
        vec![
            Values::Float(floats.collect()),
            Values::Integer(words.iter().map(|word| word.cast_signed()).collect()),
            Values::Boolean(words.iter().map(|word| word & 1 == 1).collect()),
            Values::String(texts.iter().map(|text| text.as_bytes()).collect()),
            Values::Unsigned(words.to_vec()),
        ]
    }

    /// Bits instead of floats, so that NaN sums of infinities compare too.
    fn text(statistics: &BlockStatistics) -> String {
        match statistics.summary {
            Summary::Float(extent) => {
                format!("{} {:x} {statistics:?}", statistics.count, extent.sum.to_bits() & !(1 << 63))
            }
            _ => format!("{statistics:?}"),
        }
    }

    proptest! {
        #[test]
        fn records_come_back(words in proptest::collection::vec(prop_oneof![any::<u64>(), 0u64..9], 1..60), first in any::<i64>(), step in 1i64..1 << 40) {
            let first = first.min(i64::MAX - (60 << 40));
            let times: Vec<i64> = (0..words.len() as i64).map(|row| first + row * step).collect();
            for values in all_types(&words) {
                let statistics = BlockStatistics::of(&times, &values, 0..times.len());
                let mut record = Vec::new();
                push_record(&statistics, &mut record);
                let mut cursor = Cursor::new(&record);
                let back = record_of(&mut cursor, values.field_type(), &entry_of(&statistics)).unwrap().unwrap();
                prop_assert_eq!(text(&back), text(&statistics));
                prop_assert!(cursor.is_empty());
            }
        }

        #[test]
        fn any_bytes_are_a_record_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..60), code in 0u8..5, first in any::<i64>(), last in any::<i64>()) {
            let entry = Entry { min_time: first, max_time: last, offset: 5, size: 10 };
            let _ = record_of(&mut Cursor::new(&bytes), FieldType::from_code(code).unwrap(), &entry);
        }
    }

    #[test]
    fn the_earliest_of_equals_stands_for_them_and_sums_wrap() {
        let values = Values::Integer(vec![3, i64::MAX, 1, 1, i64::MAX]);
        let statistics = BlockStatistics::of(&[10, 20, 30, 40, 50], &values, 0..5);
        let Summary::Integer(extent) = statistics.summary else { panic!("{statistics:?}") };
        assert_eq!((extent.min, extent.min_time, extent.max, extent.max_time), (1, 30, i64::MAX, 20));
        assert_eq!((extent.first, extent.last, extent.sum), (3, i64::MAX, 3));
        let part = BlockStatistics::of(&[10, 20, 30, 40, 50], &values, 2..4);
        assert_eq!((part.count, part.first_time, part.last_time), (2, 30, 40));
    }

    #[test]
    fn a_trailer_inside_a_block_is_not_one() {
        let mut section = Vec::new();
        StatisticsWriter::new().finish(&[], 0, &mut section);
        let trailer = section.first_chunk().unwrap();
        assert_eq!(section_range(trailer, 136, 100), Ok(Some(100..136)));
        assert_eq!(section_range(trailer, 136, 101), Ok(None), "the last block covers part of it");
        assert_eq!(section_range(trailer, 136, 99), Err(StatisticsError::Range));
        assert_eq!(section_range(&[0; TRAILER_BYTES], 136, 100), Ok(None));
    }
}
