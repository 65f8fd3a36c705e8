//! Moving rows between columns: conversion to the wanted type, selection by mask, gathering from many sources.
//!
//! Invariant: a produced column is as long as the rows asked for, whatever was absent.

use std::borrow::Cow;
use tidemill_column::{Bitmap, Column, FieldType, Strings, Values};

/// The column as a plan column of type `wanted`: numbers convert, everything else of another type is absent.
pub(crate) fn convert(column: &Column, wanted: FieldType) -> Option<Cow<'_, Column>> {
    if column.values.field_type() == wanted {
        return Some(Cow::Borrowed(column));
    }
    let values = match (&column.values, wanted) {
        (Values::Integer(from), FieldType::Float) => Values::Float(from.iter().map(|v| *v as f64).collect()),
        (Values::Unsigned(from), FieldType::Float) => Values::Float(from.iter().map(|v| *v as f64).collect()),
        (Values::Float(from), FieldType::Integer) => Values::Integer(from.iter().map(|v| *v as i64).collect()),
        (Values::Unsigned(from), FieldType::Integer) => Values::Integer(from.iter().map(|v| *v as i64).collect()),
        (Values::Float(from), FieldType::Unsigned) => Values::Unsigned(from.iter().map(|v| *v as u64).collect()),
        (Values::Integer(from), FieldType::Unsigned) => Values::Unsigned(from.iter().map(|v| *v as u64).collect()),
        _ => return None,
    };
    Some(Cow::Owned(Column { values, valid: column.valid.clone() }))
}

/// The rows at `rows`, in that order.
pub(crate) fn take(column: &Column, rows: &[u32]) -> Column {
    let valid = column.valid.as_ref().map(|valid| {
        let mut taken = Bitmap::new();
        rows.iter().for_each(|row| taken.push(valid.bit(*row as usize)));
        taken
    });
    Column { values: take_values(&column.values, rows), valid }
}

/// The values at `rows`, in that order.
pub(crate) fn take_values(values: &Values, rows: &[u32]) -> Values {
    fn pick<T: Copy>(from: &[T], rows: &[u32]) -> Vec<T> {
        rows.iter().map(|row| from[*row as usize]).collect()
    }
    match values {
        Values::Float(from) => Values::Float(pick(from, rows)),
        Values::Integer(from) => Values::Integer(pick(from, rows)),
        Values::Boolean(from) => Values::Boolean(pick(from, rows)),
        Values::Unsigned(from) => Values::Unsigned(pick(from, rows)),
        Values::String(from) => {
            let mut strings = Strings::new();
            rows.iter().for_each(|row| strings.push(from.value(*row as usize)));
            Values::String(strings)
        }
    }
}

/// Rows `start..start + count` of source `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub source: u32,
    pub start: u32,
    pub count: u32,
}

/// Appends the rows of `runs`; a source that has no such column gives rows without a value.
///
/// # Panics
/// If a source's column has another type than `to`.
pub(crate) fn gather<'a>(to: &mut Column, runs: &[Run], source: impl Fn(u32) -> Option<&'a Column>) {
    // Interleaved series give runs of one row, so what is decided per run is kept small: the type is matched once.
    if to.valid.is_none() && runs.iter().all(|run| source(run.source).is_some_and(|from| from.valid.is_none())) {
        macro_rules! copy {
            ($to:ident, $kind:path) => {
                for run in runs {
                    let Some(Column { values: $kind(from), .. }) = source(run.source) else {
                        panic!("rows of another type than the column's")
                    };
                    let start = run.start as usize;
                    match run.count {
                        1 => $to.push(from[start]),
                        count => $to.extend_from_slice(&from[start..start + count as usize]),
                    }
                }
            };
        }
        match &mut to.values {
            Values::Float(to) => copy!(to, Values::Float),
            Values::Integer(to) => copy!(to, Values::Integer),
            Values::Unsigned(to) => copy!(to, Values::Unsigned),
            Values::Boolean(to) => copy!(to, Values::Boolean),
            Values::String(to) => {
                for run in runs {
                    let Some(Column { values: Values::String(from), .. }) = source(run.source) else {
                        panic!("rows of another type than the column's")
                    };
                    (run.start..run.start + run.count).for_each(|row| to.push(from.value(row as usize)));
                }
            }
        }
        return;
    }
    for run in runs {
        match source(run.source) {
            Some(from) if run.count == 1 => to.push_from(from, run.start as usize),
            Some(from) => to.extend_from(from, run.start as usize..(run.start + run.count) as usize),
            None => (0..run.count).for_each(|_| to.push_null()),
        }
    }
}

/// Rows of a mask that are set.
pub(crate) fn set_rows(mask: &[bool]) -> Vec<u32> {
    mask.iter().enumerate().filter(|(_, set)| **set).map(|(row, _)| row as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_column::Value;

    #[test]
    fn only_numbers_convert() {
        let floats = Column::dense(Values::Float(vec![1.9, -1.9]));
        assert_eq!(convert(&floats, FieldType::Integer).unwrap().values, Values::Integer(vec![1, -1]));
        assert!(convert(&floats, FieldType::String).is_none());
        assert!(convert(&Column::dense(Values::Boolean(vec![true])), FieldType::Float).is_none());
    }

    #[test]
    fn gathered_rows_keep_their_gaps() {
        let mut column = Column::dense(Values::Integer(vec![1, 2, 3]));
        column.push_null();
        let mut to = Column::new(FieldType::Integer);
        let runs = [Run { source: 0, start: 2, count: 2 }, Run { source: 1, start: 0, count: 2 }];
        gather(&mut to, &runs, |source| (source == 0).then_some(&column));
        assert_eq!((0..4).map(|row| to.value(row)).collect::<Vec<_>>(), [Some(Value::Integer(3)), None, None, None]);
        assert_eq!(take(&column, &[3, 0]).value(1), Some(Value::Integer(1)));
    }
}
