//! One node in simulation: log, replicas and partitions as in the server, on the simulated disk and executor.
//!
//! Owns: the node, what it is told ([`workload`]), what must therefore be found ([`truth`]), lives full of faults
//! ([`lives`]), a fixed run with the power failing at each of its points ([`crash_points`]), and which
//! defects are planted in a copy of the store to see them found.
//! Invariants, with the names of the reliability page: what was acknowledged is readable (S1); what was not is absent or
//! whole per partition batch (S2); nothing else is there, deleted rows least of all (S3); rot is noticed before a value
//! reaches a reader (S4); the manifest names the files that are there, complete, and nothing else is there once
//! maintenance has ended (S5, S7); the files are those that the log makes on another node (S6). The check is exact: a
//! recovered partition is its log up to some entry, not before the newest acknowledged one, and reads as the model does
//! after that very entry.
//! A data group of several nodes has runs of its own ([`cluster`]); the rules of raft are judged more closely, and without
//! a store, in `tests/sim`. Knows nothing of HTTP.

pub mod cluster;
pub mod counters;
pub mod crash_points;
pub mod files;
pub mod lives;
pub mod model;
pub mod node;
pub mod planted;
pub mod reading;
pub mod swarm;
pub mod truth;
pub mod workload;
pub mod world;

/// The server's own modules. They are built into this crate, and not the roles around them, because those want an
/// executor and its rings: a planted defect would be built for minutes.
#[path = "../../../roles/src/replica/mod.rs"]
pub mod replica;

#[path = "../../../roles/src/data/copy_policy.rs"]
pub mod copy_policy;

/// A number from the environment.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}
