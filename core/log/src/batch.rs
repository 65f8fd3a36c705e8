//! Frames on their way to the disk, laid out where they will stand.

use crate::format::{
    commit::{COMMIT_HEADER_BYTES, CommitHeader},
    frame::FrameHead,
};
use std::rc::Rc;
use tidemill_disk::{BLOCK_BYTES, DiskFile};

/// One commit to be: its place is fixed when it is begun, its end when it is taken or followed by another.
pub(crate) struct Batch<F: DiskFile> {
    pub file: Rc<F>,
    pub sequence: u64,
    pub offset: u64,
    pub number: u64,
    pub oldest: u64,
    pub sealed: bool,
    pub buf: F::Buf,
    /// Bytes of `buf` that the commit may fill.
    pub room: usize,
    /// Bytes filled, the place of the commit header included.
    pub used: usize,
    pub frames: u32,
}

/// A batch without its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub sequence: u64,
    pub offset: u64,
    pub number: u64,
    pub oldest: u64,
    pub frames: u32,
    pub frames_bytes: usize,
    pub commit_bytes: usize,
}

impl<F: DiskFile> Batch<F> {
    pub fn place(&self) -> Place {
        Place {
            sequence: self.sequence,
            offset: self.offset,
            number: self.number,
            oldest: self.oldest,
            frames: self.frames,
            frames_bytes: self.frames_bytes(),
            commit_bytes: self.commit_bytes(),
        }
    }

    pub fn fits(&self, frame_bytes: usize) -> bool {
        !self.sealed && self.used + frame_bytes <= self.room
    }

    pub fn frames_bytes(&self) -> usize {
        self.used - COMMIT_HEADER_BYTES
    }

    pub fn commit_bytes(&self) -> usize {
        self.used.next_multiple_of(BLOCK_BYTES)
    }

    pub fn end(&self) -> u64 {
        self.offset + self.commit_bytes() as u64
    }

    pub fn push(&mut self, head: FrameHead, parts: &[&[u8]], frame_bytes: usize) {
        let end = self.used + frame_bytes;
        head.encode(parts, &mut self.buf.as_mut()[self.used..end]);
        self.used = end;
        self.frames += 1;
    }

    /// Completes the bytes of the commit; returns its crc.
    pub fn seal(&mut self, log_id: u64, previous_crc: u32) -> u32 {
        let header = CommitHeader {
            log_id,
            sequence: self.sequence,
            number: self.number,
            oldest: self.oldest,
            previous_crc,
            sealed: self.sealed,
            frames_bytes: self.frames_bytes() as u32,
            frames: self.frames,
        };
        let len = self.commit_bytes();
        header.seal(&mut self.buf.as_mut()[..len])
    }
}
