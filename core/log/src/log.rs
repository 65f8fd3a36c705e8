//! The handle.

use crate::{
    AppendError, LogMetrics, LogOptions, OpenError, Poisoned, Record, Recovery,
    append::{Limit, Pending},
    groups::Groups,
    segment::Segment,
    survey::{Survey, survey},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    rc::Rc,
};
use tidemill_disk::{Disk, Notify, Watermark};
use tidemill_raft::{GroupId, LogIndex, Term};

/// The commit that holds an appended record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub(crate) u64);

/// The log of one core. Clones share it.
pub struct Log<D: Disk> {
    pub(crate) shared: Rc<Shared<D>>,
}

impl<D: Disk> Clone for Log<D> {
    fn clone(&self) -> Log<D> {
        Log { shared: self.shared.clone() }
    }
}

pub(crate) struct Shared<D: Disk> {
    pub disk: D,
    pub folder: String,
    pub options: LogOptions,
    pub log_id: u64,
    pub state: RefCell<State<D>>,
    /// Number of the newest durable commit.
    pub durable: Watermark,
    /// There may be something to commit, or the log is closing.
    pub work: Notify,
    /// There may be a segment to prepare or to put aside.
    pub chores: Notify,
    /// An append that was refused may find room.
    pub room: Notify,
    /// Recovery still reads segments: none is put aside for reuse.
    pub recovering: Cell<bool>,
}

pub(crate) struct State<D: Disk> {
    /// Oldest first; the last is the one that batches are planned into.
    pub live: VecDeque<Segment<D::File>>,
    /// Prepared, in order behind the last of `live`.
    pub ready: VecDeque<Segment<D::File>>,
    /// No longer needed as a durable commit says; still under their names.
    pub retired: VecDeque<Segment<D::File>>,
    /// Names of files that can become segments.
    pub spares: Vec<String>,
    pub pending: Pending<D::File>,
    pub groups: Groups,
    /// What new batches say about the oldest segment needed; their frames make it true.
    pub oldest: u64,
    /// Segment of the newest durable commit.
    pub durable_sequence: u64,
    /// Where that commit ends.
    pub durable_end: u64,
    pub previous_crc: u32,
    /// The newest commit has frames and nothing valid behind it.
    pub unsettled: bool,
    pub settle_wanted: bool,
    pub closed: bool,
    /// The committer has ended.
    pub stopped: bool,
    pub poison: Option<Poisoned>,
    /// The last making of a segment found no space; retried after this many more refused appends.
    pub full: Option<u32>,
    pub retry_after: u32,
    pub metrics: LogMetrics,
}

impl<D: Disk> Log<D> {
    /// Opens the log in `folder`, or makes one.
    ///
    /// `from` tells for each group up to which index its entries are in files; those are not handed out again, and the
    /// entries behind them must all be there. `LogIndex(u64::MAX)` stands for a group that does not concern the caller.
    /// The log can be used while [`Recovery`] is read, but puts no segment aside before that is dropped.
    pub async fn open(
        disk: D,
        folder: &str,
        options: LogOptions,
        from: impl Fn(GroupId) -> LogIndex,
    ) -> Result<(Log<D>, Recovery<D>), OpenError> {
        options.check()?;
        let Survey { log_id, state, read, tail_number } = survey(&disk, folder, &options, &from).await?;
        let shared = Rc::new(Shared {
            disk,
            folder: folder.to_owned(),
            options,
            log_id,
            state: RefCell::new(state),
            durable: Watermark::new(tail_number),
            work: Notify::new(),
            chores: Notify::new(),
            room: Notify::new(),
            recovering: Cell::new(true),
        });
        let recovery = Recovery::new(shared.clone(), read);
        let log = Log { shared };
        log.shared.try_trim(&mut log.shared.state.borrow_mut());
        Ok((log, recovery))
    }

    /// Copies the record into the commit being filled. Durable once [`Log::stable`] of the position returns.
    ///
    /// # Panics
    /// If an entry leaves a gap in its group's index or a term goes back.
    pub fn append(&self, record: Record<'_>) -> Result<Position, AppendError> {
        match record {
            Record::Entry { group, term, index, payload } => self.append_entry(group, term, index, &[payload]),
            Record::HardState { .. } => self.shared.append(record, &[], Limit::Commands),
        }
    }

    /// As [`Log::append`] of an entry whose payload is these parts one behind the other.
    ///
    /// # Panics
    /// As [`Log::append`].
    pub fn append_entry(
        &self,
        group: GroupId,
        term: Term,
        index: LogIndex,
        parts: &[&[u8]],
    ) -> Result<Position, AppendError> {
        self.shared.append(Record::Entry { group, term, index, payload: &[] }, parts, Limit::Frames)
    }

