//! Numbers of field values and timestamps.
//!
//! Digits are read eight at a time. A float is exact without a big-number path when its digits fit 53 bits and the power
//! of ten is one of those that a double holds exactly (Clinger, "How to Read Floating Point Numbers Accurately", 1990):
//! one correctly rounded multiplication or division of two exact numbers. All others go through the standard library,
//! which rounds exactly too.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::text::{byte_at, load};

/// Decimal digits that always fit a `u64`.
const U64_DIGITS: usize = 19;
/// Largest mantissa that a double holds exactly together with all smaller ones.
const EXACT_MANTISSA_MAX: u64 = 1 << 53;

const POWERS_U64: [u64; 20] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    100_000_000_000,
    1_000_000_000_000,
    10_000_000_000_000,
    100_000_000_000_000,
    1_000_000_000_000_000,
    10_000_000_000_000_000,
    100_000_000_000_000_000,
    1_000_000_000_000_000_000,
    10_000_000_000_000_000_000,
];

/// Powers of ten that a double holds exactly: 5^22 < 2^53.
const POWERS_F64: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A number and the position behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Float(f64),
    Integer(i64),
}

#[inline(always)]
fn is_end(byte: u8) -> bool {
    matches!(byte, b',' | b' ' | b'\n')
}

/// The value and the count of the digits that `chunk` starts with.
#[inline(always)]
fn leading_digits(chunk: u64) -> (u64, usize) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let digits = chunk ^ (ONES * 0x30);
    // A byte is a digit if it is below ten: adding 0x76 carries into its top bit from ten on.
    let others = ((digits & (ONES * 0x7f)).wrapping_add(ONES * 0x76) | digits) & (ONES * 0x80);
    let count = (others.trailing_zeros() / 8) as usize;
    if count == 0 {
        return (0, 0);
    }
    // Shifted up, the missing leading digits are zeros; then pairs, fours and eight are put together at once.
    let aligned = digits << (64 - 8 * count);
    let pairs = aligned.wrapping_mul(10).wrapping_add(aligned >> 8);
    const PAIRS: u64 = 0x0000_00ff_0000_00ff;
    let low = (pairs & PAIRS).wrapping_mul(100 + (1_000_000 << 32));
    let high = (pairs >> 16 & PAIRS).wrapping_mul(1 + (10_000 << 32));
    (low.wrapping_add(high) >> 32, count)
}

/// The value and the count of the digits from `at` on. The value is right for up to 19 digits.
#[inline(always)]
fn digits(input: &[u8], at: usize) -> (u64, usize) {
    let (value, count) = leading_digits(load(input, at));
    if count < 8 { (value, count) } else { more_digits(input, at, value) }
}

#[inline]
fn more_digits(input: &[u8], at: usize, first: u64) -> (u64, usize) {
    let (mut value, mut total) = (first, 8);
    loop {
        let (next, count) = leading_digits(load(input, at + total));
        value = value.wrapping_mul(power_u64(count)).wrapping_add(next);
        total += count;
        if count < 8 {
            return (value, total);
        }
    }
}

#[inline(always)]
fn power_u64(exponent: usize) -> u64 {
    POWERS_U64.get(exponent).copied().unwrap_or(0)
}

/// `magnitude` with a sign, if it is an int64.
#[inline(always)]
fn signed(negative: bool, magnitude: u64) -> Option<i64> {
    match negative {
        false => i64::try_from(magnitude).ok(),
        true => 0i64.checked_sub_unsigned(magnitude),
    }
}

/// A decimal integer from `at` on, and the position behind it. `None` without digits or outside of int64.
#[inline(always)]
pub(crate) fn integer(input: &[u8], at: usize) -> Option<(i64, usize)> {
    let negative = byte_at(input, at) == b'-';
    let first = at + usize::from(negative);
    let (magnitude, count) = digits(input, first);
    if count == 0 {
        return None;
    }
    let end = first + count;
    if count > U64_DIGITS {
        return Some((long_integer(input, at, end)?, end));
    }
    Some((signed(negative, magnitude)?, end))
}

/// Digits with a `u` behind them, and the position behind that. `None` outside of uint64.
pub(crate) fn unsigned(input: &[u8], at: usize) -> Option<(u64, usize)> {
    let count = input.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let end = at + count;
    let value = std::str::from_utf8(input.get(at..end)?).ok()?.parse().ok()?;
    (byte_at(input, end) == b'u').then_some((value, end + 1))
}

/// More digits than fit, which leading zeros may excuse.
#[cold]
fn long_integer(input: &[u8], at: usize, end: usize) -> Option<i64> {
    std::str::from_utf8(input.get(at..end)?).ok()?.parse().ok()
}

