//! The parameters of a smoothing that miss its values by least: Nelder and Mead's simplex from sixteen starts.
//!
//! Owns where the search is, so that it can stop at any value and go on. The order of comparisons is upstream's.

use super::smoothing::Evaluation;
use std::collections::VecDeque;

const ITERATIONS_MAX: usize = 1000;
const EPSILON: f64 = 1e-4;
const REFLECTION: f64 = 1.0;
const EXPANSION: f64 = 2.0;
const CONTRACTION: f64 = 0.5;

/// The best parameters that sixteen starts lead to.
pub(super) struct Fit {
    pub(super) values: Vec<f64>,
    season: usize,
    starts: VecDeque<Vec<f64>>,
    simplex: Option<Simplex>,
    best: Option<(f64, Vec<f64>)>,
}

/// One search.
struct Simplex {
    vertices: Vec<Vec<f64>>,
    /// Of the vertices that were evaluated.
    errors: Vec<f64>,
    iterations: usize,
    best: usize,
    worst: usize,
    second: usize,
    middle: Vec<f64>,
    reflected: (f64, Vec<f64>),
    /// The error of the best vertex at the end.
    chosen: f64,
    evaluation: Evaluation,
    stage: Stage,
}

/// What is being evaluated.
#[derive(Clone, Copy)]
enum Stage {
    Vertex(usize),
    Reflected,
    Expanded,
    Contracted,
    ShrunkWorst,
    ShrunkSecond,
    /// The best vertex, once more: its season was used up when it was looked at, so its error is another one now, and
    /// that is what the starts are compared by.
    Chosen,
}

impl Fit {
    /// `values` has at least one.
    pub(super) fn new(values: Vec<f64>, season: usize) -> Fit {
        const GRID: [f64; 2] = [0.3, 0.3 + 0.4];
        let (level, trend, seasons) = start(&values, season);
        let mut starts = VecDeque::new();
        for alpha in GRID {
            for beta in GRID {
                for gamma in GRID {
                    for phi in GRID {
                        let mut start = vec![alpha, beta, gamma, phi, level, trend];
                        start.extend(&seasons);
                        starts.push_back(start);
                    }
                }
            }
        }
        Fit { values, season, starts, simplex: None, best: None }
    }

    /// Goes on for at most so many values, which are taken off `steps`; `None` until the search is over.
    pub(super) fn run(&mut self, steps: &mut usize) -> Option<Vec<f64>> {
        loop {
            let Some(simplex) = &mut self.simplex else {
                let Some(start) = self.starts.pop_front() else {
                    return Some(self.best.take().map_or_else(Vec::new, |(_, parameters)| parameters));
                };
                self.simplex = Some(Simplex::new(&self.values, self.season, &start));
                continue;
            };
            let (error, parameters) = simplex.run(&self.values, self.season, steps)?;
            self.simplex = None;
            if self.best.as_ref().is_none_or(|(least, _)| error < *least) {
                self.best = Some((error, parameters));
            }
        }
    }

    /// Bytes held, for budgets.
    pub(super) fn byte_size(&self) -> usize {
        let parameters = self.starts.front().map_or(0, Vec::len);
        (self.values.capacity() + parameters * (parameters + self.starts.len() + 8)) * 8
    }
}

fn start(values: &[f64], season: usize) -> (f64, f64, Vec<f64>) {
    let present = |at: usize| values.get(at).copied().filter(|value| !value.is_nan());
    if season == 0 {
        let trend = present(1).map_or(0.0, |second| 0.5 * (second - values[0]));
        return (0.5 * values[0], trend, Vec::new());
    }
    let (mut level, mut trend) = (0.0, 0.0);
    for at in 0..season {
        if let Some(value) = present(at) {
            level += 1.0 / season as f64 * value;
        }
    }
    for at in 0..season {
        if let (Some(value), Some(later)) = (present(at), present(season + at)) {
            trend += 1.0 / (season * season) as f64 * (later - value);
        }
    }
    let seasons = (0..season).map(|at| present(at).map_or(0.0, |value| value / level)).collect();
    (level, trend, seasons)
}

impl Simplex {
    fn new(values: &[f64], season: usize, start: &[f64]) -> Simplex {
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
        let evaluation = Evaluation::new(values, season, vertices[0].clone());
        Simplex {
            vertices,
            errors: Vec::with_capacity(n + 1),
            iterations: 0,
            best: 0,
            worst: 0,
            second: 0,
            middle: Vec::new(),
            reflected: (0.0, Vec::new()),
            chosen: f64::INFINITY,
            evaluation,
            stage: Stage::Vertex(0),
        }
    }

    /// The least error and its parameters, once they are found.
    fn run(&mut self, values: &[f64], season: usize, steps: &mut usize) -> Option<(f64, Vec<f64>)> {
        loop {
            let error = self.evaluation.run(values, steps)?;
            // An evaluation clamps its parameters and uses the season up: what it leaves is what counts from now on.
            let evaluated = std::mem::take(&mut self.evaluation.parameters);
            // Each of the vertices is looked at in between.
            *steps = steps.saturating_sub(self.vertices.len() * evaluated.len() / 16);
            let Some((stage, parameters)) = self.advance(error, evaluated) else { return Some(self.end()) };
            self.stage = stage;
            self.evaluation = Evaluation::new(values, season, parameters);
        }
    }

