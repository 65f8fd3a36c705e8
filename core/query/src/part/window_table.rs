//! The accumulators of one group, window by window.
//!
//! Series after series is added, so windows are met again and again in the same order; a slot that was used right
//! after another one is tried first, which makes the search tree the exception.

use crate::accumulator::{Accumulator, BlockSummary, Carried, CarriedColumn, Segment, carried_types};
use crate::part::batch::Batch;
use crate::plan::{Aggregate, LeafRef, Shape};
use crate::window::Windows;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_column::Column;

pub(crate) struct WindowTable {
    shape: Arc<Shape>,
    starts: Vec<i64>,
    /// Slots by start, once windows were met out of order; before, the starts ascend and are searched themselves.
    by_start: Option<BTreeMap<i64, u32>>,
    recent: usize,
    accumulators: Vec<Accumulator>,
    /// Scratch, kept for its memory.
    segments: Vec<Segment>,
}

/// The first row at or behind `row` whose time is beyond `last`. Close rows are found in a few steps, far ones in a
/// number of steps that grows with the logarithm of the distance.
fn gallop(times: &[i64], row: usize, last: i64) -> usize {
    let mut low = row;
    let mut step = 1;
    while low + step < times.len() && times[low + step] <= last {
        low += step;
        step *= 2;
    }
    let high = (low + step).min(times.len());
    low + times[low..high].partition_point(|time| *time <= last)
}

impl WindowTable {
    pub(crate) fn new(shape: Arc<Shape>) -> WindowTable {
        let accumulators = new_accumulators(&shape);
        WindowTable { shape, starts: Vec::new(), by_start: None, recent: 0, accumulators, segments: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.starts.len() * 32 + self.accumulators.iter().map(Accumulator::byte_size).sum::<usize>()
    }

    fn slot(&mut self, start: i64) -> usize {
        for guess in [self.recent + 1, self.recent] {
            if self.starts.get(guess) == Some(&start) {
                self.recent = guess;
                return guess;
            }
        }
        let next = self.starts.len();
        if self.by_start.is_none() {
            match self.starts.binary_search(&start) {
                Ok(slot) => {
                    self.recent = slot;
                    return slot;
                }
                Err(place) if place < next => {
                    let slots = self.starts.iter().enumerate().map(|(slot, start)| (*start, slot as u32));
                    self.by_start = Some(slots.collect());
                }
                Err(_) => {}
            }
        }
        let slot = match &mut self.by_start {
            Some(slots) => *slots.entry(start).or_insert(next as u32) as usize,
            None => next,
        };
        if slot == next {
            self.starts.push(start);
            self.accumulators.iter_mut().for_each(Accumulator::add_slot);
        }
        self.recent = slot;
        slot
    }

    /// Cuts ascending times into runs of rows that fall into one window.
    fn cut(&mut self, times: &[i64], segments: &mut Vec<Segment>) {
        segments.clear();
        let shape = self.shape.clone();
        let windows: &Windows = &shape.windows;
        let Some(first) = times.first() else { return };
        let (mut start, mut last) = windows.bounds(*first);
        let mut row = 0;
        loop {
            let end = gallop(times, row, last);
            let slot = self.slot(start) as u32;
            segments.push(Segment { slot, start: row as u32, end: end as u32 });
            let Some(time) = times.get(end) else { return };
            // The window behind this one, unless the rows leap further: saves a division a window.
            match windows.step().and_then(|step| last.checked_add(step)) {
                Some(next_last) if *time <= next_last && next_last < i64::MAX - 1 => {
                    (start, last) = (last + 1, next_last);
                }
                _ => (start, last) = windows.bounds(*time),
            }
            row = end;
        }
    }

    /// Adds the rows of a batch of one series. Returns which accumulators met a value.
    pub(crate) fn add(&mut self, batch: &Batch<'_>, series: &Arc<[u8]>, tags: &[(String, String)]) -> Vec<bool> {
        let shape = self.shape.clone();
        let crate::plan::Work::Aggregate(aggregate) = &shape.work else { panic!("a raw plan has no windows") };
        let carried = carried_columns(aggregate, batch, tags);
        let mut segments = std::mem::take(&mut self.segments);
        let mut met = vec![false; self.accumulators.len()];
        // Dense columns have all rows of the batch in common, and so the segments.
        let mut is_cut = false;
        let mut identity: Vec<u32> = Vec::new();
        for (index, spec) in aggregate.accumulators.iter().enumerate() {
            let Some(column) = batch.columns[spec.column].as_deref() else { continue };
            if column.valid.is_some() {
                let rows: Vec<u32> =
                    (0..column.len()).filter(|row| column.is_valid(*row)).map(|row| row as u32).collect();
                let times: Vec<i64> = rows.iter().map(|row| batch.times[*row as usize]).collect();
                let values = crate::rows::take_values(&column.values, &rows);
                let mut sparse = Vec::new();
                self.cut(&times, &mut sparse);
                met[index] = !rows.is_empty();
                let carried = Carried { series, columns: &carried, rows: &rows };
                let carried = (!aggregate.carried.is_empty()).then_some(&carried);
                self.accumulators[index].update(&times, &values, &sparse, carried);
                continue;
            }
            if !is_cut {
                self.cut(&batch.times, &mut segments);
                is_cut = true;
            }
            met[index] = !batch.times.is_empty();
            if aggregate.carried.is_empty() {
                self.accumulators[index].update(&batch.times, &column.values, &segments, None);
            } else {
                if identity.is_empty() {
                    identity = (0..batch.times.len() as u32).collect();
                }
                let carried = Carried { series, columns: &carried, rows: &identity };
                self.accumulators[index].update(&batch.times, &column.values, &segments, Some(&carried));
            }
        }
        self.segments = segments;
        met
    }

    /// Adds a block of column `column` of the plan by its summary.
    pub(crate) fn summarise(&mut self, column: usize, summary: &BlockSummary) {
        let slot = self.slot(self.shape.windows.start(summary.min_time));
        let shape = self.shape.clone();
        let crate::plan::Work::Aggregate(aggregate) = &shape.work else { panic!("a raw plan has no windows") };
        for (spec, accumulator) in aggregate.accumulators.iter().zip(&mut self.accumulators) {
            if spec.column == column {
                accumulator.summarise(slot, summary);
            }
        }
    }

    /// For each accumulator, whether any window has a value.
    pub(crate) fn present(&self) -> Vec<bool> {
        let slots = 0..self.starts.len();
        self.accumulators
            .iter()
            .map(|accumulator| slots.clone().any(|slot| accumulator.value_count(slot) > 0))
            .collect()
    }

    /// The slots in the order of the answer.
    pub(crate) fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = match &self.by_start {
            Some(slots) => slots.values().copied().collect(),
            None => (0..self.starts.len() as u32).collect(),
        };
        if self.shape.descending {
            order.reverse();
        }
        order
    }

