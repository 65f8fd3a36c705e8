//! Which defects are planted: those of the consensus.

use tidemill_campaign::{Planting, Profile};

pub const PLANTING: Planting<'static> = Planting {
    subject: "raft",
    package: "tidemill-sim",
    folder: "planted",
    crates: &["core/raft", "core/disk", "core/log", "tests/campaign", "tests/sim"],
    modules: &[],
    profile: Profile::Release,
    campaign: &["fast", "--ticks", "1500"],
    seeds_max: 10_000,
};
