//! Reading entries back for a member that lags behind.
//!
//! Owns: where the entries of a group stand, as one place for each stretch of them; and the reading of a range.
//! Invariants: places grow in index and in position; a stretch holds no entry that a later record replaced, because a
//! replacement takes away all places from its index on and begins a new stretch. Between the place and the end of its
//! stretch, the first frame of an index is the entry.
//! Only what is durable can be read: the rest is in the memory of whoever appended it.

use crate::{
    Log, Record,
    format::{commit::COMMIT_HEADER_BYTES, frame},
    segment::{Look, SegmentReader, path_in, segment_name},
};
use std::{collections::VecDeque, io, rc::Rc};
use tidemill_disk::Disk;
use tidemill_raft::{GroupId, LogIndex, Term};

/// Bytes of a segment that may lie between two places of one group: what a read skips at most, for sixteen bytes of
/// memory for each group and stretch.
const STRETCH_BYTES: u64 = 256 << 10;

/// Where a stretch of entries begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub first: LogIndex,
    pub at: FramePlace,
}

/// Where a frame stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FramePlace {
    pub sequence: u64,
    /// Of its commit.
    pub offset: u64,
    /// Its number in the commit: those before it may hold entries that this one replaced.
    pub frame: u32,
}

/// The places of a group, upwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(VecDeque<Place>);

impl Places {
    /// An entry stands at this place.
    pub fn note(&mut self, index: LogIndex, replaces: bool, at: FramePlace) {
        if replaces {
            self.cut_from(index);
        }
        let near = |last: &Place| last.at.sequence == at.sequence && at.offset - last.at.offset < STRETCH_BYTES;
        if replaces || !self.0.back().is_some_and(near) {
            self.0.push_back(Place { first: index, at });
        }
    }

    pub fn cut_from(&mut self, index: LogIndex) {
        while self.0.back().is_some_and(|place| place.first >= index) {
            self.0.pop_back();
        }
    }

    /// Entries up to `through` are not asked for any more.
    pub fn release(&mut self, through: LogIndex) {
        while self.0.get(1).is_some_and(|place| place.first.0 <= through.0.saturating_add(1)) {
            self.0.pop_front();
        }
    }

    /// The place of the stretch that holds `index`, and the first index of the next one.
    fn find(&self, index: LogIndex) -> Option<(Place, LogIndex)> {
        let behind = self.0.partition_point(|place| place.first <= index);
        let place = self.0.get(behind.checked_sub(1)?)?;
        let until = self.0.get(behind).map_or(LogIndex(u64::MAX), |next| next.first);
        Some((*place, until))
    }
}

/// An entry as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadEntry {
    pub term: Term,
    pub index: LogIndex,
    pub payload: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("reading {file} at offset {offset}: {source}")]
    Io { file: String, offset: u64, source: io::Error },
    #[error("{file} at offset {offset} does not hold the commit that was written there")]
    Damaged { file: String, offset: u64 },
}

