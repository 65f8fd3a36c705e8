//! simple8b words: up to 240 small numbers in 64 bits (`tsm-format`, section 2.7).
//!
//! Owns: choosing selectors, packing and unpacking words.
//! Invariants: the encoder makes upstream's choice, the densest selector all of whose slots the next values fill; the
//! decoder yields at most `BLOCK_POINTS_MAX` numbers.
//! Knows nothing of deltas, signs or scales.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::error::{BLOCK_POINTS_MAX, DecodeError};

/// Largest number that a word can hold.
pub const VALUE_MAX: u64 = (1 << 60) - 1;

/// Numbers in a word, by selector.
const COUNTS: [u8; 16] = [240, 120, 60, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1];

/// What the two selectors without payload stand for.
const ONES: [u64; 240] = [1; 240];

/// Numbers of the densest selector with a payload.
const SLOTS_MAX: usize = 60;

/// Appends the words of `values`, big-endian.
///
/// # Panics
/// If a value exceeds [`VALUE_MAX`].
pub fn encode(values: &[u64], out: &mut Vec<u8>) {
    let mut rest = values;
    while let Some(first) = rest.first() {
        let (word, count) =
            if *first == 1 && rest.len() >= 120 { ones(rest) } else { None }.unwrap_or_else(|| densest_word(rest));
        out.extend_from_slice(&word.to_be_bytes());
        rest = rest.get(count..).unwrap_or_default();
    }
}

/// Appends the numbers of `words`; their count follows from the words alone.
///
/// # Errors
/// If `words` is no whole number of words or they hold more than `BLOCK_POINTS_MAX` numbers; `out` is then in part
/// appended to.
pub fn decode(words: &[u8], out: &mut Vec<u64>) -> Result<(), DecodeError> {
    for_each_word(words, "simple8b words", BLOCK_POINTS_MAX, |values| out.extend_from_slice(values))
}

/// How many numbers `words` hold, from the selectors alone. At most 30 times the bytes.
///
/// # Errors
/// If `words` is no whole number of words.
pub fn count(words: &[u8]) -> Result<usize, DecodeError> {
    let (words, []) = words.as_chunks::<8>() else { return Err(DecodeError::Truncated { part: "simple8b words" }) };
    Ok(words.iter().map(|[head, ..]| usize::from(COUNTS.get(usize::from(head >> 4)).copied().unwrap_or(0))).sum())
}

/// Hands the numbers of each word to `sink`, in order.
pub(crate) fn for_each_word(
    words: &[u8],
    part: &'static str,
    points_max: usize,
    mut sink: impl FnMut(&[u64]),
) -> Result<(), DecodeError> {
    let (words, []) = words.as_chunks::<8>() else { return Err(DecodeError::Truncated { part }) };
    let mut slots = [0u64; SLOTS_MAX];
    let mut total = 0usize;
    for word in words {
        let word = u64::from_be_bytes(*word);
        let values = match word >> 60 {
            0 => &ONES[..],
            1 => ONES.first_chunk::<120>().map_or(&[][..], |ones| ones),
            2 => unpack::<60, 1>(word, &mut slots),
            3 => unpack::<30, 2>(word, &mut slots),
            4 => unpack::<20, 3>(word, &mut slots),
            5 => unpack::<15, 4>(word, &mut slots),
            6 => unpack::<12, 5>(word, &mut slots),
            7 => unpack::<10, 6>(word, &mut slots),
            8 => unpack::<8, 7>(word, &mut slots),
            9 => unpack::<7, 8>(word, &mut slots),
            10 => unpack::<6, 10>(word, &mut slots),
            11 => unpack::<5, 12>(word, &mut slots),
            12 => unpack::<4, 15>(word, &mut slots),
            13 => unpack::<3, 20>(word, &mut slots),
            14 => unpack::<2, 30>(word, &mut slots),
            _ => unpack::<1, 60>(word, &mut slots),
        };
        total += values.len();
        if total > points_max {
            return Err(DecodeError::TooManyPoints { part, claimed: total as u64 });
        }
        sink(values);
    }
    Ok(())
}

#[inline(always)]
fn unpack<const COUNT: usize, const BITS: usize>(word: u64, slots: &mut [u64; SLOTS_MAX]) -> &[u64] {
    let Some(slots) = slots.first_chunk_mut::<COUNT>() else { return &[] };
    for (at, slot) in slots.iter_mut().enumerate() {
        *slot = word >> (at * BITS) & ((1 << BITS) - 1);
    }
    slots
}

#[inline(always)]
fn pack<const COUNT: usize, const BITS: usize>(selector: u64, values: &[u64]) -> (u64, usize) {
    let mut word = selector << 60;
    for (at, value) in values.iter().take(COUNT).enumerate() {
        word |= value << (at * BITS);
    }
    (word, COUNT)
}

