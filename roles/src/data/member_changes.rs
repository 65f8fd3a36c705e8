//! Who is a member of what, while the cluster runs.
//!
//! What is wanted stands in the metadata; the leader of each group brings its members there, one step at a time: who comes
//! is a learner until it has caught up, then one joint change puts it in the place of who goes. Whoever leads next goes on
//! from the members that its log holds.
//! Invariants: a change begins only by metadata as new as any that were acknowledged before; what has come to its end is
//! noted in the metadata by the group's own leader, and only then may a node that held it go.

use crate::{
    data::{
        NODE_MAX,
        core::DataCore,
        message::{Call, CallError, MetaChangeError, Reply},
        metadata::META_GROUP,
        propose::other_answer,
    },
    links::{Duty, Member, POOL_GROUP, RemoteCall, RemoteReply, Roster, core_of},
    options::{COPIES_MAX, duration},
    replica::ProposeError,
};
use serde_json::json;
use std::{collections::BTreeMap, rc::Rc, time::Duration};
use tidemill_http::{ClusterOrder, Refusal};
use tidemill_line::PartitionMap;
use tidemill_meta::{Command as MetaCommand, Holders, Node, NodeDuty, NodeState, PoolPolicy};
use tidemill_pool::Change;
use tidemill_raft::{GroupId, Membership, NodeId, Rejected};
use tidemill_reactor::CoreId;

/// Between two looks at what is wanted and what is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a new leader may take, and between two looks at whether it leads.
const HAND_OVER_NS_MAX: u64 = 3_000_000_000;
const HAND_OVER_PAUSE: Duration = Duration::from_millis(20);
/// Limit of a call that hands over.
const HAND_OVER_CALL_MAX: Duration = Duration::from_secs(5);

impl DataCore {
    /// Speaks with the nodes that the metadata name.
    pub(super) fn follow_nodes(&self) {
        let (Some(links), Some(cluster)) = (&self.links, &self.options.cluster) else { return };
        let meta = self.meta();
        if self.nodes_followed.replace(Some(meta.nodes_version())) == Some(meta.nodes_version()) {
            return;
        }
        if meta.node(cluster.node.0).is_some_and(|own| own.state == NodeState::Gone) {
            tracing::error!("this node was removed from its cluster: the others do not listen to it any more");
        }
        let members = meta.nodes().iter().filter(|node| node.state != NodeState::Gone);
        let mut nodes: BTreeMap<NodeId, Member> = members.filter_map(member_of).collect();
        // What the log brings that is not known to be decided: among the nodes that decide on it may be the very ones that
        // it names.
        let configured = cluster.nodes.iter().map(|(node, member)| (*node, *member));
        for (node, member) in self.nodes_expected.borrow().iter().filter_map(member_of).chain(configured) {
            if meta.node(node.0).is_none() {
                nodes.insert(node, member);
            }
        }
        links.set_nodes(nodes);
    }

    /// Brings the members of the groups that this core leads to what the metadata want, until the core stops.
    pub(super) async fn tend_members(self: Rc<Self>) {
        while !self.replicas.is_stopped() && !self.stopping.get() {
            if self.meta().nodes().is_empty() && self.replicas.leads(META_GROUP) {
                self.found_cluster().await;
            }
            let led: Vec<GroupId> = self.groups().filter(|group| self.replicas.leads(*group)).collect();
            for group in led {
                if let Err(error) = self.tend(group).await {
                    tracing::debug!(group = group.0, %error, "members are not changed yet");
                }
            }
            self.context.sleep(LOOK_EVERY).await;
        }
    }

