//! The part of a raw select: the series of a group merged by time, rows of equal time by series key; both reversed
//! for ORDER BY time DESC.

use crate::condition::Condition;
use crate::part::batch::Batch;
use crate::part::output::{PartBody, RowPiece, SeriesTable};
use crate::part::{Group, PART_OUTPUT_ROWS_MAX, PartDemand, PartOutput, PartSeries, tag_value};
use crate::plan::{LeafRef, ScanPlan, Work};
use crate::rows::{self, Run};
use crate::schema::SourceIndex;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use tidemill_column::{Column, Points};

pub(super) struct RawPart {
    scan: Arc<ScanPlan>,
    series: Vec<PartSeries>,
    groups: std::vec::IntoIter<Group>,
    group: Option<OpenGroup>,
    /// Groups that gave rows, for SLIMIT.
    emitted_groups: u64,
}

struct OpenGroup {
    values: Arc<[String]>,
    cursors: Vec<Cursor>,
    table: Arc<SeriesTable>,
    /// Cursors without a batch that are not exhausted; the last one is demanded.
    wanted: Vec<u32>,
    /// Cursors with a batch, by the rank of their next row and then by series.
    heap: BinaryHeap<Reverse<(i64, u32)>>,
    /// Rows that are ordered but still in their cursors' batches.
    runs: Vec<Run>,
    run_rows: usize,
    piece: RowPiece,
    /// Rows of the group so far, those in `runs` included.
    rows: u64,
}

/// The rows at hand of one series, in the order of the answer.
struct Cursor {
    series: u32,
    condition: Condition,
    times: Vec<i64>,
    columns: Vec<Option<Column>>,
    position: usize,
}

/// Orders times as the answer does. The complement reverses the order without overflow.
fn rank(time: i64, descending: bool) -> i64 {
    if descending { !time } else { time }
}

fn field_leaves(scan: &ScanPlan) -> Vec<usize> {
    let Work::Raw { leaves } = &scan.shape.work else { return Vec::new() };
    let field = |leaf: &LeafRef| if let LeafRef::Field(column) = leaf { Some(*column) } else { None };
    leaves.iter().filter_map(field).collect()
}

fn empty_piece(scan: &ScanPlan, table: Arc<SeriesTable>) -> RowPiece {
    let column = |column: usize| Column::new(scan.shape.columns[column].field_type);
    let columns = field_leaves(scan).into_iter().map(column).collect();
    RowPiece { table, times: Vec::new(), series: Vec::new(), columns }
}

impl RawPart {
    pub(super) fn new(scan: Arc<ScanPlan>, series: Vec<PartSeries>, groups: Vec<Group>) -> RawPart {
        RawPart { scan, series, groups: groups.into_iter(), group: None, emitted_groups: 0 }
    }

    pub(super) fn poll(&mut self) -> PartDemand {
        loop {
            let Some(group) = &mut self.group else {
                if self.scan.shape.series_limit.is_reached(self.emitted_groups) {
                    return PartDemand::Done;
                }
                let Some(group) = self.groups.next() else { return PartDemand::Done };
                self.group = Some(self.open(group));
                continue;
            };
            let enough = self.scan.shape.row_limit.is_reached(group.rows);
            if let (Some(cursor), false) = (group.wanted.last(), enough) {
                return PartDemand::Points(group.cursors[*cursor as usize].series);
            }
            if enough || group.heap.is_empty() {
                group.gather();
                let piece = std::mem::replace(&mut group.piece, empty_piece(&self.scan, group.table.clone()));
                let output = PartOutput { group: group.values.clone(), body: PartBody::Rows(piece) };
                let rows = group.rows;
                self.group = None;
                self.emitted_groups += u64::from(rows > 0);
                if output.row_count() > 0 {
                    return PartDemand::Emit(output);
                }
                continue;
            }
            group.advance(&self.scan);
            if group.piece.times.len() + group.run_rows >= PART_OUTPUT_ROWS_MAX {
                group.gather();
                let piece = std::mem::replace(&mut group.piece, empty_piece(&self.scan, group.table.clone()));
                return PartDemand::Emit(PartOutput { group: group.values.clone(), body: PartBody::Rows(piece) });
            }
        }
    }

    fn open(&self, group: Group) -> OpenGroup {
        let mut cursors = Vec::new();
        let mut table = SeriesTable { keys: Vec::new(), tags: Vec::new() };
        let Work::Raw { leaves } = &self.scan.shape.work else { panic!("an aggregation has no raw part") };
        let mut members = group.series;
        if self.scan.shape.descending {
            // The place among the cursors decides between rows of equal time.
            members.reverse();
        }
        for series in members {
            let one = &self.series[series as usize];
            let condition = self.scan.condition.fold(&|name| tag_value(&one.tags, name));
            if condition == Condition::Constant(false) {
                continue;
            }
            cursors.push(Cursor { series, condition, times: Vec::new(), columns: Vec::new(), position: 0 });
            table.keys.push(one.key.clone());
            table.tags.push(
                leaves
                    .iter()
                    .filter_map(|leaf| if let LeafRef::Tag(tag) = leaf { Some(tag) } else { None })
                    .map(|tag| match tag.as_str() {
                        "_name" => Some(self.scan.measurement.clone()),
                        "_seriesKey" => Some(String::from_utf8_lossy(&one.key).into_owned()),
                        tag => tag_value(&one.tags, tag).map(str::to_owned),
                    })
                    .collect(),
            );
        }
        let table = Arc::new(table);
        OpenGroup {
            values: group.values,
            wanted: (0..cursors.len() as u32).rev().collect(),
            cursors,
            heap: BinaryHeap::new(),
            runs: Vec::new(),
            run_rows: 0,
            piece: empty_piece(&self.scan, table.clone()),
            table,
            rows: 0,
        }
    }

