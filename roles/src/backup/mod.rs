//! Backups: a snapshot of a running server, the copy of it, and the way back.
//!
//! A snapshot is a folder of hard links to files that never change, beside the few small ones that do (manifests,
//! metadata, identity) as they were at one moment: made in the time that a flush takes, whatever the size of the data.
//! A backup is that folder, copied: it is a data folder without a log, so every tool that reads one reads it.
//!
//! Owns: the list of a backup's files with their BLAKE3 hashes ([`Contents`]). Invariants: a backup is complete if and
//! only if it has its list; every byte that was copied was hashed on its way; files that are there already, by hash,
//! are not copied again.

mod contents;
mod copy;
mod points;
mod restore;
mod server;
pub mod snapshot;
mod take;

pub use contents::{Contents, ContentsError, Entry};
pub use points::{PointsOptions, PointsRestored, restore_points};
pub use restore::{RestoreOptions, is_unfinished, restore, verify};
pub use take::{TakeOptions, take};
