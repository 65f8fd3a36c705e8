//! Values with their times, all of them or the best, with the rest of their rows where a function asks for it.
//!
//! Functions whose definition needs every value (median, mode, stddev, percentile) keep all; top, bottom and selectors
//! beside plain fields keep the best. The best are pruned now and then, so a slot holds at most about three times what
//! it answers.

use super::{Carried, CarriedColumn, OrderedValue, PickKind};
use crate::rows;
use rkyv::{Archive, Deserialize, Serialize};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;
use tidemill_column::{Column, FieldType, Values};

/// Which values stay.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub(crate) enum Keep {
    All,
    Best(Better),
}

/// The `count` best values; of each combination of the first `per` carried columns only the best one.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub(crate) struct Better {
    pub by: Rank,
    pub count: usize,
    pub per: usize,
}

/// What makes one row better than another.
#[derive(Clone, Copy, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub(crate) enum Rank {
    Value(PickKind),
    /// A number drawn for the row's series and time, so that parts draw alike whatever order their rows come in.
    Drawn {
        seed: u64,
    },
}

impl Rank {
    fn is(self, kind: PickKind) -> bool {
        self == Rank::Value(kind)
    }
}

/// Rows that a slot may hold beyond what it must before the worse ones are thrown out.
const PRUNE_SLACK_ROWS: usize = 64;

/// The values of one slot.
#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
pub(crate) struct Collected {
    pub times: Vec<i64>,
    pub values: Values,
    /// Series keys, only where rows are carried: they decide between rows that are equal otherwise.
    pub series: Vec<Arc<[u8]>>,
    pub carried: Vec<Column>,
    /// Rows were only taken out, never added, since they were last pruned.
    pruned: bool,
    /// The worst value that is still wanted, once there are enough.
    threshold: Option<OrderedValue>,
}

#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
pub(crate) struct CollectedSlots {
    keep: Keep,
    field_type: FieldType,
    carried: Vec<FieldType>,
    slots: Vec<Collected>,
    bytes: usize,
}

impl Collected {
    fn new(field_type: FieldType, carried: &[FieldType]) -> Collected {
        Collected {
            times: Vec::new(),
            values: Values::new(field_type),
            series: Vec::new(),
            carried: carried.iter().map(|carried| Column::new(*carried)).collect(),
            pruned: true,
            threshold: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    fn byte_size(&self) -> usize {
        self.times.len() * 8
            + self.values.byte_size()
            + self.series.len() * 16
            + self.carried.iter().map(Column::byte_size).sum::<usize>()
    }

    /// Rows by (value, time, series).
    fn by_value(&self) -> Vec<(OrderedValue, u32)> {
        let mut rows: Vec<_> =
            (0..self.len()).map(|row| (OrderedValue::new(&self.values.value(row)), row as u32)).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| self.by_time(a.1, b.1)));
        rows
    }

    fn by_time(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (a as usize, b as usize);
        self.times[a].cmp(&self.times[b]).then_with(|| self.series.get(a).cmp(&self.series.get(b)))
    }

    fn reorder(&mut self, order: &[u32]) {
        self.times = order.iter().map(|row| self.times[*row as usize]).collect();
        self.values = rows::take_values(&self.values, order);
        if !self.series.is_empty() {
            self.series = order.iter().map(|row| self.series[*row as usize].clone()).collect();
        }
        for column in &mut self.carried {
            *column = rows::take(column, order);
        }
    }

    /// Sorts by (value, time, series).
    pub(crate) fn sort_by_value(&mut self) {
        let order: Vec<u32> = self.by_value().into_iter().map(|(_, row)| row).collect();
        self.reorder(&order);
    }

    /// Sorts by (time, series), rows without series by (time, value).
    pub(crate) fn sort_by_time(&mut self) {
        if self.carried.is_empty() {
            if let Values::Float(values) = &mut self.values {
                sort_pairs(&mut self.times, values, f64::total_cmp);
                return;
            }
            if let Values::Integer(values) = &mut self.values {
                sort_pairs(&mut self.times, values, i64::cmp);
                return;
            }
        }
        let mut order: Vec<u32> = self.by_value().into_iter().map(|(_, row)| row).collect();
        order.sort_by(|a, b| self.by_time(*a, *b));
        self.reorder(&order);
    }

