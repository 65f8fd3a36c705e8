//! One call that fails, at each place of a short run, and a disk that fills up under it.

use std::{cell::RefCell, rc::Rc};
use tidemill_disk::sim::{Crash, Executor, Fault, Prng, SimDisk};
use tidemill_node_sim::{
    model::Deed,
    node::{Node, NodeOptions, recover_from},
    reading, setting,
    swarm::Swarm,
    truth::Truth,
    workload::{self, Request},
    world::{Layout, PARTITIONS},
};
use tidemill_store::Command;

const WRITES: u64 = 60;

fn request(prng: &mut Prng, number: u64, points_max: u64, text_bytes_max: u64) -> Request {
    let swarm = Swarm { points_max, text_bytes_max, bulk_one_in: 10_000, ..Swarm::draw(&mut Prng::new(0)) };
    workload::request(prng, &swarm, &Layout::default(), number, 0)
}

async fn start(executor: &Executor, disk: &SimDisk, truth: &Rc<RefCell<Truth>>) -> Result<Node, String> {
    Node::start(executor, disk, &NodeOptions::default(), truth, &Rc::default()).await
}

async fn check(node: &Node, context: &str) {
    for (number, partition) in &node.partitions {
        let truth = node.truth.borrow().clone();
        reading::check(*number, partition, &truth, &Layout::default(), &mut Prng::new(1), context).await;
    }
}

async fn write_and_flush(node: &Node, from: u64) -> (u64, u64) {
    let mut prng = Prng::new(from);
    let (mut written, mut refused) = (0, 0);
    for number in from..from + WRITES {
        match node.write(&request(&mut prng, number, 5, 200)).await {
            Ok(()) => written += 1,
            Err(_) => refused += 1,
        }
        if number % 10 == 9 {
            let _ = node.command(number as u32 / 10 % PARTITIONS, &Command::PLAIN_FLUSH, Deed::Nothing).await;
        }
    }
    (written, refused)
}

/// Whether the run was over before its `nth` call.
fn fail_at(nth: u64, fault: Fault, stopped: &mut u64) -> bool {
    let executor = Executor::new(nth);
    let disk = SimDisk::new(nth);
    let truth = Rc::new(RefCell::new(Truth::default()));
    let context = format!("{fault:?} at call {nth}");
    let before = disk.operations_total();
    let mut over = false;
    disk.fail_at(None, nth, fault);
    executor.block_on(async {
        // A start that fails is tried again, as a supervisor does.
        let node = match start(&executor, &disk, &truth).await {
            Ok(node) => node,
            Err(_) => start(&executor, &disk, &truth).await.unwrap_or_else(|e| panic!("{context}: {e}")),
        };
        let (_, refused) = write_and_flush(&node, 0).await;
        *stopped += u64::from(refused > 0);
        over = disk.operations_total() - before < nth;
        if refused == 0 && !over {
            // What failed did not concern the log: everything is as if nothing had been.
            node.settled().await;
            check(&node, &context).await;
        }
    });
    for crash in Crash::ALL {
        let after = disk.crash(crash, nth);
        let executor = Executor::new(nth);
        executor.block_on(async {
            let recovered = recover_from(&after, &NodeOptions::default())
                .await
                .unwrap_or_else(|e| panic!("{context} {crash:?}: {e}"));
            for (number, partition) in &recovered.partitions {
                let truth = truth.borrow().clone();
                let context = format!("{context} {crash:?}");
                reading::check(*number, partition, &truth, &Layout::default(), &mut Prng::new(1), &context).await;
            }
        });
    }
    executor.block_on(async {
        let truth = Rc::new(RefCell::new(truth.borrow().clone()));
        let restarted = disk.crash(Crash::None, nth);
        let node = start(&executor, &restarted, &truth).await.unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_eq!(write_and_flush(&node, 1000).await, (WRITES, 0), "{context}, restarted");
        node.settled().await;
        check(&node, &format!("{context}, restarted")).await;
    });
    over
}

/// `TIDEMILL_SIM_STRIDE=1`: every call instead of some.
#[test]
fn a_call_that_fails_anywhere_loses_nothing() {
    let stride = setting("TIDEMILL_SIM_STRIDE").unwrap_or(11).max(1) as usize;
    let (mut runs, mut stopped) = (0, 0);
    for (offset, fault) in [Fault::Eio, Fault::StorageFull, Fault::ShortWrite].into_iter().enumerate() {
        for nth in (1 + offset as u64..).step_by(stride) {
            runs += 1;
            if fail_at(nth, fault, &mut stopped) {
                break;
            }
        }
    }
    println!("{runs} runs, {stopped} of them stopped by their fault");
    assert!(stopped > 0 && stopped < runs);
}

#[test]
fn a_full_disk_refuses_writes_and_takes_them_again_without_a_restart() {
    for seed in 0..12 {
        let executor = Executor::new(seed);
        let disk = SimDisk::new(seed);
        let truth = Rc::new(RefCell::new(Truth::default()));
        executor.block_on(async {
            let node = start(&executor, &disk, &truth).await.unwrap();
            write_and_flush(&node, 0).await;
            let mut refusals = 0;
            for cycle in 1..6 {
                disk.set_capacity(Some(disk.used_bytes() + cycle * 8192));
                for round in 0..30 {
                    let (_, refused) = write_and_flush(&node, cycle * 10_000 + round * WRITES).await;
                    refusals += refused;
                    if refused > 0 {
                        break;
                    }
                }
                // Reads go on while the disk is full.
                check(&node, &format!("seed {seed}, full, cycle {cycle}")).await;
                disk.set_capacity(None);
                let mut prng = Prng::new(seed);
                let mut tries = 0;
                while let Err(error) = node.write(&request(&mut prng, cycle * 10_000 + 9000, 2, 20)).await {
                    assert_eq!(error, "the disk is full");
                    tries += 1;
                    assert!(tries < 10_000, "seed {seed}: space is back and writes are still refused");
                    executor.yield_now().await;
                }
                node.settled().await;
                check(&node, &format!("seed {seed}, room again, cycle {cycle}")).await;
            }
            assert!(refusals > 0, "the disk was never full");
            node.stop().await.unwrap();
        });
    }
}
