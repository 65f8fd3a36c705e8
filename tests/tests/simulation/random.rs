//! Random runs: each seed draws its own rates of writes, flushes, deletes, faults, full disks, crashes and restarts.

use super::{
    node::{Node, log_options},
    setting,
    truth::{Deed, Truth},
    workload::{PARTITIONS, delete, request},
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};
use tidemill_disk::sim::{Crash, Executor, Fault, Prng, SimDisk};
use tidemill_store::Command;

#[derive(Clone, Debug)]
struct Swarm {
    clients: u64,
    requests: u64,
    points_max: u64,
    text_bytes_max: u64,
    flush_one_in: u64,
    delete_one_in: u64,
    lives: u64,
    ends_in: Ending,
    capacity_slack: Option<u64>,
}

/// How each life of a node but the last ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    PowerLoss,
    /// One call fails; then the process is started again, on the same disk.
    FailedCall,
    Stop,
    Any,
}

impl Swarm {
    fn draw(prng: &mut Prng) -> Swarm {
        let mut one_of = |choices: &[u64]| choices[prng.below(choices.len() as u64) as usize];
        Swarm {
            clients: one_of(&[1, 3, 8]),
            requests: one_of(&[20, 60, 120]),
            points_max: one_of(&[1, 5, 30]),
            text_bytes_max: one_of(&[1, 50, 1000]),
            flush_one_in: one_of(&[6, 20, 100]),
            delete_one_in: one_of(&[15, 50, 10_000]),
            lives: one_of(&[1, 2, 4]),
            ends_in: [Ending::PowerLoss, Ending::FailedCall, Ending::Stop, Ending::Any]
                [one_of(&[0, 1, 2, 3, 3]) as usize],
            capacity_slack: [None, None, Some(64), Some(200)][one_of(&[0, 1, 2, 3]) as usize],
        }
    }
}

#[derive(Default, Debug)]
struct Totals {
    written: Cell<u64>,
    refused: Cell<u64>,
    power_losses: Cell<u64>,
    restarts: Cell<u64>,
    full: Cell<u64>,
    failed_flushes: Cell<u64>,
}

fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

async fn client(node: Rc<Node>, swarm: Swarm, numbers: Rc<Cell<u64>>, mut prng: Prng, totals: Rc<Totals>) {
    for _ in 0..swarm.requests {
        let number = numbers.replace(numbers.get() + 1);
        match node.write(request(&mut prng, number, swarm.points_max, swarm.text_bytes_max)).await {
            Ok(()) => add(&totals.written, 1),
            Err(error) => {
                add(&totals.refused, 1);
                add(&totals.full, u64::from(error == "the disk is full"));
            }
        }
        let partition = prng.below(u64::from(PARTITIONS)) as u32;
        if prng.one_in(swarm.flush_one_in) {
            let _ = node.command(partition, &Command::PLAIN_FLUSH, &Deed::Nothing).await;
        }
        if prng.one_in(swarm.delete_one_in) {
            let (command, deed) = delete(&mut prng);
            let _ = node.command(partition, &command, &deed).await;
        }
    }
}

/// One life of a node: some clients; returns whether it ended by itself.
async fn live(
    executor: &Executor,
    node: &Rc<Node>,
    disk: &SimDisk,
    swarm: &Swarm,
    numbers: &Rc<Cell<u64>>,
    prng: &mut Prng,
    totals: &Rc<Totals>,
) {
    if let Some(blocks) = swarm.capacity_slack {
        disk.set_capacity(Some(disk.used_bytes() + blocks * 4096));
    }
    let spawn = |_| {
        let work = client(node.clone(), swarm.clone(), numbers.clone(), Prng::new(prng.next_u64()), totals.clone());
        executor.spawn(work)
    };
    let clients: Vec<_> = (0..swarm.clients).map(spawn).collect();
    for client in clients {
        client.join().await;
    }
    // Space comes back: everything goes on without a restart.
    disk.set_capacity(None);
}

