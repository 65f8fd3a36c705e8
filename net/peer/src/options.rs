//! What an owner may set, and the limits that follow from it.

use std::time::Duration;

/// Largest UDP payload over IPv4 without jumbo frames is 1472; tunnels and IPv6 want a little less.
pub const MTU_DEFAULT: u16 = 1452;
/// RFC 9000 section 14: a path that carries less carries no QUIC.
pub const MTU_MIN: u16 = 1200;
/// UDP payload in jumbo frames of 9000 bytes, less the headers of IPv6 and UDP.
pub const MTU_JUMBO: u16 = 8952;

/// Settings of one core's end.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of UDP payload in a packet, on the wire from the start. Both ends should agree; a path that loses packets of
    /// this size falls back to [`MTU_MIN`].
    pub mtu: u16,
    /// Packets up to this size are tried out, and used if they arrive; none: `mtu` is what the network carries.
    pub mtu_probe_max: Option<u16>,
    /// Streams for raft messages, each in order; the messages of a group share one.
    pub raft_lanes: u16,
    /// Requests that a peer may have open with us at a time.
    pub requests_max: u32,
    /// Files that a peer may be sending us at a time.
    pub files_max: u32,
    /// What a peer may send on one stream before we have read it.
    pub stream_window_bytes: u32,
    /// Largest payload of a raft message, a request and a piece of an answer.
    pub payload_bytes_max: u32,
    /// Raft messages that wait for their connection to take them, by connection. More are refused.
    pub raft_queue_bytes_max: usize,
    /// Bytes of one answer or file that wait for their stream to take them. Who writes more waits.
    pub stream_queue_bytes_max: usize,
    /// Raft messages that were handed to the owner and not dropped yet, of all connections. Beyond it none are read.
    pub inbox_bytes_max: usize,
    /// Groups whose heartbeats may wait for one connection.
    pub heartbeat_groups_max: usize,
    pub connections_max: usize,
    /// From this many unfinished handshakes on, a caller must first prove its address (Retry).
    pub retry_above: usize,
    /// From this many on, callers are refused.
    pub handshakes_max: usize,
    /// For TLS and the first message of both sides.
    pub handshake_timeout: Duration,
    /// A connection that is silent for this long is lost.
    pub idle_timeout: Duration,
    pub keep_alive: Duration,
    /// Pause before a lost peer is called again: doubled from the first to the last, and drawn from its upper half.
    pub redial_min: Duration,
    pub redial_max: Duration,
    /// Kernel buffers of the socket, each way; less if the kernel's limit is lower.
    pub socket_buffer_bytes: usize,
    /// Where random numbers start: identifiers, pauses. Secrets of TLS do not come from it.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mtu: MTU_DEFAULT,
            mtu_probe_max: None,
            raft_lanes: 4,
            requests_max: 64,
            files_max: 4,
            stream_window_bytes: 8 << 20,
            payload_bytes_max: 16 << 20,
            raft_queue_bytes_max: 32 << 20,
            stream_queue_bytes_max: 4 << 20,
            inbox_bytes_max: 64 << 20,
            heartbeat_groups_max: 1 << 16,
            connections_max: 1024,
            retry_above: 16,
            handshakes_max: 256,
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(6),
            keep_alive: Duration::from_secs(1),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_secs(2),
            socket_buffer_bytes: 8 << 20,
            seed: 0,
        }
    }
}

impl Options {
    /// Unidirectional streams of a peer: control, lanes, files.
    pub(crate) fn one_way_streams_max(&self) -> u32 {
        1 + u32::from(self.raft_lanes) + self.files_max
    }

    /// What all streams of a connection together may hold unread. It is the sum of their windows, so that no class of
    /// streams that its owner leaves unread can take the credit of another: raft never waits for a slow file.
    pub fn connection_window_bytes(&self) -> u64 {
        u64::from(self.one_way_streams_max() + 2 * self.requests_max) * u64::from(self.stream_window_bytes)
    }

    pub(crate) fn assert_sound(&self) {
        let mtus = MTU_MIN..=65_000;
        assert!(mtus.contains(&self.mtu), "MTU {} is outside {mtus:?}", self.mtu);
        assert!(self.mtu_probe_max.is_none_or(|max| mtus.contains(&max) && max >= self.mtu), "MTU to probe");
        assert!(self.raft_lanes > 0, "raft needs a lane");
        assert!(self.redial_min > Duration::ZERO && self.redial_min <= self.redial_max, "pauses before a new call");
        assert!(self.keep_alive < self.idle_timeout, "a connection would be lost before it is kept alive");
        assert!(self.retry_above <= self.handshakes_max, "callers would be refused before they could prove themselves");
    }
}
