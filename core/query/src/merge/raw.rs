//! Rows of a raw select, merged by time, rows of equal time by series key; both reversed for ORDER BY time DESC.

use super::writer::SeriesWriter;
use super::{Stream, Target, compare_groups};
use crate::finish::LeafRows;
use crate::part::output::{PartBody, RowPiece};
use crate::plan::{LeafRef, Shape, Work};
use crate::rows::{self, Run};
use std::cmp::Reverse;
use std::sync::Arc;
use tidemill_column::{Column, FieldType, Values};

pub(super) struct RawMerge {
    shape: Arc<Shape>,
    chunk_rows: usize,
    leaf_types: Vec<FieldType>,
    group: Option<(Arc<[String]>, Option<SeriesWriter>)>,
    pending: LeafRows,
    runs: Vec<Run>,
    run_rows: usize,
}

fn piece(stream: &Stream) -> &RowPiece {
    match stream.head.as_ref().map(|head| &head.body) {
        Some(PartBody::Rows(piece)) => piece,
        _ => panic!("a part of a raw select gives rows"),
    }
}

/// A series key in the order of the answer.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum KeyRank<'a> {
    Ascending(&'a [u8]),
    Descending(Reverse<&'a [u8]>),
}

/// What orders the next row of a stream: its time, and the series key if that does not decide.
fn rank(stream: &Stream, row: usize, descending: bool) -> (i64, KeyRank<'_>) {
    let piece = piece(stream);
    let time = piece.times[row];
    let key: &[u8] = &piece.table.keys[piece.series[row] as usize];
    if descending { (!time, KeyRank::Descending(Reverse(key))) } else { (time, KeyRank::Ascending(key)) }
}

impl RawMerge {
    pub(super) fn new(shape: Arc<Shape>, chunk_rows: usize) -> RawMerge {
        let Work::Raw { leaves } = &shape.work else { panic!("an aggregation has no raw merge") };
        let leaf_types: Vec<FieldType> = leaves.iter().map(|leaf| leaf.field_type(&shape.columns)).collect();
        let pending = LeafRows::new(&leaf_types);
        RawMerge { shape, chunk_rows, leaf_types, group: None, pending, runs: Vec::new(), run_rows: 0 }
    }

    pub(super) fn chunk_rows(&self) -> usize {
        self.chunk_rows
    }

    pub(super) fn byte_size(&self) -> usize {
        let held = self.group.as_ref().and_then(|(_, writer)| writer.as_ref()).map_or(0, SeriesWriter::byte_size);
        self.pending.byte_size() + held
    }

    /// Goes on by a run of rows of one stream. All streams that have not ended have a head.
    pub(super) fn step(&mut self, streams: &mut [Stream], target: &mut Target<'_>) {
        let descending = self.shape.descending;
        let mut groups = streams.iter().filter_map(|stream| stream.head.as_ref()).map(|head| &head.group);
        let Some(mut first) = groups.next() else { return };
        for group in groups {
            if compare_groups(group, first, descending).is_lt() {
                first = group;
            }
        }
        let first = first.clone();
        if self.group.as_ref().is_none_or(|(group, _)| group[..] != first[..]) {
            self.close(target);
            if self.shape.series_limit.is_reached(*target.series_count) {
                return;
            }
            let accepted = self.shape.series_limit.accepts(*target.series_count);
            let writer = accepted.then(|| SeriesWriter::new(self.shape.clone(), target, &first));
            self.group = Some((first.clone(), writer));
        }
        let members: Vec<usize> = (0..streams.len())
            .filter(|index| streams[*index].head.as_ref().is_some_and(|head| head.group[..] == first[..]))
            .collect();
        self.merge_members(streams, &members, target);
    }

    fn merge_members(&mut self, streams: &mut [Stream], members: &[usize], target: &mut Target<'_>) {
        let descending = self.shape.descending;
        loop {
            // The least and the second least next row; there are few parts, so a scan beats a heap.
            let mut best: Option<usize> = None;
            let mut second: Option<usize> = None;
            for member in members {
                let next = rank(&streams[*member], streams[*member].position, descending);
                let beats = |other: Option<usize>| {
                    other.is_none_or(|other| next < rank(&streams[other], streams[other].position, descending))
                };
                if beats(best) {
                    second = best;
                    best = Some(*member);
                } else if beats(second) {
                    second = Some(*member);
                }
            }
            let Some(best) = best else { return };
            let start = streams[best].position;
            let rows = piece(&streams[best]).times.len();
            let end =
                rows.min(start + (self.chunk_rows - (self.pending.len() + self.run_rows).min(self.chunk_rows - 1)));
            let mut next = start + 1;
            match second {
                None => next = end,
                Some(second) => {
                    let bound = rank(&streams[second], streams[second].position, descending);
                    while next < end && rank(&streams[best], next, descending) < bound {
                        next += 1;
                    }
                }
            }
            self.runs.push(Run { source: best as u32, start: start as u32, count: (next - start) as u32 });
            self.run_rows += next - start;
            streams[best].position = next;
            let starved = next == rows;
            if starved || self.pending.len() + self.run_rows >= self.chunk_rows {
                self.gather(streams);
                if self.pending.len() >= self.chunk_rows {
                    self.write(target);
                }
                if starved {
                    streams[best].head = None;
                    return;
                }
                if !target.ready.is_empty() {
                    // Hands the piece out before more are made.
                    return;
                }
            }
        }
    }

    /// Copies the ordered rows out of the heads.
    fn gather(&mut self, streams: &[Stream]) {
        let Work::Raw { leaves } = &self.shape.work else { return };
        for run in &self.runs {
            let rows = run.start as usize..(run.start + run.count) as usize;
            self.pending.times.extend_from_slice(&piece(&streams[run.source as usize]).times[rows]);
        }
        let (mut fields, mut tags) = (0, 0);
        for (leaf, column) in leaves.iter().zip(&mut self.pending.columns) {
            match leaf {
                LeafRef::Field(_) => {
                    rows::gather(column, &self.runs, |source| Some(&piece(&streams[source as usize]).columns[fields]));
                    fields += 1;
                }
                LeafRef::Tag(_) => {
                    for run in &self.runs {
                        let piece = piece(&streams[run.source as usize]);
                        for row in run.start..run.start + run.count {
                            let tag = &piece.table.tags[piece.series[row as usize] as usize][tags];
                            match (tag, &mut *column) {
                                (Some(tag), Column { values: Values::String(values), valid }) => {
                                    values.push(tag.as_bytes());
                                    if let Some(valid) = valid {
                                        valid.push(true);
                                    }
                                }
                                _ => column.push_null(),
                            }
                        }
                    }
                    tags += 1;
                }
            }
        }
        self.runs.clear();
        self.run_rows = 0;
    }

    fn write(&mut self, target: &mut Target<'_>) {
        let pending = std::mem::replace(&mut self.pending, LeafRows::new(&self.leaf_types));
        if let Some((_, Some(writer))) = &mut self.group {
            target.ready.extend(writer.push(&pending));
        }
    }

    /// Writes what is left of the present series.
    pub(super) fn close(&mut self, target: &mut Target<'_>) -> bool {
        if self.pending.len() > 0 {
            self.write(target);
        }
        if let Some((_, writer)) = self.group.take() {
            *target.series_count += 1;
            target.ready.extend(writer.and_then(SeriesWriter::end));
        }
        true
    }
}
