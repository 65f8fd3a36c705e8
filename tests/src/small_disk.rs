//! Small file systems that a scenario can fill up.
//!
//! An ext4 image behind a loop device when this process may mount one; else a memory file system of fixed size; else
//! none, and the scenario is skipped.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A mounted file system of fixed size; unmounted at the end.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
    mount: PathBuf,
}

impl SmallDisk {
    /// Mounts one of `mebibytes`; the error says what was refused.
    pub fn mount(mebibytes: u64) -> Result<Self, String> {
        let folder = tempfile::Builder::new()
            .prefix("tidemill-disk-")
            .tempdir()
            .map_err(|error| format!("no temporary folder: {error}"))?;
        let mount = folder.path().join("mount");
        std::fs::create_dir(&mount).map_err(|error| error.to_string())?;
        let image = folder.path().join("image");
        let size = format!("{mebibytes}M");
        let looped = run("truncate", &["-s", &size, &path(&image)])
            .and_then(|()| run("mkfs.ext4", &["-q", "-F", &path(&image)]))
            .and_then(|()| run("mount", &["-o", "loop", &path(&image), &path(&mount)]));
        if let Err(loop_error) = looped {
            let options = format!("size={size}");
            run("mount", &["-t", "tmpfs", "-o", &options, "tidemill-test", &path(&mount)])
                .map_err(|error| format!("{loop_error}; {error}"))?;
        }
        Ok(Self { folder, mount })
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// A folder beside the file system, for what must not run out of space.
    pub fn outside(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all space that is left, in a file of its own.
    pub fn fill(&self) -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.ballast())?;
        let block = vec![0u8; 1 << 20];
        let mut piece = block.len();
        // Ever smaller pieces, down to one block of the file system.
        while piece >= 4096 {
            match file.write(&block[..piece]).and_then(|count| file.sync_data().map(|()| count)) {
                Ok(count) if count == piece => {}
                Ok(_) => piece /= 2,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => piece /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the space back, and returns when it can be had: a journal gives out blocks again only when the removal
    /// is committed, which the system does in its own time.
    pub fn free(&self) -> std::io::Result<()> {
        std::fs::remove_file(self.ballast())?;
        for _ in 0..300 {
            self.sync()?;
            if self.takes_a_probe()? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(std::io::Error::other("the space of a removed file did not come back within 30 s"))
    }

    /// Commits the journal of this file system.
    fn sync(&self) -> std::io::Result<()> {
        let folder = std::fs::File::open(&self.mount)?;
        // SAFETY: the descriptor is open for the length of the call.
        if unsafe { libc::syncfs(folder.as_raw_fd()) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }

    /// Whether a mebibyte can be written.
    fn takes_a_probe(&self) -> std::io::Result<bool> {
        let probe = self.mount.join("probe");
        let written = std::fs::File::create(&probe).and_then(|mut file| {
            file.write_all(&vec![1u8; 1 << 20])?;
            file.sync_all()
        });
        std::fs::remove_file(&probe)?;
        self.sync()?;
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that a failing scenario left behind may still hold files open for a moment.
        let _ = run("umount", &["-l", &path(&self.mount)]);
    }
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn run(command: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(command).args(arguments).output().map_err(|error| format!("{command}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
