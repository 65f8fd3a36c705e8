//! The files of a node whose background work has ended.

use crate::{
    node::folder_of,
    truth::{PartitionTruth, Told},
};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};
use tidemill_column::Values;
use tidemill_disk::sim::{Prng, SimDisk};
use tidemill_raft::Term;
use tidemill_store::{Entry, FileRecord, Manifest, Partition, ReadCache, SimPool, Tier};
use tidemill_tsm::{block, file::FileBytes};

pub fn manifest_of(disk: &SimDisk, folder: &str, context: &str) -> Manifest {
    let path = format!("{folder}/manifest");
    let Some(bytes) = disk.content(&path) else { return Manifest::default() };
    Manifest::decode(&bytes, &path).unwrap_or_else(|error| panic!("{context}: {error}"))
}

/// What a node has of a file.
fn path_of(folder: &str, record: &FileRecord) -> String {
    let name = if record.tier == Tier::Pool { record.tail_name() } else { record.name() };
    format!("{folder}/g{}/{name}", record.shard_group)
}

/// Exactly the files of the manifest are there, each as it says (S5, S7), and the ordered ones of a shard group hold no
/// time of a key twice (I4). Of files in the pool, everything behind the blocks is there, and nothing else (I8). Returns how
/// many files were late, how many came from copies, and how many are in the pool.
///
/// # Panics
/// If that is not so.
pub fn check(disk: &SimDisk, pool: &SimPool, number: u32, context: &str) -> (u64, u64, u64) {
    let folder = folder_of(number);
    let manifest = manifest_of(disk, &folder, context);
    let mut named: BTreeSet<String> = manifest.files.iter().map(|record| path_of(&folder, record)).collect();
    named.extend(manifest.index.iter().map(|index| format!("{folder}/index-{:09}", index.generation)));
    // Room for the next manifest, which is there before the first one.
    named.extend(disk.content(&format!("{folder}/manifest")).map(|_| format!("{folder}/spare")));
    let is_there = |path: &String| path.starts_with(&format!("{folder}/")) && !path.ends_with("/manifest");
    let there: BTreeSet<String> = disk.paths().into_iter().filter(is_there).collect();
    assert_eq!(there, named, "{context}: the files of partition {number}, and those of its manifest");
    // A copy may join small blocks across a point of another file: it is times that are there once.
    let mut times: BTreeMap<(u64, Vec<u8>), BTreeSet<i64>> = BTreeMap::new();
    let (mut late, mut copied, mut pooled) = (0, 0, 0);
    for record in &manifest.files {
        let path = path_of(&folder, record);
        let mut bytes = disk.content(&path).unwrap_or_default();
        if record.tier != Tier::Local {
            pooled += 1;
            let whole = pool.content(&record.hash).unwrap_or_else(|| panic!("{context}: {path} is not in the pool"));
            let here = if record.tier == Tier::Pool { &whole[record.blocks_end as usize..] } else { &whole[..] };
            assert!(bytes == here, "{context}: {path} is not what the pool has");
            bytes = whole;
        }
        let is_same = (bytes.len() as u64, *blake3::hash(&bytes).as_bytes()) == (record.size, record.hash);
        assert!(is_same, "{context}: {path} is not the file that the manifest names");
        late += u64::from(record.late);
        copied += u64::from(record.level == 2);
        if record.late {
            continue;
        }
        let file = FileBytes::open(&bytes).unwrap_or_else(|error| panic!("{context}: {path}: {error}"));
        for key in file.index.iter() {
            let of_key = times.entry((record.shard_group, key.key.to_vec())).or_default();
            for entry in key.entries.iter() {
                let block = file.block(&entry).unwrap_or_else(|error| panic!("{context}: {path}: {error}"));
                let (mut block_times, mut values) = (Vec::new(), Values::new(key.field_type));
                let decoded = block::decode(block, &mut block_times, &mut values);
                decoded.unwrap_or_else(|error| panic!("{context}: {path}: {error}"));
                let is_new = block_times.iter().all(|time| of_key.insert(*time));
                assert!(is_new, "{context}: {path}: a time of {} is in another ordered file", key.key.escape_ascii());
            }
        }
    }
    (late, copied, pooled)
}

/// Applies the same log on a node to which nothing else happens, and compares the files (S6). Returns how many there are.
///
/// # Panics
/// If a file differs or is missing on either side.
pub async fn check_identity(
    disk: &SimDisk,
    pool: &Rc<SimPool>,
    number: u32,
    truth: &PartitionTruth,
    applied: u64,
    context: &str,
) -> u64 {
    let other = SimDisk::new(number.into());
    other.set_yields(false);
    let mut prng = Prng::new(applied);
    let (cache, keys) = (Rc::new(ReadCache::new(64 << 10)), Rc::new(Cell::new(0)));
    let folder = folder_of(number);
    let opened = Partition::open_with_pool(other.clone(), folder.clone(), cache, keys, pool.clone()).await;
    let partition = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
    for Told { bytes, .. } in &truth.told()[..applied as usize] {
        let entry = (!bytes.is_empty()).then(|| Entry::parse(bytes).expect("an entry that was proposed"));
        let done = partition.apply(Term(1), partition.applied().next(), entry);
        done.unwrap_or_else(|error| panic!("{context}: {error}"));
        if prng.one_in(4) {
            work_off(&partition, context).await;
        }
    }
    work_off(&partition, context).await;
    let of = |disk: &SimDisk| {
        let manifest = manifest_of(disk, &folder, context);
        let mut files: BTreeMap<String, ([u8; 32], Tier)> = BTreeMap::new();
        files.extend(manifest.files.iter().map(|record| (path_of(&folder, record), (record.hash, record.tier))));
        (manifest.flushed_index, manifest.sessions, manifest.groups, manifest.policies, files, manifest.members)
    };
    let (here, there) = (of(disk), of(&other));
    let differing: Vec<&String> =
        here.4.keys().chain(there.4.keys()).filter(|path| here.4.get(*path) != there.4.get(*path)).collect();
    assert!(
        differing.is_empty(),
        "{context}: another node with the log of partition {number} has other files: {differing:?}"
    );
    assert_eq!(here, there, "{context}: the manifest of partition {number}, and that of another node with its log");
    here.4.len() as u64
}

async fn work_off(partition: &Partition<SimDisk>, context: &str) {
    while partition.has_work() || partition.has_copies() {
        partition.maintain().await.unwrap_or_else(|error| panic!("{context}: {error}"));
        partition.copy().await.unwrap_or_else(|error| panic!("{context}: {error}"));
    }
}
