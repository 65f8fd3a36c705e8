//! The value part of float blocks as scaled integers: far fewer bytes than XOR where values were decimals once.
//!
//! After Afroozeh, Kuffo, Boncz, "ALP: Adaptive Lossless floating-Point Compression", SIGMOD 2024: one scale is chosen
//! for the block from a sample, each value becomes the integer that gives its very bits back, the integers are packed
//! with the fewest bits, and values that are no such decimals are kept aside as they are. It differs from the paper in
//! two ways. A value comes back by one division by a power of ten, which is exact up to 10^22 and so correctly rounded,
//! where the paper multiplies by an inexact inverse and needs a second parameter to make up for it. And the integers
//! may be packed as differences, for counters and slow sensors.
//!
//! ```text
//! u8 0x20 | form   form 0: the integers; 1: their differences
//! i8 scale         value = integer / 10^scale, or integer * 10^-scale
//! uvarint count
//! varint first     form 1 only: the first integer
//! varint base      what every packed word is more than
//! u8 width         bits of a packed word, 0 to 64
//! words            count of them, in form 1 one less; lowest bits first, zeros up to the byte
//! uvarint count of exceptions · u16 row of each, ascending · u64 bits of each
//! ```
//!
//! Upstream does not know this encoding: a file with such blocks is Tidemill's own until it is converted.
//! Invariants: every bit pattern comes back, NaN included; the decoder yields at most `BLOCK_POINTS_MAX` values and
//! allocates nothing before it has seen the bytes that they are packed in, or that they take none.
//! Knows nothing of times.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::cursor::{Cursor, push_uvarint, push_varint};
use crate::error::{BLOCK_POINTS_MAX, DecodeError};

/// First byte of the part without the form.
pub(crate) const HEAD: u8 = 0x20;
const FORM_DIFFERENCES: u8 = 1;

/// Values that a scale is chosen by: of a thousand, every 32nd.
const SAMPLES_MAX: usize = 32;
/// Scales that are tried. More digits than 17 no double holds; multiples of more than a million are rare.
const SCALE_MIN: i32 = -6;
const SCALE_MAX: i32 = 17;
/// Integers of this size and above may be rounded away by [`MAGIC`]; they are exceptions.
const INTEGER_BOUND: f64 = (1u64 << 51) as f64;
/// Added and subtracted it rounds to the nearest integer: 1.5 * 2^52.
const MAGIC: f64 = 6_755_399_441_055_744.0;
/// Bits that an exception takes.
const EXCEPTION_BITS: u64 = 16 + 64;

/// Powers of ten that a double holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

const PART: &str = "floats";

/// Between values and integers, by a power of ten.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    /// More digits behind the point than none.
    Fraction(f64),
    Multiple(f64),
}

impl Scale {
    fn of(exponent: i32) -> Option<Scale> {
        let power = *POWERS.get(exponent.unsigned_abs() as usize)?;
        Some(if exponent >= 0 { Scale::Fraction(power) } else { Scale::Multiple(power) })
    }

    #[inline(always)]
    fn value(self, integer: i64) -> f64 {
        match self {
            Scale::Fraction(power) => integer as f64 / power,
            Scale::Multiple(power) => integer as f64 * power,
        }
    }

    /// The nearest integer, and whether it gives the value back, bit for bit.
    #[inline(always)]
    fn integer(self, value: f64) -> (i64, bool) {
        let scaled = match self {
            Scale::Fraction(power) => value * power,
            Scale::Multiple(power) => value / power,
        };
        let integer = ((scaled + MAGIC) - MAGIC) as i64;
        // The comparison is false of NaN, too.
        let exact = scaled.abs() < INTEGER_BOUND && self.value(integer).to_bits() == value.to_bits();
        (integer, exact)
    }
}

