//! Counters of a log.

/// Since the open, and the state now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogMetrics {
    pub commits: u64,
    /// Written, with headers and padding.
    pub bytes: u64,
    pub frames: u64,
    pub syncs: u64,
    /// Frames of the newest commit that became durable.
    pub last_batch_frames: u64,
    pub last_batch_bytes: u64,
    /// Bytes of frames that wait for their commit.
    pub pending_bytes: u64,
    /// In use, the one being filled included.
    pub segments_live: u64,
    /// Prepared for use, or kept to be used again.
    pub segments_spare: u64,
    pub segments_made: u64,
    pub segments_recycled: u64,
    /// Appends refused because no segment could be had.
    pub appends_full: u64,
    pub appends_busy: u64,
}
