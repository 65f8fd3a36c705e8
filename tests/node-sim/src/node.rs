//! A node of one core: what `roles` starts, without its executor.

use crate::{
    copy_policy::{CopyPolicy, CopySettings},
    counters::Counters,
    model::Deed,
    replica::{
        Found, Lost, Machine, Outcome, PartitionMachine, Payload, Placement, ProposeError, Replicas, Surroundings,
        Ticket, recover,
    },
    truth::Truth,
    workload::{Part, Request},
    world::PARTITIONS,
};
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};
use tidemill_campaign::Counts;
use tidemill_disk::{
    Notify,
    sim::{Executor, SimDisk, Task},
};
use tidemill_log::{Durability, Log, LogOptions, Poisoned};
use tidemill_raft::{GroupId, LogIndex};
use tidemill_store::{Applied, Command, CopyFigures, CopyOrder, Floats, Partition, ReadCache, SimPool};

/// Segments in use from which on partitions are flushed: far below what the log may have.
pub const SEGMENTS_LIVE_MAX: u64 = 16;
/// Time that passes between two looks for copies.
const LOOK_NS: u64 = 3_000_000_000;
/// Turns that others get after work that failed.
const RETRY_PAUSE: u64 = 50;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    pub log: LogOptions,
    pub cache_bytes: usize,
    pub l1_files_per_l2: usize,
    /// What is read from it outlives the node.
    pub pool: Rc<SimPool>,
}

impl Default for NodeOptions {
    fn default() -> NodeOptions {
        let log = LogOptions {
            // The smallest that hold a frame: sealing, preparing and recycling happen all the time.
            segment_bytes: 64 << 10,
            // The first one is shorter: they grow in front of the first flush.
            first_segment_bytes: 32 << 10,
            durability: Durability::Fdatasync,
            batch_bytes: 16 << 10,
            pending_bytes_max: 256 << 10,
            segments_max: 512,
            groups_max: 16,
            commands_reserve_bytes: 16 << 10,
            new_log_id: 0x7469_6465,
        };
        NodeOptions { log, cache_bytes: 256 << 10, l1_files_per_l2: 2, pool: Rc::new(SimPool::new(0)) }
    }
}

/// Partitions with what the log holds for them, and the log.
pub struct Recovered {
    pub partitions: BTreeMap<u32, Rc<Partition<SimDisk>>>,
    /// What was replayed.
    pub replayed: Counters,
    machines: BTreeMap<GroupId, Rc<dyn Machine>>,
    found: BTreeMap<GroupId, Found>,
    log: Log<SimDisk>,
    work: Rc<Notify>,
}

pub fn folder_of(partition: u32) -> String {
    format!("store/p{partition}")
}

pub async fn recover_from(disk: &SimDisk, options: &NodeOptions) -> Result<Recovered, String> {
    let cache = Rc::new(ReadCache::new(options.cache_bytes));
    let file_keys = Rc::new(Cell::new(0));
    let work = Rc::new(Notify::new());
    let counted = Rc::new(Cell::new(Counters::default()));
    let mut partitions = BTreeMap::new();
    let mut machines: BTreeMap<GroupId, Rc<dyn Machine>> = BTreeMap::new();
    for number in 0..PARTITIONS {
        let (folder, pool) = (folder_of(number), options.pool.clone());
        let opened = Partition::open_with_pool(disk.clone(), folder, cache.clone(), file_keys.clone(), pool).await;
        let partition = Rc::new(opened.map_err(|error| error.to_string())?);
        let mut machine = PartitionMachine::new(partition.clone());
        let (work, counted) = (work.clone(), counted.clone());
        machine.on_applied = Box::new(move |applied| {
            let mut counters = counted.get();
            match applied {
                Applied::Flush => counters.flushes_replayed += 1,
                Applied::Copy => counters.copies_replayed += 1,
                Applied::Deleted => counters.deletes_replayed += 1,
                Applied::Dropped => counters.drops_replayed += 1,
                Applied::HandedOver => counters.hand_overs_replayed += 1,
                Applied::Written { rows: 0 } => counters.duplicates += 1,
                _ => {}
            }
            counted.set(counters);
            work.notify();
        });
        machines.insert(GroupId(number), Rc::new(machine));
        partitions.insert(number, partition);
    }
    let mut replayed = Counters::default();
    for partition in partitions.values() {
        replayed.copies_pending_at_start += u64::from(partition.has_copies());
    }
    let recovered = recover(disk.clone(), "log", options.log.clone(), &Placement::standalone(), &machines).await;
    let (log, found) = recovered.map_err(|error| error.to_string())?;
    replayed.add(&counted.get());
    Ok(Recovered { partitions, replayed, machines, found, log, work })
}

pub struct Node {
    pub partitions: BTreeMap<u32, Rc<Partition<SimDisk>>>,
    pub replicas: Rc<Replicas<SimDisk>>,
    pub truth: Rc<RefCell<Truth>>,
    pub counters: Rc<RefCell<Counters>>,
    pub disk: SimDisk,
    executor: Executor,
    shared: Rc<Background>,
    logging: Task<Result<(), Poisoned>>,
    committing: Task<()>,
    maintaining: Task<()>,
    copying: Task<()>,
}

