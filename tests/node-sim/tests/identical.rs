//! The same log gives the same files, whatever else happens beside it and wherever its partition lives (I7).

use std::{cell::Cell, collections::BTreeMap, rc::Rc};
use tidemill_disk::sim::{Crash, Executor, Prng, SimDisk};
use tidemill_node_sim::{
    swarm::Swarm,
    workload::{delete, request},
    world::{DATABASES, Layout, STRETCHES},
};
use tidemill_raft::Term;
use tidemill_store::{
    Applied, Command, CopyFigures, CopyOrder, Entry, Floats, Manifest, Partition, ReadCache, write_prefix,
};

/// A replica that never flushes begins anew at each restart.
const RESTARTS_MAX: u32 = 8;

/// The entries of one partition.
fn entries(seed: u64) -> Vec<Vec<u8>> {
    let mut prng = Prng::new(seed);
    let mut entries = Vec::new();
    let mut swarm = Swarm::draw(&mut prng);
    (swarm.points_max, swarm.text_bytes_max, swarm.bulk_one_in) = (8, 60, 150);
    let mut layout = Layout::default();
    for number in 0..150 {
        // Images of all partitions: here one takes them all, and so they have no identities.
        for part in request(&mut prng, &swarm, &layout, number, 0).parts {
            entries.push([&[write_prefix()], part.image.as_ref()].concat());
        }
        if prng.one_in(12) {
            let floats = if prng.one_in(2) { Floats::Alp } else { Floats::Gorilla };
            entries.push(Command::Flush { floats }.encode());
        }
        if prng.one_in(9) {
            entries.push(delete(&mut prng, number).0.encode());
        }
        if prng.one_in(7) {
            let newest = entries.len() as u64;
            let ordered_through = newest - prng.below(newest.min(20));
            let order = CopyOrder {
                floats: if prng.one_in(3) { Floats::Alp } else { Floats::Gorilla },
                shard_group: layout.group(DATABASES[0], prng.below(STRETCHES)),
                ordered_through,
                late_through: if prng.one_in(3) { 0 } else { ordered_through - prng.below(ordered_through.min(40)) },
                sealed: match prng.below(3) {
                    0 => (0..newest).filter(|_| prng.one_in(2)).collect(),
                    _ => Vec::new(),
                },
                with_deleted: prng.one_in(2),
                file_bytes_max: [1 << 12, 1 << 30][prng.below(2) as usize],
            };
            entries.push(Command::Copy(order).encode());
        }
        if prng.one_in(60) {
            let groups = layout.renew(DATABASES[0], prng.below(STRETCHES)).into_iter().collect();
            entries.push(Command::DropShardGroups { groups }.encode());
        }
    }
    entries.push(Command::PLAIN_FLUSH.encode());
    entries
}

/// Files by path, and what a manifest says of them but for the deletes that are still to be applied.
type Files = BTreeMap<String, (Vec<u8>, [u8; 32])>;

/// What partitions of one core share.
struct Core {
    disk: SimDisk,
    cache: Rc<ReadCache>,
    file_keys: Rc<Cell<u64>>,
}

impl Core {
    fn new(disk: SimDisk) -> Core {
        Core { disk, cache: Rc::new(ReadCache::new(64 << 10)), file_keys: Rc::default() }
    }

    async fn open(&self, number: usize) -> Rc<Partition<SimDisk>> {
        let (disk, cache, keys) = (self.disk.clone(), self.cache.clone(), self.file_keys.clone());
        Rc::new(Partition::open(disk, format!("p{number}"), cache, keys).await.unwrap())
    }
}

