//! What consensus knows of the log: where terms begin, what is durable, and the newest entries themselves.
//!
//! Invariants: the entry at `base` is committed and everything up to it is in the state machine's files; terms never fall
//! along the index; `tail` ends at `last` and holds at least what is not durable (only where others want entries).
//! A write that was asked for covers only those of its entries that were not replaced since: its completion says
//! nothing about the entries that took their places.

use crate::{Content, Entry, EntryId, HardState, LogIndex, Payload, Term, WriteId};
use alloc::{collections::VecDeque, vec::Vec};

#[derive(Debug)]
pub(crate) struct LogView<P> {
    base: EntryId,
    /// First entry of each run of a term, above `base`.
    runs: VecDeque<EntryId>,
    last: LogIndex,
    stable: LogIndex,
    tail: VecDeque<Entry<P>>,
    tail_bytes: usize,
    writes: VecDeque<Write>,
}

/// A write that is not durable yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub id: WriteId,
    /// Newest of its entries that is still in the log.
    pub last: LogIndex,
    pub hard_state: Option<HardState>,
}

impl<P: Payload> LogView<P> {
    pub fn new(base: EntryId, runs: &[EntryId], last: LogIndex) -> LogView<P> {
        let runs: VecDeque<EntryId> = runs.iter().copied().filter(|run| run.index > base.index).collect();
        let last = last.max(base.index);
        LogView { base, runs, last, stable: last, tail: VecDeque::new(), tail_bytes: 0, writes: VecDeque::new() }
    }

    pub fn base(&self) -> EntryId {
        self.base
    }

    pub fn last(&self) -> LogIndex {
        self.last
    }

    pub fn last_id(&self) -> EntryId {
        let term = self.runs.back().map_or(self.base.term, |run| run.term);
        EntryId { term, index: self.last }
    }

    /// Everything up to here is durable.
    pub fn stable(&self) -> LogIndex {
        self.stable
    }

