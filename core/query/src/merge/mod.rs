//! The merge: the outputs of all parts become the rows of the answer, in its order, a piece at a time.
//!
//! Measurements come one after the other (by name, reversed for ORDER BY time DESC); the scans of one measurement, from
//! several databases or retention policies, are merged like parts of one scan. The merge demands the next output of a
//! part only when it cannot go on without it.
//!
//! Invariants: it holds one output per part of the present measurement, the windows or rows of about one piece, and
//! what fill(linear) must wait for. Joining follows the order of scans and parts, so the answer does not depend on
//! which part was supplied first.

mod raw;
mod windows;
mod writer;

use crate::QueryError;
use crate::evaluate::EvalExpr;
use crate::part::PartOutput;
use crate::plan::{LeafRef, Output, Plan, ScanPlan, Work};
use crate::result::ResultSeries;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use raw::RawMerge;
use windows::WindowMerge;
pub(crate) use writer::SeriesWriter;

/// What the merge needs next.
#[derive(Debug)]
pub enum MergeDemand {
    /// The next output of this part of this scan (index into [`Plan::scans`]), by [`Merge::supply`].
    Part { scan: u32, part: u32 },
    /// A piece of the answer.
    Rows(ResultSeries),
    /// Nothing: the answer is complete. Outputs that parts still have are not wanted.
    Done,
}

/// The end of a plan's execution.
pub struct Merge {
    plan: Arc<Plan>,
    parts: u32,
    /// Scans of one measurement each, in the order of the answer, those in front done with.
    turns: VecDeque<Vec<u32>>,
    streams: Vec<Stream>,
    work: MergeWork,
    ready: VecDeque<ResultSeries>,
    /// Series of the present measurement that had rows, for SLIMIT.
    series_count: u64,
    /// The present measurement, and which outputs are a field that it lacks.
    name: Arc<str>,
    lacking: Arc<[bool]>,
}

enum MergeWork {
    Raw(RawMerge),
    Windows(WindowMerge),
}

/// The outputs of one part.
pub(crate) struct Stream {
    scan: u32,
    part: u32,
    pub head: Option<PartOutput>,
    /// Next row or window of the head.
    pub position: usize,
    ended: bool,
}

/// Where finished pieces go, and what all of the work needs to know.
pub(crate) struct Target<'a> {
    pub name: &'a Arc<str>,
    pub lacking: &'a Arc<[bool]>,
    pub chunk_rows: usize,
    pub ready: &'a mut VecDeque<ResultSeries>,
    pub series_count: &'a mut u64,
}

/// Orders groups as the answer does.
pub(crate) fn compare_groups(a: &Arc<[String]>, b: &Arc<[String]>, descending: bool) -> Ordering {
    if Arc::ptr_eq(a, b) {
        return Ordering::Equal;
    }
    if descending { b.cmp(a) } else { a.cmp(b) }
}

impl Merge {
    /// The merge of `parts` parts per scan. Pieces of the answer have about `chunk_rows` rows.
    pub fn new(plan: Arc<Plan>, parts: u32, chunk_rows: usize) -> Merge {
        let mut scans: Vec<u32> = (0..plan.scans.len() as u32).collect();
        let name = |scan: &u32| plan.scans[*scan as usize].measurement.as_str();
        scans.sort_by_key(name);
        let mut turns: VecDeque<Vec<u32>> = scans.chunk_by(|a, b| name(a) == name(b)).map(<[u32]>::to_vec).collect();
        if plan.shape.descending {
            turns = turns.into_iter().rev().collect();
        }
        let chunk_rows = chunk_rows.max(1);
        let work = match plan.shape.work {
            Work::Raw { .. } => MergeWork::Raw(RawMerge::new(plan.shape.clone(), chunk_rows)),
            Work::Aggregate(_) => MergeWork::Windows(WindowMerge::new(plan.shape.clone(), chunk_rows)),
        };
        let mut merge = Merge {
            plan,
            parts,
            turns,
            streams: Vec::new(),
            work,
            ready: VecDeque::new(),
            series_count: 0,
            name: "".into(),
            lacking: [].into(),
        };
        merge.open_turn();
        merge
    }

