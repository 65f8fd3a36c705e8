//! The value part of float blocks: XOR with the value before, as a bit stream (`tsm-format`, section 2.4), or scaled
//! integers ([`crate::alp`]).
//!
//! Owns: the bit stream both ways, 64 bits at a time, and the choice between the two.
//! Invariants: the encoder writes upstream's bits, its leading-zero count modulo 32 included; the decoder yields at
//! most `BLOCK_POINTS_MAX` values. Every bit pattern but NaN comes back.
//! Knows nothing of times.
//!
//! The scheme is that of Pelkonen et al., "Gorilla: A Fast, Scalable, In-Memory Time Series Database", VLDB 2015,
//! section 4.1.2, with one NaN as terminator instead of a count.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::alp;
use crate::error::{BLOCK_POINTS_MAX, DecodeError, EncodeError};

/// How float values are written; either is read wherever it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloatEncoding {
    /// As upstream writes and reads them.
    #[default]
    Gorilla,
    /// As scaled integers ([`crate::alp`]) where that takes fewer bytes; upstream cannot read them.
    Alp,
}

/// From this part of values that equal the one before on, XOR may win over scaled integers: it takes a bit for each.
const REPEATS_DIVISOR: usize = 2;
/// Above this the values are no decimals, and XOR may win, too.
const ALP_BYTES_MAX: usize = 4;

/// First byte of the part as upstream knows it.
const HEAD: u8 = 0x10;

/// The NaN that ends the stream.
const END: u64 = 0x7ff8_0000_0000_0001;

/// Two control bits, five of leading zeros, six of significant bits.
const WINDOW_HEADER_BITS: u32 = 13;

const PART: &str = "floats";

/// Appends the encoded `values`. The bytes depend on the values and `encoding` alone.
///
/// # Errors
/// If a value is NaN and the encoding is upstream's, which has no place for it; `out` is then as before.
pub fn encode_as(values: &[f64], encoding: FloatEncoding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if encoding == FloatEncoding::Gorilla {
        return encode(values, out);
    }
    let start = out.len();
    alp::encode(values, out);
    let alp_bytes = out.len() - start;
    let repeats = values.iter().zip(values.iter().skip(1)).filter(|(a, b)| a.to_bits() == b.to_bits()).count();
    if repeats >= values.len() / REPEATS_DIVISOR || alp_bytes > values.len() * ALP_BYTES_MAX {
        let mut xor = Vec::with_capacity(alp_bytes);
        if encode(values, &mut xor).is_ok() && xor.len() < alp_bytes {
            out.truncate(start);
            out.extend_from_slice(&xor);
        }
    }
    Ok(())
}

/// Appends the `values` as upstream encodes them; for none, a stream that holds only its end.
///
/// # Errors
/// If a value is NaN; `out` is then as before.
pub fn encode(values: &[f64], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if let Some(row) = values.iter().position(|value| value.is_nan()) {
        return Err(EncodeError::NotANumber { row });
    }
    out.reserve(16 + values.len() * 2);
    out.push(HEAD);
    let mut stream = BitWriter { word: 0, free: 64, out };
    let mut words = values.iter().map(|value| value.to_bits()).chain(std::iter::once(END));
    let mut before = words.next().unwrap_or(END);
    stream.push(before, 64);
    // No window yet: no number of zeros reaches the limits.
    let (mut leading, mut trailing) = (u32::MAX, u32::MAX);
    for word in words {
        let xor = word ^ before;
        before = word;
        if xor == 0 {
            stream.push(0, 1);
            continue;
        }
        // Upstream keeps five bits of the count, so 35 zeros become 3: a wider window than needed, but the same bits.
        let zeros_before = xor.leading_zeros() & 0x1f;
        let zeros_after = xor.trailing_zeros();
        if zeros_before >= leading && zeros_after >= trailing {
            let significant = 64 - leading - trailing;
            stream.push(0b10, 2);
            stream.push(xor >> trailing, significant);
        } else {
            (leading, trailing) = (zeros_before, zeros_after);
            let significant = 64 - leading - trailing;
            let header = 0b11 << 11 | u64::from(leading) << 6 | u64::from(significant & 0x3f);
            stream.push(header, WINDOW_HEADER_BITS);
            stream.push(xor >> trailing, significant);
        }
    }
    stream.finish();
    Ok(())
}

