//! Consensus, sans-IO.
//!
//! Owns: the ids of the replicated log ([`GroupId`], [`Term`], [`LogIndex`]) and the state machine that decides what is
//! appended, what is committed and what the shell must do next.
//! Invariants: an entry counts as held by this voter only after the shell has said that it is stable (R6, R7); the
//! commit index never falls (R4); only an entry of the current term commits by count (raft thesis, section 3.6.2).
//! Knows nothing of disks, clocks, executors and what the payloads mean.
//!
//! This is the group of one voter: it elects itself, and its own log is the quorum. Messages between voters, elections
//! and snapshots are not part of it.

mod fsm;
mod id;

pub use fsm::{Entry, HardState, Output, Raft, Rejected, Restored};
pub use id::{GroupId, LogIndex, NodeId, Term};
