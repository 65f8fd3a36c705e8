//! A run: everything in one thread, step by step, as the seed says.

use crate::{
    cluster::{
        chronicle::Chronicle,
        counters::Counters,
        member::Member,
        network::{Network, Weather},
    },
    files,
    model::Deed,
    node::{NodeOptions, SEGMENTS_LIVE_MAX, folder_of},
    reading,
    replica::{Lost, Payload, ProposeError},
    swarm,
    workload::{self, Part},
    world::{DATABASES, Layout, PARTITIONS, STRETCHES},
};
use bytes::Bytes;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};
use tidemill_disk::sim::{Crash, Executor, Prng, SimDisk, Task};
use tidemill_raft::{Body, GroupId, NodeId};
use tidemill_store::{Command, SimPool};

/// Nodes that found the group.
pub const NODES: u64 = 3;
/// Where a node is, which has another number once its disk was lost.
pub const PLACES: u64 = 5;
/// Steps until everything must have settled once nothing goes wrong any more.
const SETTLE_STEPS_MAX: u64 = 60_000;
/// Looks at what the logs hold.
const RELIEF_ONE_IN: u64 = 50;
/// Steps between two looks at whom the nodes take for members.
const MEMBERS_SEEN_EVERY: u64 = 16;
/// Steps between two changes of the members towards all nodes, once nothing goes wrong any more.
const GATHER_EVERY: u64 = 50;
/// Microseconds that a step takes at most.
const STEP_US_MAX: u64 = 2_000;

/// What happens how often; drawn from the seed.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    steps: u64,
    weather: Weather,
    request_one_in: u64,
    flush_one_in: u64,
    copy_one_in: u64,
    ship_one_in: u64,
    pool_fails_one_in: u64,
    delete_one_in: u64,
    drop_group_one_in: u64,
    read_one_in: u64,
    resend_one_in: u64,
    power_loss_one_in: u64,
    /// Of the power losses those that strike all nodes.
    outage_one_in: u64,
    /// A node ends just after it has voted.
    vote_kill_one_in: u64,
    kill_one_in: u64,
    cut_one_in: u64,
    pause_one_in: u64,
    hand_over_one_in: u64,
    pub(super) change_members_one_in: u64,
    pub(super) lose_disk_one_in: u64,
    /// A node that is down stays so for this many steps at most.
    pub(super) down_steps_max: u64,
}

impl Settings {
    fn draw(prng: &mut Prng) -> Settings {
        let mut one_of = |choices: &[u64]| choices[prng.below(choices.len() as u64) as usize];
        Settings {
            steps: one_of(&[1_000, 3_000, 6_000]),
            weather: Weather {
                loses_one_in: one_of(&[5, 50, 1_000_000]),
                repeats_one_in: one_of(&[10, 100, 1_000_000]),
                delay_us_max: one_of(&[500, 5_000, 40_000]),
                breaks_one_in: one_of(&[5, 100]),
            },
            request_one_in: one_of(&[1, 3, 10]),
            flush_one_in: one_of(&[50, 200, 1_000]),
            copy_one_in: one_of(&[100, 400, 1_000_000]),
            ship_one_in: one_of(&[50, 300, 1_000_000]),
            pool_fails_one_in: one_of(&[3, 50, u64::MAX]),
            delete_one_in: one_of(&[100, 400, 1_000_000]),
            drop_group_one_in: one_of(&[400, 1_000_000]),
            read_one_in: one_of(&[5, 20]),
            resend_one_in: one_of(&[3, 20, 1_000_000]),
            power_loss_one_in: one_of(&[200, 800, 1_000_000]),
            outage_one_in: one_of(&[2, 5, 1_000_000]),
            vote_kill_one_in: one_of(&[2, 1_000_000, 1_000_000]),
            kill_one_in: one_of(&[300, 1_000_000]),
            cut_one_in: one_of(&[100, 500, 1_000_000]),
            pause_one_in: one_of(&[300, 1_000_000]),
            hand_over_one_in: one_of(&[200, 1_000_000]),
            change_members_one_in: one_of(&[20, 100, 1_000_000]),
            lose_disk_one_in: one_of(&[10, 50, 1_000_000]),
            down_steps_max: one_of(&[50, 500, 2_000]),
        }
    }
}

