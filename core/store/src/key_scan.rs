//! All keys of a file, in order.
//!
//! Owns: reading the pages of a file's index, and of its statistics, one after the other.
//! Invariants: a page is verified before a key of it is given; at most one read of pages is held.
//! Knows nothing of the cache: a pass over a whole file would only push out what queries need.

use crate::{read_error::ReadError, tsm_file::TsmFile};
use std::collections::VecDeque;
use tidemill_disk::DiskFile;
use tidemill_tsm::{
    index::{FileIndex, Key},
    statistics::{BlockStatistics, Statistics},
};

/// A pass over the keys of a file.
pub struct KeyScan<'a, F: DiskFile> {
    file: &'a TsmFile<F>,
    with_statistics: bool,
    /// Pages that were read and not given yet.
    read: VecDeque<FileIndex>,
    /// Records of these pages, and where in the file they start.
    records: Vec<u8>,
    records_start: u64,
    /// Number of the next page that is given.
    next: usize,
}

/// Some keys of a file.
pub struct KeyPage {
    index: FileIndex,
    statistics: Option<Statistics>,
}

impl<'a, F: DiskFile> KeyScan<'a, F> {
    pub(crate) fn new(file: &'a TsmFile<F>, with_statistics: bool) -> KeyScan<'a, F> {
        KeyScan { file, with_statistics, read: VecDeque::new(), records: Vec::new(), records_start: 0, next: 0 }
    }

    /// The next keys, about a hundred; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<KeyPage>, ReadError> {
        let file = self.file;
        if self.read.is_empty() {
            if self.next == file.page_count() {
                return Ok(None);
            }
            self.read = file.index_pages(self.next..file.page_count()).await?.into();
            if self.with_statistics {
                let last = self.next + self.read.len().max(1) - 1;
                self.records_start = file.page(self.next)?.statistics.start;
                self.records = file.read_range(self.records_start..file.page(last)?.statistics.end).await?;
            }
        }
        let Some(index) = self.read.pop_front() else { return Ok(None) };
        let mut statistics = None;
        if self.with_statistics {
            let page = file.page(self.next)?;
            if !page.statistics.is_empty() {
                let at = |offset: u64| (offset - self.records_start) as usize;
                let bytes = self.records.get(at(page.statistics.start)..at(page.statistics.end)).unwrap_or_default();
                let parsed = page.parse_statistics(bytes.to_vec(), &index).map_err(|error| file.page_error(&error))?;
                statistics = Some(parsed);
            }
        }
        self.next += 1;
        Ok(Some(KeyPage { index, statistics }))
    }
}

impl KeyPage {
    /// In their order; [`tidemill_tsm::key::split`] tells series and field.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = Key<'_>> {
        self.index.iter()
    }

    /// The key at a position of the page.
    pub fn key(&self, position: usize) -> Option<Key<'_>> {
        self.index.key(position)
    }

    /// What is known of the blocks of the key at a position of the page; nothing unless statistics were asked for.
    pub fn statistics_of(&self, position: usize) -> impl Iterator<Item = Option<BlockStatistics>> {
        self.statistics.iter().flat_map(move |statistics| statistics.of_key(&self.index, position))
    }
}
