//! Calls that fail, disks that fill up, limits.

mod harness;

use harness::*;
use std::{cell::RefCell, rc::Rc};
use tidemill_disk::sim::{Crash, Executor, Fault, Operation, SimDisk, block_on};
use tidemill_log::{AppendError, Durability, Log, LogOptions, Record};
use tidemill_raft::{GroupId, LogIndex, Term};

fn entry(group: u32, index: u64, payload: &[u8]) -> Record<'_> {
    Record::Entry { group: GroupId(group), term: Term(1), index: LogIndex(index), payload }
}

fn fresh(seed: u64, options: &LogOptions) -> (Executor, SimDisk, Log<SimDisk>) {
    let executor = Executor::new(seed);
    let disk = SimDisk::new(seed);
    let (log, ..) = executor.block_on(recover(&disk, options, &Truth::default())).unwrap();
    (executor, disk, log)
}

fn run(executor: &Executor, log: &Log<SimDisk>) -> tidemill_disk::sim::Task<Result<(), tidemill_log::Poisoned>> {
    let log = log.clone();
    executor.spawn(async move { log.run().await })
}

/// A run whose `nth` operation fails. Returns how many operations it took, and whether the log was poisoned.
fn run_with_fault(nth: Option<(u64, Fault)>, durability: Durability) -> (u64, bool) {
    let seed = nth.map_or(0, |(nth, _)| nth);
    let options = growing(32 << 10, durability);
    let executor = Executor::new(seed);
    let disk = SimDisk::new(seed);
    if let Some((nth, fault)) = nth {
        disk.fail_at(None, nth, fault);
    }
    let truth = Rc::new(RefCell::new(Truth::default()));
    let context = format!("{nth:?} {durability:?}");
    let mut poisoned = false;
    if let Ok((log, ..)) = executor.block_on(recover(&disk, &options, &Truth::default())) {
        let runner = run(&executor, &log);
        let shape = Load { groups: 3, appends: 240, replace_one_in: 20, bytes_max: 5000, release_lag: Some(10) };
        executor.block_on(async {
            load(&executor, &log, &truth, Rc::new(shape), 77).await;
            log.close();
            let ended = runner.join().await;
            if let Err(poison) = ended {
                let written = disk.operations(Operation::Write) + disk.operations(Operation::WriteDurable);
                for _ in 0..3 {
                    match log.append(entry(0, 1, b"late")) {
                        Err(AppendError::Poisoned(later)) => assert_eq!(later.message, poison.message, "{context}"),
                        other => panic!("{context}: {other:?}"),
                    }
                }
                assert_eq!(log.poisoned().map(|first| first.message), Some(poison.message));
                assert!(log.run().await.is_err(), "{context}");
                let now = disk.operations(Operation::Write) + disk.operations(Operation::WriteDurable);
                assert_eq!(written, now, "{context}: nothing is written after the first failure");
                poisoned = true;
            }
        });
    }
    let operations = disk.operations_total();
    let truth = truth.borrow();
    for crash in Crash::ALL {
        let after = disk.crash(crash, seed);
        let (_, groups, _) =
            block_on(0, recover(&after, &options, &truth)).unwrap_or_else(|e| panic!("{context}: {e}"));
        truth.check(&groups, &format!("{context} {crash:?}"));
    }
    // The process starts again on the disk as it is; a fault whose turn did not come would strike it there.
    let faults = disk.faults();
    if faults.eio + faults.storage_full + faults.short_writes > 0 || nth.is_none() {
        let reopened = executor.block_on(recover(&disk, &options, &truth));
        let (_, groups, _) = reopened.unwrap_or_else(|error| panic!("{context}: {error}"));
        truth.check(&groups, &context);
    }
    (operations, poisoned)
}

