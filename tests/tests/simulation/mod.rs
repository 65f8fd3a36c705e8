//! One node in simulation: log, replicas and partitions as in the server, on the simulated disk and executor.
//!
//! Checked at every recovery, with the names of the reliability page: what was acknowledged is readable (S1), what was
//! not is absent or whole per partition batch (S2), nothing else is there (S3), and the manifest names only complete
//! files (S5, the open verifies them). The check is exact: a recovered partition is its log up to some entry, not before
//! the newest acknowledged one, and reads as the model does after that very entry.
//!
//! - `TIDEMILL_SIM_STRIDE=1` crashes the fixed run at every point instead of at every 24th.
//! - `TIDEMILL_SIM_SEEDS=n` runs n random seeds; `TIDEMILL_SIM_SEED=s` replays seed s alone.

mod crash_points;
mod faults;
mod identical;
mod node;
mod random;
mod truth;
mod workload;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}
