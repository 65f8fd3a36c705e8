//! What a statement answers: series of rows, in columns.

use std::sync::Arc;
use tidemill_column::Column;

/// Some rows of one output series. A long series comes in several of these, one behind the other, with the same
/// `name` and `tags`.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultSeries {
    /// Measurement name; empty where the statement has none (SHOW SERIES).
    pub name: Arc<str>,
    /// GROUP BY tags in key order; a tag that the series lacks has the value "".
    pub tags: Arc<[(String, String)]>,
    /// Column names; `time` first for SELECT.
    pub columns: Arc<[String]>,
    /// One entry per column name, all equally long.
    pub values: Vec<ResultColumn>,
    /// More rows of this very series follow.
    pub partial: bool,
}

/// One output column.
#[derive(Clone, Debug, PartialEq)]
pub enum ResultColumn {
    /// ns since the epoch; printed as the request's `epoch` says.
    Time(Vec<i64>),
    Values(Column),
    /// JSON arrays of strings (SHOW SUBSCRIPTIONS).
    StringLists(Vec<Vec<String>>),
}

impl ResultColumn {
    pub fn len(&self) -> usize {
        match self {
            ResultColumn::Time(times) => times.len(),
            ResultColumn::Values(column) => column.len(),
            ResultColumn::StringLists(lists) => lists.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ResultSeries {
    /// Rows in this piece.
    pub fn row_count(&self) -> usize {
        self.values.first().map_or(0, ResultColumn::len)
    }
}
