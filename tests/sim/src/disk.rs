//! A model of a disk that finishes later: an ordered queue of writes in front of what is durable.
//!
//! It keeps the promises of `core/log`: writes become durable in their order; a power loss keeps a prefix of those on
//! their way, and of a multi-entry write a prefix of its entries (more than the log promises, whose commits are whole).
//! Files of the state machine are durable up to `base`.

use crate::{counters::Counters, prng::Prng};
use std::collections::VecDeque;
use tidemill_raft::{Content, Entry, EntryId, HardState, LogIndex, Membership, Restored, Term, WriteId};

pub struct Write {
    pub id: WriteId,
    pub hard_state: Option<HardState>,
    pub append: Vec<Entry<u64>>,
    pub done_at: u64,
}

pub struct Disk {
    pub hard_state: HardState,
    /// The state in files, and the membership at it.
    pub base: EntryId,
    pub base_members: (LogIndex, Membership),
    /// The entry before `entries`; at or before `base` but after an installation that a crash interrupted.
    start: EntryId,
    entries: VecDeque<Entry<u64>>,
    pub queue: VecDeque<Write>,
    newest_done_at: u64,
}

impl Disk {
    pub fn new(members: Membership) -> Disk {
        Disk {
            hard_state: HardState::default(),
            base: EntryId::default(),
            base_members: (LogIndex(0), members),
            start: EntryId::default(),
            entries: VecDeque::new(),
            queue: VecDeque::new(),
            newest_done_at: 0,
        }
    }

    pub fn write(&mut self, mut write: Write, counters: &mut Counters) {
        write.done_at = write.done_at.max(self.newest_done_at);
        self.newest_done_at = write.done_at;
        if let Some(first) = write.append.first()
            && self.queue.iter().any(|before| before.append.iter().any(|entry| entry.index >= first.index))
        {
            counters.overwrites_in_flight += 1;
        }
        self.queue.push_back(write);
    }

    /// Makes durable what is due; returns the newest of those writes.
    pub fn finish(&mut self, now: u64) -> Option<WriteId> {
        let mut finished = None;
        while self.queue.front().is_some_and(|write| write.done_at <= now) {
            let Some(write) = self.queue.pop_front() else { break };
            finished = Some(write.id);
            self.apply(write);
        }
        finished
    }

    fn apply(&mut self, write: Write) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        for entry in write.append {
            self.put(entry);
        }
    }

    fn put(&mut self, entry: Entry<u64>) {
        let Some(keep) = entry.index.0.checked_sub(self.start.index.0 + 1) else { return };
        self.entries.truncate(keep as usize);
        assert!(self.entries.len() as u64 == keep, "the log would have a gap at {}", entry.index);
        self.entries.push_back(entry);
    }

    pub fn last(&self) -> LogIndex {
        LogIndex(self.start.index.0 + self.entries.len() as u64)
    }

    /// As durable.
    pub fn entry(&self, index: LogIndex) -> Option<&Entry<u64>> {
        let at = index.0.checked_sub(self.start.index.0 + 1)?;
        self.entries.get(at as usize)
    }

    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index == self.start.index {
            return Some(self.start.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Whether the entry is durable, in the log or in the state.
    pub fn holds(&self, id: EntryId) -> bool {
        id.index <= self.base.index || self.term_at(id.index) == Some(id.term)
    }

    /// The state up to `base` is in files; entries up to `forget` leave the log.
    pub fn flush(&mut self, base: EntryId, members: (LogIndex, Membership), forget: LogIndex) {
        self.base = base;
        self.base_members = members;
        while self.start.index < forget.min(base.index)
            && let Some(entry) = self.entries.pop_front()
        {
            self.start = entry.id();
        }
    }

    /// First step of an installation: the files.
    pub fn install_files(&mut self, base: EntryId, members: Membership) {
        self.base = base;
        self.base_members = (base.index, members);
    }

    /// Second step: the log is empty behind them.
    pub fn install_log(&mut self) {
        self.start = self.base;
        self.entries.clear();
    }

    /// The power fails.
    pub fn crash(&mut self, random: &mut Prng, counters: &mut Counters) {
        let survive = random.below(self.queue.len() as u64 + 1);
        for _ in 0..survive {
            if let Some(write) = self.queue.pop_front() {
                self.apply(write);
            }
        }
        counters.writes_lost += self.queue.len() as u64;
        if let Some(mut torn) = self.queue.pop_front()
            && torn.append.len() > 1
            && random.below(2) == 0
        {
            counters.writes_torn += 1;
            torn.append.truncate(random.below(torn.append.len() as u64) as usize);
            self.apply(torn);
        }
        self.queue.clear();
        self.newest_done_at = 0;
    }

    /// What a start finds. A log that does not hold the entry at which the files end belongs to them only if it ends
    /// before; otherwise an installation was interrupted.
    pub fn restore(&mut self) -> Restored {
        let in_log = self.entry(self.base.index).map(|entry| entry.term);
        let belongs =
            self.base.index == self.start.index && self.base.term == self.start.term || in_log == Some(self.base.term);
        if !belongs {
            self.install_log();
        }
        let mut terms: Vec<EntryId> = Vec::new();
        let mut members = vec![self.base_members.clone()];
        for entry in self.entries.iter().filter(|entry| entry.index > self.base.index) {
            if terms.last().is_none_or(|run| run.term != entry.term) {
                terms.push(entry.id());
            }
            if let Content::Members(to) = &entry.content {
                members.push((entry.index, to.clone()));
            }
        }
        let (hard_state, base, last_index) = (self.hard_state, self.base, self.last());
        Restored { hard_state, base, terms, last_index, committed: base.index, members }
    }
}