/// What the tasks in the background share.
struct Background {
    executor: Executor,
    partitions: BTreeMap<u32, Rc<Partition<SimDisk>>>,
    replicas: Rc<Replicas<SimDisk>>,
    truth: Rc<RefCell<Truth>>,
    counters: Rc<RefCell<Counters>>,
    work: Rc<Notify>,
    files: Notify,
    stopping: Cell<bool>,
    /// No more copies are decided.
    quiet: Cell<bool>,
    settings: CopySettings,
}

impl Node {
    /// Recovers, and starts what runs in the background. Of entries that the recovery did not find, the truth is told.
    pub async fn start(
        executor: &Executor,
        disk: &SimDisk,
        options: &NodeOptions,
        truth: &Rc<RefCell<Truth>>,
        counters: &Rc<RefCell<Counters>>,
    ) -> Result<Node, String> {
        let Recovered { partitions, replayed, machines, mut found, log, work } = recover_from(disk, options).await?;
        counters.borrow_mut().add(&replayed);
        let replicas = Rc::new(Replicas::new(log.clone(), Surroundings::standalone()));
        // The last segment may be full: then the opening of a term waits for the next one, which the log makes.
        let logging = executor.spawn({
            let log = log.clone();
            async move { log.run().await }
        });
        for (id, machine) in &machines {
            let found = found.remove(id).unwrap_or_default();
            truth.borrow_mut().forget_after(id.0, machine.applied().0);
            replicas.open_group(*id, found, machine.clone()).await.map_err(|error| error.to_string())?;
            truth.borrow_mut().proposed(id.0, Rc::new(Deed::Nothing), Rc::new([]));
        }
        let committing = executor.spawn({
            let replicas = replicas.clone();
            async move { replicas.run_commits().await }
        });
        let settings =
            CopySettings { l1_files_per_l2: options.l1_files_per_l2, file_bytes_max: 1 << 30, floats: Floats::Gorilla };
        let shared = Rc::new(Background {
            executor: executor.clone(),
            partitions: partitions.clone(),
            replicas: replicas.clone(),
            truth: truth.clone(),
            counters: counters.clone(),
            work,
            files: Notify::new(),
            stopping: Cell::new(false),
            quiet: Cell::new(false),
            settings,
        });
        let maintaining = executor.spawn(maintain(shared.clone()));
        let copying = executor.spawn(copy_files(shared.clone()));
        Ok(Node {
            partitions,
            replicas,
            truth: truth.clone(),
            counters: counters.clone(),
            disk: disk.clone(),
            executor: executor.clone(),
            shared,
            logging,
            committing,
            maintaining,
            copying,
        })
    }

    /// Proposes one entry, waiting while the log is busy.
    async fn propose(&self, partition: u32, payload: Payload, deed: &Rc<Deed>) -> Result<(u64, Ticket), ProposeError> {
        loop {
            match self.shared.propose(partition, payload.clone(), deed) {
                Err(ProposeError::Busy(_)) => {
                    self.replicas.log().room().await;
                    self.executor.yield_now().await;
                }
                done => return done,
            }
        }
    }

    pub async fn acknowledged(&self, partition: u32, index: u64, ticket: Ticket) -> Result<Outcome, Lost> {
        let outcome = ticket.outcome().await?;
        self.truth.borrow_mut().acknowledged(partition, index);
        Ok(outcome)
    }

    /// Has the partitions flushed that keep the log from using its segments again: a log of `segments_max` takes not
    /// even the entry of a flush any more.
    async fn relieve(&self) {
        let log = self.replicas.log();
        if log.metrics().segments_live < SEGMENTS_LIVE_MAX {
            return;
        }
        for (group, _) in log.oldest_pinned() {
            if !self.partitions[&group.0].has_work() {
                let payload = Payload::Command(Command::PLAIN_FLUSH.encode().into());
                let _ = self.propose(group.0, payload, &Rc::new(Deed::Nothing)).await;
            }
        }
    }

    /// Writes all parts of a request and waits for them.
    pub async fn write(&self, request: &Request) -> Result<(), String> {
        self.relieve().await;
        let mut tickets = Vec::new();
        for Part { partition, image, deed } in &request.parts {
            let proposed = self.propose(*partition, Payload::Batch(image.to_vec().into()), deed).await;
            let (index, ticket) = proposed.map_err(|error| error.to_string())?;
            tickets.push((*partition, index, ticket));
        }
        for (partition, index, ticket) in tickets {
            let outcome = self.acknowledged(partition, index, ticket).await.map_err(|error| error.to_string())?;
            let is_duplicate = matches!(outcome, Outcome::Store(Applied::Written { rows: 0 }));
            self.counters.borrow_mut().duplicates += u64::from(is_duplicate);
        }
        Ok(())
    }

