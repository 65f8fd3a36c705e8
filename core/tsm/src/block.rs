//! Blocks: some points of one field of one series (`tsm-format`, section 2).
//!
//! Layout: type byte, uvarint length of the time part, time part, value part. The CRC before it belongs to the file.
//!
//! Invariants: times of a block are strictly ascending and as many as its values, asserted before a block is written
//! and checked after it is read. When decoding fails, the caller's buffers are as they were before.
//! Knows nothing of keys and offsets.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use std::ops::Range;

use tidemill_column::{FieldType, Values};

use crate::cursor::{Cursor, push_uvarint};
use crate::error::{BLOCK_POINTS_MAX, DecodeError, EncodeError};
use crate::floats::FloatEncoding;
use crate::{booleans, floats, integers, strings, timestamps, unsigned};

/// A block taken apart, nothing decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    pub field_type: FieldType,
    pub times: &'a [u8],
    pub values: &'a [u8],
}

impl<'a> Parts<'a> {
    /// # Errors
    /// If the type is unknown or the time part ends past the block.
    pub fn of(block: &'a [u8]) -> Result<Parts<'a>, DecodeError> {
        let mut cursor = Cursor::new(block);
        let code = cursor.u8().ok_or(DecodeError::Empty)?;
        let field_type = FieldType::from_code(code).ok_or(DecodeError::BlockType { code })?;
        let times = cursor
            .uvarint()
            .and_then(|length| cursor.take(usize::try_from(length).ok()?))
            .ok_or(DecodeError::Truncated { part: "times" })?;
        Ok(Parts { field_type, times, values: cursor.rest() })
    }
}

/// Appends a block of rows `rows` of `times` and `values` as upstream encodes it.
///
/// # Errors
/// If a float is NaN or the strings are too large; `out` is then as before.
///
/// # Panics
/// If there is no row, there are more than `BLOCK_POINTS_MAX`, the rows exceed either side, or their times are not
/// strictly ascending.
pub fn encode(times: &[i64], values: &Values, rows: Range<usize>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut encoded_times = Vec::new();
    encode_times(rows_of(times, &rows), &mut encoded_times);
    encode_with_times(&encoded_times, values, rows, FloatEncoding::Gorilla, out)
}

/// Appends the time part of a block, for [`encode_with_times`]: the fields of a series mostly share their times.
///
/// # Panics
/// If there is no time, there are more than `BLOCK_POINTS_MAX`, or they are not strictly ascending.
pub fn encode_times(times: &[i64], out: &mut Vec<u8>) {
    assert!(!times.is_empty() && times.len() <= BLOCK_POINTS_MAX, "a block of {} points", times.len());
    assert!(first_not_ascending(times).is_none(), "the times of a block must be strictly ascending");
    timestamps::encode(times, out);
}

/// Appends a block of rows `rows` of `values`, whose times [`encode_times`] has encoded.
///
/// # Errors
/// If a float is NaN and its encoding has no place for it, or the strings are too large; `out` is then as before.
///
/// # Panics
/// If the time part holds another number of points than `rows`, or the rows exceed the values.
pub fn encode_with_times(
    encoded_times: &[u8],
    values: &Values,
    rows: Range<usize>,
    float_encoding: FloatEncoding,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    assert_eq!(timestamps::count(encoded_times), Ok(rows.len()), "times and values of a block");
    assert!(rows.end <= values.len(), "rows {rows:?} of {} values", values.len());
    let start = out.len();
    out.push(values.field_type().code());
    push_uvarint(out, encoded_times.len() as u64);
    out.extend_from_slice(encoded_times);
    let encoded = match values {
        Values::Float(values) => floats::encode_as(rows_of(values, &rows), float_encoding, out),
        Values::Integer(values) => {
            integers::encode(rows_of(values, &rows), out);
            Ok(())
        }
        Values::Boolean(values) => {
            booleans::encode(rows_of(values, &rows), out);
            Ok(())
        }
        Values::String(values) => strings::encode(values, rows, out),
        Values::Unsigned(values) => {
            unsigned::encode(rows_of(values, &rows), out);
            Ok(())
        }
    };
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

/// Appends the points of `block` to both buffers and answers how many they are.
///
/// # Errors
/// If the bytes are no block, its values are of another type than `values`, the parts hold different numbers of
/// points, or the times do not ascend; both buffers are then as before.
pub fn decode(block: &[u8], times: &mut Vec<i64>, values: &mut Values) -> Result<usize, DecodeError> {
    let parts = Parts::of(block)?;
    let times_before = times.len();
    let count = times_of(&parts, times)?;
    values_of(&parts, count, values).inspect_err(|_| times.truncate(times_before))?;
    Ok(count)
}

/// Appends the times of `block` and answers how many they are.
///
/// # Errors
/// If the time part is damaged or does not ascend; `times` is then as before.
pub fn decode_times(block: &[u8], times: &mut Vec<i64>) -> Result<usize, DecodeError> {
    times_of(&Parts::of(block)?, times)
}

/// Appends the values of `block` and answers how many they are. Times are counted, not decoded.
///
/// # Errors
/// If the bytes are no block, its values are of another type than `values`, or the parts hold different numbers of
/// points; `values` is then as before.
pub fn decode_values(block: &[u8], values: &mut Values) -> Result<usize, DecodeError> {
    let parts = Parts::of(block)?;
    let count = timestamps::count(parts.times)?;
    if count == 0 {
        return Err(DecodeError::Empty);
    }
    values_of(&parts, count, values)?;
    Ok(count)
}

/// How many points `block` holds, from its time part alone and without decoding it.
///
/// # Errors
/// If the time part is damaged or holds none.
pub fn point_count(block: &[u8]) -> Result<usize, DecodeError> {
    match timestamps::count(Parts::of(block)?.times)? {
        0 => Err(DecodeError::Empty),
        count => Ok(count),
    }
}

fn times_of(parts: &Parts<'_>, times: &mut Vec<i64>) -> Result<usize, DecodeError> {
    let before = times.len();
    times.reserve(timestamps::count(parts.times)?);
    let checked = timestamps::decode(parts.times, times).and_then(|()| {
        let added = times.get(before..).unwrap_or_default();
        match first_not_ascending(added) {
            Some(row) => Err(DecodeError::NotAscending { row }),
            None if added.is_empty() => Err(DecodeError::Empty),
            None => Ok(added.len()),
        }
    });
    if checked.is_err() {
        times.truncate(before);
    }
    checked
}

fn values_of(parts: &Parts<'_>, count: usize, values: &mut Values) -> Result<(), DecodeError> {
    let before = values.len();
    let decoded = match (parts.field_type, &mut *values) {
        (FieldType::Float, Values::Float(values)) => {
            values.reserve(count);
            floats::decode(parts.values, values)
        }
        (FieldType::Integer, Values::Integer(values)) => {
            values.reserve(count);
            integers::decode(parts.values, values)
        }
        (FieldType::Boolean, Values::Boolean(values)) => booleans::decode(parts.values, values),
        (FieldType::String, Values::String(values)) => strings::decode(parts.values, values),
        (FieldType::Unsigned, Values::Unsigned(values)) => {
            values.reserve(count);
            unsigned::decode(parts.values, values)
        }
        (found, values) => return Err(DecodeError::FieldType { expected: values.field_type(), found }),
    };
    let checked = decoded.and_then(|()| match values.len() - before {
        added if added == count => Ok(()),
        added => Err(DecodeError::CountMismatch { times: count, values: added }),
    });
    if checked.is_err() {
        values.truncate(before);
    }
    checked
}

/// The first row whose time does not exceed the one before it.
fn first_not_ascending(times: &[i64]) -> Option<usize> {
    let (_, rest) = times.split_first()?;
    // Without the early exit of a search the loop is vectorised; a block that fails is searched again.
    let unordered = times.iter().zip(rest).fold(false, |any, (before, after)| any | (after <= before));
    unordered.then(|| 1 + times.iter().zip(rest).take_while(|(before, after)| before < after).count())
}

fn rows_of<'a, T>(values: &'a [T], rows: &Range<usize>) -> &'a [T] {
    let slice = values.get(rows.clone());
    assert!(slice.is_some(), "rows {rows:?} of {} values", values.len());
    slice.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_column::Strings;

