//! Whether a file is another one than before.

use std::{os::unix::fs::MetadataExt, path::Path};

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    inode: u64,
    changed_s: i64,
    changed_ns: i64,
    bytes: u64,
}

impl FileStamp {
    /// `None`: there is no such file, or it cannot be looked at.
    pub fn of(path: &Path) -> Option<FileStamp> {
        let found = std::fs::metadata(path).ok()?;
        Some(FileStamp {
            inode: found.ino(),
            changed_s: found.mtime(),
            changed_ns: found.mtime_nsec(),
            bytes: found.size(),
        })
    }
}