/// Appends the encoded `values`, at most [`BLOCK_POINTS_MAX`] of them. The bytes depend on the values alone.
pub(crate) fn encode(values: &[f64], out: &mut Vec<u8>) {
    let exponent = choose_exponent(values);
    let scale = Scale::of(exponent).unwrap_or(Scale::Fraction(1.0));
    let mut integers = Vec::with_capacity(values.len());
    let mut exceptions: Vec<usize> = Vec::new();
    for value in values {
        let (integer, exact) = scale.integer(*value);
        if !exact {
            exceptions.push(integers.len());
        }
        integers.push(integer);
    }
    fill_exceptions(&mut integers, &exceptions);
    let plain = Frame::of(integers.iter().copied());
    let differences = Frame::of(pairs(&integers).map(|(before, after)| after - before));
    let form = if differences.bits(integers.len().saturating_sub(1)) + 64 < plain.bits(integers.len()) {
        FORM_DIFFERENCES
    } else {
        0
    };

    out.push(HEAD | form);
    out.push((exponent as i8).cast_unsigned());
    push_uvarint(out, values.len() as u64);
    if form == FORM_DIFFERENCES {
        push_varint(out, integers.first().copied().unwrap_or(0));
        differences.pack(pairs(&integers).map(|(before, after)| after - before), out);
    } else {
        plain.pack(integers.iter().copied(), out);
    }
    push_uvarint(out, exceptions.len() as u64);
    exceptions.iter().for_each(|row| out.extend_from_slice(&(*row as u16).to_be_bytes()));
    for value in exceptions.iter().filter_map(|row| values.get(*row)) {
        out.extend_from_slice(&value.to_bits().to_be_bytes());
    }
}

/// Appends the values of `bytes`, which begin with [`HEAD`] and a form: at most [`BLOCK_POINTS_MAX`].
///
/// # Errors
/// If the bytes are not what [`encode`] writes; `out` is then in part appended to.
pub(crate) fn decode(bytes: &[u8], out: &mut Vec<f64>) -> Result<(), DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let truncated = DecodeError::Truncated { part: PART };
    let head = cursor.u8().ok_or(truncated)?;
    let form = head ^ HEAD;
    if form > FORM_DIFFERENCES {
        return Err(DecodeError::Encoding { part: PART, code: head });
    }
    let exponent = i32::from(cursor.u8().ok_or(truncated)?.cast_signed());
    let scale = Scale::of(exponent).ok_or(DecodeError::FloatScale { exponent })?;
    let count = cursor.uvarint().ok_or(truncated)?;
    if count > BLOCK_POINTS_MAX as u64 {
        return Err(DecodeError::TooManyPoints { part: PART, claimed: count });
    }
    let count = count as usize;
    let first = if form == FORM_DIFFERENCES { cursor.varint().ok_or(truncated)? } else { 0 };
    let base = cursor.varint().ok_or(truncated)?;
    let width = u32::from(cursor.u8().ok_or(truncated)?);
    if width > 64 {
        return Err(DecodeError::BitWidth { part: PART, width });
    }
    let word_count = if form == FORM_DIFFERENCES { count.saturating_sub(1) } else { count };
    let words = cursor.take((word_count * width as usize).div_ceil(8)).ok_or(truncated)?;
    let exception_count = cursor.uvarint().ok_or(truncated)?;
    if exception_count > count as u64 {
        return Err(DecodeError::TooManyPoints { part: PART, claimed: exception_count });
    }
    let rows = cursor.take(exception_count as usize * 2).ok_or(truncated)?;
    let bits = cursor.take(exception_count as usize * 8).ok_or(truncated)?;
    if !cursor.is_empty() {
        return Err(DecodeError::Trailing { part: PART });
    }

    let start = out.len();
    out.reserve(count);
    if form == FORM_DIFFERENCES {
        let mut integer = first;
        out.extend((count > 0).then(|| scale.value(integer)));
        unpack(words, width, word_count, |word| {
            integer = integer.wrapping_add(base).wrapping_add(word.cast_signed());
            out.push(scale.value(integer));
        });
    } else {
        unpack(words, width, word_count, |word| out.push(scale.value(base.wrapping_add(word.cast_signed()))));
    }
    let values = out.get_mut(start..).unwrap_or_default();
    let mut last = None;
    for (row, bits) in rows.as_chunks::<2>().0.iter().zip(bits.as_chunks::<8>().0) {
        let row = usize::from(u16::from_be_bytes(*row));
        let place = values.get_mut(row).filter(|_| last.is_none_or(|last| last < row));
        *place.ok_or(DecodeError::ExceptionRow { row })? = f64::from_bits(u64::from_be_bytes(*bits));
        last = Some(row);
    }
    Ok(())
}

