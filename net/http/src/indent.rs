//! Compact JSON made readable: a filter over the encoder's bytes, wherever they are cut.

/// Spaces of one level.
const LEVEL: &[u8] = b"    ";

/// Puts every member and element on a line of its own. Keeps what it needs between two calls.
#[derive(Default)]
pub(crate) struct Indent {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
    /// A bracket was opened and nothing came since.
    is_fresh: bool,
}

impl Indent {
    /// Appends the readable form of the next bytes of one or several compact documents.
    pub(crate) fn push(&mut self, out: &mut Vec<u8>, compact: &[u8]) {
        for byte in compact.iter().copied() {
            if self.is_in_string {
                out.push(byte);
                self.is_in_string = self.is_escaped || byte != b'"';
                self.is_escaped = !self.is_escaped && byte == b'\\';
                continue;
            }
            if self.is_fresh && !matches!(byte, b'}' | b']') {
                self.depth += 1;
                self.break_line(out);
            }
            match byte {
                b'{' | b'[' => {
                    out.push(byte);
                    self.is_fresh = true;
                    continue;
                }
                b'}' | b']' => {
                    if !self.is_fresh {
                        self.depth = self.depth.saturating_sub(1);
                        self.break_line(out);
                    }
                    out.push(byte);
                }
                b',' => {
                    out.push(byte);
                    self.break_line(out);
                }
                b':' => out.extend_from_slice(b": "),
                _ => {
                    self.is_in_string = byte == b'"';
                    out.push(byte);
                }
            }
            self.is_fresh = false;
        }
    }

    fn break_line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        (0..self.depth).for_each(|_| out.extend_from_slice(LEVEL));
    }
}

pub(crate) fn indented(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    Indent::default().push(&mut out, compact);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_the_reference() {
        let compact = b"{\"a\":[1,\"x,{\\\"\\\\\"],\"b\":{},\"c\":[],\"d\":{\"e\":null}}\n{}\n";
        let expected = "{\n    \"a\": [\n        1,\n        \"x,{\\\"\\\\\"\n    ],\n    \"b\": {},\n    \"c\": [],\n    \"d\": {\n        \"e\": null\n    }\n}\n{}\n";
        assert_eq!(String::from_utf8(indented(compact)).unwrap(), expected);
        for cut in 0..compact.len() {
            let mut out = Vec::new();
            let mut indent = Indent::default();
            indent.push(&mut out, &compact[..cut]);
            indent.push(&mut out, &compact[cut..]);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{cut}");
        }
    }
}
