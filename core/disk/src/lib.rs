//! The seam between storage code and the disk.
//!
//! Owns: the [`Disk`] and [`DiskFile`] traits that the log and the store are written against, the aligned buffer, and
//! the simulated disk that tests put behind them.
//! Invariants: paths are relative to one data folder and never leave it; offsets, lengths and buffers of direct I/O are
//! multiples of [`BLOCK_BYTES`]; nothing is durable before a `sync_*` (or a durable write) has returned `Ok`.
//! Knows nothing of executors, rings, frames or TSM.

mod aligned;
mod disk;

pub use aligned::AlignedBuf;
pub use disk::{Disk, DiskFile, Purpose};

/// Unit of direct I/O: covers 512-byte and 4-KiB devices, and is the page size.
pub const BLOCK_BYTES: usize = 4096;
