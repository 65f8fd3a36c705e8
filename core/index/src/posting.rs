//! Sets of series, sized after what they hold.

use roaring::RoaringBitmap;

/// Ids from which on a sorted list may become a bitmap; below, a bitmap never is the smaller one.
const LIST_LEN_MIN: usize = 64;
/// What a container of a bitmap costs besides its ids: its entry and its allocation.
const CONTAINER_BYTES: usize = 56;
/// A bitset of 2^16 ids.
const BITSET_BYTES: usize = 8192;
/// Ids that enter a bitmap before its size is looked at again.
const MEASURE_EVERY: u32 = 1024;

/// A set of series that owns its ids.
#[derive(Debug)]
pub enum Posting {
    /// Sorted.
    Few(Vec<u32>),
    Many(Box<Many>),
}

/// A bitmap, and what it takes.
#[derive(Debug)]
pub struct Many {
    ids: RoaringBitmap,
    bytes: usize,
    unmeasured: u32,
}

/// A set of series in the index.
#[derive(Clone, Copy, Debug)]
pub enum PostingRef<'a> {
    One(u32),
    /// Sorted.
    Few(&'a [u32]),
    Many(&'a RoaringBitmap),
}

impl Default for Posting {
    fn default() -> Posting {
        Posting::Few(Vec::new())
    }
}

impl Posting {
    /// Of ascending ids.
    pub fn from_sorted(ids: &[u32]) -> Posting {
        if !is_smaller_as_bitmap(ids) {
            return Posting::Few(ids.into());
        }
        let sorted = RoaringBitmap::from_sorted_iter(ids.iter().copied());
        let mut many = Many { ids: sorted.expect("the ids ascend"), bytes: 0, unmeasured: 0 };
        many.measure();
        Posting::Many(Box::new(many))
    }

    /// Adds an id; whether it was not there.
    pub fn insert(&mut self, id: u32) -> bool {
        match self {
            Posting::Few(ids) => {
                // Ids are dealt out in ascending order: almost always the new one is the last.
                let at = match ids.last() {
                    Some(last) if *last < id => ids.len(),
                    _ => match ids.binary_search(&id) {
                        Ok(_) => return false,
                        Err(at) => at,
                    },
                };
                if ids.len() == ids.capacity() {
                    if is_smaller_as_bitmap(ids) {
                        *self = Posting::from_sorted(ids);
                        return self.insert(id);
                    }
                    let more = if ids.len() < LIST_LEN_MIN { ids.len().max(2) } else { ids.len() / 4 };
                    ids.reserve_exact(more);
                }
                ids.insert(at, id);
                true
            }
            Posting::Many(many) => {
                let is_new = many.ids.insert(id);
                many.count_change();
                is_new
            }
        }
    }

    /// Takes an id out; whether it was there.
    pub fn remove(&mut self, id: u32) -> bool {
        match self {
            Posting::Few(ids) => match ids.binary_search(&id) {
                Ok(at) => {
                    ids.remove(at);
                    true
                }
                Err(_) => false,
            },
            Posting::Many(many) => {
                let was_there = many.ids.remove(id);
                many.count_change();
                was_there
            }
        }
    }

    pub fn view(&self) -> PostingRef<'_> {
        match self {
            Posting::Few(ids) => PostingRef::Few(ids),
            Posting::Many(many) => PostingRef::Many(&many.ids),
        }
    }

    /// Bytes on the heap; of a bitmap as it was last measured.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Posting::Few(ids) => ids.capacity() * size_of::<u32>(),
            Posting::Many(many) => size_of::<Many>() + many.bytes,
        }
    }
}

impl Many {
    fn count_change(&mut self) {
        self.unmeasured += 1;
        if self.unmeasured == MEASURE_EVERY {
            self.measure();
        }
    }

    fn measure(&mut self) {
        let statistics = self.ids.statistics();
        // Arrays grow by doubling.
        self.bytes = statistics.n_containers as usize * CONTAINER_BYTES
            + statistics.n_values_array_containers as usize * 3
            + statistics.n_bytes_run_containers as usize
            + statistics.n_bitset_containers as usize * BITSET_BYTES;
        self.unmeasured = 0;
    }
}

