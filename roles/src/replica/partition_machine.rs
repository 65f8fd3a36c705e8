//! A partition as the state machine of its group.

use super::{FilePart, Gift, InstallFailure, LocalFuture, Machine, Offer, Outcome, Payload, Sources, take_in};
use std::rc::Rc;
use tidemill_disk::Disk;
use tidemill_raft::{LogIndex, Term};
use tidemill_store::{Applied, Entry, InstallError, ManifestError, Partition};

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
            Some(Payload::Command(bytes) | Payload::Logged(bytes)) => {
                Some(Entry::parse(bytes).map_err(|error| error.to_string())?)
            }
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

    fn flushed_members(&self) -> Vec<u8> {
        self.partition.flushed_members()
    }

    fn applied(&self) -> LogIndex {
        self.partition.applied()
    }

    fn offer(&self) -> LocalFuture<'_, Option<Offer>> {
        Box::pin(async {
            match self.partition.published().await {
                Ok(manifest) => manifest.map(|manifest| Offer {
                    index: LogIndex(manifest.flushed_index),
                    manifest: manifest.encode().into(),
                }),
                Err(error) => {
                    tracing::warn!(%error, "a manifest for another node cannot be read");
                    None
                }
            }
        })
    }

    fn install<'a>(&'a self, gift: &'a Gift, sources: &'a dyn Sources) -> LocalFuture<'a, Result<(), InstallFailure>> {
        Box::pin(async {
            let installation = self.partition.plan_installation(&gift.manifest, gift.base).map_err(unchanged)?;
            for wanted in &installation.wanted {
                let part = FilePart::head(wanted.source.as_str(), wanted.size);
                let opened = sources.open(gift.from, gift.group, part).await;
                let mut inflow = opened.map_err(InstallFailure::Unchanged)?;
                let mut arriving = self.partition.receive(wanted).await.map_err(unchanged)?;
                take_in(&mut *inflow, &mut arriving).await.map_err(InstallFailure::Unchanged)?;
                arriving.finish().await.map_err(unchanged)?;
            }
            self.partition.install(installation).await.map_err(|error| match error {
                // A manifest of which nobody knows whether it is there.
                InstallError::Open(_) | InstallError::Manifest(ManifestError::Unknown { .. }) => {
                    InstallFailure::Broken(error.to_string())
                }
                error => unchanged(error),
            })?;
            (self.on_applied)(&Applied::Nothing);
            Ok(())
        })
    }
}

fn unchanged(error: InstallError) -> InstallFailure {
    InstallFailure::Unchanged(error.to_string())
}
