//! A condition that tasks of one core wait for.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// Wakes every task that waits, each time the condition may have changed.
///
/// A waiter takes [`Notify::notified`] first, checks its condition, then awaits: a notification between the two is
/// counted, so it is never lost.
#[derive(Default)]
pub struct Notify {
    rounds: Cell<u64>,
    next_waiter: Cell<u64>,
    waiters: RefCell<BTreeMap<u64, Waker>>,
}

impl Notify {
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Wakes all that wait now.
    pub fn notify(&self) {
        self.rounds.set(self.rounds.get() + 1);
        // The wakers run after the borrow ends: a waker may poll in place and register again.
        let woken = std::mem::take(&mut *self.waiters.borrow_mut());
        woken.into_values().for_each(Waker::wake);
    }

    /// Resolves at the first notification after this call.
    pub fn notified(&self) -> Notified<'_> {
        Notified { notify: self, seen: self.rounds.get(), waiter: None }
    }
}

/// See [`Notify::notified`].
pub struct Notified<'a> {
    notify: &'a Notify,
    seen: u64,
    waiter: Option<u64>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.notify.rounds.get() != self.seen {
            return Poll::Ready(());
        }
        let waiter = self.waiter.unwrap_or_else(|| {
            let id = self.notify.next_waiter.get();
            self.notify.next_waiter.set(id + 1);
            id
        });
        self.waiter = Some(waiter);
        self.notify.waiters.borrow_mut().insert(waiter, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.notify.waiters.borrow_mut().remove(&waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Executor;
    use std::rc::Rc;

    #[test]
    fn a_notification_between_check_and_await_is_not_lost() {
        let notify = Notify::new();
        let waiting = notify.notified();
        notify.notify();
        futures_lite::future::block_on(waiting);
    }

    #[test]
    fn every_waiter_wakes_and_dropped_ones_leave_nothing() {
        for seed in 0..50 {
            let executor = Executor::new(seed);
            let notify = Rc::new(Notify::new());
            let tasks: Vec<_> = (0..5)
                .map(|_| {
                    let notify = notify.clone();
                    executor.spawn(async move { notify.notified().await })
                })
                .collect();
            let poker = executor.clone();
            let pokes = notify.clone();
            executor.block_on(async move {
                // A waiter that starts late needs a later poke.
                while tasks.iter().any(|task| !task.is_done()) {
                    pokes.notify();
                    poker.yield_now().await;
                }
            });
            assert!(notify.waiters.borrow().is_empty());
        }
        let notify = Notify::new();
        let mut waiting = Box::pin(notify.notified());
        assert!(futures_lite::future::block_on(futures_lite::future::poll_once(&mut waiting)).is_none());
        assert_eq!(notify.waiters.borrow().len(), 1);
        drop(waiting);
        assert!(notify.waiters.borrow().is_empty());
    }
}
