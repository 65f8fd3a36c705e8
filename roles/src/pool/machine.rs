//! The masters' group: state machine and snapshot.
//!
//! The group lives in the log of core 0 of each master. Its snapshot is replaced as a whole whenever the log's oldest
//! segment waits for it; a member that lags far behind is given one.

use crate::replica::{
    DamagedSnapshot, Gift, InstallFailure, LocalFuture, Machine, Offer, Outcome, Payload, Snapshot, SnapshotFile,
    Sources, members_in,
};
use std::cell::{Cell, Ref, RefCell};
use tidemill_disk::Disk;
use tidemill_pool::{Applied, BadPoolBytes, Command, Pool};
use tidemill_raft::{EntryId, LogIndex, MANIFEST_BYTES_MAX, Term};
use tidemill_store::Turn;

const FOLDER: &str = "pool-master";
const MAGIC: [u8; 8] = *b"TMILLPO1";

/// The pool as entries make it.
pub struct PoolMachine<D: Disk> {
    file: SnapshotFile<D>,
    pool: RefCell<Pool>,
    applied: Cell<(LogIndex, Term)>,
    flushed: Cell<(LogIndex, Term)>,
    /// As the newest entry that brought any said, in their encoding.
    members: RefCell<Vec<u8>>,
    flushed_members: RefCell<Vec<u8>>,
    /// Of those who write the snapshot.
    writing: Turn,
}

/// Why what the masters agreed on cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PoolSnapshotError {
    #[error("{FOLDER}/snapshot: {0}")]
    Io(#[from] std::io::Error),
    #[error("{FOLDER}/snapshot: {0}")]
    Damaged(#[from] DamagedSnapshot),
    #[error("{FOLDER}/snapshot: {0}")]
    Decode(#[from] BadPoolBytes),
}

impl<D: Disk> PoolMachine<D> {
    /// The pool of the snapshot; an empty one without.
    pub async fn load(disk: D) -> Result<PoolMachine<D>, PoolSnapshotError> {
        let file = SnapshotFile::open(disk, FOLDER, MAGIC).await?;
        let (Snapshot { index, term, members, .. }, pool) = match file.read().await? {
            Some(bytes) => decoded(&file, &bytes)?,
            None => Default::default(),
        };
        Ok(PoolMachine {
            file,
            pool: RefCell::new(pool),
            applied: Cell::new((index, term)),
            flushed: Cell::new((index, term)),
            members: RefCell::new(members.clone()),
            flushed_members: RefCell::new(members),
            writing: Turn::default(),
        })
    }

    pub fn pool(&self) -> Ref<'_, Pool> {
        self.pool.borrow()
    }

    /// Of the newest entry that was applied.
    pub fn term(&self) -> Term {
        self.applied.get().1
    }

    /// Makes the present state durable. Returns the index up to which the log is not needed any more.
    pub async fn snapshot(&self) -> Result<LogIndex, PoolSnapshotError> {
        let _turn = self.writing.take().await;
        let applied = self.applied.get();
        let members = self.members.borrow().clone();
        let file = self.file.write(&self.encoded()).await?;
        self.file.publish(file).await?;
        self.flushed.set(applied);
        *self.flushed_members.borrow_mut() = members;
        Ok(applied.0)
    }

    fn encoded(&self) -> Vec<u8> {
        let (index, term) = self.applied.get();
        self.file.encode(index, term, &self.members.borrow(), &self.pool.borrow().encode())
    }

    /// Becomes what another member's snapshot says.
    async fn take_over(&self, base: EntryId, bytes: &[u8]) -> Result<(), InstallFailure> {
        let unchanged = |error: PoolSnapshotError| InstallFailure::Unchanged(error.to_string());
        let (Snapshot { index, term, members, .. }, pool) = decoded(&self.file, bytes).map_err(unchanged)?;
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
        self.applied.set((index, term));
        *self.pool.borrow_mut() = pool;
        Ok(())
    }

    fn step(&self, term: Term, index: LogIndex, bytes: &[u8]) -> Result<Applied, String> {
        assert_eq!(index, self.applied.get().0.next(), "pool: entries are applied in order");
        if let Some(members) = members_in(bytes) {
            *self.members.borrow_mut() = members.to_vec();
            self.applied.set((index, term));
            return Ok(Applied::Done);
        }
        let command = Command::decode(bytes).map_err(|error| error.to_string())?;
        self.applied.set((index, term));
        Ok(self.pool.borrow_mut().apply(command))
    }
}

impl<D: Disk> Machine for PoolMachine<D> {
    fn apply(&self, term: Term, index: LogIndex, payload: Option<&Payload>) -> Result<Outcome, String> {
        match payload {
            None => {
                self.replay(term, index, &[])?;
                Ok(Outcome::Opened)
            }
            Some(Payload::Command(bytes) | Payload::Logged(bytes)) => Ok(Outcome::Pool(self.step(term, index, bytes)?)),
            Some(Payload::Batch(_)) => Err("a batch of points in the log of the pool".into()),
        }
    }

    fn replay(&self, term: Term, index: LogIndex, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() {
            assert_eq!(index, self.applied.get().0.next(), "pool: entries are applied in order");
            self.applied.set((index, term));
            return Ok(());
        }
        self.step(term, index, bytes).map(drop)
    }

    fn flushed(&self) -> (LogIndex, Term) {
        self.flushed.get()
    }

    fn flushed_members(&self) -> Vec<u8> {
        self.flushed_members.borrow().clone()
    }

    fn applied(&self) -> LogIndex {
        self.applied.get().0
    }

    fn offer(&self) -> LocalFuture<'_, Option<Offer>> {
        Box::pin(async {
            let manifest = self.encoded();
            if manifest.len() > MANIFEST_BYTES_MAX {
                tracing::error!(bytes = manifest.len(), "the pool's files are too many to be told to another master");
                return None;
            }
            Some(Offer { index: self.applied(), manifest: manifest.into() })
        })
    }

    fn install<'a>(&'a self, gift: &'a Gift, _: &'a dyn Sources) -> LocalFuture<'a, Result<(), InstallFailure>> {
        Box::pin(self.take_over(gift.base, &gift.manifest))
    }
}

