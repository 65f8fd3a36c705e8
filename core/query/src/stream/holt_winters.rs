//! holt_winters(): a forecast by exponential smoothing with trend and season.
//!
//! The parameters are fitted by Nelder and Mead's method. Order of operations, start values and even the side effects
//! are upstream's (reference: influxql, section 6.5), because every one of them shows in the digits.

use super::{Emitted, StreamState, float};
use tidemill_column::Value;

/// Slots of the grid that are computed at most; a forecast of more is cut.
const SLOTS_MAX: usize = 10_000_000;

pub(super) struct HoltWinters {
    forecasts: usize,
    season: usize,
    with_fit: bool,
    interval: i64,
    points: Vec<(i64, f64)>,
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
        }
    }

    /// The nearest multiple of the interval.
    fn round(&self, time: i64) -> i64 {
        let past = time.rem_euclid(self.interval);
        let start = time - past;
        if past >= self.interval - past { start.saturating_add(self.interval) } else { start }
    }
}

impl StreamState for HoltWinters {
    fn push(&mut self, time: i64, value: Value, _: &mut Emitted) {
        self.points.push((time, float(&value)));
    }

    fn end(&mut self, out: &mut Emitted) {
        // Newest first comes in newest first.
        self.points.sort_by_key(|(time, _)| *time);
        if self.points.len() < 2 || self.points.len() < self.season {
            return;
        }
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
        let fitted = Fit { values: &values, season: self.season }.run();
        let forecast = forecast(&values, self.season, self.forecasts, fitted);
        let shown = if self.with_fit { 0 } else { values.len() };
        for (slot, value) in forecast.iter().enumerate().skip(shown) {
            let time = (slot as i64).checked_mul(self.interval).and_then(|after| first.checked_add(after));
            let Some(time) = time else { return };
            if !value.is_nan() {
                out.push((time, Value::Float(*value)));
            }
        }
    }

    fn byte_size(&self) -> usize {
        self.points.capacity() * size_of::<(i64, f64)>()
    }
}

const ALPHA: usize = 0;
const BETA: usize = 1;
const GAMMA: usize = 2;
const PHI: usize = 3;
const LEVEL: usize = 4;
const TREND: usize = 5;
const SEASON: usize = 6;

/// The smoothing over all of the values and behind them, with parameters that are clamped and, where there is a season,
/// used up in place.
fn smooth(values: &[f64], season: usize, forecasts: usize, parameters: &mut [f64]) -> Vec<f64> {
    for parameter in &mut parameters[ALPHA..=PHI] {
        *parameter = parameter.clamp(0.0, 1.0);
    }
    let (alpha, beta, gamma, phi) = (parameters[ALPHA], parameters[BETA], parameters[GAMMA], parameters[PHI]);
    let (mut level, mut trend) = (parameters[LEVEL], parameters[TREND]);
    let seasons = &mut parameters[SEASON..];
    let count = values.len() + forecasts;
    let mut smoothed = Vec::with_capacity(count);
    smoothed.push(values[0]);
    let mut damping = phi;
    let mut offset = season.wrapping_sub(1);
    for t in 1..count {
        let (mut now, mut then) = (1.0, 1.0);
        if season > 0 {
            now = seasons[(t + offset - season) % season];
            then = seasons[(t + t % season + offset - season) % season];
        }
        let before = smoothed[t - 1];
        let new_level = alpha * before / now + (1.0 - alpha) * (level + phi * trend);
        let new_trend = beta * (new_level - level) + (1.0 - beta) * phi * trend;
        let new_season = gamma * before / (level + phi * trend) + (1.0 - gamma) * now;
        smoothed.push((new_level + damping * new_trend) * then);
        damping += phi.powf(t as f64);
        (level, trend) = (new_level, new_trend);
        if season > 0 {
            seasons[(t + offset) % season] = new_season;
            offset += 1;
        }
    }
    smoothed
}

fn forecast(values: &[f64], season: usize, forecasts: usize, mut parameters: Vec<f64>) -> Vec<f64> {
    smooth(values, season, forecasts, &mut parameters)
}

struct Fit<'a> {
    values: &'a [f64],
    season: usize,
}

