//! The nodes of the cluster, and who is to hold each group.
//!
//! What is wanted stands here; whoever leads a group brings its members there, and notes it when they are. So a task that
//! takes long is no more than a difference between the two, which survives whoever works on it.
//! Invariants: a number of a node that is gone is never used again; a group that nobody wants to hold does not exist; a
//! node is gone only when no group has it among those who held it last. Addresses are for the proposer to check.

use crate::{Applied, Meta, MetaError};
use rkyv::{Archive, Deserialize, Serialize};

/// The group of the metadata: the last one that there can be.
const META_GROUP: u32 = u32::MAX;
/// That of the pool's masters: before it.
const POOL_GROUP: u32 = u32::MAX - 1;
/// Nodes that are not gone: as many as one group can have learners, because each follows the metadata.
pub const NODES_MAX: usize = 32;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Node {
    /// Not zero.
    pub id: u64,
    /// Where its core 0 listens for other nodes; the others follow port by port.
    pub address: String,
    pub cores: u16,
    pub duty: NodeDuty,
    pub state: NodeState,
}

/// What a node is there for.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum NodeDuty {
    /// It stores series of a data group, from 0.
    Data { group: u32 },
    /// It votes on the metadata and stores nothing.
    Meta,
    /// It votes on what the storage pool has.
    PoolMaster,
    /// It stores files of the pool. Nodes of one failure domain may fail together; without a name it is the node's own.
    PoolSlave { domain: Option<String> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum NodeState {
    Active,
    /// It gives up what it holds, and stays.
    Draining,
    /// Another one takes its place; it is gone when that is done.
    Leaving,
    /// Nobody listens to it any more.
    Gone,
}

impl NodeDuty {
    /// Whether a node of one duty can do what one of the other does.
    fn is_like(&self, other: &NodeDuty) -> bool {
        match (self, other) {
            (NodeDuty::PoolSlave { .. }, NodeDuty::PoolSlave { .. }) => true,
            _ => self == other,
        }
    }
}

/// Who holds a raft group.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Holders {
    pub group: u32,
    /// Ascending; those that are to be its voters.
    pub wanted: Vec<u64>,
    /// Ascending; its voters when that was noted last.
    pub noted: Vec<u64>,
}

impl NodeState {
    pub fn name(self) -> &'static str {
        match self {
            NodeState::Active => "active",
            NodeState::Draining => "draining",
            NodeState::Leaving => "leaving",
            NodeState::Gone => "gone",
        }
    }
}

impl Holders {
    fn has(&self, node: u64) -> bool {
        self.wanted.contains(&node) || self.noted.contains(&node)
    }

    fn replace(&mut self, old: u64, new: u64) {
        self.wanted.retain(|node| *node != old);
        self.wanted.push(new);
        self.wanted.sort_unstable();
    }
}

fn refused<T>(why: String) -> Result<T, MetaError> {
    Err(MetaError::Node(why))
}

impl Meta {
    /// In the order in which they came, those that are gone included; none before the cluster is founded.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn node(&self, id: u64) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// By group.
    pub fn holders(&self) -> &[Holders] {
        &self.holders
    }

    pub fn holders_of(&self, group: u32) -> Option<&Holders> {
        self.holders.iter().find(|holders| holders.group == group)
    }

    /// Changes whenever a node does.
    pub fn nodes_version(&self) -> u64 {
        self.nodes_version
    }

    /// Whether a node follows the metadata and is listened to.
    pub fn is_member(&self, id: u64) -> bool {
        self.node(id).is_some_and(|node| node.state != NodeState::Gone)
    }

    fn node_mut(&mut self, id: u64) -> Result<&mut Node, MetaError> {
        let known = self.nodes.iter_mut().find(|node| node.id == id && node.state != NodeState::Gone);
        known.ok_or_else(|| MetaError::Node(format!("node {id} is none of the cluster")))
    }

