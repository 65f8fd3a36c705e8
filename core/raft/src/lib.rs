//! Consensus, sans-IO.
//!
//! Owns: the ids of the replicated log ([`GroupId`], [`Term`], [`LogIndex`]) and the state machine that decides what is
//! appended, what is committed and what the shell must do next.
//! Knows nothing of disks, clocks, executors and what the payloads mean.

mod id;

pub use id::{GroupId, LogIndex, Term};
