//! Where the table of a series is in a run of a memtable.

use crate::id::SeriesId;

/// Series of a leaf. Ids are dealt out in the order of arrival, so that series that are written together lie together;
/// a leaf that holds one series alone costs about what its table does.
const LEAF_LEN: usize = 64;
const NONE: u32 = u32::MAX;

/// A slot by series: four bytes a series where they are dense, and growth copies an eighth of a byte a series.
#[derive(Default)]
pub struct Slots {
    leaves: Vec<Option<Box<[u32; LEAF_LEN]>>>,
    held: usize,
}

impl Slots {
    #[inline]
    pub fn find(&self, series: SeriesId) -> Option<usize> {
        let leaf = self.leaves.get(series.0 as usize / LEAF_LEN)?.as_ref()?;
        let slot = leaf[series.0 as usize % LEAF_LEN];
        (slot != NONE).then_some(slot as usize)
    }

    pub fn insert(&mut self, series: SeriesId, slot: u32) {
        let number = series.0 as usize / LEAF_LEN;
        if number >= self.leaves.len() {
            self.leaves.resize_with(number + 1, || None);
        }
        let held = &mut self.held;
        let leaf = self.leaves[number].get_or_insert_with(|| {
            *held += 1;
            Box::new([NONE; LEAF_LEN])
        });
        leaf[series.0 as usize % LEAF_LEN] = slot;
    }

    pub fn byte_size(&self) -> usize {
        self.held * size_of::<[u32; LEAF_LEN]>() + self.leaves.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_again_and_take_what_they_say() {
        let mut slots = Slots::default();
        assert_eq!(slots.find(SeriesId(7)), None);
        for (slot, series) in [7u32, 0, 8, 5_000_000].into_iter().enumerate() {
            slots.insert(SeriesId(series), slot as u32);
            assert_eq!(slots.find(SeriesId(series)), Some(slot));
        }
        assert_eq!((slots.find(SeriesId(7)), slots.find(SeriesId(9)), slots.find(SeriesId(64))), (Some(0), None, None));
        assert_eq!(slots.held, 2);
    }
}