/// How many values `bytes` claim, if they are of this encoding.
pub fn count(bytes: &[u8]) -> Option<u64> {
    let mut cursor = Cursor::new(bytes);
    (cursor.u8()? & 0xf0 == HEAD).then_some(())?;
    cursor.u8()?;
    cursor.uvarint()
}

fn pairs(integers: &[i64]) -> impl Iterator<Item = (i64, i64)> {
    integers.iter().copied().zip(integers.iter().skip(1).copied())
}

/// The scale by which a sample takes the fewest bits. Of equals the smallest.
fn choose_exponent(values: &[f64]) -> i32 {
    let step = values.len().div_ceil(SAMPLES_MAX).max(1);
    let samples: Vec<f64> = values.iter().step_by(step).copied().collect();
    let mut candidates: Vec<i32> = samples.iter().filter_map(|value| smallest_exponent(*value)).collect();
    candidates.sort_unstable();
    candidates.dedup();
    let cost = |exponent: &i32| {
        let Some(scale) = Scale::of(*exponent) else { return u64::MAX };
        let mut exceptions = 0;
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for value in &samples {
            let (integer, exact) = scale.integer(*value);
            if exact {
                (min, max) = (min.min(integer), max.max(integer));
            } else {
                exceptions += 1;
            }
        }
        let width = if min > max { 0 } else { width_of(max.wrapping_sub(min).cast_unsigned()) };
        samples.len() as u64 * u64::from(width) + exceptions * EXCEPTION_BITS
    };
    candidates.into_iter().min_by_key(cost).unwrap_or(0)
}

/// The smallest scale by which the value comes back.
fn smallest_exponent(value: f64) -> Option<i32> {
    let is_exact = |exponent: &i32| Scale::of(*exponent).is_some_and(|scale| scale.integer(value).1);
    if is_exact(&0) {
        (SCALE_MIN..0).rev().take_while(is_exact).last().or(Some(0))
    } else {
        (1..=SCALE_MAX).find(is_exact)
    }
}

/// Gives the rows of exceptions the integer before them, so that they widen nothing.
fn fill_exceptions(integers: &mut [i64], exceptions: &[usize]) {
    let mut rows = exceptions.iter().copied().peekable();
    // The first good one stands in for those that lead.
    let good = (0..integers.len()).find(|row| exceptions.binary_search(row).is_err());
    let mut before = good.and_then(|row| integers.get(row).copied()).unwrap_or(0);
    for (row, integer) in integers.iter_mut().enumerate() {
        if rows.next_if_eq(&row).is_some() {
            *integer = before;
        }
        before = *integer;
    }
}

fn width_of(word: u64) -> u32 {
    64 - word.leading_zeros()
}

/// What packed words are counted from, and how many bits they take.
#[derive(Clone, Copy, Debug)]
struct Frame {
    base: i64,
    width: u32,
}

impl Frame {
    fn of(integers: impl Iterator<Item = i64>) -> Frame {
        let (min, max) =
            integers.fold((i64::MAX, i64::MIN), |(min, max), integer| (min.min(integer), max.max(integer)));
        if min > max {
            return Frame { base: 0, width: 0 };
        }
        Frame { base: min, width: width_of(max.wrapping_sub(min).cast_unsigned()) }
    }

