//! What the masters have agreed on: slaves, files, who owns them and who holds them.

use crate::{BadPoolBytes, FileId, Place, Source};
use rkyv::{Archive, Deserialize, Serialize, rancor::Error, util::AlignedVec};
use std::collections::{BTreeMap, BTreeSet};

/// The state of the pool. Sets that could be counted anew from the rest are kept, so that a look at a large pool is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    pub(crate) slaves: BTreeMap<u64, Slave>,
    pub(crate) files: BTreeMap<FileId, File>,
    pub(crate) partitions: BTreeMap<u32, Heard>,
    /// Files with fewer copies that stay than are wanted.
    pub(crate) short: BTreeSet<FileId>,
    /// With more than that.
    pub(crate) excess: BTreeSet<FileId>,
    /// Of nobody any more.
    pub(crate) garbage: BTreeSet<FileId>,
    /// With copies on their way.
    pub(crate) under_way: BTreeSet<FileId>,
}

/// A node that stores files.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Slave {
    /// Slaves of one domain may fail together.
    pub domain: String,
    pub standing: Standing,
    /// It says nothing: its copies do not count until it comes back.
    pub is_lost: bool,
}

/// What a slave is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Standing {
    Active,
    /// It takes no new files.
    Draining,
    /// It takes no new files, and those that it has are to be elsewhere.
    Evacuating,
}

/// A file of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct File {
    /// Zero: only the file itself can tell.
    pub size: u64,
    pub min_time: i64,
    pub max_time: i64,
    /// Partitions with the copies that each wants, ascending. None: the file is garbage.
    pub owners: Vec<(u32, u8)>,
    /// Where it was outside of the pool.
    pub sources: Vec<Source>,
    /// Slaves that it is copied to, ascending.
    pub targets: Vec<u64>,
    /// Slaves that have said that they have it for good, ascending, lost ones included.
    pub durable: Vec<u64>,
    /// There have been copies enough: outside of the pool it may be nowhere.
    pub was_complete: bool,
}

/// What was heard of a partition last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Heard {
    pub term: u64,
    /// Of the partition's log.
    pub index: u64,
}

impl Standing {
    pub fn name(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Draining => "draining",
            Standing::Evacuating => "evacuating",
        }
    }
}

impl File {
    pub(crate) fn of(place: &Place) -> File {
        File {
            size: place.size,
            min_time: place.min_time,
            max_time: place.max_time,
            owners: Vec::new(),
            sources: Vec::new(),
            targets: Vec::new(),
            durable: Vec::new(),
            was_complete: false,
        }
    }

    /// Copies that the file is to have.
    pub fn wanted(&self) -> usize {
        self.owners.iter().map(|(_, copies)| usize::from(*copies)).max().unwrap_or(0)
    }

    /// Makes a partition an owner.
    pub(crate) fn own(&mut self, partition: u32, copies: u8) {
        match self.owners.binary_search_by_key(&partition, |(owner, _)| *owner) {
            Ok(at) => self.owners[at].1 = copies,
            Err(at) => self.owners.insert(at, (partition, copies)),
        }
    }
}

/// Puts something into an ascending list.
pub(crate) fn put(list: &mut Vec<u64>, value: u64) {
    if let Err(at) = list.binary_search(&value) {
        list.insert(at, value);
    }
}

impl Pool {
    pub fn slaves(&self) -> &BTreeMap<u64, Slave> {
        &self.slaves
    }

    pub fn files(&self) -> &BTreeMap<FileId, File> {
        &self.files
    }

    pub fn partitions(&self) -> &BTreeMap<u32, Heard> {
        &self.partitions
    }

    pub fn file(&self, file: &FileId) -> Option<&File> {
        self.files.get(file)
    }

    pub fn short(&self) -> &BTreeSet<FileId> {
        &self.short
    }

    pub fn excess(&self) -> &BTreeSet<FileId> {
        &self.excess
    }

    pub fn garbage(&self) -> &BTreeSet<FileId> {
        &self.garbage
    }

    pub fn under_way(&self) -> &BTreeSet<FileId> {
        &self.under_way
    }

