//! A file written from front to back, with several writes under way.
//!
//! Owns: the block that is being filled, and the writes of those before it. Invariants: the caller fills the very memory
//! that is written: nothing is copied here; bytes behind the last one are zeros up to the end of their disk block.
//! Knows nothing of what is written, nor when it must be durable: that is for who owns the file.

use crate::{BLOCK_BYTES, DiskFile, in_order::InOrder};
use std::{io, rc::Rc};

/// Writes to a file in blocks of one size, which are filled in place.
pub struct WriteBehind<F: DiskFile> {
    file: Rc<F>,
    writes: InOrder<io::Result<F::Buf>>,
    block_bytes: usize,
    writes_max: usize,
    /// Where the block belongs that is being filled.
    offset: u64,
    /// None while nobody fills one.
    block: Option<F::Buf>,
    filled: usize,
    /// Blocks that came back.
    idle: Vec<F::Buf>,
    /// Everything before this is written.
    written: u64,
}

impl<F: DiskFile> WriteBehind<F> {
    /// Writes of `block_bytes` from `offset` on, at most `writes_max` at a time.
    ///
    /// # Panics
    /// If the offset or a block is no number of disk blocks, or no write may be under way.
    pub fn new(file: Rc<F>, offset: u64, block_bytes: usize, writes_max: usize) -> WriteBehind<F> {
        let is_aligned = block_bytes.is_multiple_of(BLOCK_BYTES) && offset.is_multiple_of(BLOCK_BYTES as u64);
        assert!(block_bytes > 0 && is_aligned && writes_max > 0, "{writes_max} writes of {block_bytes} from {offset}");
        WriteBehind {
            file,
            writes: InOrder::new(),
            block_bytes,
            writes_max,
            offset,
            block: None,
            filled: 0,
            idle: Vec::new(),
            written: offset,
        }
    }

    /// Where the next bytes are to be put: what is left of the block, never nothing.
    pub fn room(&mut self) -> &mut [u8] {
        let (file, idle) = (&self.file, &mut self.idle);
        let block = self.block.get_or_insert_with(|| idle.pop().unwrap_or_else(|| file.alloc(self.block_bytes)));
        &mut block.as_mut()[self.filled..]
    }

    /// The first `count` bytes of [`WriteBehind::room`] are there. Waits only if as many writes are under way as may be.
    ///
    /// # Errors
    /// That of an earlier write, or of this one. The file is not to be used after it.
    ///
    /// # Panics
    /// If the room was smaller.
    pub async fn advance(&mut self, count: usize) -> io::Result<()> {
        assert!(self.filled + count <= self.block_bytes, "{count} bytes in a room of less");
        self.filled += count;
        if self.filled == self.block_bytes { self.write_out().await } else { Ok(()) }
    }

    /// Writes what is there, with zeros behind it, and waits for all writes. Nothing may follow unless the last block was
    /// full.
    ///
    /// # Errors
    /// As [`WriteBehind::advance`].
    pub async fn flush(&mut self) -> io::Result<()> {
        if self.filled > 0 {
            self.write_out().await?;
        }
        while self.writes.len() > 0 {
            self.wait().await?;
        }
        Ok(())
    }

    /// Everything up to here is with the disk, though it need not be durable.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The bytes that were put in so far end here.
    pub fn end(&self) -> u64 {
        self.offset + self.filled as u64
    }

    async fn write_out(&mut self) -> io::Result<()> {
        while self.writes.len() >= self.writes_max {
            self.wait().await?;
        }
        let Some(mut block) = self.block.take() else { return Ok(()) };
        let length = self.filled.next_multiple_of(BLOCK_BYTES);
        if length > self.filled {
            block.as_mut()[self.filled..length].fill(0);
        }
        let (file, offset) = (self.file.clone(), self.offset);
        self.offset += length as u64;
        self.filled = 0;
        self.writes.begin(async move { file.write_prefix_at(block, length, offset).await }).await;
        Ok(())
    }

    async fn wait(&mut self) -> io::Result<()> {
        if let Some(written) = self.writes.next().await {
            self.idle.push(written?);
            self.written = self.offset.min(self.written + self.block_bytes as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Disk, Purpose,
        sim::{Fault, Operation, SimDisk, block_on},
    };
    use proptest::prelude::*;

    const BLOCK: usize = 2 * BLOCK_BYTES;

    async fn write(disk: &SimDisk, content: &[u8], cuts: &[usize], writes_max: usize) -> io::Result<()> {
        let file = Rc::new(disk.create("f", Purpose::Data).await?);
        let mut writing = WriteBehind::new(file.clone(), 0, BLOCK, writes_max);
        let mut rest = content;
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let room = writing.room();
            let count = (*cut).min(room.len()).min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            writing.advance(count).await?;
            rest = &rest[count..];
            assert_eq!(writing.end(), (content.len() - rest.len()) as u64);
            assert!(writing.written() <= writing.end());
        }
        writing.flush().await?;
        assert_eq!(writing.written(), content.len().next_multiple_of(BLOCK_BYTES) as u64);
        drop(writing);
        file.set_len(content.len() as u64).await
    }

    proptest! {
        #[test]
        fn what_is_put_in_is_written(
            length in 0usize..9 * BLOCK_BYTES, cuts in prop::collection::vec(1usize..2 * BLOCK, 1..9), writes_max in 1usize..5,
        ) {
            let disk = SimDisk::new(length as u64);
            let content: Vec<u8> = (0..length).map(|at| (at * 31 + at / 256 + 1) as u8).collect();
            block_on(1, write(&disk, &content, &cuts, writes_max)).unwrap();
            prop_assert!(disk.content("f") == Some(content));
        }
    }

    #[test]
    fn what_lies_behind_the_last_byte_is_zero() {
        let disk = SimDisk::new(1);
        block_on(1, async {
            let file = Rc::new(disk.create("f", Purpose::Data).await.unwrap());
            let mut writing = WriteBehind::new(file, 0, BLOCK, 2);
            writing.room()[..3].copy_from_slice(b"end");
            writing.advance(3).await.unwrap();
            writing.flush().await.unwrap();
        });
        let content = disk.content("f").unwrap();
        assert!(
            content.len() == BLOCK_BYTES && content.starts_with(b"end") && content[3..].iter().all(|byte| *byte == 0)
        );
    }

    #[test]
    fn a_write_that_fails_is_told_before_the_end() {
        let content = vec![1; 6 * BLOCK];
        for nth in 1..=6 {
            let disk = SimDisk::new(nth);
            disk.fail_at(Some(Operation::Write), nth, Fault::StorageFull);
            let error = block_on(1, write(&disk, &content, &[BLOCK], 3)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "write {nth}");
        }
    }

    #[test]
    fn blocks_are_used_again() {
        let disk = SimDisk::new(1);
        block_on(1, async {
            let file = Rc::new(disk.create("f", Purpose::Data).await.unwrap());
            let mut writing = WriteBehind::new(file, 0, BLOCK, 2);
            let mut places = std::collections::BTreeSet::new();
            for _ in 0..20 {
                places.insert(writing.room().as_ptr());
                writing.advance(BLOCK).await.unwrap();
            }
            writing.flush().await.unwrap();
            assert!(places.len() <= 4, "{} blocks for two writes at a time", places.len());
        });
    }
}
