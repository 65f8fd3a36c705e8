//! An open TSM file of a partition.
//!
//! Owns: the parsed TSM index, where each series' keys are in it, and the file's tombstones.
//! Invariants: index and footer are verified against the manifest's checksum when the file is opened, each block
//! against its own whenever it is decoded; the bytes of a file never change.
//! Knows nothing of memtables and of the manifest's publication.

use crate::{
    cache::{FileKey, ReadCache},
    id::{IdHash, SeriesId},
    index::SeriesIndex,
    manifest::{FileRecord, Tombstone, TombstoneScope},
    read_error::ReadError,
};
use hashbrown::HashMap;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};
use tidemill_column::Values;
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};
use tidemill_line::series_key;
use tidemill_tsm::{
    block,
    file::{FOOTER_BYTES, Layout, verify_block, verify_header},
    index::{Entries, Entry, FileIndex},
    key,
    statistics::{BlockStatistics, Statistics},
};
use xxhash_rust::xxh3::xxh3_64;

/// One read while a file is opened.
const OPEN_READ_BYTES: usize = 512 * 1024;

/// A file that queries read.
pub struct TsmFile<F: DiskFile> {
    cache_key: FileKey,
    path: String,
    file: F,
    index: FileIndex,
    statistics: Option<Statistics>,
    /// For each series of the file the position of its first key, by series.
    series: Vec<(SeriesId, u32)>,
    record: RefCell<FileRecord>,
    deleted: RefCell<Deleted>,
    cache: Rc<ReadCache>,
}

/// A field of a series in a file.
pub struct FieldKey<'a> {
    /// Of the key in the file's index.
    pub position: usize,
    pub field: &'a [u8],
    pub entries: Entries<'a>,
}

/// Tombstones by what they cover.
#[derive(Default)]
struct Deleted {
    series: HashMap<SeriesId, Vec<(i64, i64)>, IdHash>,
    measurements: BTreeMap<Vec<u8>, Vec<(i64, i64)>>,
}

impl<F: DiskFile> TsmFile<F> {
    /// Opens a file that the manifest names and verifies everything but its blocks. [`TsmFile::enter`] or
    /// [`TsmFile::attach`] completes it.
    pub async fn load<D: Disk<File = F>>(
        disk: &D,
        path: String,
        record: FileRecord,
        cache_key: FileKey,
        cache: Rc<ReadCache>,
    ) -> Result<TsmFile<F>, ReadError> {
        let io_error = |error| ReadError::io(&path, &error);
        let damaged = |what: &dyn std::fmt::Display| ReadError::damaged(&path, record.blocks_end, what);
        let file = disk.open(&path, Purpose::Data).await.map_err(io_error)?;
        let size = file.len().await.map_err(io_error)?;
        if size != record.size || record.index_offset < record.blocks_end {
            return Err(damaged(&format_args!("the file has {size} bytes, the manifest says {}", record.size)));
        }
        let head = file.read_at(0, BLOCK_BYTES).await.map_err(io_error)?;
        verify_header(head.as_ref()).map_err(|error| ReadError::damaged(&path, 0, error))?;
        let tail = read_tail(&file, record.blocks_end, size).await.map_err(io_error)?;
        if crc32c::crc32c(&tail) != record.tail_crc {
            return Err(damaged(&"checksum mismatch behind the blocks"));
        }
        let Some((section, rest)) = tail.split_at_checked((record.index_offset - record.blocks_end) as usize) else {
            return Err(damaged(&"the index lies behind the end"));
        };
        let Some((bytes, footer)) = rest.split_last_chunk::<FOOTER_BYTES>() else {
            return Err(damaged(&"no footer"));
        };
        let layout = Layout::of(footer, size).map_err(|error| damaged(&error))?;
        let parsed = layout.parse_index(bytes.to_vec()).map_err(|error| damaged(&error))?;
        let statistics = match section {
            [] => None,
            section => Some(layout.parse_statistics(section.to_vec(), &parsed).map_err(|error| damaged(&error))?),
        };
        let deleted = RefCell::default();
        let record = RefCell::new(record);
        Ok(TsmFile { cache_key, path, file, index: parsed, statistics, series: Vec::new(), record, deleted, cache })
    }

    /// Completes a file that was found at a start: its series and fields enter the dictionary.
    pub fn enter(mut self, index: &mut SeriesIndex) -> Result<TsmFile<F>, ReadError> {
        let mut series: Vec<(SeriesId, u32)> = Vec::new();
        let mut last: &[u8] = b"";
        for (position, entry) in self.index.iter().enumerate() {
            let (series_key, field) = key::split(entry.key).ok_or_else(|| self.no_field())?;
            if series.is_empty() || series_key != last {
                series.push((index.insert_key(series_key), position as u32));
                last = series_key;
            }
            index.insert_field(&series_key::measurement(series_key), field, entry.field_type);
        }
        self.complete(series, index);
        Ok(self)
    }

    /// Completes a file that a flush made: the dictionary knows its series, and those that were deleted meanwhile must
    /// not come back by it.
    pub fn attach(mut self, index: &SeriesIndex) -> Result<TsmFile<F>, ReadError> {
        let mut series: Vec<(SeriesId, u32)> = Vec::new();
        let mut last: &[u8] = b"";
        for (position, entry) in self.index.iter().enumerate() {
            let (series_key, _) = key::split(entry.key).ok_or_else(|| self.no_field())?;
            if position == 0 || series_key != last {
                let known = index.find(xxh3_64(series_key), series_key);
                series.extend(known.map(|series| (series, position as u32)));
                last = series_key;
            }
        }
        self.complete(series, index);
        Ok(self)
    }