    /// The term of the entry; `None` before the base and behind the end.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index > self.last || index < self.base.index {
            return None;
        }
        if let Some(newest) = self.runs.back()
            && index >= newest.index
        {
            return Some(newest.term);
        }
        let behind = self.runs.partition_point(|run| run.index <= index);
        Some(behind.checked_sub(1).map_or(self.base.term, |at| self.runs[at].term))
    }

    pub fn holds(&self, id: EntryId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// The newest entry at or before `limit` whose term is not above its term: a log that refused `limit` can only match
    /// there or earlier. Whole terms are skipped in one round trip (thesis, section 3.5).
    pub fn hint(&self, limit: EntryId) -> EntryId {
        let mut index = limit.index.min(self.last);
        for run in self.runs.iter().rev() {
            if run.index > index {
                continue;
            }
            if run.term <= limit.term {
                return EntryId { term: run.term, index };
            }
            index = run.index.before();
        }
        // What is in files is committed, so it matches every leader.
        self.base
    }

    pub fn append(&mut self, entry: &Entry<P>, keep: bool) {
        debug_assert!(entry.index == self.last.next(), "entries follow each other");
        if self.runs.back().is_none_or(|run| run.term != entry.term) {
            self.runs.push_back(entry.id());
        }
        self.last = entry.index;
        if keep {
            self.tail_bytes += entry.byte_size();
            self.tail.push_back(entry.clone());
        } else {
            self.tail.clear();
            self.tail_bytes = 0;
        }
    }

    /// Entries from here on are gone.
    pub fn truncate_from(&mut self, index: LogIndex) {
        let last = index.before();
        while self.last > last {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_bytes -= entry.byte_size();
                self.last = self.last.before();
            } else {
                self.last = last;
            }
        }
        while self.runs.back().is_some_and(|run| run.index > last) {
            self.runs.pop_back();
        }
        self.stable = self.stable.min(last);
        for write in &mut self.writes {
            write.last = write.last.min(last);
        }
    }

    /// Everything up to `base` is in files. What the log had behind it stays.
    pub fn compact(&mut self, base: EntryId) {
        self.base = base;
        while self.runs.get(1).is_some_and(|run| run.index <= base.index.next()) {
            self.runs.pop_front();
        }
        if self.last <= base.index {
            self.runs.clear();
        } else if let Some(run) = self.runs.front_mut()
            && run.index <= base.index
        {
            run.index = base.index.next();
        }
        while self.tail.front().is_some_and(|entry| entry.index <= base.index) {
            self.drop_front();
        }
    }

    /// The log is empty behind `base`.
    pub fn reset(&mut self, base: EntryId) {
        self.base = base;
        self.runs.clear();
        self.last = base.index;
        self.stable = base.index;
        self.tail.clear();
        self.tail_bytes = 0;
        for write in &mut self.writes {
            write.last = LogIndex(0);
        }
    }

    fn drop_front(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_bytes -= entry.byte_size();
        }
    }

    /// Drops the oldest of the entries in memory; what is not durable cannot be read back and stays.
    pub fn shrink_tail(&mut self, bytes_max: usize) {
        while self.tail_bytes > bytes_max && self.tail.front().is_some_and(|entry| entry.index <= self.stable) {
            self.drop_front();
        }
    }

    pub fn tail_first(&self) -> LogIndex {
        LogIndex(self.last.0 + 1 - self.tail.len() as u64)
    }

    /// Entries from `from` on that fit; at least one if there is any.
    pub fn tail_from(&self, from: LogIndex, bytes_max: usize, count_max: usize) -> (Vec<Entry<P>>, usize) {
        let Some(skip) = from.0.checked_sub(self.tail_first().0) else { return (Vec::new(), 0) };
        let mut bytes = 0;
        let mut count = 0;
        for entry in self.tail.iter().skip(skip as usize).take(count_max) {
            let size = entry.byte_size();
            if count > 0 && bytes + size > bytes_max {
                break;
            }
            bytes += size;
            count += 1;
        }
        (self.tail.iter().skip(skip as usize).take(count).cloned().collect(), bytes)
    }

    pub fn push_write(&mut self, write: Write) {
        self.writes.push_back(write);
    }

    /// The newest write was not taken by the log.
    pub fn pop_write(&mut self) -> Option<Write> {
        self.writes.pop_back()
    }

    /// Takes note of all writes up to `id`; returns the hard state that became durable with them.
    pub fn complete_writes(&mut self, id: WriteId) -> Option<HardState> {
        let mut hard_state = None;
        while self.writes.front().is_some_and(|write| write.id <= id) {
            let Some(write) = self.writes.pop_front() else { break };
            self.stable = self.stable.max(write.last);
            hard_state = write.hard_state.or(hard_state);
        }
        hard_state
    }

    /// The newest write that carries a hard state, if one is not durable yet.
    pub fn unstable_hard_state(&self) -> Option<WriteId> {
        self.writes.iter().rev().find(|write| write.hard_state.is_some()).map(|write| write.id)
    }

    /// # Panics
    /// If the module's invariants do not hold.
    pub fn check(&self) {
        assert!(self.base.index <= self.last && self.stable <= self.last, "{:?}", self.last);
        let mut before = EntryId { term: self.base.term, index: self.base.index };
        for run in &self.runs {
            assert!(run.index > before.index && run.term >= before.term, "run {run} after {before}");
            assert!(run.index <= self.last, "run {run} behind {}", self.last);
            before = *run;
        }
        assert!(self.runs.front().is_none_or(|run| run.index == self.base.index.next()), "terms without a gap");
        assert!(self.last == self.base.index || !self.runs.is_empty(), "every entry has a term");
        let bytes: usize = self.tail.iter().map(Entry::byte_size).sum();
        assert!(bytes == self.tail_bytes, "{bytes} bytes in memory, {} counted", self.tail_bytes);
        for (entry, index) in self.tail.iter().zip(self.tail_first().0..) {
            assert!(entry.index.0 == index && self.holds(entry.id()), "entry {} in the place of {index}", entry.id());
            assert!(!matches!(&entry.content, Content::Members(members) if members.voters().is_empty()));
        }
        let ordered = self.writes.iter().zip(self.writes.iter().skip(1)).all(|(a, b)| a.id < b.id);
        assert!(ordered && self.writes.iter().all(|write| write.last <= self.last), "{:?}", self.writes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId { term: Term(term), index: LogIndex(index) }
    }

    fn entry(term: u64, index: u64) -> Entry<u64> {
        Entry { term: Term(term), index: LogIndex(index), content: Content::Data(term * 1000 + index) }
    }

    #[test]
    fn a_finished_write_says_nothing_about_entries_that_replaced_its_own() {
        let mut log = LogView::<u64>::new(id(0, 0), &[], LogIndex(0));
        (1..=3).for_each(|index| log.append(&entry(1, index), true));
        log.push_write(Write { id: WriteId(1), last: LogIndex(3), hard_state: None });
        log.truncate_from(LogIndex(2));
        (2..=4).for_each(|index| log.append(&entry(2, index), true));
        log.push_write(Write { id: WriteId(2), last: LogIndex(4), hard_state: None });
        log.complete_writes(WriteId(1));
        assert_eq!(log.stable(), LogIndex(1));
        log.complete_writes(WriteId(2));
        assert_eq!(log.stable(), LogIndex(4));
        log.check();
    }

    proptest! {
        /// Against the plain way: a vector of terms.
        #[test]
        fn runs_are_the_terms_of_a_plain_log(steps in prop::collection::vec((0u8..5, 0u64..6), 1..80)) {
            let mut log = LogView::<u64>::new(id(0, 0), &[], LogIndex(0));
            let mut plain: Vec<u64> = vec![0];
            let mut term = 1;
            let mut base = 0;
            for (what, by) in steps {
                let last = plain.len() as u64 - 1;
                match what {
                    0 => term += by,
                    1 => {
                        let from = last.saturating_sub(by).max(base) + 1;
                        log.truncate_from(LogIndex(from));
                        plain.truncate(from as usize);
                        term += 1;
                    }
                    2 => {
                        base = (base + by).min(last);
                        log.compact(id(plain[base as usize], base));
                    }
                    _ => {
                        log.append(&entry(term, last + 1), by != 5);
                        plain.push(term);
                    }
                }
                log.check();
                for index in 0..plain.len() as u64 + 2 {
                    let wanted = plain.get(index as usize).filter(|_| index >= base).map(|term| Term(*term));
                    prop_assert_eq!(log.term_at(LogIndex(index)), wanted);
                }
                for limit in 0..plain.len() as u64 + 2 {
                    for above in [0, 1, term / 2, term, term + 1] {
                        let hint = log.hint(id(above, limit));
                        let wanted = (base..=limit.min(plain.len() as u64 - 1)).rev().find(|i| plain[*i as usize] <= above);
                        prop_assert_eq!(hint.index.0, wanted.unwrap_or(base));
                    }
                }
            }
        }
    }
}
