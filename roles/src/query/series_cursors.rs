//! The cursors of a part's series.
//!
//! Owns: which of them are open. A cursor holds decoded blocks, so only those that are in use stay open; one that was
//! closed early opens again behind the rows that it gave.
//! Invariants: every row of a series is given once, whatever was closed in between; at most [`OPEN_MAX`] are open.
//! Knows nothing of what the rows are for.

use std::{collections::BTreeMap, rc::Rc};
use tidemill_column::{FieldType, Points, Value};
use tidemill_disk::Disk;
use tidemill_query::BlockSummary;
use tidemill_store::{Batch, DatabaseId, Partition, PartitionView, ReadError, ScanField, SeriesCursor, SeriesId};
use tidemill_tsm::statistics::{BlockStatistics, Summary};

/// Open cursors of a part. A block is about 16 KiB decoded, so a full house of one field takes 8 MiB.
const OPEN_MAX: usize = 512;
/// Summaries that are taken in a row: about 50 us of work.
const SUMMARIES_PER_STEP: usize = 256;

pub(super) struct SeriesCursors<'a, D: Disk> {
    pub partition: &'a Partition<D>,
    pub view: PartitionView<D>,
    pub database: DatabaseId,
    pub ids: Vec<SeriesId>,
    pub fields: Rc<[ScanField]>,
    /// Of the fields; blocks of another type come as rows.
    pub types: Vec<FieldType>,
    pub range: (i64, i64),
    pub descending: bool,
    pub state: CursorStates<D>,
}

/// How far each series is.
pub(super) struct CursorStates<D: Disk> {
    series: Vec<State<D>>,
    /// Open ones by the turn of their last use.
    open: BTreeMap<u64, u32>,
    /// Bytes that the open ones hold.
    open_bytes: usize,
    turn: u64,
    /// Only series that were never read before have been asked for lately: a group is being opened.
    opening: bool,
}

enum State<D: Disk> {
    Untouched,
    Open { cursor: Box<SeriesCursor<D::File>>, bytes: usize, rest: (i64, i64), turn: u64 },
    Closed { rest: (i64, i64) },
    Ended,
}

impl<D: Disk> CursorStates<D> {
    pub fn new(series: usize) -> CursorStates<D> {
        let series = (0..series).map(|_| State::Untouched).collect();
        CursorStates { series, open: BTreeMap::new(), open_bytes: 0, turn: 0, opening: true }
    }

    /// Bytes that open cursors hold: blocks that were decoded and not given yet, and where the others are.
    pub fn bytes_held(&self) -> usize {
        self.open_bytes
    }

    /// Output left the part: whatever is asked for the first time next belongs to another group.
    pub fn note_output(&mut self) {
        self.opening = false;
    }

    fn close(&mut self, turn: u64) {
        let Some(series) = self.open.remove(&turn) else { return };
        let state = &mut self.series[series as usize];
        if let State::Open { rest, bytes, .. } = state {
            self.open_bytes -= *bytes;
            *state = State::Closed { rest: *rest };
        }
    }

    /// A part goes from group to group and does not come back. A first question after other work opens the next group,
    /// so that the former one's cursors are done with; where that guess is wrong they open again.
    fn note_first_question(&mut self) {
        if !std::mem::replace(&mut self.opening, true) {
            while let Some((turn, _)) = self.open.first_key_value() {
                self.close(*turn);
            }
        }
    }
}

/// What is taken from blocks in place of their rows.
pub(super) struct Summaries<'a> {
    /// First and last instant of the window that holds a time: a block that lies inside may be summarised.
    pub window: &'a dyn Fn(i64) -> (i64, i64),
    /// Takes the summaries of one stretch of time; `false` when the series is done with.
    pub take: &'a mut dyn FnMut(&[BlockSummary]) -> bool,
}

/// What comes next of a series.
pub(super) enum Next {
    Rows(Points),
    /// Summaries were taken, and more may follow.
    More,
    End,
}

