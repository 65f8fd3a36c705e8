//! The timestamp part of a block (`tsm-format`, section 2.1).
//!
//! Owns: raw, simple8b and run-length encoded times, and the power of ten that divides their deltas.
//! Invariants: the encoder makes upstream's choice of encoding and scale; the decoder yields at most
//! `BLOCK_POINTS_MAX` times. Deltas are unsigned and wrap, so any times come back, ascending or not.
//! Knows nothing of values; whether times ascend is the block's business.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::cursor::{Cursor, push_uvarint};
use crate::error::{BLOCK_POINTS_MAX, DecodeError};
use crate::simple8b;

const RAW: u8 = 0;
const SIMPLE8B: u8 = 1;
const RUN_LENGTH: u8 = 2;

/// Largest exponent of the scale that an encoder looks for.
const SCALE_EXPONENT_MAX: usize = 12;

const PART: &str = "times";

/// One power of ten as exact divisor: `5^-exponent` modulo 2^64 and the largest quotient by `5^exponent`.
///
/// A multiplication tells whether a delta is divisible and gives the quotient, where a division would take 20 to 40
/// cycles for each delta (Hacker's Delight, 10-17).
#[derive(Clone, Copy)]
struct Scale {
    exponent: u32,
    inverse: u64,
    quotient_max: u64,
}

const SCALES: [Scale; SCALE_EXPONENT_MAX + 1] = scales();

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn scales() -> [Scale; SCALE_EXPONENT_MAX + 1] {
    let mut scales = [Scale { exponent: 0, inverse: 1, quotient_max: u64::MAX }; SCALE_EXPONENT_MAX + 1];
    let mut exponent = 1;
    while exponent <= SCALE_EXPONENT_MAX {
        let power = 5u64.pow(exponent as u32);
        // Newton's iteration doubles the number of right bits; an odd number is its own inverse modulo 8.
        let mut inverse = power;
        let mut round = 0;
        while round < 5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(power.wrapping_mul(inverse)));
            round += 1;
        }
        scales[exponent] = Scale { exponent: exponent as u32, inverse, quotient_max: u64::MAX / power };
        exponent += 1;
    }
    scales
}

impl Scale {
    /// `delta / 10^exponent` for a delta that the scale divides.
    #[inline(always)]
    fn quotient(self, delta: u64) -> u64 {
        (delta >> self.exponent).wrapping_mul(self.inverse)
    }

    /// For a delta of which the scale's power of two is known to be a divisor.
    #[inline(always)]
    fn divides_odd_part(self, delta: u64) -> bool {
        delta.wrapping_mul(self.inverse) <= self.quotient_max
    }

    /// The largest scale that divides all of `deltas`.
    fn of(deltas: &[u64]) -> Scale {
        let all_bits = deltas.iter().fold(0, |all, delta| all | delta);
        let candidates = SCALES.get(..=(all_bits.trailing_zeros() as usize).min(SCALE_EXPONENT_MAX));
        let mut candidates = candidates.unwrap_or_default().iter().rev();
        let mut scale = candidates.next().copied().unwrap_or(Scale { exponent: 0, inverse: 1, quotient_max: u64::MAX });
        for delta in deltas {
            while !scale.divides_odd_part(*delta) {
                // The smallest scale, 1, divides everything, so the candidates never run out.
                scale = candidates.next().copied().unwrap_or(scale);
            }
            if scale.exponent == 0 {
                break;
            }
        }
        scale
    }
}

