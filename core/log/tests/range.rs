//! Reading entries back: exactly what the model holds, while the log is written, trimmed, cut back and opened again.

mod harness;

use harness::*;
use std::{cell::RefCell, rc::Rc};
use tidemill_disk::sim::{Crash, Executor, Prng, SimDisk, block_on};
use tidemill_log::{Durability, Log, ReadError};
use tidemill_raft::{GroupId, LogIndex};

/// Every group from a random index on, against the model; entries that are not acknowledged may be there or not.
async fn compare(log: &Log<SimDisk>, truth: &Truth, prng: &mut Prng, context: &str) -> u64 {
    let mut read = 0;
    for (group, known) in &truth.acked {
        let released = truth.from(GroupId(*group)).0;
        let Some((last, _)) = known.entries.last_key_value() else { continue };
        let first = released + 1 + prng.below(last - released);
        let until = first + prng.below(last - first + 1);
        let bytes_max = if prng.one_in(3) { prng.below(3000) as usize } else { 1 << 20 };
        let entries = log.read_entries(GroupId(*group), LogIndex(first), LogIndex(until), bytes_max).await.unwrap();
        let mut bytes = 0;
        for (at, entry) in entries.iter().enumerate() {
            assert_eq!(entry.index.0, first + at as u64, "{context}: a gap");
            let (term, payload) = &known.entries[&entry.index.0];
            assert_eq!((entry.term.0, &entry.payload), (*term, payload), "{context}: entry {} of {group}", entry.index);
            bytes += payload.len();
        }
        assert!(bytes <= bytes_max || entries.len() == 1, "{context}: {bytes} bytes of {bytes_max}");
        let complete = entries.last().is_some_and(|entry| entry.index.0 == until);
        let next = known.entries.get(&(first + entries.len() as u64));
        let full = next.is_none_or(|(_, payload)| bytes + payload.len() > bytes_max);
        assert!(complete || !entries.is_empty() && full, "{context}: {} of {first}..{until}", entries.len());
        read += entries.len() as u64;
    }
    read
}

fn lives(seed: u64, replace_one_in: u64, release_lag: Option<u64>) -> u64 {
    let options = options(96 << 10, Durability::Fdatasync);
    let mut disk = SimDisk::new(seed);
    let truth = Rc::new(RefCell::new(Truth::default()));
    let mut prng = Prng::new(seed);
    let mut read = 0;
    for life in 0..4 {
        let executor = Executor::new(seed + life);
        let context = format!("seed {seed}, life {life}");
        read += executor.block_on(async {
            let before = truth.borrow().clone();
            let (log, ..) = recover(&disk, &options, &before).await.unwrap();
            let runner = {
                let log = log.clone();
                executor.spawn(async move { log.run().await })
            };
            let model = truth.borrow().clone();
            let mut read = compare(&log, &model, &mut prng, &format!("{context}, opened")).await;
            let shape = Load { groups: 3, appends: 300, replace_one_in, bytes_max: 9000, release_lag };
            load(&executor, &log, &truth, Rc::new(shape), seed ^ life).await;
            log.close();
            runner.join().await.unwrap();
            let count = truth.borrow().acked_count + truth.borrow().unacked.len() as u64;
            truth.borrow_mut().acked(count);
            let model = truth.borrow().clone();
            for _ in 0..10 {
                read += compare(&log, &model, &mut prng, &context).await;
            }
            read
        });
        disk = disk.crash(Crash::Drop, seed);
    }
    read
}

#[test]
fn what_is_read_back_is_what_the_model_holds() {
    let mut read = 0;
    for seed in 0..12 {
        read += lives(seed, 0, None) + lives(seed, 9, Some(20)) + lives(seed, 3, None);
    }
    assert!(read > 10_000, "{read}");
}

#[test]
fn rot_in_a_range_is_an_error_and_never_an_entry() {
    let options = options(96 << 10, Durability::Fdatasync);
    let disk = SimDisk::new(5);
    let truth = Rc::new(RefCell::new(Truth::default()));
    let executor = Executor::new(5);
    executor.block_on(async {
        let (log, ..) = recover(&disk, &options, &Truth::default()).await.unwrap();
        let runner = {
            let log = log.clone();
            executor.spawn(async move { log.run().await })
        };
        let shape = Load { groups: 1, appends: 60, replace_one_in: 0, bytes_max: 2000, release_lag: None };
        load(&executor, &log, &truth, Rc::new(shape), 5).await;
        log.close();
        runner.join().await.unwrap();
        let count = truth.borrow().acked_count + truth.borrow().unacked.len() as u64;
        truth.borrow_mut().acked(count);
        let known = truth.borrow().acked[&0].entries.clone();
        let last = LogIndex(*known.keys().last().unwrap());
        let path = disk.paths().into_iter().find(|path| path.contains("0001")).unwrap();
        let mut errors = 0;
        for byte in (4096..disk.content(&path).unwrap().len()).step_by(1111) {
            disk.flip_bit(&path, byte, 3);
            match log.read_entries(GroupId(0), LogIndex(1), last, 1 << 20).await {
                Ok(entries) => {
                    assert!(entries.iter().all(|entry| known[&entry.index.0] == (entry.term.0, entry.payload.clone())));
                }
                Err(ReadError::Damaged { file, .. }) => {
                    assert_eq!(file, path);
                    errors += 1;
                }
                Err(error) => panic!("{error}"),
            }
            disk.flip_bit(&path, byte, 3);
        }
        assert!(errors > 5, "{errors}");
    });
}

#[test]
fn what_is_not_there_is_not_invented() {
    let disk = SimDisk::new(1);
    let (log, ..) = block_on(0, recover(&disk, &options(96 << 10, Durability::Fdatasync), &Truth::default())).unwrap();
    let entries = block_on(0, log.read_entries(GroupId(1), LogIndex(1), LogIndex(9), 100));
    assert_eq!(entries.unwrap(), vec![]);
}
