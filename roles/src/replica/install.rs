//! State as files, from one member to another: how a member comes up to date whose entries the others have in files
//! alone.
//!
//! Invariants: what is installed is committed, and ends at the entry that the leader named; a member that fails to get it
//! is what it was before.

use bytes::Bytes;
use std::{pin::Pin, sync::Arc};
use tidemill_disk::Disk;
use tidemill_raft::{EntryId, GroupId, LogIndex, NodeId};
use tidemill_store::ArrivingFile;

/// A future of one core.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The state up to an entry as a list of files.
pub struct Offer {
    pub index: LogIndex,
    pub manifest: Arc<[u8]>,
}

/// What a member is given.
#[derive(Clone)]
pub struct Gift {
    /// Who has the files.
    pub from: NodeId,
    pub group: GroupId,
    pub base: EntryId,
    pub manifest: Arc<[u8]>,
}

/// Why a member is not up to date after all.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InstallFailure {
    /// It is what it was before: files are gone by now, or the way to them.
    #[error("{0}")]
    Unchanged(String),
    /// It cannot go on before its next start.
    #[error("{0}")]
    Broken(String),
}

/// Some bytes of a file of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePart {
    /// Below the group's folder.
    pub name: String,
    pub offset: u64,
    pub length: u64,
}

impl FilePart {
    /// The first `size` bytes.
    pub fn head(name: impl Into<String>, size: u64) -> FilePart {
        FilePart { name: name.into(), offset: 0, length: size }
    }
}

/// Bytes of a file for another node, piece by piece, in the memory that they were read into.
pub trait Pieces {
    /// `None` behind the last one.
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Bytes>, String>>;
}

/// Bytes of a file of another node, while they arrive.
pub trait Inflow {
    /// Puts the next bytes in `block` and answers how many: all that it has room for, or fewer at the end, and then 0. A
    /// short answer is given only when all that came before is known to be as it was sent, so that whoever counts the
    /// bytes asks once more behind the last.
    fn fill<'a>(&'a mut self, block: &'a mut [u8]) -> LocalFuture<'a, Result<usize, String>>;
}

/// The way to the files of other nodes.
pub trait Sources {
    /// Bytes of a file of a group, by its name below the group's folder there.
    fn open(&self, from: NodeId, group: GroupId, part: FilePart) -> LocalFuture<'_, Result<Box<dyn Inflow>, String>>;
}

/// Takes a file in from another node. The bytes are put where they are written from.
pub async fn take_in<D: Disk>(inflow: &mut dyn Inflow, file: &mut ArrivingFile<'_, D>) -> Result<(), String> {
    loop {
        let room = file.room();
        let wanted = room.len();
        let count = inflow.fill(room).await?;
        file.advance(count).await.map_err(|error| error.to_string())?;
        if count < wanted {
            return Ok(());
        }
    }
}

/// A server that has no other nodes to get files from.
pub struct NoSources;

impl Sources for NoSources {
    fn open(&self, _: NodeId, _: GroupId, _: FilePart) -> LocalFuture<'_, Result<Box<dyn Inflow>, String>> {
        Box::pin(async { Err("this server has no other nodes".to_owned()) })
    }
}