    /// What is to be evaluated next; `None` at the end.
    fn advance(&mut self, error: f64, evaluated: Vec<f64>) -> Option<(Stage, Vec<f64>)> {
        match self.stage {
            Stage::Vertex(at) => {
                self.vertices[at] = evaluated;
                self.errors.push(error);
                match self.vertices.get(at + 1) {
                    Some(next) => Some((Stage::Vertex(at + 1), next.clone())),
                    None => Some(self.reflect()),
                }
            }
            Stage::Reflected => {
                self.reflected = (error, evaluated);
                if error < self.errors[self.second] && error >= self.errors[self.best] {
                    self.replace_worst(self.reflected.clone());
                }
                if error < self.errors[self.best] {
                    return Some((Stage::Expanded, away(EXPANSION, &self.middle, &self.reflected.1)));
                }
                self.contract_or_go_on()
            }
            Stage::Expanded => {
                let is_better = error < self.reflected.0;
                self.replace_worst(if is_better { (error, evaluated) } else { self.reflected.clone() });
                self.contract_or_go_on()
            }
            Stage::Contracted => {
                if error < self.errors[self.worst] {
                    self.replace_worst((error, evaluated));
                    return self.go_on();
                }
                let target = self.vertices[self.best].clone();
                for (at, vertex) in self.vertices.iter_mut().enumerate() {
                    if at != self.best {
                        for (value, target) in vertex.iter_mut().zip(&target) {
                            *value = target + (*value - target) / 2.0;
                        }
                    }
                }
                Some((Stage::ShrunkWorst, self.vertices[self.worst].clone()))
            }
            Stage::ShrunkWorst => {
                self.replace_worst((error, evaluated));
                Some((Stage::ShrunkSecond, self.vertices[self.second].clone()))
            }
            Stage::ShrunkSecond => {
                (self.errors[self.second], self.vertices[self.second]) = (error, evaluated);
                self.go_on()
            }
            Stage::Chosen => {
                self.chosen = error;
                None
            }
        }
    }

    fn replace_worst(&mut self, (error, vertex): (f64, Vec<f64>)) {
        (self.errors[self.worst], self.vertices[self.worst]) = (error, vertex);
    }

    /// Begins an iteration.
    fn reflect(&mut self) -> (Stage, Vec<f64>) {
        self.iterations += 1;
        let errors = &self.errors;
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
        (self.best, self.worst, self.second) = (best, worst, second);
        let n = self.vertices.len() - 1;
        let mean = |at: usize| {
            let others = self.vertices.iter().enumerate().filter(|(vertex, _)| *vertex != worst);
            others.map(|(_, vertex)| vertex[at]).sum::<f64>() / n as f64
        };
        self.middle = (0..n).map(mean).collect();
        let reflect = |(middle, worst): (&f64, &f64)| middle + REFLECTION * (middle - worst);
        (Stage::Reflected, self.middle.iter().zip(&self.vertices[worst]).map(reflect).collect())
    }

    fn contract_or_go_on(&mut self) -> Option<(Stage, Vec<f64>)> {
        let (error, reflected) = &self.reflected;
        // What was compared may have been replaced since.
        let is_bad = *error >= self.errors[self.second];
        if !is_bad {
            return self.go_on();
        }
        let contract = |(middle, worst): (&f64, &f64)| middle - CONTRACTION * (middle - worst);
        let contracted = if *error < self.errors[self.worst] {
            away(CONTRACTION, &self.middle, reflected)
        } else {
            self.middle.iter().zip(&self.vertices[self.worst]).map(contract).collect()
        };
        Some((Stage::Contracted, contracted))
    }

    /// Ends an iteration.
    fn go_on(&mut self) -> Option<(Stage, Vec<f64>)> {
        let n = self.vertices.len() as f64 - 1.0;
        let mean = self.errors.iter().sum::<f64>() / (n + 1.0);
        let spread = self.errors.iter().map(|error| (error - mean) * (error - mean) / n).sum::<f64>().sqrt();
        let is_over = spread < EPSILON || self.iterations == ITERATIONS_MAX;
        Some(if is_over { (Stage::Chosen, self.vertices[self.least()].clone()) } else { self.reflect() })
    }

    /// The vertex of the least error.
    fn least(&self) -> usize {
        let mut best = 0;
        for (at, error) in self.errors.iter().enumerate() {
            if *error < self.errors[best] {
                best = at;
            }
        }
        best
    }

    fn end(&mut self) -> (f64, Vec<f64>) {
        (self.chosen, self.vertices.swap_remove(self.least()))
    }
}

fn away(factor: f64, from: &[f64], to: &[f64]) -> Vec<f64> {
    from.iter().zip(to).map(|(from, to)| from + factor * (to - from)).collect()
}
