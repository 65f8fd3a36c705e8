//! A batch of points as the plan sees it: converted columns, and only the rows that satisfy the condition.

use crate::condition::Condition;
use crate::evaluate::Leaves;
use crate::plan::ScanPlan;
use crate::rows;
use std::borrow::Cow;
use tidemill_column::{Column, Points};

/// Columns of the plan over some rows of one series.
pub(crate) struct Batch<'a> {
    pub times: Cow<'a, [i64]>,
    /// One entry per column of the plan; `None` when no row has a value.
    pub columns: Vec<Option<Cow<'a, Column>>>,
}

impl Leaves for Batch<'_> {
    fn row_count(&self) -> usize {
        self.times.len()
    }

    fn leaf(&self, leaf: usize) -> Option<Cow<'_, Column>> {
        self.columns[leaf].as_ref().map(|column| Cow::Borrowed(column.as_ref()))
    }
}

impl<'a> Batch<'a> {
    /// The rows of `points` within the scan's time range that satisfy `condition`.
    pub(crate) fn new(scan: &ScanPlan, points: &'a Points, condition: &Condition) -> Batch<'a> {
        let mut columns: Vec<Option<Cow<'a, Column>>> = Vec::with_capacity(scan.column_fields.len());
        for (column, field) in scan.shape.columns.iter().zip(&scan.column_fields) {
            let read = field.and_then(|field| points.columns.get(field)).and_then(Option::as_ref);
            columns.push(read.and_then(|read| rows::convert(read, column.field_type)));
        }
        let batch = Batch { times: Cow::Borrowed(&points.times), columns };
        let (min, max) = scan.rows_range();
        let first = batch.times.partition_point(|time| *time < min);
        let end = batch.times.partition_point(|time| *time <= max);
        if *condition == Condition::Constant(true) {
            if first == 0 && end == batch.times.len() {
                return batch;
            }
            let wanted: Vec<u32> = (first..end).map(|row| row as u32).collect();
            return batch.take(&wanted);
        }
        let mut mask = condition.rows(&batch);
        mask[..first].fill(false);
        mask[end.max(first)..].fill(false);
        if mask.iter().all(|set| *set) {
            return batch;
        }
        batch.take(&rows::set_rows(&mask))
    }

    pub(crate) fn take(&self, wanted: &[u32]) -> Batch<'a> {
        Batch {
            times: wanted.iter().map(|row| self.times[*row as usize]).collect(),
            columns: self
                .columns
                .iter()
                .map(|column| column.as_ref().map(|column| Cow::Owned(rows::take(column, wanted))))
                .collect(),
        }
    }
}