    fn prune(&mut self, better: &Better) {
        self.pruned = true;
        let mut order = self.by_value();
        let boolean_first = better.by.is(PickKind::First) && self.values.field_type() == FieldType::Boolean;
        let kind = match better.by {
            Rank::Value(kind) => kind,
            Rank::Drawn { seed } => {
                order.sort_by_cached_key(|(_, row)| self.drawn(seed, *row));
                // Already in this order.
                PickKind::Min
            }
        };
        order.sort_by(|a, b| {
            let (time_a, time_b) = (self.times[a.1 as usize], self.times[b.1 as usize]);
            match kind {
                PickKind::First if boolean_first => time_a.cmp(&time_b).then_with(|| a.0.cmp(&b.0)),
                PickKind::First => time_a.cmp(&time_b).then_with(|| b.0.cmp(&a.0)),
                // All being equal, the row of the last series: the one that comes last in a raw select.
                PickKind::Last => time_b.cmp(&time_a).then_with(|| b.0.cmp(&a.0)).then_with(|| self.by_time(b.1, a.1)),
                // Already in this order.
                PickKind::Min => Ordering::Equal,
                PickKind::Max => b.0.cmp(&a.0),
            }
        });
        if better.per > 0 {
            let mut seen = std::collections::BTreeSet::new();
            order.retain(|(_, row)| {
                let combination: Vec<_> = self.carried[..better.per]
                    .iter()
                    .map(|column| column.value(*row as usize).map(|value| OrderedValue::new(&value)))
                    .collect();
                seen.insert(combination)
            });
        }
        order.truncate(better.count);
        let full = order.len() == better.count && better.per == 0 && matches!(better.by, Rank::Value(_));
        self.threshold = if full { order.last().map(|(value, _)| value.clone()) } else { None };
        let order: Vec<u32> = order.into_iter().map(|(_, row)| row).collect();
        self.reorder(&order);
    }

    /// What was drawn for a row.
    fn drawn(&self, seed: u64, row: u32) -> u64 {
        let row = row as usize;
        let series = self.series.get(row).map_or(&[][..], |series| series);
        // FNV-1a over the series, then SplitMix64's mixing with the time.
        let hash = series.iter().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut mixed = hash ^ (self.times[row] as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn append(&mut self, times: &[i64], values: &Values, rows: &[u32], carried: Option<&Carried<'_>>) {
        self.pruned = false;
        self.times.extend(rows.iter().map(|row| times[*row as usize]));
        for row in rows {
            self.values.push_from(values, *row as usize);
        }
        let (Some(carried), false) = (carried, self.carried.is_empty()) else { return };
        for row in rows {
            let row = carried.rows[*row as usize] as usize;
            self.series.push(carried.series.clone());
            for (to, from) in self.carried.iter_mut().zip(carried.columns) {
                match from {
                    CarriedColumn::Field(Some(column)) => to.push_from(column, row),
                    from => match from.value(row) {
                        Some(value) => to.push(&value),
                        None => to.push_null(),
                    },
                }
            }
        }
    }
}

/// Sorts by (time, value). The values came series after series, each in time order; a stable sort merges such runs
/// instead of sorting anew.
fn sort_pairs<T: Copy>(times: &mut [i64], values: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let mut pairs: Vec<(i64, T)> = times.iter().copied().zip(values.iter().copied()).collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| compare(&a.1, &b.1)));
    for (row, (time, value)) in pairs.into_iter().enumerate() {
        (times[row], values[row]) = (time, value);
    }
}

