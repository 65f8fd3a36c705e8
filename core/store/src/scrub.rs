//! Reading files again for no other reason than to see whether they are still what was written.
//!
//! Owns: the pass over one file. Invariants: every byte of the file that is here is held against the hash that the manifest has of
//! it, from the disk and not from the cache; where they differ, checksums tell the places, and damage of one block does
//! not hide that of another. Of a file in the pool the pages behind the blocks are held against their checksums.
//! Knows nothing of when and how fast: the caller paces it.

use crate::{
    manifest::FileRecord,
    partition::Partition,
    read_error::ReadError,
    tsm_file::{READ_BYTES, TsmFile},
};
use tidemill_disk::Disk;

/// What a pass over a file found.
#[derive(Clone, Debug, Default)]
pub struct Scrubbed {
    pub findings: Vec<ReadError>,
    /// It was read to its end.
    pub is_complete: bool,
}

impl<D: Disk> Partition<D> {
    /// The files as they are now, in the order of the manifest.
    pub fn file_records(&self) -> Vec<FileRecord> {
        let state = self.state.borrow();
        state.groups.values().flat_map(|group| group.files.iter().map(|file| file.record())).collect()
    }

    /// Reads a file from its header to its footer. `pace` is told how many bytes were read, waits as long as it likes,
    /// and stops the pass by answering `false`.
    pub async fn scrub(&self, record: &FileRecord, pace: &mut impl AsyncFnMut(u64) -> bool) -> Scrubbed {
        let mut scrubbed = Scrubbed::default();
        // Opened anew, past the cache: header, directory and footer are verified on the way.
        match self.open_past_the_cache(record).await {
            Ok(file) if file.reads_pool() => match scrub_tail(&file, pace).await {
                Ok(is_complete) => scrubbed.is_complete = is_complete,
                Err(error) => scrubbed.findings.push(error),
            },
            Ok(file) => {
                if let Err(error) = scrub_file(&file, &mut scrubbed, pace).await {
                    scrubbed.findings.push(error);
                }
            }
            Err(error) => scrubbed.findings.push(error),
        }
        // A file that was dropped meanwhile may be gone in the middle of the pass.
        let is_there = |known: &FileRecord| {
            (known.shard_group, known.generation, known.sequence)
                == (record.shard_group, record.generation, record.sequence)
        };
        if !self.file_records().iter().any(is_there) {
            scrubbed.findings.clear();
        }
        scrubbed
    }
}

async fn scrub_file<F: tidemill_disk::DiskFile>(
    file: &TsmFile<F>,
    scrubbed: &mut Scrubbed,
    pace: &mut impl AsyncFnMut(u64) -> bool,
) -> Result<(), ReadError> {
    let record = file.record();
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0;
    while offset < record.size {
        let bytes = file.read_range(offset..record.size.min(offset + READ_BYTES as u64)).await?;
        if bytes.is_empty() {
            return Err(file.damaged(offset, &"the file ends here"));
        }
        hasher.update(&bytes);
        offset += bytes.len() as u64;
        if !pace(bytes.len() as u64).await {
            return Ok(());
        }
    }
    if hasher.finalize() == record.hash {
        scrubbed.is_complete = true;
        return Ok(());
    }
    find_damage(file, scrubbed, pace).await?;
    if scrubbed.findings.is_empty() {
        scrubbed.findings.push(file.damaged(0, &"the content is not what its BLAKE3 hash says"));
    }
    Ok(())
}

/// Reads every page behind the blocks; those are read where they are. Returns whether it came to the end.
async fn scrub_tail<F: tidemill_disk::DiskFile>(
    file: &TsmFile<F>,
    pace: &mut impl AsyncFnMut(u64) -> bool,
) -> Result<bool, ReadError> {
    let (pages, bytes) = (file.page_count().max(1) as u64, file.local_size());
    let mut scan = file.keys_with_statistics();
    while scan.next().await?.is_some() {
        if !pace(bytes / pages).await {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads a file whose hash is wrong again, for the places.
async fn find_damage<F: tidemill_disk::DiskFile>(
    file: &TsmFile<F>,
    scrubbed: &mut Scrubbed,
    pace: &mut impl AsyncFnMut(u64) -> bool,
) -> Result<(), ReadError> {
    let mut pages = file.keys_with_statistics();
    let mut reader = file.block_reader();
    while let Some(page) = pages.next().await? {
        for key in page.keys() {
            for entry in key.entries.iter() {
                if let Err(error) = reader.stored(&entry).await {
                    scrubbed.findings.push(error);
                }
                if !pace(entry.size.into()).await {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
