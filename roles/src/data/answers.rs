//! What other nodes of the cluster ask of a core.
//!
//! Invariant: nothing of another node goes into a log of this one before it has been read as what it is said to be: an
//! entry that cannot be applied stops its group on all nodes.

use crate::{
    data::{
        core::DataCore,
        message::{CallError, MetaChangeError},
    },
    links::{Answerer, POOL_FILES, ReadOutlet, RemoteCall, RemoteReply, read_file},
    pool,
    query::{self, elsewhere},
    replica::{FilePart, LocalFuture, Payload, Pieces, ProposeError},
};
use bytes::Bytes;
use std::rc::Rc;
use tidemill_line::PartitionBatch;
use tidemill_meta::Command as MetaCommand;
use tidemill_raft::{GroupId, Message, NodeId};
use tidemill_store::Entry;

impl Answerer for DataCore {
    fn message(&self, message: Message<Payload>) {
        // A node with a new folder has no vote and no log yet.
        if !self.takes_part.get() {
            return;
        }
        let (group, from) = (message.group.0, message.from.0);
        if let Err(error) = self.replicas.receive(message) {
            tracing::debug!(group, from, %error, "a message of another node was not listened to");
        }
    }

    fn answer(self: Rc<Self>, from: NodeId, group: GroupId, call: RemoteCall) -> LocalFuture<'static, RemoteReply> {
        Box::pin(async move {
            match call {
                RemoteCall::Propose(image) => RemoteReply::Done(self.take_in(group, Payload::Batch(image)).await),
                RemoteCall::Command(bytes) => RemoteReply::Done(self.take_in(group, Payload::Command(bytes)).await),
                RemoteCall::ChangeMeta(bytes) => RemoteReply::MetaChanged(self.take_meta_change(bytes).await),
                RemoteCall::OutwaitWrites => RemoteReply::Done(self.outwait_older_writes().await),
                RemoteCall::Acquaint(folder) => RemoteReply::Done(self.note_folder(from, folder)),
                RemoteCall::AwaitAll => RemoteReply::Done(self.await_all_here(group).await),
                RemoteCall::HandOver(to) => RemoteReply::Done(self.hand_over_from_here(group, to).await),
                RemoteCall::Queries => {
                    let listed = query::running_here(self.context.clock.monotonic_ns());
                    RemoteReply::Description(listed.to_string().into())
                }
                RemoteCall::KillQuery(id) => {
                    RemoteReply::Description(serde_json::Value::from(query::kill_here(id)).to_string().into())
                }
                RemoteCall::Examine { mends } => match self.examine(mends).await {
                    Ok(told) => RemoteReply::Description(told.to_string().into()),
                    Err(error) => RemoteReply::Done(Err(error)),
                },
                RemoteCall::Pool(call) => RemoteReply::Pool(pool::answer_as_master(&self, from, &call).await.encode()),
                RemoteCall::PoolStore(call) => {
                    RemoteReply::Pool(pool::answer_as_slave(&self, from, &call).await.encode())
                }
                RemoteCall::Describe => RemoteReply::Description(self.description().await.to_string().into()),
            }
        })
    }

    fn read(self: Rc<Self>, _group: GroupId, order: Bytes, outlet: ReadOutlet) -> LocalFuture<'static, ()> {
        let (context, this) = (self.context.clone(), self);
        Box::pin(async move {
            context.spawn(context.queues.query, "read for another node", elsewhere::serve(this, order, outlet)).await;
        })
    }

    fn open_file(
        self: Rc<Self>,
        group: GroupId,
        part: FilePart,
    ) -> LocalFuture<'static, Result<Box<dyn Pieces>, String>> {
        let disk = self.context.disk.clone();
        let folder = match group {
            POOL_FILES => pool::slave::FILES_FOLDER.to_owned(),
            GroupId(partition) => format!("partitions/{partition:03}"),
        };
        Box::pin(async move { read_file(disk, folder, part).await })
    }
}

impl DataCore {
    async fn take_in(self: &Rc<Self>, group: GroupId, payload: Payload) -> Result<(), CallError> {
        let is_here = self.partitions.contains_key(&group.0);
        let refused = |text: String| Err(CallError::Refused(ProposeError::Stopped(text)));
        if !is_here {
            return refused(format!("no partition {group} on this core of the other node"));
        }
        let read = match &payload {
            Payload::Batch(image) => PartitionBatch::parse(image).map(drop).map_err(|error| error.to_string()),
            Payload::Command(bytes) | Payload::Logged(bytes) => match Entry::parse(bytes) {
                Ok(Entry::Command(_)) => Ok(()),
                Ok(_) => Err("no command".to_owned()),
                Err(error) => Err(error.to_string()),
            },
        };
        if let Err(error) = read {
            return refused(format!("the other node cannot read this: {error}"));
        }
        self.propose_here(group, payload).await.map(drop)
    }

    /// Writes that begin after this see the metadata as they were when it was asked for.
    async fn outwait_older_writes(self: &Rc<Self>) -> Result<(), CallError> {
        self.catch_up_meta().await?;
        self.outwait_own_writes().await
    }

    async fn take_meta_change(
        self: &Rc<Self>,
        bytes: Bytes,
    ) -> Result<(tidemill_raft::LogIndex, tidemill_meta::Applied), MetaChangeError> {
        let refused = |text: String| MetaChangeError::Call(CallError::Refused(ProposeError::Stopped(text)));
        if self.meta_machine.is_none() {
            return Err(refused("no metadata on this core of the other node".into()));
        }
        MetaCommand::decode(&bytes).map_err(|error| refused(error.to_string()))?;
        self.change_meta_here(bytes).await
    }
}
