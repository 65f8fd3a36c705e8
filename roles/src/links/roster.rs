//! The nodes of a cluster, and which of their cores a group lives on.

use crate::data::metadata::META_GROUP;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use tidemill_peer::PeerId;
use tidemill_raft::{GroupId, NodeId};

/// All nodes, this one included.
#[derive(Clone, Debug)]
pub struct Roster {
    /// This node.
    pub node: NodeId,
    pub nodes: BTreeMap<NodeId, Member>,
    /// A digest of the partitions and the members: nodes that differ in them do not listen to each other.
    pub shape: u64,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Of its core 0; the others follow port by port.
    pub address: SocketAddr,
    pub cores: u16,
}

/// The core of a node that a group lives on.
///
/// # Panics
/// If the node has no cores.
pub fn core_of(group: GroupId, cores: u16) -> u16 {
    if group == META_GROUP { 0 } else { (group.0 % u32::from(cores)) as u16 }
}

impl Member {
    /// Where a core listens; none if there is no port left for it.
    pub fn address_of(&self, core: u16) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address.ip(), self.address.port().checked_add(core)?))
    }
}

impl Roster {
    /// The core of another node that is asked for a group.
    pub fn peer(&self, node: NodeId, group: GroupId) -> Option<PeerId> {
        let member = self.nodes.get(&node).filter(|_| node != self.node)?;
        Some(PeerId { node: tidemill_peer::NodeId(node.0), core: core_of(group, member.cores) })
    }

    /// The cores of other nodes that some of the groups live on.
    pub fn peers(&self, groups: &[GroupId]) -> BTreeSet<PeerId> {
        self.nodes.keys().flat_map(|node| groups.iter().filter_map(|group| self.peer(*node, *group))).collect()
    }

    /// Where a core of another node listens; none if it is none of the cluster.
    pub fn address(&self, peer: PeerId) -> Option<SocketAddr> {
        let member = self.nodes.get(&NodeId(peer.node.0))?;
        if peer.core < member.cores { member.address_of(peer.core) } else { None }
    }

    pub fn has(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(cores: &[u16]) -> Roster {
        let member =
            |at: usize| Member { address: SocketAddr::from(([10, 0, 0, at as u8], 8088)), cores: cores[at - 1] };
        let nodes = (1..=cores.len()).map(|at| (NodeId(at as u64), member(at))).collect();
        Roster { node: NodeId(1), nodes, shape: 0 }
    }

    fn peer(node: u64, core: u16) -> PeerId {
        PeerId { node: tidemill_peer::NodeId(node), core }
    }

    #[test]
    fn a_core_is_linked_to_the_cores_that_hold_its_groups() {
        let roster = roster(&[2, 3, 1]);
        let on_core_1: Vec<GroupId> = (0..16).map(GroupId).filter(|group| core_of(*group, 2) == 1).collect();
        let peers: Vec<PeerId> = roster.peers(&on_core_1).into_iter().collect();
        assert_eq!(peers, [peer(2, 0), peer(2, 1), peer(2, 2), peer(3, 0)]);
        assert_eq!(roster.peers(&[META_GROUP]).into_iter().collect::<Vec<_>>(), [peer(2, 0), peer(3, 0)]);
        assert_eq!(roster.address(peer(2, 2)), Some(SocketAddr::from(([10, 0, 0, 2], 8090))));
        assert_eq!((roster.address(peer(2, 3)), roster.address(peer(4, 0))), (None, None));
        assert_eq!(roster.peer(NodeId(1), GroupId(0)), None, "no node calls itself");
    }

    #[test]
    fn both_ends_name_the_same_cores() {
        for (mine, theirs) in [(1, 1), (2, 2), (2, 3), (8, 3)] {
            let (one, mut two) = (roster(&[mine, theirs]), roster(&[mine, theirs]));
            two.node = NodeId(2);
            for group in (0..64).map(GroupId).chain([META_GROUP]) {
                let (there, back) = (one.peer(NodeId(2), group).unwrap(), two.peer(NodeId(1), group).unwrap());
                assert_eq!((there.core, back.core), (core_of(group, theirs), core_of(group, mine)));
            }
        }
    }
}
