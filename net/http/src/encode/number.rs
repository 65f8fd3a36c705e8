//! Numbers as text.

/// Appends a decimal integer.
pub(crate) fn push_integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a decimal integer.
pub(crate) fn push_unsigned(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Below this, every whole float is an i64 and its shortest digits are all of its digits.
const EXACT_WHOLE_MAX: f64 = 1e15;

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
    if value.abs() < EXACT_WHOLE_MAX && value.trunc() == value {
        if value == 0.0 && value.is_sign_negative() {
            out.push(b'-');
        }
        return push_integer(out, value as i64);
    }
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value).as_bytes();
    match text.iter().rposition(|byte| *byte == b'e') {
        None => out.extend_from_slice(text.strip_suffix(b".0").unwrap_or(text)),
        Some(at) => push_scientific(out, &text[..at], exponent(&text[at + 1..]), may_use_exponent),
    }
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
        fn short_floats_read_back(whole in -1_000_000i64..1_000_000, scale in 0u32..12) {
            let value = whole as f64 / 10f64.powi(scale as i32);
            prop_assert_eq!(text(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
        }
    }
}
