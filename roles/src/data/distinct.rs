//! How many different texts there are, over all partitions, without the texts.
//!
//! A text stands as its 128-bit hash (XXH3): that two of a thousand million texts share one has a chance below 10^-20.

use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

/// Hashes are sorted in so many parts, so that each is done in a moment.
const BUCKETS: usize = 256;

/// Texts that were seen, those of one core more than once.
#[derive(Debug, Default, Archive, Serialize, Deserialize)]
pub struct Distinct {
    /// By the lowest bits of the hash.
    buckets: Vec<Vec<u128>>,
}

impl Distinct {
    /// A text of two parts.
    pub fn add(&mut self, first: &[u8], second: &[u8]) {
        // The length of the first part keeps ("ab", "c") from ("a", "bc").
        let hash = xxh3_128(second) ^ xxh3_128(first).rotate_left(1 + first.len() as u32 % 127);
        self.buckets.resize_with(BUCKETS, Vec::new);
        self.buckets[hash as usize % BUCKETS].push(hash);
    }

    /// Whether it can be joined; one that came from another node may be anything.
    pub fn is_sound(&self) -> bool {
        self.buckets.is_empty() || self.buckets.len() == BUCKETS
    }

    pub fn join(&mut self, other: Distinct) {
        if self.buckets.is_empty() {
            *self = other;
            return;
        }
        self.buckets.iter_mut().zip(other.buckets).for_each(|(bucket, more)| bucket.extend(more));
    }

    /// Counts what is in one of the parts that are left; `None` when none is left.
    pub fn count_next(&mut self) -> Option<u64> {
        let mut bucket = self.buckets.pop()?;
        bucket.sort_unstable();
        bucket.dedup();
        Some(bucket.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_counts_once_over_all_parts() {
        let (mut some, mut others) = (Distinct::default(), Distinct::default());
        for number in 0..3_000u32 {
            some.add(b"host", number.to_string().as_bytes());
            others.add(b"host", (number + 1_000).to_string().as_bytes());
        }
        others.add(b"dc", b"0");
        some.join(others);
        assert_eq!(std::iter::from_fn(|| some.count_next()).sum::<u64>(), 4_001);
        assert_eq!(Distinct::default().count_next(), None);
    }
}
