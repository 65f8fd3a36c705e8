//! The queue of one core: batches by group, in a log of their own.
//!
//! The log's groups are the partitions' groups, its indices count the batches of each. A hard state says up to where they
//! have left; a start goes on behind it. After a crash some that have left may be there again: their identity makes the
//! second delivery of no effect.
//! Invariants: an entry is handed out once it is durable, and the next one of its group after it has left.

use super::{
    entry::{self, HEAD_BYTES},
    figures::{HandoffFigures, add},
};
use bytes::Bytes;
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
};
use tidemill_disk::Disk;
use tidemill_log::{AppendError, Log, LogOptions, Poisoned, Position, ReadError, Record, RecoveryError};
use tidemill_raft::{GroupId, LogIndex, Term};

/// All entries are of one term: nothing in the queue is ever replaced.
const TERM: Term = Term(1);

/// Batches that wait for their partitions.
pub struct HandoffQueue<D: Disk> {
    log: Log<D>,
    groups: RefCell<BTreeMap<GroupId, Waiting>>,
    bytes_max: u64,
}

#[derive(Default)]
struct Waiting {
    /// Behind each other; the first has the index behind `left`.
    places: VecDeque<Place>,
    left: LogIndex,
    bytes: u64,
}

#[derive(Clone, Copy)]
struct Place {
    queued_ms: u64,
    bytes: u64,
}

/// The batch that is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub index: LogIndex,
    pub queued_ms: u64,
    pub image: Bytes,
}

/// What waits of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupFigures {
    pub group: GroupId,
    pub batches: u64,
    pub bytes: u64,
    /// When the oldest was queued, milliseconds since the epoch.
    pub oldest_ms: u64,
}

