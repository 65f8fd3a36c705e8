//! Numbers in bodies.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub fn push_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Small numbers of either sign become short.
pub fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Ascending ids as runs: how many are left out, how many follow each other.
pub fn push_runs(ids: impl Iterator<Item = u32>, out: &mut Vec<u8>) {
    let (mut next, mut start) = (0, None);
    for id in ids {
        match start {
            Some(first) if id == next => debug_assert!(first < id),
            Some(first) => {
                push_varint(u64::from(next - first), out);
                push_varint(u64::from(id - next), out);
                start = Some(id);
            }
            None => {
                push_varint(u64::from(id), out);
                start = Some(id);
            }
        }
        next = id + 1;
    }
    if let Some(first) = start {
        push_varint(u64::from(next - first), out);
    }
}

/// Reads a body; `None` is its end or nonsense.
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(body: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: body }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub fn word(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    pub fn long(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.take(8)?.first_chunk()?))
    }

    pub fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits.checked_shl(shift).is_none_or(|shifted| shifted >> shift != bits) {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub fn signed(&mut self) -> Option<i64> {
        self.varint().map(unzigzag)
    }

    /// A length and as many bytes.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.take(len)
    }

    /// What [`push_runs`] wrote: ranges of ids below `end`.
    pub fn runs(&mut self, end: u32) -> Option<Vec<std::ops::Range<u32>>> {
        let (mut runs, mut at) = (Vec::new(), 0u32);
        while !self.is_empty() {
            let start = at.checked_add(u32::try_from(self.varint()?).ok()?)?;
            let len = u32::try_from(self.varint()?).ok()?;
            at = start.checked_add(len).filter(|stop| *stop <= end && len > 0)?;
            runs.push(start..at);
        }
        Some(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(number: u64, signed: i64) {
            let mut bytes = Vec::new();
            push_varint(number, &mut bytes);
            push_varint(zigzag(signed), &mut bytes);
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!((cursor.varint(), cursor.signed(), cursor.is_empty()), (Some(number), Some(signed), true));
        }

        #[test]
        fn runs_come_back(ids in proptest::collection::btree_set(0u32..200, 0..80)) {
            let mut bytes = Vec::new();
            push_runs(ids.iter().copied(), &mut bytes);
            let runs = Cursor::new(&bytes).runs(200).unwrap();
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(runs.into_iter().flatten().eq(ids));
        }

        #[test]
        fn any_bytes_are_readable(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Cursor::new(&bytes).runs(100);
            let mut cursor = Cursor::new(&bytes);
            while cursor.varint().is_some() {}
            let _ = Cursor::new(&bytes).text();
        }
    }
}
