//! File operations on the side ring.
//!
//! Owns: the making of each submission from things that it holds. Invariant: every function gives the kernel only
//! pointers into what it passes as `held`. Errors are plain operating system errors; the caller adds path and offset.

use crate::{
    disk_buf::DiskBuf,
    disk_file::FileHandle,
    side_ring::{NO_ANSWER, SideRing},
};
use io_uring::{
    opcode,
    squeue::Flags,
    types::{Fd, FsyncFlags},
};
use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
};

fn check(result: i32) -> io::Result<usize> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as usize) }
}

impl SideRing {
    /// Opens a path under a folder.
    pub(crate) async fn open_at(&self, folder: &Rc<OwnedFd>, path: CString, flags: i32) -> io::Result<OwnedFd> {
        let entry = opcode::OpenAt::new(Fd(folder.as_raw_fd()), path.as_ptr())
            .flags(flags | libc::O_CLOEXEC)
            .mode(0o644)
            .build();
        // SAFETY: the path and the folder are held.
        unsafe { self.run_open(entry, (folder.clone(), path)) }.await
    }

    /// Reads into `buf[at..at + len]`; gives the bytes read.
    pub(crate) async fn read(
        &self,
        file: &FileHandle,
        mut buf: DiskBuf,
        at: usize,
        len: usize,
        offset: u64,
    ) -> (io::Result<usize>, DiskBuf) {
        let target = buf.as_mut()[at..at + len].as_mut_ptr();
        let entry = opcode::Read::new(Fd(file.as_raw_fd()), target, len as u32).offset(offset).build();
        // SAFETY: buffer and file are held; the buffer's bytes are on the heap.
        let (results, (_, buf)) = unsafe { self.run([entry], (file.clone(), buf)) }.await;
        (check(results[0]), buf)
    }

    /// Writes the whole buffer; gives the bytes written. `flags` are `RWF_*`.
    pub(crate) async fn write(
        &self,
        file: &FileHandle,
        buf: DiskBuf,
        offset: u64,
        flags: i32,
    ) -> (io::Result<usize>, DiskBuf) {
        let (source, len) = (buf.as_ref().as_ptr(), buf.as_ref().len() as u32);
        let entry = opcode::Write::new(Fd(file.as_raw_fd()), source, len).offset(offset).rw_flags(flags).build();
        // SAFETY: buffer and file are held; the buffer's bytes are on the heap.
        let (results, (_, buf)) = unsafe { self.run([entry], (file.clone(), buf)) }.await;
        (check(results[0]), buf)
    }

    /// Write, then fdatasync, as one chain: the sync is not started when the write fails or is short.
    pub(crate) async fn write_and_sync(
        &self,
        file: &FileHandle,
        buf: DiskBuf,
        offset: u64,
    ) -> (io::Result<usize>, DiskBuf) {
        let (source, len) = (buf.as_ref().as_ptr(), buf.as_ref().len() as u32);
        let fd = Fd(file.as_raw_fd());
        let write = opcode::Write::new(fd, source, len).offset(offset).build().flags(Flags::IO_LINK);
        let sync = opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build();
        // SAFETY: buffer and file are held; the buffer's bytes are on the heap.
        let (results, (_, buf)) = unsafe { self.run_quiet([write, sync], (file.clone(), buf)) }.await;
        let sync = || check(results[1]).map_err(|error| io::Error::new(error.kind(), format!("fdatasync: {error}")));
        let written = match results[0] {
            NO_ANSWER => sync().map(|_| len as usize),
            written => check(written).and_then(|written| {
                // A short write cancels the sync; the caller sees the count and makes it an error.
                if written == len as usize { sync().map(|_| written) } else { Ok(written) }
            }),
        };
        (written, buf)
    }

    pub(crate) async fn sync_data(&self, file: &FileHandle) -> io::Result<()> {
        let entry = opcode::Fsync::new(Fd(file.as_raw_fd())).flags(FsyncFlags::DATASYNC).build();
        // SAFETY: the file is held.
        let (results, _) = unsafe { self.run([entry], file.clone()) }.await;
        check(results[0]).map(drop)
    }

