//! Power loss at every point of a run, with every outcome of it.

mod harness;

use harness::*;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};
use tidemill_disk::sim::{Crash, Executor, Operation, Prng, SimDisk, block_on};
use tidemill_log::{Durability, LogOptions};
use tidemill_raft::{GroupId, LogIndex};

struct Outcome {
    appends: u64,
    points: u64,
    recoveries: u64,
    cuts: u64,
    unacked_kept: u64,
    recycled: u64,
    faults: tidemill_disk::sim::FaultCounts,
}

/// Runs a load and, before and within every disk operation, recovers from each of the crashes.
fn every_crash_point(seed: u64, options: LogOptions, crashes: &'static [Crash], shape: Load) -> Outcome {
    let executor = Executor::new(seed);
    let disk = SimDisk::new(seed);
    let truth = Rc::new(RefCell::new(Truth::default()));
    let (points, recoveries, cuts, kept) =
        (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let appends = shape.appends;
    let (log, ..) = executor.block_on(recover(&disk, &options, &Truth::default())).unwrap();
    let observer = {
        let (truth, options) = (truth.clone(), options.clone());
        let (points, recoveries, cuts, kept) = (points.clone(), recoveries.clone(), cuts.clone(), kept.clone());
        move |disk: &SimDisk, operation: Operation| {
            points.set(points.get() + 1);
            let truth = truth.borrow();
            for crash in crashes {
                let after = disk.crash(*crash, seed ^ points.get());
                after.set_yields(false);
                let context = format!("seed {seed}, point {} ({operation:?}), {crash:?}", points.get());
                let (_, groups, cut) =
                    block_on(0, recover(&after, &options, &truth)).unwrap_or_else(|error| panic!("{context}: {error}"));
                recoveries.set(recoveries.get() + 1);
                cuts.set(cuts.get() + u64::from(cut));
                kept.set(kept.get() + truth.check(&groups, &context) as u64);
                // What a recovery found stays: a second power loss before anything else happens changes nothing.
                if points.get() % 16 == 0 {
                    let again = after.crash(Crash::Drop, 0);
                    let (_, twice, _) = block_on(0, recover(&again, &options, &truth)).expect(&context);
                    assert_eq!(twice, groups, "{context}");
                }
            }
        }
    };
    disk.observe(observer);
    let runner = {
        let log = log.clone();
        executor.spawn(async move { log.run().await })
    };
    executor.block_on(async {
        load(&executor, &log, &truth, Rc::new(shape), seed).await;
        log.close();
        runner.join().await.unwrap();
    });
    disk.stop_observing();
    let recycled = log.metrics().segments_recycled;
    Outcome {
        appends,
        points: points.get(),
        recoveries: recoveries.get(),
        cuts: cuts.get(),
        unacked_kept: kept.get(),
        recycled,
        faults: disk.faults(),
    }
}

const CRASHES: &[Crash] = &[Crash::None, Crash::Drop, Crash::Tear, Crash::Reorder];

#[test]
fn every_crash_point_of_2000_appends_recovers_what_was_acknowledged() {
    let cases = [(1, options(96 << 10, Durability::Fdatasync)), (2, growing(96 << 10, Durability::Dsync))];
    for (seed, options) in cases {
        let durability = options.durability;
        let shape = Load { groups: 5, appends: 2000, replace_one_in: 0, bytes_max: 9000, release_lag: Some(20) };
        let outcome = every_crash_point(seed, options, CRASHES, shape);
        println!(
            "{durability:?}: {} appends, {} points, {} recoveries, {} cuts, {} unacknowledged kept whole, {} recycled, {:?}",
            outcome.appends,
            outcome.points,
            outcome.recoveries,
            outcome.cuts,
            outcome.unacked_kept,
            outcome.recycled,
            outcome.faults
        );
        assert!(outcome.points > 800 && outcome.cuts > 100 && outcome.unacked_kept > 100 && outcome.recycled > 3);
        let faults = outcome.faults;
        assert!(faults.writes_dropped > 0 && faults.writes_torn > 0 && faults.names_dropped > 0);
    }
}

#[test]
fn crashes_with_replaced_entries_recover_a_prefix_of_the_appends() {
    for seed in 10..14 {
        let shape = Load { groups: 3, appends: 300, replace_one_in: 9, bytes_max: 20_000, release_lag: Some(30) };
        let options = if seed % 2 == 0 { options } else { growing };
        let options = options(96 << 10, Durability::Fdatasync);
        every_crash_point(seed, options, &[Crash::Random, Crash::Tear, Crash::Drop], shape);
    }
}

/// Crash, recover, go on, crash again, many times on one disk, also during recovery itself.
#[test]
fn life_goes_on_over_many_crashes() {
    for seed in 0..60 {
        let mut prng = Prng::new(seed);
        let durability = if prng.one_in(2) { Durability::Fdatasync } else { Durability::Dsync };
        let options = if prng.one_in(2) { options(64 << 10, durability) } else { growing(64 << 10, durability) };
        let mut disk = SimDisk::new(seed);
        let truth = Rc::new(RefCell::new(Truth::default()));
        for life in 0..12 {
            let context = format!("seed {seed}, life {life}");
            let executor = Executor::new(prng.next_u64());
            disk.crash_at(1 + prng.below(400));
            let snapshot = truth.borrow().clone();
            if let Ok((log, groups, _)) = executor.block_on(recover(&disk, &options, &snapshot)) {
                let more = truth.borrow().check(&groups, &context);
                {
                    // What recovery handed out is the truth from now on.
                    let mut truth = truth.borrow_mut();
                    let count = truth.acked_count + more as u64;
                    truth.acked(count);
                    truth.unacked.clear();
                }
                let runner = {
                    let log = log.clone();
                    executor.spawn(async move { log.run().await })
                };
                let shape =
                    Load { groups: 3, appends: 150, replace_one_in: 15, bytes_max: 9000, release_lag: Some(15) };
                executor.block_on(async {
                    load(&executor, &log, &truth, Rc::new(shape), prng.next_u64()).await;
                    log.close();
                    let _ = runner.join().await;
                });
            }
            // Sometimes only the process dies.
            disk = match prng.below(5) {
                0 => disk.crash(Crash::None, 0),
                policy => disk.crash(Crash::ALL[policy as usize], prng.next_u64()),
            };
        }
        let snapshot = truth.borrow().clone();
        let (_, groups, _) = block_on(seed, recover(&disk, &options, &snapshot)).unwrap();
        truth.borrow().check(&groups, "in the end");
    }
}

/// A failed sync, then a restart of the process on the same disk, whose reads still show what was lost.
#[test]
fn what_is_recovered_after_a_failed_sync_is_durable() {
    for seed in 0..60 {
        let options = options(64 << 10, Durability::Fdatasync);
        let executor = Executor::new(seed);
        let disk = SimDisk::new(seed);
        let truth = Rc::new(RefCell::new(Truth::default()));
        let (log, ..) = executor.block_on(recover(&disk, &options, &Truth::default())).unwrap();
        disk.fail_at(Some(Operation::SyncData), 5 + seed % 40, tidemill_disk::sim::Fault::Eio);
        let runner = {
            let log = log.clone();
            executor.spawn(async move { log.run().await })
        };
        let shape = Load { groups: 2, appends: 400, replace_one_in: 0, bytes_max: 900, release_lag: None };
        executor.block_on(load(&executor, &log, &truth, Rc::new(shape), seed));
        assert!(executor.block_on(runner.join()).is_err());
        assert!(log.poisoned().is_some_and(|poison| poison.message.contains("simulated I/O error")));
        let snapshot = truth.borrow().clone();
        let (log, groups, _) = executor.block_on(recover(&disk, &options, &snapshot)).unwrap();
        let more = snapshot.check(&groups, "after the restart");
        let (_, groups, _) = block_on(0, recover(&disk.crash(Crash::Drop, seed), &options, &snapshot)).unwrap();
        assert_eq!(snapshot.check(&groups, "after the power loss"), more);
        drop(log);
    }
}

/// The oldest entries are released, their segments used again, and hard states of silent groups survive it.
#[test]
fn hard_states_outlive_their_segment() {
    let options = options(64 << 10, Durability::Fdatasync);
    let executor = Executor::new(3);
    let disk = SimDisk::new(3);
    let truth = Rc::new(RefCell::new(Truth::default()));
    let (log, ..) = executor.block_on(recover(&disk, &options, &Truth::default())).unwrap();
    for group in [7, 8] {
        let record = Owned::HardState { group, term: 4, vote: Some(group.into()), committed: 0 };
        log.append(record.record()).unwrap();
        truth.borrow_mut().appended(record);
    }
    let runner = {
        let log = log.clone();
        executor.spawn(async move { log.run().await })
    };
    let shape = Load { groups: 2, appends: 2000, replace_one_in: 0, bytes_max: 900, release_lag: Some(3) };
    executor.block_on(async {
        load(&executor, &log, &truth, Rc::new(shape), 3).await;
        log.close();
        runner.join().await.unwrap();
    });
    assert!(log.metrics().segments_recycled > 3 && log.metrics().segments_live < 5, "{:?}", log.metrics());
    let snapshot = truth.borrow().clone();
    let (log, groups, cut) = block_on(0, recover(&disk.crash(Crash::Drop, 0), &options, &snapshot)).unwrap();
    snapshot.check(&groups, "in the end");
    assert!(!cut);
    assert_eq!(groups[&7].hard_state, Some((4, Some(7), 0)));
    assert_eq!(groups[&8].hard_state, Some((4, Some(8), 0)));
    assert!(log.oldest_pinned().iter().all(|(group, _)| *group != GroupId(7)));
    log.release(GroupId(7), LogIndex(0));
}
