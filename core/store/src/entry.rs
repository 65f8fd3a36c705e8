//! What the entries of a partition's log say.
//!
//! An entry is one byte of kind and a body: a partition batch as `core/line` sealed it, a command, or the members of the
//! partition's group. Commands carry everything that decides their effect; values of clocks and chance are the proposer's.

use crate::{
    index::{SeriesIndex, TagPredicate},
    manifest::HandedFile,
};
use rkyv::{
    Archive, Deserialize, Serialize,
    api::access_with_context,
    rancor::Error,
    util::AlignedVec,
    validation::{Validator, archive::ArchiveValidator, shared::SharedValidator},
};
use std::{borrow::Cow, num::NonZeroUsize};
use tidemill_line::PartitionMap;
use tidemill_tsm::FloatEncoding;

/// How deep a command may be nested: above what the height of a statement's condition allows (256), and far below what
/// a stack holds. Without it an entry of some KiB could end the process.
pub(crate) const DEPTH_MAX: usize = 1024;

const KIND_WRITE: u8 = 1;
const KIND_COMMAND: u8 = 2;
const KIND_MEMBERS: u8 = 3;

/// An entry, its body still in place.
#[derive(Debug)]
pub enum Entry<'a> {
    Write(&'a [u8]),
    Command(Command),
    /// Who holds the partition from here on. The bytes mean nothing to the store: it keeps the newest of them.
    Members(&'a [u8]),
}

/// A change other than a write.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub enum Command {
    /// Everything in the memtables at this index goes to files, whose floats are encoded so.
    Flush { floats: Floats },
    /// Points of the selected series in the inclusive range are gone.
    Delete { database: u32, measurements: Measurements, condition: TagCondition, min_time: i64, max_time: i64 },
    /// These shard groups are gone, with their points.
    DropShardGroups { groups: Vec<u64> },
    /// The database is gone, with its series and these shard groups.
    DropDatabase { database: u32, groups: Vec<u64> },
    /// Files of a shard group move to the next level.
    Copy(CopyOrder),
    /// All points of a measurement's field are gone.
    DropField { database: u32, measurement: Vec<u8>, field: Vec<u8> },
    /// L2 files of a shard group are in the storage pool: their blocks belong to it from here on. Files that are not there
    /// any more are passed over. With `keeps_local` replicas keep the blocks as well.
    HandOver { shard_group: u64, files: Vec<HandedFile>, keeps_local: bool },
}

/// Which files of a shard group an inter-level copy takes. What comes out follows from this, the files and the deletes
/// before the entry alone.
///
/// Besides the files that are named, L2 files are written anew that have a block which a block of a named L1 file
/// overlaps.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CopyOrder {
    pub shard_group: u64,
    /// Ordered L1 files up to this generation.
    pub ordered_through: u64,
    /// Late L1 files up to this generation; at most `ordered_through`, because a late run lies above all ordered files
    /// that were there before it.
    pub late_through: u64,
    /// L2 files of these generations.
    pub sealed: Vec<u64>,
    /// Also L2 files with a block that a delete covers, in part or as a whole.
    pub with_deleted: bool,
    /// How float blocks are written that cannot go along as they are.
    pub floats: Floats,
    /// Size at which the copy begins another file, at the next series.
    pub file_bytes_max: u64,
}

/// How the float blocks of new files are encoded: the proposer's choice, so that all replicas write the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Floats {
    /// As upstream reads them.
    #[default]
    Gorilla,
    /// Denser; see `tidemill_tsm::alp`.
    Alp,
}

impl From<Floats> for FloatEncoding {
    fn from(floats: Floats) -> FloatEncoding {
        match floats {
            Floats::Gorilla => FloatEncoding::Gorilla,
            Floats::Alp => FloatEncoding::Alp,
        }
    }
}

/// Which measurements a DELETE or DROP names.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub enum Measurements {
    All,
    Named(Vec<Vec<u8>>),
    /// Unanchored regular expression.
    Matching(String),
    /// These points of series alone, in the shard groups of one retention policy. Series ascend by key.
    Points {
        policy: u32,
        series: Vec<SeriesTimes>,
    },
}

/// Points of one series.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SeriesTimes {
    /// Canonical.
    pub key: Vec<u8>,
    /// Ascending.
    pub times: Vec<i64>,
}