impl Fit<'_> {
    /// The best parameters that sixteen starts lead to.
    fn run(&self) -> Vec<f64> {
        const FIRST: f64 = 0.3;
        const STEP: f64 = 0.4;
        let (level, trend, seasons) = self.start();
        let mut best: Option<(f64, Vec<f64>)> = None;
        let grid = || {
            let mut at = FIRST;
            let mut points = Vec::new();
            while at < 1.0 {
                points.push(at);
                at += STEP;
            }
            points
        };
        for alpha in grid() {
            for beta in grid() {
                for gamma in grid() {
                    for phi in grid() {
                        let mut start = vec![alpha, beta, gamma, phi, level, trend];
                        start.extend(&seasons);
                        let (error, parameters) = self.minimize(start);
                        if best.as_ref().is_none_or(|(least, _)| error < *least) {
                            best = Some((error, parameters));
                        }
                    }
                }
            }
        }
        best.map_or_else(Vec::new, |(_, parameters)| parameters)
    }

    fn start(&self) -> (f64, f64, Vec<f64>) {
        let (values, season) = (self.values, self.season);
        let present = |at: usize| values.get(at).copied().filter(|value| !value.is_nan());
        if season == 0 {
            let trend = present(1).map_or(0.0, |second| 0.5 * (second - values[0]));
            return (0.5 * values[0], trend, Vec::new());
        }
        let (mut level, mut trend) = (0.0, 0.0);
        for at in 0..season {
            if let Some(value) = present(at) {
                level += value / season as f64;
            }
        }
        for at in 0..season {
            if let (Some(value), Some(later)) = (present(at), present(season + at)) {
                trend += (later - value) / (season * season) as f64;
            }
        }
        let seasons = (0..season).map(|at| present(at).map_or(0.0, |value| value / level)).collect();
        (level, trend, seasons)
    }

    /// Squares of what the smoothing misses.
    fn error(&self, parameters: &mut [f64]) -> f64 {
        let smoothed = smooth(self.values, self.season, 0, parameters);
        let mut sum = 0.0;
        for (value, smoothed) in self.values.iter().zip(&smoothed) {
            if value.is_nan() {
                continue;
            }
            if smoothed.is_nan() {
                return f64::INFINITY;
            }
            let missed = smoothed - value;
            sum += missed * missed;
        }
        sum
    }

    /// Nelder and Mead's simplex.
    fn minimize(&self, start: Vec<f64>) -> (f64, Vec<f64>) {
        const ITERATIONS_MAX: usize = 1000;
        const EPSILON: f64 = 1e-4;
        const REFLECTION: f64 = 1.0;
        const EXPANSION: f64 = 2.0;
        const CONTRACTION: f64 = 0.5;
        let n = start.len();
        let root = (n as f64 + 1.0).sqrt();
        let p = (root - 1.0 + n as f64) / (n as f64 * std::f64::consts::SQRT_2);
        let q = (root - 1.0) / (n as f64 * std::f64::consts::SQRT_2);
        let mut vertices: Vec<Vec<f64>> = Vec::with_capacity(n + 1);
        for vertex in 0..=n {
            let coordinate = |(at, value): (usize, &f64)| match vertex {
                0 => *value,
                vertex if vertex == at + 1 => value + p,
                _ => value + q,
            };
            vertices.push(start.iter().enumerate().map(coordinate).collect());
        }
        let mut errors: Vec<f64> = vertices.iter_mut().map(|vertex| self.error(vertex)).collect();
        for _ in 0..ITERATIONS_MAX {
            let (mut best, mut worst) = (0, 0);
            for (at, error) in errors.iter().enumerate() {
                if *error > errors[worst] {
                    worst = at;
                }
                if *error < errors[best] {
                    best = at;
                }
            }
            let mut second = best;
            for (at, error) in errors.iter().enumerate() {
                if *error > errors[second] && *error < errors[worst] {
                    second = at;
                }
            }
            let middle: Vec<f64> = (0..n)
                .map(|at| {
                    let others = vertices.iter().enumerate().filter(|(vertex, _)| *vertex != worst);
                    others.map(|(_, vertex)| vertex[at]).sum::<f64>() / n as f64
                })
                .collect();
            let away = |factor: f64, from: &[f64], to: &[f64]| -> Vec<f64> {
                from.iter().zip(to).map(|(from, to)| from + factor * (to - from)).collect()
            };
            let mut reflected: Vec<f64> = middle
                .iter()
                .zip(&vertices[worst])
                .map(|(middle, worst)| middle + REFLECTION * (middle - worst))
                .collect();
            let reflected_error = self.error(&mut reflected);
            if reflected_error < errors[second] && reflected_error >= errors[best] {
                (vertices[worst], errors[worst]) = (reflected.clone(), reflected_error);
            }
            if reflected_error < errors[best] {
                let mut expanded = away(EXPANSION, &middle, &reflected);
                let expanded_error = self.error(&mut expanded);
                (vertices[worst], errors[worst]) = if expanded_error < reflected_error {
                    (expanded, expanded_error)
                } else {
                    (reflected.clone(), reflected_error)
                };
            }
            if reflected_error >= errors[second] {
                let is_outside = reflected_error < errors[worst];
                let mut contracted = if is_outside {
                    away(CONTRACTION, &middle, &reflected)
                } else {
                    middle
                        .iter()
                        .zip(&vertices[worst])
                        .map(|(middle, worst)| middle - CONTRACTION * (middle - worst))
                        .collect()
                };
                let contracted_error = self.error(&mut contracted);
                if contracted_error < errors[worst] {
                    (vertices[worst], errors[worst]) = (contracted, contracted_error);
                } else {
                    let target = vertices[best].clone();
                    for (at, vertex) in vertices.iter_mut().enumerate() {
                        if at != best {
                            for (value, target) in vertex.iter_mut().zip(&target) {
                                *value = target + (*value - target) / 2.0;
                            }
                        }
                    }
                    errors[worst] = self.error(&mut vertices[worst]);
                    errors[second] = self.error(&mut vertices[second]);
                }
            }
            let mean = errors.iter().sum::<f64>() / (n as f64 + 1.0);
            let spread = errors.iter().map(|error| (error - mean) * (error - mean) / n as f64).sum::<f64>().sqrt();
            if spread < EPSILON {
                break;
            }
        }
        let mut best = 0;
        for (at, error) in errors.iter().enumerate() {
            if *error < errors[best] {
                best = at;
            }
        }
        (errors[best], vertices.swap_remove(best))
    }
}
