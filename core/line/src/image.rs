//! The byte image of a partition batch: its header and its small encodings, for writer and reader.
//!
//! Little endian throughout, nothing is aligned. `v` is an unsigned LEB128 number of at most 32 bits.
//!
//! ```text
//! header     see PartitionHeader: HEADER_BYTES bytes
//! schema*    v measurement length, measurement (unescaped), v field count,
//!            field*: u8 type code, v name length, name (unescaped)
//! series*    u64 hash, v key length, canonical key, v length of the measurement in it (escaped), v group count,
//!            group*: v schema, v row count, i64 time*, column*
//! column     float, integer, unsigned: 8 bytes a row; boolean: one byte a row, 0 or 1;
//!            string: u32 length a row, then the bytes of all rows
//! ```
//!
//! Rows of a series come in their order of arrival: a group ends where the schema changes, not where a table is full.
//! The image has no checksum of its own; whatever carries it to disk or over the wire has one.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

/// Version of the image that this code writes and the only one it reads.
pub const FORMAT_VERSION: u16 = 1;
/// "tide", so that other bytes are told apart from a damaged image.
pub(crate) const MAGIC: [u8; 4] = *b"tide";
/// Bytes of the encoded header.
pub(crate) const HEADER_BYTES: usize = 96;
/// Where [`Identity::stamp`] writes: behind magic and version, and behind the shard group.
const BEHIND_AT: usize = 6;
const SESSION_AT: usize = 40;

/// What the image says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionHeader {
    pub database: u32,
    pub retention_policy: u32,
    pub shard_group: u64,
    /// First instant of the shard group, ns since the epoch.
    pub shard_group_start: i64,
    /// First instant behind the shard group, ns since the epoch.
    pub shard_group_end: i64,
    /// Who sent the batch, and which of its batches this is: a retry carries the same pair.
    pub session: u64,
    pub sequence: u64,
    /// Up to so many sequences before this one may still come; the sender is done with the others.
    pub behind: u16,
    pub partition: u32,
    /// Partitions that the series were dealt to, of all data groups.
    pub partition_count: u32,
    pub schema_count: u32,
    pub series_count: u32,
    pub row_count: u32,
    /// Row groups of all series.
    pub group_count: u32,
    /// Smallest and largest time of the rows, ns since the epoch.
    pub time_min: i64,
    pub time_max: i64,
}

impl PartitionHeader {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.behind.to_le_bytes());
        for number in [self.database, self.retention_policy] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.shard_group.to_le_bytes());
        for time in [self.shard_group_start, self.shard_group_end] {
            out.extend_from_slice(&time.to_le_bytes());
        }
        for number in [self.session, self.sequence] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let counts = [
            self.partition,
            self.partition_count,
            self.schema_count,
            self.series_count,
            self.row_count,
            self.group_count,
        ];
        for number in counts {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for time in [self.time_min, self.time_max] {
            out.extend_from_slice(&time.to_le_bytes());
        }
    }

    /// Reads the fields behind magic and version.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<PartitionHeader> {
        Some(PartitionHeader {
            behind: reader.array().map(u16::from_le_bytes)?,
            database: reader.u32()?,
            retention_policy: reader.u32()?,
            shard_group: reader.u64()?,
            shard_group_start: reader.u64()? as i64,
            shard_group_end: reader.u64()? as i64,
            session: reader.u64()?,
            sequence: reader.u64()?,
            partition: reader.u32()?,
            partition_count: reader.u32()?,
            schema_count: reader.u32()?,
            series_count: reader.u32()?,
            row_count: reader.u32()?,
            group_count: reader.u32()?,
            time_min: reader.u64()? as i64,
            time_max: reader.u64()? as i64,
        })
    }
}

/// Which batch of which sender an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub session: u64,
    pub sequence: u64,
    pub behind: u16,
}

impl Identity {
    /// Writes the identity into an image that is whole, in place of the one that it has. `false`: these bytes are too short
    /// to be one.
    pub fn stamp(&self, image: &mut [u8]) -> bool {
        let Some(behind) = image.get_mut(BEHIND_AT..).and_then(<[u8]>::first_chunk_mut) else { return false };
        *behind = self.behind.to_le_bytes();
        let Some((session, rest)) = image.get_mut(SESSION_AT..).and_then(<[u8]>::split_first_chunk_mut) else {
            return false;
        };
        *session = self.session.to_le_bytes();
        let Some(sequence) = rest.first_chunk_mut() else { return false };
        *sequence = self.sequence.to_le_bytes();
        true
    }
}

/// Appends a LEB128 number.
#[inline]
pub(crate) fn push_varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`push_varint`] writes.
pub(crate) fn varint_len(value: u32) -> usize {
    (32 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Takes pieces off the front of an image; `None` when it is too short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// `count` items of `size` bytes.
    #[inline]
    pub(crate) fn items(&mut self, count: usize, size: usize) -> Option<&'a [u8]> {
        self.bytes(count.checked_mul(size)?)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u32> {
        let (&first, rest) = self.rest.split_first()?;
        if first < 0x80 {
            self.rest = rest;
            return Some(u32::from(first));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Option<u32> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().take(5).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(index + 1..)?;
                return u32::try_from(value).ok();
            }
        }
        None
    }

    /// A varint and as many bytes.
    #[inline]
    pub(crate) fn prefixed(&mut self) -> Option<&'a [u8]> {
        let len = self.varint()?;
        self.bytes(len as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_header_has_its_length_and_comes_back() {
        let header = PartitionHeader {
            database: 1,
            retention_policy: 2,
            shard_group: 3,
            shard_group_start: -4,
            shard_group_end: 5,
            session: u64::MAX,
            sequence: 7,
            behind: 300,
            partition: 8,
            partition_count: 16,
            schema_count: 10,
            series_count: 11,
            row_count: 12,
            group_count: 13,
            time_min: i64::MIN + 2,
            time_max: i64::MAX - 1,
        };
        let mut out = Vec::new();
        header.write(&mut out);
        assert_eq!(out.len(), HEADER_BYTES);
        assert_eq!(PartitionHeader::read(&mut Reader { rest: &out[6..] }), Some(header));
        let identity = Identity { session: 21, sequence: u64::MAX - 1, behind: 4 };
        assert!(identity.stamp(&mut out));
        let Identity { session, sequence, behind } = identity;
        let stamped = PartitionHeader { session, sequence, behind, ..header };
        assert_eq!(PartitionHeader::read(&mut Reader { rest: &out[6..] }), Some(stamped));
        assert!(!identity.stamp(&mut out[..50]) && !identity.stamp(&mut []));
    }

    proptest! {
        #[test]
        fn varints_come_back(value in any::<u32>(), shift in 0u32..32) {
            let value = value >> shift;
            let mut out = Vec::new();
            push_varint(value, &mut out);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut reader = Reader { rest: &out };
            prop_assert_eq!(reader.varint(), Some(value));
            prop_assert!(reader.rest.is_empty());
            prop_assert_eq!(Reader { rest: &out[..out.len() - 1] }.varint(), None);
        }
    }

    #[test]
    fn overlong_varints_are_refused() {
        assert_eq!(Reader { rest: &[0xff, 0xff, 0xff, 0xff, 0x1f] }.varint(), None);
        assert_eq!(Reader { rest: &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00] }.varint(), None);
    }
}
