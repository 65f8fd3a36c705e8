//! The windows of GROUP BY time().
//!
//! Owns the arithmetic from an instant to its window, near the ends of time too: a window that would reach past the
//! smallest or largest instant is cut there.
//!
//! In a time zone windows are cut by the wall clock: a window begins when the clock first shows its start or a later
//! time. So a day has 23 or 25 hours when the clock is set, and what the clock shows a second time belongs to the
//! window that was open then. A window that is no longer than the step by which the clock is set cannot be stretched
//! like that: it ends where the clock is set, and windows go on from what the clock shows then. An offset moves the
//! windows by that time, whatever the clock does in it.
//! Windows of calendar months begin at the first instant of a month by the clock, UTC's without a zone; an offset is
//! months, or a time by which they are moved.
//! Invariant: windows tile time, in a time zone too. Upstream's do not around a few odd steps of the clock (windows of
//! 7 m, days of a zone whose clock goes back at midnight), and it depends on the first point there which ones are made.

use crate::zone::{Span, TimeZone};
use std::sync::Arc;
use tidemill_column::{TIME_MAX, TIME_MIN};

/// How time is cut into windows. Without an interval there is one window: the whole time range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// ns; 0 means one window for everything.
    interval: i64,
    /// ns, in `0..interval`.
    offset: i64,
    /// The offset with the sign that it was given, below the interval.
    signed_offset: i64,
    /// Time of the result of the only window.
    only_start: i64,
    /// Whose wall clock cuts; `None` for one that is never set.
    zone: Option<Arc<TimeZone>>,
    /// Months that cut; `interval` is then their length on average.
    calendar: Option<Calendar>,
}

/// Windows of so many months, counted from January 1970 and moved by some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Calendar {
    /// From 1.
    pub months: i64,
    pub offset_months: i64,
}

const DAY_NS: i128 = 86_400 * 1_000_000_000;
/// The clock of a zone that has none.
const UTC: [Span; 1] = [Span { start: i64::MIN, offset: 0 }];

impl Windows {
    /// The one window of a query without GROUP BY time(), whose results stand at the lower bound of `time_range`,
    /// or at the epoch if there is no lower bound.
    pub fn whole(time_range: (i64, i64)) -> Windows {
        let only_start = if time_range.0 <= TIME_MIN { 0 } else { time_range.0 };
        Windows { interval: 0, offset: 0, signed_offset: 0, only_start, zone: None, calendar: None }
    }

    /// Windows of `interval` ns, which start at multiples of it plus `offset`.
    ///
    /// # Panics
    /// If `interval` is not positive.
    pub fn every(interval: i64, offset: i64) -> Windows {
        assert!(interval > 0, "an interval of {interval} ns");
        let (signed_offset, offset) = (offset % interval, offset.rem_euclid(interval));
        Windows { interval, offset, signed_offset, only_start: 0, zone: None, calendar: None }
    }

    /// Windows of calendar months, `interval` ns long on average, all moved by `offset` ns.
    ///
    /// # Panics
    /// If there are no months in a window.
    pub(crate) fn of_calendar(calendar: Calendar, interval: i64, offset: i64) -> Windows {
        assert!(calendar.months > 0 && interval > 0, "a window of {} months", calendar.months);
        let calendar = Some(calendar);
        Windows { interval, offset: 0, signed_offset: offset, only_start: 0, zone: None, calendar }
    }

    /// Whether windows are calendar months.
    pub(crate) fn is_calendar(&self) -> bool {
        self.calendar.is_some()
    }

    /// The same windows by the wall clock of a zone.
    #[must_use]
    pub fn in_zone(mut self, zone: &Arc<TimeZone>) -> Windows {
        match zone.spans() {
            // A clock that is never set only moves the grid.
            [Span { offset, .. }] if self.interval > 0 && self.calendar.is_none() => {
                let ahead = offset.rem_euclid(self.interval);
                self.offset =
                    (i128::from(self.offset) - i128::from(ahead)).rem_euclid(i128::from(self.interval)) as i64;
            }
            _ => self.zone = Some(zone.clone()),
        }
        self
    }

    /// Whether time is cut at all.
    pub fn is_cut(&self) -> bool {
        self.interval > 0
    }

    /// ns; 0 without GROUP BY time(), and the average of calendar windows.
    pub fn interval(&self) -> i64 {
        self.interval
    }

