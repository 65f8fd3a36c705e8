//! The newest master that a slave has heard of.
//!
//! Invariant: it is on the disk before anything is done that its master orders, or an older master could be obeyed after a
//! crash.

use std::{cell::Cell, io};
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};
use tidemill_store::Turn;

const PATH: &str = "pool/epoch";
const TEMPORARY: &str = "pool/epoch.tmp";
const MAGIC: &[u8; 8] = b"TMEPOCH1";

pub struct Epoch<D: Disk> {
    disk: D,
    newest: Cell<u64>,
    /// Of those who write.
    writing: Turn,
}

impl<D: Disk> Epoch<D> {
    /// Finds what was heard before. The folder is there.
    pub async fn open(disk: D) -> io::Result<Epoch<D>> {
        let newest = match disk.open(PATH, Purpose::Data).await {
            Ok(file) => {
                let read = file.read_at(0, BLOCK_BYTES).await?;
                let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("{PATH} is damaged"));
                decode(read.as_ref()).ok_or_else(damaged)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Epoch { disk, newest: Cell::new(newest), writing: Turn::default() })
    }

    pub fn newest(&self) -> u64 {
        self.newest.get()
    }

    /// A master of this epoch has spoken. False: a newer one has spoken before.
    pub async fn hear(&self, epoch: u64) -> io::Result<bool> {
        let _turn = self.writing.take().await;
        if epoch <= self.newest.get() {
            return Ok(epoch == self.newest.get());
        }
        match self.disk.remove(TEMPORARY).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(TEMPORARY, Purpose::Data).await?;
        let mut block = file.alloc(BLOCK_BYTES);
        block.as_mut().fill(0);
        let bytes = encode(epoch);
        block.as_mut()[..bytes.len()].copy_from_slice(&bytes);
        file.write_at(block, 0).await?;
        self.disk.publish(file, TEMPORARY, PATH).await?;
        self.newest.set(epoch);
        Ok(true)
    }
}

fn encode(epoch: u64) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &epoch.to_le_bytes()].concat();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let epoch = u64::from_le_bytes(*bytes.strip_prefix(MAGIC)?.first_chunk()?);
    bytes.starts_with(&encode(epoch)).then_some(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_disk::sim::{Crash, SimDisk, block_on};

    #[test]
    fn what_was_heard_is_known_after_every_crash() {
        for nth in 1..30 {
            let disk = SimDisk::new(nth);
            let heard = block_on(nth, async {
                disk.create_dir("pool").await.unwrap();
                let epoch = Epoch::open(disk.clone()).await.unwrap();
                disk.crash_at(nth);
                let mut heard = 0;
                for number in [3, 5, 5, 4] {
                    match epoch.hear(number).await {
                        Ok(is_newest) => assert_eq!(is_newest, number >= heard),
                        Err(_) => break,
                    }
                    heard = heard.max(number);
                }
                heard
            });
            for seed in 0..8 {
                let after = disk.crash(Crash::Random, seed);
                let found = block_on(seed, Epoch::open(after)).unwrap();
                assert!(found.newest() >= heard, "{heard} was heard and {} is known", found.newest());
            }
        }
    }

    #[test]
    fn a_damaged_file_is_no_epoch() {
        let bytes = encode(77);
        assert_eq!(decode(&bytes), Some(77));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&damaged), None, "bit {bit}");
        }
    }
}