    fn open_turn(&mut self) {
        self.series_count = 0;
        let scans = self.turns.front().map_or(&[][..], Vec::as_slice);
        let plans: Vec<&ScanPlan> = scans.iter().map(|scan| &*self.plan.scans[*scan as usize]).collect();
        self.name = plans.first().map_or("", |plan| plan.measurement()).into();
        let lacks = |output: &Output| match (&output.expr, &self.plan.shape.work) {
            (EvalExpr::Nil, _) => true,
            (EvalExpr::Leaf(leaf), Work::Raw { leaves }) => match leaves[*leaf] {
                LeafRef::Field(column) => plans.iter().all(|plan| plan.column_fields[column].is_none()),
                LeafRef::Tag(_) => false,
            },
            _ => false,
        };
        self.lacking = self.plan.shape.outputs.iter().map(lacks).collect();
        let parts = self.parts;
        let stream = |scan, part| Stream { scan, part, head: None, position: 0, ended: false };
        self.streams = scans.iter().flat_map(|scan| (0..parts).map(move |part| stream(*scan, part))).collect();
    }

    /// What the merge needs next.
    ///
    /// # Errors
    /// The answer cannot be completed.
    pub fn poll(&mut self) -> Result<MergeDemand, QueryError> {
        loop {
            if let Some(series) = self.ready.pop_front() {
                return Ok(MergeDemand::Rows(series));
            }
            if self.turns.is_empty() {
                return Ok(MergeDemand::Done);
            }
            let series_limit = self.plan.shape.series_limit;
            let mut target = Target {
                name: &self.name,
                lacking: &self.lacking,
                chunk_rows: match &self.work {
                    MergeWork::Raw(work) => work.chunk_rows(),
                    MergeWork::Windows(work) => work.chunk_rows(),
                },
                ready: &mut self.ready,
                series_count: &mut self.series_count,
            };
            // Rows that are finished but not yet written come before new ones.
            let busy = match &mut self.work {
                MergeWork::Raw(_) => false,
                MergeWork::Windows(work) => work.drain(&mut target),
            };
            if busy {
                continue;
            }
            let enough = series_limit.is_reached(*target.series_count);
            let starved = self.streams.iter().find(|stream| stream.head.is_none() && !stream.ended);
            if let (Some(stream), false) = (starved, enough) {
                return Ok(MergeDemand::Part { scan: stream.scan, part: stream.part });
            }
            if enough || self.streams.iter().all(|stream| stream.ended) {
                let closed = match &mut self.work {
                    MergeWork::Raw(work) => work.close(&mut target),
                    MergeWork::Windows(work) => work.close(&mut target),
                };
                if closed {
                    self.turns.pop_front();
                    self.open_turn();
                }
                continue;
            }
            match &mut self.work {
                MergeWork::Raw(work) => work.step(&mut self.streams, &mut target),
                MergeWork::Windows(work) => work.step(&mut self.streams, &mut target),
            }
        }
    }

    /// Gives the demanded output; `None` when the part is done. Outputs that are no longer wanted are dropped.
    pub fn supply(&mut self, scan: u32, part: u32, output: Option<PartOutput>) {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.scan == scan && stream.part == part) else {
            return;
        };
        match output {
            Some(output) if output.row_count() > 0 => {
                assert!(stream.head.is_none(), "part {part} of scan {scan} was not asked for output");
                stream.head = Some(output);
                stream.position = 0;
            }
            Some(_) => {}
            None => stream.ended = true,
        }
    }

    /// Bytes held, for budgets.
    pub fn bytes_held(&self) -> usize {
        let heads: usize =
            self.streams.iter().filter_map(|stream| stream.head.as_ref()).map(PartOutput::byte_size).sum();
        let work = match &self.work {
            MergeWork::Raw(work) => work.byte_size(),
            MergeWork::Windows(work) => work.byte_size(),
        };
        heads + work
    }
}
