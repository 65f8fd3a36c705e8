//! The log of a core: the raft log of all its partitions in one sequence of pre-written segments.
//!
//! Owns: the segment files of one folder, their format ([`format`]), group commit (one write and one sync for whatever
//! all groups of the core appended meanwhile), the recycling of segments whose entries are in files, and recovery.
//! Invariants:
//! - [`Log::stable`] returns only after a sync that covers the position has returned; commits become durable in order.
//! - One commit is in flight at a time. Each carries its number and the crc of the one before, so a commit that was
//!   never written is noticed as soon as a later one is there.
//! - A segment is named `<sequence>.log` only after its header and its full length are durable. It is renamed away only
//!   after a commit is durable that says that it is not needed.
//! - A segment that is left for the next one ends with a sealed commit: a sealed segment has a successor.
//! - The first failed write or sync poisons the log: nothing is written after it, no sync is tried again, all waiters and
//!   later appends get the first error. A restart reads what is there, writes the last commit once more and syncs it
//!   before it counts, because a system may report a sync as done after it reported one as failed.
//! - Appending inside pre-written segments needs no space. Only the making of a segment does; when that fails, appends
//!   are refused ([`AppendError::Full`]) and the making is tried again on their behalf. Each segment keeps room for
//!   commands and hard states, so that a full log can be emptied, and opened again.
//!
//! What recovery can and cannot tell. A damaged commit that has any valid commit of its log behind it is damage, and the
//! open is refused with file and offset ([`decision`] has the whole table). A damaged *last* commit looks the same as
//! one that the power loss tore before anybody was told of it, and is cut, with a warning. To keep that window small,
//! an empty commit is written behind the last one when the log is closed and whenever the owner calls [`Log::settle`]
//! on an idle log: from then on every acknowledged commit has a valid one behind it. What remains: rot in the one newest
//! commit between its sync and the next commit or settling.
//!
//! What is durable can be read back ([`Log::read_entries`]) for a member that lags: no entry that a later one replaced, no
//! gap; damage is an error with its place.
//!
//! Knows nothing of what payloads mean, of elections, of files of the store and of which executor runs it.

mod append;
mod batch;
mod committer;
pub mod decision;
mod error;
pub mod format;
mod groups;
mod log;
mod metrics;
mod options;
mod preparer;
mod range;
mod record;
mod recovery;
mod segment;
mod survey;

pub use error::{AppendError, OpenError, Poisoned, RecoveryError};
pub use log::{Log, Position};
pub use metrics::LogMetrics;
pub use options::{Durability, LogOptions};
pub use range::{ReadEntry, ReadError};
pub use record::Record;
pub use recovery::{Cut, Recovery};
