//! Reads big-endian numbers and uvarints off a byte slice; every read tells whether the bytes were there.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

/// Most bytes of a uvarint that holds 64 bits.
const UVARINT_BYTES_MAX: usize = 10;

/// The bytes that are not read yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// An unsigned LEB128 number; `None` also when it does not fit 64 bits.
    pub(crate) fn uvarint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (at, byte) in self.rest.iter().take(UVARINT_BYTES_MAX).enumerate() {
            if at == UVARINT_BYTES_MAX - 1 && *byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.take(at + 1)?;
                return Some(value);
            }
        }
        None
    }

    /// A zigzag-coded uvarint.
    pub(crate) fn varint(&mut self) -> Option<i64> {
        self.uvarint().map(|word| zigzag_decode(word).cast_signed())
    }
}

pub(crate) fn push_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn push_varint(out: &mut Vec<u8>, value: i64) {
    push_uvarint(out, zigzag_encode(value.cast_unsigned()));
}

/// Folds a two's complement delta so that small ones of either sign become small words.
pub(crate) fn zigzag_encode(delta: u64) -> u64 {
    (delta << 1) ^ (delta.cast_signed() >> 63).cast_unsigned()
}

pub(crate) fn zigzag_decode(word: u64) -> u64 {
    (word >> 1) ^ (word & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(unsigned in any::<u64>(), signed in any::<i64>(), shift in 0u32..64) {
            let mut bytes = Vec::new();
            push_uvarint(&mut bytes, unsigned >> shift);
            push_varint(&mut bytes, signed >> shift);
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(cursor.uvarint(), Some(unsigned >> shift));
            prop_assert_eq!(cursor.varint(), Some(signed >> shift));
            prop_assert!(cursor.is_empty());
        }
    }

    #[test]
    fn a_uvarint_of_more_than_64_bits_or_without_end_is_refused() {
        for bytes in [&[0xff; 9][..], &[0xff; 10], &[0xff; 11], &[0x80, 0x80], &[]] {
            assert_eq!(Cursor::new(bytes).uvarint(), None, "{bytes:x?}");
        }
        let mut largest = [0xff; 10];
        largest[9] = 1;
        assert_eq!(Cursor::new(&largest).uvarint(), Some(u64::MAX));
    }
}
