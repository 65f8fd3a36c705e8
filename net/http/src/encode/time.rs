//! Instants as text.

use super::number::push_integer;
use crate::service::Zone;
use std::rc::Rc;

/// How `time` columns are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// RFC 3339 with as many digits of the second as there are.
    #[default]
    Rfc3339,
    /// A count of so many ns since the epoch, cut towards zero.
    Epoch { unit_ns: i64 },
}

impl TimeFormat {
    /// What the `epoch` parameter means; every word that is no unit stands for ns.
    pub fn from_parameter(epoch: &str) -> TimeFormat {
        let unit_ns = match epoch {
            "" => return TimeFormat::Rfc3339,
            "u" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => 1,
        };
        TimeFormat::Epoch { unit_ns }
    }
}

const SECONDS_PER_DAY: i64 = 86_400;
const NS_PER_SECOND: i64 = 1_000_000_000;

/// Prints RFC 3339 texts. Neighbours in an answer mostly share their day, so its text is kept.
pub(crate) struct TimeText {
    zone: Option<Rc<dyn Zone>>,
    /// Days since the epoch of `date`.
    day: i64,
    date: [u8; 10],
}

impl TimeText {
    pub(crate) fn new() -> TimeText {
        TimeText { zone: None, day: 0, date: *b"1970-01-01" }
    }

    pub(crate) fn set_zone(&mut self, zone: Option<Rc<dyn Zone>>) {
        self.zone = zone;
    }

    /// Appends the text of an instant, ns since the epoch.
    pub(crate) fn push(&mut self, out: &mut Vec<u8>, time_ns: i64) {
        let offset = self.zone.as_ref().map_or(0, |zone| zone.offset_seconds(time_ns));
        let seconds = time_ns.div_euclid(NS_PER_SECOND) + i64::from(offset);
        let fraction = time_ns.rem_euclid(NS_PER_SECOND) as u32;
        let day = seconds.div_euclid(SECONDS_PER_DAY);
        if day != self.day {
            self.day = day;
            self.date = date_text(day);
        }
        let second = seconds.rem_euclid(SECONDS_PER_DAY) as u32;
        let mut text = *b"0000-00-00T00:00:00.000000000";
        text[..10].copy_from_slice(&self.date);
        put_two_digits(&mut text, 11, second / 3600);
        put_two_digits(&mut text, 14, second / 60 % 60);
        put_two_digits(&mut text, 17, second % 60);
        let mut len = 19;
        if fraction != 0 {
            let mut rest = fraction;
            for at in (20..29).rev() {
                text[at] = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            len = 29;
            while text[len - 1] == b'0' {
                len -= 1;
            }
        }
        out.extend_from_slice(&text[..len]);
        push_offset(out, offset);
    }
}

fn put_two_digits(text: &mut [u8], at: usize, value: u32) {
    text[at] = b'0' + (value / 10) as u8;
    text[at + 1] = b'0' + (value % 10) as u8;
}

fn push_offset(out: &mut Vec<u8>, offset_seconds: i32) {
    if offset_seconds == 0 {
        return out.push(b'Z');
    }
    let minutes = offset_seconds.unsigned_abs() / 60;
    let mut text = *b"+00:00";
    if offset_seconds < 0 {
        text[0] = b'-';
    }
    put_two_digits(&mut text, 1, minutes / 60);
    put_two_digits(&mut text, 4, minutes % 60);
    out.extend_from_slice(&text);
}

/// `YYYY-MM-DD` of a day since the epoch. The instants of an i64 of ns lie in the years 1677 to 2262.
fn date_text(day: i64) -> [u8; 10] {
    // Days are counted from 0000-03-01, so that the leap day is the last of its year (Hinnant, "chrono-Compatible
    // Low-Level Date Algorithms").
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut text = *b"0000-00-00";
    put_two_digits(&mut text, 0, (year / 100) as u32);
    put_two_digits(&mut text, 2, (year % 100) as u32);
    put_two_digits(&mut text, 5, month as u32);
    put_two_digits(&mut text, 8, day_of_month as u32);
    text
}

/// Appends the integer that stands for an instant.
pub(crate) fn push_epoch(out: &mut Vec<u8>, time_ns: i64, unit_ns: i64) {
    push_integer(out, time_ns / unit_ns);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(i32);
    impl Zone for Fixed {
        fn offset_seconds(&self, _: i64) -> i32 {
            self.0
        }
    }

    fn text(time_ns: i64, offset: Option<i32>) -> String {
        let mut writer = TimeText::new();
        writer.set_zone(offset.map(|offset| Rc::new(Fixed(offset)) as Rc<dyn Zone>));
        let mut out = Vec::new();
        writer.push(&mut out, time_ns);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_look_as_clients_expect() {
        assert_eq!(text(0, None), "1970-01-01T00:00:00Z");
        assert_eq!(text(1, None), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(text(1_422_568_543_702_900_257, None), "2015-01-29T21:55:43.702900257Z");
        assert_eq!(text(1_422_568_543_700_000_000, None), "2015-01-29T21:55:43.7Z");
        assert_eq!(text(-1, None), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(text(10_000_000_000, Some(-5 * 3600)), "1969-12-31T19:00:10-05:00");
        assert_eq!(text(0, Some(19_800)), "1970-01-01T05:30:00+05:30");
        assert_eq!(text(i64::MIN + 2, None), "1677-09-21T00:12:43.145224194Z");
        assert_eq!(text(i64::MAX - 1, None), "2262-04-11T23:47:16.854775806Z");
        assert_eq!(text(951_782_400_000_000_000, None), "2000-02-29T00:00:00Z");
    }

    #[test]
    fn the_kept_day_is_renewed() {
        let mut writer = TimeText::new();
        let mut out = Vec::new();
        for day in [0, 1, 0, 365, -1] {
            writer.push(&mut out, day * 86_400_000_000_000);
            out.push(b' ');
        }
        let expected =
            "1970-01-01T00:00:00Z 1970-01-02T00:00:00Z 1970-01-01T00:00:00Z 1971-01-01T00:00:00Z 1969-12-31T00:00:00Z ";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn epochs_are_cut_towards_zero_and_unknown_units_are_ns() {
        for (parameter, expected) in
            [("ns", "-1999999999"), ("zz", "-1999999999"), ("u", "-1999999"), ("ms", "-1999"), ("s", "-1"), ("h", "0")]
        {
            let TimeFormat::Epoch { unit_ns } = TimeFormat::from_parameter(parameter) else { panic!("{parameter}") };
            let mut out = Vec::new();
            push_epoch(&mut out, -1_999_999_999, unit_ns);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        assert_eq!(TimeFormat::from_parameter(""), TimeFormat::Rfc3339);
    }
}
