//! The writes of a core that go by field types as they looked them up.
//!
//! Owns: their numbers, in the order in which they began. A statement that takes types out of the metadata waits until
//! the writes that may have seen them have ended, and then sees what they wrote; writes that begin later do not make it
//! wait. Knows nothing of what is written.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};
use tidemill_disk::Notify;

/// The writes under way on one core.
pub struct TypedWrites {
    next: Cell<u64>,
    running: RefCell<BTreeSet<u64>>,
    ended: Notify,
}

impl Default for TypedWrites {
    fn default() -> TypedWrites {
        TypedWrites { next: Cell::new(0), running: RefCell::default(), ended: Notify::new() }
    }
}

/// A write under way; it has ended when this is dropped.
pub struct TypedWrite<'a> {
    writes: &'a TypedWrites,
    number: u64,
}

impl TypedWrites {
    pub fn begin(&self) -> TypedWrite<'_> {
        let number = self.next.get();
        self.next.set(number + 1);
        self.running.borrow_mut().insert(number);
        TypedWrite { writes: self, number }
    }

    /// Returns once the writes that had begun before this call have ended.
    pub async fn outwait(&self) {
        let until = self.next.get();
        loop {
            let ended = self.ended.notified();
            if self.running.borrow().first().is_none_or(|oldest| *oldest >= until) {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for TypedWrite<'_> {
    fn drop(&mut self) {
        self.writes.running.borrow_mut().remove(&self.number);
        self.writes.ended.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;
    use std::pin::pin;

    #[test]
    fn each_call_waits_for_all_that_began_before_it_and_for_nothing_else() {
        let writes = TypedWrites::default();
        let (mut early, mut late) = (pin!(writes.outwait()), pin!(writes.outwait()));
        future::block_on(async {
            let first = writes.begin();
            assert!(future::poll_once(early.as_mut()).await.is_none());
            let second = writes.begin();
            assert!(future::poll_once(late.as_mut()).await.is_none());
            let _third = writes.begin();
            drop(second);
            assert!(future::poll_once(early.as_mut()).await.is_none(), "the first still runs");
            assert!(future::poll_once(late.as_mut()).await.is_none(), "it began before the later call too");
            drop(first);
            early.await;
            late.await;
        });
        future::block_on(async {
            writes.outwait().await;
        });
    }
}
