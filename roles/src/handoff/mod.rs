//! Hinted handoff: writes with `consistency=any` that this node keeps while their partitions have no majority.
//!
//! Owns: the queue ([`HandoffQueue`], one for a core, in a log of its own), what its entries look like ([`entry`]), and how
//! what is queued is delivered ([`delivery`]).
//! Invariants: a write is answered after its batches are durable in the queue, never before; the batches of a partition
//! leave in the order in which they came, and what this node writes to that partition meanwhile stands behind them;
//! batches keep the identity that they had when they were tried first, so that none is stored twice. What is given up
//! (too old, or refused for good by the partition) is counted and logged.
//! The queue knows nothing of partitions, leaders and of what batches say.

mod delivery;
pub mod entry;
mod figures;
mod queue;

pub use figures::HandoffFigures;
pub use queue::{GroupFigures, HandoffQueue, Head, OpenError, PushError};

use std::{cell::RefCell, collections::BTreeSet, rc::Rc, time::Duration};
use tidemill_disk::{Disk, Notify};
use tidemill_raft::GroupId;

/// Settings of the section `hinted-handoff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandoffOptions {
    pub is_enabled: bool,
    /// Below the data folder.
    pub folder: String,
    /// Batches that a node keeps, together.
    pub bytes_max: u64,
    pub age_max: Duration,
    /// Bytes a second of each partition; 0: as fast as they are taken.
    pub rate_bytes: u64,
    pub retry_interval: Duration,
    pub retry_interval_max: Duration,
    pub purge_interval: Duration,
}

impl Default for HandoffOptions {
    /// The values of InfluxDB's clusters.
    fn default() -> HandoffOptions {
        HandoffOptions {
            is_enabled: true,
            folder: "handoff".to_owned(),
            bytes_max: 10 << 30,
            age_max: Duration::from_secs(7 * 24 * 3600),
            rate_bytes: 0,
            retry_interval: Duration::from_secs(1),
            retry_interval_max: Duration::from_secs(10),
            purge_interval: Duration::from_secs(60),
        }
    }
}

/// The hinted handoff of one core.
pub struct Handoff<D: Disk> {
    /// None until the first write needs it, if the last run left nothing.
    queue: RefCell<Option<Rc<HandoffQueue<D>>>>,
    opening: tidemill_store::Turn,
    /// Groups that somebody delivers to.
    delivering: RefCell<BTreeSet<GroupId>>,
    /// Something was queued, or left.
    changed: Notify,
    pub figures: HandoffFigures,
}

impl<D: Disk> Default for Handoff<D> {
    fn default() -> Handoff<D> {
        Handoff {
            queue: RefCell::new(None),
            opening: tidemill_store::Turn::default(),
            delivering: RefCell::default(),
            changed: Notify::new(),
            figures: HandoffFigures::default(),
        }
    }
}