/// Why a queue does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Log(#[from] tidemill_log::OpenError),
    #[error(transparent)]
    Read(#[from] RecoveryError),
    #[error("hinted handoff: entry {index} of partition {group} cannot be read: {error}")]
    Entry { group: GroupId, index: LogIndex, error: entry::EntryError },
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Why a batch was not queued.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PushError {
    #[error("the hinted-handoff queue is full ({bytes_max} bytes, hinted-handoff.max-size)")]
    Full { bytes_max: u64 },
    #[error("the disk is full")]
    DiskFull,
    #[error("the hinted-handoff queue is busy")]
    Busy,
    #[error("hinted handoff: {0}")]
    Failed(String),
}

impl<D: Disk> HandoffQueue<D> {
    /// Opens the queue in `folder`, or makes one. [`HandoffQueue::run`] is to be run beside it.
    pub async fn open(
        disk: D,
        folder: &str,
        options: LogOptions,
        bytes_max: u64,
    ) -> Result<HandoffQueue<D>, OpenError> {
        let mut left: BTreeMap<GroupId, LogIndex> = BTreeMap::new();
        if !disk.list(folder).await?.is_empty() {
            // What has left stands in the log itself, and has to be known before its entries are asked for.
            let behind_all = |_| LogIndex(u64::MAX - 1);
            let (_log, mut recovery) = Log::open(disk.clone(), folder, options.clone(), behind_all).await?;
            while let Some(record) = recovery.next().await? {
                if let Record::HardState { group, committed, .. } = record {
                    left.insert(group, committed);
                }
            }
        }
        let from = |group: GroupId| left.get(&group).copied().unwrap_or_default();
        let (log, mut recovery) = Log::open(disk, folder, options, from).await?;
        let mut groups: BTreeMap<GroupId, Waiting> = BTreeMap::new();
        for (group, left) in &left {
            groups.insert(*group, Waiting { left: *left, ..Waiting::default() });
        }
        while let Some(record) = recovery.next().await? {
            let Record::Entry { group, index, payload, .. } = record else { continue };
            let entry = entry::parse(payload).map_err(|error| OpenError::Entry { group, index, error })?;
            let waiting = groups.entry(group).or_default();
            assert_eq!(index, waiting.last().next(), "the log gives the entries of a group one behind the other");
            waiting.push(Place { queued_ms: entry.queued_ms, bytes: payload.len() as u64 });
        }
        drop(recovery);
        groups.iter().for_each(|(group, waiting)| log.release(*group, waiting.left));
        Ok(HandoffQueue { log, groups: RefCell::new(groups), bytes_max })
    }

    /// Makes what is queued durable, until [`HandoffQueue::close`].
    pub async fn run(&self) -> Result<(), Poisoned> {
        self.log.run().await
    }

    pub fn close(&self) {
        self.log.close();
    }

    /// Puts a batch behind those of its group, at once. It is queued when [`HandoffQueue::durable`] of the position
    /// returns.
    pub fn push(&self, group: GroupId, queued_ms: u64, image: &[u8]) -> Result<Position, PushError> {
        let mut groups = self.groups.borrow_mut();
        let bytes = (HEAD_BYTES + image.len()) as u64;
        let held: u64 = groups.values().map(|waiting| waiting.bytes).sum();
        if held + bytes > self.bytes_max {
            return Err(PushError::Full { bytes_max: self.bytes_max });
        }
        let waiting = groups.entry(group).or_default();
        let parts = [&entry::head(queued_ms)[..], image];
        let position =
            self.log.append_entry(group, TERM, waiting.last().next(), &parts).map_err(|error| match error {
                AppendError::Full => PushError::DiskFull,
                AppendError::Busy => PushError::Busy,
                error => PushError::Failed(error.to_string()),
            })?;
        waiting.push(Place { queued_ms, bytes });
        Ok(position)
    }

    pub async fn durable(&self, position: Position) -> Result<(), PushError> {
        self.log.stable(position).await.map_err(|poisoned| PushError::Failed(poisoned.to_string()))
    }

    /// Waits for a reason to try again what was [`PushError::Busy`].
    pub async fn room(&self) {
        self.log.room().await;
    }

    /// The batch that has waited longest of a group; none, or none that is durable.
    pub async fn head(&self, group: GroupId) -> Result<Option<Head>, ReadError> {
        let Some(index) = self.groups.borrow().get(&group).and_then(Waiting::first) else { return Ok(None) };
        let found = self.log.read_entries(group, index, index, 1).await?;
        let head = found.into_iter().next().and_then(|found| {
            let payload = Bytes::from(found.payload);
            let queued_ms = entry::parse(&payload).ok()?.queued_ms;
            Some(Head { index, queued_ms, image: payload.slice(HEAD_BYTES..) })
        });
        Ok(head)
    }

    /// The batches of a group up to this one have left. `false`: they had before.
    pub fn leave(&self, group: GroupId, through: LogIndex) -> bool {
        let mut groups = self.groups.borrow_mut();
        let Some(waiting) = groups.get_mut(&group) else { return false };
        if through <= waiting.left {
            return false;
        }
        while waiting.first().is_some_and(|first| first <= through) {
            waiting.pop();
        }
        let record = Record::HardState { group, term: TERM, vote: None, committed: waiting.left };
        // In this order: what the log lets go must be known to have left. If it has no room for that now, a start may
        // deliver them once more, without effect.
        if self.log.append(record).is_ok() {
            self.log.release(group, waiting.left);
        }
        true
    }

    /// Lets go what was queued before this moment; of each group how many batches and bytes.
    pub fn purge(&self, before_ms: u64) -> Vec<(GroupId, u64, u64)> {
        let mut purged = Vec::new();
        for group in self.waiting_groups() {
            let (through, count, bytes) = {
                let groups = self.groups.borrow();
                let Some(waiting) = groups.get(&group) else { continue };
                let old = || waiting.places.iter().take_while(|place| place.queued_ms < before_ms);
                let (count, bytes) = (old().count() as u64, old().map(|place| place.bytes).sum::<u64>());
                (LogIndex(waiting.left.0 + count), count, bytes)
            };
            if count > 0 && self.leave(group, through) {
                purged.push((group, count, bytes));
            }
        }
        purged
    }

    pub fn is_waiting(&self, group: GroupId) -> bool {
        self.groups.borrow().get(&group).is_some_and(|waiting| !waiting.places.is_empty())
    }

    /// Groups of which something waits.
    pub fn waiting_groups(&self) -> Vec<GroupId> {
        let groups = self.groups.borrow();
        groups.iter().filter(|(_, waiting)| !waiting.places.is_empty()).map(|(group, _)| *group).collect()
    }

    /// What waits of each group.
    pub fn figures(&self) -> Vec<GroupFigures> {
        let groups = self.groups.borrow();
        let of_group = |(group, waiting): (&GroupId, &Waiting)| {
            let oldest = waiting.places.front()?;
            let (batches, bytes) = (waiting.places.len() as u64, waiting.bytes);
            Some(GroupFigures { group: *group, batches, bytes, oldest_ms: oldest.queued_ms })
        };
        groups.iter().filter_map(of_group).collect()
    }

    /// Tells how much waits.
    pub fn count(&self, figures: &HandoffFigures) {
        let all = self.figures();
        figures.waiting.set(0);
        figures.waiting_bytes.set(0);
        for group in all {
            add(&figures.waiting, group.batches);
            add(&figures.waiting_bytes, group.bytes);
        }
    }
}

impl Waiting {
    fn first(&self) -> Option<LogIndex> {
        (!self.places.is_empty()).then(|| self.left.next())
    }

    fn last(&self) -> LogIndex {
        LogIndex(self.left.0 + self.places.len() as u64)
    }

    fn push(&mut self, place: Place) {
        self.bytes += place.bytes;
        self.places.push_back(place);
    }

    fn pop(&mut self) {
        if let Some(place) = self.places.pop_front() {
            self.bytes -= place.bytes;
            self.left = self.left.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, rc::Rc};
    use tidemill_disk::sim::{Crash, Executor, Prng, SimDisk, block_on};

    const FOLDER: &str = "handoff/0";

    fn options(seed: u64) -> LogOptions {
        LogOptions {
            segment_bytes: 64 << 10,
            first_segment_bytes: 64 << 10,
            batch_bytes: 16 << 10,
            commands_reserve_bytes: 4 << 10,
            new_log_id: seed,
            ..LogOptions::default()
        }
    }

    fn open(disk: &SimDisk, bytes_max: u64) -> HandoffQueue<SimDisk> {
        block_on(7, HandoffQueue::open(disk.clone(), FOLDER, options(9), bytes_max)).unwrap()
    }

    fn image(number: u64) -> Vec<u8> {
        number.to_le_bytes().repeat(1 + number as usize % 300)
    }

    /// What a run did, for the one that follows a crash.
    #[derive(Default)]
    struct Truth {
        /// Durable, and not said to have left, by group: numbers of images.
        acked: BTreeMap<GroupId, Vec<u64>>,
        pushed: BTreeMap<GroupId, Vec<u64>>,
        left: BTreeMap<GroupId, usize>,
    }

    /// Batches come and leave until the power fails.
    async fn run(
        queue: Rc<HandoffQueue<SimDisk>>,
        truth: Rc<RefCell<Truth>>,
        seed: u64,
        steps: u64,
        next: Rc<Cell<u64>>,
    ) {
        let mut prng = Prng::new(seed);
        for _ in 0..steps {
            let group = GroupId(prng.below(3) as u32);
            if prng.one_in(3) {
                let Ok(head) = queue.head(group).await else { return };
                let Some(head) = head else { continue };
                let at = truth.borrow().left.get(&group).copied().unwrap_or(0);
                assert_eq!(head.image, image(truth.borrow().pushed[&group][at]), "in their order");
                assert!(queue.leave(group, head.index));
                *truth.borrow_mut().left.entry(group).or_default() += 1;
                continue;
            }
            let number = next.replace(next.get() + 1);
            let Ok(position) = queue.push(group, number, &image(number)) else { continue };
            truth.borrow_mut().pushed.entry(group).or_default().push(number);
            if queue.durable(position).await.is_err() {
                return;
            }
            truth.borrow_mut().acked.entry(group).or_default().push(number);
        }
        queue.close();
    }

    /// Whatever the power loss leaves: all that was acknowledged and has not left is there, in order, and nothing that
    /// was not pushed.
    #[test]
    fn a_power_loss_at_any_operation_loses_nothing_that_was_acknowledged() {
        let mut survived = 0;
        for seed in 0..150 {
            let mut prng = Prng::new(seed);
            let mut disk = SimDisk::new(seed);
            let truth = Rc::new(RefCell::new(Truth::default()));
            let next = Rc::new(Cell::new(1));
            for life in 0..3 {
                let opened = block_on(seed, HandoffQueue::open(disk.clone(), FOLDER, options(seed), u64::MAX));
                let queue = opened.unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
                {
                    let mut truth = truth.borrow_mut();
                    for group in (0..3).map(GroupId) {
                        let pushed = truth.pushed.get(&group).cloned().unwrap_or_default();
                        let left = truth.left.get(&group).copied().unwrap_or(0);
                        let acked = truth.acked.get(&group).cloned().unwrap_or_default();
                        let mut found = Vec::new();
                        while let Some(head) = block_on(seed, queue.head(group)).unwrap() {
                            found.push(head.queued_ms);
                            assert_eq!(head.image, image(head.queued_ms));
                            // Only looked at: what is left here is not known to have left by the next life.
                            let mut groups = queue.groups.borrow_mut();
                            groups.get_mut(&group).unwrap().pop();
                        }
                        let first = pushed.iter().position(|number| Some(number) == found.first());
                        let start = first.unwrap_or(pushed.len());
                        assert!(
                            start <= left || found.is_empty(),
                            "seed {seed}: something that has not left is missing"
                        );
                        assert_eq!(found, pushed[start..start + found.len()], "seed {seed}: out of order");
                        let must: Vec<u64> =
                            acked.iter().copied().filter(|number| !pushed[..left].contains(number)).collect();
                        assert!(must.iter().all(|number| found.contains(number)), "seed {seed}: {must:?} of {found:?}");
                        survived += must.len();
                        // From here on what was found is what there is.
                        truth.acked.insert(group, found.clone());
                        truth.pushed.insert(group, found);
                        truth.left.insert(group, 0);
                    }
                }
                let queue = Rc::new(open(&disk, u64::MAX));
                disk.crash_at(1 + prng.below(60));
                let executor = Executor::new(seed);
                let commits = queue.clone();
                let log = executor.spawn(async move {
                    let _ = commits.run().await;
                });
                let work = executor.spawn(run(queue.clone(), truth.clone(), prng.next_u64(), 40, next.clone()));
                let closing = queue.clone();
                executor.block_on(async move {
                    work.join().await;
                    closing.close();
                    log.join().await;
                });
                disk = disk.crash(Crash::ALL[prng.below(5) as usize], prng.next_u64());
            }
        }
        assert!(survived > 100, "{survived}");
    }

    #[test]
    fn a_full_queue_refuses_and_age_makes_room() {
        let disk = SimDisk::new(1);
        let queue = Rc::new(open(&disk, 1000));
        let executor = Executor::new(1);
        let commits = queue.clone();
        let log = executor.spawn(async move { commits.run().await.unwrap() });
        executor.block_on(async move {
            let group = GroupId(4);
            let mut last = None;
            for at in 0..4 {
                last = Some(queue.push(group, at, &[at as u8; 200]).unwrap());
            }
            let refused = queue.push(group, 9, &[0; 200]).unwrap_err();
            assert!(refused.to_string().contains("hinted-handoff.max-size"), "{refused}");
            queue.durable(last.unwrap()).await.unwrap();
            assert_eq!(queue.purge(2), [(group, 2, 2 * 209)]);
            assert_eq!(queue.purge(2), []);
            let head = queue.head(group).await.unwrap().unwrap();
            assert_eq!((head.index, head.queued_ms, &head.image[..]), (LogIndex(3), 2, &[2; 200][..]));
            queue.push(group, 9, &[0; 200]).unwrap();
            assert!(!queue.leave(group, LogIndex(2)), "they have left");
            let figures = queue.figures();
            assert_eq!((figures[0].batches, figures[0].bytes, figures[0].oldest_ms), (3, 3 * 209, 2));
            queue.close();
            log.join().await;
        });
    }
}
