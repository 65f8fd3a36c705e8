//! One open file.
//!
//! Owns: [`RingFile`]. Data files are read and written through the executor (registered buffers, its scheduling), log
//! files through the side ring (one completion for a durable write), and so is everything where direct I/O is missing.
//! Invariants: a failed write or sync poisons the file: every later one fails with the first reason, because what the
//! kernel did with the range is unknown and a second fsync may lie. A data file that is only read may be without a
//! descriptor between two reads ([`OpenFiles`]). Knows nothing of what is in the file.

use crate::{
    disk_buf::DiskBuf,
    open_files::{OpenFiles, Seat},
    ring_disk::{DiskInner, IoReason, explain},
};
use glommio::io::DmaFile;
use std::{
    cell::RefCell,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    rc::Rc,
};
use tidemill_disk::{BLOCK_BYTES, DiskFile};

/// Reads above this go in pieces: the executor's registered memory should not be taken by one of them.
pub(crate) const READ_BYTES_MAX: usize = 1 << 20;

/// A descriptor that an operation can keep alive.
#[derive(Clone)]
pub(crate) enum FileHandle {
    Executor(Rc<DmaFile>),
    Side(Rc<OwnedFd>),
}

impl AsRawFd for FileHandle {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            FileHandle::Executor(file) => file.as_raw_fd(),
            FileHandle::Side(fd) => fd.as_raw_fd(),
        }
    }
}

/// An open file of a [`crate::RingDisk`].
pub struct RingFile {
    disk: Rc<DiskInner>,
    seat: Rc<Seat>,
    /// Through the executor, with its registered memory; else through the side ring.
    is_registered: bool,
    poison: RefCell<Option<(io::ErrorKind, String)>>,
}

impl RingFile {
    /// One that keeps its descriptor.
    pub(crate) fn kept(disk: Rc<DiskInner>, handle: FileHandle, path: &str) -> RingFile {
        let is_registered = matches!(handle, FileHandle::Executor(_));
        RingFile { disk, seat: OpenFiles::kept(path, handle), is_registered, poison: RefCell::default() }
    }

    /// One that can be opened again by its name.
    pub(crate) fn of_name(disk: Rc<DiskInner>, handle: FileHandle, path: &str) -> RingFile {
        let is_registered = matches!(handle, FileHandle::Executor(_));
        let seat = disk.files.add(path, handle);
        RingFile { disk, seat, is_registered, poison: RefCell::default() }
    }

    fn path(&self) -> &str {
        &self.seat.path
    }

    /// The descriptor to read with.
    async fn handle(&self) -> io::Result<FileHandle> {
        match self.seat.handle() {
            Some(handle) => Ok(handle),
            None => self.disk.reopen(&self.seat).await,
        }
    }

    /// The descriptor to change the file with, which it then keeps.
    pub(crate) async fn kept_handle(&self) -> io::Result<FileHandle> {
        self.usable()?;
        self.seat.keep();
        self.handle().await
    }

    pub(crate) fn usable(&self) -> io::Result<()> {
        match &*self.poison.borrow() {
            None => Ok(()),
            Some((kind, reason)) => Err(io::Error::new(*kind, format!("not tried, as before: {reason}"))),
        }
    }

    pub(crate) fn poisoned_by<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.poison.borrow_mut().get_or_insert_with(|| (error.kind(), error.to_string()));
        }
        result
    }

    async fn read_piece(&self, offset: u64, len: usize) -> io::Result<DiskBuf> {
        let handle = self.handle().await?;
        if let FileHandle::Executor(file) = &handle {
            let result = file.read_at_aligned(offset, len).await;
            return result.map(DiskBuf::of_read).map_err(|error| explain("read", self.path(), Some(offset), error));
        }
        self.read_in_pieces(&handle, offset, len).await
    }

    async fn read_in_pieces(&self, handle: &FileHandle, offset: u64, len: usize) -> io::Result<DiskBuf> {
        let mut buf = DiskBuf::plain(len);
        let mut filled = 0;
        while filled < len {
            let piece = (len - filled).min(READ_BYTES_MAX);
            let at = offset + filled as u64;
            let (read, returned) = self.disk.ring.read(handle, buf, filled, piece, at).await;
            buf = returned;
            filled += read.map_err(|error| explain("read", self.path(), Some(at), error))?;
            // A read that ends inside a block has reached the end of the file; direct I/O could not go on from there.
            if !filled.is_multiple_of(BLOCK_BYTES) || filled as u64 + offset >= self.byte_len(handle)? {
                break;
            }
        }
        buf.shorten(filled);
        Ok(buf)
    }

    fn byte_len(&self, handle: &FileHandle) -> io::Result<u64> {
        crate::syscall::file_len(handle.as_raw_fd()).map_err(|error| explain("stat", self.path(), None, error))
    }

    async fn write_plain(&self, handle: &FileHandle, buf: DiskBuf, offset: u64) -> io::Result<DiskBuf> {
        let len = buf.as_ref().len();
        let (written, buf) = match (handle, buf.registered()) {
            (FileHandle::Executor(file), Some(memory)) => {
                (file.write_rc_at(memory, offset).await.map_err(|error| IoReason::from(error).0), buf)
            }
            _ => self.disk.ring.write(handle, buf, offset, 0).await,
        };
        self.written(written, len, offset)?;
        Ok(buf)
    }

    /// Writes, durably when it returns: with `RWF_DSYNC`, or followed by fdatasync.
    async fn write_now(&self, buf: DiskBuf, offset: u64, dsync: bool) -> io::Result<DiskBuf> {
        let len = buf.as_ref().len();
        assert_aligned(offset, len);
        let handle = self.kept_handle().await?;
        let (written, buf) = if dsync {
            self.disk.ring.write(&handle, buf, offset, libc::RWF_DSYNC).await
        } else {
            self.disk.ring.write_and_sync(&handle, buf, offset).await
        };
        self.poisoned_by(self.written(written, len, offset))?;
        self.disk.metrics.disk_syncs.add(1);
        Ok(buf)
    }

    fn written(&self, written: io::Result<usize>, len: usize, offset: u64) -> io::Result<()> {
        let written = written.map_err(|error| explain("write", self.path(), Some(offset), error))?;
        if written != len {
            // Direct writes are cut short by a device or a quota that is full, and by nothing else here.
            let reason = format!("write of {len} bytes stopped after {written}");
            return Err(explain(
                "write",
                self.path(),
                Some(offset),
                io::Error::new(io::ErrorKind::StorageFull, reason),
            ));
        }
        self.disk.metrics.disk_writes.add(1);
        self.disk.metrics.disk_write_bytes.add(len as u64);
        Ok(())
    }
}

