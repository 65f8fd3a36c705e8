//! What `GROUP BY time(..)` says.

use crate::expression::{Call, Expr};
use crate::select::SelectStatement;

/// What a month is long on average in the Gregorian calendar, ns.
const MONTH_NS: i64 = 2_629_746 * 1_000_000_000;

/// `GROUP BY time(interval, offset)`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeDimension {
    /// Nanoseconds; of calendar windows the length on average. Zero or less means no windows.
    pub interval_ns: i64,
    /// Calendar months of a window; 0 if windows are `interval_ns` long.
    pub months: i64,
    pub offset: TimeOffset,
}

/// Where windows start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeOffset {
    /// Nanoseconds after the epoch-aligned start; 0 when not written.
    Duration(i64),
    /// Calendar months after January, only of calendar windows.
    Months(i64),
    /// `now()`: windows start at the time of planning, modulo the interval.
    Now,
}

/// A dimension that upstream refuses, with its text. Statement level, except in `CREATE CONTINUOUS QUERY`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DimensionError {
    #[error("only time() calls allowed in dimensions")]
    OtherCall,
    #[error("time dimension expected 1 or 2 arguments")]
    ArgumentCount,
    #[error("time dimension must have duration argument")]
    IntervalNotDuration,
    #[error("multiple time dimensions not allowed")]
    Multiple,
    #[error("time dimension offset must be duration or now()")]
    OffsetNotDuration,
    #[error("time dimension offset function must be now()")]
    OffsetOtherCall,
    #[error("time dimension offset now() function requires no arguments")]
    OffsetNowArguments,
    #[error("time dimension offset of calendar windows must be a duration")]
    CalendarOffset,
    #[error("time dimension offset in months is for calendar windows only")]
    OffsetInMonths,
    #[error("time() is a function and expects at least one argument")]
    TimeWithoutCall,
    #[error("only time and tag dimensions allowed")]
    NotATag,
}

impl SelectStatement {
    /// The `time(..)` dimension, all dimensions checked.
    ///
    /// # Errors
    /// The first dimension that upstream refuses.
    pub fn time_dimension(&self) -> Result<Option<TimeDimension>, DimensionError> {
        let mut found = None;
        for dimension in &self.dimensions {
            match dimension.without_parens() {
                Expr::Call(call) => {
                    let time = time_dimension_of(call)?;
                    if found.replace(time).is_some() {
                        return Err(DimensionError::Multiple);
                    }
                }
                Expr::VarRef(name) if name.is_time() => return Err(DimensionError::TimeWithoutCall),
                Expr::VarRef(_) | Expr::Wildcard(_) | Expr::Regex(_) => {}
                _ => return Err(DimensionError::NotATag),
            }
        }
        Ok(found)
    }
}

/// The first `time(..)` of the dimensions; the others are not looked at.
pub(crate) fn group_by_time(dimensions: &[Expr]) -> Result<Option<TimeDimension>, DimensionError> {
    let mut calls = dimensions.iter().filter_map(|dimension| match dimension {
        Expr::Call(call) if call.name == "time" => Some(call),
        _ => None,
    });
    calls.next().map(time_dimension_of).transpose()
}

fn time_dimension_of(call: &Call) -> Result<TimeDimension, DimensionError> {
    if call.name != "time" {
        return Err(DimensionError::OtherCall);
    }
    let (interval, offset) = match call.arguments.as_slice() {
        [interval] => (interval, None),
        [interval, offset] => (interval, Some(offset)),
        _ => return Err(DimensionError::ArgumentCount),
    };
    let (interval_ns, months) = match *interval {
        Expr::Duration(interval_ns) => (interval_ns, 0),
        Expr::Months(months) => (months.saturating_mul(MONTH_NS), months.max(0)),
        _ => return Err(DimensionError::IntervalNotDuration),
    };
    let offset = match offset {
        None => TimeOffset::Duration(0),
        Some(Expr::Duration(nanoseconds)) => TimeOffset::Duration(*nanoseconds),
        Some(Expr::Months(_)) if months == 0 => return Err(DimensionError::OffsetInMonths),
        Some(Expr::Months(offset)) => TimeOffset::Months(*offset),
        Some(Expr::Call(call)) if call.name != "now" => return Err(DimensionError::OffsetOtherCall),
        Some(Expr::Call(call)) if !call.arguments.is_empty() => return Err(DimensionError::OffsetNowArguments),
        Some(Expr::Call(_)) if months > 0 => return Err(DimensionError::CalendarOffset),
        Some(Expr::Call(_)) => TimeOffset::Now,
        Some(_) => return Err(DimensionError::OffsetNotDuration),
    };
    Ok(TimeDimension { interval_ns, months, offset })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse_statement;
    use crate::statement::Statement;

    fn dimension(group_by: &str) -> Result<Option<TimeDimension>, String> {
        let Statement::Select(select) = parse_statement(&format!("SELECT mean(v) FROM n GROUP BY {group_by}")).unwrap()
        else {
            panic!("a SELECT")
        };
        select.time_dimension().map_err(|error| error.to_string())
    }

    #[test]
    fn months_are_dimensions() {
        let calendar = |months: i64, offset| Ok(Some(TimeDimension { interval_ns: months * MONTH_NS, months, offset }));
        assert_eq!(dimension("time(1mo)"), calendar(1, TimeOffset::Duration(0)));
        assert_eq!(dimension("time(1y, -3mo)"), calendar(12, TimeOffset::Months(-3)));
        assert_eq!(dimension("time(3mo, 2d)"), calendar(3, TimeOffset::Duration(172_800_000_000_000)));
    }

    /// Observed from upstream.
    #[test]
    fn time_and_refusals() {
        let time = |interval_ns, offset| Ok(Some(TimeDimension { interval_ns, months: 0, offset }));
        assert_eq!(dimension("host, *, /a/"), Ok(None));
        assert_eq!(dimension("host, time(10s)"), time(10_000_000_000, TimeOffset::Duration(0)));
        assert_eq!(dimension("time(10s, -3s)"), time(10_000_000_000, TimeOffset::Duration(-3_000_000_000)));
        assert_eq!(dimension("time(10s, now())"), time(10_000_000_000, TimeOffset::Now));
        for (group_by, expected) in [
            ("foo(1)", "only time() calls allowed in dimensions"),
            ("time()", "time dimension expected 1 or 2 arguments"),
            ("time(1)", "time dimension must have duration argument"),
            ("time(1s), time(2s)", "multiple time dimensions not allowed"),
            ("1", "only time and tag dimensions allowed"),
            ("v + 1", "only time and tag dimensions allowed"),
            ("time(10s, 'x')", "time dimension offset must be duration or now()"),
            ("time(10s, foo())", "time dimension offset function must be now()"),
            ("time", "time() is a function and expects at least one argument"),
            ("time(1mo, now())", "time dimension offset of calendar windows must be a duration"),
            ("time(1d, 1mo)", "time dimension offset in months is for calendar windows only"),
        ] {
            assert_eq!(dimension(group_by), Err(expected.to_owned()), "{group_by}");
        }
    }
}
