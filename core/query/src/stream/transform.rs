//! derivative, difference, elapsed, moving_average, cumulative_sum.

use super::{Emitted, StreamState, float};
use std::collections::VecDeque;
use tidemill_column::Value;

/// Two rows one behind the other. A row at the time of the one before it is passed over: series that were joined into
/// one may have several.
#[derive(Default)]
struct Pair {
    last: Option<(i64, Value)>,
}

impl Pair {
    /// The row before, if this one goes on from it.
    fn advance(&mut self, time: i64, value: Value) -> Option<(i64, Value)> {
        if self.last.as_ref().is_some_and(|(known, _)| *known == time) {
            return None;
        }
        self.last.replace((time, value))
    }
}

pub(super) struct Derivative {
    unit_ns: i64,
    non_negative: bool,
    descending: bool,
    pair: Pair,
}

impl Derivative {
    pub(super) fn new(unit_ns: i64, non_negative: bool, descending: bool) -> Derivative {
        Derivative { unit_ns, non_negative, descending, pair: Pair::default() }
    }
}

impl StreamState for Derivative {
    fn push(&mut self, time: i64, value: Value, out: &mut Emitted) {
        let Some((before, previous)) = self.pair.advance(time, value.clone()) else { return };
        let change = change(&previous, &value);
        let elapsed = if self.descending { before.wrapping_sub(time) } else { time.wrapping_sub(before) };
        if self.non_negative && change < 0.0 {
            return;
        }
        let rate = if elapsed > 0 { change / (elapsed as f64 / self.unit_ns as f64) } else { 0.0 };
        out.push((time, Value::Float(rate)));
    }
}

/// The difference as a float; of integers it is exact before it is one.
fn change(from: &Value, to: &Value) -> f64 {
    match (from, to) {
        (Value::Integer(from), Value::Integer(to)) => to.wrapping_sub(*from) as f64,
        (Value::Unsigned(from), Value::Unsigned(to)) if to >= from => (to - from) as f64,
        (Value::Unsigned(from), Value::Unsigned(to)) => -((from - to) as f64),
        _ => float(to) - float(from),
    }
}

pub(super) struct Difference {
    non_negative: bool,
    pair: Pair,
}

impl Difference {
    pub(super) fn new(non_negative: bool) -> Difference {
        Difference { non_negative, pair: Pair::default() }
    }
}

impl StreamState for Difference {
    fn push(&mut self, time: i64, value: Value, out: &mut Emitted) {
        let Some((_, previous)) = self.pair.advance(time, value.clone()) else { return };
        if self.non_negative && change(&previous, &value) < 0.0 {
            return;
        }
        let difference = match (&previous, &value) {
            (Value::Integer(from), Value::Integer(to)) => Value::Integer(to.wrapping_sub(*from)),
            (Value::Unsigned(from), Value::Unsigned(to)) => Value::Unsigned(to.wrapping_sub(*from)),
            _ => Value::Float(float(&value) - float(&previous)),
        };
        out.push((time, difference));
    }
}

pub(super) struct Elapsed {
    unit_ns: i64,
    last: Option<i64>,
}

impl Elapsed {
    pub(super) fn new(unit_ns: i64) -> Elapsed {
        Elapsed { unit_ns, last: None }
    }
}

impl StreamState for Elapsed {
    fn push(&mut self, time: i64, _: Value, out: &mut Emitted) {
        if let Some(last) = self.last.replace(time) {
            out.push((time, Value::Integer(time.wrapping_sub(last) / self.unit_ns)));
        }
    }
}

/// The mean of the last rows. Integers are summed as such, so that the sum does not drift.
pub(super) struct MovingAverage {
    count: usize,
    values: VecDeque<Value>,
    float_sum: f64,
    integer_sum: i64,
}

impl MovingAverage {
    pub(super) fn new(count: usize) -> MovingAverage {
        MovingAverage { count, values: VecDeque::new(), float_sum: 0.0, integer_sum: 0 }
    }

    fn add(&mut self, value: &Value, sign: i64) {
        match value {
            Value::Integer(value) => self.integer_sum = self.integer_sum.wrapping_add(value.wrapping_mul(sign)),
            Value::Unsigned(value) => {
                self.integer_sum = self.integer_sum.wrapping_add((*value as i64).wrapping_mul(sign));
            }
            other => self.float_sum += float(other) * sign as f64,
        }
    }
}

impl StreamState for MovingAverage {
    fn push(&mut self, time: i64, value: Value, out: &mut Emitted) {
        if self.values.len() == self.count
            && let Some(oldest) = self.values.pop_front()
        {
            self.add(&oldest, -1);
        }
        self.add(&value, 1);
        self.values.push_back(value);
        if self.values.len() < self.count {
            return;
        }
        let sum = match self.values.back() {
            Some(Value::Integer(_)) => self.integer_sum as f64,
            Some(Value::Unsigned(_)) => self.integer_sum as u64 as f64,
            _ => self.float_sum,
        };
        out.push((time, Value::Float(sum / self.count as f64)));
    }

    fn byte_size(&self) -> usize {
        self.values.capacity() * size_of::<Value>()
    }
}

#[derive(Default)]
pub(super) struct CumulativeSum {
    sum: Option<Value>,
}

impl StreamState for CumulativeSum {
    fn push(&mut self, time: i64, value: Value, out: &mut Emitted) {
        let sum = match (&self.sum, &value) {
            (Some(Value::Integer(sum)), Value::Integer(value)) => Value::Integer(sum.wrapping_add(*value)),
            (Some(Value::Unsigned(sum)), Value::Unsigned(value)) => Value::Unsigned(sum.wrapping_add(*value)),
            (Some(Value::Float(sum)), Value::Float(value)) => Value::Float(sum + value),
            _ => value,
        };
        self.sum = Some(sum.clone());
        out.push((time, sum));
    }
}