    pub async fn command(&self, partition: u32, command: &Command, deed: Deed) -> Result<(), String> {
        let proposed = self.propose(partition, Payload::Command(command.encode().into()), &Rc::new(deed)).await;
        let (index, ticket) = proposed.map_err(|error| error.to_string())?;
        self.acknowledged(partition, index, ticket).await.map(drop).map_err(|error| error.to_string())
    }

    /// As the server does after it has decided a copy.
    pub async fn order_copy(&self, partition: u32, order: CopyOrder) -> Result<(), String> {
        self.command(partition, &Command::Copy(order), Deed::Nothing).await
    }

    pub async fn flush_all(&self) -> Result<(), String> {
        for partition in 0..PARTITIONS {
            self.command(partition, &Command::PLAIN_FLUSH, Deed::Nothing).await?;
        }
        Ok(())
    }

    fn proposed(&self, partition: u32) -> u64 {
        self.truth.borrow().partition(partition).told().len() as u64
    }

    /// Waits until everything that was proposed is applied: the request of a client that was refused in one part may be
    /// on its way in another one.
    pub async fn caught_up(&self) {
        while self.partitions.iter().any(|(number, partition)| partition.applied().0 < self.proposed(*number)) {
            self.executor.yield_now().await;
        }
    }

    /// Decides no more copies, and waits until nothing is left to do in the background.
    pub async fn settled(&self) {
        self.shared.quiet.set(true);
        let is_busy = |(number, partition): (&u32, &Rc<Partition<SimDisk>>)| {
            partition.has_work() || partition.has_copies() || partition.applied().0 < self.proposed(*number)
        };
        while self.partitions.iter().any(is_busy) {
            self.shared.work.notify();
            self.shared.files.notify();
            self.executor.yield_now().await;
        }
        for partition in self.partitions.values() {
            // A series that is being looked at is nobody's work any more, and may still be in the index. One that cannot be
            // read stays there.
            let _ = partition.settle().await;
        }
    }

    /// What copies did since the start.
    pub fn copy_figures(&self) -> CopyFigures {
        let mut figures = CopyFigures::default();
        self.partitions.values().for_each(|partition| figures.add(&partition.figures().copies));
        figures
    }

    /// Stops as the server does at SIGTERM, without a flush.
    pub async fn stop(self) -> Result<(), String> {
        self.shared.stopping.set(true);
        self.partitions.values().for_each(|partition| partition.halt_copies());
        self.shared.work.notify();
        self.shared.files.notify();
        self.maintaining.join().await;
        self.copying.join().await;
        self.replicas.close();
        self.committing.join().await;
        self.logging.join().await.map_err(|error| error.to_string())
    }
}

impl Background {
    fn propose(&self, partition: u32, payload: Payload, deed: &Rc<Deed>) -> Result<(u64, Ticket), ProposeError> {
        let bytes: Rc<[u8]> = payload.parts().concat().into();
        let ticket = self.replicas.propose(GroupId(partition), payload)?;
        let index = self.truth.borrow_mut().proposed(partition, deed.clone(), bytes);
        Ok((index, ticket))
    }

    async fn pause(&self) {
        for _ in 0..RETRY_PAUSE {
            self.executor.yield_now().await;
        }
    }
}

/// Works off what entries leave behind and releases the log, until the node stops.
async fn maintain(shared: Rc<Background>) {
    loop {
        let more = shared.work.notified();
        for (number, partition) in shared.partitions.iter().filter(|(_, partition)| partition.has_work()) {
            match partition.maintain().await {
                Ok(flushed) => release(&shared, *number, flushed),
                Err(_) => {
                    shared.counters.borrow_mut().failed_flushes += 1;
                    shared.work.notify();
                    shared.pause().await;
                }
            }
        }
        if shared.stopping.get() {
            return;
        }
        more.await;
    }
}

fn release(shared: &Background, partition: u32, flushed: LogIndex) {
    shared.replicas.log().release(GroupId(partition), flushed);
    shared.files.notify();
}

/// Decides copies by the server's policy and makes those that are decided, by whomever.
async fn copy_files(shared: Rc<Background>) {
    let mut policy = CopyPolicy::default();
    let mut now_ns = 0;
    loop {
        let more = shared.files.notified();
        let or_entries = shared.work.notified();
        now_ns += LOOK_NS;
        for (number, partition) in &shared.partitions {
            let orders = policy.decide(*number, &partition.group_files(), &shared.settings, now_ns, |files| {
                files.shard_group.0 % 3 == 0
            });
            for order in orders.into_iter().filter(|_| !shared.quiet.get()) {
                let payload = Payload::Command(Command::Copy(order).encode().into());
                let _ = shared.propose(*number, payload, &Rc::new(Deed::Nothing));
            }
            while partition.has_copies() && !shared.stopping.get() {
                match partition.copy().await {
                    Ok(_) => shared.work.notify(),
                    Err(_) => {
                        shared.counters.borrow_mut().failed_copies += 1;
                        shared.pause().await;
                    }
                }
            }
        }
        if shared.stopping.get() {
            return;
        }
        future::or(more, or_entries).await;
    }
}
