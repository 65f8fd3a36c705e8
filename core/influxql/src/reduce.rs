//! Evaluation of the constant parts of an expression.

use crate::expression::{BinaryOperator, Expr};
use crate::timestamp::{TimeText, parse_time_text};

/// What the words of time mean while an expression is reduced.
#[derive(Clone, Copy)]
pub struct TimeContext<'a> {
    /// What `now()` is, nanoseconds since the epoch. `None` leaves `now()` alone.
    pub now_ns: Option<i64>,
    /// For a wall clock reading, in nanoseconds since the epoch as if it were UTC, how many nanoseconds east of UTC
    /// that clock is.
    pub zone_offset_ns: &'a dyn Fn(i64) -> i64,
}

impl TimeContext<'_> {
    /// Zone-less literals are UTC.
    pub fn utc(now_ns: i64) -> Self {
        TimeContext { now_ns: Some(now_ns), zone_offset_ns: &|_| 0 }
    }

    /// The instant of a local reading.
    pub(crate) fn instant_of(&self, local: i128) -> i128 {
        let clamped = local.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        let offset = i64::try_from(clamped).map_or(0, |reading| (self.zone_offset_ns)(reading));
        local - i128::from(offset)
    }

    fn time_of(&self, text: &str) -> Option<i64> {
        match parse_time_text(text) {
            TimeText::Instant(instant) => i64::try_from(instant).ok(),
            TimeText::Local(local) => i64::try_from(self.instant_of(local)).ok(),
            TimeText::NotATime | TimeText::Malformed => None,
        }
    }
}

impl Expr {
    /// Folds what can be known without data: literal arithmetic and comparisons, `now()`, `AND` and `OR` with a
    /// literal, parentheses around anything but an operator. Integers wrap; division by zero gives 0.
    #[must_use]
    pub fn reduce(self, context: &TimeContext<'_>) -> Expr {
        self.rewrite(&mut |expr| match expr {
            Expr::Paren(inner) if !matches!(*inner, Expr::Binary { .. }) => *inner,
            Expr::Call(call) if call.name == "now" && call.arguments.is_empty() => match context.now_ns {
                Some(now_ns) => Expr::Time(now_ns),
                None => Expr::Call(call),
            },
            Expr::Binary { operator, left, right } => match reduce_binary(operator, &left, &right, context) {
                Some(reduced) => reduced,
                None => Expr::Binary { operator, left, right },
            },
            other => other,
        })
    }
}

fn reduce_binary(operator: BinaryOperator, left: &Expr, right: &Expr, context: &TimeContext<'_>) -> Option<Expr> {
    match (operator, left, right) {
        (BinaryOperator::And, Expr::Boolean(false), _) | (BinaryOperator::And, _, Expr::Boolean(false)) => {
            Some(Expr::Boolean(false))
        }
        (BinaryOperator::Or, Expr::Boolean(true), _) | (BinaryOperator::Or, _, Expr::Boolean(true)) => {
            Some(Expr::Boolean(true))
        }
        (BinaryOperator::And, Expr::Boolean(true), other)
        | (BinaryOperator::And, other, Expr::Boolean(true))
        | (BinaryOperator::Or, Expr::Boolean(false), other)
        | (BinaryOperator::Or, other, Expr::Boolean(false)) => Some(other.clone()),
        _ => reduce_literals(operator, left, right, context),
    }
}

fn reduce_literals(operator: BinaryOperator, left: &Expr, right: &Expr, context: &TimeContext<'_>) -> Option<Expr> {
    match (left, right) {
        (Expr::Integer(left), Expr::Integer(right)) => integers(operator, *left, *right),
        (Expr::Unsigned(left), Expr::Unsigned(right)) => unsigned(operator, *left, *right),
        (Expr::Unsigned(left), Expr::Integer(right)) => unsigned(operator, *left, u64::try_from(*right).ok()?),
        (Expr::Integer(left), Expr::Unsigned(right)) => unsigned(operator, u64::try_from(*left).ok()?, *right),
        (
            Expr::Number(_) | Expr::Integer(_) | Expr::Unsigned(_),
            Expr::Number(_) | Expr::Integer(_) | Expr::Unsigned(_),
        ) => numbers(operator, float_of(left)?, float_of(right)?),
        (Expr::Boolean(left), Expr::Boolean(right)) => booleans(operator, *left, *right),
        (Expr::Duration(left), Expr::Duration(right)) => durations(operator, *left, *right),
        (Expr::Duration(left), Expr::Integer(_) | Expr::Number(_)) => scaled_duration(operator, *left, right),
        (Expr::Integer(left), Expr::Duration(right)) => match operator {
            BinaryOperator::Multiply => Some(Expr::Duration(left.wrapping_mul(*right))),
            _ => durations(operator, *left, *right),
        },
        (Expr::Number(_), Expr::Duration(right)) if operator == BinaryOperator::Multiply => {
            scaled_duration(operator, *right, left)
        }
        (Expr::String(left), Expr::String(right)) => strings(operator, left, right, context),
        (Expr::Time(left), Expr::Time(right)) => times(operator, *left, *right),
        (Expr::Time(left), Expr::Duration(right) | Expr::Integer(right)) => shifted_time(operator, *left, *right),
        (Expr::Duration(left) | Expr::Integer(left), Expr::Time(right)) if operator == BinaryOperator::Add => {
            shifted_time(operator, *right, *left)
        }
        (Expr::String(left), Expr::Duration(right) | Expr::Integer(right)) => {
            shifted_time(operator, context.time_of(left)?, *right)
        }
        (Expr::Duration(left) | Expr::Integer(left), Expr::String(right)) if operator == BinaryOperator::Add => {
            shifted_time(operator, context.time_of(right)?, *left)
        }
        (Expr::String(left), Expr::Time(right)) => times(operator, context.time_of(left)?, *right),
        (Expr::Time(left), Expr::String(right)) => times(operator, *left, context.time_of(right)?),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "literals of mixed kinds are compared as floats")]
