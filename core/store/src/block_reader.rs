//! Blocks as they are stored.
//!
//! Owns: a window of a file that moves on with its reader, so that blocks that lie behind each other cost one read for
//! many of them.
//! Invariants: a block is verified before it is given.
//! Knows nothing of the cache.

use crate::{
    read_error::ReadError,
    tsm_file::{POOL_TRIES, READ_BYTES, TsmFile},
};
use tidemill_disk::DiskFile;
use tidemill_tsm::{file::verify_block, index::Entry};

/// Reads the blocks of one file.
pub struct BlockReader<'a, F: DiskFile> {
    file: &'a TsmFile<F>,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a, F: DiskFile> BlockReader<'a, F> {
    pub(crate) fn new(file: &'a TsmFile<F>) -> BlockReader<'a, F> {
        BlockReader { file, window: Vec::new(), window_start: 0 }
    }

    /// A block with its CRC before it, as it is in the file, verified.
    pub async fn stored(&mut self, entry: &Entry) -> Result<&[u8], ReadError> {
        let range = entry.range();
        let mut tries = 0;
        loop {
            let window = self.window_start..self.window_start + self.window.len() as u64;
            if range.start < window.start || range.end > window.end {
                let end = range.end.max(range.start + READ_BYTES as u64).min(self.file.blocks_end());
                // A block across the end of the window is there in part: whoever reads ahead sees a reader in order.
                let kept = if window.contains(&range.start) {
                    (range.start - window.start) as usize
                } else {
                    self.window.len()
                };
                self.window.drain(..kept);
                let read = self.file.read_range(range.start + self.window.len() as u64..end).await;
                match read {
                    Ok(read) => self.window.extend_from_slice(&read),
                    Err(error) => {
                        self.window.clear();
                        return Err(error);
                    }
                }
                self.window_start = range.start;
            }
            tries += 1;
            let start = (range.start - self.window_start) as usize;
            let stored = self.window.get(start..).unwrap_or_default();
            let Err(error) = verify_block(entry, &stored[..stored.len().min(entry.size as usize)]) else { break };
            // Of the pool another copy may have the right bytes.
            if tries == POOL_TRIES || !self.file.place().distrust(entry.offset) {
                return Err(self.file.damaged(entry.offset, &error));
            }
            self.window.clear();
        }
        let start = (range.start - self.window_start) as usize;
        let stored = self.window.get(start..).unwrap_or_default();
        Ok(&stored[..stored.len().min(entry.size as usize)])
    }
}
