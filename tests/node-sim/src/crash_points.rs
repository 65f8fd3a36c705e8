//! A fixed run of 2 000 requests, the power failing at every point of it, with each outcome.
//!
//! The run flushes, copies to the next level whenever a file is there, merges late rows, deletes, drops shard groups and
//! databases, and is restarted a few times; a power loss while it starts is a point like any other.

use crate::{
    counters::Counters,
    files,
    lives::{self, Shared},
    node::{Node, NodeOptions, recover_from},
    reading,
    swarm::{Ending, Swarm},
    truth::Truth,
    workload,
    world::Layout,
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};
use tidemill_campaign::Counts;
use tidemill_disk::sim::{Crash, Executor, FaultCounts, Prng, SimDisk};

const SEED: u64 = 20;
const CRASHES: [Crash; 4] = [Crash::None, Crash::Drop, Crash::Tear, Crash::Reorder];
/// Of the recoveries one in so many goes on as a node.
const GOES_ON_ONE_IN: u64 = 29;

/// What the run is made of.
fn swarm() -> Swarm {
    Swarm {
        clients: 4,
        requests: 100,
        points_max: 4,
        text_bytes_max: 20,
        bulk_one_in: 150,
        resend_one_in: 8,
        nameless_one_in: 5,
        flush_one_in: 12,
        copy_one_in: 40,
        hand_over_one_in: 12,
        pool_fails_one_in: u64::MAX,
        delete_one_in: 25,
        drop_field_one_in: 60,
        drop_group_one_in: 60,
        drop_database_one_in: 300,
        l1_files_per_l2: 1,
        lives: 5,
        ends_in: Ending::Any,
        fault_within: 0,
        restart_loss_one_in: 0,
        capacity_slack: None,
        damage: false,
        cache_bytes: 64 << 10,
        strikes_behind: None,
    }
}

/// What a run met.
#[derive(Debug, Default)]
pub struct Report {
    pub points: u64,
    pub recoveries: u64,
    pub went_on: u64,
    /// Of the run itself.
    pub counters: Counters,
    /// Of the recoveries.
    pub recovered: Counters,
    pub faults: FaultCounts,
}

/// Recovers from one outcome; now and then the node goes on from there.
fn recover_and_check(after: &SimDisk, shared: &Shared, seed: u64, goes_on: bool, context: &str) -> Counters {
    after.set_yields(false);
    let executor = Executor::new(seed);
    let (truth, layout) = (shared.truth.borrow(), shared.layout.borrow());
    let options = options(shared);
    let replayed = executor.block_on(async {
        let recovered = recover_from(after, &options).await.unwrap_or_else(|error| panic!("{context}: {error}"));
        let mut prng = Prng::new(seed);
        for (number, partition) in &recovered.partitions {
            reading::check(*number, partition, &truth, &layout, &mut prng, context).await;
        }
        recovered.replayed
    });
    if goes_on {
        executor.block_on(go_on(&executor, after, &options, (&truth, &layout), seed, context));
    }
    executor.kill();
    replayed
}

fn options(shared: &Shared) -> NodeOptions {
    let Swarm { cache_bytes, l1_files_per_l2, .. } = shared.swarm;
    NodeOptions { cache_bytes, l1_files_per_l2, pool: shared.pool.clone(), ..NodeOptions::default() }
}

