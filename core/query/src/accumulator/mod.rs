//! What a group remembers of its rows, window by window: the partial aggregates that parts compute and the merge joins.
//!
//! Several functions may read one accumulator: count, sum and mean of a field share a sum, spread reads a smallest and
//! a largest value. A *slot* is one window of one group; slots are numbered as windows are met, not by time.
//! Invariants: all accumulators of a group have the same number of slots; joining two accumulators of the same kind in
//! either order gives the same result, but for the rounding of float sums.
//! Knows nothing of series, parts, fill or expressions.

mod collected;
mod distinct;
mod pick;
mod sum;

use crate::plan::ReadColumn;
use rkyv::{Archive, Deserialize, Serialize};
use tidemill_column::{Column, FieldType, Value, Values};

pub(crate) use collected::{Better, Collected, Keep, Rank};
pub(crate) use distinct::OrderedValue;
pub(crate) use pick::PickKind;

use collected::CollectedSlots;
use distinct::DistinctSlots;
use pick::PickSlots;
use sum::SumSlots;

/// What to remember of one column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AccumulatorKind {
    Count,
    /// Number of values and their sum.
    Sum,
    /// The one value that is first, last, smallest or largest, with its time.
    Pick(PickKind),
    /// Every value with its time, or the best of them, with the rest of their rows if `carried` asks for it.
    Collect {
        keep: Keep,
        carried: bool,
    },
    /// Each value once, with the earliest time that it was seen.
    Distinct,
}

/// An accumulator of a plan: what to remember of which column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AccumulatorSpec {
    pub kind: AccumulatorKind,
    /// Index into the plan's columns.
    pub column: usize,
    pub field_type: FieldType,
}

/// A summary that a block carries, so that its rows need not be decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockSummary {
    /// Index into [`ScanPlan::fields`](crate::ScanPlan::fields).
    pub column: u32,
    pub count: u64,
    pub min_time: i64,
    pub max_time: i64,
    /// Smallest value and the earliest time that it stands at.
    pub min: (Value, i64),
    /// Largest value and the earliest time that it stands at.
    pub max: (Value, i64),
    /// Sum of the values in their own type; integers wrap. `None` for strings and booleans.
    pub sum: Option<Value>,
    /// Value at `min_time`.
    pub first: Value,
    /// Value at `max_time`.
    pub last: Value,
}

/// The rest of the rows that a slice of values belongs to, for functions that carry it along.
pub(crate) struct Carried<'a> {
    pub series: &'a std::sync::Arc<[u8]>,
    /// Carried columns, whole batch long.
    pub columns: &'a [CarriedColumn<'a>],
    /// Row of the batch that value 0 of the slice belongs to.
    pub rows: &'a [u32],
}

/// One carried column of a batch.
pub(crate) enum CarriedColumn<'a> {
    Field(Option<&'a Column>),
    /// The same for all rows of a series; `None` when the series lacks the tag.
    Tag(Option<&'a str>),
}

impl CarriedColumn<'_> {
    pub(crate) fn value(&self, row: usize) -> Option<Value> {
        match self {
            CarriedColumn::Field(column) => column.and_then(|column| column.value(row)),
            CarriedColumn::Tag(tag) => tag.map(|tag| Value::String(tag.as_bytes().into())),
        }
    }
}

/// Rows `start..end` of a batch, which fall into the window of a slot. Not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub slot: u32,
    pub start: u32,
    pub end: u32,
}

impl Segment {
    pub(crate) fn slot(&self) -> usize {
        self.slot as usize
    }

    pub(crate) fn rows(&self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(crate) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
}

/// Partial aggregates of one column, slot by slot.
#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
pub(crate) enum Accumulator {
    Count(Vec<u64>),
    Sum(SumSlots),
    Pick(PickSlots),
    Collect(CollectedSlots),
    Distinct(DistinctSlots),
}

impl Accumulator {
    /// Without slots. `carried` are the types of the columns that come along where the kind says so.
    pub(crate) fn new(spec: &AccumulatorSpec, carried: &[FieldType]) -> Accumulator {
        match &spec.kind {
            AccumulatorKind::Count => Accumulator::Count(Vec::new()),
            AccumulatorKind::Sum => Accumulator::Sum(SumSlots::new(spec.field_type)),
            AccumulatorKind::Pick(kind) => Accumulator::Pick(PickSlots::new(*kind, spec.field_type)),
            AccumulatorKind::Collect { keep, carried: with } => {
                let carried = if *with { carried.to_vec() } else { Vec::new() };
                Accumulator::Collect(CollectedSlots::new(keep.clone(), spec.field_type, carried))
            }
            AccumulatorKind::Distinct => Accumulator::Distinct(DistinctSlots::new(spec.field_type)),
        }
    }

    /// Whether it is one of this plan entry with so many slots; one that came from elsewhere may not be.
    pub(crate) fn is_of(&self, spec: &AccumulatorSpec, carried: &[FieldType], slots: usize) -> bool {
        match (self, &spec.kind) {
            (Accumulator::Count(counts), AccumulatorKind::Count) => counts.len() == slots,
            (Accumulator::Sum(sums), AccumulatorKind::Sum) => sums.is_of(spec.field_type, slots),
            (Accumulator::Pick(picks), AccumulatorKind::Pick(kind)) => picks.is_of(*kind, spec.field_type, slots),
            (Accumulator::Collect(collected), AccumulatorKind::Collect { keep, carried: with }) => {
                collected.is_of(keep, spec.field_type, if *with { carried } else { &[] }, slots)
            }
            (Accumulator::Distinct(distinct), AccumulatorKind::Distinct) => distinct.is_of(spec.field_type, slots),
            _ => false,
        }
    }

