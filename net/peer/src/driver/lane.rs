//! The sending end of one stream: frames and bytes in, QUIC's send buffer out.
//!
//! Invariants: what is pushed leaves in that order and is counted until QUIC takes it; small payloads are gathered, large
//! ones are never copied.

use crate::frame::{FrameKind, header};
use bytes::{Bytes, BytesMut};
use quinn_proto::{Connection, StreamId, WriteError};
use std::collections::VecDeque;

/// Payloads up to this are copied behind their header. QUIC searches its unacknowledged pieces from the front for every
/// packet, so thousands of small pieces in flight would cost more than copying them.
const GATHERED_BYTES_MAX: usize = 4 << 10;
/// Allocation in which small payloads are gathered.
const GATHER_BYTES: usize = 16 << 10;

#[derive(Default)]
pub(crate) struct SendLane {
    stream: Option<StreamId>,
    sequence: u32,
    gathered: BytesMut,
    pieces: VecDeque<Bytes>,
    queued_bytes: usize,
    is_ending: bool,
    has_ended: bool,
}

impl SendLane {
    pub fn on(stream: StreamId) -> SendLane {
        SendLane { stream: Some(stream), ..SendLane::default() }
    }

    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether QUIC has it all.
    pub fn is_idle(&self) -> bool {
        self.queued_bytes == 0 && (!self.is_ending || self.has_ended)
    }

    /// Appends a frame; answers the bytes of payload that were copied.
    pub fn push_frame(&mut self, kind: FrameKind, group: u64, payload: Bytes) -> usize {
        let header = header(kind, group, self.sequence, &payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.queued_bytes += header.len() + payload.len();
        let is_small = payload.len() <= GATHERED_BYTES_MAX;
        let gathered = header.len() + if is_small { payload.len() } else { 0 };
        if self.gathered.capacity() - self.gathered.len() < gathered {
            self.gathered.reserve(gathered.max(GATHER_BYTES));
        }
        self.gathered.extend_from_slice(&header);
        if is_small {
            self.gathered.extend_from_slice(&payload);
            return payload.len();
        }
        self.pieces.push_back(self.gathered.split().freeze());
        self.pieces.push_back(payload);
        0
    }

    /// Appends bytes outside of any frame; answers how many of them were copied, as [`SendLane::push_frame`]. They never
    /// are: their owner hands them over.
    pub fn push_body(&mut self, bytes: Bytes) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        self.queued_bytes += bytes.len();
        if !self.gathered.is_empty() {
            self.pieces.push_back(self.gathered.split().freeze());
        }
        self.pieces.push_back(bytes);
        0
    }

    /// The stream ends after what is queued.
    pub fn end(&mut self) {
        self.is_ending = true;
    }

    /// Whether [`SendLane::end`] was called: nothing is missing.
    pub fn has_end(&self) -> bool {
        self.is_ending
    }

    /// Drops what is queued: the stream is gone.
    pub fn clear(&mut self) {
        self.gathered.clear();
        self.pieces.clear();
        self.queued_bytes = 0;
        self.is_ending = false;
    }

    /// Hands to QUIC what it takes; answers whether it took something. When it is blocked it will say when it is not.
    pub fn flush(&mut self, connection: &mut Connection) -> Result<bool, WriteError> {
        let Some(stream) = self.stream else { return Ok(false) };
        if self.is_idle() {
            return Ok(false);
        }
        let mut stream = connection.send_stream(stream);
        let mut progress = false;
        loop {
            // While older pieces wait, small payloads go on gathering.
            if self.pieces.is_empty() && !self.gathered.is_empty() {
                self.pieces.push_back(self.gathered.split().freeze());
            }
            if self.pieces.is_empty() {
                break;
            }
            let (front, _) = self.pieces.as_mut_slices();
            match stream.write_chunks(front) {
                Ok(written) => {
                    self.pieces.drain(..written.chunks);
                    self.queued_bytes -= written.bytes;
                    progress = true;
                }
                Err(WriteError::Blocked) => return Ok(progress),
                Err(error) => {
                    self.clear();
                    return Err(error);
                }
            }
        }
        if self.is_ending && !self.has_ended {
            self.has_ended = true;
            // It fails only when the other side has stopped the stream, which is an event of its own.
            let _ = stream.finish();
            progress = true;
        }
        Ok(progress)
    }
}
