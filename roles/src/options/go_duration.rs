//! Durations as upstream's configuration has them: Go's, which know `0`, `1.5h` and `10us`.

use std::time::Duration;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// `None` for what is no such duration, or a longer one than 292 years.
pub(super) fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut sum_ns) = (text, 0_u64);
    while !rest.is_empty() {
        let number_end = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, behind) = rest.split_at(number_end);
        let unit_end = behind.find(|character: char| character.is_ascii_digit() || character == '.');
        let (unit, behind) = behind.split_at(unit_end.unwrap_or(behind.len()));
        let (_, unit_ns) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        sum_ns = sum_ns.checked_add(whole.checked_mul(*unit_ns)?)?;
        // More digits than this are less than a nanosecond.
        let fraction = &fraction[..fraction.len().min(15)];
        if !fraction.is_empty() {
            let part = fraction.parse::<u64>().ok()?;
            let part_ns = u128::from(part) * u128::from(*unit_ns) / 10_u128.pow(fraction.len() as u32);
            sum_ns = sum_ns.checked_add(u64::try_from(part_ns).ok()?)?;
        }
        rest = behind;
    }
    (!text.is_empty() && i64::try_from(sum_ns).is_ok()).then(|| Duration::from_nanos(sum_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        let ns = |text: &str| parse(text).map(|duration| duration.as_nanos());
        for (text, expected) in [
            ("0", 0),
            ("0s", 0),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("168h0m0s", 604_800_000_000_000),
            ("1.000000001s", 1_000_000_001),
        ] {
            assert_eq!(ns(text), Some(expected), "{text}");
        }
        for text in ["", "1", "s", "1d", "-1s", "1..5s", "1s1", ".s", "999999999h", "1e3s", "é"] {
            assert_eq!(ns(text), None, "{text}");
        }
    }
}
