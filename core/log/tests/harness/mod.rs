//! A model of the log, a load, and the check that a recovered log is the model at some moment between the newest
//! acknowledged append and the newest append.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};
use tidemill_disk::sim::{Executor, Prng, SimDisk};
use tidemill_log::{AppendError, Durability, Log, LogOptions, OpenError, Record, RecoveryError};
use tidemill_raft::{GroupId, LogIndex, Term};

pub const FOLDER: &str = "log";

pub fn options(segment_bytes: u64, durability: Durability) -> LogOptions {
    LogOptions {
        segment_bytes,
        first_segment_bytes: segment_bytes,
        durability,
        batch_bytes: 16 << 10,
        pending_bytes_max: 1 << 20,
        segments_max: 64,
        groups_max: 16,
        commands_reserve_bytes: 4 << 10,
        new_log_id: 0x7469_6465,
    }
}

/// The same with segments that grow: the first ones are too short for the larger frames of the tests.
pub fn growing(segment_bytes: u64, durability: Durability) -> LogOptions {
    LogOptions { first_segment_bytes: 24 << 10, ..options(segment_bytes, durability) }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owned {
    Entry { group: u32, term: u64, index: u64, payload: Vec<u8> },
    HardState { group: u32, term: u64, vote: Option<u64>, committed: u64 },
}

impl Owned {
    pub fn of(record: &Record<'_>) -> Owned {
        match *record {
            Record::Entry { group, term, index, payload } => {
                Owned::Entry { group: group.0, term: term.0, index: index.0, payload: payload.to_vec() }
            }
            Record::HardState { group, term, vote, committed } => {
                Owned::HardState { group: group.0, term: term.0, vote, committed: committed.0 }
            }
        }
    }

    pub fn record(&self) -> Record<'_> {
        match self {
            Owned::Entry { group, term, index, payload } => {
                Record::Entry { group: GroupId(*group), term: Term(*term), index: LogIndex(*index), payload }
            }
            Owned::HardState { group, term, vote, committed } => {
                let (group, term, committed) = (GroupId(*group), Term(*term), LogIndex(*committed));
                Record::HardState { group, term, vote: *vote, committed }
            }
        }
    }
}

/// What a group is after some appends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupModel {
    pub entries: BTreeMap<u64, (u64, Vec<u8>)>,
    /// Term, vote, what was known to be committed.
    pub hard_state: Option<(u64, Option<u64>, u64)>,
}

pub type Groups = BTreeMap<u32, GroupModel>;

pub fn apply(groups: &mut Groups, record: &Owned) {
    match record {
        Owned::Entry { group, term, index, payload } => {
            let entries = &mut groups.entry(*group).or_default().entries;
            entries.split_off(index);
            entries.insert(*index, (*term, payload.clone()));
        }
        Owned::HardState { group, term, vote, committed } => {
            groups.entry(*group).or_default().hard_state = Some((*term, *vote, *committed));
        }
    }
}

/// The truth about a running log.
#[derive(Clone, Default)]
pub struct Truth {
    /// State after the acknowledged appends.
    pub acked: Groups,
    pub acked_count: u64,
    /// Appends behind those, in order.
    pub unacked: VecDeque<Owned>,
    pub released: BTreeMap<u32, u64>,
}

impl Truth {
    pub fn appended(&mut self, record: Owned) -> u64 {
        self.unacked.push_back(record);
        self.acked_count + self.unacked.len() as u64
    }

    /// Acknowledged: the append of this count, and with it all before it.
    pub fn acked(&mut self, count: u64) {
        while self.acked_count < count {
            let record = self.unacked.pop_front().expect("an append that was made");
            apply(&mut self.acked, &record);
            self.acked_count += 1;
        }
    }

    /// Entries in files leave the model.
    pub fn release(&mut self, group: u32, through: u64) {
        self.released.insert(group, through);
        if let Some(known) = self.acked.get_mut(&group) {
            known.entries = known.entries.split_off(&(through + 1));
        }
    }

    pub fn from(&self, group: GroupId) -> LogIndex {
        LogIndex(self.released.get(&group.0).copied().unwrap_or(0))
    }

    fn without_released(&self, groups: &Groups) -> Groups {
        let mut groups = groups.clone();
        for (group, known) in &mut groups {
            known.entries = known.entries.split_off(&(self.released.get(group).copied().unwrap_or(0) + 1));
        }
        groups.retain(|_, known| *known != GroupModel::default());
        groups
    }

    /// Panics unless the recovered state is the model after all acknowledged appends and some of the others, in order.
    /// Returns how many of the others.
    pub fn check(&self, recovered: &Groups, context: &str) -> usize {
        let recovered = self.without_released(recovered);
        let mut expected = self.without_released(&self.acked);
        for more in 0..=self.unacked.len() {
            if expected == recovered {
                return more;
            }
            if let Some(record) = self.unacked.get(more) {
                apply(&mut expected, record);
                expected = self.without_released(&expected);
            }
        }
        let acked = self.without_released(&self.acked);
        let summary = |groups: &Groups| {
            let group = |known: &GroupModel| {
                (known.entries.keys().next().copied(), known.entries.keys().last().copied(), known.hard_state)
            };
            groups.iter().map(|(id, known)| (*id, group(known))).collect::<Vec<_>>()
        };
        panic!(
            "{context}: recovered is no state between acknowledged and appended\nrecovered {:?}\nacked {:?}\n{} unacked",
            summary(&recovered),
            summary(&acked),
            self.unacked.len()
        );
    }
}