    /// The first word on nodes; later ones change nothing.
    pub(crate) fn found_cluster(&mut self, nodes: Vec<Node>, holders: Vec<Holders>) -> Applied {
        if self.nodes.is_empty() {
            self.nodes = nodes;
            self.holders = holders;
            self.nodes_version += 1;
        }
        Applied::default()
    }

    pub(crate) fn add_node(&mut self, node: Node) -> Result<Applied, MetaError> {
        let id = node.id;
        match self.node(id).map(|known| known.state) {
            _ if id == 0 => return refused("node 0 is nobody".to_owned()),
            Some(NodeState::Gone) => {
                return refused(format!("node {id} was removed: a node that comes has a number of its own"));
            }
            Some(_) => return refused(format!("node {id} is there already")),
            None => {}
        }
        let mut members = self.nodes.iter().filter(|known| known.state != NodeState::Gone);
        if let Some(other) = members.clone().find(|known| known.address == node.address) {
            return refused(format!("node {} is at {}", other.id, node.address));
        }
        if members.by_ref().count() >= NODES_MAX {
            return refused(format!("a cluster has {NODES_MAX} nodes at most"));
        }
        self.nodes.push(Node { state: NodeState::Active, ..node });
        self.nodes_version += 1;
        Ok(Applied::default())
    }

    /// Whether `new` can hold what `old` does, or one group of it, as far as its state allows.
    fn check_successor(&self, group: Option<u32>, old: u64, new: u64) -> Result<(), MetaError> {
        let node = |id: u64| {
            let known = self.node(id).filter(|node| node.state != NodeState::Gone);
            known.ok_or_else(|| MetaError::Node(format!("node {id} is none of the cluster")))
        };
        let (old, new) = (node(old)?, node(new)?);
        // Anybody can vote on the metadata.
        if !old.duty.is_like(&new.duty) && group != Some(META_GROUP) {
            let what = match (&old.duty, &new.duty) {
                (NodeDuty::Data { .. }, NodeDuty::Data { .. }) => "stores other series",
                _ => "is there for something else",
            };
            return refused(format!("node {} {what} than node {}", new.id, old.id));
        }
        Ok(())
    }

    /// Everything that one node is to hold, another one is. One that leaves may be called back so.
    pub(crate) fn replace_node(&mut self, old: u64, new: u64) -> Result<Applied, MetaError> {
        self.check_successor(None, old, new)?;
        if self.node_mut(new)?.state == NodeState::Draining || old == new {
            return refused(format!("node {new} cannot take the place of node {old}"));
        }
        let held = |holders: &&Holders| holders.wanted.contains(&old) && holders.wanted.contains(&new);
        if let Some(both) = self.holders.iter().find(held) {
            return refused(format!("node {new} has a replica of group {} already", both.name()));
        }
        for holders in self.holders.iter_mut().filter(|holders| holders.wanted.contains(&old)) {
            holders.replace(old, new);
        }
        self.node_mut(new)?.state = NodeState::Active;
        self.node_mut(old)?.state = NodeState::Leaving;
        self.let_leavers_go();
        self.nodes_version += 1;
        Ok(Applied::default())
    }

    /// What the node is to hold, others are: for each group the one that has the least.
    pub(crate) fn drain_node(&mut self, id: u64) -> Result<Applied, MetaError> {
        let duty = self.node_mut(id)?.duty.clone();
        let mut holders = self.holders.clone();
        for at in 0..holders.len() {
            if !holders[at].wanted.contains(&id) {
                continue;
            }
            let load = |node: u64| holders.iter().filter(|holders| holders.wanted.contains(&node)).count();
            let fit = |node: &&Node| {
                let is_fit = node.state == NodeState::Active && node.duty.is_like(&duty) && node.id != id;
                is_fit && !holders[at].wanted.contains(&node.id)
            };
            let successor = self.nodes.iter().filter(fit).min_by_key(|node| (load(node.id), node.id));
            let Some(successor) = successor.map(|node| node.id) else {
                let group = holders[at].name();
                return refused(format!("no other node can take the replica of group {group} that node {id} has"));
            };
            holders[at].replace(id, successor);
        }
        self.holders = holders;
        self.node_mut(id)?.state = NodeState::Draining;
        self.nodes_version += 1;
        Ok(Applied::default())
    }

