//! The inter-level copy: files of a shard group become fewer, larger, sealed ones.
//!
//! Owns: the copies that the log has decided and that are not done, and one of them at a time on its way.
//! Invariants: what a copy writes follows from the log alone (I7), so it begins when every flush and every earlier copy
//! of its shard group is done and takes no notice of anything that came later; one manifest edit moves the points from
//! the sources to the new files (I8); sources stay until that edit is durable, and their bytes as long as somebody
//! reads them. A copy runs beside flushes and never makes one wait, but for the moment of its own edit.
//!
//! A copy and what may meet it, by index of the entries (c is the copy's):
//!
//! | entry | what happens |
//! |---|---|
//! | delete before c | its points are left out, and it is done with for the new files |
//! | delete behind c | it marks the sources; the new files take the mark over, whenever they come |
//! | flush behind c | its files are no sources |
//! | hand-over of a source behind c | moves its blocks or not, which are read wherever they are; the copy takes it away |
//! | hand-over of what it makes | waits for it |
//! | drop of the group behind c | the copy ends without an edit and what it wrote is removed |
//! | another copy of the group | waits for this one |
//!
//! Knows nothing of why a copy was proposed.

use crate::{
    copy_merge::{MergeError, WorkTurn, merge_key},
    copy_output::{CopyOutput, CopyWork},
    copy_plan::{Choice, KeyWalk, choose},
    entry::CopyOrder,
    file_run::FileTarget,
    id::ShardGroupId,
    maintenance::{Job, MaintainError, Publication, generation_prefix},
    manifest::{FileRecord, HandedFile, Manifest, ManifestError, Tier},
    partition::Partition,
    shard_group::deletions_behind,
    tsm_file::TsmFile,
};
use std::{cell::Cell, rc::Rc};
use tidemill_disk::{Disk, DiskFile};
use tidemill_raft::LogIndex;

/// A copy that is decided and not done.
#[derive(Clone)]
pub(crate) struct PendingCopy {
    pub order: CopyOrder,
    /// Files that it makes and that were handed over since, elsewhere already made.
    pub handed: Vec<(HandedFile, Tier)>,
    pub publication: Publication,
}

/// What copies did since the partition was opened.
#[derive(Default)]
pub(crate) struct CopyCounts {
    figures: Cell<CopyFigures>,
}

/// Figures of copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyFigures {
    pub copies: u64,
    pub files_read: u64,
    pub files_written: u64,
    /// Bytes of whole files.
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// See [`CopyWork`].
    pub blocks_copied: u64,
    pub bytes_copied: u64,
    pub blocks_merged: u64,
    pub blocks_joined: u64,
    pub blocks_vanished: u64,
}

impl CopyFigures {
    /// Adds those of another partition.
    pub fn add(&mut self, other: &CopyFigures) {
        let CopyFigures {
            copies,
            files_read,
            files_written,
            bytes_read,
            bytes_written,
            blocks_copied,
            bytes_copied,
            blocks_merged,
            blocks_joined,
            blocks_vanished,
        } = other;
        self.copies += copies;
        self.files_read += files_read;
        self.files_written += files_written;
        self.bytes_read += bytes_read;
        self.bytes_written += bytes_written;
        self.blocks_copied += blocks_copied;
        self.bytes_copied += bytes_copied;
        self.blocks_merged += blocks_merged;
        self.blocks_joined += blocks_joined;
        self.blocks_vanished += blocks_vanished;
    }
}

impl CopyCounts {
    pub fn figures(&self) -> CopyFigures {
        self.figures.get()
    }

    fn count(&self, bytes_read: u64, files_read: usize, written: &[FileRecord], work: &CopyWork) {
        let mut figures = self.figures.get();
        figures.add(&CopyFigures {
            copies: 1,
            files_read: files_read as u64,
            files_written: written.len() as u64,
            bytes_read,
            bytes_written: written.iter().map(|record| record.size).sum(),
            blocks_copied: work.blocks_copied,
            bytes_copied: work.bytes_copied,
            blocks_merged: work.blocks_merged,
            blocks_joined: work.blocks_joined,
            blocks_vanished: work.blocks_vanished,
        });
        self.figures.set(figures);
    }
}

/// How a copy ended.
enum Ending {
    Done,
    /// Its shard group was dropped.
    Void,
    /// Copies were halted: it stays decided.
    Halted,
}

/// What is left of a copy whose files were written.
enum Written {
    Files(Vec<FileRecord>, CopyWork),
    Void,
    Halted,
}

