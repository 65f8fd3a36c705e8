//! Rules of retention policies (reference: influxql, section 12).

/// The policy that CREATE DATABASE makes.
pub const DEFAULT_POLICY_NAME: &str = "autogen";

pub(crate) const HOUR_NS: i64 = 3_600_000_000_000;
const DAY_NS: i64 = 24 * HOUR_NS;

/// The names of databases and policies may not be longer, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Seconds from year 1, which upstream counts windows of shard groups from, to the epoch.
const YEAR_ONE_TO_EPOCH_S: i128 = 62_135_596_800;

/// The shard group duration of a policy that keeps points for `duration_ns` (0: for ever).
pub fn default_shard_group_duration_ns(duration_ns: i64) -> i64 {
    match duration_ns {
        0 => 7 * DAY_NS,
        duration if duration >= 180 * DAY_NS => 7 * DAY_NS,
        duration if duration >= 2 * DAY_NS => DAY_NS,
        _ => HOUR_NS,
    }
}

/// The shard group duration that results from what was asked for (0: nothing).
pub(crate) fn normal_shard_group_duration_ns(asked_ns: i64, duration_ns: i64) -> i64 {
    match asked_ns {
        0 => default_shard_group_duration_ns(duration_ns),
        asked => asked.max(HOUR_NS),
    }
}

/// Start of the shard group window that holds `time_ns`: windows count from year 1, so that seven days start on a
/// Monday. May lie below the smallest storable time.
pub(crate) fn window_start_ns(time_ns: i64, duration_ns: i64) -> i64 {
    let since_year_one = i128::from(time_ns) + YEAR_ONE_TO_EPOCH_S * 1_000_000_000;
    let start = i128::from(time_ns) - since_year_one.rem_euclid(i128::from(duration_ns));
    i64::try_from(start).unwrap_or(i64::MIN)
}

/// Whether upstream takes it as a name, and what it says if not.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.len() > NAME_BYTES_MAX {
        return Err("name too long");
    }
    let printable = name.chars().all(|c| !c.is_control());
    if name.is_empty() || !printable || name == "." || name == ".." || name.contains(['/', '\\']) {
        return Err("invalid name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_start_on_monday_and_durations_follow_the_table() {
        // 1969-12-29 .. 1970-01-05
        assert_eq!(window_start_ns(0, 7 * DAY_NS), -3 * DAY_NS);
        assert_eq!(window_start_ns(4 * DAY_NS, 7 * DAY_NS), 4 * DAY_NS);
        assert_eq!(window_start_ns(-1, DAY_NS), -DAY_NS);
        assert_eq!(window_start_ns(i64::MIN + 2, 7 * DAY_NS), i64::MIN);
        for (days, expected) in [(180, 7 * DAY_NS), (179, DAY_NS), (2, DAY_NS), (1, HOUR_NS), (0, 7 * DAY_NS)] {
            assert_eq!(default_shard_group_duration_ns(days * DAY_NS), expected);
        }
    }

    #[test]
    fn names() {
        for bad in ["", ".", "..", "a/b", "a\\b", "a\nb"] {
            assert_eq!(check_name(bad), Err("invalid name"));
        }
        assert_eq!(check_name(&"x".repeat(256)), Err("name too long"));
        assert_eq!(check_name("täg .1"), Ok(()));
    }
}