    /// Tells the metadata of the nodes and groups that the cluster begins with.
    async fn found_cluster(self: &Rc<Self>) {
        let (Some(links), Some(cluster)) = (&self.links, &self.options.cluster) else { return };
        let mut founders = Roster::clone(&links.roster());
        founders.nodes.retain(|node, _| cluster.founders.contains(node));
        let nodes = founders.nodes.iter().map(|(node, member)| Node {
            id: node.0,
            address: member.address.to_string(),
            cores: member.cores,
            duty: match member.duty {
                Duty::Data { group } => NodeDuty::Data { group },
                Duty::Meta => NodeDuty::Meta,
                Duty::PoolMaster => NodeDuty::PoolMaster,
                Duty::PoolSlave => NodeDuty::PoolSlave { domain: cluster.domains.get(node).cloned() },
            },
            state: NodeState::Active,
        });
        let has_pool = founders.holders(POOL_GROUP).next().is_some();
        let numberless = has_pool.then_some(POOL_GROUP.0).into_iter().chain([META_GROUP.0]);
        let groups = (0..self.partition_map.count()).chain(numberless);
        let holders = groups.map(|group| {
            let voters: Vec<u64> = founders.voters(GroupId(group)).0.iter().map(|node| node.0).collect();
            Holders { group, wanted: voters.clone(), noted: voters }
        });
        let found = MetaCommand::FoundCluster { nodes: nodes.collect(), holders: holders.collect() };
        if let Err(error) = self.change_meta(found).await {
            tracing::debug!(%error, "the cluster is not founded yet");
        }
    }

    /// The members that a group is to have, as far as this core knows.
    fn wanted_members(&self, group: GroupId) -> Option<Membership> {
        let meta = self.meta();
        let wanted = &meta.holders_of(group.0)?.wanted;
        let members = meta.nodes().iter().filter(|node| node.state != NodeState::Gone).map(|node| node.id);
        // Whoever serves needs the metadata.
        let learners = members.filter(|node| group == META_GROUP && !wanted.contains(node)).map(NodeId);
        Membership::new(wanted.iter().copied().map(NodeId), learners).ok()
    }

    /// One step.
    async fn tend(self: &Rc<Self>, group: GroupId) -> Result<(), MetaChangeError> {
        let Some(now) = self.replicas.group(group).and_then(|group| group.settled_members()) else { return Ok(()) };
        let Some(wanted) = self.wanted_members(group) else { return Ok(()) };
        if now == wanted {
            let voters: Vec<u64> = now.voters().iter().map(|node| node.0).collect();
            let is_noted = self.meta().holders_of(group.0).is_some_and(|holders| holders.noted == voters);
            if !is_noted {
                self.change_meta(MetaCommand::NoteHolders { group: group.0, voters }).await?;
            }
            return Ok(());
        }
        self.catch_up_meta().await?;
        let Some(wanted) = self.wanted_members(group) else { return Ok(()) };
        let Some(next) = next_members(&now, &wanted) else { return Ok(()) };
        match self.replicas.change_members(group, next.clone()) {
            Ok(_) => tracing::info!(group = group.0, ?next, "the members of a group change"),
            Err(Rejected::NotCaughtUp(node)) => {
                tracing::debug!(group = group.0, node = node.0, "a learner has not caught up");
            }
            Err(rejected) => tracing::debug!(group = group.0, %rejected, "the members of a group do not change yet"),
        }
        Ok(())
    }

    /// Has another node lead a group of this core, whoever leads it now.
    pub(super) async fn hand_over_wherever(self: &Rc<Self>, group: GroupId, to: NodeId) -> Result<(), CallError> {
        let Some(links) = self.links.clone() else { return Ok(()) };
        let own = self.replicas.placement().node;
        let attempt = async |leader: NodeId| {
            if leader == own {
                return self.hand_over_from_here(group, to).await;
            }
            match links.call(leader, group, RemoteCall::HandOver(to), HAND_OVER_CALL_MAX).await {
                Ok(RemoteReply::Done(result)) => result,
                Ok(_) => Err(other_answer(leader)),
                Err(failure) => Err(CallError::Unknown(failure.to_string())),
            }
        };
        self.until_led(group, attempt).await
    }

    /// Hands the leadership of a group over; returns once the other node leads.
    pub(super) async fn hand_over_from_here(self: &Rc<Self>, group: GroupId, to: NodeId) -> Result<(), CallError> {
        let refused = |why: String| Err(CallError::Refused(ProposeError::Stopped(why)));
        let begun_ns = self.context.clock.monotonic_ns();
        loop {
            let leader = self.replicas.leader(group);
            if leader == to {
                return Ok(());
            }
            match self.replicas.hand_over(group, to) {
                Ok(()) | Err(Rejected::Transferring { .. }) => {}
                Err(Rejected::NotLeader { .. }) if leader == NodeId(0) => {}
                Err(Rejected::NotLeader { leader }) => return Err(ProposeError::NotLeader(leader).into()),
                Err(rejected) => return refused(rejected.to_string()),
            }
            if self.context.clock.monotonic_ns() - begun_ns > HAND_OVER_NS_MAX {
                return refused(format!("node {to} has not taken the lead"));
            }
            self.context.sleep(HAND_OVER_PAUSE).await;
        }
    }

