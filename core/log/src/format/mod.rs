//! Bytes on disk, all integers little-endian.
//!
//! A segment is `segment_bytes` long: one block of [`segment_header`], then commits, each starting on a block. A commit
//! is a [`commit`] header, frames ([`frame`]) without gaps, and zeros up to the block. What follows the last commit is
//! zeros or remains of an earlier use of the file, which carry an older segment sequence and so are never taken for new.
//!
//! Pure: no I/O. The decoders take bytes from a disk that may lie; they never panic and never allocate.

pub mod commit;
pub mod frame;
pub mod segment_header;

/// Reads integers at fixed places; `None` past the end.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}
