//! A turn that tasks of one core take one after the other.

use std::cell::Cell;
use tidemill_disk::Notify;

/// Held by at most one task; it may wait for the disk meanwhile.
#[derive(Default)]
pub struct Turn {
    is_taken: Cell<bool>,
    freed: Notify,
}

/// The turn, until it is dropped.
pub struct Taken<'a> {
    turn: &'a Turn,
}

impl Turn {
    pub async fn take(&self) -> Taken<'_> {
        loop {
            let freed = self.freed.notified();
            if !self.is_taken.replace(true) {
                return Taken { turn: self };
            }
            freed.await;
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.turn.is_taken.set(false);
        self.turn.freed.notify();
    }
}
