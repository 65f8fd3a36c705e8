//! The value part of integer and unsigned blocks (`tsm-format`, sections 2.2 and 2.3).
//!
//! Owns: zigzag deltas, raw, simple8b and run-length encoded.
//! Invariants: the encoder makes upstream's choice of encoding; the decoder yields at most `BLOCK_POINTS_MAX` values.
//! Arithmetic is modulo 2^64, so unsigned values share the format bit for bit.
//! Knows nothing of times.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::cursor::{Cursor, push_uvarint, zigzag_decode, zigzag_encode};
use crate::error::{BLOCK_POINTS_MAX, DecodeError};
use crate::simple8b;

const RAW: u8 = 0;
const SIMPLE8B: u8 = 1;
const RUN_LENGTH: u8 = 2;

/// A value of 64 bits on which deltas wrap.
pub(crate) trait Word: Copy {
    fn into_word(self) -> u64;
    fn from_word(word: u64) -> Self;
}

impl Word for i64 {
    fn into_word(self) -> u64 {
        self.cast_unsigned()
    }
    fn from_word(word: u64) -> i64 {
        word.cast_signed()
    }
}

impl Word for u64 {
    fn into_word(self) -> u64 {
        self
    }
    fn from_word(word: u64) -> u64 {
        word
    }
}

/// Appends the encoded `values`; nothing for none.
pub fn encode(values: &[i64], out: &mut Vec<u8>) {
    encode_words(values, out);
}

/// Appends the values of `bytes`: at most `BLOCK_POINTS_MAX`.
///
/// # Errors
/// If the bytes end early, name an unknown encoding or claim too many values; `out` is then in part appended to.
pub fn decode(bytes: &[u8], out: &mut Vec<i64>) -> Result<(), DecodeError> {
    decode_words(bytes, "integers", out)
}

pub(crate) fn encode_words<T: Word>(values: &[T], out: &mut Vec<u8>) {
    let Some((first, rest)) = values.split_first() else { return };
    let first = zigzag_encode(first.into_word());
    let deltas = || values.iter().zip(rest).map(|(before, after)| after.into_word().wrapping_sub(before.into_word()));
    if let Some(delta) = deltas().next()
        && values.len() > 2
        && deltas().all(|other| other == delta)
    {
        out.push(RUN_LENGTH << 4);
        out.extend_from_slice(&first.to_be_bytes());
        push_uvarint(out, zigzag_encode(delta));
        push_uvarint(out, rest.len() as u64);
        return;
    }
    let words: Vec<u64> = deltas().map(zigzag_encode).collect();
    let all_bits = words.iter().fold(0, |all, word| all | word);
    if all_bits > simple8b::VALUE_MAX {
        out.reserve(1 + values.len() * 8);
        out.push(RAW << 4);
        out.extend_from_slice(&first.to_be_bytes());
        words.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
        return;
    }
    out.push(SIMPLE8B << 4);
    out.extend_from_slice(&first.to_be_bytes());
    simple8b::encode(&words, out);
}

pub(crate) fn decode_words<T: Word>(bytes: &[u8], part: &'static str, out: &mut Vec<T>) -> Result<(), DecodeError> {
    let Some((head, body)) = bytes.split_first() else { return Ok(()) };
    let truncated = DecodeError::Truncated { part };
    let mut cursor = Cursor::new(body);
    match head >> 4 {
        RAW => {
            let (words, []) = body.as_chunks::<8>() else { return Err(truncated) };
            if words.len() > BLOCK_POINTS_MAX {
                return Err(DecodeError::TooManyPoints { part, claimed: words.len() as u64 });
            }
            let mut value = 0u64;
            out.extend(words.iter().map(|word| {
                value = value.wrapping_add(zigzag_decode(u64::from_be_bytes(*word)));
                T::from_word(value)
            }));
            Ok(())
        }
        SIMPLE8B => {
            let mut value = zigzag_decode(cursor.u64().ok_or(truncated)?);
            out.push(T::from_word(value));
            simple8b::for_each_word(cursor.rest(), part, BLOCK_POINTS_MAX - 1, |words| {
                out.extend(words.iter().map(|word| {
                    value = value.wrapping_add(zigzag_decode(*word));
                    T::from_word(value)
                }));
            })
        }
        RUN_LENGTH => {
            let (first, delta, count) = run(cursor).ok_or(truncated)?;
            if count >= BLOCK_POINTS_MAX as u64 {
                return Err(DecodeError::TooManyPoints { part, claimed: count.saturating_add(1) });
            }
            out.extend((0..=count).map(|row| T::from_word(first.wrapping_add(delta.wrapping_mul(row)))));
            Ok(())
        }
        code => Err(DecodeError::Encoding { part, code }),
    }
}

