//! Which nodes a core's groups are founded with.

use std::collections::BTreeMap;
use tidemill_raft::{GroupId, Membership, NodeId};

/// This node, and the members that each group is founded with: they hold until its log brings others. Of a group that is
/// not named this node is the only member for ever.
#[derive(Clone, Debug)]
pub struct Placement {
    pub node: NodeId,
    pub groups: BTreeMap<GroupId, Membership>,
}

impl Placement {
    /// Of a server without others.
    pub fn standalone() -> Placement {
        Placement { node: NodeId(1), groups: BTreeMap::new() }
    }

    /// Of a node whose groups have members that are not known here.
    pub fn beside_others(node: NodeId, groups: impl Iterator<Item = GroupId>) -> Placement {
        let somebody = NodeId(u64::MAX);
        let members = Membership::new([node, somebody], []).expect("two voters are a membership");
        Placement { node, groups: groups.map(|group| (group, members.clone())).collect() }
    }

    pub fn members(&self, group: GroupId) -> Membership {
        self.groups.get(&group).cloned().unwrap_or_else(|| Membership::single(self.node))
    }

    /// Whether this node decides alone what the group has committed, and always will.
    pub fn is_alone(&self, group: GroupId) -> bool {
        !self.groups.contains_key(&group)
    }
}
