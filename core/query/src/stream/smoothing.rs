//! Exponential smoothing with trend and season, a value at a time.

pub(super) const ALPHA: usize = 0;
pub(super) const BETA: usize = 1;
pub(super) const GAMMA: usize = 2;
pub(super) const PHI: usize = 3;
pub(super) const LEVEL: usize = 4;
pub(super) const TREND: usize = 5;
/// One a slot of the season from here on.
pub(super) const SEASON: usize = 6;

/// The smoothing at one value. Its parameters are clamped and, where there is a season, used up in place.
pub(super) struct Smoothing {
    season: usize,
    level: f64,
    trend: f64,
    damping: f64,
    offset: usize,
    /// Number of the next value, and the value before it.
    next: usize,
    before: f64,
}

impl Smoothing {
    /// Begins at the first value.
    pub(super) fn new(first: f64, season: usize, parameters: &mut [f64]) -> Smoothing {
        for parameter in &mut parameters[ALPHA..=PHI] {
            *parameter = parameter.clamp(0.0, 1.0);
        }
        Smoothing {
            season,
            level: parameters[LEVEL],
            trend: parameters[TREND],
            damping: parameters[PHI],
            offset: season.wrapping_sub(1),
            next: 0,
            before: first,
        }
    }

    /// The next smoothed value.
    pub(super) fn next(&mut self, parameters: &mut [f64]) -> f64 {
        let t = self.next;
        self.next += 1;
        if t == 0 {
            return self.before;
        }
        let (alpha, beta, gamma, phi) = (parameters[ALPHA], parameters[BETA], parameters[GAMMA], parameters[PHI]);
        let seasons = &mut parameters[SEASON..];
        let Smoothing { season, level, trend, before, .. } = *self;
        let (mut now, mut then) = (1.0, 1.0);
        if season > 0 {
            now = seasons[(t + self.offset - season) % season];
            then = seasons[(t + t % season + self.offset - season) % season];
        }
        self.level = alpha * (before / now) + (1.0 - alpha) * (level + phi * trend);
        self.trend = beta * (self.level - level) + (1.0 - beta) * phi * trend;
        let new_season = gamma * (before / (level + phi * trend)) + (1.0 - gamma) * now;
        self.before = (self.level + self.damping * self.trend) * then;
        self.damping += power(phi, t);
        if season > 0 {
            seasons[(t + self.offset) % season] = new_season;
            self.offset += 1;
        }
        self.before
    }
}

/// By squaring, as upstream rounds it.
fn power(base: f64, mut exponent: usize) -> f64 {
    let (mut square, mut result) = (base, 1.0);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= square;
        }
        square *= square;
        exponent >>= 1;
    }
    result
}

/// How far a smoothing with these parameters is off: the sum of squares.
pub(super) struct Evaluation {
    pub(super) parameters: Vec<f64>,
    smoothing: Smoothing,
    done: usize,
    sum: f64,
    is_lost: bool,
}

impl Evaluation {
    pub(super) fn new(values: &[f64], season: usize, mut parameters: Vec<f64>) -> Evaluation {
        let smoothing = Smoothing::new(values[0], season, &mut parameters);
        Evaluation { parameters, smoothing, done: 0, sum: 0.0, is_lost: false }
    }

    /// Goes on for at most so many values, which are taken off `steps`; `None` until all were looked at.
    pub(super) fn run(&mut self, values: &[f64], steps: &mut usize) -> Option<f64> {
        let turn = (values.len() - self.done).min(*steps);
        for value in &values[self.done..self.done + turn] {
            // To the end even if the sum is lost: the season is used up on the way.
            let smoothed = self.smoothing.next(&mut self.parameters);
            if value.is_nan() {
                continue;
            }
            self.is_lost |= smoothed.is_nan();
            let missed = smoothed - value;
            self.sum += missed * missed;
        }
        self.done += turn;
        *steps -= turn;
        (self.done == values.len()).then_some(if self.is_lost { f64::INFINITY } else { self.sum })
    }
}
