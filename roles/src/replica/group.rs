//! One raft group with its state machine.
//!
//! Invariants: an entry is applied once it is committed and durable here, in the order of the log: files never run ahead
//! of this node's own log, so that what a crash takes from it cannot be followed by another history; whoever proposed an
//! entry hears its outcome after it has been applied here.

use super::{
    Gift, InstallFailure, LocalFuture, Offer, Outcome, Payload, Sources,
    payload::members_entry,
    ticket::{Lost, Slot},
};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};
use tidemill_disk::Notify;
use tidemill_raft::{
    Content, Ended, Ending, Entry, EntryId, GroupId, LogIndex, Membership, NodeId, Raft, ReadId, ReadReady, Term,
};

/// An entry counts as so many bytes at least: small ones take time, too.
const APPLIED_BYTES_MIN: usize = 4 << 10;

/// A state machine that entries drive.
pub trait Machine {
    /// Applies an entry; `None` opens a term. One that brings members comes as the bytes that
    /// [`super::members_in`] reads. An error stops the group: its replicas would differ.
    fn apply(&self, term: Term, index: LogIndex, payload: Option<&Payload>) -> Result<Outcome, String>;
    /// As [`Machine::apply`], from the bytes that the log gave back; empty bytes open a term.
    fn replay(&self, term: Term, index: LogIndex, bytes: &[u8]) -> Result<(), String>;
    /// Up to here, and of this term, everything is in files.
    fn flushed(&self) -> (LogIndex, Term);
    /// The members as of [`Machine::flushed`], in their encoding; empty: those that the group was founded with.
    fn flushed_members(&self) -> Vec<u8>;
    fn applied(&self) -> LogIndex;
    /// The state in files, for a member that lacks the entries behind it. `None`: there is none yet.
    fn offer(&self) -> LocalFuture<'_, Option<Offer>>;
    /// Becomes what another member's files say.
    fn install<'a>(&'a self, gift: &'a Gift, sources: &'a dyn Sources) -> LocalFuture<'a, Result<(), InstallFailure>>;
}

/// One group on its core.
pub struct Group {
    pub(super) raft: RefCell<Raft<Payload>>,
    machine: Rc<dyn Machine>,
    /// What the log has behind the applied entries.
    unapplied: RefCell<VecDeque<Unapplied>>,
    /// Who proposed what has not ended, in the order of terms and indices.
    proposals: RefCell<VecDeque<Proposal>>,
    reads: RefCell<BTreeMap<ReadId, Rc<Slot<Option<LogIndex>>>>>,
    next_read: Cell<u64>,
    applied: Notify,
    broken: Cell<bool>,
    /// It waits for its turn to go on applying.
    pub(super) lags: Cell<bool>,
    /// Of all groups of the core.
    unapplied_bytes: Rc<Cell<usize>>,
    /// The files are being made ready for a member that wants them.
    offering: Cell<bool>,
    /// Up to here the files were when the log was released last.
    flushed_before: Cell<LogIndex>,
    /// Bytes that were applied since the log was told what is committed.
    unmarked_bytes: Cell<usize>,
}

struct Unapplied {
    id: EntryId,
    payload: Option<Payload>,
}

struct Proposal {
    id: EntryId,
    slot: Rc<Slot<Result<Outcome, Lost>>>,
}

