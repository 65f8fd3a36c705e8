//! fill(): what the windows without a value get, generated while rows are taken and never held.
//!
//! Rows go in as windows are finished and come out with the empty windows between them, from the first to the last
//! window of the time range. Linear fill needs the next value of each column and so waits for all rows of the series;
//! the empty windows are not held even then.

use crate::finish::LeafRows;
use crate::plan::{Finish, Shape, Work};
use std::collections::VecDeque;
use tidemill_column::{Column, FieldType, TIME_MIN, Value};
use tidemill_influxql::Fill;

/// How a column is filled.
#[derive(Clone, Debug, PartialEq)]
struct FillColumn {
    field_type: FieldType,
    /// Without a type nothing is made up.
    has_type: bool,
    /// Zero where empty, under null fill.
    counts: bool,
    /// Comes along with a selector: a row that is made up repeats it at best.
    carried: bool,
    /// The series has a value of this column somewhere.
    present: bool,
    /// A value has come out.
    started: bool,
    /// The value that came out last, with its time.
    previous: Option<(i64, Value)>,
}

/// The fill of one output series.
pub(crate) struct Filler {
    fill: Fill,
    windows: crate::window::Windows,
    descending: bool,
    lower_bounded: bool,
    /// Empty windows are made.
    makes_windows: bool,
    columns: Vec<FillColumn>,
    queue: VecDeque<LeafRows>,
    /// Next row of the first entry of the queue.
    position: usize,
    /// Start of the next window to come out; `None` before the first or behind the last one.
    next: Option<i64>,
    started: bool,
    /// Start of the last window of the time range.
    last: i64,
    ended: bool,
}

/// One row to come out.
#[derive(Clone, Copy)]
enum Step {
    Row(u32),
    Empty,
}

impl Filler {
    /// `present` says for each call whether the series has any value of it.
    pub(crate) fn new(shape: &Shape, present: &[bool]) -> Filler {
        let Work::Aggregate(aggregate) = &shape.work else { panic!("rows of a raw select have no windows") };
        let types = crate::finish::leaf_types(aggregate, shape);
        let gives_rows = aggregate.calls.iter().any(|call| call.finish.as_ref().is_some_and(Finish::gives_rows));
        let columns = types
            .into_iter()
            .enumerate()
            .map(|(leaf, field_type)| FillColumn {
                field_type,
                has_type: aggregate.calls.get(leaf).is_none_or(|call| call.has_type),
                counts: aggregate.calls.get(leaf).and_then(|call| call.finish.as_ref()).is_some_and(Finish::counts),
                carried: leaf >= aggregate.calls.len(),
                present: present.get(leaf).copied().unwrap_or(false),
                started: false,
                previous: None,
            })
            .collect();
        let (min, max) = shape.time_range;
        let lower_bounded = min > TIME_MIN;
        let (first, last) = if shape.descending { (max, min) } else { (min, max) };
        let first_is_open = !shape.descending && !lower_bounded;
        Filler {
            // Functions that give any number of rows are not filled, but for what their rows lack beside them.
            fill: if gives_rows && shape.fill != Fill::Previous { Fill::None } else { shape.fill },
            windows: shape.windows.clone(),
            descending: shape.descending,
            lower_bounded,
            makes_windows: shape.windows.is_cut() && !gives_rows && shape.fill != Fill::None,
            columns,
            queue: VecDeque::new(),
            position: 0,
            next: (!first_is_open).then(|| shape.windows.start(first)),
            started: false,
            last: shape.windows.start(last),
            ended: false,
        }
    }

    pub(crate) fn push(&mut self, rows: LeafRows) {
        if rows.len() > 0 {
            self.queue.push_back(rows);
        }
    }

    /// No rows follow.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        if self.fill == Fill::Linear && self.queue.len() > 1 {
            let mut all = LeafRows::default();
            for rows in self.queue.drain(..) {
                if all.columns.is_empty() {
                    all = rows;
                    continue;
                }
                all.times.extend_from_slice(&rows.times);
                for (to, from) in all.columns.iter_mut().zip(&rows.columns) {
                    to.extend_from(from, 0..from.len());
                }
            }
            self.queue.push_back(all);
        }
    }

    /// Forgets the rows at hand and makes no more empty windows.
    pub(crate) fn discard(&mut self) {
        self.queue.clear();
        self.position = 0;
        self.makes_windows = false;
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.queue.iter().map(LeafRows::byte_size).sum()
    }

    fn is_before(&self, a: i64, b: i64) -> bool {
        if self.descending { a > b } else { a < b }
    }

    fn step_window(&self, start: i64) -> Option<i64> {
        if self.descending { self.windows.preceding(start) } else { self.windows.following(start) }
    }

    /// Up to `rows_max` rows, or none until more rows or the end were pushed.
    pub(crate) fn take(&mut self, rows_max: usize) -> Option<LeafRows> {
        if self.fill == Fill::Linear && !self.ended {
            return None;
        }
        if let Some(rows) = self.queue.pop_front() {
            let taken = self.take_from(&rows, rows_max);
            if self.position < rows.len() {
                self.queue.push_front(rows);
            } else {
                self.position = 0;
            }
            return Some(taken);
        }
        if !self.ended || !self.makes_windows || !self.started {
            return None;
        }
        // Behind the last row. Descending without a lower bound ends with it.
        if self.descending && !self.lower_bounded {
            return None;
        }
        let mut times = Vec::new();
        while let Some(next) = self.next {
            if times.len() == rows_max || self.is_before(self.last, next) {
                break;
            }
            times.push(next);
            self.next = self.step_window(next);
        }
        if times.is_empty() {
            return None;
        }
        let steps = vec![Step::Empty; times.len()];
        Some(self.fill_rows(times, &steps, &LeafRows::default()))
    }

    fn take_from(&mut self, rows: &LeafRows, rows_max: usize) -> LeafRows {
        let mut times = Vec::new();
        let mut steps = Vec::new();
        if self.makes_windows && !self.started {
            self.started = true;
            self.next = self.next.or_else(|| rows.times.first().copied());
        }
        while self.position < rows.len() && times.len() < rows_max {
            let time = rows.times[self.position];
            if self.makes_windows {
                if let Some(next) = self.next.filter(|next| self.is_before(*next, time)) {
                    times.push(next);
                    steps.push(Step::Empty);
                    self.next = self.step_window(next);
                    continue;
                }
                self.next = self.step_window(time);
            }
            times.push(time);
            steps.push(Step::Row(self.position as u32));
            self.position += 1;
        }
        self.fill_rows(times, &steps, rows)
    }

    fn fill_rows(&mut self, times: Vec<i64>, steps: &[Step], rows: &LeafRows) -> LeafRows {
        let mut filled = LeafRows { times, columns: Vec::with_capacity(self.columns.len()) };
        let context = Context { fill: self.fill, lower_bounded: self.lower_bounded, ascending: !self.descending };
        for (index, state) in self.columns.iter_mut().enumerate() {
            filled.columns.push(fill_column(
                context,
                state,
                &filled.times,
                steps,
                rows.columns.get(index),
                &rows.times,
            ));
        }
        filled
    }
}

