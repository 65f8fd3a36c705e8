//! The metadata's group: state machine, snapshot, and the copy that every core has.
//!
//! The group lives in the log of core 0. Its snapshot is replaced as a whole (write, fsync, rename, fsync of the
//! folder) whenever the log's oldest segment waits for it; a member that lags far behind is given one.

use crate::replica::{
    COMMITS_MAX, DamagedSnapshot, Gift, InstallFailure, LocalFuture, Machine, Offer, Outcome, Payload, Snapshot,
    SnapshotFile, Sources, members_in,
};
use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};
use tidemill_disk::{Disk, LocalQueue, Watermark};
use tidemill_meta::{Command, DecodeError, Meta, MetaError};
use tidemill_raft::{EntryId, GroupId, LogIndex, MANIFEST_BYTES_MAX, Term};
use tidemill_store::Turn;

/// The group of the metadata; partitions are numbered from zero.
pub const META_GROUP: GroupId = GroupId(u32::MAX);

const FOLDER: &str = "meta";
const SNAPSHOT: &str = "meta/snapshot";
const MAGIC: [u8; 8] = *b"TMILLME8";

/// The metadata as entries make them.
pub struct MetaMachine<D: Disk> {
    file: SnapshotFile<D>,
    meta: RefCell<Meta>,
    applied: Cell<LogIndex>,
    applied_term: Cell<Term>,
    flushed: Cell<(LogIndex, Term)>,
    /// Of the metadata's group, as the newest entry that brought any said, in their encoding.
    members: RefCell<Vec<u8>>,
    flushed_members: RefCell<Vec<u8>>,
    /// Of those who write the snapshot.
    writing: Turn,
    /// What the cores' copies have not followed yet, in the order of the log; nothing to follow where the command was
    /// refused.
    pub unfollowed: LocalQueue<(LogIndex, Option<Change>)>,
    /// The newest of them.
    to_follow: Cell<LogIndex>,
    /// Every core's copy shows the entries up to here.
    pub followed: Watermark,
}

/// What a core's copy of the metadata follows.
#[derive(Clone)]
pub enum Change {
    Command(Arc<Command>),
    /// Another member's, with many changes at once.
    Whole(Arc<Meta>),
}