/// Opens the log and collects what it hands out.
pub async fn recover(
    disk: &SimDisk,
    options: &LogOptions,
    truth: &Truth,
) -> Result<(Log<SimDisk>, Groups, bool), OpenError> {
    let (log, mut recovery) = Log::open(disk.clone(), FOLDER, options.clone(), |group| truth.from(group)).await?;
    let mut groups = Groups::new();
    loop {
        let record = match recovery.next().await {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(RecoveryError::Io { file, source, .. }) => return Err(OpenError::Io { doing: file, source }),
            Err(error) => panic!("what the open found good is good: {error}"),
        };
        if let Record::Entry { group, index, .. } = record {
            let known = groups.get(&group.0).and_then(|known: &GroupModel| known.entries.keys().last().copied());
            assert!(known.is_none_or(|last| index.0 == last + 1), "replaced entries are not handed out");
        }
        apply(&mut groups, &Owned::of(&record));
    }
    let cut = recovery.cut().is_some();
    Ok((log, groups, cut))
}

pub fn payload(prng: &mut Prng, bytes_max: u64) -> Vec<u8> {
    let bytes = if prng.one_in(40) { bytes_max } else { prng.below(400) };
    let byte = prng.next_u64() as u8;
    vec![byte; bytes as usize]
}

pub struct Load {
    pub groups: u32,
    pub appends: u64,
    /// One in so many appends replaces earlier, unreleased entries with a higher term. Zero: none.
    pub replace_one_in: u64,
    pub bytes_max: u64,
    /// Entries kept behind when releasing. `None`: nothing is released.
    pub release_lag: Option<u64>,
}

/// Appends from one task per group, several before each wait, and releases what is old. Ends early at the first
/// poison. The truth is right at every moment.
pub async fn load(executor: &Executor, log: &Log<SimDisk>, truth: &Rc<RefCell<Truth>>, load: Rc<Load>, seed: u64) {
    let tasks: Vec<_> = (0..load.groups)
        .map(|group| {
            let (log, truth, load, executor2) = (log.clone(), truth.clone(), load.clone(), executor.clone());
            executor.spawn(async move {
                let mut prng = Prng::new(seed ^ u64::from(group) << 32);
                let mut writer = Writer::start(&truth.borrow(), group);
                for _ in 0..load.appends / u64::from(load.groups) {
                    let record = writer.next(&mut prng, &load, &truth.borrow());
                    let position = loop {
                        let appended = log.append(record.record());
                        match appended {
                            Ok(position) => {
                                let count = truth.borrow_mut().appended(record.clone());
                                break (position, count);
                            }
                            Err(AppendError::Busy | AppendError::Full) => {
                                // As a server would, go on when something has changed, or ask again.
                                executor2.yield_now().await;
                                log.settle();
                            }
                            Err(AppendError::Poisoned(_) | AppendError::Closed) => return,
                            Err(error) => panic!("{error}"),
                        }
                    };
                    if prng.one_in(2) {
                        if log.stable(position.0).await.is_err() {
                            return;
                        }
                        truth.borrow_mut().acked(position.1);
                        if let Some(lag) = load.release_lag
                            && prng.one_in(5)
                        {
                            let last = truth.borrow().acked[&group].entries.keys().last().copied().unwrap_or(0);
                            let through = last.saturating_sub(lag);
                            if through > truth.borrow().from(GroupId(group)).0 {
                                truth.borrow_mut().release(group, through);
                                log.release(GroupId(group), LogIndex(through));
                            }
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.join().await;
    }
}

struct Writer {
    group: u32,
    term: u64,
    next: u64,
}

impl Writer {
    fn start(truth: &Truth, group: u32) -> Writer {
        let known = truth.acked.get(&group);
        let last = known.and_then(|known| known.entries.last_key_value());
        let term = last.map_or(1, |(_, (term, _))| *term);
        let term = term.max(known.and_then(|known| known.hard_state).map_or(1, |(term, ..)| term));
        let next = last.map_or(truth.from(GroupId(group)).0, |(index, _)| *index) + 1;
        Writer { group, term, next }
    }

    fn next(&mut self, prng: &mut Prng, load: &Load, truth: &Truth) -> Owned {
        if prng.one_in(25) {
            self.term += 1;
            let vote = (!prng.one_in(3)).then(|| prng.below(5));
            return Owned::HardState { group: self.group, term: self.term, vote, committed: prng.below(self.next) };
        }
        if load.replace_one_in > 0 && prng.one_in(load.replace_one_in) {
            self.term += 1;
            let released = truth.from(GroupId(self.group)).0;
            let kept = self.next - 1 - released;
            self.next -= prng.below(kept.min(12) + 1);
        }
        let index = self.next;
        self.next += 1;
        Owned::Entry { group: self.group, term: self.term, index, payload: payload(prng, load.bytes_max) }
    }
}
