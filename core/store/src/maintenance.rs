//! The work that applied entries leave behind: flushes and removal of files.
//!
//! Owns: its order, and what happens when it fails.
//! Invariants: the manifest is published after the files that it names and before the files that it no longer names are
//! removed; a job leaves the queue when it is done, so that a failed one is tried again; rows stay readable in memory
//! until their files have taken over. Removals go first, of blocks that are in the pool as well: a flush may be waiting
//! for the room that they make.
//! Knows nothing of why an entry was proposed.

use crate::{
    copy::PendingCopy,
    file_run::{FileTarget, FlushError},
    flush::write_files,
    id::{DatabaseId, ShardGroupId},
    index::SeriesIndex,
    manifest::{CopyRecord, FileRecord, GroupRecord, Manifest, ManifestError, PolicyRecord},
    partition::Partition,
    publication::Marks,
    read_error::ReadError,
    sessions::Sessions,
    settle::{Unsettled, all_series},
    shard_group::{Frozen, ShardGroup},
    tsm_file::TsmFile,
};
use roaring::RoaringBitmap;
use std::{io, rc::Rc};
use tidemill_disk::{Disk, DiskFile};
use tidemill_raft::{LogIndex, Term};
use tidemill_tsm::key;
use xxhash_rust::xxh3::xxh3_64;

/// Work that an applied entry left.
pub(crate) enum Job<F: DiskFile> {
    /// Write the memtables that were frozen by this entry.
    Flush { point: Rc<FlushPoint>, marks: Rc<Marks>, publication: Publication },
    /// Remove files, and those whose names begin so. If `is_named`, the manifest may name some of them and is replaced
    /// first. `files` are of dropped shard groups, as long as their series were not entered among the unsettled.
    Remove { paths: Vec<String>, files: Vec<(DatabaseId, Rc<TsmFile<F>>)>, is_named: bool },
}

/// A flush entry, with the state that the manifest holds as of it.
pub(crate) struct FlushPoint {
    pub index: LogIndex,
    pub term: Term,
    pub sessions: Sessions,
    pub groups: Vec<GroupRecord>,
    pub policies: Vec<PolicyRecord>,
    pub members: Vec<u8>,
}

/// Whether a manifest on disk may name the files of a flush.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Publication {
    None,
    /// It was begun and not seen to succeed: its fate is unknown, so the files must stay.
    Tried,
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
    Read(#[from] ReadError),
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
}

impl MaintainError {
    /// The disk has no room; reads and the log's spare segments go on.
    pub fn is_disk_full(&self) -> bool {
        let error = match self {
            MaintainError::Flush(FlushError::Io { error, .. })
            | MaintainError::Manifest(ManifestError::Io { error, .. } | ManifestError::Unknown { error, .. })
            | MaintainError::Io { error, .. } => error,
            _ => return false,
        };
        error.kind() == io::ErrorKind::StorageFull
    }
}

/// The files that a flush made of one frozen memtable.
struct Made<F: DiskFile> {
    group: ShardGroupId,
    frozen: Rc<Frozen>,
    records: Vec<FileRecord>,
    files: Vec<TsmFile<F>>,
}

impl<D: Disk> Partition<D> {
    /// Whether applied entries left work for [`Partition::maintain`].
    pub fn has_work(&self) -> bool {
        let state = self.state.borrow();
        !state.jobs.is_empty() || !state.unsettled.is_empty() || !state.leaving.is_empty()
    }

    /// Does the work that applied entries left. Returns the index up to which the log is not needed any more. Only one
    /// call is at work at a time; another returns at once.
    pub async fn maintain(&self) -> Result<LogIndex, MaintainError> {
        if self.maintaining.replace(true) {
            return Ok(self.flushed().0);
        }
        let result = self.work_off().await;
        self.maintaining.set(false);
        result.map(|()| self.flushed().0)
    }

    async fn work_off(&self) -> Result<(), MaintainError> {
        let mut left = Ok(());
        loop {
            let removal = self.state.borrow().jobs.iter().position(|job| matches!(job, Job::Remove { .. }));
            if let Some(position) = removal {
                // Later entries queue up behind; nothing else takes jobs away.
                let (paths, files, is_named) = match &self.state.borrow().jobs[position] {
                    Job::Remove { paths, files, is_named } => (paths.clone(), files.clone(), *is_named),
                    Job::Flush { .. } => (Vec::new(), Vec::new(), false),
                };
                for (database, file) in &files {
                    self.unsettle(*database, file).await;
                }
                if let Job::Remove { files, .. } = &mut self.state.borrow_mut().jobs[position] {
                    files.clear();
                }
                self.remove(&paths, is_named).await?;
                self.state.borrow_mut().jobs.remove(position);
                continue;
            }
            if left.is_ok() && !self.state.borrow().leaving.is_empty() {
                left = self.let_blocks_go().await;
                continue;
            }
            let (point, marks) = match self.state.borrow().jobs.front() {
                Some(Job::Flush { point, marks, .. }) => (point.clone(), marks.clone()),
                _ => break,
            };
            let spent = self.flush(point, &marks).await?;
            // A removal may have come in behind it, never before it.
            self.state.borrow_mut().jobs.pop_front();
            for frozen in spent {
                frozen.discard().await;
            }
        }
        // Deletes that were replayed, or whose owner does not settle them; flushes wait for a part of it at most.
        if let Err(error) = self.settle_some().await {
            // Such a series stays in the index for now; a query of it names the damage.
            tracing::warn!(%error, folder = self.folder, "deleted series cannot be looked at");
        }
        left
    }

