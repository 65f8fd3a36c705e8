//! One field of one series in one source, block by block.

use crate::{
    cost::ReadCost,
    deletion::ranges_from,
    read_error::ReadError,
    tsm_file::{KeyBlocks, TsmFile},
};
use std::{ops::Range, rc::Rc};
use tidemill_column::{Column, Values};
use tidemill_disk::DiskFile;
use tidemill_tsm::{index::Entry, statistics::BlockStatistics};

/// A source of one field. Its blocks do not overlap each other.
pub struct Lane<F: DiskFile> {
    field: usize,
    blocks: Option<Blocks<F>>,
    /// Inclusive range that was asked for.
    range: (i64, i64),
    /// Inclusive ranges of points that are gone.
    /// Disjoint, ascending.
    deleted: Option<Rc<[(i64, i64)]>>,
    head: Option<Slice>,
}

/// Blocks of a key of a file that were not decoded yet, in ascending time.
pub struct Blocks<F: DiskFile> {
    file: Rc<TsmFile<F>>,
    key: KeyBlocks,
    /// Those that are left.
    left: Range<usize>,
    /// Statistics of all of them, once one was asked for.
    statistics: Option<Vec<Option<BlockStatistics>>>,
    /// A block was read: the ones behind it are wanted too.
    begun: bool,
}

/// Rows of one field: strictly ascending times and their values. Parts of the same rows share them.
pub struct Slice {
    pub field: usize,
    pub times: Rc<Vec<i64>>,
    pub column: Rc<Column>,
    pub rows: Range<usize>,
}

impl Slice {
    pub fn new(field: usize, times: Vec<i64>, column: Column) -> Slice {
        let rows = 0..times.len();
        Slice { field, times: Rc::new(times), column: Rc::new(column), rows }
    }

    pub fn times(&self) -> &[i64] {
        &self.times[self.rows.clone()]
    }

    /// Times and values, without a copy where nobody else holds them.
    pub fn into_parts(self) -> (Vec<i64>, Column) {
        let is_whole = self.rows == (0..self.times.len());
        if is_whole {
            let times = Rc::try_unwrap(self.times).unwrap_or_else(|shared| shared.as_ref().clone());
            let column = Rc::try_unwrap(self.column).unwrap_or_else(|shared| shared.as_ref().clone());
            return (times, column);
        }
        let mut column = Column::new(self.column.values.field_type());
        column.extend_from(&self.column, self.rows.clone());
        (self.times[self.rows].to_vec(), column)
    }
}

impl<F: DiskFile> Blocks<F> {
    pub fn new(file: Rc<TsmFile<F>>, key: KeyBlocks) -> Blocks<F> {
        let left = 0..key.entries.len();
        Blocks { file, key, left, statistics: None, begun: false }
    }

    fn entry(&self, descending: bool) -> Option<Entry> {
        let number = if descending { self.left.end.checked_sub(1)? } else { self.left.start };
        if self.left.is_empty() { None } else { self.key.entries.get(number).copied() }
    }

    /// Bytes behind a block that are going to be read too, unless the reader stops early.
    fn ahead(&mut self, block: &Entry, descending: bool) -> u64 {
        let last = self.left.clone().last().and_then(|last| self.key.entries.get(last));
        let first_read = !std::mem::replace(&mut self.begun, true);
        match last {
            Some(last) if !descending && !first_read => last.range().end.saturating_sub(block.range().end),
            _ => 0,
        }
    }

    fn byte_size(&self) -> usize {
        let statistics = self.statistics.as_ref().map_or(0, |known| known.len() * size_of::<Option<BlockStatistics>>());
        self.key.entries.len() * size_of::<Entry>() + statistics
    }

    fn pop(&mut self, descending: bool) -> Option<Entry> {
        let entry = self.entry(descending)?;
        if descending {
            self.left.end -= 1;
        } else {
            self.left.start += 1;
        }
        Some(entry)
    }
}

impl<F: DiskFile> Lane<F> {
    /// Rows that are in memory already.
    pub fn of_rows(slice: Slice) -> Lane<F> {
        Lane { field: slice.field, blocks: None, range: (i64::MIN, i64::MAX), deleted: None, head: Some(slice) }
    }

    pub fn of_blocks(field: usize, blocks: Blocks<F>, range: (i64, i64), deleted: Option<Rc<[(i64, i64)]>>) -> Lane<F> {
        Lane { field, blocks: Some(blocks), range, deleted, head: None }
    }

    pub fn field(&self) -> usize {
        self.field
    }

