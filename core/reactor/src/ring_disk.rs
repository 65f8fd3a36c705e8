//! The real disk.
//!
//! Owns: [`RingDisk`], the [`Disk`] of a core: its data folder, its side ring, its buffers.
//! Invariants: paths stay inside the data folder (plain names only, no `..`, not absolute; a symbolic link that the
//! operator placed is the operator's choice); nothing but `list` blocks the executor, and that for one folder; the names
//! that begin with `.tidemill-` belong to the start and are not listed.
//! Knows nothing of logs, TSM or manifests.

use crate::{
    disk_buf::BufPool,
    disk_file::{FileHandle, RingFile},
    metrics::CoreMetrics,
    open_files::{OpenFiles, Seat},
    side_ring::SideRing,
};
use glommio::{GlommioError, io::OpenOptions};
use std::{
    ffi::CString,
    fmt, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
    rc::Rc,
    sync::Arc,
};
use tidemill_disk::{Disk, Purpose};

/// Begin of the names in the data folder that are not the caller's.
pub(crate) const OWN_NAME_PREFIX: &str = ".tidemill-";

pub(crate) struct DiskInner {
    pub(crate) ring: SideRing,
    pub(crate) pool: Rc<BufPool>,
    pub(crate) files: OpenFiles,
    pub(crate) dsync: bool,
    pub(crate) metrics: Arc<CoreMetrics>,
    root: Rc<OwnedFd>,
    root_path: PathBuf,
    direct: bool,
}

/// The data folder of this process, seen from one core. Clones share everything.
#[derive(Clone)]
pub struct RingDisk(Rc<DiskInner>);

/// How a core's disk works, decided at the start.
pub(crate) struct DiskSettings {
    pub(crate) root_path: PathBuf,
    pub(crate) direct: bool,
    pub(crate) dsync: bool,
    pub(crate) pool_bytes_max: usize,
    /// Data files that hold a descriptor at a time.
    pub(crate) open_files_max: usize,
}

impl RingDisk {
    pub(crate) fn new(ring: SideRing, settings: DiskSettings, metrics: Arc<CoreMetrics>) -> io::Result<RingDisk> {
        let root = std::fs::File::open(&settings.root_path)
            .map_err(|error| explain("open", &settings.root_path.display(), None, error))?;
        Ok(RingDisk(Rc::new(DiskInner {
            ring,
            pool: BufPool::new(settings.pool_bytes_max, metrics.clone()),
            files: OpenFiles::new(settings.open_files_max),
            dsync: settings.dsync,
            metrics,
            root: Rc::new(root.into()),
            root_path: settings.root_path,
            direct: settings.direct,
        })))
    }

    /// False where the data folder does without direct I/O: reads and writes go through the page cache, and durability is
    /// by fdatasync alone.
    pub fn is_direct(&self) -> bool {
        self.0.direct
    }

    /// Bytes of the filesystem of the data folder, and how many of them are free. The kernel has both in memory.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        let space = crate::syscall::space(self.0.root.as_raw_fd());
        space.map_err(|error| explain("look for room in", &self.0.root_path.display(), None, error))
    }

    async fn folder(&self, path: &str) -> io::Result<Rc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.0.root.clone());
        }
        let name = file_name(path, "open the folder")?;
        let fd = self.0.ring.open_at(&self.0.root, name, libc::O_RDONLY | libc::O_DIRECTORY).await;
        fd.map(Rc::new).map_err(|error| explain("open the folder", &path, None, error))
    }
}

impl DiskInner {
    async fn open_with(&self, path: &str, purpose: Purpose, flags: i32, operation: &str) -> io::Result<FileHandle> {
        let name = file_name(path, operation)?;
        let direct = if self.direct { libc::O_DIRECT } else { 0 };
        let fd = self.ring.open_at(&self.root, name, libc::O_RDWR | direct | flags).await;
        let fd = fd.map_err(|error| explain(operation, &path, None, error))?;
        Ok(match purpose {
            Purpose::Data if self.direct => {
                // The executor opens by path and looks at the path again after that, with a panic if it is gone. The open
                // descriptor's own name cannot go away under it.
                let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
                let file = OpenOptions::new().read(true).write(true).dma_open(link).await;
                FileHandle::Executor(Rc::new(file.map_err(|error| explain(operation, &path, None, error))?))
            }
            Purpose::Data | Purpose::Log => FileHandle::Side(Rc::new(fd)),
        })
    }

    /// Gives a file that lost its descriptor another one.
    pub(crate) async fn reopen(&self, seat: &Rc<Seat>) -> io::Result<FileHandle> {
        let handle = self.open_with(&seat.path, Purpose::Data, 0, "open again").await?;
        self.metrics.files_reopened.add(1);
        Ok(self.files.give(seat, handle))
    }

