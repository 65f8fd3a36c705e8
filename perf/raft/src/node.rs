//! One of the three nodes: the log on the disk, replicas of all groups, links to the other two, and the load on the
//! groups that it leads.
//!
//! Everything but the state machine is what a server runs: `core/log` on the core's disk, `core/raft` in
//! `roles/src/replica`, QUIC with mutual TLS in `roles/src/links`. Proposals are made on the core itself, as a partition's
//! batches are.

use crate::{
    machine::Counter,
    measure::{Cell, histogram, pin},
};
use anyhow::{Context, Result};
use bytes::Bytes;
use futures_lite::future;
use hdrhistogram::Histogram;
use std::{
    cell::{Cell as Shared, RefCell},
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};
use tidemill::{
    data::message::CallError,
    links::{Answerer, Duty, Links, Member, ReadOutlet, RemoteCall, RemoteReply, Roster, Start, peer_options},
    replica::{
        FilePart, LocalFuture, Machine, Payload, Pieces, Placement, ProposeError, Replicas, Surroundings, recover,
    },
};
use tidemill_line::PartitionMap;
use tidemill_log::{Durability, LogOptions};
use tidemill_peer::{ClusterId, Credentials, GlommioRt};
use tidemill_raft::{GroupId, Membership, Message, Moment, NodeId, Options as RaftOptions};
use tidemill_reactor::{CoreContext, CoreError, ReactorOptions, RingDisk};

pub const CLUSTER: ClusterId = ClusterId([7; 16]);
pub const NODES: u64 = 3;
const SHAPE: u64 = 1;
const TICK_EVERY: Duration = Duration::from_millis(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Between two looks at whether the log can give up segments, and the bytes that are kept for members that lag.
const RELEASE_EVERY: Duration = Duration::from_millis(100);
const KEPT_BYTES: u64 = 64 << 20;
/// An election and the handing over of all groups take some seconds; ten times that is a failure.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(60);

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub node: u64,
    pub folder: PathBuf,
    /// `ca.pem`, `node.pem` and `node.key`.
    pub certificates: PathBuf,
    /// Of node 1; the others follow.
    pub first_port: u16,
    pub groups: u32,
    pub processor: usize,
    pub mtu: u16,
    pub dsync: bool,
    pub spin: Duration,
}

/// What a node is told.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// See to it that every group is led by whom it is to be led.
    Settle,
    Run(Cell),
    /// Tell what was applied.
    Count,
    Stop,
}

/// What it says.
#[derive(Debug)]
pub enum Report {
    /// All groups are led by those who are to lead them.
    Ready,
    Ran(Ran),
    Counted {
        digest: u64,
    },
    Failed(String),
}

/// What a node did in one cell.
#[derive(Debug)]
pub struct Ran {
    pub commits: u64,
    pub seconds: f64,
    pub latency: Histogram<u64>,
    /// Commits of the log, of which each is one write and one fdatasync, and their bytes, while it was measured.
    pub log_commits: u64,
    pub log_bytes: u64,
    /// Proposals that were made again, because the log had no room or the leader had changed.
    pub refused: u64,
}

/// Orders to a node and its reports: between threads.
#[derive(Clone)]
pub struct Desk {
    pub orders: Arc<Mutex<VecDeque<Order>>>,
    pub reports: mpsc::Sender<Report>,
}

impl Desk {
    pub fn order(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
    }

    fn next(&self) -> Option<Order> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn tell(&self, report: Report) {
        // Nobody listens any more when the run was given up.
        let _ = self.reports.send(report);
    }
}

/// Who leads a group while it is measured: with several groups, each node leads its part of them.
pub fn leader_of(group: u32) -> NodeId {
    NodeId(1 + u64::from(group) % NODES)
}

/// How many proposals of a window a node keeps in flight.
pub fn share_of(window: usize, groups: u32, node: u64) -> usize {
    let leaders = usize::min(groups as usize, NODES as usize);
    let place = node as usize - 1;
    if place >= leaders { 0 } else { window / leaders + usize::from(place < window % leaders) }
}

