//! A node of one core: what `roles` starts, without its executor.

use super::{
    truth::{Deed, Truth},
    workload::{PARTITIONS, Request},
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};
use tidemill::replica::{
    Machine, Outcome, PartitionMachine, Payload, ProposeError, Replicas, Ticket, Unknown, recover,
};
use tidemill_disk::{
    Notify,
    sim::{Executor, SimDisk, Task},
};
use tidemill_log::{Durability, Log, LogOptions, Poisoned};
use tidemill_raft::{GroupId, Term};
use tidemill_store::{Command, Partition, ReadCache};

/// Segments in use from which on partitions are flushed: far below what the log may have.
const SEGMENTS_LIVE_MAX: u64 = 16;

pub fn log_options() -> LogOptions {
    LogOptions {
        // The smallest that hold a frame: sealing, preparing and recycling happen all the time.
        segment_bytes: 64 << 10,
        durability: Durability::Fdatasync,
        batch_bytes: 16 << 10,
        pending_bytes_max: 256 << 10,
        segments_max: 512,
        groups_max: 16,
        commands_reserve_bytes: 16 << 10,
        new_log_id: 0x7469_6465,
    }
}

/// Partitions with what the log holds for them, and the log.
pub struct Recovered {
    pub partitions: BTreeMap<u32, Rc<Partition<SimDisk>>>,
    machines: BTreeMap<GroupId, Rc<dyn Machine>>,
    terms: BTreeMap<GroupId, Term>,
    log: Log<SimDisk>,
    work: Rc<Notify>,
}

pub async fn recover_from(disk: &SimDisk, options: &LogOptions) -> Result<Recovered, String> {
    let cache = Rc::new(ReadCache::new(256 << 10));
    let file_keys = Rc::new(Cell::new(0));
    let work = Rc::new(Notify::new());
    let mut partitions = BTreeMap::new();
    let mut machines: BTreeMap<GroupId, Rc<dyn Machine>> = BTreeMap::new();
    for number in 0..PARTITIONS {
        let opened = Partition::open(disk.clone(), format!("store/p{number}"), cache.clone(), file_keys.clone()).await;
        let partition = Rc::new(opened.map_err(|error| error.to_string())?);
        let mut machine = PartitionMachine::new(partition.clone());
        let work = work.clone();
        machine.on_applied = Box::new(move |_| work.notify());
        machines.insert(GroupId(number), Rc::new(machine));
        partitions.insert(number, partition);
    }
    let (log, terms) =
        recover(disk.clone(), "log", options.clone(), &machines).await.map_err(|error| error.to_string())?;
    Ok(Recovered { partitions, machines, terms, log, work })
}

pub struct Node {
    pub partitions: BTreeMap<u32, Rc<Partition<SimDisk>>>,
    pub replicas: Rc<Replicas<SimDisk>>,
    pub truth: Rc<RefCell<Truth>>,
    pub failed_flushes: Rc<Cell<u64>>,
    executor: Executor,
    stopping: Rc<Cell<bool>>,
    work: Rc<Notify>,
    logging: Task<Result<(), Poisoned>>,
    committing: Task<()>,
    maintaining: Task<()>,
}

impl Node {
    /// Recovers, and starts what runs in the background. Of entries that the recovery did not find, the truth is told.
    pub async fn start(
        executor: &Executor,
        disk: &SimDisk,
        options: &LogOptions,
        truth: &Rc<RefCell<Truth>>,
    ) -> Result<Node, String> {
        let Recovered { partitions, machines, terms, log, work } = recover_from(disk, options).await?;
        let replicas = Rc::new(Replicas::new(log.clone()));
        // The last segment may be full: then the opening of a term waits for the next one, which the log makes.
        let logging = executor.spawn({
            let log = log.clone();
            async move { log.run().await }
        });
        for (id, machine) in &machines {
            let term = terms.get(id).copied().unwrap_or_default();
            truth.borrow_mut().forget_after(id.0, machine.applied().0);
            replicas.open_group(*id, term, machine.clone()).await.map_err(|error| error.to_string())?;
            truth.borrow_mut().proposed(id.0, Deed::Nothing);
        }
        let committing = executor.spawn({
            let replicas = replicas.clone();
            async move { replicas.run_commits().await }
        });
        let stopping = Rc::new(Cell::new(false));
        let failed_flushes = Rc::new(Cell::new(0));
        let maintaining = executor.spawn(maintain(
            executor.clone(),
            partitions.clone(),
            log,
            work.clone(),
            stopping.clone(),
            failed_flushes.clone(),
        ));
        Ok(Node {
            partitions,
            replicas,
            truth: truth.clone(),
            failed_flushes,
            executor: executor.clone(),
            stopping,
            work,
            logging,
            committing,
            maintaining,
        })
    }