impl Group {
    /// `seed` is another one after every start.
    pub(super) fn new(
        raft: Raft<Payload>,
        machine: Rc<dyn Machine>,
        seed: u64,
        unapplied_bytes: Rc<Cell<usize>>,
    ) -> Group {
        Group {
            raft: RefCell::new(raft),
            machine,
            unapplied: RefCell::default(),
            proposals: RefCell::default(),
            reads: RefCell::default(),
            // An answer to who this node was before its start must be none to a later read: it knows less.
            next_read: Cell::new(seed),
            applied: Notify::new(),
            broken: Cell::new(false),
            lags: Cell::new(false),
            unapplied_bytes,
            offering: Cell::new(false),
            flushed_before: Cell::new(LogIndex(0)),
            unmarked_bytes: Cell::new(0),
        }
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

    /// Zero: none is known.
    pub fn leader(&self) -> NodeId {
        self.raft.borrow().leader()
    }

    /// The members in force: those of the newest entry in the log that brings any, committed or not.
    pub fn members(&self) -> Membership {
        self.raft.borrow().members().clone()
    }

    /// The members as of an entry that is not before what is in files alone.
    pub fn members_at(&self, index: LogIndex) -> Membership {
        self.raft.borrow().members_at(index).1.clone()
    }

    /// The members if no change of them is under way, as far as this node knows.
    pub fn settled_members(&self) -> Option<Membership> {
        let raft = self.raft.borrow();
        let (at, members) = raft.members_at(LogIndex(u64::MAX));
        (*at <= raft.committed() && !members.is_joint()).then(|| members.clone())
    }

    pub fn term(&self) -> Term {
        self.raft.borrow().term()
    }

    /// Proposals of this node that have not ended.
    pub fn waiting(&self) -> usize {
        self.proposals.borrow().len()
    }

    /// An entry is on its way into the log; it replaces what stood at its index and behind.
    pub(super) fn push(&self, entry: &Entry<Payload>) {
        let payload = match &entry.content {
            Content::Data(payload) => Some(payload.clone()),
            Content::Members(members) => Some(members_entry(members)),
            Content::Opening => None,
        };
        self.forget_from(entry.index);
        let added = Unapplied { id: entry.id(), payload };
        self.unapplied_bytes.set(self.unapplied_bytes.get() + added.byte_size());
        self.unapplied.borrow_mut().push_back(added);
    }

    /// The newest entry was not taken by the log.
    pub(super) fn retract(&self, index: LogIndex) {
        self.raft.borrow_mut().retract(index);
        self.forget_from(index);
    }

    /// Entries from here on are replaced, or were never there.
    fn forget_from(&self, index: LogIndex) {
        while let Some(gone) = self.unapplied.borrow_mut().pop_back_if(|last| last.id.index >= index) {
            self.forget(&gone);
        }
    }

    pub(super) fn expect(&self, id: EntryId, slot: Rc<Slot<Result<Outcome, Lost>>>) {
        self.proposals.borrow_mut().push_back(Proposal { id, slot });
    }

    /// These proposals will not be applied here as what they were.
    pub(super) fn settle_ended(&self, ended: &[Ended]) {
        for Ended { term, first, last, how } in ended {
            let ended: Vec<Proposal> = {
                let mut proposals = self.proposals.borrow_mut();
                let from = proposals.partition_point(|known| known.id < EntryId { term: *term, index: *first });
                let until = proposals.partition_point(|known| known.id <= EntryId { term: *term, index: *last });
                proposals.drain(from..until).collect()
            };
            for Proposal { slot, .. } in ended {
                slot.settle(Err(match how {
                    Ending::Dropped => Lost::Dropped,
                    Ending::Unknown => Lost::Unknown("its node was given the newer state of others".into()),
                }));
            }
        }
    }

    /// Applies what is committed and durable, and answers, until entries of `bytes_max` together were applied; answers
    /// whether there is more.
    pub(super) fn apply_committed(&self, bytes_max: usize) -> bool {
        let until = {
            let raft = self.raft.borrow();
            raft.committed().min(raft.stable_index())
        };
        let (mut any, mut bytes) = (false, 0);
        let has_more = loop {
            if bytes > bytes_max {
                break self.unapplied.borrow().front().is_some_and(|entry| entry.id.index <= until);
            }
            let next = self.unapplied.borrow_mut().pop_front_if(|entry| entry.id.index <= until);
            let Some(entry) = next else { break false };
            any = true;
            bytes += entry.byte_size() + APPLIED_BYTES_MIN;
            self.forget(&entry);
            self.apply(entry);
        };
        if any {
            self.applied.notify();
        }
        has_more
    }

    fn apply(&self, entry: Unapplied) {
        let EntryId { term, index } = entry.id;
        let waiting = self.take_proposal(entry.id);
        let answer = |outcome| {
            if let Some(slot) = waiting {
                slot.settle(outcome);
            }
        };
        if self.broken.get() {
            return answer(Err(Lost::Unknown("an earlier entry could not be applied".into())));
        }
        self.unmarked_bytes.set(self.unmarked_bytes.get() + entry.byte_size());
        match self.machine.apply(term, index, entry.payload.as_ref()) {
            Ok(outcome) => answer(Ok(outcome)),
            Err(error) => {
                tracing::error!(group = self.id().0, index = index.0, error, "an entry cannot be applied");
                self.broken.set(true);
                answer(Err(Lost::Unknown(error)));
            }
        }
    }

    fn take_proposal(&self, id: EntryId) -> Option<Rc<Slot<Result<Outcome, Lost>>>> {
        let mut proposals = self.proposals.borrow_mut();
        // Mostly the first: entries are applied in the order in which they were proposed.
        let at = match proposals.front() {
            Some(first) if first.id == id => 0,
            Some(first) if first.id < id => proposals.binary_search_by_key(&id, |known| known.id).ok()?,
            _ => return None,
        };
        proposals.remove(at).map(|known| known.slot)
    }

    fn forget(&self, entry: &Unapplied) {
        self.unapplied_bytes.set(self.unapplied_bytes.get() - entry.byte_size());
    }

    /// Whether the log should be told what is committed: what is behind that waits in memory after a start.
    pub(super) fn wants_mark(&self, bytes: usize) -> bool {
        self.unmarked_bytes.get() >= bytes
    }

    pub(super) fn marked(&self) {
        self.unmarked_bytes.set(0);
    }

    pub(super) fn expect_read(&self) -> (ReadId, Rc<Slot<Option<LogIndex>>>) {
        let id = ReadId(self.next_read.replace(self.next_read.get().wrapping_add(1)));
        let slot = Rc::new(Slot::default());
        self.reads.borrow_mut().insert(id, slot.clone());
        (id, slot)
    }

    pub(super) fn settle_reads(&self, ready: &[ReadReady]) {
        for ReadReady { id, index } in ready {
            // Nobody waits any more if the reader went away.
            let waiting = self.reads.borrow_mut().remove(id);
            waiting.inspect(|slot| slot.settle(*index));
        }
    }

    pub(super) fn forget_read(&self, id: ReadId) {
        self.reads.borrow_mut().remove(&id);
    }

    /// Returns once everything up to `index` is applied here.
    pub async fn applied_up_to(&self, index: LogIndex) {
        loop {
            let more = self.applied.notified();
            if self.machine.applied() >= index {
                return;
            }
            more.await;
        }
    }

    /// The first call after [`Group::offered`] only.
    pub(super) fn begin_offer(&self) -> bool {
        !self.offering.replace(true)
    }

    pub(super) fn offered(&self) {
        self.offering.set(false);
    }

    /// Files are there up to `flushed`; returns up to where they were when this was told before. What lies between is
    /// kept for members that lag a little.
    pub(super) fn flushed_up_to(&self, flushed: LogIndex) -> LogIndex {
        if flushed > self.flushed_before.get() { self.flushed_before.replace(flushed) } else { LogIndex(0) }
    }

    /// The state is that of other members' files: what was in the log is not to be applied any more.
    pub(super) fn installed(&self) {
        for entry in self.unapplied.borrow_mut().drain(..) {
            self.forget(&entry);
        }
    }

    pub(super) fn break_down(&self, why: &str) {
        tracing::error!(group = self.id().0, why, "a group has stopped");
        self.broken.set(true);
        self.give_up(why);
    }

    /// Wakes who waits for entries to be applied.
    pub(super) fn notify_applied(&self) {
        self.applied.notify();
    }

    /// The log has ended: nobody will know what became of what is not applied.
    pub(super) fn give_up(&self, reason: &str) {
        for entry in self.unapplied.borrow_mut().drain(..) {
            self.forget(&entry);
        }
        let (proposals, reads) = (self.proposals.take(), self.reads.take());
        proposals.into_iter().for_each(|known| known.slot.settle(Err(Lost::Unknown(reason.to_string()))));
        reads.into_values().for_each(|slot| slot.settle(None));
    }
}

impl Unapplied {
    fn byte_size(&self) -> usize {
        self.payload.as_ref().map_or(0, Payload::byte_size)
    }
}
