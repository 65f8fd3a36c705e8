//! Which defects are planted: those of the store, the log, and what the two modules of `roles` do with them.

use tidemill_campaign::{Planting, Profile};

/// Of the life of one node.
pub const PLANTING: Planting<'static> = Planting {
    subject: "store",
    package: "tidemill-node-sim",
    folder: "planted",
    crates: &[
        "core/column",
        "core/line",
        "core/tsm",
        "core/raft",
        "core/influxql",
        "core/meta",
        "core/index",
        "core/pool",
        "core/disk",
        "core/log",
        "core/store",
        "tests/campaign",
        "tests/node-sim",
    ],
    modules: &["roles/src/replica", "roles/src/data/copy_policy.rs"],
    profile: Profile::Dev,
    campaign: &["random"],
    seeds_max: 2_000,
};

/// Of a data group of several nodes.
pub const CLUSTER_PLANTING: Planting<'static> =
    Planting { subject: "cluster", folder: "planted/cluster", campaign: &["cluster"], seeds_max: 500, ..PLANTING };