/// Runs a node on the calling thread until it is told to stop.
pub fn run(plan: Plan, desk: Desk) -> Result<()> {
    pin(plan.processor);
    let mut options = ReactorOptions::new(1, &plan.folder);
    options.dsync = plan.dsync;
    options.spin_before_park = plan.spin;
    let failed = desk.clone();
    let lived = tidemill_reactor::run(options, move |context: CoreContext<()>| {
        let (plan, desk) = (plan.clone(), desk.clone());
        async move { live(context, plan, desk).await.map_err(|error| CoreError::from(format!("{error:#}"))) }
    });
    lived.inspect_err(|error| failed.tell(Report::Failed(error.to_string())))?;
    Ok(())
}

struct Node {
    context: CoreContext<()>,
    plan: Plan,
    replicas: Replicas<RingDisk>,
    counters: BTreeMap<GroupId, Rc<Counter>>,
}

impl Answerer for Node {
    fn message(&self, message: Message<Payload>) {
        // What is not heard is sent again.
        let _ = self.replicas.receive(message);
    }

    fn answer(self: Rc<Self>, _: NodeId, _: GroupId, _: RemoteCall) -> LocalFuture<'static, RemoteReply> {
        Box::pin(async { RemoteReply::Done(Err(CallError::Unknown("nothing is answered here".into()))) })
    }

    fn read(self: Rc<Self>, _: GroupId, _: Bytes, outlet: ReadOutlet) -> LocalFuture<'static, ()> {
        // Dropped before its end: there is no answer.
        drop(outlet);
        Box::pin(async {})
    }

    fn open_file(self: Rc<Self>, _: GroupId, part: FilePart) -> LocalFuture<'static, Result<Box<dyn Pieces>, String>> {
        Box::pin(async move { Err(format!("there is no file {}", part.name)) })
    }
}

async fn live(context: CoreContext<()>, plan: Plan, desk: Desk) -> Result<()> {
    let groups: Vec<GroupId> = (0..plan.groups).map(GroupId).collect();
    let address = |node: u64| SocketAddr::from(([127, 0, 0, 1], plan.first_port + node as u16 - 1));
    let member = |node: u64| Member { address: address(node), cores: 1, duty: Duty::Data { group: 0 } };
    let nodes = (1..=NODES).map(|node| (NodeId(node), member(node))).collect();
    let partitions = PartitionMap::single(plan.groups.next_power_of_two());
    let links = Links::new(Roster { node: NodeId(plan.node), nodes, partitions, shape: SHAPE }, 0);
    let counters: BTreeMap<GroupId, Rc<Counter>> = groups.iter().map(|group| (*group, Rc::default())).collect();
    let machines: BTreeMap<GroupId, Rc<dyn Machine>> =
        counters.iter().map(|(group, counter)| (*group, counter.clone() as Rc<dyn Machine>)).collect();
    let surroundings = surroundings(&context, &plan, &links, &groups);
    let log_options = LogOptions {
        new_log_id: context.seed.random_u64(),
        durability: if plan.dsync { Durability::Dsync } else { Durability::Fdatasync },
        ..LogOptions::default()
    };
    let disk = context.disk.clone();
    let (log, mut found) = recover(disk, "log", log_options, &surroundings.placement, &machines).await?;
    let node = Rc::new(Node {
        context: context.clone(),
        plan: plan.clone(),
        replicas: Replicas::new(log.clone(), surroundings),
        counters,
    });
    let queue = context.queues.latency;
    let run_log = context.spawn(queue, "log", async move { log.run().await });
    for (group, machine) in &machines {
        node.replicas.open_group(*group, found.remove(group).unwrap_or_default(), machine.clone()).await?;
    }
    let commits = node.clone();
    let run_commits = context.spawn(queue, "commits", async move { commits.replicas.run_commits().await });
    links.start(Start {
        rt: GlommioRt::new(Some(queue)),
        background: GlommioRt::new(Some(context.queues.background)),
        bind: address(plan.node),
        credentials: Credentials::read(CLUSTER, tidemill_peer::NodeId(plan.node), &plan.certificates)?,
        options: peer_options(plan.mtu, context.seed.random_u64()),
        incarnation: context.seed.random_u64(),
        groups,
        answerer: node.clone(),
    })?;
    let chores = node.clone();
    context.spawn(queue, "replication", async move { chores.replicas.run_chores().await }).detach();
    context.spawn(queue, "elections", node.clone().tick()).detach();
    context.spawn(context.queues.background, "releases", node.clone().release()).detach();

    while !context.shutdown.is_requested() {
        match desk.next() {
            Some(Order::Settle) => {
                node.settle().await?;
                desk.tell(Report::Ready);
            }
            Some(Order::Run(cell)) => desk.tell(Report::Ran(node.clone().drive(cell).await?)),
            Some(Order::Count) => desk.tell(Report::Counted { digest: node.digest() }),
            Some(Order::Stop) => break,
            None => context.sleep(LOOK_EVERY).await,
        }
    }
    links.close().await;
    node.replicas.close();
    run_commits.await;
    run_log.await?;
    context.mail.close();
    Ok(())
}

