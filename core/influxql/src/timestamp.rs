//! Time literals: `'2020-01-01'`, `'2020-01-01 00:00:00.5'`, RFC 3339, and back to RFC 3339.
//!
//! Knows the calendar but no time zones: the offset of a zone-less literal comes from the caller.

use std::fmt;

const NANOSECONDS: i128 = 1_000_000_000;

/// What a string is when it is compared with `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeText {
    /// Does not begin like a date.
    NotATime,
    /// Begins like a date and is none that exists.
    Malformed,
    /// Nanoseconds since the epoch. The literal may lie beyond what 64 bits hold.
    Instant(i128),
    /// Nanoseconds since the epoch as if the wall clock were UTC.
    Local(i128),
}

/// Reads the forms that upstream takes.
pub fn parse_time_text(text: &str) -> TimeText {
    let mut reader = Reader { rest: text.as_bytes() };
    let Some(date) = reader.date() else { return TimeText::NotATime };
    let Some(days) = date.days() else { return TimeText::Malformed };
    let midnight = i128::from(days) * 86_400 * NANOSECONDS;
    match reader.byte() {
        None => TimeText::Local(midnight),
        Some(b' ') => match reader.clock() {
            Some(clock) if reader.rest.is_empty() => TimeText::Local(midnight + clock),
            _ => TimeText::Malformed,
        },
        Some(b'T') => match (reader.clock(), reader.zone()) {
            (Some(clock), Some(offset)) if reader.rest.is_empty() => TimeText::Instant(midnight + clock - offset),
            _ => TimeText::Malformed,
        },
        Some(_) => TimeText::Malformed,
    }
}

struct Date {
    year: i64,
    month: i64,
    day: i64,
}

impl Date {
    /// Days since 1970-01-01, if there is such a date. The era arithmetic of the proleptic Gregorian calendar:
    /// years are counted from March, so that the leap day is the last of its year.
    fn days(&self) -> Option<i64> {
        let is_leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let length = match self.month {
            2 => 28 + i64::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        if self.day < 1 || self.day > length {
            return None;
        }
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        Some(era * 146_097 + day_of_era - 719_468)
    }

    fn from_days(days: i64) -> Self {
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year, month, day: day_of_year - (153 * shifted_month + 2) / 5 + 1 }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn literal(&mut self, wanted: u8) -> Option<()> {
        (self.byte()? == wanted).then_some(())
    }

    fn digits(&mut self, count: usize) -> Option<i64> {
        let mut value = 0;
        for _ in 0..count {
            let digit = self.byte().filter(u8::is_ascii_digit)?;
            value = value * 10 + i64::from(digit - b'0');
        }
        Some(value)
    }

    fn date(&mut self) -> Option<Date> {
        let year = self.digits(4)?;
        self.literal(b'-')?;
        let month = self.digits(2)?;
        self.literal(b'-')?;
        Some(Date { year, month, day: self.digits(2)? })
    }

    /// `H:MM:SS` or `HH:MM:SS` with any fraction, in nanoseconds; digits beyond the ninth are dropped.
    fn clock(&mut self) -> Option<i128> {
        let has_two_digits = self.rest.get(1).is_some_and(u8::is_ascii_digit);
        let hour = self.digits(if has_two_digits { 2 } else { 1 })?;
        self.literal(b':')?;
        let minute = self.digits(2)?;
        self.literal(b':')?;
        let second = self.digits(2)?;
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let mut nanoseconds = i128::from(hour * 3600 + minute * 60 + second) * NANOSECONDS;
        if self.rest.first() == Some(&b'.') {
            self.byte();
            let mut scale = NANOSECONDS / 10;
            self.rest.first().filter(|byte| byte.is_ascii_digit())?;
            while let Some(digit) = self.rest.first().copied().filter(u8::is_ascii_digit) {
                self.byte();
                nanoseconds += i128::from(digit - b'0') * scale;
                scale /= 10;
            }
        }
        Some(nanoseconds)
    }

    /// `Z` or `+HH:MM`, in nanoseconds east of UTC.
    fn zone(&mut self) -> Option<i128> {
        let sign = match self.byte()? {
            b'Z' => return Some(0),
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let hours = self.digits(2)?;
        self.literal(b':')?;
        let minutes = self.digits(2)?;
        (hours <= 24 && minutes < 60).then_some(sign * i128::from(hours * 3600 + minutes * 60) * NANOSECONDS)
    }
}

/// Nanoseconds since the epoch as RFC 3339 in UTC, trailing zeros of the fraction left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampText(pub i64);

impl fmt::Display for TimestampText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_instant(i128::from(self.0), true, formatter)
    }
}

/// As [`TimestampText`], but for any instant and without its fraction.
pub(crate) struct SecondsText(pub(crate) i128);

impl fmt::Display for SecondsText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_instant(self.0, false, formatter)
    }
}

fn write_instant(nanoseconds: i128, with_fraction: bool, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let seconds = nanoseconds.div_euclid(NANOSECONDS);
    let fraction = nanoseconds.rem_euclid(NANOSECONDS);
    let Date { year, month, day } = Date::from_days(i64::try_from(seconds.div_euclid(86_400)).unwrap_or(0));
    let clock = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    write!(formatter, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
    if with_fraction && fraction > 0 {
        write!(formatter, ".{}", format!("{fraction:09}").trim_end_matches('0'))?;
    }
    formatter.write_str("Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_forms() {
        let noon = 1_577_880_000 * NANOSECONDS;
        for (text, expected) in [
            ("2020-01-01", TimeText::Local(noon - 43_200 * NANOSECONDS)),
            ("2020-01-01 12:00:00", TimeText::Local(noon)),
            ("2020-01-01 12:00:00.5", TimeText::Local(noon + NANOSECONDS / 2)),
            ("2020-01-01T12:00:00Z", TimeText::Instant(noon)),
            ("2020-01-01T14:00:00.000000001+02:00", TimeText::Instant(noon + 1)),
            ("2020-01-01T12:00:00", TimeText::Malformed),
            ("2020-01-01 12:00:00Z", TimeText::Malformed),
            ("2020-01-01 12:00", TimeText::Malformed),
            ("2020-02-30", TimeText::Malformed),
            ("2020-13-01", TimeText::Malformed),
            ("2020-01-01 24:00:00", TimeText::Malformed),
            ("2020-1-1", TimeText::NotATime),
            ("", TimeText::NotATime),
            ("abc", TimeText::NotATime),
        ] {
            assert_eq!(parse_time_text(text), expected, "{text}");
        }
        assert!(matches!(parse_time_text("1500-01-01"), TimeText::Local(instant) if instant < i128::from(i64::MIN)));
    }

    #[test]
    fn leap_days() {
        for (text, exists) in [("2000-02-29", true), ("1900-02-29", false), ("2024-02-29", true), ("2023-02-29", false)]
        {
            assert_eq!(parse_time_text(text) != TimeText::Malformed, exists, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_what_was_printed(nanoseconds in any::<i64>()) {
            let text = TimestampText(nanoseconds).to_string();
            prop_assert_eq!(parse_time_text(&text), TimeText::Instant(i128::from(nanoseconds)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}.*") {
            let _ = parse_time_text(&text);
        }
    }
}
