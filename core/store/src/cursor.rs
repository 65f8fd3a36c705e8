//! The points of one series, from everywhere they are: files, frozen memtables, the active one.
//!
//! Owns: the merge of *lanes* (one source, one field) into batches of [`Points`].
//! Invariants: times of a batch ascend strictly; batches follow each other in the asked direction without overlap; of
//! equal times the newer source wins, field by field; at most one decoded block a lane is held.
//! Knows nothing of conditions, windows and functions.

use crate::{
    block_lane::{Lane, Slice},
    read_error::ReadError,
    shard_group::ShardGroupView,
};
use std::{ops::Range, rc::Rc};
use tidemill_column::{Column, FieldType, Points, Values};
use tidemill_disk::DiskFile;
use tidemill_index::{FieldId, SeriesId, SeriesIndex};
use tidemill_tsm::statistics::BlockStatistics;

/// Reads one series in one direction.
pub struct SeriesCursor<F: DiskFile> {
    /// In ascending time; their time ranges do not overlap.
    groups: Rc<[ShardGroupView<F>]>,
    /// Of the groups, those that are still to come.
    left: Range<usize>,
    scan: Scan,
    /// Lanes of the present group that begin behind what was read so far, the nearest last.
    upcoming: Vec<Ranked<F>>,
    /// The others, by rank.
    lanes: Vec<Ranked<F>>,
    descending: bool,
}

/// What is asked of one series.
pub struct Scan {
    pub series: SeriesId,
    /// Canonical.
    pub key: Box<[u8]>,
    pub fields: Rc<[ScanField]>,
    /// Inclusive.
    pub range: (i64, i64),
}

/// One asked field: its name, and its ids with their types, in the order of the types' codes.
#[derive(Clone, Debug)]
pub struct ScanField {
    pub name: Box<[u8]>,
    pub ids: Vec<(FieldId, FieldType)>,
}

impl ScanField {
    /// A field of a measurement; without ids if it was never written.
    pub fn of(index: &SeriesIndex, measurement: &[u8], name: &[u8]) -> ScanField {
        let ids = index.field_ids(measurement, name).into_iter();
        ScanField { name: name.into(), ids: ids.map(|id| (id, index.field(id).field_type)).collect() }
    }
}

/// A lane with its place among the lanes of its group: of equal times the higher rank wins.
struct Ranked<F: DiskFile> {
    rank: usize,
    lane: Lane<F>,
}

/// What a cursor gives.
pub enum Batch {
    Points(Points),
    /// In place of rows, for each asked field what is known of its block, `None` for a field without values there.
    /// Blocks of one summary may differ in their times; no row and no other summary lies between or within them.
    Summary(Vec<Option<BlockStatistics>>),
}

impl<F: DiskFile> SeriesCursor<F> {
    /// A cursor that opens its sources when it comes to them; groups in ascending time.
    pub fn new(groups: Rc<[ShardGroupView<F>]>, scan: Scan, descending: bool) -> SeriesCursor<F> {
        let left = 0..groups.len();
        SeriesCursor { groups, left, scan, upcoming: Vec::new(), lanes: Vec::new(), descending }
    }

    /// Bytes that the cursor holds in memory, for the budget of whoever asks.
    pub fn bytes_held(&self) -> usize {
        let lanes = self.lanes.iter().chain(&self.upcoming).map(|ranked| ranked.lane.byte_size());
        size_of::<Self>() + self.scan.key.len() + lanes.sum::<usize>()
    }

    /// The lanes of all groups that are still to come, each group opened.
    pub(crate) async fn lanes_left(&self) -> Result<Vec<Lane<F>>, ReadError> {
        let mut lanes = Vec::new();
        for group in self.groups.get(self.left.clone()).unwrap_or_default() {
            lanes.extend(group.lanes(&self.scan).await?);
        }
        Ok(lanes)
    }

    /// The next batch; `None` behind the last. Rows ascend inside a batch, also when the batches descend.
    pub async fn next(&mut self) -> Result<Option<Points>, ReadError> {
        while self.find_lanes().await? {
            let limit = self.load_heads().await?;
            let slices = self.take_until(limit);
            let points = merge(slices, self.scan.fields.len());
            if !points.is_empty() {
                return Ok(Some(points));
            }
        }
        Ok(None)
    }

