//! Where the bytes of a TSM file are: all of them here, or its blocks in the storage pool and the rest here.
//!
//! Owns: the open file behind either, and the way from offsets of the TSM file to those of what is here.
//! Invariants: offsets are those of the whole file, so that whoever reads need not know where it is; a file in the pool
//! has everything behind its blocks here, in a file of its own whose first byte is the first one behind the blocks.
//! Knows nothing of formats and checksums.

use crate::{pool_blocks::PoolBlocks, tsm_file::READ_BYTES};
use std::{io, ops::Range, rc::Rc};
use tidemill_disk::{BLOCK_BYTES, DiskFile};

/// An open file.
pub enum FilePlace<F: DiskFile> {
    Here(F),
    /// The blocks, up to `blocks_end`, are in the pool.
    Pool {
        tail: F,
        blocks_end: u64,
        hash: [u8; 32],
        pool: Rc<dyn PoolBlocks>,
    },
}

/// Bytes that were read.
pub enum PlaceBuf<B> {
    Here(B),
    Pool(Vec<u8>),
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for PlaceBuf<B> {
    fn as_ref(&self) -> &[u8] {
        match self {
            PlaceBuf::Here(bytes) => bytes.as_ref(),
            PlaceBuf::Pool(bytes) => bytes,
        }
    }
}

impl<F: DiskFile> FilePlace<F> {
    /// Whether blocks are read from the pool.
    pub fn is_pool(&self) -> bool {
        matches!(self, FilePlace::Pool { .. })
    }

    /// Where the bytes end that [`FilePlace::read_blocks`] gives, of a file of `size` bytes.
    pub fn blocks_readable(&self, size: u64) -> u64 {
        match self {
            FilePlace::Here(_) => size,
            FilePlace::Pool { blocks_end, .. } => *blocks_end,
        }
    }

    /// Up to `len` bytes of the blocks at `offset`, both multiples of the disk's block; fewer where they end.
    pub async fn read_blocks(&self, offset: u64, len: usize) -> io::Result<PlaceBuf<F::Buf>> {
        match self {
            FilePlace::Here(file) => file.read_at(offset, len).await.map(PlaceBuf::Here),
            FilePlace::Pool { blocks_end, hash, pool, .. } => {
                let length = blocks_end.saturating_sub(offset).min(len as u64) as usize;
                read_pool(pool.as_ref(), *hash, offset, length).await.map(PlaceBuf::Pool)
            }
        }
    }

    /// The bytes of a range; fewer where the file ends before it does.
    pub async fn read_range(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let FilePlace::Pool { tail, blocks_end, hash, pool } = self else {
            let FilePlace::Here(file) = self else { return Ok(Vec::new()) };
            return read_range(file, range).await;
        };
        let behind = |offset: u64| offset.saturating_sub(*blocks_end);
        if range.start >= *blocks_end {
            return read_range(tail, behind(range.start)..behind(range.end)).await;
        }
        let mut bytes = Vec::with_capacity(range.end.saturating_sub(range.start) as usize);
        let mut offset = range.start;
        while offset < range.end.min(*blocks_end) {
            let length = (range.end.min(*blocks_end) - offset).min(READ_BYTES as u64);
            bytes.extend_from_slice(&read_pool(pool.as_ref(), *hash, offset, length as usize).await?);
            offset += length;
        }
        if range.end > *blocks_end {
            bytes.extend_from_slice(&read_range(tail, 0..behind(range.end)).await?);
        }
        Ok(bytes)
    }

    /// What was read from `offset` on was wrong. Whether another read may give something else.
    pub fn distrust(&self, offset: u64) -> bool {
        if let FilePlace::Pool { hash, pool, .. } = self {
            pool.distrust(*hash, offset);
        }
        self.is_pool()
    }
}

async fn read_pool(pool: &dyn PoolBlocks, hash: [u8; 32], offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let bytes = pool.read(hash, offset, length).await?;
    if bytes.len() != length {
        let text = format!("the pool gave {} bytes at {offset} instead of {length}", bytes.len());
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    Ok(bytes)
}

/// The bytes of a range; fewer where the file ends before it does.
async fn read_range<F: DiskFile>(file: &F, range: Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(range.end.saturating_sub(range.start) as usize);
    let mut offset = range.start / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    while offset < range.end {
        let asked = ((range.end - offset) as usize).next_multiple_of(BLOCK_BYTES).min(READ_BYTES);
        let part = file.read_at(offset, asked).await?;
        let part = part.as_ref();
        let skip = range.start.saturating_sub(offset) as usize;
        let upto = part.len().min((range.end - offset) as usize);
        bytes.extend_from_slice(part.get(skip..upto).unwrap_or_default());
        if part.len() < asked {
            break;
        }
        offset += part.len() as u64;
    }
    Ok(bytes)
}
