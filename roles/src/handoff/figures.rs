//! What the hinted handoff of a core counts.

use std::cell::Cell;

/// Since the start, but for the first two.
#[derive(Clone, Debug, Default)]
pub struct HandoffFigures {
    /// Batches and bytes that wait now.
    pub waiting: Cell<u64>,
    pub waiting_bytes: Cell<u64>,
    pub queued: Cell<u64>,
    pub queued_bytes: Cell<u64>,
    pub delivered: Cell<u64>,
    pub delivered_bytes: Cell<u64>,
    /// Tries to deliver that came to nothing.
    pub retries: Cell<u64>,
    /// Writes that the queue had no room for.
    pub refused: Cell<u64>,
    /// Batches that became too old.
    pub purged: Cell<u64>,
    pub purged_bytes: Cell<u64>,
    /// Batches that their partition refused for good, or that nobody wants any more.
    pub dropped: Cell<u64>,
    pub dropped_bytes: Cell<u64>,
}

/// Adds to a counter.
pub(super) fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}
