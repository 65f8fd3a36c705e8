//! What the links of one core count.

use std::cell::Cell;
use tidemill_peer::PeerMetrics;

/// Counters since the start.
#[derive(Clone, Debug, Default)]
pub struct LinkMetrics {
    pub messages_sent: u64,
    pub heartbeats_sent: u64,
    /// For want of a connection or of room; raft sends again.
    pub messages_dropped: u64,
    pub messages_received: u64,
    /// Messages, calls and replies that could not be read.
    pub undecodable: u64,
    /// Messages and calls of nodes that have other partitions or members in their configuration.
    pub misshapen: u64,
    /// Messages and calls in another node's name, for another node, or from a node that is none of the cluster.
    pub foreign: u64,
    pub calls: u64,
    pub calls_not_sent: u64,
    pub calls_unknown: u64,
    pub calls_answered: u64,
    /// Questions whose answers come in pieces.
    pub reads: u64,
    pub reads_answered: u64,
    pub files_asked: u64,
    pub files_sent: u64,
    pub files_refused: u64,
    /// Of the transport; none before the start and after the end.
    pub peer: Option<PeerMetrics>,
}

macro_rules! counts {
    ($($name:ident),* $(,)?) => {
        /// The counters while they count.
        #[derive(Default)]
        pub(super) struct Counts {
            $(pub $name: Cell<u64>,)*
        }

        impl Counts {
            pub fn read(&self, peer: Option<PeerMetrics>) -> LinkMetrics {
                LinkMetrics { $($name: self.$name.get(),)* peer }
            }
        }
    };
}

counts!(
    messages_sent,
    heartbeats_sent,
    messages_dropped,
    messages_received,
    undecodable,
    misshapen,
    foreign,
    calls,
    calls_not_sent,
    calls_unknown,
    calls_answered,
    reads,
    reads_answered,
    files_asked,
    files_sent,
    files_refused,
);

pub(super) fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}
