//! Time zones: what a wall clock shows at an instant, and which instant a reading of it means.
//!
//! Owns a zone's offsets over all instants that a query can name, as a table. The zone database is built into the
//! binary, so that every server answers alike.
//! Knows nothing of windows: [`crate::window`] cuts time by a zone's table.

use jiff::{Timestamp, tz::TimeZoneDatabase};
use std::fmt;

const NS_PER_SECOND: i64 = 1_000_000_000;

/// A time zone of the IANA database.
#[derive(Clone, PartialEq, Eq)]
pub struct TimeZone {
    name: String,
    /// Ascending; the first begins at the smallest instant.
    spans: Vec<Span>,
}

/// A time during which the clock is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// ns since the epoch.
    pub start: i64,
    /// What the clock is ahead of UTC, ns.
    pub offset: i64,
}

impl TimeZone {
    /// The zone of this name, spelled as in the database. `Local` is UTC, whatever the machine is set to, and so is the
    /// empty name.
    pub fn named(name: &str) -> Option<TimeZone> {
        let is_utc = matches!(name, "" | "UTC" | "Local");
        let zone = TimeZoneDatabase::bundled().get(if is_utc { "UTC" } else { name }).ok()?;
        if !is_utc && zone.iana_name() != Some(name) {
            return None;
        }
        let first = Timestamp::from_nanosecond(i128::from(i64::MIN)).ok()?;
        let offset_at = |time: Timestamp| i64::from(zone.to_offset(time).seconds()) * NS_PER_SECOND;
        let mut spans = vec![Span { start: i64::MIN, offset: offset_at(first) }];
        for transition in zone.following(first) {
            let Ok(start) = i64::try_from(transition.timestamp().as_nanosecond()) else { break };
            let offset = offset_at(transition.timestamp());
            // Some transitions change a name only.
            if spans.last().is_some_and(|last| last.offset != offset) {
                spans.push(Span { start, offset });
            }
        }
        Some(TimeZone { name: name.to_owned(), spans })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the clock is ahead of UTC at this instant (ns since the epoch), ns.
    pub fn offset_ns(&self, time_ns: i64) -> i64 {
        self.spans[self.span_at(time_ns)].offset
    }

    /// What the clock is ahead of UTC when it shows `reading`, which is counted as if it were UTC. A reading that comes
    /// twice or never is taken with the offset of one of the two sides, the one that upstream takes.
    pub fn offset_of_reading_ns(&self, reading: i64) -> i64 {
        let at = self.span_at(reading);
        let instant = reading.saturating_sub(self.spans[at].offset);
        self.spans[self.span_at(instant)].offset
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Index of the span that holds an instant.
    pub(crate) fn span_at(&self, time_ns: i64) -> usize {
        self.spans.partition_point(|span| span.start <= time_ns) - 1
    }
}

impl fmt::Debug for TimeZone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("TimeZone").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600 * NS_PER_SECOND;
    /// 2020-03-08T07:00:00Z, when the clocks of New York go forward.
    const FORWARD: i64 = 1_583_650_800 * NS_PER_SECOND;
    /// 2020-11-01T06:00:00Z, when they go back.
    const BACK: i64 = 1_604_210_400 * NS_PER_SECOND;

    #[test]
    fn offsets_change_at_the_second() {
        let zone = TimeZone::named("America/New_York").unwrap();
        for (time, offset) in [(FORWARD - 1, -5), (FORWARD, -4), (BACK - 1, -4), (BACK, -5), (i64::MAX, -4)] {
            // The last instant lies in April 2262, and the rules go on for ever.
            assert_eq!(zone.offset_ns(time), offset * HOUR, "{time}");
        }
        assert!(zone.offset_ns(i64::MIN) < -4 * HOUR);
        assert_eq!(TimeZone::named("Asia/Kolkata").unwrap().offset_ns(0), 5 * HOUR + HOUR / 2);
    }

    #[test]
    fn readings_mean_instants() {
        let zone = TimeZone::named("America/New_York").unwrap();
        let instant = |reading: i64| reading - zone.offset_of_reading_ns(reading);
        assert_eq!(instant(FORWARD - 5 * HOUR - 1), FORWARD - 1);
        assert_eq!(instant(FORWARD - 4 * HOUR), FORWARD);
        assert_eq!(instant(BACK - 5 * HOUR + HOUR), BACK + HOUR);
    }

    #[test]
    fn names_are_spelled_as_in_the_database() {
        for name in ["", "UTC", "Local", "Europe/Berlin", "Etc/GMT+5", "US/Eastern"] {
            assert!(TimeZone::named(name).is_some(), "{name}");
        }
        for name in ["europe/berlin", "utc", "Mars/Base", "../etc/passwd", "EUROPE/Berlin"] {
            assert!(TimeZone::named(name).is_none(), "{name}");
        }
        assert!(TimeZone::named("Local").unwrap().spans().len() == 1);
    }
}