    fn bits(self, count: usize) -> u64 {
        u64::from(self.width) * count as u64
    }

    /// Appends base, width and words.
    fn pack(self, integers: impl Iterator<Item = i64>, out: &mut Vec<u8>) {
        push_varint(out, self.base);
        out.push(self.width as u8);
        if self.width == 0 {
            return;
        }
        // Bits that are not written yet, fewer than 64 between two words.
        let (mut held, mut held_bits) = (0u128, 0u32);
        for integer in integers {
            let word = integer.wrapping_sub(self.base).cast_unsigned();
            held |= u128::from(word) << held_bits;
            held_bits += self.width;
            if held_bits >= 64 {
                out.extend_from_slice(&(held as u64).to_le_bytes());
                held >>= 64;
                held_bits -= 64;
            }
        }
        out.extend((held as u64).to_le_bytes().into_iter().take(held_bits.div_ceil(8) as usize));
    }
}

/// Hands over `count` words of `width` bits.
#[inline(always)]
fn unpack(bytes: &[u8], width: u32, count: usize, mut sink: impl FnMut(u64)) {
    if width == 0 {
        return (0..count).for_each(|_| sink(0));
    }
    let mask = u64::MAX >> (64 - width);
    let mut at = 0usize;
    // A word of at most 57 bits lies in the eight bytes from the one that it begins in.
    if width <= 57 {
        for _ in 0..count {
            let rest = bytes.get(at / 8..).unwrap_or_default();
            let word = match rest.first_chunk::<8>() {
                Some(chunk) => u64::from_le_bytes(*chunk),
                None => padded(rest) as u64,
            };
            sink(word >> (at % 8) & mask);
            at += width as usize;
        }
        return;
    }
    for _ in 0..count {
        let rest = bytes.get(at / 8..).unwrap_or_default();
        let word = match rest.first_chunk::<16>() {
            Some(chunk) => u128::from_le_bytes(*chunk),
            None => padded(rest),
        };
        sink((word >> (at % 8)) as u64 & mask);
        at += width as usize;
    }
}

