//! The value part of boolean blocks: a count, then eight values a byte (`tsm-format`, section 2.5).
//!
//! Invariants: the decoder yields at most `BLOCK_POINTS_MAX` values and no more than the bytes hold.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::cursor::{Cursor, push_uvarint};
use crate::error::{BLOCK_POINTS_MAX, DecodeError};

/// First byte of the part: the only boolean encoding there is.
const HEAD: u8 = 0x10;

const PART: &str = "booleans";

/// Appends the encoded `values`.
pub fn encode(values: &[bool], out: &mut Vec<u8>) {
    out.push(HEAD);
    push_uvarint(out, values.len() as u64);
    let (groups, rest) = values.as_chunks::<8>();
    out.extend(groups.iter().map(|group| group.iter().fold(0, |byte, value| byte << 1 | u8::from(*value))));
    if !rest.is_empty() {
        let bits = rest.iter().fold(0, |byte, value| byte << 1 | u8::from(*value));
        out.push(bits << (8 - rest.len()));
    }
}

/// Appends the values of `bytes`: at most `BLOCK_POINTS_MAX`.
///
/// # Errors
/// If the bytes hold fewer values than they claim, or claim too many, or name an unknown encoding; `out` is then as
/// before.
pub fn decode(bytes: &[u8], out: &mut Vec<bool>) -> Result<(), DecodeError> {
    let Some((head, body)) = bytes.split_first() else { return Ok(()) };
    if head >> 4 != HEAD >> 4 {
        return Err(DecodeError::Encoding { part: PART, code: head >> 4 });
    }
    let truncated = DecodeError::Truncated { part: PART };
    let mut cursor = Cursor::new(body);
    let claimed = cursor.uvarint().ok_or(truncated)?;
    let count = usize::try_from(claimed)
        .ok()
        .filter(|count| *count <= BLOCK_POINTS_MAX)
        .ok_or(DecodeError::TooManyPoints { part: PART, claimed })?;
    let bits = cursor.take(count.div_ceil(8)).ok_or(truncated)?;
    let end = out.len() + count;
    out.reserve(count + 8);
    for byte in bits {
        out.extend_from_slice(&[7, 6, 5, 4, 3, 2, 1, 0].map(|shift| byte >> shift & 1 == 1));
    }
    out.truncate(end);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn booleans_come_back(values in proptest::collection::vec(any::<bool>(), 0..300)) {
            let mut bytes = Vec::new();
            encode(&values, &mut bytes);
            let mut decoded = vec![true];
            decode(&bytes, &mut decoded).unwrap();
            prop_assert_eq!(&decoded[1..], &values);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes: Vec<u8> = std::iter::once(HEAD).chain(bytes).collect();
            let mut decoded = Vec::new();
            let _ = decode(&bytes, &mut decoded);
            prop_assert!(decoded.len() <= bytes.len() * 8);
        }
    }

    #[test]
    fn a_claim_beyond_the_bytes_is_refused() {
        let claim = |count| {
            let mut bytes = vec![HEAD];
            push_uvarint(&mut bytes, count);
            bytes.push(0xff);
            decode(&bytes, &mut Vec::new())
        };
        assert_eq!(claim(8), Ok(()));
        assert_eq!(claim(9), Err(DecodeError::Truncated { part: PART }));
        assert_eq!(claim(u64::MAX), Err(DecodeError::TooManyPoints { part: PART, claimed: u64::MAX }));
    }
}
