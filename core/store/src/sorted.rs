//! Rows of one series of a memtable in the order of time.

use crate::{
    cells::{CellType, Cells, StringHeap},
    id::FieldId,
};
use tidemill_column::{Bitmap, Column, FieldType, Strings, Values};

/// A sorted view: rows of equal time are one, and of each field the last value that arrived wins.
pub struct SortedRows<'a> {
    cells: &'a Cells,
    strings: &'a StringHeap,
    times: Vec<i64>,
    order: Order,
}

enum Order {
    /// Arrival order is ascending: rows of this range.
    Plain(std::ops::Range<usize>),
    /// Rows in stable order of time, and where in `rows` each distinct time ends.
    Sorted { rows: Vec<u32>, ends: Vec<u32> },
}

impl<'a> SortedRows<'a> {
    /// The rows in the inclusive range; `None` if there are none.
    pub fn new(cells: &'a Cells, strings: &'a StringHeap, min_time: i64, max_time: i64) -> Option<SortedRows<'a>> {
        let arrived = cells.times();
        if cells.is_ascending() {
            let start = arrived.partition_point(|time| (*time as i64) < min_time);
            let end = arrived.partition_point(|time| *time as i64 <= max_time);
            let times: Vec<i64> = arrived.get(start..end)?.iter().map(|time| *time as i64).collect();
            return (!times.is_empty()).then_some(SortedRows {
                cells,
                strings,
                times,
                order: Order::Plain(start..end),
            });
        }
        let timed = arrived.iter().zip(0..).map(|(time, row)| (*time as i64, row));
        let mut timed: Vec<(i64, u32)> = timed.filter(|(time, _)| (min_time..=max_time).contains(time)).collect();
        // Stable: rows of one time stay in arrival order, and what came in order is not sorted again.
        timed.sort_by_key(|(time, _)| *time);
        let (mut times, mut ends) = (Vec::with_capacity(timed.len()), Vec::with_capacity(timed.len()));
        for ((time, _), end) in timed.iter().zip(1u32..) {
            if times.last() == Some(time) {
                *ends.last_mut()? = end;
            } else {
                times.push(*time);
                ends.push(end);
            }
        }
        let rows = timed.into_iter().map(|(_, row)| row).collect();
        (!times.is_empty()).then_some(SortedRows { cells, strings, times, order: Order::Sorted { rows, ends } })
    }

    /// Strictly ascending.
    pub fn times(&self) -> &[i64] {
        &self.times
    }

    /// As [`SortedRows::times`].
    pub fn into_times(self) -> Vec<i64> {
        self.times
    }

    /// Fields that the series' table has.
    pub fn fields(&self) -> &[FieldId] {
        self.cells.fields()
    }

    /// A field's values at [`SortedRows::times`]; `None` if none of the rows has one.
    pub fn column(&self, field: FieldId, cell_type: CellType) -> Option<Column> {
        let (words, valid) = self.cells.column(field)?;
        match &self.order {
            Order::Plain(range) => {
                let valid = valid.map(|valid| {
                    let mut part = Bitmap::new();
                    range.clone().for_each(|row| part.push(valid.bit(row)));
                    part
                });
                let values = self.values(cell_type, &words.range(range.clone()), valid.as_ref());
                present(Column { values, valid })
            }
            Order::Sorted { rows, ends } => {
                let mut chosen = Vec::with_capacity(ends.len());
                let mut present_rows = valid.map(|_| Bitmap::new());
                let mut start = 0;
                for end in ends {
                    let group = &rows[start..*end as usize];
                    start = *end as usize;
                    let newest = group.iter().rev().find(|row| valid.is_none_or(|valid| valid.bit(**row as usize)));
                    if let Some(present_rows) = &mut present_rows {
                        present_rows.push(newest.is_some());
                    }
                    chosen.push(newest.copied().unwrap_or(group[0]));
                }
                let chosen: Vec<u64> = chosen.iter().map(|row| words.word(*row as usize)).collect();
                let values = self.values(cell_type, &chosen, present_rows.as_ref());
                present(Column { values, valid: present_rows })
            }
        }
    }

    /// `valid` counts for strings alone: the word of a missing one is no handle.
    fn values(&self, cell_type: CellType, words: &[u64], valid: Option<&Bitmap>) -> Values {
        let words = words.iter().copied();
        match cell_type {
            FieldType::Float => Values::Float(words.map(f64::from_bits).collect()),
            FieldType::Integer => Values::Integer(words.map(|word| word as i64).collect()),
            FieldType::Boolean => Values::Boolean(words.map(|word| word != 0).collect()),
            FieldType::Unsigned => Values::Unsigned(words.collect()),
            FieldType::String => {
                let is_valid = |row: usize| valid.is_none_or(|valid| valid.bit(row));
                let string = |(row, word)| if is_valid(row) { self.strings.value(word) } else { &b""[..] };
                Values::String(words.enumerate().map(string).collect::<Strings>())
            }
        }
    }
}

