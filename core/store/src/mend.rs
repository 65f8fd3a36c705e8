//! A damaged file is replaced by what another replica has under the same name and hash.
//!
//! Invariants: files are the same everywhere (I7), so that what arrives is what this partition wrote; the good bytes are
//! durable before they take the name; a reader that has the damaged file open goes on with it and finds the damage.
//! Knows nothing of how bytes travel.

use crate::{
    id::ShardGroupId,
    install::{InstallError, WantedFile},
    manifest::FileRecord,
    partition::Partition,
    read_error::ReadError,
};
use std::rc::Rc;
use tidemill_disk::Disk;

impl<D: Disk> Partition<D> {
    /// What to ask another replica for in place of a file; [`Partition::receive`] takes it.
    pub fn wanted(&self, record: &FileRecord) -> WantedFile {
        WantedFile::of(record)
    }

    /// Whether the partition still has this file.
    pub fn has_file(&self, record: &FileRecord) -> bool {
        self.file_records().iter().any(|known| (known.shard_group, known.rank(), known.hash) == key(record))
    }

    /// Reads from the file that has arrived in the place of a damaged one. Without effect if the file is not needed any
    /// more.
    pub async fn take_mended(&self, record: &FileRecord) -> Result<(), InstallError> {
        loop {
            let current = self
                .file_records()
                .into_iter()
                .find(|known| (known.shard_group, known.rank(), known.hash) == key(record));
            let Some(current) = current else { return Ok(()) };
            let marks = current.tombstones.len();
            let opened = self
                .open_file(current)
                .await
                .map_err(|error: ReadError| InstallError::Wrong { path: error.to_string() })?;
            let state = &mut *self.state.borrow_mut();
            let id = ShardGroupId(record.shard_group);
            let Some(group) = state.groups.get_mut(&id) else { return Ok(()) };
            let files = Rc::make_mut(&mut group.files);
            let Some(place) = files.iter_mut().find(|file| file.rank() == record.rank()) else { return Ok(()) };
            // A delete came in between: it is to be in the new one as well.
            if place.record().tombstones.len() != marks {
                continue;
            }
            *place = Rc::new(opened);
            let place = place.clone();
            state.note_leaving(id, place);
            return Ok(());
        }
    }
}

fn key(record: &FileRecord) -> (u64, (bool, u64, u32), [u8; 32]) {
    (record.shard_group, record.rank(), record.hash)
}
