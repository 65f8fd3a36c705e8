//! Taking over the files of another replica.
//!
//! Owns: which files of another replica's manifest are missing here, their arrival, and the change from what this
//! partition was to what that manifest says.
//! Invariants: a file gets its name after all of its bytes were there, right and durable; the manifest is published after
//! the files that it names (S5), and until then the partition is what it was: a crash leaves the one or the other. Files
//! are the same everywhere (I7), so those that are here already are not fetched.
//! Knows nothing of how bytes travel.

use crate::{
    index_file,
    manifest::{FileRecord, Manifest, ManifestError},
    pace::breathe,
    partition::{OpenError, Partition},
};
use std::{collections::BTreeSet, io, rc::Rc};
use tidemill_disk::{Disk, DiskFile, Purpose, WriteBehind};
use tidemill_raft::EntryId;

/// One write of an arriving file.
const CALL_BYTES: usize = 512 * 1024;
/// Writes of it at a time: one is filled while the others are on their way to the disk.
const CALLS_MAX: usize = 3;

/// The manifest of another replica, on its way to be this one's.
#[derive(Debug)]
pub struct Installation {
    manifest: Manifest,
    /// Files that are not here, in the order in which they should be asked for.
    pub wanted: Vec<WantedFile>,
}

/// A file of another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedFile {
    /// Where it is there, below the partition's folder.
    pub source: String,
    /// Bytes of it, from its begin: it may have more.
    pub size: u64,
    place: String,
    /// BLAKE3; the file of the indexes has none, and is read before it is used.
    hash: Option<[u8; 32]>,
}

/// Why another replica's files were not taken over. Unless it is [`InstallError::Open`] or [`ManifestError::Unknown`], the
/// partition is what it was.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    #[error("{path}: what arrived is not the file that the manifest names")]
    Wrong { path: String },
    #[error("the manifest ends at entry {manifest}, behind which this partition is already")]
    Old { manifest: u64 },
    /// The manifest is there and cannot be used: the partition must not go on.
    #[error("after another replica's files were taken over: {0}")]
    Open(#[from] OpenError),
}

/// A file while it arrives.
pub struct ArrivingFile<'a, D: Disk> {
    partition: &'a Partition<D>,
    wanted: &'a WantedFile,
    temporary: String,
    file: Rc<D::File>,
    writing: WriteBehind<D::File>,
    hash: blake3::Hasher,
}

impl WantedFile {
    /// A file that a manifest names.
    pub(crate) fn of(record: &FileRecord) -> WantedFile {
        let source = format!("g{}/{}", record.shard_group, record.name());
        WantedFile { place: source.clone(), source, size: record.size, hash: Some(record.hash) }
    }
}

impl<D: Disk> Partition<D> {
    /// The manifest as it is on the disk, for another replica; `None` before the first one.
    pub async fn published(&self) -> Result<Option<Manifest>, ManifestError> {
        let _turn = self.publishing.take().await;
        let manifest = Manifest::load(&self.disk, &self.folder).await?;
        Ok((manifest.flushed_index > 0).then_some(manifest))
    }

    /// What is missing here to become what another replica's manifest says, which ends at the entry `base`.
    pub fn plan_installation(&self, manifest: &[u8], base: EntryId) -> Result<Installation, InstallError> {
        let path = "the manifest of another replica";
        let mut manifest = Manifest::decode(manifest, path)?;
        if (manifest.flushed_index, manifest.flushed_term) != (base.index.0, base.term.0) {
            return Err(InstallError::Wrong { path: path.into() });
        }
        let state = self.state.borrow();
        if manifest.flushed_index <= state.applied.0 {
            return Err(InstallError::Old { manifest: manifest.flushed_index });
        }
        let files = state.groups.values().flat_map(|group| group.files.iter()).map(|file| file.record());
        let here: BTreeSet<(u64, String, [u8; 32])> =
            files.map(|known| (known.shard_group, known.name(), known.hash)).collect();
        let is_here = |record: &FileRecord| here.contains(&(record.shard_group, record.name(), record.hash));
        let missing = manifest.files.iter().filter(|record| !is_here(record));
        let mut wanted: Vec<WantedFile> = missing.map(WantedFile::of).collect();
        if let Some(index) = &mut manifest.index {
            let source = index_file::name_of(index.generation);
            // Each replica counts its own: the name must be none that the present manifest uses.
            index.generation = self.index_file.borrow().next_generation();
            let place = index_file::name_of(index.generation);
            wanted.push(WantedFile { source, size: index.size, place, hash: None });
        }
        Ok(Installation { manifest, wanted })
    }