/// Appends the encoded `times`; nothing for none.
pub fn encode(times: &[i64], out: &mut Vec<u8>) {
    let Some((first, rest)) = times.split_first() else { return };
    if let Some(second) = rest.first() {
        let delta = second.wrapping_sub(*first);
        if times.iter().zip(rest).all(|(before, after)| after.wrapping_sub(*before) == delta) {
            let delta = delta.cast_unsigned();
            let scale = Scale::of(&[delta]);
            out.push(RUN_LENGTH << 4 | scale.exponent as u8);
            out.extend_from_slice(&first.to_be_bytes());
            push_uvarint(out, scale.quotient(delta));
            push_uvarint(out, times.len() as u64);
            return;
        }
    }
    let mut deltas: Vec<u64> =
        times.iter().zip(rest).map(|(before, after)| after.wrapping_sub(*before).cast_unsigned()).collect();
    if deltas.iter().any(|delta| *delta > simple8b::VALUE_MAX) {
        out.reserve(1 + times.len() * 8);
        out.push(RAW << 4);
        out.extend_from_slice(&first.to_be_bytes());
        deltas.iter().for_each(|delta| out.extend_from_slice(&delta.to_be_bytes()));
        return;
    }
    let scale = Scale::of(&deltas);
    if scale.exponent > 0 {
        deltas.iter_mut().for_each(|delta| *delta = scale.quotient(*delta));
    }
    out.push(SIMPLE8B << 4 | scale.exponent as u8);
    out.extend_from_slice(&first.to_be_bytes());
    simple8b::encode(&deltas, out);
}

/// Appends the times of `bytes`: at most `BLOCK_POINTS_MAX`.
///
/// # Errors
/// If the bytes end early, name an unknown encoding or claim too many points; `out` is then in part appended to.
pub fn decode(bytes: &[u8], out: &mut Vec<i64>) -> Result<(), DecodeError> {
    let Some((head, body)) = bytes.split_first() else { return Ok(()) };
    let mut cursor = Cursor::new(body);
    let truncated = DecodeError::Truncated { part: PART };
    match head >> 4 {
        RAW => {
            let (words, []) = body.as_chunks::<8>() else { return Err(truncated) };
            held_against_limit(words.len() as u64)?;
            let mut time = 0i64;
            out.extend(words.iter().map(|word| {
                time = time.wrapping_add(i64::from_be_bytes(*word));
                time
            }));
            Ok(())
        }
        SIMPLE8B => {
            let mut time = cursor.u64().ok_or(truncated)?;
            let scale = 10u64.pow(u32::from(head & 0xf));
            out.push(time.cast_signed());
            simple8b::for_each_word(cursor.rest(), PART, BLOCK_POINTS_MAX - 1, |deltas| {
                out.extend(deltas.iter().map(|delta| {
                    time = time.wrapping_add(delta.wrapping_mul(scale));
                    time.cast_signed()
                }));
            })
        }
        RUN_LENGTH => {
            let (first, delta, count) = run(*head, cursor).ok_or(truncated)?;
            let count = held_against_limit(count)?;
            out.extend((0..count as u64).map(|row| first.wrapping_add(delta.wrapping_mul(row)).cast_signed()));
            Ok(())
        }
        code => Err(DecodeError::Encoding { part: PART, code }),
    }
}

/// How many times `bytes` hold, without decoding them.
///
/// # Errors
/// As [`decode`] would give.
pub fn count(bytes: &[u8]) -> Result<usize, DecodeError> {
    let Some((head, body)) = bytes.split_first() else { return Ok(0) };
    let mut cursor = Cursor::new(body);
    let truncated = DecodeError::Truncated { part: PART };
    match head >> 4 {
        RAW if body.len() % 8 == 0 => held_against_limit(body.len() as u64 / 8),
        RAW => Err(truncated),
        SIMPLE8B => {
            cursor.u64().ok_or(truncated)?;
            held_against_limit(1 + simple8b::count(cursor.rest()).map_err(|_| truncated)? as u64)
        }
        RUN_LENGTH => held_against_limit(run(*head, cursor).ok_or(truncated)?.2),
        code => Err(DecodeError::Encoding { part: PART, code }),
    }
}

/// First time, unscaled delta and count of a run.
fn run(head: u8, mut cursor: Cursor<'_>) -> Option<(u64, u64, u64)> {
    let first = cursor.u64()?;
    let delta = cursor.uvarint()?.wrapping_mul(10u64.pow(u32::from(head & 0xf)));
    Some((first, delta, cursor.uvarint()?))
}

