//! Statements whose calls are each computed on their own and joined by time: those with functions over the rows of a
//! series (see [`crate::stream`]).
//!
//! Each call is a *leg*: a plan of its own that gives the rows of its input, and the functions that these go through.
//! The join takes the pieces of the legs' answers and gives those of the statement's.
//!
//! Invariants: legs answer in the order of the statement's series, so a series is complete when each leg has come past
//! it; what is held is one piece a leg and the rows that wait for the slowest leg.

use crate::finish::LeafRows;
use crate::merge::{SeriesWriter, Target};
use crate::plan::{Plan, Shape};
use crate::result::{ResultColumn, ResultSeries};
use crate::stream::{Emitted, StreamSpec, StreamState};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use tidemill_column::{Column, FieldType, Value};
use tidemill_influxql::Fill;

/// One call.
#[derive(Debug)]
pub(crate) struct Leg {
    pub plan: Arc<Plan>,
    /// From the innermost outwards; none for a call that needs no more than its plan.
    pub streams: Vec<StreamSpec>,
    pub field_type: FieldType,
    /// As [`crate::plan::CallPlan::has_type`].
    pub has_type: bool,
    /// The call with the types of its names.
    pub text: String,
}

/// What the join needs next.
#[derive(Debug)]
pub enum JoinDemand {
    /// The next piece of the answer of this leg (index into [`Plan::legs`]), by [`Join::supply`].
    Leg(u32),
    /// A piece of the answer.
    Rows(ResultSeries),
    /// Nothing but to be asked again: a function has much to compute, and others should get a turn.
    Turn,
    /// Nothing: the answer is complete.
    Done,
}

/// The execution of a plan that has legs.
pub struct Join {
    plan: Arc<Plan>,
    /// The plan's, with its fill taken out: what a call lacks is made up before the arithmetic.
    shape: Arc<Shape>,
    chunk_rows: usize,
    legs: Vec<LegState>,
    series: Option<OpenSeries>,
    ready: VecDeque<ResultSeries>,
    /// The present measurement, and its series that had rows, for SLIMIT.
    name: Arc<str>,
    series_count: u64,
    lacking: Arc<[bool]>,
    is_done: bool,
}

#[derive(Default)]
struct LegState {
    /// The next piece, not looked into yet.
    head: Option<ResultSeries>,
    ended: bool,
    states: Vec<Box<dyn StreamState>>,
    /// While the functions come to their ends: which is at it, and what it gave so far.
    ending: Option<(usize, Emitted)>,
    /// Has no more rows of the open series.
    done: bool,
    /// The value that was joined last, which fill(previous) repeats.
    previous: Option<Value>,
    /// Rows that wait to be joined. A row may have no value: a window that fill(null) made.
    rows: VecDeque<(i64, Option<Value>)>,
}

struct OpenSeries {
    name: Arc<str>,
    tags: Arc<[(String, String)]>,
    writer: Option<SeriesWriter>,
    has_rows: bool,
    pending: LeafRows,
}

impl Join {
    /// # Panics
    /// If the plan has no legs.
    pub fn new(plan: Arc<Plan>, chunk_rows: usize) -> Join {
        assert!(!plan.legs.is_empty(), "a plan without legs is merged, not joined");
        Join {
            chunk_rows: chunk_rows.max(1),
            legs: plan.legs.iter().map(|_| LegState::default()).collect(),
            series: None,
            ready: VecDeque::new(),
            name: "".into(),
            series_count: 0,
            lacking: plan.shape.outputs.iter().map(|_| false).collect(),
            shape: Arc::new(Shape { fill: Fill::Null, ..Shape::clone(&plan.shape) }),
            is_done: false,
            plan,
        }
    }

