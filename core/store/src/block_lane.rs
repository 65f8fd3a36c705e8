//! One field of one series in one source, block by block.

use crate::{read_error::ReadError, tsm_file::TsmFile};
use std::{collections::VecDeque, rc::Rc};
use tidemill_column::{Column, Values};
use tidemill_disk::DiskFile;
use tidemill_tsm::index::Entry;

/// A source of one field. Its blocks do not overlap each other.
pub struct Lane<F: DiskFile> {
    field: usize,
    blocks: VecDeque<Entry>,
    file: Option<Rc<TsmFile<F>>>,
    /// Inclusive range that was asked for.
    range: (i64, i64),
    /// Inclusive ranges of points that are gone.
    deleted: Rc<[(i64, i64)]>,
    head: Option<Slice>,
}

/// Rows of one field: strictly ascending times and their values.
pub struct Slice {
    pub field: usize,
    pub times: Vec<i64>,
    pub column: Column,
}

impl<F: DiskFile> Lane<F> {
    /// Rows that are in memory already.
    pub fn of_rows(slice: Slice) -> Lane<F> {
        Lane {
            field: slice.field,
            blocks: VecDeque::new(),
            file: None,
            range: (i64::MIN, i64::MAX),
            deleted: Rc::new([]),
            head: Some(slice),
        }
    }

    /// Blocks of a file, in ascending time.
    pub fn of_blocks(
        field: usize,
        file: Rc<TsmFile<F>>,
        blocks: VecDeque<Entry>,
        range: (i64, i64),
        deleted: Rc<[(i64, i64)]>,
    ) -> Lane<F> {
        Lane { field, blocks, file: Some(file), range, deleted, head: None }
    }

    pub fn is_loaded(&self) -> bool {
        self.head.is_some()
    }

    pub fn is_exhausted(&self) -> bool {
        self.head.is_none() && self.blocks.is_empty()
    }

    /// Where the lane's next rows begin, seen in the direction of reading.
    pub fn start(&self, descending: bool) -> Option<i64> {
        match (&self.head, descending) {
            (Some(head), false) => head.times.first().copied(),
            (Some(head), true) => head.times.last().copied(),
            (None, false) => self.blocks.front().map(|block| block.min_time),
            (None, true) => self.blocks.back().map(|block| block.max_time),
        }
    }

    /// Where the decoded head ends, seen in the direction of reading.
    pub fn head_end(&self, descending: bool) -> Option<i64> {
        let times = &self.head.as_ref()?.times;
        if descending { times.first().copied() } else { times.last().copied() }
    }

    /// Decodes the next block that holds a row of the asked range; after the last the lane is exhausted.
    pub async fn load(&mut self, descending: bool) -> Result<(), ReadError> {
        while self.head.is_none() {
            let next = if descending { self.blocks.pop_back() } else { self.blocks.pop_front() };
            let (Some(block), Some(file)) = (next, &self.file) else { return Ok(()) };
            let (mut times, mut values) = file.read_block(&block).await?;
            if block.min_time < self.range.0 || block.max_time > self.range.1 {
                let start = times.partition_point(|time| *time < self.range.0);
                let end = times.partition_point(|time| *time <= self.range.1);
                times.truncate(end);
                values.truncate(end);
                (times, values) = split_off(times, values, start);
            }
            for (min, max) in self.deleted.iter() {
                let start = times.partition_point(|time| time < min);
                let end = times.partition_point(|time| time <= max);
                if start < end {
                    let mut left = Values::new(values.field_type());
                    left.extend_from(&values, 0..start);
                    left.extend_from(&values, end..times.len());
                    values = left;
                    times.drain(start..end);
                }
            }
            if !times.is_empty() {
                self.head = Some(Slice { field: self.field, times, column: Column::dense(values) });
            }
        }
        Ok(())
    }

    /// Takes the head's rows up to `limit` (from it on, when descending).
    pub fn take(&mut self, limit: i64, descending: bool) -> Option<Slice> {
        let head = self.head.as_mut()?;
        let cut = if descending {
            head.times.partition_point(|time| *time < limit)
        } else {
            head.times.partition_point(|time| *time <= limit)
        };
        if cut == if descending { 0 } else { head.times.len() } {
            return self.head.take();
        }
        if cut == if descending { head.times.len() } else { 0 } {
            return None;
        }
        let (later_times, later) = (head.times.split_off(cut), split_column(&mut head.column, cut));
        let later = Slice { field: head.field, times: later_times, column: later };
        if descending {
            return Some(later);
        }
        self.head.replace(later)
    }
}

/// The rows from `start` on.
fn split_off(mut times: Vec<i64>, values: Values, start: usize) -> (Vec<i64>, Values) {
    if start == 0 {
        return (times, values);
    }
    let mut left = Values::new(values.field_type());
    left.extend_from(&values, start..values.len());
    times.drain(..start);
    (times, left)
}

/// Leaves the first `cut` rows and returns the others.
fn split_column(column: &mut Column, cut: usize) -> Column {
    let mut later = Column::new(column.values.field_type());
    later.extend_from(column, cut..column.len());
    column.truncate(cut);
    later
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
        Lane::of_rows(Slice { field: 0, times: times.to_vec(), column: Column::dense(Values::Integer(times.to_vec())) })
    }

    #[test]
    fn a_head_is_cut_at_the_limit_in_both_directions() {
        let mut up = lane(&[1, 2, 3, 4]);
        assert_eq!(up.take(0, false).map(|slice| slice.times), None);
        assert_eq!(up.take(2, false).map(|slice| slice.times), Some(vec![1, 2]));
        assert_eq!((up.start(false), up.head_end(false)), (Some(3), Some(4)));
        assert_eq!(up.take(9, false).map(|slice| slice.times), Some(vec![3, 4]));
        assert!(up.is_exhausted());
        let mut down = lane(&[1, 2, 3, 4]);
        assert_eq!(down.take(5, true).map(|slice| slice.times), None);
        assert_eq!(down.take(3, true).map(|slice| slice.times), Some(vec![3, 4]));
        assert_eq!((down.start(true), down.head_end(true)), (Some(2), Some(1)));
        let rest = down.take(1, true).unwrap();
        assert_eq!(rest.column, Column::dense(Values::Integer(vec![1, 2])));
        assert!(down.is_exhausted());
    }
}
