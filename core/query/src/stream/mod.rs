//! Functions that work on the rows of one output series in their order: transformations, predictors, technical
//! analysis, integral and sample.
//!
//! Owns what the arguments say ([`StreamSpec`]) and the state while rows go by ([`StreamState`]). Rows go in in the
//! order of the answer, without those that have no value, and come out as pairs of time and value.
//! Knows nothing of scans: where the rows come from is the plan's (see [`crate::join`]).

mod arguments;
mod holt_winters;
mod integral;
mod sample;
mod simplex;
mod smoothing;
mod technical;
mod transform;

pub(crate) use arguments::{StreamFunction, check_stream};

use crate::QueryError;
use crate::window::Windows;
use tidemill_column::{FieldType, Value};
use tidemill_influxql::{Call, Expr};

/// A function with its arguments read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StreamSpec {
    pub function: StreamFunction,
    /// Of derivative, elapsed and integral.
    unit_ns: i64,
    /// Rows, periods or forecasts.
    count: usize,
    /// The season of holt_winters.
    season: usize,
    /// Inputs before the first output, where it is said.
    hold: Option<usize>,
    warmup: Warmup,
    windows: Windows,
    descending: bool,
    seed: u64,
}

/// How the first values of an exponential average are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Warmup {
    Exponential,
    Simple,
    /// chande_momentum_oscillator alone: no average at all.
    None,
}

/// The rows that came out.
pub(crate) type Emitted = Vec<(i64, Value)>;

/// A function at work on one series.
pub(crate) trait StreamState {
    /// Takes the next row that has a value.
    fn push(&mut self, time: i64, value: Value, out: &mut Emitted);

    /// Does a piece of the work that is due before [`StreamState::end`], at most some hundred microseconds of it; returns
    /// whether that was the last. Nothing is pushed after the first call.
    fn prepare_end(&mut self) -> bool {
        true
    }

    /// The series has no more rows.
    fn end(&mut self, out: &mut Emitted) {
        let _ = out;
    }

    /// Bytes held, for budgets.
    fn byte_size(&self) -> usize {
        0
    }
}

const SECOND_NS: i64 = 1_000_000_000;

impl StreamSpec {
    /// What a call that was checked says. `windows` are those of the statement.
    pub(crate) fn of(
        function: StreamFunction,
        call: &Call,
        windows: &Windows,
        descending: bool,
        seed: u64,
    ) -> StreamSpec {
        let integer = |at: usize| match call.arguments.get(at) {
            Some(Expr::Integer(value)) => Some(*value),
            _ => None,
        };
        let is_over_windows = matches!(call.arguments.first(), Some(Expr::Call(_))) && windows.is_cut();
        let unit_default = match function {
            StreamFunction::Elapsed => 1,
            StreamFunction::Derivative { .. } if is_over_windows => windows.interval(),
            _ => SECOND_NS,
        };
        let unit =
            call.arguments.get(1).and_then(|unit| if let Expr::Duration(unit) = unit { Some(*unit) } else { None });
        let warmup = match call.arguments.get(3) {
            Some(Expr::String(name)) if name == "simple" => Warmup::Simple,
            Some(Expr::String(name)) if name == "none" => Warmup::None,
            None if function == StreamFunction::ChandeMomentumOscillator => Warmup::None,
            _ => Warmup::Exponential,
        };
        StreamSpec {
            function,
            unit_ns: unit.unwrap_or(unit_default),
            count: integer(1).and_then(|count| usize::try_from(count).ok()).unwrap_or(0),
            season: integer(2).and_then(|season| usize::try_from(season).ok()).unwrap_or(0),
            hold: integer(2).and_then(|hold| usize::try_from(hold).ok()),
            warmup,
            windows: windows.clone(),
            descending,
            seed,
        }
    }

    /// Windows before the time range that the function looks back to.
    pub(crate) fn windows_back(&self) -> u64 {
        match self.function {
            StreamFunction::Derivative { .. } | StreamFunction::Difference { .. } | StreamFunction::Elapsed => 1,
            StreamFunction::CumulativeSum
            | StreamFunction::HoltWinters { .. }
            | StreamFunction::Integral
            | StreamFunction::Sample => 0,
            _ => self.count.saturating_sub(1) as u64,
        }
    }

    /// Type of the result over values of type `input`.
    ///
    /// # Errors
    /// The function has no meaning for the type.
    pub(crate) fn result_type(&self, input: FieldType) -> Result<FieldType, QueryError> {
        if !self.function.accepts(input) {
            let kind = match input {
                FieldType::String => "string",
                FieldType::Boolean => "boolean",
                FieldType::Unsigned => "unsigned",
                FieldType::Integer => "integer",
                FieldType::Float => "float",
            };
            let name = self.function.name_in_type_errors();
            return Err(QueryError::invalid(format!(
                "unsupported {name} iterator type: *query.{kind}InterruptIterator"
            )));
        }
        Ok(match self.function {
            StreamFunction::Difference { .. } | StreamFunction::CumulativeSum | StreamFunction::Sample => input,
            StreamFunction::Elapsed => FieldType::Integer,
            _ => FieldType::Float,
        })
    }

    /// The state for a series.
    pub(crate) fn state(&self) -> Box<dyn StreamState> {
        match self.function {
            StreamFunction::Derivative { non_negative } => {
                Box::new(transform::Derivative::new(self.unit_ns, non_negative, self.descending))
            }
            StreamFunction::Difference { non_negative } => Box::new(transform::Difference::new(non_negative)),
            StreamFunction::Elapsed => Box::new(transform::Elapsed::new(self.unit_ns)),
            StreamFunction::MovingAverage => Box::new(transform::MovingAverage::new(self.count)),
            StreamFunction::CumulativeSum => Box::new(transform::CumulativeSum::default()),
            StreamFunction::HoltWinters { with_fit } => {
                Box::new(holt_winters::HoltWinters::new(self.count, self.season, with_fit, self.windows.interval()))
            }
            StreamFunction::Integral => {
                Box::new(integral::Integral::new(self.unit_ns, self.windows.clone(), self.descending))
            }
            StreamFunction::Sample => Box::new(sample::Sample::new(self.count, self.windows.clone(), self.seed)),
            _ => technical::state(self.function, self.count, self.hold, self.warmup),
        }
    }
}

/// A value as a float, if it is a number.
fn float(value: &Value) -> f64 {
    crate::math::number(value).unwrap_or(f64::NAN)
}
