//! Requests: one question, an answer of any number of pieces, either side may give up at any time.
//!
//! Invariants: an answer is whole or an error; dropping an end tells the other one; at most
//! [`crate::Options::stream_queue_bytes_max`] of an answer wait here and one stream's window at the peer.

use crate::driver::{StreamError, StreamKey};
use crate::identity::PeerId;
use crate::shell::Shell;
use bytes::Bytes;
use std::future::poll_fn;
use std::rc::Rc;

/// A question that we asked. Dropping it cancels it.
pub struct Request {
    shell: Rc<Shell>,
    key: StreamKey,
}

impl Request {
    pub(crate) fn new(shell: &Rc<Shell>, key: StreamKey) -> Request {
        Request { shell: shell.clone(), key }
    }

    /// The next piece of the answer; none when it is whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|context| self.shell.with_driver(|driver| driver.poll_piece(self.key, context))).await
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.shell.release(self.key);
    }
}

/// A question that a peer asked. Dropping it without [`Inquiry::finish`] tells the peer that there is no answer.
pub struct Inquiry {
    pub from: PeerId,
    pub group: u64,
    pub payload: Bytes,
    shell: Rc<Shell>,
    key: StreamKey,
}

impl Inquiry {
    pub(crate) fn new(from: PeerId, group: u64, payload: Bytes, key: StreamKey, shell: &Rc<Shell>) -> Inquiry {
        Inquiry { from, group, payload, shell: shell.clone(), key }
    }

    /// Sends a piece of the answer, when the pieces before have made room.
    pub async fn reply(&self, piece: Bytes) -> Result<(), StreamError> {
        self.answer(Some(piece), false).await
    }

    /// The answer is whole.
    pub async fn finish(self) -> Result<(), StreamError> {
        self.answer(None, true).await
    }

    /// A last piece and the end in one.
    pub async fn finish_with(self, piece: Bytes) -> Result<(), StreamError> {
        self.answer(Some(piece), true).await
    }

    /// Resolves when the peer no longer wants an answer, or cannot have it.
    pub async fn given_up(&self) {
        poll_fn(|context| self.shell.with_driver(|driver| driver.poll_given_up(self.key, context))).await;
    }

    async fn answer(&self, mut piece: Option<Bytes>, is_last: bool) -> Result<(), StreamError> {
        poll_fn(|context| self.shell.with_driver(|driver| driver.poll_answer(self.key, &mut piece, is_last, context)))
            .await
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        self.shell.release(self.key);
    }
}