    /// What all windows but those at the ends of time are long, ns; `None` when a clock or the calendar decides.
    pub fn step(&self) -> Option<i64> {
        (self.interval > 0 && self.zone.is_none() && self.calendar.is_none()).then_some(self.interval)
    }

    /// Start of the window that holds `time`, which is the time of its result.
    pub fn start(&self, time: i64) -> i64 {
        self.bounds(time).0
    }

    /// Start and last instant of the window that holds `time`.
    pub fn bounds(&self, time: i64) -> (i64, i64) {
        if self.interval == 0 {
            return (self.only_start, i64::MAX);
        }
        if self.zone.is_some() || self.calendar.is_some() {
            return self.bounds_by_clock(self.zone.as_ref().map_or(&UTC, |zone| zone.spans()), time);
        }
        // Both remainders are below the interval, so their difference does not overflow as `time - offset` may.
        let past = (time.rem_euclid(self.interval) - self.offset).rem_euclid(self.interval);
        let start = time.saturating_sub(past).max(TIME_MIN.min(time));
        let last = time.saturating_add(self.interval - past - 1).min(TIME_MAX.max(time));
        (start, last)
    }

    /// As [`Windows::bounds`], by the wall clock.
    fn bounds_by_clock(&self, spans: &[Span], time: i64) -> (i64, i64) {
        let offset = i128::from(self.signed_offset);
        // At the ends of time, where it would be without the offset is none.
        let (start, next) = self.bounds_without_offset(spans, i128::from(time) - offset);
        let start = i64::try_from(start + offset).unwrap_or(TIME_MIN).max(TIME_MIN.min(time));
        (start, i64::try_from(next + offset - 1).unwrap_or(TIME_MAX).min(TIME_MAX.max(time)))
    }

    /// Start of the window that holds `time`, and of the next one.
    fn bounds_without_offset(&self, spans: &[Span], time: i128) -> (i128, i128) {
        let at = spans.partition_point(|span| i128::from(span.start) <= time).saturating_sub(1);
        // The clock may show again what it has shown: the latest reading so far counts.
        let mut reading = time + i128::from(spans[at].offset);
        let mut earlier = at;
        while earlier > 0 && self.goes_on(spans, earlier) {
            let last_reading = end_reading(spans, earlier - 1) - 1;
            if last_reading <= reading {
                break;
            }
            reading = last_reading;
            earlier -= 1;
        }
        let (floor, floor_of_next) = self.grid(reading);

        let mut first = at;
        while first > 0 && self.goes_on(spans, first) && end_reading(spans, first - 1) > floor {
            first -= 1;
        }
        let start = instant(spans, first, floor);

        let mut last = at;
        while last + 1 < spans.len() && end_reading(spans, last) <= floor_of_next && self.goes_on(spans, last + 1) {
            last += 1;
        }
        let mut next = instant(spans, last, floor_of_next);
        if let Some(set) = spans.get(last + 1) {
            next = next.min(i128::from(set.start));
        }
        (start, next)
    }

    /// What the clock shows when the window of a reading begins, and when the next one does.
    fn grid(&self, reading: i128) -> (i128, i128) {
        let Some(calendar) = self.calendar else {
            let floor = reading - reading.rem_euclid(i128::from(self.interval));
            return (floor, floor + i128::from(self.interval));
        };
        let month = month_of_day(reading.div_euclid(DAY_NS));
        let months = i128::from(calendar.months);
        let first = month - (month - i128::from(calendar.offset_months)).rem_euclid(months);
        (first_day_of_month(first) * DAY_NS, first_day_of_month(first + months) * DAY_NS)
    }

    /// Whether windows go on where span `at` begins: the clock is set by less than a window.
    fn goes_on(&self, spans: &[Span], at: usize) -> bool {
        (spans[at].offset - spans[at - 1].offset).abs() < self.interval
    }

    /// Start of the window behind the one that holds `time`, unless time ends there.
    pub fn next_start(&self, time: i64) -> Option<i64> {
        let (_, last) = self.bounds(time);
        (self.interval > 0 && last < TIME_MAX).then(|| last + 1)
    }

