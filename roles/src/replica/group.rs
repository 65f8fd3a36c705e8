//! One raft group with its state machine.

use super::{
    Outcome, Payload,
    ticket::{Slot, Unknown},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};
use tidemill_raft::{GroupId, LogIndex, Raft, Term, WriteId};

/// A state machine that entries drive.
pub trait Machine {
    /// Applies an entry; `None` opens a term. An error stops the group: its replicas would differ.
    fn apply(&self, term: Term, index: LogIndex, payload: Option<&Payload>) -> Result<Outcome, String>;
    /// As [`Machine::apply`], from the bytes that the log gave back; empty bytes open a term.
    fn replay(&self, term: Term, index: LogIndex, bytes: &[u8]) -> Result<(), String>;
    /// Up to here, and of this term, everything is in files.
    fn flushed(&self) -> (LogIndex, Term);
    fn applied(&self) -> LogIndex;
}

/// One group on its core.
pub struct Group {
    pub(super) raft: RefCell<Raft<Payload>>,
    unapplied: RefCell<VecDeque<Unapplied>>,
    machine: Rc<dyn Machine>,
    broken: Cell<bool>,
    /// Of all groups of the core.
    unapplied_bytes: Rc<Cell<usize>>,
}

struct Unapplied {
    term: Term,
    index: LogIndex,
    payload: Option<Payload>,
    slot: Rc<Slot>,
}

impl Group {
    pub(super) fn new(raft: Raft<Payload>, machine: Rc<dyn Machine>, unapplied_bytes: Rc<Cell<usize>>) -> Group {
        let unapplied = RefCell::default();
        Group { raft: RefCell::new(raft), unapplied, machine, broken: Cell::new(false), unapplied_bytes }
    }

    pub fn id(&self) -> GroupId {
        self.raft.borrow().group()
    }

    /// Whether an entry could not be applied.
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    pub fn machine(&self) -> &Rc<dyn Machine> {
        &self.machine
    }

    pub(super) fn push(&self, term: Term, index: LogIndex, payload: Option<Payload>, slot: Rc<Slot>) {
        let bytes = payload.as_ref().map_or(0, Payload::byte_size);
        self.unapplied_bytes.set(self.unapplied_bytes.get() + bytes);
        self.unapplied.borrow_mut().push_back(Unapplied { term, index, payload, slot });
    }

    /// This write is durable: applies what that commits, and answers.
    pub(super) fn handle_stable(&self, write: WriteId) {
        let committed = self.raft.borrow_mut().handle_stable(write).committed;
        let Some(committed) = committed else { return };
        loop {
            let next = {
                let mut unapplied = self.unapplied.borrow_mut();
                if unapplied.front().is_none_or(|entry| entry.index > committed) {
                    return;
                }
                unapplied.pop_front()
            };
            let Some(entry) = next else { return };
            self.forget(&entry);
            if self.broken.get() {
                entry.slot.settle(Err(Unknown("an earlier entry could not be applied".into())));
                continue;
            }
            match self.machine.apply(entry.term, entry.index, entry.payload.as_ref()) {
                Ok(outcome) => entry.slot.settle(Ok(outcome)),
                Err(error) => {
                    tracing::error!(group = self.id().0, index = entry.index.0, error, "an entry cannot be applied");
                    self.broken.set(true);
                    entry.slot.settle(Err(Unknown(error)));
                }
            }
        }
    }

    fn forget(&self, entry: &Unapplied) {
        let bytes = entry.payload.as_ref().map_or(0, Payload::byte_size);
        self.unapplied_bytes.set(self.unapplied_bytes.get() - bytes);
    }

    /// The log has ended: nobody will know what became of what is not applied.
    pub(super) fn give_up(&self, reason: &str) {
        for entry in self.unapplied.borrow_mut().drain(..) {
            self.forget(&entry);
            entry.slot.settle(Err(Unknown(reason.to_string())));
        }
    }
}