#[test]
fn every_failing_call_poisons_or_passes_and_loses_nothing() {
    for durability in [Durability::Fdatasync, Durability::Dsync] {
        let (operations, _) = run_with_fault(None, durability);
        assert!(operations > 200, "{operations}");
        let mut poisons = 0;
        for nth in 1..=operations {
            for fault in [Fault::Eio, Fault::StorageFull, Fault::ShortWrite] {
                poisons += u64::from(run_with_fault(Some((nth, fault)), durability).1);
            }
        }
        println!("{durability:?}: {operations} calls x 3 faults, {poisons} poisoned");
        assert!(poisons > operations);
    }
}

#[test]
fn the_failed_sync_is_not_tried_again_and_waiters_get_the_first_error() {
    let (executor, disk, log) = fresh(1, &options(64 << 10, Durability::Fdatasync));
    disk.fail_at(Some(Operation::SyncData), 1, Fault::Eio);
    let syncs = disk.operations(Operation::SyncData);
    // The spare segment is being prepared at the same time: its sync may be the one that fails, which stops the log too.
    let runner = run(&executor, &log);
    executor.block_on(async {
        let positions: Vec<_> = (1..=5).map(|index| log.append(entry(1, index, b"x")).unwrap()).collect();
        let mut messages = Vec::new();
        for position in positions {
            messages.push(log.stable(position).await.unwrap_err().message);
        }
        messages.dedup();
        assert_eq!(messages.len(), 1);
        assert!(messages[0].contains("SyncData") && messages[0].contains("simulated I/O error"), "{messages:?}");
        runner.join().await.unwrap_err();
        log.room().await;
    });
    assert!(disk.operations(Operation::SyncData) <= syncs + 2);
}

#[test]
fn one_sync_serves_all_groups() {
    let (executor, disk, log) = fresh(2, &options(256 << 10, Durability::Fdatasync));
    let runner = run(&executor, &log);
    executor.block_on(async {
        // Until the spare segment is there.
        let first = log.append(entry(99, 1, b"first")).unwrap();
        log.stable(first).await.unwrap();
        while log.metrics().segments_spare == 0 {
            executor.yield_now().await;
        }
        let (syncs, commits) = (disk.operations(Operation::SyncData), log.metrics().commits);
        let positions: Vec<_> = (0..16).map(|group| log.append(entry(group, 1, b"together")).unwrap()).collect();
        for position in positions {
            log.stable(position).await.unwrap();
        }
        assert_eq!(disk.operations(Operation::SyncData) - syncs, 1);
        assert_eq!(log.metrics().commits - commits, 1);
        assert_eq!(log.metrics().last_batch_frames, 16);
        log.close();
        runner.join().await.unwrap();
    });
    assert!(matches!(log.append(entry(1, 2, b"late")), Err(AppendError::Closed)));
}