    /// Moves slots out.
    pub(crate) fn take(&mut self, slots: &[u32]) -> (Vec<i64>, Vec<Accumulator>) {
        let starts = slots.iter().map(|slot| self.starts[*slot as usize]).collect();
        (starts, self.accumulators.iter_mut().map(|accumulator| accumulator.take(slots)).collect())
    }

    /// Forgets all windows.
    pub(crate) fn clear(&mut self) {
        self.starts.clear();
        self.by_start = None;
        self.recent = 0;
        self.accumulators = new_accumulators(&self.shape);
    }
}

/// Accumulators without slots, one for each of the plan.
pub(crate) fn new_accumulators(shape: &Shape) -> Vec<Accumulator> {
    let crate::plan::Work::Aggregate(aggregate) = &shape.work else { panic!("a raw plan has no accumulators") };
    let carried = carried_types(&aggregate.carried, &shape.columns);
    aggregate.accumulators.iter().map(|spec| Accumulator::new(spec, &carried)).collect()
}

fn carried_columns<'a>(
    aggregate: &Aggregate,
    batch: &'a Batch<'_>,
    tags: &'a [(String, String)],
) -> Vec<CarriedColumn<'a>> {
    let column = |leaf: &LeafRef| match leaf {
        LeafRef::Field(column) => {
            let values: Option<&Column> = batch.columns[*column].as_deref();
            CarriedColumn::Field(values)
        }
        LeafRef::Tag(tag) => CarriedColumn::Tag(crate::part::tag_value(tags, tag)),
    };
    aggregate.carried.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn galloping_finds_what_a_search_finds(mut times in proptest::collection::vec(0i64..100, 1..60), last in 0i64..100) {
            times.sort_unstable();
            let expected = times.partition_point(|time| *time <= last);
            prop_assume!(expected > 0);
            for row in 0..expected {
                prop_assert_eq!(gallop(&times, row, last), expected);
            }
        }
    }
}
