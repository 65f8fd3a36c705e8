//! From the blocks of a key in several files to those of one.
//!
//! Owns: which blocks are decoded. A block is copied as it is unless a point of another file lies between its first and
//! its last point, or a delete took a point out of it.
//! Invariants: of equal times the file of the higher rank wins, whatever its type; points come out in ascending time,
//! once. At most one decoded block a file is held, but for a key whose files differ in type.
//! Knows nothing of files that are made.

use crate::{
    copy_output::{CopyOutput, CopyOutputError},
    copy_source::CopySource,
    file_run::FlushError,
    pace::breathe,
    read_error::ReadError,
};
use std::collections::BTreeSet;
use tidemill_column::{FieldType, Values};
use tidemill_disk::Disk;

/// Blocks that are copied before other tasks of the core get a turn: about 300 us of work.
const BLOCKS_PER_TURN: u64 = 64;
/// Blocks that are decoded and encoded before other tasks of the core get a turn.
const MERGES_PER_TURN: u64 = 8;

/// Why blocks could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] FlushError),
}

/// The blocks of the present key in one source.
struct Lane {
    /// Position of the source; sources are in ascending rank.
    source: usize,
    next: usize,
    head: Option<Head>,
    /// The next block was found to have lost no point.
    is_whole: bool,
    deleted: Vec<(i64, i64)>,
}

/// Decoded points, `start` of them given away.
struct Head {
    times: Vec<i64>,
    values: Values,
    start: usize,
}