/// Rows of a slice that may be among the best, given the worst value that is still wanted.
fn candidates(better: &Better, threshold: Option<&OrderedValue>, values: &Values, rows: Range<usize>) -> Vec<u32> {
    fn best<T: PartialOrd + Copy>(values: &[T], rows: Range<usize>, largest: bool) -> usize {
        rows.clone().fold(rows.start, |best, row| {
            let better = if largest { values[row] > values[best] } else { values[row] < values[best] };
            if better { row } else { best }
        })
    }
    fn beyond<T: PartialOrd + Copy>(values: &[T], rows: Range<usize>, largest: bool, worst: T) -> Vec<u32> {
        let wanted = |row: &usize| if largest { values[*row] >= worst } else { values[*row] <= worst };
        rows.filter(wanted).map(|row| row as u32).collect()
    }
    let Rank::Value(kind) = better.by else { return rows.map(|row| row as u32).collect() };
    let largest = kind == PickKind::Max;
    if better.per == 0 && better.count == 1 {
        // Times ascend, so of equal values the first row is the best.
        let row = match (kind, values) {
            (PickKind::First, _) => rows.start,
            (PickKind::Last, _) => rows.end - 1,
            (_, Values::Float(values)) => best(values, rows, largest),
            (_, Values::Integer(values)) => best(values, rows, largest),
            (_, Values::Unsigned(values)) => best(values, rows, largest),
            (_, Values::Boolean(values)) => best(values, rows, largest),
            (_, Values::String(_)) => rows.start,
        };
        return vec![row as u32];
    }
    match (threshold.map(|worst| worst.value(values.field_type())), values) {
        (Some(tidemill_column::Value::Float(worst)), Values::Float(values)) => beyond(values, rows, largest, worst),
        (Some(tidemill_column::Value::Integer(worst)), Values::Integer(values)) => beyond(values, rows, largest, worst),
        (Some(tidemill_column::Value::Unsigned(worst)), Values::Unsigned(values)) => {
            beyond(values, rows, largest, worst)
        }
        _ => rows.map(|row| row as u32).collect(),
    }
}

impl CollectedSlots {
    pub(crate) fn new(keep: Keep, field_type: FieldType, carried: Vec<FieldType>) -> CollectedSlots {
        CollectedSlots { keep, field_type, carried, slots: Vec::new(), bytes: 0 }
    }

    pub(crate) fn is_of(&self, keep: &Keep, field_type: FieldType, carried: &[FieldType], slots: usize) -> bool {
        let fits = |slot: &Collected| {
            let rows = slot.times.len();
            let keys = if carried.is_empty() { 0 } else { rows };
            let mut columns = slot.carried.iter().zip(carried);
            slot.values.is_sound(field_type, rows)
                && slot.series.len() == keys
                && slot.carried.len() == carried.len()
                && columns.all(|(column, of)| column.is_sound(*of, rows))
        };
        self.keep == *keep
            && self.field_type == field_type
            && self.carried == carried
            && self.slots.len() == slots
            && self.slots.iter().all(fits)
    }

    pub(crate) fn add_slot(&mut self) {
        self.slots.push(Collected::new(self.field_type, &self.carried));
    }

    pub(crate) fn update(
        &mut self,
        slot: usize,
        times: &[i64],
        values: &Values,
        rows: Range<usize>,
        carried: Option<&Carried<'_>>,
    ) {
        let slot = &mut self.slots[slot];
        let before = slot.byte_size();
        match &self.keep {
            Keep::All if self.carried.is_empty() => {
                slot.pruned = false;
                slot.times.extend_from_slice(&times[rows.clone()]);
                slot.values.extend_from(values, rows);
            }
            Keep::All => {
                let rows: Vec<u32> = rows.map(|row| row as u32).collect();
                slot.append(times, values, &rows, carried);
            }
            Keep::Best(better) => {
                // In pieces, so that the threshold of the first rows spares the others.
                let piece = better.count.saturating_mul(2).saturating_add(PRUNE_SLACK_ROWS);
                let mut start = rows.start;
                while start < rows.end {
                    let end = if slot.threshold.is_some() || better.count == 1 && better.per == 0 {
                        rows.end.min(start + 4096)
                    } else {
                        rows.end.min(start.saturating_add(piece))
                    };
                    let wanted = candidates(better, slot.threshold.as_ref(), values, start..end);
                    slot.append(times, values, &wanted, carried);
                    if slot.len() > piece {
                        slot.prune(better);
                    }
                    start = end;
                }
            }
        }
        self.bytes = (self.bytes + slot.byte_size()).saturating_sub(before);
    }