    /// Start of the window before the one that holds `time`, unless time begins there.
    pub fn previous_start(&self, time: i64) -> Option<i64> {
        let (start, _) = self.bounds(time);
        (self.interval > 0 && start > TIME_MIN).then(|| self.start(start - 1))
    }

    /// As [`Windows::next_start`], for a time that is a start already: no division but at the ends of time.
    pub fn following(&self, start: i64) -> Option<i64> {
        match self.step().and_then(|step| start.checked_add(step)) {
            Some(next) if start > TIME_MIN && next <= TIME_MAX - self.interval => Some(next),
            _ => self.next_start(start),
        }
    }

    /// As [`Windows::previous_start`], for a time that is a start already.
    pub fn preceding(&self, start: i64) -> Option<i64> {
        match self.step().and_then(|step| start.checked_sub(step)) {
            Some(previous) if previous > TIME_MIN => Some(previous),
            _ => self.previous_start(start),
        }
    }

    /// Windows from the one that holds `first` to the one that holds `last`, by their length alone, as upstream counts.
    pub fn count(&self, first: i64, last: i64) -> u64 {
        if self.interval == 0 {
            return 1;
        }
        let span = i128::from(self.start(last)) - i128::from(self.start(first));
        // Months are as many as fit best on average.
        let rounding = if self.is_calendar() { i128::from(self.interval / 2) } else { 0 };
        u64::try_from((span + rounding) / i128::from(self.interval) + 1).unwrap_or(0)
    }
}

/// Days of 400 years, after which the calendar repeats itself, and those from March 1 of year 0 to the epoch.
const CYCLE_DAYS: i128 = 146_097;
const EPOCH_DAY: i128 = 719_468;

/// The month that holds a day, both counted from January 1970. Years are taken to begin in March, so that the day that
/// some have more is their last (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn month_of_day(day: i128) -> i128 {
    let (cycle, of_cycle) = ((day + EPOCH_DAY).div_euclid(CYCLE_DAYS), (day + EPOCH_DAY).rem_euclid(CYCLE_DAYS));
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    // From March.
    let month = (5 * of_year + 2) / 153;
    (cycle * 400 + year - 1970) * 12 + month + 2
}

