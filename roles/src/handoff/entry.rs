//! An entry of the queue as bytes.
//!
//! | bytes | |
//! |---|---|
//! | 1 | version, 1 |
//! | 8 | when it was queued, milliseconds since the epoch, little-endian |
//! | any | the partition batch as the splitter sealed it, with its identity |
//!
//! The log that holds it has a checksum of all of it. Any other bytes are refused.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use tidemill_line::{FormatError, PartitionBatch};

const VERSION: u8 = 1;
/// Bytes in front of the batch.
pub const HEAD_BYTES: usize = 9;

/// A batch that waits for its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuedBatch<'a> {
    /// Milliseconds since the epoch.
    pub queued_ms: u64,
    pub image: &'a [u8],
}

/// Bytes that are no entry of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("an entry of {0} bytes")]
    Short(usize),
    #[error("an entry of version {0}")]
    Version(u8),
    #[error(transparent)]
    Batch(#[from] FormatError),
}

/// What stands in front of the batch.
pub fn head(queued_ms: u64) -> [u8; HEAD_BYTES] {
    let mut head = [VERSION; HEAD_BYTES];
    if let Some((_, time)) = head.split_first_mut() {
        time.copy_from_slice(&queued_ms.to_le_bytes());
    }
    head
}

/// Reads the head; the batch is not looked at.
pub fn parse(bytes: &[u8]) -> Result<QueuedBatch<'_>, EntryError> {
    let short = EntryError::Short(bytes.len());
    let Some((version, rest)) = bytes.split_first() else { return Err(short) };
    if *version != VERSION {
        return Err(EntryError::Version(*version));
    }
    let Some((time, image)) = rest.split_first_chunk() else { return Err(short) };
    Ok(QueuedBatch { queued_ms: u64::from_le_bytes(*time), image })
}

impl<'a> QueuedBatch<'a> {
    /// The batch, checked.
    pub fn batch(&self) -> Result<PartitionBatch<'a>, EntryError> {
        Ok(PartitionBatch::parse(self.image)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_come_back(queued_ms in any::<u64>(), image in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&head(queued_ms)[..], &image].concat();
            prop_assert_eq!(parse(&bytes), Ok(QueuedBatch { queued_ms, image: &image }));
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(entry) = parse(&bytes) {
                let _ = entry.batch();
                prop_assert_eq!(&[&head(entry.queued_ms)[..], entry.image].concat(), &bytes);
            }
        }
    }

    #[test]
    fn what_is_too_short_or_of_another_version_is_refused() {
        assert_eq!(parse(&[]), Err(EntryError::Short(0)));
        assert_eq!(parse(&[1, 2, 3]), Err(EntryError::Short(3)));
        assert_eq!(parse(&[2; 40]), Err(EntryError::Version(2)));
    }
}
