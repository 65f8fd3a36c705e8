//! The series part of a line: where it ends, what is wrong with it, and its canonical form.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use memchr::memchr2;

use crate::line_error::Reason;
use crate::text::byte_at;

/// Where one tag lies in the raw series part.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TagSpan {
    key_start: u32,
    key_end: u32,
    value_end: u32,
}

impl TagSpan {
    fn key<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        raw.get(self.key_start as usize..self.key_end as usize).unwrap_or_default()
    }

    fn value<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        raw.get(self.key_end as usize + 1..self.value_end as usize).unwrap_or_default()
    }
}

/// What [`scan_key`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyShape {
    /// Bytes of the measurement, escapes included.
    pub(crate) measurement_len: usize,
    /// The raw text is the canonical text.
    pub(crate) canonical: bool,
    /// One of the tags is named `time`, which no point may carry.
    pub(crate) has_time_tag: bool,
}

/// The position of the space that ends the series part that starts at `start`; `None` if the line ends before.
///
/// A separator counts when the byte before it is no backslash, whatever that backslash itself follows.
#[inline]
pub(crate) fn key_end(input: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        at += memchr2(b' ', b'\n', input.get(at..)?)?;
        if byte_at(input, at) == b'\n' {
            return None;
        }
        if at > start && byte_at(input, at - 1) != b'\\' {
            return Some(at);
        }
        at += 1;
    }
}

/// Checks the series part of a line, which is all of `raw`, and leaves its tags in `tags`, sorted by key.
///
/// `complete` says that a space follows; without one the line has no fields.
///
/// # Errors
/// The first problem, as upstream names it.
pub(crate) fn scan_key(raw: &[u8], complete: bool, tags: &mut Vec<TagSpan>) -> Result<KeyShape, Reason> {
    tags.clear();
    if matches!(raw.first(), None | Some(b',')) {
        return Err(Reason::MissingMeasurement);
    }
    let measurement_len = find(raw, 1, |byte| byte == b',');
    let mut canonical = true;
    let mut at = measurement_len;
    while at < raw.len() {
        let key_start = at + 1;
        if matches!(raw.get(key_start), None | Some(b' ' | b',' | b'=')) {
            return Err(Reason::MissingTagKey);
        }
        let key_end = find(raw, key_start + 1, |byte| matches!(byte, b',' | b'='));
        if raw.get(key_end) != Some(&b'=') {
            return Err(Reason::MissingTagValue);
        }
        // An equals sign as the first byte of a value belongs to the value.
        canonical &= match raw.get(key_end + 1) {
            None | Some(b' ' | b',') => return Err(Reason::MissingTagValue),
            first => first != Some(&b'='),
        };
        let value_end = find(raw, key_end + 2, |byte| matches!(byte, b',' | b'='));
        if raw.get(value_end) == Some(&b'=') {
            return Err(Reason::InvalidTagFormat);
        }
        tags.push(TagSpan { key_start: key_start as u32, key_end: key_end as u32, value_end: value_end as u32 });
        at = value_end;
    }
    if !complete {
        return Err(Reason::MissingFields);
    }
    if !tags.is_sorted_by(|a, b| a.key(raw) < b.key(raw)) {
        tags.sort_by(|a, b| a.key(raw).cmp(b.key(raw)));
        canonical = false;
    }
    let neighbours = tags.iter().zip(tags.iter().skip(1));
    if !canonical && neighbours.into_iter().any(|(a, b)| a.key(raw) == b.key(raw)) {
        return Err(Reason::DuplicateTags);
    }
    let has_time_tag = tags.iter().any(|tag| tag.key(raw) == b"time");
    Ok(KeyShape { measurement_len, canonical, has_time_tag })
}

/// The first position from `from` on whose byte is a stop and not escaped, or the end.
#[inline]
fn find(raw: &[u8], from: usize, is_stop: impl Fn(u8) -> bool) -> usize {
    let mut previous = byte_at(raw, from.wrapping_sub(1));
    for (offset, byte) in raw.get(from..).unwrap_or_default().iter().enumerate() {
        if is_stop(*byte) && previous != b'\\' {
            return from + offset;
        }
        previous = *byte;
    }
    raw.len()
}

/// Appends the canonical form of a series part that [`scan_key`] accepted: tags in key order, every separator escaped.
pub(crate) fn push_canonical(raw: &[u8], shape: KeyShape, tags: &[TagSpan], out: &mut Vec<u8>) {
    out.extend_from_slice(raw.get(..shape.measurement_len).unwrap_or_default());
    for tag in tags {
        out.push(b',');
        out.extend_from_slice(tag.key(raw));
        out.push(b'=');
        let value = tag.value(raw);
        if value.first() == Some(&b'=') {
            out.push(b'\\');
        }
        out.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(raw: &str) -> Result<String, Reason> {
        let mut tags = Vec::new();
        let shape = scan_key(raw.as_bytes(), true, &mut tags)?;
        let mut out = Vec::new();
        push_canonical(raw.as_bytes(), shape, &tags, &mut out);
        assert_eq!(shape.canonical, out == raw.as_bytes());
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn canonical_forms() {
        for (raw, expected) in [
            ("cpu", "cpu"),
            ("cpu,r=x,host=a", "cpu,host=a,r=x"),
            (r"m\,x,t=1", r"m\,x,t=1"),
            (r"q,e=f\,g,a\=b=c\ d", r"q,a\=b=c\ d,e=f\,g"),
            ("m,a==b", r"m,a=\=b"),
            ("m,a==", r"m,a=\="),
            (r"\,m,a=b", r"\,m,a=b"),
            ("=1", "=1"),
        ] {
            assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn three_equal_tags_out_of_order_are_seen() {
        assert_eq!(canonical("m,b=1,a=2,b=3"), Err(Reason::DuplicateTags));
        assert_eq!(canonical("m,a=1,a=2"), Err(Reason::DuplicateTags));
    }

    #[test]
    fn the_key_ends_at_the_first_space_without_a_backslash() {
        for (line, end) in [
            ("cpu f=1", Some(3)),
            (r"c\ pu f=1", Some(5)),
            (r"c\\ x f", Some(5)),
            ("cpu\n f", None),
            (r"cpu\ f=1", None),
            ("", None),
        ] {
            assert_eq!(key_end(line.as_bytes(), 0), end, "{line}");
        }
    }
}
