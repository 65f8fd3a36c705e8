//! What one core's end counts.

use hdrhistogram::Histogram;

/// Round trips beyond this are recorded as this.
const ROUND_TRIP_US_MAX: u64 = 60_000_000;

/// Counters since the start, and what is queued now.
#[derive(Clone, Debug)]
pub struct PeerMetrics {
    /// UDP payload.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub datagrams_sent: u64,
    pub datagrams_received: u64,
    /// System calls that moved something.
    pub sends: u64,
    pub receives: u64,
    /// The socket's buffer was full.
    pub sends_blocked: u64,
    /// Payload that our code copied before QUIC takes it: small messages, gathered.
    pub bytes_copied_out: u64,
    /// Payload that our code copied out of QUIC's buffers, into messages and into blocks of files.
    pub bytes_copied_in: u64,
    /// Payload of files, as handed over.
    pub file_bytes_sent: u64,
    pub file_bytes_received: u64,
    /// Of `bytes_copied_*`, what is payload of files; the rest are messages.
    pub file_bytes_copied_out: u64,
    pub file_bytes_copied_in: u64,
    /// Packets that QUIC held for lost; their content was sent again.
    pub packets_lost: u64,
    pub bytes_lost: u64,
    pub congestion_events: u64,
    pub calls_made: u64,
    pub calls_accepted: u64,
    /// For want of room.
    pub calls_refused: u64,
    /// That had to prove their address first.
    pub calls_retried: u64,
    /// Second connections between the same two cores that were given up.
    pub connections_superseded: u64,
    pub connections_lost: u64,
    /// Connections that broke the protocol: wrong names, bad frames, messages out of place.
    pub violations: u64,
    pub messages_sent: u64,
    pub messages_received: u64,
    pub messages_refused: u64,
    pub heartbeats_sent: u64,
    pub heartbeat_messages_sent: u64,
    /// QUIC's smoothed round trip, each time that it changed, microseconds.
    pub round_trip_us: Histogram<u64>,
    pub connections: usize,
    /// Bytes that wait for their connection now.
    pub send_queue_bytes: usize,
    /// Raft messages that the owner holds now.
    pub inbox_bytes: usize,
}

impl PeerMetrics {
    pub(crate) fn new() -> PeerMetrics {
        PeerMetrics {
            bytes_sent: 0,
            bytes_received: 0,
            datagrams_sent: 0,
            datagrams_received: 0,
            sends: 0,
            receives: 0,
            sends_blocked: 0,
            bytes_copied_out: 0,
            bytes_copied_in: 0,
            file_bytes_sent: 0,
            file_bytes_received: 0,
            file_bytes_copied_out: 0,
            file_bytes_copied_in: 0,
            packets_lost: 0,
            bytes_lost: 0,
            congestion_events: 0,
            calls_made: 0,
            calls_accepted: 0,
            calls_refused: 0,
            calls_retried: 0,
            connections_superseded: 0,
            connections_lost: 0,
            violations: 0,
            messages_sent: 0,
            messages_received: 0,
            messages_refused: 0,
            heartbeats_sent: 0,
            heartbeat_messages_sent: 0,
            // Two digits from 1 us to a minute are about 20 KiB.
            round_trip_us: Histogram::new_with_bounds(1, ROUND_TRIP_US_MAX, 2).expect("the bounds are constants"),
            connections: 0,
            send_queue_bytes: 0,
            inbox_bytes: 0,
        }
    }

    pub(crate) fn record_round_trip(&mut self, time: std::time::Duration) {
        self.round_trip_us.saturating_record((time.as_micros() as u64).clamp(1, ROUND_TRIP_US_MAX));
    }
}
