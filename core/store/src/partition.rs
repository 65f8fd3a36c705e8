//! One partition: the state machine that its log drives.
//!
//! Owns: the series index of each database, the shard groups, the manifest's content, and the work that applied
//! entries leave behind (flushes, removal of files).
//! Invariants: entries are applied in the order of their index, each once; what files hold follows from the log alone;
//! the manifest is published after the files that it names and before the files that it no longer names are removed.
//! Knows nothing of raft, of the log's files and of who asks.

use crate::{
    apply::{Applied, ApplyError},
    cache::{FileKey, ReadCache},
    copy::{CopyCounts, CopyFigures, PendingCopy},
    cursor::{Scan, ScanField, SeriesCursor},
    deletion::Deletion,
    entry::{Command, Entry, Measurements, TagCondition},
    id::{DatabaseId, SeriesId, ShardGroupId},
    index::SeriesIndex,
    index_file::{self, IndexFile},
    maintenance::{FlushPoint, Job, Publication, generation_prefix},
    manifest::{CopyRecord, FileRecord, GroupRecord, Manifest, ManifestError, PolicyRecord, Tier, Tombstone},
    pool_blocks::{NoPool, PoolBlocks},
    read_error::ReadError,
    sessions::Sessions,
    settle::{Settling, Unsettled},
    shard_group::{ShardGroup, ShardGroupView},
    spare::Spare,
    tsm_file::TsmFile,
    turn::Turn,
};
use std::{
    cell::{Cell, Ref, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};
use tidemill_disk::Disk;
use tidemill_raft::{LogIndex, Term};

/// A partition on its core.
pub struct Partition<D: Disk> {
    pub(crate) disk: D,
    pub(crate) folder: String,
    cache: Rc<ReadCache>,
    file_keys: Rc<Cell<u64>>,
    pub(crate) pool: Rc<dyn PoolBlocks>,
    pub(crate) state: RefCell<State<D>>,
    /// Maintenance is one at a time.
    pub(crate) maintaining: Cell<bool>,
    pub(crate) index_file: RefCell<IndexFile>,
    index_was_rebuilt: Cell<bool>,
    /// Copies are one at a time, beside maintenance.
    pub(crate) copying: Cell<bool>,
    pub(crate) halting: Cell<bool>,
    /// Whoever has the turn may replace the manifest, and move the state to what it says.
    pub(crate) publishing: Turn,
    pub(crate) spare: Spare,
    pub(crate) copy_counts: CopyCounts,
    pub(crate) settling: Settling,
}

/// What the log has made.
pub(crate) struct State<D: Disk> {
    pub databases: BTreeMap<DatabaseId, SeriesIndex>,
    pub groups: BTreeMap<ShardGroupId, ShardGroup<D::File>>,
    /// By database and retention policy, the time up to which rows are late in every series.
    pub floors: BTreeMap<(DatabaseId, u32), i64>,
    pub applied: LogIndex,
    /// The newest flush entry whose rows are in files.
    pub flushed: Rc<FlushPoint>,
    pub sessions: Sessions,
    /// As the newest entry of that kind said.
    pub members: Vec<u8>,
    pub jobs: VecDeque<Job<D::File>>,
    /// Copies that are decided and not done, by the index of their entry.
    pub copies: BTreeMap<u64, PendingCopy>,
    /// Newest copy entry that was seen.
    pub copies_index: u64,
    /// Files whose blocks belong to the pool and are here still.
    pub leaving: VecDeque<(ShardGroupId, Rc<TsmFile<D::File>>)>,
    /// What took points away, until [`Partition::settle`] has looked at its series.
    pub unsettled: VecDeque<Unsettled>,
    /// What could not be read of it, until the next flush.
    pub unreadable: Vec<Unsettled>,
    /// Words of the row group that is being applied; kept for its memory.
    pub scratch: Vec<u64>,
}

/// Why a partition does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    File(#[from] ReadError),
    #[error("{path}: {error}")]
    Io { path: String, error: std::io::Error },
}

/// Bytes in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionFigures {
    pub active_bytes: usize,
    pub frozen_bytes: usize,
    pub index_bytes: usize,
    pub file_bytes: usize,
    pub files: usize,
    pub series: u64,
    /// Bytes of the files on disk.
    pub disk_bytes: u64,
    /// Of the files those that are in the pool, and the bytes of their blocks that are there alone.
    pub pool_files: usize,
    pub pool_bytes: u64,
    /// Of the files those that a copy made, and those that hold late rows.
    pub copied_files: usize,
    pub late_files: usize,
    /// What copies did since the start.
    pub copies: CopyFigures,
}

