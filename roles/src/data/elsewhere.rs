//! Partitions that this node does not hold: they belong to other data groups.
//!
//! Each of them has a core here all the same, the one with the links to its holders. Who of those leads is not known
//! here: whoever refuses an entry says who may, and that is remembered.

use crate::{
    data::{core::DataCore, metadata::META_GROUP},
    links::{Duty, POOL_FILES, POOL_GROUP, is_numberless},
};
use std::{cell::RefCell, collections::BTreeMap};
use tidemill_meta::Holders;
use tidemill_raft::{GroupId, NodeId};

/// Who led the groups of other nodes when that was last heard of.
#[derive(Default)]
pub struct LeadersElsewhere(RefCell<BTreeMap<GroupId, NodeId>>);

impl DataCore {
    /// Whether this node holds only some of the partitions.
    pub fn has_elsewhere(&self) -> bool {
        let Some(links) = &self.links else { return false };
        let own = links.roster().node;
        let meta = self.meta();
        let is_moved = |holders: &Holders| {
            !is_numberless(GroupId(holders.group)) && !holders.noted.is_empty() && !holders.noted.contains(&own.0)
        };
        self.partition_map.groups() > 1 || self.holds_no_rows() || meta.holders().iter().any(is_moved)
    }

    /// The partitions that requests for come to this core, held here or not.
    pub(crate) fn gated(&self) -> impl Iterator<Item = u32> + use<> {
        let (core, cores) = (self.context.core.index(), self.context.cores);
        (0..self.partition_map.count()).filter(move |id| *id as usize % cores == core)
    }

    /// Those of them that other nodes hold.
    pub(crate) fn gated_elsewhere(&self) -> impl Iterator<Item = u32> + '_ {
        self.gated().filter(|id| !self.is_held(*id))
    }

    /// Whether this core has a replica of a partition that is kept up to date. A node that has given a partition up still
    /// has its files, and one that is to take it over does not have all of them.
    pub(crate) fn is_held(&self, partition: u32) -> bool {
        let own = self.replicas.placement().node;
        let is_member = |group| self.replicas.members(group).is_some_and(|members| members.voters().contains(&own));
        self.partitions.contains_key(&partition) && (self.links.is_none() || is_member(GroupId(partition)))
    }

    /// Whether this node hears from a group who leads it.
    pub(super) fn takes_part_in(&self, group: GroupId) -> bool {
        let is_master = group == POOL_GROUP && self.pool.master.is_some();
        group == META_GROUP || is_master || self.is_held(group.0)
    }

    /// The partitions of this core that it holds.
    pub(crate) fn held(&self) -> Vec<u32> {
        self.partitions.keys().copied().filter(|id| self.is_held(*id)).collect()
    }

    /// The groups for which this core has links to other nodes.
    pub(super) fn linked_groups(&self) -> Vec<GroupId> {
        let is_meta = self.options.cluster.as_ref().is_some_and(|cluster| cluster.role() == Duty::Meta.name());
        let of_pool: &[GroupId] = if is_meta { &[] } else { &[POOL_GROUP, POOL_FILES] };
        let meta = self.meta_machine.is_some().then_some(META_GROUP);
        self.gated().map(GroupId).chain(meta).chain(of_pool.iter().copied()).collect()
    }

    /// Who is asked to take an entry of a group; zero: nobody is known to lead it.
    pub(super) fn likely_leader(&self, group: GroupId) -> NodeId {
        if self.takes_part_in(group) {
            return self.replicas.leader(group);
        }
        let known = self.leaders.0.borrow().get(&group).copied();
        known.or_else(|| self.holders_elsewhere(group).first().copied()).unwrap_or(NodeId(0))
    }

    /// A node did not take an entry; `hint` is who may lead, zero if that node did not know or could not be asked.
    pub(super) fn note_refusal(&self, group: GroupId, asked: NodeId, hint: NodeId) {
        if asked == NodeId(0) || self.takes_part_in(group) {
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
        let meta = self.meta();
        let noted = meta.holders_of(group.0).map(|holders| &holders.noted).filter(|noted| !noted.is_empty());
        let holds = |node: &NodeId| noted.is_none_or(|noted| noted.contains(&node.0));
        let others = roster.holders(group).filter(|node| *node != roster.node && holds(node));
        let (mut connected, away): (Vec<_>, Vec<_>) = others.partition(|node| links.is_connected(*node, group));
        connected.extend(away);
        connected
    }
}
