//! The manifest of a partition: which files hold which points, as of one index of its log.
//!
//! Owns: the record of each file, its tombstones, the copies that are decided and not done, and the identities of batches
//! that retries are recognised by.
//! Invariants: the manifest names only complete files (S5), because it is published after they are; it is replaced as a
//! whole by write, fsync, rename, fsync of the folder, so that a crash leaves the old or the new one; its bytes are
//! covered by a checksum.
//! Knows nothing of memtables and of how files are read.

use crate::{
    entry::{CopyOrder, DEPTH_MAX, Measurements, TagCondition},
    sessions::Sessions,
};
use rkyv::{
    Archive, Deserialize, Serialize,
    api::access_with_context,
    rancor::Error,
    util::AlignedVec,
    validation::{Validator, archive::ArchiveValidator, shared::SharedValidator},
};
use std::{io, num::NonZeroUsize};
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};

const MAGIC: [u8; 8] = *b"TMILLMAN";
const VERSION: u32 = 9;
/// Magic, version, crc32c of the body, length of the body.
const HEADER_BYTES: usize = 8 + 4 + 4 + 8;
/// End of the name of a TSM file.
pub const TSM_SUFFIX: &str = ".tsm";
/// End of the name of what a replica keeps of a file whose blocks are in the pool.
pub const TAIL_SUFFIX: &str = ".tail";
/// A manifest of a million files is below this; a length above it is damage.
const BODY_BYTES_MAX: u64 = 1 << 30;

/// State of a partition's files at one log index.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct Manifest {
    /// Every entry up to this one is in the files. Replay starts behind it.
    pub flushed_index: u64,
    /// Term of that entry.
    pub flushed_term: u64,
    /// By shard group, then by [`FileRecord::rank`]: of equal times the later file wins.
    pub files: Vec<FileRecord>,
    /// Identities of batches as of `flushed_index` (I6).
    pub sessions: Sessions,
    /// The shard groups as of `flushed_index`, ascending.
    pub groups: Vec<GroupRecord>,
    /// The retention policies as of `flushed_index`, ascending.
    pub policies: Vec<PolicyRecord>,
    /// Who held the partition as of `flushed_index`, in the encoding of who proposed it; empty: those it was founded with.
    pub members: Vec<u8>,
    /// Newest copy entry whose fate is known here: it is done, void, or among `copies`.
    pub copies_index: u64,
    /// Copies that are decided and not done, by index. The log may have been released behind them.
    pub copies: Vec<CopyRecord>,
    /// The series indexes as of that entry. Without it they are made from the files, and know nothing of the newest times
    /// in files that went since: rows behind that entry may come into other runs than on other nodes.
    pub index: Option<IndexRecord>,
}

/// What must be known of a shard group besides its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct GroupRecord {
    pub shard_group: u64,
    pub database: u32,
    pub policy: u32,
    /// Newest time of its rows that was ever frozen.
    pub newest: i64,
}

/// What must be known of a retention policy besides the files of its shard groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PolicyRecord {
    pub database: u32,
    pub policy: u32,
    /// Rows up to this time are late, whatever their series has in files. It follows from the log alone, as what is in
    /// files does not once copies have taken deleted points out.
    pub floor: i64,
}

/// A copy that is decided and not done.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CopyRecord {
    /// Index of its entry.
    pub index: u64,
    pub order: CopyOrder,
    /// Files that it makes and that were handed over since, elsewhere already made.
    pub handed: Vec<(HandedFile, Tier)>,
}

/// The file of the series indexes, up to where it is there for good.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct IndexRecord {
    /// Counts the files; it is in the name.
    pub generation: u64,
    pub size: u64,
    /// Covers all of these bytes.
    pub crc: u32,
    /// It was written before files of dropped shard groups went: any series may have lost its points since.
    pub is_behind: bool,
}

/// One TSM file.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct FileRecord {
    pub database: u32,
    pub policy: u32,
    pub shard_group: u64,
    /// Index of the entry that made the file: the generation in its name.
    pub generation: u64,
    /// Counts the files of one generation from 1.
    pub sequence: u32,
    /// 1: written by a flush. 2: by a copy.
    pub level: u8,
    /// Holds late points, which may lie inside the time ranges of other files.
    pub late: bool,
    /// Where its blocks are.
    pub tier: Tier,
    /// BLAKE3 of the whole file.
    pub hash: [u8; 32],
    pub size: u64,
    /// Where the blocks end; statistics, the directory of pages, index and footer follow.
    pub blocks_end: u64,
    /// Where the directory of pages starts. Where the index does, if there is none: such a file has no statistics.
    pub directory_offset: u64,
    /// Where the TSM index starts.
    pub index_offset: u64,
    /// crc32c of the directory (of the index, if there is none) and the footer behind it. The directory holds the
    /// checksums of index and statistics, so that everything is covered.
    pub tail_crc: u32,
    pub min_time: i64,
    pub max_time: i64,
    pub points: u64,
    pub tombstones: Vec<Tombstone>,
}

