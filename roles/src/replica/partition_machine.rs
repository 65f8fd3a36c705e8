//! A partition as the state machine of its group.

use super::{Machine, Outcome, Payload};
use std::rc::Rc;
use tidemill_disk::Disk;
use tidemill_raft::{LogIndex, Term};
use tidemill_store::{Applied, Entry, Partition};

/// Drives a partition by entries, and tells its core when one left work or memory behind.
pub struct PartitionMachine<D: Disk> {
    pub partition: Rc<Partition<D>>,
    /// Called after each applied entry.
    pub on_applied: Box<dyn Fn(&Applied)>,
}

impl<D: Disk> PartitionMachine<D> {
    pub fn new(partition: Rc<Partition<D>>) -> PartitionMachine<D> {
        PartitionMachine { partition, on_applied: Box::new(|_| ()) }
    }

    fn apply_entry(&self, term: Term, index: LogIndex, entry: Option<Entry<'_>>) -> Result<Applied, String> {
        let applied = self.partition.apply(term, index, entry).map_err(|error| error.to_string())?;
        (self.on_applied)(&applied);
        Ok(applied)
    }
}

impl<D: Disk> Machine for PartitionMachine<D> {
    fn apply(&self, term: Term, index: LogIndex, payload: Option<&Payload>) -> Result<Outcome, String> {
        let entry = match payload {
            None => None,
            Some(Payload::Batch(image)) => Some(Entry::Write(image)),
            Some(Payload::Command(bytes)) => Some(Entry::parse(bytes).map_err(|error| error.to_string())?),
        };
        let opened = entry.is_none();
        let applied = self.apply_entry(term, index, entry)?;
        Ok(if opened { Outcome::Opened } else { Outcome::Store(applied) })
    }

    fn replay(&self, term: Term, index: LogIndex, bytes: &[u8]) -> Result<(), String> {
        let entry = match bytes {
            [] => None,
            bytes => Some(Entry::parse(bytes).map_err(|error| error.to_string())?),
        };
        self.apply_entry(term, index, entry).map(drop)
    }

    fn flushed(&self) -> (LogIndex, Term) {
        self.partition.flushed()
    }

    fn applied(&self) -> LogIndex {
        self.partition.applied()
    }
}
