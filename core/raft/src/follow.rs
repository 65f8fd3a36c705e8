//! A follower's side of the log (thesis, section 3.5).
//!
//! Invariants: entries are acknowledged once they are durable (R6), and only to the leader of the term in which they
//! came; what is committed is never replaced (R4).

use crate::{Entry, EntryId, LogIndex, NodeId, Payload, Raft, message::Body, raft::State};
use alloc::vec::Vec;

impl<P: Payload> Raft<P> {
    pub(crate) fn handle_append(&mut self, previous: EntryId, entries: Vec<Entry<P>>, commit: LogIndex) {
        if self.installing.is_some() {
            // The log is about to be replaced; the leader asks again after the installation.
            return;
        }
        let newest = entries.last().map_or(previous.index, |entry| entry.index);
        if newest < self.commit {
            // An old message. What is committed is equal everywhere, so more than its content can be acknowledged.
            return self.matches_up_to(self.commit);
        }
        if previous.index >= self.commit && !self.log.holds(previous) {
            let hint = self.log.hint(EntryId { term: previous.term, index: previous.index.before() });
            let State::Follower { leader } = self.state else { return };
            return self.send(leader, Body::Refused { previous: previous.index, hint });
        }
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some_and(|entry| entry.index <= self.commit || self.log.holds(entry.id())) {
            entries.next();
        }
        if let Some(first) = entries.peek() {
            if first.index <= self.log.last() {
                let index = first.index;
                self.note_cut(index);
                self.log.truncate_from(index);
                self.forget_members_from(index);
            }
            for entry in entries {
                self.append(entry);
            }
        }
        self.matches_up_to(newest);
        self.commit_to(commit.min(newest));
    }

    fn matches_up_to(&mut self, index: LogIndex) {
        self.matched = self.matched.max(index);
        self.acknowledge = true;
        // Entries of this very call are not durable yet, whatever was before them in their places.
        if self.matched <= self.log.stable() {
            self.acknowledge_stable();
        }
    }

    /// Tells the leader what is durable of what it sent.
    pub(crate) fn acknowledge_stable(&mut self) {
        let State::Follower { leader } = self.state else { return };
        if !self.acknowledge || leader == NodeId(0) {
            return;
        }
        if self.out.hard_state.is_some() || self.log.unstable_hard_state().is_some() {
            // Told when the term is durable, with all that is durable by then.
            return;
        }
        let matched = self.matched.min(self.log.stable());
        self.acknowledge = matched < self.matched;
        if !self.acknowledge || matched > self.told {
            self.told = matched;
            self.send(leader, Body::Appended { matched });
        }
    }

    pub(crate) fn handle_heartbeat(&mut self, from: NodeId, commit: LogIndex, round: u64) {
        // The leader knows that this member holds these entries durably, and only counts those of its own term.
        if self.installing.is_none() {
            self.commit_to(commit.min(self.log.stable()));
        }
        self.send(from, Body::HeartbeatAnswer { round });
    }
}
