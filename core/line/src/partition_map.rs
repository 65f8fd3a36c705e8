//! Which partition a series belongs to.
//!
//! A data group owns as many partitions as every other one, and they are numbered through: those of group 0 first. The
//! low half of a series' hash names the group, its top bits the partition among those of the group, so that neither says
//! anything about the other.

/// Most partitions of all data groups: more than the machines have cores, and few enough to count rows by.
pub const PARTITIONS_MAX: u32 = 4_096;

/// How series are dealt to partitions. It must be the same wherever a series is written, and for as long as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionMap {
    groups: u32,
    /// A power of two.
    per_group: u32,
}

/// Numbers of which no map can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{groups} groups of {per_group} partitions: there must be some, each group's a power of two, {PARTITIONS_MAX} at most"
)]
pub struct PartitionMapError {
    pub groups: u32,
    pub per_group: u32,
}

impl PartitionMap {
    /// # Errors
    /// The partitions of a group are not a power of two, or all together none or more than [`PARTITIONS_MAX`].
    pub fn new(groups: u32, per_group: u32) -> Result<PartitionMap, PartitionMapError> {
        let count = groups.checked_mul(per_group).filter(|count| (1..=PARTITIONS_MAX).contains(count));
        match count {
            Some(_) if per_group.is_power_of_two() => Ok(PartitionMap { groups, per_group }),
            _ => Err(PartitionMapError { groups, per_group }),
        }
    }

    /// Of one data group.
    ///
    /// # Panics
    /// If the partitions are not a power of two of at most [`PARTITIONS_MAX`].
    pub fn single(partitions: u32) -> PartitionMap {
        PartitionMap::new(1, partitions).expect("partitions of a group")
    }

    /// Partitions of all groups.
    pub fn count(&self) -> u32 {
        self.groups * self.per_group
    }

    pub fn groups(&self) -> u32 {
        self.groups
    }

    /// The group, from 0, that owns a partition.
    pub fn group_of(&self, partition: u32) -> u32 {
        partition / self.per_group
    }

    /// The partition of a series, by the xxh3 hash of its canonical key.
    pub fn partition_of(&self, hash: u64) -> u32 {
        let group = (u64::from(hash as u32) * u64::from(self.groups)) >> 32;
        // A shift by 64 is none at all: one partition has no bits.
        let partition = hash.checked_shr(u64::BITS - self.per_group.trailing_zeros()).unwrap_or(0);
        group as u32 * self.per_group + partition as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_map_is_refused() {
        for (groups, per_group) in [(0, 16), (1, 0), (1, 3), (1, 8_192), (512, 16), (u32::MAX, u32::MAX)] {
            assert_eq!(PartitionMap::new(groups, per_group), Err(PartitionMapError { groups, per_group }));
        }
        assert_eq!(PartitionMap::new(256, 16).unwrap().count(), PARTITIONS_MAX);
    }

    #[test]
    fn every_partition_has_its_share() {
        for (groups, per_group) in [(1, 1), (1, 16), (2, 16), (3, 4), (5, 1)] {
            let map = PartitionMap::new(groups, per_group).unwrap();
            let mut counts = vec![0u32; map.count() as usize];
            for key in 0..10_000u32 {
                counts[map.partition_of(xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes())) as usize] += 1;
            }
            let fair = 10_000 / map.count();
            assert!(counts.iter().all(|count| (fair / 2..=fair * 2).contains(count)), "{map:?}: {counts:?}");
        }
    }

    proptest! {
        #[test]
        fn a_partition_is_one_of_its_group(hash: u64, groups in 1..40u32, bits in 0..6u32) {
            let map = PartitionMap::new(groups, 1 << bits).unwrap();
            let partition = map.partition_of(hash);
            prop_assert!(partition < map.count() && map.group_of(partition) < groups);
            // A group more changes only which group a series is of.
            let one = PartitionMap::single(1 << bits);
            prop_assert_eq!(partition % (1 << bits), one.partition_of(hash));
        }
    }
}
