//! Stopping: one flag of the process, seen by every core.
//!
//! Owns: the flag and, per core, the wakers that wait for it. Invariant: once requested, it stays requested; a waiter
//! that registers after the request is ready at once. Knows nothing of signals: the supervisor sets the flag and kicks
//! the cores, whose heartbeat wakes the waiters.

use std::{
    cell::RefCell,
    future::Future,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::syscall;
use slab::Slab;

/// The part that crosses threads.
#[derive(Debug)]
pub(crate) struct StopFlag {
    requested: AtomicBool,
    supervisor: OwnedFd,
}

impl StopFlag {
    pub(crate) fn new(supervisor: OwnedFd) -> StopFlag {
        StopFlag { requested: AtomicBool::new(false), supervisor }
    }

    pub(crate) fn request(&self) {
        self.requested.store(true, Ordering::Release);
        self.notify_supervisor();
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    pub(crate) fn notify_supervisor(&self) {
        syscall::signal_event(self.supervisor.as_fd());
    }

    pub(crate) fn supervisor(&self) -> &OwnedFd {
        &self.supervisor
    }
}

/// A core's view of the stop.
#[derive(Clone, Debug)]
pub struct Shutdown {
    flag: Arc<StopFlag>,
    waiters: Rc<RefCell<Slab<Waker>>>,
}

impl Shutdown {
    pub(crate) fn new(flag: Arc<StopFlag>) -> Shutdown {
        Shutdown { flag, waiters: Rc::default() }
    }

    /// True from the first signal (or failed core) on.
    pub fn is_requested(&self) -> bool {
        self.flag.is_requested()
    }

    /// Asks all cores to stop, as a signal would.
    pub fn request(&self) {
        self.flag.request();
    }

    /// Ready when the stop is requested: drain, flush, return from the core's main. Cheap to make, to poll and to drop,
    /// so every connection may select on one.
    pub fn requested(&self) -> Requested {
        Requested { shutdown: self.clone(), key: None }
    }

    /// Called by the heartbeat.
    pub(crate) fn wake_waiters(&self) {
        if self.is_requested() {
            self.waiters.borrow_mut().iter().for_each(|(_, waker)| waker.wake_by_ref());
        }
    }
}

/// Future of [`Shutdown::requested`].
#[derive(Debug)]
pub struct Requested {
    shutdown: Shutdown,
    key: Option<usize>,
}

impl Future for Requested {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shutdown.is_requested() {
            return Poll::Ready(());
        }
        let waiters = self.shutdown.waiters.clone();
        let mut waiters = waiters.borrow_mut();
        match self.key.and_then(|key| waiters.get_mut(key)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => self.key = Some(waiters.insert(context.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Requested {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shutdown.waiters.borrow_mut().try_remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    fn shutdown() -> Shutdown {
        Shutdown::new(Arc::new(StopFlag::new(syscall::event_fd().unwrap())))
    }

    #[test]
    fn dropped_waiters_leave_nothing_behind() {
        let shutdown = shutdown();
        block_on(async {
            for _ in 0..100 {
                assert_eq!(poll_once(shutdown.requested()).await, None);
            }
        });
        assert!(shutdown.waiters.borrow().is_empty());
    }

    #[test]
    fn a_request_is_seen_by_waiters_of_before_and_after() {
        let shutdown = shutdown();
        block_on(async {
            let mut waiter = shutdown.requested();
            assert_eq!(poll_once(&mut waiter).await, None);
            shutdown.request();
            shutdown.wake_waiters();
            assert_eq!(poll_once(&mut waiter).await, Some(()));
            shutdown.requested().await;
        });
    }
}
