//! What the shell must do next.

use crate::{Entry, HardState, LogIndex, Message, NodeId, ReadId, Snapshot, Term, WriteId};
use alloc::vec::Vec;

/// In any order and side by side, but for writes, which become durable in the order in which they were asked for:
///
/// 1. if `write` is set, make `hard_state` and `append` durable, and call [`crate::Raft::handle_stable`] when they are;
/// 2. `send` the messages, without waiting for that;
/// 3. wake the waiters up to `committed`, then apply up to it.
///
/// What may leave only after a write is durable is kept back by the state machine and comes out of `handle_stable`: no
/// shell can send it too early, an acknowledgement covers all that one sync made durable, and one that was
/// overtaken by a new term never leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output<P> {
    pub write: Option<WriteId>,
    pub hard_state: Option<HardState>,
    /// The first one may have an index that is there already: it replaces that entry and all behind it.
    pub append: Vec<Entry<P>>,
    pub send: Vec<Message<P>>,
    /// The commit index, if it rose.
    pub committed: Option<LogIndex>,
    /// Proposals of this member that did not end as committed. Those up to `committed` that are not named here did.
    pub ended: Vec<Ended>,
    pub reads: Vec<ReadReady>,
    /// Entries to be read from the log, for [`crate::Raft::handle_fetched`].
    pub fetch: Vec<Fetch>,
    /// Files to be fetched, for [`crate::Raft::handle_installed`].
    pub install: Option<Install>,
    /// A member needs the state as files: [`crate::Raft::offer_snapshot`] is awaited.
    pub manifest_wanted: bool,
}

/// Proposals of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub term: Term,
    pub first: LogIndex,
    pub last: LogIndex,
    pub how: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Other entries were committed in their places: they never will be.
    Dropped,
    /// The log was replaced by a snapshot that does not tell.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    pub id: ReadId,
    /// The read sees everything that was acknowledged before it was asked for, once the state machine has applied up to
    /// here. `None`: this member cannot tell, ask another.
    pub index: Option<LogIndex>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub to: NodeId,
    pub first: LogIndex,
    pub last: LogIndex,
    /// Enough at this size; the first entry in any case.
    pub bytes_max: usize,
}

/// In this order: (1) all files and the manifest are durable, (2) the log of the group is durably empty behind
/// `snapshot.base`, (3) [`crate::Raft::handle_installed`]. A crash between (1) and (2) leaves a log that does not belong to
/// the state: the manifest has to say so until (2) is done, and a start that finds it drops what the log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    pub from: NodeId,
    pub snapshot: Snapshot,
}

impl<P> Default for Output<P> {
    fn default() -> Output<P> {
        Output {
            write: None,
            hard_state: None,
            append: Vec::new(),
            send: Vec::new(),
            committed: None,
            ended: Vec::new(),
            reads: Vec::new(),
            fetch: Vec::new(),
            install: None,
            manifest_wanted: false,
        }
    }
}

/// Why a proposal was not taken. It is certain that it will never commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Zero: none is known.
    #[error("this member does not lead; node {leader} may")]
    NotLeader { leader: NodeId },
    #[error("leadership is being handed to node {to}")]
    Transferring { to: NodeId },
    #[error("too much waits for its commit")]
    Busy,
    #[error("larger than a message may be")]
    TooLarge,
    #[error("another change of the members has not ended")]
    ChangePending,
    #[error("node {0} has not caught up as a learner")]
    NotCaughtUp(NodeId),
    #[error("node {0} is no voter that could lead")]
    NoCandidate(NodeId),
}