fn held_against_limit(count: u64) -> Result<usize, DecodeError> {
    usize::try_from(count)
        .ok()
        .filter(|count| *count <= BLOCK_POINTS_MAX)
        .ok_or(DecodeError::TooManyPoints { part: PART, claimed: count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(times: &[i64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(times, &mut bytes);
        let mut decoded = vec![42];
        decode(&bytes, &mut decoded).unwrap();
        assert_eq!(&decoded[1..], times);
        assert_eq!(count(&bytes), Ok(times.len()));
        bytes
    }

    /// Section 2.1 word for word.
    fn scale_by_the_book(times: &[i64]) -> u8 {
        let mut exponent = 12;
        for pair in times.windows(2) {
            let delta = pair[1].wrapping_sub(pair[0]).cast_unsigned();
            while delta % 10u64.pow(exponent) != 0 {
                exponent -= 1;
            }
        }
        exponent as u8
    }

    fn times() -> impl Strategy<Value = Vec<i64>> {
        let deltas = (0u32..19, 1u64..40).prop_flat_map(|(exponent, top)| {
            proptest::collection::vec(
                (0..=top).prop_map(move |factor| factor.wrapping_mul(10u64.pow(exponent))),
                0..300,
            )
        });
        prop_oneof![
            (any::<i64>(), deltas).prop_map(|(first, deltas)| {
                let mut time = first;
                std::iter::once(first)
                    .chain(deltas.into_iter().map(|delta| {
                        time = time.wrapping_add(delta.cast_signed());
                        time
                    }))
                    .collect()
            }),
            proptest::collection::vec(any::<i64>(), 0..50),
            (any::<i64>(), any::<i64>(), 0usize..300).prop_map(|(first, delta, count)| {
                (0..count as i64).map(|row| first.wrapping_add(delta.wrapping_mul(row))).collect()
            }),
        ]
    }

    proptest! {
        #[test]
        fn times_come_back_in_the_encoding_of_the_book(times in times()) {
            let bytes = round_trip(&times);
            let deltas: Vec<u64> = times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]).cast_unsigned()).collect();
            let expected = if times.is_empty() {
                None
            } else if times.len() > 1 && deltas.iter().all(|delta| *delta == deltas[0]) {
                Some(0x20 | scale_by_the_book(&times))
            } else if deltas.iter().any(|delta| *delta >= 1 << 60) {
                Some(0)
            } else {
                Some(0x10 | scale_by_the_book(&times))
            };
            prop_assert_eq!(bytes.first().copied(), expected);
        }

        #[test]
        fn any_bytes_decode_or_fail_and_the_count_agrees(bytes in proptest::collection::vec(any::<u8>(), 0..100), head in 0u8..48) {
            let bytes: Vec<u8> = std::iter::once(head).chain(bytes).collect();
            let mut decoded = Vec::new();
            let result = decode(&bytes, &mut decoded);
            prop_assert!(decoded.len() <= BLOCK_POINTS_MAX);
            prop_assert_eq!(result.map(|()| decoded.len()), count(&bytes));
        }
    }

    #[test]
    fn a_single_time_is_nine_bytes() {
        assert_eq!(round_trip(&[1])[0], 0x1c);
        assert_eq!(round_trip(&[i64::MIN]).len(), 9);
    }

    #[test]
    fn a_run_that_claims_2_to_the_64_points_is_refused() {
        let mut bytes = vec![0x20, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        push_uvarint(&mut bytes, u64::MAX);
        assert!(matches!(decode(&bytes, &mut Vec::new()), Err(DecodeError::TooManyPoints { .. })));
        bytes.truncate(10);
        push_uvarint(&mut bytes, BLOCK_POINTS_MAX as u64);
        let mut times = Vec::new();
        decode(&bytes, &mut times).unwrap();
        assert_eq!(times.len(), BLOCK_POINTS_MAX);
    }
}
