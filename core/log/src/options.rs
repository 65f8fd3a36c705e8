//! Settings of a log.

use crate::{
    OpenError,
    format::{
        commit::COMMIT_HEADER_BYTES,
        frame::{FRAME_BYTES_MAX, HARD_STATE_FRAME_BYTES},
    },
};
use tidemill_disk::BLOCK_BYTES;

/// How a commit becomes durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A write, then fdatasync: steadier where cores are shared.
    #[default]
    Fdatasync,
    /// One write with `RWF_DSYNC`: a third less CPU where cores are dedicated.
    Dsync,
}

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Size that segments grow to, a multiple of the block.
    pub segment_bytes: u64,
    /// Size of the first segment of a new log, a multiple of the block; each one that is made is twice as long as the one
    /// before it, up to `segment_bytes`. A log that somebody waits for is there at once, and one that is written to at full
    /// speed from its first moment waits a little for each of its first segments instead of long for its second.
    pub first_segment_bytes: u64,
    pub durability: Durability,
    /// A batch is closed at this size and the next one begun; a larger frame gets a batch of its own.
    pub batch_bytes: usize,
    /// Bytes of frames that may wait for their commit; above it, appends are `Busy`.
    pub pending_bytes_max: usize,
    /// Segments in use and prepared; at this number appends are `Full` until releases free one.
    pub segments_max: usize,
    /// Groups that may have a hard state; room for all of them is kept free in each segment.
    pub groups_max: usize,
    /// Bytes at the end of a segment that only hard states and [`crate::Log::append_command`] may use while no other
    /// segment is to be had: a full log still takes the commands that make room, and a start on a full disk its terms.
    pub commands_reserve_bytes: u64,
    /// Drawn at random by the caller. Used when the folder holds no log yet; frames of another log are told apart by it.
    pub new_log_id: u64,
}

/// At most this part of a segment is kept for commands.
const COMMANDS_RESERVE_PART: u64 = 16;

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            // Large enough that sealing and preparing vanish, small enough to be zeroed in a fraction of a second.
            segment_bytes: 64 << 20,
            // Room for some commits beside the reserves, made within tens of milliseconds.
            first_segment_bytes: 4 << 20,
            durability: Durability::default(),
            // Throughput of direct writes is flat from here on.
            batch_bytes: 1 << 20,
            pending_bytes_max: 2 * FRAME_BYTES_MAX,
            segments_max: 256,
            groups_max: 1024,
            // Sixty-four commits of commands; a start takes one or two.
            commands_reserve_bytes: 256 << 10,
            new_log_id: 0,
        }
    }
}

impl LogOptions {
    /// Blocks at the end of a segment that only a trim may use: all hard states fit, so that a log that cannot get
    /// another segment can still say which ones it no longer needs.
    pub(crate) fn trim_reserve_bytes(&self) -> u64 {
        (COMMIT_HEADER_BYTES + self.groups_max * HARD_STATE_FRAME_BYTES).next_multiple_of(BLOCK_BYTES) as u64
    }

    /// Largest frame that fits an empty segment of full size.
    pub(crate) fn frame_bytes_max(&self) -> usize {
        self.frame_room_bytes(self.segment_bytes).min(FRAME_BYTES_MAX)
    }

    /// Room for a frame in an empty segment of this size.
    fn frame_room_bytes(&self, segment_bytes: u64) -> usize {
        let kept = 2 * BLOCK_BYTES as u64 + self.trim_reserve_bytes() + self.commands_reserve_bytes();
        segment_bytes.saturating_sub(kept + COMMIT_HEADER_BYTES as u64) as usize
    }

    /// Size of the segment that is made behind one of this size; `None`: of the first one.
    pub(crate) fn next_segment_bytes(&self, newest_bytes: Option<u64>) -> u64 {
        let wanted = newest_bytes.map_or(self.first_segment_bytes, |bytes| bytes.saturating_mul(2));
        wanted.max(self.first_segment_bytes).min(self.segment_bytes)
    }

    /// As wanted, but a small part of a small segment.
    pub(crate) fn commands_reserve_bytes(&self) -> u64 {
        let bytes_max = self.segment_bytes / COMMANDS_RESERVE_PART;
        self.commands_reserve_bytes.min(bytes_max).next_multiple_of(BLOCK_BYTES as u64)
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let wrong = |text: &str| Err(OpenError::Options(text.to_owned()));
        if !self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64) || self.frame_bytes_max() < BLOCK_BYTES {
            return wrong("segment_bytes must be a multiple of 4096 with room for a frame and for all hard states");
        }
        if !self.first_segment_bytes.is_multiple_of(BLOCK_BYTES as u64)
            || self.frame_room_bytes(self.next_segment_bytes(None)) < BLOCK_BYTES
        {
            return wrong(
                "first_segment_bytes must be a multiple of 4096 with room for a frame and for all hard states",
            );
        }
        if !self.batch_bytes.is_multiple_of(BLOCK_BYTES) || self.batch_bytes == 0 {
            return wrong("batch_bytes must be a multiple of 4096");
        }
        if self.pending_bytes_max < self.frame_bytes_max() {
            return wrong("pending_bytes_max must hold the largest frame");
        }
        if self.segments_max < 2 || self.groups_max == 0 {
            return wrong("a log needs two segments and a group");
        }
        Ok(())
    }
}