/// A snapshot with the pool in it.
fn decoded<D: Disk>(file: &SnapshotFile<D>, bytes: &[u8]) -> Result<(Snapshot, Pool), PoolSnapshotError> {
    let snapshot = file.decode(bytes)?;
    let pool = Pool::decode(&snapshot.body)?;
    Ok((snapshot, pool))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tidemill_disk::sim::{Crash, SimDisk, block_on};
    use tidemill_pool::{FileId, Place};

    fn place(byte: u8) -> Payload {
        let place = Place {
            partition: 3,
            term: 1,
            file: FileId([byte; 32]),
            size: 9,
            min_time: 0,
            max_time: 1,
            copies: 2,
            sources: Vec::new(),
        };
        Payload::Command(Bytes::from(Command::Place(place).encode()))
    }

    #[test]
    fn a_snapshot_and_the_log_behind_it_make_the_same_pool_here_and_at_another_master() {
        let (ours, theirs) = (SimDisk::new(1), SimDisk::new(2));
        block_on(1, async {
            let machine = PoolMachine::load(ours.clone()).await.unwrap();
            machine.apply(Term(1), LogIndex(1), None).unwrap();
            for byte in 2..=6 {
                machine.apply(Term(1), LogIndex(byte), Some(&place(byte as u8))).unwrap();
                if byte == 4 {
                    machine.snapshot().await.unwrap();
                }
            }
            let after = PoolMachine::load(ours.crash(Crash::Drop, 3)).await.unwrap();
            assert_eq!((after.applied(), after.pool().files().len()), (LogIndex(4), 3));
            for byte in 5..=6u8 {
                let Payload::Command(bytes) = place(byte) else { unreachable!() };
                after.replay(Term(1), LogIndex(byte.into()), &bytes).unwrap();
            }
            assert_eq!(*after.pool(), *machine.pool());
            let other = PoolMachine::load(theirs.clone()).await.unwrap();
            let offer = machine.offer().await.unwrap();
            let base = EntryId { term: Term(1), index: offer.index };
            let wrong = EntryId { term: Term(2), ..base };
            assert!(matches!(other.take_over(wrong, &offer.manifest).await, Err(InstallFailure::Unchanged(_))));
            other.take_over(base, &offer.manifest).await.unwrap();
            assert_eq!((other.applied(), &*other.pool()), (LogIndex(6), &*machine.pool()));
            let after = PoolMachine::load(theirs.crash(Crash::Drop, 4)).await.unwrap();
            assert_eq!(*after.pool(), *machine.pool());
        });
    }
}
