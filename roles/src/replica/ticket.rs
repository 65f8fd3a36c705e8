//! The answers to a proposal and to a read.

use super::Outcome;
use std::{cell::RefCell, rc::Rc};
use tidemill_disk::Notify;

/// Why a proposal has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It is not known whether the entry is committed, or ever will be.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// Another leader's entries are in its place: it never will be.
    #[error("another node became the leader before the write was committed: nothing of it is stored")]
    Dropped,
}

/// Waits for one entry. Dropping it does not take the entry back.
pub struct Ticket(Rc<Slot<Result<Outcome, Lost>>>);

/// What somebody waits for, once.
pub(super) struct Slot<T> {
    value: RefCell<Option<T>>,
    settled: Notify,
}

impl Ticket {
    pub(super) fn new() -> (Ticket, Rc<Slot<Result<Outcome, Lost>>>) {
        let slot = Rc::new(Slot::default());
        (Ticket(slot.clone()), slot)
    }

    /// What became of the entry.
    pub async fn outcome(self) -> Result<Outcome, Lost> {
        self.0.take().await
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot { value: RefCell::new(None), settled: Notify::new() }
    }
}

impl<T> Slot<T> {
    pub fn settle(&self, value: T) {
        *self.value.borrow_mut() = Some(value);
        self.settled.notify();
    }

    pub async fn take(&self) -> T {
        loop {
            let settled = self.settled.notified();
            if let Some(value) = self.value.borrow_mut().take() {
                return value;
            }
            settled.await;
        }
    }
}
