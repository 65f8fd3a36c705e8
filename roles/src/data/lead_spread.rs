//! Who leads is spread over the nodes.
//!
//! A node that comes back leads nothing, and the others lead more than their share; elections know nothing of that. So
//! each group has a place among its voters, and in the minute after that node has come back, whoever leads the group
//! hands it over, one group at a time, once the node has everything. Later on the lead stays where it is: somebody may
//! have brought it there.

use crate::data::core::DataCore;
use futures_lite::future;
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use tidemill_raft::{GroupId, NodeId};

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A node that comes and goes is not trusted with the lead at once: each hand-over holds writes of the group up for a
/// moment.
const PRESENT_NS_MIN: u64 = 10_000_000_000;
const PRESENT_NS_MAX: u64 = 70_000_000_000;

/// The voter that is to lead a partition. Neighbours go to different nodes, also where as many cores as there are
/// nodes deal the partitions out: as in a Latin square.
fn place_of(partition: u32, voters: &[NodeId]) -> Option<NodeId> {
    let count = u32::try_from(voters.len()).ok().filter(|count| *count > 0)?;
    voters.get(((partition + partition / count) % count) as usize).copied()
}

impl DataCore {
    /// Hands the groups of this core over to their places, until the server stops. To be run where there are other nodes.
    pub(super) async fn spread_leads(self: Rc<Self>) {
        // Each node that can be reached, and since when.
        let mut present: BTreeMap<NodeId, u64> = BTreeMap::new();
        while !self.context.shutdown.is_requested() && !self.replicas.is_stopped() {
            future::or(self.context.sleep(LOOK_EVERY), self.context.shutdown.requested()).await;
            let now_ns = self.context.clock.monotonic_ns();
            self.note_present(&mut present, now_ns);
            for (node, group) in self.astray() {
                let age_ns = present.get(&node).map_or(0, |since_ns| now_ns - since_ns);
                let is_due = (PRESENT_NS_MIN..=PRESENT_NS_MAX).contains(&age_ns);
                if is_due && self.replicas.has_all(group, node) && self.replicas.hand_over(group, node).is_ok() {
                    tracing::debug!(group = group.0, node = node.0, "handed over to the node that is to lead it");
                    break;
                }
            }
        }
    }

    fn note_present(&self, present: &mut BTreeMap<NodeId, u64>, now_ns: u64) {
        let Some(links) = &self.links else { return };
        let members =
            self.partitions.keys().filter_map(|id| Some((GroupId(*id), self.replicas.members(GroupId(*id))?)));
        let seen: BTreeSet<NodeId> = members
            .flat_map(|(group, members)| members.voters().iter().map(|node| (*node, group)).collect::<Vec<_>>())
            .filter(|(node, group)| links.is_connected(*node, *group))
            .map(|(node, _)| node)
            .collect();
        present.retain(|node, _| seen.contains(node));
        for node in seen {
            present.entry(node).or_insert(now_ns);
        }
    }

    /// Partitions that this node leads in the place of another one.
    fn astray(&self) -> Vec<(NodeId, GroupId)> {
        let own = self.replicas.placement().node;
        let led = self.replicas.led().into_iter().filter(|group| self.partitions.contains_key(&group.0));
        led.filter_map(|group| {
            let node = place_of(group.0, self.replicas.members(group)?.voters())?;
            (node != own).then_some((node, group))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_are_spread_over_nodes_and_cores() {
        for nodes in [1, 3, 5] {
            let voters: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
            let partitions = 4 * nodes as u32 * nodes as u32;
            let places: Vec<NodeId> = (0..partitions).map(|partition| place_of(partition, &voters).unwrap()).collect();
            // As many cores as nodes: each core of each node leads the same.
            for (node, core) in voters.iter().flat_map(|node| (0..nodes).map(move |core| (node, core))) {
                let of_core = (0..).zip(&places).filter(|(partition, _)| partition % nodes == core);
                assert_eq!(of_core.filter(|(_, place)| *place == node).count(), 4, "node {node}, core {core}");
            }
        }
        assert_eq!(place_of(3, &[]), None);
    }
}
