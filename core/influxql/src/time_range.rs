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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse_expr;

    const NOW: i64 = 1_600_000_000_000_000_000;

    fn split(text: &str) -> Result<(TimeRange, Option<String>), String> {
        let condition = parse_expr(text).unwrap();
        split_time(Some(&condition), &TimeContext::utc(NOW))
            .map(|(range, rest)| (range, rest.map(|rest| rest.to_string())))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn bounds_and_rest() {
        let day = 1_577_836_800_000_000_000;
        for (text, min_ns, max_ns, rest) in [
            ("time > 5", Some(6), None, None),
            ("time >= 5 AND time < 10", Some(5), Some(9), None),
            ("time = 5", Some(5), Some(5), None),
            ("5 < time", Some(6), None, None),
            ("TIME <= 5", None, Some(5), None),
            ("time > now() - 1s", Some(NOW - 999_999_999), None, None),
            ("time >= '2020-01-01'", Some(day), None, None),
            ("time >= '2020-01-01T00:00:00+01:00'", Some(day - 3_600_000_000_000), None, None),
            ("time >= '2020-01-01' + 1s", Some(day + 1_000_000_000), None, None),
            ("time >= 1.9", Some(1), None, None),
            ("time >= 1h", Some(3_600_000_000_000), None, None),
            ("time > 1 OR v = 2", Some(2), None, Some("v = 2")),
            ("(time > 1 AND (host = 'a'))", Some(2), None, Some("(host = 'a')")),
            ("(time > 1) AND (time < 9)", Some(2), Some(8), None),
            ("host = 'a' AND (v = 1 OR v = 2)", None, None, Some("host = 'a' AND (v = 1 OR v = 2)")),
            ("time > 9223372036854775807", Some(i64::MAX), None, None),
            ("true AND v = 1", None, None, Some("v = 1")),
            ("v = 7 / 2", None, None, Some("v = 3.500")),
            ("time + 1 > 2", None, None, Some("time + 1 > 2")),
        ] {
            let expected = (TimeRange { min_ns, max_ns }, rest.map(str::to_owned));
            assert_eq!(split(text), Ok(expected), "{text}");
        }
    }

    /// Observed from upstream.
    #[test]
    fn refusals() {
        for (text, expected) in [
            ("time = 'abc'", "invalid operation: time and *influxql.StringLiteral are not compatible"),
            ("time = true", "invalid operation: time and *influxql.BooleanLiteral are not compatible"),
            ("time = host", "invalid operation: time and *influxql.VarRef are not compatible"),
            ("time > foo()", "invalid operation: time and *influxql.Call are not compatible"),
            ("time =~ /a/", "invalid operation: time and *influxql.RegexLiteral are not compatible"),
            ("time > now() + 'a'", "invalid operation: time and *influxql.BinaryExpr are not compatible"),
            ("time > now() * 2", "invalid operation: time and *influxql.BinaryExpr are not compatible"),
            ("time > 9223372036854775808", "invalid operation: time and *influxql.UnsignedLiteral are not compatible"),
            ("time != 1", "invalid time comparison operator: !="),
            ("time > '2020-02-30'", "invalid timestamp string"),
            ("time > '2020-01-01T00:00:00'", "invalid timestamp string"),
            ("time > '1500-01-01'", "time 1500-01-01T00:00:00Z underflows time literal"),
            ("time > '2500-01-01'", "time 2500-01-01T00:00:00Z overflows time literal"),
            ("time", "invalid condition expression: time"),
            ("v AND time > 1", "invalid condition expression: v"),
        ] {
            assert_eq!(split(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn zone_less_literals_take_the_zone_of_the_caller() {
        let condition = parse_expr("time >= '2020-01-01' AND time < '2020-01-02T00:00:00Z'").unwrap();
        let east = TimeContext { now_ns: None, zone_offset_ns: &|_| 3_600_000_000_000 };
        let (range, _) = split_time(Some(&condition), &east).unwrap();
        assert_eq!(range.min_ns, Some(1_577_836_800_000_000_000 - 3_600_000_000_000));
        assert_eq!(range.max_ns, Some(1_577_836_800_000_000_000 + 86_400_000_000_000 - 1));
    }
}
