//! What a part sends to the merge: bounded pieces of rows or of partial aggregates.

use crate::accumulator::Accumulator;
use rkyv::{Archive, Deserialize, Serialize};
use std::sync::Arc;
use tidemill_column::Column;

/// Rows of a piece of a raw select. Large enough that the cost of handing over is small beside that of the rows, small
/// enough that a queue of a few pieces per part stays within a few MiB.
pub const PART_OUTPUT_ROWS_MAX: usize = 8192;
/// Windows of a piece of an aggregation.
pub const PART_OUTPUT_WINDOWS_MAX: usize = 4096;
/// Once the accumulators of a group without windows take this much, they are sent on.
pub const PART_OUTPUT_BYTES_MAX: usize = 4 << 20;

/// One piece of a part's output. Pieces come in the order of the answer: groups by their tag values, and inside a
/// group by time, both reversed for ORDER BY time DESC.
#[derive(Debug)]
pub struct PartOutput {
    /// Values of the GROUP BY tags.
    pub(crate) group: Arc<[String]>,
    pub(crate) body: PartBody,
}

#[derive(Debug)]
pub(crate) enum PartBody {
    Rows(RowPiece),
    Windows(WindowPiece),
}

/// The series of a group: what decides between rows of equal time, and the tags that rows show.
#[derive(Debug, Archive, Serialize, Deserialize)]
pub(crate) struct SeriesTable {
    pub keys: Vec<Arc<[u8]>>,
    /// For each series the values of the leaves that are tags, in the order of the leaves.
    pub tags: Vec<Vec<Option<String>>>,
}

/// Rows by time, rows of equal time by series key; both reversed for ORDER BY time DESC.
#[derive(Debug)]
pub(crate) struct RowPiece {
    pub table: Arc<SeriesTable>,
    pub times: Vec<i64>,
    /// Index into the table, a row.
    pub series: Vec<u32>,
    /// One column for each leaf that is a field, in the order of the leaves.
    pub columns: Vec<Column>,
}

/// Partial aggregates of windows, in the order of the answer.
#[derive(Debug, Archive, Serialize, Deserialize)]
pub(crate) struct WindowPiece {
    pub starts: Vec<i64>,
    /// Slot `i` belongs to `starts[i]`.
    pub accumulators: Vec<Accumulator>,
    /// For each accumulator, whether any window of the whole group has a value.
    pub present: Vec<bool>,
}

impl PartOutput {
    /// Bytes held, for budgets.
    pub fn byte_size(&self) -> usize {
        match &self.body {
            PartBody::Rows(rows) => rows.times.len() * 12 + rows.columns.iter().map(Column::byte_size).sum::<usize>(),
            PartBody::Windows(windows) => {
                windows.starts.len() * 8 + windows.accumulators.iter().map(Accumulator::byte_size).sum::<usize>()
            }
        }
    }

    /// Rows or windows.
    pub fn row_count(&self) -> usize {
        match &self.body {
            PartBody::Rows(rows) => rows.times.len(),
            PartBody::Windows(windows) => windows.starts.len(),
        }
    }
}
