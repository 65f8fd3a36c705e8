//! Settings of a group's member.

use crate::{GroupId, NodeId};

/// Times are in the unit of [`crate::Moment`].
#[derive(Clone, Debug)]
pub struct Options {
    pub group: GroupId,
    pub node: NodeId,
    /// Drives the spread of election timeouts; different for every member.
    pub seed: u64,
    /// A member that hears of no leader for this long, and up to as long again, stands for election. The lease of a
    /// leader rests on nobody voting earlier.
    pub election_timeout: u64,
    pub heartbeat_interval: u64,
    /// Clocks run between `1 - bound` and `1 + bound` of true time, in parts per million. `None`: nothing is known of the
    /// clocks, and every read asks a majority.
    pub clock_rate_bound: Option<u32>,
    /// Payload bytes of one append message; an entry larger than that travels alone.
    pub message_bytes_max: usize,
    /// Appends on their way to one follower, in messages and in bytes.
    pub window_messages_max: usize,
    pub window_bytes_max: usize,
    /// Entries kept in memory to be sent; older ones are asked of the log.
    pub tail_bytes_max: usize,
    /// Bytes that a leader takes beyond its commit index; above that, proposals are refused.
    pub uncommitted_bytes_max: usize,
}

impl Options {
    /// Times in microseconds.
    pub fn new(group: GroupId, node: NodeId, seed: u64) -> Options {
        Options {
            group,
            node,
            seed,
            // Ten heartbeats, and a hundred times the round trip of a rack.
            election_timeout: 1_000_000,
            heartbeat_interval: 100_000,
            // Quartz is within 100 ppm, what NTP slews within 500; the lease costs four times that in length.
            clock_rate_bound: Some(2_000),
            message_bytes_max: 1 << 20,
            window_messages_max: 256,
            window_bytes_max: 16 << 20,
            tail_bytes_max: 32 << 20,
            uncommitted_bytes_max: 64 << 20,
        }
    }

    /// How long after the sending of a confirmed heartbeat its leader may answer reads alone: with the leader's clock as
    /// slow and a voter's as fast as the bound allows, the voter's promise still holds (thesis, section 6.4.1).
    pub(crate) fn lease(&self) -> Option<u64> {
        let bound = u128::from(self.clock_rate_bound?.min(1_000_000));
        let time = u128::from(self.election_timeout) * (1_000_000 - bound) / (1_000_000 + bound);
        Some(time as u64)
    }

    pub(crate) fn check(&self) {
        assert!(self.node != NodeId(0), "node zero is nobody");
        assert!(self.heartbeat_interval > 0 && self.election_timeout > self.heartbeat_interval, "heartbeats fit in");
        assert!(self.window_messages_max > 0 && self.window_bytes_max > 0, "a window of nothing sends nothing");
    }
}