    pub(super) fn supply(&mut self, series: u32, points: Option<Points>) {
        let group = self.group.as_mut().expect("rows are supplied when they are demanded");
        let index = *group.wanted.last().expect("rows are supplied when they are demanded");
        let cursor = &mut group.cursors[index as usize];
        assert!(cursor.series == series, "rows of series {series} where {} was demanded", cursor.series);
        let Some(points) = points else {
            group.wanted.pop();
            return;
        };
        let batch = Batch::new(&self.scan, &points, &cursor.condition);
        let leaves = field_leaves(&self.scan);
        // A row is there when a selected field has a value; columns that only the condition reads do not count. Where
        // tags alone are selected, all fields are read and count.
        let deciding: Vec<usize> = match self.scan.shape.tags_only {
            true => (0..batch.columns.len()).collect(),
            false => leaves.clone(),
        };
        let shown = |row: usize| {
            deciding.iter().any(|leaf| batch.columns[*leaf].as_deref().is_some_and(|column| column.is_valid(row)))
        };
        // All rows of a statement in FROM are rows.
        let dense = matches!(self.scan.source, SourceIndex::Subquery(_))
            || deciding.iter().any(|leaf| batch.columns[*leaf].as_deref().is_some_and(|column| column.valid.is_none()));
        let descending = self.scan.shape.descending;
        let wanted: Option<Vec<u32>> = if dense && !descending {
            None
        } else {
            let mut wanted: Vec<u32> =
                (0..batch.times.len()).filter(|row| dense || shown(*row)).map(|row| row as u32).collect();
            if descending {
                wanted.reverse();
            }
            Some(wanted)
        };
        match wanted {
            None => {
                cursor.columns = leaves.iter().map(|leaf| batch.columns[*leaf].as_deref().cloned()).collect();
                cursor.times = batch.times.into_owned();
            }
            Some(wanted) => {
                cursor.columns = leaves
                    .iter()
                    .map(|leaf| batch.columns[*leaf].as_deref().map(|column| rows::take(column, &wanted)))
                    .collect();
                cursor.times = wanted.iter().map(|row| batch.times[*row as usize]).collect();
            }
        }
        cursor.position = 0;
        if let Some(first) = cursor.times.first() {
            group.heap.push(Reverse((rank(*first, descending), index)));
            group.wanted.pop();
        }
    }

    pub(super) fn bytes_held(&self) -> usize {
        let Some(group) = &self.group else { return 0 };
        let column_bytes = |columns: &[Option<Column>]| columns.iter().flatten().map(Column::byte_size).sum::<usize>();
        let cursors: usize =
            group.cursors.iter().map(|cursor| cursor.times.len() * 8 + column_bytes(&cursor.columns)).sum();
        let piece: usize = group.piece.columns.iter().map(Column::byte_size).sum();
        cursors + piece + group.piece.times.len() * 12 + group.runs.len() * size_of::<Run>()
    }
}

impl OpenGroup {
    /// Orders the rows of the first cursor up to the next row of the second, or to the end of its batch.
    fn advance(&mut self, scan: &ScanPlan) {
        let Some(Reverse((_, index))) = self.heap.peek().copied() else { return };
        // The second is one of the two below the top: looked up where the heap keeps them, so that the top is replaced
        // in one go down instead of taken out and put in again.
        let second = match self.heap.as_slice() {
            [_, left, right, ..] => Some(left.max(right).0),
            [_, left] => Some(left.0),
            _ => None,
        };
        let descending = scan.shape.descending;
        let cursor = &mut self.cursors[index as usize];
        let room = PART_OUTPUT_ROWS_MAX.saturating_sub(self.piece.times.len() + self.run_rows).max(1);
        let left = scan
            .shape
            .row_limit
            .rows_max()
            .map_or(usize::MAX, |rows| usize::try_from(rows.saturating_sub(self.rows)).unwrap_or(usize::MAX));
        let end = cursor.times.len().min(cursor.position.saturating_add(room.min(left)));
        let mut next = cursor.position + 1;
        match second {
            None => next = end,
            Some(second) => {
                while next < end && (rank(cursor.times[next], descending), index) < second {
                    next += 1;
                }
            }
        }
        let count = next - cursor.position;
        self.runs.push(Run { source: index, start: cursor.position as u32, count: count as u32 });
        self.run_rows += count;
        self.rows += count as u64;
        cursor.position = next;
        match cursor.times.get(next) {
            Some(time) => {
                let time = rank(*time, descending);
                if let Some(mut top) = self.heap.peek_mut() {
                    *top = Reverse((time, index));
                }
            }
            None => {
                self.heap.pop();
                // The batch is left for the next one.
                self.gather();
                self.wanted.push(index);
            }
        }
    }

    /// Copies the ordered rows out of the batches.
    fn gather(&mut self) {
        for run in &self.runs {
            let times = &self.cursors[run.source as usize].times;
            let start = run.start as usize;
            if run.count == 1 {
                self.piece.times.push(times[start]);
                self.piece.series.push(run.source);
            } else {
                self.piece.times.extend_from_slice(&times[start..start + run.count as usize]);
                self.piece.series.extend(std::iter::repeat_n(run.source, run.count as usize));
            }
        }
        for (index, column) in self.piece.columns.iter_mut().enumerate() {
            rows::gather(column, &self.runs, |source| self.cursors[source as usize].columns[index].as_ref());
        }
        self.runs.clear();
        self.run_rows = 0;
    }
}
