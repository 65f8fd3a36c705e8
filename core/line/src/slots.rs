//! Open-addressing table of small numbers, the index part of the tables of a batch.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

/// Slots of an empty table: 8 KiB, which a small batch clears in a fraction of a microsecond.
const SLOTS_MIN: usize = 1_024;

/// Finds the number of an entry by the hash of its bytes. The entries themselves lie with the owner, who compares them.
///
/// A slot is the upper half of the hash and the number plus one; zero is free. At most half of the slots are taken.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<u64>,
    len: usize,
}

impl Slots {
    /// Empties the table. It keeps its size if it was well used: the next body is probably like the last one.
    pub(crate) fn clear(&mut self) {
        if self.len * 16 < self.slots.len() {
            self.slots.truncate(SLOTS_MIN);
        }
        if self.len > 0 {
            self.slots.fill(0);
        }
        self.len = 0;
    }

    pub(crate) fn shrink(&mut self) {
        self.slots.truncate(SLOTS_MIN);
        self.slots.shrink_to(SLOTS_MIN);
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.slots.capacity() * 8
    }

    /// The number stored under `hash` for which `is_same` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is_same: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut index = hash as usize & mask;
        loop {
            let slot = *self.slots.get(index)?;
            if slot == 0 {
                return None;
            }
            if slot >> 32 == hash >> 32 {
                let number = (slot as u32).wrapping_sub(1);
                if is_same(number) {
                    return Some(number);
                }
            }
            index = (index + 1) & mask;
        }
    }

    /// Stores `number`; `hash_of` gives the hash of a number that was stored before, for the move to a larger table.
    pub(crate) fn insert(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS_MIN, 0);
        } else if self.len * 2 >= self.slots.len() {
            self.grow(hash_of);
        }
        self.len += 1;
        self.place(hash, number);
    }

    fn place(&mut self, hash: u64, number: u32) {
        let Some(mask) = self.slots.len().checked_sub(1) else { return };
        let mut index = hash as usize & mask;
        while let Some(slot) = self.slots.get_mut(index) {
            if *slot == 0 {
                *slot = hash >> 32 << 32 | u64::from(number + 1);
                return;
            }
            index = (index + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self, hash_of: impl Fn(u32) -> u64) {
        let len = self.slots.len() * 4;
        let numbers: Vec<u32> = self.slots.iter().filter(|slot| **slot != 0).map(|slot| *slot as u32 - 1).collect();
        self.slots.clear();
        self.slots.resize(len, 0);
        for number in numbers {
            self.place(hash_of(number), number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_found_under_equal_hashes_and_after_growth() {
        for spread in [0u64, 1, 0x9e37_79b9_7f4a_7c15] {
            let count = if spread == 0 { 500 } else { 20_000 };
            let hash = |number: u32| u64::from(number).wrapping_mul(spread);
            let mut slots = Slots::default();
            for number in 0..count {
                assert_eq!(slots.find(hash(number), |found| found == number), None);
                slots.insert(hash(number), number, hash);
            }
            assert!((0..count).all(|number| slots.find(hash(number), |found| found == number) == Some(number)));
            slots.clear();
            assert_eq!(slots.find(0, |_| true), None);
        }
    }
}