/// Appends the values of `bytes`: at most `BLOCK_POINTS_MAX`.
///
/// # Errors
/// If the stream has no end, an impossible window or too many values; `out` is then in part appended to.
pub fn decode(bytes: &[u8], out: &mut Vec<f64>) -> Result<(), DecodeError> {
    let Some((head, stream)) = bytes.split_first() else { return Ok(()) };
    if head & 0xf0 == alp::HEAD {
        return alp::decode(bytes, out);
    }
    if head >> 4 != HEAD >> 4 {
        return Err(DecodeError::Encoding { part: PART, code: head >> 4 });
    }
    let truncated = DecodeError::Truncated { part: PART };
    let bits_max = stream.len() * 8;
    let room_end = out.len() + BLOCK_POINTS_MAX;
    let too_many = DecodeError::TooManyPoints { part: PART, claimed: BLOCK_POINTS_MAX as u64 + 1 };

    let mut value = u64::from_be_bytes(*stream.first_chunk::<8>().ok_or(truncated)?);
    if value == END {
        return Ok(());
    }
    out.push(f64::from_bits(value));
    let mut at = 64usize;
    let (mut significant, mut trailing) = (64u32, 0u32);
    loop {
        let window = window_at(stream, at);
        if window >> 63 == 0 {
            // A run of zero bits is a run of equal values; the zeros that `window_at` adds past the end do not count.
            let run = (window.leading_zeros() as usize).min(bits_max.saturating_sub(at));
            if run == 0 {
                return Err(truncated);
            }
            if out.len() + run > room_end {
                return Err(too_many);
            }
            if run == 1 {
                out.push(f64::from_bits(value));
            } else {
                out.resize(out.len() + run, f64::from_bits(value));
            }
            at += run;
            continue;
        }
        let header_bits = if window >> 62 == 0b11 {
            let leading = (window >> 57) as u32 & 0x1f;
            significant = match (window >> 51) as u32 & 0x3f {
                0 => 64,
                bits => bits,
            };
            if leading + significant > 64 {
                return Err(DecodeError::FloatWindow { leading, significant });
            }
            trailing = 64 - leading - significant;
            WINDOW_HEADER_BITS
        } else {
            2
        };
        let payload = if header_bits + significant <= 64 {
            window << header_bits
        } else {
            window_at(stream, at + header_bits as usize)
        };
        at += (header_bits + significant) as usize;
        if at > bits_max {
            return Err(truncated);
        }
        value ^= payload >> (64 - significant) << trailing;
        if value == END {
            return Ok(());
        }
        if out.len() == room_end {
            return Err(too_many);
        }
        out.push(f64::from_bits(value));
    }
}

/// The 64 bits from bit `at` on, zeros past the end.
#[inline(always)]
fn window_at(stream: &[u8], at: usize) -> u64 {
    let rest = stream.get(at / 8..).unwrap_or_default();
    let bytes = match rest.first_chunk::<9>() {
        Some(bytes) => *bytes,
        None => padded(rest),
    };
    let [head @ .., last] = bytes;
    let shift = at % 8;
    u64::from_be_bytes(head) << shift | u64::from(last) >> (8 - shift)
}

#[cold]
fn padded(rest: &[u8]) -> [u8; 9] {
    let mut bytes = [0; 9];
    bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    bytes
}

/// Collects bits in a word, most significant first, and hands over whole words.
struct BitWriter<'a> {
    word: u64,
    /// Bits of `word` that are not set yet: 1 to 64.
    free: u32,
    out: &'a mut Vec<u8>,
}

