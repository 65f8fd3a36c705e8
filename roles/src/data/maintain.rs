//! When memory goes to files, and what is done when it cannot.
//!
//! One task a core looks at what applied entries left: it measures memory, proposes flushes, does the partitions' work
//! and releases the log. Off the path of writes: it runs in the background class, and a write only meets it through
//! the budget.

use crate::{
    data::{core::DataCore, metadata::META_GROUP},
    links::POOL_GROUP,
    replica::Payload,
};
use futures_lite::future;
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use tidemill_raft::GroupId;
use tidemill_store::{Command, DatabaseId, ShardGroupId};

/// How long an idle core sleeps between two looks; an applied entry wakes it earlier.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The least time between two looks: measuring is not free.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// After a failed flush, before the next try.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// What a partition holds: databases and shard groups.
type Holdings = (Vec<DatabaseId>, Vec<ShardGroupId>);

/// Looks without an entry after which the log is settled (see `tidemill_log`).
const IDLE_LOOKS: u32 = 5;

impl DataCore {
    /// Runs until the core stops.
    pub(crate) async fn maintain(self: Rc<Self>) {
        let mut idle = 0;
        let mut last_frames = 0;
        let mut overdue = Overdue::default();
        while !self.stopping.get() {
            let changed = self.held.changed.notified();
            future::or(changed, self.context.sleep(LOOK_EVERY)).await;
            self.look(&mut overdue).await;
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
    async fn look(self: &Rc<Self>, overdue: &mut Overdue) {
        let mut active: Vec<(usize, u32)> = Vec::new();
        let mut held = 0;
        for (id, partition) in &self.partitions {
            let (active_bytes, frozen_bytes) = partition.memtable_bytes();
            active.push((active_bytes, *id));
            held += active_bytes + frozen_bytes;
        }
        self.held.measure_rows(held);
        let mut wanted: BTreeSet<u32> = to_flush(active, self.budget.memtable_bytes_max).into_iter().collect();
        for (group, _) in self.replicas.log().oldest_pinned() {
            if group == META_GROUP {
                self.snapshot_meta().await;
            } else if group == POOL_GROUP {
                self.snapshot_pool().await;
            } else if !self.partitions.get(&group.0).is_none_or(|partition| partition.has_work()) {
                wanted.insert(group.0);
            }
        }
        let (ours, others): (BTreeSet<u32>, BTreeSet<u32>) =
            wanted.into_iter().partition(|id| self.decides(GroupId(*id)));
        ours.into_iter().for_each(|id| self.propose_flush(id));
        for id in overdue.after(others, self.context.clock.monotonic_ns()) {
            let flush = self.propose_led(GroupId(id), Payload::Command(self.options.flush().encode().into()));
            let ask = async move {
                if let Err(error) = flush.await {
                    tracing::debug!(partition = id, %error, "another node could not be asked for a flush");
                }
            };
            self.context.spawn(self.context.queues.background, "ask for a flush", ask).detach();
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
        match machine.snapshot().await {
            Ok(index) => self.replicas.release(META_GROUP, index),
            Err(error) => tracing::error!(%error, "the metadata could not be written to their snapshot"),
        }
    }

    async fn snapshot_pool(&self) {
        let Some(master) = &self.pool.master else { return };
        match master.machine.snapshot().await {
            Ok(index) => self.replicas.release(POOL_GROUP, index),
            Err(error) => tracing::error!(%error, "what the pool has could not be written to its snapshot"),
        }
    }

    /// Drops what the metadata do not know any more: a stop between the two steps of a DROP left it, or a write that was
    /// on its way. What this node does not lead, others drop.
    pub(crate) async fn drop_orphans(self: &Rc<Self>) {
        // What is held was in the metadata before it came to be here; so they are asked afterwards, and of a leader.
        let held: Vec<_> = self.partitions.iter().map(|(id, partition)| (*id, partition.holdings())).collect();
        if self.orphans(&held).is_empty() {
            return;
        }
        if let Err(error) = self.catch_up_meta().await {
            return tracing::warn!(%error, "drops are finished later");
        }
        for (id, command) in self.orphans(&held) {
            tracing::info!(partition = id, ?command, "finishing a drop");
            if let Err(error) = self.replicas.propose(GroupId(id), Payload::Command(command.encode().into())) {
                tracing::warn!(partition = id, %error, "a drop is finished later");
            }
        }
    }

    /// Whether what a group does by itself is proposed here: by one node of several.
    pub(crate) fn decides(&self, group: GroupId) -> bool {
        self.links.is_none() || self.replicas.leads(group)
    }

    /// What partitions that this node leads hold and this core's copy of the metadata does not know.
    fn orphans(&self, held: &[(u32, Holdings)]) -> Vec<(u32, Command)> {
        let meta = self.meta();
        let groups: BTreeSet<u64> = meta
            .databases()
            .iter()
            .flat_map(|database| &database.policies)
            .flat_map(|policy| &policy.groups)
            .map(|group| group.id.0)
            .collect();
        let mut commands = Vec::new();
        for (id, (held_databases, held_groups)) in held.iter().filter(|(id, _)| self.decides(GroupId(*id))) {
            let orphans: Vec<u64> = held_groups.iter().map(|group| group.0).filter(|id| !groups.contains(id)).collect();
            let dropped = held_databases.iter().map(|database| database.0);
            let dropped = dropped.filter(|id| meta.database_by_id(tidemill_meta::DatabaseId(*id)).is_none());
            commands.extend(dropped.map(|database| (*id, Command::DropDatabase { database, groups: Vec::new() })));
            if !orphans.is_empty() {
                commands.push((*id, Command::DropShardGroups { groups: orphans }));
            }
        }
        commands
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

/// Flushes that this node needs and others propose: these have the same rows and mostly the same need, so they are asked
/// only when it lasts.
#[derive(Default)]
struct Overdue {
    since_ns: BTreeMap<u32, u64>,
}

/// How long a need lasts before the others are told.
const OVERDUE_NS: u64 = 3_000_000_000;

impl Overdue {
    /// The partitions for which the others are to be asked now; each again after the same time.
    fn after(&mut self, wanted: BTreeSet<u32>, now_ns: u64) -> Vec<u32> {
        self.since_ns.retain(|id, _| wanted.contains(id));
        let mut due = Vec::new();
        for id in wanted {
            let since_ns = self.since_ns.entry(id).or_insert(now_ns);
            if now_ns.saturating_sub(*since_ns) >= OVERDUE_NS {
                *since_ns = now_ns;
                due.push(id);
            }
        }
        due
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
    fn others_are_asked_for_what_stays_wanted() {
        let mut overdue = Overdue::default();
        let wanted = |ids: &[u32]| ids.iter().copied().collect::<BTreeSet<u32>>();
        assert_eq!(overdue.after(wanted(&[1, 2]), 10), Vec::<u32>::new());
        assert_eq!(overdue.after(wanted(&[2, 3]), 9 + OVERDUE_NS), Vec::<u32>::new());
        assert_eq!(overdue.after(wanted(&[1, 2, 3]), 10 + OVERDUE_NS), [2]);
        assert_eq!(overdue.after(wanted(&[1, 2]), 11 + OVERDUE_NS), Vec::<u32>::new());
        assert_eq!(overdue.after(wanted(&[1, 2]), 10 + 2 * OVERDUE_NS), [1, 2]);
    }

    #[test]
    fn the_fullest_go_first_and_only_when_there_is_need() {
        assert_eq!(to_flush(vec![(10, 0), (30, 1), (20, 2)], 60), Vec::<u32>::new());
        assert_eq!(to_flush(vec![(10, 0), (31, 1), (20, 2)], 60), [1]);
        assert_eq!(to_flush(vec![(0, 0), (90, 1), (0, 2)], 60), [1]);
    }
}