/// What all nodes and the world around them share.
pub struct Shared {
    /// Microseconds of true time.
    pub now_us: Cell<u64>,
    pub network: RefCell<Network>,
    pub chronicle: Rc<RefCell<Chronicle>>,
    pub counters: Rc<RefCell<Counters>>,
    prng: RefCell<Prng>,
    pub(super) disks: RefCell<Vec<SimDisk>>,
    is_up: RefCell<Vec<bool>>,
    /// Who is at each place.
    pub(super) nodes: RefCell<Vec<u64>>,
    /// Parts per thousand of true time by which each node's clock runs.
    rates: Vec<u64>,
    /// By partition, the newest entry that was acknowledged.
    acknowledged: RefCell<Vec<u64>>,
    /// What clients did not hear of, or were told that it failed.
    unheard: RefCell<Vec<(Payload, u32)>>,
}

impl Shared {
    pub fn random(&self) -> u64 {
        self.prng.borrow_mut().next_u64()
    }

    pub fn clock_of(&self, node: u64) -> u64 {
        self.now_us.get() * self.rates[place_of(node)] / 1_000
    }

    pub fn disk_of(&self, node: u64) -> Option<SimDisk> {
        let at = place_of(node);
        let is_there = self.is_up.borrow()[at] && self.nodes.borrow()[at] == node;
        is_there.then(|| self.disks.borrow()[at].clone())
    }
}

/// Where a node is, whatever became of its disk before.
pub fn place_of(node: u64) -> usize {
    ((node - 1) % PLACES) as usize
}

/// A node of the world.
pub(super) struct Place {
    pub(super) node: u64,
    executor: Executor,
    pub(super) life: Life,
}

pub(super) enum Life {
    Up(Member),
    Starting(Task<Result<Member, String>>),
    /// Until this step.
    Down(u64),
    Paused(Member, u64),
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) settings: Settings,
    swarm: swarm::Swarm,
    pub(super) prng: Prng,
    pub(super) shared: Rc<Shared>,
    pub(super) places: Vec<Place>,
    layout: Layout,
    requests: u64,
    pub(super) step: u64,
    /// Nothing goes wrong any more.
    is_calm: bool,
    /// Links heal at this step.
    heals_at: u64,
    leaders: [u64; PARTITIONS as usize],
    options: NodeOptions,
}

/// Runs a seed.
///
/// # Panics
/// If something was lost, invented, differs between nodes, or never comes to rest.
pub fn run(seed: u64) -> Counters {
    let mut world = World::new(seed);
    for _ in 0..world.settings.steps {
        world.go_wrong();
        world.work();
        world.operate();
        world.advance();
    }
    world.settle();
    world.check();
    let shared = world.shared.clone();
    let mut counters = *shared.counters.borrow();
    counters.entries = (0..PARTITIONS).map(|partition| shared.chronicle.borrow().len(partition)).sum();
    counters.messages = shared.network.borrow().delivered;
    counters.messages_lost = shared.network.borrow().lost;
    counters
}

/// The settings of a seed, for people.
pub fn describe(seed: u64) -> String {
    format!("{:#?}", Settings::draw(&mut Prng::new(seed)))
}