    /// What the join needs next.
    pub fn poll(&mut self) -> JoinDemand {
        loop {
            if let Some(series) = self.ready.pop_front() {
                return JoinDemand::Rows(series);
            }
            if self.is_done {
                return JoinDemand::Done;
            }
            if self.series.is_none() {
                if let Some(leg) = self.legs.iter().position(|leg| leg.head.is_none() && !leg.ended) {
                    return JoinDemand::Leg(leg as u32);
                }
                self.open();
                continue;
            }
            self.take_heads();
            if self.legs.iter().any(|leg| leg.ending.is_some()) {
                return JoinDemand::Turn;
            }
            if let Some(leg) = self.legs.iter().position(|leg| !leg.done && leg.rows.is_empty()) {
                return JoinDemand::Leg(leg as u32);
            }
            self.join_rows();
            if self.legs.iter().all(|leg| leg.done && leg.rows.is_empty()) {
                self.close();
            }
        }
    }

    /// Gives the demanded piece; `None` when the leg's answer is complete.
    pub fn supply(&mut self, leg: u32, piece: Option<ResultSeries>) {
        let leg = &mut self.legs[leg as usize];
        match piece {
            Some(piece) => leg.head = Some(piece),
            None => leg.ended = true,
        }
    }

    /// Bytes held, for budgets.
    pub fn bytes_held(&self) -> usize {
        let of_leg = |leg: &LegState| {
            let head = leg.head.as_ref().map_or(0, |head| head.row_count() * 16);
            let states: usize = leg.states.iter().map(|state| state.byte_size()).sum();
            head + states + leg.rows.capacity() * size_of::<(i64, Option<Value>)>()
        };
        let open = self.series.as_ref().map_or(0, |series| series.pending.byte_size());
        self.legs.iter().map(of_leg).sum::<usize>() + open
    }

    /// The next series of the answer: the first among the legs' heads.
    fn open(&mut self) {
        let descending = self.shape.descending;
        let heads = self.legs.iter().filter_map(|leg| leg.head.as_ref());
        let Some(first) = heads.min_by(|a, b| compare(a, b, descending)) else {
            self.is_done = true;
            return;
        };
        let (name, tags) = (first.name.clone(), first.tags.clone());
        if name != self.name {
            (self.name, self.series_count) = (name.clone(), 0);
        }
        for (leg, plan) in self.legs.iter_mut().zip(&self.plan.legs) {
            leg.done = !leg.head.as_ref().is_some_and(|head| head.name == name && head.tags == tags);
            leg.previous = None;
            leg.states = plan.streams.iter().map(StreamSpec::state).collect();
        }
        let limit = self.plan.shape.series_limit;
        let group: Vec<String> = tags.iter().map(|(_, value)| value.clone()).collect();
        let target = Target {
            name: &name,
            lacking: &self.lacking,
            chunk_rows: self.chunk_rows,
            ready: &mut self.ready,
            series_count: &mut self.series_count,
        };
        let writer =
            limit.accepts(*target.series_count).then(|| SeriesWriter::new(self.shape.clone(), &target, &group));
        let pending = LeafRows::new(&self.leaf_types());
        self.series = Some(OpenSeries { name, tags, writer, has_rows: false, pending });
    }

    fn leaf_types(&self) -> Vec<FieldType> {
        self.plan.legs.iter().map(|leg| leg.field_type).collect()
    }

    /// Puts the pieces at hand of the open series through the functions.
    fn take_heads(&mut self) {
        let Some(series) = &self.series else { return };
        for leg in self.legs.iter_mut().filter(|leg| !leg.done) {
            let is_of_series = |head: &ResultSeries| head.name == series.name && head.tags == series.tags;
            let is_over = leg.head.as_ref().is_some_and(|head| !is_of_series(head)) || leg.head.is_none() && leg.ended;
            if is_over || leg.ending.is_some() {
                leg.finish();
                continue;
            }
            let Some(head) = leg.head.take() else { continue };
            let follows = head.partial;
            leg.feed(&head);
            if !follows {
                leg.finish();
            }
        }
    }

