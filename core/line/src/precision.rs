//! The unit of the timestamps of one request.

/// Unit of the timestamps in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    Nanosecond,
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
}

impl Precision {
    /// The unit that the `precision` parameter of `/write` names; `None` for a name that does not exist.
    pub fn from_v1_name(name: &str) -> Option<Precision> {
        match name {
            "" | "n" | "ns" => Some(Precision::Nanosecond),
            "u" => Some(Precision::Microsecond),
            "ms" => Some(Precision::Millisecond),
            "s" => Some(Precision::Second),
            "m" => Some(Precision::Minute),
            "h" => Some(Precision::Hour),
            _ => None,
        }
    }

    /// The unit that the `precision` parameter of `/api/v2/write` names (empty: ns); `None` for a name that does not
    /// exist there.
    pub fn from_v2_name(name: &str) -> Option<Precision> {
        match name {
            "" | "ns" => Some(Precision::Nanosecond),
            "us" => Some(Precision::Microsecond),
            "ms" => Some(Precision::Millisecond),
            "s" => Some(Precision::Second),
            _ => None,
        }
    }

    /// Nanoseconds in one unit.
    pub fn multiplier_ns(self) -> i64 {
        match self {
            Precision::Nanosecond => 1,
            Precision::Microsecond => 1_000,
            Precision::Millisecond => 1_000_000,
            Precision::Second => 1_000_000_000,
            Precision::Minute => 60_000_000_000,
            Precision::Hour => 3_600_000_000_000,
        }
    }

    /// `time_ns` without the part below the unit, towards the past: the time of a line that carries none.
    pub fn truncate_ns(self, time_ns: i64) -> i64 {
        time_ns.saturating_sub(time_ns.rem_euclid(self.multiplier_ns()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_interfaces() {
        let v1: Vec<_> = ["", "n", "ns", "u", "ms", "s", "m", "h", "us", "zz", "MS"]
            .into_iter()
            .map(|name| Precision::from_v1_name(name).map(Precision::multiplier_ns))
            .collect();
        let expected = [1, 1, 1, 1_000, 1_000_000, 1_000_000_000, 60_000_000_000, 3_600_000_000_000].map(Some);
        assert_eq!(v1[..8], expected);
        assert_eq!(v1[8..], [None; 3]);
        assert_eq!(Precision::from_v2_name("us"), Some(Precision::Microsecond));
        assert_eq!(["u", "n", "m", "h"].map(Precision::from_v2_name), [None; 4]);
    }

    #[test]
    fn truncation_goes_towards_the_past() {
        assert_eq!(Precision::Second.truncate_ns(1_999_999_999), 1_000_000_000);
        assert_eq!(Precision::Second.truncate_ns(-1), -1_000_000_000);
        assert_eq!(Precision::Hour.truncate_ns(i64::MIN + 2), i64::MIN);
    }
}