    /// As [`SeriesCursor::next`], but gives summaries for blocks that need not be decoded: their points are all asked
    /// for, none was deleted or overwritten, each has its field's type in `types`, and `may_summarise` agrees to their
    /// first and last time.
    pub async fn next_with(
        &mut self,
        types: &[FieldType],
        may_summarise: &mut dyn FnMut(i64, i64) -> bool,
    ) -> Result<Option<Batch>, ReadError> {
        while self.find_lanes().await? {
            if let Some(summary) = self.summarise(types, may_summarise).await? {
                return Ok(Some(Batch::Summary(summary)));
            }
            let limit = self.load_heads().await?;
            let slices = self.take_until(limit);
            let points = merge(slices, self.scan.fields.len());
            if !points.is_empty() {
                return Ok(Some(Batch::Points(points)));
            }
        }
        Ok(None)
    }

    /// Goes on to the next group when the present one has nothing left; `false` behind the last.
    async fn find_lanes(&mut self) -> Result<bool, ReadError> {
        self.lanes.retain(|ranked| !ranked.lane.is_exhausted());
        while self.lanes.is_empty() && self.upcoming.is_empty() {
            let descending = self.descending;
            let next = if descending { self.left.next_back() } else { self.left.next() };
            let Some(group) = next.and_then(|next| self.groups.get(next)) else { return Ok(false) };
            let lanes = group.lanes(&self.scan).await?;
            let ranked = lanes.into_iter().enumerate().map(|(rank, lane)| Ranked { rank, lane });
            self.upcoming = ranked.filter(|ranked| !ranked.lane.is_exhausted()).collect();
            self.upcoming.sort_by_cached_key(|ranked| {
                // The farthest first, so that the nearest is popped.
                let start = ranked.lane.start(descending).unwrap_or(0);
                if descending { i128::from(start) } else { -i128::from(start) }
            });
        }
        Ok(true)
    }

    /// Whether `time` is at `limit` or before it, in the direction of reading.
    fn is_within(&self, time: i64, limit: i64) -> bool {
        if self.descending { time >= limit } else { time <= limit }
    }

    fn upcoming_start(&self) -> Option<i64> {
        self.upcoming.last()?.lane.start(self.descending)
    }

    /// Takes the nearest of the lanes that were not begun in among the others; returns its position.
    fn admit(&mut self) -> Option<usize> {
        let next = self.upcoming.pop()?;
        let position = self.lanes.partition_point(|known| known.rank < next.rank);
        self.lanes.insert(position, next);
        Some(position)
    }

    fn admit_until(&mut self, limit: i64) {
        while self.upcoming_start().is_some_and(|start| self.is_within(start, limit)) {
            self.admit();
        }
    }

    /// The nearest blocks by their statistics, if nothing else lies among their points.
    async fn summarise(
        &mut self,
        types: &[FieldType],
        may_summarise: &mut dyn FnMut(i64, i64) -> bool,
    ) -> Result<Option<Vec<Option<BlockStatistics>>>, ReadError> {
        let descending = self.descending;
        if self.lanes.is_empty() {
            self.admit();
        }
        let starts = self.lanes.iter().filter_map(|ranked| ranked.lane.start(descending));
        let nearest = starts.chain(self.upcoming_start()).reduce(|a, b| if self.is_within(a, b) { a } else { b });
        let Some(start) = nearest else { return Ok(None) };
        self.admit_until(start);
        // Blocks that begin before the end of those found so far belong to them.
        let mut limit = start;
        let (mut min_time, mut max_time) = (i64::MAX, i64::MIN);
        loop {
            let mut farther = limit;
            for ranked in &self.lanes {
                let Some(begins) = ranked.lane.start(descending) else { continue };
                if self.is_within(begins, limit) {
                    let Some(block) = ranked.lane.next_block(descending) else { return Ok(None) };
                    let end = if descending { block.min_time } else { block.max_time };
                    farther = if self.is_within(farther, end) { end } else { farther };
                    (min_time, max_time) = (min_time.min(block.min_time), max_time.max(block.max_time));
                }
            }
            if !may_summarise(min_time, max_time) {
                return Ok(None);
            }
            if farther == limit {
                break;
            }
            limit = farther;
            self.admit_until(limit);
        }
        let mut summary = vec![None; self.scan.fields.len()];
        let is_met = |ranked: &Ranked<F>| {
            let start = ranked.lane.start(descending);
            start.is_some_and(|start| if descending { start >= limit } else { start <= limit })
        };
        for ranked in self.lanes.iter_mut().filter(|ranked| is_met(ranked)) {
            let Some(statistics) = ranked.lane.summary(descending).await? else { return Ok(None) };
            // Shard groups may differ in a field's type; then the rows are converted one by one.
            if types.get(ranked.lane.field()) != Some(&statistics.summary.field_type()) {
                return Ok(None);
            }
            // Its block after that must not begin among the points of another field's block.
            let next = ranked.lane.start_behind_block(descending);
            if next.is_some_and(|next| if descending { next >= limit } else { next <= limit }) {
                return Ok(None);
            }
            if summary[ranked.lane.field()].replace(statistics).is_some() {
                return Ok(None);
            }
        }
        self.lanes.iter_mut().filter(|ranked| is_met(ranked)).for_each(|ranked| ranked.lane.skip(descending));
        Ok(Some(summary))
    }