#[cold]
fn padded(rest: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    u128::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[f64]) -> Vec<u8> {
        let mut bytes = vec![];
        encode(values, &mut bytes);
        assert_eq!(count(&bytes), Some(values.len() as u64));
        let mut decoded = vec![42.0];
        decode(&bytes, &mut decoded).unwrap();
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&decoded[1..]), bits(values));
        bytes
    }

    fn floats() -> impl Strategy<Value = Vec<f64>> {
        let any_bits = any::<u64>().prop_map(f64::from_bits);
        let decimal = (any::<i64>(), 0u32..60, 0usize..20)
            .prop_map(|(digits, shift, scale)| (digits >> shift) as f64 / POWERS[scale]);
        let multiple = (any::<i32>(), 0usize..20).prop_map(|(digits, scale)| f64::from(digits) * POWERS[scale]);
        let odd = prop_oneof![
            Just(0.0),
            Just(-0.0),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            Just(f64::NAN),
            Just(f64::from_bits(0x7ff8_0000_0000_0001)),
            Just(f64::from_bits(0xfff0_dead_beef_0001)),
            Just(f64::MIN_POSITIVE),
            Just(5e-324),
            Just(INTEGER_BOUND),
            Just(-INTEGER_BOUND),
            Just(9_007_199_254_740_993.0),
        ];
        let one_kind = (0usize..8, -500i32..500, 1i32..300).prop_flat_map(|(scale, first, range)| {
            proptest::collection::vec(first..first + range, 1..300)
                .prop_map(move |all| all.into_iter().map(|digits| f64::from(digits) / POWERS[scale]).collect())
        });
        let mixed =
            proptest::collection::vec(prop_oneof![4 => decimal, 2 => multiple, 1 => any_bits, 1 => odd], 0..200);
        prop_oneof![one_kind, mixed]
    }

    proptest! {
        #[test]
        fn every_bit_comes_back(values in floats()) {
            round_trip(&values);
        }

        #[test]
        fn any_bytes_decode_or_fail(form in 0u8..3, bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes: Vec<u8> = std::iter::once(HEAD | form).chain(bytes).collect();
            let mut decoded = Vec::new();
            let _ = decode(&bytes, &mut decoded);
            prop_assert!(decoded.len() <= BLOCK_POINTS_MAX);
        }

        #[test]
        fn every_cut_and_every_byte_too_many_is_an_error(values in floats(), cut in any::<prop::sample::Index>()) {
            let mut bytes = round_trip(&values);
            prop_assert!(decode(&bytes[..cut.index(bytes.len())], &mut Vec::new()).is_err());
            bytes.push(0);
            prop_assert!(decode(&bytes, &mut Vec::new()).is_err());
        }

        #[test]
        fn a_changed_byte_decodes_or_fails(values in floats(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut bytes = round_trip(&values);
            let at = at.index(bytes.len());
            bytes[at] = to;
            let mut decoded = Vec::new();
            let _ = decode(&bytes, &mut decoded);
            prop_assert!(decoded.len() <= BLOCK_POINTS_MAX);
        }
    }

    #[test]
    fn decimals_take_the_bits_of_their_digits() {
        let percent: Vec<f64> = (0..1000).map(|row| f64::from(row * 7919 % 1000) / 10.0).collect();
        assert!(round_trip(&percent).len() < 1000 * 10 / 8 + 20);
        let counter: Vec<f64> = (0..1000).map(|row| 1e9 + f64::from(row) * 17.0 + f64::from(row % 3)).collect();
        assert!(round_trip(&counter).len() < 1000 * 3 / 8 + 30);
        let constant = round_trip(&[0.3; BLOCK_POINTS_MAX]);
        assert!(constant.len() < 16, "{}", constant.len());
        let spoiled: Vec<f64> =
            percent.iter().enumerate().map(|(row, v)| if row % 100 == 50 { f64::NAN } else { *v }).collect();
        assert!(round_trip(&spoiled).len() < 1000 * 10 / 8 + 20 + 10 * 10);
    }

    #[test]
    fn every_double_of_up_to_fifteen_digits_is_no_exception() {
        for scale in 0..=14 {
            for digits in [1i64, 3, 7, 123_456_789, 999_999_999_999_999, 123_456_789_012_345] {
                let text = format!("{digits}e-{scale}");
                let value: f64 = text.parse().unwrap();
                assert!(smallest_exponent(value).is_some(), "{text}");
            }
        }
    }

    #[test]
    fn forged_claims_are_refused() {
        let forged = |head: u8, exponent: i8, count: u64, width: u8| {
            let mut bytes = vec![head, exponent.cast_unsigned()];
            push_uvarint(&mut bytes, count);
            push_varint(&mut bytes, 0);
            bytes.extend([width, 0]);
            decode(&bytes, &mut Vec::new())
        };
        assert_eq!(forged(HEAD, 23, 0, 0), Err(DecodeError::FloatScale { exponent: 23 }));
        assert_eq!(forged(HEAD, -23, 0, 0), Err(DecodeError::FloatScale { exponent: -23 }));
        assert_eq!(forged(HEAD, 0, 65_536, 0), Err(DecodeError::TooManyPoints { part: PART, claimed: 65_536 }));
        assert_eq!(forged(HEAD, 0, 1, 65), Err(DecodeError::BitWidth { part: PART, width: 65 }));
        assert_eq!(forged(HEAD, 0, 9, 64), Err(DecodeError::Truncated { part: PART }));
        assert_eq!(forged(HEAD | 2, 0, 0, 0), Err(DecodeError::Encoding { part: PART, code: HEAD | 2 }));
        assert_eq!(forged(HEAD, 0, 65_535, 0), Ok(()));
    }
}