fn assert_aligned(offset: u64, len: usize) {
    assert!(
        offset.is_multiple_of(BLOCK_BYTES as u64) && len > 0 && len.is_multiple_of(BLOCK_BYTES),
        "direct I/O of {len} bytes at {offset}"
    );
}

impl Drop for RingFile {
    fn drop(&mut self) {
        self.disk.files.forget(&self.seat);
    }
}

impl DiskFile for RingFile {
    type Buf = DiskBuf;

    fn alloc(&self, len: usize) -> DiskBuf {
        assert_aligned(0, len);
        if self.is_registered { self.disk.pool.take(len) } else { DiskBuf::plain(len) }
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<DiskBuf> {
        assert_aligned(offset, len);
        let buf = if len <= READ_BYTES_MAX {
            self.read_piece(offset, len).await?
        } else {
            self.read_in_pieces(&self.handle().await?, offset, len).await?
        };
        self.disk.metrics.disk_reads.add(1);
        self.disk.metrics.disk_read_bytes.add(buf.as_ref().len() as u64);
        Ok(buf)
    }

    async fn write_at(&self, buf: DiskBuf, offset: u64) -> io::Result<DiskBuf> {
        assert_aligned(offset, buf.as_ref().len());
        let handle = self.kept_handle().await?;
        self.poisoned_by(self.write_plain(&handle, buf, offset).await)
    }

    async fn write_durable(&self, buf: DiskBuf, offset: u64) -> io::Result<DiskBuf> {
        self.write_now(buf, offset, self.disk.dsync).await
    }

    async fn write_prefix_at(&self, mut buf: DiskBuf, len: usize, offset: u64) -> io::Result<DiskBuf> {
        let whole = buf.as_ref().len();
        buf.shorten(len);
        let mut buf = self.write_at(buf, offset).await?;
        buf.restore(whole);
        Ok(buf)
    }

    async fn write_prefix_and_sync(&self, mut buf: DiskBuf, len: usize, offset: u64) -> io::Result<DiskBuf> {
        let whole = buf.as_ref().len();
        buf.shorten(len);
        let mut buf = self.write_now(buf, offset, false).await?;
        buf.restore(whole);
        Ok(buf)
    }

    async fn write_prefix_durable(&self, mut buf: DiskBuf, len: usize, offset: u64) -> io::Result<DiskBuf> {
        let whole = buf.as_ref().len();
        buf.shorten(len);
        let mut buf = self.write_durable(buf, offset).await?;
        buf.restore(whole);
        Ok(buf)
    }

    async fn sync_data(&self) -> io::Result<()> {
        let handle = self.kept_handle().await?;
        let synced = self.disk.ring.sync_data(&handle).await;
        self.poisoned_by(synced.map_err(|error| explain("fdatasync", self.path(), None, error)))?;
        self.disk.metrics.disk_syncs.add(1);
        Ok(())
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let handle = self.kept_handle().await?;
        let set = self.disk.ring.set_len(&handle, len).await;
        self.poisoned_by(set.map_err(|error| explain("truncate", self.path(), Some(len), error)))
    }

    async fn len(&self) -> io::Result<u64> {
        self.byte_len(&self.handle().await?)
    }

    /// Waits for the kernel where this is the last owner; operations in flight keep the descriptor open until they end.
    async fn close(self) -> io::Result<()> {
        if let Some(FileHandle::Executor(file)) = self.seat.take()
            && let Ok(file) = Rc::try_unwrap(file)
        {
            return file.close().await.map_err(|error| explain("close", self.path(), None, error));
        }
        Ok(())
    }
}
