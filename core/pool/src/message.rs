//! What is asked of masters and slaves, and what they answer.
//!
//! Bytes of another node are checked as a whole before anything of them is looked at.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::{FileId, FilesDigest};
use bytes::{BufMut, Bytes, BytesMut};
use rkyv::{
    Archive, Deserialize, Serialize,
    api::high::{HighDeserializer, HighSerializer, HighValidator},
    rancor::Error,
    ser::allocator::ArenaHandle,
    util::AlignedVec,
};

/// The most bytes that one [`StoreCall::Read`] asks for.
pub const READ_BYTES_MAX: u32 = 512 << 10;
/// The most files that one beat names as added, and as removed: what is more waits for the next beat.
pub const FILES_IN_BEAT_MAX: usize = 8192;

/// Asked of a master.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum MasterCall {
    /// By the leader of a partition, again and again until there are copies enough.
    Place(Place),
    /// By the leader of a partition.
    Report(Report),
    /// By anybody; any master answers, from what it has applied.
    Where(Vec<FileId>),
    /// By a slave, every second.
    Beat(Beat),
    /// How the pool stands, for people and their tools.
    Status,
    Change(Change),
}

/// A file is to have copies in the pool.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Place {
    pub partition: u32,
    /// Of the partition's raft group: who has an older one than was heard of is not listened to.
    pub term: u64,
    pub file: FileId,
    /// Bytes.
    pub size: u64,
    /// Of the newest and the oldest point, ns.
    pub min_time: i64,
    pub max_time: i64,
    /// At least one.
    pub copies: u8,
    /// Where it is outside of the pool.
    pub sources: Vec<Source>,
}

/// All that a partition has in the pool, or on its way there. What it does not name is not its own any more.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Report {
    pub partition: u32,
    pub term: u64,
    /// Of the partition's log: the report is of the state behind this entry, and an older one is not listened to.
    pub index: u64,
    /// With the number of copies that are wanted.
    pub files: Vec<(FileId, u8)>,
}

/// Where a file can be had from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub enum Source {
    /// A pool slave.
    Slave(u64),
    /// A data node: a file below the folder of the partition.
    Data { node: u64, partition: u32, name: String },
}

/// A slave is there.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Beat {
    pub slave: u64,
    /// Drawn at random at each start of the process.
    pub incarnation: u64,
    /// One more than that of the beat before which was answered.
    pub sequence: u64,
    pub capacity_bytes: u64,
    pub free_bytes: u64,
    /// What was told before does not count: the slave begins to tell all that it has.
    pub restarts: bool,
    /// Everything was told, with this beat.
    pub is_complete: bool,
    /// Since the beat before, with their sizes; what was removed went before.
    pub added: Vec<(FileId, u64)>,
    pub removed: Vec<FileId>,
    /// Of the files that were told, this beat's included.
    pub told: FilesDigest,
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Change {
    /// Nothing new goes to the slave; what it has stays.
    Drain { slave: u64 },
    /// What the slave has is copied elsewhere, and then it holds nothing.
    Evacuate { slave: u64 },
    /// The slave takes files again.
    Activate { slave: u64 },
    /// Whether the pool can do without the slave: refused while it cannot.
    Release { slave: u64 },
    /// Copies move from full slaves to empty ones.
    Rebalance,
    /// All slaves, or one, read all their files again.
    Scrub { slave: Option<u64> },
}

/// What a master answers.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum MasterReply {
    Placed(Placed),
    Reported,
    Located(Vec<(FileId, Vec<u64>)>),
    Beaten(Beaten),
    /// JSON.
    Status(String),
    Changed(String),
    /// Ask this one, or if it is zero any other.
    NotLeader {
        hint: u64,
    },
    /// The partition's term is older than one that was heard of.
    Fenced {
        term: u64,
    },
    /// What is wrong with what was asked.
    Refused(String),
    /// It could not be done now: ask again.
    Failed(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Placed {
    /// Slaves that have the file for good, ascending.
    pub durable: Vec<u64>,
    pub wanted: u8,
    /// Why there are not more, where that is not only a matter of time.
    pub why: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Beaten {
    /// The next beat is to restart.
    pub wants_all: bool,
    /// Of the master: orders of an older one do not count.
    pub epoch: u64,
}

/// Asked of a slave. Orders carry the epoch of the master that gives them.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum StoreCall {
    /// Get this file, from all of the sources at once; answered when it is durable.
    Fetch {
        epoch: u64,
        file: FileId,
        size: u64,
        sources: Vec<Source>,
    },
    /// What is on its way to the slave.
    Progress,
    /// At most [`READ_BYTES_MAX`] bytes of a file, from `offset`; fewer at its end.
    Read {
        file: FileId,
        offset: u64,
        length: u32,
    },
    Delete {
        epoch: u64,
        files: Vec<FileId>,
    },
    /// The files behind this one in order, as many as fit into an answer.
    List {
        after: Option<FileId>,
    },
    /// Read all files again; answered when that has begun.
    Scrub {
        epoch: u64,
    },
}

/// What a slave answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreReply {
    /// Of [`StoreCall::Read`].
    Bytes(Bytes),
    Told(Stored),
}