    pub(crate) fn points() -> impl Strategy<Value = (Vec<i64>, Values)> {
        let times = (any::<i64>(), proptest::collection::vec(1i64..1 << 40, 1..200), any::<bool>()).prop_map(
            |(first, steps, regular)| {
                let mut time = first / 2;
                let first_step = steps[0];
                steps
                    .into_iter()
                    .map(|step| {
                        time += if regular { first_step } else { step };
                        time
                    })
                    .collect::<Vec<i64>>()
            },
        );
        (times, 0u8..5, any::<u64>()).prop_map(|(times, code, seed)| {
            let word = |row: usize| (row as u64 + 1).wrapping_mul(seed | 1) >> (seed % 64);
            let rows = 0..times.len();
            let values = match FieldType::from_code(code).unwrap() {
                FieldType::Float => Values::Float(rows.map(|row| word(row) as f64 / 4.0).collect()),
                FieldType::Integer => Values::Integer(rows.map(|row| word(row).cast_signed()).collect()),
                FieldType::Boolean => Values::Boolean(rows.map(|row| word(row) & 1 == 1).collect()),
                FieldType::String => {
                    let texts: Vec<String> = rows.map(|row| word(row).to_string()).collect();
                    Values::String(texts.iter().map(|text| text.as_bytes()).collect())
                }
                FieldType::Unsigned => Values::Unsigned(rows.map(word).collect()),
            };
            (times, values)
        })
    }

