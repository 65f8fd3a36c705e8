//! Those who use the group: appends to a register that is a list, reads of it, operators.
//!
//! The register is the log itself, so a history is linearizable if every acknowledged append is in the committed log at
//! the place that was told, behind everything that had been acknowledged when it was asked for, and every read sees at
//! least what had been acknowledged or read before it began. An append without an answer may be there or not; one that
//! was called dropped must not.

use crate::{
    swarm::ELECTION_TICKS,
    world::{Fooled, World},
};
use tidemill_raft::{EntryId, LogIndex, Membership, NodeId, ReadId, ReadReady, Rejected, Role};

pub struct Proposal {
    pub id: EntryId,
    pub value: u64,
    /// Newest acknowledged append when this one was asked for.
    pub floor: LogIndex,
}

pub struct Read {
    pub id: ReadId,
    pub floor: LogIndex,
}

/// One proposal in this many is taken back, as if the log had had no room.
const RETRACT_ONE_IN: u64 = 60;

impl World {
    /// What clients and operators do in one tick.
    pub fn use_it(&mut self) {
        if self.calm {
            return;
        }
        let at = self.random.below(self.nodes.len() as u64) as usize;
        if self.random.chance(self.swarm.propose) {
            let at = self.leader().filter(|_| self.random.below(4) > 0).unwrap_or(at);
            for _ in 0..self.random.within(1, 4) {
                self.propose(at);
            }
        }
        if self.random.chance(self.swarm.read) {
            let at = self.leader().filter(|_| self.random.below(2) > 0).unwrap_or(at);
            self.read(at);
        }
        if let Some(Fooled { leader, deaf_at, .. }) = self.fooled
            && (deaf_at..deaf_at + ELECTION_TICKS).contains(&self.now)
        {
            if let Some(next) = self.leader().filter(|next| *next != leader) {
                self.propose(next);
            }
            self.read(leader);
        }
        let roll = self.random.below(1_000_000) as u32;
        let (change, transfer, snapshot) = (self.swarm.change_members, self.swarm.transfer, self.swarm.snapshot);
        if roll < change {
            self.change_members();
        } else if roll < change + transfer {
            self.transfer();
        } else if roll < change + transfer + snapshot
            && let Some(raft) = &self.nodes[at].raft
        {
            let newest = raft.committed().min(raft.stable_index());
            if newest > raft.base().index {
                let index = LogIndex(self.random.within(raft.base().index.0 + 1, newest.0));
                self.offer_snapshot(at, index);
            }
        }
    }

    pub fn propose(&mut self, at: usize) -> Option<EntryId> {
        self.next_value += 1;
        let (value, floor) = (self.next_value, self.judge.acknowledged);
        let Some(raft) = &mut self.nodes[at].raft else { return None };
        if raft.role() != Role::Leader {
            return None;
        }
        let retract = !self.calm && self.random.below(RETRACT_ONE_IN) == 0;
        match raft.propose(value) {
            Ok((id, _)) if retract => {
                self.counters.retractions += 1;
                raft.retract(id.index);
                None
            }
            Ok((id, output)) => {
                self.counters.proposals += 1;
                self.nodes[at].proposals.push_back(Proposal { id, value, floor });
                self.step(at, |_, _| output);
                Some(id)
            }
            Err(_) => {
                self.counters.proposals_refused += 1;
                None
            }
        }
    }

    /// Tells clients of what is committed.
    pub fn acknowledge(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        while node.proposals.front().is_some_and(|proposal| proposal.id.index <= node.committed) {
            let Some(Proposal { id, value, floor }) = node.proposals.pop_front() else { return };
            self.counters.proposals_acknowledged += 1;
            self.judge.acknowledges(id, value, floor);
        }
    }

    fn read(&mut self, at: usize) {
        if self.nodes[at].raft.is_none() || self.nodes[at].reads.len() > 64 {
            self.nodes[at].reads.clear();
            return;
        }
        self.counters.reads += 1;
        self.next_value += 1;
        let id = ReadId(self.next_value);
        let floor = self.judge.acknowledged.max(self.judge.read);
        self.nodes[at].reads.push(Read { id, floor });
        self.step(at, |raft, now| {
            let output = raft.read(now, id);
            assert!(output.committed.is_none());
            output
        });
    }

