//! The node in simulation, as far as every commit affords.
//!
//! - `TIDEMILL_SIM_STRIDE=1` crashes the fixed run at every point, and fails every call, instead of some.
//! - `TIDEMILL_SIM_SEEDS=n` runs n random seeds; `TIDEMILL_SIM_SEED=s` replays seed s alone.

mod cluster;
mod crash_points;
mod faults;
mod identical;
mod random;
