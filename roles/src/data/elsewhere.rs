//! Partitions that this node does not hold: they belong to other data groups.
//!
//! Each of them has a core here all the same, the one with the links to its holders. Who of those leads is not known
//! here: whoever refuses an entry says who may, and that is remembered.

use crate::data::{core::DataCore, metadata::META_GROUP};
use std::{cell::RefCell, collections::BTreeMap};
use tidemill_raft::{GroupId, NodeId};

/// Who led the groups of other nodes when that was last heard of.
#[derive(Default)]
pub struct LeadersElsewhere(RefCell<BTreeMap<GroupId, NodeId>>);

impl DataCore {
    /// Whether this node holds only some of the partitions.
    pub fn has_elsewhere(&self) -> bool {
        self.links.as_ref().is_some_and(|links| {
            let roster = links.roster();
            (0..self.partition_map.count()).any(|id| !roster.holds(roster.node, GroupId(id)))
        })
    }

    /// The partitions that requests for come to this core, held here or not.
    pub(crate) fn gated(&self) -> impl Iterator<Item = u32> + use<> {
        let (core, cores) = (self.context.core.index(), self.context.cores);
        (0..self.partition_map.count()).filter(move |id| *id as usize % cores == core)
    }

    /// Those of them that other nodes hold.
    pub(crate) fn gated_elsewhere(&self) -> impl Iterator<Item = u32> + '_ {
        self.gated().filter(|id| !self.partitions.contains_key(id))
    }

    /// The groups for which this core has links to other nodes.
    pub(super) fn linked_groups(&self) -> Vec<GroupId> {
        self.gated().map(GroupId).chain(self.meta_machine.is_some().then_some(META_GROUP)).collect()
    }

    /// Who is asked to take an entry of a group; zero: nobody is known to lead it.
    pub(super) fn likely_leader(&self, group: GroupId) -> NodeId {
        if self.replicas.group(group).is_some() {
            return self.replicas.leader(group);
        }
        let known = self.leaders.0.borrow().get(&group).copied();
        known.or_else(|| self.holders_elsewhere(group).first().copied()).unwrap_or(NodeId(0))
    }

    /// A node did not take an entry; `hint` is who may lead, zero if that node did not know or could not be asked.
    pub(super) fn note_refusal(&self, group: GroupId, asked: NodeId, hint: NodeId) {
        if asked == NodeId(0) || self.replicas.group(group).is_some() {
            return;
        }
        let holders = self.holders_elsewhere(group);
        let next = if hint != asked && holders.contains(&hint) {
            Some(hint)
        } else {
            let at = holders.iter().position(|node| *node == asked).map_or(0, |at| at + 1);
            holders.get(at).or(holders.first()).copied()
        };
        if let Some(next) = next {
            self.leaders.0.borrow_mut().insert(group, next);
        }
    }

    /// The data group, from 0, that a partition belongs to.
    pub(crate) fn data_group_of(&self, partition: u32) -> u32 {
        self.partition_map.group_of(partition)
    }

    /// How many cores another node has.
    pub(crate) fn cores_of(&self, node: NodeId) -> Option<u16> {
        Some(self.links.as_ref()?.roster().nodes.get(&node)?.cores)
    }

    /// Other nodes with a replica of a group, those first that can be reached.
    pub(crate) fn holders_elsewhere(&self, group: GroupId) -> Vec<NodeId> {
        let Some(links) = &self.links else { return Vec::new() };
        let roster = links.roster();
        let others = roster.holders(group).filter(|node| *node != roster.node);
        let (mut connected, away): (Vec<_>, Vec<_>) = others.partition(|node| links.is_connected(*node, group));
        connected.extend(away);
        connected
    }
}
