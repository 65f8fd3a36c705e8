//! The cursors of a part's series.
//!
//! Owns: which of them are open. A cursor holds decoded blocks, so only those that are in use stay open; one that was
//! closed early opens again behind the rows that it gave.
//! Invariants: every row of a series is given once, whatever was closed in between; at most [`OPEN_MAX`] are open.
//! Knows nothing of what the rows are for.

use std::collections::BTreeMap;
use tidemill_column::Points;
use tidemill_disk::Disk;
use tidemill_store::{DatabaseId, Partition, PartitionView, ReadError, ScanField, SeriesCursor, SeriesId};

/// Open cursors of a part. A block is about 16 KiB decoded, so a full house of one field takes 8 MiB.
const OPEN_MAX: usize = 512;

pub(super) struct SeriesCursors<'a, D: Disk> {
    pub partition: &'a Partition<D>,
    pub view: PartitionView<D>,
    pub database: DatabaseId,
    pub ids: Vec<SeriesId>,
    pub fields: Vec<ScanField>,
    pub range: (i64, i64),
    pub descending: bool,
    pub state: CursorStates<D>,
}

/// How far each series is.
pub(super) struct CursorStates<D: Disk> {
    series: Vec<State<D>>,
    /// Open ones by the turn of their last use.
    open: BTreeMap<u64, u32>,
    turn: u64,
    /// Only series that were never read before have been asked for lately: a group is being opened.
    opening: bool,
}

enum State<D: Disk> {
    Untouched,
    Open { cursor: Box<SeriesCursor<D::File>>, rest: (i64, i64), turn: u64 },
    Closed { rest: (i64, i64) },
    Ended,
}

impl<D: Disk> CursorStates<D> {
    pub fn new(series: usize) -> CursorStates<D> {
        let series = (0..series).map(|_| State::Untouched).collect();
        CursorStates { series, open: BTreeMap::new(), turn: 0, opening: true }
    }

    /// Output left the part: whatever is asked for the first time next belongs to another group.
    pub fn note_output(&mut self) {
        self.opening = false;
    }

    fn close(&mut self, turn: u64) {
        let Some(series) = self.open.remove(&turn) else { return };
        let state = &mut self.series[series as usize];
        if let State::Open { rest, .. } = state {
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

impl<D: Disk> SeriesCursors<'_, D> {
    /// The next batch of a series; `None` behind the last.
    pub async fn next(&mut self, series: u32) -> Result<Option<Points>, ReadError> {
        let state = std::mem::replace(&mut self.state.series[series as usize], State::Ended);
        let (mut cursor, rest) = match state {
            State::Ended => return Ok(None),
            State::Untouched => {
                self.state.note_first_question();
                (self.open(series, self.range), self.range)
            }
            State::Closed { rest } => {
                self.state.opening = false;
                (self.open(series, rest), rest)
            }
            State::Open { cursor, rest, turn } => {
                self.state.opening = false;
                self.state.open.remove(&turn);
                (cursor, rest)
            }
        };
        let Some(points) = cursor.next().await? else { return Ok(None) };
        let Some(rest) = rest_behind(&points.times, rest, self.descending) else { return Ok(Some(points)) };
        let states = &mut self.state;
        states.turn += 1;
        states.open.insert(states.turn, series);
        states.series[series as usize] = State::Open { cursor, rest, turn: states.turn };
        if states.open.len() > OPEN_MAX
            && let Some((turn, _)) = states.open.first_key_value()
        {
            states.close(*turn);
        }
        Ok(Some(points))
    }

    fn open(&self, series: u32, range: (i64, i64)) -> Box<SeriesCursor<D::File>> {
        let id = self.ids[series as usize];
        Box::new(self.partition.cursor(&self.view, self.database, id, &self.fields, range, self.descending))
    }
}

/// What remains of the range behind the rows of a batch; `None` if nothing can.
fn rest_behind(times: &[i64], range: (i64, i64), descending: bool) -> Option<(i64, i64)> {
    let rest = match (times, descending) {
        ([], _) => range,
        ([first, ..], true) => (range.0, first.checked_sub(1)?),
        ([.., last], false) => (last.checked_add(1)?, range.1),
    };
    (rest.0 <= rest.1).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_excludes_the_rows_that_were_given() {
        assert_eq!(rest_behind(&[3, 5], (0, 9), false), Some((6, 9)));
        assert_eq!(rest_behind(&[3, 5], (0, 9), true), Some((0, 2)));
        assert_eq!(rest_behind(&[3, 9], (0, 9), false), None);
        assert_eq!(rest_behind(&[0, 5], (0, 9), true), None);
        assert_eq!(rest_behind(&[i64::MAX], (0, i64::MAX), false), None);
        assert_eq!(rest_behind(&[i64::MIN], (i64::MIN, 0), true), None);
        assert_eq!(rest_behind(&[], (0, 9), true), Some((0, 9)));
    }
}
