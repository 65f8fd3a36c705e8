//! Counts and sums, the fastest of the accumulators.
//!
//! A long slice is summed in lanes, a short one in row order. So the rounding of a float sum depends on how rows are cut
//! into batches, but on nothing else: not on the number of cores and not on the moment.

use super::{BlockSummary, Segment};
use rkyv::{Archive, Deserialize, Serialize};
use tidemill_column::{FieldType, Value, Values};

/// Below this many rows the lanes cost more than they save (measured with `scan_speed`: they cross at about 20 rows).
const LANES_ROWS_MIN: usize = 32;

#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
pub(crate) struct SumSlots {
    counts: Vec<u64>,
    sums: Sums,
}

#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
enum Sums {
    Float(Vec<f64>),
    Integer(Vec<i64>),
    Unsigned(Vec<u64>),
}

fn sum_floats(values: &[f64]) -> f64 {
    if values.len() < LANES_ROWS_MIN {
        return values.iter().sum();
    }
    let mut lanes = [0.0; 8];
    let mut chunks = values.chunks_exact(8);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    let halves = [lanes[0] + lanes[4], lanes[1] + lanes[5], lanes[2] + lanes[6], lanes[3] + lanes[7]];
    (halves[0] + halves[2]) + (halves[1] + halves[3]) + chunks.remainder().iter().sum::<f64>()
}

impl SumSlots {
    /// # Panics
    /// If the type has no sum.
    pub(crate) fn new(field_type: FieldType) -> SumSlots {
        let sums = match field_type {
            FieldType::Float => Sums::Float(Vec::new()),
            FieldType::Integer => Sums::Integer(Vec::new()),
            FieldType::Unsigned => Sums::Unsigned(Vec::new()),
            FieldType::Boolean | FieldType::String => panic!("a sum of {field_type} values"),
        };
        SumSlots { counts: Vec::new(), sums }
    }

    pub(crate) fn is_of(&self, field_type: FieldType, slots: usize) -> bool {
        let (of, sums) = match &self.sums {
            Sums::Float(sums) => (FieldType::Float, sums.len()),
            Sums::Integer(sums) => (FieldType::Integer, sums.len()),
            Sums::Unsigned(sums) => (FieldType::Unsigned, sums.len()),
        };
        of == field_type && sums == slots && self.counts.len() == slots
    }

    pub(crate) fn add_slot(&mut self) {
        self.counts.push(0);
        match &mut self.sums {
            Sums::Float(sums) => sums.push(0.0),
            Sums::Integer(sums) => sums.push(0),
            Sums::Unsigned(sums) => sums.push(0),
        }
    }

    pub(crate) fn update(&mut self, values: &Values, segments: &[Segment]) {
        let counts = &mut self.counts;
        match (&mut self.sums, values) {
            (Sums::Float(sums), Values::Float(values)) => {
                for segment in segments {
                    counts[segment.slot()] += segment.len() as u64;
                    sums[segment.slot()] += sum_floats(&values[segment.rows()]);
                }
            }
            (Sums::Integer(sums), Values::Integer(values)) => {
                for segment in segments {
                    counts[segment.slot()] += segment.len() as u64;
                    let sum = values[segment.rows()].iter().fold(0, |sum: i64, value| sum.wrapping_add(*value));
                    sums[segment.slot()] = sums[segment.slot()].wrapping_add(sum);
                }
            }
            (Sums::Unsigned(sums), Values::Unsigned(values)) => {
                for segment in segments {
                    counts[segment.slot()] += segment.len() as u64;
                    let sum = values[segment.rows()].iter().fold(0, |sum: u64, value| sum.wrapping_add(*value));
                    sums[segment.slot()] = sums[segment.slot()].wrapping_add(sum);
                }
            }
            (_, values) => panic!("{} values into a sum of another type", values.field_type()),
        }
    }

    pub(crate) fn summarise(&mut self, slot: usize, summary: &BlockSummary) {
        self.counts[slot] += summary.count;
        match (&mut self.sums, &summary.sum) {
            (Sums::Float(sums), Some(Value::Float(sum))) => sums[slot] += sum,
            (Sums::Integer(sums), Some(Value::Integer(sum))) => sums[slot] = sums[slot].wrapping_add(*sum),
            (Sums::Unsigned(sums), Some(Value::Unsigned(sum))) => sums[slot] = sums[slot].wrapping_add(*sum),
            (_, sum) => panic!("a block summary with the sum {sum:?} for a sum of another type"),
        }
    }

    pub(crate) fn join(&mut self, slot: usize, other: &SumSlots, from: usize) {
        self.counts[slot] += other.counts[from];
        match (&mut self.sums, &other.sums) {
            (Sums::Float(to), Sums::Float(other)) => to[slot] += other[from],
            (Sums::Integer(to), Sums::Integer(other)) => to[slot] = to[slot].wrapping_add(other[from]),
            (Sums::Unsigned(to), Sums::Unsigned(other)) => to[slot] = to[slot].wrapping_add(other[from]),
            _ => panic!("joined sums of different types"),
        }
    }

    pub(crate) fn take(&self, slots: &[u32]) -> SumSlots {
        fn pick<T: Copy>(from: &[T], slots: &[u32]) -> Vec<T> {
            slots.iter().map(|slot| from[*slot as usize]).collect()
        }
        let sums = match &self.sums {
            Sums::Float(from) => Sums::Float(pick(from, slots)),
            Sums::Integer(from) => Sums::Integer(pick(from, slots)),
            Sums::Unsigned(from) => Sums::Unsigned(pick(from, slots)),
        };
        SumSlots { counts: pick(&self.counts, slots), sums }
    }

    pub(crate) fn count(&self, slot: usize) -> u64 {
        self.counts[slot]
    }

    pub(crate) fn sum(&self, slot: usize) -> Option<Value> {
        (self.counts[slot] > 0).then(|| match &self.sums {
            Sums::Float(sums) => Value::Float(sums[slot]),
            Sums::Integer(sums) => Value::Integer(sums[slot]),
            Sums::Unsigned(sums) => Value::Unsigned(sums[slot]),
        })
    }

    pub(crate) fn mean(&self, slot: usize) -> Option<f64> {
        let count = self.counts[slot];
        (count > 0).then(|| match &self.sums {
            Sums::Float(sums) => sums[slot] / count as f64,
            Sums::Integer(sums) => sums[slot] as f64 / count as f64,
            Sums::Unsigned(sums) => sums[slot] as f64 / count as f64,
        })
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.counts.len() * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_add_every_row_once() {
        for rows in [0usize, 1, 31, 32, 33, 40, 100, 1000] {
            let values: Vec<f64> = (0..rows).map(|row| row as f64).collect();
            assert_eq!(sum_floats(&values), (rows * rows.saturating_sub(1) / 2) as f64, "{rows} rows");
        }
    }

    #[test]
    fn integers_wrap() {
        let mut slots = SumSlots::new(FieldType::Integer);
        slots.add_slot();
        slots.update(&Values::Integer(vec![i64::MAX, 1]), &[Segment { slot: 0, start: 0, end: 2 }]);
        assert_eq!(slots.sum(0), Some(Value::Integer(i64::MIN)));
    }
}