    pub fn finish_reads(&mut self, at: usize, ready: Vec<ReadReady>, leads: bool) {
        let lease = self.swarm.lease;
        for ReadReady { id, index } in ready {
            let node = &mut self.nodes[at];
            let Some(place) = node.reads.iter().position(|read| read.id == id) else { continue };
            let read = node.reads.swap_remove(place);
            match index {
                Some(index) => {
                    node.ready_reads.push((index, read.floor));
                    match (leads, lease) {
                        (false, _) => self.counters.reads_by_followers += 1,
                        (true, true) => self.counters.reads_by_lease += 1,
                        (true, false) => self.counters.reads_by_majority += 1,
                    }
                }
                None => self.counters.reads_refused += 1,
            }
        }
        let committed = self.nodes[at].committed;
        let waiting = core::mem::take(&mut self.nodes[at].ready_reads);
        for (index, floor) in waiting {
            if index <= committed {
                self.judge.reads(NodeId(at as u64 + 1), committed, floor);
            } else {
                self.nodes[at].ready_reads.push((index, floor));
            }
        }
    }

    fn change_members(&mut self) {
        let Some(at) = self.leader() else { return };
        let Some(raft) = &self.nodes[at].raft else { return };
        let now = raft.members();
        let (mut voters, mut learners) = (now.voters().to_vec(), now.learners().to_vec());
        let node = NodeId(self.random.within(1, self.nodes.len() as u64));
        let is_voter = voters.contains(&node);
        voters.retain(|voter| *voter != node);
        if is_voter {
            // One goes, or only listens from now on.
            if self.random.below(2) == 0 {
                learners.push(node);
            }
        } else if learners.contains(&node) {
            learners.retain(|learner| *learner != node);
            if self.random.below(4) > 0 {
                voters.push(node);
                // One comes and another goes in the same change.
                if self.random.below(2) == 0 && voters.len() > 1 {
                    voters.swap_remove(self.random.below(voters.len() as u64 - 1) as usize);
                }
            }
        } else {
            learners.push(node);
        }
        let Ok(to) = Membership::new(voters, learners) else { return };
        let Some(raft) = &mut self.nodes[at].raft else { return };
        match raft.change_members(to) {
            Ok((_, output)) => {
                self.counters.membership_changes += 1;
                self.step(at, |_, _| output);
            }
            Err(Rejected::NotCaughtUp(_) | Rejected::ChangePending | Rejected::Transferring { .. }) => {}
            Err(other) => panic!("a leader refuses a change: {other}"),
        }
    }

    fn transfer(&mut self) {
        let Some(at) = self.leader() else { return };
        let to = NodeId(self.random.within(1, self.nodes.len() as u64));
        let Some(raft) = &mut self.nodes[at].raft else { return };
        if let Ok(output) = raft.transfer_leadership(to) {
            self.counters.transfers += 1;
            self.step(at, |_, _| output);
            if self.swarm.rival > 0 && self.random.below(2) == 0 {
                self.deafen_now(at);
            }
        }
    }

    /// After everything works again: somebody leads, an append is committed at all voters, and all logs are equal.
    ///
    /// # Panics
    /// If that takes longer than it may.
    pub fn check_liveness(&mut self, ticks_max: u64) {
        self.calm_down();
        // With a window of one entry, what is missing comes one by one.
        let last = |node: &crate::world::Node| node.raft.as_ref().map_or(0, |raft| raft.last_index().0);
        let ticks_max = ticks_max + 8 * self.nodes.iter().map(last).max().unwrap_or(0);
        let mut wanted: Option<EntryId> = None;
        for _ in 0..ticks_max {
            self.tick();
            let Some(at) = self.leader() else { continue };
            if let Some(id) = wanted {
                let Some(raft) = &self.nodes[at].raft else { continue };
                if raft.term_at(id.index) != Some(id.term) && raft.base().index < id.index {
                    wanted = None;
                    continue;
                }
                let members = raft.members().members();
                let there = |node: &NodeId| self.nodes[node.0 as usize - 1].committed >= id.index;
                if !raft.members().is_joint() && members.iter().all(there) {
                    self.counters.heals_with_liveness += 1;
                    return;
                }
            } else {
                wanted = self.propose(at);
            }
        }
        let state: Vec<String> = self
            .nodes
            .iter()
            .map(|node| {
                let raft = node.raft.as_ref().map(|raft| (raft.role(), raft.term(), raft.leader(), raft.last_index()));
                format!("{raft:?} committed {}", node.committed)
            })
            .collect();
        panic!("liveness: {ticks_max} ticks after everything works again, {wanted:?} is not everywhere: {state:#?}");
    }
}
