//! A number that only grows, and the tasks that wait for it to reach their target.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// Advancing wakes only those whose target is reached, in the order of their targets: a commit wakes its own waiters,
/// not everybody.
#[derive(Default)]
pub struct Watermark {
    value: Cell<u64>,
    closed: Cell<bool>,
    next_waiter: Cell<u64>,
    waiters: RefCell<BTreeMap<(u64, u64), Waker>>,
}

impl Watermark {
    pub fn new(value: u64) -> Watermark {
        Watermark { value: Cell::new(value), ..Watermark::default() }
    }

    pub fn value(&self) -> u64 {
        self.value.get()
    }

    /// # Panics
    /// If `value` is below the present one.
    pub fn advance(&self, value: u64) {
        assert!(value >= self.value.get(), "a watermark went from {} back to {value}", self.value.get());
        self.value.set(value);
        let woken = {
            let mut waiters = self.waiters.borrow_mut();
            let later = waiters.split_off(&(value.saturating_add(1), 0));
            std::mem::replace(&mut *waiters, later)
        };
        woken.into_values().for_each(Waker::wake);
    }

    /// The mark will not move any more: waiters whose target is not reached get `false`.
    pub fn close(&self) {
        self.closed.set(true);
        let woken = std::mem::take(&mut *self.waiters.borrow_mut());
        woken.into_values().for_each(Waker::wake);
    }

    /// `true` once the mark is at `target` or above, `false` if it was closed before that.
    pub fn reached(&self, target: u64) -> impl Future<Output = bool> {
        Reached { mark: self, target, waiter: None }
    }
}

struct Reached<'a> {
    mark: &'a Watermark,
    target: u64,
    waiter: Option<u64>,
}

impl Future for Reached<'_> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        if self.mark.value.get() >= self.target {
            return Poll::Ready(true);
        }
        if self.mark.closed.get() {
            return Poll::Ready(false);
        }
        let waiter = self.waiter.unwrap_or_else(|| {
            let id = self.mark.next_waiter.get();
            self.mark.next_waiter.set(id + 1);
            id
        });
        self.waiter = Some(waiter);
        self.mark.waiters.borrow_mut().insert((self.target, waiter), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.mark.waiters.borrow_mut().remove(&(self.target, waiter));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn only_reached_targets_resolve() {
        let mark = Watermark::new(3);
        assert!(block_on(mark.reached(3)));
        let mut four = Box::pin(mark.reached(4));
        let mut six = Box::pin(mark.reached(6));
        assert_eq!(block_on(poll_once(&mut four)), None);
        assert_eq!(block_on(poll_once(&mut six)), None);
        mark.advance(5);
        assert_eq!(mark.waiters.borrow().len(), 1, "the waiter for six stays registered");
        assert!(block_on(four));
        assert_eq!(block_on(poll_once(&mut six)), None);
        mark.close();
        assert!(!block_on(six));
        assert!(block_on(mark.reached(5)), "what was reached before the close stays reached");
        assert!(mark.waiters.borrow().is_empty());
    }

    #[test]
    fn a_dropped_waiter_leaves_nothing() {
        let mark = Watermark::new(0);
        let mut waiting = Box::pin(mark.reached(1));
        assert_eq!(block_on(poll_once(&mut waiting)), None);
        drop(waiting);
        assert!(mark.waiters.borrow().is_empty());
    }

    #[test]
    #[should_panic(expected = "back to 1")]
    fn going_back_panics() {
        Watermark::new(2).advance(1);
    }
}