    /// Path of the file that it reads, unless its rows are in memory.
    pub fn file(&self) -> Option<&str> {
        self.blocks.as_ref().map(|blocks| blocks.file.path())
    }

    /// What is left to read, files not counted.
    pub fn cost(&self) -> ReadCost {
        let cached_values = self.head.as_ref().map_or(0, |rows| rows.times().len() as u64);
        let entries = self.blocks.as_ref().and_then(|blocks| blocks.key.entries.get(blocks.left.clone()));
        let entries = entries.unwrap_or_default();
        let block_bytes = entries.iter().map(|entry| entry.range().end - entry.range().start).sum();
        ReadCost { cached_values, files: 0, blocks: entries.len() as u64, block_bytes }
    }

    pub fn is_loaded(&self) -> bool {
        self.head.is_some()
    }

    pub fn is_exhausted(&self) -> bool {
        self.head.is_none() && self.blocks.as_ref().is_none_or(|blocks| blocks.left.is_empty())
    }

    /// The block that is decoded next; `None` while decoded rows are left.
    pub fn next_block(&self, descending: bool) -> Option<Entry> {
        if self.head.is_some() { None } else { self.blocks.as_ref()?.entry(descending) }
    }

    /// Where the lane's next rows begin, seen in the direction of reading.
    pub fn start(&self, descending: bool) -> Option<i64> {
        match (&self.head, descending) {
            (Some(head), false) => head.times().first().copied(),
            (Some(head), true) => head.times().last().copied(),
            (None, false) => self.next_block(false).map(|block| block.min_time),
            (None, true) => self.next_block(true).map(|block| block.max_time),
        }
    }

    /// Where the block after the next one begins.
    pub fn start_behind_block(&self, descending: bool) -> Option<i64> {
        let blocks = self.blocks.as_ref().filter(|blocks| blocks.left.len() > 1)?;
        if descending {
            Some(blocks.key.entries.get(blocks.left.end - 2)?.max_time)
        } else {
            Some(blocks.key.entries.get(blocks.left.start + 1)?.min_time)
        }
    }

    /// Where the decoded head ends, seen in the direction of reading.
    pub fn head_end(&self, descending: bool) -> Option<i64> {
        let times = self.head.as_ref()?.times();
        if descending { times.first().copied() } else { times.last().copied() }
    }

    /// Bytes that the lane holds in memory. Rows that several slices share count once for each.
    pub fn byte_size(&self) -> usize {
        let head = self.head.as_ref().map_or(0, |head| head.times.len() * 8 + head.column.byte_size());
        size_of::<Self>() + head + self.blocks.as_ref().map_or(0, Blocks::byte_size)
    }

    /// Whether every point of the next block was asked for and is there.
    fn is_next_whole(&self, descending: bool) -> bool {
        let Some(block) = self.next_block(descending) else { return false };
        self.range.0 <= block.min_time
            && block.max_time <= self.range.1
            && self.deleted_from(block.min_time).first().is_none_or(|(min, _)| *min > block.max_time)
    }

    /// What was deleted at a time or later.
    fn deleted_from(&self, time: i64) -> &[(i64, i64)] {
        ranges_from(self.deleted.as_deref().unwrap_or_default(), time)
    }

    /// The statistics of the next block, if every one of its points was asked for and is there.
    pub async fn summary(&mut self, descending: bool) -> Result<Option<BlockStatistics>, ReadError> {
        if !self.is_next_whole(descending) {
            return Ok(None);
        }
        let Some(blocks) = &mut self.blocks else { return Ok(None) };
        let number = if descending { blocks.left.end - 1 } else { blocks.left.start };
        let statistics = match &mut blocks.statistics {
            Some(statistics) => statistics,
            unknown => unknown.insert(blocks.file.statistics_of(&blocks.key).await?),
        };
        Ok(statistics.get(number).copied().flatten())
    }

    /// Passes over the next block: its summary was given.
    pub fn skip(&mut self, descending: bool) {
        self.blocks.as_mut().and_then(|blocks| blocks.pop(descending));
    }