async fn go_on(
    executor: &Executor,
    disk: &SimDisk,
    options: &NodeOptions,
    (truth, layout): (&Truth, &Layout),
    seed: u64,
    context: &str,
) {
    let truth = Rc::new(RefCell::new(truth.clone()));
    let started = Node::start(executor, disk, options, &truth, &Rc::default()).await;
    let node = started.unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut prng = Prng::new(seed);
    for number in 1_000_000..1_000_003 {
        let request = workload::request(&mut prng, &swarm(), layout, number, 0);
        node.write(&request).await.unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    node.flush_all().await.unwrap_or_else(|error| panic!("{context}: {error}"));
    node.settled().await;
    for (number, partition) in &node.partitions {
        let truth = truth.borrow().clone();
        reading::check(*number, partition, &truth, layout, &mut prng, context).await;
        let applied = partition.applied().0;
        reading::check_index(partition, &truth.partition(*number).model(applied, context), context);
        files::check(disk, &options.pool, *number, context);
        let truth = truth.partition(*number);
        files::check_identity(disk, &options.pool, *number, truth, applied, context).await;
    }
    node.stop().await.unwrap_or_else(|error| panic!("{context}: {error}"));
}

/// Crashes the run at every `stride`th of its points.
///
/// # Panics
/// If a recovery lost or invented something.
pub fn run(stride: u64) -> Report {
    let shared = Rc::new(Shared::new(swarm(), SEED));
    let disk = SimDisk::new(SEED);
    let report: Rc<RefCell<Report>> = Rc::default();
    let points = Cell::new(0);
    disk.observe({
        let (shared, report) = (shared.clone(), report.clone());
        move |disk: &SimDisk, operation| {
            points.set(points.get() + 1);
            let point = points.get();
            report.borrow_mut().points = point;
            if !point.is_multiple_of(stride) {
                return;
            }
            for crash in CRASHES {
                let after = disk.crash(crash, SEED ^ point);
                let goes_on = report.borrow().recoveries % GOES_ON_ONE_IN == 0;
                let context = format!("point {point} ({operation:?}), {crash:?}");
                let replayed = recover_and_check(&after, &shared, SEED ^ point, goes_on, &context);
                let mut report = report.borrow_mut();
                report.recoveries += 1;
                report.went_on += u64::from(goes_on);
                report.recovered.add(&replayed);
            }
        }
    });
    let mut prng = Prng::new(SEED);
    for life in 0..shared.swarm.lives {
        let executor = Executor::new(SEED + life);
        let options = options(&shared);
        let started = executor.block_on(Node::start(&executor, &disk, &options, &shared.truth, &shared.counters));
        let node = Rc::new(started.unwrap_or_else(|error| panic!("life {life}: {error}")));
        lives::run_clients(&executor, &node, &shared, &mut prng);
        lives::count_copies(&node, &mut shared.counters.borrow_mut());
        if life % 2 == 0 {
            let node = Rc::into_inner(node).expect("the clients have ended");
            executor.block_on(node.stop()).unwrap_or_else(|error| panic!("life {life}: {error}"));
            executor.kill();
        } else {
            executor.kill();
            disk.end_calls();
        }
    }
    disk.stop_observing();
    let mut report = std::mem::take(&mut *report.borrow_mut());
    report.counters = *shared.counters.borrow();
    report.counters.entries = shared.truth.borrow().acknowledged_total();
    report.faults = disk.faults();
    report
}

impl Report {
    /// What a run must have met, or it has shown nothing. Writes that take effect out of order need two under way at a
    /// point, which a sample of the points may miss; the random lives must meet them.
    pub fn zeros(&self) -> Vec<&'static str> {
        let (run, recovered, faults) = (&self.counters, &self.recovered, &self.faults);
        let counts = [
            ("went_on", self.went_on),
            ("flushes", run.flushes),
            ("copies", run.copies),
            ("blocks_merged", run.blocks_merged),
            ("rows_late", run.rows_late),
            ("bulks", run.bulks),
            ("duplicates", run.duplicates),
            ("deletes", run.deletes),
            ("field_drops", run.field_drops),
            ("group_drops", run.group_drops),
            ("database_drops", run.database_drops),
            ("flushes_replayed", recovered.flushes_replayed),
            ("deletes_replayed", recovered.deletes_replayed),
            ("drops_replayed", recovered.drops_replayed),
            ("hand_overs", run.hand_overs),
            ("hand_overs_replayed", recovered.hand_overs_replayed),
            ("copies_replayed", recovered.copies_replayed),
            ("copies_pending_at_start", recovered.copies_pending_at_start),
            ("writes_dropped", faults.writes_dropped),
            ("writes_torn", faults.writes_torn),
            ("names_dropped", faults.names_dropped),
        ];
        counts.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }
}
