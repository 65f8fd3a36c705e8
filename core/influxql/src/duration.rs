//! Durations: their text and their nanoseconds.

use std::fmt;

use crate::error::ParseError;

/// Largest unit first: the order in which printing tries them.
const UNITS: [(&str, i64); 8] = [
    ("w", 604_800_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("u", 1_000),
    ("ns", 1),
];

/// Reads `1h30m` and the like, without a sign, to nanoseconds.
///
/// # Errors
/// `invalid duration`, or the text for a value beyond `i64`.
pub fn parse_duration(text: &str) -> Result<i64, ParseError> {
    let invalid = || ParseError::without_position("invalid duration");
    let mut total: i64 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits_end = rest.find(|character: char| !character.is_ascii_digit()).ok_or_else(invalid)?;
        let (digits, after) = rest.split_at(digits_end);
        let count: i64 = digits.parse().map_err(|_| invalid())?;
        let after = after.strip_prefix('µ').map_or_else(|| after.to_owned(), |tail| format!("u{tail}"));
        // `ms` and `ns` before `m`: the longest unit that fits is meant.
        let (unit, nanoseconds) = UNITS
            .iter()
            .filter(|(unit, _)| after.starts_with(unit))
            .max_by_key(|(unit, _)| unit.len())
            .ok_or_else(invalid)?;
        total = count.checked_mul(*nanoseconds).and_then(|part| total.checked_add(part)).ok_or_else(|| {
            ParseError::without_position(format!("overflowed duration {count}{unit}: choose a smaller duration or INF"))
        })?;
        let unit_bytes = if rest.get(digits_end..).is_some_and(|tail| tail.starts_with('µ')) {
            'µ'.len_utf8()
        } else {
            unit.len()
        };
        rest = rest.get(digits_end.saturating_add(unit_bytes)..).unwrap_or_default();
    }
    Ok(total)
}

/// Most months that a text may name, a thousand years: more than there are between the first and the last instant.
pub(crate) const MONTHS_MAX: i64 = 12_000;

/// Reads `1mo`, `2y` and `1y6mo`, without a sign, to months; `None` for anything else.
pub(crate) fn parse_months(text: &str) -> Option<i64> {
    let mut total: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits_end = rest.find(|character: char| !character.is_ascii_digit())?;
        let (digits, after) = rest.split_at(digits_end);
        let count: i64 = digits.parse().ok()?;
        let (months, after) = match after.strip_prefix("mo") {
            Some(after) => (1, after),
            None => (12, after.strip_prefix('y')?),
        };
        total = count.checked_mul(months).and_then(|part| total.checked_add(part))?;
        rest = after;
    }
    (!text.is_empty() && total <= MONTHS_MAX).then_some(total)
}

/// Months that print in the largest unit that divides them: `18mo`, `2y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonthsText(pub i64);

impl fmt::Display for MonthsText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            months if months != 0 && months % 12 == 0 => write!(formatter, "{}y", months / 12),
            months => write!(formatter, "{months}mo"),
        }
    }
}

/// A duration in nanoseconds that prints in the largest unit that divides it: `90s`, `1m`, `1w`, `0s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationText(pub i64);

impl fmt::Display for DurationText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return formatter.write_str("0s");
        }
        match UNITS.iter().find(|(_, nanoseconds)| self.0 % nanoseconds == 0) {
            Some((unit, nanoseconds)) => write!(formatter, "{}{unit}", self.0 / nanoseconds),
            None => write!(formatter, "{}ns", self.0),
        }
    }
}

/// A duration in nanoseconds in Go's notation: `168h0m0s`, `1m30s`, `1.5s`, `0s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDurationText(pub i64);

impl fmt::Display for GoDurationText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.unsigned_abs();
        if self.0 < 0 {
            formatter.write_str("-")?;
        }
        let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
        if nanoseconds == 0 {
            return formatter.write_str("0s");
        }
        if seconds == 0 {
            let (unit, size) = match nanoseconds {
                1_000_000.. => ("ms", 1_000_000),
                1_000.. => ("µs", 1_000),
                _ => ("ns", 1),
            };
            return write!(formatter, "{}{unit}", decimal(nanoseconds / size, nanoseconds % size, size));
        }
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(formatter, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(formatter, "{minutes}m")?;
        }
        write!(formatter, "{}s", decimal(seconds % 60, fraction, 1_000_000_000))
    }
}

/// `whole.fraction` without trailing zeros; `size` is the power of ten that makes one whole.
fn decimal(whole: u64, fraction: u64, size: u64) -> String {
    if fraction == 0 {
        return whole.to_string();
    }
    let width = size.ilog10() as usize;
    format!("{whole}.{}", format!("{fraction:0width$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn months_are_read_and_printed() {
        for (text, months) in [("1mo", 1), ("2y", 24), ("1y6mo", 18), ("12000mo", 12_000), ("0mo", 0)] {
            assert_eq!(parse_months(text), Some(months), "{text}");
            assert_eq!(parse_months(&MonthsText(months).to_string()), Some(months));
        }
        for text in ["", "1", "mo", "1m", "1mo5d", "1d1mo", "12001mo", "99999999999999999999mo", "1yy"] {
            assert_eq!(parse_months(text), None, "{text}");
        }
    }

    #[test]
    fn printing_takes_the_largest_unit() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (90_000_000_000, "90s"),
            (60_000_000_000, "1m"),
            (604_800_000_000_000, "1w"),
            (8 * 86_400_000_000_000, "8d"),
            (1_001, "1001ns"),
            (1_500_000, "1500u"),
            (-90_000_000_000, "-90s"),
        ] {
            assert_eq!(DurationText(nanoseconds).to_string(), text);
        }
    }

    #[test]
    fn go_notation() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (604_800_000_000_000, "168h0m0s"),
            (5_400_000_000_000, "1h30m0s"),
            (90_000_000_000, "1m30s"),
            (1_500_000_000, "1.5s"),
            (1_500_000, "1.5ms"),
            (999, "999ns"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDurationText(nanoseconds).to_string(), text);
        }
    }

    #[test]
    fn malformed_and_overflowing() {
        for text in ["", "1", "1x", "h", "1h30", "1n", "1µs", "1us", "99999999999999999999h"] {
            assert_eq!(
                parse_duration(text).map_err(|error| error.to_string()),
                Err("invalid duration".into()),
                "{text}"
            );
        }
        let overflow = |part: &str| Err(format!("overflowed duration {part}: choose a smaller duration or INF"));
        assert_eq!(parse_duration("106752d").map_err(|error| error.to_string()), overflow("106752d"));
        assert_eq!(parse_duration("106751d100d").map_err(|error| error.to_string()), overflow("100d"));
        // Upstream lets this one wrap around to a wrong positive value.
        assert_eq!(parse_duration("99999999999999h").map_err(|error| error.to_string()), overflow("99999999999999h"));
    }

    proptest! {
        #[test]
        fn reading_what_was_printed(nanoseconds in 0..i64::MAX) {
            prop_assert_eq!(parse_duration(&DurationText(nanoseconds).to_string()), Ok(nanoseconds));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = parse_duration(&text);
        }
    }
}
