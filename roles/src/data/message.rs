//! What cores of one process say to each other.

use crate::{
    backup::Entry,
    data::{
        figures::CoreFigures,
        metadata::Change,
        question::{Finding, Question},
        read_level::ReadBound,
        series_admission::SeriesRefusal,
        session_token::SessionToken,
        tag_values::{CollectedValues, TagName, ValueQuestion, ValueVerdict},
    },
    handoff::PushError,
    links::{CallFailure, RemoteCall, RemoteReply},
    query::{
        StatementError,
        listing::{ListOrder, PageOrder, Run},
        scan::{ScanCost, ScanOrder, ScanRequest},
    },
    replica::{Lost, Payload, ProposeError},
};
use std::sync::Arc;
use tidemill_column::Strings;
use tidemill_meta::{Command as MetaCommand, Meta, MetaError, Node};
use tidemill_pool::{MasterCall, MasterReply};
use tidemill_raft::{GroupId, NodeId};
use tidemill_reactor::Token;
use tidemill_store::Command as StoreCommand;

/// A mail.
pub enum Message {
    /// Something to do; the reply carries the token back.
    Call {
        token: Token,
        call: Call,
    },
    Reply {
        token: Token,
        reply: Reply,
    },
    /// The log's epoch, before anything else.
    Epoch {
        number: u64,
    },
    /// The metadata as they are, before the cores serve.
    Metadata {
        meta: Arc<Meta>,
        /// Nodes that the log brings, decided or not.
        expected: Arc<[Node]>,
    },
    /// The sender serves no requests any more and has nothing to ask.
    Parting,
}

/// What a core can be asked to do.
pub enum Call {
    /// Take a batch into the log of a partition that lives there, or, if it may be, into its hinted-handoff queue.
    Propose { group: GroupId, payload: Payload, may_queue: bool },
    /// Change the metadata; only the core of the metadata's group is asked.
    ChangeMeta(MetaCommand),
    /// Apply a committed change to the core's own copy of the metadata.
    FollowMeta(Change),
    /// Propose a command to every partition of the core.
    ChangeStore(StoreCommand),
    /// Wait until the core's replicas show all that was acknowledged before, by whatever node.
    CatchUp,
    /// As that, up to what a query asks for.
    CatchUpTo(ReadBound),
    /// As that, of the metadata; only the core of the metadata's group is asked.
    CatchUpMeta,
    /// Wait until every replica of a group of the core has on the disk what its leader has.
    AwaitAll(GroupId),
    /// Wait for the core's writes that may have looked field types up before now.
    OutwaitWrites,
    /// The same of all cores of another node, after it shows the metadata as they are now; only the core of the metadata
    /// is asked.
    OutwaitNode(NodeId),
    /// Look something up in the indexes of the core's partitions.
    Ask(Arc<Question>),
    /// Sort what the core's partitions have of a list.
    List(Arc<ListOrder>),
    /// Tell the texts of some rows of a list.
    Texts(PageOrder),
    /// Whether a tag may have new values; only the core of the metadata is asked.
    CountTagValues(ValueQuestion),
    /// Which tags have more than their share of values in a partition of the core.
    LargeTags,
    /// Which values a tag has in the core's partitions.
    CollectTagValues(TagName),
    /// Run a scan over the core's partitions; the outputs go through the order's streams.
    Scan(ScanOrder),
    /// What the core's part of a scan would read.
    Cost(ScanRequest),
    /// What the core counts.
    Figures,
    /// Read all files of the core again, and fetch those that are damaged from other nodes, if that is asked for.
    Examine { mends: bool },
    /// Ask another node, as a whole; only the core of the metadata is asked.
    AskNode(NodeId, RemoteCall),
    /// Ask the leader of the pool's masters; only the core of the metadata is asked.
    AskMaster(MasterCall),
    /// How the core's groups stand, here and at other nodes.
    Describe,
    /// Which partitions of the core this node leads.
    Leads,
    /// Have a node lead a group of the core.
    HandOver { group: GroupId, to: NodeId },
    /// Flush the core's partitions and link their files into the snapshot of this name.
    SnapshotPartitions(String),
    /// The metadata as their snapshot has them; only the core of the metadata's group is asked.
    SnapshotMeta,
}

/// What came of a call.
pub enum Reply {
    Proposed(Result<(), CallError>),
    MetaChanged(Result<tidemill_meta::Applied, MetaChangeError>),
    Done(Result<(), CallError>),
    Found(Result<Finding, CallError>),
    Listed(Result<Vec<Run>, StatementError>),
    Texts(Result<Strings, CallError>),
    /// Up to where the core's groups are.
    CaughtUp(Result<SessionToken, CallError>),
    Cost(Result<ScanCost, String>),
    LargeTags(Vec<TagName>),
    TagValuesCounted(Result<ValueVerdict, CallError>),
    TagValuesCollected(Result<CollectedValues, CallError>),
    Figures(Box<CoreFigures>),
    Description(Vec<serde_json::Value>),
    Leads(Vec<u32>),
    Examined(serde_json::Value),
    Answered(Result<RemoteReply, CallFailure>),
    MasterAnswered(Result<MasterReply, CallError>),
    Linked(Result<Vec<Entry>, CallError>),
    Bytes(Vec<u8>),
}

/// Why a call did not do what it should.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// Certainly nothing was done.
    #[error(transparent)]
    Refused(#[from] ProposeError),
    /// Certainly nothing was done; without these series it would be.
    #[error(transparent)]
    NewSeries(#[from] SeriesRefusal),
    /// Nothing was done: the partition remembers no session up to this one, and cannot tell whether the batch was there
    /// before.
    #[error("the partition does not remember whether it has taken this write before, retry later")]
    Forgotten { through: u64 },
    /// Nobody knows.
    #[error("{0}")]
    Unknown(String),
}

impl From<PushError> for CallError {
    fn from(error: PushError) -> CallError {
        CallError::Refused(match error {
            PushError::Full { .. } => ProposeError::Busy("the hinted-handoff queue is full (hinted-handoff.max-size)"),
            PushError::Busy => ProposeError::Busy("the hinted-handoff queue is busy"),
            PushError::DiskFull => ProposeError::DiskFull,
            // It may be in the queue all the same.
            PushError::Failed(why) => return CallError::Unknown(why),
        })
    }
}

impl From<Lost> for CallError {
    fn from(lost: Lost) -> CallError {
        match lost {
            Lost::Unknown(why) => CallError::Unknown(why),
            Lost::Dropped => CallError::Refused(ProposeError::Overtaken),
        }
    }
}

/// Why the metadata did not change.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MetaChangeError {
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error(transparent)]
    Call(#[from] CallError),
}
