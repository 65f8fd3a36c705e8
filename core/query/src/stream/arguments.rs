//! The names of these functions, and the rules about their arguments. The texts are upstream's.

use super::holt_winters::SEASON_MAX;
use crate::QueryError;
use crate::functions::{check_call, check_field};
use tidemill_column::FieldType;
use tidemill_influxql::{Call, DurationText, Expr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamFunction {
    Derivative { non_negative: bool },
    Difference { non_negative: bool },
    Elapsed,
    MovingAverage,
    CumulativeSum,
    HoltWinters { with_fit: bool },
    Integral,
    Sample,
    ExponentialMovingAverage,
    DoubleExponentialMovingAverage,
    TripleExponentialMovingAverage,
    TripleExponentialDerivative,
    RelativeStrengthIndex,
    ChandeMomentumOscillator,
    KaufmansEfficiencyRatio,
    KaufmansAdaptiveMovingAverage,
}

use StreamFunction::*;

/// Names, in no order.
const NAMES: [(&str, StreamFunction); 19] = [
    ("derivative", Derivative { non_negative: false }),
    ("non_negative_derivative", Derivative { non_negative: true }),
    ("difference", Difference { non_negative: false }),
    ("non_negative_difference", Difference { non_negative: true }),
    ("elapsed", Elapsed),
    ("moving_average", MovingAverage),
    ("cumulative_sum", CumulativeSum),
    ("holt_winters", HoltWinters { with_fit: false }),
    ("holt_winters_with_fit", HoltWinters { with_fit: true }),
    ("integral", Integral),
    ("sample", Sample),
    ("exponential_moving_average", ExponentialMovingAverage),
    ("double_exponential_moving_average", DoubleExponentialMovingAverage),
    ("triple_exponential_moving_average", TripleExponentialMovingAverage),
    ("triple_exponential_derivative", TripleExponentialDerivative),
    ("relative_strength_index", RelativeStrengthIndex),
    ("chande_momentum_oscillator", ChandeMomentumOscillator),
    ("kaufmans_efficiency_ratio", KaufmansEfficiencyRatio),
    ("kaufmans_adaptive_moving_average", KaufmansAdaptiveMovingAverage),
];

impl StreamFunction {
    pub(crate) fn named(name: &str) -> Option<StreamFunction> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
    }

    pub(crate) fn accepts(self, field_type: FieldType) -> bool {
        match field_type {
            FieldType::Float | FieldType::Integer => true,
            FieldType::Unsigned => !matches!(self, HoltWinters { .. }),
            FieldType::String | FieldType::Boolean => matches!(self, Elapsed | Sample),
        }
    }

    /// What an unsupported type is blamed on.
    pub(super) fn name_in_type_errors(self) -> String {
        match self {
            Derivative { .. } => "derivative".to_owned(),
            Difference { .. } => "difference".to_owned(),
            // Upstream's own slip.
            HoltWinters { .. } | Sample => "elapsed".to_owned(),
            other => {
                let name = NAMES.iter().find(|(_, function)| *function == other).map_or("", |(name, _)| name);
                name.replace('_', " ")
            }
        }
    }

    fn is_technical(self) -> bool {
        !matches!(
            self,
            Derivative { .. }
                | Difference { .. }
                | Elapsed
                | MovingAverage
                | CumulativeSum
                | HoltWinters { .. }
                | Integral
                | Sample
        )
    }

    fn is_of_kaufman(self) -> bool {
        matches!(self, KaufmansEfficiencyRatio | KaufmansAdaptiveMovingAverage)
    }
}

/// Checks a call. `cut` tells whether there is a GROUP BY time(), and whether there is one here or around.
///
/// # Errors
/// The arguments are not those of the function.
pub(crate) fn check_stream(
    function: StreamFunction,
    call: &Call,
    wildcards: bool,
    limit: u64,
    cut: (bool, bool),
) -> Result<(), QueryError> {
    let (name, arguments) = (call.name.as_str(), call.arguments.as_slice());
    check_count(function, name, arguments.len())?;
    let second = arguments.get(1);
    match function {
        Derivative { .. } | Elapsed => check_unit(second, |found| {
            format!("second argument to {name} must be a duration, got {}", found.kind_name())
        })?,
        Integral => check_unit(second, |_| "second argument must be a duration".to_owned())?,
        MovingAverage => match second {
            Some(Expr::Integer(count)) if *count > 1 => {}
            Some(Expr::Integer(count)) => {
                return invalid(format!("moving_average window must be greater than 1, got {count}"));
            }
            Some(other) => {
                let kind = other.kind_name();
                return invalid(format!("second argument for moving_average must be an integer, got {kind}"));
            }
            None => {}
        },
        Sample => match second {
            Some(Expr::Integer(count)) if *count > 0 => {}
            Some(Expr::Integer(count)) => return invalid(format!("sample window must be greater than 1, got {count}")),
            _ => return invalid("expected integer argument in sample()".to_owned()),
        },
        HoltWinters { .. } => check_holt_winters(name, arguments)?,
        function if function.is_technical() => check_technical(function, name, arguments)?,
        _ => {}
    }
    match arguments.first() {
        Some(Expr::Call(inner)) if !matches!(function, Integral | Sample) => {
            if !cut.1 {
                return invalid(format!("{name} aggregate requires a GROUP BY interval"));
            }
            check_inner(inner, limit, wildcards, cut)
        }
        Some(_) if matches!(function, HoltWinters { .. }) => {
            invalid(format!("must use aggregate function with {name}"))
        }
        Some(_) if cut.0 && !matches!(function, Integral | Sample) => {
            invalid(format!("aggregate function required inside the call to {name}"))
        }
        Some(field) => check_field(name, field, wildcards),
        None => Ok(()),
    }
}

