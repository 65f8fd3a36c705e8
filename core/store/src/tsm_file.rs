//! An open TSM file of a partition.
//!
//! Owns: the directory of the file's pages, the look-up of keys in them, and the file's tombstones. Memory grows with
//! the pages, not with the keys: pages of the index and of the statistics are read when they are needed and belong to
//! the [`ReadCache`].
//! Invariants: the directory is verified against the manifest's checksum when the file is opened, each page against its
//! checksum in the directory before a key of it is believed, each block against its own whenever it is decoded; the
//! bytes of a file never change, wherever they are: a reader goes on while its blocks move to the pool.
//! Knows nothing of series ids, memtables and the manifest's publication.

use crate::{
    block_reader::BlockReader,
    cache::{CHUNK_BYTES, FileBytes, FileKey, Part, PartKind, ReadCache},
    deletion::Deletion,
    file_place::FilePlace,
    key_scan::KeyScan,
    manifest::{FileRecord, TSM_SUFFIX, Tier},
    pool_blocks::PoolBlocks,
    read_error::ReadError,
};
use std::{cell::RefCell, io, ops::Range, rc::Rc};
use tidemill_column::Values;
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};
use tidemill_tsm::{
    block,
    directory::{Directory, DirectoryBuilder, Page},
    file::{FOOTER_BYTES, FileError, FileSummary, Layout, verify_block, verify_header},
    index::{Entry, FileIndex},
    statistics::{BlockStatistics, Statistics, TRAILER_BYTES},
};

/// Most bytes of one read.
pub(crate) const READ_BYTES: usize = 512 * 1024;
/// A block from the pool that is damaged is asked for so often, each time of another copy if there is one.
pub(crate) const POOL_TRIES: usize = 3;

/// A file that queries read.
pub struct TsmFile<F: DiskFile> {
    cache_key: FileKey,
    path: String,
    place: RefCell<Rc<FilePlace<F>>>,
    blocks_end: u64,
    directory: Directory,
    record: RefCell<FileRecord>,
    /// Its tombstones, by their index.
    deletions: RefCell<Vec<Rc<Deletion>>>,
    cache: Rc<ReadCache>,
}

/// Blocks of a key in a file that touch a range of times, in ascending time; at least one.
pub struct KeyBlocks {
    pub entries: Box<[Entry]>,
    /// Where the key is: page, and position in it.
    page: usize,
    position: usize,
    /// Number of the first of `entries` among all blocks of the key.
    first: usize,
}

/// What [`FileRecord::tail_crc`] is over: `tail` are the bytes that a finished file has behind its blocks, which end at
/// `blocks_end`.
pub(crate) fn tail_crc(tail: &[u8], blocks_end: u64, summary: &FileSummary) -> u32 {
    let at = |offset: u64| (offset - blocks_end) as usize;
    let directory = crc32c::crc32c(&tail[at(summary.directory_offset)..at(summary.index_offset)]);
    crc32c::crc32c_append(directory, &tail[tail.len() - FOOTER_BYTES..])
}

impl<F: DiskFile> TsmFile<F> {
    /// Opens a file that the manifest names, all of which is at `path`.
    pub async fn open<D: Disk<File = F>>(
        disk: &D,
        path: String,
        record: FileRecord,
        cache_key: FileKey,
        cache: Rc<ReadCache>,
    ) -> Result<TsmFile<F>, ReadError> {
        let io_error = |error| ReadError::io(&path, &error);
        let file = disk.open(&path, Purpose::Data).await.map_err(io_error)?;
        let size = file.len().await.map_err(io_error)?;
        let head = file.read_at(0, BLOCK_BYTES).await.map_err(io_error)?;
        verify_header(head.as_ref()).map_err(|error| ReadError::damaged(&path, 0, error))?;
        TsmFile::open_place(FilePlace::Here(file), size, path, record, cache_key, cache).await
    }

