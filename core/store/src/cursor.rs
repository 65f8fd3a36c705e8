//! The points of one series, from everywhere they are: files, frozen memtables, the active one.
//!
//! Owns: the merge of *lanes* (one source, one field) into batches of [`Points`].
//! Invariants: times of a batch ascend strictly; batches follow each other in the asked direction without overlap; of
//! equal times the newer source wins, field by field; at most one decoded block a lane is held.
//! Knows nothing of conditions, windows and functions.

use crate::{
    block_lane::{Lane, Slice},
    read_error::ReadError,
};
use tidemill_column::{Column, Points, Values};
use tidemill_disk::DiskFile;

/// Reads one series in one direction.
pub struct SeriesCursor<F: DiskFile> {
    /// Per shard group, in the asked direction; the groups' time ranges do not overlap.
    groups: std::vec::IntoIter<Vec<Lane<F>>>,
    lanes: Vec<Lane<F>>,
    fields: usize,
    descending: bool,
}

impl<F: DiskFile> SeriesCursor<F> {
    /// A cursor over `fields` fields; each lane says which of them it is. Lanes of a group are in ascending priority.
    pub fn new(groups: Vec<Vec<Lane<F>>>, fields: usize, descending: bool) -> SeriesCursor<F> {
        SeriesCursor { groups: groups.into_iter(), lanes: Vec::new(), fields, descending }
    }

    /// The next batch; `None` behind the last. Rows ascend inside a batch, also when the batches descend.
    pub async fn next(&mut self) -> Result<Option<Points>, ReadError> {
        loop {
            self.lanes.retain(|lane| !lane.is_exhausted());
            if self.lanes.is_empty() {
                match self.groups.next() {
                    Some(lanes) => self.lanes = lanes,
                    None => return Ok(None),
                }
                continue;
            }
            let limit = self.load_heads().await?;
            let slices = self.take_until(limit);
            let points = merge(slices, self.fields);
            if !points.is_empty() {
                return Ok(Some(points));
            }
        }
    }

    /// Decodes the heads that are needed to know all rows up to the returned time (from it on, when descending):
    /// the nearest end of a decoded head, so that every head that begins before it is decoded too.
    async fn load_heads(&mut self) -> Result<i64, ReadError> {
        let descending = self.descending;
        let nearer = |a: i64, b: i64| if descending { a.max(b) } else { a.min(b) };
        loop {
            let ends = self.lanes.iter().filter_map(|lane| lane.head_end(descending));
            let limit = ends.reduce(nearer);
            // The lane without a head that begins first, if it begins before the limit.
            let waiting = self.lanes.iter().enumerate().filter(|(_, lane)| !lane.is_loaded());
            let starts = waiting.filter_map(|(position, lane)| Some((position, lane.start(descending)?)));
            let reachable = starts.filter(|(_, start)| limit.is_none_or(|limit| nearer(*start, limit) == *start));
            match reachable.reduce(|a, b| if nearer(a.1, b.1) == a.1 { a } else { b }) {
                Some((position, _)) => self.lanes[position].load(descending).await?,
                None => return Ok(limit.unwrap_or(if descending { i64::MIN } else { i64::MAX })),
            }
        }
    }

    fn take_until(&mut self, limit: i64) -> Vec<Slice> {
        let descending = self.descending;
        self.lanes.iter_mut().filter_map(|lane| lane.take(limit, descending)).collect()
    }
}

/// Joins slices by time: rows of equal time become one, and per field the last slice that has the time wins.
fn merge(mut slices: Vec<Slice>, fields: usize) -> Points {
    slices.retain(|slice| !slice.times.is_empty());
    let Some(first) = slices.first() else { return Points::default() };
    let same_times = slices.iter().all(|slice| slice.times == first.times);
    let mut seen = vec![0usize; fields];
    slices.iter().for_each(|slice| seen[slice.field] += 1);
    if same_times && seen.iter().all(|count| *count <= 1) {
        // The common case: each field has one block, and all were written together.
        let mut points = Points { times: Vec::new(), columns: (0..fields).map(|_| None).collect() };
        for slice in slices {
            points.columns[slice.field] = Some(slice.column);
            points.times = slice.times;
        }
        return points;
    }
    let mut times: Vec<i64> = slices.iter().flat_map(|slice| slice.times.iter().copied()).collect();
    times.sort_unstable();
    times.dedup();
    let columns = (0..fields).map(|field| overlay(&times, &slices, field)).collect();
    Points { times, columns }
}

/// No slice has this row.
const NOWHERE: (u32, u32) = (u32::MAX, 0);

/// The values of one field at `times`, later slices over earlier ones.
fn overlay(times: &[i64], slices: &[Slice], field: usize) -> Option<Column> {
    let newest = slices.iter().rev().find(|slice| slice.field == field)?;
    let field_type = newest.column.values.field_type();
    let mut sources = vec![NOWHERE; times.len()];
    for (number, slice) in slices.iter().enumerate().filter(|(_, slice)| slice.field == field) {
        // A name that had another type before: the values of that type are of a field that was deleted.
        if slice.column.values.field_type() != field_type {
            continue;
        }
        let mut row = 0;
        for (position, time) in slice.times.iter().enumerate() {
            row += times[row..].partition_point(|known| known < time);
            if slice.column.is_valid(position) {
                sources[row] = (number as u32, position as u32);
            }
        }
    }
    let mut column = Column { values: Values::new(field_type), valid: None };
    for (slice, position) in sources {
        match slices.get(slice as usize) {
            Some(slice) => column.push_from(&slice.column, position as usize),
            None => column.push_null(),
        }
    }
    Some(column)
}