fn check_inner(inner: &Call, limit: u64, wildcards: bool, cut: (bool, bool)) -> Result<(), QueryError> {
    match StreamFunction::named(&inner.name) {
        Some(function) => check_stream(function, inner, wildcards, limit, cut),
        None => check_call(inner, wildcards, limit).map(|_| ()),
    }
}

fn check_count(function: StreamFunction, name: &str, got: usize) -> Result<(), QueryError> {
    let between = |min: usize, max: usize| {
        if (min..=max).contains(&got) {
            return Ok(());
        }
        invalid(format!(
            "invalid number of arguments for {name}, expected at least {min} but no more than {max}, got {got}"
        ))
    };
    let exactly = |expected: usize| {
        if got == expected {
            return Ok(());
        }
        invalid(format!("invalid number of arguments for {name}, expected {expected}, got {got}"))
    };
    match function {
        Derivative { .. } | Elapsed | Integral => between(1, 2),
        Difference { .. } | CumulativeSum => exactly(1),
        MovingAverage | Sample => exactly(2),
        HoltWinters { .. } => exactly(3),
        function if function.is_of_kaufman() => between(2, 3),
        _ => between(2, 4),
    }
}

fn check_unit(unit: Option<&Expr>, text: impl Fn(&Expr) -> String) -> Result<(), QueryError> {
    match unit {
        None => Ok(()),
        Some(Expr::Duration(unit)) if *unit > 0 => Ok(()),
        Some(Expr::Duration(unit)) => {
            invalid(format!("duration argument must be positive, got {}", DurationText(*unit)))
        }
        Some(other) => invalid(text(other)),
    }
}

fn check_holt_winters(name: &str, arguments: &[Expr]) -> Result<(), QueryError> {
    match arguments.get(1) {
        Some(Expr::Integer(count)) if *count > 0 => {}
        Some(Expr::Integer(count)) => {
            return invalid(format!("second arg to {name} must be greater than 0, got {count}"));
        }
        _ => return invalid(format!("expected integer argument as second arg in {name}")),
    }
    match arguments.get(2) {
        Some(Expr::Integer(season)) if *season > SEASON_MAX as i64 => {
            invalid(format!("third arg to {name} cannot be more than {SEASON_MAX}, got {season}"))
        }
        Some(Expr::Integer(season)) if *season >= 0 => Ok(()),
        Some(Expr::Integer(season)) => invalid(format!("third arg to {name} cannot be negative, got {season}")),
        _ => invalid(format!("expected integer argument as third arg in {name}")),
    }
}

fn check_technical(function: StreamFunction, name: &str, arguments: &[Expr]) -> Result<(), QueryError> {
    match arguments.get(1) {
        Some(Expr::Integer(period)) if *period >= 1 => {}
        Some(Expr::Integer(_)) => return invalid(format!("{name} period must be greater than or equal to 1")),
        _ => return invalid(format!("{name} period must be an integer")),
    }
    let hold_min = i64::from(function == TripleExponentialDerivative);
    match arguments.get(2) {
        None | Some(Expr::Integer(-1)) => {}
        Some(Expr::Integer(hold)) if *hold >= hold_min => {}
        Some(Expr::Integer(_)) => {
            return invalid(format!("{name} hold period must be greater than or equal to {hold_min}"));
        }
        Some(_) => return invalid(format!("{name} hold period must be an integer")),
    }
    let has_none = function == ChandeMomentumOscillator;
    match arguments.get(3) {
        None => Ok(()),
        Some(Expr::String(warmup)) => match warmup.as_str() {
            "exponential" | "simple" => Ok(()),
            "none" if has_none => Ok(()),
            _ => {
                let none = if has_none { "'none' " } else { "" };
                invalid(format!("{name} warmup type must be one of: {none}'exponential' 'simple'"))
            }
        },
        Some(_) => invalid(format!("{name} warmup type must be a string")),
    }
}

fn invalid(text: String) -> Result<(), QueryError> {
    Err(QueryError::invalid(text))
}
