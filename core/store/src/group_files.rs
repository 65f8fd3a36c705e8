//! The files of a shard group by what a copy could do with them.
//!
//! Owns: the figures that whoever proposes copies decides by.
//! Knows nothing of when a copy is worth its work.

use crate::{
    id::{DatabaseId, ShardGroupId},
    manifest::{FileRecord, Tier},
    partition::Partition,
};
use tidemill_disk::Disk;

/// The files of one shard group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFiles {
    pub shard_group: ShardGroupId,
    pub database: DatabaseId,
    pub policy: u32,
    /// L1 files of ordered rows.
    pub ordered: RunFiles,
    /// L1 files of late rows.
    pub late: RunFiles,
    /// L2 files by the entry that made them: its index and their bytes, ascending. Those in the pool are not among them:
    /// to make them larger is not worth the way.
    pub sealed: Vec<(u64, u64)>,
    /// Index of the newest entry that made an L2 file.
    pub newest_sealed: u64,
    /// Bytes of the other files that a late file lies over, at most.
    pub bytes_under_late: u64,
    /// Files with points that are deleted, and the newest delete of them.
    pub deleted_files: usize,
    pub newest_delete: u64,
    /// A copy is decided and not done.
    pub is_copying: bool,
}

/// Some files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunFiles {
    pub files: usize,
    pub bytes: u64,
    /// Index of the entry that made the newest.
    pub newest: u64,
}

impl RunFiles {
    fn add(&mut self, record: &FileRecord) {
        self.files += 1;
        self.bytes += record.size;
        self.newest = self.newest.max(record.generation);
    }
}

impl GroupFiles {
    /// Index of the newest entry that made or marked a file.
    pub fn newest_change(&self) -> u64 {
        self.ordered.newest.max(self.late.newest).max(self.newest_sealed).max(self.newest_delete)
    }
}

impl<D: Disk> Partition<D> {
    /// The files of each shard group that has some.
    pub fn group_files(&self) -> Vec<GroupFiles> {
        let state = self.state.borrow();
        let mut found = Vec::new();
        for (id, group) in state.groups.iter().filter(|(_, group)| !group.files.is_empty()) {
            let records: Vec<FileRecord> = group.files.iter().map(|file| file.record()).collect();
            let mut files = GroupFiles {
                shard_group: *id,
                database: group.database,
                policy: group.policy,
                ordered: RunFiles::default(),
                late: RunFiles::default(),
                sealed: Vec::new(),
                newest_sealed: 0,
                bytes_under_late: 0,
                deleted_files: 0,
                newest_delete: 0,
                is_copying: state.copies.values().any(|copy| copy.order.shard_group == id.0),
            };
            let (mut late_from, mut late_to) = (i64::MAX, i64::MIN);
            for record in &records {
                if record.level == 2 {
                    files.newest_sealed = files.newest_sealed.max(record.generation);
                }
                match (record.level, record.late) {
                    (1, false) => files.ordered.add(record),
                    (1, true) => {
                        files.late.add(record);
                        (late_from, late_to) = (late_from.min(record.min_time), late_to.max(record.max_time));
                    }
                    _ if record.tier != Tier::Local => {}
                    _ => match files.sealed.iter_mut().find(|(generation, _)| *generation == record.generation) {
                        Some((_, bytes)) => *bytes += record.size,
                        None => files.sealed.push((record.generation, record.size)),
                    },
                }
                files.deleted_files += usize::from(!record.tombstones.is_empty());
                let newest = record.tombstones.iter().map(|tombstone| tombstone.index).max();
                files.newest_delete = files.newest_delete.max(newest.unwrap_or(0));
            }
            let under =
                |record: &&FileRecord| !record.late && record.min_time <= late_to && record.max_time >= late_from;
            files.bytes_under_late = records.iter().filter(under).map(|record| record.size).sum();
            files.sealed.sort_unstable();
            found.push(files);
        }
        found
    }
}