    /// Does what an operator asks for, or says why not. What takes long goes on after the answer.
    pub async fn change_cluster(self: &Rc<Self>, order: ClusterOrder) -> Result<String, Refusal> {
        if self.links.is_none() {
            return Err(Refusal::new(404, "this server is not a node of a cluster"));
        }
        let command = match Order::parse(&order, self.partition_map).map_err(|why| Refusal::new(400, why))? {
            Order::Meta(command) => command,
            Order::Pool(change) => return self.change_pool(change).await,
            Order::HandOver { group, to } => {
                let core = CoreId(core_of(group, self.context.cores as u16));
                let is_there = self.meta().holders_of(group.0).is_some() || group.0 < self.partition_map.count();
                if !is_there {
                    return Err(Refusal::new(400, format!("there is no group {group}")));
                }
                let handed = match self.call(core, Call::HandOver { group, to }).await {
                    Ok(Reply::Done(handed)) => handed,
                    Ok(_) => unreachable!("handing over is answered as done"),
                    Err(error) => Err(error),
                };
                handed.map_err(|error| Refusal::new(503, error.to_string()))?;
                return Ok(json!({ "done": order.verb }).to_string());
            }
        };
        let is_done = matches!(command, MetaCommand::SetPoolPolicy { .. });
        if let MetaCommand::RemoveNode { node } = command
            && self.meta().node(node).is_some_and(|node| matches!(node.duty, NodeDuty::PoolSlave { .. }))
        {
            // The masters forget what is on a node that is gone.
            self.change_pool(Change::Release { slave: node }).await?;
        }
        match self.change_meta(command).await {
            Ok(_) if is_done => Ok(json!({ "done": order.verb }).to_string()),
            Ok(_) => Ok(json!({ "begun": order.verb }).to_string()),
            Err(MetaChangeError::Meta(error)) => Err(Refusal::new(409, error.to_string())),
            Err(MetaChangeError::Call(error)) => Err(Refusal::new(503, error.to_string())),
        }
    }
}

/// What an operator asks for, understood.
#[derive(Debug, PartialEq, Eq)]
enum Order {
    Meta(MetaCommand),
    HandOver { group: GroupId, to: NodeId },
    Pool(Change),
}

