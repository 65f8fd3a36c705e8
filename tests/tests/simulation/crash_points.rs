//! A fixed run of 2 000 writes, the power failing at every point of it, with each outcome.

use super::{
    node::{Node, log_options, recover_from},
    setting,
    truth::{Deed, Truth},
    workload::{PARTITIONS, delete, request},
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};
use tidemill_disk::sim::{Crash, Executor, FaultCounts, OPERATIONS, Prng, SimDisk, block_on};
use tidemill_store::Command;

const WRITES: u64 = 2000;
const CLIENTS: u64 = 4;
const CRASHES: [Crash; 4] = [Crash::None, Crash::Drop, Crash::Tear, Crash::Reorder];
/// Of the points in a short run, one in so many; a prime, so that it does not fall into step with the run.
const STRIDE: u64 = 23;

#[derive(Default)]
struct Totals {
    points: Cell<u64>,
    recoveries: Cell<u64>,
    went_on: Cell<u64>,
}

fn add(counter: &Cell<u64>) -> u64 {
    counter.set(counter.get() + 1);
    counter.get()
}

/// Writes its share, one request after the other, with flushes and deletes in between.
async fn client(node: Rc<Node>, number: u64) {
    let mut prng = Prng::new(number);
    for write in 0..WRITES / CLIENTS {
        let request = request(&mut prng, write * CLIENTS + number, 4, 20);
        node.write(request).await.unwrap();
        if write % 60 == 30 {
            let partition = (write / 60 + number) as u32 % PARTITIONS;
            node.command(partition, &Command::PLAIN_FLUSH, &Deed::Nothing).await.unwrap();
        }
        if write % 180 == 90 {
            let (command, deed) = delete(&mut prng);
            node.command(number as u32 % PARTITIONS, &command, &deed).await.unwrap();
        }
    }
}

/// Recovers from one outcome; now and then the node goes on from there.
fn recover_and_check(after: &SimDisk, truth: &Truth, seed: u64, goes_on: bool, context: &str) {
    after.set_yields(false);
    let executor = Executor::new(seed);
    executor.block_on(async {
        let options = log_options();
        let recovered = recover_from(after, &options).await.unwrap_or_else(|error| panic!("{context}: {error}"));
        for (number, partition) in &recovered.partitions {
            truth.check(*number, partition, context).await;
        }
        if !goes_on {
            return;
        }
        drop(recovered);
        let truth = Rc::new(RefCell::new(truth.clone()));
        let started = Node::start(&executor, after, &options, &truth).await;
        let node = started.unwrap_or_else(|error| panic!("{context}: {error}"));
        let mut prng = Prng::new(seed);
        for number in WRITES..WRITES + 3 {
            node.write(request(&mut prng, number, 4, 20)).await.unwrap();
        }
        for partition in 0..PARTITIONS {
            node.command(partition, &Command::PLAIN_FLUSH, &Deed::Nothing).await.unwrap();
        }
        node.settled().await;
        node.check(context).await;
        node.stop().await.unwrap();
    });
}

fn run(stride: u64) -> (Rc<Totals>, FaultCounts, u64) {
    let seed = 20;
    let executor = Executor::new(seed);
    let disk = SimDisk::new(seed);
    let truth = Rc::new(RefCell::new(Truth::default()));
    let totals = Rc::new(Totals::default());
    let observer = {
        let (truth, totals) = (truth.clone(), totals.clone());
        move |disk: &SimDisk, operation| {
            let point = add(&totals.points);
            if !point.is_multiple_of(stride) {
                return;
            }
            let truth = truth.borrow().clone();
            for crash in CRASHES {
                let after = disk.crash(crash, seed ^ point);
                let goes_on = add(&totals.recoveries).is_multiple_of(29);
                totals.went_on.set(totals.went_on.get() + u64::from(goes_on));
                let context = format!("point {point} ({operation:?}), {crash:?}");
                recover_and_check(&after, &truth, seed ^ point, goes_on, &context);
            }
        }
    };
    disk.observe(observer);
    executor.block_on(async {
        let node = Rc::new(Node::start(&executor, &disk, &log_options(), &truth).await.unwrap());
        let clients: Vec<_> = (0..CLIENTS).map(|number| executor.spawn(client(node.clone(), number))).collect();
        for client in clients {
            client.join().await;
        }
        node.settled().await;
        node.check("at the end").await;
        let node = Rc::into_inner(node).expect("the clients have ended");
        assert_eq!(node.failed_flushes.get(), 0);
        node.stop().await.unwrap();
    });
    disk.stop_observing();
    let entries = truth.borrow().acknowledged_total();
    println!("{} of {WRITES} writes as {entries} entries acknowledged", WRITES);
    let operations = OPERATIONS.iter().map(|operation| (operation, disk.operations(*operation)));
    println!("operations: {:?}", operations.filter(|(_, count)| *count > 0).collect::<Vec<_>>());
    let recovered = block_on(0, recover_from(&disk.crash(Crash::Drop, 1), &log_options())).unwrap();
    assert_eq!(recovered.partitions.len(), PARTITIONS as usize);
    (totals, disk.faults(), entries)
}

#[test]
fn a_power_loss_at_any_point_loses_and_invents_nothing() {
    let stride = setting("TIDEMILL_SIM_STRIDE").unwrap_or(STRIDE).max(1);
    let (totals, faults, entries) = run(stride);
    println!(
        "{} points, every {stride}th crashed x {CRASHES:?}: {} recoveries, {} went on; {faults:?}",
        totals.points.get(),
        totals.recoveries.get(),
        totals.went_on.get()
    );
    assert!(entries > WRITES && totals.went_on.get() > 0);
    // A run that met none of a kind of fault has shown nothing about it.
    for count in [faults.power_losses, faults.writes_dropped, faults.writes_torn, faults.writes_reordered] {
        assert!(count > 0, "{faults:?}");
    }
}
