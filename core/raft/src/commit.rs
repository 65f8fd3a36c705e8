//! What is committed, and how proposals end.
//!
//! Invariants: the commit index never falls (R4); a leader commits by counting only entries of its own term (thesis,
//! section 3.6.2), itself only as far as its own log is durable (R7); each proposal ends once.

use crate::{
    Ended, Ending, LogIndex, Payload, Raft,
    raft::{Own, State},
};

impl<P: Payload> Raft<P> {
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

    /// Entries keep their term, so those of a term that are still there come before those that are not.
    fn end_proposals(&mut self) {
        let commit = self.commit;
        while let Some(own) = self.own.front().copied() {
            if own.first > commit {
                return;
            }
            let last = own.last.min(commit);
            let mut kept = own.first;
            while kept <= last && self.log.term_at(kept) == Some(own.term) {
                // All but the newest are of the term if the newest is.
                kept = if self.log.term_at(last) == Some(own.term) { last.next() } else { kept.next() };
            }
            if kept > last {
                self.end_own(own, last);
                continue;
            }
            // Another entry stands where one of them was, so by log matching none behind it can follow.
            self.end(Ended { term: own.term, first: kept, last: own.last, how: Ending::Dropped });
            self.own.pop_front();
        }
    }

    fn end_own(&mut self, own: Own, last: LogIndex) {
        if own.last <= last {
            self.own.pop_front();
        } else if let Some(front) = self.own.front_mut() {
            front.first = last.next();
        }
    }

    /// The log up to `base` is replaced by files that do not tell whose entries they came from.
    pub(crate) fn lose_track_of_proposals(&mut self, base: LogIndex) {
        while let Some(own) = self.own.front().copied() {
            if own.first > base {
                return;
            }
            let last = own.last.min(base);
            self.end(Ended { term: own.term, first: own.first, last, how: Ending::Unknown });
            self.end_own(own, last);
        }
    }
}
