//! What this node is to the partitions that it writes to: the identities of its batches (I6).
//!
//! Invariants: no two batches for a partition have the same identity, of whatever node and run; a batch says how far behind
//! it others of the same session may still come, and a partition takes none that is further behind: what was given up
//! does not overtake what was sent since.
//! Knows nothing of how batches travel.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};
use tidemill_line::Identity;
use tidemill_raft::NodeId;
use tidemill_store::WINDOW;

/// Bits of a session's id that tell the node; the others are milliseconds, so that ids rise with time.
const NODE_BITS: u32 = 20;
/// The largest number that a node of a cluster may have.
pub const NODE_MAX: u64 = (1 << NODE_BITS) - 1;

/// The senders of one core, by partition.
#[derive(Default)]
pub struct Senders(RefCell<BTreeMap<u32, Sender>>);

#[derive(Default)]
struct Sender {
    session: u64,
    /// Newest sequence that was given out.
    newest: u64,
    /// Sequences of the session that are on their way.
    outstanding: BTreeSet<u64>,
}

/// A batch on its way; its sender is done with it when this is dropped.
pub struct Outstanding<'a> {
    senders: &'a Senders,
    partition: u32,
    pub identity: Identity,
    count: u64,
}

impl Senders {
    /// The identity of the next batch for a partition.
    pub fn begin(&self, partition: u32, node: NodeId, now_ns: i64) -> Outstanding<'_> {
        self.begin_several(partition, node, now_ns, 1)
    }

    /// The identity of the first of so many batches for a partition that go together; those of the others follow it.
    pub fn begin_several(&self, partition: u32, node: NodeId, now_ns: i64, count: u64) -> Outstanding<'_> {
        let identity = self.0.borrow_mut().entry(partition).or_default().begin(node, now_ns, count);
        Outstanding { senders: self, partition, identity, count }
    }

    /// A partition has forgotten all sessions up to this one: another one is begun.
    pub fn renew(&self, partition: u32, through: u64) {
        if let Some(sender) = self.0.borrow_mut().get_mut(&partition) {
            *sender = Sender { session: sender.session.max(through), newest: WINDOW, outstanding: BTreeSet::new() };
            // Larger than any distance within a session: the next batch begins one.
            sender.outstanding.insert(0);
        }
    }
}

impl Outstanding<'_> {
    pub fn partition(&self) -> u32 {
        self.partition
    }
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        if let Some(sender) = self.senders.0.borrow_mut().get_mut(&self.partition)
            && sender.session == self.identity.session
        {
            let first = self.identity.sequence;
            sender.outstanding.retain(|sequence| !(first..first + self.count).contains(sequence));
        }
    }
}

impl Sender {
    fn begin(&mut self, node: NodeId, now_ns: i64, count: u64) -> Identity {
        let sequence = self.newest + 1;
        let oldest = self.outstanding.first().copied().unwrap_or(sequence);
        let is_within = self.session != 0 && sequence + count - 1 - oldest < WINDOW;
        let (sequence, behind) = if is_within { (sequence, sequence - oldest) } else { (1, 0) };
        if !is_within {
            self.session = session_after(self.session, node, now_ns);
            self.outstanding.clear();
        }
        self.newest = sequence + count - 1;
        self.outstanding.extend(sequence..sequence + count);
        Identity { session: self.session, sequence, behind: behind as u16 }
    }
}

/// Another session of a node, above one that is known.
fn session_after(known: u64, node: NodeId, now_ns: i64) -> u64 {
    let now_ms = (now_ns.max(0) / 1_000_000) as u64;
    let now_ms = now_ms.max((known >> NODE_BITS) + 1);
    now_ms << NODE_BITS | node.0 & NODE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_store::{Sessions, Verdict};

    const NOW: i64 = 1_800_000_000_000_000_000;

    #[test]
    fn sessions_rise_and_tell_nodes_apart() {
        let (senders, node) = (Senders::default(), NodeId(3));
        let first = senders.begin(1, node, NOW).identity;
        let second = senders.begin(1, node, NOW - 5).identity;
        assert_eq!((first.session, first.sequence), (second.session, 1));
        assert_eq!((second.sequence, second.behind), (2, 0));
        assert_ne!(Senders::default().begin(1, NodeId(4), NOW).identity.session, first.session);
        let through = first.session + (77 << NODE_BITS);
        senders.renew(1, through);
        let third = senders.begin(1, node, NOW).identity;
        assert!(third.session > through && third.sequence == 1 && third.session & NODE_MAX == 3);
    }

    proptest! {
        /// Batches end in any order; those that were given up may arrive at any time later.
        #[test]
        fn what_is_on_its_way_is_always_taken_and_nothing_twice(steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 1..3000)) {
            let (senders, mut sessions) = (Senders::default(), Sessions::default());
            let (mut going, mut strays, mut stored) = (Vec::new(), Vec::new(), BTreeSet::new());
            for (what, at) in steps {
                match what {
                    0 | 1 => going.push(senders.begin(9, NodeId(1), NOW)),
                    2 if !going.is_empty() => {
                        let Identity { session, sequence, behind } = going.remove(at.index(going.len())).identity;
                        prop_assert_eq!(sessions.note(session, sequence, behind), Verdict::New);
                        prop_assert_eq!(sessions.note(session, sequence, behind), Verdict::Repeated);
                        prop_assert!(stored.insert((session, sequence)));
                    }
                    3 if !going.is_empty() => strays.push(going.remove(at.index(going.len())).identity),
                    _ => {
                        let Some(Identity { session, sequence, behind }) = strays.pop() else { continue };
                        if sessions.note(session, sequence, behind) == Verdict::New {
                            prop_assert!(stored.insert((session, sequence)));
                        }
                    }
                }
            }
        }
    }
}