    pub(crate) fn remove_node(&mut self, id: u64) -> Result<Applied, MetaError> {
        self.node_mut(id)?;
        if let Some(holders) = self.holders.iter().find(|holders| holders.has(id)) {
            return refused(format!("node {id} has a replica of group {}: drain or replace it", holders.name()));
        }
        self.node_mut(id)?.state = NodeState::Gone;
        self.nodes_version += 1;
        Ok(Applied::default())
    }

    pub(crate) fn move_replica(&mut self, group: u32, from: u64, to: u64) -> Result<Applied, MetaError> {
        self.check_successor(Some(group), from, to)?;
        let state = self.node_mut(to)?.state;
        if state != NodeState::Active {
            return refused(format!("node {to} is {}", state.name()));
        }
        let Some(holders) = self.holders.iter_mut().find(|holders| holders.group == group) else {
            return refused(format!("there is no group {group}"));
        };
        if !holders.wanted.contains(&from) || holders.wanted.contains(&to) {
            let wanted = &holders.wanted;
            return refused(format!("replicas of group {} are at nodes {wanted:?}", holders.name()));
        }
        holders.replace(from, to);
        self.nodes_version += 1;
        Ok(Applied::default())
    }

    /// The voters of a group are those that were wanted; a note of what is not wanted any more changes nothing.
    pub(crate) fn note_holders(&mut self, group: u32, voters: &[u64]) -> Applied {
        if let Some(holders) = self.holders.iter_mut().find(|holders| holders.group == group)
            && holders.wanted == voters
        {
            holders.noted = voters.to_vec();
            self.let_leavers_go();
        }
        Applied::default()
    }

    fn let_leavers_go(&mut self) {
        let holders = &self.holders;
        let leaving = self.nodes.iter_mut().filter(|node| node.state == NodeState::Leaving);
        for node in leaving.filter(|node| !holders.iter().any(|holders| holders.has(node.id))) {
            node.state = NodeState::Gone;
            self.nodes_version += 1;
        }
    }
}

