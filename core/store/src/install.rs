//! Taking over the files of another replica.
//!
//! Owns: which files of another replica's manifest are missing here, their arrival, and the change from what this
//! partition was to what that manifest says.
//! Invariants: a file gets its name after all of its bytes were there, right and durable; the manifest is published after
//! the files that it names (S5), and until then the partition is what it was: a crash leaves the one or the other. Files
//! are the same everywhere (I7), so those that are here already are not fetched.
//! Knows nothing of how bytes travel.

use crate::{
    id::ShardGroupId,
    index_file,
    manifest::{FileRecord, Manifest, ManifestError, Tier},
    pace::breathe,
    partition::{OpenError, Partition},
};
use std::{collections::BTreeMap, io, rc::Rc};
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
#[derive(Clone, Debug, PartialEq)]
pub struct WantedFile {
    /// Where it is there, below the partition's folder.
    pub source: String,
    /// Bytes of it, from its begin: it may have more.
    pub size: u64,
    place: String,
    check: Check,
}

/// How it is known that the right bytes have arrived.
#[derive(Clone, Debug, PartialEq)]
enum Check {
    /// BLAKE3.
    Hash([u8; 32]),
    /// The checksums of its pages, which are below one in the record of its file.
    Tail(Box<FileRecord>),
    /// It is read before it is used.
    Later,
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
    /// A file that a manifest names; its tail, if its blocks are in the pool.
    pub(crate) fn of(record: &FileRecord) -> WantedFile {
        let (name, size, check) = match record.tier {
            Tier::Pool => (record.tail_name(), record.tail_size(), Check::Tail(Box::new(record.clone()))),
            Tier::Local | Tier::Both => (record.name(), record.size, Check::Hash(record.hash)),
        };
        let source = format!("g{}/{name}", record.shard_group);
        WantedFile { place: source.clone(), source, size, check }
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
        let files = state.groups.values().flat_map(|group| group.files.iter());
        let here: BTreeMap<(u64, String, [u8; 32]), bool> = files
            .map(|file| (file.record(), file.reads_pool()))
            .map(|(known, is_tail)| ((known.shard_group, known.name(), known.hash), is_tail))
            .collect();
        // The manifest may be older than the hand-over of a file of which only the tail is here.
        let is_here = |record: &FileRecord| {
            let known = here.get(&(record.shard_group, record.name(), record.hash));
            known.is_some_and(|is_tail| !is_tail || record.tier == Tier::Pool)
        };
        let missing = manifest.files.iter().filter(|record| !is_here(record));
        let mut wanted: Vec<WantedFile> = missing.map(WantedFile::of).collect();
        if let Some(index) = &mut manifest.index {
            let source = index_file::name_of(index.generation);
            // Each replica counts its own: the name must be none that the present manifest uses.
            index.generation = self.index_file.borrow().next_generation();
            let place = index_file::name_of(index.generation);
            wanted.push(WantedFile { source, size: index.size, place, check: Check::Later });
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
        self.check_presence(manifest).await?;
        self.publish_manifest(manifest).await?;
        let fresh = self.opened_anew().await?;
        self.take_over(&fresh);
        Ok(())
    }

    /// Since the installation was planned, blocks of files that were here may have been let go.
    async fn check_presence(&self, manifest: &Manifest) -> Result<(), InstallError> {
        let mut listed: (Option<u64>, Vec<String>) = (None, Vec::new());
        // By shard group.
        for record in &manifest.files {
            let folder = self.group_folder(ShardGroupId(record.shard_group));
            if listed.0 != Some(record.shard_group) {
                let names = self.disk.list(&folder).await;
                let names = names.map_err(|error| InstallError::Io { path: folder.clone(), error })?;
                listed = (Some(record.shard_group), names);
            }
            let has_tail = record.tier == Tier::Pool && listed.1.contains(&record.tail_name());
            if !has_tail && !listed.1.contains(&record.name()) {
                return Err(InstallError::Wrong { path: format!("{folder}/{}", record.name()) });
            }
        }
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
        let WantedFile { size, place, check, .. } = self.wanted;
        let is_wrong = matches!(check, Check::Hash(hash) if self.hash.finalize() != *hash);
        if is_wrong || self.writing.end() != *size {
            return Err(InstallError::Wrong { path: self.temporary });
        }
        let ArrivingFile { partition, temporary, file, mut writing, .. } = self;
        let io_error = |error| InstallError::Io { path: temporary.clone(), error };
        writing.flush().await.map_err(io_error)?;
        drop(writing);
        file.set_len(*size).await.map_err(io_error)?;
        let alone = || io_error(io::Error::other("it is still being written"));
        let file = Rc::into_inner(file).ok_or_else(alone)?;
        if let Check::Tail(record) = check {
            let verified = partition.verify_tail(&temporary, record).await;
            verified.map_err(|error| InstallError::Wrong { path: error.to_string() })?;
        }
        let path = format!("{}/{place}", partition.folder);
        partition.disk.publish(file, &temporary, &path).await.map_err(io_error)
    }
}
