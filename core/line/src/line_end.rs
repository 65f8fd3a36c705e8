//! Where a line that could not be parsed ends.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::key::key_end;
use crate::text::byte_at;

/// The position of the newline that ends the line from `start` on, or the end of the input.
///
/// A newline between quotes does not end a line. Quotes count behind the series part, while more equals signs than
/// commas were seen: that is inside a field value, and behind the last one. So a quote that is never closed takes the
/// rest of the body with it; whoever reads the answer sees that text in it.
pub(crate) fn line_end(input: &[u8], start: usize) -> usize {
    let Some(mut at) = key_end(input, start) else {
        return newline(input, start);
    };
    let (mut equals, mut commas, mut quoted) = (0usize, 0usize, false);
    while at < input.len() {
        match byte_at(input, at) {
            b'\\' if quoted || byte_at(input, at + 1) != b'\n' => at += 1,
            b'"' if equals > commas => quoted = !quoted,
            b'=' if !quoted => equals += 1,
            b',' if !quoted => commas += 1,
            b'\n' if !quoted => return at,
            _ => {}
        }
        at += 1;
    }
    input.len()
}

fn newline(input: &[u8], start: usize) -> usize {
    input.get(start..).and_then(|rest| memchr::memchr(b'\n', rest)).map_or(input.len(), |offset| start + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_newlines_only_in_values() {
        for (text, end) in [
            ("m,a=\"x\ny", 6),
            ("m f=\"a\nb\"\nc", 9),
            ("m f=\"a\nb", 8),
            ("m \"f\n\"=1", 4),
            ("m f=\"a\\\"\nb\"\n", 11),
            ("m f=1\\\nn", 6),
            ("m f=\"\\\n\"\n", 8),
            ("m f=1 \"\n\"\n", 9),
            ("", 0),
        ] {
            assert_eq!(line_end(text.as_bytes(), 0), end, "{text:?}");
        }
    }
}