/// Where the blocks of a file are, as the log has decided. A replica may be behind: until it has made the file's tail, it
/// has all of a file that is in the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub enum Tier {
    /// On each replica, and nowhere else.
    #[default]
    Local,
    /// On each replica, and in the pool.
    Both,
    /// In the pool. Replicas have the tail: everything behind the blocks.
    Pool,
}

/// A file in the pool, or on its way there, by what names it in a shard group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct HandedFile {
    pub generation: u64,
    pub sequence: u32,
    pub hash: [u8; 32],
}

/// Points of a file that are gone: what the entry that deleted them said.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Tombstone {
    /// Of the entry; it covers what entries before it wrote.
    pub index: u64,
    pub measurements: Measurements,
    pub condition: TagCondition,
    /// The only field that it covers; all of them if absent.
    pub field: Option<Vec<u8>>,
    /// Inclusive.
    pub min_time: i64,
    pub max_time: i64,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    /// Begun and not seen to succeed: the old manifest is there, or the new one.
    #[error("{path}: {error}")]
    Unknown { path: String, error: io::Error },
    #[error("{path}: damaged manifest: {what}")]
    Damaged { path: String, what: String },
    #[error(
        "{path}: manifest version {found}, this program reads version {VERSION}: export the data with the program that wrote it, and import it"
    )]
    Version { path: String, found: u32 },
}

impl FileRecord {
    /// Name inside the partition's folder of its shard group, as upstream names TSM files.
    pub fn name(&self) -> String {
        format!("{}{TSM_SUFFIX}", self.stem())
    }

    /// Name of its tail, beside where the file would be.
    pub fn tail_name(&self) -> String {
        format!("{}{TAIL_SUFFIX}", self.stem())
    }

    fn stem(&self) -> String {
        format!("{:09}-{:09}", self.generation, self.sequence)
    }

    /// What names it in its shard group.
    pub fn handed(&self) -> HandedFile {
        HandedFile { generation: self.generation, sequence: self.sequence, hash: self.hash }
    }

    /// Bytes behind its blocks.
    pub fn tail_size(&self) -> u64 {
        self.size.saturating_sub(self.blocks_end)
    }

    /// Place among the files of the shard group: of equal times the higher wins. Files that hold no late run do not
    /// overlap each other, and a row that is not late has a time of its own, so only late runs have to be in order.
    pub fn rank(&self) -> (bool, u64, u32) {
        (self.late, self.generation, self.sequence)
    }
}