    /// Gives the memtables that are in files now.
    async fn flush(&self, point: Rc<FlushPoint>, marks: &Marks) -> Result<Vec<Rc<Frozen>>, MaintainError> {
        let index = point.index;
        let held: Vec<(ShardGroupId, Rc<Frozen>)> = {
            let state = self.state.borrow();
            let of_entry =
                |group: &ShardGroup<D::File>| group.frozen.iter().find(|frozen| frozen.generation == index.0).cloned();
            state.groups.iter().filter_map(|(id, group)| Some((*id, of_entry(group)?))).collect()
        };
        let mut made = Vec::new();
        for (group, frozen) in &held {
            match self.write_group(*group, frozen, index).await {
                Ok(Some((records, files))) => {
                    made.push(Made { group: *group, frozen: frozen.clone(), records, files });
                }
                // Dropped meanwhile; a removal is behind us in the queue.
                Ok(None) => {}
                Err(error) => {
                    self.clear_away(&held, index).await;
                    return Err(error);
                }
            }
        }
        // From here to the end the turn is held: a copy that published in between would take the flush back.
        let turn = self.publishing.take().await;
        let build = || {
            let mut manifest = self.manifest_to_publish(&point);
            for made in made.iter().filter(|made| self.is_held(made.group, &made.frozen)) {
                manifest.files.extend(made.records.iter().map(|record| made.frozen.marked(record)));
            }
            manifest.sort_files();
            manifest
        };
        if let Err(error) = self.publish(Some(marks), build).await {
            if let MaintainError::Manifest(ManifestError::Unknown { .. }) = error
                && let Some(Job::Flush { publication, .. }) = self.state.borrow_mut().jobs.front_mut()
            {
                *publication = Publication::Tried;
            }
            self.clear_away(&held, index).await;
            return Err(error);
        }
        // The manifest is there: from here on nothing waits and nothing fails, or the state would be behind it and the
        // next manifest would take the flush back.
        let mut spent = Vec::new();
        for made in made {
            if self.is_held(made.group, &made.frozen) {
                let state = &mut *self.state.borrow_mut();
                if let Some(group) = state.groups.get_mut(&made.group) {
                    spent.extend(group.thaw(index.0, made.files));
                }
            }
        }
        self.state.borrow_mut().flushed = point;
        drop(turn);
        Ok(spent)
    }

    /// Writes one frozen memtable and opens its files; `None` if its rows were dropped meanwhile.
    async fn write_group(
        &self,
        id: ShardGroupId,
        frozen: &Rc<Frozen>,
        index: LogIndex,
    ) -> Result<Option<(Vec<FileRecord>, Vec<TsmFile<D::File>>)>, MaintainError> {
        let Some((database, policy)) = self.state.borrow().groups.get(&id).map(|group| (group.database, group.policy))
        else {
            return Ok(None);
        };
        let folder = self.group_folder(id);
        let io_error = |error| MaintainError::Io { path: folder.clone(), error };
        self.disk.create_dir(&folder).await.map_err(io_error)?;
        let floats = frozen.floats.into();
        let target = FileTarget { database: database.0, policy, shard_group: id.0, level: 1, floats };
        let lend = |see: &mut dyn FnMut(&SeriesIndex)| {
            if !self.is_held(id, frozen) {
                return false;
            }
            let state = self.state.borrow();
            let dictionary = state.databases.get(&database);
            dictionary.map(see).is_some()
        };
        let written = write_files(&self.disk, &folder, target, index.0, &frozen.memtable, &lend).await?;
        let Some(records) = written else { return Ok(None) };
        let mut files = Vec::with_capacity(records.len());
        for record in &records {
            files.push(self.open_file(record.clone()).await?);
        }
        Ok(Some((records, files)))
    }

    /// Whether the rows are still the partition's: neither dropped nor in files yet.
    fn is_held(&self, group: ShardGroupId, frozen: &Rc<Frozen>) -> bool {
        let state = self.state.borrow();
        state.groups.get(&group).is_some_and(|group| group.frozen.iter().any(|known| Rc::ptr_eq(known, frozen)))
    }

    /// Removes what a failed flush wrote, as far as the disk lets us: the room may be what the next try needs.
    async fn clear_away(&self, frozen: &[(ShardGroupId, Rc<Frozen>)], index: LogIndex) {
        let publication = match self.state.borrow().jobs.front() {
            Some(Job::Flush { publication, .. }) => *publication,
            _ => return,
        };
        if publication == Publication::Tried {
            return;
        }
        for (group, _) in frozen {
            let _ = self.remove_matching(&self.group_folder(*group), &generation_prefix(index.0)).await;
        }
    }

