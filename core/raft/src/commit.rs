//! What is committed, and how proposals end.
//!
//! Invariants: the commit index never falls (R4); a leader commits by counting only entries of its own term (thesis,
//! section 3.6.2), itself only as far as its own log is durable (R7); each proposal ends once.

use crate::{Ended, Ending, EntryId, LogIndex, NodeId, Payload, Raft, raft::State};

impl<P: Payload> Raft<P> {
    /// Up to here every voter has this log durably, as far as it is known here; `None`: this member does not lead. What it
    /// says of its log stays true, whoever leads later.
    pub fn durable_everywhere(&self) -> Option<LogIndex> {
        let State::Leader(leader) = &self.state else { return None };
        let (node, stable) = (self.options.node, self.log.stable());
        let held = |member: &NodeId| match leader.followers.find(*member) {
            _ if *member == node => stable,
            found => found.map_or(LogIndex(0), |progress| progress.matched),
        };
        let members = self.members();
        members.voters().iter().chain(members.outgoing()).map(held).min()
    }

    /// Whether this member leads and another one has said that it has all of its log.
    pub fn has_all(&self, member: NodeId) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        leader.followers.find(member).is_some_and(|progress| progress.matched == self.log.last())
    }

    pub(crate) fn maybe_commit(&mut self) {
        let State::Leader(leader) = &self.state else { return };
        let (node, stable) = (self.options.node, self.log.stable());
        let index = self.members().reached(|member| {
            if member == node {
                stable
            } else {
                leader.followers.find(member).map_or(LogIndex(0), |progress| progress.matched)
            }
        });
        if index > self.commit && self.log.term_at(index) == Some(self.hard_state.term) {
            self.commit_to(index);
            self.members_committed();
        }
    }

    pub(crate) fn commit_to(&mut self, index: LogIndex) {
        let index = index.min(self.log.last());
        if index <= self.commit {
            return;
        }
        self.commit = index;
        self.out.committed = Some(index);
        self.end_proposals();
        if let State::Leader(leader) = &mut self.state {
            while let Some((_, bytes)) = leader.uncommitted.pop_front_if(|(at, _)| *at <= index) {
                leader.uncommitted_bytes -= bytes;
            }
        }
    }

    /// Ranges of an older term may lie behind those of a newer one: their entries were replaced here, and may still come
    /// back from another member.
    fn end_proposals(&mut self) {
        let commit = self.commit;
        for at in 0..self.own.len() {
            let own = self.own[at];
            if own.first > commit {
                let replaced = |cut: EntryId| cut.index <= commit && !self.log.holds(cut);
                if own.cut.is_some_and(replaced) {
                    // Every log that has them has the entry of the cut as well, and another one is committed there.
                    self.end(Ended { term: own.term, first: own.first, last: own.last, how: Ending::Dropped });
                    self.own[at].first = own.last.next();
                }
                continue;
            }
            let last = own.last.min(commit);
            if self.log.term_at(last) == Some(own.term) {
                // What came before it in its term is there as well.
                self.own[at].first = last.next();
                continue;
            }
            let mut kept = own.first;
            while self.log.term_at(kept) == Some(own.term) {
                kept = kept.next();
            }
            // Another entry stands where one of them was, so by log matching none behind it can follow.
            self.end(Ended { term: own.term, first: kept, last: own.last, how: Ending::Dropped });
            self.own[at].first = own.last.next();
        }
        self.own.retain(|own| own.first <= own.last);
    }

    /// The log is about to be cut back from `index` on.
    pub(crate) fn note_cut(&mut self, index: LogIndex) {
        let Some(term) = self.log.term_at(index) else { return };
        for own in &mut self.own {
            // Those behind the first one come with it.
            let is_held = self.log.term_at(own.first) == Some(own.term);
            if own.last >= index && is_held {
                own.cut = Some(EntryId { term, index });
            }
        }
    }

    /// The log up to `base` is replaced by files that do not tell whose entries they came from.
    pub(crate) fn lose_track_of_proposals(&mut self, base: LogIndex) {
        for at in 0..self.own.len() {
            let own = self.own[at];
            let last = own.last.min(base);
            if own.first <= last {
                self.end(Ended { term: own.term, first: own.first, last, how: Ending::Unknown });
                self.own[at].first = last.next();
            }
        }
        self.own.retain(|own| own.first <= own.last);
    }
}
