//! The canonical key of a series: measurement, then `,key=value` for each tag, sorted by the escaped key, with escaped
//! separators. This text is the identity of a series everywhere: in the index, in the log and in TSM files.
//!
//! A backslash is no escape for itself. A name or value that *ends* in a backslash has therefore no key (its backslash
//! would escape the separator behind it); line protocol cannot express one either.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use std::borrow::Cow;

/// Bytes that are escaped in a measurement.
const MEASUREMENT_SPECIAL: &[u8] = b", ";
/// Bytes that are escaped in tag keys, tag values and field keys.
const TAG_SPECIAL: &[u8] = b",= ";

/// The measurement part of a canonical key, escapes included.
pub fn measurement_part(key: &[u8]) -> &[u8] {
    key.get(..find(key, 0, b',')).unwrap_or_default()
}

/// The measurement that a canonical key names.
pub fn measurement(key: &[u8]) -> Cow<'_, [u8]> {
    unescape_measurement(measurement_part(key))
}

/// The tags of a canonical key in its order, unescaped; borrowed where nothing is escaped.
///
/// Any bytes are accepted; a part without an equals sign reads as a key with an empty value.
pub fn tags(key: &[u8]) -> Tags<'_> {
    Tags { key, at: find(key, 0, b',') }
}

/// The value of the tag `name`, if the key has that tag.
pub fn tag_value<'a>(key: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    tags(key).find(|(tag, _)| tag.as_ref() == name).map(|(_, value)| value)
}

/// Iterator over the tags of a key.
#[derive(Clone, Debug)]
pub struct Tags<'a> {
    key: &'a [u8],
    /// Position of the comma before the next tag, or the end.
    at: usize,
}

impl<'a> Iterator for Tags<'a> {
    type Item = (Cow<'a, [u8]>, Cow<'a, [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.key.len() {
            return None;
        }
        let start = self.at + 1;
        let end = find(self.key, start, b',');
        self.at = end;
        let tag = self.key.get(start..end).unwrap_or_default();
        let middle = find(tag, 0, b'=');
        let name = tag.get(..middle).unwrap_or_default();
        let value = tag.get(middle + 1..).unwrap_or_default();
        Some((unescape_tag(name), unescape_tag(value)))
    }
}

/// Appends the canonical key of a measurement and its tags, all unescaped, in any order. Tags without a value are left
/// out, as they are the same as no tag.
pub fn push_key(measurement: &[u8], tags: &[(&[u8], &[u8])], out: &mut Vec<u8>) {
    push_escaped_measurement(measurement, out);
    let mut escaped: Vec<(Vec<u8>, &[u8])> = tags
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| {
            let mut key = Vec::with_capacity(name.len());
            push_escaped_tag(name, &mut key);
            (key, *value)
        })
        .collect();
    escaped.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in escaped {
        out.push(b',');
        out.extend_from_slice(&name);
        out.push(b'=');
        push_escaped_tag(value, out);
    }
}

/// The canonical key of a measurement and its tags; see [`push_key`].
pub fn format_key(measurement: &[u8], tags: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut key = Vec::new();
    push_key(measurement, tags, &mut key);
    key
}

/// Appends a measurement as keys hold it.
pub fn push_escaped_measurement(name: &[u8], out: &mut Vec<u8>) {
    push_escaped(name, MEASUREMENT_SPECIAL, out);
}

/// Appends a tag key, tag value or field key as keys and lines hold it.
pub fn push_escaped_tag(text: &[u8], out: &mut Vec<u8>) {
    push_escaped(text, TAG_SPECIAL, out);
}

/// Appends a tag key, tag value or field key without its escapes.
pub fn push_unescaped_tag(text: &[u8], out: &mut Vec<u8>) {
    push_unescaped(text, TAG_SPECIAL, out);
}

/// A measurement without its escapes.
pub fn unescape_measurement(text: &[u8]) -> Cow<'_, [u8]> {
    unescape(text, MEASUREMENT_SPECIAL)
}

/// A tag key, tag value or field key without its escapes.
pub fn unescape_tag(text: &[u8]) -> Cow<'_, [u8]> {
    unescape(text, TAG_SPECIAL)
}

/// The first position from `from` on that holds `stop` without a backslash before it, or the end.
fn find(text: &[u8], from: usize, stop: u8) -> usize {
    let mut at = from;
    while let Some(offset) = text.get(at..).and_then(|rest| memchr::memchr(stop, rest)) {
        at += offset;
        if at == from || text.get(at - 1) != Some(&b'\\') {
            return at;
        }
        at += 1;
    }
    text.len()
}

fn push_escaped(text: &[u8], special: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if special.contains(byte) {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

fn unescape<'a>(text: &'a [u8], special: &[u8]) -> Cow<'a, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    push_unescaped(text, special, &mut out);
    Cow::Owned(out)
}

fn push_unescaped(text: &[u8], special: &[u8], out: &mut Vec<u8>) {
    for (index, byte) in text.iter().enumerate() {
        let escapes = *byte == b'\\' && text.get(index + 1).is_some_and(|next| special.contains(next));
        if !escapes {
            out.push(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owned(key: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        tags(key).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    #[test]
    fn parts_of_an_escaped_key() {
        let key = br"m\,x y,a\=b=c\ d,e=f\,g";
        assert_eq!(measurement(key).as_ref(), b"m,x y");
        assert_eq!(owned(key), [(b"a=b".to_vec(), b"c d".to_vec()), (b"e".to_vec(), b"f,g".to_vec())]);
        assert_eq!(tag_value(key, b"e").as_deref(), Some(&b"f,g"[..]));
        assert_eq!(tag_value(key, b"x"), None);
        assert!(matches!(tags(b"cpu,host=a").next(), Some((Cow::Borrowed(b"host"), Cow::Borrowed(b"a")))));
    }

    #[test]
    fn formatting_sorts_and_leaves_out_empty_values() {
        assert_eq!(format_key(b"c pu", &[(b"r", b"x"), (b"host", b"a b"), (b"z", b"")]), br"c\ pu,host=a\ b,r=x");
    }

    /// A name that a key can hold: not empty and no backslash at its end.
    fn name() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(proptest::sample::select(&b"ab,= \\\"\xff"[..]), 1..6).prop_map(|mut name| {
            if name.last() == Some(&b'\\') {
                name.push(b'x');
            }
            name
        })
    }

    proptest! {
        #[test]
        fn a_formatted_key_reads_back(
            measurement_name in name(), parts in proptest::collection::btree_map(name(), name(), 0..5),
        ) {
            let pairs: Vec<(&[u8], &[u8])> = parts.iter().map(|(k, v)| (k.as_slice(), v.as_slice())).collect();
            let key = format_key(&measurement_name, &pairs);
            // A measurement may begin with an equals sign, not with a comma: that is escaped.
            prop_assert_eq!(measurement(&key).into_owned(), measurement_name);
            let mut read = owned(&key);
            read.sort();
            prop_assert_eq!(read, parts.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_readable(key in proptest::collection::vec(proptest::sample::select(&b"a,=\\ "[..]), 0..20)) {
            measurement(&key);
            tags(&key).count();
        }
    }
}
