//! The windows of GROUP BY time().
//!
//! Owns the arithmetic from an instant to its window, near the ends of time too: a window that would reach past the
//! smallest or largest instant is cut there. Knows nothing of time zones.

use tidemill_column::{TIME_MAX, TIME_MIN};

/// How time is cut into windows. Without an interval there is one window: the whole time range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// ns; 0 means one window for everything.
    interval: i64,
    /// ns, in `0..interval`.
    offset: i64,
    /// Time of the result of the only window.
    only_start: i64,
}

impl Windows {
    /// The one window of a query without GROUP BY time(), whose results stand at the lower bound of `time_range`,
    /// or at the epoch if there is no lower bound.
    pub fn whole(time_range: (i64, i64)) -> Windows {
        let only_start = if time_range.0 <= TIME_MIN { 0 } else { time_range.0 };
        Windows { interval: 0, offset: 0, only_start }
    }

    /// Windows of `interval` ns, which start at multiples of it plus `offset`.
    ///
    /// # Panics
    /// If `interval` is not positive.
    pub fn every(interval: i64, offset: i64) -> Windows {
        assert!(interval > 0, "an interval of {interval} ns");
        Windows { interval, offset: offset.rem_euclid(interval), only_start: 0 }
    }

    /// Whether time is cut at all.
    pub fn is_cut(&self) -> bool {
        self.interval > 0
    }

    /// ns; 0 without GROUP BY time().
    pub fn interval(&self) -> i64 {
        self.interval
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
        // Both remainders are below the interval, so their difference does not overflow as `time - offset` may.
        let past = (time.rem_euclid(self.interval) - self.offset).rem_euclid(self.interval);
        let start = time.saturating_sub(past).max(TIME_MIN.min(time));
        let last = time.saturating_add(self.interval - past - 1).min(TIME_MAX.max(time));
        (start, last)
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
        match start.checked_add(self.interval) {
            Some(next) if self.interval > 0 && start > TIME_MIN && next <= TIME_MAX - self.interval => Some(next),
            _ => self.next_start(start),
        }
    }

    /// As [`Windows::previous_start`], for a time that is a start already.
    pub fn preceding(&self, start: i64) -> Option<i64> {
        match start.checked_sub(self.interval) {
            Some(previous) if self.interval > 0 && previous > TIME_MIN => Some(previous),
            _ => self.previous_start(start),
        }
    }

    /// Windows from the one that holds `first` to the one that holds `last`.
    pub fn count(&self, first: i64, last: i64) -> u64 {
        if self.interval == 0 {
            return 1;
        }
        let span = i128::from(self.start(last)) - i128::from(self.start(first));
        u64::try_from(span / i128::from(self.interval) + 1).unwrap_or(0)
    }
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

    proptest! {
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