impl<D: Disk> Log<D> {
    /// Entries of the group from `first` to `last`, without a gap; at most `bytes_max` bytes of payload, but at least
    /// one entry if `first` is there. Shorter, or empty, where entries are not durable yet or not in the log any more.
    ///
    /// Memory: the result, and one window of 1 MiB.
    pub async fn read_entries(
        &self,
        group: GroupId,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<ReadEntry>, ReadError> {
        let mut entries: Vec<ReadEntry> = Vec::new();
        let mut bytes = 0;
        let mut next = first;
        while next <= last && (entries.is_empty() || bytes < bytes_max) {
            let found = {
                let state = self.shared.state.borrow();
                state.groups.get(&group).filter(|known| next > known.released).and_then(|known| known.places.find(next))
            };
            let Some((place, until)) = found else { break };
            let last = last.min(until.before());
            let before = entries.len();
            self.read_stretch(group, place, (next, last), bytes_max, &mut entries, &mut bytes).await?;
            if entries.len() == before {
                break;
            }
            next = entries.last().map_or(next, |entry| entry.index.next());
        }
        Ok(entries)
    }

    async fn read_stretch(
        &self,
        group: GroupId,
        place: Place,
        (mut next, last): (LogIndex, LogIndex),
        bytes_max: usize,
        entries: &mut Vec<ReadEntry>,
        bytes: &mut usize,
    ) -> Result<(), ReadError> {
        let FramePlace { mut sequence, mut offset, frame: mut skip } = place.at;
        while let Some((file, segment_bytes)) = self.durable_segment(sequence) {
            let name = || path_in(&self.shared.folder, &segment_name(sequence));
            let mut reader = SegmentReader::new(file, segment_bytes);
            loop {
                let io = |source| ReadError::Io { file: name(), offset, source };
                let header = match reader.look(offset, self.shared.log_id, sequence).await.map_err(io)? {
                    Look::Commit(header, _) => header,
                    // The end of what was written; the newest commit may be on its way just now.
                    Look::Nothing => return Ok(()),
                    Look::Broken(_) if self.is_durable(sequence, offset) => {
                        return Err(ReadError::Damaged { file: name(), offset });
                    }
                    Look::Broken(_) => return Ok(()),
                };
                let commit = reader.bytes(offset, header.commit_bytes()).await.map_err(io)?;
                let frames_end = COMMIT_HEADER_BYTES + header.frames_bytes as usize;
                let mut at = COMMIT_HEADER_BYTES;
                while let Some(frames) = commit.get(at..frames_end).filter(|frames| !frames.is_empty()) {
                    let damaged = || ReadError::Damaged { file: name(), offset };
                    let (record, length) = frame::decode(frames).map_err(|_| damaged())?;
                    at += length;
                    if skip > 0 {
                        skip -= 1;
                        continue;
                    }
                    let Record::Entry { group: of, term, index, payload } = record else { continue };
                    if of != group || index != next {
                        continue;
                    }
                    if !entries.is_empty() && *bytes + payload.len() > bytes_max {
                        *bytes = bytes_max;
                        return Ok(());
                    }
                    *bytes += payload.len();
                    entries.push(ReadEntry { term, index, payload: payload.to_vec() });
                    if next == last {
                        return Ok(());
                    }
                    next = next.next();
                }
                skip = 0;
                offset += header.commit_bytes() as u64;
                if header.sealed {
                    break;
                }
            }
            (sequence, offset) = (sequence + 1, crate::segment::FIRST_COMMIT);
        }
        Ok(())
    }

    /// A segment that commits may be read from. The file stays open while it is being read, whatever becomes of its name.
    fn durable_segment(&self, sequence: u64) -> Option<(Rc<D::File>, u64)> {
        let state = self.shared.state.borrow();
        let segment = state.live.iter().find(|segment| segment.sequence == sequence)?;
        (sequence <= state.durable_sequence).then(|| (segment.file.clone(), segment.bytes))
    }

    /// Whether a commit at this place has been synced: before that, a torn one is no damage.
    fn is_durable(&self, sequence: u64, offset: u64) -> bool {
        let state = self.shared.state.borrow();
        // A segment that was put aside meanwhile may have become another one.
        let live = state.live.iter().any(|segment| segment.sequence == sequence);
        live && (sequence, offset) < (state.durable_sequence, state.durable_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_begins_a_new_stretch() {
        let mut places = Places::default();
        let step = STRETCH_BYTES;
        let at = |offset| FramePlace { sequence: 7, offset, frame: 0 };
        for (index, offset) in [(1, 0), (2, 10), (3, step), (4, step + 1), (5, 2 * step)] {
            places.note(LogIndex(index), false, at(offset));
        }
        let first =
            |places: &Places, index| places.find(LogIndex(index)).map(|(place, until)| (place.first.0, until.0));
        assert_eq!(first(&places, 2), Some((1, 3)));
        assert_eq!(first(&places, 4), Some((3, 5)));
        places.note(LogIndex(4), true, at(2 * step + 1));
        assert_eq!(first(&places, 3), Some((3, 4)));
        assert_eq!(first(&places, 9), Some((4, u64::MAX)));
        places.release(LogIndex(3));
        assert_eq!(first(&places, 3), None);
        assert_eq!(first(&places, 4), Some((4, u64::MAX)));
    }
}
