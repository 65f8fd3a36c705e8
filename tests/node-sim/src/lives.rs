//! Random runs: a node lives a few times on one disk, each life with clients, faults and an end as the seed says.

use crate::{
    counters::Counters,
    files,
    model::Deed,
    node::{Node, NodeOptions, folder_of, recover_from},
    reading,
    swarm::{Ending, Swarm},
    truth::Truth,
    workload::{self, Request},
    world::{DATABASES, Layout, PARTITIONS, STRETCHES},
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};
use tidemill_disk::sim::{Crash, Executor, Fault, Prng, SimDisk};
use tidemill_store::{Command, SimPool};

const FAULTS: [Fault; 3] = [Fault::Eio, Fault::StorageFull, Fault::ShortWrite];
/// Operations of a start that a fault may strike.
const START_OPERATIONS: u64 = 80;
/// Tries of a write while the log has not heard yet that there is room again.
const TRIES_MAX: u32 = 10_000;
const DISK_FULL: &str = "the disk is full";

/// A run between two lives.
struct Run {
    seed: u64,
    swarm: Swarm,
    options: NodeOptions,
    prng: Prng,
    disk: SimDisk,
    shared: Rc<Shared>,
}

/// What outlives a crash of the node.
pub struct Shared {
    pub swarm: Swarm,
    pub truth: Rc<RefCell<Truth>>,
    pub layout: RefCell<Layout>,
    pub counters: Rc<RefCell<Counters>>,
    pub pool: Rc<SimPool>,
    numbers: Cell<u64>,
    /// A power loss that waits for a command: on this disk, within so many operations behind it.
    strike: RefCell<Option<(SimDisk, u64)>>,
    senders: Vec<RefCell<Sender>>,
}

impl Shared {
    pub fn new(swarm: Swarm, seed: u64) -> Shared {
        Shared {
            pool: Rc::new(SimPool::new(seed)),
            senders: (0..swarm.clients).map(|_| RefCell::default()).collect(),
            swarm,
            truth: Rc::default(),
            layout: RefCell::default(),
            counters: Rc::default(),
            numbers: Cell::new(0),
            strike: RefCell::default(),
        }
    }

    /// What was taken away is on its way out of files, indexes and manifest: there a power loss meets the most.
    fn strike(&self, prng: &mut Prng) {
        if prng.one_in(2)
            && let Some((disk, within)) = self.strike.take()
        {
            disk.crash_at(1 + prng.below(within));
            self.counters.borrow_mut().strikes_behind_commands += 1;
        }
    }
}

/// A client as its own machine sees it.
#[derive(Default)]
struct Sender {
    last: Request,
    /// The outcome of the last request is not known: it is sent again before anything else.
    is_unanswered: bool,
}

/// Runs a seed.
///
/// # Panics
/// If something was lost, invented, or is not as it should be.
pub fn run(seed: u64) -> Counters {
    let mut prng = Prng::new(seed);
    let swarm = Swarm::draw(&mut prng);
    let shared = Rc::new(Shared::new(swarm.clone(), seed));
    let options = NodeOptions {
        cache_bytes: swarm.cache_bytes,
        l1_files_per_l2: swarm.l1_files_per_l2,
        pool: shared.pool.clone(),
        ..NodeOptions::default()
    };
    let disk = SimDisk::new(seed);
    let mut run = Run { seed, swarm, options, prng, disk, shared: shared.clone() };
    for life in 0..run.swarm.lives {
        run.life(life);
    }
    run.last_life();
    run.count_faults();
    let mut counters = *shared.counters.borrow();
    counters.entries = shared.truth.borrow().acknowledged_total();
    let pool = shared.pool.figures();
    (counters.pool_reads, counters.pool_failures) = (pool.reads, pool.failures);
    counters
}

