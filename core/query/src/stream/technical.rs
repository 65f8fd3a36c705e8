//! Technical analysis: exponential averages and the indices that are built on them.
//!
//! Definitions, warm-ups and default hold periods are those of reference: influxql, section 6.6.

use super::{Emitted, StreamFunction, StreamState, Warmup, float};
use std::collections::VecDeque;
use tidemill_column::Value;

/// The state of a function. `hold`: inputs before the first output.
pub(super) fn state(
    function: StreamFunction,
    period: usize,
    hold: Option<usize>,
    warmup: Warmup,
) -> Box<dyn StreamState> {
    let (indicator, hold_default): (Box<dyn Indicator>, usize) = match function {
        StreamFunction::ExponentialMovingAverage => (Box::new(Chain::new(period, warmup, 1)), period - 1),
        StreamFunction::DoubleExponentialMovingAverage => {
            let stages = if warmup == Warmup::Simple { 2 } else { 1 };
            (Box::new(Chain::new(period, warmup, 2)), stages * (period - 1))
        }
        StreamFunction::TripleExponentialMovingAverage => {
            let stages = if warmup == Warmup::Simple { 3 } else { 1 };
            (Box::new(Chain::new(period, warmup, 3)), stages * (period - 1))
        }
        StreamFunction::TripleExponentialDerivative => {
            let hold = if warmup == Warmup::Simple { 3 * (period - 1) + 1 } else { period };
            (Box::new(RateOfChange { chain: Chain::new(period, warmup, 3), last: None }), hold)
        }
        StreamFunction::RelativeStrengthIndex => (Box::new(Strength::new(period, warmup)), period),
        StreamFunction::ChandeMomentumOscillator if warmup == Warmup::None => {
            (Box::new(Momentum { period, last: None, differences: VecDeque::new() }), period - 1)
        }
        StreamFunction::ChandeMomentumOscillator => (Box::new(AveragedMomentum(Strength::new(period, warmup))), period),
        StreamFunction::KaufmansEfficiencyRatio => (Box::new(Efficiency::new(period)), period),
        _ => (
            Box::new(Adaptive { efficiency: Efficiency::new(period), period, seen: 0, average: 0.0, last: 0.0 }),
            period,
        ),
    };
    Box::new(Held { indicator, hold: hold.unwrap_or(hold_default), seen: 0 })
}

/// Gives a value for each input; `None` where it has none.
trait Indicator {
    fn add(&mut self, value: f64) -> Option<f64>;

    fn byte_size(&self) -> usize {
        0
    }
}

/// Keeps the first outputs back.
struct Held {
    indicator: Box<dyn Indicator>,
    hold: usize,
    seen: usize,
}

impl StreamState for Held {
    fn push(&mut self, time: i64, value: Value, out: &mut Emitted) {
        let indicated = self.indicator.add(float(&value));
        self.seen += 1;
        if let (Some(value), true) = (indicated, self.seen > self.hold) {
            out.push((time, Value::Float(value)));
        }
    }

    fn byte_size(&self) -> usize {
        self.indicator.byte_size()
    }
}

/// An exponential moving average with its warm-up.
struct Average {
    period: usize,
    warmup: Warmup,
    /// Weight of a new value once warm.
    alpha: f64,
    seen: usize,
    value: f64,
}

impl Average {
    fn new(period: usize, warmup: Warmup) -> Average {
        Average { period, warmup, alpha: 2.0 / (period as f64 + 1.0), seen: 0, value: 0.0 }
    }

    fn is_warm(&self) -> bool {
        self.seen >= self.period
    }

    fn add(&mut self, value: f64) -> f64 {
        let seen = self.seen as f64;
        self.value = if self.seen == 0 {
            value
        } else if self.is_warm() {
            self.value + self.alpha * (value - self.value)
        } else if self.warmup == Warmup::Simple {
            (self.value * seen + value) / (seen + 1.0)
        } else {
            self.value + 2.0 / (seen + 2.0) * (value - self.value)
        };
        self.seen += 1;
        self.value
    }
}

/// Averages of averages: one, two or three stages, combined so that the lag goes away.
struct Chain {
    stages: Vec<Average>,
}

impl Chain {
    fn new(period: usize, warmup: Warmup, stages: usize) -> Chain {
        Chain { stages: (0..stages).map(|_| Average::new(period, warmup)).collect() }
    }

    /// The value of every stage. With a simple warm-up a stage starts only when the one before it is warm, and passes
    /// its input through until then.
    fn values(&mut self, value: f64) -> [f64; 3] {
        let mut values = [value; 3];
        let (mut input, mut starts) = (value, true);
        for (stage, slot) in self.stages.iter_mut().zip(&mut values) {
            if starts {
                input = stage.add(input);
                starts = stage.warmup != Warmup::Simple || stage.is_warm();
            }
            *slot = input;
        }
        values
    }
}