/// Fills the disk; then space returns, or entries are released.
fn fill_up(seed: u64, release: bool) {
    let options = options(64 << 10, Durability::Fdatasync);
    let (executor, disk, log) = fresh(seed, &options);
    // Room for two segments and a half.
    disk.set_capacity(Some(160 << 10));
    let runner = run(&executor, &log);
    let truth = Rc::new(RefCell::new(Truth::default()));
    let append = |index: u64| {
        let record = Owned::Entry { group: 1, term: 1, index, payload: vec![index as u8; 3000] };
        log.append(record.record()).map(|position| (position, truth.borrow_mut().appended(record)))
    };
    executor.block_on(async {
        let vote = Owned::HardState { group: 9, term: 3, vote: Some(2), committed: 0 };
        log.append(vote.record()).unwrap();
        truth.borrow_mut().appended(vote);
        let mut index = 1;
        let mut full = 0;
        for _ in 0..2000 {
            match append(index) {
                Ok((position, count)) => {
                    // What was accepted becomes durable, full disk or not.
                    log.stable(position).await.unwrap();
                    truth.borrow_mut().acked(count);
                    index += 1;
                    assert_eq!(full, 0, "no room came back");
                }
                Err(AppendError::Busy) => executor.yield_now().await,
                Err(AppendError::Full) => {
                    full += 1;
                    executor.yield_now().await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(full > 100 && log.metrics().appends_full >= full);
        assert!(index > 20, "{index}");
        assert!(disk.faults().storage_full > 1, "the making is tried again");
        if release {
            let pinned = log.oldest_pinned();
            assert_eq!(pinned.len(), 1);
            let (group, through) = pinned[0];
            assert_eq!(group, GroupId(1));
            truth.borrow_mut().release(1, through.0);
            log.release(group, through);
        } else {
            disk.set_capacity(None);
        }
        let mut again = 0;
        for _ in 0..2000 {
            match append(index) {
                Ok((position, count)) => {
                    log.stable(position).await.unwrap();
                    truth.borrow_mut().acked(count);
                    index += 1;
                    again += 1;
                    if again == 10 {
                        break;
                    }
                }
                Err(AppendError::Busy | AppendError::Full) => executor.yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(again, 10, "writing goes on without a restart");
        log.close();
        runner.join().await.unwrap();
    });
    let truth = truth.borrow();
    let (_, groups, _) = block_on(0, recover(&disk.crash(Crash::Drop, 0), &options, &truth)).unwrap();
    assert_eq!(truth.check(&groups, "in the end"), 0);
    assert_eq!(groups[&9].hard_state, Some((3, Some(2), 0)));
}

#[test]
fn a_full_disk_refuses_at_once_and_writing_goes_on_when_space_is_back() {
    (0..20).for_each(|seed| fill_up(seed, false));
}

#[test]
fn a_full_disk_is_left_by_releasing_entries() {
    (0..20).for_each(|seed| fill_up(seed, true));
}

/// Fills a log until it takes no more entries; returns the index of the next one.
async fn fill(executor: &Executor, log: &Log<SimDisk>) -> u64 {
    let mut index = 1;
    let mut full = 0;
    while full < 50 {
        match log.append(entry(1, index, &[7; 3000])) {
            Ok(position) => {
                log.stable(position).await.unwrap();
                index += 1;
            }
            Err(AppendError::Busy) => executor.yield_now().await,
            Err(AppendError::Full) => {
                full += 1;
                executor.yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    index
}

#[test]
fn a_log_at_its_number_of_segments_still_takes_the_commands_that_empty_it() {
    for seed in 0..10 {
        let options = LogOptions { segments_max: 3, ..options(64 << 10, Durability::Fdatasync) };
        let (executor, disk, log) = fresh(seed, &options);
        let runner = run(&executor, &log);
        executor.block_on(async {
            let mut index = fill(&executor, &log).await;
            // More than one block of the reserve holds is refused; what fits is as durable as anything else.
            let large = log.append_command(GroupId(1), Term(1), LogIndex(index), &[&[9; 5000]]);
            assert!(matches!(large, Err(AppendError::Full)));
            for _ in 0..3 {
                let position = log.append_command(GroupId(1), Term(1), LogIndex(index), &[b"flush"]).unwrap();
                log.append(Record::HardState {
                    group: GroupId(2),
                    term: Term(index),
                    vote: Some(1),
                    committed: LogIndex(0),
                })
                .unwrap();
                log.stable(position).await.unwrap();
                index += 1;
                if log.append(entry(1, index, &[7; 3000])).is_ok() {
                    panic!("the reserve is not for entries");
                }
                // Where the reserve has ended a command is refused like everything else.
                if log.append_command(GroupId(1), Term(1), LogIndex(index), &[b"x"]).is_err() {
                    break;
                }
                index += 1;
            }
            log.release(GroupId(1), LogIndex(index - 1));
            let position = loop {
                match log.append(entry(1, index, &[8; 3000])) {
                    Ok(position) => break position,
                    Err(AppendError::Busy | AppendError::Full) => executor.yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            };
            log.stable(position).await.unwrap();
            log.close();
            runner.join().await.unwrap();
        });
        let after = disk.crash(Crash::Drop, seed);
        let mut truth = Truth::default();
        truth.released.insert(1, 0);
        let opened = block_on(0, Log::open(after, FOLDER, options, |_| LogIndex(0)));
        assert!(opened.is_err() || opened.is_ok_and(|(_, recovery)| recovery.cut().is_none()), "seed {seed}");
    }
}

#[test]
fn a_log_whose_last_segment_is_full_opens_on_a_full_disk_and_takes_terms() {
    // Eight blocks are kept for commands: each start and each end takes one.
    let options = LogOptions { commands_reserve_bytes: 32 << 10, ..options(512 << 10, Durability::Fdatasync) };
    let (executor, disk, log) = fresh(3, &options);
    let runner = run(&executor, &log);
    disk.set_capacity(Some(disk.used_bytes()));
    let next = executor.block_on(async {
        let next = fill(&executor, &log).await;
        log.close();
        runner.join().await.unwrap();
        next
    });
    for start in 0..3u64 {
        let (log, mut recovery) =
            executor.block_on(Log::open(disk.clone(), FOLDER, options.clone(), |_| LogIndex(0))).unwrap();
        let mut entries = 0;
        executor.block_on(async {
            while let Some(record) = recovery.next().await.unwrap() {
                entries += u64::from(matches!(record, Record::Entry { .. }));
            }
        });
        assert_eq!(entries, next - 1 + start);
        drop(recovery);
        let runner = run(&executor, &log);
        executor.block_on(async {
            let term = Term(2 + start);
            let append =
                || log.append(Record::HardState { group: GroupId(1), term, vote: Some(1), committed: LogIndex(0) });
            while matches!(append(), Err(AppendError::Busy)) {
                log.room().await;
            }
            let opening = log.append_command(GroupId(1), term, LogIndex(next + start), &[]).unwrap();
            log.stable(opening).await.unwrap();
            assert!(matches!(log.append(entry(2, 1, &[1; 3000])), Err(AppendError::Full | AppendError::Busy)));
            log.close();
            runner.join().await.unwrap();
        });
    }
}

/// Sizes of the segments that are there, by their headers' places in the order of the log.
fn sizes(disk: &SimDisk) -> Vec<usize> {
    let paths = disk.paths();
    let segments = paths.iter().filter(|path| path.ends_with(".log"));
    segments.map(|path| disk.content(path).expect("a file that is listed").len() >> 10).collect()
}

#[test]
fn segments_double_up_to_their_size_and_only_full_ones_are_used_again() {
    let options = growing(160 << 10, Durability::Fdatasync);
    let (executor, disk, log) = fresh(6, &options);
    assert_eq!(sizes(&disk), [24]);
    let truth = Rc::new(RefCell::new(Truth::default()));
    let shape =
        |release_lag| Rc::new(Load { groups: 1, appends: 800, replace_one_in: 0, bytes_max: 9000, release_lag });
    let runner = run(&executor, &log);
    executor.block_on(load(&executor, &log, &truth, shape(None), 6));
    assert_eq!(sizes(&disk)[..5], [24, 48, 96, 160, 160]);
    assert_eq!(log.oldest_pinned().len(), 1);
    let made = log.metrics().segments_made;
    executor.block_on(load(&executor, &log, &truth, shape(Some(3)), 7));
    executor.block_on(async {
        log.close();
        runner.join().await.unwrap();
    });
    assert!(sizes(&disk).iter().all(|size| *size == 160), "{:?}", disk.paths());
    assert!(log.metrics().segments_recycled > 0 && log.metrics().segments_made <= made + 1, "{:?}", log.metrics());
    let spares = disk.paths().into_iter().filter(|path| path.ends_with(".spare"));
    assert!(spares.into_iter().all(|path| disk.content(&path).is_some_and(|spare| spare.len() == 160 << 10)));
    // A smaller size from the next start on: what is there is read, and new segments have the new size.
    let smaller = LogOptions { segment_bytes: 64 << 10, ..options };
    let snapshot = truth.borrow().clone();
    let (log, groups, _) = executor.block_on(recover(&disk, &smaller, &snapshot)).unwrap();
    assert_eq!(snapshot.check(&groups, "with the smaller size"), 0);
    let runner = run(&executor, &log);
    executor.block_on(async {
        load(&executor, &log, &truth, shape(Some(3)), 8).await;
        log.close();
        runner.join().await.unwrap();
    });
    assert_eq!(sizes(&disk).last(), Some(&64));
}

/// A partition is not to be flushed for each of the short segments, but it is where there is no other way.
#[test]
fn short_segments_are_asked_back_when_they_fill_a_long_one_or_there_is_no_room() {
    for (segments_max, sealed_at_most) in [(64, 3), (3, 1)] {
        let options = LogOptions { segments_max, ..growing(160 << 10, Durability::Fdatasync) };
        let (executor, _, log) = fresh(1, &options);
        let runner = run(&executor, &log);
        executor.block_on(async {
            let mut index = 1;
            while log.oldest_pinned().is_empty() {
                match log.append(entry(1, index, &[7; 2000])) {
                    Ok(position) => {
                        log.stable(position).await.unwrap();
                        index += 1;
                    }
                    Err(AppendError::Busy | AppendError::Full) => executor.yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(log.metrics().segments_live, sealed_at_most + 1);
            log.close();
            runner.join().await.unwrap();
        });
    }
}

/// The largest frame comes first: those of the first segments that are too short for it are passed over.
#[test]
fn a_frame_that_the_first_segments_are_too_short_for_waits_for_a_longer_one() {
    for seed in 0..20 {
        let options = growing(200 << 10, Durability::Fdatasync);
        let (executor, disk, log) = fresh(seed, &options);
        let truth = Rc::new(RefCell::new(Truth::default()));
        let append = |index: u64, bytes: usize| {
            let record = Owned::Entry { group: 1, term: 1, index, payload: vec![index as u8; bytes] };
            log.append(record.record()).map(|position| (position, truth.borrow_mut().appended(record)))
        };
        let runner = run(&executor, &log);
        executor.block_on(async {
            for (index, bytes) in [(1, 180_000), (2, 100), (3, 180_000)] {
                let (position, count) = loop {
                    match append(index, bytes) {
                        Ok(appended) => break appended,
                        Err(AppendError::Busy) => log.room().await,
                        Err(error) => panic!("{error}"),
                    }
                };
                log.stable(position).await.unwrap();
                truth.borrow_mut().acked(count);
            }
            for crash in Crash::ALL {
                let after = disk.crash(crash, seed);
                let (_, groups, _) = block_on(0, recover(&after, &options, &truth.borrow())).unwrap();
                truth.borrow().check(&groups, "after a crash");
            }
            log.close();
            runner.join().await.unwrap();
        });
        let sizes = sizes(&disk);
        assert!(sizes.iter().all(|size| [192, 200].contains(size)), "the empty ones are given up: {sizes:?}");
    }
}

#[test]
fn limits_are_held() {
    let mut small = options(64 << 10, Durability::Dsync);
    small.pending_bytes_max = 64 << 10;
    let (executor, _, log) = fresh(5, &small);
    let largest = (64 << 10) - 4 * 4096 - 64 - 32;
    match log.append(entry(1, 1, &vec![0; largest + 1])) {
        Err(AppendError::TooLarge { bytes, bytes_max }) => assert_eq!((bytes, bytes_max), (largest + 33, largest + 32)),
        other => panic!("{other:?}"),
    }
    log.append(entry(1, 1, &vec![7; largest])).unwrap();
    assert!(matches!(log.append(entry(1, 2, &vec![7; 20_000])), Err(AppendError::Busy)));
    let runner = run(&executor, &log);
    executor.block_on(async {
        let position = loop {
            match log.append_entry(GroupId(1), Term(1), LogIndex(2), &[&[7; 10_000], &[8; 10_000]]) {
                Ok(position) => break position,
                Err(AppendError::Busy) => log.room().await,
                Err(error) => panic!("{error}"),
            }
        };
        log.stable(position).await.unwrap();
        assert_eq!(log.metrics().pending_bytes, 0);
        log.close();
        runner.join().await.unwrap();
    });
    for wrong in [
        LogOptions { segment_bytes: 5000, ..small.clone() },
        LogOptions { segment_bytes: 16 << 10, ..small.clone() },
        LogOptions { first_segment_bytes: 25_000, ..small.clone() },
        LogOptions { first_segment_bytes: 16 << 10, ..small.clone() },
        LogOptions { batch_bytes: 0, ..small.clone() },
        LogOptions { pending_bytes_max: 10, ..small.clone() },
        LogOptions { segments_max: 1, ..small.clone() },
    ] {
        assert!(block_on(0, recover(&SimDisk::new(0), &wrong, &Truth::default())).is_err(), "{wrong:?}");
    }
}

#[test]
#[should_panic(expected = "append: index gap: group 1: entry 3 where at most 2 can follow")]
fn a_gap_is_a_defect_of_the_caller() {
    let (_, _, log) = fresh(6, &options(64 << 10, Durability::Dsync));
    log.append(entry(1, 1, b"")).unwrap();
    let _ = log.append(entry(1, 3, b""));
}

#[test]
fn groups_of_others_and_entries_in_files_are_not_handed_out() {
    let options = options(64 << 10, Durability::Fdatasync);
    let (executor, disk, log) = fresh(7, &options);
    let runner = run(&executor, &log);
    executor.block_on(async {
        for index in 1..=9 {
            log.append(entry(1, index, b"mine")).unwrap();
            log.append(entry(2, index, b"not mine")).unwrap();
        }
        log.close();
        runner.join().await.unwrap();
    });
    drop(log);
    let from = |group: GroupId| LogIndex(if group.0 == 1 { 6 } else { u64::MAX });
    block_on(0, async {
        let (log, mut recovery) = Log::open(disk.clone(), FOLDER, options.clone(), from).await.unwrap();
        let mut indexes = Vec::new();
        while let Some(record) = recovery.next().await.unwrap() {
            let Record::Entry { group, index, payload, .. } = record else { panic!("no hard state was written") };
            assert_eq!((group, payload), (GroupId(1), b"mine".as_slice()));
            indexes.push(index.0);
        }
        assert_eq!(indexes, [7, 8, 9]);
        log.append(entry(1, 10, b"more")).unwrap();
    });
}

/// The log may be used before its recovery has been read; what is still to be read is not written over.
#[test]
fn recovery_can_be_read_while_the_log_runs() {
    let options = options(32 << 10, Durability::Fdatasync);
    let (executor, disk, log) = fresh(8, &options);
    let runner = run(&executor, &log);
    let load_of = |executor: &Executor, log: &Log<SimDisk>, from: u64, until: u64, release: bool| {
        let (executor2, log) = (executor.clone(), log.clone());
        executor.block_on(async move {
            for index in from..until {
                let position = loop {
                    match log.append(entry(1, index, &[index as u8; 2000])) {
                        Ok(position) => break position,
                        Err(AppendError::Busy) => executor2.yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                };
                log.stable(position).await.unwrap();
                if release {
                    log.release(GroupId(1), LogIndex(index - 1));
                }
            }
            log.close();
        });
    };
    load_of(&executor, &log, 1, 60, false);
    executor.block_on(runner.join()).unwrap();
    drop(log);
    let (log, mut recovery) =
        executor.block_on(Log::open(disk.clone(), FOLDER, options.clone(), |_| LogIndex(0))).unwrap();
    let runner = run(&executor, &log);
    load_of(&executor, &log, 60, 120, true);
    executor.block_on(runner.join()).unwrap();
    executor.block_on(async {
        for index in 1..60 {
            match recovery.next().await.unwrap() {
                Some(Record::Entry { index: found, .. }) => assert_eq!(found.0, index),
                other => panic!("{other:?}"),
            }
        }
        assert!(recovery.next().await.unwrap().is_none());
    });
}
