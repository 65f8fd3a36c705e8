//! Tombstone files: which time ranges of which keys of a TSM file are deleted (`tsm-format`, section 4).
//!
//! Owns: reading versions 1 to 4, writing version 4.
//! Invariants: reading allocates at most [`PLAIN_BYTES_MAX`] for the unpacked entries and a bounded multiple of them
//! for the result. Every gzip member is verified by the CRC that it carries; versions 1 and 2 carry none.
//! Knows nothing of what the keys stand for.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::{GzDecoder, MultiGzDecoder};
use flate2::write::GzEncoder;

use crate::cursor::Cursor;
use crate::key::KEY_BYTES_MAX;

const MAGIC_V2: [u8; 4] = [0, 0, 0x15, 2];
const MAGIC_V3: [u8; 4] = [0, 0, 0x15, 3];

/// First bytes of a version 4 file; members follow.
pub const HEADER: [u8; 4] = [0, 0, 0x15, 4];

/// Most bytes of unpacked entries that a reader accepts. A gzip member of 1 MiB can claim 1 GiB; a million deletions of
/// keys of 200 bytes take 220 MB.
pub const PLAIN_BYTES_MAX: usize = 256 << 20;

/// One deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Key of the index: series key, separator, field name.
    pub key: Vec<u8>,
    /// First deleted instant, ns.
    pub min_time: i64,
    /// Last deleted instant, ns.
    pub max_time: i64,
}

/// A tombstone file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TombstoneError {
    #[error("tombstone {number} ends past the file")]
    Truncated { number: usize },
    #[error("tombstone {number} has a key of {bytes} bytes, more than {KEY_BYTES_MAX}")]
    KeyTooLong { number: usize, bytes: usize },
    #[error("the gzip stream of the tombstones is damaged")]
    Gzip,
    #[error("the tombstones take more than {PLAIN_BYTES_MAX} bytes")]
    TooLarge,
}

/// The deletions of a file of any version, in the order of the file.
///
/// # Errors
/// If an entry is cut, a gzip member is damaged or the entries exceed [`PLAIN_BYTES_MAX`]. There is no partial answer:
/// a deletion that is overlooked brings data back.
pub fn read(bytes: &[u8]) -> Result<Vec<Tombstone>, TombstoneError> {
    let (magic, body) = bytes.split_at_checked(4).unwrap_or((&[], bytes));
    if magic == MAGIC_V2 {
        entries(body)
    } else if magic == MAGIC_V3 {
        entries(&unpacked(GzDecoder::new(body))?)
    } else if magic == HEADER {
        // A file that was begun and never committed to has no member.
        if body.is_empty() { Ok(Vec::new()) } else { entries(&unpacked(MultiGzDecoder::new(body))?) }
    } else {
        lines(bytes)
    }
}

/// Appends a member with `tombstones` to a version 4 file: behind [`HEADER`] or behind earlier members.
///
/// # Panics
/// If a key is longer than the format allows.
pub fn push_member(tombstones: &[Tombstone], out: &mut Vec<u8>) {
    let mut plain = Vec::new();
    for tombstone in tombstones {
        assert!(tombstone.key.len() <= KEY_BYTES_MAX, "a key of {} bytes", tombstone.key.len());
        plain.extend_from_slice(&(tombstone.key.len() as u32).to_be_bytes());
        plain.extend_from_slice(&tombstone.key);
        plain.extend_from_slice(&tombstone.min_time.to_be_bytes());
        plain.extend_from_slice(&tombstone.max_time.to_be_bytes());
    }
    let mut encoder = GzEncoder::new(out, Compression::fast());
    let written = encoder.write_all(&plain).and_then(|()| encoder.try_finish());
    assert!(written.is_ok(), "a vector takes every byte");
}

fn unpacked(packed: impl Read) -> Result<Vec<u8>, TombstoneError> {
    let mut plain = Vec::new();
    packed.take(PLAIN_BYTES_MAX as u64 + 1).read_to_end(&mut plain).map_err(|_| TombstoneError::Gzip)?;
    if plain.len() > PLAIN_BYTES_MAX { Err(TombstoneError::TooLarge) } else { Ok(plain) }
}

fn entries(plain: &[u8]) -> Result<Vec<Tombstone>, TombstoneError> {
    let mut tombstones = Vec::new();
    let mut cursor = Cursor::new(plain);
    while !cursor.is_empty() {
        let number = tombstones.len();
        let truncated = TombstoneError::Truncated { number };
        let bytes = cursor.u32().ok_or(truncated)? as usize;
        if bytes > KEY_BYTES_MAX {
            return Err(TombstoneError::KeyTooLong { number, bytes });
        }
        let key = cursor.take(bytes).ok_or(truncated)?.to_vec();
        let (min_time, max_time) = cursor.i64().zip(cursor.i64()).ok_or(truncated)?;
        tombstones.push(Tombstone { key, min_time, max_time });
    }
    Ok(tombstones)
}

