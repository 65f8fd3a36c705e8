//! Who belongs to a group, and what a majority of it is.
//!
//! Invariants: sets are sorted and bounded; while `outgoing` is not empty, the configuration is joint and every decision
//! needs a majority of both sets (R9; thesis, section 4.3).

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::NodeId;
use alloc::{sync::Arc, vec::Vec};
use core::fmt;

/// Members of one set. More replicas than this make commits slower and nothing safer.
pub const VOTERS_MAX: usize = 15;
pub const LEARNERS_MAX: usize = 32;

/// Clones share the sets: entries carry memberships, and are small for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Membership(Arc<Sets>);

#[derive(Debug, PartialEq, Eq)]
struct Sets {
    voters: Vec<NodeId>,
    outgoing: Vec<NodeId>,
    learners: Vec<NodeId>,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Sets {
    fn checked(self) -> Result<Membership, MembershipError> {
        let Sets { voters, outgoing, learners } = &self;
        if voters.is_empty() {
            return Err(MembershipError::NoVoter);
        }
        if voters.len() > VOTERS_MAX || outgoing.len() > VOTERS_MAX || learners.len() > LEARNERS_MAX {
            return Err(MembershipError::TooMany);
        }
        if [voters, outgoing, learners].iter().any(|set| set.first() == Some(&NodeId(0))) {
            return Err(MembershipError::Nobody);
        }
        // A node of the outgoing set may stay as a learner.
        match learners.iter().find(|node| voters.contains(node)) {
            Some(both) => Err(MembershipError::Both(*both)),
            None => Ok(Membership(Arc::new(self))),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    #[error("a group needs a voter")]
    NoVoter,
    #[error("more than {VOTERS_MAX} voters or {LEARNERS_MAX} learners")]
    TooMany,
    #[error("node zero is nobody")]
    Nobody,
    #[error("node {0} is both voter and learner")]
    Both(NodeId),
    #[error("the bytes are no membership")]
    Bytes,
}

fn set(nodes: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let mut set: Vec<NodeId> = nodes.into_iter().collect();
    set.sort_unstable();
    set.dedup();
    set
}

impl Membership {
    pub fn new(
        voters: impl IntoIterator<Item = NodeId>,
        learners: impl IntoIterator<Item = NodeId>,
    ) -> Result<Membership, MembershipError> {
        Sets { voters: set(voters), outgoing: Vec::new(), learners: set(learners) }.checked()
    }

    /// The group of one.
    pub fn single(node: NodeId) -> Membership {
        Membership(Arc::new(Sets { voters: set([node]), outgoing: Vec::new(), learners: Vec::new() }))
    }

    /// On the way from these voters to others.
    pub(crate) fn joint(from: &Membership, to: &Membership) -> Membership {
        let (voters, outgoing, learners) = (to.0.voters.clone(), from.0.voters.clone(), to.0.learners.clone());
        Membership(Arc::new(Sets { voters, outgoing, learners }))
    }

    pub(crate) fn left(&self) -> Membership {
        let (voters, learners) = (self.0.voters.clone(), self.0.learners.clone());
        Membership(Arc::new(Sets { voters, outgoing: Vec::new(), learners }))
    }

    pub fn voters(&self) -> &[NodeId] {
        &self.0.voters
    }

    pub fn outgoing(&self) -> &[NodeId] {
        &self.0.outgoing
    }

    pub fn learners(&self) -> &[NodeId] {
        &self.0.learners
    }

    pub fn is_joint(&self) -> bool {
        !self.0.outgoing.is_empty()
    }

    pub fn is_voter(&self, node: NodeId) -> bool {
        self.0.voters.contains(&node) || self.0.outgoing.contains(&node)
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.0.learners.contains(&node)
    }

    /// Every member once, in order.
    pub fn members(&self) -> Vec<NodeId> {
        set(self.0.voters.iter().chain(&self.0.outgoing).chain(&self.0.learners).copied())
    }

    /// Whether `node` alone decides.
    pub fn is_single(&self, node: NodeId) -> bool {
        self.0.voters == [node] && !self.is_joint()
    }

    /// The highest value that a majority of each set has reached.
    pub fn reached<V: Copy + Ord + Default>(&self, value: impl Fn(NodeId) -> V) -> V {
        let incoming = majority_value(&self.0.voters, &value);
        if self.is_joint() { incoming.min(majority_value(&self.0.outgoing, &value)) } else { incoming }
    }

    /// Whether those that agree are a majority of each set.
    pub fn agreed(&self, agrees: impl Fn(NodeId) -> bool) -> bool {
        self.reached(agrees)
    }

    pub fn byte_size(&self) -> usize {
        3 + 8 * (self.0.voters.len() + self.0.outgoing.len() + self.0.learners.len())
    }

    /// Three counts of one byte, then the ids, little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let sets = [&self.0.voters, &self.0.outgoing, &self.0.learners];
        let mut bytes: Vec<u8> = sets.iter().map(|set| set.len() as u8).collect();
        bytes.extend(sets.iter().flat_map(|set| set.iter()).flat_map(|node| node.0.to_le_bytes()));
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Membership, MembershipError> {
        let (counts, ids) = bytes.split_first_chunk::<3>().ok_or(MembershipError::Bytes)?;
        let (ids, rest) = ids.as_chunks::<8>();
        let [voters, outgoing, learners] = counts.map(usize::from);
        if !rest.is_empty() || ids.len() != voters + outgoing + learners {
            return Err(MembershipError::Bytes);
        }
        let mut ids = ids.iter().map(|id| NodeId(u64::from_le_bytes(*id)));
        let mut take = |count| -> Result<Vec<NodeId>, MembershipError> {
            let given: Vec<NodeId> = ids.by_ref().take(count).collect();
            if set(given.iter().copied()) == given { Ok(given) } else { Err(MembershipError::Bytes) }
        };
        Sets { voters: take(voters)?, outgoing: take(outgoing)?, learners: take(learners)? }.checked()
    }
}

fn majority_value<V: Copy + Ord + Default>(set: &[NodeId], value: &impl Fn(NodeId) -> V) -> V {
    let mut values = [V::default(); VOTERS_MAX];
    let mut count = 0;
    for (place, node) in values.iter_mut().zip(set) {
        *place = value(*node);
        count += 1;
    }
    let Some(values) = values.get_mut(..count) else { return V::default() };
    values.sort_unstable();
    // Sorted upwards: this one and those behind it are a majority.
    count.checked_sub(count / 2 + 1).and_then(|at| values.get(at).copied()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn members(voters: &[u64]) -> Membership {
        Membership::new(nodes(voters), []).unwrap()
    }

    #[test]
    fn a_majority_is_more_than_half() {
        for count in 1..=VOTERS_MAX as u64 {
            let all = members(&(1..=count).collect::<Vec<_>>());
            for agreeing in 0..=count {
                assert_eq!(all.agreed(|node| node.0 <= agreeing), agreeing * 2 > count, "{agreeing} of {count}");
            }
        }
        assert_eq!(members(&[1, 2, 3, 4]).reached(|node| node.0 * 10), 20);
        assert_eq!(members(&[1, 2, 3]).reached(|node| node.0 * 10), 20);
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let joint = Membership::joint(&members(&[1, 2, 3]), &members(&[4, 5, 6]));
        assert!(!joint.agreed(|node| node.0 <= 3));
        assert!(!joint.agreed(|node| node.0 >= 3));
        assert!(joint.agreed(|node| [1, 2, 4, 5].contains(&node.0)));
        assert_eq!(joint.left(), members(&[4, 5, 6]));
    }

    #[test]
    fn impossible_memberships_are_refused() {
        assert_eq!(Membership::new([], nodes(&[1])), Err(MembershipError::NoVoter));
        assert_eq!(Membership::new(nodes(&[1, 2]), nodes(&[2])), Err(MembershipError::Both(NodeId(2))));
        assert_eq!(Membership::new(nodes(&[0, 2]), []), Err(MembershipError::Nobody));
        assert_eq!(Membership::new((1..=16).map(NodeId), []), Err(MembershipError::TooMany));
    }

    proptest! {
        #[test]
        fn bytes_come_back(voters in prop::collection::btree_set(1u64..40, 1..6), learners in prop::collection::btree_set(40u64..50, 0..4), other in prop::collection::btree_set(1u64..40, 1..6)) {
            let from = Membership::new(other.into_iter().map(NodeId), []).unwrap();
            let to = Membership::new(voters.into_iter().map(NodeId), learners.into_iter().map(NodeId)).unwrap();
            let joint = Membership::joint(&from, &to);
            prop_assert_eq!(Membership::decode(&joint.encode()), Ok(joint.clone()));
            prop_assert_eq!(joint.encode().len(), joint.byte_size());
        }

        #[test]
        fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Membership::decode(&bytes);
        }
    }
}
