//! A core as a member of its node's cluster.
//!
//! Owns: how the cluster's options become placements, links and settings of groups; joining and leaving. Where a node
//! holds a group, it is on the core that the number of its cores deals it to. A place for a group is there at every node that
//! may hold it; the members of the group decide whether it is filled.

use crate::{
    data::{acquainting::TakesPart, budget::Budget, core::DataCore, message::Message},
    links::{Links, Roster, Rotation, Start, peer_options},
    options::ClusterOptions,
    replica::{Placement, Surroundings},
};
use std::{collections::BTreeMap, io, rc::Rc, sync::Arc, time::Duration};
use tidemill_line::PartitionMap;
use tidemill_peer::GlommioRt;
use tidemill_raft::{GroupId, Membership as Members, Moment, NodeId, Options as RaftOptions};
use tidemill_reactor::CoreContext;

/// Between two looks at the clocks of the groups: several within a heartbeat.
const TICK_EVERY: Duration = Duration::from_millis(20);
/// A node that leads many groups is replaced when the last of them has found another leader: half a second to a second
/// until somebody stands for election keeps the gap in the writes below a second, mostly.
const ELECTION_TIMEOUT_US: u64 = 500_000;
/// Ten within the timeout, and two ticks apart; those of all groups leave as one message.
const HEARTBEAT_INTERVAL_US: u64 = 50_000;
const _: () = assert!(TICK_EVERY.as_micros() as u64 * 2 <= HEARTBEAT_INTERVAL_US);
/// Entries that a leader keeps to send them again, of one group, at least.
const TAIL_BYTES_MIN: usize = 1 << 20;
/// How long a stopping node waits for others to lead what it led, and between two looks.
const HAND_OVER_NS_MAX: u64 = 2_000_000_000;
const HAND_OVER_PAUSE: Duration = Duration::from_millis(20);

/// What all cores of a node know of its cluster.
#[derive(Clone)]
pub struct Membership {
    pub options: Arc<ClusterOptions>,
    pub certificates: Arc<Rotation>,
    pub partitions: PartitionMap,
    /// What nodes must agree on to understand each other.
    pub shape: u64,
    /// Of this run of the process.
    pub incarnation: u64,
    /// The number of this node's data folder.
    pub folder: u64,
    /// Not before the others have noted the folder.
    pub takes_part: TakesPart,
}

impl Membership {
    /// The way to other nodes; it leads nowhere before [`Membership::join`].
    pub(super) fn links(&self, context: &CoreContext<Message>) -> Rc<Links> {
        Links::new(self.roster(), context.core.0)
    }

    pub(super) fn roster(&self) -> Roster {
        Roster {
            node: self.options.node,
            nodes: self.options.nodes.clone(),
            partitions: self.partitions,
            shape: self.shape,
        }
    }

    /// The nodes that the cluster is founded with.
    pub(super) fn founders(&self) -> Roster {
        let mut roster = self.roster();
        roster.nodes.retain(|node, _| self.options.founders.contains(node));
        roster
    }

    /// What a core's groups have of the world around them.
    pub(super) fn surroundings(
        &self,
        context: &CoreContext<Message>,
        budget: &Budget,
        links: &Rc<Links>,
        groups: impl Iterator<Item = GroupId>,
    ) -> Surroundings {
        let node = self.options.node;
        let founders = self.founders();
        let members = |group| {
            let (voters, followers) = founders.voters(group);
            Members::new(voters, followers).expect("the options have checked the nodes")
        };
        let groups: BTreeMap<_, _> = groups.map(|group| (group, members(group))).collect();
        let (clock, outlet, seed) = (context.clock.clone(), links.clone(), context.seed.random_u64());
        let tail_bytes_max = (budget.log_queue_bytes_max / groups.len().max(1)).max(TAIL_BYTES_MIN);
        Surroundings {
            placement: Placement { node, groups },
            clock: Box::new(move || Moment(clock.monotonic_ns() / 1000)),
            outlet: Box::new(move |message| outlet.send(message)),
            options: Box::new(move |group, node| RaftOptions {
                tail_bytes_max,
                election_timeout: ELECTION_TIMEOUT_US,
                heartbeat_interval: HEARTBEAT_INTERVAL_US,
                ..RaftOptions::new(group, node, seed ^ u64::from(group.0))
            }),
            sources: links.sources(),
        }
    }

    /// Begins to talk to other nodes, and to take part in elections.
    pub(super) fn join(&self, core: &Rc<DataCore>) -> io::Result<()> {
        let Some(links) = &core.links else { return Ok(()) };
        let context = &core.context;
        core.follow_nodes();
        let mut bind = self.options.bind_addr;
        // The options have looked whether there are ports for all cores.
        bind.set_port(bind.port() + context.core.0);
        links.start(Start {
            rt: GlommioRt::new(Some(context.queues.latency)),
            background: GlommioRt::new(Some(context.queues.background)),
            bind,
            credentials: self.certificates.current(),
            options: peer_options(self.options.mtu, context.seed.random_u64()),
            incarnation: self.incarnation,
            groups: core.linked_groups(),
            answerer: core.clone(),
        })?;
        links.follow(&self.certificates);
        let chores = core.clone();
        let run_chores = async move { chores.replicas.run_chores().await };
        context.spawn(context.queues.latency, "replication", run_chores).detach();
        let ticking = core.clone();
        let run_ticks = async move {
            while !ticking.replicas.is_stopped() {
                if ticking.takes_part.get() {
                    ticking.replicas.tick();
                }
                ticking.context.sleep(TICK_EVERY).await;
            }
        };
        context.spawn(context.queues.latency, "elections", run_ticks).detach();
        if let Some(known) = core.acquaintances.clone() {
            context.spawn(context.queues.latency, "acquaintances", core.clone().make_acquaintances(known)).detach();
        }
        context.spawn(context.queues.latency, "members", core.clone().tend_members()).detach();
        context.spawn(context.queues.latency, "spread of leads", core.clone().spread_leads()).detach();
        Ok(())
    }
}

impl DataCore {
    /// Lets other nodes lead what this one leads, as far as they are there and have caught up, and what was taken before
    /// come to its end.
    pub(super) async fn hand_groups_over(&self) {
        let begun_ns = self.context.clock.monotonic_ns();
        loop {
            let led = self.replicas.led();
            let is_late = self.context.clock.monotonic_ns() - begun_ns > HAND_OVER_NS_MAX;
            if is_late || (led.is_empty() && self.replicas.waiting() == 0) {
                return;
            }
            for group in led {
                let (own, Some(members)) = (self.replicas.placement().node, self.replicas.members(group)) else {
                    continue;
                };
                let others: Vec<NodeId> = members.voters().iter().copied().filter(|node| *node != own).collect();
                // Another one at each try: the first may be away.
                let turn = (self.context.clock.monotonic_ns() / HAND_OVER_PAUSE.as_nanos() as u64) as usize;
                if let Some(to) = others.get((group.0 as usize + turn) % others.len().max(1)) {
                    // Refused while one is under way or the other lags: the next look tries again.
                    let _ = self.replicas.hand_over(group, *to);
                }
            }
            self.context.sleep(HAND_OVER_PAUSE).await;
        }
    }
}
