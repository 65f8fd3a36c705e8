//! The value part of unsigned blocks: the integer format over the same 64 bits (`tsm-format`, section 2.3).

use crate::error::DecodeError;
use crate::integers;

/// Appends the encoded `values`; nothing for none.
pub fn encode(values: &[u64], out: &mut Vec<u8>) {
    integers::encode_words(values, out);
}

/// Appends the values of `bytes`: at most `BLOCK_POINTS_MAX`.
///
/// # Errors
/// As [`integers::decode`].
pub fn decode(bytes: &[u8], out: &mut Vec<u64>) -> Result<(), DecodeError> {
    integers::decode_words(bytes, "unsigned values", out)
}