impl Order {
    fn parse(ClusterOrder { verb, arguments }: &ClusterOrder, partitions: PartitionMap) -> Result<Order, String> {
        let names: &[&str] = match verb.as_str() {
            "add-data" => &["node", "address", "cores", "group"],
            "add-meta" | "add-pool-master" => &["node", "address", "cores"],
            "add-pool-slave" => &["node", "address", "domain"],
            "replace" => &["old", "new"],
            "drain" | "remove-data" | "remove-meta" | "remove-pool" | "pool-drain" | "pool-evacuate"
            | "pool-activate" | "pool-scrub" => &["node"],
            "pool-rebalance" => &[],
            "move-replica" => &["group", "from", "to"],
            "transfer-leader" => &["group", "to"],
            "pool-policy" => &["database", "policy", "copies", "after", "keep-local"],
            _ => return Err(format!("{verb:?} is nothing that can be done with a cluster")),
        };
        if let Some((unknown, _)) = arguments.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            return Err(format!("{verb} takes no {unknown:?}"));
        }
        let text = |name: &str| {
            let given = arguments.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
            given.ok_or_else(|| format!("{verb} wants {name:?}"))
        };
        let number = |name: &str| text(name)?.parse::<u64>().map_err(|_| format!("{name} must be a number"));
        let group = || match text("group")? {
            "meta" => Ok(META_GROUP),
            "pool" => Ok(POOL_GROUP),
            text => text.parse().map(GroupId).map_err(|_| "group must be a number, meta or pool".to_owned()),
        };
        Ok(Order::Meta(match verb.as_str() {
            "add-data" | "add-meta" | "add-pool-master" | "add-pool-slave" => {
                let group = if text("group").is_ok() { number("group")? } else { 1 };
                if group == 0 || group > u64::from(partitions.groups()) {
                    return Err(format!("there is no data group {group}"));
                }
                let duty = match verb.as_str() {
                    "add-data" => NodeDuty::Data { group: group as u32 - 1 },
                    "add-meta" => NodeDuty::Meta,
                    "add-pool-master" => NodeDuty::PoolMaster,
                    _ => match text("domain").ok() {
                        Some("") => return Err("a domain has a name".to_owned()),
                        domain => NodeDuty::PoolSlave { domain: domain.map(str::to_owned) },
                    },
                };
                let cores = match duty {
                    NodeDuty::PoolSlave { .. } => "1",
                    _ => text("cores")?,
                };
                let member = Member {
                    duty: duty_of(&duty),
                    address: text("address")?
                        .parse()
                        .map_err(|_| "address must be one like 10.0.0.4:8088".to_owned())?,
                    cores: cores.parse().map_err(|_| "cores must be a number".to_owned())?,
                };
                let has_ports = member.cores > 0 && member.address.port() > 0;
                if !has_ports || member.address_of(member.cores - 1).is_none() {
                    return Err(format!("{} has no ports for {} cores", member.address, member.cores));
                }
                let (address, cores) = (member.address.to_string(), member.cores);
                let state = NodeState::Active;
                let id = number("node")?;
                if id > NODE_MAX {
                    return Err(format!("numbers of nodes go up to {NODE_MAX}"));
                }
                MetaCommand::AddNode(Node { id, address, cores, duty, state })
            }
            "pool-drain" => return Ok(Order::Pool(Change::Drain { slave: number("node")? })),
            "pool-evacuate" => return Ok(Order::Pool(Change::Evacuate { slave: number("node")? })),
            "pool-activate" => return Ok(Order::Pool(Change::Activate { slave: number("node")? })),
            "pool-rebalance" => return Ok(Order::Pool(Change::Rebalance)),
            "pool-scrub" => {
                let slave = text("node").is_ok().then(|| number("node")).transpose()?;
                return Ok(Order::Pool(Change::Scrub { slave }));
            }
            "replace" => MetaCommand::ReplaceNode { old: number("old")?, new: number("new")? },
            "drain" => MetaCommand::DrainNode { node: number("node")? },
            "remove-data" | "remove-meta" | "remove-pool" => MetaCommand::RemoveNode { node: number("node")? },
            "move-replica" => MetaCommand::MoveReplica { group: group()?.0, from: number("from")?, to: number("to")? },
            "pool-policy" => pool_policy(arguments)?,
            _ => return Ok(Order::HandOver { group: group()?, to: NodeId(number("to")?) }),
        }))
    }
}

/// What is not given is as the configuration says.
fn pool_policy(arguments: &[(String, String)]) -> Result<MetaCommand, String> {
    let given = |name: &str| arguments.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let wanted = |name: &str| given(name).map(str::to_owned).ok_or_else(|| format!("pool-policy wants {name:?}"));
    let copies = given("copies").map(|text| match text.parse() {
        Ok(copies @ 1..=COPIES_MAX) => Ok(copies),
        _ => Err(format!("copies must be from 1 to {COPIES_MAX}")),
    });
    let after = given("after").map(|text| {
        let after = duration(text, "after").map_err(|error| error.to_string())?;
        u64::try_from(after.as_nanos()).map_err(|_| "after is too long".to_owned())
    });
    let keeps_local =
        given("keep-local").map(|text| text.parse().map_err(|_| "keep-local must be true or false".to_owned()));
    let (copies, after_ns, keeps_local) = (copies.transpose()?, after.transpose()?, keeps_local.transpose()?);
    let pool = PoolPolicy { copies, after_ns, keeps_local };
    Ok(MetaCommand::SetPoolPolicy { database: wanted("database")?, policy: wanted("policy")?, pool })
}

/// What the metadata say of a node.
pub(super) fn member_of(node: &Node) -> Option<(NodeId, Member)> {
    let (address, duty) = (node.address.parse().ok()?, duty_of(&node.duty));
    Some((NodeId(node.id), Member { address, cores: node.cores, duty }))
}

