//! What a leader knows of one other member, and how much it may send there.
//!
//! Invariants: `matched < next`; what is on its way is within the window, but for one message.

use crate::{LogIndex, Moment, NodeId, Options};
use alloc::{collections::VecDeque, vec::Vec};

#[derive(Debug)]
pub(crate) struct Progress {
    /// Durable there and equal to ours, as it said in this term.
    pub matched: LogIndex,
    pub next: LogIndex,
    pub flow: Flow,
    /// Newest index and bytes of each append on its way.
    on_the_way: VecDeque<(LogIndex, usize)>,
    bytes_on_the_way: usize,
    /// When it last answered.
    pub heard: Moment,
    /// Newest round of heartbeats that it answered.
    pub round: u64,
    /// Its entries are being read from the log.
    pub fetching: bool,
    /// Acknowledged something since the last answer to a heartbeat.
    pub moved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Where the logs part is not known: one message at a time.
    Probe { waits: bool },
    /// Messages follow each other without waiting.
    Pipeline,
    /// It gets the state as files; sent at this moment.
    Snapshot { index: LogIndex, sent: Moment },
}

impl Progress {
    pub fn new(next: LogIndex, now: Moment) -> Progress {
        Progress {
            matched: LogIndex(0),
            next,
            flow: Flow::Probe { waits: false },
            on_the_way: VecDeque::new(),
            bytes_on_the_way: 0,
            heard: now,
            round: 0,
            fetching: false,
            moved: false,
        }
    }

    pub fn probe_from(&mut self, next: LogIndex) {
        self.flow = Flow::Probe { waits: false };
        self.next = next.max(self.matched.next());
        self.on_the_way.clear();
        self.bytes_on_the_way = 0;
    }

    pub fn has_room(&self, options: &Options) -> bool {
        match self.flow {
            Flow::Probe { waits } => !waits,
            Flow::Pipeline => {
                self.on_the_way.len() < options.window_messages_max && self.bytes_on_the_way < options.window_bytes_max
            }
            Flow::Snapshot { .. } => false,
        }
    }

    /// An append with entries up to `last` leaves.
    pub fn sent(&mut self, last: LogIndex, bytes: usize) {
        match &mut self.flow {
            Flow::Probe { waits } => *waits = true,
            Flow::Pipeline => {
                self.next = last.next();
                self.on_the_way.push_back((last, bytes));
                self.bytes_on_the_way += bytes;
            }
            Flow::Snapshot { .. } => {}
        }
    }

    pub fn is_waiting(&self) -> bool {
        !self.on_the_way.is_empty()
    }

    pub fn acknowledge(&mut self, matched: LogIndex) {
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        self.moved = true;
        while self.on_the_way.front().is_some_and(|(last, _)| *last <= matched) {
            if let Some((_, bytes)) = self.on_the_way.pop_front() {
                self.bytes_on_the_way -= bytes;
            }
        }
    }

    /// # Panics
    /// If the module's invariants do not hold.
    pub fn check(&self, last: LogIndex, options: &Options) {
        assert!(self.matched < self.next && self.next <= last.next(), "{self:?} with a log up to {last}");
        let bytes: usize = self.on_the_way.iter().map(|(_, bytes)| bytes).sum();
        assert!(bytes == self.bytes_on_the_way, "{self:?}");
        assert!(self.on_the_way.len() <= options.window_messages_max, "{self:?}");
        assert!(self.on_the_way.is_empty() || self.flow == Flow::Pipeline, "{self:?}");
    }
}

/// The others, sorted: groups are small, so a search beats a tree.
#[derive(Debug, Default)]
pub(crate) struct Followers(Vec<(NodeId, Progress)>);

impl Followers {
    pub fn find(&self, node: NodeId) -> Option<&Progress> {
        let at = self.0.binary_search_by_key(&node, |(node, _)| *node).ok()?;
        self.0.get(at).map(|(_, progress)| progress)
    }

    pub fn find_mut(&mut self, node: NodeId) -> Option<&mut Progress> {
        let at = self.0.binary_search_by_key(&node, |(node, _)| *node).ok()?;
        self.0.get_mut(at).map(|(_, progress)| progress)
    }

    /// Makes it exactly these members.
    pub fn set(&mut self, nodes: impl Iterator<Item = NodeId>, next: LogIndex, now: Moment) {
        let mut known = core::mem::take(&mut self.0);
        for node in nodes {
            let kept = known.iter().position(|(other, _)| *other == node).map(|at| known.swap_remove(at));
            self.0.push(kept.unwrap_or_else(|| (node, Progress::new(next, now))));
        }
        self.0.sort_unstable_by_key(|(node, _)| *node);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn node_at(&self, at: usize) -> Option<NodeId> {
        self.0.get(at).map(|(node, _)| *node)
    }

    pub fn iter(&self) -> impl Iterator<Item = &(NodeId, Progress)> {
        self.0.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut (NodeId, Progress)> {
        self.0.iter_mut()
    }
}