/// Merges the present key of `group`, positions of sources in ascending rank.
pub async fn merge_key<D: Disk>(
    sources: &mut [CopySource<'_, D::File>],
    group: &[usize],
    output: &mut CopyOutput<'_, D>,
    turn: &mut WorkTurn,
) -> Result<(), MergeError> {
    let mut lanes = Vec::with_capacity(group.len());
    for source in group {
        let deleted = sources[*source].deleted();
        lanes.push(Lane { source: *source, next: 0, head: None, is_whole: false, deleted });
    }
    prepare(sources, &mut lanes, output).await?;
    let Some(first) = lanes.first() else { return Ok(()) };
    let tsm_key = sources[first.source].key.clone();
    let field_type = sources[first.source].field_type;
    if lanes.iter().all(|lane| sources[lane.source].field_type == field_type) {
        output.begin_key(&tsm_key, field_type, 0).await?;
        merge_lanes(sources, lanes, output, turn).await?;
        return Ok(output.end_key().await?);
    }
    for (round, (field_type, lanes)) in by_type(sources, lanes).await?.into_iter().enumerate() {
        output.begin_key(&tsm_key, field_type, round).await?;
        merge_lanes(sources, lanes, output, turn).await?;
        output.end_key().await?;
    }
    Ok(())
}

/// Counts work until it is time to breathe.
#[derive(Default)]
pub struct WorkTurn {
    work: u64,
}

impl WorkTurn {
    /// A key costs something even if it has one small block.
    pub async fn end_key(&mut self) {
        self.add(1).await;
    }

    async fn add(&mut self, work: u64) {
        self.work += work;
        if self.work >= BLOCKS_PER_TURN {
            self.work = 0;
            breathe().await;
        }
    }
}

async fn merge_lanes<D: Disk>(
    sources: &mut [CopySource<'_, D::File>],
    mut lanes: Vec<Lane>,
    output: &mut CopyOutput<'_, D>,
    turn: &mut WorkTurn,
) -> Result<(), MergeError> {
    let mut starts = Vec::with_capacity(lanes.len());
    while !lanes.is_empty() {
        starts.clear();
        starts.extend(lanes.iter().map(|lane| lane.start(sources)));
        let next = nearest(&starts);
        let lane = &mut lanes[next.lane];
        if lane.head.is_none() {
            let is_alone = next.limit.is_none_or(|limit| limit > sources[lane.source].entries[lane.next].max_time);
            if is_alone {
                lane.copy_block(sources, output).await?;
                turn.add(1).await;
            } else {
                lane.decode(sources, output).await?;
                turn.add(BLOCKS_PER_TURN / MERGES_PER_TURN).await;
            }
        } else if let Some(undecoded) = give_decoded(sources, &mut lanes, &mut starts, output)? {
            lanes[undecoded].decode(sources, output).await?;
            turn.add(BLOCKS_PER_TURN / MERGES_PER_TURN).await;
        } else {
            output.write_points().await?;
        }
        prepare(sources, &mut lanes, output).await?;
    }
    Ok(())
}

/// The lane whose turn it is: that of the earliest next point, of equals the highest rank.
struct Nearest {
    lane: usize,
    start: i64,
    /// The earliest next point of the others.
    limit: Option<i64>,
}

/// `starts` are the times of the lanes' next points, at least one.
fn nearest(starts: &[i64]) -> Nearest {
    let mut found = Nearest { lane: 0, start: starts[0], limit: None };
    for (lane, start) in starts.iter().enumerate().skip(1) {
        if *start <= found.start {
            found = Nearest { lane, start: *start, limit: Some(found.start) };
        } else if found.limit.is_none_or(|limit| *start < limit) {
            found.limit = Some(*start);
        }
    }
    found
}

/// Gives points of decoded blocks in their order until one of the blocks is used up or enough has gathered for a block.
/// Or until it is the turn of a point that may be in a block that is not decoded: its lane is returned. `starts` are kept
/// as they are.
fn give_decoded<D: Disk>(
    sources: &[CopySource<'_, D::File>],
    lanes: &mut [Lane],
    starts: &mut [i64],
    output: &mut CopyOutput<'_, D>,
) -> Result<Option<usize>, MergeError> {
    loop {
        let Nearest { lane: at, start, limit } = nearest(starts);
        let is_tied = limit == Some(start);
        if is_tied {
            let mut tied = lanes.iter().zip(&*starts).enumerate();
            if let Some((lane, _)) = tied.find(|(_, (lane, other))| lane.head.is_none() && **other == start) {
                return Ok(Some(lane));
            }
        }
        let source = lanes[at].source;
        let Some(head) = &mut lanes[at].head else { return Ok(None) };
        let end = match limit {
            Some(limit) if limit > start => head.start + before(&head.times[head.start..], limit),
            Some(_) => head.start + 1,
            None => head.times.len(),
        };
        match output.points(&head.times, &head.values, head.start..end) {
            Ok(()) => {}
            Err(CopyOutputError::File(error)) => return Err(error.into()),
            Err(CopyOutputError::Block(entry, what)) => return Err(sources[source].damaged(&entry, what).into()),
        }
        head.start = end;
        let mut is_used_up = false;
        for (lane, other) in lanes.iter_mut().zip(starts.iter_mut()).skip(if is_tied { 0 } else { at }) {
            let Some(head) = &mut lane.head else { continue };
            if is_tied && *other == start && head.times.get(head.start) == Some(&start) {
                head.start += 1;
            }
            match head.times.get(head.start) {
                Some(time) => *other = *time,
                None => is_used_up = true,
            }
            if !is_tied {
                break;
            }
        }
        if is_used_up || output.has_whole_blocks() {
            return Ok(None);
        }
    }
}

/// How many of ascending times are before another. Late points mostly lie apart, so the first are looked at one by one.
fn before(times: &[i64], limit: i64) -> usize {
    const NEAR: usize = 8;
    match times.iter().take(NEAR).position(|time| *time >= limit) {
        Some(count) => count,
        None => times.partition_point(|time| *time < limit),
    }
}

/// Takes what was deleted out of the lanes' next blocks, and lanes without points out of the list.
async fn prepare<D: Disk>(
    sources: &mut [CopySource<'_, D::File>],
    lanes: &mut Vec<Lane>,
    output: &mut CopyOutput<'_, D>,
) -> Result<(), MergeError> {
    for lane in lanes.iter_mut() {
        lane.prepare(sources, output).await?;
    }
    lanes.retain(|lane| lane.head.is_some() || lane.next < sources[lane.source].entries.len());
    Ok(())
}

impl Lane {
    /// Time of the next point.
    fn start<F: tidemill_disk::DiskFile>(&self, sources: &[CopySource<'_, F>]) -> i64 {
        match &self.head {
            Some(head) => head.times[head.start],
            None => sources[self.source].entries[self.next].min_time,
        }
    }

    async fn prepare<D: Disk>(
        &mut self,
        sources: &mut [CopySource<'_, D::File>],
        output: &mut CopyOutput<'_, D>,
    ) -> Result<(), MergeError> {
        if self.head.as_ref().is_some_and(|head| head.start == head.times.len()) {
            self.head = None;
        }
        let source = &mut sources[self.source];
        while self.head.is_none() && !self.is_whole {
            let Some(entry) = source.entries.get(self.next).copied() else { return Ok(()) };
            let at = self.deleted.partition_point(|(_, max)| *max < entry.min_time);
            let Some((min, max)) = self.deleted.get(at).filter(|(min, _)| *min <= entry.max_time) else {
                self.is_whole = true;
                return Ok(());
            };
            if *min <= entry.min_time && *max >= entry.max_time {
                output.work.blocks_vanished += 1;
                self.next += 1;
                continue;
            }
            let (times, values) = source.points(&entry).await?;
            let (times, values, removed) = without(times, values, &self.deleted[at..]);
            if removed == 0 {
                self.is_whole = true;
                return Ok(());
            }
            self.next += 1;
            if times.is_empty() {
                output.work.blocks_vanished += 1;
            } else {
                output.work.blocks_merged += 1;
                self.head = Some(Head { times, values, start: 0 });
            }
        }
        Ok(())
    }

    /// Passes the next block on as it is.
    async fn copy_block<D: Disk>(
        &mut self,
        sources: &mut [CopySource<'_, D::File>],
        output: &mut CopyOutput<'_, D>,
    ) -> Result<(), MergeError> {
        let source = &mut sources[self.source];
        let entry = source.entries[self.next];
        let statistics = source.statistics.get(self.next).copied().flatten();
        let stored = source.stored(&entry).await?;
        match output.block(&entry, statistics, stored).await {
            Ok(()) => {}
            Err(CopyOutputError::File(error)) => return Err(error.into()),
            Err(CopyOutputError::Block(entry, what)) => return Err(source.damaged(&entry, what).into()),
        }
        self.next += 1;
        self.is_whole = false;
        Ok(())
    }

    async fn decode<D: Disk>(
        &mut self,
        sources: &mut [CopySource<'_, D::File>],
        output: &mut CopyOutput<'_, D>,
    ) -> Result<(), MergeError> {
        let source = &mut sources[self.source];
        let entry = source.entries[self.next];
        let (times, values) = source.points(&entry).await?;
        output.work.blocks_merged += 1;
        self.next += 1;
        self.is_whole = false;
        self.head = Some(Head { times, values, start: 0 });
        Ok(())
    }
}

/// The points outside of the ranges, which are disjoint and ascend, and how many were inside.
fn without(times: Vec<i64>, values: Values, ranges: &[(i64, i64)]) -> (Vec<i64>, Values, usize) {
    let mut kept_times = Vec::new();
    let mut kept = Values::new(values.field_type());
    let mut start = 0;
    for (min, max) in ranges {
        let end = times.partition_point(|time| time < min).max(start);
        kept_times.extend_from_slice(&times[start..end]);
        kept.extend_from(&values, start..end);
        start = times.partition_point(|time| time <= max).max(end);
    }
    kept_times.extend_from_slice(&times[start..]);
    kept.extend_from(&values, start..times.len());
    let removed = times.len() - kept_times.len();
    (kept_times, kept, removed)
}

/// All points of a key whose type changed, by type. Such a key has few points of one of them: the others were deleted,
/// in another series or on a node that had not heard of it.
async fn by_type<F: tidemill_disk::DiskFile>(
    sources: &mut [CopySource<'_, F>],
    lanes: Vec<Lane>,
) -> Result<Vec<(FieldType, Vec<Lane>)>, MergeError> {
    let mut newer: Vec<(FieldType, BTreeSet<i64>)> = Vec::new();
    let mut typed: Vec<(FieldType, Vec<Lane>)> = Vec::new();
    for mut lane in lanes.into_iter().rev() {
        let source = &mut sources[lane.source];
        let field_type = source.field_type;
        let (mut times, mut values) = (Vec::new(), Values::new(field_type));
        if let Some(head) = lane.head.take() {
            times.extend_from_slice(&head.times[head.start..]);
            values.extend_from(&head.values, head.start..head.times.len());
        }
        for at in lane.next..source.entries.len() {
            let entry = source.entries[at];
            let (more_times, more) = source.points(&entry).await?;
            let (more_times, more, _) = without(more_times, more, &lane.deleted);
            times.extend_from_slice(&more_times);
            values.extend_from(&more, 0..more_times.len());
        }
        lane.next = source.entries.len();
        let is_over = |time: &i64| newer.iter().any(|(other, times)| *other != field_type && times.contains(time));
        let mut kept = Values::new(field_type);
        let mut kept_times = Vec::new();
        for (row, time) in times.iter().enumerate().filter(|(_, time)| !is_over(time)) {
            kept_times.push(*time);
            kept.push_from(&values, row);
        }
        match newer.iter_mut().find(|(other, _)| *other == field_type) {
            Some((_, known)) => known.extend(kept_times.iter().copied()),
            None => newer.push((field_type, kept_times.iter().copied().collect())),
        }
        if kept_times.is_empty() {
            continue;
        }
        lane.head = Some(Head { times: kept_times, values: kept, start: 0 });
        match typed.iter_mut().find(|(other, _)| *other == field_type) {
            Some((_, lanes)) => lanes.insert(0, lane),
            None => typed.push((field_type, vec![lane])),
        }
    }
    typed.sort_by_key(|(field_type, _)| field_type.code());
    Ok(typed)
}