    /// Joins the rows that no leg can still come before.
    fn join_rows(&mut self) {
        let (descending, fill) = (self.shape.descending, self.plan.shape.fill);
        let Some(series) = &mut self.series else { return };
        loop {
            if self.legs.iter().any(|leg| !leg.done && leg.rows.is_empty()) {
                break;
            }
            let times = self.legs.iter().filter_map(|leg| leg.rows.front().map(|(time, _)| *time));
            let Some(time) = (if descending { times.max() } else { times.min() }) else { break };
            series.pending.times.push(time);
            for ((leg, plan), column) in self.legs.iter_mut().zip(&self.plan.legs).zip(&mut series.pending.columns) {
                let is_next = leg.rows.front().is_some_and(|(front, _)| *front == time);
                let value = if is_next { leg.rows.pop_front().and_then(|(_, value)| value) } else { None };
                let value = value.or_else(|| match fill {
                    Fill::Previous => leg.previous.clone(),
                    Fill::Null | Fill::None | Fill::Linear => None,
                    _ if !plan.has_type => None,
                    Fill::Integer(number) => crate::fill::constant(plan.field_type, number as f64, number),
                    Fill::Number(number) => crate::fill::constant(plan.field_type, number, number as i64),
                });
                match &value {
                    Some(value) => column.push(value),
                    None => column.push_null(),
                }
                if fill == Fill::Previous {
                    leg.previous = value;
                }
            }
            if series.pending.len() >= self.chunk_rows {
                break;
            }
        }
        if series.pending.len() >= self.chunk_rows {
            self.write();
        }
    }

    fn write(&mut self) {
        let types = self.leaf_types();
        let Some(series) = &mut self.series else { return };
        let rows = std::mem::replace(&mut series.pending, LeafRows::new(&types));
        if rows.len() == 0 {
            return;
        }
        series.has_rows = true;
        if let Some(writer) = &mut series.writer {
            self.ready.extend(writer.push(&rows));
        }
    }

    fn close(&mut self) {
        self.write();
        let Some(series) = self.series.take() else { return };
        self.series_count += u64::from(series.has_rows);
        self.ready.extend(series.writer.and_then(SeriesWriter::end));
    }
}

/// Orders series as the answer does.
fn compare(a: &ResultSeries, b: &ResultSeries, descending: bool) -> Ordering {
    let order = a.name.cmp(&b.name).then_with(|| tag_values(a).cmp(tag_values(b)));
    if descending { order.reverse() } else { order }
}

fn tag_values(series: &ResultSeries) -> impl Iterator<Item = &str> {
    series.tags.iter().map(|(_, value)| value.as_str())
}

impl LegState {
    fn feed(&mut self, piece: &ResultSeries) {
        let [ResultColumn::Time(times), ResultColumn::Values(column)] = piece.values.as_slice() else { return };
        if self.states.is_empty() {
            self.rows.extend(times.iter().enumerate().map(|(row, time)| (*time, column.value(row))));
            return;
        }
        let mut emitted: Emitted = present(times, column);
        for state in &mut self.states {
            let mut out = Emitted::new();
            for (time, value) in emitted {
                state.push(time, value, &mut out);
            }
            emitted = out;
        }
        self.rows.extend(emitted.into_iter().map(|(time, value)| (time, Some(value))));
    }

    /// The series is over: what the functions still hold comes out, the innermost first. Goes on with that; until it is
    /// over, `ending` says so.
    fn finish(&mut self) {
        let (mut at, mut out) = self.ending.take().unwrap_or_default();
        while let Some(state) = self.states.get_mut(at) {
            if !state.prepare_end() {
                self.ending = Some((at, out));
                return;
            }
            state.end(&mut out);
            at += 1;
            if let Some(next) = self.states.get_mut(at) {
                for (time, value) in std::mem::take(&mut out) {
                    next.push(time, value, &mut out);
                }
            }
        }
        self.done = true;
        self.rows.extend(out.into_iter().map(|(time, value)| (time, Some(value))));
    }
}

/// The rows that have a value.
fn present(times: &[i64], column: &Column) -> Emitted {
    let value = |(row, time): (usize, &i64)| column.value(row).map(|value| (*time, value));
    times.iter().enumerate().filter_map(value).collect()
}
