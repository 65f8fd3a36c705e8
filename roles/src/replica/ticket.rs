//! The answer to a proposal.

use super::Outcome;
use std::{cell::RefCell, rc::Rc};
use tidemill_disk::Notify;

/// It is not known whether the entry is durable: the log stopped before its sync returned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outcome of the write is unknown: {0}")]
pub struct Unknown(pub String);

/// Waits for one entry. Dropping it does not take the entry back.
pub struct Ticket(Rc<Slot>);

#[derive(Default)]
pub(super) struct Slot {
    outcome: RefCell<Option<Result<Outcome, Unknown>>>,
    settled: Notify,
}

impl Ticket {
    pub(super) fn new() -> (Ticket, Rc<Slot>) {
        let slot = Rc::new(Slot::default());
        (Ticket(slot.clone()), slot)
    }

    /// What became of the entry.
    pub async fn outcome(self) -> Result<Outcome, Unknown> {
        loop {
            let settled = self.0.settled.notified();
            if let Some(outcome) = self.0.outcome.borrow_mut().take() {
                return outcome;
            }
            settled.await;
        }
    }
}

impl Slot {
    pub(super) fn settle(&self, outcome: Result<Outcome, Unknown>) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.settled.notify();
    }
}