/// A condition on tags as it travels; [`TagPredicate`] is its form for evaluation.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source))]
#[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
#[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
pub enum TagCondition {
    All,
    And(#[rkyv(omit_bounds)] Vec<TagCondition>),
    Or(#[rkyv(omit_bounds)] Vec<TagCondition>),
    Equal { key: Vec<u8>, value: Vec<u8> },
    NotEqual { key: Vec<u8>, value: Vec<u8> },
    Matches { key: Vec<u8>, regex: String },
    NotMatches { key: Vec<u8>, regex: String },
}

/// An entry that does not say anything.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("an empty entry")]
    Empty,
    #[error("an entry of unknown kind {0}")]
    UnknownKind(u8),
    #[error("a command that does not decode: {0}")]
    Command(String),
    #[error("a regular expression that does not compile: {0}")]
    Regex(#[from] regex::Error),
}

impl<'a> Entry<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Entry<'a>, EntryError> {
        let (kind, body) = bytes.split_first().ok_or(EntryError::Empty)?;
        match *kind {
            KIND_WRITE => Ok(Entry::Write(body)),
            KIND_COMMAND => {
                let mut aligned = AlignedVec::<16>::with_capacity(body.len());
                aligned.extend_from_slice(body);
                let archive = ArchiveValidator::with_max_depth(&aligned, NonZeroUsize::new(DEPTH_MAX));
                let mut validator = Validator::new(archive, SharedValidator::new());
                let archived = access_with_context::<ArchivedCommand, _, Error>(&aligned, &mut validator);
                let command = archived.and_then(rkyv::deserialize::<Command, Error>);
                command.map(Entry::Command).map_err(|error| EntryError::Command(error.to_string()))
            }
            KIND_MEMBERS => Ok(Entry::Members(body)),
            kind => Err(EntryError::UnknownKind(kind)),
        }
    }
}

/// First byte of a write entry; the sealed partition batch follows.
pub const fn write_prefix() -> u8 {
    KIND_WRITE
}

/// First byte of an entry that says who holds the group; their encoding follows. No command of any state machine begins
/// with it.
pub const fn members_prefix() -> u8 {
    KIND_MEMBERS
}

impl Command {
    /// A flush to files that upstream reads.
    pub const PLAIN_FLUSH: Command = Command::Flush { floats: Floats::Gorilla };

    /// The entry's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let body = rkyv::to_bytes::<Error>(self).expect("a command has no part that can fail to serialize");
        let mut bytes = Vec::with_capacity(1 + body.len());
        bytes.push(KIND_COMMAND);
        bytes.extend_from_slice(&body);
        bytes
    }
}

impl Command {
    /// What of a command concerns one of the partitions; `None` if nothing does.
    pub fn of_partition(&self, partition: u32, partitions: &PartitionMap) -> Option<Cow<'_, Command>> {
        let Command::Delete { database, measurements, condition, min_time, max_time } = self else {
            return Some(Cow::Borrowed(self));
        };
        let Measurements::Points { policy, series } = measurements else { return Some(Cow::Borrowed(self)) };
        let is_here = |one: &&SeriesTimes| partitions.partition_of(SeriesIndex::hash_of(&one.key)) == partition;
        let series: Vec<SeriesTimes> = series.iter().filter(is_here).cloned().collect();
        if series.is_empty() {
            return None;
        }
        let measurements = Measurements::Points { policy: *policy, series };
        let (condition, database, min_time, max_time) = (condition.clone(), *database, *min_time, *max_time);
        Some(Cow::Owned(Command::Delete { database, measurements, condition, min_time, max_time }))
    }
}

impl TagCondition {
    /// The form that the index evaluates.
    pub fn compile(&self) -> Result<TagPredicate, EntryError> {
        let all = |parts: &[TagCondition]| parts.iter().map(TagCondition::compile).collect::<Result<Vec<_>, _>>();
        Ok(match self {
            TagCondition::All => TagPredicate::All,
            TagCondition::And(parts) => TagPredicate::And(all(parts)?),
            TagCondition::Or(parts) => TagPredicate::Or(all(parts)?),
            TagCondition::Equal { key, value } => {
                TagPredicate::Equal { key: key.as_slice().into(), value: value.as_slice().into() }
            }
            TagCondition::NotEqual { key, value } => {
                TagPredicate::NotEqual { key: key.as_slice().into(), value: value.as_slice().into() }
            }
            TagCondition::Matches { key, regex } => {
                TagPredicate::Matches { key: key.as_slice().into(), regex: regex::bytes::Regex::new(regex)? }
            }
            TagCondition::NotMatches { key, regex } => {
                TagPredicate::NotMatches { key: key.as_slice().into(), regex: regex::bytes::Regex::new(regex)? }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_back_and_damage_is_an_error() {
        let command = Command::Delete {
            database: 3,
            measurements: Measurements::Matching("^cpu".into()),
            condition: TagCondition::And(vec![
                TagCondition::Equal { key: b"host".to_vec(), value: b"a".to_vec() },
                TagCondition::Or(vec![TagCondition::Matches { key: b"dc".to_vec(), regex: "x|y".into() }]),
            ]),
            min_time: i64::MIN,
            max_time: 7,
        };
        let bytes = command.encode();
        let Entry::Command(decoded) = Entry::parse(&bytes).unwrap() else { panic!("a write") };
        assert_eq!(decoded, command);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = Entry::parse(&damaged);
        }
        assert!(matches!(Entry::parse(&[]), Err(EntryError::Empty)));
        assert!(matches!(Entry::parse(&[9]), Err(EntryError::UnknownKind(9))));
        assert!(TagCondition::Matches { key: vec![], regex: "(".into() }.compile().is_err());
    }

    #[test]
    fn a_condition_that_is_nested_too_deeply_is_an_error_not_an_overflow() {
        let nested = |depth| {
            let condition = (0..depth).fold(TagCondition::All, |inner, _| TagCondition::And(vec![inner]));
            let (database, measurements) = (1, Measurements::All);
            Command::Delete { database, measurements, condition, min_time: 0, max_time: 1 }.encode()
        };
        assert!(Entry::parse(&nested(300)).is_ok());
        assert!(matches!(Entry::parse(&nested(2_000)), Err(EntryError::Command(_))));
    }
}