    /// Decodes the heads that are needed to know all rows up to the returned time (from it on, when descending):
    /// the nearest end of a decoded head, so that every head that begins before it is decoded too.
    async fn load_heads(&mut self) -> Result<i64, ReadError> {
        let descending = self.descending;
        let nearer = |a: i64, b: i64| if descending { a.max(b) } else { a.min(b) };
        loop {
            let limit = self.lanes.iter().filter_map(|ranked| ranked.lane.head_end(descending)).reduce(nearer);
            // The lane without a head that begins first, if it begins before the limit.
            let waiting = self.lanes.iter().enumerate().filter(|(_, ranked)| !ranked.lane.is_loaded());
            let starts = waiting.filter_map(|(position, ranked)| Some((position, ranked.lane.start(descending)?)));
            let begun = starts.reduce(|a, b| if nearer(a.1, b.1) == a.1 { a } else { b });
            let upcoming = self.upcoming_start();
            let first = match (begun, upcoming) {
                (Some((position, start)), Some(upcoming)) if nearer(start, upcoming) == start => {
                    Some((position, start))
                }
                (Some(begun), None) => Some(begun),
                (_, Some(upcoming)) => Some((usize::MAX, upcoming)),
                (None, None) => None,
            };
            let reachable = first.filter(|(_, start)| limit.is_none_or(|limit| self.is_within(*start, limit)));
            let Some((position, _)) = reachable else {
                return Ok(limit.unwrap_or(if descending { i64::MIN } else { i64::MAX }));
            };
            let position = if position == usize::MAX { self.admit() } else { Some(position) };
            if let Some(position) = position {
                self.lanes[position].lane.load(descending).await?;
            }
        }
    }

    fn take_until(&mut self, limit: i64) -> Vec<Slice> {
        let descending = self.descending;
        self.lanes.iter_mut().filter_map(|ranked| ranked.lane.take(limit, descending)).collect()
    }
}

/// Joins slices by time: rows of equal time become one, and per field the last slice that has the time wins.
fn merge(slices: Vec<Slice>, fields: usize) -> Points {
    let Some(first) = slices.first() else { return Points::default() };
    let same_times = slices.iter().all(|slice| slice.times() == first.times());
    let mut seen = vec![0usize; fields];
    slices.iter().for_each(|slice| seen[slice.field] += 1);
    if same_times && seen.iter().all(|count| *count <= 1) {
        // The common case: each field has one block, and all were written together.
        let mut points = Points { times: Vec::new(), columns: (0..fields).map(|_| None).collect() };
        for slice in slices {
            let field = slice.field;
            let (times, column) = slice.into_parts();
            points.columns[field] = Some(column);
            points.times = times;
        }
        return points;
    }
    let mut times: Vec<i64> = slices.iter().flat_map(|slice| slice.times().iter().copied()).collect();
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
        for (offset, time) in slice.times().iter().enumerate() {
            let position = slice.rows.start + offset;
            // Mostly the next one; a leap is searched for.
            if times[row] != *time {
                row += times[row..].partition_point(|known| known < time);
            }
            if slice.column.is_valid(position) {
                sources[row] = (number as u32, position as u32);
            }
            row = (row + 1).min(times.len() - 1);
        }
    }
    let mut column = Column { values: Values::new(field_type), valid: None };
    for run in sources.chunk_by(|a, b| a.0 == b.0 && (a.0 == NOWHERE.0 || a.1 + 1 == b.1)) {
        match slices.get(run[0].0 as usize) {
            Some(slice) => column.extend_from(&slice.column, run[0].1 as usize..run[0].1 as usize + run.len()),
            None => run.iter().for_each(|_| column.push_null()),
        }
    }
    Some(column)
}
