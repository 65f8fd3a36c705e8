//! Where a record goes: the plan of batches, segments and trims. Nothing here waits.

use crate::{
    AppendError, Position, Record,
    batch::Batch,
    format::{
        commit::COMMIT_HEADER_BYTES,
        frame::{FRAME_HEADER_BYTES, FrameHead, HARD_STATE_FRAME_BYTES},
    },
    groups::{Group, HardStateAt},
    log::{Shared, State},
    range::FramePlace,
    segment::FIRST_COMMIT,
};
use std::collections::VecDeque;
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile};
use tidemill_raft::{GroupId, LogIndex};

/// Buffers kept for the next batches: one being filled, one being written, one to spare.
const BUFFERS_MAX: usize = 3;

/// What waits for the committer.
pub(crate) struct Pending<F: DiskFile> {
    /// In the order of their numbers; the last one takes more frames until it is taken or sealed.
    pub batches: VecDeque<Batch<F>>,
    /// Bytes of frames in `batches` and in the commit in flight.
    pub bytes: usize,
    /// Where the next batch begins while none waits in the segment being filled.
    offset: u64,
    pub next_number: u64,
    buffers: Vec<F::Buf>,
}

/// Which part of the segment a batch may use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// All but what is kept for commands, for a trim and for the seal.
    Frames,
    /// All but what is kept for a trim and for the seal.
    Commands,
    /// All but the seal.
    Trim,
    /// All.
    Seal,
}

impl<F: DiskFile> Pending<F> {
    pub fn new(offset: u64, next_number: u64) -> Pending<F> {
        Pending { batches: VecDeque::new(), bytes: 0, offset, next_number, buffers: Vec::new() }
    }

    /// The batch whose turn it is. What is appended from now on goes behind it.
    pub fn take(&mut self, filling: u64) -> Option<Batch<F>> {
        let batch = self.batches.pop_front()?;
        if batch.sequence == filling && self.batches.is_empty() {
            self.offset = batch.end();
        }
        Some(batch)
    }

    /// Where the next batch of the segment being filled begins.
    fn next_offset(&self, filling: u64) -> u64 {
        self.batches.back().filter(|batch| batch.sequence == filling).map_or(self.offset, Batch::end)
    }

    pub fn give_back(&mut self, buf: F::Buf, batch_bytes: usize) {
        if self.buffers.len() < BUFFERS_MAX && buf.as_ref().len() == batch_bytes {
            self.buffers.push(buf);
        }
    }

    fn buffer(&mut self, file: &F, bytes: usize) -> F::Buf {
        match self.buffers.pop() {
            Some(buf) if buf.as_ref().len() >= bytes => buf,
            Some(buf) => {
                self.buffers.push(buf);
                file.alloc(bytes)
            }
            None => file.alloc(bytes),
        }
    }
}

