//! What can go wrong, and how often it did.

use std::io;

/// The calls of the seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Open,
    Create,
    Rename,
    Remove,
    CreateDir,
    List,
    SyncDir,
    Read,
    Write,
    WriteDurable,
    SyncData,
    SetLen,
    Len,
    Close,
}

/// All operations, for counters and for tests that go through each.
pub const OPERATIONS: [Operation; 14] = [
    Operation::Open,
    Operation::Create,
    Operation::Rename,
    Operation::Remove,
    Operation::CreateDir,
    Operation::List,
    Operation::SyncDir,
    Operation::Read,
    Operation::Write,
    Operation::WriteDurable,
    Operation::SyncData,
    Operation::SetLen,
    Operation::Len,
    Operation::Close,
];

/// How a chosen call fails. On a sync, each leaves every un-synced write either durable or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO. A write may have reached the disk in part.
    Eio,
    /// ENOSPC, whatever the capacity.
    StorageFull,
    /// A write of which only a prefix of sectors was written; as `Eio` for other calls.
    ShortWrite,
}

/// How often each kind of fault was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    pub eio: u64,
    pub storage_full: u64,
    pub short_writes: u64,
    pub failed_syncs: u64,
    pub power_losses: u64,
    /// Un-synced writes that a power loss (or a failed sync) dropped.
    pub writes_dropped: u64,
    pub writes_torn: u64,
    /// Un-synced writes that a power loss kept although an earlier one of the same file was dropped or torn.
    pub writes_reordered: u64,
    pub names_dropped: u64,
    pub bits_flipped: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("{operation:?} {path}: the simulated power is off")]
pub(super) struct PowerLoss {
    pub operation: Operation,
    pub path: String,
}

/// Whether the error says that [`crate::sim::SimDisk::crash_at`] has struck.
pub fn is_power_loss(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<PowerLoss>())
}

impl Fault {
    pub(super) fn error(self, operation: Operation, path: &str) -> io::Error {
        let (kind, text) = match self {
            Fault::Eio => (io::ErrorKind::Other, "simulated I/O error"),
            Fault::StorageFull => (io::ErrorKind::StorageFull, "no space left on the simulated disk"),
            Fault::ShortWrite => (io::ErrorKind::WriteZero, "simulated short write"),
        };
        io::Error::new(kind, format!("{operation:?} {path}: {text}"))
    }
}
