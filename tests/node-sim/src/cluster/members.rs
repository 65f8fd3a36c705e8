//! An operator who makes nodes members of a group and takes them out again, and replaces those whose disk is lost.
//!
//! Invariant: no disk is lost of which a group has not enough others: three voters at least, none of them lost before, and
//! no node whose log may still bring other members.

use crate::{
    cluster::{
        member::placement,
        run::{Life, World},
    },
    world::PARTITIONS,
};
use tidemill_disk::sim::{Crash, SimDisk};
use tidemill_raft::{GroupId, Membership, NodeId};

impl World {
    /// Who is there, with a disk.
    fn living(&self) -> Vec<NodeId> {
        self.places.iter().map(|place| NodeId(place.node)).collect()
    }

    fn any_of(&mut self, nodes: &[NodeId]) -> Option<NodeId> {
        (!nodes.is_empty()).then(|| nodes[self.prng.below(nodes.len() as u64) as usize])
    }

    /// Asks the leader for another membership, if it has one that is settled.
    pub(super) fn change_members(&mut self, partition: u32) {
        let Some(leader) = self.leader(partition) else { return };
        let node = leader.replicas.placement().node;
        let Some(now) = leader.replicas.group(GroupId(partition)).and_then(|group| group.settled_members()) else {
            return;
        };
        let living = self.living();
        let strangers: Vec<NodeId> = living.iter().copied().filter(|node| !now.contains(*node)).collect();
        let (mut voters, learners) = (now.voters().to_vec(), now.learners().to_vec());
        let lost = voters.iter().position(|voter| !living.contains(voter));
        let mut learners: Vec<NodeId> = learners.into_iter().filter(|learner| living.contains(learner)).collect();
        match self.prng.below(4) {
            0 => {
                let Some(learner) = self.any_of(&strangers) else { return };
                learners.push(learner);
            }
            1 => {
                // With one that is lost in its place, or with any other, or beside all.
                let Some(learner) = self.any_of(&learners) else { return };
                learners.retain(|other| *other != learner);
                match lost {
                    Some(at) => voters[at] = learner,
                    None if self.prng.one_in(2) => {
                        let at = self.prng.below(voters.len() as u64) as usize;
                        voters[at] = learner;
                    }
                    None => voters.push(learner),
                }
            }
            2 => {
                // A majority of those that are left must be there.
                let at = lost.unwrap_or(self.prng.below(voters.len() as u64) as usize);
                if voters.len() == 1 {
                    return;
                }
                let gone = voters.remove(at);
                if lost.is_none() && self.prng.one_in(3) {
                    learners.push(gone);
                }
            }
            _ => {
                let Some(learner) = self.any_of(&learners) else { return };
                learners.retain(|other| *other != learner);
            }
        }
        self.ask(partition, node, &now, voters, learners);
    }

    fn ask(&mut self, partition: u32, node: NodeId, now: &Membership, voters: Vec<NodeId>, learners: Vec<NodeId>) {
        let to = Membership::new(voters, learners).expect("members that can be");
        let Some(leader) = self.leader(partition) else { return };
        let begun = leader.replicas.change_members(GroupId(partition), to.clone());
        let count = |of: &[NodeId], not: &[NodeId]| of.iter().filter(|node| !not.contains(node)).count() as u64;
        let mut counters = self.counters();
        if begun.is_err() {
            counters.changes_refused += 1;
            return;
        }
        counters.learners_added += count(to.learners(), &now.members());
        counters.voters_added += count(to.voters(), now.voters());
        counters.voters_removed += count(now.voters(), to.voters());
        counters.leaders_removed += u64::from(!to.voters().contains(&node));
    }

    /// A node is gone for good with all that it knew; another one comes in its place.
    pub(super) fn lose_disk(&mut self) {
        let at = self.any_node();
        if !(0..PARTITIONS).all(|partition| self.can_lose_one(partition)) {
            return;
        }
        self.stop(at, Some(Crash::ALL[0]), self.settings.down_steps_max);
        let node = self.places[at].node + crate::cluster::run::PLACES;
        self.places[at].node = node;
        self.shared.nodes.borrow_mut()[at] = node;
        self.shared.disks.borrow_mut()[at] = SimDisk::new(self.prng.next_u64());
        self.counters().disks_lost += 1;
    }

    fn can_lose_one(&self, partition: u32) -> bool {
        let Some(leader) = self.leader(partition) else { return false };
        let Some(settled) = leader.replicas.group(GroupId(partition)).and_then(|group| group.settled_members()) else {
            return false;
        };
        let agrees = |life: &Life| match life {
            Life::Up(member) => member.replicas.members(GroupId(partition)).as_ref() == Some(&settled),
            _ => false,
        };
        let living = self.living();
        settled.voters().len() >= 3
            && settled.voters().iter().all(|voter| living.contains(voter))
            && self.places.iter().filter(|place| settled.contains(NodeId(place.node))).all(|place| agrees(&place.life))
    }

    /// Makes all nodes voters, step by step.
    pub(super) fn gather(&mut self, partition: u32) {
        let Some(leader) = self.leader(partition) else { return };
        let node = leader.replicas.placement().node;
        let Some(now) = leader.replicas.group(GroupId(partition)).and_then(|group| group.settled_members()) else {
            return;
        };
        let living = self.living();
        let strangers: Vec<NodeId> = living.iter().copied().filter(|node| !now.contains(*node)).collect();
        if !strangers.is_empty() {
            let learners = now.learners().iter().copied().filter(|node| living.contains(node)).chain(strangers);
            let (voters, learners) = (now.voters().to_vec(), learners.collect());
            self.ask(partition, node, &now, voters, learners);
        } else if now.voters() != sorted(&living) {
            self.ask(partition, node, &now, living, Vec::new());
        }
    }

    /// All nodes are voters.
    pub(super) fn is_gathered(&self, partition: u32) -> bool {
        let settled = self.leader(partition).and_then(|leader| leader.replicas.group(GroupId(partition)));
        settled.and_then(|group| group.settled_members()).is_some_and(|now| now.voters() == sorted(&self.living()))
    }

    /// Every node takes those for members that its log says.
    pub(super) fn check_members(&self) {
        let chronicle = self.shared.chronicle.borrow();
        for place in &self.places {
            let Life::Up(member) = &place.life else { continue };
            for (number, partition) in &member.partitions {
                let (id, applied) = (GroupId(*number), partition.applied());
                let Some(group) = member.replicas.group(id) else { continue };
                let founders = placement(place.node).members(id);
                let wanted = chronicle.members_at(*number, applied.0).unwrap_or(&founders);
                let known = group.members_at(applied);
                assert!(
                    known == *wanted,
                    "seed {}: node {} goes by {known:?} at entry {applied} of partition {number}, not by {wanted:?}",
                    self.seed,
                    place.node
                );
            }
        }
    }
}

fn sorted(nodes: &[NodeId]) -> Vec<NodeId> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    nodes
}