impl<D: Disk> Shared<D> {
    /// See [`crate::Log::append`]; the payload is given as parts. `limit` is what the record may use of a segment behind
    /// which there is no other.
    pub fn append(&self, record: Record<'_>, parts: &[&[u8]], limit: Limit) -> Result<Position, AppendError> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if let Some(poison) = &state.poison {
            return Err(poison.clone().into());
        }
        if state.closed {
            return Err(AppendError::Closed);
        }
        let vote = match record {
            Record::HardState { vote: Some(vote), .. } => Some(vote.to_le_bytes()),
            _ => None,
        };
        let (head, voted);
        let parts = match record {
            Record::Entry { group, term, index, .. } => {
                head = FrameHead::entry(group, term, index);
                parts
            }
            Record::HardState { group, term, committed, .. } => {
                head = FrameHead::hard_state(group, term, committed);
                voted = vote.as_ref().map(|vote| vote.as_slice());
                voted.as_slice()
            }
        };
        let bytes = FRAME_HEADER_BYTES + parts.iter().map(|part| part.len()).sum::<usize>();
        let bytes_max = self.options.frame_bytes_max();
        if bytes > bytes_max {
            return Err(AppendError::TooLarge { bytes, bytes_max });
        }
        if state.pending.bytes + bytes > self.options.pending_bytes_max {
            state.metrics.appends_busy += 1;
            return Err(AppendError::Busy);
        }
        self.check(state, &record);
        let has_room = self.open_batch(state, bytes, Limit::Frames)
            || self.roll(state, bytes)
            || limit == Limit::Commands && self.open_batch(state, bytes, Limit::Commands);
        if !has_room {
            return Err(self.refuse(state));
        }
        self.put(state, &record, head, parts, bytes);
        self.work.notify();
        let number = state.pending.batches.back().expect("the batch that took the frame").number;
        Ok(Position(number))
    }

    /// # Panics
    /// If raft would never write this record next.
    fn check(&self, state: &State<D>, record: &Record<'_>) {
        let group = state.groups.get(&record.group());
        let checked = group.map_or_else(|| Group::default().check(record), |group| group.check(record));
        if let Err(wrong) = checked {
            panic!("append: {}: {}", wrong.finding, wrong.detail);
        }
        let new_holder = matches!(record, Record::HardState { .. }) && group.is_none_or(|g| g.hard_state.is_none());
        if new_holder {
            let holders = state.groups.values().filter(|group| group.hard_state.is_some()).count();
            assert!(holders < self.options.groups_max, "more than {} groups", self.options.groups_max);
        }
    }

    /// No segment can be had now. Says why, and has one made if that may work.
    fn refuse(&self, state: &mut State<D>) -> AppendError {
        self.chores.notify();
        if let Some(left) = &mut state.full {
            *left = left.saturating_sub(1);
            state.metrics.appends_full += 1;
            return AppendError::Full;
        }
        if state.live.len() + state.ready.len() >= self.options.segments_max {
            state.metrics.appends_full += 1;
            return AppendError::Full;
        }
        state.metrics.appends_busy += 1;
        AppendError::Busy
    }

    /// Copies the frame into the open batch, which has room for it.
    fn put(&self, state: &mut State<D>, record: &Record<'_>, head: FrameHead, parts: &[&[u8]], bytes: usize) {
        let batch = state.pending.batches.back_mut().expect("a batch with room is open");
        batch.push(head, parts, bytes);
        let at = FramePlace { sequence: batch.sequence, offset: batch.offset, frame: batch.frames - 1 };
        state.pending.bytes += bytes;
        let replaces = state.groups.entry(record.group()).or_default().note(record, at);
        if let Record::Entry { group, index, .. } = *record {
            if replaces {
                // The commit with the newer entry is behind those with the replaced ones: when it is durable, they are
                // dead, and no segment goes before it is.
                state.live.iter_mut().for_each(|segment| segment.held.replaced_from(group, index));
            }
            state.live.back_mut().expect("a segment is being filled").held.note(group, index);
        }
    }

    /// Makes sure that the last batch takes `bytes` more within its segment. `false`: the segment has no room.
    pub fn open_batch(&self, state: &mut State<D>, bytes: usize, limit: Limit) -> bool {
        let segment = state.live.back().expect("a segment is being filled");
        let last = state.pending.batches.back();
        if last.is_some_and(|batch| batch.sequence == segment.sequence && batch.fits(bytes)) {
            return true;
        }
        let offset = state.pending.next_offset(segment.sequence);
        let kept = match limit {
            Limit::Frames => {
                self.options.commands_reserve_bytes() + self.options.trim_reserve_bytes() + BLOCK_BYTES as u64
            }
            Limit::Commands => self.options.trim_reserve_bytes() + BLOCK_BYTES as u64,
            Limit::Trim => BLOCK_BYTES as u64,
            Limit::Seal => 0,
        };
        let room = segment.bytes.saturating_sub(kept).saturating_sub(offset) as usize;
        let needed = (COMMIT_HEADER_BYTES + bytes).next_multiple_of(BLOCK_BYTES);
        if needed > room {
            return false;
        }
        let buf_bytes = if limit == Limit::Frames { needed.max(self.options.batch_bytes) } else { needed };
        let file = segment.file.clone();
        let buf = state.pending.buffer(&file, buf_bytes);
        let room = room.min(buf.as_ref().len());
        let batch = Batch {
            file,
            sequence: segment.sequence,
            offset,
            number: state.pending.next_number,
            oldest: state.oldest,
            sealed: limit == Limit::Seal,
            buf,
            // What is in a reserve leaves the rest of the reserve alone.
            room: if limit == Limit::Frames { room } else { needed },
            used: COMMIT_HEADER_BYTES,
            frames: 0,
        };
        state.pending.next_number += 1;
        state.pending.batches.push_back(batch);
        true
    }

    /// Seals the segment being filled and opens a batch in the prepared one. `false`: none is prepared that has the room.
    /// One of those a new log begins with may be too short for a large frame: it is left empty then, and the one behind it
    /// is longer.
    pub fn roll(&self, state: &mut State<D>, bytes: usize) -> bool {
        while let Some(next) = state.ready.pop_front() {
            // The block of the seal is never given to anything else; a batch that still waits takes the seal along.
            assert!(self.open_batch(state, 0, Limit::Seal), "a segment keeps a block for its seal");
            state.pending.batches.back_mut().expect("a batch is open").sealed = true;
            let is_full_size = next.bytes >= self.options.segment_bytes;
            state.live.push_back(next);
            state.pending.offset = FIRST_COMMIT;
            self.chores.notify();
            self.work.notify();
            if self.open_batch(state, bytes, Limit::Frames) {
                return true;
            }
            assert!(!is_full_size, "an empty segment of full size holds the largest frame");
        }
        false
    }

    /// Gives up the oldest segments of which nothing is needed any more. In this order: (1) hard states that stand in
    /// them are written again, (2) the same commit says from where on segments are needed, (3) once it is durable, the
    /// files are put aside. A crash before (3) leaves too much, never too little.
    pub fn try_trim(&self, state: &mut State<D>) {
        if state.poison.is_some() || state.stopped {
            return;
        }
        let needed_from = state
            .live
            .iter()
            // What has batches in flight, or is being filled, stays.
            .find(|segment| {
                segment.sequence >= state.durable_sequence || segment.held.pinned(&state.groups).next().is_some()
            })
            .map_or(state.oldest, |segment| segment.sequence);
        if needed_from <= state.oldest {
            return;
        }
        let carried: Vec<GroupId> = state
            .groups
            .iter()
            .filter(|(_, group)| {
                // A group that does not concern the caller needs nothing kept.
                let concerns = group.released < LogIndex(u64::MAX);
                concerns && group.hard_state.is_some_and(|held| held.sequence < needed_from)
            })
            .map(|(group, _)| *group)
            .collect();
        let bytes = carried.len() * HARD_STATE_FRAME_BYTES;
        let room = self.open_batch(state, bytes, Limit::Frames)
            || self.roll(state, bytes)
            || self.open_batch(state, bytes, Limit::Trim);
        if !room {
            // Tried again when a segment is prepared; the reserve was used by a trim whose segments make that possible.
            return;
        }
        for group in carried {
            let held = state.groups[&group].hard_state.expect("chosen for having one");
            let HardStateAt { term, vote, committed, .. } = held;
            let record = Record::HardState { group, term, vote, committed };
            let vote = vote.map(u64::to_le_bytes);
            let parts = vote.as_ref().map(|vote| vote.as_slice());
            let bytes = FRAME_HEADER_BYTES + parts.map_or(0, <[u8]>::len);
            self.put(state, &record, FrameHead::hard_state(group, term, committed), parts.as_slice(), bytes);
        }
        state.oldest = needed_from;
        state.pending.batches.back_mut().expect("the batch of the trim").oldest = needed_from;
        self.work.notify();
    }
}