    /// Proposes one entry, waiting while the log is busy.
    pub async fn propose(&self, partition: u32, payload: &Payload, deed: &Deed) -> Result<(u64, Ticket), ProposeError> {
        loop {
            match self.replicas.propose(GroupId(partition), payload.clone()) {
                Ok(ticket) => {
                    let index = self.truth.borrow_mut().proposed(partition, deed.clone());
                    return Ok((index, ticket));
                }
                Err(ProposeError::Busy(_)) => {
                    self.replicas.log().room().await;
                    self.executor.yield_now().await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub async fn acknowledged(&self, partition: u32, index: u64, ticket: Ticket) -> Result<Outcome, Unknown> {
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
                let _ = self.propose(group.0, &Payload::Command(Command::PLAIN_FLUSH.encode()), &Deed::Nothing).await;
            }
        }
    }

    /// Writes all parts of a request and waits for them.
    pub async fn write(&self, request: Request) -> Result<(), String> {
        self.relieve().await;
        let mut tickets = Vec::new();
        for (partition, image, deed) in request.parts {
            let proposed = self.propose(partition, &Payload::Batch(image), &deed).await;
            let (index, ticket) = proposed.map_err(|error| error.to_string())?;
            tickets.push((partition, index, ticket));
        }
        for (partition, index, ticket) in tickets {
            self.acknowledged(partition, index, ticket).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    pub async fn command(&self, partition: u32, command: &Command, deed: &Deed) -> Result<(), String> {
        let proposed = self.propose(partition, &Payload::Command(command.encode()), deed).await;
        let (index, ticket) = proposed.map_err(|error| error.to_string())?;
        self.acknowledged(partition, index, ticket).await.map(drop).map_err(|error| error.to_string())
    }

    pub async fn check(&self, context: &str) {
        for (number, partition) in &self.partitions {
            // Entries are applied between reads of a live node: what is compared is one moment of it.
            let truth = self.truth.borrow().clone();
            truth.check(*number, partition, context).await;
        }
    }

    /// Waits until maintenance has nothing left to do.
    pub async fn settled(&self) {
        while self.partitions.values().any(|partition| partition.has_work()) {
            self.work.notify();
            self.executor.yield_now().await;
        }
    }

    /// Stops as the server does at SIGTERM, without a flush.
    pub async fn stop(self) -> Result<(), String> {
        self.stopping.set(true);
        self.work.notify();
        self.maintaining.join().await;
        self.replicas.close();
        self.committing.join().await;
        self.logging.join().await.map_err(|error| error.to_string())
    }
}

/// Works off what entries leave behind and releases the log, until the node stops.
async fn maintain(
    executor: Executor,
    partitions: BTreeMap<u32, Rc<Partition<SimDisk>>>,
    log: Log<SimDisk>,
    work: Rc<Notify>,
    stopping: Rc<Cell<bool>>,
    failed_flushes: Rc<Cell<u64>>,
) {
    loop {
        let more = work.notified();
        for (number, partition) in partitions.iter().filter(|(_, partition)| partition.has_work()) {
            match partition.maintain().await {
                Ok(flushed) => log.release(GroupId(*number), flushed),
                Err(_) => {
                    failed_flushes.set(failed_flushes.get() + 1);
                    work.notify();
                    for _ in 0..50 {
                        executor.yield_now().await;
                    }
                }
            }
        }
        if stopping.get() {
            return;
        }
        more.await;
    }
}
