//! LIMIT, OFFSET, SLIMIT and SOFFSET, and the limits of the configuration.

use crate::QueryError;
use rkyv::{Archive, Deserialize, Serialize};

/// Skips rows, then lets some through. 0 means "not set" in the limit.
///
/// OFFSET without LIMIT gives all rows behind the offset, for raw selects too, where upstream gives one row per shard
/// and tag set: nobody can want that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowLimit {
    limit: u64,
    offset: u64,
}

impl RowLimit {
    pub fn new(limit: u64, offset: u64) -> RowLimit {
        RowLimit { limit, offset }
    }

    /// Rows that are of interest at all, skipped ones included.
    pub fn rows_max(&self) -> Option<u64> {
        (self.limit > 0).then(|| self.limit.saturating_add(self.offset))
    }

    /// Which of the next `rows` rows pass, `seen` having gone by before.
    pub fn window(&self, seen: u64, rows: u64) -> std::ops::Range<u64> {
        let end = self.rows_max().unwrap_or(u64::MAX).saturating_sub(seen).min(rows);
        self.offset.saturating_sub(seen).min(end)..end
    }

    /// Whether no row behind the first `seen` can pass.
    pub fn is_reached(&self, seen: u64) -> bool {
        self.rows_max().is_some_and(|rows| seen >= rows)
    }

    /// The part of a list that passes.
    pub fn slice<'a, T>(&self, list: &'a [T]) -> &'a [T] {
        let range = self.window(0, list.len() as u64);
        list.get(range.start as usize..range.end as usize).unwrap_or(&[])
    }
}

/// SLIMIT and SOFFSET: which output series pass, by their number. An offset without a limit lets none through, as
/// upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesLimit {
    limit: u64,
    offset: u64,
}

impl SeriesLimit {
    pub fn new(limit: u64, offset: u64) -> SeriesLimit {
        SeriesLimit { limit, offset }
    }

    /// Whether series number `number`, counted from 0, passes.
    pub fn accepts(&self, number: u64) -> bool {
        self.limit == 0 && self.offset == 0 || number >= self.offset && !self.is_reached(number)
    }

    /// Whether neither series number `number` nor any behind it passes.
    pub fn is_reached(&self, number: u64) -> bool {
        !(self.limit == 0 && self.offset == 0) && number >= self.limit.saturating_add(self.offset)
            || self.limit == 0 && self.offset > 0
    }
}

/// Limits of the configuration; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SelectLimits {
    pub max_select_buckets: u64,
    pub max_select_series: u64,
    pub max_select_point: u64,
}

impl SelectLimits {
    /// # Errors
    /// There are more series than allowed.
    pub fn check_series(&self, series: u64) -> Result<(), QueryError> {
        let limit = self.max_select_series;
        if limit > 0 && series > limit { Err(QueryError::TooManySeries { series, limit }) } else { Ok(()) }
    }

    /// # Errors
    /// More points were read than allowed.
    pub fn check_points(&self, points: u64) -> Result<(), QueryError> {
        let limit = self.max_select_point;
        if limit > 0 && points > limit { Err(QueryError::TooManyPoints { points, limit }) } else { Ok(()) }
    }

    /// # Errors
    /// The time range has more windows than allowed.
    pub fn check_buckets(&self, buckets: u64) -> Result<(), QueryError> {
        let limit = self.max_select_buckets;
        if limit > 0 && buckets > limit { Err(QueryError::TooManyBuckets { buckets, limit }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_pass_as_the_whole_does(limit in 0u64..20, offset in 0u64..20, pieces in proptest::collection::vec(0u64..9, 0..9)) {
            let rows: Vec<u64> = (0..pieces.iter().sum()).collect();
            let row_limit = RowLimit::new(limit, offset);
            let mut seen = 0;
            let mut passed = Vec::new();
            for piece in pieces {
                let window = row_limit.window(seen, piece);
                passed.extend(window.start + seen..window.end + seen);
                seen += piece;
            }
            let take = if limit == 0 { usize::MAX } else { limit as usize };
            let expected: Vec<u64> = rows.iter().copied().skip(offset as usize).take(take).collect();
            prop_assert_eq!(&passed, &expected);
            prop_assert_eq!(row_limit.slice(&rows), &expected[..]);
        }
    }

    #[test]
    fn huge_limits_do_not_overflow() {
        let limit = RowLimit::new(u64::MAX, u64::MAX);
        assert!(limit.window(5, 10).is_empty());
        assert!(!limit.is_reached(10));
        assert!(!SeriesLimit::new(u64::MAX, u64::MAX).is_reached(10));
    }

    #[test]
    fn a_series_offset_alone_lets_nothing_through() {
        assert!(SeriesLimit::new(0, 0).accepts(7) && !SeriesLimit::new(0, 0).is_reached(7));
        assert!(!SeriesLimit::new(0, 1).accepts(1) && SeriesLimit::new(0, 1).is_reached(0));
        assert!(SeriesLimit::new(1, 1).accepts(1) && !SeriesLimit::new(1, 1).accepts(2));
    }

    #[test]
    fn limit_errors_read_as_upstream_s() {
        let limits = SelectLimits { max_select_buckets: 5, max_select_series: 2, max_select_point: 3 };
        let text = |error: Result<(), QueryError>| error.unwrap_err().to_string();
        assert_eq!(text(limits.check_series(3)), "max-select-series limit exceeded: (3/2)");
        assert_eq!(text(limits.check_points(4)), "max-select-point limit exceeed: (4/3)");
        assert_eq!(text(limits.check_buckets(6)), "max-select-buckets limit exceeded: (6/5)");
    }
}
