//! Upstream's write-ahead log, for taking over its data (`tsm-format`, section 3).
//!
//! Owns: reading the entries of a segment. Nothing here writes: our own log is another one.
//! Invariants: an entry allocates at most 22 times its compressed bytes for the payload, and at most 32 times the payload
//! for keys and values (that many when it is all keys of one byte). A damaged entry ends a segment: [`WalError`] says at
//! which offset, and all before it is good, as upstream itself cuts a segment there. The format carries no checksum.
//! Knows nothing of series keys.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use tidemill_column::{FieldType, Strings, Values};

use crate::cursor::Cursor;
use crate::strings::decompress;

const WRITE: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;

/// Points of one key, in the order in which they were written: not sorted, times may repeat.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyPoints {
    /// Series key, separator, field name.
    pub key: Vec<u8>,
    /// ns, as many as there are values.
    pub times: Vec<i64>,
    pub values: Values,
}

/// One entry of a segment.
#[derive(Clone, Debug, PartialEq)]
pub enum WalEntry {
    Write(Vec<KeyPoints>),
    /// The keys are deleted at all times.
    Delete {
        keys: Vec<Vec<u8>>,
    },
    /// The keys are deleted from `min_time` to `max_time`, both inclusive.
    DeleteRange {
        min_time: i64,
        max_time: i64,
        keys: Vec<Vec<u8>>,
    },
}

/// The segment is good up to `offset` and not from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    #[error("the entry at {offset} of the segment ends past it")]
    Truncated { offset: usize },
    #[error("the entry at {offset} of the segment has the unknown type {code}")]
    EntryType { offset: usize, code: u8 },
    #[error("the entry at {offset} of the segment is not a snappy block")]
    Snappy { offset: usize },
    #[error("the payload of the entry at {offset} of the segment is malformed")]
    Payload { offset: usize },
}

/// Reads a segment from its beginning.
#[derive(Clone, Debug)]
pub struct WalReader<'a> {
    segment_bytes: usize,
    cursor: Cursor<'a>,
}

impl<'a> WalReader<'a> {
    pub fn new(segment: &'a [u8]) -> WalReader<'a> {
        WalReader { segment_bytes: segment.len(), cursor: Cursor::new(segment) }
    }

    /// Where the next entry begins.
    pub fn offset(&self) -> usize {
        self.segment_bytes - self.cursor.rest().len()
    }

    /// The next entry; `None` at the end of the segment.
    ///
    /// # Errors
    /// If the entry is cut or damaged. The reader stays before it.
    pub fn next_entry(&mut self) -> Result<Option<WalEntry>, WalError> {
        if self.cursor.is_empty() {
            return Ok(None);
        }
        let offset = self.offset();
        let truncated = WalError::Truncated { offset };
        let mut cursor = self.cursor;
        let code = cursor.u8().ok_or(truncated)?;
        let length = cursor.u32().ok_or(truncated)?;
        let packed = cursor.take(length as usize).ok_or(truncated)?;
        if !(WRITE..=DELETE_RANGE).contains(&code) {
            return Err(WalError::EntryType { offset, code });
        }
        let payload = decompress(packed).map_err(|_| WalError::Snappy { offset })?;
        let entry = match code {
            WRITE => write_of(&payload),
            DELETE => Some(delete_of(&payload)),
            _ => delete_range_of(&payload),
        }
        .ok_or(WalError::Payload { offset })?;
        self.cursor = cursor;
        Ok(Some(entry))
    }
}

fn write_of(payload: &[u8]) -> Option<WalEntry> {
    let mut cursor = Cursor::new(payload);
    let mut series = Vec::new();
    while !cursor.is_empty() {
        // The log numbers the types from one, in the order of block types.
        let field_type = FieldType::from_code(cursor.u8()?.checked_sub(1)?)?;
        let key_bytes = usize::from(cursor.u16()?);
        let key = cursor.take(key_bytes)?.to_vec();
        let count = cursor.u32()? as usize;
        let value_bytes_min = match field_type {
            FieldType::Float | FieldType::Integer | FieldType::Unsigned => 16,
            FieldType::Boolean => 9,
            FieldType::String => 12,
        };
        // The count is believed, and room made for it, only as far as the payload can hold it.
        if count > cursor.rest().len() / value_bytes_min {
            return None;
        }
        let mut times = Vec::with_capacity(count);
        let mut values = Values::new(field_type);
        for _ in 0..count {
            times.push(cursor.i64()?);
            match &mut values {
                Values::Float(values) => values.push(f64::from_bits(cursor.u64()?)),
                Values::Integer(values) => values.push(cursor.i64()?),
                Values::Unsigned(values) => values.push(cursor.u64()?),
                Values::Boolean(values) => values.push(cursor.u8()? != 0),
                Values::String(values) => push_string(&mut cursor, values)?,
            }
        }
        series.push(KeyPoints { key, times, values });
    }
    Some(WalEntry::Write(series))
}

fn push_string(cursor: &mut Cursor<'_>, values: &mut Strings) -> Option<()> {
    let length = cursor.u32()? as usize;
    // A payload is below 4 GiB (snappy's limit), and so are its strings together.
    values.push(cursor.take(length)?);
    Some(())
}

fn delete_of(payload: &[u8]) -> WalEntry {
    let keys = payload.split(|byte| *byte == b'\n').filter(|key| !key.is_empty()).map(<[u8]>::to_vec).collect();
    WalEntry::Delete { keys }
}

fn delete_range_of(payload: &[u8]) -> Option<WalEntry> {
    let mut cursor = Cursor::new(payload);
    let (min_time, max_time) = (cursor.i64()?, cursor.i64()?);
    let mut keys = Vec::new();
    while !cursor.is_empty() {
        let length = cursor.u32()? as usize;
        keys.push(cursor.take(length)?.to_vec());
    }
    Some(WalEntry::DeleteRange { min_time, max_time, keys })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect()
    }

