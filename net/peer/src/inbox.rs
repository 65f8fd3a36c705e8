//! What a handler is given that asks for no answer.
//!
//! Invariant: the bytes of a raft message count against the inbox until the message is dropped, wherever the owner queues
//! it; when the inbox is full no more are read, and the peers' queues fill.

use crate::identity::PeerId;
use crate::message::{Heartbeats, check};
use crate::shell::Shell;
use bytes::Bytes;
use std::cell::Cell;
use std::rc::Rc;

/// A raft message: opaque bytes for a group.
pub struct Message {
    pub from: PeerId,
    pub group: u64,
    pub payload: Bytes,
    counted: Counted,
}

/// Bytes in the inbox, given back when dropped.
struct Counted {
    shell: Rc<Shell>,
    inbox: Rc<Cell<usize>>,
    bytes: usize,
}

impl Message {
    pub(crate) fn new(from: PeerId, group: u64, payload: Bytes, shell: &Rc<Shell>) -> Message {
        let inbox = shell.inbox();
        let counted = Counted { shell: shell.clone(), inbox, bytes: payload.len() };
        Message { from, group, payload, counted }
    }

    /// The payload alone; from here on the inbox does not count it.
    pub fn into_payload(self) -> Bytes {
        drop(self.counted);
        self.payload
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.inbox.set(self.inbox.get() - self.bytes);
        self.shell.message_dropped();
    }
}

/// Heartbeats of many groups, checked, read in place.
pub struct HeartbeatBatch {
    pub from: PeerId,
    payload: Bytes,
}

impl HeartbeatBatch {
    pub(crate) fn new(from: PeerId, payload: Bytes) -> HeartbeatBatch {
        HeartbeatBatch { from, payload }
    }

    /// Group and payload of each.
    pub fn beats(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let beats =
            check::<Heartbeats>(&self.payload).map(|heartbeats| heartbeats.beats.as_slice()).unwrap_or_default();
        beats.iter().map(|beat| (beat.group.to_native(), &beat.payload[..]))
    }
}