fn duty_of(duty: &NodeDuty) -> Duty {
    match duty {
        NodeDuty::Data { group } => Duty::Data { group: *group },
        NodeDuty::Meta => Duty::Meta,
        NodeDuty::PoolMaster => Duty::PoolMaster,
        NodeDuty::PoolSlave { .. } => Duty::PoolSlave,
    }
}

/// The nodes that entries of the metadata's log bring.
pub(super) fn nodes_in<'a>(entries: impl Iterator<Item = &'a [u8]>) -> Vec<Node> {
    let commands = entries.filter_map(|bytes| MetaCommand::decode(bytes).ok());
    let nodes = commands.map(|command| match command {
        MetaCommand::FoundCluster { nodes, .. } => nodes,
        MetaCommand::AddNode(node) => vec![node],
        _ => Vec::new(),
    });
    nodes.flatten().collect()
}

/// The next step from these members to others: who comes learns first, then all change at once.
fn next_members(now: &Membership, wanted: &Membership) -> Option<Membership> {
    let strangers: Vec<NodeId> = wanted.voters().iter().copied().filter(|node| !now.contains(*node)).collect();
    if strangers.is_empty() {
        return (now != wanted).then(|| wanted.clone());
    }
    let kept = now.learners().iter().copied().filter(|node| wanted.contains(*node));
    Membership::new(now.voters().iter().copied(), kept.chain(strangers)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(voters: &[u64], learners: &[u64]) -> Membership {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        Membership::new(nodes(voters), nodes(learners)).unwrap()
    }

    #[test]
    fn who_comes_learns_before_it_votes() {
        let wanted = members(&[1, 2, 4], &[3]);
        let first = next_members(&members(&[1, 2, 3], &[]), &wanted).unwrap();
        assert_eq!(first, members(&[1, 2, 3], &[4]));
        assert_eq!(next_members(&first, &wanted), Some(wanted.clone()));
        assert_eq!(next_members(&wanted, &wanted), None);
        assert_eq!(next_members(&members(&[1, 2, 4], &[]), &wanted), Some(wanted), "one that only learns");
        let other = members(&[1, 2, 3], &[9]);
        assert_eq!(next_members(&other, &members(&[1, 2, 5], &[])), Some(members(&[1, 2, 3], &[5])));
    }

    #[test]
    fn orders_are_understood_or_refused_by_name() {
        let order = |text: &str| {
            let mut words = text.split(' ');
            let verb = words.next().unwrap().to_owned();
            let arguments = words.filter_map(|word| word.split_once('='));
            let arguments = arguments.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            Order::parse(&ClusterOrder { verb, arguments }, PartitionMap::new(2, 16).unwrap())
        };
        assert_eq!(order("replace old=3 new=4"), Ok(Order::Meta(MetaCommand::ReplaceNode { old: 3, new: 4 })));
        let handed = Ok(Order::HandOver { group: META_GROUP, to: NodeId(2) });
        assert_eq!(order("transfer-leader group=meta to=2"), handed);
        assert_eq!(order("pool-scrub"), Ok(Order::Pool(Change::Scrub { slave: None })));
        assert_eq!(order("pool-drain node=7"), Ok(Order::Pool(Change::Drain { slave: 7 })));
        for (text, why) in [
            ("explode", "nothing that can be done"),
            ("pool-evacuate", "pool-evacuate wants \"node\""),
            ("pool-rebalance node=1", "takes no \"node\""),
            ("add-pool-slave node=4 address=10.0.0.4:8088 cores=2", "takes no \"cores\""),
            ("drain", "drain wants \"node\""),
            ("drain node=x", "node must be a number"),
            ("drain node=1 force=1", "drain takes no \"force\""),
            ("move-replica group=x from=1 to=2", "group must be"),
            ("add-data node=4 address=x cores=1", "address must be"),
            ("add-data node=4 address=10.0.0.4:8088 cores=1 group=3", "no data group 3"),
            ("add-data node=4 address=10.0.0.4:65535 cores=2", "no ports"),
            ("add-data node=4 address=10.0.0.4:8088 cores=0", "no ports"),
        ] {
            let refused = order(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