fn is_smaller_as_bitmap(ids: &[u32]) -> bool {
    if ids.len() < LIST_LEN_MIN {
        return false;
    }
    let containers = 1 + ids.windows(2).filter(|pair| pair[0] >> 16 != pair[1] >> 16).count();
    containers * CONTAINER_BYTES + ids.len() * 2 < ids.len() * 4
}

impl PostingRef<'_> {
    pub fn len(&self) -> u64 {
        match self {
            PostingRef::One(_) => 1,
            PostingRef::Few(ids) => ids.len() as u64,
            PostingRef::Many(ids) => ids.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no id is in both sets.
    pub fn is_disjoint(&self, other: &RoaringBitmap) -> bool {
        match self {
            PostingRef::One(id) => !other.contains(*id),
            PostingRef::Few(ids) => !ids.iter().any(|id| other.contains(*id)),
            PostingRef::Many(ids) => ids.is_disjoint(other),
        }
    }

    /// The smallest id.
    pub fn first(&self) -> Option<u32> {
        match self {
            PostingRef::One(id) => Some(*id),
            PostingRef::Few(ids) => ids.first().copied(),
            PostingRef::Many(ids) => ids.min(),
        }
    }

    pub fn to_bitmap(&self) -> RoaringBitmap {
        match self {
            PostingRef::One(id) => RoaringBitmap::from_iter([*id]),
            PostingRef::Few(ids) => ids.iter().copied().collect(),
            PostingRef::Many(ids) => (*ids).clone(),
        }
    }

    pub fn add_to(&self, all: &mut RoaringBitmap) {
        match self {
            PostingRef::One(id) => {
                all.insert(*id);
            }
            PostingRef::Few(ids) => all.extend(ids.iter().copied()),
            PostingRef::Many(ids) => *all |= *ids,
        }
    }

    pub fn take_from(&self, all: &mut RoaringBitmap) {
        match self {
            PostingRef::One(id) => {
                all.remove(*id);
            }
            PostingRef::Few(ids) => {
                for id in *ids {
                    all.remove(*id);
                }
            }
            PostingRef::Many(ids) => *all -= *ids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn agrees_with_a_set(
            changes in proptest::collection::vec((0u32..3, 0u32..40_000_u32, any::<bool>()), 1..400), spread in 1u32..200,
        ) {
            let (mut posting, mut expected) = (Posting::default(), BTreeSet::new());
            let mut next = 0;
            for (kind, id, adds) in changes {
                // Mostly ascending, as ids come.
                next += 1 + id % spread;
                let id = if kind == 0 { id } else { next };
                if adds || kind == 1 {
                    prop_assert_eq!(posting.insert(id), expected.insert(id));
                } else {
                    prop_assert_eq!(posting.remove(id), expected.remove(&id));
                }
            }
            let view = posting.view();
            prop_assert_eq!(view.to_bitmap().iter().collect::<Vec<_>>(), expected.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!((view.len(), view.first()), (expected.len() as u64, expected.first().copied()));
            let half: RoaringBitmap = expected.iter().copied().filter(|id| id % 2 == 0).collect();
            prop_assert_eq!(view.is_disjoint(&half), half.is_empty());
            let mut left = view.to_bitmap();
            view.take_from(&mut left);
            prop_assert!(left.is_empty());
            view.add_to(&mut left);
            prop_assert_eq!(&left, &view.to_bitmap());
            let ids: Vec<u32> = left.iter().collect();
            prop_assert_eq!(Posting::from_sorted(&ids).view().to_bitmap(), left);
        }
    }

    #[test]
    fn dense_ids_become_a_bitmap_and_scattered_ones_stay_a_list() {
        let (mut dense, mut scattered) = (Posting::default(), Posting::default());
        for id in 0..5_000u32 {
            dense.insert(id);
            scattered.insert(id << 14);
        }
        assert!(matches!(dense, Posting::Many(_)) && matches!(scattered, Posting::Few(_)));
        let (dense, scattered) = (dense.heap_bytes(), scattered.heap_bytes());
        assert!(dense < 16_000 && scattered < 5_000 * 6, "{dense} {scattered}");
    }
}
