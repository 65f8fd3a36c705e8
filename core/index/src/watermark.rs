//! The newest time in order of each series: a dense column.
//!
//! A row that is not newer than its series' watermark is late (design, section 5). The watermark is the newest time of
//! all rows that were ever taken for rows in order, and nothing lowers it: it follows from the log alone (I7), whatever
//! was deleted, dropped or copied since. Late rows never raise it.

use crate::id::SeriesId;
use std::rc::Rc;

/// Series of a chunk: the unit that is copied when it changes under a snapshot, and that is written when it changed.
pub(crate) const CHUNK_LEN: usize = 1024;

/// A series without a row in order.
const NONE: i64 = i64::MIN;

type Chunk = [i64; CHUNK_LEN];

/// Watermarks of one retention policy: its shard groups do not overlap, those of two policies may.
#[derive(Clone, Default)]
pub struct WatermarkColumn {
    /// A chunk that no series of the policy lies in takes nothing.
    chunks: Vec<Option<Rc<Chunk>>>,
    /// For each chunk the newest epoch in which it changed.
    changed: Vec<u32>,
    epoch: u32,
    held: usize,
}

impl WatermarkColumn {
    /// A column whose changes count from this epoch on.
    pub(crate) fn begin(epoch: u32) -> WatermarkColumn {
        WatermarkColumn { epoch, ..WatermarkColumn::default() }
    }

    /// The newest time in order of a series.
    #[inline]
    pub fn watermark(&self, series: SeriesId) -> Option<i64> {
        let chunk = self.chunks.get(series.0 as usize / CHUNK_LEN)?.as_ref()?;
        Some(chunk[series.0 as usize % CHUNK_LEN]).filter(|time| *time != NONE)
    }

    /// A row in order.
    #[inline]
    pub fn raise(&mut self, series: SeriesId, time: i64) {
        let (number, at) = (series.0 as usize / CHUNK_LEN, series.0 as usize % CHUNK_LEN);
        if number >= self.chunks.len() {
            self.chunks.resize(number + 1, None);
            self.changed.resize(number + 1, 0);
        }
        let chunk = match &mut self.chunks[number] {
            Some(chunk) if chunk[at] >= time => return,
            Some(chunk) => chunk,
            slot => {
                self.held += 1;
                slot.insert(Rc::new([NONE; CHUNK_LEN]))
            }
        };
        Rc::make_mut(chunk)[at] = time;
        self.changed[number] = self.epoch;
    }

    /// A copy that costs little: chunks are copied when they change later. What changes from now on is of `next`.
    pub(crate) fn snapshot(&mut self, next: u32) -> WatermarkColumn {
        let snapshot = self.clone();
        self.epoch = next;
        snapshot
    }

    /// The numbers of the chunks that changed after an epoch.
    pub(crate) fn changed_after(&self, epoch: Option<u32>) -> impl Iterator<Item = usize> {
        let is_changed = move |number: &usize| epoch.is_none_or(|epoch| self.changed[*number] > epoch);
        (0..self.chunks.len()).filter(|number| self.chunks[*number].is_some()).filter(is_changed)
    }

    /// The watermarks of a chunk.
    pub(crate) fn chunk(&self, number: usize) -> impl Iterator<Item = (SeriesId, i64)> {
        let times = self.chunks.get(number).and_then(Option::as_deref).map_or(&[][..], |chunk| chunk);
        let series = move |at: usize| SeriesId((number * CHUNK_LEN + at) as u32);
        times.iter().enumerate().filter(|(_, time)| **time != NONE).map(move |(at, time)| (series(at), *time))
    }

    pub fn byte_size(&self) -> usize {
        self.held * (size_of::<Chunk>() + 16)
            + self.chunks.capacity() * size_of::<Option<Rc<Chunk>>>()
            + self.changed.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_newer_times_raise_and_a_snapshot_stays_as_it_was() {
        let mut column = WatermarkColumn::begin(1);
        assert_eq!(column.watermark(SeriesId(5)), None);
        column.raise(SeriesId(5), 10);
        column.raise(SeriesId(5), 9);
        column.raise(SeriesId(3 * CHUNK_LEN as u32), -7);
        let snapshot = column.snapshot(2);
        column.raise(SeriesId(5), 11);
        assert_eq!((snapshot.watermark(SeriesId(5)), column.watermark(SeriesId(5))), (Some(10), Some(11)));
        assert_eq!(column.watermark(SeriesId(3 * CHUNK_LEN as u32)), Some(-7));
        assert_eq!(column.changed_after(Some(1)).collect::<Vec<_>>(), [0]);
        assert_eq!(snapshot.changed_after(Some(0)).collect::<Vec<_>>(), [0, 3]);
        assert_eq!(snapshot.changed_after(None).flat_map(|chunk| snapshot.chunk(chunk)).count(), 2);
        assert!(column.byte_size() >= 2 * size_of::<Chunk>() && column.byte_size() < 3 * size_of::<Chunk>());
    }
}
