//! Room for a manifest on a full disk.
//!
//! Owns: a file in the partition's folder of which the blocks matter, and not what is in them.
//! Invariants: before a manifest is published there are blocks for one of twice its size, so that the next one, which
//! may take files out and thereby make room, can be published when nothing else can be written: it is written over the
//! spare file, which then takes the manifest's name. Nobody reads the spare file.
//! Knows nothing of what a manifest says.

use crate::manifest::{ManifestError, write_out};
use std::{cell::Cell, io};
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};

const NAME: &str = "spare";

#[derive(Default)]
pub struct Spare {
    /// Bytes that are there for certain; `None` if that is to be looked at.
    bytes: Cell<Option<usize>>,
}

impl Spare {
    /// Has blocks for a manifest of twice these bytes.
    pub async fn reserve<D: Disk>(&self, disk: &D, folder: &str, manifest_bytes: usize) -> Result<(), ManifestError> {
        let wanted = 2 * manifest_bytes;
        if self.bytes.get().is_some_and(|bytes| bytes >= wanted) {
            return Ok(());
        }
        self.bytes.set(None);
        let path = format!("{folder}/{NAME}");
        let bytes = grow(disk, folder, &path, wanted).await.map_err(|error| ManifestError::Io { path, error })?;
        self.bytes.set(Some(bytes));
        Ok(())
    }

    /// Publishes a manifest in the blocks of the spare file, which is then gone. `false`: they are too few, and nothing
    /// was done.
    ///
    /// # Errors
    /// As [`crate::manifest::Manifest::publish`].
    pub async fn publish<D: Disk>(&self, disk: &D, folder: &str, manifest: &[u8]) -> Result<bool, ManifestError> {
        self.bytes.set(None);
        let (path, to) = (format!("{folder}/{NAME}"), format!("{folder}/manifest"));
        let io_error = |error| ManifestError::Io { path: path.clone(), error };
        if !is_there(disk, folder).await.map_err(io_error)? {
            return Ok(false);
        }
        let file = disk.open(&path, Purpose::Data).await.map_err(io_error)?;
        if blocks_of(&file).await.map_err(io_error)? < manifest.len() {
            file.close().await.map_err(io_error)?;
            return Ok(false);
        }
        write_out(&file, manifest).await.map_err(io_error)?;
        let published = disk.publish(file, &path, &to).await;
        published.map_err(|error| ManifestError::Unknown { path: to, error })?;
        Ok(true)
    }
}

/// Bytes of its blocks, of which a manifest that was not finished in it may have cut the last one.
async fn blocks_of<F: DiskFile>(file: &F) -> io::Result<usize> {
    Ok((file.len().await? as usize).next_multiple_of(BLOCK_BYTES))
}

async fn is_there<D: Disk>(disk: &D, folder: &str) -> io::Result<bool> {
    Ok(disk.list(folder).await?.iter().any(|name| name == NAME))
}

/// Makes the file larger if it has less than the wanted bytes; returns how many it has.
async fn grow<D: Disk>(disk: &D, folder: &str, path: &str, wanted: usize) -> io::Result<usize> {
    let is_new = !is_there(disk, folder).await?;
    let file = match is_new {
        true => disk.create(path, Purpose::Data).await?,
        false => disk.open(path, Purpose::Data).await?,
    };
    let present = blocks_of(&file).await?;
    if present >= wanted {
        file.close().await?;
        return Ok(present);
    }
    let bytes = wanted.next_power_of_two().max(BLOCK_BYTES);
    if let Err(error) = fill(&file, present, bytes).await {
        // The room may be what others need.
        let _ = file.set_len(present as u64).await;
        let _ = file.close().await;
        if is_new {
            let _ = disk.remove(path).await;
        }
        return Err(error);
    }
    file.close().await?;
    Ok(bytes)
}

/// Writes zeros, since blocks that were never written may not be there when they are.
async fn fill<F: DiskFile>(file: &F, from: usize, upto: usize) -> io::Result<()> {
    let mut at = from;
    while at < upto {
        let len = (upto - at).min(crate::manifest::CALL_BYTES_MAX);
        let mut buf = file.alloc(len);
        buf.as_mut().fill(0);
        file.write_at(buf, at as u64).await?;
        at += len;
    }
    file.sync_data().await
}