impl World {
    fn new(seed: u64) -> World {
        let mut prng = Prng::new(seed);
        let settings = Settings::draw(&mut prng);
        let swarm = swarm::Swarm::draw(&mut prng);
        let pool = Rc::new(SimPool::new(seed));
        pool.fail_one_in(settings.pool_fails_one_in);
        let options = NodeOptions { cache_bytes: swarm.cache_bytes, pool, ..NodeOptions::default() };
        let shared = Rc::new(Shared {
            now_us: Cell::new(1),
            network: RefCell::new(Network::new(Prng::new(prng.next_u64()), settings.weather)),
            chronicle: Rc::default(),
            counters: Rc::default(),
            prng: RefCell::new(Prng::new(prng.next_u64())),
            disks: RefCell::new((1..=PLACES).map(|node| SimDisk::new(seed ^ node << 40)).collect()),
            is_up: RefCell::new(vec![false; PLACES as usize]),
            nodes: RefCell::new((1..=PLACES).collect()),
            rates: (0..PLACES).map(|_| 990 + prng.below(20)).collect(),
            acknowledged: RefCell::new(vec![0; PARTITIONS as usize]),
            unheard: RefCell::default(),
        });
        let place = |node: u64| Place { node, executor: Executor::new(seed ^ node << 8), life: Life::Down(0) };
        World {
            seed,
            settings,
            swarm,
            prng,
            shared,
            places: (1..=PLACES).map(place).collect(),
            layout: Layout::default(),
            requests: 0,
            step: 0,
            is_calm: false,
            heals_at: 0,
            leaders: [0; PARTITIONS as usize],
            options,
        }
    }

    pub(super) fn any_node(&mut self) -> usize {
        self.prng.below(PLACES) as usize
    }