#[derive(Clone, Copy)]
struct Context {
    fill: Fill,
    lower_bounded: bool,
    ascending: bool,
}

fn fill_column(
    context: Context,
    state: &mut FillColumn,
    times: &[i64],
    steps: &[Step],
    from: Option<&Column>,
    from_times: &[i64],
) -> Column {
    let mut to = Column::new(state.field_type);
    if let (Some(column), [Step::Row(first), ..]) = (from, steps) {
        // Rows one behind the other, none of them empty: the common case is a copy.
        let last = *first as usize + steps.len() - 1;
        let contiguous = matches!(steps.last(), Some(Step::Row(row)) if *row as usize == last);
        if contiguous && column.valid.is_none() {
            to.extend_from(column, *first as usize..last + 1);
            state.started = true;
            state.previous = column.value(last).map(|value| (from_times[last], value));
            return to;
        }
    }
    // Next row of the column that has a value, for linear fill.
    let mut ahead = 0;
    for (step, time) in steps.iter().zip(times) {
        if let (Step::Row(row), Some(column)) = (step, from)
            && column.is_valid(*row as usize)
        {
            to.push_from(column, *row as usize);
            state.started = true;
            if matches!(context.fill, Fill::Previous | Fill::Linear) {
                state.previous = column.value(*row as usize).map(|value| (*time, value));
            }
            continue;
        }
        let value = match context.fill {
            Fill::Null if state.counts && state.present => {
                let before_first = context.ascending && !context.lower_bounded && !state.started;
                (!before_first).then_some(Value::Integer(0))
            }
            Fill::Null | Fill::None => None,
            _ if !state.has_type => None,
            _ if state.carried && context.fill != Fill::Previous => None,
            Fill::Previous => state.previous.as_ref().map(|(_, value)| value.clone()),
            Fill::Integer(number) => constant(state.field_type, number as f64, number),
            Fill::Number(number) => constant(state.field_type, number, number as i64),
            Fill::Linear => from.and_then(|column| {
                let is_behind =
                    |row: usize| if context.ascending { from_times[row] > *time } else { from_times[row] < *time };
                while ahead < from_times.len() && !(is_behind(ahead) && column.is_valid(ahead)) {
                    ahead += 1;
                }
                let (next_time, previous) = (*from_times.get(ahead)?, state.previous.as_ref()?);
                between(*time, previous, (next_time, &column.value(ahead)?))
            }),
        };
        match value {
            Some(value) => to.push(&value),
            None => to.push_null(),
        }
    }
    to
}

/// The number of fill(number) in a column's type; other types get their zero.
pub(crate) fn constant(field_type: FieldType, float: f64, integer: i64) -> Option<Value> {
    Some(match field_type {
        FieldType::Float => Value::Float(float),
        FieldType::Integer => Value::Integer(integer),
        FieldType::Unsigned => Value::Unsigned(u64::try_from(integer).unwrap_or(0)),
        FieldType::Boolean => Value::Boolean(false),
        FieldType::String => Value::String(Box::default()),
    })
}

/// The point at `time` on the line through two points.
fn between(time: i64, previous: &(i64, Value), next: (i64, &Value)) -> Option<Value> {
    let line = |low: f64, high: f64| {
        // Subtracted as integers: an instant of today has more digits than a float. Divided first: so upstream rounds.
        let part = time.wrapping_sub(previous.0) as f64 / next.0.wrapping_sub(previous.0) as f64;
        (high - low) * part + low
    };
    Some(match (&previous.1, next.1) {
        (Value::Float(low), Value::Float(high)) => Value::Float(line(*low, *high)),
        (Value::Integer(low), Value::Integer(high)) => Value::Integer(line(*low as f64, *high as f64) as i64),
        (Value::Unsigned(low), Value::Unsigned(high)) => Value::Unsigned(line(*low as f64, *high as f64) as u64),
        _ => return None,
    })
}
