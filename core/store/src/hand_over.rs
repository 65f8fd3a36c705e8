//! The hand-over of sealed files to the storage pool, as one replica carries it out.
//!
//! Owns: the files whose blocks are the pool's by the log and still here; their tails; what of a file is read from where.
//! Invariants: whose the blocks are follows from the log alone (I7) and is in the file's record from the moment its entry
//! is applied; when they go is each replica's own matter. In this order: 1. the tail, everything behind the blocks, is
//! written, verified page by page, and durable under its name; 2. a manifest that calls the file the pool's is durable;
//! 3. readers go on with the blocks of the pool; 4. the file is removed. A crash before 2 leaves a tail that the manifest
//! does not know, which is removed at the start, or a manifest that calls the pool's what is here in full, which is begun
//! again. A crash behind 2 leaves both, of which the start removes the file. Nowhere is a moment without the bytes, and
//! nowhere are they read from two places (I8).
//! Knows nothing of how files come into the pool, and of who found that they are there.

use crate::{
    id::ShardGroupId,
    maintenance::MaintainError,
    manifest::{FileRecord, Tier, write_out},
    partition::Partition,
    read_error::ReadError,
    tsm_file::{READ_BYTES, TsmFile},
};
use std::rc::Rc;
use tidemill_disk::{Disk, DiskFile, Purpose};

/// Files that leave with one manifest.
const FILES_AT_ONCE_MAX: usize = 64;

impl<D: Disk> Partition<D> {
    /// Removes blocks that belong to the pool: some files with one manifest.
    pub(crate) async fn let_blocks_go(&self) -> Result<(), MaintainError> {
        let leaving: Vec<_> = self.state.borrow().leaving.iter().take(FILES_AT_ONCE_MAX).cloned().collect();
        let mut ready = Vec::new();
        for (group, file) in &leaving {
            if !self.is_current(*group, file) {
                continue;
            }
            let written = if file.reads_pool() { Ok(()) } else { self.write_tail(file).await };
            match written {
                Ok(()) => ready.push((*group, file)),
                // Its blocks stay: the scrub finds the damage, and has the file fetched from elsewhere.
                Err(MaintainError::Read(error)) => {
                    tracing::warn!(%error, folder = self.folder, "a damaged file is not handed over");
                }
                Err(error) => return Err(error),
            }
        }
        if !ready.is_empty() {
            self.publish_before_a_removal().await?;
        }
        for (group, file) in ready {
            // Copied away or dropped meanwhile: whoever did so removes all of it.
            if !self.is_current(group, file) {
                continue;
            }
            if !file.reads_pool() {
                let path = tail_path(file);
                let opened = self.disk.open(&path, Purpose::Data).await;
                file.move_to_pool(opened.map_err(|error| MaintainError::Io { path, error })?, self.pool.clone());
            }
            let (folder, name) = file.path().rsplit_once('/').unwrap_or(("", file.path()));
            self.remove_matching(folder, name).await?;
        }
        self.state.borrow_mut().leaving.drain(..leaving.len());
        Ok(())
    }

    /// Whether the file is one of its shard group's.
    fn is_current(&self, group: ShardGroupId, file: &Rc<TsmFile<D::File>>) -> bool {
        let state = self.state.borrow();
        state.groups.get(&group).is_some_and(|group| group.files.iter().any(|known| Rc::ptr_eq(known, file)))
    }

    /// Writes what is behind the blocks of a file to a file of its own, durably.
    async fn write_tail(&self, file: &TsmFile<D::File>) -> Result<(), MaintainError> {
        let record = file.record();
        let path = tail_path(file);
        let temporary = format!("{path}.tmp");
        let io_error = |error| MaintainError::Io { path: temporary.clone(), error };
        let bytes = file.read_range(record.blocks_end..record.size).await?;
        let (folder, name) = temporary.rsplit_once('/').unwrap_or(("", &temporary));
        if self.disk.list(folder).await.map_err(io_error)?.iter().any(|known| known == name) {
            self.disk.remove(&temporary).await.map_err(io_error)?;
        }
        let tail = self.disk.create(&temporary, Purpose::Data).await.map_err(io_error)?;
        write_out(&tail, &bytes).await.map_err(io_error)?;
        if let Err(error) = self.verify_tail(&temporary, &record).await {
            let _ = tail.close().await;
            let _ = self.disk.remove(&temporary).await;
            return Err(error.into());
        }
        self.disk.publish(tail, &temporary, &path).await.map_err(|error| MaintainError::Io { path, error })
    }

    /// Reads every page of a tail.
    pub(crate) async fn verify_tail(&self, path: &str, record: &FileRecord) -> Result<(), ReadError> {
        let file = self.open_tail(path, record).await?;
        let mut pages = file.keys_with_statistics();
        while pages.next().await?.is_some() {}
        Ok(())
    }

    /// Gives a file from its header to its footer, verified, wherever its blocks are: what `take` is given is to be
    /// believed once this has returned.
    pub async fn read_whole(
        &self,
        record: &FileRecord,
        take: &mut impl AsyncFnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), ReadError> {
        let file = self.open_past_the_cache(record).await?;
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        while offset < record.size {
            let bytes = file.read_range(offset..record.size.min(offset + READ_BYTES as u64)).await?;
            if bytes.is_empty() {
                return Err(file.damaged(offset, &"the file ends here"));
            }
            hasher.update(&bytes);
            offset += bytes.len() as u64;
            take(&bytes).await.map_err(|error| file.io_error(&error))?;
        }
        match hasher.finalize() == record.hash {
            true => Ok(()),
            false => Err(file.damaged(0, &"the content is not what its BLAKE3 hash says")),
        }
    }

    /// What of the partition is in the pool, or could be: its sealed files.
    pub fn sealed_files(&self) -> Vec<FileRecord> {
        let state = self.state.borrow();
        let files = state.groups.values().flat_map(|group| group.files.iter().map(|file| file.record()));
        files.filter(|record| record.level == 2).collect()
    }

    /// Files that the pool has by the manifest on the disk, or by an entry that was applied: what else it has of the
    /// partition is of no use. A copy that is decided and not done may make files that were handed over already.
    pub fn pool_files(&self) -> Vec<[u8; 32]> {
        let state = self.state.borrow();
        let handed = state.copies.values().flat_map(|copy| copy.handed.iter().map(|(file, _)| file.hash));
        let files = state.groups.values().flat_map(|group| group.files.iter());
        let held = files.filter(|file| file.tier() != Tier::Local).map(|file| file.record().hash);
        held.chain(handed).collect()
    }
}

fn tail_path<F: DiskFile>(file: &TsmFile<F>) -> String {
    let folder = file.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{}", file.record().tail_name())
}