fn surroundings(context: &CoreContext<()>, plan: &Plan, links: &Rc<Links>, groups: &[GroupId]) -> Surroundings {
    let voters = Membership::new((1..=NODES).map(NodeId), []).expect("three voters are a membership");
    let groups = groups.iter().map(|group| (*group, voters.clone())).collect();
    let (clock, outlet, seed) = (context.clock.clone(), links.clone(), context.seed.random_u64());
    Surroundings {
        placement: Placement { node: NodeId(plan.node), groups },
        clock: Box::new(move || Moment(clock.monotonic_ns() / 1000)),
        outlet: Box::new(move |message| outlet.send(message)),
        options: Box::new(move |group, node| RaftOptions::new(group, node, seed ^ u64::from(group.0))),
        sources: links.sources(),
    }
}

impl Node {
    async fn tick(self: Rc<Self>) {
        while !self.replicas.is_stopped() {
            self.replicas.tick();
            self.context.sleep(TICK_EVERY).await;
        }
    }

    /// Gives the log back what was applied a while ago, as a server does whose rows went to files.
    async fn release(self: Rc<Self>) {
        let mut released_bytes = 0;
        while !self.replicas.is_stopped() {
            let bytes: u64 = self.counters.values().map(|counter| counter.bytes()).sum();
            if bytes - released_bytes > KEPT_BYTES {
                released_bytes = bytes;
                for (group, counter) in &self.counters {
                    self.replicas.release(*group, counter.applied());
                }
            }
            self.context.sleep(RELEASE_EVERY).await;
        }
    }

    /// Returns once this node leads what it is to lead and nothing else.
    async fn settle(&self) -> Result<()> {
        let begun = Instant::now();
        let me = NodeId(self.plan.node);
        loop {
            let led = self.replicas.led();
            for group in led.iter().filter(|group| leader_of(group.0) != me) {
                // Refused while the other one lags; the next look tries again.
                let _ = self.replicas.hand_over(*group, leader_of(group.0));
            }
            let is_settled = |group: &GroupId| self.replicas.leader(*group) == leader_of(group.0);
            if self.counters.keys().all(is_settled) {
                return Ok(());
            }
            anyhow::ensure!(begun.elapsed() < SETTLE_TIME_MAX, "the groups have found no leaders");
            self.context.sleep(TICK_EVERY).await;
        }
    }

    fn digest(&self) -> u64 {
        let digests = self.counters.values().map(|counter| counter.digest());
        digests.fold(0, |all: u64, digest| all.rotate_left(7) ^ digest)
    }