impl Run {
    fn count(&self) -> std::cell::RefMut<'_, Counters> {
        self.shared.counters.borrow_mut()
    }

    /// Adds the faults that the disk has met; before it is replaced.
    fn count_faults(&self) {
        let faults = self.disk.faults();
        let mut counters = self.count();
        counters.writes_dropped += faults.writes_dropped;
        counters.writes_torn += faults.writes_torn;
        counters.writes_reordered += faults.writes_reordered;
        counters.names_dropped += faults.names_dropped;
        counters.short_writes += faults.short_writes;
        counters.eio += faults.eio;
        counters.storage_full += faults.storage_full;
        counters.failed_syncs += faults.failed_syncs;
    }

    fn lose_power(&mut self, crash: Crash) {
        let after = self.disk.crash(crash, self.prng.next_u64());
        self.count_faults();
        self.disk = after;
    }

    fn plan_fault(&mut self, moment: u64, fault: Fault) {
        self.disk.fail_at(None, moment, fault);
    }

    fn any_crash(&mut self) -> Crash {
        Crash::ALL[self.prng.below(5) as usize]
    }

    /// The process is gone; what it wrote is in the page cache.
    fn kill(&mut self) {
        self.disk.end_calls();
        self.count().kills += 1;
    }

    async fn try_start(&self, executor: &Executor) -> Result<Node, String> {
        Node::start(executor, &self.disk, &self.options, &self.shared.truth, &self.shared.counters).await
    }

    /// Starts a node, perhaps struck by the next fault in the middle of it.
    fn start(&mut self, executor: &Executor, context: &str) -> Node {
        while self.prng.one_in(self.swarm.restart_loss_one_in) {
            let moment = 1 + self.prng.below(START_OPERATIONS);
            let loses_power = self.prng.one_in(2);
            let fault = FAULTS[self.prng.below(3) as usize];
            match loses_power {
                true => self.disk.crash_at(moment),
                false => self.plan_fault(moment, fault),
            }
            let started = executor.block_on(self.try_start(executor)).is_ok();
            executor.kill();
            self.count().failed_starts += u64::from(!started);
            self.count().crashes_while_starting += u64::from(loses_power);
            let crash = if loses_power { self.any_crash() } else { Crash::None };
            self.lose_power(crash);
        }
        let started = executor.block_on(self.try_start(executor));
        let node = started.unwrap_or_else(|error| panic!("{context}: the node does not start: {error}"));
        for (number, partition) in &node.partitions {
            // Made from the files, they would know nothing of those that went: rows would be in other runs than on other
            // nodes.
            assert!(!partition.index_was_rebuilt(), "{context}: partition {number} cannot read its indexes");
        }
        node
    }

    /// Compares everything, while flushes and copies go on.
    fn check(&mut self, executor: &Executor, node: &Node, context: &str) {
        let prng = &mut self.prng;
        let mut compared = 0;
        executor.block_on(async {
            node.caught_up().await;
            for (number, partition) in &node.partitions {
                // No client is there: entries do not change what is read, whatever moves below it.
                let (truth, layout) = (self.shared.truth.borrow().clone(), self.shared.layout.borrow().clone());
                compared += reading::check(*number, partition, &truth, &layout, prng, context).await;
            }
        });
        self.count().cells_compared += compared;
    }

    fn live(&mut self, executor: &Executor, node: &Rc<Node>) {
        if let Some(blocks) = self.swarm.capacity_slack {
            self.disk.set_capacity(Some(self.disk.used_bytes() + blocks * 4096));
        }
        run_clients(executor, node, &self.shared, &mut self.prng);
        self.disk.set_capacity(None);
        count_copies(node, &mut self.count());
    }

    fn life(&mut self, life: u64) {
        let context = format!("seed {}, life {life}", self.seed);
        let ending = self.swarm.ends_in.one(&mut self.prng);
        let executor = Executor::new(self.seed ^ life << 32);
        let node = self.start(&executor, &context);
        self.check(&executor, &node, &format!("{context}, recovered"));
        let moment = 1 + self.prng.below(self.swarm.fault_within);
        match ending {
            Ending::PowerLoss => match self.swarm.strikes_behind {
                Some(within) => *self.shared.strike.borrow_mut() = Some((self.disk.clone(), within)),
                None => self.disk.crash_at(moment),
            },
            Ending::FailedCall => {
                // A second one may strike what the first has left.
                for _ in 0..1 + self.prng.below(2) {
                    let (moment, fault) = (1 + self.prng.below(moment), FAULTS[self.prng.below(3) as usize]);
                    self.plan_fault(moment, fault);
                }
            }
            Ending::Kill | Ending::Stop | Ending::Any => {}
        }
        let node = Rc::new(node);
        self.live(&executor, &node);
        match ending {
            Ending::PowerLoss => {
                self.count().power_losses += 1;
                self.shared.strike.take();
                executor.kill();
                let crash = self.any_crash();
                self.lose_power(crash);
            }
            Ending::FailedCall => {
                self.count().failed_calls += 1;
                executor.kill();
                // The page cache survives a restart, but for what a failed sync gave up.
                self.lose_power(Crash::None);
            }
            Ending::Kill => {
                executor.kill();
                self.kill();
            }
            Ending::Stop | Ending::Any => {
                self.count().stops += 1;
                self.check(&executor, &node, &format!("{context}, before it stops"));
                let node = Rc::into_inner(node).expect("the clients have ended");
                executor.block_on(node.stop()).unwrap_or_else(|error| panic!("{context}: {error}"));
                executor.kill();
                self.lose_power(Crash::Drop);
            }
        }
    }

    /// A life without a crash; afterwards everything is as if there had never been one.
    fn last_life(&mut self) {
        let context = format!("seed {}, last life", self.seed);
        let executor = Executor::new(self.seed);
        let node = Rc::new(self.start(&executor, &context));
        self.check(&executor, &node, &format!("{context}, recovered"));
        self.live(&executor, &node);
        executor.block_on(async {
            // Space is back, but the log hears of it at one of the next appends.
            let number = self.shared.numbers.replace(self.shared.numbers.get() + 1);
            let layout = self.shared.layout.borrow().clone();
            let request = workload::request(&mut self.prng, &self.swarm, &layout, number, 0);
            let mut tries = 0;
            while let Err(error) = node.write(&request).await {
                tries += 1;
                assert!(error == DISK_FULL && tries < TRIES_MAX, "{context}: {error}");
                executor.yield_now().await;
            }
            while let Err(error) = node.flush_all().await {
                tries += 1;
                assert!(error == DISK_FULL && tries < TRIES_MAX, "{context}: {error}");
                executor.yield_now().await;
            }
            node.settled().await;
        });
        self.check(&executor, &node, &format!("{context}, at the end"));
        self.check_files(&executor, &node, &context);
        if self.swarm.damage {
            self.damage(&context);
        }
        let node = Rc::into_inner(node).expect("the clients have ended");
        executor.block_on(node.stop()).unwrap_or_else(|error| panic!("{context}: {error}"));
        executor.kill();
        self.lose_power(Crash::Drop);
        let node = self.start(&executor, &context);
        self.check(&executor, &node, &format!("{context}, started once more"));
        executor.kill();
    }

    fn check_files(&self, executor: &Executor, node: &Node, context: &str) {
        for (number, partition) in &node.partitions {
            let truth = self.shared.truth.borrow();
            let truth = truth.partition(*number);
            let applied = partition.applied().0;
            reading::check_index(partition, &truth.model(applied, context), context);
            let pool = &self.options.pool;
            let (late, copied, pooled) = files::check(&self.disk, pool, *number, context);
            let identity = files::check_identity(&self.disk, pool, *number, truth, applied, context);
            let identical = executor.block_on(identity);
            let mut counters = self.count();
            counters.files_late += late;
            counters.files_copied += copied;
            counters.files_in_pool += pooled;
            counters.files_identical += identical;
        }
    }

    /// Flips a bit of some file of a partition in copies of the disk: it is noticed, or changes no answer.
    fn damage(&mut self, context: &str) {
        for _ in 0..4 {
            let disk = self.disk.crash(Crash::None, 0);
            disk.set_yields(false);
            let paths: Vec<String> = disk.paths().into_iter().filter(|path| path.starts_with(&folder_of(0))).collect();
            let path = &paths[self.prng.below(paths.len() as u64) as usize];
            let length = disk.content(path).map_or(0, |content| content.len() as u64);
            if length == 0 {
                continue;
            }
            disk.flip_bit(path, self.prng.below(length) as usize, self.prng.below(8) as u8);
            self.count().bits_flipped += 1;
            let context = format!("{context}, a bit of {path} flipped");
            let executor = Executor::new(self.seed);
            let noticed = executor.block_on(async {
                let Ok(recovered) = recover_from(&disk, &self.options).await else { return true };
                let partition = &recovered.partitions[&0];
                let model = self.shared.truth.borrow().partition(0).model(partition.applied().0, &context);
                let layout = self.shared.layout.borrow().clone();
                let errors = reading::check_damaged(partition, &model, &layout, &context).await;
                errors > 0 || partition.index_was_rebuilt()
            });
            self.count().damage_noticed += u64::from(noticed);
        }
    }
}

