//! What it would take to read a series, from the indexes of the files alone: no block is read.

use crate::{block_lane::Lane, cursor::SeriesCursor, read_error::ReadError};
use std::collections::BTreeSet;
use tidemill_disk::DiskFile;

/// What reading takes, of one series or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadCost {
    /// Values in memory.
    pub cached_values: u64,
    /// Files with blocks of interest; those of several partitions are different ones.
    pub files: u64,
    pub blocks: u64,
    pub block_bytes: u64,
}

impl ReadCost {
    pub fn add(&mut self, other: &ReadCost) {
        self.cached_values += other.cached_values;
        self.files += other.files;
        self.blocks += other.blocks;
        self.block_bytes += other.block_bytes;
    }
}

/// Adds up the costs of series of one partition. A file that holds several of them counts once.
#[derive(Debug, Default)]
pub struct CostCount {
    cost: ReadCost,
    files: BTreeSet<String>,
}

impl CostCount {
    /// Adds what is left to read of a series.
    pub async fn add<F: DiskFile>(&mut self, series: &SeriesCursor<F>) -> Result<(), ReadError> {
        for lane in series.lanes_left().await? {
            self.add_lane(&lane);
        }
        Ok(())
    }

    fn add_lane<F: DiskFile>(&mut self, lane: &Lane<F>) {
        let cost = lane.cost();
        self.cost.add(&cost);
        self.files.extend(lane.file().map(str::to_owned));
    }

    pub fn total(&self) -> ReadCost {
        ReadCost { files: self.files.len() as u64, ..self.cost.clone() }
    }
}