    proptest! {
        #[test]
        fn points_come_back_behind_what_the_buffers_held((times, values) in points()) {
            let mut block = Vec::new();
            encode(&times, &values, 0..times.len(), &mut block).unwrap();
            prop_assert_eq!(point_count(&block), Ok(times.len()));
            let mut decoded_times = vec![7];
            let mut decoded = Values::new(values.field_type());
            decoded.push_zero();
            prop_assert_eq!(decode(&block, &mut decoded_times, &mut decoded), Ok(times.len()));
            prop_assert_eq!(&decoded_times[1..], &times);
            let mut expected = Values::new(values.field_type());
            expected.push_zero();
            expected.extend_from(&values, 0..values.len());
            prop_assert_eq!(&decoded, &expected);
            let mut only = Values::new(values.field_type());
            decode_values(&block, &mut only).unwrap();
            prop_assert_eq!(&only, &values);
            let mut only = Vec::new();
            decode_times(&block, &mut only).unwrap();
            prop_assert_eq!(&only, &times);
        }

        #[test]
        fn a_damaged_block_leaves_the_buffers_alone((times, values) in points(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut block = Vec::new();
            encode(&times, &values, 0..times.len(), &mut block).unwrap();
            let at = at.index(block.len());
            block[at] = to;
            for code in 0..5 {
                let mut times = vec![7];
                let mut values = Values::new(FieldType::from_code(code).unwrap());
                values.push_zero();
                match decode(&block, &mut times, &mut values) {
                    Ok(count) => prop_assert!(times.len() == count + 1 && values.len() == count + 1),
                    Err(_) => prop_assert!(times.len() == 1 && values.len() == 1),
                }
            }
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..100), code in 0u8..6, time_bytes in 0u8..30, head in 0u8..3) {
            let bytes: Vec<u8> = [code, time_bytes, head << 4].into_iter().chain(bytes).collect();
            let field_type = FieldType::from_code(code).unwrap_or(FieldType::Float);
            let _ = decode(&bytes, &mut Vec::new(), &mut Values::new(field_type));
            let _ = decode_values(&bytes, &mut Values::new(field_type));
            let _ = point_count(&bytes);
        }
    }

    #[test]
    fn rows_choose_a_part_and_shared_times_give_the_same_block() {
        let times = [1, 2, 5, 9];
        let values = Values::String([&b"a"[..], b"b", b"c", b"d"].into_iter().collect::<Strings>());
        let (mut whole, mut encoded_times, mut shared) = (Vec::new(), Vec::new(), Vec::new());
        encode(&times, &values, 1..3, &mut whole).unwrap();
        encode_times(&times[1..3], &mut encoded_times);
        encode_with_times(&encoded_times, &values, 1..3, FloatEncoding::Gorilla, &mut shared).unwrap();
        assert_eq!(whole, shared);
        let mut decoded = (Vec::new(), Values::new(FieldType::String));
        decode(&whole, &mut decoded.0, &mut decoded.1).unwrap();
        assert_eq!(decoded, (vec![2, 5], Values::String([&b"b"[..], b"c"].into_iter().collect())));
    }

    #[test]
    fn equal_and_descending_times_are_refused_at_both_ends() {
        for times in [[1, 1, 2], [3, 2, 4], [1, 2, 2], [i64::MAX, i64::MIN, 0]] {
            let values = Values::Integer(vec![0; 3]);
            let refused = std::panic::catch_unwind(|| encode(&times, &values, 0..3, &mut Vec::new()));
            assert!(refused.is_err());
            let mut part = Vec::new();
            timestamps::encode(&times, &mut part);
            let mut block = Vec::new();
            encode_with_times(&part, &values, 0..3, FloatEncoding::Gorilla, &mut block).unwrap();
            let error = decode(&block, &mut Vec::new(), &mut Values::new(FieldType::Integer));
            assert!(matches!(error, Err(DecodeError::NotAscending { row: 1 | 2 })), "{error:?}");
        }
    }

    #[test]
    fn nan_leaves_the_output_alone() {
        let mut out = vec![1, 2];
        let error = encode(&[1, 2], &Values::Float(vec![0.0, f64::NAN]), 0..2, &mut out);
        assert_eq!(error, Err(EncodeError::NotANumber { row: 1 }));
        assert_eq!(out, [1, 2]);
    }
}