    async fn remove(&self, paths: &[String], is_named: bool) -> Result<(), MaintainError> {
        if is_named {
            self.publish_before_a_removal().await?;
        }
        for path in paths {
            let (folder, prefix) = path.rsplit_once('/').unwrap_or(("", path));
            self.remove_matching(folder, prefix).await?;
        }
        Ok(())
    }

    /// Publishes what the state says, of the same entry as before.
    pub(crate) async fn publish_before_a_removal(&self) -> Result<(), MaintainError> {
        let _turn = self.publishing.take().await;
        let point = self.state.borrow().flushed.clone();
        let published = self.publish(None, || self.manifest_to_publish(&point)).await;
        if published.as_ref().is_err_and(MaintainError::is_disk_full) {
            // The removal is what makes room.
            return self.publish_on_a_full_disk(self.manifest_to_publish(&point)).await;
        }
        published
    }

    /// The series of a file that is dropped may have no other points.
    async fn unsettle(&self, database: DatabaseId, file: &TsmFile<D::File>) {
        let mut scan = file.keys();
        loop {
            let page = match scan.next().await {
                Ok(Some(page)) => page,
                Ok(None) => return,
                Err(error) => {
                    // The file is to go nevertheless. Its series are among all of them.
                    tracing::warn!(%error, folder = self.folder, "the series of a dropped file cannot be read");
                    let state = &mut *self.state.borrow_mut();
                    if let Some(index) = state.databases.get(&database) {
                        state.unsettled.push_back(Unsettled::Series { database, left: all_series(index) });
                    }
                    return;
                }
            };
            let state = &mut *self.state.borrow_mut();
            let Some(index) = state.databases.get(&database) else { return };
            let mut last: &[u8] = &[];
            let mut series = RoaringBitmap::new();
            for (key, _) in page.keys().filter_map(|found| key::split(found.key)) {
                if key != last {
                    series.extend(index.find(xxh3_64(key), key).map(|id| id.0));
                    last = key;
                }
            }
            if !series.is_empty() {
                state.unsettled.push_back(Unsettled::Series { database, left: series });
            }
        }
    }

    /// Removes the files whose names begin so.
    pub(crate) async fn remove_matching(&self, folder: &str, prefix: &str) -> Result<(), MaintainError> {
        let io_error = |error| MaintainError::Io { path: format!("{folder}/{prefix}"), error };
        let names = self.disk.list(folder).await.map_err(io_error)?;
        for name in names.iter().filter(|name| name.starts_with(prefix)) {
            self.disk.remove(&format!("{folder}/{name}")).await.map_err(io_error)?;
        }
        Ok(())
    }

    /// The manifest as of the newest flush, for a copy of the partition's files: without the file of the series index,
    /// which still grows and which a start makes anew from the others, and without the members: who starts from the copy is
    /// founded anew.
    pub async fn snapshot(&self) -> Manifest {
        let _turn = self.publishing.take().await;
        let point = self.state.borrow().flushed.clone();
        Manifest { members: Vec::new(), ..self.manifest(&point) }
    }

    /// The manifest as of a flush, with the files, tombstones and pending copies as they are now.
    fn manifest(&self, point: &FlushPoint) -> Manifest {
        let state = self.state.borrow();
        let files = state.groups.values().flat_map(|group| group.files.iter().map(|file| file.record())).collect();
        let copy = |(index, copy): (&u64, &PendingCopy)| {
            let (order, handed) = (copy.order.clone(), copy.handed.clone());
            CopyRecord { index: *index, order, handed }
        };
        let mut manifest = Manifest {
            flushed_index: point.index.0,
            flushed_term: point.term.0,
            files,
            sessions: point.sessions.clone(),
            groups: point.groups.clone(),
            policies: point.policies.clone(),
            members: point.members.clone(),
            copies_index: state.copies_index,
            copies: state.copies.iter().map(copy).collect(),
            index: None,
        };
        manifest.sort_files();
        manifest
    }

    /// As [`Partition::manifest`], with the files of dropped shard groups whose series may not have lost their last points
    /// for good: 1. a drop is applied; 2. a flush or a copy of other files publishes; 3. a crash. The drop is replayed,
    /// and without those files nobody would know which series had no others.
    pub(crate) fn manifest_to_publish(&self, point: &FlushPoint) -> Manifest {
        let mut manifest = self.manifest(point);
        for job in &self.state.borrow().jobs {
            if let Job::Remove { files, .. } = job {
                manifest.files.extend(files.iter().map(|(_, file)| file.record()));
            }
        }
        manifest.sort_files();
        manifest
    }
}

/// How the names of a generation's files begin.
pub(crate) fn generation_prefix(generation: u64) -> String {
    format!("{generation:09}-")
}
