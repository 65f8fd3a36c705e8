//! The probe file, and the two guard rails that need it.
//!
//! Owns: the file `.tidemill-probe` in the data folder: two blocks that are never empty.
//!
//! Why: glommio 0.9.0 decides once per thread and device whether the device polls, by a read through its poll ring of the
//! first file that is opened. On a new, empty file that read ends at once without touching the device, and "polls" is
//! remembered: from then on every direct write spins at 100 % CPU and waits for a worker that is pinned behind it
//! (measured: 3.8 ms instead of 0.1 ms for 4 KiB). So the first direct open of every executor is this file, and after that
//! a test write must not have gone through the poll ring unless a device polls.
//! Invariant: the file is written and synced before any executor starts. Knows nothing of the rest of the folder.

use crate::ring_disk::{OWN_NAME_PREFIX, explain};
use glommio::io::OpenOptions;
use std::{
    fs,
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};
use tidemill_disk::{AlignedBuf, BLOCK_BYTES};

const PROBE_BYTES: usize = 2 * BLOCK_BYTES;

pub(crate) fn probe_path(data_dir: &Path) -> PathBuf {
    data_dir.join(format!("{OWN_NAME_PREFIX}probe"))
}

/// What the filesystem of the data folder can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FolderProbe {
    pub(crate) direct: bool,
    /// Memory and offset alignment that direct I/O asks for, where the kernel says.
    pub(crate) alignment: Option<(u32, u32)>,
}

/// Writes the probe file and tries direct I/O on it.
pub(crate) fn make(data_dir: &Path) -> io::Result<FolderProbe> {
    let path = probe_path(data_dir);
    let named = |error: io::Error| explain("write the probe file", &path.display(), None, error);
    let mut file = fs::File::create(&path).map_err(named)?;
    file.write_all(&[0x5a; PROBE_BYTES]).and_then(|()| file.sync_all()).map_err(named)?;
    let direct = match fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path) {
        Ok(file) => {
            // Some filesystems accept the flag and refuse the read.
            match crate::syscall::read_block(file.as_raw_fd(), &mut AlignedBuf::new(BLOCK_BYTES)) {
                Ok(()) => true,
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
                Err(error) => return Err(explain("read the probe file", &path.display(), Some(0), error)),
            }
        }
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
        Err(error) => return Err(explain("open the probe file", &path.display(), None, error)),
    };
    Ok(FolderProbe { direct, alignment: crate::syscall::direct_io_alignment(file.as_raw_fd()) })
}

/// The first direct open of an executor.
pub(crate) async fn prime(data_dir: &Path) -> io::Result<()> {
    let path = probe_path(data_dir);
    let file = OpenOptions::new().read(true).dma_open(&path).await.map_err(io::Error::from)?;
    let read = file.read_at_aligned(0, BLOCK_BYTES).await.map_err(io::Error::from)?.len();
    file.close().await.map_err(io::Error::from)?;
    if read == BLOCK_BYTES {
        Ok(())
    } else {
        let reason = io::Error::new(io::ErrorKind::UnexpectedEof, "the probe file is empty");
        Err(explain("read", &path.display(), Some(0), reason))
    }
}

/// True when a test write went through the executor's poll ring and no device of this machine polls.
pub(crate) async fn writes_poll_by_mistake(data_dir: &Path) -> io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).dma_open(probe_path(data_dir)).await;
    let file = file.map_err(io::Error::from)?;
    let mut buffer = file.alloc_dma_buffer(BLOCK_BYTES);
    buffer.as_bytes_mut().fill(0x5a);
    file.write_at(buffer, BLOCK_BYTES as u64).await.map_err(io::Error::from)?;
    file.close().await.map_err(io::Error::from)?;
    let polled = glommio::executor().io_stats().poll_ring.file_writes().0 > 0;
    Ok(polled && !some_device_polls())
}

