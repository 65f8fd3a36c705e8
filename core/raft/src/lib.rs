//! Consensus, sans-IO (D. Ongaro, "Consensus: bridging theory and practice", cited as *thesis*).
//!
//! Owns: the ids of the replicated log ([`GroupId`], [`Term`], [`LogIndex`]) and the state machine of one member of one
//! group ([`Raft`]). Messages, time, and completed writes come in; what to write, to send, to apply comes out
//! ([`Output`]). The entries themselves live in the caller's log: kept here are where terms begin, and a bounded tail
//! of entries on their way to others.
//!
//! | file | subject |
//! |---|---|
//! | `raft` | the doors, and what all parts share |
//! | `election` | pre-vote, votes, opening a term |
//! | `replicate`, `follow` | the log, at the leader and at the others |
//! | `commit` | counting, and how proposals end |
//! | `config`, `membership` | joint consensus, learners; majorities |
//! | `transfer`, `snapshot`, `read` | leadership transfer; state as files; ReadIndex and lease |
//! | `message`, `output`, `progress`, `log_view` | the data between them |
//! | `invariant` | what holds between two calls |
//!
//! Invariants: one leader a term (R1); logs that share an entry are equal up to it (R2); a leader holds all that is
//! committed (R3); the commit index never falls, what is committed never changes (R4); term and vote are durable before
//! anything of the term is told (R5); a member acknowledges and counts only what is durable in its log (R6, R7); a joint
//! membership needs both majorities (R9); a read never misses what was acknowledged before it (R10).
//!
//! Knows nothing of disks, clocks, executors, transports and what the payloads mean.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod commit;
mod config;
mod election;
mod entry;
mod follow;
mod id;
mod invariant;
mod log_view;
mod membership;
mod message;
mod options;
mod output;
mod progress;
mod raft;
mod read;
mod replicate;
mod snapshot;
mod transfer;

pub use config::CAUGHT_UP_ENTRIES;
pub use entry::{Content, ENTRY_OVERHEAD_BYTES, Entry, HardState, Payload};
pub use id::{EntryId, GroupId, LogIndex, Moment, NodeId, ReadId, Term, WriteId};
pub use membership::{LEARNERS_MAX, Membership, MembershipError, VOTERS_MAX};
pub use message::{
    Body, COUNTER_MAX, ENTRIES_MAX, MANIFEST_BYTES_MAX, MESSAGE_BYTES_MAX, Message, MessageError, Snapshot,
};
pub use options::Options;
pub use output::{Ended, Ending, Fetch, Install, Output, ReadReady, Rejected};
pub use raft::{Raft, Restored, Role};
pub use read::READS_MAX;