/// Lets all clients do their share.
pub fn run_clients(executor: &Executor, node: &Rc<Node>, shared: &Rc<Shared>, prng: &mut Prng) {
    let spawn = |number: u64| {
        let prng = Prng::new(prng.next_u64());
        executor.spawn(client(node.clone(), number as usize, prng, shared.clone()))
    };
    let clients: Vec<_> = (0..shared.swarm.clients).map(spawn).collect();
    shared.pool.fail_one_in(shared.swarm.pool_fails_one_in);
    executor.block_on(async {
        for client in clients {
            client.join().await;
        }
    });
    shared.pool.fail_one_in(u64::MAX);
}

pub fn count_copies(node: &Node, counters: &mut Counters) {
    let figures = node.copy_figures();
    counters.copies += figures.copies;
    counters.blocks_copied += figures.blocks_copied;
    counters.blocks_merged += figures.blocks_merged;
    counters.blocks_joined += figures.blocks_joined;
    counters.blocks_vanished += figures.blocks_vanished;
}

/// Sends its share of requests and commands, until the node takes no more.
async fn client(node: Rc<Node>, number: usize, mut prng: Prng, shared: Rc<Shared>) {
    let swarm = &shared.swarm;
    if shared.senders[number].borrow().is_unanswered && send(&node, number, &shared).await.is_err() {
        return;
    }
    for _ in 0..swarm.requests {
        let result = step(&node, number, &mut prng, &shared).await;
        if result.is_err_and(|error| error != DISK_FULL) {
            return;
        }
    }
}