/// What the primer prevents, for the test of the check behind it.
pub(crate) async fn open_an_empty_file(data_dir: &Path) -> io::Result<()> {
    let path = data_dir.join(format!("{OWN_NAME_PREFIX}empty"));
    let mut how = OpenOptions::new();
    let file = how.read(true).write(true).create(true).truncate(true).dma_open(&path).await.map_err(io::Error::from)?;
    file.close().await.map_err(io::Error::from)
}

/// True if a block device has polling queues.
pub(crate) fn some_device_polls() -> bool {
    let Ok(devices) = fs::read_dir("/sys/block") else { return false };
    devices
        .flatten()
        .filter_map(|device| fs::read_to_string(device.path().join("queue/io_poll")).ok())
        .any(|polls| polls.trim() == "1")
}

#[cfg(test)]
mod tests {
    use crate::{CoreContext, ReactorOptions, StartError, run};
    use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};

    fn options(folder: &tempfile::TempDir) -> ReactorOptions {
        let mut options = ReactorOptions::new(1, folder.path());
        options.io_memory_bytes = 1 << 20;
        options
    }

    async fn writes_in_poll_ring(context: &CoreContext<()>) -> u64 {
        let file = context.disk.create("new", Purpose::Data).await.unwrap();
        file.write_at(file.alloc(BLOCK_BYTES), 0).await.unwrap();
        file.close().await.unwrap();
        glommio::executor().io_stats().poll_ring.file_writes().0
    }

    /// The trap itself, without any of our code between: an empty file first, and writes go to the poll ring.
    fn polls_after_an_empty_file_first() -> bool {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound).make().unwrap();
        executor.run(async move {
            let mut how = glommio::io::OpenOptions::new();
            let file = how.read(true).write(true).create(true).dma_open(path).await.unwrap();
            let mut buffer = file.alloc_dma_buffer(BLOCK_BYTES);
            buffer.as_bytes_mut().fill(0);
            file.write_at(buffer, 0).await.unwrap();
            file.close().await.unwrap();
            glommio::executor().io_stats().poll_ring.file_writes().0 > 0
        })
    }

    #[test]
    fn an_empty_file_first_makes_the_executor_poll_and_the_primer_prevents_it() {
        if super::some_device_polls() {
            return; // Polling is then what the executor should do.
        }
        assert!(polls_after_an_empty_file_first(), "the trap is gone from this executor: the primer may go, too");
        let folder = tempfile::tempdir().unwrap();
        run(options(&folder), |context: CoreContext<()>| async move {
            assert_eq!(writes_in_poll_ring(&context).await, 0);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_start_that_fell_into_the_trap_is_refused() {
        if super::some_device_polls() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(&folder);
        options.guards.primer = false;
        options.guards.empty_file_first = true;
        let refused = run(options, |_: CoreContext<()>| async { Ok(()) }).unwrap_err();
        assert!(matches!(refused, StartError::PollRing { .. }), "{refused}");
    }

    #[test]
    fn a_folder_without_direct_io_is_refused_or_served_buffered() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(&folder);
        options.guards.refuse_direct_io = true;
        let refused = run(options.clone(), |_: CoreContext<()>| async { Ok(()) }).unwrap_err();
        assert!(matches!(refused, StartError::NoDirectIo { .. }), "{refused}");
        options.allow_buffered = true;
        run(options, |context: CoreContext<()>| async move {
            assert!(!context.disk.is_direct() && !context.kernel.direct_io);
            for purpose in [Purpose::Log, Purpose::Data] {
                let name = format!("{purpose:?}");
                let file = context.disk.create(&name, purpose).await?;
                let mut buf = file.alloc(BLOCK_BYTES);
                buf.as_mut().fill(7);
                file.write_durable(buf, BLOCK_BYTES as u64).await?;
                let back = file.read_at(0, 4 * BLOCK_BYTES).await?;
                assert_eq!(back.as_ref(), [vec![0; BLOCK_BYTES], vec![7; BLOCK_BYTES]].concat());
                context.disk.publish(file, &name, &format!("{name}.published")).await?;
            }
            Ok(())
        })
        .unwrap();
    }
}
