//! One file as a copy reads it: key after key, block after block.
//!
//! Owns: where in the file the copy is, and what it leaves out of it.
//! Invariants: no key, no statistics and no block are handed out before they were verified (I5). Past the block cache,
//! which belongs to queries.
//! Knows nothing of what becomes of a block.

use crate::{
    block_reader::BlockReader,
    deletion::{Deletion, ranges_of},
    key_scan::{KeyPage, KeyScan},
    read_error::ReadError,
    tsm_file::TsmFile,
};
use std::rc::Rc;
use tidemill_column::{FieldType, Values};
use tidemill_disk::DiskFile;
use tidemill_tsm::{block, index::Entry, key, statistics::BlockStatistics};

/// A file that is being copied.
pub struct CopySource<'a, F: DiskFile> {
    table: &'a TsmFile<F>,
    scan: KeyScan<'a, F>,
    reader: BlockReader<'a, F>,
    page: Option<KeyPage>,
    /// Position of the next key in the page.
    next: usize,
    pub key: Vec<u8>,
    pub field_type: FieldType,
    pub entries: Vec<Entry>,
    pub statistics: Vec<Option<BlockStatistics>>,
    /// Deletes before the copy's entry.
    deletions: Vec<Rc<Deletion>>,
    /// The series of the present key, and the deletes that cover it.
    series: Vec<u8>,
    covering: Vec<Rc<Deletion>>,
}

impl<'a, F: DiskFile> CopySource<'a, F> {
    /// A file whose keys `scan` gives, for the copy of entry `copy`.
    pub fn new(table: &'a TsmFile<F>, scan: KeyScan<'a, F>, copy: u64) -> CopySource<'a, F> {
        let mut deletions = table.all_deletions();
        deletions.retain(|deletion| deletion.index() < copy);
        CopySource {
            table,
            scan,
            reader: table.block_reader(),
            page: None,
            next: 0,
            key: Vec::new(),
            field_type: FieldType::Float,
            entries: Vec::new(),
            statistics: Vec::new(),
            deletions,
            series: Vec::new(),
            covering: Vec::new(),
        }
    }

    /// Goes on to the next key; `false` behind the last.
    pub async fn next_key(&mut self) -> Result<bool, ReadError> {
        loop {
            if let Some(page) = &self.page
                && let Some(known) = page.key(self.next)
            {
                self.key.clear();
                self.key.extend_from_slice(known.key);
                self.field_type = known.field_type;
                self.entries.clear();
                self.entries.extend(known.entries.iter());
                self.statistics.clear();
                self.statistics.extend(page.statistics_of(self.next));
                self.next += 1;
                self.look_up_deletions();
                return Ok(true);
            }
            self.page = self.scan.next().await?;
            self.next = 0;
            if self.page.is_none() {
                return Ok(false);
            }
        }
    }

    /// Ranges of the present key that the copy leaves out: inclusive, disjoint, ascending.
    pub fn deleted(&self) -> Vec<(i64, i64)> {
        let Some((series, field)) = key::split(&self.key) else { return Vec::new() };
        ranges_of(&self.covering, series, field).map_or_else(Vec::new, |ranges| ranges.to_vec())
    }

    /// Predicates are evaluated once a series, whose fields follow each other.
    fn look_up_deletions(&mut self) {
        if self.deletions.is_empty() {
            return;
        }
        let series = key::split(&self.key).map_or(self.key.as_slice(), |(series, _)| series);
        if series != self.series {
            self.series.clear();
            self.series.extend_from_slice(series);
            self.covering.clear();
            self.covering.extend(self.deletions.iter().filter(|deletion| deletion.covers(series)).cloned());
        }
    }

    /// An error that names the block.
    pub fn damaged(&self, entry: &Entry, what: impl std::fmt::Display) -> ReadError {
        self.table.damaged(entry.offset, &what)
    }

    /// The block with its CRC, as it is in the file.
    pub async fn stored(&mut self, entry: &Entry) -> Result<&[u8], ReadError> {
        self.reader.stored(entry).await
    }

    /// The points of a block.
    pub async fn points(&mut self, entry: &Entry) -> Result<(Vec<i64>, Values), ReadError> {
        let decoded = decode(self.reader.stored(entry).await?, entry);
        decoded.map_err(|what| self.damaged(entry, what))
    }
}

/// The points of a block with its CRC, which was verified.
pub fn decode(stored: &[u8], entry: &Entry) -> Result<(Vec<i64>, Values), String> {
    let body = stored.get(tidemill_tsm::index::CRC_BYTES as usize..).unwrap_or_default();
    let parts = block::Parts::of(body).map_err(|error| error.to_string())?;
    let (mut times, mut values) = (Vec::new(), Values::new(parts.field_type));
    block::decode(body, &mut times, &mut values).map_err(|error| error.to_string())?;
    if times.first() != Some(&entry.min_time) || times.last() != Some(&entry.max_time) {
        return Err("the block's times are not those of the index".into());
    }
    Ok((times, values))
}
