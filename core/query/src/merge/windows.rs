//! Partial aggregates of all parts, joined window by window, then finished, filled and written.

use super::writer::SeriesWriter;
use super::{Stream, Target, compare_groups};
use crate::accumulator::Accumulator;
use crate::fill::Filler;
use crate::finish::finish;
use crate::part::output::{PartBody, WindowPiece};
use crate::part::window_table::new_accumulators;
use crate::plan::{Aggregate, Shape, Work};
use std::sync::Arc;

pub(super) struct WindowMerge {
    shape: Arc<Shape>,
    chunk_rows: usize,
    group: Option<OpenGroup>,
    /// Windows that are joined, the last one perhaps not completely.
    starts: Vec<i64>,
    slots: Vec<Accumulator>,
}

struct OpenGroup {
    values: Arc<[String]>,
    filler: Filler,
    /// `None` where SOFFSET skips the series.
    writer: Option<SeriesWriter>,
    /// All rows are in the filler.
    ended: bool,
}

fn piece(stream: &Stream) -> &WindowPiece {
    match stream.head.as_ref().map(|head| &head.body) {
        Some(PartBody::Windows(piece)) => piece,
        _ => panic!("a part of an aggregation gives windows"),
    }
}

fn aggregate(shape: &Shape) -> &Aggregate {
    match &shape.work {
        Work::Aggregate(aggregate) => aggregate,
        Work::Raw { .. } => panic!("a raw select has no windows"),
    }
}

impl WindowMerge {
    pub(super) fn new(shape: Arc<Shape>, chunk_rows: usize) -> WindowMerge {
        let slots = new_accumulators(&shape);
        WindowMerge { shape, chunk_rows, group: None, starts: Vec::new(), slots }
    }

    pub(super) fn chunk_rows(&self) -> usize {
        self.chunk_rows
    }

    pub(super) fn byte_size(&self) -> usize {
        let group = self
            .group
            .as_ref()
            .map_or(0, |group| group.filler.byte_size() + group.writer.as_ref().map_or(0, SeriesWriter::byte_size));
        group + self.starts.len() * 8 + self.slots.iter().map(Accumulator::byte_size).sum::<usize>()
    }

    /// Writes a piece of rows that are finished, empty windows between them included. False when there is none.
    pub(super) fn drain(&mut self, target: &mut Target<'_>) -> bool {
        let Some(group) = &mut self.group else { return false };
        if group.writer.as_ref().is_none_or(SeriesWriter::is_full) {
            // No one will see the rows, and of empty windows there may be too many to go through.
            group.filler.discard();
        }
        if let Some(rows) = group.filler.take(target.chunk_rows) {
            if let Some(writer) = &mut group.writer {
                target.ready.extend(writer.push(&rows));
            }
            return true;
        }
        if !group.ended {
            return false;
        }
        match self.group.take().and_then(|group| group.writer) {
            Some(writer) => {
                *target.series_count += u64::from(writer.rows_seen() > 0);
                target.ready.extend(writer.end());
            }
            None => *target.series_count += 1,
        }
        true
    }

    /// Goes on until a head is used up or enough windows are joined. All streams that have not ended have a head.
    pub(super) fn step(&mut self, streams: &mut [Stream], target: &mut Target<'_>) {
        let descending = self.shape.descending;
        let mut groups = streams.iter().filter_map(|stream| stream.head.as_ref()).map(|head| &head.group);
        let Some(mut group) = groups.next() else { return };
        for other in groups {
            if compare_groups(other, group, descending).is_lt() {
                group = other;
            }
        }
        let group = group.clone();
        if self.group.as_ref().is_none_or(|open| open.values[..] != group[..]) {
            if self.group.is_some() {
                self.close(target);
                return;
            }
            self.open(streams, group.clone(), target);
        }
        let members: Vec<usize> = (0..streams.len())
            .filter(|index| streams[*index].head.as_ref().is_some_and(|head| head.group[..] == group[..]))
            .collect();
        self.join_members(streams, &members);
    }

    fn join_members(&mut self, streams: &mut [Stream], members: &[usize]) {
        let descending = self.shape.descending;
        loop {
            let starts = members.iter().map(|member| piece(&streams[*member]).starts[streams[*member].position]);
            let least = if descending { starts.max() } else { starts.min() };
            let Some(start) = least else { return };
            if self.starts.last() != Some(&start) {
                if self.starts.len() >= self.chunk_rows {
                    self.finish_windows();
                    return;
                }
                self.starts.push(start);
                self.slots.iter_mut().for_each(Accumulator::add_slot);
            }
            let slot = self.starts.len() - 1;
            let mut starved = false;
            for member in members {
                let stream = &mut streams[*member];
                let position = stream.position;
                let Some(PartBody::Windows(piece)) = stream.head.as_mut().map(|head| &mut head.body) else { continue };
                if piece.starts[position] != start {
                    continue;
                }
                for (to, from) in self.slots.iter_mut().zip(&mut piece.accumulators) {
                    to.join(slot, from, position);
                }
                stream.position += 1;
                if stream.position == piece.starts.len() {
                    stream.head = None;
                    starved = true;
                }
            }
            if starved {
                return;
            }
        }
    }

    fn open(&mut self, streams: &[Stream], values: Arc<[String]>, target: &Target<'_>) {
        // Every part that has the group has it at its head now.
        let mut present = vec![false; self.slots.len()];
        for stream in streams {
            if stream.head.as_ref().is_some_and(|head| head.group[..] == values[..]) {
                present.iter_mut().zip(&piece(stream).present).for_each(|(all, one)| *all |= one);
            }
        }
        let present: Vec<bool> = aggregate(&self.shape)
            .calls
            .iter()
            .map(|call| call.finish.as_ref().is_some_and(|finish| present[finish.accumulator()]))
            .collect();
        let accepted = self.shape.series_limit.accepts(*target.series_count);
        let writer = accepted.then(|| SeriesWriter::new(self.shape.clone(), target, &values));
        let filler = Filler::new(&self.shape, &present);
        self.group = Some(OpenGroup { values, filler, writer, ended: false });
    }

    /// Turns the joined windows, which are complete, into rows.
    fn finish_windows(&mut self) {
        let starts = std::mem::take(&mut self.starts);
        let mut slots = std::mem::replace(&mut self.slots, new_accumulators(&self.shape));
        if let Some(group) = &mut self.group {
            group.filler.push(finish(&self.shape, aggregate(&self.shape), &starts, &mut slots));
        }
    }

    /// No more windows of the present series come. False while rows are left to be drained.
    pub(super) fn close(&mut self, _: &mut Target<'_>) -> bool {
        if self.group.as_ref().is_none_or(|group| group.ended) {
            return self.group.is_none();
        }
        self.finish_windows();
        if let Some(group) = &mut self.group {
            group.filler.end();
            group.ended = true;
        }
        false
    }
}