    /// Opens a file that the manifest names and whose blocks are in the pool; what is behind them is at `tail`. `path` is
    /// where the file would be if it were here.
    pub async fn open_tail<D: Disk<File = F>>(
        disk: &D,
        (tail, path): (&str, String),
        record: FileRecord,
        (cache_key, cache): (FileKey, Rc<ReadCache>),
        pool: Rc<dyn PoolBlocks>,
    ) -> Result<TsmFile<F>, ReadError> {
        let io_error = |error| ReadError::io(tail, &error);
        let file = disk.open(tail, Purpose::Data).await.map_err(io_error)?;
        let size = file.len().await.map_err(io_error)?.saturating_add(record.blocks_end);
        let place = FilePlace::Pool { tail: file, blocks_end: record.blocks_end, hash: record.hash, pool };
        TsmFile::open_place(place, size, path, record, cache_key, cache).await
    }

    /// Reads the directory and footer of a file of `size` bytes. A file without a directory, from upstream, has its index
    /// read once.
    async fn open_place(
        place: FilePlace<F>,
        size: u64,
        path: String,
        record: FileRecord,
        cache_key: FileKey,
        cache: Rc<ReadCache>,
    ) -> Result<TsmFile<F>, ReadError> {
        let io_error = |error| ReadError::io(&path, &error);
        let damaged = |what: &dyn std::fmt::Display| ReadError::damaged(&path, record.directory_offset, what);
        let offsets = [record.blocks_end, record.directory_offset, record.index_offset, size];
        if size != record.size || !offsets.is_sorted() || size - record.index_offset < FOOTER_BYTES as u64 {
            return Err(damaged(&format_args!("the file has {size} bytes, the manifest says {}", record.size)));
        }
        let footer_offset = size - FOOTER_BYTES as u64;
        let footer = place.read_range(footer_offset..size).await.map_err(io_error)?;
        let footer = footer.first_chunk().ok_or_else(|| damaged(&"no footer"))?;
        let (crc, directory) = if record.directory_offset < record.index_offset {
            let bytes = place.read_range(record.directory_offset..record.index_offset).await.map_err(io_error)?;
            let pages = bytes.split_last_chunk::<TRAILER_BYTES>().map_or(&[][..], |(pages, _)| pages);
            let (index, statistics) = (record.index_offset..footer_offset, record.blocks_end..record.directory_offset);
            (crc32c::crc32c(&bytes), Directory::parse(pages, index, statistics))
        } else {
            let index = record.index_offset..footer_offset;
            let (mut crc, mut builder) = (0, DirectoryBuilder::new(index.clone()));
            let mut built = Ok(());
            let mut offset = index.start;
            while offset < index.end {
                let upto = index.end.min(offset + READ_BYTES as u64);
                let bytes = place.read_range(offset..upto).await.map_err(io_error)?;
                crc = crc32c::crc32c_append(crc, &bytes);
                built = built.and_then(|()| builder.push(&bytes));
                offset = upto;
            }
            (crc, built.and_then(|()| builder.finish()))
        };
        if crc32c::crc32c_append(crc, footer) != record.tail_crc {
            return Err(damaged(&"checksum mismatch behind the blocks"));
        }
        let layout = Layout::of(footer, size).map_err(|error| damaged(&error))?;
        if layout.index.start != record.index_offset {
            return Err(damaged(&"the footer names another place for the index than the manifest"));
        }
        let directory = directory.map_err(|error| damaged(&error))?;
        let compiled = record.tombstones.iter().cloned().map(|tombstone| Deletion::new(tombstone).map(Rc::new));
        let deletions = RefCell::new(compiled.collect::<Result<_, _>>().map_err(|error| damaged(&error))?);
        let blocks_end = record.blocks_end;
        let record = RefCell::new(record);
        let place = RefCell::new(Rc::new(place));
        let file = TsmFile { cache_key, path, place, blocks_end, directory, record, deletions, cache };
        file.cache.hold(file.byte_size());
        Ok(file)
    }

    /// What the manifest says of the file.
    pub fn record(&self) -> FileRecord {
        self.record.borrow().clone()
    }

    /// Place among the files of the shard group.
    pub fn rank(&self) -> (bool, u64, u32) {
        self.record.borrow().rank()
    }

    pub fn level(&self) -> u8 {
        self.record.borrow().level
    }

