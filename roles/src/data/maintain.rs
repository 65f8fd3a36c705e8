//! When memory goes to files, and what is done when it cannot.
//!
//! One task a core looks at what applied entries left: it measures memory, proposes flushes, does the partitions' work
//! and releases the log. Off the path of writes: it runs in the background class, and a write only meets it through
//! the budget.

use crate::{
    data::{core::DataCore, metadata::META_GROUP},
    replica::Payload,
};
use futures_lite::future;
use std::{collections::BTreeSet, rc::Rc, time::Duration};
use tidemill_raft::GroupId;
use tidemill_store::Command;

/// How long an idle core sleeps between two looks; an applied entry wakes it earlier.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The least time between two looks: measuring is not free.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// After a failed flush, before the next try.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Looks without an entry after which the log is settled (see `tidemill_log`).
const IDLE_LOOKS: u32 = 5;

impl DataCore {
    /// Runs until the core stops.
    pub(crate) async fn maintain(self: Rc<Self>) {
        let mut idle = 0;
        let mut last_frames = 0;
        while !self.stopping.get() {
            let changed = self.held.changed.notified();
            future::or(changed, self.context.sleep(LOOK_EVERY)).await;
            self.look().await;
            let frames = self.replicas.log().metrics().frames;
            idle = if frames == last_frames { idle + 1 } else { 0 };
            last_frames = frames;
            if idle == IDLE_LOOKS {
                self.replicas.log().settle();
            }
            self.context.sleep(LOOK_PAUSE).await;
        }
    }

    /// One look: measure, decide, work.
    async fn look(self: &Rc<Self>) {
        let mut active: Vec<(usize, u32)> = Vec::new();
        let mut held = 0;
        for (id, partition) in &self.partitions {
            let (active_bytes, frozen_bytes) = partition.memtable_bytes();
            active.push((active_bytes, *id));
            held += active_bytes + frozen_bytes;
        }
        self.held.measure_rows(held);
        for id in to_flush(active, self.budget.memtable_bytes_max) {
            self.propose_flush(id);
        }
        for (group, _) in self.replicas.log().oldest_pinned() {
            if group == META_GROUP {
                self.snapshot_meta().await;
            } else if !self.partitions.get(&group.0).is_none_or(|partition| partition.has_work()) {
                self.propose_flush(group.0);
            }
        }
        for (id, partition) in &self.partitions {
            if partition.has_work() {
                self.work(GroupId(*id), partition.clone()).await;
                // Series that lost their points have left the index.
                self.ledger.count(*id, partition);
            }
        }
    }

    /// A flush is an entry of the log, so that all replicas cut their files at the same row.
    fn propose_flush(&self, partition: u32) {
        let refused = self.replicas.propose(GroupId(partition), Payload::Command(self.options.flush().encode().into()));
        if let Err(error) = refused {
            tracing::debug!(partition, %error, "a flush could not be proposed yet");
        }
    }

    async fn work(&self, group: GroupId, partition: Rc<tidemill_store::Partition<tidemill_reactor::RingDisk>>) {
        let started = self.context.clock.monotonic_ns();
        match partition.maintain().await {
            Ok(flushed) => {
                self.replicas.release(group, flushed);
                self.figures.flushes.set(self.figures.flushes.get() + 1);
                self.figures.flush.record(self.context.clock.monotonic_ns() - started);
            }
            Err(error) => {
                self.figures.flush_failures.set(self.figures.flush_failures.get() + 1);
                if error.is_disk_full() {
                    tracing::warn!(partition = group.0, %error, "the disk is full: rows stay in memory and in the log");
                } else {
                    tracing::error!(partition = group.0, %error, "rows could not be written to files");
                }
                self.context.sleep(RETRY_PAUSE).await;
            }
        }
    }

    async fn snapshot_meta(&self) {
        let Some(machine) = &self.meta_machine else { return };
        match machine.snapshot(&self.context.disk).await {
            Ok(index) => self.replicas.release(META_GROUP, index),
            Err(error) => tracing::error!(%error, "the metadata could not be written to their snapshot"),
        }
    }

    /// Drops what the metadata do not know any more: a stop between the two steps of a DROP left it, or a write that was
    /// on its way. Nothing can come to be here that the core's copy of the metadata does not show yet: a change of them
    /// counts as done when all cores follow.
    pub(crate) fn drop_orphans(&self) {
        let meta = self.meta();
        let groups: BTreeSet<u64> = meta
            .databases()
            .iter()
            .flat_map(|database| &database.policies)
            .flat_map(|policy| &policy.groups)
            .map(|group| group.id.0)
            .collect();
        for (id, partition) in &self.partitions {
            let (held_databases, held_groups) = partition.holdings();
            let orphans: Vec<u64> = held_groups.iter().map(|group| group.0).filter(|id| !groups.contains(id)).collect();
            let dropped = held_databases.iter().map(|database| database.0);
            let dropped = dropped.filter(|id| meta.database_by_id(tidemill_meta::DatabaseId(*id)).is_none());
            let mut commands: Vec<Command> =
                dropped.map(|database| Command::DropDatabase { database, groups: Vec::new() }).collect();
            if !orphans.is_empty() {
                commands.push(Command::DropShardGroups { groups: orphans });
            }
            for command in commands {
                tracing::info!(partition = id, ?command, "finishing a drop");
                if let Err(error) = self.replicas.propose(GroupId(*id), Payload::Command(command.encode().into())) {
                    tracing::warn!(partition = id, %error, "a drop will be finished at the next start");
                }
            }
        }
    }

    /// Writes everything to files, for a start that need not replay. Returns whether it succeeded.
    pub(crate) async fn flush_all(self: &Rc<Self>) -> bool {
        for (id, partition) in &self.partitions {
            if !partition.has_unflushed_rows() && !partition.has_work() {
                continue;
            }
            let flush = self.replicas.propose(GroupId(*id), Payload::Command(self.options.flush().encode().into()));
            let Ok(ticket) = flush else { return false };
            if ticket.outcome().await.is_err() {
                return false;
            }
            match partition.maintain().await {
                Ok(flushed) => self.replicas.release(GroupId(*id), flushed),
                Err(error) => {
                    tracing::error!(partition = id, %error, "rows stay in the log");
                    return false;
                }
            }
        }
        self.snapshot_meta().await;
        true
    }
}

/// Partitions to flush, the fullest first, until what is left is half of what is allowed: flushing by halves writes
/// files of many blocks instead of many files.
fn to_flush(mut active: Vec<(usize, u32)>, bytes_max: usize) -> Vec<u32> {
    let mut sum: usize = active.iter().map(|(bytes, _)| bytes).sum();
    if sum <= bytes_max {
        return Vec::new();
    }
    active.sort_unstable_by(|a, b| b.cmp(a));
    let mut chosen = Vec::new();
    for (bytes, id) in active {
        if sum <= bytes_max / 2 || bytes == 0 {
            break;
        }
        sum -= bytes;
        chosen.push(id);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_go_first_and_only_when_there_is_need() {
        assert_eq!(to_flush(vec![(10, 0), (30, 1), (20, 2)], 60), Vec::<u32>::new());
        assert_eq!(to_flush(vec![(10, 0), (31, 1), (20, 2)], 60), [1]);
        assert_eq!(to_flush(vec![(0, 0), (90, 1), (0, 2)], 60), [1]);
    }
}
