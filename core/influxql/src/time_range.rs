//! The time bounds of a condition, apart from the rest of it.

use crate::expression::{BinaryOperator, Expr};
use crate::reduce::TimeContext;
use crate::timestamp::{SecondsText, TimeText, parse_time_text};

/// The earliest time a query can name. The two values below it are sentinels of the storage format.
pub const TIME_MIN_NS: i64 = i64::MIN + 2;
/// The latest time a query can name.
pub const TIME_MAX_NS: i64 = i64::MAX - 1;

/// Bounds in nanoseconds since the epoch, both inclusive; `None` where the condition gives none.
/// Empty when the lower bound lies above the upper one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TimeRange {
    pub min_ns: Option<i64>,
    pub max_ns: Option<i64>,
}

impl TimeRange {
    /// The lower bound, or the earliest time there is.
    pub fn min_or_first(&self) -> i64 {
        self.min_ns.unwrap_or(TIME_MIN_NS)
    }

    /// The upper bound, or the latest time there is.
    pub fn max_or_last(&self) -> i64 {
        self.max_ns.unwrap_or(TIME_MAX_NS)
    }

    pub fn is_empty(&self) -> bool {
        self.min_or_first() > self.max_or_last()
    }

    /// The times that lie in both.
    #[must_use]
    pub fn intersect(&self, other: &TimeRange) -> TimeRange {
        let min_ns = match (self.min_ns, other.min_ns) {
            (Some(one), Some(two)) => Some(one.max(two)),
            (one, two) => one.or(two),
        };
        let max_ns = match (self.max_ns, other.max_ns) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        TimeRange { min_ns, max_ns }
    }
}

/// Why a condition is refused, in upstream's words. Statement level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    #[error("invalid operation: time and {kind} are not compatible")]
    NotATime { kind: &'static str },
    #[error("invalid time comparison operator: {operator}")]
    Operator { operator: &'static str },
    #[error("invalid timestamp string")]
    Timestamp,
    #[error("time {literal} overflows time literal")]
    Overflow { literal: String },
    #[error("time {literal} underflows time literal")]
    Underflow { literal: String },
    #[error("invalid condition expression: {expr}")]
    NotACondition { expr: String },
}

/// Splits a condition into its time bounds and what remains, reduced; `None` when nothing remains.
/// Bounds are intersected wherever they stand, beside `OR` as well: upstream gives no other meaning to them.
///
/// # Errors
/// A comparison with `time` that upstream refuses, or something that is no condition.
pub fn split_time(
    condition: Option<&Expr>,
    context: &TimeContext<'_>,
) -> Result<(TimeRange, Option<Expr>), ConditionError> {
    match condition {
        None => Ok((TimeRange::default(), None)),
        Some(condition) => split(condition, context),
    }
}

fn split(condition: &Expr, context: &TimeContext<'_>) -> Result<(TimeRange, Option<Expr>), ConditionError> {
    match condition {
        Expr::Binary { operator, left, right } if operator.is_logical() => {
            let (left_range, left) = split(left, context)?;
            let (right_range, right) = split(right, context)?;
            let rest = match (left, right) {
                (Some(left), Some(right)) => Some(Expr::binary(*operator, left, right).reduce_top(context)),
                (one, two) => one.or(two),
            };
            Ok((left_range.intersect(&right_range), rest))
        }
        Expr::Binary { operator, left, right } => {
            if is_time(left) {
                return Ok((time_bounds(*operator, right, context)?, None));
            }
            if is_time(right) {
                return Ok((time_bounds(operator.mirrored(), left, context)?, None));
            }
            Ok((TimeRange::default(), Some(condition.clone().reduce(context))))
        }
        Expr::Paren(inner) => {
            let (range, rest) = split(inner, context)?;
            Ok((range, rest.map(|rest| if matches!(rest, Expr::Binary { .. }) { Expr::paren(rest) } else { rest })))
        }
        Expr::Boolean(_) => Ok((TimeRange::default(), Some(condition.clone()))),
        other => Err(ConditionError::NotACondition { expr: other.to_string() }),
    }
}

impl Expr {
    /// Reduces this node, whose children are reduced already, so that long conditions are not walked again and again.
    fn reduce_top(self, context: &TimeContext<'_>) -> Expr {
        match self {
            Expr::Binary { operator, left, right }
                if matches!((&*left, &*right), (Expr::Boolean(_), _) | (_, Expr::Boolean(_))) =>
            {
                Expr::Binary { operator, left, right }.reduce(context)
            }
            other => other,
        }
    }
}

fn is_time(expr: &Expr) -> bool {
    matches!(expr, Expr::VarRef(reference) if reference.is_time())
}

fn time_bounds(operator: BinaryOperator, value: &Expr, context: &TimeContext<'_>) -> Result<TimeRange, ConditionError> {
    let value_ns = time_value(value, context)?;
    let range = match operator {
        BinaryOperator::Greater => TimeRange { min_ns: Some(value_ns.saturating_add(1)), max_ns: None },
        BinaryOperator::GreaterOrEqual => TimeRange { min_ns: Some(value_ns), max_ns: None },
        BinaryOperator::Less => TimeRange { min_ns: None, max_ns: Some(value_ns.saturating_sub(1)) },
        BinaryOperator::LessOrEqual => TimeRange { min_ns: None, max_ns: Some(value_ns) },
        BinaryOperator::Equal => TimeRange { min_ns: Some(value_ns), max_ns: Some(value_ns) },
        other => return Err(ConditionError::Operator { operator: other.symbol() }),
    };
    Ok(range)
}

fn time_value(value: &Expr, context: &TimeContext<'_>) -> Result<i64, ConditionError> {
    if let Expr::String(text) = value {
        return match parse_time_text(text) {
            TimeText::NotATime => Err(ConditionError::NotATime { kind: value.kind_name() }),
            TimeText::Malformed => Err(ConditionError::Timestamp),
            TimeText::Instant(instant) => checked_time(instant),
            TimeText::Local(local) => checked_time(context.instant_of(local)),
        };
    }
    match value.clone().reduce(context) {
        Expr::Time(nanoseconds) => checked_time(i128::from(nanoseconds)),
        Expr::Duration(nanoseconds) | Expr::Integer(nanoseconds) => Ok(nanoseconds),
        #[expect(clippy::cast_possible_truncation, reason = "a float bound is cut to whole nanoseconds")]
        Expr::Number(nanoseconds) => Ok(nanoseconds as i64),
        other => Err(ConditionError::NotATime { kind: other.kind_name() }),
    }
}

fn checked_time(instant: i128) -> Result<i64, ConditionError> {
    match i64::try_from(instant) {
        Ok(nanoseconds) if (TIME_MIN_NS + 1..=TIME_MAX_NS).contains(&nanoseconds) => Ok(nanoseconds),
        _ if instant > 0 => Err(ConditionError::Overflow { literal: SecondsText(instant).to_string() }),
        _ => Err(ConditionError::Underflow { literal: SecondsText(instant).to_string() }),
    }
}
