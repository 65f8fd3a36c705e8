//! `fields.idx`: measurements, their fields and the fields' types (`tsm-format`, section 5).
//!
//! Owns: the two protobuf messages of that file, both ways.
//! Invariants: reading allocates a bounded multiple of its input; unknown protobuf fields are skipped. Upstream's
//! format carries no checksum: the file is a hint that can be rebuilt from the keys of the TSM files, which is what a
//! reader does when this one is damaged.
//! Knows nothing of shards.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use tidemill_column::FieldType;

use crate::cursor::push_uvarint;
use crate::protobuf::{self, Field, push_bytes};

const MAGIC: [u8; 4] = [0, 6, 1, 3];

/// Protobuf: field number 1, length-delimited.
const TAG_BYTES_1: u64 = 1 << 3 | 2;
/// Protobuf: field number 2, length-delimited.
const TAG_BYTES_2: u64 = 2 << 3 | 2;
/// Protobuf: field number 2, varint.
const TAG_VARINT_2: u64 = 2 << 3;

/// A measurement and its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasurementFields {
    pub measurement: Vec<u8>,
    pub fields: Vec<(Vec<u8>, FieldType)>,
}

/// A `fields.idx` cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsIndexError {
    #[error("not a fields.idx: its first bytes are others")]
    Magic,
    #[error("the fields.idx is damaged")]
    Malformed,
    #[error("a field has the unknown type {code}")]
    FieldType { code: u64 },
}

impl From<protobuf::Malformed> for FieldsIndexError {
    fn from(_: protobuf::Malformed) -> FieldsIndexError {
        FieldsIndexError::Malformed
    }
}

/// The content of a `fields.idx`, in the order of the file. An empty file holds nothing.
///
/// # Errors
/// If it is no such file, or a message in it is cut, or a type is unknown.
pub fn read(bytes: &[u8]) -> Result<Vec<MeasurementFields>, FieldsIndexError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let body = bytes.strip_prefix(&MAGIC).ok_or(FieldsIndexError::Magic)?;
    let mut measurements = Vec::new();
    protobuf::for_each_field(body, |tag, field| {
        if let (TAG_BYTES_1, Field::Bytes(message)) = (tag, field) {
            measurements.push(measurement_of(message)?);
        }
        Ok::<(), FieldsIndexError>(())
    })?;
    Ok(measurements)
}

/// Appends a `fields.idx` that holds `measurements` in their order.
pub fn write(measurements: &[MeasurementFields], out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    let (mut message, mut field_message) = (Vec::new(), Vec::new());
    for measurement in measurements {
        message.clear();
        push_bytes(TAG_BYTES_1, &measurement.measurement, &mut message);
        for (name, field_type) in &measurement.fields {
            field_message.clear();
            push_bytes(TAG_BYTES_1, name, &mut field_message);
            push_uvarint(&mut field_message, TAG_VARINT_2);
            push_uvarint(&mut field_message, code_of(*field_type));
            push_bytes(TAG_BYTES_2, &field_message, &mut message);
        }
        push_bytes(TAG_BYTES_1, &message, out);
    }
}

fn measurement_of(message: &[u8]) -> Result<MeasurementFields, FieldsIndexError> {
    let mut measurement = MeasurementFields { measurement: Vec::new(), fields: Vec::new() };
    protobuf::for_each_field(message, |tag, field| {
        match (tag, field) {
            (TAG_BYTES_1, Field::Bytes(name)) => measurement.measurement = name.to_vec(),
            (TAG_BYTES_2, Field::Bytes(message)) => measurement.fields.push(field_of(message)?),
            _ => {}
        }
        Ok::<(), FieldsIndexError>(())
    })?;
    Ok(measurement)
}

fn field_of(message: &[u8]) -> Result<(Vec<u8>, FieldType), FieldsIndexError> {
    let (mut name, mut code) = (Vec::new(), 0);
    protobuf::for_each_field(message, |tag, field| {
        match (tag, field) {
            (TAG_BYTES_1, Field::Bytes(bytes)) => name = bytes.to_vec(),
            (TAG_VARINT_2, Field::Varint(value)) => code = value,
            _ => {}
        }
        Ok::<(), FieldsIndexError>(())
    })?;
    Ok((name, type_of(code).ok_or(FieldsIndexError::FieldType { code })?))
}