    /// Whether a slave is there.
    pub fn is_present(&self, slave: u64) -> bool {
        self.slaves.get(&slave).is_some_and(|slave| !slave.is_lost)
    }

    /// Whether a copy on a slave is one that stays.
    pub fn keeps(&self, slave: u64) -> bool {
        self.slaves.get(&slave).is_some_and(|slave| !slave.is_lost && slave.standing != Standing::Evacuating)
    }

    /// Slaves that have a file and are there, ascending.
    pub fn present<'a>(&'a self, file: &'a File) -> impl Iterator<Item = u64> + 'a {
        file.durable.iter().copied().filter(|slave| self.is_present(*slave))
    }

    /// Copies of a file that stay.
    pub fn kept(&self, file: &File) -> usize {
        file.durable.iter().filter(|slave| self.keeps(**slave)).count()
    }

    /// Where a file is: slaves that are there first.
    pub fn locations(&self, file: &FileId) -> Vec<u64> {
        let Some(file) = self.files.get(file) else { return Vec::new() };
        let (mut present, lost): (Vec<u64>, Vec<u64>) =
            file.durable.iter().copied().partition(|slave| self.is_present(*slave));
        present.extend(lost);
        present
    }

    /// Brings the sets up to date with a file.
    pub(crate) fn classify(&mut self, id: &FileId) {
        let (mut is_short, mut is_excess, mut is_garbage, mut is_under_way) = (false, false, false, false);
        if let Some(file) = self.files.get(id) {
            let (wanted, kept, present) = (file.wanted(), self.kept(file), self.present(file).count());
            is_garbage = file.owners.is_empty();
            is_short = kept < wanted;
            is_excess = !is_garbage && !is_short && present > wanted;
            is_under_way = !file.targets.is_empty();
            if !is_garbage
                && !is_short
                && let Some(file) = self.files.get_mut(id)
            {
                file.was_complete = true;
            }
        }
        for (set, is_in) in [
            (&mut self.short, is_short),
            (&mut self.excess, is_excess),
            (&mut self.garbage, is_garbage),
            (&mut self.under_way, is_under_way),
        ] {
            if is_in {
                set.insert(*id);
            } else {
                set.remove(id);
            }
        }
    }

    /// Brings the sets up to date with all files that a slave has or is to have.
    pub(crate) fn classify_all_of(&mut self, slave: u64) {
        let touched = |file: &File| file.durable.contains(&slave) || file.targets.contains(&slave);
        let of_slave: Vec<FileId> = self.files.iter().filter(|(_, file)| touched(file)).map(|(id, _)| *id).collect();
        of_slave.iter().for_each(|id| self.classify(id));
    }

    pub fn encode(&self) -> Vec<u8> {
        let image = PoolImage {
            slaves: self.slaves.iter().map(|(id, slave)| (*id, slave.clone())).collect(),
            files: self.files.iter().map(|(id, file)| (*id, file.clone())).collect(),
            partitions: self.partitions.iter().map(|(id, heard)| (*id, *heard)).collect(),
        };
        let bytes = rkyv::to_bytes::<Error>(&image).expect("a pool has no part that can fail to serialize");
        bytes.into_vec()
    }

    /// Reads [`Pool::encode`]'s form back, checked.
    pub fn decode(bytes: &[u8]) -> Result<Pool, BadPoolBytes> {
        let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        let image = rkyv::from_bytes::<PoolImage, Error>(&aligned).map_err(|_| BadPoolBytes)?;
        let mut pool = Pool {
            slaves: image.slaves.into_iter().collect(),
            files: image.files.into_iter().collect(),
            partitions: image.partitions.into_iter().collect(),
            ..Pool::default()
        };
        let files: Vec<FileId> = pool.files.keys().copied().collect();
        files.iter().for_each(|id| pool.classify(id));
        Ok(pool)
    }
}

/// What is written of a pool: the rest follows from it.
#[derive(Archive, Serialize, Deserialize)]
struct PoolImage {
    slaves: Vec<(u64, Slave)>,
    files: Vec<(FileId, File)>,
    partitions: Vec<(u32, Heard)>,
}
