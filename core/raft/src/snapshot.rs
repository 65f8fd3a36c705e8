//! State as files instead of entries (thesis, chapter 5): a manifest travels, the receiver fetches what it has not got.
//!
//! Invariants: a snapshot is of committed entries; installing one never takes back what is committed here; while one is
//! being installed, the log does not change and this member neither stands for election nor acknowledges entries.

use crate::{
    EntryId, Install, LogIndex, Membership, NodeId, Output, Payload, Raft, Snapshot,
    message::{Body, MANIFEST_BYTES_MAX},
    progress::Flow,
    raft::State,
};
use alloc::{sync::Arc, vec::Vec};

impl<P: Payload> Raft<P> {
    /// The state up to `index` is in files, of which `manifest` is the list: members that are behind `base` can be given
    /// it. Entries up to `compact` are not asked for any more; `compact` is not above `index`.
    ///
    /// # Panics
    /// If `index` is not committed, not durable in this log or not known any more, or the manifest is too large to send.
    /// Files must not run ahead of the log: what a crash takes from the log could be followed there by entries that
    /// belong to another history.
    pub fn offer_snapshot(&mut self, index: LogIndex, manifest: Arc<[u8]>, compact: LogIndex) -> Output<P> {
        let flushable = self.commit.min(self.log.stable());
        assert!(compact <= index && index <= flushable, "group {}: snapshot at {index}", self.group());
        assert!(manifest.len() <= MANIFEST_BYTES_MAX, "group {}: a manifest that cannot be sent", self.group());
        let term = self.log.term_at(index).expect("a snapshot is of entries that the log knows");
        let (_, members) = self.members_at(index).clone();
        self.snapshot = Some(Snapshot { base: EntryId { term, index }, members, manifest });
        self.compact(compact);
        self.send_appends();
        self.finish()
    }

    /// Entries up to `index` are in files and can be forgotten; others that need them get a snapshot.
    pub fn compact(&mut self, index: LogIndex) {
        let index = index.min(self.commit).min(self.log.stable());
        if let Some(term) = self.log.term_at(index)
            && index > self.log.base().index
        {
            self.log.compact(EntryId { term, index });
            let settled = self.members.iter().take_while(|(at, _)| *at <= index).count();
            self.members.drain(..settled.saturating_sub(1));
        }
    }

    /// The membership in force at an index that is not before the base, and the index that brought it: what a restart
    /// needs to be told beside the state.
    pub fn members_at(&self, index: LogIndex) -> &(LogIndex, Membership) {
        let at = self.members.iter().rev().find(|(from, _)| *from <= index);
        at.or(self.members.first()).expect("a member has a membership")
    }

    pub(crate) fn send_snapshot(&mut self, to: NodeId) {
        let (now, base) = (self.now, self.log.base());
        // Behind its index, entries must follow.
        let Some(snapshot) = self.snapshot.as_ref().filter(|snapshot| snapshot.base.index >= base.index) else {
            self.out.manifest_wanted = true;
            return;
        };
        let snapshot = snapshot.clone();
        let State::Leader(leader) = &mut self.state else { return };
        let Some(progress) = leader.followers.find_mut(to) else { return };
        progress.probe_from(progress.next);
        progress.flow = Flow::Snapshot { index: snapshot.base.index, sent: now };
        self.send(to, Body::Snapshot(snapshot));
    }

    pub(crate) fn handle_snapshot(&mut self, from: NodeId, snapshot: Snapshot) {
        let base = snapshot.base;
        if self.installing.is_some() {
            return;
        }
        if base.index <= self.commit || self.log.holds(base) {
            // The log holds it already, and the leader's log up to it: nothing is needed but what follows.
            self.matched = self.matched.max(base.index.max(self.commit));
            self.acknowledge = true;
            self.commit_to(base.index);
            return self.acknowledge_stable();
        }
        self.installing = Some(snapshot.clone());
        self.out.install = Some(Install { from, snapshot });
    }

    /// The snapshot of [`Output::install`] is durable, and so is the log's being empty behind it.
    ///
    /// # Panics
    /// If none was being installed.
    pub fn handle_installed(&mut self) -> Output<P> {
        let Snapshot { base, members, .. } = self.installing.take().expect("a snapshot is being installed");
        assert!(base.index > self.commit, "group {}: nothing is committed during an installation", self.group());
        self.log.reset(base);
        self.commit = base.index;
        self.out.committed = Some(base.index);
        self.members = Vec::from([(base.index, members)]);
        self.snapshot = None;
        self.lose_track_of_proposals(base.index);
        // Committed, so every leader that is yet to come has it as well.
        self.matched = base.index;
        self.acknowledge = true;
        self.reset_deadline();
        self.acknowledge_stable();
        self.finish()
    }

    /// The files could not be had; the log is as it was.
    pub fn handle_install_failed(&mut self) -> Output<P> {
        let leader = self.leader();
        if let Some(snapshot) = self.installing.take()
            && leader != NodeId(0)
        {
            self.send(leader, Body::SnapshotFailed { index: snapshot.base.index });
        }
        self.finish()
    }

    pub(crate) fn handle_snapshot_failed(&mut self, from: NodeId, index: LogIndex) {
        let State::Leader(leader) = &mut self.state else { return };
        let Some(progress) = leader.followers.find_mut(from) else { return };
        progress.heard = self.now;
        if matches!(progress.flow, Flow::Snapshot { index: of, .. } if of == index) {
            // Its files may be gone: the next answer to a heartbeat sends a newer one.
            progress.probe_from(progress.next);
            progress.flow = Flow::Probe { waits: true };
            self.out.manifest_wanted = true;
        }
    }
}
