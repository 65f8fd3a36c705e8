//! When a continuous query runs, and over which times.
//!
//! Rules of reference: influxql, section 13. A query has windows (GROUP BY time), runs EVERY so often, and computes the
//! windows of the last FOR again. The clock is an argument.
//! Invariant: a turn's range begins where the one before it ended or earlier, whatever was missed in between.
//! Knows nothing of databases and of who executes the query.

use crate::QueryError;
use crate::compile::{offset_ns, time_zone, windows_of};
use crate::window::Windows;
use tidemill_influxql::{CreateContinuousQuery, Expr, TimeOffset};

/// The schedule of one continuous query.
#[derive(Clone, Debug)]
pub struct ContinuousSchedule {
    interval_ns: i64,
    offset_ns: i64,
    /// RESAMPLE FOR, or the longer of the windows and of the time between two runs.
    span_ns: i64,
    /// The part of a window that must be over for it to be computed: all of it, unless runs are closer together.
    ripe_ns: i64,
    /// The windows, and the times at which the query is due, both without their offset.
    windows: Windows,
    runs: Windows,
}

/// A run that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContinuousTurn {
    /// To be noted when the run has succeeded; [`ContinuousSchedule::turn`] takes it the next time.
    pub run_ns: i64,
    /// The times to compute, the second exclusive; `None` if no window is ripe.
    pub range: Option<(i64, i64)>,
}

impl ContinuousSchedule {
    /// The schedule of a statement; `None` if it has no function, and so no windows: it never runs.
    ///
    /// # Errors
    /// The dimensions or the zone make no sense; CREATE CONTINUOUS QUERY has refused such a statement.
    pub fn of(create: &CreateContinuousQuery) -> Result<Option<ContinuousSchedule>, QueryError> {
        let select = &create.source;
        let is_raw = !select.fields.iter().any(|field| field.expr.any(&mut |expr| matches!(expr, Expr::Call(_))));
        let time = select.time_dimension().map_err(|error| QueryError::invalid(error.to_string()))?;
        let Some(time) = time.filter(|time| time.interval_ns > 0 && !is_raw) else { return Ok(None) };
        let interval_ns = time.interval_ns;
        let every_ns = create.resample_every.filter(|every| *every > 0).unwrap_or(interval_ns);
        let span_ns = create.resample_for.filter(|span| *span > 0).unwrap_or(interval_ns.max(every_ns));
        let zone = time_zone(select)?;
        let in_zone = |windows: Windows| match &zone {
            Some(zone) => windows.in_zone(zone),
            None => windows,
        };
        // Calendar windows have their offset themselves: it may be one of months.
        let windows = match time.months {
            0 => in_zone(Windows::every(interval_ns, 0)),
            _ => in_zone(windows_of(time, 0)),
        };
        let runs = match every_ns == interval_ns {
            true => windows.clone(),
            false => in_zone(Windows::every(every_ns, 0)),
        };
        Ok(Some(ContinuousSchedule {
            interval_ns,
            // Aligned to the present time, windows would be others at each run.
            offset_ns: match time.offset {
                TimeOffset::Duration(_) if time.months == 0 => offset_ns(time.offset, interval_ns, 0),
                _ => 0,
            },
            span_ns,
            ripe_ns: interval_ns.min(every_ns),
            windows,
            runs,
        }))
    }

    /// What is due at `now_ns`, after the run that was noted last; `None` if nothing is.
    pub fn turn(&self, last_run_ns: Option<i64>, now_ns: i64) -> Option<ContinuousTurn> {
        let due_ns = match last_run_ns {
            None => now_ns,
            Some(last_ns) => self.next_run(last_ns),
        };
        if due_ns > now_ns {
            return None;
        }
        let run_ns = self.runs.start(now_ns.saturating_sub(self.offset_ns)).saturating_add(self.offset_ns);
        let oldest = i128::from(due_ns) + i128::from(self.interval_ns) - i128::from(self.span_ns) - 1;
        let ripe = i128::from(now_ns) + i128::from(self.interval_ns) - i128::from(self.ripe_ns);
        let (start, end) = (self.window_start(oldest), self.window_start(ripe));
        Some(ContinuousTurn { run_ns, range: (start < end).then_some((start, end)) })
    }

    /// When the run behind one that was noted is due.
    pub fn next_run(&self, last_run_ns: i64) -> i64 {
        let next = self.runs.next_start(last_run_ns.saturating_sub(self.offset_ns));
        next.map_or(i64::MAX, |next| next.saturating_add(self.offset_ns))
    }

