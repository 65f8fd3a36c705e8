//! Which rows of a column hold a value.

use rkyv::{Archive, Deserialize, Serialize};
/// One bit a row, append-only but for [`Bitmap::clear_bit`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
}

impl Bitmap {
    pub fn new() -> Bitmap {
        Bitmap::default()
    }

    /// `len` bits, all `bit`.
    pub fn filled(len: usize, bit: bool) -> Bitmap {
        let mut words = vec![if bit { u64::MAX } else { 0 }; len.div_ceil(64)];
        if bit
            && !len.is_multiple_of(64)
            && let Some(last) = words.last_mut()
        {
            *last = (1 << (len % 64)) - 1;
        }
        Bitmap { words, len }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        self.words[self.len / 64] |= u64::from(bit) << (self.len % 64);
        self.len += 1;
    }

    /// # Panics
    /// If `row` is not below [`Bitmap::len`].
    pub fn bit(&self, row: usize) -> bool {
        assert!(row < self.len, "row {row} of a bitmap of {}", self.len);
        self.words[row / 64] >> (row % 64) & 1 == 1
    }

    /// # Panics
    /// If `row` is not below [`Bitmap::len`].
    pub fn set_bit(&mut self, row: usize) {
        assert!(row < self.len, "row {row} of a bitmap of {}", self.len);
        self.words[row / 64] |= 1 << (row % 64);
    }

    /// # Panics
    /// If `row` is not below [`Bitmap::len`].
    pub fn clear_bit(&mut self, row: usize) {
        assert!(row < self.len, "row {row} of a bitmap of {}", self.len);
        self.words[row / 64] &= !(1 << (row % 64));
    }

    /// Whether it is one that could have been made here, with so many bits; one that came from elsewhere may not be.
    pub fn is_sound(&self, len: usize) -> bool {
        let unused = self.words.len() * 64 - len.min(self.words.len() * 64);
        let is_clear = self.words.last().is_none_or(|last| last.leading_zeros() as usize >= unused);
        self.len == len && self.words.len() == len.div_ceil(64) && is_clear
    }

    pub fn count_ones(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.words.truncate(len.div_ceil(64));
            if !len.is_multiple_of(64)
                && let Some(last) = self.words.last_mut()
            {
                *last &= (1 << (len % 64)) - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_vector_of_bools(bits in proptest::collection::vec(any::<bool>(), 0..300), cut in 0usize..300) {
            let mut map = Bitmap::new();
            bits.iter().for_each(|bit| map.push(*bit));
            prop_assert_eq!(map.count_ones(), bits.iter().filter(|bit| **bit).count());
            map.truncate(cut);
            map.push(true);
            let kept: Vec<bool> = bits.iter().copied().take(cut).chain([true]).collect();
            prop_assert_eq!((0..map.len()).map(|row| map.bit(row)).collect::<Vec<_>>(), kept);
        }
    }

    #[test]
    fn filled_counts_only_its_rows() {
        for len in [0, 1, 63, 64, 65, 128] {
            assert_eq!(Bitmap::filled(len, true).count_ones(), len);
            assert_eq!(Bitmap::filled(len, false).count_ones(), 0);
        }
    }
}
