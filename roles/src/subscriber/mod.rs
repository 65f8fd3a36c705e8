//! Subscriptions at work: what is written to a retention policy goes to other servers too, by HTTP or UDP.
//!
//! Owns: a queue and sending threads for each subscription, and what they count. The metadata says which subscriptions
//! there are ([`Subscribers::follow`]).
//! Invariants: a write never waits for a subscription: a batch that finds a full queue, or all of the memory that
//! queues may hold in use, is dropped and counted. Queues are in memory: a stop forgets what is in them.
//! Knows nothing of how points are stored.

mod destination;
mod lane;
mod lines;

pub use destination::{InvalidDestination, check_destination};
pub use lane::{DestinationFigures, LaneFigures, mode};
pub use lines::Lines;

use lane::Lane;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tidemill_meta::Meta;

/// What the configuration says of subscriptions.
#[derive(Clone, Debug)]
pub struct SubscriberOptions {
    pub is_enabled: bool,
    pub http_timeout: Duration,
    /// Certificates of destinations are taken as they are.
    pub trusts_anybody: bool,
    /// Authorities beside those of the machine; empty for none.
    pub ca_certs: PathBuf,
    /// Threads of a subscription.
    pub write_concurrency: usize,
    /// Batches that may wait for a subscription.
    pub write_buffer_size: usize,
}

/// Bytes that wait in all queues together: a few of the largest bodies, or thousands of usual ones.
const BUFFERED_BYTES_MAX: usize = 64 << 20;

/// The subscriptions of a process.
pub struct Subscribers {
    options: SubscriberOptions,
    /// By database and retention policy.
    lanes: RwLock<Lanes>,
    /// Whether there are any: writes look no further if not.
    has_lanes: AtomicBool,
    buffered_bytes: Arc<AtomicUsize>,
    taken: AtomicU64,
    dropped: AtomicU64,
    create_failures: AtomicU64,
}

type Lanes = BTreeMap<(String, String), Vec<Arc<Lane>>>;

/// What all subscriptions together did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriberFigures {
    /// Batches that queues took, and those that they did not.
    pub taken: u64,
    pub dropped: u64,
    pub create_failures: u64,
}

impl Subscribers {
    pub fn new(options: SubscriberOptions) -> Subscribers {
        Subscribers {
            options,
            lanes: RwLock::default(),
            has_lanes: AtomicBool::new(false),
            buffered_bytes: Arc::default(),
            taken: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            create_failures: AtomicU64::new(0),
        }
    }

    /// Begins to serve subscriptions that are new, and ends those that are gone: what waits for them is still sent.
    pub fn follow(&self, meta: &Meta) {
        if !self.options.is_enabled {
            return;
        }
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        let mut known = std::mem::take(&mut *lanes);
        for database in meta.databases() {
            for policy in database.policies.iter().filter(|policy| !policy.subscriptions.is_empty()) {
                let place = (database.name.clone(), policy.name.clone());
                let mut old = known.remove(&place).unwrap_or_default();
                let mut of_policy = Vec::new();
                for subscription in &policy.subscriptions {
                    let position = old.iter().position(|lane| lane.subscription() == subscription);
                    let lane = match position {
                        Some(position) => Ok(old.swap_remove(position)),
                        None => Lane::open(&place, subscription, &self.options).map(Arc::new),
                    };
                    match lane {
                        Ok(lane) => of_policy.push(lane),
                        Err(error) => {
                            self.create_failures.fetch_add(1, Ordering::Relaxed);
                            let (database, policy, name) = (&place.0, &place.1, &subscription.name);
                            tracing::warn!(%error, database, policy, name, "a subscription cannot be served");
                        }
                    }
                }
                lanes.insert(place, of_policy);
            }
        }
        self.has_lanes.store(!lanes.is_empty(), Ordering::Release);
    }

    /// Whether anybody wants what is written to a retention policy.
    pub fn is_wanted(&self, database: &str, policy: &str) -> bool {
        self.has_lanes.load(Ordering::Acquire) && !self.lanes_of(database, policy).is_empty()
    }

    /// Gives a batch to the subscriptions of a retention policy.
    pub fn offer(&self, database: &str, policy: &str, mut lines: Lines) {
        let lanes = self.lanes_of(database, policy);
        let has_room = lines.charge(&self.buffered_bytes, BUFFERED_BYTES_MAX);
        let lines = Arc::new(lines);
        for lane in lanes {
            let counter = if has_room && lane.offer(&lines) { &self.taken } else { &self.dropped };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn figures(&self) -> SubscriberFigures {
        SubscriberFigures {
            taken: self.taken.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            create_failures: self.create_failures.load(Ordering::Relaxed),
        }
    }

    /// What each destination got.
    pub fn lane_figures(&self) -> Vec<LaneFigures> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.values().flatten().map(|lane| lane.figures()).collect()
    }

    fn lanes_of(&self, database: &str, policy: &str) -> Vec<Arc<Lane>> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.get(&(database.to_owned(), policy.to_owned())).cloned().unwrap_or_default()
    }
}