/// Some shard groups at one moment.
pub struct PartitionView<D: Disk> {
    pub(crate) groups: Rc<[ShardGroupView<D::File>]>,
}

impl<D: Disk> Partition<D> {
    /// Opens the partition in `folder`: its manifest, its files, and nothing of the log, which is to be applied from
    /// behind [`Partition::flushed`]. Files that the manifest does not name are left-overs of a crash and are removed.
    pub async fn open(
        disk: D,
        folder: String,
        cache: Rc<ReadCache>,
        file_keys: Rc<Cell<u64>>,
    ) -> Result<Partition<D>, OpenError> {
        Partition::open_with_pool(disk, folder, cache, file_keys, Rc::new(NoPool)).await
    }

    /// As [`Partition::open`]; blocks of files that were handed over are read from `pool`.
    pub async fn open_with_pool(
        disk: D,
        folder: String,
        cache: Rc<ReadCache>,
        file_keys: Rc<Cell<u64>>,
        pool: Rc<dyn PoolBlocks>,
    ) -> Result<Partition<D>, OpenError> {
        let io_error = |path: &str| {
            let path = path.to_string();
            move |error| OpenError::Io { path, error }
        };
        disk.create_dir(&folder).await.map_err(io_error(&folder))?;
        let manifest = Manifest::load(&disk, &folder).await?;
        // A process that was killed may have left the name of this manifest in the page cache alone. What is done on its
        // word, the removal of files first of all, must not outlive it: 1. a copy renames its manifest; 2. the process is
        // killed; 3. its sources are removed below; 4. the power fails, and the manifest before names them.
        disk.sync_dir(&folder).await.map_err(io_error(&folder))?;
        let copies_of = |record: &CopyRecord| {
            let (order, handed) = (record.order.clone(), record.handed.clone());
            (record.index, PendingCopy { order, handed, publication: Publication::None })
        };
        let flushed = FlushPoint {
            index: LogIndex(manifest.flushed_index),
            term: Term(manifest.flushed_term),
            sessions: manifest.sessions.clone(),
            groups: manifest.groups.clone(),
            policies: manifest.policies.clone(),
            members: manifest.members.clone(),
        };
        let floor_of = |record: &PolicyRecord| ((DatabaseId(record.database), record.policy), record.floor);
        let group_of = |record: &GroupRecord| {
            let mut group = ShardGroup::new(DatabaseId(record.database), record.policy);
            group.newest_frozen = record.newest;
            (ShardGroupId(record.shard_group), group)
        };
        let partition = Partition {
            disk,
            folder,
            cache,
            file_keys,
            pool,
            state: RefCell::new(State {
                databases: BTreeMap::new(),
                groups: flushed.groups.iter().map(group_of).collect(),
                floors: flushed.policies.iter().map(floor_of).collect(),
                applied: flushed.index,
                members: flushed.members.clone(),
                flushed: Rc::new(flushed),
                sessions: manifest.sessions.clone(),
                jobs: VecDeque::new(),
                copies: manifest.copies.iter().map(copies_of).collect(),
                copies_index: manifest.copies_index,
                leaving: VecDeque::new(),
                unsettled: VecDeque::new(),
                unreadable: Vec::new(),
                scratch: Vec::new(),
            }),
            maintaining: Cell::new(false),
            index_file: RefCell::default(),
            index_was_rebuilt: Cell::new(false),
            copying: Cell::new(false),
            halting: Cell::new(false),
            publishing: Turn::default(),
            spare: Spare::default(),
            copy_counts: CopyCounts::default(),
            settling: Settling::default(),
        };
        let doubled = partition.remove_strangers(&manifest).await?;
        let is_restored = partition.restore_indexes(manifest.index).await;
        partition.index_was_rebuilt.set(!is_restored && !manifest.files.is_empty());
        let mut deletions: BTreeMap<(DatabaseId, u64), Rc<Deletion>> = BTreeMap::new();
        for record in manifest.files {
            let (database, group) = (DatabaseId(record.database), ShardGroupId(record.shard_group));
            let policy = record.policy;
            let file = Rc::new(partition.open_file(record).await?);
            if file.reads_pool() && doubled.contains(file.path()) {
                partition.disk.remove(file.path()).await.map_err(|error| partition.open_error(error))?;
            }
            if !is_restored {
                partition.enter(database, &file).await?;
                deletions.extend(file.all_deletions().into_iter().map(|one| ((database, one.index()), one)));
            }
            let mut state = partition.state.borrow_mut();
            state.note_leaving(group, file.clone());
            let group = state.groups.entry(group).or_insert_with(|| ShardGroup::new(database, policy));
            Rc::make_mut(&mut group.files).push(file);
        }
        let unsettled =
            deletions.into_iter().map(|((database, _), deletion)| Unsettled::Deleted { database, deletion });
        partition.state.borrow_mut().unsettled.extend(unsettled);
        if !is_restored {
            match partition.settle().await {
                // Such a series stays in the index, and is looked at again behind the next flush.
                Err(error @ ReadError::Pool { .. }) => {
                    tracing::warn!(%error, folder = partition.folder, "deleted series cannot be looked at");
                }
                settled => settled?,
            }
        }
        Ok(partition)
    }

