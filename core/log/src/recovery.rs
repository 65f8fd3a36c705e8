//! The surviving records, in order, read a second time with bounded memory.

use crate::{
    Record, RecoveryError,
    decision::Finding,
    format::{
        commit::{COMMIT_HEADER_BYTES, CommitHeader, frames},
        frame,
    },
    groups::Discontinuity,
    log::Shared,
    segment::{Look, SegmentReader, path_in, segment_name},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    rc::Rc,
};
use tidemill_disk::Disk;
use tidemill_raft::{GroupId, LogIndex};

/// A torn commit at the end of the log that is not handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub file: String,
    pub offset: u64,
    /// As its header claims; at least a block.
    pub bytes: u64,
}

/// What one segment has to be read for.
pub(crate) struct ReadRange<F> {
    pub sequence: u64,
    pub file: Rc<F>,
    pub from: u64,
    pub until: u64,
}

/// What the survey leaves to be read.
pub(crate) struct Surviving<F> {
    pub ranges: VecDeque<ReadRange<F>>,
    /// Entries up to here are in files.
    pub released: BTreeMap<GroupId, LogIndex>,
    pub replaced: Replaced,
    pub cut: Option<Cut>,
}

/// Which entries later ones replaced. For each group the places at which its log was cut back, and to which index, both
/// growing: a cut hides every earlier cut that went less deep.
#[derive(Debug, Default)]
pub(crate) struct Replaced(BTreeMap<GroupId, Vec<(u64, LogIndex)>>);

impl Replaced {
    /// The `ordinal`-th record is an entry that replaces this index and all after it.
    pub fn note(&mut self, group: GroupId, ordinal: u64, index: LogIndex) {
        let cuts = self.0.entry(group).or_default();
        while cuts.last().is_some_and(|(_, deeper)| *deeper >= index) {
            cuts.pop();
        }
        cuts.push((ordinal, index));
    }

    pub fn contains(&self, group: GroupId, ordinal: u64, index: LogIndex) -> bool {
        let Some(cuts) = self.0.get(&group) else { return false };
        let later = cuts.partition_point(|(at, _)| *at <= ordinal);
        cuts.get(later).is_some_and(|(_, cut)| index >= *cut)
    }
}

/// Hands out what the log held when it was opened: every hard state, and every entry that is in no file and that no
/// later one replaced. Dropping it lets the log put segments aside.
pub struct Recovery<D: Disk> {
    shared: Rc<Shared<D>>,
    surviving: Surviving<D::File>,
    reader: Option<SegmentReader<D::File>>,
    commit: Option<OpenCommit>,
    ordinal: u64,
}

/// The commit whose frames are being handed out.
struct OpenCommit {
    offset: u64,
    commit_bytes: usize,
    frames_end: usize,
    at: usize,
}

impl<D: Disk> Recovery<D> {
    pub(crate) fn new(shared: Rc<Shared<D>>, surviving: Surviving<D::File>) -> Recovery<D> {
        Recovery { shared, surviving, reader: None, commit: None, ordinal: 0 }
    }

    /// What was cut off the end, with its place.
    pub fn cut(&self) -> Option<&Cut> {
        self.surviving.cut.as_ref()
    }