async fn step(node: &Node, number: usize, prng: &mut Prng, shared: &Shared) -> Result<(), String> {
    let swarm = &shared.swarm;
    let count = || shared.counters.borrow_mut();
    let request_number = shared.numbers.replace(shared.numbers.get() + 1);
    {
        let session = if prng.one_in(swarm.nameless_one_in) { 0 } else { number as u64 + 1 };
        let request = workload::request(prng, swarm, &shared.layout.borrow(), request_number, session);
        count().rows_late += request.rows_late;
        count().bulks += u64::from(request.is_bulk);
        let mut sender = shared.senders[number].borrow_mut();
        sender.last = request;
        // Without an identity it is not sent twice.
        sender.is_unanswered = session != 0;
    }
    send(node, number, shared).await?;
    let partition = prng.below(u64::from(PARTITIONS)) as u32;
    if prng.one_in(swarm.flush_one_in) {
        let floats = workload::floats(prng);
        node.command(partition, &Command::Flush { floats }, Deed::Nothing).await?;
        count().flushes += 1;
    }
    if prng.one_in(swarm.copy_one_in)
        && let Some(order) = workload::copy(prng, &node.partitions[&partition])
    {
        node.order_copy(partition, order).await?;
        count().copies_ordered += 1;
    }
    if prng.one_in(swarm.hand_over_one_in) {
        let (replica, folder) = (&node.partitions[&partition], folder_of(partition));
        if let Some((command, files)) = workload::hand_over(prng, &folder, replica, &node.disk, &shared.pool) {
            shared.strike(prng);
            node.command(partition, &command, Deed::Nothing).await?;
            count().hand_overs += 1;
            count().files_handed_over += files;
        }
    }
    if prng.one_in(swarm.delete_one_in) {
        let (command, deed) = workload::delete(prng, request_number);
        shared.strike(prng);
        for partition in 0..PARTITIONS {
            node.command(partition, &command, deed.clone()).await?;
        }
        count().deletes += 1;
    }
    if prng.one_in(swarm.drop_field_one_in) {
        let (command, deed) = workload::drop_field(prng);
        shared.strike(prng);
        for partition in 0..PARTITIONS {
            node.command(partition, &command, deed.clone()).await?;
        }
        count().field_drops += 1;
    }
    if prng.one_in(swarm.drop_group_one_in) {
        let database = DATABASES[usize::from(prng.one_in(4))];
        let renewed = shared.layout.borrow_mut().renew(database, prng.below(STRETCHES));
        let groups: Vec<u64> = renewed.into_iter().collect();
        shared.strike(prng);
        for partition in 0..PARTITIONS {
            let command = Command::DropShardGroups { groups: groups.clone() };
            node.command(partition, &command, Deed::DropShardGroups(groups.clone())).await?;
        }
        count().group_drops += 1;
    }
    if prng.one_in(swarm.drop_database_one_in) {
        let database = DATABASES[usize::from(prng.one_in(3))];
        let groups: Vec<u64> = {
            let mut layout = shared.layout.borrow_mut();
            (0..STRETCHES).filter_map(|stretch| layout.renew(database, stretch)).collect()
        };
        shared.strike(prng);
        for partition in 0..PARTITIONS {
            let command = Command::DropDatabase { database, groups: groups.clone() };
            node.command(partition, &command, Deed::DropDatabase(database)).await?;
        }
        count().database_drops += 1;
    }
    // An answer that got lost on its way back, as the client sees it.
    if prng.one_in(swarm.resend_one_in) && shared.senders[number].borrow().is_named() {
        count().resent += 1;
        send(node, number, shared).await?;
    }
    Ok(())
}

impl Sender {
    fn is_named(&self) -> bool {
        let is_named = |deed: &Deed| matches!(deed, Deed::Write { session, .. } if *session != 0);
        self.last.parts.iter().all(|part| is_named(&part.deed))
    }
}

async fn send(node: &Node, number: usize, shared: &Shared) -> Result<(), String> {
    let request = shared.senders[number].borrow().last.clone();
    let result = node.write(&request).await;
    let mut counters = shared.counters.borrow_mut();
    match &result {
        Ok(()) => {
            counters.writes += 1;
            shared.senders[number].borrow_mut().is_unanswered = false;
        }
        Err(error) => {
            counters.refused += 1;
            counters.refused_full += u64::from(error == DISK_FULL);
        }
    }
    result
}
