//! As much of protobuf as upstream's small files need: varints, bytes, and skipping what is unknown.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::cursor::{Cursor, push_uvarint};

/// The tag of a varint field.
pub(crate) const fn varint_tag(number: u64) -> u64 {
    number << 3
}

/// The tag of a field of bytes, text or a message.
pub(crate) const fn bytes_tag(number: u64) -> u64 {
    number << 3 | 2
}

/// One field as far as it matters here.
pub(crate) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of 32 or 64 bits; no file here has one.
    Fixed,
}

/// The bytes are no message.
pub(crate) struct Malformed;

/// Hands over tag and content of each field of a message.
pub(crate) fn for_each_field<'a, E: From<Malformed>>(
    message: &'a [u8],
    mut sink: impl FnMut(u64, Field<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut cursor = Cursor::new(message);
    while !cursor.is_empty() {
        let (tag, field) = next_field(&mut cursor).ok_or(Malformed)?;
        sink(tag, field)?;
    }
    Ok(())
}

pub(crate) fn push_bytes(tag: u64, bytes: &[u8], out: &mut Vec<u8>) {
    push_uvarint(out, tag);
    push_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn push_varint(tag: u64, value: u64, out: &mut Vec<u8>) {
    push_uvarint(out, tag);
    push_uvarint(out, value);
}

fn next_field<'a>(cursor: &mut Cursor<'a>) -> Option<(u64, Field<'a>)> {
    let tag = cursor.uvarint()?;
    let field = match tag & 7 {
        0 => Field::Varint(cursor.uvarint()?),
        1 => cursor.take(8).map(|_| Field::Fixed)?,
        2 => {
            let length = usize::try_from(cursor.uvarint()?).ok()?;
            Field::Bytes(cursor.take(length)?)
        }
        5 => cursor.take(4).map(|_| Field::Fixed)?,
        _ => return None,
    };
    Some((tag, field))
}