    fn complete(&mut self, mut series: Vec<(SeriesId, u32)>, index: &SeriesIndex) {
        series.sort_unstable();
        self.series = series;
        let tombstones = self.record.borrow().tombstones.clone();
        tombstones.iter().for_each(|tombstone| self.cover(tombstone, index));
    }

    fn no_field(&self) -> ReadError {
        ReadError::damaged(&self.path, self.record.borrow().index_offset, "a key without a field")
    }

    /// What the manifest says of the file.
    pub fn record(&self) -> FileRecord {
        self.record.borrow().clone()
    }

    /// Bytes on disk.
    pub fn size(&self) -> u64 {
        self.record.borrow().size
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn cache_key(&self) -> FileKey {
        self.cache_key
    }

    /// Bytes that the open file holds in memory.
    pub fn byte_size(&self) -> usize {
        self.index.byte_size()
            + self.statistics.as_ref().map_or(0, Statistics::byte_size)
            + self.series.len() * size_of::<(SeriesId, u32)>()
    }

    /// Whether a point may lie in the inclusive range.
    pub fn touches(&self, min_time: i64, max_time: i64) -> bool {
        let record = self.record.borrow();
        record.min_time <= max_time && record.max_time >= min_time
    }

    /// Series that have keys in the file.
    pub fn series(&self) -> impl Iterator<Item = SeriesId> {
        self.series.iter().map(|(series, _)| *series)
    }

    /// Newest time of a series in the file.
    pub fn max_time(&self, series: SeriesId) -> Option<i64> {
        self.keys(series).map(|key| key.entries.time_range().1).max()
    }

    /// Fields of a series with their blocks, in the order of their names.
    pub fn keys(&self, series: SeriesId) -> impl Iterator<Item = FieldKey<'_>> {
        let found = self.series.binary_search_by_key(&series, |(series, _)| *series).ok();
        let first = found.map_or(self.index.key_count(), |found| self.series[found].1 as usize);
        let split = self.index.key(first).and_then(|known| key::split(known.key));
        let series_key = split.map_or(&b""[..], |(series_key, _)| series_key);
        (first..self.index.key_count()).map_while(move |position| {
            let known = self.index.key(position)?;
            let field = known.key.strip_prefix(series_key)?.strip_prefix(key::SEPARATOR)?;
            Some(FieldKey { position, field, entries: known.entries })
        })
    }

    /// Inclusive ranges in which points of the series are gone.
    pub fn deleted(&self, series: SeriesId, measurement: &[u8]) -> Option<Rc<[(i64, i64)]>> {
        let deleted = self.deleted.borrow();
        if deleted.series.is_empty() && deleted.measurements.is_empty() {
            return None;
        }
        let by_series = deleted.series.get(&series).into_iter().flatten();
        Some(by_series.chain(deleted.measurements.get(measurement).into_iter().flatten()).copied().collect())
    }

    /// A block of the key at a position of the index.
    pub fn entry(&self, key: usize, block: usize) -> Option<Entry> {
        self.index.key(key)?.entries.entry(block)
    }

    /// What is known of the blocks of the key at a position of the index.
    pub fn statistics_of(&self, key: usize) -> Vec<Option<BlockStatistics>> {
        self.statistics.iter().flat_map(|statistics| statistics.of_key(&self.index, key)).collect()
    }

    /// Marks points as gone; the manifest carries it from its next publication on.
    pub fn add_tombstone(&self, tombstone: Tombstone, index: &SeriesIndex) {
        if self.record.borrow().tombstones.contains(&tombstone) {
            return;
        }
        self.cover(&tombstone, index);
        self.record.borrow_mut().tombstones.push(tombstone);
    }

    /// Reads, verifies and decodes one block.
    pub async fn read_block(&self, entry: &Entry) -> Result<(Vec<i64>, Values), ReadError> {
        let size = self.record.borrow().size;
        let bytes = self.cache.read(self.cache_key, &self.file, size, entry.offset, entry.size as usize).await;
        let bytes = bytes.map_err(|error| ReadError::io(&self.path, &error))?;
        let damaged = |what: &dyn std::fmt::Display| ReadError::damaged(&self.path, entry.offset, what);
        let body = verify_block(entry, &bytes).map_err(|error| damaged(&error))?;
        let parts = block::Parts::of(body).map_err(|error| damaged(&error))?;
        let (mut times, mut values) = (Vec::new(), Values::new(parts.field_type));
        block::decode(body, &mut times, &mut values).map_err(|error| damaged(&error))?;
        if times.first() != Some(&entry.min_time) || times.last() != Some(&entry.max_time) {
            return Err(damaged(&"the block's times are not those of the index"));
        }
        Ok((times, values))
    }

    fn cover(&self, tombstone: &Tombstone, index: &SeriesIndex) {
        let range = (tombstone.min_time, tombstone.max_time);
        let mut deleted = self.deleted.borrow_mut();
        match &tombstone.scope {
            TombstoneScope::Measurement(name) => deleted.measurements.entry(name.clone()).or_default().push(range),
            TombstoneScope::Series(keys) => {
                for known in keys {
                    if let Some(series) = index.find(xxh3_64(known), known) {
                        deleted.series.entry(series).or_default().push(range);
                    }
                }
            }
        }
    }
}

/// The bytes from `start` to the end of a file of `size` bytes.
async fn read_tail<F: DiskFile>(file: &F, start: u64, size: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity((size - start.min(size)) as usize);
    let mut offset = start / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    while offset < size {
        let part = file.read_at(offset, OPEN_READ_BYTES).await?;
        let skip = start.saturating_sub(offset) as usize;
        if part.as_ref().len() <= skip {
            break;
        }
        bytes.extend_from_slice(&part.as_ref()[skip..]);
        offset += part.as_ref().len() as u64;
    }
    bytes.truncate((size - start.min(size)) as usize);
    Ok(bytes)
}