impl<D: Disk> SeriesCursors<'_, D> {
    /// The next rows of a series, and before them, where they are wanted, summaries of blocks. Also returns how many
    /// points were summarised.
    pub async fn next(&mut self, series: u32, mut summaries: Option<Summaries<'_>>) -> Result<(Next, u64), ReadError> {
        let state = std::mem::replace(&mut self.state.series[series as usize], State::Ended);
        let (mut cursor, mut rest) = match state {
            State::Ended => return Ok((Next::End, 0)),
            State::Untouched => {
                self.state.note_first_question();
                (self.open(series, self.range), self.range)
            }
            State::Closed { rest } => {
                self.state.opening = false;
                (self.open(series, rest), rest)
            }
            State::Open { cursor, bytes, rest, turn } => {
                self.state.opening = false;
                self.state.open_bytes -= bytes;
                self.state.open.remove(&turn);
                (cursor, rest)
            }
        };
        let mut summarised = 0;
        let mut window = (1, 0);
        for _ in 0..SUMMARIES_PER_STEP {
            let batch = match &mut summaries {
                None => cursor.next().await?.map(Batch::Points),
                Some(summaries) => {
                    let mut is_in_one_window = |min: i64, max: i64| {
                        if !(window.0..=window.1).contains(&min) {
                            window = (summaries.window)(min);
                        }
                        max <= window.1
                    };
                    cursor.next_with(&self.types, &mut is_in_one_window).await?
                }
            };
            let statistics = match batch {
                None => return Ok((Next::End, summarised)),
                Some(Batch::Points(points)) => {
                    let span = points.times.first().copied().zip(points.times.last().copied());
                    self.keep(series, cursor, rest_behind(span, rest, self.descending));
                    return Ok((Next::Rows(points), summarised));
                }
                Some(Batch::Summary(statistics)) => statistics,
            };
            summarised += statistics.iter().flatten().map(|one| u64::from(one.count)).max().unwrap_or(0);
            let left = rest_behind(span(&statistics), rest, self.descending);
            let fields = statistics.iter().enumerate();
            let blocks: Vec<BlockSummary> =
                fields.filter_map(|(field, one)| Some(block_summary(field as u32, one.as_ref()?))).collect();
            let goes_on = summaries.as_mut().is_none_or(|summaries| (summaries.take)(&blocks));
            match left {
                Some(left) if goes_on => rest = left,
                left => {
                    self.keep(series, cursor, left);
                    return Ok((Next::More, summarised));
                }
            }
        }
        self.keep(series, cursor, Some(rest));
        Ok((Next::More, summarised))
    }

    /// Keeps a cursor for the next question, if anything can be left.
    fn keep(&mut self, series: u32, cursor: Box<SeriesCursor<D::File>>, rest: Option<(i64, i64)>) {
        let Some(rest) = rest else { return };
        let states = &mut self.state;
        let bytes = cursor.bytes_held();
        states.turn += 1;
        states.open_bytes += bytes;
        states.open.insert(states.turn, series);
        states.series[series as usize] = State::Open { cursor, bytes, rest, turn: states.turn };
        if states.open.len() > OPEN_MAX
            && let Some((turn, _)) = states.open.first_key_value()
        {
            states.close(*turn);
        }
    }

    fn open(&self, series: u32, range: (i64, i64)) -> Box<SeriesCursor<D::File>> {
        let id = self.ids[series as usize];
        Box::new(self.partition.cursor(&self.view, self.database, id, &self.fields, range, self.descending))
    }
}

/// First and last time of what was summarised together.
fn span(statistics: &[Option<BlockStatistics>]) -> Option<(i64, i64)> {
    let spans = statistics.iter().flatten().map(|one| (one.first_time, one.last_time));
    spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// What remains of the range behind rows between these times; `None` if nothing can.
fn rest_behind(span: Option<(i64, i64)>, range: (i64, i64), descending: bool) -> Option<(i64, i64)> {
    let rest = match (span, descending) {
        (None, _) => range,
        (Some((first, _)), true) => (range.0, first.checked_sub(1)?),
        (Some((_, last)), false) => (last.checked_add(1)?, range.1),
    };
    (rest.0 <= rest.1).then_some(rest)
}

/// Statistics of a block as the query takes them.
fn block_summary(column: u32, statistics: &BlockStatistics) -> BlockSummary {
    // Of strings and booleans there is no sum, of strings only the count.
    let (first, last, min, max, sum) = match statistics.summary {
        Summary::Float(extent) => {
            let value = Value::Float;
            let (min, max) = ((value(extent.min), extent.min_time), (value(extent.max), extent.max_time));
            (value(extent.first), value(extent.last), min, max, Some(value(extent.sum)))
        }
        Summary::Integer(extent) => {
            let value = Value::Integer;
            let (min, max) = ((value(extent.min), extent.min_time), (value(extent.max), extent.max_time));
            (value(extent.first), value(extent.last), min, max, Some(value(extent.sum)))
        }
        Summary::Unsigned(extent) => {
            let value = Value::Unsigned;
            let (min, max) = ((value(extent.min), extent.min_time), (value(extent.max), extent.max_time));
            (value(extent.first), value(extent.last), min, max, Some(value(extent.sum)))
        }
        Summary::Boolean(extent) => {
            let value = Value::Boolean;
            let (min, max) = ((value(extent.min), extent.min_time), (value(extent.max), extent.max_time));
            (value(extent.first), value(extent.last), min, max, None)
        }
        Summary::String => {
            let none = || Value::String(Box::default());
            let time = statistics.first_time;
            (none(), none(), (none(), time), (none(), time), None)
        }
    };
    BlockSummary {
        column,
        count: u64::from(statistics.count),
        min_time: statistics.first_time,
        max_time: statistics.last_time,
        min,
        max,
        sum,
        first,
        last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_excludes_the_rows_that_were_given() {
        assert_eq!(rest_behind(Some((3, 5)), (0, 9), false), Some((6, 9)));
        assert_eq!(rest_behind(Some((3, 5)), (0, 9), true), Some((0, 2)));
        assert_eq!(rest_behind(Some((3, 9)), (0, 9), false), None);
        assert_eq!(rest_behind(Some((0, 5)), (0, 9), true), None);
        assert_eq!(rest_behind(Some((i64::MAX, i64::MAX)), (0, i64::MAX), false), None);
        assert_eq!(rest_behind(Some((i64::MIN, i64::MIN)), (i64::MIN, 0), true), None);
        assert_eq!(rest_behind(None, (0, 9), true), Some((0, 9)));
    }
}