    pub(super) fn counters(&self) -> std::cell::RefMut<'_, Counters> {
        self.shared.counters.borrow_mut()
    }

    /// Power, processes, links.
    fn go_wrong(&mut self) {
        let Settings { power_loss_one_in, kill_one_in, cut_one_in, pause_one_in, down_steps_max, .. } = self.settings;
        if self.prng.one_in(power_loss_one_in) {
            let one = self.any_node();
            let is_outage = self.prng.one_in(self.settings.outage_one_in);
            for at in (0..PLACES as usize).filter(|at| is_outage || *at == one) {
                let crash = Crash::ALL[self.prng.below(5) as usize];
                self.stop(at, Some(crash), down_steps_max);
            }
            self.counters().power_losses += 1;
            self.counters().outages += u64::from(is_outage);
        }
        if self.prng.one_in(kill_one_in) {
            let at = self.any_node();
            self.stop(at, None, down_steps_max);
            self.counters().kills += 1;
        }
        if self.prng.one_in(pause_one_in) {
            let at = self.any_node();
            let until = self.step + 1 + self.prng.below(down_steps_max);
            let place = &mut self.places[at];
            if let Life::Up(member) = &place.life {
                place.life = Life::Paused(member.clone(), until);
                self.counters().pauses += 1;
            }
        }
        if self.prng.one_in(cut_one_in) {
            let at = self.any_node();
            let nodes = self.shared.nodes.borrow().clone();
            let one = nodes[at];
            let both_ways = self.prng.one_in(2);
            let alone = self.prng.one_in(2);
            let other = nodes[(at + 1) % nodes.len()];
            let mut cut: Vec<(u64, u64)> = Vec::new();
            for with in nodes.into_iter().filter(|with| *with != one && (alone || *with == other)) {
                cut.push((one, with));
                if both_ways {
                    cut.push((with, one));
                }
            }
            self.shared.network.borrow_mut().cut = cut;
            self.heals_at = self.step + 1 + self.prng.below(down_steps_max);
            self.counters().cuts += 1;
        }
        if self.step >= self.heals_at {
            self.shared.network.borrow_mut().cut.clear();
        }
    }

    /// A node is gone for so many steps at most, with its power or without.
    pub(super) fn stop(&mut self, at: usize, crash: Option<Crash>, down_steps_max: u64) {
        let until = self.step + 1 + self.prng.below(down_steps_max);
        let place = &mut self.places[at];
        if matches!(place.life, Life::Down(_)) {
            return;
        }
        place.life = Life::Down(until);
        place.executor.kill();
        self.shared.is_up.borrow_mut()[at] = false;
        let mut disks = self.shared.disks.borrow_mut();
        match crash {
            Some(crash) => disks[at] = disks[at].crash(crash, self.prng.next_u64()),
            None => disks[at].end_calls(),
        }
    }

    /// Time passes, messages arrive, tasks run.
    fn advance(&mut self) {
        self.step += 1;
        let now_us = self.shared.now_us.get() + 1 + self.prng.below(STEP_US_MAX);
        self.shared.now_us.set(now_us);
        let arriving = self.shared.network.borrow_mut().arriving(now_us);
        for message in arriving {
            if matches!(message.body, Body::VoteAnswer { granted: true }) && !self.is_calm {
                self.kill_voter(message.from);
            }
            let place = &self.places[place_of(message.to.0)];
            if let Life::Up(member) = &place.life
                && place.node == message.to.0
            {
                let told = format!("{message:?}");
                if let Err(wrong) = member.replicas.receive(message) {
                    panic!("seed {}: node {} does not listen: {wrong}: {told}", self.seed, place.node);
                }
            }
        }
        for at in 0..PLACES as usize {
            self.live(at);
        }
        if self.step.is_multiple_of(MEMBERS_SEEN_EVERY) {
            self.check_members();
        }
    }

    /// What it has promised it must know when it is back, which is soon.
    fn kill_voter(&mut self, voter: NodeId) {
        let at = place_of(voter.0);
        if self.places[at].node == voter.0 && self.prng.one_in(self.settings.vote_kill_one_in) {
            let crash = Crash::ALL[self.prng.below(5) as usize];
            self.stop(at, Some(crash), 3);
            self.counters().vote_kills += 1;
        }
    }

    fn live(&mut self, at: usize) {
        let (step, polls) = (self.step, 1 + self.prng.below(60));
        let place = &mut self.places[at];
        match &mut place.life {
            Life::Down(until) => {
                if step >= *until {
                    place.executor = Executor::new(self.prng.next_u64());
                    let disk = self.shared.disks.borrow()[at].clone();
                    let (executor, shared) = (place.executor.clone(), self.shared.clone());
                    shared.network.borrow_mut().started(place.node);
                    let start = Member::start(place.node, executor, disk, self.options.clone(), shared);
                    place.life = Life::Starting(place.executor.spawn(start));
                }
                return;
            }
            Life::Starting(task) => {
                if task.is_done() {
                    let Life::Starting(task) = std::mem::replace(&mut place.life, Life::Down(0)) else { return };
                    let member = place.executor.block_on(task.join());
                    let member = member.unwrap_or_else(|error| panic!("node {} does not start: {error}", place.node));
                    member.wake();
                    place.life = Life::Up(member);
                    self.shared.is_up.borrow_mut()[at] = true;
                }
            }
            Life::Paused(member, until) => {
                if step >= *until {
                    place.life = Life::Up(member.clone());
                }
                return;
            }
            Life::Up(_) => {}
        }
        if let Life::Up(member) = &place.life {
            member.replicas.tick();
            for partition in 0..PARTITIONS {
                if member.replicas.leads(GroupId(partition)) && self.leaders[partition as usize] != place.node {
                    self.leaders[partition as usize] = place.node;
                    self.shared.counters.borrow_mut().leaders += 1;
                }
            }
        }
        place.executor.run(polls);
    }

    /// What clients do.
    fn work(&mut self) {
        let settings = self.settings.clone();
        if self.prng.one_in(RELIEF_ONE_IN) {
            self.relieve();
        }
        if self.prng.one_in(settings.request_one_in) {
            self.write();
        }
        if self.prng.one_in(settings.resend_one_in) {
            let next = self.shared.unheard.borrow_mut().pop();
            if let Some((payload, partition)) = next {
                self.counters().resent += 1;
                self.propose(partition, payload);
            }
        }
        let partition = self.prng.below(u64::from(PARTITIONS)) as u32;
        if self.prng.one_in(settings.flush_one_in) {
            let floats = workload::floats(&mut self.prng);
            self.command(partition, &Command::Flush { floats }, &Rc::new(Deed::Nothing));
            self.counters().flushes += 1;
        }
        if self.prng.one_in(settings.copy_one_in) {
            self.copy(partition);
        }
        if self.prng.one_in(settings.ship_one_in) {
            self.ship(partition);
        }
        if self.prng.one_in(settings.delete_one_in) {
            let (command, deed) = workload::delete(&mut self.prng, self.requests);
            self.command(partition, &command, &Rc::new(deed));
            self.counters().deletes += 1;
        }
        if self.prng.one_in(settings.drop_group_one_in) {
            let database = DATABASES[usize::from(self.prng.one_in(4))];
            let groups: Vec<u64> = self.layout.renew(database, self.prng.below(STRETCHES)).into_iter().collect();
            for partition in 0..PARTITIONS {
                let command = Command::DropShardGroups { groups: groups.clone() };
                self.command(partition, &command, &Rc::new(Deed::DropShardGroups(groups.clone())));
            }
            self.counters().group_drops += 1;
        }
        if self.prng.one_in(settings.read_one_in) {
            self.read(partition);
        }
        if self.prng.one_in(settings.hand_over_one_in) {
            let at = self.any_node();
            let to = NodeId(self.places[at].node);
            let leader = self.leader(partition);
            if let Some(member) = leader
                && member.replicas.hand_over(GroupId(partition), to).is_ok()
            {
                self.counters().hand_overs += 1;
            }
        }
    }

    /// Nothing is asked of a cluster while it is being changed, but that it goes on.
    fn operate(&mut self) {
        if self.prng.one_in(self.settings.change_members_one_in) {
            let partition = self.prng.below(u64::from(PARTITIONS)) as u32;
            self.change_members(partition);
        }
        if self.prng.one_in(self.settings.lose_disk_one_in) {
            self.lose_disk();
        }
    }

    /// Has partitions flushed that keep a log from using its segments again: a log that is full takes not even the entry
    /// of a flush any more.
    fn relieve(&mut self) {
        for member in self.members() {
            let log = member.replicas.log();
            if log.metrics().segments_live < SEGMENTS_LIVE_MAX {
                continue;
            }
            for (group, _) in log.oldest_pinned() {
                if member.replicas.leads(group) && !member.partitions[&group.0].has_work() {
                    self.command(group.0, &Command::PLAIN_FLUSH, &Rc::new(Deed::Nothing));
                    self.counters().reliefs += 1;
                }
            }
        }
    }

    /// The node that says that it leads.
    pub(super) fn leader(&self, partition: u32) -> Option<Member> {
        self.places.iter().find_map(|place| match &place.life {
            Life::Up(member) if member.replicas.leads(GroupId(partition)) => Some(member.clone()),
            _ => None,
        })
    }

    fn write(&mut self) {
        self.requests += 1;
        // One client: a session's requests follow each other, whatever becomes of them.
        let session = self.prng.below(2);
        let request = workload::request(&mut self.prng, &self.swarm, &self.layout, self.requests, session);
        for Part { partition, image, deed } in request.parts {
            let payload = Payload::Batch(Bytes::copy_from_slice(&image));
            self.shared.chronicle.borrow_mut().intend(&payload.parts().concat(), &deed);
            self.propose(partition, payload);
        }
    }

    fn command(&mut self, partition: u32, command: &Command, deed: &Rc<Deed>) -> bool {
        let payload = Payload::Command(command.encode().into());
        self.shared.chronicle.borrow_mut().intend(&payload.parts().concat(), deed);
        self.propose(partition, payload)
    }

    fn copy(&mut self, partition: u32) {
        let Some(member) = self.leader(partition) else { return };
        let order = workload::copy(&mut self.prng, &member.partitions[&partition]);
        if let Some(order) = order {
            self.command(partition, &Command::Copy(order), &Rc::new(Deed::Nothing));
            self.counters().copies += 1;
        }
    }

    fn ship(&mut self, partition: u32) {
        let Some(member) = self.leader(partition) else { return };
        let Some(disk) = self.shared.disk_of(member.replicas.placement().node.0) else { return };
        let (replica, folder, pool) = (&member.partitions[&partition], folder_of(partition), &self.options.pool);
        let ordered = workload::hand_over(&mut self.prng, &folder, replica, &disk, pool);
        if let Some((command, files)) = ordered {
            self.command(partition, &command, &Rc::new(Deed::Nothing));
            self.counters().files_shipped += files;
        }
    }

    /// Proposes at the leader, mostly. `false`: it was not taken.
    fn propose(&mut self, partition: u32, payload: Payload) -> bool {
        let member = match self.leader(partition).filter(|_| !self.prng.one_in(10)) {
            Some(member) => Some((member.replicas.placement().node.0, member)),
            None => {
                let at = self.any_node();
                match &self.places[at].life {
                    Life::Up(member) => Some((self.places[at].node, member.clone())),
                    _ => None,
                }
            }
        };
        let Some((node, member)) = member else { return false };
        let ticket = match member.replicas.propose(GroupId(partition), payload.clone()) {
            Ok(ticket) => ticket,
            Err(ProposeError::Stopped(why)) => panic!("seed {}: node {node} has stopped: {why}", self.seed),
            Err(_) => {
                self.counters().refused += 1;
                return false;
            }
        };
        let shared = self.shared.clone();
        let is_named = matches!(payload, Payload::Batch(_));
        drop(member.executor.spawn(async move {
            match ticket.outcome().await {
                Ok(_) => {
                    let bytes = payload.parts().concat();
                    let place = shared.chronicle.borrow().acknowledged(node, partition, &bytes);
                    let mut newest = shared.acknowledged.borrow_mut();
                    newest[partition as usize] = newest[partition as usize].max(place);
                    shared.counters.borrow_mut().acknowledged += 1;
                }
                Err(lost) => {
                    let mut counters = shared.counters.borrow_mut();
                    match &lost {
                        Lost::Dropped => counters.dropped += 1,
                        Lost::Unknown(_) => counters.unknown += 1,
                    }
                    if is_named {
                        shared.unheard.borrow_mut().push((payload, partition));
                    }
                }
            }
        }));
        true
    }

    /// Asks any node; it must show what was acknowledged by now.
    fn read(&mut self, partition: u32) {
        let at = self.any_node();
        let Life::Up(member) = &self.places[at].life else { return };
        let (shared, member, node) = (self.shared.clone(), member.clone(), self.places[at].node);
        let acknowledged = shared.acknowledged.borrow()[partition as usize];
        let executor = member.executor.clone();
        drop(executor.spawn(async move {
            match member.replicas.read(GroupId(partition)).await {
                Ok(()) => {
                    let applied = member.partitions[&partition].applied().0;
                    assert!(
                        applied >= acknowledged,
                        "a stale read: node {node} shows entry {applied} of partition {partition}, and {acknowledged} \
                         had been acknowledged before it was asked"
                    );
                    shared.counters.borrow_mut().reads += 1;
                }
                Err(_) => shared.counters.borrow_mut().reads_refused += 1,
            }
        }));
    }

    fn members(&self) -> Vec<Member> {
        self.places
            .iter()
            .filter_map(|place| if let Life::Up(member) = &place.life { Some(member.clone()) } else { None })
            .collect()
    }

    /// Nothing goes wrong any more: all nodes must come to the same end.
    fn settle(&mut self) {
        self.is_calm = true;
        self.options.pool.fail_one_in(u64::MAX);
        {
            let mut network = self.shared.network.borrow_mut();
            network.cut.clear();
            network.weather = Weather {
                loses_one_in: u64::MAX,
                repeats_one_in: u64::MAX,
                delay_us_max: 500,
                breaks_one_in: u64::MAX,
            };
        }
        let mut flushed = [false; PARTITIONS as usize];
        for _ in 0..SETTLE_STEPS_MAX {
            for place in &mut self.places {
                match &mut place.life {
                    Life::Down(until) => *until = 0,
                    Life::Paused(_, until) => *until = 0,
                    _ => {}
                }
            }
            self.advance();
            if self.step.is_multiple_of(GATHER_EVERY) {
                (0..PARTITIONS).for_each(|partition| self.gather(partition));
            }
            let members = self.members();
            if members.len() as u64 != PLACES {
                continue;
            }
            let chronicle = self.shared.chronicle.clone();
            for partition in 0..PARTITIONS {
                let applied = |member: &Member| member.partitions[&partition].applied().0;
                let is_even = members.iter().all(|member| applied(member) == chronicle.borrow().len(partition));
                if is_even && !flushed[partition as usize] && self.is_gathered(partition) {
                    // Takes everything into files, and shows that the group still works.
                    flushed[partition as usize] =
                        self.command(partition, &Command::PLAIN_FLUSH, &Rc::new(Deed::Nothing));
                }
            }
            members.iter().for_each(Member::wake);
            let is_flushed = |partition: u32| {
                let end = chronicle.borrow().len(partition);
                let in_files = |member: &Member| {
                    let partition = &member.partitions[&partition];
                    partition.applied().0 == end && !partition.has_unflushed_rows()
                };
                members.iter().all(in_files)
            };
            let waits = |member: &Member| {
                let waiting = |id| member.replicas.group(GroupId(id)).map_or(0, |group| group.waiting());
                (0..PARTITIONS).any(|id| waiting(id) > 0)
            };
            if members.iter().any(waits) {
                continue;
            }
            if members.iter().any(Member::is_busy) {
                continue;
            }
            if flushed == [true; PARTITIONS as usize] && (0..PARTITIONS).all(is_flushed) {
                return;
            }
            for partition in 0..PARTITIONS {
                let end = chronicle.borrow().len(partition);
                let has_rest = |member: &Member| {
                    let partition = &member.partitions[&partition];
                    partition.applied().0 == end && partition.has_unflushed_rows()
                };
                // A row has come behind the flush that was to take everything.
                flushed[partition as usize] &= !members.iter().all(has_rest);
            }
        }
        let applied =
            |member: &Member| (0..PARTITIONS).map(|id| member.partitions[&id].applied().0).collect::<Vec<_>>();
        let there: Vec<Vec<u64>> = self.members().iter().map(applied).collect();
        let chronicle = self.shared.chronicle.borrow();
        let wanted: Vec<u64> = (0..PARTITIONS).map(|partition| chronicle.len(partition)).collect();
        let unrest: Vec<String> = self.members().iter().map(Member::unrest).collect();
        panic!(
            "seed {}: no rest after the faults have ended: nodes are at {there:?} of {wanted:?}, flushed {flushed:?}; {}",
            self.seed,
            unrest.join("; ")
        );
    }

    /// Every node has what was committed, in the same files.
    fn check(&mut self) {
        let chronicle = self.shared.chronicle.clone();
        for at in 0..PLACES as usize {
            let Life::Up(member) = &self.places[at].life else { continue };
            let (member, executor) = (member.clone(), self.places[at].executor.clone());
            let context = format!("seed {}, node {}", self.seed, self.places[at].node);
            let disk = self.shared.disks.borrow()[at].clone();
            for (number, partition) in &member.partitions {
                let truth = chronicle.borrow().truth.clone();
                let check = reading::check(*number, partition, &truth, &self.layout, &mut self.prng, &context);
                let compared = executor.block_on(check);
                let pool = &self.options.pool;
                let (_, _, pooled) = files::check(&disk, pool, *number, &context);
                let applied = partition.applied().0;
                let truth = truth.partition(*number);
                let identity = files::check_identity(&disk, pool, *number, truth, applied, &context);
                let identical = executor.block_on(identity);
                let mut counters = self.shared.counters.borrow_mut();
                counters.cells_compared += compared;
                counters.files_identical += identical;
                counters.files_in_pool += pooled;
            }
        }
    }
}
