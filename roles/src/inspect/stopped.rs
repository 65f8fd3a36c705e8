//! The state of a server that does not run: metadata and partitions, brought up from files and log in memory alone.
//!
//! Invariants: the folder is not changed and nobody else changes it meanwhile; what comes up is what the server would
//! show after a start. Takes the memory that the server would for rows that are only in the log.

use super::scratch_disk::{ScratchDisk, ScratchFile};
use crate::{
    data::{LOG_FOLDER, META_GROUP, MetaMachine, epochs_in},
    data_lock::DataLock,
    identity::Identity,
    links::POOL_GROUP,
    pool::machine::PoolMachine,
    replica::{Machine, PartitionMachine, Placement, recover},
};
use anyhow::Context;
use std::{cell::Cell, collections::BTreeMap, path::Path, rc::Rc};
use tidemill_disk::Disk;
use tidemill_log::LogOptions;
use tidemill_meta::Meta;
use tidemill_raft::{GroupId, NodeId};
use tidemill_store::{
    DatabaseId, Partition, PartitionView, ReadCache, ScanField, SeriesCursor, SeriesId, ShardGroupId, TagPredicate,
};

/// Chunks of files that are kept while a tool reads.
const CACHE_BYTES: usize = 32 << 20;

/// A stopped server.
pub struct Stopped {
    pub meta: Meta,
    pub partitions: Vec<Rc<Partition<ScratchDisk>>>,
    _lock: DataLock,
}

impl Stopped {
    /// # Errors
    /// If a server runs, or the folder holds what the server itself would refuse to start with.
    pub async fn open(folder: &Path) -> anyhow::Result<Stopped> {
        let lock = DataLock::shared(folder)?;
        let identity = Identity::read(folder)?;
        let disk = ScratchDisk::new(folder);
        let meta = Rc::new(MetaMachine::load(disk.clone()).await?);
        let cache = Rc::new(ReadCache::new(CACHE_BYTES));
        let file_keys: Rc<Cell<u64>> = Rc::default();
        let mut partitions = Vec::new();
        let mut machines: BTreeMap<GroupId, Rc<dyn Machine>> = BTreeMap::new();
        machines.insert(META_GROUP, meta.clone());
        machines.insert(POOL_GROUP, Rc::new(PoolMachine::load(disk.clone()).await?));
        for id in 0..identity.partitions {
            let folder = format!("partitions/{id:03}");
            let partition = Partition::open(disk.clone(), folder, cache.clone(), file_keys.clone()).await?;
            let partition = Rc::new(partition);
            machines.insert(GroupId(id), Rc::new(PartitionMachine::new(partition.clone())));
            partitions.push(partition);
        }
        let placement = match identity.node {
            0 => Placement::standalone(),
            // What a node of a cluster has is what its log says is decided.
            node => Placement::beside_others(NodeId(node), machines.keys().copied()),
        };
        for epoch in epochs_in(&disk).await? {
            for core in disk.list(&format!("{LOG_FOLDER}/{epoch}")).await? {
                let folder = format!("{LOG_FOLDER}/{epoch}/{core}");
                if disk.list(&folder).await?.is_empty() {
                    continue;
                }
                let recovered = recover(disk.clone(), &folder, LogOptions::default(), &placement, &machines).await;
                recovered.with_context(|| format!("the log in {folder}"))?;
            }
        }
        Ok(Stopped { meta: meta.state(), partitions, _lock: lock })
    }
}

/// Reads the series of one partition in some shard groups.
pub struct SeriesReader {
    partition: Rc<Partition<ScratchDisk>>,
    view: PartitionView<ScratchDisk>,
    database: DatabaseId,
}

impl SeriesReader {
    pub fn new(stopped: &Stopped, partition: usize, database: u32, groups: &[u64]) -> SeriesReader {
        let partition = stopped.partitions[partition].clone();
        let groups: Vec<ShardGroupId> = groups.iter().copied().map(ShardGroupId).collect();
        let view = partition.view(&groups);
        SeriesReader { partition, view, database: DatabaseId(database) }
    }

    /// All series of the database, measurement by measurement.
    pub fn series(&self) -> Vec<SeriesId> {
        let Some(index) = self.partition.index(self.database) else { return Vec::new() };
        let selected = index.measurement_names().flat_map(|name| index.select(name, &TagPredicate::All));
        selected.map(SeriesId).collect()
    }

    /// The key of a series, and the fields of its measurement in the order of their names.
    pub fn known(&self, series: SeriesId) -> Option<(Vec<u8>, Rc<[ScanField]>)> {
        let index = self.partition.index(self.database)?;
        let key = index.known_key(series)?.to_vec();
        let measurement = tidemill_line::series_key::measurement(&key);
        let mut names: Vec<&[u8]> = index.field_names(&measurement).collect();
        names.sort_unstable();
        let fields = names.into_iter().map(|name| ScanField::of(&index, &measurement, name)).collect();
        Some((key, fields))
    }

    /// Shows the key of a series; an unknown one has none.
    pub fn with_key<T>(&self, series: SeriesId, see: impl FnOnce(&[u8]) -> T) -> T {
        match self.partition.index(self.database) {
            Some(index) => see(index.known_key(series).unwrap_or_default()),
            None => see(&[]),
        }
    }

    pub fn cursor(&self, series: SeriesId, fields: &Rc<[ScanField]>, range: (i64, i64)) -> SeriesCursor<ScratchFile> {
        self.partition.cursor(&self.view, self.database, series, fields, range, false)
    }
}
