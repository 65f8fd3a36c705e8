//! How the nodes of the cluster stand, for people and their tools.

use crate::{
    data::{
        core::DataCore,
        member_changes::member_of,
        message::{Call, CallError, Reply},
        metadata::META_GROUP,
    },
    links::{Duty, Member, POOL_GROUP, RemoteCall, RemoteReply, core_of},
    options::ClusterOptions,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use tidemill_meta::NodeState;
use tidemill_raft::{GroupId, NodeId};
use tidemill_reactor::RingDisk;
use tidemill_store::Partition;

/// A node that says nothing for so long is shown as away.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Of what is told to proxies.
const PLACEMENT_VERSION: u32 = 1;

impl DataCore {
    /// All nodes with their replicas of all groups, as far as they can be reached; none without a cluster.
    pub async fn describe_cluster(self: &Rc<Self>) -> Option<Result<Value, CallError>> {
        let cluster = self.options.cluster.as_ref()?;
        let mut replicas: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
        let mut handoffs: BTreeMap<(u64, u64), Value> = BTreeMap::new();
        let calls: Vec<_> = self.cores().map(|core| self.call(core, Call::Describe)).collect();
        for call in calls {
            let cores = match call.await {
                Ok(Reply::Description(cores)) => cores,
                Ok(_) => unreachable!("a description is answered as one"),
                Err(error) => return Some(Err(error)),
            };
            for core in cores {
                let node = core["node"].as_u64().unwrap_or_default();
                let number = core["core"].as_u64().unwrap_or_default();
                handoffs.insert((node, number), core["handoff"].clone());
                replicas.entry(node).or_default().extend(core["groups"].as_array().into_iter().flatten().cloned());
            }
        }
        let nodes: Vec<Value> = self
            .nodes_of_cluster(cluster)
            .into_iter()
            .map(|(node, member, state)| {
                let mut groups = replicas.remove(&node.0).unwrap_or_default();
                groups.sort_by_key(|group| (group["group"].as_u64(), group["group"].is_string()));
                // Cores of different nodes share groups in more than one way where their numbers differ.
                groups.dedup_by_key(|group| group["group"].clone());
                let data_group = match member.duty {
                    Duty::Data { group } => Some(group + 1),
                    Duty::Meta | Duty::PoolMaster | Duty::PoolSlave => None,
                };
                json!({
                    "node": node.0,
                    "role": member.duty.name(),
                    "data_group": data_group,
                    "address": member.address.to_string(),
                    "cores": member.cores,
                    "state": state,
                    "reachable": !groups.is_empty(),
                    "groups": groups,
                    "handoff": handoffs.range((node.0, 0)..=(node.0, u64::MAX)).map(|(_, queue)| queue).collect::<Vec<_>>(),
                })
            })
            .collect();
        let holders: Vec<Value> = self
            .meta()
            .holders()
            .iter()
            .map(|holders| {
                json!({ "group": group_name(GroupId(holders.group)), "wanted": holders.wanted, "noted": holders.noted })
            })
            .collect();
        let (id, node) = (cluster.id.to_string(), cluster.node.0);
        Some(Ok(json!({ "cluster": id, "node": node, "nodes": nodes, "holders": holders })))
    }

    /// Where series go and what of it this node leads, without a word to other nodes.
    pub async fn placement(self: &Rc<Self>) -> Result<Value, CallError> {
        let mut leads = Vec::new();
        let calls: Vec<_> = self.cores().map(|core| self.call(core, Call::Leads)).collect();
        for call in calls {
            match call.await? {
                Reply::Leads(partitions) => leads.extend(partitions),
                _ => unreachable!("what is led is answered as such"),
            }
        }
        leads.sort_unstable();
        let cluster = self.options.cluster.as_ref();
        let map = self.partition_map;
        Ok(json!({
            "version": PLACEMENT_VERSION,
            "cluster": cluster.map(|cluster| cluster.id.to_string()),
            "node": cluster.map(|cluster| cluster.node.0),
            "role": cluster.map_or("standalone", |cluster| cluster.role()),
            "data_group": self.own_data_group(),
            "data_groups": map.groups(),
            "partitions": map.count(),
            "leads": leads,
            "knows_proxies": !self.options.access.proxy_secret.is_empty(),
        }))
    }

    /// The data group that this node holds, from 1.
    fn own_data_group(&self) -> Option<u32> {
        match &self.options.cluster {
            None => Some(1),
            Some(cluster) => match cluster.nodes.get(&cluster.node).map(|member| member.duty) {
                Some(Duty::Data { group }) => Some(group + 1),
                _ => None,
            },
        }
    }

    /// Partitions of this core that this node leads.
    pub(super) fn leads(&self) -> Vec<u32> {
        let own = self.replicas.placement().node;
        self.partitions.keys().copied().filter(|id| self.replicas.leader(GroupId(*id)) == own).collect()
    }

    /// Each node with its state; those that are gone are left out.
    fn nodes_of_cluster(&self, cluster: &ClusterOptions) -> Vec<(NodeId, Member, &'static str)> {
        let meta = self.meta();
        if meta.nodes().is_empty() {
            return cluster.nodes.iter().map(|(node, member)| (*node, *member, NodeState::Active.name())).collect();
        }
        let members = meta.nodes().iter().filter(|node| node.state != NodeState::Gone);
        members.filter_map(|node| member_of(node).map(|(id, member)| (id, member, node.state.name()))).collect()
    }

    /// This core, and those of other nodes with which it is linked.
    pub(super) async fn describe_replicas(self: &Rc<Self>) -> Vec<Value> {
        let mut described = vec![self.description().await];
        let Some(links) = &self.links else { return described };
        let roster = links.roster();
        let mut asked: Vec<(NodeId, GroupId)> = Vec::new();
        for (node, member) in roster.nodes.iter().filter(|(node, _)| **node != roster.node) {
            let mut cores = BTreeSet::new();
            let held = self.linked_groups().into_iter().filter(|group| roster.holds(*node, *group));
            asked.extend(held.filter(|group| cores.insert(core_of(*group, member.cores))).map(|group| (*node, group)));
        }
        let answers: Vec<_> = asked
            .into_iter()
            .map(|(node, group)| {
                let links = links.clone();
                let ask = async move { links.call(node, group, RemoteCall::Describe, ANSWER_WAIT).await };
                self.context.spawn(self.context.queues.latency, "describe", ask)
            })
            .collect();
        for answer in answers {
            if let Ok(RemoteReply::Description(bytes)) = answer.await
                && let Ok(core) = serde_json::from_slice(&bytes)
            {
                described.push(core);
            }
        }
        described
    }

    /// Groups that live on this core.
    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        let meta = self.meta_machine.is_some().then_some(META_GROUP);
        let pool = self.pool.master.is_some().then_some(POOL_GROUP);
        self.partitions.keys().map(|id| GroupId(*id)).chain(pool).chain(meta)
    }

    /// What this core knows of its groups.
    pub(super) async fn description(&self) -> Value {
        let mut groups = Vec::new();
        for (id, group) in self.groups().filter_map(|id| self.replicas.group(id).map(|group| (id, group))) {
            let (flushed, _) = group.machine().flushed();
            let mut told = json!({
                "group": group_name(id),
                "leader": group.leader().0,
                "term": group.term().0,
                "applied": group.machine().applied().0,
                "flushed": flushed.0,
                "stopped": group.is_broken(),
                "voters": numbers(group.members().voters()),
                "learners": numbers(group.members().learners()),
                "joint": group.members().is_joint(),
            });
            if let Some(partition) = self.partitions.get(&id.0) {
                told["files"] = files(partition).await;
            }
            groups.push(told);
        }
        json!({
            "node": self.replicas.placement().node.0,
            "core": self.context.core.index(),
            "groups": groups,
            "handoff": self.describe_handoff(),
        })
    }
}

/// The metadata's group has no number, and that of the pool's masters has a name.
fn group_name(group: GroupId) -> Value {
    match group {
        META_GROUP => Value::Null,
        POOL_GROUP => "pool".into(),
        group => group.0.into(),
    }
}

fn numbers(nodes: &[NodeId]) -> Vec<u64> {
    nodes.iter().map(|node| node.0).collect()
}

/// What the files of a partition hold: equal for all replicas that are equally far.
async fn files(partition: &Partition<RingDisk>) -> Value {
    match partition.published().await {
        Ok(None) => Value::Null,
        Ok(Some(manifest)) => json!({
            "flushed": manifest.flushed_index,
            "copied": manifest.copies_index,
            "copies_left": manifest.copies.len(),
            "count": manifest.files.len(),
            "bytes": manifest.files.iter().map(|file| file.size).sum::<u64>(),
            "digest": manifest.digest().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}