/// Applies the logs of some partitions that live on one core, with timings, settling, restarts and power losses drawn
/// from `timing`; returns the TSM files.
fn files(logs: &[(usize, &[Vec<u8>])], timing: u64, copies: &mut CopyFigures) -> Files {
    let executor = Executor::new(timing);
    let mut prng = Prng::new(timing);
    let mut core = Core::new(SimDisk::new(timing));
    executor.clone().block_on(async {
        let mut partitions = Vec::new();
        for (number, _) in logs {
            partitions.push(core.open(*number).await);
        }
        let mut restarts = 0;
        let lazy = timing % 3;
        let restart_one_in = [10_000, 40, 15][(timing / 3 % 3) as usize];
        loop {
            let is_behind = |at: &usize| partitions[*at].applied().0 < logs[*at].1.len() as u64;
            let behind: Vec<usize> = (0..logs.len()).filter(is_behind).collect();
            let Some(at) = behind.get(prng.below(behind.len() as u64) as usize).copied() else { break };
            let partition = partitions[at].clone();
            let index = partition.applied().next();
            let entry = Entry::parse(&logs[at].1[index.0 as usize - 1]).unwrap();
            let applied = partition.apply(Term(1), index, Some(entry)).unwrap();
            if applied == Applied::Deleted && !prng.one_in(3) {
                let partition = partition.clone();
                executor.spawn(async move { partition.settle().await.unwrap() });
            }
            if partition.has_work() && lazy < 2 && prng.one_in(1 + lazy * 6) {
                let partition = partition.clone();
                executor.spawn(async move { partition.maintain().await });
            }
            if partition.has_copies() && prng.one_in(1 + lazy * 4) {
                let partition = partition.clone();
                executor.spawn(async move { partition.copy().await });
            }
            for _ in 0..prng.below(20) {
                executor.yield_now().await;
            }
            if restarts < RESTARTS_MAX && prng.one_in(restart_one_in) {
                restarts += 1;
                core = Core::new(core.disk.crash(Crash::ALL[prng.below(5) as usize], prng.next_u64()));
                for (at, (number, _)) in logs.iter().enumerate() {
                    copies.add(&partitions[at].figures().copies);
                    partitions[at] = core.open(*number).await;
                }
            }
        }
        for partition in &partitions {
            let mut rounds = 0;
            while partition.has_work() || partition.has_copies() {
                rounds += 1;
                assert!(rounds < 100_000, "timing {timing}: maintenance does not end");
                partition.maintain().await.unwrap();
                partition.copy().await.unwrap();
                executor.yield_now().await;
            }
            copies.add(&partition.figures().copies);
        }
    });
    let mut hashes = BTreeMap::new();
    for (number, _) in logs {
        let path = format!("p{number}/manifest");
        let manifest = Manifest::decode(&core.disk.content(&path).unwrap(), &path).unwrap();
        for file in manifest.files {
            hashes.insert(format!("p{number}/g{}/{}", file.shard_group, file.name()), file.hash);
        }
    }
    let paths = core.disk.paths().into_iter().filter(|path| path.ends_with(".tsm"));
    let files: Files = paths.map(|path| (path.clone(), (core.disk.content(&path).unwrap(), hashes[&path]))).collect();
    assert_eq!(files.len(), hashes.len());
    files
}

#[test]
fn replicas_with_other_timings_restarts_and_cores_have_the_same_files() {
    const PARTITIONS: usize = 3;
    let (mut compared, mut sealed) = (0, 0);
    let mut copies = CopyFigures::default();
    for seed in 0..8 {
        let logs: Vec<Vec<Vec<u8>>> = (0..PARTITIONS as u64).map(|number| entries(seed * 100 + number)).collect();
        let on_core = |cores: usize, core: usize| -> Vec<(usize, &[Vec<u8>])> {
            logs.iter().map(Vec::as_slice).enumerate().filter(|(number, _)| number % cores == core).collect()
        };
        let mut first = Files::new();
        for timing in 0..12 {
            let cores = [1, 2, PARTITIONS][timing as usize % 3];
            let mut other = Files::new();
            for core in 0..cores {
                other.extend(files(&on_core(cores, core), timing, &mut copies));
            }
            if timing == 0 {
                assert!(!other.is_empty());
                first = other;
                continue;
            }
            let context = format!("seed {seed} timing {timing}");
            assert_eq!(first.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "{context}");
            for (path, (content, hash)) in &first {
                assert!(other[path].0 == *content, "{context}: {path} differs");
                assert_eq!((&other[path].1, *blake3::hash(content).as_bytes()), (hash, *hash), "{context}: {path}");
                compared += 1;
            }
        }
        sealed += first.len();
    }
    println!("{compared} files compared, {sealed} different ones; {copies:?}");
    let CopyFigures { copies, blocks_copied, blocks_merged, blocks_joined, blocks_vanished, .. } = copies;
    for counter in [copies, blocks_copied, blocks_merged, blocks_joined, blocks_vanished] {
        assert!(counter > 0);
    }
}