impl BitWriter<'_> {
    /// Appends the low `count` bits of `bits`: 1 to 64, the others zero.
    #[inline(always)]
    fn push(&mut self, bits: u64, count: u32) {
        if count < self.free {
            self.free -= count;
            self.word |= bits << self.free;
        } else {
            let left = count - self.free;
            self.out.extend_from_slice(&(self.word | bits >> left).to_be_bytes());
            self.free = 64 - left;
            // `left` is below 64, but may be 0: then no bit is left over.
            self.word = if left == 0 { 0 } else { bits << self.free };
        }
    }

    fn finish(self) {
        let used = (64 - self.free).div_ceil(8) as usize;
        self.out.extend(self.word.to_be_bytes().into_iter().take(used));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[f64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(values, &mut bytes).unwrap();
        let mut decoded = vec![42.0];
        decode(&bytes, &mut decoded).unwrap();
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&decoded[1..]), bits(values));
        bytes
    }

    fn floats() -> impl Strategy<Value = Vec<f64>> {
        let any_float = any::<u64>().prop_map(f64::from_bits).prop_filter("no NaN", |value| !value.is_nan());
        let near = (any::<i32>(), 0u32..31).prop_map(|(value, shift)| f64::from(value >> shift) / 8.0);
        let last_bits = (0u64..5).prop_map(|step| f64::from_bits(1.0f64.to_bits() + step));
        let one = prop_oneof![any_float, near, last_bits, Just(0.0), Just(-0.0), Just(f64::INFINITY), Just(1.5)];
        let runs = proptest::collection::vec((one, 1usize..100), 0..20);
        runs.prop_map(|runs| {
            runs.into_iter().flat_map(|(value, count)| vec![value; count.saturating_sub(60).max(1)]).collect()
        })
    }

    proptest! {
        #[test]
        fn the_smaller_encoding_comes_back_nan_included(values in floats(), nan in any::<prop::sample::Index>(), spoil in any::<bool>()) {
            let mut values = values;
            if spoil && !values.is_empty() {
                let row = nan.index(values.len());
                values[row] = f64::from_bits(END);
            }
            let (mut bytes, mut decoded) = (Vec::new(), Vec::new());
            encode_as(&values, FloatEncoding::Alp, &mut bytes).unwrap();
            decode(&bytes, &mut decoded).unwrap();
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&decoded), bits(&values));
        }

        #[test]
        fn floats_come_back(values in floats()) {
            round_trip(&values);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes: Vec<u8> = std::iter::once(HEAD).chain(bytes).collect();
            let mut decoded = Vec::new();
            let _ = decode(&bytes, &mut decoded);
            prop_assert!(decoded.len() <= bytes.len() * 8);
        }

        #[test]
        fn every_cut_of_a_stream_is_an_error(values in floats(), cut in 1usize..1000) {
            let bytes = round_trip(&values);
            let kept = bytes.len() - 1 - cut % (bytes.len() - 1);
            let result = decode(&bytes[..kept], &mut Vec::new());
            prop_assert_eq!(result.is_ok(), kept == 0);
        }
    }

    #[test]
    fn nan_is_refused_with_its_row_and_leaves_nothing_behind() {
        let mut bytes = vec![9];
        assert_eq!(encode(&[1.0, f64::NAN], &mut bytes), Err(EncodeError::NotANumber { row: 1 }));
        assert_eq!(bytes, [9]);
    }

    #[test]
    fn all_significant_bits_are_written_as_zero() {
        round_trip(&[f64::from_bits(0), f64::from_bits(0x8000_0000_0000_0001), f64::from_bits(1 << 63)]);
    }

    #[test]
    fn endless_zeros_are_stopped_at_the_limit() {
        let mut values = Vec::new();
        let bomb: Vec<u8> = std::iter::once(HEAD).chain(vec![0; 1 << 20]).collect();
        assert!(matches!(decode(&bomb, &mut values), Err(DecodeError::TooManyPoints { .. })));
        assert!(values.len() <= BLOCK_POINTS_MAX);
        round_trip(&vec![3.0; BLOCK_POINTS_MAX]);
    }

    #[test]
    fn a_window_wider_than_64_bits_is_refused() {
        let mut bytes = vec![HEAD];
        bytes.extend_from_slice(&1.0f64.to_be_bytes());
        bytes.extend_from_slice(&(0b11 << 62 | 31u64 << 57 | 60 << 51).to_be_bytes());
        bytes.extend_from_slice(&[0xff; 16]);
        let error = decode(&bytes, &mut Vec::new());
        assert_eq!(error, Err(DecodeError::FloatWindow { leading: 31, significant: 60 }));
    }
}