    pub(crate) async fn sync_folder(&self, folder: &Rc<OwnedFd>) -> io::Result<()> {
        let entry = opcode::Fsync::new(Fd(folder.as_raw_fd())).build();
        // SAFETY: the folder is held.
        let (results, _) = unsafe { self.run([entry], folder.clone()) }.await;
        check(results[0]).map(drop)
    }

    pub(crate) async fn set_len(&self, file: &FileHandle, len: u64) -> io::Result<()> {
        let entry = opcode::Ftruncate::new(Fd(file.as_raw_fd()), len).build();
        // SAFETY: the file is held.
        let (results, _) = unsafe { self.run([entry], file.clone()) }.await;
        check(results[0]).map(drop)
    }

    pub(crate) async fn rename(&self, root: &Rc<OwnedFd>, from: CString, to: CString) -> io::Result<()> {
        let fd = Fd(root.as_raw_fd());
        let entry = opcode::RenameAt::new(fd, from.as_ptr(), fd, to.as_ptr()).build();
        // SAFETY: folder and paths are held.
        let (results, _) = unsafe { self.run([entry], (root.clone(), from, to)) }.await;
        check(results[0]).map(drop)
    }

    pub(crate) async fn unlink(&self, root: &Rc<OwnedFd>, path: CString) -> io::Result<()> {
        let entry = opcode::UnlinkAt::new(Fd(root.as_raw_fd()), path.as_ptr()).build();
        // SAFETY: folder and path are held.
        let (results, _) = unsafe { self.run([entry], (root.clone(), path)) }.await;
        check(results[0]).map(drop)
    }

    pub(crate) async fn make_folder(&self, root: &Rc<OwnedFd>, path: CString) -> io::Result<()> {
        let entry = opcode::MkDirAt::new(Fd(root.as_raw_fd()), path.as_ptr()).mode(0o755).build();
        // SAFETY: folder and path are held.
        let (results, _) = unsafe { self.run([entry], (root.clone(), path)) }.await;
        check(results[0]).map(drop)
    }

    /// fdatasync of the file, rename, fsync of the target's folder (and of the source's, if it is another one), in that
    /// order and in one submission.
    ///
    /// 1. Content before name: without the first sync, a crash after the rename could leave `to` without its bytes.
    /// 2. Name before answer: without the last sync, a crash after the answer could bring `from` back.
    pub(crate) async fn publish(
        &self,
        file: &FileHandle,
        root: &Rc<OwnedFd>,
        paths: (CString, CString),
        folders: (Rc<OwnedFd>, Option<Rc<OwnedFd>>),
    ) -> io::Result<()> {
        let root_fd = Fd(root.as_raw_fd());
        let mut chain = vec![
            opcode::Fsync::new(Fd(file.as_raw_fd())).flags(FsyncFlags::DATASYNC).build(),
            opcode::RenameAt::new(root_fd, paths.0.as_ptr(), root_fd, paths.1.as_ptr()).build(),
            opcode::Fsync::new(Fd(folders.0.as_raw_fd())).build(),
        ];
        chain.extend(folders.1.iter().map(|folder| opcode::Fsync::new(Fd(folder.as_raw_fd())).build()));
        let last = chain.len() - 1;
        let chain: Vec<_> = chain
            .into_iter()
            .enumerate()
            .map(|(link, entry)| if link < last { entry.flags(Flags::IO_LINK) } else { entry })
            .collect();
        let count = chain.len();
        // SAFETY: file, folders and paths are held.
        let (results, _) = unsafe { self.run(chain, (file.clone(), root.clone(), paths, folders)) }.await;
        // The first failure cancels the rest of the chain, so the first bad result is the reason.
        results[..count].iter().try_for_each(|result| check(*result).map(drop))
    }
}
