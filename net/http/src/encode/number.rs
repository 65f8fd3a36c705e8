//! Numbers as text.

/// Appends a decimal integer.
pub(crate) fn push_integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a decimal integer.
pub(crate) fn push_unsigned(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Decimals with up to this many digits behind the point take the short way; ryu needs 50 to 90 ns for each of them,
/// most of it to drop zeros, the short way 10.
const SHORT_FRACTION_DIGITS: usize = 4;
const SHORT_SCALE: i64 = 10_i64.pow(SHORT_FRACTION_DIGITS as u32);
/// Two decimals of up to 15 digits are never the same float, so below this bound the one that is found is the
/// shortest one.
const SHORT_SCALED_MAX: f64 = 1e15;

/// Appends the shortest digits that read back as `value`: plain from 1e-6 up to 1e21, with an exponent outside, as
/// ECMAScript spells numbers but for negative zero, which keeps its sign.
///
/// # Panics
/// If the value is not finite.
pub(crate) fn push_float(out: &mut Vec<u8>, value: f64) {
    push_shortest(out, value, true);
}

/// The same digits, never with an exponent.
///
/// # Panics
/// If the value is not finite.
pub(crate) fn push_plain_float(out: &mut Vec<u8>, value: f64) {
    push_shortest(out, value, false);
}

/// As [`push_plain_float`], and `NaN`, `+Inf`, `-Inf`.
pub(crate) fn push_float_text(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value < 0.0 { b"-Inf" } else { b"+Inf" });
    } else {
        push_plain_float(out, value);
    }
}

fn push_shortest(out: &mut Vec<u8>, value: f64, may_use_exponent: bool) {
    assert!(value.is_finite(), "{value} has no digits");
    if push_short_decimal(out, value) {
        return;
    }
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value).as_bytes();
    match text.iter().rposition(|byte| *byte == b'e') {
        None => out.extend_from_slice(text.strip_suffix(b".0").unwrap_or(text)),
        Some(at) => push_scientific(out, &text[..at], exponent(&text[at + 1..]), may_use_exponent),
    }
}

/// Appends the value if it is a decimal with few digits: `scaled / SHORT_SCALE`, a division of two exact floats, is
/// rounded as reading those digits would be, so equality proves that they read back.
fn push_short_decimal(out: &mut Vec<u8>, value: f64) -> bool {
    let scaled = value * SHORT_SCALE as f64;
    if scaled.abs() >= SHORT_SCALED_MAX {
        return false;
    }
    let scaled = (scaled + 0.5_f64.copysign(scaled)) as i64;
    if scaled as f64 / SHORT_SCALE as f64 != value {
        return false;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let magnitude = scaled.unsigned_abs();
    push_unsigned(out, magnitude / SHORT_SCALE as u64);
    let mut fraction = magnitude % SHORT_SCALE as u64;
    if fraction != 0 {
        let mut digits = [b'.', 0, 0, 0, 0];
        for at in (1..=SHORT_FRACTION_DIGITS).rev() {
            digits[at] = b'0' + (fraction % 10) as u8;
            fraction /= 10;
        }
        let len = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        out.extend_from_slice(&digits[..len]);
    }
    true
}

fn exponent(text: &[u8]) -> i32 {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let magnitude = digits.iter().fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'));
    if negative { -magnitude } else { magnitude }
}

/// `mantissa` is `[-]d[.ddd]`, the value is `mantissa * 10^exponent`.
fn push_scientific(out: &mut Vec<u8>, mantissa: &[u8], exponent: i32, may_use_exponent: bool) {
    let (negative, mantissa) = match mantissa.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    if negative {
        out.push(b'-');
    }
    if may_use_exponent && !(-6..21).contains(&exponent) {
        out.extend_from_slice(mantissa);
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        return push_unsigned(out, exponent.unsigned_abs().into());
    }
    let digits: Vec<u8> = mantissa.iter().copied().filter(|byte| *byte != b'.').collect();
    if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', exponent.unsigned_abs() as usize - 1));
        out.extend_from_slice(&digits);
        return;
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        out.extend_from_slice(&digits);
        out.extend(std::iter::repeat_n(b'0', whole - digits.len()));
    } else {
        out.extend_from_slice(&digits[..whole]);
        out.push(b'.');
        out.extend_from_slice(&digits[whole..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        push_float(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    fn plain(value: f64) -> String {
        let mut out = Vec::new();
        push_plain_float(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_look_as_clients_expect() {
        let cases = [
            (1.0, "1"),
            (-0.0, "-0"),
            (0.0, "0"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (-0.0103, "-0.0103"),
            (99999999999.9999, "99999999999.9999"),
            (999999999999.9999, "999999999999.9999"),
            (0.1 + 0.2, "0.30000000000000004"),
            (-1.5, "-1.5"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (123456789012345680000.0, "123456789012345680000"),
            (1e15, "1000000000000000"),
            (1e16, "10000000000000000"),
            (1.2345678901234567e16, "12345678901234568"),
            (1e-6, "0.000001"),
            (1.5e-6, "0.0000015"),
            (1e-7, "1e-7"),
            (-1.25e-7, "-1.25e-7"),
            (1e-5, "0.00001"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (0.3333333333333333, "0.3333333333333333"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(value), expected);
        }
        assert_eq!(plain(1e21), "1000000000000000000000");
        assert_eq!(plain(1e-7), "0.0000001");
        assert_eq!(plain(-1.25e-7), "-0.000000125");
    }

    proptest! {
        #[test]
        fn floats_read_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(text(value).parse::<f64>().unwrap().to_bits(), bits);
            prop_assert_eq!(plain(value).parse::<f64>().unwrap().to_bits(), bits);
            prop_assert!(!plain(value).contains('e'));
        }

        #[test]
        fn short_decimals_are_spelled_as_ryu_would(whole in any::<i64>(), shift in 0u32..60, scale in 0i32..7) {
            let value = (whole >> shift) as f64 / 10f64.powi(scale);
            let expected = ryu::Buffer::new().format_finite(value).trim_end_matches(".0").to_owned();
            prop_assume!(!expected.contains('e'));
            prop_assert_eq!(text(value), expected);
        }

        #[test]
        fn neighbours_of_short_decimals_read_back(whole in -100_000_000i64..100_000_000, step in -2i64..3) {
            let value = f64::from_bits((whole as f64 / 1e4).to_bits().wrapping_add_signed(step));
            prop_assume!(value.is_finite());
            prop_assert_eq!(text(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
        }
    }
}