#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Stored {
    /// File and folder are synced.
    Stored,
    Progress(Vec<Arriving>),
    Deleted,
    Listed(Vec<(FileId, u64)>),
    Scrubbing,
    NotFound,
    /// The master's epoch is older than one that was heard of.
    Fenced {
        epoch: u64,
    },
    Failed {
        why: String,
    },
}

/// A file on its way to a slave.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Arriving {
    pub file: FileId,
    pub size: u64,
    pub bytes: u64,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no message of the pool")]
pub struct DecodeError;

const TOLD: u8 = 0;
const BYTES: u8 = 1;

fn archived<T>(value: &T) -> AlignedVec
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>,
{
    match rkyv::to_bytes::<Error>(value) {
        Ok(bytes) => bytes,
        // Nothing that is archived here can fail: memory that is missing aborts the process.
        Err(_) => AlignedVec::new(),
    }
}

fn unarchived<T>(bytes: &[u8]) -> Result<T, DecodeError>
where
    T: Archive,
    T::Archived:
        for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, Error>> + Deserialize<T, HighDeserializer<Error>>,
{
    rkyv::from_bytes::<T, Error>(bytes).map_err(|_| DecodeError)
}

impl MasterCall {
    pub fn encode(&self) -> Bytes {
        Bytes::from_owner(archived(self))
    }

    pub fn decode(bytes: &[u8]) -> Result<MasterCall, DecodeError> {
        unarchived(bytes)
    }
}

impl MasterReply {
    pub fn encode(&self) -> Bytes {
        Bytes::from_owner(archived(self))
    }

    pub fn decode(bytes: &[u8]) -> Result<MasterReply, DecodeError> {
        unarchived(bytes)
    }
}

impl StoreCall {
    pub fn encode(&self) -> Bytes {
        Bytes::from_owner(archived(self))
    }

    pub fn decode(bytes: &[u8]) -> Result<StoreCall, DecodeError> {
        unarchived(bytes)
    }
}

impl StoreReply {
    /// Archives, and bytes of files as they are.
    pub fn encode(&self) -> Bytes {
        match self {
            StoreReply::Told(told) => joined(TOLD, &archived(told)),
            StoreReply::Bytes(bytes) => joined(BYTES, bytes),
        }
    }

    /// Bytes of a file are shared, not copied.
    pub fn decode(bytes: &Bytes) -> Result<StoreReply, DecodeError> {
        match bytes.split_first() {
            Some((&TOLD, rest)) => Ok(StoreReply::Told(unarchived(rest)?)),
            Some((&BYTES, rest)) => Ok(StoreReply::Bytes(bytes.slice_ref(rest))),
            _ => Err(DecodeError),
        }
    }
}

