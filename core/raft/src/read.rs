//! Reads that see everything acknowledged before they were asked for (thesis, section 6.4; R10).
//!
//! Invariants: the index of a read is at least the leader's commit index when the read was asked for, and at least the
//! entry that opened the leader's term; before it is told, a majority has answered a heartbeat that left after the read
//! came (ReadIndex), or the lease holds at a moment after the read came.

use crate::{LogIndex, Moment, NodeId, Output, Payload, Raft, ReadId, ReadReady, message::Body, raft::State};
use alloc::vec::Vec;

/// Reads that wait for a majority; more are refused.
pub const READS_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingRead {
    pub id: ReadId,
    pub index: LogIndex,
    /// Confirmed by this round of heartbeats or a later one.
    pub round: u64,
    /// Zero: this member.
    pub origin: NodeId,
}

impl<P: Payload> Raft<P> {
    /// Asks from which index on a read may be answered; `now` is a moment after the read came. The answer is in
    /// [`Output::reads`], of this or a later call; a follower asks its leader, and the answer may get lost.
    pub fn read(&mut self, now: Moment, id: ReadId) -> Output<P> {
        self.now = self.now.max(now);
        match self.state {
            State::Leader(_) => self.handle_read(NodeId(0), id),
            State::Follower { leader } if leader != NodeId(0) => self.send(leader, Body::Read { id }),
            _ => self.out.reads.push(ReadReady { id, index: None }),
        }
        self.finish()
    }

    /// Whether this leader may answer reads alone at this moment.
    pub fn has_lease(&self, now: Moment) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        if self.members().is_single(self.options.node) {
            return true;
        }
        let Some(time) = self.options.lease() else { return false };
        if leader.lease_void || leader.transfer.is_some() {
            return false;
        }
        let confirmed = self.confirmed_round();
        let sent = leader.rounds.iter().find(|round| round.number == confirmed).map(|round| round.sent);
        sent.is_some_and(|sent| self.now.max(now) < sent.after(time))
    }

    fn confirmed_round(&self) -> u64 {
        let State::Leader(leader) = &self.state else { return 0 };
        let node = self.options.node;
        self.members().reached(|member| {
            if member == node {
                leader.round
            } else {
                leader.followers.find(member).map_or(0, |progress| progress.round)
            }
        })
    }

    /// `origin` zero: asked here.
    pub(crate) fn handle_read(&mut self, origin: NodeId, id: ReadId) {
        let (lease, commit) = (self.has_lease(self.now), self.commit);
        let Ok(leader) = self.leading() else { return self.answer_read(origin, id, None) };
        let index = commit.max(leader.term_start);
        if lease {
            return self.answer_read(origin, id, Some(index));
        }
        if leader.reads.len() == READS_MAX {
            return self.answer_read(origin, id, None);
        }
        // Reads that come while others wait share the round after theirs.
        let first = leader.reads.is_empty();
        let round = leader.round + 1;
        leader.reads.push_back(PendingRead { id, index, round, origin });
        if first {
            self.broadcast_heartbeat();
        }
    }

    pub(crate) fn confirm_reads(&mut self) {
        let confirmed = self.confirmed_round();
        let mut answered = false;
        while let State::Leader(leader) = &mut self.state {
            let Some(read) = leader.reads.pop_front_if(|read| read.round <= confirmed) else { break };
            answered = true;
            self.answer_read(read.origin, read.id, Some(read.index));
        }
        let State::Leader(leader) = &mut self.state else { return };
        while leader.rounds.front().is_some_and(|round| round.number < confirmed) {
            leader.rounds.pop_front();
        }
        let unasked = leader.reads.front().is_some_and(|read| read.round > leader.round);
        if answered && unasked {
            self.broadcast_heartbeat();
        }
    }

    fn answer_read(&mut self, origin: NodeId, id: ReadId, index: Option<LogIndex>) {
        if origin == NodeId(0) {
            self.out.reads.push(ReadReady { id, index });
        } else {
            self.send(origin, Body::ReadAnswer { id, index });
        }
    }

    pub(crate) fn handle_read_answer(&mut self, id: ReadId, index: Option<LogIndex>) {
        self.out.reads.push(ReadReady { id, index });
    }

    /// Nobody will confirm what waits here.
    pub(crate) fn fail_reads(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        let reads: Vec<PendingRead> = leader.reads.drain(..).collect();
        for read in reads.into_iter().filter(|read| read.origin == NodeId(0)) {
            self.out.reads.push(ReadReady { id: read.id, index: None });
        }
    }
}
