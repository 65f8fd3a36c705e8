//! The nodes of a cluster, who of them holds a group, and on which core.
//!
//! A partition has a replica at every node of its data group. The metadata have one at every node: those of the meta
//! nodes vote, or where there are none those of the first data group, and the others follow. What the storage pool has is
//! decided by its masters, and its slaves are asked for files.

use crate::data::metadata::META_GROUP;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use tidemill_line::PartitionMap;
use tidemill_peer::PeerId;
use tidemill_raft::{GroupId, NodeId};

/// The raft group of the pool's masters. It lives on their core 0.
pub const POOL_GROUP: GroupId = GroupId(u32::MAX - 1);
/// The files of the pool: no raft group, but what core 0 of a slave is asked for.
pub const POOL_FILES: GroupId = GroupId(u32::MAX - 2);

/// All nodes, this one included.
#[derive(Clone, Debug)]
pub struct Roster {
    /// This node.
    pub node: NodeId,
    pub nodes: BTreeMap<NodeId, Member>,
    pub partitions: PartitionMap,
    /// A digest of the partitions and the members: nodes that differ in them do not listen to each other.
    pub shape: u64,
}

/// What a node is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It holds a replica of the partitions of a data group, from 0.
    Data { group: u32 },
    /// It votes on the metadata and holds no rows.
    Meta,
    /// It votes on what the storage pool has, and holds no rows.
    PoolMaster,
    /// It stores files of the pool.
    PoolSlave,
}

impl Duty {
    /// As configurations and commands have it.
    pub fn name(self) -> &'static str {
        match self {
            Duty::Data { .. } => "data",
            Duty::Meta => "meta",
            Duty::PoolMaster => "pool-master",
            Duty::PoolSlave => "pool-slave",
        }
    }
}

/// Where a node listens, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Of its core 0; the others follow port by port.
    pub address: SocketAddr,
    pub cores: u16,
    pub duty: Duty,
}

/// The core of a node that a group lives on.
///
/// # Panics
/// If the node has no cores.
pub fn core_of(group: GroupId, cores: u16) -> u16 {
    if is_numberless(group) { 0 } else { (group.0 % u32::from(cores)) as u16 }
}

/// Whether a group is none of a partition.
pub fn is_numberless(group: GroupId) -> bool {
    [META_GROUP, POOL_GROUP, POOL_FILES].contains(&group)
}

impl Member {
    /// Where a core listens; none if there is no port left for it.
    pub fn address_of(&self, core: u16) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address.ip(), self.address.port().checked_add(core)?))
    }
}

impl Roster {
    /// Whether a node has a replica of a group.
    pub fn holds(&self, node: NodeId, group: GroupId) -> bool {
        self.nodes.get(&node).is_some_and(|member| match (group, member.duty) {
            (META_GROUP, _) => true,
            (POOL_GROUP, duty) => duty == Duty::PoolMaster,
            (POOL_FILES, duty) => duty == Duty::PoolSlave,
            (partition, Duty::Data { group: own }) => self.partitions.group_of(partition.0) == own,
            (_, Duty::Meta | Duty::PoolMaster | Duty::PoolSlave) => false,
        })
    }

    /// Who has a replica of a group.
    pub fn holders(&self, group: GroupId) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.keys().copied().filter(move |node| self.holds(*node, group))
    }

    /// Who decides what a group has committed, and who only follows.
    pub fn voters(&self, group: GroupId) -> (Vec<NodeId>, Vec<NodeId>) {
        let first = Duty::Data { group: 0 };
        let has_meta_nodes = self.nodes.values().any(|member| member.duty == Duty::Meta);
        let votes = |node: &NodeId| {
            group != META_GROUP || self.nodes[node].duty == if has_meta_nodes { Duty::Meta } else { first }
        };
        self.holders(group).partition(votes)
    }

    /// The core of another node that is asked for a group which that node holds.
    pub fn peer(&self, node: NodeId, group: GroupId) -> Option<PeerId> {
        let member = self.nodes.get(&node).filter(|_| node != self.node && self.holds(node, group))?;
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
        let data: Vec<_> = cores.iter().map(|cores| (*cores, Duty::Data { group: 0 })).collect();
        roster_of(&data, PartitionMap::single(64))
    }

    fn roster_of(members: &[(u16, Duty)], partitions: PartitionMap) -> Roster {
        let member = |at: usize| {
            let (cores, duty) = members[at - 1];
            Member { address: SocketAddr::from(([10, 0, 0, at as u8], 8088)), cores, duty }
        };
        let nodes = (1..=members.len()).map(|at| (NodeId(at as u64), member(at))).collect();
        Roster { node: NodeId(1), nodes, partitions, shape: 0 }
    }

    #[test]
    fn partitions_are_with_their_data_group_and_the_metadata_everywhere() {
        let data = |group| (1, Duty::Data { group });
        let ids = |nodes: Vec<NodeId>| nodes.into_iter().map(|node| node.0).collect::<Vec<_>>();
        let members = [data(0), data(1), data(1), data(0), data(0), data(1)];
        let roster = roster_of(&members, PartitionMap::new(2, 16).unwrap());
        let voters = |group| {
            let (voters, followers) = roster.voters(GroupId(group));
            (ids(voters), ids(followers))
        };
        assert_eq!((voters(0), voters(15)), ((vec![1, 4, 5], vec![]), (vec![1, 4, 5], vec![])));
        assert_eq!((voters(16), voters(31)), ((vec![2, 3, 6], vec![]), (vec![2, 3, 6], vec![])));
        assert_eq!(voters(META_GROUP.0), (vec![1, 4, 5], vec![2, 3, 6]));
        assert_eq!((roster.peer(NodeId(2), GroupId(0)), roster.peer(NodeId(2), GroupId(16))), (None, Some(peer(2, 0))));
        let with_meta: Vec<_> =
            members.into_iter().chain([(1, Duty::Meta), (1, Duty::Meta), (1, Duty::Meta)]).collect();
        let roster = roster_of(&with_meta, PartitionMap::new(2, 16).unwrap());
        let (voters, followers) = roster.voters(META_GROUP);
        assert_eq!((ids(voters), ids(followers)), (vec![7, 8, 9], vec![1, 2, 3, 4, 5, 6]));
        assert!(!roster.holds(NodeId(7), GroupId(0)) && roster.holds(NodeId(7), META_GROUP));
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