    pub(crate) fn add_slot(&mut self) {
        match self {
            Accumulator::Count(counts) => counts.push(0),
            Accumulator::Sum(slots) => slots.add_slot(),
            Accumulator::Pick(slots) => slots.add_slot(),
            Accumulator::Collect(slots) => slots.add_slot(),
            Accumulator::Distinct(slots) => slots.add_slot(),
        }
    }

    /// Takes runs of rows of a dense column, each for its slot: `times[i]` belongs to value `i`. No run is empty.
    pub(crate) fn update(
        &mut self,
        times: &[i64],
        values: &Values,
        segments: &[Segment],
        carried: Option<&Carried<'_>>,
    ) {
        match self {
            Accumulator::Count(counts) => segments.iter().for_each(|one| counts[one.slot()] += one.len() as u64),
            Accumulator::Sum(slots) => slots.update(values, segments),
            Accumulator::Pick(slots) => {
                segments.iter().for_each(|one| slots.update(one.slot(), times, values, one.rows()));
            }
            Accumulator::Collect(slots) => {
                segments.iter().for_each(|one| slots.update(one.slot(), times, values, one.rows(), carried));
            }
            Accumulator::Distinct(slots) => {
                segments.iter().for_each(|one| slots.update(one.slot(), times, values, one.rows()));
            }
        }
    }

    /// Takes the summary of a block in place of its rows.
    pub(crate) fn summarise(&mut self, slot: usize, summary: &BlockSummary) {
        match self {
            Accumulator::Count(counts) => counts[slot] += summary.count,
            Accumulator::Sum(slots) => slots.summarise(slot, summary),
            Accumulator::Pick(slots) => slots.summarise(slot, summary),
            Accumulator::Collect(_) | Accumulator::Distinct(_) => panic!("a summary for an accumulator of values"),
        }
    }

    /// Joins a slot of another accumulator of the same plan entry into one of this.
    pub(crate) fn join(&mut self, slot: usize, other: &mut Accumulator, from: usize) {
        match (self, other) {
            (Accumulator::Count(to), Accumulator::Count(other)) => to[slot] += other[from],
            (Accumulator::Sum(to), Accumulator::Sum(other)) => to.join(slot, other, from),
            (Accumulator::Pick(to), Accumulator::Pick(other)) => to.join(slot, other, from),
            (Accumulator::Collect(to), Accumulator::Collect(other)) => to.join(slot, other, from),
            (Accumulator::Distinct(to), Accumulator::Distinct(other)) => to.join(slot, other, from),
            _ => panic!("joined accumulators of different kinds"),
        }
    }

    /// The slots at `slots`, in that order, taken out of this accumulator.
    pub(crate) fn take(&mut self, slots: &[u32]) -> Accumulator {
        match self {
            Accumulator::Count(counts) => Accumulator::Count(slots.iter().map(|slot| counts[*slot as usize]).collect()),
            Accumulator::Sum(from) => Accumulator::Sum(from.take(slots)),
            Accumulator::Pick(from) => Accumulator::Pick(from.take(slots)),
            Accumulator::Collect(from) => Accumulator::Collect(from.take(slots)),
            Accumulator::Distinct(from) => Accumulator::Distinct(from.take(slots)),
        }
    }

    /// Values that the slot has seen; for accumulators that keep few of them, those that it keeps.
    pub(crate) fn value_count(&self, slot: usize) -> u64 {
        match self {
            Accumulator::Count(counts) => counts[slot],
            Accumulator::Sum(slots) => slots.count(slot),
            Accumulator::Pick(slots) => u64::from(slots.is_present(slot)),
            Accumulator::Collect(slots) => slots.slot(slot).len() as u64,
            Accumulator::Distinct(slots) => slots.count(slot),
        }
    }

    /// Sum of the slot in the column's own type.
    pub(crate) fn sum(&self, slot: usize) -> Option<Value> {
        match self {
            Accumulator::Sum(slots) => slots.sum(slot),
            _ => None,
        }
    }

    pub(crate) fn mean(&self, slot: usize) -> Option<f64> {
        match self {
            Accumulator::Sum(slots) => slots.mean(slot),
            _ => None,
        }
    }

    /// The picked value and its time.
    pub(crate) fn picked(&self, slot: usize) -> Option<(i64, Value)> {
        match self {
            Accumulator::Pick(slots) => slots.value(slot),
            _ => None,
        }
    }

    /// What a collecting accumulator holds in the slot.
    pub(crate) fn collected(&mut self, slot: usize) -> Option<&mut Collected> {
        match self {
            Accumulator::Collect(slots) => Some(slots.settled(slot)),
            _ => None,
        }
    }

    /// Distinct values by the earliest time they were seen, equal times by value.
    pub(crate) fn distinct(&self, slot: usize) -> Vec<(i64, Value)> {
        match self {
            Accumulator::Distinct(slots) => slots.values(slot),
            _ => Vec::new(),
        }
    }

    pub(crate) fn byte_size(&self) -> usize {
        match self {
            Accumulator::Count(counts) => counts.len() * 8,
            Accumulator::Sum(slots) => slots.byte_size(),
            Accumulator::Pick(slots) => slots.byte_size(),
            Accumulator::Collect(slots) => slots.byte_size(),
            Accumulator::Distinct(slots) => slots.byte_size(),
        }
    }
}

/// Types of the carried columns.
pub(crate) fn carried_types(carried: &[crate::plan::LeafRef], columns: &[ReadColumn]) -> Vec<FieldType> {
    carried.iter().map(|leaf| leaf.field_type(columns)).collect()
}