/// Why the metadata cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{SNAPSHOT}: {0}")]
    Io(#[from] std::io::Error),
    #[error("{SNAPSHOT}: {0}")]
    Damaged(#[from] DamagedSnapshot),
    #[error("{SNAPSHOT}: {0}")]
    Decode(#[from] DecodeError),
}

impl<D: Disk> MetaMachine<D> {
    /// The metadata of the snapshot; empty ones without.
    pub async fn load(disk: D) -> Result<MetaMachine<D>, SnapshotError> {
        let file = SnapshotFile::open(disk, FOLDER, MAGIC).await?;
        let (Snapshot { index, term, members, .. }, meta) = match file.read().await? {
            Some(bytes) => decoded(&file, &bytes)?,
            None => Default::default(),
        };
        Ok(MetaMachine {
            file,
            meta: RefCell::new(meta),
            applied: Cell::new(index),
            applied_term: Cell::new(term),
            flushed: Cell::new((index, term)),
            members: RefCell::new(members.clone()),
            flushed_members: RefCell::new(members),
            writing: Turn::default(),
            unfollowed: LocalQueue::new(COMMITS_MAX),
            to_follow: Cell::new(LogIndex(0)),
            followed: Watermark::new(0),
        })
    }

    /// Makes the present state durable. Returns the index up to which the log is not needed any more.
    pub async fn snapshot(&self) -> Result<LogIndex, SnapshotError> {
        let _turn = self.writing.take().await;
        let (index, term) = (self.applied.get(), self.applied_term.get());
        let members = self.members.borrow().clone();
        let bytes = self.encoded_with(&members);
        let file = self.file.write(&bytes).await?;
        self.file.publish(file).await?;
        self.flushed.set((index, term));
        *self.flushed_members.borrow_mut() = members;
        Ok(index)
    }

    /// The bytes of a snapshot as of now, for a copy: who starts from it is founded anew.
    pub fn encoded(&self) -> Vec<u8> {
        self.encoded_with(&[])
    }

    fn encoded_with(&self, members: &[u8]) -> Vec<u8> {
        self.file.encode(self.applied.get(), self.applied_term.get(), members, &self.meta.borrow().encode())
    }

    /// A copy of the state.
    pub fn state(&self) -> Meta {
        self.meta.borrow().clone()
    }

    /// Returns once every core's copy shows what is applied now; false if the cores are stopping.
    pub async fn all_follow(&self) -> bool {
        self.followed.reached(self.to_follow.get().0).await
    }

    fn follow(&self, index: LogIndex, change: Option<Change>) -> Result<(), String> {
        self.to_follow.set(index);
        self.unfollowed.try_push((index, change)).map_err(|_| "too many changes wait for the cores".to_owned())
    }

    /// Becomes what another member's snapshot says.
    async fn take_over(&self, base: EntryId, bytes: &[u8]) -> Result<(), InstallFailure> {
        let unchanged = |error: SnapshotError| InstallFailure::Unchanged(error.to_string());
        let (Snapshot { index, term, members, .. }, meta) = decoded(&self.file, bytes).map_err(unchanged)?;
        if (index, term) != (base.index, base.term) {
            return Err(InstallFailure::Unchanged(format!("a snapshot of {term}/{index} came as that of {base}")));
        }
        let _turn = self.writing.take().await;
        let file = self.file.write(bytes).await.map_err(|error| unchanged(error.into()))?;
        let published = self.file.publish(file).await;
        published.map_err(|error| InstallFailure::Broken(error.to_string()))?;
        self.flushed.set((index, term));
        *self.members.borrow_mut() = members.clone();
        *self.flushed_members.borrow_mut() = members;
        self.applied.set(index);
        self.applied_term.set(term);
        let whole = Arc::new(meta.clone());
        *self.meta.borrow_mut() = meta;
        self.follow(index, Some(Change::Whole(whole))).map_err(InstallFailure::Broken)
    }

    /// Applies an entry; `None` for one that does not concern the metadata themselves.
    fn step(&self, term: Term, index: LogIndex, command: Option<Command>) -> Result<tidemill_meta::Applied, MetaError> {
        assert_eq!(index, self.applied.get().next(), "metadata: entries are applied in order");
        self.applied.set(index);
        self.applied_term.set(term);
        match command {
            None => Ok(tidemill_meta::Applied::default()),
            Some(command) => self.meta.borrow_mut().apply(command),
        }
    }
}

impl<D: Disk> Machine for MetaMachine<D> {
    fn apply(&self, term: Term, index: LogIndex, payload: Option<&Payload>) -> Result<Outcome, String> {
        let Some(payload) = payload else {
            let opened = self.step(term, index, None);
            return opened.map(|_| Outcome::Opened).map_err(|error| error.to_string());
        };
        let (Payload::Command(bytes) | Payload::Logged(bytes)) = payload else {
            return Err("a batch of points in the metadata's log".into());
        };
        if let Some(members) = members_in(bytes) {
            *self.members.borrow_mut() = members.to_vec();
            return Ok(Outcome::Meta(index, self.step(term, index, None)));
        }
        let command = Command::decode(bytes).map_err(|error| error.to_string())?;
        let applied = self.step(term, index, Some(command.clone()));
        self.follow(index, applied.is_ok().then(|| Change::Command(Arc::new(command))))?;
        Ok(Outcome::Meta(index, applied))
    }

    fn replay(&self, term: Term, index: LogIndex, bytes: &[u8]) -> Result<(), String> {
        if let Some(members) = members_in(bytes) {
            *self.members.borrow_mut() = members.to_vec();
        }
        let is_command = !bytes.is_empty() && members_in(bytes).is_none();
        let command = is_command.then(|| Command::decode(bytes)).transpose();
        // A command that was refused is refused again, and changes as little.
        let _ = self.step(term, index, command.map_err(|error| error.to_string())?);
        Ok(())
    }

    fn flushed(&self) -> (LogIndex, Term) {
        self.flushed.get()
    }

    fn flushed_members(&self) -> Vec<u8> {
        self.flushed_members.borrow().clone()
    }

    fn applied(&self) -> LogIndex {
        self.applied.get()
    }

    fn offer(&self) -> LocalFuture<'_, Option<Offer>> {
        Box::pin(async {
            let index = self.applied.get();
            let manifest = self.encoded_with(&self.members.borrow());
            if manifest.len() > MANIFEST_BYTES_MAX {
                tracing::error!(bytes = manifest.len(), "the metadata are too large to be given to another node");
                return None;
            }
            Some(Offer { index, manifest: manifest.into() })
        })
    }

    fn install<'a>(&'a self, gift: &'a Gift, _: &'a dyn Sources) -> LocalFuture<'a, Result<(), InstallFailure>> {
        Box::pin(self.take_over(gift.base, &gift.manifest))
    }
}