impl Indicator for Chain {
    fn add(&mut self, value: f64) -> Option<f64> {
        let [first, second, third] = self.values(value);
        Some(match self.stages.len() {
            1 => first,
            2 => 2.0 * first - second,
            _ => 3.0 * first - 3.0 * second + third,
        })
    }
}

/// How much the third average changes, in percent.
struct RateOfChange {
    chain: Chain,
    last: Option<f64>,
}

impl Indicator for RateOfChange {
    fn add(&mut self, value: f64) -> Option<f64> {
        let third = self.chain.values(value)[2];
        let last = self.last.replace(third).unwrap_or(0.0);
        let rate = (third / last - 1.0) * 100.0;
        (!rate.is_infinite()).then_some(rate)
    }
}

/// Averages of gains and of losses.
struct Strength {
    up: Average,
    down: Average,
    last: f64,
}

impl Strength {
    fn new(period: usize, warmup: Warmup) -> Strength {
        let average = || Average { alpha: 1.0 / period as f64, ..Average::new(period + 1, warmup) };
        // The value before the first is 0, so the first one is a gain.
        Strength { up: average(), down: average(), last: 0.0 }
    }

    fn averages(&mut self, value: f64) -> (f64, f64) {
        let change = value - std::mem::replace(&mut self.last, value);
        (self.up.add(change.max(0.0)), self.down.add((-change).max(0.0)))
    }
}

impl Indicator for Strength {
    fn add(&mut self, value: f64) -> Option<f64> {
        let (up, down) = self.averages(value);
        Some(100.0 - 100.0 / (1.0 + up / down))
    }
}

struct AveragedMomentum(Strength);

impl Indicator for AveragedMomentum {
    fn add(&mut self, value: f64) -> Option<f64> {
        let (up, down) = self.0.averages(value);
        Some(100.0 * ((up - down) / (up + down)))
    }
}

/// Gains against losses among the last differences.
struct Momentum {
    period: usize,
    last: Option<f64>,
    differences: VecDeque<f64>,
}

impl Indicator for Momentum {
    fn add(&mut self, value: f64) -> Option<f64> {
        if let Some(last) = self.last.replace(value) {
            if self.differences.len() == self.period {
                self.differences.pop_front();
            }
            self.differences.push_back(value - last);
        }
        let up: f64 = self.differences.iter().filter(|difference| **difference > 0.0).sum();
        let down: f64 = self.differences.iter().filter(|difference| **difference < 0.0).map(|one| -one).sum();
        Some(if up + down == 0.0 { 0.0 } else { 100.0 * ((up - down) / (up + down)) })
    }

    fn byte_size(&self) -> usize {
        self.differences.capacity() * size_of::<f64>()
    }
}

/// How straight the way of the last values was. The values before the first are 0, and there are steps only from the
/// one before it on.
struct Efficiency {
    period: usize,
    values: VecDeque<f64>,
    steps: VecDeque<f64>,
    /// The sum of the steps.
    way: f64,
}

impl Efficiency {
    fn new(period: usize) -> Efficiency {
        Efficiency { period, values: VecDeque::new(), way: 0.0, steps: VecDeque::new() }
    }

    fn ratio(&mut self, value: f64) -> f64 {
        let last = self.values.back().copied().unwrap_or(0.0);
        let first = if self.values.len() < self.period { 0.0 } else { self.values.pop_front().unwrap_or(0.0) };
        self.values.push_back(value);
        if self.steps.len() == self.period {
            self.way -= self.steps.pop_front().unwrap_or(0.0);
        }
        let step = (value - last).abs();
        self.steps.push_back(step);
        // A running sum, rounded as upstream's is.
        self.way += step;
        let distance = (value - first).abs();
        if distance == 0.0 || self.way == 0.0 { 0.0 } else { distance / self.way }
    }
}

impl Indicator for Efficiency {
    fn add(&mut self, value: f64) -> Option<f64> {
        Some(self.ratio(value))
    }

    fn byte_size(&self) -> usize {
        (self.values.capacity() + self.steps.capacity()) * size_of::<f64>()
    }
}

/// Kaufman's adaptive average: quick where the way is straight.
struct Adaptive {
    efficiency: Efficiency,
    period: usize,
    seen: usize,
    average: f64,
    last: f64,
}

impl Indicator for Adaptive {
    fn add(&mut self, value: f64) -> Option<f64> {
        const SLOW: f64 = 2.0 / 31.0;
        // 2/3 - 2/31, rounded once.
        const RANGE: f64 = 56.0 / 93.0;
        let ratio = self.efficiency.ratio(value);
        let smoothing = (ratio * RANGE + SLOW).powi(2);
        if self.seen < self.period + 1 {
            self.average = self.last;
        }
        self.average += smoothing * (value - self.average);
        self.seen += 1;
        self.last = value;
        Some(self.average)
    }

    fn byte_size(&self) -> usize {
        self.efficiency.byte_size()
    }
}
