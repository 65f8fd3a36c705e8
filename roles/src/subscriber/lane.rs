//! The queue of one subscription, and the threads that send from it.

use crate::{
    side_thread,
    subscriber::{Lines, SubscriberOptions, destination::Destination},
};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
    mpsc::{Receiver, SyncSender, sync_channel},
};
use tidemill_meta::Subscription;

/// A subscription at work. Its threads end when it is dropped and the queue is empty.
pub struct Lane {
    place: (String, String),
    subscription: Subscription,
    outlet: Arc<Outlet>,
    queue: SyncSender<Arc<Lines>>,
}

/// What threads send to.
struct Outlet {
    to_all: bool,
    destinations: Vec<Destination>,
    /// Who gets the next batch that one of them is to get.
    next: AtomicUsize,
}

/// What a subscription did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneFigures {
    pub database: String,
    pub retention_policy: String,
    pub name: String,
    pub mode: &'static str,
    pub destinations: Vec<DestinationFigures>,
}

/// What a destination got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationFigures {
    pub url: String,
    pub points_written: u64,
    /// Batches.
    pub write_failures: u64,
}

/// The name of a mode.
pub fn mode(to_all: bool) -> &'static str {
    if to_all { "ALL" } else { "ANY" }
}

impl Lane {
    /// # Errors
    /// A destination makes no sense, or there are no threads to be had.
    pub fn open(
        place: &(String, String),
        subscription: &Subscription,
        options: &SubscriberOptions,
    ) -> anyhow::Result<Lane> {
        let open = |url: &String| Destination::open(url, place, options);
        let destinations = subscription.destinations.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
        let outlet = Arc::new(Outlet { to_all: subscription.to_all, destinations, next: AtomicUsize::new(0) });
        let (queue, batches) = sync_channel(options.write_buffer_size);
        let batches = Arc::new(Mutex::new(batches));
        for _ in 0..options.write_concurrency {
            let (outlet, batches) = (outlet.clone(), batches.clone());
            side_thread::spawn("subscription", move || {
                while let Some(lines) = next(&batches) {
                    outlet.send(&lines)
                }
            })?;
        }
        Ok(Lane { place: place.clone(), subscription: subscription.clone(), outlet, queue })
    }

    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Whether the queue has taken the batch.
    pub fn offer(&self, lines: &Arc<Lines>) -> bool {
        self.queue.try_send(lines.clone()).is_ok()
    }

    pub fn figures(&self) -> LaneFigures {
        let of = |destination: &Destination| DestinationFigures {
            url: destination.url().to_owned(),
            points_written: destination.points_written.load(Ordering::Relaxed),
            write_failures: destination.write_failures.load(Ordering::Relaxed),
        };
        LaneFigures {
            database: self.place.0.clone(),
            retention_policy: self.place.1.clone(),
            name: self.subscription.name.clone(),
            mode: mode(self.subscription.to_all),
            destinations: self.outlet.destinations.iter().map(of).collect(),
        }
    }
}

/// The next batch; `None` once nobody can bring one.
fn next(batches: &Mutex<Receiver<Arc<Lines>>>) -> Option<Arc<Lines>> {
    batches.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

impl Outlet {
    fn send(&self, lines: &Lines) {
        let count = self.destinations.len();
        if self.to_all {
            for destination in &self.destinations {
                destination.send(lines);
            }
        } else {
            let first = self.next.fetch_add(1, Ordering::Relaxed);
            let _ = (0..count).any(|try_number| self.destinations[first.wrapping_add(try_number) % count].send(lines));
        }
    }
}
