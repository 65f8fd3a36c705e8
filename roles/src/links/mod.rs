//! What the nodes of a cluster say to each other, core to core.
//!
//! ```text
//! Replicas ── outlet ──┐                           ┌── Answerer: message, answer, open_file
//!     calls ───────────┤ Links ── tidemill_peer ── ┤
//!     reads ───────────┤   │                       └── Links of the other node
//!     files (Sources) ─┘   │
//!                          └ encoding   messages, calls and replies as bytes
//! ```
//!
//! Owns: which core of which node is asked for a group, the connections to these cores, the bytes of raft messages, calls
//! and replies, the way of a long answer in pieces and of a partition's file from node to node.
//! Invariants: sending never waits, and what is not sent is counted; nothing is handed on before it was found to be whole
//! and to come from the node that the certificate names; of a call that failed it is said whether it may have been done;
//! no name of a file leads out of its group's folder.
//! Knows nothing of what entries, batches and commands mean, nor of who leads a group.

mod call;
pub mod encoding;
mod end;
mod files;
mod metrics;
mod read;
mod receiver;
mod roster;
mod rotation;

pub use call::{Answerer, CallFailure, RemoteCall, RemoteReply};
pub use end::{Links, Start, peer_options};
pub use files::{is_plain, read_file};
pub use metrics::LinkMetrics;
pub use read::{ReadOutlet, RemoteRead, Unwanted};
pub use roster::{Duty, Member, POOL_FILES, POOL_GROUP, Roster, core_of, is_numberless};
pub use rotation::{Rotation, RotationError};