    /// As [`Log::append_entry`] of an entry that is small and may be what makes room (a flush): while no other segment is
    /// to be had it may use what is kept for such at the end of the last one.
    ///
    /// # Panics
    /// As [`Log::append`].
    pub fn append_command(
        &self,
        group: GroupId,
        term: Term,
        index: LogIndex,
        parts: &[&[u8]],
    ) -> Result<Position, AppendError> {
        self.shared.append(Record::Entry { group, term, index, payload: &[] }, parts, Limit::Commands)
    }

    /// Waits until the record at `position`, and all before it, are durable. [`Log::run`] must be running.
    pub async fn stable(&self, position: Position) -> Result<(), Poisoned> {
        if self.shared.durable.reached(position.0).await {
            return Ok(());
        }
        let poison = self.shared.state.borrow().poison.clone();
        Err(poison.unwrap_or_else(|| Poisoned::new("waiting for a commit", &io::Error::other("the log has ended"))))
    }

    /// The newest position that is durable.
    pub fn durable(&self) -> Position {
        Position(self.shared.durable.value())
    }

    /// Waits for a reason to try an append again that was `Busy`. May return early.
    pub async fn room(&self) {
        let again = self.shared.room.notified();
        let stopped = {
            let state = self.shared.state.borrow();
            state.poison.is_some() || state.closed
        };
        if !stopped {
            again.await;
        }
    }

    /// Commits, and prepares segments beside that, until the log is closed and all is durable, or poisoned. To be run
    /// once.
    pub async fn run(&self) -> Result<(), Poisoned> {
        let commits = async {
            let end = self.shared.commit_all().await;
            self.shared.state.borrow_mut().stopped = true;
            self.shared.chores.notify();
            end
        };
        let (committed, prepared) = futures_lite::future::zip(commits, self.shared.do_chores()).await;
        committed.and(prepared)
    }

    /// Entries of the group up to `through` are in files. Segments whose entries are all released are used again.
    /// Nothing is written about it but which segments are needed.
    pub fn release(&self, group: GroupId, through: LogIndex) {
        let mut state = self.shared.state.borrow_mut();
        let known = state.groups.entry(group).or_default();
        known.released = known.released.max(through);
        known.places.release(known.released);
        self.shared.try_trim(&mut state);
    }

    /// Groups that keep the oldest segment from being used again, and the index through which to release each.
    /// Empty while those that are full are together shorter than one segment of full size: to release for the sake of the
    /// short ones of a new log would mean many small files. Not so when there is no room for another segment.
    pub fn oldest_pinned(&self) -> Vec<(GroupId, LogIndex)> {
        let state = self.shared.state.borrow();
        let needed = state.live.iter().position(|segment| segment.sequence >= state.oldest).unwrap_or(0);
        let full_ones = needed..state.live.len().saturating_sub(1);
        if full_ones.is_empty() {
            return Vec::new();
        }
        let full_bytes: u64 = state.live.range(full_ones).map(|segment| segment.bytes).sum();
        let has_room = state.full.is_none() && state.live.len() + state.ready.len() < self.shared.options.segments_max;
        if has_room && full_bytes < self.shared.options.segment_bytes {
            return Vec::new();
        }
        state.live[needed].held.pinned(&state.groups).collect()
    }

    /// Puts an empty commit behind the newest one if nothing else does, so that damage to it can be told from a torn
    /// write (see the crate's documentation). For an idle log; cheap when there is nothing to do.
    pub fn settle(&self) {
        self.shared.state.borrow_mut().settle_wanted = true;
        self.shared.work.notify();
    }

    /// No appends any more; [`Log::run`] ends once all is durable.
    pub fn close(&self) {
        self.shared.state.borrow_mut().closed = true;
        self.shared.work.notify();
        self.shared.room.notify();
    }

    /// The first error, if there was one.
    pub fn poisoned(&self) -> Option<Poisoned> {
        self.shared.state.borrow().poison.clone()
    }

    pub fn metrics(&self) -> LogMetrics {
        let state = self.shared.state.borrow();
        LogMetrics {
            pending_bytes: state.pending.bytes as u64,
            segments_live: state.live.len() as u64,
            segments_spare: (state.ready.len() + state.spares.len() + state.retired.len()) as u64,
            ..state.metrics
        }
    }
}

impl<D: Disk> Shared<D> {
    /// Keeps the first error and wakes everybody.
    pub fn poison(&self, doing: &str, error: &io::Error) -> Poisoned {
        let poison = {
            let mut state = self.state.borrow_mut();
            state.poison.get_or_insert_with(|| Poisoned::new(doing, error)).clone()
        };
        self.durable.close();
        self.work.notify();
        self.chores.notify();
        self.room.notify();
        poison
    }

    /// Whether a segment may be made now that the last attempt found no space.
    pub fn may_make(state: &State<D>) -> bool {
        state.full.is_none_or(|left| left == 0)
    }
}