/// Drops a bitmap that says nothing, and a column without any value.
fn present(mut column: Column) -> Option<Column> {
    let held = column.valid_count();
    if held == column.len() {
        column.valid = None;
    }
    (held > 0).then_some(column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use tidemill_column::Value;

    #[test]
    fn a_missing_string_takes_no_bytes() {
        let mut heap = StringHeap::default();
        let long = heap.push(&[b'x'; 60_000]);
        let mut cells = Cells::new([FieldId(0), FieldId(1)].into());
        cells.append(&[FieldId(0), FieldId(1)], &[1, long, 0], 1, 0..1);
        for time in 2..200_000 {
            cells.append(&[FieldId(1)], &[time, 0], 1, 0..1);
        }
        let column = SortedRows::new(&cells, &heap, i64::MIN, i64::MAX).unwrap().column(FieldId(0), FieldType::String);
        let column = column.unwrap();
        assert_eq!((column.valid_count(), column.len()), (1, 199_999));
        let Values::String(strings) = column.values else { panic!() };
        assert_eq!(strings.byte_size(), 60_000);
    }

    proptest! {
        #[test]
        fn agrees_with_a_map_of_maps(
            rows in proptest::collection::vec((0i64..20, 0u8..3, 0u64..100), 1..60),
            min in 0i64..20,
            span in 0i64..20,
        ) {
            let mut cells = Cells::new([].into());
            let mut expected: BTreeMap<i64, BTreeMap<u32, u64>> = BTreeMap::new();
            for (time, which, value) in &rows {
                let fields: &[FieldId] = match which {
                    0 => &[FieldId(0)],
                    1 => &[FieldId(1)],
                    _ => &[FieldId(1), FieldId(0)],
                };
                let mut words = vec![*time as u64];
                words.extend(fields.iter().map(|field| value + u64::from(field.0)));
                cells.append(fields, &words, 1, 0..1);
                for field in fields {
                    expected.entry(*time).or_default().insert(field.0, value + u64::from(field.0));
                }
            }
            expected.retain(|time, _| (min..=min + span).contains(time));
            let heap = StringHeap::default();
            let sorted = SortedRows::new(&cells, &heap, min, min + span);
            let times: Vec<i64> = sorted.as_ref().map_or(Vec::new(), |sorted| sorted.times().to_vec());
            prop_assert_eq!(&times, &expected.keys().copied().collect::<Vec<_>>());
            let Some(sorted) = sorted else { return Ok(()) };
            for field in 0..2 {
                let column = sorted.column(FieldId(field), FieldType::Unsigned);
                for (row, (_, values)) in expected.iter().enumerate() {
                    let got = column.as_ref().and_then(|column| column.value(row));
                    prop_assert_eq!(got, values.get(&field).map(|value| Value::Unsigned(*value)));
                }
            }
        }
    }
}
