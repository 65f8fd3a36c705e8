//! A data group of three nodes.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};
use tidemill_campaign::Counts;
use tidemill_disk::sim::{Executor, SimDisk};
use tidemill_node_sim::{
    cluster::{counters::Counters, member::placement, run::run},
    node::NodeOptions,
    replica::{Machine, NoSources, PartitionMachine, Payload, Replicas, Surroundings, recover},
    setting,
};
use tidemill_raft::{Body, GroupId, LogIndex, Message, Moment, NodeId, Options, Term};
use tidemill_store::{Partition, ReadCache};

#[test]
fn three_nodes_lose_and_invent_nothing_whatever_fails() {
    let seeds = match setting("TIDEMILL_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("TIDEMILL_SIM_SEEDS").unwrap_or(24),
    };
    let mut counters = Counters::default();
    for seed in seeds.clone() {
        counters.add(&run(seed));
    }
    println!("{seeds:?}: {counters:#?}");
    if seeds.end - seeds.start >= 1000 {
        assert_eq!(counters.zeros(), Vec::<&str>::new());
    }
}

const GROUP: GroupId = GroupId(0);

/// The reads that a follower asks its leader for in a life with this seed.
async fn reads_of_a_life(executor: &Executor, disk: &SimDisk, seed: u64) -> Vec<u64> {
    let (cache, keys) = (Rc::new(ReadCache::new(0)), Rc::new(Cell::new(0)));
    let partition = Rc::new(Partition::open(disk.clone(), "store/p0".into(), cache, keys).await.unwrap());
    let machine: Rc<dyn Machine> = Rc::new(PartitionMachine::new(partition));
    let machines = BTreeMap::from([(GROUP, machine.clone())]);
    let sent: Rc<RefCell<Vec<Message<Payload>>>> = Rc::default();
    let outlet = sent.clone();
    let surroundings = Surroundings {
        placement: placement(1),
        clock: Box::new(|| Moment(1)),
        outlet: Box::new(move |message| outlet.borrow_mut().push(message)),
        options: Box::new(move |group, node| Options::new(group, node, seed)),
        sources: Box::new(NoSources),
    };
    let options = NodeOptions::default().log;
    let (log, mut found) = recover(disk.clone(), "log", options, &surroundings.placement, &machines).await.unwrap();
    let replicas = Rc::new(Replicas::new(log.clone(), surroundings));
    drop(executor.spawn(async move { log.run().await }));
    replicas.open_group(GROUP, found.remove(&GROUP).unwrap_or_default(), machine).await.unwrap();
    let (commits, chores) = (replicas.clone(), replicas.clone());
    drop(executor.spawn(async move { commits.run_commits().await }));
    drop(executor.spawn(async move { chores.run_chores().await }));
    let body = Body::Heartbeat { commit: LogIndex(0), round: 1 };
    replicas.receive(Message { group: GROUP, from: NodeId(2), to: NodeId(1), term: Term(1), body }).unwrap();
    for _ in 0..2 {
        let reader = replicas.clone();
        drop(executor.spawn(async move { reader.read(GROUP).await }));
    }
    loop {
        let asked = |message: &Message<Payload>| if let Body::Read { id } = message.body { Some(id.0) } else { None };
        let reads: Vec<u64> = sent.borrow().iter().filter_map(asked).collect();
        if reads.len() == 2 {
            return reads;
        }
        executor.yield_now().await;
    }
}

/// The leader may answer a read of the life before, from what was committed then.
#[test]
fn an_answer_to_a_node_before_its_start_is_none_to_a_later_read() {
    let mut reads = Vec::new();
    let disk = SimDisk::new(1);
    for seed in [7, 8_000_000] {
        let executor = Executor::new(seed);
        reads.extend(executor.block_on(reads_of_a_life(&executor, &disk, seed)));
        executor.kill();
        disk.end_calls();
    }
    let mut different = reads.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), 4, "{reads:?}");
}
