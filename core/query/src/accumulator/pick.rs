//! The one value that is first, last, smallest or largest.

use super::BlockSummary;
use rkyv::{Archive, Deserialize, Serialize};
use std::ops::Range;
use tidemill_column::{FieldType, Value, Values};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(crate) enum PickKind {
    First,
    Last,
    Min,
    Max,
}

#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
pub(crate) struct PickSlots {
    kind: PickKind,
    times: Vec<i64>,
    present: Vec<bool>,
    values: Picked,
}

#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
enum Picked {
    Float(Vec<f64>),
    Integer(Vec<i64>),
    Unsigned(Vec<u64>),
    Boolean(Vec<bool>),
}

/// Values that can be picked without a copy of their own.
trait Pickable: Copy + PartialOrd {
    /// Of two values at the earliest time, whether the larger is the first one.
    const FIRST_IS_LARGER: bool = true;

    /// The smallest (largest) value of a slice that is not empty.
    fn extreme(values: &[Self], largest: bool) -> Self;
}

fn extreme_in_lanes<T: Copy + PartialOrd>(values: &[T], largest: bool) -> T {
    let mut lanes = [values[0]; 8];
    let mut chunks = values.chunks_exact(8);
    if largest {
        for chunk in &mut chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = if *value > *lane { *value } else { *lane };
            }
        }
        lanes.iter().chain(chunks.remainder()).fold(values[0], |a, b| if *b > a { *b } else { a })
    } else {
        for chunk in &mut chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = if *value < *lane { *value } else { *lane };
            }
        }
        lanes.iter().chain(chunks.remainder()).fold(values[0], |a, b| if *b < a { *b } else { a })
    }
}

impl Pickable for f64 {
    fn extreme(values: &[f64], largest: bool) -> f64 {
        extreme_in_lanes(values, largest)
    }
}

impl Pickable for i64 {
    fn extreme(values: &[i64], largest: bool) -> i64 {
        extreme_in_lanes(values, largest)
    }
}

impl Pickable for u64 {
    fn extreme(values: &[u64], largest: bool) -> u64 {
        extreme_in_lanes(values, largest)
    }
}

impl Pickable for bool {
    const FIRST_IS_LARGER: bool = false;

    fn extreme(values: &[bool], largest: bool) -> bool {
        if largest { values.contains(&true) } else { !values.contains(&false) }
    }
}

/// Whether `new` is picked rather than `old`. Equal values: the earliest; equal times: as the kind says.
fn is_better<T: Pickable>(kind: PickKind, new: (i64, T), old: (i64, T)) -> bool {
    match kind {
        PickKind::First => {
            new.0 < old.0 || new.0 == old.0 && if T::FIRST_IS_LARGER { new.1 > old.1 } else { new.1 < old.1 }
        }
        PickKind::Last => new.0 > old.0 || new.0 == old.0 && new.1 > old.1,
        PickKind::Min => new.1 < old.1 || new.1 == old.1 && new.0 < old.0,
        PickKind::Max => new.1 > old.1 || new.1 == old.1 && new.0 < old.0,
    }
}

/// The best of the rows, if it beats what is `held`. Times ascend.
fn best_of<T: Pickable>(kind: PickKind, times: &[i64], values: &[T], held: Option<(i64, T)>) -> Option<(i64, T)> {
    let last = times.len() - 1;
    let new = match kind {
        PickKind::First => (times[0], values[0]),
        PickKind::Last => (times[last], values[last]),
        PickKind::Min | PickKind::Max => {
            let value = T::extreme(values, kind == PickKind::Max);
            if let Some(held) = held {
                let worse = if kind == PickKind::Max { value < held.1 } else { value > held.1 };
                if worse || value == held.1 && times[0] >= held.0 {
                    return None;
                }
            }
            let row = values.iter().position(|other| *other == value)?;
            (times[row], values[row])
        }
    };
    held.is_none_or(|held| is_better(kind, new, held)).then_some(new)
}

/// Runs `$body` with `$values` bound to the vectors of equal type on both sides.
macro_rules! same_types {
    ($left:expr, $right:expr, $other:ident, |$to:ident, $from:ident| $body:expr) => {
        match ($left, $right) {
            (Picked::Float($to), $other::Float($from)) => $body,
            (Picked::Integer($to), $other::Integer($from)) => $body,
            (Picked::Unsigned($to), $other::Unsigned($from)) => $body,
            (Picked::Boolean($to), $other::Boolean($from)) => $body,
            _ => panic!("picked from values of different types"),
        }
    };
}

impl PickSlots {
    /// # Panics
    /// If the values are strings, which are collected instead.
    pub(crate) fn new(kind: PickKind, field_type: FieldType) -> PickSlots {
        let values = match field_type {
            FieldType::Float => Picked::Float(Vec::new()),
            FieldType::Integer => Picked::Integer(Vec::new()),
            FieldType::Unsigned => Picked::Unsigned(Vec::new()),
            FieldType::Boolean => Picked::Boolean(Vec::new()),
            FieldType::String => panic!("strings are collected, not picked"),
        };
        PickSlots { kind, times: Vec::new(), present: Vec::new(), values }
    }

    pub(crate) fn is_of(&self, kind: PickKind, field_type: FieldType, slots: usize) -> bool {
        let (of, values) = match &self.values {
            Picked::Float(values) => (FieldType::Float, values.len()),
            Picked::Integer(values) => (FieldType::Integer, values.len()),
            Picked::Unsigned(values) => (FieldType::Unsigned, values.len()),
            Picked::Boolean(values) => (FieldType::Boolean, values.len()),
        };
        let lengths = [values, self.times.len(), self.present.len()];
        self.kind == kind && of == field_type && lengths.iter().all(|length| *length == slots)
    }

