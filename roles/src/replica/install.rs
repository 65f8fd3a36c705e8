//! State as files, from one member to another: how a member comes up to date whose entries the others have in files
//! alone.
//!
//! Invariants: what is installed is committed, and ends at the entry that the leader named; a member that fails to get it
//! is what it was before.

use bytes::Bytes;
use std::{pin::Pin, sync::Arc};
use tidemill_raft::{EntryId, GroupId, LogIndex, NodeId};

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

/// Bytes of a file of another node, piece by piece.
pub trait Pieces {
    /// `None` behind the last one.
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Bytes>, String>>;
}

/// The way to the files of other nodes.
pub trait Sources {
    /// The first `size` bytes of a file of a group, by its name below the group's folder there.
    fn open(
        &self,
        from: NodeId,
        group: GroupId,
        name: String,
        size: u64,
    ) -> LocalFuture<'_, Result<Box<dyn Pieces>, String>>;
}

/// A server that has no other nodes to get files from.
pub struct NoSources;

impl Sources for NoSources {
    fn open(&self, _: NodeId, _: GroupId, _: String, _: u64) -> LocalFuture<'_, Result<Box<dyn Pieces>, String>> {
        Box::pin(async { Err("this server has no other nodes".to_owned()) })
    }
}