fn joined(first: u8, rest: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + rest.len());
    out.put_u8(first);
    out.put_slice(rest);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, option, prelude::*};

    fn file() -> impl Strategy<Value = FileId> {
        any::<[u8; 32]>().prop_map(FileId)
    }

    fn source() -> impl Strategy<Value = Source> {
        prop_oneof![
            any::<u64>().prop_map(Source::Slave),
            (any::<u64>(), any::<u32>(), ".{0,30}").prop_map(|(node, partition, name)| Source::Data {
                node,
                partition,
                name
            }),
        ]
    }

    fn master_call() -> impl Strategy<Value = MasterCall> {
        let place = (any::<(u32, u64, u64, i64, i64, u8)>(), file(), vec(source(), 0..4)).prop_map(
            |((partition, term, size, min_time, max_time, copies), file, sources)| {
                MasterCall::Place(Place { partition, term, file, size, min_time, max_time, copies, sources })
            },
        );
        let report = (any::<(u32, u64, u64)>(), vec((file(), any::<u8>()), 0..9))
            .prop_map(|((partition, term, index), files)| MasterCall::Report(Report { partition, term, index, files }));
        let beat =
            (any::<(u64, u64, u64, u64, u64, bool, bool)>(), vec((file(), any::<u64>()), 0..9), vec(file(), 0..9));
        let beat = beat.prop_map(
            |((slave, incarnation, sequence, capacity_bytes, free_bytes, restarts, is_complete), added, removed)| {
                let told = FilesDigest::of(&removed);
                MasterCall::Beat(Beat {
                    slave,
                    incarnation,
                    sequence,
                    capacity_bytes,
                    free_bytes,
                    restarts,
                    is_complete,
                    added,
                    removed,
                    told,
                })
            },
        );
        let change = prop_oneof![
            any::<u64>().prop_map(|slave| Change::Drain { slave }),
            any::<u64>().prop_map(|slave| Change::Evacuate { slave }),
            any::<u64>().prop_map(|slave| Change::Activate { slave }),
            any::<u64>().prop_map(|slave| Change::Release { slave }),
            Just(Change::Rebalance),
            option::of(any::<u64>()).prop_map(|slave| Change::Scrub { slave }),
        ];
        prop_oneof![
            place,
            report,
            vec(file(), 0..9).prop_map(MasterCall::Where),
            beat,
            Just(MasterCall::Status),
            change.prop_map(MasterCall::Change),
        ]
    }

    fn master_reply() -> impl Strategy<Value = MasterReply> {
        prop_oneof![
            (vec(any::<u64>(), 0..4), any::<u8>(), option::of(".{0,20}"))
                .prop_map(|(durable, wanted, why)| MasterReply::Placed(Placed { durable, wanted, why })),
            Just(MasterReply::Reported),
            vec((file(), vec(any::<u64>(), 0..3)), 0..5).prop_map(MasterReply::Located),
            (any::<bool>(), any::<u64>())
                .prop_map(|(wants_all, epoch)| MasterReply::Beaten(Beaten { wants_all, epoch })),
            ".{0,20}".prop_map(MasterReply::Status),
            ".{0,20}".prop_map(MasterReply::Changed),
            any::<u64>().prop_map(|hint| MasterReply::NotLeader { hint }),
            any::<u64>().prop_map(|term| MasterReply::Fenced { term }),
            ".{0,20}".prop_map(MasterReply::Refused),
            ".{0,20}".prop_map(MasterReply::Failed),
        ]
    }

    fn store_call() -> impl Strategy<Value = StoreCall> {
        prop_oneof![
            (any::<u64>(), file(), any::<u64>(), vec(source(), 0..4))
                .prop_map(|(epoch, file, size, sources)| StoreCall::Fetch { epoch, file, size, sources }),
            Just(StoreCall::Progress),
            (file(), any::<u64>(), any::<u32>()).prop_map(|(file, offset, length)| StoreCall::Read {
                file,
                offset,
                length
            }),
            (any::<u64>(), vec(file(), 0..5)).prop_map(|(epoch, files)| StoreCall::Delete { epoch, files }),
            option::of(file()).prop_map(|after| StoreCall::List { after }),
            any::<u64>().prop_map(|epoch| StoreCall::Scrub { epoch }),
        ]
    }

    fn store_reply() -> impl Strategy<Value = StoreReply> {
        let arriving =
            (file(), any::<u64>(), any::<u64>()).prop_map(|(file, size, bytes)| Arriving { file, size, bytes });
        let told = prop_oneof![
            Just(Stored::Stored),
            vec(arriving, 0..4).prop_map(Stored::Progress),
            Just(Stored::Deleted),
            vec((file(), any::<u64>()), 0..4).prop_map(Stored::Listed),
            Just(Stored::Scrubbing),
            Just(Stored::NotFound),
            any::<u64>().prop_map(|epoch| Stored::Fenced { epoch }),
            ".{0,20}".prop_map(|why| Stored::Failed { why }),
        ];
        prop_oneof![
            told.prop_map(StoreReply::Told),
            vec(any::<u8>(), 0..300).prop_map(|bytes| StoreReply::Bytes(bytes.into())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            asked in master_call(), answered in master_reply(), order in store_call(), done in store_reply(),
        ) {
            prop_assert_eq!(MasterCall::decode(&asked.encode()), Ok(asked));
            prop_assert_eq!(MasterReply::decode(&answered.encode()), Ok(answered));
            prop_assert_eq!(StoreCall::decode(&order.encode()), Ok(order));
            prop_assert_eq!(StoreReply::decode(&done.encode()), Ok(done));
        }

        #[test]
        fn damaged_bytes_do_no_harm(asked in master_call(), done in store_reply(), at in any::<usize>(), bit in 0..8u8) {
            for bytes in [asked.encode(), done.encode()] {
                let mut damaged = bytes.to_vec();
                if !damaged.is_empty() {
                    let at = at % damaged.len();
                    damaged[at] ^= 1 << bit;
                    let cut = Bytes::copy_from_slice(&damaged[..at]);
                    let damaged = Bytes::from(damaged);
                    for bytes in [&damaged, &cut] {
                        let _ = (MasterCall::decode(bytes), MasterReply::decode(bytes));
                        let _ = (StoreCall::decode(bytes), StoreReply::decode(bytes));
                    }
                }
            }
        }
    }
}