impl Holders {
    /// For people.
    fn name(&self) -> String {
        match self.group {
            META_GROUP => "meta".to_owned(),
            POOL_GROUP => "pool".to_owned(),
            group => group.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    fn node(id: u64) -> Node {
        let (address, state) = (format!("10.0.0.{id}:8088"), NodeState::Active);
        Node { id, address, cores: 2, duty: NodeDuty::Data { group: 0 }, state }
    }

    fn founded() -> Meta {
        let mut meta = Meta::default();
        let holders = |group| Holders { group, wanted: vec![1, 2, 3], noted: vec![1, 2, 3] };
        let found = Command::FoundCluster {
            nodes: (1..=3).map(node).collect(),
            holders: vec![holders(0), holders(1), holders(u32::MAX)],
        };
        meta.apply(found).unwrap();
        meta
    }

    fn note(meta: &mut Meta, group: u32, voters: &[u64]) {
        meta.apply(Command::NoteHolders { group, voters: voters.to_vec() }).unwrap();
    }

    fn text(result: Result<Applied, MetaError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_replaced_node_is_gone_when_nothing_of_it_is_left_and_never_comes_back() {
        let mut meta = founded();
        meta.apply(Command::AddNode(node(4))).unwrap();
        meta.apply(Command::ReplaceNode { old: 2, new: 4 }).unwrap();
        assert_eq!(meta.holders_of(1).unwrap().wanted, [1, 3, 4]);
        for (group, others) in [(0, 2), (u32::MAX, 1)] {
            note(&mut meta, group, &[1, 3, 4]);
            assert_eq!(meta.node(2).unwrap().state, NodeState::Leaving, "{others} groups are left");
        }
        note(&mut meta, 1, &[1, 2, 3]);
        assert!(meta.is_member(2), "an old note");
        note(&mut meta, 1, &[1, 3, 4]);
        assert!(!meta.is_member(2));
        assert!(text(meta.apply(Command::AddNode(node(2)))).contains("node 2 was removed"));
        assert!(text(meta.apply(Command::ReplaceNode { old: 2, new: 3 })).contains("node 2 is none"));
        assert_eq!(Meta::decode(&meta.encode()).unwrap(), meta);
    }

    #[test]
    fn a_node_that_leaves_can_be_called_back_from_one_that_never_comes() {
        let mut meta = founded();
        meta.apply(Command::AddNode(node(4))).unwrap();
        meta.apply(Command::ReplaceNode { old: 2, new: 4 }).unwrap();
        meta.apply(Command::ReplaceNode { old: 4, new: 2 }).unwrap();
        assert!(meta.holders().iter().all(|holders| holders.wanted == [1, 2, 3]));
        assert_eq!(meta.node(2).unwrap().state, NodeState::Active);
        assert!(!meta.is_member(4), "nothing was ever noted of it");
    }

    #[test]
    fn what_cannot_be_done_is_refused_and_nothing_is_half_done() {
        let mut meta = founded();
        let before = meta.clone();
        for (command, why) in [
            (Command::DrainNode { node: 1 }, "no other node can take the replica of group 0"),
            (Command::DrainNode { node: 9 }, "node 9 is none"),
            (Command::RemoveNode { node: 1 }, "node 1 has a replica of group 0"),
            (Command::ReplaceNode { old: 1, new: 2 }, "node 2 has a replica of group 0 already"),
            (Command::ReplaceNode { old: 1, new: 4 }, "node 4 is none"),
            (Command::ReplaceNode { old: 1, new: 1 }, "cannot take the place"),
            (Command::MoveReplica { group: 7, from: 1, to: 2 }, "no group 7"),
            (Command::MoveReplica { group: 0, from: 1, to: 2 }, "at nodes [1, 2, 3]"),
            (Command::AddNode(node(3)), "node 3 is there already"),
            (Command::AddNode(Node { id: 4, ..node(3) }), "node 3 is at 10.0.0.3:8088"),
            (Command::AddNode(node(0)), "node 0"),
        ] {
            assert!(text(meta.apply(command.clone())).contains(why), "{command:?}");
            assert_eq!(meta, before, "{command:?}");
        }
        let other = Node { duty: NodeDuty::Data { group: 1 }, ..node(4) };
        meta.apply(Command::AddNode(other)).unwrap();
        assert!(text(meta.apply(Command::ReplaceNode { old: 1, new: 4 })).contains("stores other series"));
        assert!(text(meta.apply(Command::DrainNode { node: 1 })).contains("no other node can take"));
    }

    #[test]
    fn a_drained_node_stays_without_replicas_and_those_who_have_least_take_them() {
        let mut meta = founded();
        meta.apply(Command::AddNode(node(4))).unwrap();
        meta.apply(Command::AddNode(node(5))).unwrap();
        meta.apply(Command::DrainNode { node: 3 }).unwrap();
        let wanted: Vec<&[u64]> = meta.holders().iter().map(|holders| &holders.wanted[..]).collect();
        assert_eq!(wanted, [[1, 2, 4], [1, 2, 5], [1, 2, 4]]);
        assert!(
            text(meta.apply(Command::RemoveNode { node: 3 })).contains("node 3 has a replica"),
            "it still holds them"
        );
        for (group, voters) in [(0, [1, 2, 4]), (1, [1, 2, 5]), (u32::MAX, [1, 2, 4])] {
            note(&mut meta, group, &voters);
        }
        assert_eq!(meta.node(3).unwrap().state, NodeState::Draining);
        meta.apply(Command::RemoveNode { node: 3 }).unwrap();
        assert!(!meta.is_member(3));
    }
}
