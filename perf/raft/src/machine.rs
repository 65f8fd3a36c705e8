//! The state machine of a measured group: it counts.

use std::cell::Cell;
use tidemill::replica::{Gift, InstallFailure, LocalFuture, Machine, Offer, Outcome, Payload, Sources};
use tidemill_raft::{LogIndex, Term};

/// Counts entries and their bytes. `digest` depends on the order and the length of all of them: nodes that applied the
/// same have the same.
#[derive(Default)]
pub struct Counter {
    applied: Cell<u64>,
    term: Cell<u64>,
    bytes: Cell<u64>,
    digest: Cell<u64>,
}

impl Counter {
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub fn digest(&self) -> u64 {
        self.digest.get()
    }

    fn count(&self, term: Term, index: LogIndex, length: usize) {
        assert!(index.0 == self.applied.get() + 1, "entry {index} behind {}", self.applied.get());
        self.applied.set(index.0);
        self.term.set(term.0);
        self.bytes.set(self.bytes.get() + length as u64);
        let mixed = (self.digest.get() ^ index.0 ^ ((length as u64) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.digest.set(mixed ^ (mixed >> 29));
    }
}

impl Machine for Counter {
    fn apply(&self, term: Term, index: LogIndex, payload: Option<&Payload>) -> Result<Outcome, String> {
        // As the log has it: a batch stands there behind a byte that says so.
        let length = payload.map_or(0, |payload| payload.parts().iter().map(|part| part.len()).sum());
        self.count(term, index, length);
        Ok(Outcome::Opened)
    }

    fn replay(&self, term: Term, index: LogIndex, bytes: &[u8]) -> Result<(), String> {
        self.count(term, index, bytes.len());
        Ok(())
    }

    fn flushed(&self) -> (LogIndex, Term) {
        (LogIndex(0), Term(0))
    }

    fn flushed_members(&self) -> Vec<u8> {
        Vec::new()
    }

    fn applied(&self) -> LogIndex {
        LogIndex(self.applied.get())
    }

    fn offer(&self) -> LocalFuture<'_, Option<Offer>> {
        Box::pin(async { None })
    }

    fn install<'a>(&'a self, _: &'a Gift, _: &'a dyn Sources) -> LocalFuture<'a, Result<(), InstallFailure>> {
        Box::pin(async { Err(InstallFailure::Unchanged("a counter has no files".into())) })
    }
}