/// First value, delta and count of further values of a run.
fn run(mut cursor: Cursor<'_>) -> Option<(u64, u64, u64)> {
    Some((zigzag_decode(cursor.u64()?), zigzag_decode(cursor.uvarint()?), cursor.uvarint()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[i64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(values, &mut bytes);
        let mut decoded = vec![42];
        decode(&bytes, &mut decoded).unwrap();
        assert_eq!(&decoded[1..], values);
        bytes
    }

    pub(crate) fn integers() -> impl Strategy<Value = Vec<i64>> {
        let walk = (0u32..63).prop_flat_map(|bits| {
            proptest::collection::vec((any::<i64>(),).prop_map(move |(step,)| step >> bits), 0..300).prop_map(|steps| {
                let mut value = 0i64;
                steps
                    .into_iter()
                    .map(|step| {
                        value = value.wrapping_add(step);
                        value
                    })
                    .collect()
            })
        });
        prop_oneof![
            walk,
            proptest::collection::vec(any::<i64>(), 0..20),
            (any::<i64>(), any::<i64>(), 0usize..300).prop_map(|(first, delta, count)| {
                (0..count as i64).map(|row| first.wrapping_add(delta.wrapping_mul(row))).collect()
            }),
        ]
    }

    proptest! {
        #[test]
        fn integers_come_back(values in integers()) {
            round_trip(&values);
            let unsigned: Vec<u64> = values.iter().map(|value| value.cast_unsigned()).collect();
            let (mut as_signed, mut as_unsigned) = (Vec::new(), Vec::new());
            encode(&values, &mut as_signed);
            crate::unsigned::encode(&unsigned, &mut as_unsigned);
            prop_assert_eq!(&as_signed, &as_unsigned);
            let mut decoded = Vec::new();
            crate::unsigned::decode(&as_unsigned, &mut decoded).unwrap();
            prop_assert_eq!(decoded, unsigned);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..100), head in 0u8..48) {
            let bytes: Vec<u8> = std::iter::once(head).chain(bytes).collect();
            let mut decoded = Vec::new();
            let _ = decode(&bytes, &mut decoded);
            prop_assert!(decoded.len() <= BLOCK_POINTS_MAX);
        }
    }

    #[test]
    fn each_encoding_is_chosen_where_the_format_says() {
        assert_eq!(round_trip(&[i64::MIN])[0], 0x10);
        assert_eq!(round_trip(&[7, 7])[0], 0x10);
        assert_eq!(round_trip(&[7, 7, 7])[0], 0x20);
        assert_eq!(round_trip(&[0, 1 << 60, 0])[0], 0);
        assert_eq!(round_trip(&[0, -(1 << 59)])[0], 0x10, "zigzag of -2^59 is 2^60-1");
        assert_eq!(round_trip(&[0, 1 << 59])[0], 0, "zigzag of 2^59 is 2^60");
    }

    #[test]
    fn a_run_that_claims_too_many_values_is_refused_and_the_longest_one_is_not() {
        let run_of = |count| {
            let mut bytes = vec![0x20, 0, 0, 0, 0, 0, 0, 0, 0, 2];
            push_uvarint(&mut bytes, count);
            let mut values = Vec::new();
            decode(&bytes, &mut values).map(|()| values.len())
        };
        assert_eq!(run_of(BLOCK_POINTS_MAX as u64 - 1), Ok(BLOCK_POINTS_MAX));
        for count in [BLOCK_POINTS_MAX as u64, u64::MAX] {
            assert!(matches!(run_of(count), Err(DecodeError::TooManyPoints { .. })));
        }
    }
}
