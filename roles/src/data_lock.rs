//! One user of a data folder at a time.
//!
//! The server holds the lock of its folder for as long as it lives, and the kernel lets go of it however the server
//! ends. Tools that only read share it with each other.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::Path,
};

const FILE: &str = "lock";

/// Held until it is dropped.
#[derive(Debug)]
pub struct DataLock {
    _file: Option<File>,
}

/// The folder cannot be used now.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{path} is in use: a server or another tool holds {path}/{FILE}; stop it first")]
    Held { path: String },
    #[error("{path}/{FILE}: {error}")]
    Io { path: String, error: io::Error },
}

impl DataLock {
    /// For a server, or a tool that writes. Makes the folder if it is not there.
    pub fn exclusive(folder: &Path) -> Result<DataLock, LockError> {
        let io_error = |error| LockError::Io { path: folder.display().to_string(), error };
        std::fs::create_dir_all(folder).map_err(io_error)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(FILE));
        let file = file.map_err(io_error)?;
        taken(folder, file.try_lock())?;
        Ok(DataLock { _file: Some(file) })
    }

    /// For a tool that only reads; several may. A folder without the file was never served and needs no lock.
    pub fn shared(folder: &Path) -> Result<DataLock, LockError> {
        let file = match File::open(folder.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DataLock { _file: None }),
            opened => opened.map_err(|error| LockError::Io { path: folder.display().to_string(), error })?,
        };
        taken(folder, file.try_lock_shared())?;
        Ok(DataLock { _file: Some(file) })
    }
}

fn taken(folder: &Path, result: Result<(), TryLockError>) -> Result<(), LockError> {
    let path = folder.display().to_string();
    result.map_err(|error| match error {
        TryLockError::WouldBlock => LockError::Held { path },
        TryLockError::Error(error) => LockError::Io { path, error },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_or_many_readers() {
        let folder = tempfile::tempdir().unwrap();
        drop(DataLock::shared(folder.path()).unwrap());
        let writer = DataLock::exclusive(folder.path()).unwrap();
        assert!(matches!(DataLock::shared(folder.path()), Err(LockError::Held { .. })));
        assert!(matches!(DataLock::exclusive(folder.path()), Err(LockError::Held { .. })));
        drop(writer);
        let readers = [DataLock::shared(folder.path()).unwrap(), DataLock::shared(folder.path()).unwrap()];
        assert!(matches!(DataLock::exclusive(folder.path()), Err(LockError::Held { .. })));
        drop(readers);
        DataLock::exclusive(folder.path()).unwrap();
    }
}