    pub(crate) fn add_slot(&mut self) {
        self.times.push(0);
        self.present.push(false);
        match &mut self.values {
            Picked::Float(values) => values.push(0.0),
            Picked::Integer(values) => values.push(0),
            Picked::Unsigned(values) => values.push(0),
            Picked::Boolean(values) => values.push(false),
        }
    }

    pub(crate) fn update(&mut self, slot: usize, times: &[i64], values: &Values, rows: Range<usize>) {
        let (kind, held_time, present) = (self.kind, self.times[slot], self.present[slot]);
        same_types!(&mut self.values, values, Values, |to, from| {
            let held = present.then(|| (held_time, to[slot]));
            if let Some((time, value)) = best_of(kind, &times[rows.clone()], &from[rows], held) {
                (self.times[slot], self.present[slot], to[slot]) = (time, true, value);
            }
        });
    }

    pub(crate) fn summarise(&mut self, slot: usize, summary: &BlockSummary) {
        let (value, time) = match self.kind {
            PickKind::First => (&summary.first, summary.min_time),
            PickKind::Last => (&summary.last, summary.max_time),
            PickKind::Min => (&summary.min.0, summary.min.1),
            PickKind::Max => (&summary.max.0, summary.max.1),
        };
        let (kind, held_time, present) = (self.kind, self.times[slot], self.present[slot]);
        same_types!(&mut self.values, value, Value, |to, from| {
            if !present || is_better(kind, (time, *from), (held_time, to[slot])) {
                (self.times[slot], self.present[slot], to[slot]) = (time, true, *from);
            }
        });
    }

    pub(crate) fn join(&mut self, slot: usize, other: &PickSlots, from: usize) {
        if !other.present[from] {
            return;
        }
        let (kind, held_time, present, time) = (self.kind, self.times[slot], self.present[slot], other.times[from]);
        same_types!(&mut self.values, &other.values, Picked, |to, others| {
            if !present || is_better(kind, (time, others[from]), (held_time, to[slot])) {
                (self.times[slot], self.present[slot], to[slot]) = (time, true, others[from]);
            }
        });
    }

    pub(crate) fn take(&self, slots: &[u32]) -> PickSlots {
        fn pick<T: Copy>(from: &[T], slots: &[u32]) -> Vec<T> {
            slots.iter().map(|slot| from[*slot as usize]).collect()
        }
        let values = match &self.values {
            Picked::Float(from) => Picked::Float(pick(from, slots)),
            Picked::Integer(from) => Picked::Integer(pick(from, slots)),
            Picked::Unsigned(from) => Picked::Unsigned(pick(from, slots)),
            Picked::Boolean(from) => Picked::Boolean(pick(from, slots)),
        };
        PickSlots { kind: self.kind, times: pick(&self.times, slots), present: pick(&self.present, slots), values }
    }

    pub(crate) fn is_present(&self, slot: usize) -> bool {
        self.present[slot]
    }

    pub(crate) fn value(&self, slot: usize) -> Option<(i64, Value)> {
        self.present[slot].then(|| {
            let value = match &self.values {
                Picked::Float(values) => Value::Float(values[slot]),
                Picked::Integer(values) => Value::Integer(values[slot]),
                Picked::Unsigned(values) => Value::Unsigned(values[slot]),
                Picked::Boolean(values) => Value::Boolean(values[slot]),
            };
            (self.times[slot], value)
        })
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.times.len() * 17
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn picked(kind: PickKind, batches: &[(Vec<i64>, Values)]) -> Option<(i64, Value)> {
        let mut slots = PickSlots::new(kind, batches[0].1.field_type());
        slots.add_slot();
        for (times, values) in batches {
            slots.update(0, times, values, 0..times.len());
        }
        slots.value(0)
    }

    #[test]
    fn ties_follow_the_documented_rules() {
        let floats = [(vec![5, 9], Values::Float(vec![1.0, 4.0])), (vec![5, 9], Values::Float(vec![2.0, 3.0]))];
        assert_eq!(picked(PickKind::First, &floats), Some((5, Value::Float(2.0))));
        assert_eq!(picked(PickKind::Last, &floats), Some((9, Value::Float(4.0))));
        let flags = [(vec![5], Values::Boolean(vec![true])), (vec![5], Values::Boolean(vec![false]))];
        assert_eq!(picked(PickKind::First, &flags), Some((5, Value::Boolean(false))));
        assert_eq!(picked(PickKind::Last, &flags), Some((5, Value::Boolean(true))));
        let equal = [(vec![7], Values::Integer(vec![3])), (vec![5, 6], Values::Integer(vec![3, 3]))];
        assert_eq!(picked(PickKind::Max, &equal), Some((5, Value::Integer(3))));
        assert_eq!(picked(PickKind::Min, &equal), Some((5, Value::Integer(3))));
    }

    proptest! {
        #[test]
        fn extremes_are_found_wherever_they_stand(values in proptest::collection::vec(-20i64..20, 1..80)) {
            let times: Vec<i64> = (0..values.len() as i64).collect();
            let largest = *values.iter().max().unwrap();
            let row = values.iter().position(|value| *value == largest).unwrap() as i64;
            prop_assert_eq!(
                picked(PickKind::Max, &[(times.clone(), Values::Integer(values.clone()))]),
                Some((row, Value::Integer(largest)))
            );
            let floats = values.iter().map(|value| *value as f64).collect();
            let smallest = *values.iter().min().unwrap();
            let row = values.iter().position(|value| *value == smallest).unwrap() as i64;
            prop_assert_eq!(
                picked(PickKind::Min, &[(times, Values::Float(floats))]),
                Some((row, Value::Float(smallest as f64)))
            );
        }
    }
}