    /// Everything up to here is in files.
    pub fn flushed(&self) -> (LogIndex, Term) {
        let state = self.state.borrow();
        (state.flushed.index, state.flushed.term)
    }

    /// Who held the partition at [`Partition::flushed`], as the newest entry of that kind said; empty if there was none.
    pub fn flushed_members(&self) -> Vec<u8> {
        self.state.borrow().flushed.members.clone()
    }

    /// Whether the series indexes were made from the files at the start, because their own file was missing or damaged.
    pub fn index_was_rebuilt(&self) -> bool {
        self.index_was_rebuilt.get()
    }

    /// Newest entry applied.
    pub fn applied(&self) -> LogIndex {
        self.state.borrow().applied
    }

    /// Applies the entry behind the newest applied one. `None` is the entry that opens a term.
    ///
    /// # Errors
    /// If its batch or command cannot be read; the partition must then stop, because its replicas would differ.
    pub fn apply(&self, term: Term, index: LogIndex, entry: Option<Entry<'_>>) -> Result<Applied, ApplyError> {
        let state = &mut *self.state.borrow_mut();
        assert_eq!(index, state.applied.next(), "{}: entries are applied in order", self.folder);
        let applied = match entry {
            None => Applied::Nothing,
            Some(Entry::Members(members)) => {
                state.members = members.to_vec();
                Applied::Nothing
            }
            Some(Entry::Write(batch)) => state.apply_write(batch)?,
            Some(Entry::Command(Command::Flush { floats })) => state.apply_flush(term, index, floats),
            Some(Entry::Command(Command::Delete { database, measurements, condition, min_time, max_time })) => {
                let (index, field) = (index.0, None);
                let tombstone = Tombstone { index, measurements, condition, field, min_time, max_time };
                state.apply_delete(DatabaseId(database), tombstone)?
            }
            Some(Entry::Command(Command::DropField { database, measurement, field })) => {
                let measurements = Measurements::Named(vec![measurement]);
                let (condition, field) = (TagCondition::All, Some(field));
                let (index, min_time, max_time) = (index.0, i64::MIN, i64::MAX);
                let tombstone = Tombstone { index, measurements, condition, field, min_time, max_time };
                state.apply_delete(DatabaseId(database), tombstone)?
            }
            Some(Entry::Command(Command::DropShardGroups { groups })) => self.apply_drop(state, index, None, &groups),
            Some(Entry::Command(Command::DropDatabase { database, groups })) => {
                self.apply_drop(state, index, Some(DatabaseId(database)), &groups)
            }
            Some(Entry::Command(Command::Copy(order))) => state.apply_copy(index, order),
            Some(Entry::Command(Command::HandOver { shard_group, files, keeps_local })) => {
                let tier = if keeps_local { Tier::Both } else { Tier::Pool };
                state.apply_hand_over(shard_group, &files, tier)
            }
        };
        state.applied = index;
        Ok(applied)
    }

