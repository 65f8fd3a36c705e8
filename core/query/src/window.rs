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
}

impl Windows {
    /// The one window of a query without GROUP BY time(), whose results stand at the lower bound of `time_range`,
    /// or at the epoch if there is no lower bound.
    pub fn whole(time_range: (i64, i64)) -> Windows {
        let only_start = if time_range.0 <= TIME_MIN { 0 } else { time_range.0 };
        Windows { interval: 0, offset: 0, signed_offset: 0, only_start, zone: None }
    }

    /// Windows of `interval` ns, which start at multiples of it plus `offset`.
    ///
    /// # Panics
    /// If `interval` is not positive.
    pub fn every(interval: i64, offset: i64) -> Windows {
        assert!(interval > 0, "an interval of {interval} ns");
        let (signed_offset, offset) = (offset % interval, offset.rem_euclid(interval));
        Windows { interval, offset, signed_offset, only_start: 0, zone: None }
    }

    /// The same windows by the wall clock of a zone.
    #[must_use]
    pub fn in_zone(mut self, zone: &Arc<TimeZone>) -> Windows {
        match zone.spans() {
            // A clock that is never set only moves the grid.
            [Span { offset, .. }] if self.interval > 0 => {
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

    /// ns; 0 without GROUP BY time().
    pub fn interval(&self) -> i64 {
        self.interval
    }

    /// What all windows but those at the ends of time are long, ns; `None` when a clock is set.
    pub fn step(&self) -> Option<i64> {
        (self.interval > 0 && self.zone.is_none()).then_some(self.interval)
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
        if let Some(zone) = &self.zone {
            return self.bounds_by_clock(zone, time);
        }
        // Both remainders are below the interval, so their difference does not overflow as `time - offset` may.
        let past = (time.rem_euclid(self.interval) - self.offset).rem_euclid(self.interval);
        let start = time.saturating_sub(past).max(TIME_MIN.min(time));
        let last = time.saturating_add(self.interval - past - 1).min(TIME_MAX.max(time));
        (start, last)
    }

    /// As [`Windows::bounds`], by the wall clock.
    fn bounds_by_clock(&self, zone: &TimeZone, time: i64) -> (i64, i64) {
        let offset = i128::from(self.signed_offset);
        let moved = (i128::from(time) - offset).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        let (start, next) = self.bounds_without_offset(zone, moved);
        let start = i64::try_from(start + offset).unwrap_or(TIME_MIN).max(TIME_MIN.min(time));
        (start, i64::try_from(next + offset - 1).unwrap_or(TIME_MAX).min(TIME_MAX.max(time)))
    }

    /// Start of the window that holds `time`, and of the next one.
    fn bounds_without_offset(&self, zone: &TimeZone, time: i64) -> (i128, i128) {
        let interval = i128::from(self.interval);
        let spans = zone.spans();
        let at = zone.span_at(time);
        // The clock may show again what it has shown: the latest reading so far counts.
        let mut reading = i128::from(time) + i128::from(spans[at].offset);
        let mut earlier = at;
        while earlier > 0 && self.goes_on(spans, earlier) {
            let last_reading = end_reading(spans, earlier - 1) - 1;
            if last_reading <= reading {
                break;
            }
            reading = last_reading;
            earlier -= 1;
        }
        let floor = reading - reading.rem_euclid(interval);

        let mut first = at;
        while first > 0 && self.goes_on(spans, first) && end_reading(spans, first - 1) > floor {
            first -= 1;
        }
        let start = instant(spans, first, floor);

        let mut last = at;
        while last + 1 < spans.len() && end_reading(spans, last) <= floor + interval && self.goes_on(spans, last + 1) {
            last += 1;
        }
        let mut next = instant(spans, last, floor + interval);
        if let Some(set) = spans.get(last + 1) {
            next = next.min(i128::from(set.start));
        }
        (start, next)
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
        u64::try_from(span / i128::from(self.interval) + 1).unwrap_or(0)
    }
}

/// What the clock is about to show when span `at` ends.
fn end_reading(spans: &[Span], at: usize) -> i128 {
    let end = spans.get(at + 1).map_or(i128::from(i64::MAX) + 1, |next| i128::from(next.start));
    end + i128::from(spans[at].offset)
}

/// When the clock of span `at` shows a reading, which may be before the span only if the clock never showed it.
fn instant(spans: &[Span], at: usize, reading: i128) -> i128 {
    (reading - i128::from(spans[at].offset)).max(i128::from(spans[at].start))
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

    proptest! {
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