    /// Keeps this node's share of the window in flight until the cell is over.
    async fn drive(self: Rc<Self>, cell: Cell) -> Result<Ran> {
        let begun = Instant::now();
        let groups: Vec<GroupId> = self.replicas.led();
        let share = share_of(cell.window, self.plan.groups, self.plan.node);
        let lane = Rc::new(Lane {
            groups,
            next: Shared::new(0),
            from: begun + cell.warm_up,
            until: begun + cell.warm_up + cell.length,
            payload: random_bytes(cell.payload_bytes, self.plan.node),
            commits: Shared::new(0),
            refused: Shared::new(0),
            latency: RefCell::new(histogram()),
        });
        anyhow::ensure!(share == 0 || !lane.groups.is_empty(), "node {} leads nothing any more", self.plan.node);
        let tasks: Vec<_> =
            (0..share)
                .map(|_| {
                    let (node, lane) = (self.clone(), lane.clone());
                    self.context
                        .spawn(self.context.queues.latency, "load", async move { node.keep_one_in_flight(&lane).await })
                })
                .collect();
        self.context.sleep(cell.warm_up).await;
        let before = self.replicas.log().metrics();
        self.context.sleep(cell.length).await;
        let after = self.replicas.log().metrics();
        for task in tasks {
            task.await?;
        }
        Ok(Ran {
            commits: lane.commits.get(),
            seconds: cell.length.as_secs_f64(),
            latency: lane.latency.replace(histogram()),
            log_commits: after.commits - before.commits,
            log_bytes: after.bytes - before.bytes,
            refused: lane.refused.get(),
        })
    }

    async fn keep_one_in_flight(&self, lane: &Lane) -> Result<()> {
        loop {
            let begun = Instant::now();
            if begun >= lane.until {
                return Ok(());
            }
            let ticket = loop {
                match self.replicas.propose(lane.next_group(), Payload::Batch(lane.payload.clone())) {
                    Ok(ticket) => break ticket,
                    Err(ProposeError::Busy(_) | ProposeError::NotLeader(_)) => {
                        lane.refused.set(lane.refused.get() + 1);
                        self.context.sleep(Duration::from_micros(200)).await;
                    }
                    Err(error) => return Err(error).context("a proposal"),
                }
                if Instant::now() >= lane.until {
                    return Ok(());
                }
            };
            let outcome = future::or(async { Some(ticket.outcome().await) }, async {
                self.context.shutdown.requested().await;
                None
            });
            if let Err(lost) = outcome.await.context("the node was stopped")? {
                anyhow::ensure!(!self.replicas.is_stopped(), "a proposal: {lost}");
                lane.refused.set(lane.refused.get() + 1);
                continue;
            }
            let ended = Instant::now();
            if ended >= lane.from && ended < lane.until {
                lane.commits.set(lane.commits.get() + 1);
                lane.latency.borrow_mut().saturating_record((ended - begun).as_nanos() as u64);
            }
        }
    }
}

/// What the proposals of one cell share.
struct Lane {
    groups: Vec<GroupId>,
    next: Shared<usize>,
    from: Instant,
    until: Instant,
    payload: Bytes,
    commits: Shared<u64>,
    refused: Shared<u64>,
    latency: RefCell<Histogram<u64>>,
}

impl Lane {
    fn next_group(&self) -> GroupId {
        let at = self.next.replace(self.next.get() + 1);
        self.groups[at % self.groups.len()]
    }
}

/// Bytes that nothing can compress.
pub fn random_bytes(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_the_nodes_are_the_window() {
        for groups in [1, 2, 3, 64] {
            for window in [1, 2, 16, 64, 256] {
                let shares: Vec<usize> = (1..=NODES).map(|node| share_of(window, groups, node)).collect();
                assert_eq!(shares.iter().sum::<usize>(), window, "{groups} groups, {shares:?}");
            }
        }
        assert_eq!(share_of(16, 1, 1), 16);
    }
}
