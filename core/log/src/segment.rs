//! One segment file: its name, its making, and reading it in windows of bounded size.

use crate::{
    format::{
        commit::{Claim, CommitHeader, claim, verify},
        segment_header::SegmentHeader,
    },
    groups::Held,
};
use std::{io, rc::Rc};
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};

/// What one read of recovery takes, and one write of zeros: long enough for the full speed of the device, short enough
/// that commits and queries get their turn.
pub(crate) const WINDOW_BYTES: usize = 1 << 20;
const ZEROS_BYTES: usize = 256 << 10;

/// Where the first commit stands.
pub(crate) const FIRST_COMMIT: u64 = BLOCK_BYTES as u64;

pub(crate) struct Segment<F> {
    pub sequence: u64,
    /// Its whole length, as its header says.
    pub bytes: u64,
    pub file: Rc<F>,
    pub held: Held,
}

/// What a file name of the folder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Segment(u64),
    Spare,
    Unfinished,
    Unknown,
}

pub(crate) fn segment_name(sequence: u64) -> String {
    format!("{sequence:016x}.log")
}

pub(crate) fn spare_name(sequence: u64) -> String {
    format!("{sequence:016x}.spare")
}

pub(crate) fn unfinished_name(sequence: u64) -> String {
    format!("{sequence:016x}.new")
}

pub(crate) fn parse_name(name: &str) -> Named {
    let Some((stem, extension)) = name.split_once('.') else { return Named::Unknown };
    let lower = stem.len() == 16 && stem.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let Some(sequence) = lower.then(|| u64::from_str_radix(stem, 16).ok()).flatten() else { return Named::Unknown };
    match extension {
        "log" => Named::Segment(sequence),
        "spare" => Named::Spare,
        "new" => Named::Unfinished,
        _ => Named::Unknown,
    }
}

pub(crate) fn path_in(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Makes a segment of zeros with its header. In this order, because a name must never stand for less than a whole
/// segment: (1) all bytes are written and synced under an unfinished name, (2) the file gets its name, (3) the folder
/// is synced. Before (3) nothing may be committed into it.
pub(crate) async fn make<D: Disk>(disk: &D, folder: &str, header: SegmentHeader) -> io::Result<D::File> {
    let unfinished = path_in(folder, &unfinished_name(header.sequence));
    let file = disk.create(&unfinished, Purpose::Log).await?;
    let mut offset = 0;
    let mut buf = Some(file.alloc(ZEROS_BYTES.min(header.segment_bytes as usize)));
    while let Some(mut zeros) = buf.take() {
        zeros.as_mut().fill(0);
        if offset == 0 {
            header.encode(&mut zeros.as_mut()[..BLOCK_BYTES]);
        }
        let len = zeros.as_ref().len().min((header.segment_bytes - offset) as usize);
        let zeros = file.write_prefix_at(zeros, len, offset).await?;
        offset += len as u64;
        if offset < header.segment_bytes {
            buf = Some(zeros);
        }
    }
    file.sync_data().await?;
    disk.rename(&unfinished, &path_in(folder, &segment_name(header.sequence))).await?;
    disk.sync_dir(folder).await?;
    Ok(file)
}

/// Turns a spare file into a segment: its header is durable before its name is.
pub(crate) async fn reuse<D: Disk>(disk: &D, folder: &str, spare: &str, header: SegmentHeader) -> io::Result<D::File> {
    let spare = path_in(folder, spare);
    let file = disk.open(&spare, Purpose::Log).await?;
    let mut block = file.alloc(BLOCK_BYTES);
    header.encode(block.as_mut());
    file.write_durable(block, 0).await?;
    disk.rename(&spare, &path_in(folder, &segment_name(header.sequence))).await?;
    disk.sync_dir(folder).await?;
    Ok(file)
}

/// What stands at a place where a commit could begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Nothing,
    /// Of this segment, but not whole. The length that it claims, if it can be believed.
    Broken(usize),
    Commit(CommitHeader, u32),
}

/// Reads a segment through one window.
pub(crate) struct SegmentReader<F: DiskFile> {
    file: Rc<F>,
    bytes: u64,
    window: Option<F::Buf>,
    window_offset: u64,
}

impl<F: DiskFile> SegmentReader<F> {
    pub fn new(file: Rc<F>, bytes: u64) -> SegmentReader<F> {
        SegmentReader { file, bytes, window: None, window_offset: 0 }
    }

    /// These bytes of the segment; `offset` is a multiple of the block. The window moves only if they are not in it.
    pub async fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let end = offset + len as u64;
        let has = |window: &F::Buf, at: u64| offset >= at && end <= at + window.as_ref().len() as u64;
        if !self.window.as_ref().is_some_and(|window| has(window, self.window_offset)) {
            let room = self.bytes.saturating_sub(offset) as usize;
            let wanted = len.max(WINDOW_BYTES).min(room).next_multiple_of(BLOCK_BYTES);
            if wanted < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.window = None;
            self.window = Some(self.file.read_at(offset, wanted).await?);
            self.window_offset = offset;
        }
        let window = self.window.as_ref().map(AsRef::as_ref).unwrap_or_default();
        let from = (offset - self.window_offset) as usize;
        window.get(from..from + len).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// What stands at this block.
    pub async fn look(&mut self, offset: u64, log_id: u64, sequence: u64) -> io::Result<Look> {
        let room = self.bytes.saturating_sub(offset) as usize;
        if room < BLOCK_BYTES {
            return Ok(Look::Nothing);
        }
        match claim(self.bytes(offset, BLOCK_BYTES).await?, log_id, sequence, room) {
            Claim::Nothing => Ok(Look::Nothing),
            Claim::Stale(header) => Ok(match verify(self.bytes(offset, header.commit_bytes()).await?) {
                Some(_) => Look::Nothing,
                None => Look::Broken(BLOCK_BYTES),
            }),
            Claim::Remains => Ok(Look::Broken(BLOCK_BYTES)),
            Claim::Commit(header) => Ok(match verify(self.bytes(offset, header.commit_bytes()).await?) {
                Some(crc) => Look::Commit(header, crc),
                None => Look::Broken(header.commit_bytes()),
            }),
        }
    }

    /// The first place from `offset` on where a whole commit of this segment stands.
    pub async fn find_commit(&mut self, mut offset: u64, log_id: u64, sequence: u64) -> io::Result<Option<u64>> {
        while offset < self.bytes {
            if let Look::Commit(..) = self.look(offset, log_id, sequence).await? {
                return Ok(Some(offset));
            }
            offset += BLOCK_BYTES as u64;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_unknown() {
        assert_eq!(parse_name(&segment_name(u64::MAX)), Named::Segment(u64::MAX));
        assert_eq!(parse_name(&spare_name(1)), Named::Spare);
        assert_eq!(parse_name(&unfinished_name(1)), Named::Unfinished);
        for name in ["", "x.log", "0.log", "000000000000000A.log", "0000000000000001.log.bak", "lost+found"] {
            assert_eq!(parse_name(name), Named::Unknown, "{name}");
        }
    }
}