/// Version 1: a key a line, deleted at all times.
fn lines(text: &[u8]) -> Result<Vec<Tombstone>, TombstoneError> {
    let mut tombstones = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        if line.len() > KEY_BYTES_MAX {
            return Err(TombstoneError::KeyTooLong { number, bytes: line.len() });
        }
        tombstones.push(Tombstone { key: line.to_vec(), min_time: i64::MIN, max_time: i64::MAX });
    }
    Ok(tombstones)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tombstone(key: &str, min_time: i64, max_time: i64) -> Tombstone {
        Tombstone { key: key.into(), min_time, max_time }
    }

    fn bytes_of(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect()
    }

    const FIRST_MEMBER: &str =
        "000015041f8b08000000000000ff626060e0cad529b14d5456ac534e6b6040018c80000000ffff7612239f1e000000";
    const SECOND_MEMBER: &str =
        "1f8b08000000000000ff626060e0cad529b14d5256ac534e6b608080faff1000080000ffff0f0a01c61e000000";

    #[test]
    fn files_of_upstream_are_read() {
        let first = tombstone("m,t=a#!~#f", i64::MIN, 1);
        let second = tombstone("m,t=b#!~#f", i64::MIN, i64::MAX);
        assert_eq!(read(&bytes_of(FIRST_MEMBER)), Ok(vec![first.clone()]));
        let mut both = bytes_of(FIRST_MEMBER);
        both.extend(bytes_of(SECOND_MEMBER));
        assert_eq!(read(&both), Ok(vec![first.clone(), second.clone()]));
        let mut third = both.clone();
        push_member(&[tombstone("x", 3, 4)], &mut third);
        assert_eq!(read(&third), Ok(vec![first, second, tombstone("x", 3, 4)]));
    }

    #[test]
    fn versions_1_to_3_are_read() {
        assert_eq!(read(b""), Ok(vec![]));
        let all = |key| tombstone(key, i64::MIN, i64::MAX);
        assert_eq!(read(b"cpu#!~#v\nmem#!~#v"), Ok(vec![all("cpu#!~#v"), all("mem#!~#v")]));
        assert_eq!(read(b"ab\n"), Ok(vec![all("ab")]));
        let plain = bytes_of("000000016b8000000000000000000000000000000a");
        let v2: Vec<u8> = MAGIC_V2.into_iter().chain(plain.clone()).collect();
        assert_eq!(read(&v2), Ok(vec![tombstone("k", i64::MIN, 10)]));
        let mut encoder = GzEncoder::new(MAGIC_V3.to_vec(), Compression::default());
        encoder.write_all(&plain).unwrap();
        assert_eq!(read(&encoder.finish().unwrap()), Ok(vec![tombstone("k", i64::MIN, 10)]));
        assert_eq!(read(&HEADER), Ok(vec![]));
    }

    #[test]
    fn every_cut_and_every_flipped_payload_bit_is_noticed() {
        let file = bytes_of(FIRST_MEMBER);
        for kept in 5..file.len() {
            assert!(read(&file[..kept]).is_err(), "{kept} bytes");
        }
        // From the deflate data on; header bits of gzip such as its time carry nothing.
        for bit in 14 * 8..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).map_or(true, |read| read == super::read(&file).unwrap()), "bit {bit}");
        }
    }

    #[test]
    fn a_gzip_bomb_stops_at_the_limit() {
        let mut encoder = GzEncoder::new(HEADER.to_vec(), Compression::best());
        let zeros = vec![0; 1 << 20];
        (0..=PLAIN_BYTES_MAX >> 20).for_each(|_| encoder.write_all(&zeros).unwrap());
        assert_eq!(read(&encoder.finish().unwrap()), Err(TombstoneError::TooLarge));
    }

    proptest! {
        #[test]
        fn members_come_back(members in proptest::collection::vec(proptest::collection::vec((".{0,20}", any::<i64>(), any::<i64>()), 0..5), 0..4)) {
            let members: Vec<Vec<Tombstone>> = members.into_iter().map(|member| member.into_iter().map(|(key, min, max)| tombstone(&key, min, max)).collect()).collect();
            let mut file = HEADER.to_vec();
            members.iter().for_each(|member| push_member(member, &mut file));
            prop_assert_eq!(read(&file), Ok(members.concat()));
        }

        #[test]
        fn any_bytes_are_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..100), version in 1u8..5) {
            let bytes: Vec<u8> = [0, 0, 0x15, version].into_iter().chain(bytes).collect();
            let _ = read(&bytes);
        }
    }
}
