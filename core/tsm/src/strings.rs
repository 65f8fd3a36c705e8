//! The value part of string blocks: lengths and bytes in one snappy block (`tsm-format`, section 2.6).
//!
//! Invariants: the decoder allocates at most 22 times its input and yields at most `BLOCK_POINTS_MAX` values.
//! Strings are bytes; whether they are UTF-8 is the business of whoever prints them.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use std::ops::Range;

use tidemill_column::Strings;

use crate::cursor::{Cursor, push_uvarint};
use crate::error::{BLOCK_POINTS_MAX, DecodeError, EncodeError, SNAPPY_EXPANSION_MAX};

/// First byte of the part: the only string encoding there is.
const HEAD: u8 = 0x10;

const PART: &str = "strings";

/// Appends the encoded rows `rows` of `values`.
///
/// # Errors
/// If they are too large for a snappy block (4 GiB); `out` is then as before.
///
/// # Panics
/// If `rows` exceeds `values`.
pub fn encode(values: &Strings, rows: Range<usize>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut plain = Vec::new();
    for row in rows {
        let value = values.value(row);
        push_uvarint(&mut plain, value.len() as u64);
        plain.extend_from_slice(value);
    }
    let start = out.len();
    let too_large = EncodeError::StringsTooLarge { bytes: plain.len() };
    out.push(HEAD);
    let body = out.len();
    // Zero is what snappy answers for an input beyond its limit.
    out.resize(body + snap::raw::max_compress_len(plain.len()), 0);
    let compressed = out.get_mut(body..).map(|room| snap::raw::Encoder::new().compress(&plain, room));
    match compressed {
        Some(Ok(written)) => {
            out.truncate(body + written);
            Ok(())
        }
        _ => {
            out.truncate(start);
            Err(too_large)
        }
    }
}

/// Appends the values of `bytes`: at most `BLOCK_POINTS_MAX`.
///
/// # Errors
/// If the bytes are no snappy block, claim more than they can hold, or a string's length leads past the end; `out` is
/// then in part appended to.
pub fn decode(bytes: &[u8], out: &mut Strings) -> Result<(), DecodeError> {
    let Some((head, body)) = bytes.split_first() else { return Ok(()) };
    if head >> 4 != HEAD >> 4 {
        return Err(DecodeError::Encoding { part: PART, code: head >> 4 });
    }
    let plain = decompress(body)?;
    if out.byte_size() + plain.len() > u32::MAX as usize {
        return Err(DecodeError::StringsTooLarge);
    }
    let mut cursor = Cursor::new(&plain);
    let mut count = 0usize;
    while !cursor.is_empty() {
        count += 1;
        if count > BLOCK_POINTS_MAX {
            return Err(DecodeError::TooManyPoints { part: PART, claimed: count as u64 });
        }
        let value = cursor
            .uvarint()
            .and_then(|length| cursor.take(usize::try_from(length).ok()?))
            .ok_or(DecodeError::Truncated { part: PART })?;
        out.push(value);
    }
    Ok(())
}

/// The content of a snappy block. The length that the block claims is held against what its bytes could become before
/// anything is allocated.
pub(crate) fn decompress(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let claimed = snap::raw::decompress_len(body).map_err(|_| DecodeError::Snappy)?;
    if claimed > body.len().saturating_mul(SNAPPY_EXPANSION_MAX) {
        return Err(DecodeError::SnappyLength { claimed: claimed as u64, held: body.len() });
    }
    let mut plain = vec![0; claimed];
    let written = snap::raw::Decoder::new().decompress(body, &mut plain).map_err(|_| DecodeError::Snappy)?;
    plain.truncate(written);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_come_back(values in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..40), 0..60), skip in 0usize..5) {
            let strings: Strings = values.iter().map(Vec::as_slice).collect();
            let skip = skip.min(strings.len());
            let mut bytes = Vec::new();
            encode(&strings, skip..strings.len(), &mut bytes).unwrap();
            let mut decoded = Strings::new();
            decode(&bytes, &mut decoded).unwrap();
            prop_assert!(decoded.iter().eq(strings.iter().skip(skip)));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes: Vec<u8> = std::iter::once(HEAD).chain(bytes).collect();
            let mut decoded = Strings::new();
            let _ = decode(&bytes, &mut decoded);
            prop_assert!(decoded.byte_size() <= bytes.len() * SNAPPY_EXPANSION_MAX);
        }
    }

    #[test]
    fn the_densest_snappy_block_is_within_the_stated_expansion() {
        let strings: Strings = [&vec![b'x'; 1 << 20][..]].into_iter().collect();
        let mut bytes = Vec::new();
        encode(&strings, 0..1, &mut bytes).unwrap();
        let mut decoded = Strings::new();
        decode(&bytes, &mut decoded).unwrap();
        assert_eq!(decoded, strings);
    }

    #[test]
    fn a_claim_of_4_gib_allocates_nothing() {
        let bytes = [HEAD, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        let error = decode(&bytes, &mut Strings::new());
        assert_eq!(error, Err(DecodeError::SnappyLength { claimed: u64::from(u32::MAX), held: 6 }));
    }

    #[test]
    fn a_string_longer_than_its_block_is_refused() {
        let mut bytes = vec![HEAD];
        bytes.extend(snap::raw::Encoder::new().compress_vec(&[5, b'a', b'b']).unwrap());
        assert_eq!(decode(&bytes, &mut Strings::new()), Err(DecodeError::Truncated { part: PART }));
    }
}