/// The number from `at` on, which must be followed by a comma, a space or the end of the line. `None` for everything
/// that is not a float64 or an int64.
#[inline(always)]
pub(crate) fn number(input: &[u8], at: usize) -> Option<(Number, usize)> {
    let negative = byte_at(input, at) == b'-';
    let first = at + usize::from(negative);
    let (whole, whole_count) = digits(input, first);
    let mut end = first + whole_count;
    let mut next = byte_at(input, end);
    if next == b'i' {
        if whole_count == 0 || !is_end(byte_at(input, end + 1)) {
            return None;
        }
        let value = match whole_count > U64_DIGITS {
            true => long_integer(input, at, end)?,
            false => signed(negative, whole)?,
        };
        return Some((Number::Integer(value), end + 1));
    }
    let (mut mantissa, mut count, mut fraction_count) = (whole, whole_count, 0);
    if next == b'.' {
        let (fraction, digits) = digits(input, end + 1);
        fraction_count = digits;
        end += 1 + digits;
        next = byte_at(input, end);
        count += digits;
        mantissa = whole.wrapping_mul(power_u64(digits)).wrapping_add(fraction);
    }
    if count == 0 {
        return None;
    }
    if is_end(next) && count <= U64_DIGITS && mantissa <= EXACT_MANTISSA_MAX {
        let sign = u64::from(negative) << 63;
        // Below 2^53 the signed conversion is the same one, and a single instruction.
        let mut magnitude = mantissa as i64 as f64;
        if fraction_count > 0 {
            magnitude /= POWERS_F64.get(fraction_count).copied()?;
        }
        return Some((Number::Float(f64::from_bits(magnitude.to_bits() | sign)), end));
    }
    long_float(input, at, end)
}

/// Exponents and many digits. `end` is where the digits ended.
#[cold]
fn long_float(input: &[u8], at: usize, mut end: usize) -> Option<(Number, usize)> {
    while matches!(byte_at(input, end), b'0'..=b'9' | b'e' | b'E' | b'+' | b'-') {
        end += 1;
    }
    if !is_end(byte_at(input, end)) {
        return None;
    }
    let value: f64 = std::str::from_utf8(input.get(at..end)?).ok()?.parse().ok()?;
    value.is_finite().then_some((Number::Float(value), end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float(text: &str) -> Option<f64> {
        match number(text.as_bytes(), 0) {
            Some((Number::Float(value), end)) if end == text.len() => Some(value),
            _ => None,
        }
    }

    #[test]
    fn forms_of_floats() {
        for text in
            ["1", "1.", ".5", "-.5", "1.0", "1e5", "1E+5", "-1.5e-3", "-0.0", "9007199254740993", "0.1", "1e-400"]
        {
            assert_eq!(float(text).map(f64::to_bits), text.parse::<f64>().ok().map(f64::to_bits), "{text}");
        }
        for text in
            ["", "-", ".", "-.", "1e", "1e400", "--1", "+1", "1.2.3", "0x1", "1a", "e5", ".e5", "1e5.5", "1_0", "1\r"]
        {
            assert_eq!(float(text), None, "{text}");
        }
        assert_eq!(float(&"9".repeat(400)), None);
        assert_eq!(float(&format!("1{}", "0".repeat(300))), Some(1e300));
    }

    #[test]
    fn limits_of_integers() {
        for (text, value) in [("9223372036854775807", Some(i64::MAX)), ("-9223372036854775808", Some(i64::MIN))] {
            assert_eq!(integer(text.as_bytes(), 0), value.map(|value| (value, text.len())));
            let field = format!("{text}i,");
            assert_eq!(number(field.as_bytes(), 0), value.map(|v| (Number::Integer(v), field.len() - 1)));
        }
        for text in ["9223372036854775808", "-9223372036854775809", "99999999999999999999", "", "-", "x"] {
            assert_eq!(integer(text.as_bytes(), 0), None, "{text}");
            assert_eq!(number(format!("{text}i").as_bytes(), 0), None, "{text}");
        }
        let zeros = format!("{}7", "0".repeat(40));
        assert_eq!(integer(zeros.as_bytes(), 0), Some((7, 41)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn floats_round_as_the_standard_library(text in "-?[0-9]{0,22}(\\.[0-9]{0,24})?([eE][-+]?[0-9]{0,3})?") {
            let expected = text.parse::<f64>().ok().filter(|value| value.is_finite());
            prop_assert_eq!(float(&text).map(f64::to_bits), expected.map(f64::to_bits));
        }

        #[test]
        fn every_finite_float_comes_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(float(&format!("{value:e}")).map(f64::to_bits), Some(bits));
            prop_assert_eq!(float(&format!("{value}")).map(f64::to_bits), Some(bits));
        }

        #[test]
        fn integers_are_exact(value in any::<i64>(), shift in 0u32..64, zeros in 0usize..24) {
            let value = value >> shift;
            let sign = if value < 0 { "-" } else { "" };
            let text = format!("{sign}{}{}", "0".repeat(zeros), value.unsigned_abs());
            prop_assert_eq!(integer(text.as_bytes(), 0), Some((value, text.len())));
        }
    }
}