    /// Decodes the next block that holds a row of the asked range; after the last the lane is exhausted.
    pub async fn load(&mut self, descending: bool) -> Result<(), ReadError> {
        while self.head.is_none() {
            let Some(blocks) = &mut self.blocks else { return Ok(()) };
            let Some(block) = blocks.pop(descending) else { return Ok(()) };
            let deleted = ranges_from(self.deleted.as_deref().unwrap_or_default(), block.min_time);
            if deleted.first().is_some_and(|(min, max)| *min <= block.min_time && block.max_time <= *max) {
                continue;
            }
            let ahead = blocks.ahead(&block, descending);
            let (mut times, mut values) = blocks.file.read_block(&block, ahead).await?;
            if deleted.first().is_some_and(|(min, _)| *min <= block.max_time) {
                (times, values) = without(&times, &values, deleted);
            }
            let start = times.partition_point(|time| *time < self.range.0);
            let end = times.partition_point(|time| *time <= self.range.1);
            if start < end {
                let slice = Slice::new(self.field, times, Column::dense(values));
                self.head = Some(Slice { rows: start..end, ..slice });
            }
        }
        Ok(())
    }

    /// Takes the head's rows up to `limit` (from it on, when descending).
    pub fn take(&mut self, limit: i64, descending: bool) -> Option<Slice> {
        let mut head = self.head.take()?;
        let cut = if descending {
            head.rows.start + head.times().partition_point(|time| *time < limit)
        } else {
            head.rows.start + head.times().partition_point(|time| *time <= limit)
        };
        let (taken, left) = if descending {
            (cut..head.rows.end, head.rows.start..cut)
        } else {
            (head.rows.start..cut, cut..head.rows.end)
        };
        if !left.is_empty() {
            let (times, column) = (head.times.clone(), head.column.clone());
            self.head = Some(Slice { field: head.field, times, column, rows: left });
        }
        head.rows = taken;
        (!head.rows.is_empty()).then_some(head)
    }
}

/// The points outside of disjoint, ascending ranges.
fn without(times: &[i64], values: &Values, deleted: &[(i64, i64)]) -> (Vec<i64>, Values) {
    let mut left = (Vec::with_capacity(times.len()), Values::new(values.field_type()));
    let mut next = 0;
    let mut keep = |rows: Range<usize>| {
        left.0.extend_from_slice(&times[rows.clone()]);
        left.1.extend_from(values, rows);
    };
    for (min, max) in deleted {
        if next == times.len() || times[times.len() - 1] < *min {
            break;
        }
        let start = next + times[next..].partition_point(|time| time < min);
        keep(next..start);
        next = start + times[start..].partition_point(|time| time <= max);
    }
    keep(next..times.len());
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_disk::AlignedBuf;

    /// Lanes of rows need no file.
    struct NoFile;

    impl DiskFile for NoFile {
        type Buf = AlignedBuf;

        fn alloc(&self, len: usize) -> AlignedBuf {
            AlignedBuf::new(len)
        }
        async fn read_at(&self, _: u64, _: usize) -> std::io::Result<AlignedBuf> {
            unreachable!()
        }
        async fn write_at(&self, _: AlignedBuf, _: u64) -> std::io::Result<AlignedBuf> {
            unreachable!()
        }
        async fn write_durable(&self, _: AlignedBuf, _: u64) -> std::io::Result<AlignedBuf> {
            unreachable!()
        }
        async fn sync_data(&self) -> std::io::Result<()> {
            unreachable!()
        }
        async fn set_len(&self, _: u64) -> std::io::Result<()> {
            unreachable!()
        }
        async fn len(&self) -> std::io::Result<u64> {
            unreachable!()
        }
        async fn close(self) -> std::io::Result<()> {
            unreachable!()
        }
    }

    fn lane(times: &[i64]) -> Lane<NoFile> {
        Lane::of_rows(Slice::new(0, times.to_vec(), Column::dense(Values::Integer(times.to_vec()))))
    }

    #[test]
    fn a_head_is_cut_at_the_limit_in_both_directions() {
        let mut up = lane(&[1, 2, 3, 4]);
        assert_eq!(up.take(0, false).map(|slice| slice.times().to_vec()), None);
        assert_eq!(up.take(2, false).map(|slice| slice.times().to_vec()), Some(vec![1, 2]));
        assert_eq!((up.start(false), up.head_end(false)), (Some(3), Some(4)));
        assert_eq!(up.take(9, false).map(|slice| slice.times().to_vec()), Some(vec![3, 4]));
        assert!(up.is_exhausted());
        let mut down = lane(&[1, 2, 3, 4]);
        assert_eq!(down.take(5, true).map(|slice| slice.times().to_vec()), None);
        assert_eq!(down.take(3, true).map(|slice| slice.times().to_vec()), Some(vec![3, 4]));
        assert_eq!((down.start(true), down.head_end(true)), (Some(2), Some(1)));
        let rest = down.take(1, true).unwrap();
        assert_eq!(rest.into_parts(), (vec![1, 2], Column::dense(Values::Integer(vec![1, 2]))));
        assert!(down.is_exhausted());
    }
}