    /// The next record; `None` at the end. Memory: one window of 1 MiB, or one commit if that is larger.
    pub async fn next(&mut self) -> Result<Option<Record<'_>>, RecoveryError> {
        let Some((offset, at, commit_bytes)) = self.next_wanted().await? else { return Ok(None) };
        // Decoded a second time because a borrow cannot leave the loop that found it; the window holds the bytes.
        let sequence = self.surviving.ranges.front().map_or(0, |range| range.sequence);
        let place = Place { shared: &self.shared, sequence, offset };
        let reader = self.reader.as_mut().expect("the reader of the commit");
        let bytes = reader.bytes(offset, commit_bytes).await.map_err(|source| place.io(source))?;
        let record = bytes.get(at..).and_then(|bytes| frame::decode(bytes).ok());
        record.map(|(record, _)| Some(record)).ok_or_else(|| place.changed())
    }

    /// Place of the next record to hand out: offset of its commit, and where in that it begins and the commit ends.
    async fn next_wanted(&mut self) -> Result<Option<(u64, usize, usize)>, RecoveryError> {
        loop {
            let Some(commit) = &mut self.commit else {
                if !self.next_commit().await? {
                    return Ok(None);
                }
                continue;
            };
            if commit.at >= commit.frames_end {
                let end = commit.offset + commit.commit_bytes as u64;
                self.commit = None;
                if let Some(range) = self.surviving.ranges.front_mut() {
                    range.from = end;
                }
                continue;
            }
            let (offset, at, end) = (commit.offset, commit.at, commit.commit_bytes);
            let sequence = self.surviving.ranges.front().map_or(0, |range| range.sequence);
            let place = Place { shared: &self.shared, sequence, offset };
            let reader = self.reader.as_mut().expect("the reader of the commit");
            let bytes = reader.bytes(offset, end).await.map_err(|source| place.io(source))?;
            let (record, len) =
                frame::decode(bytes.get(at..commit.frames_end).unwrap_or_default()).map_err(|_| place.changed())?;
            let wanted = match record {
                Record::Entry { group, index, .. } => {
                    let released = self.surviving.released.get(&group).copied().unwrap_or_default();
                    index > released && !self.surviving.replaced.contains(group, self.ordinal, index)
                }
                Record::HardState { group, .. } => {
                    self.surviving.released.get(&group).copied().unwrap_or_default() < LogIndex(u64::MAX)
                }
            };
            commit.at += len;
            self.ordinal += 1;
            if wanted {
                return Ok(Some((offset, at, end)));
            }
        }
    }

    /// Opens the next commit. `false`: there is none.
    async fn next_commit(&mut self) -> Result<bool, RecoveryError> {
        loop {
            let Some(range) = self.surviving.ranges.front() else { return Ok(false) };
            if range.from >= range.until {
                self.surviving.ranges.pop_front();
                self.reader = None;
                continue;
            }
            let (offset, sequence) = (range.from, range.sequence);
            let place = Place { shared: &self.shared, sequence, offset };
            let reader = self.reader.get_or_insert_with(|| SegmentReader::new(range.file.clone(), range.until));
            let look = reader.look(offset, self.shared.log_id, sequence).await;
            match look.map_err(|source| place.io(source))? {
                Look::Commit(header, _) => {
                    let at = COMMIT_HEADER_BYTES;
                    let commit_bytes = header.commit_bytes();
                    let frames_end = at + header.frames_bytes as usize;
                    self.commit = Some(OpenCommit { offset, commit_bytes, frames_end, at });
                    return Ok(true);
                }
                Look::Nothing | Look::Broken(_) => return Err(place.changed()),
            }
        }
    }
}

/// Names the commit in errors.
struct Place<'a, D: Disk> {
    shared: &'a Shared<D>,
    sequence: u64,
    offset: u64,
}

impl<D: Disk> Place<'_, D> {
    fn file(&self) -> String {
        path_in(&self.shared.folder, &segment_name(self.sequence))
    }

    fn io(&self, source: io::Error) -> RecoveryError {
        RecoveryError::Io { file: self.file(), offset: self.offset, source }
    }

    fn changed(&self) -> RecoveryError {
        RecoveryError::Changed { file: self.file(), offset: self.offset }
    }
}

impl<D: Disk> Drop for Recovery<D> {
    fn drop(&mut self) {
        self.shared.recovering.set(false);
        self.shared.chores.notify();
    }
}

/// Goes through the records of a verified commit.
pub(crate) fn each_record<'a>(
    header: &CommitHeader,
    commit: &'a [u8],
    mut each: impl FnMut(Record<'a>) -> Result<(), Discontinuity>,
) -> Result<(), Discontinuity> {
    let mut rest = frames(header, commit);
    for _ in 0..header.frames {
        let (record, len) = frame::decode(rest)
            .map_err(|error| Discontinuity { finding: Finding::BadFrame, detail: error.to_string() })?;
        each(record)?;
        rest = rest.get(len..).unwrap_or_default();
    }
    if rest.is_empty() {
        return Ok(());
    }
    let detail = format!("{} bytes behind the last frame", rest.len());
    Err(Discontinuity { finding: Finding::BadFrame, detail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the plain way: keep a vector per group and truncate it.
        #[test]
        fn replaced_entries_are_those_that_truncation_takes(cuts in prop::collection::vec(0u64..6, 1..60)) {
            let group = GroupId(1);
            let mut replaced = Replaced::default();
            let mut log: Vec<u64> = Vec::new();
            let mut written = Vec::new();
            for (ordinal, back) in cuts.into_iter().enumerate() {
                let length = (log.len() as u64).saturating_sub(back.saturating_sub(3));
                if length < log.len() as u64 {
                    replaced.note(group, ordinal as u64, LogIndex(length + 1));
                }
                log.truncate(length as usize);
                log.push(ordinal as u64);
                written.push((ordinal as u64, length + 1));
            }
            for (ordinal, index) in written {
                let survives = log.contains(&ordinal);
                prop_assert_eq!(replaced.contains(group, ordinal, LogIndex(index)), !survives);
            }
        }
    }
}
