//! What one node asks another to do.

use super::read::ReadOutlet;
use crate::{
    data::message::{CallError, MetaChangeError},
    replica::{FilePart, LocalFuture, Payload, Pieces},
};
use bytes::Bytes;
use std::rc::Rc;
use tidemill_meta::Applied;
use tidemill_raft::{GroupId, LogIndex, Message, NodeId};

/// What the core of a group on another node can be asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteCall {
    /// Take a partition's batch, as the splitter sealed it, into the group's log.
    Propose(Bytes),
    /// Take a command of the store, encoded, into the group's log.
    Command(Bytes),
    /// Change the metadata by an encoded command.
    ChangeMeta(Bytes),
    /// Note that the node that asks has the data folder of this number.
    Acquaint(u64),
    /// Wait until every replica of the group has on the disk what its leader, which is asked, has now.
    AwaitAll,
    /// Wait for the node's writes that may have looked field types up before now.
    OutwaitWrites,
    /// List the queries that run at the node, as JSON.
    Queries,
    /// Stop a query of the node; `null` or the reason why not, as JSON.
    KillQuery(u64),
    /// Read all files of the node again, and fetch those that are damaged from others, if that is asked for.
    Examine { mends: bool },
    /// Tell how the node is.
    Describe,
    /// Hand the leadership of the group over to this node.
    HandOver(NodeId),
    /// A [`tidemill_pool::MasterCall`] to a master of the pool, encoded.
    Pool(Bytes),
    /// A [`tidemill_pool::StoreCall`] to a slave of the pool, encoded.
    PoolStore(Bytes),
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum RemoteReply {
    Done(Result<(), CallError>),
    /// With the change's place in the log of the metadata.
    MetaChanged(Result<(LogIndex, Applied), MetaChangeError>),
    Description(Bytes),
    /// A [`tidemill_pool::MasterReply`] or [`tidemill_pool::StoreReply`], encoded.
    Pool(Bytes),
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// Certainly nothing was done.
    #[error("node {to} was not asked: {why}")]
    NotSent { to: NodeId, why: String },
    #[error("whether node {to} has done it is not known: {why}")]
    Unknown { to: NodeId, why: String },
}

/// What a core does with what other nodes say.
pub trait Answerer {
    /// A message that is for this node, from the node that it says. It is called within a turn of the transport, with
    /// which all that is sent meanwhile leaves.
    fn message(&self, message: Message<Payload>);

    /// Does what another node asks. The future is dropped when the other node no longer waits.
    fn answer(self: Rc<Self>, from: NodeId, group: GroupId, call: RemoteCall) -> LocalFuture<'static, RemoteReply>;

    /// Reads what another node wants to know; the outlet takes the answer. The outlet tells when nobody waits any more.
    fn read(self: Rc<Self>, group: GroupId, order: Bytes, outlet: ReadOutlet) -> LocalFuture<'static, ()>;

    /// Bytes of a file below the group's folder; [`super::read_file`] reads them. The name is plain.
    fn open_file(
        self: Rc<Self>,
        group: GroupId,
        part: FilePart,
    ) -> LocalFuture<'static, Result<Box<dyn Pieces>, String>>;
}