impl<D: Disk> Partition<D> {
    /// Whether a copy can be made now.
    pub fn has_copies(&self) -> bool {
        self.next_copy().is_some()
    }

    /// Makes the oldest copy that is decided, beside [`Partition::maintain`]. Returns whether there was one. Only one
    /// call is at work at a time; another returns at once.
    ///
    /// # Errors
    /// If files cannot be read or written; the copy stays decided and can be tried again.
    pub async fn copy(&self) -> Result<bool, MaintainError> {
        if self.copying.replace(true) {
            return Ok(false);
        }
        let result = self.make_copy().await;
        self.copying.set(false);
        result
    }

    /// Lets a copy that is under way end where it is, and makes no more: for a stop that does not wait for it.
    pub fn halt_copies(&self) {
        self.halting.set(true);
    }

    /// The oldest copy, if all that it builds on is there: flushes are worked off in their order, and so are copies.
    fn next_copy(&self) -> Option<(u64, CopyOrder)> {
        let state = self.state.borrow();
        let (index, copy) = state.copies.first_key_value()?;
        let is_flushed = |job: &Job<D::File>| match job {
            Job::Flush { point, .. } => point.index > LogIndex(*index),
            Job::Remove { .. } => true,
        };
        (state.applied.0 >= *index && state.jobs.iter().all(is_flushed)).then(|| (*index, copy.order.clone()))
    }

    async fn make_copy(&self) -> Result<bool, MaintainError> {
        let Some((index, order)) = self.next_copy().filter(|_| !self.halting.get()) else { return Ok(false) };
        let group = ShardGroupId(order.shard_group);
        match self.copy_group(index, group, &order).await {
            Ok(Ending::Done) => {}
            Ok(Ending::Halted) => self.clear_copy(index, group).await,
            Ok(Ending::Void) => self.clear_void_copy(index, group),
            Err(error) => {
                self.clear_copy(index, group).await;
                return Err(error);
            }
        }
        Ok(true)
    }

    /// Removes what a copy wrote that did not come to its end, as far as the disk lets us: the room may be what a flush
    /// waits for.
    async fn clear_copy(&self, index: u64, group: ShardGroupId) {
        let (tried, is_dropped) = {
            let state = self.state.borrow();
            (state.copies.get(&index).map(|copy| copy.publication), !state.groups.contains_key(&group))
        };
        if tried == Some(Publication::None) {
            let _ = self.remove_matching(&self.group_folder(group), &generation_prefix(index)).await;
        } else if tried.is_none() && is_dropped {
            self.clear_void_copy(index, group);
        }
    }

    /// Has the files of a copy removed whose shard group was dropped while they were written: the removal of the group's
    /// own files may have been before them.
    fn clear_void_copy(&self, index: u64, group: ShardGroupId) {
        // An edit that was tried may have become durable: the manifest is replaced before the files go.
        let paths = vec![format!("{}/{}", self.group_folder(group), generation_prefix(index))];
        self.state.borrow_mut().jobs.push_back(Job::Remove { paths, files: Vec::new(), is_named: true });
    }