    /// Bytes of the whole file.
    pub fn size(&self) -> u64 {
        self.record.borrow().size
    }

    /// Bytes of it on this disk.
    pub fn local_size(&self) -> u64 {
        self.size() - if self.place().is_pool() { self.blocks_end } else { 0 }
    }

    /// Whether its blocks are read from the pool.
    pub fn reads_pool(&self) -> bool {
        self.place().is_pool()
    }

    /// From here on blocks are read from the pool. `tail` holds what is behind them.
    pub(crate) fn move_to_pool(&self, tail: F, pool: Rc<dyn PoolBlocks>) {
        let (blocks_end, hash) = (self.blocks_end, self.record.borrow().hash);
        *self.place.borrow_mut() = Rc::new(FilePlace::Pool { tail, blocks_end, hash, pool });
    }

    /// The manifest says that the file is in this tier, from its next publication on.
    pub(crate) fn set_tier(&self, tier: Tier) {
        self.record.borrow_mut().tier = tier;
    }

    pub fn tier(&self) -> Tier {
        self.record.borrow().tier
    }

    /// Where the file is, or would be if its blocks were not in the pool.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// How the paths of all begin that may be on the disk of it.
    pub fn stem(&self) -> String {
        format!("{}.", self.path.strip_suffix(TSM_SUFFIX).unwrap_or(&self.path))
    }

    /// Bytes that the open file holds in memory, whatever the cache holds of it.
    pub fn byte_size(&self) -> usize {
        size_of::<Self>() + self.path.capacity() + self.directory.byte_size()
    }

    /// Whether a point may lie in the inclusive range.
    pub fn touches(&self, min_time: i64, max_time: i64) -> bool {
        let record = self.record.borrow();
        record.min_time <= max_time && record.max_time >= min_time
    }

    /// Whether all points lie in the inclusive range.
    pub fn lies_within(&self, (min_time, max_time): (i64, i64)) -> bool {
        let record = self.record.borrow();
        min_time <= record.min_time && record.max_time <= max_time
    }