    fn entries_of(segment: &[u8]) -> (Vec<WalEntry>, Option<WalError>) {
        let mut reader = WalReader::new(segment);
        let mut entries = Vec::new();
        loop {
            match reader.next_entry() {
                Ok(Some(entry)) => entries.push(entry),
                Ok(None) => return (entries, None),
                Err(error) => return (entries, Some(error)),
            }
        }
    }

    fn framed(code: u8, payload: &[u8]) -> Vec<u8> {
        let packed = snap::raw::Encoder::new().compress_vec(payload).unwrap();
        let length = (packed.len() as u32).to_be_bytes();
        [code].into_iter().chain(length).chain(packed).collect()
    }

    fn points(key: &str, times: &[i64], values: Values) -> KeyPoints {
        KeyPoints { key: key.into(), times: times.to_vec(), values }
    }

    const V1: &str = "010000001f1d700100066d23217e2366000000011457b58f22c0d8480000000000000000";
    const VB: &str = "010000002931340300066d23217e23620000000400090104010109080400020d082c000301000000000000000501";
    const VS: &str = "01000000363b340400066d23217e2373000000030005012803e80000000568656c6c6f0510080007d0090838000000000bb80000000568656c6c6f";
    const VD: &str = "0100000039524401000a6d2c743d6123217e23660000000200090108013ff009090d0108034008090a0d3100621131000109172400024000000000000000";

    #[test]
    fn segments_of_upstream_are_read() {
        let read = |hex| {
            let (entries, error) = entries_of(&bytes_of(hex));
            assert_eq!(error, None);
            entries
        };
        let one = points("m#!~#f", &[1_465_839_830_100_400_200], Values::Float(vec![0.0]));
        assert_eq!(read(V1), [WalEntry::Write(vec![one])]);
        let booleans = points("m#!~#b", &[1, 2, 3, 5], Values::Boolean(vec![true, false, true, true]));
        assert_eq!(read(VB), [WalEntry::Write(vec![booleans])]);
        let texts = Values::String([&b"hello"[..], b"", b"hello"].into_iter().collect());
        assert_eq!(read(VS), [WalEntry::Write(vec![points("m#!~#s", &[1000, 2000, 3000], texts)])]);
        let first = points("m,t=a#!~#f", &[1, 3], Values::Float(vec![1.0, 3.0]));
        let second = points("m,t=b#!~#f", &[2], Values::Float(vec![2.0]));
        assert_eq!(read(VD), [WalEntry::Write(vec![first, second])]);
    }

    #[test]
    fn numbers_and_deletions_are_read() {
        let mut payload = Vec::new();
        for (code, word) in [(2u8, (-3i64).cast_unsigned()), (5, u64::MAX)] {
            payload.extend_from_slice(&[code, 0, 1, b'k', 0, 0, 0, 1]);
            payload.extend_from_slice(&7i64.to_be_bytes());
            payload.extend_from_slice(&word.to_be_bytes());
        }
        let mut segment = framed(WRITE, &payload);
        segment.extend(framed(DELETE, b"a\nb"));
        let mut range = [(-5i64).to_be_bytes(), 9i64.to_be_bytes()].concat();
        range.extend_from_slice(b"\0\0\0\x02ab\0\0\0\x01c");
        segment.extend(framed(DELETE_RANGE, &range));
        let expected = [
            WalEntry::Write(vec![
                points("k", &[7], Values::Integer(vec![-3])),
                points("k", &[7], Values::Unsigned(vec![u64::MAX])),
            ]),
            WalEntry::Delete { keys: vec![b"a".to_vec(), b"b".to_vec()] },
            WalEntry::DeleteRange { min_time: -5, max_time: 9, keys: vec![b"ab".to_vec(), b"c".to_vec()] },
        ];
        assert_eq!(entries_of(&segment), (expected.to_vec(), None));
    }

    #[test]
    fn a_cut_segment_gives_what_is_whole_and_where_it_ends() {
        let whole = bytes_of(V1);
        let segment = [whole.clone(), bytes_of(VB)].concat();
        for kept in whole.len() + 1..segment.len() {
            let (entries, error) = entries_of(&segment[..kept]);
            assert_eq!((entries.len(), error), (1, Some(WalError::Truncated { offset: whole.len() })));
        }
    }

    #[test]
    fn lying_counts_and_types_are_refused() {
        let lie = [1, 0, 1, b'k', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(entries_of(&framed(WRITE, &lie)).1, Some(WalError::Payload { offset: 0 }));
        assert_eq!(entries_of(&framed(WRITE, &[0, 0, 0, 0, 0, 0, 0])).1, Some(WalError::Payload { offset: 0 }));
        assert_eq!(entries_of(&framed(4, b"")).1, Some(WalError::EntryType { offset: 0, code: 4 }));
        let lying_snappy = [1, 0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert_eq!(entries_of(&lying_snappy).1, Some(WalError::Snappy { offset: 0 }));
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_not(payload in proptest::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..100), code in 0u8..5) {
            let _ = entries_of(&framed(code, &payload));
        }

        #[test]
        fn any_segment_is_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let _ = entries_of(&bytes);
            let mut damaged = bytes_of(VS);
            let at = at.index(damaged.len());
            damaged[at] = to;
            let _ = entries_of(&damaged);
        }
    }
}