    /// Opens the place of a file that arrives.
    pub async fn receive<'a>(&'a self, wanted: &'a WantedFile) -> Result<ArrivingFile<'a, D>, InstallError> {
        let temporary = format!("{}/{}.tmp", self.folder, wanted.place);
        let io_error = |error| InstallError::Io { path: temporary.clone(), error };
        let (folder, name) = temporary.rsplit_once('/').unwrap_or(("", &temporary));
        self.disk.create_dir(folder).await.map_err(io_error)?;
        if self.disk.list(folder).await.map_err(io_error)?.iter().any(|known| known == name) {
            self.disk.remove(&temporary).await.map_err(io_error)?;
        }
        let file = Rc::new(self.disk.create(&temporary, Purpose::Data).await.map_err(io_error)?);
        let writing = WriteBehind::new(file.clone(), 0, CALL_BYTES, CALLS_MAX);
        Ok(ArrivingFile { partition: self, wanted, temporary, file, writing, hash: blake3::Hasher::new() })
    }

    /// Becomes what the manifest says, of which all files have arrived. Readings that were begun before may find that
    /// their files are gone.
    pub async fn install(&self, installation: Installation) -> Result<(), InstallError> {
        while self.maintaining.get() || self.copying.get() || self.settling.is_under_way() {
            breathe().await;
        }
        self.maintaining.set(true);
        self.copying.set(true);
        let installed = self.replace_by(&installation.manifest).await;
        self.maintaining.set(false);
        self.copying.set(false);
        installed
    }

    async fn replace_by(&self, manifest: &Manifest) -> Result<(), InstallError> {
        let _turn = self.publishing.take().await;
        if manifest.flushed_index <= self.applied().0 {
            return Err(InstallError::Old { manifest: manifest.flushed_index });
        }
        if let Some(index) = &manifest.index {
            let read = index_file::load(&self.disk, &self.folder, index).await;
            read.map_err(|error| InstallError::Wrong { path: error.to_string() })?;
        }
        self.publish_manifest(manifest).await?;
        let fresh = self.opened_anew().await?;
        self.take_over(&fresh);
        Ok(())
    }
}

impl<D: Disk> ArrivingFile<'_, D> {
    /// Where the next bytes are to be put, never nothing: this memory is written to the disk.
    pub fn room(&mut self) -> &mut [u8] {
        self.writing.room()
    }

    /// The first `count` bytes of the room are there.
    pub async fn advance(&mut self, count: usize) -> Result<(), InstallError> {
        if self.writing.end() + count as u64 > self.wanted.size {
            return Err(InstallError::Wrong { path: self.temporary.clone() });
        }
        self.hash.update(&self.writing.room()[..count]);
        let io_error = |error| InstallError::Io { path: self.temporary.clone(), error };
        self.writing.advance(count).await.map_err(io_error)
    }

    /// All bytes have come: makes the file durable under its name, if it is the one that the manifest names.
    pub async fn finish(self) -> Result<(), InstallError> {
        let WantedFile { size, place, hash, .. } = self.wanted;
        let is_right = hash.is_none_or(|hash| *self.hash.finalize().as_bytes() == hash);
        if !is_right || self.writing.end() != *size {
            return Err(InstallError::Wrong { path: self.temporary });
        }
        let ArrivingFile { partition, temporary, file, mut writing, .. } = self;
        let io_error = |error| InstallError::Io { path: temporary.clone(), error };
        writing.flush().await.map_err(io_error)?;
        drop(writing);
        file.set_len(*size).await.map_err(io_error)?;
        let alone = || io_error(io::Error::other("it is still being written"));
        let file = Rc::into_inner(file).ok_or_else(alone)?;
        let path = format!("{}/{place}", partition.folder);
        partition.disk.publish(file, &temporary, &path).await.map_err(io_error)
    }
}