/// The first day of a month, as [`month_of_day`] counts.
fn first_day_of_month(month: i128) -> i128 {
    let since_march = month - 2 + 1970 * 12;
    let (year, month) = (since_march.div_euclid(12), since_march.rem_euclid(12));
    let (cycle, of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5;
    cycle * CYCLE_DAYS + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year - EPOCH_DAY
}

/// What the clock is about to show when span `at` ends.
fn end_reading(spans: &[Span], at: usize) -> i128 {
    let end = spans.get(at + 1).map_or(i128::from(i64::MAX) + 1, |next| i128::from(next.start));
    end + i128::from(spans[at].offset)
}

/// When the clock of span `at` shows a reading, which may be before the span only if the clock never showed it. The first
/// span has no begin: its start is that of time.
fn instant(spans: &[Span], at: usize, reading: i128) -> i128 {
    let shown = reading - i128::from(spans[at].offset);
    if at == 0 { shown } else { shown.max(i128::from(spans[at].start)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn offsets_move_windows_as_documented() {
        let windows = Windows::every(10 * SECOND, 2 * SECOND);
        assert_eq!(windows.start(3 * SECOND), 2 * SECOND);
        assert_eq!(windows.start(19 * SECOND), 12 * SECOND);
        let windows = Windows::every(10 * SECOND, -3 * SECOND);
        assert_eq!(windows.start(3 * SECOND), -3 * SECOND);
        assert_eq!(windows.start(20 * SECOND), 17 * SECOND);
    }

    #[test]
    fn without_an_interval_results_stand_at_the_lower_bound() {
        assert_eq!(Windows::whole((7, 9)).start(8), 7);
        assert_eq!(Windows::whole((TIME_MIN, 9)).start(8), 0);
        assert_eq!(Windows::whole((7, 9)).next_start(8), None);
    }

    /// Windows of a zone around an instant: from the one that holds it, so many.
    fn starts(windows: &Windows, first: i64, count: usize) -> Vec<i64> {
        let next = |start: &i64| windows.next_start(*start);
        std::iter::successors(Some(windows.start(first)), next).take(count).map(|start| start / SECOND).collect()
    }

    fn zone(name: &str) -> Arc<TimeZone> {
        Arc::new(TimeZone::named(name).unwrap())
    }

    const HOUR: i64 = 3600 * SECOND;
    const DAY: i64 = 24 * HOUR;
    /// When the clocks of New York go forward, and back.
    const FORWARD: i64 = 1_583_650_800 * SECOND;
    const BACK: i64 = 1_604_210_400 * SECOND;

    #[test]
    fn days_are_those_of_the_calendar() {
        let days = Windows::every(DAY, 0).in_zone(&zone("America/New_York"));
        let hours = |start: i64| {
            let starts = starts(&days, start, 4);
            starts.windows(2).map(|pair| (pair[1] - pair[0]) / 3600).collect::<Vec<_>>()
        };
        assert_eq!(hours(FORWARD - DAY), [24, 23, 24]);
        assert_eq!(hours(BACK - DAY), [24, 25, 24]);
        assert_eq!(days.start(FORWARD), FORWARD - 2 * HOUR);
        // Where the clock skips midnight, the day begins with the first hour that there is.
        let days = Windows::every(DAY, 0).in_zone(&zone("America/Sao_Paulo"));
        let skipped = 1_541_300_400 * SECOND;
        assert_eq!(starts(&days, skipped - 1, 3), [1_541_214_000, 1_541_300_400, 1_541_383_200]);
    }

    #[test]
    fn windows_of_hours_swallow_the_hour_that_comes_twice() {
        let windows = Windows::every(2 * HOUR, 0).in_zone(&zone("America/New_York"));
        let before = BACK - 2 * HOUR;
        assert_eq!(windows.bounds(BACK), (before, BACK + HOUR - 1));
        assert_eq!(windows.bounds(before), (before, BACK + HOUR - 1));
        let windows = Windows::every(2 * HOUR, 0).in_zone(&zone("America/New_York"));
        assert_eq!(windows.bounds(FORWARD), (FORWARD, FORWARD + HOUR - 1));
    }

    #[test]
    fn short_windows_come_twice() {
        let windows = Windows::every(HOUR / 2, 0).in_zone(&zone("America/New_York"));
        let expected: Vec<i64> = (0..6).map(|half| (BACK - HOUR + half * HOUR / 2) / SECOND).collect();
        assert_eq!(starts(&windows, BACK - HOUR, 6), expected);
    }

    fn months(months: i64, offset_months: i64, offset: i64) -> Windows {
        Windows::of_calendar(Calendar { months, offset_months }, months * 2_629_746 * SECOND, offset)
    }

    /// Seconds of UTC's midnights.
    fn day(text: &str) -> i64 {
        format!("{text}T00:00:00Z").parse::<jiff::Timestamp>().unwrap().as_second()
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let days = |texts: &[&str]| texts.iter().map(|text| day(text)).collect::<Vec<_>>();
        let leap = starts(&months(1, 0, 0), day("2020-01-31") * SECOND, 4);
        assert_eq!(leap, days(&["2020-01-01", "2020-02-01", "2020-03-01", "2020-04-01"]));
        let fiscal = starts(&months(12, 3, 0), day("2020-03-31") * SECOND, 3);
        assert_eq!(fiscal, days(&["2019-04-01", "2020-04-01", "2021-04-01"]));
        let quarters = starts(&months(3, 0, 0), day("1969-12-31") * SECOND, 2);
        assert_eq!(quarters, days(&["1969-10-01", "1970-01-01"]));
        let moved = starts(&months(1, 0, 14 * DAY), day("2021-03-14") * SECOND, 3);
        assert_eq!(moved, days(&["2021-02-15", "2021-03-15", "2021-04-15"]));
        assert_eq!(months(1, 0, 0).count(day("2021-01-01") * SECOND, day("2021-12-31") * SECOND), 12);
    }

    #[test]
    fn months_of_a_zone_begin_at_its_midnight() {
        let new_york = months(1, 0, 0).in_zone(&zone("America/New_York"));
        let expected = [day("2020-03-01") + 5 * 3600, day("2020-04-01") + 4 * 3600];
        assert_eq!(starts(&new_york, day("2020-03-20") * SECOND, 2), expected);
        let kolkata = months(12, 0, 0).in_zone(&zone("Asia/Kolkata"));
        assert_eq!(starts(&kolkata, day("2020-06-01") * SECOND, 1), [day("2020-01-01") - 19_800]);
    }

    #[test]
    fn days_and_months_convert() {
        let mut expected = first_day_of_month(-12 * 400);
        for month in -12 * 400..12 * 400 {
            let first = first_day_of_month(month);
            assert_eq!(first, expected, "month {month}");
            let (year, number) = ((1970 + month.div_euclid(12)), month.rem_euclid(12) + 1);
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let days = match number {
                2 => 28 + i128::from(is_leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = first + days;
            assert_eq!((month_of_day(first), month_of_day(expected - 1)), (month, month));
        }
        assert_eq!(first_day_of_month(0), 0);
    }

    proptest! {
        #[test]
        fn calendar_windows_tile_time(
            time in TIME_MIN..=TIME_MAX,
            count in 1..60i64,
            offset_months in -100..100i64,
            offset in -400 * DAY..400 * DAY,
            name in proptest::sample::select(vec!["UTC", "America/New_York", "Pacific/Apia", "Asia/Kolkata"]),
        ) {
            let windows = months(count, offset_months, offset).in_zone(&zone(name));
            let (start, last) = windows.bounds(time);
            prop_assert!(start <= time && time <= last, "{start} {time} {last}");
            prop_assert_eq!(windows.bounds(start), (start, last));
            prop_assert_eq!(windows.bounds(last), (start, last));
            if let Some(next) = windows.next_start(time) {
                prop_assert_eq!(windows.start(next), next);
                prop_assert_eq!(windows.previous_start(next), Some(start));
                prop_assert_eq!(windows.following(start), Some(next));
                prop_assert_eq!(windows.preceding(next), Some(start));
            }
        }

        #[test]
        fn windows_of_zones_tile_time(
            time in TIME_MIN..=TIME_MAX,
            name in proptest::sample::select(vec![
                "America/New_York", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Africa/Casablanca",
                "Pacific/Apia", "Asia/Kolkata", "Antarctica/Troll", "America/Sao_Paulo", "Asia/Pyongyang",
            ]),
            unit in proptest::sample::select(vec![1, SECOND, 60 * SECOND, HOUR, DAY]),
            count in 1..400i64,
            offset: i64,
            near in 0..2000usize,
            away in -3 * HOUR..3 * HOUR,
        ) {
            let zone = zone(name);
            let windows = Windows::every(unit * count, offset).in_zone(&zone);
            let set = zone.spans().get(near).map_or(time, |span| span.start.saturating_add(away));
            for time in [time, set.clamp(TIME_MIN, TIME_MAX)] {
                let (start, last) = windows.bounds(time);
                prop_assert!(start <= time && time <= last, "{start} {time} {last}");
                prop_assert_eq!(windows.bounds(start), (start, last));
                prop_assert_eq!(windows.bounds(last), (start, last));
                if let Some(next) = windows.next_start(time) {
                    prop_assert_eq!(windows.start(next), next);
                    prop_assert_eq!(windows.previous_start(next), Some(start));
                    prop_assert_eq!(windows.following(start), Some(next));
                    prop_assert_eq!(windows.preceding(next), Some(start));
                }
            }
        }

        #[test]
        fn windows_tile_time(time in TIME_MIN..=TIME_MAX, interval in 1..=i64::MAX, offset: i64) {
            let windows = Windows::every(interval, offset);
            let (start, last) = windows.bounds(time);
            prop_assert!(start <= time && time <= last);
            prop_assert!(start >= TIME_MIN && last <= TIME_MAX);
            prop_assert_eq!(windows.bounds(start).0, start);
            prop_assert_eq!(windows.bounds(last), (start, last));
            if let Some(next) = windows.next_start(time) {
                prop_assert_eq!(windows.start(next), next);
                prop_assert_eq!(windows.previous_start(next), Some(start));
                prop_assert_eq!(windows.following(start), Some(next));
                prop_assert_eq!(windows.preceding(next), Some(start));
            }
        }

        #[test]
        fn the_ends_of_time_have_windows(interval in 1..=i64::MAX, offset: i64) {
            let windows = Windows::every(interval, offset);
            prop_assert!(windows.next_start(TIME_MAX).is_none());
            prop_assert!(windows.previous_start(TIME_MIN).is_none());
            prop_assert!(windows.count(TIME_MIN, TIME_MAX) >= 1);
        }
    }
}
