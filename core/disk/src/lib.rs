//! The seam between storage code and the disk.
//!
//! Owns: the [`Disk`] and [`DiskFile`] traits that the log and the store are written against, the aligned buffer, the
//! few waiting primitives that such code needs on any executor ([`Notify`], [`Watermark`], [`LocalQueue`]), reading and
//! writing a file from front to back with several calls under way ([`ReadAhead`], [`WriteBehind`]), and the simulated
//! disk and executor that tests put behind them ([`sim`]).
//! Invariants: paths are relative to one data folder and never leave it; offsets, lengths and buffers of direct I/O are
//! multiples of [`BLOCK_BYTES`]; nothing is durable before a `sync_*` (or a durable write) has returned `Ok`. The waiting
//! primitives use nothing but the task's waker, so code behind the seam runs on the pinned cores and in the simulator
//! alike.
//! Knows nothing of rings, frames or TSM.

mod aligned;
mod disk;
mod in_order;
mod notify;
mod queue;
mod read_ahead;
pub mod sim;
mod watermark;
mod write_behind;

pub use aligned::AlignedBuf;
pub use disk::{Disk, DiskFile, Purpose};
pub use notify::{Notified, Notify};
pub use queue::LocalQueue;
pub use read_ahead::ReadAhead;
pub use watermark::Watermark;
pub use write_behind::WriteBehind;

/// Unit of direct I/O: covers 512-byte and 4-KiB devices, and is the page size.
pub const BLOCK_BYTES: usize = 4096;