/// A snapshot with the metadata in it.
fn decoded<D: Disk>(file: &SnapshotFile<D>, bytes: &[u8]) -> Result<(Snapshot, Meta), SnapshotError> {
    let snapshot = file.decode(bytes)?;
    let meta = Meta::decode(&snapshot.body)?;
    Ok((snapshot, meta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_disk::sim::{Crash, Fault, SimDisk, block_on};

    const MEMBERS: [u8; 11] = [1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn metadata_are_not_loaded_from_a_damaged_snapshot() {
        let mut meta = Meta::default();
        meta.apply(Command::CreateDatabase { name: "d".into(), policy: None, autocreate_policy: true }).unwrap();
        let disk = SimDisk::new(1);
        disk.set_yields(false);
        let bytes = {
            let file = block_on(1, SnapshotFile::open(disk.clone(), FOLDER, MAGIC)).unwrap();
            file.encode(LogIndex(7), Term(2), &MEMBERS, &meta.encode())
        };
        let load = |content: &[u8]| {
            disk.plant(SNAPSHOT, content.to_vec());
            block_on(1, MetaMachine::load(disk.clone())).map(|machine| machine.state())
        };
        assert_eq!(load(&bytes).unwrap(), meta);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = load(&damaged).unwrap_err().to_string();
            assert!(error.starts_with(SNAPSHOT), "bit {bit}: {error}");
        }
        for cut in 0..bytes.len() {
            assert!(load(&bytes[..cut]).unwrap_err().to_string().starts_with(SNAPSHOT), "cut at {cut}");
        }
    }

    fn with_databases(disk: &SimDisk, count: u64) -> MetaMachine<SimDisk> {
        let machine = block_on(1, MetaMachine::load(disk.clone())).unwrap();
        for number in 1..=count {
            let name = format!("d{number}");
            let command = Command::CreateDatabase { name, policy: None, autocreate_policy: true };
            machine.step(Term(1), LogIndex(number), Some(command)).unwrap();
        }
        machine
    }

    #[test]
    fn a_member_that_takes_a_snapshot_over_has_it_after_a_crash_and_its_cores_follow() {
        let (ours, theirs) = (SimDisk::new(1), SimDisk::new(2));
        let given = with_databases(&theirs, 9);
        block_on(3, async {
            let machine = with_databases(&ours, 2);
            let offer = given.offer().await.unwrap();
            let base = EntryId { term: Term(1), index: offer.index };
            let other = EntryId { term: Term(2), ..base };
            assert!(matches!(machine.take_over(other, &offer.manifest).await, Err(InstallFailure::Unchanged(_))));
            assert!(machine.take_over(base, &offer.manifest[1..]).await.is_err());
            assert_eq!(machine.state().databases().len(), 2);
            ours.create_dir(FOLDER).await.unwrap();
            machine.take_over(base, &offer.manifest).await.unwrap();
            assert_eq!((machine.state(), machine.applied()), (given.state(), LogIndex(9)));
            let (index, change) = machine.unfollowed.pop().await.unwrap();
            assert!(matches!(change, Some(Change::Whole(meta)) if *meta == given.state()) && index == LogIndex(9));
            let after = MetaMachine::load(ours.crash(Crash::Drop, 4)).await.unwrap();
            assert_eq!((after.state(), after.flushed()), (given.state(), (LogIndex(9), Term(1))));
        });
    }

    #[test]
    fn a_call_that_fails_anywhere_in_a_snapshot_leaves_the_old_or_the_new_and_it_can_be_made_again() {
        let mut failed = 0;
        for fault in [Fault::Eio, Fault::StorageFull, Fault::ShortWrite] {
            for nth in 1.. {
                let disk = SimDisk::new(nth);
                disk.set_yields(false);
                let (old, new) = (with_databases(&disk, 2), with_databases(&disk, 60));
                let took = block_on(nth, async {
                    disk.create_dir(FOLDER).await.unwrap();
                    old.snapshot().await.unwrap();
                    let before = disk.operations_total();
                    disk.fail_at(None, nth, fault);
                    let context = format!("{fault:?} at call {nth}");
                    if new.snapshot().await.is_ok() {
                        return disk.operations_total() - before;
                    }
                    failed += 1;
                    assert_eq!(new.flushed.get().0, LogIndex(0), "{context}: the log is still needed");
                    for crash in Crash::ALL {
                        let after = MetaMachine::load(disk.crash(crash, nth)).await;
                        let after = after.unwrap_or_else(|error| panic!("{context} {crash:?}: {error}"));
                        let is_old = after.state() == old.state() && after.applied.get() == LogIndex(2);
                        let is_new = after.state() == new.state() && after.applied.get() == LogIndex(60);
                        assert!(is_old || is_new, "{context} {crash:?}");
                    }
                    new.snapshot().await.unwrap_or_else(|error| panic!("{context}, again: {error}"));
                    let after = MetaMachine::load(disk.crash(Crash::Drop, nth)).await.unwrap();
                    assert_eq!((after.state(), after.applied.get()), (new.state(), LogIndex(60)), "{context}");
                    u64::MAX
                });
                if took < nth {
                    break;
                }
                assert_eq!(took, u64::MAX, "{fault:?} at call {nth} went unnoticed");
            }
        }
        assert!(failed > 12, "{failed}");
    }
}
