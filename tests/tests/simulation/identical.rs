//! The same log gives the same files, whatever else happens beside it (I7).

use super::{
    truth::GROUP_WIDTH,
    workload::{delete, request},
};
use std::{cell::Cell, collections::BTreeMap, rc::Rc};
use tidemill_disk::sim::{Crash, Executor, Prng, SimDisk};
use tidemill_raft::Term;
use tidemill_store::{Applied, Command, Entry, Floats, Partition, ReadCache, write_prefix};

/// A replica that never flushes begins anew at each restart.
const RESTARTS_MAX: u32 = 8;

/// The entries of one partition.
fn entries(seed: u64) -> Vec<Vec<u8>> {
    let mut prng = Prng::new(seed);
    let mut entries = Vec::new();
    for number in 0..150 {
        // Images of all partitions: here one takes them all.
        for (_, image, _) in request(&mut prng, number, 8, 60).parts {
            entries.push([vec![write_prefix()], image].concat());
        }
        if prng.one_in(12) {
            let floats = if prng.one_in(2) { Floats::Alp } else { Floats::Gorilla };
            entries.push(Command::Flush { floats }.encode());
        }
        if prng.one_in(9) {
            entries.push(delete(&mut prng).0.encode());
        }
        if prng.one_in(60) {
            let groups = vec![1 + prng.below(GROUP_WIDTH as u64) % 3];
            entries.push(Command::DropShardGroups { groups }.encode());
        }
    }
    entries.push(Command::PLAIN_FLUSH.encode());
    entries
}

async fn open(disk: &SimDisk) -> Rc<Partition<SimDisk>> {
    let cache = Rc::new(ReadCache::new(64 << 10));
    Rc::new(Partition::open(disk.clone(), "p".into(), cache, Rc::new(Cell::new(0))).await.unwrap())
}

/// Applies the entries with timings, settling, restarts and power losses drawn from `timing`; returns the TSM files.
fn files(entries: &[Vec<u8>], timing: u64) -> BTreeMap<String, Vec<u8>> {
    let executor = Executor::new(timing);
    let mut prng = Prng::new(timing);
    let mut disk = SimDisk::new(timing);
    executor.clone().block_on(async {
        let mut partition = open(&disk).await;
        let mut restarts = 0;
        let lazy = timing % 3;
        let restart_one_in = [10_000, 40, 15][(timing / 3 % 3) as usize];
        while partition.applied().0 < entries.len() as u64 {
            let index = partition.applied().next();
            let entry = Entry::parse(&entries[index.0 as usize - 1]).unwrap();
            let applied = partition.apply(Term(1), index, Some(entry)).unwrap();
            if let Applied::Deleted { database, series } = applied
                && !prng.one_in(3)
            {
                let partition = partition.clone();
                executor.spawn(async move { partition.settle(database, &series).await.unwrap() });
            }
            if partition.has_work() && lazy < 2 && prng.one_in(1 + lazy * 6) {
                let partition = partition.clone();
                executor.spawn(async move { partition.maintain().await });
            }
            for _ in 0..prng.below(20) {
                executor.yield_now().await;
            }
            if restarts < RESTARTS_MAX && prng.one_in(restart_one_in) {
                restarts += 1;
                disk = disk.crash(Crash::ALL[prng.below(5) as usize], prng.next_u64());
                partition = open(&disk).await;
            }
        }
        let mut rounds = 0;
        while partition.has_work() {
            rounds += 1;
            assert!(rounds < 100_000, "timing {timing}: maintenance does not end");
            partition.maintain().await.unwrap();
            executor.yield_now().await;
        }
    });
    let paths = disk.paths().into_iter().filter(|path| path.ends_with(".tsm"));
    paths.map(|path| (path.clone(), disk.content(&path).unwrap())).collect()
}

#[test]
fn replicas_with_other_timings_and_restarts_have_the_same_files() {
    let mut compared = 0;
    for seed in 0..8 {
        let entries = entries(seed);
        let first = files(&entries, 0);
        assert!(!first.is_empty());
        for timing in 1..12 {
            let other = files(&entries, timing);
            assert_eq!(
                first.keys().collect::<Vec<_>>(),
                other.keys().collect::<Vec<_>>(),
                "seed {seed} timing {timing}"
            );
            for (path, content) in &first {
                assert!(other[path] == *content, "seed {seed} timing {timing}: {path} differs");
                compared += 1;
            }
        }
    }
    println!("{compared} files compared");
}
