//! A vector of byte strings in one buffer.

use rkyv::{Archive, Deserialize, Serialize};
/// Byte strings behind each other, with their ends. No allocation per string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Strings {
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Strings {
    pub fn new() -> Strings {
        Strings::default()
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all strings together.
    pub fn byte_size(&self) -> usize {
        self.bytes.len()
    }

    /// Appends one string.
    ///
    /// # Panics
    /// If the bytes of all strings would exceed 4 GiB; callers bound a column far below.
    pub fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        let end = u32::try_from(self.bytes.len()).expect("a column of strings stays below 4 GiB");
        self.ends.push(end);
    }

    /// The string of row `row`.
    ///
    /// # Panics
    /// If `row` is not below [`Strings::len`].
    pub fn value(&self, row: usize) -> &[u8] {
        let end = self.ends[row] as usize;
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.bytes[start..end]
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|row| self.value(row))
    }

    /// Whether they are some that could have been made here; what came from elsewhere may not be.
    pub fn is_sound(&self) -> bool {
        self.ends.is_sorted() && self.ends.last().map_or(0, |end| *end as usize) == self.bytes.len()
    }

    pub fn truncate(&mut self, rows: usize) {
        if rows < self.ends.len() {
            self.ends.truncate(rows);
            self.bytes.truncate(self.ends.last().map_or(0, |end| *end as usize));
        }
    }

    pub fn clear(&mut self) {
        self.ends.clear();
        self.bytes.clear();
    }
}

impl<'a> FromIterator<&'a [u8]> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(values: I) -> Strings {
        let mut strings = Strings::new();
        values.into_iter().for_each(|value| strings.push(value));
        strings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_truncate_cuts_both_parts() {
        let mut strings: Strings = [&b"hello"[..], b"", b"\xff\x00"].into_iter().collect();
        assert_eq!(strings.iter().collect::<Vec<_>>(), [&b"hello"[..], b"", b"\xff\x00"]);
        strings.truncate(1);
        strings.push(b"x");
        assert_eq!((strings.value(0), strings.value(1), strings.byte_size()), (&b"hello"[..], &b"x"[..], 6));
    }
}
