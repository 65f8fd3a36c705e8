//! One node of the cluster: what `roles` starts on a core, without its executor.

use crate::{
    cluster::{
        chronicle::Witness,
        network::Transfers,
        run::{NODES, Shared},
    },
    node::{NodeOptions, folder_of},
    replica::{Machine, PartitionMachine, Placement, Replicas, Surroundings, recover},
    world::PARTITIONS,
};
use std::{cell::Cell, collections::BTreeMap, rc::Rc};
use tidemill_disk::{
    Notify,
    sim::{Executor, SimDisk},
};
use tidemill_raft::{GroupId, Membership, Moment, NodeId, Options};
use tidemill_store::{Partition, ReadCache};

/// Microseconds. Short, so that a run has many elections.
const ELECTION_TIMEOUT_US: u64 = 150_000;
const HEARTBEAT_US: u64 = 15_000;
/// Turns that others get after work that failed.
const RETRY_PAUSE: u64 = 50;

pub struct Member {
    pub partitions: BTreeMap<u32, Rc<Partition<SimDisk>>>,
    pub replicas: Rc<Replicas<SimDisk>>,
    pub executor: Executor,
    work: Rc<Notify>,
}

/// Of three founders, whether the node is one of them or not.
pub fn placement(node: u64) -> Placement {
    let members = Membership::new((1..=NODES).map(NodeId), []).expect("three voters");
    let groups = (0..PARTITIONS).map(|partition| (GroupId(partition), members.clone())).collect();
    Placement { node: NodeId(node), groups }
}

impl Member {
    /// Comes back from its disk.
    pub async fn start(
        node: u64,
        executor: Executor,
        disk: SimDisk,
        options: NodeOptions,
        shared: Rc<Shared>,
    ) -> Result<Member, String> {
        let (cache, file_keys) = (Rc::new(ReadCache::new(options.cache_bytes)), Rc::new(Cell::new(0)));
        let work = Rc::new(Notify::new());
        let mut partitions = BTreeMap::new();
        let mut machines: BTreeMap<GroupId, Rc<dyn Machine>> = BTreeMap::new();
        for number in 0..PARTITIONS {
            let (folder, pool) = (folder_of(number), options.pool.clone());
            let opened = Partition::open_with_pool(disk.clone(), folder, cache.clone(), file_keys.clone(), pool).await;
            let partition = Rc::new(opened.map_err(|error| error.to_string())?);
            let mut machine = PartitionMachine::new(partition.clone());
            let applied = work.clone();
            machine.on_applied = Box::new(move |_| applied.notify());
            let (chronicle, counters) = (shared.chronicle.clone(), shared.counters.clone());
            machines
                .insert(GroupId(number), Rc::new(Witness { node, partition: number, machine, chronicle, counters }));
            partitions.insert(number, partition);
        }
        let (clock, outlet, seeds) = (shared.clone(), shared.clone(), shared.clone());
        let surroundings = Surroundings {
            placement: placement(node),
            clock: Box::new(move || Moment(clock.clock_of(node))),
            outlet: Box::new(move |message| outlet.network.borrow_mut().send(outlet.now_us.get(), message)),
            options: Box::new(move |group, node| Options {
                election_timeout: ELECTION_TIMEOUT_US,
                heartbeat_interval: HEARTBEAT_US,
                window_messages_max: 8,
                tail_bytes_max: 4 << 10,
                message_bytes_max: 4 << 10,
                clock_rate_bound: Some(20_000),
                ..Options::new(group, node, seeds.random())
            }),
            sources: Box::new(Transfers { node, executor: executor.clone(), shared: shared.clone() }),
        };
        let recovered = recover(disk, "log", options.log.clone(), &surroundings.placement, &machines).await;
        let (log, mut found) = recovered.map_err(|error| error.to_string())?;
        let replicas = Rc::new(Replicas::new(log.clone(), surroundings));
        drop(executor.spawn(async move { log.run().await }));
        for (id, machine) in machines {
            let opened = replicas.open_group(id, found.remove(&id).unwrap_or_default(), machine).await;
            opened.map_err(|error| error.to_string())?;
        }
        let (commits, chores) = (replicas.clone(), replicas.clone());
        drop(executor.spawn(async move { commits.run_commits().await }));
        drop(executor.spawn(async move { chores.run_chores().await }));
        let member = Member { partitions, replicas, executor: executor.clone(), work };
        drop(executor.spawn(maintain(member.clone())));
        drop(executor.spawn(copy(member.clone())));
        Ok(member)
    }

    /// Whether applied entries left work.
    pub fn is_busy(&self) -> bool {
        self.partitions.values().any(|partition| partition.has_work() || partition.has_copies())
    }

    /// What keeps it from rest, for people.
    pub fn unrest(&self) -> String {
        let of_group = |(id, partition): (&u32, &Rc<Partition<SimDisk>>)| {
            let group = self.replicas.group(GroupId(*id));
            let (leader, waiting) = group.map_or((0, 0), |group| (group.leader().0, group.waiting()));
            let (work, copies, unflushed) =
                (partition.has_work(), partition.has_copies(), partition.has_unflushed_rows());
            format!("{id}: leader {leader} waiting {waiting} work {work} copies {copies} unflushed {unflushed}")
        };
        self.partitions.iter().map(of_group).collect::<Vec<_>>().join(", ")
    }

    /// Has the background look again.
    pub fn wake(&self) {
        self.work.notify();
    }
}

impl Clone for Member {
    fn clone(&self) -> Member {
        Member {
            partitions: self.partitions.clone(),
            replicas: self.replicas.clone(),
            executor: self.executor.clone(),
            work: self.work.clone(),
        }
    }
}

async fn pause(member: &Member) {
    for _ in 0..RETRY_PAUSE {
        member.executor.yield_now().await;
    }
}

/// Works off what entries leave behind, and releases the log.
async fn maintain(member: Member) {
    loop {
        let more = member.work.notified();
        for (number, partition) in member.partitions.iter().filter(|(_, partition)| partition.has_work()) {
            match partition.maintain().await {
                Ok(flushed) => member.replicas.release(GroupId(*number), flushed),
                Err(_) => {
                    member.work.notify();
                    pause(&member).await;
                }
            }
        }
        more.await;
    }
}

async fn copy(member: Member) {
    loop {
        let more = member.work.notified();
        for partition in member.partitions.values() {
            while partition.has_copies() {
                match partition.copy().await {
                    Ok(true) => member.work.notify(),
                    Ok(false) => break,
                    Err(_) => pause(&member).await,
                }
            }
        }
        more.await;
    }
}