fn run(seed: u64, totals: &Rc<Totals>) {
    let mut prng = Prng::new(seed);
    let swarm = Swarm::draw(&mut prng);
    println!("seed {seed}: {swarm:?}");
    let truth = Rc::new(RefCell::new(Truth::default()));
    let numbers = Rc::new(Cell::new(0));
    let mut disk = SimDisk::new(seed);
    for life in 0..=swarm.lives {
        let executor = Executor::new(seed ^ life << 32);
        let is_last = life == swarm.lives;
        let ending = match swarm.ends_in {
            Ending::Any => [Ending::PowerLoss, Ending::FailedCall, Ending::Stop][prng.below(3) as usize],
            ending => ending,
        };
        let context = format!("seed {seed}, life {life}");
        let after = executor.block_on(async {
            let node = Node::start(&executor, &disk, &log_options(), &truth).await;
            let node = Rc::new(node.unwrap_or_else(|error| panic!("{context}: {error}")));
            node.check(&format!("{context}, recovered")).await;
            if is_last {
                live(&executor, &node, &disk, &swarm, &numbers, &mut prng, totals).await;
                // Space is back, but the log hears of it at one of the next appends.
                let mut tries = 0;
                let mut refused = |error: String| {
                    tries += 1;
                    assert!(error == "the disk is full" && tries < 10_000, "{context}: {error}");
                };
                while let Err(error) = node.write(request(&mut prng, numbers.get(), 3, 10)).await {
                    refused(error);
                    executor.yield_now().await;
                }
                for partition in 0..PARTITIONS {
                    while let Err(error) = node.command(partition, &Command::PLAIN_FLUSH, &Deed::Nothing).await {
                        refused(error);
                        executor.yield_now().await;
                    }
                }
                node.settled().await;
                node.check(&format!("{context}, at the end")).await;
                add(&totals.failed_flushes, node.failed_flushes.get());
                let node = Rc::into_inner(node).expect("the clients have ended");
                node.stop().await.unwrap();
                add(&totals.power_losses, 1);
                return disk.crash(Crash::Drop, seed);
            }
            let moment = 1 + prng.below(400);
            match ending {
                Ending::PowerLoss => disk.crash_at(moment),
                Ending::FailedCall => {
                    let fault = [Fault::Eio, Fault::StorageFull, Fault::ShortWrite][prng.below(3) as usize];
                    disk.fail_at(None, moment, fault);
                }
                Ending::Stop | Ending::Any => {}
            }
            live(&executor, &node, &disk, &swarm, &numbers, &mut prng, totals).await;
            add(&totals.failed_flushes, node.failed_flushes.get());
            match ending {
                Ending::PowerLoss => {
                    add(&totals.power_losses, 1);
                    disk.crash(Crash::ALL[prng.below(5) as usize], prng.next_u64())
                }
                Ending::FailedCall => {
                    add(&totals.restarts, 1);
                    // The page cache survives a restart, but for what a failed sync gave up.
                    disk.crash(Crash::None, 0)
                }
                Ending::Stop | Ending::Any => {
                    add(&totals.restarts, 1);
                    let node = Rc::into_inner(node).expect("the clients have ended");
                    node.stop().await.unwrap_or_else(|error| panic!("{context}: {error}"));
                    disk.crash(Crash::Drop, 0)
                }
            }
        });
        disk = after;
    }
    let executor = Executor::new(seed);
    executor.block_on(async {
        let node = Node::start(&executor, &disk, &log_options(), &truth).await.unwrap();
        node.check(&format!("seed {seed}, started a last time")).await;
    });
}

#[test]
fn random_lives_lose_and_invent_nothing() {
    let totals = Rc::new(Totals::default());
    let seeds = match setting("TIDEMILL_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("TIDEMILL_SIM_SEEDS").unwrap_or(60),
    };
    let several = seeds.end - seeds.start > 50;
    for seed in seeds {
        run(seed, &totals);
    }
    println!("{totals:?}");
    let Totals { written, refused, power_losses, restarts, full, failed_flushes } = totals.as_ref();
    for counter in [written, refused, power_losses, restarts, full, failed_flushes] {
        assert!(!several || counter.get() > 0, "{totals:?}");
    }
}
