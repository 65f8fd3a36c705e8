//! Blocks of files that are in the storage pool.
//!
//! Owns: what the store asks of the pool. Knows nothing of nodes, links and copies: a file is its hash.

use std::{future::Future, io, pin::Pin};

/// A future of this core.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Reads files that were handed over.
pub trait PoolBlocks {
    /// The bytes `offset..offset + length` of the file with this BLAKE3 hash, all of them: the caller never asks for more
    /// than the file has.
    ///
    /// # Errors
    /// If no copy of the file can be read; the text says what was tried.
    fn read(&self, file: [u8; 32], offset: u64, length: usize) -> LocalFuture<'_, io::Result<Vec<u8>>>;

    /// What came from `offset` on is not what was written. The next read there is best answered by another copy.
    fn distrust(&self, file: [u8; 32], offset: u64);
}

/// Of a server that has no pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPool;

impl PoolBlocks for NoPool {
    fn read(&self, file: [u8; 32], _offset: u64, _length: usize) -> LocalFuture<'_, io::Result<Vec<u8>>> {
        let hash = blake3::Hash::from_bytes(file);
        let text = format!("its blocks are in the storage pool, as {hash}, and there is no way to the pool from here");
        Box::pin(async move { Err(io::Error::other(text)) })
    }

    fn distrust(&self, _file: [u8; 32], _offset: u64) {}
}
