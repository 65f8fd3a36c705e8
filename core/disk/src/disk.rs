//! The traits.

use std::{future::Future, io};

/// What a file is for; the real disk chooses ring and buffers by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Log segments: pre-written, overwritten in place, latency first.
    Log,
    /// Everything else: TSM files, manifests, snapshots.
    Data,
}

/// A folder of files. One value per core; clones share it.
///
/// Errors carry the path and the operation in their message and keep the operating system's error kind
/// (`StorageFull` for ENOSPC is the one that callers look at).
pub trait Disk: Clone + 'static {
    type File: DiskFile;

    /// Opens an existing file for reading and writing, with direct I/O.
    fn open(&self, path: &str, purpose: Purpose) -> impl Future<Output = io::Result<Self::File>>;
    /// Makes a new, empty file; an existing one of that name is an error. Durable after `sync_data` and `sync_dir`.
    fn create(&self, path: &str, purpose: Purpose) -> impl Future<Output = io::Result<Self::File>>;
    /// Renames within the data folder, replacing the target. Durable after `sync_dir` of the target's folder.
    fn rename(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>>;
    /// Removes a file. Durable after `sync_dir`.
    fn remove(&self, path: &str) -> impl Future<Output = io::Result<()>>;
    /// Makes a folder and the missing ones above it, durably; an existing one is fine.
    fn create_dir(&self, path: &str) -> impl Future<Output = io::Result<()>>;
    /// Names of the files and folders in a folder, sorted. An absent folder is empty.
    fn list(&self, path: &str) -> impl Future<Output = io::Result<Vec<String>>>;
    /// fsync of a folder: makes creations, renames and removals in it durable.
    fn sync_dir(&self, path: &str) -> impl Future<Output = io::Result<()>>;

    /// Makes `file`, written under the name `from`, visible as `to`: fsync the file, rename, fsync the folder, in that
    /// order. A crash in between leaves either `from` or `to`, and `to` never without its content.
    fn publish(&self, file: Self::File, from: &str, to: &str) -> impl Future<Output = io::Result<()>> {
        async move {
            file.sync_data().await?;
            file.close().await?;
            self.rename(from, to).await?;
            self.sync_dir(to.rsplit_once('/').map_or("", |(folder, _)| folder)).await
        }
    }
}

/// An open file under direct I/O.
///
/// A failed write or sync leaves the range unknown; the caller stops using the file (no retry of a sync on it).
#[expect(clippy::len_without_is_empty, reason = "the length costs a call; nobody asks whether a file is empty")]
pub trait DiskFile: 'static {
    /// An owned, block-aligned buffer.
    type Buf: AsRef<[u8]> + AsMut<[u8]> + 'static;

    /// A buffer of `len` bytes (a multiple of the block), its content unspecified but initialised.
    fn alloc(&self, len: usize) -> Self::Buf;
    /// Reads up to `len` bytes at `offset`, both multiples of the block; shorter only at the end of the file.
    fn read_at(&self, offset: u64, len: usize) -> impl Future<Output = io::Result<Self::Buf>>;
    /// Writes the whole buffer at `offset`; a short write is an error. The buffer comes back for its next use.
    fn write_at(&self, buf: Self::Buf, offset: u64) -> impl Future<Output = io::Result<Self::Buf>>;
    /// As `write_at`, durable when it returns (`RWF_DSYNC`, or write and fdatasync).
    fn write_durable(&self, buf: Self::Buf, offset: u64) -> impl Future<Output = io::Result<Self::Buf>>;
    /// As `write_at` for the first `len` bytes (a multiple of the block) of a larger buffer, so that a buffer can be
    /// filled before its final length is known. An implementation that can submit a part of a buffer overrides this
    /// and [`DiskFile::write_prefix_durable`]; these copy.
    fn write_prefix_at(&self, buf: Self::Buf, len: usize, offset: u64) -> impl Future<Output = io::Result<Self::Buf>> {
        async move {
            if buf.as_ref().len() == len {
                return self.write_at(buf, offset).await;
            }
            let mut part = self.alloc(len);
            part.as_mut().copy_from_slice(&buf.as_ref()[..len]);
            self.write_at(part, offset).await.map(|_| buf)
        }
    }
    /// As `write_prefix_at`, then `sync_data`; a disk that can do both in one go overrides it.
    fn write_prefix_and_sync(
        &self,
        buf: Self::Buf,
        len: usize,
        offset: u64,
    ) -> impl Future<Output = io::Result<Self::Buf>> {
        async move {
            let buf = self.write_prefix_at(buf, len, offset).await?;
            self.sync_data().await?;
            Ok(buf)
        }
    }
    /// As `write_prefix_at`, durable when it returns.
    fn write_prefix_durable(
        &self,
        buf: Self::Buf,
        len: usize,
        offset: u64,
    ) -> impl Future<Output = io::Result<Self::Buf>> {
        async move {
            if buf.as_ref().len() == len {
                return self.write_durable(buf, offset).await;
            }
            let mut part = self.alloc(len);
            part.as_mut().copy_from_slice(&buf.as_ref()[..len]);
            self.write_durable(part, offset).await.map(|_| buf)
        }
    }
    /// fdatasync.
    fn sync_data(&self) -> impl Future<Output = io::Result<()>>;
    /// Sets the length; used to cut the padding of the last block.
    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>>;
    /// Length in bytes.
    fn len(&self) -> impl Future<Output = io::Result<u64>>;
    fn close(self) -> impl Future<Output = io::Result<()>>;
}
