//! holt_winters(): a forecast by exponential smoothing with trend and season.
//!
//! The parameters are fitted by Nelder and Mead's method. Order of operations, start values and even the side effects
//! are upstream's (reference: influxql, section 6.5), because every one of them shows in the digits. A fit smooths all
//! values thousands of times, so it goes on in pieces of [`STEPS_PER_TURN`] values.

use super::{Emitted, StreamState, float, simplex::Fit, smoothing::Smoothing};
use tidemill_column::Value;

/// Slots of the grid that are computed at most; a forecast of more is cut.
const SLOTS_MAX: usize = 10_000_000;
/// The search holds the square of the season. A day by minutes fits.
pub(super) const SEASON_MAX: usize = 2048;
/// Values that are smoothed in one go: about 500 us.
const STEPS_PER_TURN: usize = 16 * 1024;

pub(super) struct HoltWinters {
    forecasts: usize,
    season: usize,
    with_fit: bool,
    interval: i64,
    points: Vec<(i64, f64)>,
    stage: Stage,
}

enum Stage {
    Gathering,
    Fitting(Box<Fit>),
    Forecasting(Box<Forecast>),
    /// The slot of the first value, and the values.
    Done(usize, Vec<f64>),
}

/// The smoothing behind the last value, with the best parameters.
struct Forecast {
    /// Slots with a value.
    known: usize,
    parameters: Vec<f64>,
    smoothing: Smoothing,
    smoothed: Vec<f64>,
}

impl HoltWinters {
    pub(super) fn new(forecasts: usize, season: usize, with_fit: bool, interval: i64) -> HoltWinters {
        // A season of one is none.
        let season = if season == 1 { 0 } else { season };
        HoltWinters {
            forecasts: forecasts.min(SLOTS_MAX),
            season,
            with_fit,
            interval: interval.max(1),
            points: Vec::new(),
            stage: Stage::Gathering,
        }
    }

    /// The nearest multiple of the interval.
    fn round(&self, time: i64) -> i64 {
        let past = time.rem_euclid(self.interval);
        let start = time - past;
        if past >= self.interval - past { start.saturating_add(self.interval) } else { start }
    }

    /// The points on the grid; slots without one are NaN.
    fn values(&mut self) -> Vec<f64> {
        // Newest first comes in newest first.
        self.points.sort_by_key(|(time, _)| *time);
        let first = self.round(self.points[0].0);
        let mut values: Vec<f64> = Vec::new();
        for (time, value) in &self.points {
            let slot = self.round(*time).wrapping_sub(first) / self.interval;
            let slot = usize::try_from(slot).unwrap_or(0);
            if slot >= SLOTS_MAX {
                break;
            }
            if slot < values.len() {
                // A slot keeps its first value.
                continue;
            }
            values.resize(slot, f64::NAN);
            values.push(*value);
        }
        values
    }
}

impl StreamState for HoltWinters {
    fn push(&mut self, time: i64, value: Value, _: &mut Emitted) {
        self.points.push((time, float(&value)));
    }

    fn prepare_end(&mut self) -> bool {
        let mut steps = STEPS_PER_TURN;
        loop {
            self.stage = match std::mem::replace(&mut self.stage, Stage::Gathering) {
                Stage::Gathering if self.points.len() < 2 || self.points.len() < self.season => {
                    Stage::Done(0, Vec::new())
                }
                Stage::Gathering => {
                    let values = self.values();
                    Stage::Fitting(Box::new(Fit::new(values, self.season)))
                }
                Stage::Fitting(mut fit) => match fit.run(&mut steps) {
                    None => Stage::Fitting(fit),
                    Some(mut parameters) => {
                        let smoothing = Smoothing::new(fit.values[0], self.season, &mut parameters);
                        let smoothed = Vec::with_capacity(fit.values.len() + self.forecasts);
                        Stage::Forecasting(Box::new(Forecast {
                            known: fit.values.len(),
                            parameters,
                            smoothing,
                            smoothed,
                        }))
                    }
                },
                Stage::Forecasting(mut forecast) => {
                    let left = forecast.known + self.forecasts - forecast.smoothed.len();
                    let turn = left.min(steps);
                    let Forecast { smoothing, smoothed, parameters, .. } = &mut *forecast;
                    smoothed.extend((0..turn).map(|_| smoothing.next(parameters)));
                    steps -= turn;
                    if turn == left {
                        let shown = if self.with_fit { 0 } else { forecast.known };
                        forecast.smoothed.drain(..shown);
                        Stage::Done(shown, forecast.smoothed)
                    } else {
                        Stage::Forecasting(forecast)
                    }
                }
                Stage::Done(first, forecast) => {
                    self.stage = Stage::Done(first, forecast);
                    return true;
                }
            };
            if steps == 0 {
                return false;
            }
        }
    }

    fn end(&mut self, out: &mut Emitted) {
        let Stage::Done(first_slot, forecast) = &self.stage else { unreachable!("the end was prepared") };
        let Some((earliest, _)) = self.points.first() else { return };
        let first = self.round(*earliest);
        for (slot, value) in (*first_slot..).zip(forecast) {
            let time = (slot as i64).checked_mul(self.interval).and_then(|after| first.checked_add(after));
            let Some(time) = time else { return };
            if !value.is_nan() {
                out.push((time, Value::Float(*value)));
            }
        }
    }

    fn byte_size(&self) -> usize {
        let stage = match &self.stage {
            Stage::Gathering => 0,
            Stage::Fitting(fit) => fit.byte_size(),
            Stage::Forecasting(forecast) => (forecast.smoothed.capacity() + forecast.parameters.len()) * 8,
            Stage::Done(_, forecast) => forecast.capacity() * 8,
        };
        self.points.capacity() * size_of::<(i64, f64)>() + stage
    }
}
