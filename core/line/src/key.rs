//! The series part of a line: where it ends, what is wrong with it, and its canonical form.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use memchr::memchr2;

use crate::line_error::Reason;
use crate::text::{byte_at, load};

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
    let mut separators = Separators::new(raw);
    // Equals signs in the measurement are ordinary bytes.
    let comma = separators.by_ref().find(|(_, byte)| *byte == b',');
    let measurement_len = comma.map_or(raw.len(), |(at, _)| at);
    let mut canonical = true;
    let mut at = measurement_len;
    while at < raw.len() {
        let key_start = at + 1;
        let key_end = match separators.next() {
            Some((at, b'=')) if at > key_start => at,
            None if key_start < raw.len() => return Err(Reason::MissingTagValue),
            Some((at, _)) if at > key_start => return Err(Reason::MissingTagValue),
            _ => return Err(Reason::MissingTagKey),
        };
        let value_start = key_end + 1;
        let mut stop = separators.next();
        if stop == Some((value_start, b'=')) {
            // An equals sign as the first byte of a value belongs to the value.
            canonical = false;
            stop = separators.next();
        }
        let value_end = match stop {
            Some((at, b',')) if at > value_start => at,
            Some((_, b'=')) => return Err(Reason::InvalidTagFormat),
            None if value_start < raw.len() => raw.len(),
            _ => return Err(Reason::MissingTagValue),
        };
        tags.push(TagSpan { key_start: key_start as u32, key_end: key_end as u32, value_end: value_end as u32 });
        at = value_end;
    }
    if !complete {
        return Err(Reason::MissingFields);
    }
    if !tags.is_sorted_by(|a, b| is_before(a.key(raw), b.key(raw))) {
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

/// `a < b`, most often decided by the first byte.
#[inline]
fn is_before(a: &[u8], b: &[u8]) -> bool {
    match (a.first(), b.first()) {
        (Some(first), Some(second)) if first != second => first < second,
        _ => a < b,
    }
}

/// Positions of the commas and equals signs that are not escaped, found eight bytes at a time.
struct Separators<'a> {
    raw: &'a [u8],
    /// Position of the word that `found` is of.
    word_at: usize,
    /// The top bit of each byte of the word that is a separator.
    found: u64,
}

impl<'a> Separators<'a> {
    fn new(raw: &'a [u8]) -> Separators<'a> {
        Separators { raw, word_at: 0, found: separators_in(raw, 0) }
    }
}

impl Iterator for Separators<'_> {
    type Item = (usize, u8);

    #[inline]
    fn next(&mut self) -> Option<(usize, u8)> {
        loop {
            while self.found == 0 {
                self.word_at += 8;
                if self.word_at >= self.raw.len() {
                    return None;
                }
                self.found = separators_in(self.raw, self.word_at);
            }
            let at = self.word_at + (self.found.trailing_zeros() / 8) as usize;
            self.found &= self.found - 1;
            if at == 0 || byte_at(self.raw, at - 1) != b'\\' {
                return Some((at, byte_at(self.raw, at)));
            }
        }
    }
}

#[inline]
fn separators_in(raw: &[u8], at: usize) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let word = load(raw, at);
    // The top bit of each zero byte, exactly: the sum of the low seven bits carries into it unless they are all zero.
    let zeros = |word: u64| !(((word & (ONES * 0x7f)) + ONES * 0x7f) | word) & (ONES * 0x80);
    zeros(word ^ (ONES * u64::from(b','))) | zeros(word ^ (ONES * u64::from(b'=')))
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