    fn apply_drop(
        &self,
        state: &mut State<D>,
        entry: LogIndex,
        database: Option<DatabaseId>,
        groups: &[u64],
    ) -> Applied {
        let named = groups.iter().copied().map(ShardGroupId);
        // None of the database's shard groups outlives its dictionary.
        let of_database = state.groups.iter().filter(|(_, group)| Some(group.database) == database).map(|(id, _)| *id);
        let dropped: BTreeSet<ShardGroupId> = named.chain(of_database).collect();
        let (mut paths, mut files) = (Vec::new(), Vec::new());
        // Of a copy that is under way the one who makes it clears away. A copy of a later entry, which a replay finds in
        // the manifest, is of what will be written after the drop.
        state.copies.retain(|index, copy| {
            let group = ShardGroupId(copy.order.shard_group);
            let stays = *index > entry.0 || !dropped.contains(&group);
            if !stays && copy.publication == Publication::Tried {
                // Its files were left between two tries, as a manifest may have named them.
                paths.push(format!("{}/{}", self.group_folder(group), generation_prefix(*index)));
            }
            stays
        });
        for id in dropped {
            let Some(group) = state.groups.remove(&id) else { continue };
            state.raise_floor((group.database, group.policy), group.newest());
            // Some of the series may have had no other points. Those of the files are found when the files are removed.
            let left = group.series_in_memory();
            if !left.is_empty() {
                state.unsettled.push_back(Unsettled::Series { database: group.database, left });
            }
            for file in group.files.iter() {
                paths.push(file.stem());
                files.push((group.database, file.clone()));
            }
            for generation in group.frozen.iter().map(|frozen| frozen.generation) {
                // A flush under way may still write them; they are removed behind it.
                paths.push(format!("{}/{}", self.group_folder(id), generation_prefix(generation)));
            }
        }
        if let Some(database) = database {
            state.databases.remove(&database);
            state.floors.retain(|(of, _), _| *of != database);
            state.unsettled.retain(|unsettled| unsettled.database() != database);
            state.unreadable.retain(|unsettled| unsettled.database() != database);
        }
        state.jobs.push_back(Job::Remove { paths, files, is_named: true });
        Applied::Dropped
    }

    /// Opens a file that the manifest names or is about to name.
    pub(crate) async fn open_file(&self, record: FileRecord) -> Result<TsmFile<D::File>, ReadError> {
        let key = FileKey(self.file_keys.replace(self.file_keys.get() + 1));
        self.open_by(record, key, self.cache.clone()).await
    }

    /// As [`Partition::open_file`], for one pass over it.
    pub(crate) async fn open_past_the_cache(&self, record: &FileRecord) -> Result<TsmFile<D::File>, ReadError> {
        self.open_by(record.clone(), FileKey(0), Rc::new(ReadCache::new(0))).await
    }

    async fn open_by(
        &self,
        record: FileRecord,
        key: FileKey,
        cache: Rc<ReadCache>,
    ) -> Result<TsmFile<D::File>, ReadError> {
        let folder = self.group_folder(ShardGroupId(record.shard_group));
        let (path, tail) = (format!("{folder}/{}", record.name()), format!("{folder}/{}", record.tail_name()));
        if record.tier != Tier::Pool {
            return TsmFile::open(&self.disk, path, record, key, cache).await;
        }
        // A tail has its name only when it is whole. Until then, or if it was damaged since, the file may be here.
        let (both, pool) = ((key, cache.clone()), self.pool.clone());
        let opened = TsmFile::open_tail(&self.disk, (&tail, path.clone()), record.clone(), both, pool).await;
        match opened {
            Ok(file) => Ok(file),
            Err(error) => TsmFile::open(&self.disk, path, record, key, cache).await.map_err(|_| error),
        }
    }

    /// Opens what is at `path` as the tail of a file, for one pass over it.
    pub(crate) async fn open_tail(&self, path: &str, record: &FileRecord) -> Result<TsmFile<D::File>, ReadError> {
        let cache = (FileKey(0), Rc::new(ReadCache::new(0)));
        TsmFile::open_tail(&self.disk, (path, path.to_string()), record.clone(), cache, self.pool.clone()).await
    }

    /// The partition as its folder has it now.
    pub(crate) async fn opened_anew(&self) -> Result<Partition<D>, OpenError> {
        let (disk, folder, pool) = (self.disk.clone(), self.folder.clone(), self.pool.clone());
        Partition::open_with_pool(disk, folder, self.cache.clone(), self.file_keys.clone(), pool).await
    }

    /// Takes over what another opening of the same folder found.
    pub(crate) fn take_over(&self, fresh: &Partition<D>) {
        self.state.swap(&fresh.state);
        self.index_file.swap(&fresh.index_file);
        self.index_was_rebuilt.set(fresh.index_was_rebuilt());
    }

