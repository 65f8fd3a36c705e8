//! What a data folder is fixed to when it is made.
//!
//! A text of a few lines, the last a checksum of the others: it is read before any core runs, by people too.
//! Invariant: the folder of a cluster's node is opened by that node alone: another one, or a server without a cluster,
//! would vote and count with what was promised in its name.

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
    /// The node of a cluster; zero without one.
    pub node: u64,
    /// Of a node: tells this folder from any other that the node may have had; zero in folders that have no number yet.
    pub folder: u64,
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
    #[error("{path} belongs to {found}, and this is {asked}")]
    Owner { path: String, found: Owner, asked: Owner },
}

/// Whose a data folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A server without a cluster; a new folder of one gets `new`.
    Standalone { new: u64 },
    /// A node, by its number and by what tells it from all nodes of all clusters.
    /// A new folder of it gets the number `new`.
    Node { node: u64, data: u64, new: u64 },
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Owner::Standalone { .. } => f.write_str("a server without a cluster"),
            Owner::Node { node, data, .. } => write!(f, "node {node} of a cluster ({data:016x})"),
        }
    }
}

/// Whether a folder is the data folder of upstream's server: each of its databases has a series file.
fn holds_upstreams_data(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().join("_series").is_dir())
}

impl Identity {
    /// Reads the folder's identity; a new or empty folder gets one. `partitions` is what was asked for, if anything.
    pub fn establish(folder: &Path, partitions: Option<u32>, owner: Owner) -> Result<Identity, IdentityError> {
        let path = folder.display().to_string();
        let io_error = |error| IdentityError::Io { path: path.clone(), error };
        fs::create_dir_all(folder).map_err(io_error)?;
        match fs::read_to_string(folder.join(FILE)) {
            Ok(text) => {
                let identity = Identity::parse(&text);
                let identity = identity.ok_or_else(|| IdentityError::Damaged { path: format!("{path}/{FILE}") })?;
                if !identity.is_of(owner) {
                    return Err(IdentityError::Owner { path, found: identity.owner(), asked: owner });
                }
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
                let (cluster, node, number) = match owner {
                    Owner::Standalone { new } => (new, 0, 0),
                    Owner::Node { node, data, new } => (data, node, new),
                };
                let partitions = partitions.unwrap_or(PARTITIONS_DEFAULT);
                let identity = Identity { cluster, node, folder: number, partitions };
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

    /// The text of a copy's identity. Its promises to a cluster are in the logs, which a copy has not: it is nobody's node.
    pub fn text_of_copy(&self) -> String {
        Identity { node: 0, folder: 0, ..*self }.text()
    }

    fn owner(&self) -> Owner {
        match self.node {
            0 => Owner::Standalone { new: self.cluster },
            node => Owner::Node { node, data: self.cluster, new: self.folder },
        }
    }

    fn is_of(&self, owner: Owner) -> bool {
        match owner {
            Owner::Standalone { .. } => self.node == 0,
            Owner::Node { node, data, .. } => (self.node, self.cluster) == (node, data),
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
        let node = if self.node == 0 { String::new() } else { format!("node {}\n", self.node) };
        let folder = if self.folder == 0 { String::new() } else { format!("folder {:016x}\n", self.folder) };
        let (cluster, partitions) = (self.cluster, self.partitions);
        let body = format!("{FIRST_LINE}\ncluster {cluster:016x}\n{node}{folder}partitions {partitions}\n");
        let crc = crc32c::crc32c(body.as_bytes());
        format!("{body}crc32c {crc:08x}\n")
    }

    fn parse(text: &str) -> Option<Identity> {
        let mut lines = text.lines();
        let first = lines.next()?;
        let cluster = u64::from_str_radix(lines.next()?.strip_prefix("cluster ")?, 16).ok()?;
        let mut line = lines.next()?;
        let mut node = 0;
        if let Some(number) = line.strip_prefix("node ") {
            node = number.parse().ok()?;
            line = lines.next()?;
        }
        let mut folder = 0;
        if let Some(number) = line.strip_prefix("folder ") {
            folder = u64::from_str_radix(number, 16).ok()?;
            line = lines.next()?;
        }
        let partitions = line.strip_prefix("partitions ")?.parse().ok()?;
        let identity = Identity { cluster, node, folder, partitions };
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

    const SEVEN: Owner = Owner::Standalone { new: 7 };
    const EIGHT: Owner = Owner::Standalone { new: 8 };

    #[test]
    fn a_folder_of_a_node_is_opened_by_that_node_alone() {
        let folder = tempfile::tempdir().unwrap();
        let owner = Owner::Node { node: 2, data: 9, new: 5 };
        let made = Identity::establish(folder.path(), Some(4), owner).unwrap();
        assert_eq!(made, Identity { cluster: 9, node: 2, folder: 5, partitions: 4 });
        assert_eq!(Identity::establish(folder.path(), None, owner).unwrap(), made);
        assert_eq!(Identity::read(folder.path()).unwrap(), made);
        for stranger in [SEVEN, Owner::Node { node: 1, data: 9, new: 5 }, Owner::Node { node: 2, data: 8, new: 5 }] {
            let refused = Identity::establish(folder.path(), None, stranger);
            assert!(matches!(refused, Err(IdentityError::Owner { .. })), "{stranger}");
        }
        let alone = tempfile::tempdir().unwrap();
        Identity::establish(alone.path(), None, SEVEN).unwrap();
        assert!(matches!(Identity::establish(alone.path(), None, owner), Err(IdentityError::Owner { .. })));
    }

    #[test]
    fn an_identity_is_made_once_and_every_change_of_it_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let made = Identity::establish(folder.path(), None, SEVEN).unwrap();
        assert_eq!(made, Identity { cluster: 7, node: 0, folder: 0, partitions: 16 });
        assert_eq!(Identity::establish(folder.path(), Some(16), EIGHT).unwrap(), made);
        let other = Identity::establish(folder.path(), Some(8), EIGHT);
        assert!(matches!(other, Err(IdentityError::Partitions { found: 16, asked: 8, .. })));
        let text = fs::read(folder.path().join(FILE)).unwrap();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(folder.path().join(FILE), &damaged).unwrap();
            assert!(Identity::establish(folder.path(), None, EIGHT).is_err(), "bit {bit}");
        }
        fs::remove_file(folder.path().join(FILE)).unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        assert!(matches!(Identity::establish(folder.path(), None, EIGHT), Err(IdentityError::Stranger { .. })));
    }
}