    pub(crate) fn join(&mut self, slot: usize, other: &mut CollectedSlots, from: usize) {
        let other = &mut other.slots[from];
        let slot = &mut self.slots[slot];
        let before = slot.byte_size();
        slot.pruned = false;
        slot.times.append(&mut other.times);
        slot.values.extend_from(&other.values, 0..other.values.len());
        slot.series.append(&mut other.series);
        for (to, from) in slot.carried.iter_mut().zip(&other.carried) {
            to.extend_from(from, 0..from.len());
        }
        other.values.truncate(0);
        other.carried.iter_mut().for_each(|column| column.truncate(0));
        if let Keep::Best(better) = &self.keep
            && slot.len() > better.count.saturating_mul(2).saturating_add(PRUNE_SLACK_ROWS)
        {
            slot.prune(better);
        }
        self.bytes = (self.bytes + slot.byte_size()).saturating_sub(before);
    }

    pub(crate) fn take(&mut self, slots: &[u32]) -> CollectedSlots {
        let mut taken = CollectedSlots::new(self.keep.clone(), self.field_type, self.carried.clone());
        for slot in slots {
            let empty = Collected::new(self.field_type, &self.carried);
            let slot = std::mem::replace(&mut self.slots[*slot as usize], empty);
            taken.bytes += slot.byte_size();
            taken.slots.push(slot);
        }
        self.bytes = self.bytes.saturating_sub(taken.bytes);
        taken
    }

    pub(crate) fn slot(&self, slot: usize) -> &Collected {
        &self.slots[slot]
    }

    /// The slot with only the rows that stay, best first where only the best stay.
    pub(crate) fn settled(&mut self, slot: usize) -> &mut Collected {
        let slot = &mut self.slots[slot];
        if let (Keep::Best(better), false) = (&self.keep, slot.pruned) {
            slot.prune(better);
        }
        slot
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.bytes + self.slots.len() * size_of::<Collected>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_row_is_drawn_as_often_as_any_other() {
        let mut drawn = [0_u32; 20];
        for seed in 0..2000 {
            let by = Rank::Drawn { seed };
            let mut slots =
                CollectedSlots::new(Keep::Best(Better { by, count: 3, per: 0 }), FieldType::Integer, vec![]);
            slots.add_slot();
            let rows: Vec<i64> = (0..20).collect();
            slots.update(0, &rows, &Values::Integer(rows.clone()), 0..20, None);
            let chosen = slots.settled(0);
            assert_eq!(chosen.len(), 3);
            chosen.times.iter().for_each(|time| drawn[*time as usize] += 1);
        }
        // 300 are expected of each; 5 standard deviations are 80.
        assert!(drawn.iter().all(|count| (220..380).contains(count)), "{drawn:?}");
    }

    proptest! {
        #[test]
        fn the_best_are_those_of_a_full_sort(
            batches in proptest::collection::vec(proptest::collection::vec(-50i64..50, 1..200), 1..6),
            count in 1usize..8,
            largest: bool,
        ) {
            let kind = if largest { PickKind::Max } else { PickKind::Min };
            let mut slots = CollectedSlots::new(Keep::Best(Better { by: Rank::Value(kind), count, per: 0 }), FieldType::Integer, vec![]);
            slots.add_slot();
            let mut all = Vec::new();
            for (batch, values) in batches.iter().enumerate() {
                // Distinct times, interleaved between batches.
                let times: Vec<i64> = (0..values.len()).map(|row| (row * 10 + batch) as i64).collect();
                all.extend(values.iter().copied().zip(times.iter().copied()));
                slots.update(0, &times, &Values::Integer(values.clone()), 0..values.len(), None);
            }
            all.sort_by_key(|(value, time)| (if largest { -value } else { *value }, *time));
            all.truncate(count);
            let best = slots.settled(0);
            let found: Vec<(i64, i64)> = match &best.values {
                Values::Integer(values) => values.iter().copied().zip(best.times.iter().copied()).collect(),
                _ => unreachable!(),
            };
            prop_assert_eq!(found, all);
        }
    }
}
