//! Standing for election, and voting (thesis, sections 3.4, 3.6.1, 9.6 and 4.2.3).
//!
//! Invariants: one vote a term, durable before it is told, the own one included (R1, R5); nobody votes while it has
//! heard of a leader within the election timeout, unless that leader asked for the election.

use crate::{
    Content, EntryId, HardState, LogIndex, Moment, NodeId, Payload, Raft, Term,
    message::Body,
    progress::Followers,
    raft::{Leader, State},
};
use alloc::{boxed::Box, collections::VecDeque, vec, vec::Vec};

impl<P: Payload> Raft<P> {
    /// Stands for election without waiting for the timeout, unless a leader was heard of lately. The only voter leads at
    /// once: what it appends is written behind its vote, so nothing of it is told before the vote is durable.
    pub fn campaign(&mut self, now: Moment) -> crate::Output<P> {
        self.advance(now);
        let alone = self.members().is_single(self.options.node);
        if self.may_stand() && (alone || !self.trusts_leader()) {
            self.pre_stand();
        }
        self.finish()
    }

    pub(crate) fn tick_others(&mut self) {
        self.reset_deadline();
        if self.may_stand() {
            self.pre_stand();
        }
    }

    fn may_stand(&self) -> bool {
        let leads = matches!(self.state, State::Leader(_));
        // Who is a voter no longer, but by a change that may still be uncommitted, may be the only one whose log is long
        // enough to lead until it is committed (thesis, section 4.2.2).
        let settled = self.members.iter().rposition(|(at, _)| *at <= self.commit).unwrap_or(0);
        let node = self.options.node;
        let voter = self.members.iter().skip(settled).any(|(_, members)| members.is_voter(node));
        !leads && self.installing.is_none() && voter
    }

    fn others(&self) -> Vec<NodeId> {
        let node = self.options.node;
        let mut members = self.members().members();
        members.retain(|member| *member != node && self.members().is_voter(*member));
        members
    }

    fn pre_stand(&mut self) {
        let node = self.options.node;
        if self.members().is_single(node) {
            return self.stand(false);
        }
        self.fail_reads();
        self.state = State::PreCandidate { granted: vec![node] };
        let (term, last) = (self.next_term(), self.log.last_id());
        for voter in self.others() {
            self.send_unbound(voter, term, Body::PreVote { last });
        }
    }

    fn next_term(&self) -> Term {
        Term(self.hard_state.term.0 + 1)
    }

    fn stand(&mut self, transfer: bool) {
        let node = self.options.node;
        self.fail_reads();
        self.set_hard_state(HardState { term: self.next_term(), vote: node });
        self.reset_deadline();
        self.matched = LogIndex(0);
        self.acknowledge = false;
        if self.members().is_single(node) {
            return self.become_leader();
        }
        self.state = State::Candidate { granted: Vec::new() };
        let last = self.log.last_id();
        for voter in self.others() {
            self.send(voter, Body::Vote { last, transfer });
        }
    }

    pub(crate) fn stand_for_transfer(&mut self) {
        if self.may_stand() {
            self.stand(true);
        }
    }

    /// A leader has been heard of too lately for another one to be wanted.
    fn trusts_leader(&self) -> bool {
        let lately = self.now.since(self.heard_leader) < self.options.election_timeout;
        lately || matches!(self.state, State::Leader(_))
    }

    pub(crate) fn handle_pre_vote(&mut self, from: NodeId, term: Term, last: EntryId) {
        if term > self.hard_state.term && !self.trusts_leader() && last >= self.log.last_id() {
            self.send_unbound(from, term, Body::PreVoteAnswer { granted: true });
        } else if term <= self.hard_state.term {
            self.send(from, Body::PreVoteAnswer { granted: false });
        }
    }

    pub(crate) fn handle_pre_vote_granted(&mut self, from: NodeId, term: Term) {
        let wanted = self.next_term();
        let State::PreCandidate { granted } = &mut self.state else { return };
        if term != wanted {
            return;
        }
        granted.push(from);
        let granted = granted.clone();
        if self.members().agreed(|node| granted.contains(&node)) {
            self.stand(false);
        }
    }

    pub(crate) fn handle_vote(&mut self, from: NodeId, term: Term, last: EntryId, transfer: bool) {
        if term > self.hard_state.term {
            if !transfer && self.trusts_leader() {
                return;
            }
            self.become_follower(term, NodeId(0));
        }
        if term < self.hard_state.term {
            return self.send(from, Body::StaleTerm);
        }
        let free = self.hard_state.vote == NodeId(0) || self.hard_state.vote == from;
        let granted = free && last >= self.log.last_id() && matches!(self.state, State::Follower { .. });
        if granted {
            if self.hard_state.vote != from {
                self.set_hard_state(HardState { term, vote: from });
            }
            self.reset_deadline();
        }
        self.send(from, Body::VoteAnswer { granted });
    }

    /// The own vote counts once it is durable, like everybody's.
    pub(crate) fn count_own_vote(&mut self) {
        if self.log.unstable_hard_state().is_none() {
            self.handle_vote_granted(self.options.node);
        }
    }

    pub(crate) fn handle_vote_granted(&mut self, from: NodeId) {
        let State::Candidate { granted } = &mut self.state else { return };
        if !granted.contains(&from) {
            granted.push(from);
        }
        let granted = granted.clone();
        if self.members().agreed(|node| granted.contains(&node)) {
            self.become_leader();
        }
    }

    fn become_leader(&mut self) {
        self.state = State::Leader(Box::new(Leader {
            followers: Followers::default(),
            term_start: self.log.last().next(),
            round: 0,
            rounds: VecDeque::new(),
            heartbeat_due: self.now.after(self.options.heartbeat_interval),
            quorum_check_due: self.now.after(self.options.election_timeout),
            reads: VecDeque::new(),
            transfer: None,
            lease_void: false,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
        }));
        self.follow_members();
        self.append_own(Content::Opening);
        self.broadcast_heartbeat();
        self.send_appends();
    }
}
