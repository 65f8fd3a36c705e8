//! Answers in pieces: what another node reads for this one.
//!
//! ```text
//! read ─ order ──────────> Answerer::read
//! next <── piece, piece ── ReadOutlet: send, send, end
//! ```
//!
//! A piece may be of any length: it travels in fragments. Invariants: an answer that stops before its end is an error;
//! whoever drops its end tells the other one; what waits at the sender is bounded by the stream's queue.

use super::{
    call::CallFailure,
    encoding::{Answered, Asked, encode_answered},
    end::Links,
    metrics::count,
};
use bytes::{Bytes, BytesMut};
use std::rc::Rc;
use tidemill_peer::{Inquiry, Request};
use tidemill_raft::{GroupId, NodeId};

/// Far below the longest message, and long enough that what is beside it does not count.
const FRAGMENT_BYTES: usize = 512 << 10;
/// A longer piece would be more than any query may hold.
const PIECE_BYTES_MAX: usize = 1 << 30;

/// What another node answers, piece by piece. Dropping it tells that node to stop.
pub struct RemoteRead {
    links: Rc<Links>,
    to: NodeId,
    request: Request,
}

/// The way back for the pieces of an answer. Dropped before its end, the other node learns that there is no answer.
pub struct ReadOutlet {
    inquiry: Inquiry,
    shape: u64,
}

/// Nobody wants the answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node that asked has gone, or no longer wants the answer")]
pub struct Unwanted;

impl Links {
    /// Asks the core of another node that holds a group to read something. A question that changes nothing may be put to
    /// one node after the other.
    ///
    /// # Errors
    /// The question could not be sent.
    pub async fn read(self: &Rc<Self>, to: NodeId, group: GroupId, order: Bytes) -> Result<RemoteRead, CallFailure> {
        count(&self.counts.reads);
        let request = self.ask(to, group, &Asked::Read(order)).await?;
        Ok(RemoteRead { links: self.clone(), to, request })
    }
}

impl RemoteRead {
    /// Who answers.
    pub fn node(&self) -> NodeId {
        self.to
    }

    /// The next piece; none behind the last.
    ///
    /// # Errors
    /// The answer broke off, or is none.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallFailure> {
        let failed = |why: &dyn ToString| CallFailure::Unknown { to: self.to, why: why.to_string() };
        let mut gathered = BytesMut::new();
        loop {
            let fragment = match self.request.next().await {
                Ok(Some(fragment)) => fragment,
                Ok(None) if gathered.is_empty() => return Ok(None),
                Ok(None) => return Err(failed(&"the answer ends within a piece")),
                Err(error) => return Err(failed(&error)),
            };
            match self.links.decoded(&fragment) {
                Ok(Answered::Read { bytes, is_last: true }) if gathered.is_empty() => return Ok(Some(bytes)),
                Ok(Answered::Read { bytes, is_last }) => {
                    if gathered.len() + bytes.len() > PIECE_BYTES_MAX {
                        return Err(failed(&"a piece of the answer is too long"));
                    }
                    gathered.extend_from_slice(&bytes);
                    if is_last {
                        return Ok(Some(gathered.freeze()));
                    }
                }
                Ok(Answered::NotUnderstood) => {
                    let why = "it does not understand what it was asked, or has other partitions or members";
                    return Err(CallFailure::NotSent { to: self.to, why: why.into() });
                }
                Ok(_) => return Err(failed(&"it answered something else")),
                Err(why) => return Err(failed(&why)),
            }
        }
    }
}

impl ReadOutlet {
    pub(super) fn new(inquiry: Inquiry, shape: u64) -> ReadOutlet {
        ReadOutlet { inquiry, shape }
    }

    /// Sends a piece, when those before have made room.
    ///
    /// # Errors
    /// Nobody wants it.
    pub async fn send(&self, piece: Bytes) -> Result<(), Unwanted> {
        let mut rest = piece;
        loop {
            let bytes = rest.split_to(rest.len().min(FRAGMENT_BYTES));
            let is_last = rest.is_empty();
            let fragment = encode_answered(self.shape, &Answered::Read { bytes, is_last });
            self.inquiry.reply(fragment).await.map_err(|_| Unwanted)?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Resolves when nobody wants the answer any more.
    pub async fn given_up(&self) {
        self.inquiry.given_up().await;
    }

    /// All pieces were sent.
    pub async fn end(self) {
        // If the other node is gone it knows that the answer is not whole.
        let _ = self.inquiry.finish().await;
    }
}
