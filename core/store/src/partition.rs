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
    cursor::SeriesCursor,
    entry::{Command, Entry},
    flush::{FlushError, FlushTarget, write_files},
    id::{DatabaseId, FieldId, SeriesId, ShardGroupId},
    index::SeriesIndex,
    manifest::{FileRecord, Manifest, ManifestError},
    memtable::{Memtable, Watermarks},
    pace::breathe,
    read_error::ReadError,
    shard_group::{ScanField, ShardGroup, ShardGroupView},
    tsm_file::TsmFile,
};
use roaring::RoaringBitmap;
use std::{
    cell::{Cell, Ref, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};
use tidemill_disk::Disk;
use tidemill_raft::{LogIndex, Term};

/// A partition on its core.
pub struct Partition<D: Disk> {
    disk: D,
    folder: String,
    cache: Rc<ReadCache>,
    file_keys: Rc<Cell<u64>>,
    pub(crate) state: RefCell<State<D>>,
    /// Maintenance is one at a time.
    maintaining: Cell<bool>,
}

/// What the log has made.
pub(crate) struct State<D: Disk> {
    pub databases: BTreeMap<DatabaseId, SeriesIndex>,
    pub groups: BTreeMap<ShardGroupId, ShardGroup<D::File>>,
    pub applied: LogIndex,
    pub flushed: (LogIndex, Term),
    pub sessions: BTreeMap<u64, u64>,
    /// The sessions as of `flushed`: what the manifest holds.
    pub flushed_sessions: BTreeMap<u64, u64>,
    pub jobs: VecDeque<Job>,
    /// Words of the row group that is being applied; kept for its memory.
    pub scratch: Vec<u64>,
}

/// Work that an applied entry left.
pub(crate) enum Job {
    /// Write the memtables that were frozen by this entry.
    Flush { index: LogIndex, term: Term, sessions: BTreeMap<u64, u64> },
    /// Remove files that the manifest must not name any more.
    Remove { paths: Vec<String> },
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

/// Why maintenance stopped. Nothing is lost: what is not in files is in the log. It may be tried again when the cause
/// is gone.
#[derive(Debug, thiserror::Error)]
pub enum MaintainError {
    #[error(transparent)]
    Flush(#[from] FlushError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Reopen(#[from] ReadError),
    #[error("{path}: {error}")]
    Io { path: String, error: std::io::Error },
}

impl MaintainError {
    /// The disk has no room; reads and the log's spare segments go on.
    pub fn is_disk_full(&self) -> bool {
        let error = match self {
            MaintainError::Flush(FlushError::Io { error, .. })
            | MaintainError::Manifest(ManifestError::Io { error, .. })
            | MaintainError::Io { error, .. } => error,
            _ => return false,
        };
        error.kind() == std::io::ErrorKind::StorageFull
    }
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
}

/// Some shard groups at one moment.
pub struct PartitionView<D: Disk> {
    groups: Vec<ShardGroupView<D::File>>,
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
        let io_error = |path: &str| {
            let path = path.to_string();
            move |error| OpenError::Io { path, error }
        };
        disk.create_dir(&folder).await.map_err(io_error(&folder))?;
        let manifest = Manifest::load(&disk, &folder).await?;
        let partition = Partition {
            disk,
            folder,
            cache,
            file_keys,
            state: RefCell::new(State {
                databases: BTreeMap::new(),
                groups: BTreeMap::new(),
                applied: LogIndex(manifest.flushed_index),
                flushed: (LogIndex(manifest.flushed_index), Term(manifest.flushed_term)),
                flushed_sessions: manifest.sessions.clone(),
                sessions: manifest.sessions,
                jobs: VecDeque::new(),
                scratch: Vec::new(),
            }),
            maintaining: Cell::new(false),
        };
        partition.remove_strangers(&manifest.files).await?;
        let mut tombstoned: BTreeMap<DatabaseId, RoaringBitmap> = BTreeMap::new();
        for record in manifest.files {
            let (database, group) = (DatabaseId(record.database), ShardGroupId(record.shard_group));
            let policy = record.policy;
            let has_tombstones = !record.tombstones.is_empty();
            let file = partition.open_file(record).await?;
            if has_tombstones {
                tombstoned.entry(database).or_default().extend(file.series().map(|series| series.0));
            }
            let mut state = partition.state.borrow_mut();
            let group = state.groups.entry(group).or_insert_with(|| ShardGroup::new(database, policy));
            Rc::make_mut(&mut group.files).push(Rc::new(file));
        }
        for group in partition.state.borrow_mut().groups.values_mut() {
            let mut watermarks = Watermarks::default();
            for file in group.files.iter().filter(|file| !file.record().late) {
                for series in file.series() {
                    let max = file.max_time(series).unwrap_or(i64::MIN);
                    let known = watermarks.entry(series).or_insert(max);
                    *known = max.max(*known);
                }
            }
            group.active = Rc::new(RefCell::new(Memtable::above(watermarks)));
        }
        for (database, series) in tombstoned {
            partition.settle(database, &series).await?;
        }
        Ok(partition)
    }

    /// Everything up to here is in files.
    pub fn flushed(&self) -> (LogIndex, Term) {
        self.state.borrow().flushed
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
            Some(Entry::Write(batch)) => state.apply_write(batch)?,
            Some(Entry::Command(Command::Flush)) => state.apply_flush(term, index),
            Some(Entry::Command(Command::Delete { database, measurements, condition, min_time, max_time })) => {
                state.apply_delete(DatabaseId(database), &measurements, &condition, (min_time, max_time))?
            }
            Some(Entry::Command(Command::DropShardGroups { groups })) => self.apply_drop(state, None, &groups),
            Some(Entry::Command(Command::DropDatabase { database, groups })) => {
                self.apply_drop(state, Some(DatabaseId(database)), &groups)
            }
        };
        state.applied = index;
        Ok(applied)
    }

    fn apply_drop(&self, state: &mut State<D>, database: Option<DatabaseId>, groups: &[u64]) -> Applied {
        let mut paths = Vec::new();
        for id in groups {
            let Some(group) = state.groups.remove(&ShardGroupId(*id)) else { continue };
            for file in group.files.iter() {
                paths.push(file.path().to_string());
                self.cache.forget(file.cache_key());
            }
            for generation in group.frozen.iter().map(|frozen| frozen.generation) {
                // A flush under way may still write them; they are removed behind it.
                paths.push(format!("{}/{generation:09}-*", self.group_folder(ShardGroupId(*id))));
            }
        }
        if let Some(database) = database {
            state.databases.remove(&database);
        }
        state.jobs.push_back(Job::Remove { paths });
        Applied::Dropped
    }

    /// Whether applied entries left work for [`Partition::maintain`].
    pub fn has_work(&self) -> bool {
        !self.state.borrow().jobs.is_empty()
    }

    /// Does the work that applied entries left, in their order. Returns the index up to which the log is not needed
    /// any more. Only one call is at work at a time; another returns at once.
    pub async fn maintain(&self) -> Result<LogIndex, MaintainError> {
        if self.maintaining.replace(true) {
            return Ok(self.flushed().0);
        }
        let result = self.work_off().await;
        self.maintaining.set(false);
        result.map(|()| self.flushed().0)
    }

    async fn work_off(&self) -> Result<(), MaintainError> {
        loop {
            // The job stays in front until it is done: a failed one is tried again.
            let (flush, remove) = match self.state.borrow().jobs.front() {
                None => return Ok(()),
                Some(Job::Flush { index, term, sessions }) => (Some((*index, *term, sessions.clone())), Vec::new()),
                Some(Job::Remove { paths }) => (None, paths.clone()),
            };
            match flush {
                Some((index, term, sessions)) => self.flush(index, term, sessions).await?,
                None => self.remove(&remove).await?,
            }
            self.state.borrow_mut().jobs.pop_front();
        }
    }

    async fn flush(&self, index: LogIndex, term: Term, sessions: BTreeMap<u64, u64>) -> Result<(), MaintainError> {
        let frozen: Vec<(ShardGroupId, DatabaseId, u32, Rc<RefCell<Memtable>>)> = {
            let state = self.state.borrow();
            let of_entry = |group: &ShardGroup<D::File>| {
                let frozen = group.frozen.iter().find(|frozen| frozen.generation == index.0)?;
                Some((group.database, group.policy, frozen.memtable.clone()))
            };
            let frozen = state.groups.iter().filter_map(|(id, group)| of_entry(group).map(|found| (*id, found)));
            frozen.map(|(id, (database, policy, memtable))| (id, database, policy, memtable)).collect()
        };
        let mut made = Vec::new();
        for (group, database, policy, memtable) in frozen {
            let folder = self.group_folder(group);
            let io_error = |error| MaintainError::Io { path: folder.clone(), error };
            self.disk.create_dir(&folder).await.map_err(io_error)?;
            let target = FlushTarget { database: database.0, policy, shard_group: group.0, generation: index.0 };
            let lend = |see: &mut dyn FnMut(&SeriesIndex)| {
                if let Some(index) = self.state.borrow().databases.get(&database) {
                    see(index);
                }
            };
            // A database that was dropped meanwhile has no dictionary any more; nobody will miss its files.
            if !self.state.borrow().databases.contains_key(&database) {
                continue;
            }
            made.push((group, write_files(&self.disk, &folder, target, &memtable, &lend).await?));
        }
        let still_there = |group: &ShardGroupId| self.state.borrow().groups.contains_key(group);
        let mut manifest = self.manifest(index, term, sessions.clone());
        for (_, records) in made.iter().filter(|(group, _)| still_there(group)) {
            manifest.files.extend(records.iter().cloned());
        }
        manifest.files.sort_by_key(|file| (file.shard_group, file.generation, file.sequence));
        manifest.publish(&self.disk, &self.folder).await?;
        for (group, records) in made {
            let mut files = Vec::new();
            for record in records {
                if still_there(&group) {
                    files.push(self.open_file(record).await?);
                }
            }
            let state = &mut *self.state.borrow_mut();
            if let Some(known) = state.groups.get_mut(&group) {
                if let Some(dictionary) = state.databases.get(&known.database) {
                    known.thaw(index.0, files, dictionary);
                }
            }
        }
        let mut state = self.state.borrow_mut();
        (state.flushed, state.flushed_sessions) = ((index, term), sessions);
        Ok(())
    }

    async fn remove(&self, paths: &[String]) -> Result<(), MaintainError> {
        let (index, term) = self.flushed();
        let sessions = self.state.borrow().flushed_sessions.clone();
        self.manifest(index, term, sessions).publish(&self.disk, &self.folder).await?;
        for path in paths {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            let io_error = |error| MaintainError::Io { path: path.clone(), error };
            let names = self.disk.list(folder).await.map_err(io_error)?;
            let wanted = |known: &String| match name.strip_suffix('*') {
                Some(prefix) => known.starts_with(prefix),
                None => known == name,
            };
            for found in names.into_iter().filter(wanted) {
                self.disk.remove(&format!("{folder}/{found}")).await.map_err(io_error)?;
            }
        }
        Ok(())
    }

    /// The manifest as of a flushed index, with the files and tombstones as they are now.
    fn manifest(&self, index: LogIndex, term: Term, sessions: BTreeMap<u64, u64>) -> Manifest {
        let state = self.state.borrow();
        let files = state.groups.values().flat_map(|group| group.files.iter().map(|file| file.record())).collect();
        Manifest { flushed_index: index.0, flushed_term: term.0, files, sessions }
    }

    async fn open_file(&self, record: FileRecord) -> Result<TsmFile<D::File>, ReadError> {
        let database = DatabaseId(record.database);
        let path = format!("{}/{}", self.group_folder(ShardGroupId(record.shard_group)), record.name());
        let key = FileKey(self.file_keys.replace(self.file_keys.get() + 1));
        // The dictionary cannot be borrowed across the reads: it is taken in after them.
        let loaded = TsmFile::load(&self.disk, path, record, key, self.cache.clone()).await?;
        let mut state = self.state.borrow_mut();
        loaded.enter(state.databases.entry(database).or_default())
    }

    async fn remove_strangers(&self, files: &[FileRecord]) -> Result<(), OpenError> {
        for folder in self.disk.list(&self.folder).await.map_err(|error| self.open_error(error))? {
            let Some(group) = folder.strip_prefix('g').and_then(|number| number.parse::<u64>().ok()) else { continue };
            let path = format!("{}/{folder}", self.folder);
            for name in self.disk.list(&path).await.map_err(|error| self.open_error(error))? {
                if !files.iter().any(|file| file.shard_group == group && file.name() == name) {
                    tracing::info!(path, name, "removing a file that no manifest names");
                    self.disk.remove(&format!("{path}/{name}")).await.map_err(|error| self.open_error(error))?;
                }
            }
        }
        Ok(())
    }

    fn open_error(&self, error: std::io::Error) -> OpenError {
        OpenError::Io { path: self.folder.clone(), error }
    }

    fn group_folder(&self, group: ShardGroupId) -> String {
        format!("{}/g{}", self.folder, group.0)
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

    /// A cursor over fields of one series.
    pub fn cursor(
        &self,
        view: &PartitionView<D>,
        database: DatabaseId,
        series: SeriesId,
        fields: &[ScanField],
        range: (i64, i64),
        descending: bool,
    ) -> SeriesCursor<D::File> {
        let Some(index) = self.index(database) else { return SeriesCursor::new(Vec::new(), fields.len(), descending) };
        let measurement = tidemill_line::series_key::measurement(index.key(series));
        let field_type = |id: FieldId| index.field(id).field_type;
        let lanes = |group: &ShardGroupView<D::File>| group.lanes(series, &measurement, fields, field_type, range);
        let mut groups: Vec<_> = view.groups.iter().map(lanes).collect();
        if descending {
            groups.reverse();
        }
        SeriesCursor::new(groups, fields.len(), descending)
    }

    /// Takes the series that have no point left out of the index. Blocks of which a part was deleted are read.
    pub async fn settle(&self, database: DatabaseId, series: &RoaringBitmap) -> Result<(), ReadError> {
        for (count, id) in series.iter().map(SeriesId).enumerate() {
            if count % 64 == 63 {
                breathe().await;
            }
            let Some(key) = self.index(database).map(|index| index.key(id).to_vec()) else { return Ok(()) };
            let measurement = tidemill_line::series_key::measurement(&key).into_owned();
            let views: Vec<ShardGroupView<D::File>> = {
                let state = self.state.borrow();
                state.groups.values().filter(|group| group.database == database).map(ShardGroup::view).collect()
            };
            let known: Vec<Option<bool>> = views.iter().map(|view| view.surely_has_points(id, &measurement)).collect();
            let mut alive = known.contains(&Some(true));
            if !alive && known.contains(&None) {
                alive = self.has_points(database, id, &measurement, views).await?;
            }
            if !alive {
                if let Some(index) = self.state.borrow_mut().databases.get_mut(&database) {
                    index.remove(id);
                }
            }
        }
        Ok(())
    }

    /// Reads until a point is found.
    async fn has_points(
        &self,
        database: DatabaseId,
        series: SeriesId,
        measurement: &[u8],
        groups: Vec<ShardGroupView<D::File>>,
    ) -> Result<bool, ReadError> {
        let fields: Vec<ScanField> = {
            let Some(index) = self.index(database) else { return Ok(false) };
            let names = index.field_names(measurement);
            names.map(|name| ScanField { name: name.into(), ids: index.field_ids(measurement, name) }).collect()
        };
        let view = PartitionView { groups };
        let mut cursor = self.cursor(&view, database, series, &fields, (i64::MIN, i64::MAX), false);
        Ok(cursor.next().await?.is_some())
    }

    /// Bytes in memory and on disk.
    pub fn figures(&self) -> PartitionFigures {
        let state = self.state.borrow();
        let mut figures = PartitionFigures::default();
        for group in state.groups.values() {
            let (active, frozen) = group.memtable_bytes();
            figures.active_bytes += active;
            figures.frozen_bytes += frozen;
            figures.files += group.files.len();
            for file in group.files.iter() {
                figures.file_bytes += file.byte_size();
                figures.disk_bytes += file.size();
            }
        }
        for index in state.databases.values() {
            figures.index_bytes += index.byte_size();
            figures.series += index.alive_count();
        }
        figures
    }

    /// Whether there are rows that a flush would move.
    pub fn has_unflushed_rows(&self) -> bool {
        self.state.borrow().groups.values().any(|group| group.active.borrow().row_count() > 0)
    }
}