    async fn copy_group(&self, index: u64, group: ShardGroupId, order: &CopyOrder) -> Result<Ending, MaintainError> {
        let (files, target) = {
            let mut state = self.state.borrow_mut();
            let Some(known) = state.groups.get(&group) else {
                state.copies.remove(&index);
                return Ok(Ending::Void);
            };
            let (database, policy) = (known.database.0, known.policy);
            (
                known.files.clone(),
                FileTarget { database, policy, shard_group: group.0, level: 2, floats: order.floats.into() },
            )
        };
        let Choice { sources, untouched_by_deletes } = choose(&files, index, order).await?;
        // Else whoever looks for space that deletes left would find them again and again. The next manifest says so.
        untouched_by_deletes.iter().for_each(|file| file.forget_tombstones(index));
        if sources.is_empty() {
            self.state.borrow_mut().copies.remove(&index);
            return Ok(Ending::Done);
        }
        let (records, work) = match self.write_copy(index, group, order, target, &sources).await? {
            Written::Files(records, work) => (records, work),
            Written::Void => return Ok(Ending::Void),
            Written::Halted => return Ok(Ending::Halted),
        };
        let mut made = Vec::with_capacity(records.len());
        for record in &records {
            made.push(self.open_file(record.clone()).await?);
        }
        let bytes_read = sources.iter().map(|file| file.size()).sum();
        let _turn = self.publishing.take().await;
        if !self.is_decided(index) {
            return Ok(Ending::Void);
        }
        let build = || {
            let point = self.state.borrow().flushed.clone();
            let mut manifest = self.manifest_to_publish(&point);
            // Dropped since: then there is nothing to move.
            if let Some(position) = manifest.copies.iter().position(|copy| copy.index == index) {
                let handed = manifest.copies.remove(position).handed;
                let made = records.iter().map(|record| FileRecord { tier: tier_of(record, &handed), ..record.clone() });
                move_files(&mut manifest, index, group, &self.present(group, &sources), made);
            }
            manifest
        };
        if let Err(error) = self.publish(None, build).await {
            if let MaintainError::Manifest(ManifestError::Unknown { .. }) = error
                && let Some(copy) = self.state.borrow_mut().copies.get_mut(&index)
            {
                copy.publication = Publication::Tried;
            }
            return Err(error);
        }
        // Nothing below waits: what readers see changes at once.
        let present = self.present(group, &sources);
        let state = &mut *self.state.borrow_mut();
        let Some(copy) = state.copies.remove(&index) else { return Ok(Ending::Void) };
        let Some(known) = state.groups.get_mut(&group) else { return Ok(Ending::Void) };
        let made: Vec<_> = made.into_iter().map(Rc::new).collect();
        made.iter().for_each(|file| file.set_tier(tier_of(&file.record(), &copy.handed)));
        known.replace(index, &present, made.clone());
        made.into_iter().for_each(|file| state.note_leaving(group, file));
        let paths = sources.iter().map(|file| file.stem()).collect();
        state.jobs.push_back(Job::Remove { paths, files: Vec::new(), is_named: false });
        self.copy_counts.count(bytes_read, sources.len(), &records, &work);
        Ok(Ending::Done)
    }

    /// The files of a shard group that are these, opened anew or not since: deletes have marked them.
    fn present(&self, group: ShardGroupId, files: &[Rc<TsmFile<D::File>>]) -> Vec<Rc<TsmFile<D::File>>> {
        let state = self.state.borrow();
        let known = state.groups.get(&group).into_iter().flat_map(|known| known.files.iter());
        known.filter(|known| files.iter().any(|file| file.rank() == known.rank())).cloned().collect()
    }

    fn is_decided(&self, index: u64) -> bool {
        self.state.borrow().copies.contains_key(&index)
    }

    /// Writes the new files.
    async fn write_copy(
        &self,
        index: u64,
        group: ShardGroupId,
        order: &CopyOrder,
        target: FileTarget,
        sources: &[Rc<TsmFile<D::File>>],
    ) -> Result<Written, MaintainError> {
        let folder = self.group_folder(group);
        let mut output = CopyOutput::new(&self.disk, &folder, target, index, order.file_bytes_max);
        let mut walk = KeyWalk::with_statistics(sources, index);
        let mut turn = WorkTurn::default();
        while let Some(holding) = walk.next().await? {
            let holding = holding.to_vec();
            merge_key(&mut walk.sources, &holding, &mut output, &mut turn).await.map_err(|error| match error {
                MergeError::Read(error) => MaintainError::Read(error),
                MergeError::Write(error) => MaintainError::Flush(error),
            })?;
            turn.end_key().await;
            if !self.is_decided(index) {
                return Ok(Written::Void);
            }
            if self.halting.get() {
                return Ok(Written::Halted);
            }
        }
        let (records, work) = output.finish().await?;
        Ok(Written::Files(records, work))
    }
}

/// The tier of a file that a copy made, of which these were handed over.
fn tier_of(record: &FileRecord, handed: &[(HandedFile, Tier)]) -> Tier {
    handed.iter().find(|(file, _)| *file == record.handed()).map_or(Tier::Local, |(_, tier)| *tier)
}

/// Puts the new files in the place of their sources, with the deletes that the copy did not apply.
fn move_files<F: DiskFile>(
    manifest: &mut Manifest,
    index: u64,
    group: ShardGroupId,
    sources: &[Rc<TsmFile<F>>],
    records: impl Iterator<Item = FileRecord>,
) {
    let is_source = |record: &FileRecord| {
        record.shard_group == group.0 && sources.iter().any(|source| source.rank() == record.rank())
    };
    manifest.files.retain(|record| !is_source(record));
    let left = deletions_behind(index, sources);
    for record in records {
        let touching = left.iter().filter(|deletion| deletion.touches(record.min_time, record.max_time));
        let tombstones = touching.map(|deletion| deletion.tombstone().clone()).collect();
        manifest.files.push(FileRecord { tombstones, ..record });
    }
    manifest.sort_files();
}
