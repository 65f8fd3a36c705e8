//! Files on their way to the next level, beside flushes.
//!
//! One task a core: it proposes the copies that [`CopyPolicy`] finds worth it, and makes those that the log has decided,
//! one after the other, in the background class. A full disk puts copies off; flushes never wait for them.

use crate::{
    data::{
        copy_policy::{CopyPolicy, CopySettings},
        core::DataCore,
    },
    replica::Payload,
};
use std::{rc::Rc, time::Duration};
use tidemill_raft::GroupId;
use tidemill_reactor::RingDisk;
use tidemill_store::{Command, GroupFiles, Partition};

/// Between two looks at the files: they change with flushes, which are seldom.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After a copy that failed. Flushes try again earlier, and the room is theirs first.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How often a pause looks whether the core is stopping.
const PAUSE_STEP: Duration = Duration::from_millis(100);

impl DataCore {
    /// Runs until the core stops.
    pub(crate) async fn copy_files(self: Rc<Self>) {
        let mut policy = CopyPolicy::default();
        while !self.stopping.get() {
            self.pause(LOOK_EVERY).await;
            self.propose_copies(&mut policy);
            for (id, partition) in &self.partitions {
                while partition.has_copies() && !self.stopping.get() {
                    self.make_copy(*id, partition).await;
                }
            }
        }
    }

    /// Lets a copy that is under way end where it is; it is made anew after the next start.
    pub(crate) fn halt_copies(&self) {
        self.partitions.values().for_each(|partition| partition.halt_copies());
    }

    fn propose_copies(&self, policy: &mut CopyPolicy) {
        let settings = CopySettings {
            l1_files_per_l2: self.options.l1_files_per_l2,
            file_bytes_max: self.options.l2_file_bytes_max,
            floats: self.options.floats,
        };
        let now_ns = self.context.clock.monotonic_ns();
        for (id, partition) in &self.partitions {
            let groups = partition.group_files();
            for order in policy.decide(*id, &groups, &settings, now_ns, |files| self.has_ended(files)) {
                let proposed =
                    self.replicas.propose(GroupId(*id), Payload::Command(Command::Copy(order).encode().into()));
                if let Err(error) = proposed {
                    tracing::debug!(partition = id, %error, "a copy could not be proposed yet");
                }
            }
        }
    }

    /// Whether the time range of a shard group is past.
    fn has_ended(&self, files: &GroupFiles) -> bool {
        let meta = self.meta();
        let groups = meta
            .databases()
            .iter()
            .filter(|database| database.id.0 == files.database.0)
            .flat_map(|database| &database.policies)
            .flat_map(|policy| &policy.groups);
        let now_ns = self.context.clock.now_ns();
        groups.filter(|group| group.id.0 == files.shard_group.0).any(|group| group.end_ns <= now_ns)
    }

    async fn make_copy(&self, id: u32, partition: &Partition<RingDisk>) {
        let started = self.context.clock.monotonic_ns();
        match partition.copy().await {
            Ok(_) => {
                self.figures.copy.record(self.context.clock.monotonic_ns() - started);
                // The files that were copied are to be removed.
                self.held.changed.notify();
            }
            Err(error) => {
                self.figures.copy_failures.set(self.figures.copy_failures.get() + 1);
                if error.is_disk_full() {
                    tracing::warn!(partition = id, %error, "the disk is full: files are not copied to the next level");
                } else {
                    tracing::error!(partition = id, %error, "files could not be copied to the next level");
                }
                self.pause(RETRY_PAUSE).await;
            }
        }
    }

    async fn pause(&self, pause: Duration) {
        let mut left = pause;
        while !left.is_zero() && !self.stopping.get() {
            let step = left.min(PAUSE_STEP);
            self.context.sleep(step).await;
            left -= step;
        }
    }
}
