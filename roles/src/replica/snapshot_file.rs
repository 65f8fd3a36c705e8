//! The snapshot of a group whose state is one value in memory: a file that is replaced as a whole.
//!
//! Owns: the bytes around the state, and the order in which a new file takes the place of the old one: write, fsync,
//! rename, fsync of the folder. Knows nothing of the state.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::io;
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};
use tidemill_raft::{LogIndex, Term};

/// Magic, index, term, length of the members, length of the body, crc32c of all that follows and of what is before it.
/// Members and body follow.
const HEADER_BYTES: usize = 8 + 8 + 8 + 8 + 8 + 4;
/// One read.
const READ_BYTES: usize = 512 * 1024;
const NAME: &str = "snapshot";
const TEMPORARY: &str = "snapshot.tmp";

/// What a snapshot says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub index: LogIndex,
    pub term: Term,
    /// Encoded; empty: those that the group was founded with.
    pub members: Vec<u8>,
    pub body: Vec<u8>,
}

/// Why bytes are no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DamagedSnapshot(&'static str);

/// Where a group has its snapshot.
pub struct SnapshotFile<D: Disk> {
    disk: D,
    folder: &'static str,
    /// Of the form of the body.
    magic: [u8; 8],
}

impl<D: Disk> SnapshotFile<D> {
    /// Makes the folder.
    pub async fn open(disk: D, folder: &'static str, magic: [u8; 8]) -> io::Result<SnapshotFile<D>> {
        disk.create_dir(folder).await?;
        // A process that was killed may have left the snapshot's name in the page cache alone. The log is released on its
        // word, and must not be while a power loss can bring back the one before.
        disk.sync_dir(folder).await?;
        Ok(SnapshotFile { disk, folder, magic })
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    async fn has(&self, name: &str) -> io::Result<bool> {
        Ok(self.disk.list(self.folder).await?.iter().any(|known| known == name))
    }

    /// The bytes of the snapshot, if there is one.
    pub async fn read(&self) -> io::Result<Option<Vec<u8>>> {
        if !self.has(NAME).await? {
            return Ok(None);
        }
        let file = self.disk.open(&self.path(NAME), Purpose::Data).await?;
        let len = file.len().await? as usize;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let part = file.read_at(bytes.len() as u64, READ_BYTES).await?;
            if part.as_ref().is_empty() {
                break;
            }
            bytes.extend_from_slice(part.as_ref());
        }
        file.close().await?;
        bytes.truncate(len);
        Ok(Some(bytes))
    }

    /// The bytes in a file that is not the snapshot yet.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<D::File> {
        if self.has(TEMPORARY).await? {
            self.disk.remove(&self.path(TEMPORARY)).await?;
        }
        let file = self.disk.create(&self.path(TEMPORARY), Purpose::Data).await?;
        let mut buf = file.alloc(bytes.len().next_multiple_of(BLOCK_BYTES));
        let (head, rest) = buf.as_mut().split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        rest.fill(0);
        file.write_at(buf, 0).await?;
        file.set_len(bytes.len() as u64).await?;
        Ok(file)
    }

    /// That file becomes the snapshot. After an error nobody knows which of the two is there.
    pub async fn publish(&self, file: D::File) -> io::Result<()> {
        self.disk.publish(file, &self.path(TEMPORARY), &self.path(NAME)).await
    }

    pub fn encode(&self, index: LogIndex, term: Term, members: &[u8], body: &[u8]) -> Vec<u8> {
        encode(self.magic, index, term, members, body)
    }

    pub fn decode(&self, bytes: &[u8]) -> Result<Snapshot, DamagedSnapshot> {
        decode(self.magic, bytes)
    }
}

fn encode(magic: [u8; 8], index: LogIndex, term: Term, members: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + members.len() + body.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&index.0.to_le_bytes());
    bytes.extend_from_slice(&term.0.to_le_bytes());
    bytes.extend_from_slice(&(members.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), members);
    let crc = crc32c::crc32c_append(crc, body);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(members);
    bytes.extend_from_slice(body);
    bytes
}

fn decode(magic: [u8; 8], bytes: &[u8]) -> Result<Snapshot, DamagedSnapshot> {
    let damaged = DamagedSnapshot;
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(damaged("too short"))?;
    let (fields, crc) = header.split_last_chunk::<4>().ok_or(damaged("too short"))?;
    if crc32c::crc32c_append(crc32c::crc32c(fields), rest) != u32::from_le_bytes(*crc) {
        return Err(damaged("checksum mismatch"));
    }
    let mut words = fields.as_chunks::<8>().0.iter().copied();
    if words.next() != Some(magic) {
        return Err(damaged("no snapshot by its first bytes"));
    }
    let mut number = || words.next().map_or(0, u64::from_le_bytes);
    let (index, term) = (LogIndex(number()), Term(number()));
    let (members_bytes, body_bytes) = (number(), number());
    if members_bytes.checked_add(body_bytes) != Some(rest.len() as u64) {
        return Err(damaged("length mismatch"));
    }
    let (members, body) = rest.split_at_checked(members_bytes as usize).ok_or(damaged("length mismatch"))?;
    Ok(Snapshot { index, term, members: members.to_vec(), body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_snapshot_is_noticed() {
        let snapshot = Snapshot { index: LogIndex(7), term: Term(2), members: vec![1, 0, 9], body: (0..90).collect() };
        let bytes = encode(*b"MAGIC..1", snapshot.index, snapshot.term, &snapshot.members, &snapshot.body);
        assert_eq!(decode(*b"MAGIC..1", &bytes), Ok(snapshot));
        assert!(decode(*b"MAGIC..2", &bytes).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(*b"MAGIC..1", &damaged).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(decode(*b"MAGIC..1", &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
