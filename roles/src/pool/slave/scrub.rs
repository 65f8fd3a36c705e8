//! Reading all files again.
//!
//! Invariant: a file that is not what its name says, or cannot be read, is none of the pool any more when this has seen it.

use super::files::Files;
use std::io;
use tidemill_disk::{Disk, ReadAhead};
use tidemill_pool::FileId;

const PIECE_BYTES: usize = 512 << 10;
const READS_MAX: usize = 2;
/// Files that are looked up at a time.
const LISTED_MAX: usize = 256;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    pub files: u64,
    pub bytes: u64,
    pub rotten: u64,
}

/// Reads all files. `pace` is asked after each piece whether to go on, with its bytes, and may wait.
///
/// # Errors
/// A rotten file could not be taken away.
pub async fn scrub<D: Disk>(files: &Files<D>, pace: &mut impl AsyncFnMut(u64) -> bool) -> io::Result<Scrubbed> {
    let mut scrubbed = Scrubbed::default();
    let mut after = None;
    loop {
        let listed = files.list(after, LISTED_MAX);
        let Some((last, _)) = listed.last() else { return Ok(scrubbed) };
        after = Some(*last);
        for (file, size) in listed {
            let mut looked = look(files, &file, size, pace).await;
            // Wrong bytes stay wrong, but a disk that is short of something for a moment says nothing of the file.
            if looked.is_err() {
                looked = look(files, &file, size, pace).await;
            }
            let fault = match looked {
                Ok(true) => None,
                Ok(false) => return Ok(scrubbed),
                Err(error) => Some(error),
            };
            // It may have been removed meanwhile.
            let Some(size) = files.size(&file) else { continue };
            scrubbed.files += 1;
            scrubbed.bytes += size;
            if let Some(error) = fault {
                tracing::error!(%file, %error, "a file of the pool is rotten: it is taken away");
                files.take_away(&file).await?;
                scrubbed.rotten += 1;
            }
        }
    }
}

/// False: not to its end.
async fn look<D: Disk>(
    files: &Files<D>,
    file: &FileId,
    size: u64,
    pace: &mut impl AsyncFnMut(u64) -> bool,
) -> io::Result<bool> {
    let opened = files.opened(file).await?;
    let mut hash = blake3::Hasher::new();
    let mut reading = ReadAhead::new(opened, 0..size, PIECE_BYTES, READS_MAX);
    while let Some((buffer, bytes)) = reading.next().await? {
        hash.update(&buffer.as_ref()[bytes.clone()]);
        if !pace(bytes.len() as u64).await {
            return Ok(false);
        }
    }
    if hash.finalize().as_bytes() != &file.0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its bytes have another hash"));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{
        super::files::{FILES_FOLDER, name_of},
        *,
    };
    use tidemill_disk::sim::{Fault, Operation, SimDisk, block_on};

    #[test]
    fn every_flipped_bit_and_unreadable_block_is_found_and_the_rest_stays() {
        let disk = SimDisk::new(1);
        let contents: Vec<Vec<u8>> = (0..6u8).map(|seed| vec![seed; 700_000 + usize::from(seed)]).collect();
        let names: Vec<FileId> = contents.iter().map(|content| FileId(*blake3::hash(content).as_bytes())).collect();
        let path = |file: &FileId| format!("{FILES_FOLDER}/{}", name_of(file));
        for (name, content) in names.iter().zip(&contents) {
            disk.plant(&path(name), content.clone());
        }
        block_on(1, async {
            let files = Files::open(disk.clone()).await.unwrap();
            let mut whole = async |_: u64| true;
            let found = scrub(&files, &mut whole).await.unwrap();
            assert_eq!((found.files, found.rotten), (6, 0));
            disk.flip_bit(&path(&names[1]), 650_000, 3);
            disk.flip_bit(&path(&names[4]), 0, 0);
            disk.fail_at(Some(Operation::Read), 1, Fault::Eio);
            // The second look begins with the next read but one: two are under way.
            disk.fail_at(Some(Operation::Read), 3, Fault::Eio);
            let first = files.list(None, 1)[0].0;
            let found = scrub(&files, &mut whole).await.unwrap();
            let rotten: std::collections::BTreeSet<FileId> = [first, names[1], names[4]].into();
            assert_eq!((found.files, found.rotten as usize), (6, rotten.len()));
            assert!(rotten.iter().all(|file| files.size(file).is_none()));
            assert_eq!(files.count(), 6 - rotten.len());
            assert_eq!(scrub(&files, &mut whole).await.unwrap().rotten, 0);
        });
    }
}