impl Manifest {
    /// BLAKE3 of what the files hold: replicas whose manifests end at the same entries and have made the same copies have
    /// the same (I7).
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for file in &self.files {
            let numbers = [file.shard_group, file.generation, u64::from(file.sequence), file.size];
            for number in numbers {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&[file.level, file.late.into(), file.tier as u8]).update(&file.hash);
            // What of it is gone is told by the entries that deleted it.
            hasher.update(&(file.tombstones.len() as u64).to_le_bytes());
            for tombstone in &file.tombstones {
                hasher.update(&tombstone.index.to_le_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }

    /// Reads a partition's manifest; a partition that never flushed has none and starts empty.
    pub async fn load<D: Disk>(disk: &D, folder: &str) -> Result<Manifest, ManifestError> {
        let path = format!("{folder}/manifest");
        let io_error = |error| ManifestError::Io { path: path.clone(), error };
        if !disk.list(folder).await.map_err(io_error)?.iter().any(|name| name == "manifest") {
            return Ok(Manifest::default());
        }
        let file = disk.open(&path, Purpose::Data).await.map_err(io_error)?;
        let len = file.len().await.map_err(io_error)? as usize;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let asked = (len - bytes.len()).next_multiple_of(BLOCK_BYTES).min(CALL_BYTES_MAX);
            let part = file.read_at(bytes.len() as u64, asked).await.map_err(io_error)?;
            if part.as_ref().is_empty() {
                break;
            }
            bytes.extend_from_slice(part.as_ref());
        }
        bytes.truncate(len);
        file.close().await.map_err(io_error)?;
        Manifest::decode(&bytes, &path)
    }

    /// Replaces the partition's manifest, durably.
    ///
    /// # Errors
    /// [`ManifestError::Unknown`] if the new one may be there nevertheless; it is not after any other.
    pub async fn publish<D: Disk>(&self, disk: &D, folder: &str) -> Result<(), ManifestError> {
        Manifest::publish_encoded(disk, folder, &self.encode()).await
    }

    /// As [`Manifest::publish`], of the bytes of a manifest.
    pub(crate) async fn publish_encoded<D: Disk>(disk: &D, folder: &str, bytes: &[u8]) -> Result<(), ManifestError> {
        let (from, to) = (format!("{folder}/manifest.tmp"), format!("{folder}/manifest"));
        let io_error = |error| ManifestError::Io { path: from.clone(), error };
        if disk.list(folder).await.map_err(io_error)?.iter().any(|name| name == "manifest.tmp") {
            disk.remove(&from).await.map_err(io_error)?;
        }
        let file = disk.create(&from, Purpose::Data).await.map_err(io_error)?;
        if let Err(error) = write_out(&file, bytes).await {
            // The room may be what the next try needs.
            let _ = file.close().await;
            let _ = disk.remove(&from).await;
            return Err(io_error(error));
        }
        disk.publish(file, &from, &to).await.map_err(|error| ManifestError::Unknown { path: to.clone(), error })
    }

    /// Brings the files into their order.
    pub(crate) fn sort_files(&mut self) {
        self.files.sort_by_key(|file| (file.shard_group, file.rank()));
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let body = rkyv::to_bytes::<Error>(self).expect("a manifest has no part that can fail to serialize");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The checked inverse of encoding. `path` is for the message.
    pub fn decode(bytes: &[u8], path: &str) -> Result<Manifest, ManifestError> {
        let damaged = |what: String| ManifestError::Damaged { path: path.to_string(), what };
        let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(damaged(format!("{} bytes", bytes.len())));
        };
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if header[..8] != MAGIC {
            return Err(damaged("no manifest by its first bytes".into()));
        }
        let length = u64::from(word(16)) | u64::from(word(20)) << 32;
        if length > BODY_BYTES_MAX || length != rest.len() as u64 {
            return Err(damaged(format!("{} bytes of body, {length} expected", rest.len())));
        }
        if crc32c::crc32c(rest) != word(12) {
            return Err(damaged("checksum mismatch".into()));
        }
        if word(8) != VERSION {
            return Err(ManifestError::Version { path: path.to_string(), found: word(8) });
        }
        let mut aligned = AlignedVec::<16>::with_capacity(rest.len());
        aligned.extend_from_slice(rest);
        let archive = ArchiveValidator::with_max_depth(&aligned, NonZeroUsize::new(DEPTH_MAX));
        let mut validator = Validator::new(archive, SharedValidator::new());
        let archived = access_with_context::<ArchivedManifest, _, Error>(&aligned, &mut validator);
        archived.and_then(rkyv::deserialize::<Manifest, Error>).map_err(|error| damaged(error.to_string()))
    }
}

/// One read or write of a manifest: the size that direct-I/O buffers are pooled for.
pub(crate) const CALL_BYTES_MAX: usize = 512 * 1024;

/// Writes a file from its begin, and gives it the length of these bytes.
pub(crate) async fn write_out<F: DiskFile>(file: &F, bytes: &[u8]) -> io::Result<()> {
    for (number, part) in bytes.chunks(CALL_BYTES_MAX).enumerate() {
        let mut buf = file.alloc(part.len().next_multiple_of(BLOCK_BYTES));
        buf.as_mut()[..part.len()].copy_from_slice(part);
        buf.as_mut()[part.len()..].fill(0);
        file.write_at(buf, (number * CALL_BYTES_MAX) as u64).await?;
    }
    file.set_len(bytes.len() as u64).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Floats;

    fn manifest() -> Manifest {
        let mut sessions = Sessions::default();
        sessions.note(9, 4, 0);
        let file = FileRecord {
            database: 1,
            policy: 1,
            shard_group: 7,
            generation: 12,
            sequence: 1,
            level: 2,
            late: false,
            tier: Tier::Pool,
            hash: [7; 32],
            size: 4096,
            blocks_end: 70,
            directory_offset: 75,
            index_offset: 77,
            tail_crc: 5,
            min_time: -3,
            max_time: 9,
            points: 3,
            tombstones: vec![Tombstone {
                index: 13,
                measurements: Measurements::Named(vec![b"cpu".to_vec()]),
                condition: TagCondition::Equal { key: b"host".to_vec(), value: b"a".to_vec() },
                field: Some(b"v".to_vec()),
                min_time: 0,
                max_time: 1,
            }],
        };
        let index = Some(IndexRecord { generation: 3, size: 8192, crc: 77, is_behind: true });
        let order = CopyOrder {
            shard_group: 7,
            ordered_through: 12,
            late_through: 3,
            sealed: vec![4, 9],
            with_deleted: true,
            floats: Floats::Alp,
            file_bytes_max: 1 << 20,
        };
        let handed = HandedFile { generation: 14, sequence: 2, hash: [3; 32] };
        Manifest {
            flushed_index: 12,
            flushed_term: 2,
            files: vec![file],
            sessions,
            groups: vec![GroupRecord { shard_group: 7, database: 1, policy: 1, newest: 9 }],
            policies: vec![PolicyRecord { database: 1, policy: 1, floor: -3 }],
            members: vec![1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
            copies_index: 14,
            copies: vec![CopyRecord { index: 14, order, handed: vec![(handed, Tier::Both)] }],
            index,
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = manifest().encode();
        assert_eq!(Manifest::decode(&bytes, "m").unwrap(), manifest());
        assert_eq!(manifest().files[0].name(), "000000012-000000001.tsm");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&damaged, "m").is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..cut], "m").is_err(), "cut at {cut}");
        }
    }
}
