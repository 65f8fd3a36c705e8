//! What a data folder is fixed to when it is made.
//!
//! A text of four lines, the last a checksum of the others: it is read before any core runs, by people too.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

const FILE: &str = "identity";
const TEMPORARY: &str = "identity.tmp";
const FIRST_LINE: &str = "tidemill data folder, version 1";

/// Fixed for the life of a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Tells this server's data from another's.
    pub cluster: u64,
    /// Hash ranges that series are dealt to: a power of two.
    pub partitions: u32,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    #[error("{path}: not the identity of a data folder, or damaged")]
    Damaged { path: String },
    #[error("{path} holds data but no identity: it is not a data folder of this program, or its identity was removed")]
    Stranger { path: String },
    #[error("{path} holds data of InfluxDB; name another folder, into which `tidemill inspect import` brings them")]
    Upstreams { path: String },
    #[error("{path} was made with {found} partitions; `data.partitions` cannot change it to {asked}")]
    Partitions { path: String, found: u32, asked: u32 },
}

/// Whether a folder is the data folder of upstream's server: each of its databases has a series file.
fn holds_upstreams_data(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().join("_series").is_dir())
}

impl Identity {
    /// Reads the folder's identity; a new or empty folder gets one. `partitions` is what was asked for, if anything.
    pub fn establish(folder: &Path, partitions: Option<u32>, cluster: u64) -> Result<Identity, IdentityError> {
        let path = folder.display().to_string();
        let io_error = |error| IdentityError::Io { path: path.clone(), error };
        fs::create_dir_all(folder).map_err(io_error)?;
        match fs::read_to_string(folder.join(FILE)) {
            Ok(text) => {
                let identity = Identity::parse(&text);
                let identity = identity.ok_or_else(|| IdentityError::Damaged { path: format!("{path}/{FILE}") })?;
                match partitions.filter(|asked| *asked != identity.partitions) {
                    Some(asked) => Err(IdentityError::Partitions { path, found: identity.partitions, asked }),
                    None => Ok(identity),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if holds_upstreams_data(folder) {
                    return Err(IdentityError::Upstreams { path });
                }
                if ["log", "partitions", "meta"].iter().any(|name| folder.join(name).exists()) {
                    return Err(IdentityError::Stranger { path });
                }
                let identity = Identity { cluster, partitions: partitions.unwrap_or(PARTITIONS_DEFAULT) };
                identity.write(folder).map_err(io_error)?;
                Ok(identity)
            }
            Err(error) => Err(io_error(error)),
        }
    }

    /// The identity of an existing data folder.
    pub fn read(folder: &Path) -> Result<Identity, IdentityError> {
        let path = folder.join(FILE).display().to_string();
        match fs::read_to_string(&path) {
            Ok(text) => Identity::parse(&text).ok_or(IdentityError::Damaged { path }),
            Err(error) => Err(IdentityError::Io { path, error }),
        }
    }

    fn write(&self, folder: &Path) -> io::Result<()> {
        let mut file = File::create(folder.join(TEMPORARY))?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(folder.join(TEMPORARY), folder.join(FILE))?;
        File::open(folder)?.sync_all()
    }

    fn text(&self) -> String {
        let body = format!("{FIRST_LINE}\ncluster {:016x}\npartitions {}\n", self.cluster, self.partitions);
        let crc = crc32c::crc32c(body.as_bytes());
        format!("{body}crc32c {crc:08x}\n")
    }

    fn parse(text: &str) -> Option<Identity> {
        let mut lines = text.lines();
        let first = lines.next()?;
        let cluster = u64::from_str_radix(lines.next()?.strip_prefix("cluster ")?, 16).ok()?;
        let partitions = lines.next()?.strip_prefix("partitions ")?.parse().ok()?;
        let identity = Identity { cluster, partitions };
        (first == FIRST_LINE && identity.text() == text && u32::is_power_of_two(partitions)).then_some(identity)
    }
}

/// Whether the folder is a data folder.
pub fn is_in(folder: &Path) -> bool {
    folder.join(FILE).is_file()
}

/// Partitions of a new folder: enough for sixteen cores, few enough that their files stay large.
const PARTITIONS_DEFAULT: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_every_change_of_it_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let made = Identity::establish(folder.path(), None, 7).unwrap();
        assert_eq!(made, Identity { cluster: 7, partitions: 16 });
        assert_eq!(Identity::establish(folder.path(), Some(16), 8).unwrap(), made);
        let other = Identity::establish(folder.path(), Some(8), 8);
        assert!(matches!(other, Err(IdentityError::Partitions { found: 16, asked: 8, .. })));
        let text = fs::read(folder.path().join(FILE)).unwrap();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(folder.path().join(FILE), &damaged).unwrap();
            assert!(Identity::establish(folder.path(), None, 8).is_err(), "bit {bit}");
        }
        fs::remove_file(folder.path().join(FILE)).unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        assert!(matches!(Identity::establish(folder.path(), None, 8), Err(IdentityError::Stranger { .. })));
    }
}
