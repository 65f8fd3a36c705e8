//! Points of one series.

use crate::Column;

/// Rows of one series in ascending time, without equal times, with one column per asked field.
///
/// `columns[i]` belongs to the i-th field that the reader was asked for; `None` stands for a field of which none of
/// these rows holds a value. A row is there when at least one of its asked fields holds a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    /// ns since the epoch, strictly ascending.
    pub times: Vec<i64>,
    pub columns: Vec<Option<Column>>,
}

impl Points {
    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Bytes that the rows take, for budgets.
    pub fn byte_size(&self) -> usize {
        self.times.len() * 8 + self.columns.iter().flatten().map(Column::byte_size).sum::<usize>()
    }
}