/// The word of 240 or 120 ones, if `values` starts with that many.
fn ones(values: &[u64]) -> Option<(u64, usize)> {
    let run = values.iter().take(240).take_while(|value| **value == 1).count();
    match run {
        240 => Some((0, 240)),
        120.. => Some((1 << 60, 120)),
        _ => None,
    }
}

/// The word that holds most of the first values. Walking from one value a word upwards looks at few values more than
/// the word takes, where upstream's walk from 60 downwards reads the same ones up to 14 times; both end at the same
/// selector, because a prefix that fits a denser selector fits every sparser one.
fn densest_word(values: &[u64]) -> (u64, usize) {
    let mut all_bits = 0u64;
    let mut seen = 0usize;
    macro_rules! widen {
        ($count:literal, $bits:literal, $narrower:expr) => {{
            let Some(added) = values.get(seen..$count) else { return $narrower };
            added.iter().for_each(|value| all_bits |= value);
            if all_bits >> $bits != 0 {
                return $narrower;
            }
            seen = $count;
        }};
    }
    widen!(1, 60, unrepresentable(values));
    widen!(2, 30, pack::<1, 60>(15, values));
    widen!(3, 20, pack::<2, 30>(14, values));
    widen!(4, 15, pack::<3, 20>(13, values));
    widen!(5, 12, pack::<4, 15>(12, values));
    widen!(6, 10, pack::<5, 12>(11, values));
    widen!(7, 8, pack::<6, 10>(10, values));
    widen!(8, 7, pack::<7, 8>(9, values));
    widen!(10, 6, pack::<8, 7>(8, values));
    widen!(12, 5, pack::<10, 6>(7, values));
    widen!(15, 4, pack::<12, 5>(6, values));
    widen!(20, 3, pack::<15, 4>(5, values));
    widen!(30, 2, pack::<20, 3>(4, values));
    widen!(60, 1, pack::<30, 2>(3, values));
    let _ = seen;
    pack::<60, 1>(2, values)
}

#[cold]
fn unrepresentable(values: &[u64]) -> (u64, usize) {
    assert!(values.first().is_none_or(|value| *value <= VALUE_MAX), "a simple8b value above 2^60-1");
    (0, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The choice as section 2.7 words it: try selectors in order, take the first that is full and fits.
    fn encode_by_the_book(mut values: &[u64]) -> Vec<u64> {
        let bits = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 60];
        let mut words = Vec::new();
        while !values.is_empty() {
            for selector in 0..16 {
                let count = COUNTS[selector] as usize;
                if count > values.len() {
                    continue;
                }
                let fits = |value: &u64| if selector < 2 { *value == 1 } else { value >> bits[selector] == 0 };
                if values[..count].iter().all(fits) {
                    let payload = values[..count]
                        .iter()
                        .enumerate()
                        .map(|(at, value)| if selector < 2 { 0 } else { value << (at * bits[selector]) });
                    words.push(payload.fold((selector as u64) << 60, |word, slot| word | slot));
                    values = &values[count..];
                    break;
                }
            }
        }
        words
    }

    fn numbers() -> impl Strategy<Value = Vec<u64>> {
        let run = (0u32..=60, 1usize..300, any::<u64>()).prop_flat_map(|(bits, count, one)| {
            let limit = if bits == 0 { 1 } else { 1u64 << bits };
            prop_oneof![
                proptest::collection::vec(0..limit, count.min(80)),
                Just(vec![1; count]),
                Just(vec![one % limit; count]),
            ]
        });
        proptest::collection::vec(run, 0..6).prop_map(|runs| runs.concat())
    }

    proptest! {
        #[test]
        fn words_are_those_of_the_greedy_walk_and_come_back(values in numbers()) {
            let mut words = Vec::new();
            encode(&values, &mut words);
            let expected: Vec<u8> = encode_by_the_book(&values).iter().flat_map(|word| word.to_be_bytes()).collect();
            prop_assert_eq!(&words, &expected);
            prop_assert_eq!(count(&words).unwrap(), values.len());
            let mut decoded = Vec::new();
            decode(&words, &mut decoded).unwrap();
            prop_assert_eq!(decoded, values);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoded = Vec::new();
            let result = decode(&bytes, &mut decoded);
            prop_assert_eq!(result.is_ok(), bytes.len() % 8 == 0);
            if result.is_ok() {
                prop_assert_eq!(count(&bytes), Ok(decoded.len()));
            }
        }
    }

    #[test]
    fn a_bomb_of_ones_is_stopped_at_the_limit() {
        let mut decoded = Vec::new();
        assert!(matches!(decode(&vec![0; 8 << 20], &mut decoded), Err(DecodeError::TooManyPoints { .. })));
        assert!(decoded.len() <= BLOCK_POINTS_MAX);
    }

    #[test]
    #[should_panic(expected = "above 2^60-1")]
    fn a_value_above_60_bits_is_a_mistake_of_the_caller() {
        encode(&[1 << 60], &mut Vec::new());
    }
}