    /// All keys with their blocks, in order. For passes over the whole file: what it reads does not go through the cache.
    pub fn keys(&self) -> KeyScan<'_, F> {
        KeyScan::new(self, false)
    }

    /// As [`TsmFile::keys`], with the statistics of the blocks.
    pub fn keys_with_statistics(&self) -> KeyScan<'_, F> {
        KeyScan::new(self, true)
    }

    /// Reads blocks as they are stored, past the cache; best in the order in which they lie in the file.
    pub fn block_reader(&self) -> BlockReader<'_, F> {
        BlockReader::new(self)
    }

    /// The blocks of a key that may hold points of the inclusive range.
    pub async fn find(&self, key: &[u8], range: (i64, i64)) -> Result<Option<KeyBlocks>, ReadError> {
        let Some(page) = self.directory.find(key) else { return Ok(None) };
        let index = self.index_page(page).await?;
        let Some(position) = index.find(key) else { return Ok(None) };
        let Some(found) = index.key(position) else { return Ok(None) };
        let blocks = found.entries.overlapping(range.0, range.1);
        if blocks.is_empty() {
            return Ok(None);
        }
        let entries = found.entries.iter().skip(blocks.start).take(blocks.len()).collect();
        Ok(Some(KeyBlocks { entries, page, position, first: blocks.start }))
    }

    /// What is known of the blocks, in their order; empty in a file without statistics.
    pub async fn statistics_of(&self, blocks: &KeyBlocks) -> Result<Vec<Option<BlockStatistics>>, ReadError> {
        if self.page(blocks.page)?.statistics.is_empty() {
            return Ok(Vec::new());
        }
        let index = self.index_page(blocks.page).await?;
        let statistics = self.statistics_page(blocks.page).await?;
        Ok(statistics.of_key(&index, blocks.position).skip(blocks.first).take(blocks.entries.len()).collect())
    }

    /// What was deleted of the series of this key.
    pub fn deletions(&self, series_key: &[u8]) -> Vec<Rc<Deletion>> {
        self.deletions.borrow().iter().filter(|deletion| deletion.covers(series_key)).cloned().collect()
    }

    /// All that was deleted of the file.
    pub fn all_deletions(&self) -> Vec<Rc<Deletion>> {
        self.deletions.borrow().clone()
    }

    /// Marks points as gone, if the file may hold some; the manifest carries it from its next publication on. A delete
    /// that is replayed may be there already, and a file that was made behind it has nothing of what it covers.
    pub fn add_tombstone(&self, deletion: &Rc<Deletion>) {
        let record = &mut *self.record.borrow_mut();
        let is_known = self.deletions.borrow().iter().any(|known| known.index() == deletion.index());
        let is_older = record.generation < deletion.index();
        if !is_known && is_older && deletion.touches(record.min_time, record.max_time) {
            self.deletions.borrow_mut().push(deletion.clone());
            record.tombstones.push(deletion.tombstone().clone());
        }
    }

    /// Forgets the deletes of entries before this one, which were found to cover no point of the file.
    pub fn forget_tombstones(&self, before: u64) {
        self.deletions.borrow_mut().retain(|deletion| deletion.index() >= before);
        self.record.borrow_mut().tombstones.retain(|tombstone| tombstone.index >= before);
    }

    /// Reads, verifies and decodes one block. The caller goes on behind it for `ahead` bytes.
    pub async fn read_block(&self, entry: &Entry, ahead: u64) -> Result<(Vec<i64>, Values), ReadError> {
        let bytes = self.verified_block(entry, ahead).await?;
        let damaged = |what: &dyn std::fmt::Display| self.damaged(entry.offset, what);
        let body = verify_block(entry, &bytes).map_err(|error| damaged(&error))?;
        let parts = block::Parts::of(body).map_err(|error| damaged(&error))?;
        let (mut times, mut values) = (Vec::new(), Values::new(parts.field_type));
        block::decode(body, &mut times, &mut values).map_err(|error| damaged(&error))?;
        if times.first() != Some(&entry.min_time) || times.last() != Some(&entry.max_time) {
            return Err(damaged(&"the block's times are not those of the index"));
        }
        Ok((times, values))
    }

    /// A block with its CRC before it, by way of the cache. One from the pool is asked for again if it is damaged.
    async fn verified_block(&self, entry: &Entry, ahead: u64) -> Result<FileBytes, ReadError> {
        let mut tries = 0;
        loop {
            let place = self.place();
            let readable = place.blocks_readable(self.size());
            let read =
                self.cache.read(self.cache_key, &place, readable, entry.offset, entry.size as usize, ahead).await;
            let bytes = read.map_err(|error| self.io_error(&error))?;
            tries += 1;
            let Err(error) = verify_block(entry, &bytes) else { return Ok(bytes) };
            if tries == POOL_TRIES || !place.distrust(entry.offset) {
                return Err(self.damaged(entry.offset, &error));
            }
            self.cache.drop_chunks(self.cache_key, entry.range());
        }
    }

    pub(crate) fn io_error(&self, error: &io::Error) -> ReadError {
        match self.reads_pool() {
            true => ReadError::Pool { file: self.path.clone(), error: error.to_string() },
            false => ReadError::io(&self.path, error),
        }
    }

    pub(crate) fn place(&self) -> Rc<FilePlace<F>> {
        self.place.borrow().clone()
    }

    pub(crate) fn damaged(&self, offset: u64, what: &dyn std::fmt::Display) -> ReadError {
        ReadError::damaged(&self.path, offset, what)
    }

    pub(crate) fn blocks_end(&self) -> u64 {
        self.blocks_end
    }

    pub(crate) fn page_count(&self) -> usize {
        self.directory.page_count()
    }

    pub(crate) fn page(&self, number: usize) -> Result<Page, ReadError> {
        self.directory.page(number).ok_or_else(|| self.damaged(self.blocks_end, &"no such page"))
    }

    /// Bytes of the file, past the cache.
    pub(crate) async fn read_range(&self, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
        self.place().read_range(range).await.map_err(|error| self.io_error(&error))
    }

    async fn index_page(&self, number: usize) -> Result<Rc<FileIndex>, ReadError> {
        let load = async |numbers: Range<u64>| {
            let pages = self.index_pages(numbers.start as usize..numbers.end as usize).await?;
            Ok(pages.into_iter().map(|page| Part::Index(Rc::new(page))).collect())
        };
        let (asked, all) = (number as u64, self.page_count() as u64);
        match self.cache.part(self.cache_key, PartKind::Index, asked, asked + 1, all, load).await? {
            Part::Index(page) => Ok(page),
            _ => Err(self.damaged(self.blocks_end, &"not a page of the index")),
        }
    }

    async fn statistics_page(&self, number: usize) -> Result<Rc<Statistics>, ReadError> {
        let load = async |numbers: Range<u64>| {
            let pages: Vec<Page> =
                numbers.clone().map(|number| self.page(number as usize)).collect::<Result<_, _>>()?;
            let start = pages.first().map_or(0, |page| page.statistics.start);
            let is_near = |page: &&Page| page.statistics.end - start <= READ_BYTES as u64;
            let count = pages.iter().take_while(is_near).count().max(1);
            let end = pages.get(count - 1).map_or(start, |page| page.statistics.end);
            let bytes = self.read_range(start..end).await?;
            let mut parsed = Vec::with_capacity(count);
            for (number, page) in numbers.zip(&pages).take(count) {
                let index = self.index_page(number as usize).await;
                let at = |offset: u64| (offset - start) as usize;
                let part = bytes.get(at(page.statistics.start)..at(page.statistics.end)).unwrap_or_default();
                let page = index.and_then(|index| {
                    page.parse_statistics(part.to_vec(), &index).map_err(|error| self.page_error(&error))
                });
                match page {
                    Ok(page) => parsed.push(Part::Statistics(Rc::new(page))),
                    Err(error) if parsed.is_empty() => return Err(error),
                    // Damage is reported to whoever needs the page.
                    Err(_) => break,
                }
            }
            Ok(parsed)
        };
        let (asked, all) = (number as u64, self.page_count() as u64);
        match self.cache.part(self.cache_key, PartKind::Statistics, asked, asked + 1, all, load).await? {
            Part::Statistics(page) => Ok(page),
            _ => Err(self.damaged(self.blocks_end, &"not a page of statistics")),
        }
    }

    /// Verified pages of the index, read with one call: the first of the numbers and as many of the others as go with it.
    pub(crate) async fn index_pages(&self, numbers: Range<usize>) -> Result<Vec<FileIndex>, ReadError> {
        let first = self.page(numbers.start)?;
        let mut pages = vec![first.clone()];
        for number in numbers.skip(1) {
            let page = self.page(number)?;
            if page.index.end - first.index.start > READ_BYTES as u64 {
                break;
            }
            pages.push(page);
        }
        let end = pages.last().map_or(first.index.end, |page| page.index.end);
        let bytes = self.read_range(first.index.start..end).await?;
        let mut parsed = Vec::with_capacity(pages.len());
        for page in pages {
            let start = (page.index.start - first.index.start) as usize;
            let part = bytes.get(start..).unwrap_or_default();
            let part = part[..part.len().min((page.index.end - page.index.start) as usize)].to_vec();
            match page.parse_index(part, self.blocks_end) {
                Ok(index) => parsed.push(index),
                Err(error) if parsed.is_empty() => return Err(self.page_error(&error)),
                // Damage is reported to whoever needs the page.
                Err(_) => break,
            }
        }
        Ok(parsed)
    }

    pub(crate) fn page_error(&self, error: &FileError) -> ReadError {
        let offset = match error {
            FileError::PageCrc { offset, .. }
            | FileError::Short { offset, .. }
            | FileError::Index { offset, .. }
            | FileError::Statistics { offset, .. } => *offset,
            _ => self.blocks_end,
        };
        self.damaged(offset, error)
    }
}

impl<F: DiskFile> Drop for TsmFile<F> {
    fn drop(&mut self) {
        self.cache.release(self.byte_size());
        let chunks = self.size().div_ceil(CHUNK_BYTES as u64);
        self.cache.forget(self.cache_key, chunks.max(self.page_count() as u64));
    }
}
