//! What the owner of a core's end does with what arrives.

use crate::driver::PeerState;
use crate::file::FileReceiver;
use crate::identity::PeerId;
use crate::inbox::{HeartbeatBatch, Message};
use crate::request::Inquiry;

/// Called within a turn, one after the other, in the order of arrival per stream. It must be quick: hand over, answer
/// small things at once, spawn the rest. It may use [`crate::Peers`] freely; what it sends leaves with this turn.
pub trait Handler {
    /// A raft message. Messages of one group of one connection come in the order in which they were sent; none comes
    /// twice; those that were on their way when a connection was lost may not come at all.
    fn message(&self, message: Message);

    /// Heartbeats of many groups.
    fn heartbeats(&self, batch: HeartbeatBatch);

    /// A request; dropping it tells the peer that it will not be answered.
    fn request(&self, inquiry: Inquiry);

    /// A file that a peer wants to send; dropping it refuses.
    fn file(&self, file: FileReceiver);

    fn state(&self, peer: PeerId, state: PeerState);
}