/// Upstream numbers the types of its query language here, not those of blocks.
fn code_of(field_type: FieldType) -> u64 {
    match field_type {
        FieldType::Float => 1,
        FieldType::Integer => 2,
        FieldType::String => 3,
        FieldType::Boolean => 4,
        FieldType::Unsigned => 9,
    }
}

fn type_of(code: u64) -> Option<FieldType> {
    FieldType::ALL.into_iter().find(|field_type| code_of(*field_type) == code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CPU: &[u8] = b"\x00\x06\x01\x03\x0a\x21\x0a\x03cpu\x12\x05\x0a\x01f\x10\x01\x12\x05\x0a\x01i\x10\x02\
        \x12\x05\x0a\x01s\x10\x03\x12\x05\x0a\x01b\x10\x04";

    fn cpu() -> MeasurementFields {
        let fields =
            [("f", FieldType::Float), ("i", FieldType::Integer), ("s", FieldType::String), ("b", FieldType::Boolean)];
        MeasurementFields {
            measurement: b"cpu".to_vec(),
            fields: fields.into_iter().map(|(name, field_type)| (name.into(), field_type)).collect(),
        }
    }

    #[test]
    fn a_file_of_upstream_is_read_and_written_byte_for_byte() {
        assert_eq!(read(CPU), Ok(vec![cpu()]));
        let mut written = Vec::new();
        write(&[cpu()], &mut written);
        assert_eq!(written, CPU);
        assert_eq!(read(b""), Ok(vec![]));
    }

    #[test]
    fn unknown_fields_are_skipped_and_unknown_types_are_not() {
        let known = |extra: &[u8]| {
            let field: Vec<u8> = b"\x0a\x01f\x10\x09".iter().chain(extra).copied().collect();
            let mut message = Vec::new();
            push_bytes(TAG_BYTES_1, b"m", &mut message);
            push_bytes(TAG_BYTES_2, &field, &mut message);
            let mut file = MAGIC.to_vec();
            push_bytes(TAG_BYTES_1, &message, &mut file);
            read(&file).map(|read| read[0].fields.clone())
        };
        for extra in [&b""[..], b"\x18\x05", b"\x1a\x02xy", b"\x1dabcd", b"\x19abcdefgh"] {
            assert_eq!(known(extra), Ok(vec![(b"f".to_vec(), FieldType::Unsigned)]));
        }
        assert_eq!(known(b"\x10\x07"), Err(FieldsIndexError::FieldType { code: 7 }));
        assert_eq!(known(b"\x1b"), Err(FieldsIndexError::Malformed));
        assert_eq!(known(b"\x1a\x7f"), Err(FieldsIndexError::Malformed));
    }

    proptest! {
        #[test]
        fn measurements_come_back(names in proptest::collection::vec((".{0,8}", proptest::collection::vec((".{0,8}", 0u8..5), 0..6)), 0..6)) {
            let measurements: Vec<MeasurementFields> = names.into_iter().map(|(measurement, fields)| MeasurementFields {
                measurement: measurement.into(),
                fields: fields.into_iter().map(|(name, code)| (name.into(), FieldType::from_code(code).unwrap())).collect(),
            }).collect();
            let mut file = Vec::new();
            write(&measurements, &mut file);
            prop_assert_eq!(read(&file), Ok(measurements));
        }

        #[test]
        fn any_bytes_are_read_or_not(at in any::<prop::sample::Index>(), to in any::<u8>(), bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut damaged = CPU.to_vec();
            let at = at.index(damaged.len());
            damaged[at] = to;
            let _ = read(&damaged);
            let random: Vec<u8> = MAGIC.into_iter().chain(bytes).collect();
            let _ = read(&random);
        }
    }
}