fn float_of(literal: &Expr) -> Option<f64> {
    match literal {
        Expr::Number(value) => Some(*value),
        Expr::Integer(value) => Some(*value as f64),
        Expr::Unsigned(value) => Some(*value as f64),
        _ => None,
    }
}

fn comparison<T: PartialOrd>(operator: BinaryOperator, left: &T, right: &T) -> Option<Expr> {
    Some(Expr::Boolean(match operator {
        BinaryOperator::Equal => left == right,
        BinaryOperator::NotEqual => left != right,
        BinaryOperator::Less => left < right,
        BinaryOperator::LessOrEqual => left <= right,
        BinaryOperator::Greater => left > right,
        BinaryOperator::GreaterOrEqual => left >= right,
        _ => return None,
    }))
}

/// Division of integer literals is true division, as it is in the field list.
#[expect(clippy::cast_precision_loss, reason = "true division of integers is defined through floats")]
fn integers(operator: BinaryOperator, left: i64, right: i64) -> Option<Expr> {
    Some(match operator {
        BinaryOperator::Add => Expr::Integer(left.wrapping_add(right)),
        BinaryOperator::Subtract => Expr::Integer(left.wrapping_sub(right)),
        BinaryOperator::Multiply => Expr::Integer(left.wrapping_mul(right)),
        BinaryOperator::Divide if right == 0 => Expr::Number(0.0),
        BinaryOperator::Divide => Expr::Number(left as f64 / right as f64),
        BinaryOperator::Modulo if right == 0 => Expr::Integer(0),
        BinaryOperator::Modulo => Expr::Integer(left.wrapping_rem(right)),
        BinaryOperator::BitwiseAnd => Expr::Integer(left & right),
        BinaryOperator::BitwiseOr => Expr::Integer(left | right),
        BinaryOperator::BitwiseXor => Expr::Integer(left ^ right),
        _ => return comparison(operator, &left, &right),
    })
}

fn unsigned(operator: BinaryOperator, left: u64, right: u64) -> Option<Expr> {
    Some(match operator {
        BinaryOperator::Add => Expr::Unsigned(left.wrapping_add(right)),
        BinaryOperator::Subtract => Expr::Unsigned(left.wrapping_sub(right)),
        BinaryOperator::Multiply => Expr::Unsigned(left.wrapping_mul(right)),
        BinaryOperator::Divide => Expr::Unsigned(left.checked_div(right).unwrap_or(0)),
        BinaryOperator::Modulo => Expr::Unsigned(left.checked_rem(right).unwrap_or(0)),
        BinaryOperator::BitwiseAnd => Expr::Unsigned(left & right),
        BinaryOperator::BitwiseOr => Expr::Unsigned(left | right),
        BinaryOperator::BitwiseXor => Expr::Unsigned(left ^ right),
        _ => return comparison(operator, &left, &right),
    })
}

fn numbers(operator: BinaryOperator, left: f64, right: f64) -> Option<Expr> {
    Some(Expr::Number(match operator {
        BinaryOperator::Add => left + right,
        BinaryOperator::Subtract => left - right,
        BinaryOperator::Multiply => left * right,
        BinaryOperator::Divide if right == 0.0 => 0.0,
        BinaryOperator::Divide => left / right,
        BinaryOperator::Modulo => left % right,
        _ => return comparison(operator, &left, &right),
    }))
}

fn booleans(operator: BinaryOperator, left: bool, right: bool) -> Option<Expr> {
    Some(Expr::Boolean(match operator {
        BinaryOperator::Equal => left == right,
        BinaryOperator::NotEqual | BinaryOperator::BitwiseXor => left != right,
        BinaryOperator::And | BinaryOperator::BitwiseAnd => left && right,
        BinaryOperator::Or | BinaryOperator::BitwiseOr => left || right,
        _ => return None,
    }))
}