    /// Removes what the manifest does not name. Files whose blocks belong to the pool and that are here in full come back.
    async fn remove_strangers(&self, manifest: &Manifest) -> Result<BTreeSet<String>, OpenError> {
        let mut doubled = BTreeSet::new();
        let files = &manifest.files;
        let index = manifest.index.as_ref().map(|index| index_file::name_of(index.generation));
        for folder in self.disk.list(&self.folder).await.map_err(|error| self.open_error(error))? {
            if index_file::is_name(&folder) && Some(&folder) != index.as_ref() {
                let path = format!("{}/{folder}", self.folder);
                self.disk.remove(&path).await.map_err(|error| self.open_error(error))?;
                continue;
            }
            let Some(group) = folder.strip_prefix('g').and_then(|number| number.parse::<u64>().ok()) else { continue };
            let path = format!("{}/{folder}", self.folder);
            for name in self.disk.list(&path).await.map_err(|error| self.open_error(error))? {
                let is_of =
                    |file: &FileRecord| file.name() == name || (file.tier == Tier::Pool && file.tail_name() == name);
                let known = files.iter().find(|file| file.shard_group == group && is_of(file));
                if known.is_some_and(|file| file.tier == Tier::Pool && file.name() == name) {
                    doubled.insert(format!("{path}/{name}"));
                }
                if known.is_none() {
                    tracing::info!(path, name, "removing a file that no manifest names");
                    self.disk.remove(&format!("{path}/{name}")).await.map_err(|error| self.open_error(error))?;
                }
            }
        }
        Ok(doubled)
    }

    fn open_error(&self, error: std::io::Error) -> OpenError {
        OpenError::Io { path: self.folder.clone(), error }
    }

    pub(crate) fn group_folder(&self, group: ShardGroupId) -> String {
        format!("{}/g{}", self.folder, group.0)
    }

    /// Databases and shard groups that hold something here, sorted.
    pub fn holdings(&self) -> (Vec<DatabaseId>, Vec<ShardGroupId>) {
        let state = self.state.borrow();
        (state.databases.keys().copied().collect(), state.groups.keys().copied().collect())
    }

    /// The series of a database; absent while nothing was written to it here.
    pub fn index(&self, database: DatabaseId) -> Option<Ref<'_, SeriesIndex>> {
        Ref::filter_map(self.state.borrow(), |state| state.databases.get(&database)).ok()
    }

    /// The shard groups that are there, of the given ones, in ascending time if the given ones are. What the view
    /// shows of files and frozen rows does not change under it.
    pub fn view(&self, groups: &[ShardGroupId]) -> PartitionView<D> {
        let state = self.state.borrow();
        PartitionView { groups: groups.iter().filter_map(|id| state.groups.get(id)).map(ShardGroup::view).collect() }
    }

    /// A cursor over fields of one series. It opens its sources when it comes to them.
    pub fn cursor(
        &self,
        view: &PartitionView<D>,
        database: DatabaseId,
        series: SeriesId,
        fields: &Rc<[ScanField]>,
        range: (i64, i64),
        descending: bool,
    ) -> SeriesCursor<D::File> {
        let key = self.index(database).and_then(|index| Some(Box::from(index.known_key(series)?)));
        // An unknown series has no key and is in no group.
        let groups = if key.is_some() { view.groups.clone() } else { Rc::new([]) };
        let scan = Scan { series, key: key.unwrap_or_default(), fields: fields.clone(), range };
        SeriesCursor::new(groups, scan, descending)
    }

    /// Bytes in memory and on disk.
    pub fn figures(&self) -> PartitionFigures {
        let state = self.state.borrow();
        let mut figures = PartitionFigures { copies: self.copy_counts.figures(), ..PartitionFigures::default() };
        for group in state.groups.values() {
            let (active, frozen) = group.memtable_bytes();
            figures.active_bytes += active;
            figures.frozen_bytes += frozen;
            figures.files += group.files.len();
            for file in group.files.iter() {
                figures.file_bytes += file.byte_size();
                figures.disk_bytes += file.local_size();
                figures.pool_files += usize::from(file.tier() != Tier::Local);
                figures.pool_bytes += file.size() - file.local_size();
                figures.copied_files += usize::from(file.level() == 2);
                figures.late_files += usize::from(file.rank().0);
            }
        }
        for index in state.databases.values() {
            figures.index_bytes += index.byte_size();
            figures.series += index.alive_count();
        }
        figures
    }

    /// Databases that have an index.
    pub fn databases(&self) -> Vec<DatabaseId> {
        self.state.borrow().databases.keys().copied().collect()
    }

    /// Bytes of the series indexes.
    pub fn index_bytes(&self) -> usize {
        self.state.borrow().databases.values().map(SeriesIndex::byte_size).sum()
    }

    /// Bytes of rows in active and in frozen memtables.
    pub fn memtable_bytes(&self) -> (usize, usize) {
        let state = self.state.borrow();
        let groups = state.groups.values().map(ShardGroup::memtable_bytes);
        groups.fold((0, 0), |sum, group| (sum.0 + group.0, sum.1 + group.1))
    }

    /// Whether there are rows that a flush would move.
    pub fn has_unflushed_rows(&self) -> bool {
        self.state.borrow().groups.values().any(|group| group.active.borrow().row_count() > 0)
    }
}
