//! What the node was told, and what must therefore be found.
//!
//! Owns: the log of each partition as it was proposed, and how much of it was acknowledged.

use crate::{
    model::{Deed, Model},
    world::PARTITIONS,
};
use std::rc::Rc;

/// One entry of a partition's log.
#[derive(Clone, Debug)]
pub struct Told {
    pub deed: Rc<Deed>,
    /// As in the log; empty for the entry that opens a term.
    pub bytes: Rc<[u8]>,
}

/// The entries of one partition's log.
#[derive(Clone, Debug, Default)]
pub struct PartitionTruth {
    /// By index from 1.
    told: Vec<Told>,
    acknowledged: u64,
    /// After the acknowledged entries.
    model: Model,
}

#[derive(Clone, Debug)]
pub struct Truth {
    partitions: Vec<PartitionTruth>,
}

impl Default for Truth {
    fn default() -> Truth {
        Truth { partitions: (0..PARTITIONS).map(|_| PartitionTruth::default()).collect() }
    }
}

impl PartitionTruth {
    /// What the partition holds after `applied` entries.
    ///
    /// # Panics
    /// If that is fewer than were acknowledged, or more than were proposed.
    pub fn model(&self, applied: u64, context: &str) -> Model {
        let (acknowledged, proposed) = (self.acknowledged, self.told.len() as u64);
        assert!(
            (acknowledged..=proposed).contains(&applied),
            "{context}: {applied} entries are there; {acknowledged} were acknowledged, {proposed} proposed"
        );
        let mut model = self.model.clone();
        self.told[acknowledged as usize..applied as usize].iter().for_each(|told| model.apply(&told.deed));
        model
    }

    pub fn told(&self) -> &[Told] {
        &self.told
    }
}

impl Truth {
    pub fn partition(&self, number: u32) -> &PartitionTruth {
        &self.partitions[number as usize]
    }

    /// An entry was taken; returns its index.
    pub fn proposed(&mut self, partition: u32, deed: Rc<Deed>, bytes: Rc<[u8]>) -> u64 {
        let truth = &mut self.partitions[partition as usize];
        truth.told.push(Told { deed, bytes });
        truth.told.len() as u64
    }

    pub fn acknowledged(&mut self, partition: u32, index: u64) {
        let truth = &mut self.partitions[partition as usize];
        while truth.acknowledged < index {
            truth.model.apply(&truth.told[truth.acknowledged as usize].deed);
            truth.acknowledged += 1;
        }
    }

    pub fn acknowledged_total(&self) -> u64 {
        self.partitions.iter().map(|truth| truth.acknowledged).sum()
    }

    /// Entries that were never acknowledged and that a recovery did not find are gone for good.
    pub fn forget_after(&mut self, partition: u32, index: u64) {
        self.partitions[partition as usize].told.truncate(index as usize);
    }
}