    fn window_start(&self, time: i128) -> i64 {
        let time = time - i128::from(self.offset_ns);
        let time = time.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        self.windows.start(time).saturating_add(self.offset_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_influxql::{Statement, parse_statement};

    const SECOND: i64 = 1_000_000_000;

    fn schedule(resample: &str, windows: &str) -> ContinuousSchedule {
        let text = format!(
            "CREATE CONTINUOUS QUERY c ON d {resample} BEGIN SELECT mean(v) INTO t FROM n GROUP BY time({windows}) END"
        );
        let Ok(Statement::CreateContinuousQuery(create)) = parse_statement(&text) else { panic!("{text}") };
        ContinuousSchedule::of(&create).unwrap().unwrap()
    }

    /// Turns of a clock that ticks so often, in seconds: when, and over which range.
    fn turns(schedule: &ContinuousSchedule, ticks: impl Iterator<Item = i64>) -> Vec<(i64, i64, i64)> {
        let mut last = None;
        let mut all = Vec::new();
        for tick in ticks {
            let Some(turn) = schedule.turn(last, tick * SECOND) else { continue };
            last = Some(turn.run_ns);
            if let Some((start, end)) = turn.range {
                all.push((tick, start / SECOND, end / SECOND));
            }
        }
        all
    }

    #[test]
    fn each_window_is_computed_once_when_it_is_over() {
        assert_eq!(turns(&schedule("", "10s"), 103..135), [(110, 100, 110), (120, 110, 120), (130, 120, 130)]);
        assert_eq!(turns(&schedule("", "10s, 3s"), 104..128), [(113, 103, 113), (123, 113, 123)]);
    }

    #[test]
    fn what_was_missed_is_caught_up() {
        let ticks = (103..111).chain([147]).chain(148..152);
        assert_eq!(turns(&schedule("", "10s"), ticks), [(110, 100, 110), (147, 110, 140), (150, 140, 150)]);
    }

    #[test]
    fn closer_runs_include_the_window_that_is_not_over() {
        let found = turns(&schedule("RESAMPLE EVERY 5s", "10s"), 104..121);
        assert_eq!(found, [(105, 100, 110), (110, 100, 110), (115, 110, 120), (120, 110, 120)]);
    }

    #[test]
    fn for_computes_older_windows_again() {
        let found = turns(&schedule("RESAMPLE FOR 30s", "10s"), 104..121);
        assert_eq!(found, [(104, 80, 100), (110, 80, 110), (120, 90, 120)]);
        let found = turns(&schedule("RESAMPLE EVERY 20s FOR 40s", "10s"), 104..141);
        assert_eq!(found, [(104, 70, 100), (120, 80, 120), (140, 100, 140)]);
    }

    #[test]
    fn rarer_runs_cover_all_windows_since_the_last() {
        let found = turns(&schedule("RESAMPLE EVERY 30s", "10s"), 92..160);
        assert_eq!(found, [(92, 70, 90), (120, 90, 120), (150, 120, 150)]);
    }

    #[test]
    fn days_of_a_zone_end_at_its_midnight() {
        let text = "CREATE CONTINUOUS QUERY c ON d BEGIN SELECT mean(v) INTO t FROM n GROUP BY time(1d) tz('America/New_York') END";
        let Ok(Statement::CreateContinuousQuery(create)) = parse_statement(text) else { panic!("{text}") };
        let schedule = ContinuousSchedule::of(&create).unwrap().unwrap();
        // The day on which the clocks go forward: 23 hours from 2020-03-08T05:00:00Z.
        let (start, end) = (1_583_643_600, 1_583_726_400);
        assert_eq!(turns(&schedule, start + 10..end + 1), [(end, start, end)]);
    }

    #[test]
    fn months_are_computed_when_they_are_over() {
        const DAY: i64 = 86_400;
        // From 2021-01-20, an hour a tick: February has 28 days.
        let (january, february, march, april) = (1_609_459_200, 1_612_137_600, 1_614_556_800, 1_617_235_200);
        let ticks = |start: i64, end: i64| (start..end).step_by(3600);
        let found = turns(&schedule("", "1mo"), ticks(january + 19 * DAY, april + DAY));
        let expected = [(february, january, february), (march, february, march), (april, march, april)];
        // The month of the first look is the first one that is over later.
        assert_eq!(found, expected);
        // Each day again, as long as it lasts.
        let daily = turns(&schedule("RESAMPLE EVERY 1d", "1mo"), ticks(february + 5 * DAY, february + 8 * DAY));
        assert_eq!(daily.len(), 3);
        assert!(daily.iter().all(|(_, start, end)| *start <= february && *end >= march), "{daily:?}");
        let moved = turns(&schedule("", "1y, 3mo"), ticks(march, april + DAY));
        assert_eq!(moved.last(), Some(&(april, april - 365 * DAY, april)));
    }

    #[test]
    fn rows_as_they_are_never_run() {
        let text = "CREATE CONTINUOUS QUERY c ON d BEGIN SELECT v INTO t FROM n END";
        let Ok(Statement::CreateContinuousQuery(create)) = parse_statement(text) else { panic!("{text}") };
        assert!(ContinuousSchedule::of(&create).unwrap().is_none());
    }

    proptest! {
        /// Whatever the pauses, and however often the process begins anew with the run that was noted: nothing is left
        /// out, and without RESAMPLE nothing is computed twice.
        #[test]
        fn windows_follow_each_other_without_a_gap(
            interval in 1..100i64,
            offset in 0..100i64,
            pauses in prop::collection::vec(1..400i64, 1..40),
        ) {
            let schedule = schedule("", &format!("{interval}s, {offset}s"));
            let mut now = 1_000_000;
            let mut last = schedule.turn(None, now * SECOND).map(|turn| turn.run_ns);
            let mut end = None;
            for pause in pauses {
                now += pause;
                let Some(turn) = schedule.turn(last, now * SECOND) else { continue };
                prop_assert!(Some(turn.run_ns) > last && turn.run_ns <= now * SECOND);
                last = Some(turn.run_ns);
                let Some((start, stop)) = turn.range else { continue };
                prop_assert!(end.is_none_or(|end| end == start), "{end:?} {start}");
                prop_assert!(stop > now * SECOND - interval * SECOND && stop <= now * SECOND);
                end = Some(stop);
            }
        }
    }
}