fn durations(operator: BinaryOperator, left: i64, right: i64) -> Option<Expr> {
    match operator {
        BinaryOperator::Add => Some(Expr::Duration(left.wrapping_add(right))),
        BinaryOperator::Subtract => Some(Expr::Duration(left.wrapping_sub(right))),
        _ => comparison(operator, &left, &right),
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a duration times a float is rounded")]
fn scaled_duration(operator: BinaryOperator, duration: i64, factor: &Expr) -> Option<Expr> {
    let nanoseconds = match (operator, factor) {
        (BinaryOperator::Multiply, Expr::Integer(factor)) => duration.wrapping_mul(*factor),
        (BinaryOperator::Divide, Expr::Integer(0)) => 0,
        (BinaryOperator::Divide, Expr::Integer(factor)) => duration.wrapping_div(*factor),
        (BinaryOperator::Multiply, Expr::Number(factor)) => (duration as f64 * factor) as i64,
        (BinaryOperator::Divide, Expr::Number(factor)) if *factor == 0.0 => 0,
        (BinaryOperator::Divide, Expr::Number(factor)) => (duration as f64 / factor) as i64,
        (_, Expr::Integer(other)) => return durations(operator, duration, *other),
        _ => return None,
    };
    Some(Expr::Duration(nanoseconds))
}

fn strings(operator: BinaryOperator, left: &str, right: &str, context: &TimeContext<'_>) -> Option<Expr> {
    match operator {
        BinaryOperator::Equal => Some(Expr::Boolean(left == right)),
        BinaryOperator::NotEqual => Some(Expr::Boolean(left != right)),
        BinaryOperator::Add => Some(Expr::String(format!("{left}{right}"))),
        _ => times(operator, context.time_of(left)?, context.time_of(right)?),
    }
}

fn times(operator: BinaryOperator, left: i64, right: i64) -> Option<Expr> {
    match operator {
        BinaryOperator::Subtract => Some(Expr::Duration(left.saturating_sub(right))),
        _ => comparison(operator, &left, &right),
    }
}

/// A time that would leave 64 bits stays unreduced, and is then refused as no time.
fn shifted_time(operator: BinaryOperator, time: i64, by: i64) -> Option<Expr> {
    match operator {
        BinaryOperator::Add => time.checked_add(by).map(Expr::Time),
        BinaryOperator::Subtract => time.checked_sub(by).map(Expr::Time),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse_expr;
    use proptest::prelude::*;

    fn reduced(text: &str) -> String {
        let reduced = parse_expr(text).unwrap().reduce(&TimeContext::utc(1_000_000_000));
        format!("{reduced:#}")
    }

    #[test]
    fn constants_are_folded() {
        for (text, expected) in [
            ("7 / 2 + v", "3.5 + v"),
            ("1 + 2 * 3", "7"),
            ("7 % 0", "0"),
            ("1 / 0", "0.0"),
            ("1.0 / 0", "0.0"),
            ("(1 + 2) * v", "3 * v"),
            ("((v))", "v"),
            ("(v + 1) * 2", "(v + 1) * 2"),
            ("9223372036854775807 + 1", "-9223372036854775808"),
            ("18446744073709551615 + 1", "0"),
            ("18446744073709551615 - -1", "18446744073709551615 - -1"),
            ("1 < 2 AND v > 1", "v > 1"),
            ("1 > 2 OR v > 1", "v > 1"),
            ("true OR v > 1", "true"),
            ("false AND v > 1", "false"),
            ("'a' + 'b'", "'ab'"),
            ("'a' = 'b'", "false"),
            ("1h + 30m", "90m"),
            ("1h * 2", "2h"),
            ("2 * 1h", "2h"),
            ("1h / 0", "0s"),
            ("now() - 1s", "'1970-01-01T00:00:00Z'"),
            ("now() - now()", "0s"),
            ("'2020-01-02' - '2020-01-01'", "1d"),
            ("'2020-01-01' + 1d", "'2020-01-02T00:00:00Z'"),
            ("f(1 + 1, v)", "f(2, v)"),
        ] {
            assert_eq!(reduced(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_constants_reduce_without_panic(
            left in prop::sample::select(LITERALS.to_vec()),
            operator in prop::sample::select(OPERATORS.to_vec()),
            right in prop::sample::select(LITERALS.to_vec()),
        ) {
            let _ = reduced(&format!("{left} {operator} {right}"));
        }
    }

    const LITERALS: [&str; 16] = [
        "0",
        "1",
        "-1",
        "-9223372036854775808",
        "9223372036854775807",
        "18446744073709551615",
        "0.0",
        "-1.5",
        "99999999999999999999999.5",
        "'x'",
        "'2020-01-01'",
        "'9999-01-01'",
        "now()",
        "106751d",
        "0s",
        "true",
    ];
    const OPERATORS: [&str; 12] = ["+", "-", "*", "/", "%", "&", "|", "^", "=", "<", "AND", "OR"];
}
