//! Which data folder each node of a cluster has.
//!
//! A node that lost its disk and came back under its number with an empty folder would vote again, without knowing what
//! it has promised and stored: together with another node that lacks them it could decide against rows that were
//! acknowledged. So every folder has a number, every node notes the number of each other node's folder when it hears of
//! it first, and whoever comes with another folder is told so and ends. A new folder takes part in nothing before as many
//! of the others have noted it as make a majority with it.
//!
//! Owns: two small files beside the identity. Invariant: what was noted is durable before the node that asked is told.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};
use tidemill_raft::NodeId;

const FILE: &str = "acquaintances";
const TEMPORARY: &str = "acquaintances.tmp";
const FIRST_LINE: &str = "tidemill acquaintances, version 1";
/// There once the others have noted this folder.
const NOTED: &str = "noted-by-others";

/// What this node knows of the folders of others.
#[derive(Debug)]
pub struct Acquaintances {
    folder: PathBuf,
    /// Of this node's folder.
    pub own: u64,
    known: RefCell<BTreeMap<NodeId, u64>>,
}

/// A node came with another folder than before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "node {node} of this cluster has had another data folder, and what it promised with that one is not in the folder \
     that it has now: give a new node a new number, and let it `replace` node {node}"
)]
pub struct Stranger {
    pub node: NodeId,
}

/// Why a folder was not noted.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    #[error(transparent)]
    Stranger(#[from] Stranger),
    #[error("the folder of another node cannot be noted: {0}")]
    Io(#[from] io::Error),
}

impl Acquaintances {
    /// Reads what a data folder knows.
    ///
    /// # Errors
    /// The file is there and cannot be read, or is damaged.
    pub fn load(folder: &Path, own: u64) -> io::Result<Acquaintances> {
        let known = match fs::read_to_string(folder.join(FILE)) {
            Ok(text) => parse(&text).ok_or_else(|| {
                let path = folder.join(FILE).display().to_string();
                io::Error::new(io::ErrorKind::InvalidData, format!("{path} is damaged"))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Acquaintances { folder: folder.to_owned(), own, known: RefCell::new(known) })
    }

    /// Whether a majority has noted this node's folder, in this run or an earlier one.
    pub fn is_noted(folder: &Path) -> bool {
        folder.join(NOTED).is_file()
    }

    /// A majority has noted this node's folder.
    pub fn set_noted(&self) -> io::Result<()> {
        File::create(self.folder.join(NOTED))?.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }

    /// Another node says which folder it has.
    ///
    /// # Errors
    /// It had another one before, or this cannot be noted.
    pub fn note(&self, node: NodeId, folder: u64) -> Result<(), NoteError> {
        let mut known = self.known.borrow().clone();
        match known.insert(node, folder) {
            Some(before) if before == folder => return Ok(()),
            Some(_) => return Err(Stranger { node }.into()),
            None => {}
        }
        let mut file = File::create(self.folder.join(TEMPORARY))?;
        file.write_all(text(&known).as_bytes())?;
        file.sync_all()?;
        fs::rename(self.folder.join(TEMPORARY), self.folder.join(FILE))?;
        File::open(&self.folder)?.sync_all()?;
        *self.known.borrow_mut() = known;
        Ok(())
    }
}

fn text(known: &BTreeMap<NodeId, u64>) -> String {
    let lines = known.iter().map(|(node, folder)| format!("node {node} {folder:016x}\n"));
    let body = format!("{FIRST_LINE}\n{}", lines.collect::<String>());
    let crc = crc32c::crc32c(body.as_bytes());
    format!("{body}crc32c {crc:08x}\n")
}

fn parse(written: &str) -> Option<BTreeMap<NodeId, u64>> {
    let mut known = BTreeMap::new();
    for line in written.lines().skip(1) {
        let Some(entry) = line.strip_prefix("node ") else { continue };
        let (node, folder) = entry.split_once(' ')?;
        known.insert(NodeId(node.parse().ok()?), u64::from_str_radix(folder, 16).ok()?);
    }
    (text(&known) == written).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_folder_of_a_node_is_refused_also_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let known = Acquaintances::load(folder.path(), 1).unwrap();
        known.note(NodeId(2), 20).unwrap();
        known.note(NodeId(3), 30).unwrap();
        known.note(NodeId(2), 20).unwrap();
        for known in [known, Acquaintances::load(folder.path(), 1).unwrap()] {
            assert!(matches!(known.note(NodeId(2), 21), Err(NoteError::Stranger(Stranger { node: NodeId(2) }))));
            known.note(NodeId(3), 30).unwrap();
        }
        assert!(!Acquaintances::is_noted(folder.path()));
        Acquaintances::load(folder.path(), 1).unwrap().set_noted().unwrap();
        assert!(Acquaintances::is_noted(folder.path()));
    }

    #[test]
    fn every_change_of_the_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        Acquaintances::load(folder.path(), 1).unwrap().note(NodeId(2), 20).unwrap();
        let text = fs::read(folder.path().join(FILE)).unwrap();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(folder.path().join(FILE), &damaged).unwrap();
            assert!(Acquaintances::load(folder.path(), 1).is_err(), "bit {bit}");
        }
    }
}