    /// Before a name goes: who has that file open keeps it.
    async fn keep_open(&self, path: &str) -> io::Result<()> {
        for seat in self.files.keep(path) {
            if seat.handle().is_none() {
                self.reopen(&seat).await?;
            }
        }
        Ok(())
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The path as the kernel wants it, if it stays inside the data folder.
fn file_name(path: &str, operation: &str) -> io::Result<CString> {
    let inside = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let name = if inside { CString::new(path).ok() } else { None };
    name.ok_or_else(|| {
        let reason =
            io::Error::new(io::ErrorKind::InvalidInput, "the path does not name a file inside the data folder");
        explain(operation, &format!("{path:?}"), None, reason)
    })
}

/// An I/O error with what was done where; the kind stays.
pub(crate) fn explain(
    operation: &str,
    path: &(impl fmt::Display + ?Sized),
    offset: Option<u64>,
    error: impl Into<IoReason>,
) -> io::Error {
    let IoReason(error) = error.into();
    let place = offset.map_or(String::new(), |offset| format!(" at {offset}"));
    io::Error::new(error.kind(), format!("{operation} {path}{place}: {error}"))
}

/// What the kernel or the executor said.
pub(crate) struct IoReason(pub(crate) io::Error);

impl From<io::Error> for IoReason {
    fn from(error: io::Error) -> IoReason {
        IoReason(error)
    }
}

impl From<GlommioError<()>> for IoReason {
    fn from(error: GlommioError<()>) -> IoReason {
        IoReason(match error {
            GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => source,
            other => io::Error::other(other.to_string()),
        })
    }
}

impl Disk for RingDisk {
    type File = RingFile;

    async fn open(&self, path: &str, purpose: Purpose) -> io::Result<RingFile> {
        let handle = self.0.open_with(path, purpose, 0, "open").await?;
        Ok(match purpose {
            Purpose::Data => RingFile::of_name(self.0.clone(), handle, path),
            Purpose::Log => RingFile::kept(self.0.clone(), handle, path),
        })
    }

    async fn create(&self, path: &str, purpose: Purpose) -> io::Result<RingFile> {
        let handle = self.0.open_with(path, purpose, libc::O_CREAT | libc::O_EXCL, "create").await?;
        Ok(RingFile::kept(self.0.clone(), handle, path))
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let names = (file_name(from, "rename")?, file_name(to, "rename to")?);
        self.0.keep_open(from).await?;
        self.0.keep_open(to).await?;
        let renamed = self.0.ring.rename(&self.0.root, names.0, names.1).await;
        renamed.map_err(|error| explain("rename", &format!("{from} to {to}"), None, error))
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        self.0.keep_open(path).await?;
        let removed = self.0.ring.unlink(&self.0.root, file_name(path, "remove")?).await;
        removed.map_err(|error| explain("remove", path, None, error))
    }

    async fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        ends.push(path.len());
        for end in ends {
            let part = &path[..end];
            match self.0.ring.make_folder(&self.0.root, file_name(part, "create the folder")?).await {
                Ok(()) => self.sync_dir(folder_of(part)).await?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(explain("create the folder", part, None, error)),
            }
        }
        // A folder that was there may be one that a crashed start made and did not sync.
        self.sync_dir(folder_of(path)).await
    }

    async fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let folder = if path.is_empty() {
            self.0.root_path.clone()
        } else {
            file_name(path, "list")?;
            self.0.root_path.join(path)
        };
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(explain("list", path, None, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| explain("list", path, None, error))?.file_name();
            let name = name.into_string().map_err(|name| {
                let reason = io::Error::new(io::ErrorKind::InvalidData, format!("{name:?} is not UTF-8"));
                explain("list", path, None, reason)
            })?;
            if !(path.is_empty() && name.starts_with(OWN_NAME_PREFIX)) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    async fn sync_dir(&self, path: &str) -> io::Result<()> {
        let folder = self.folder(path).await?;
        let synced = self.0.ring.sync_folder(&folder).await;
        synced.map_err(|error| explain("fsync the folder", path, None, error))
    }

    async fn publish(&self, file: RingFile, from: &str, to: &str) -> io::Result<()> {
        let names = (file_name(from, "publish")?, file_name(to, "publish as")?);
        let handle = file.kept_handle().await?;
        self.0.keep_open(to).await?;
        let target = self.folder(folder_of(to)).await?;
        let source = if folder_of(from) == folder_of(to) { None } else { Some(self.folder(folder_of(from)).await?) };
        let published = self.0.ring.publish(&handle, &self.0.root, names, (target, source)).await;
        file.poisoned_by(published.map_err(|error| explain("publish", &format!("{from} as {to}"), None, error)))?;
        self.0.metrics.disk_syncs.add(2);
        drop(handle);
        tidemill_disk::DiskFile::close(file).await
    }
}
