//! A pull reader of JSON text from a stream: it holds one buffer, never a document.

use std::io::{self, Read};

const BUFFER_BYTES: usize = 128 << 10;
/// Depth at which a skipped value is refused instead of overflowing the stack.
const DEPTH_MAX: u32 = 64;

/// Reads tokens one after the other. The caller knows the grammar of the document and asks for what must come next.
#[derive(Debug)]
pub struct JsonReader<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes taken from the source.
    bytes_read: u64,
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

impl<R: Read> JsonReader<R> {
    pub fn new(source: R) -> Self {
        Self { source, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, bytes_read: 0 }
    }

    /// Bytes taken from the source so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    fn fill(&mut self) -> io::Result<bool> {
        self.start = 0;
        self.end = self.source.read(&mut self.buffer)?;
        self.bytes_read += self.end as u64;
        Ok(self.end > 0)
    }

    fn byte(&mut self) -> io::Result<u8> {
        if self.start == self.end && !self.fill()? {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the JSON text ends early"));
        }
        let byte = self.buffer[self.start];
        self.start += 1;
        Ok(byte)
    }

    /// The next byte that is not white space, left in place; None at the end of the text.
    pub fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            if self.start == self.end && !self.fill()? {
                return Ok(None);
            }
            let byte = self.buffer[self.start];
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Ok(Some(byte));
            }
            self.start += 1;
        }
    }

    /// Takes the byte that must come next.
    pub fn expect(&mut self, expected: u8) -> io::Result<()> {
        match self.peek()? {
            Some(byte) if byte == expected => {
                self.start += 1;
                Ok(())
            }
            found => Err(invalid(format!(
                "expected {:?} in the JSON text, found {:?}",
                char::from(expected),
                found.map(char::from)
            ))),
        }
    }

    /// Within an array or object whose opening was taken: true when another element follows (its comma is taken),
    /// false when it ended (the closing byte is taken).
    pub fn more(&mut self, first: &mut bool, close: u8) -> io::Result<bool> {
        match self.peek()? {
            Some(byte) if byte == close => {
                self.start += 1;
                Ok(false)
            }
            _ => {
                if !*first {
                    self.expect(b',')?;
                }
                *first = false;
                Ok(true)
            }
        }
    }

    /// Appends the unescaped bytes of a string.
    pub fn string(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.expect(b'"')?;
        loop {
            if self.start == self.end && !self.fill()? {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a JSON string ends early"));
            }
            let unread = &self.buffer[self.start..self.end];
            let plain = unread.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(unread.len());
            out.extend_from_slice(&unread[..plain]);
            self.start += plain;
            if self.start == self.end {
                continue;
            }
            if self.byte()? == b'"' {
                return Ok(());
            }
            self.escape(out)?;
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let plain = match self.byte()? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'u' => {
                let mut unit = u32::from(self.code_unit()?);
                if (0xD800..0xDC00).contains(&unit) {
                    if (self.byte()?, self.byte()?) != (b'\\', b'u') {
                        return Err(invalid("half a surrogate pair in a JSON string"));
                    }
                    let low = u32::from(self.code_unit()?);
                    unit = 0x10000 + ((unit - 0xD800) << 10) + low.wrapping_sub(0xDC00);
                }
                let character = char::from_u32(unit).ok_or_else(|| invalid("a JSON escape that is no character"))?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            other => return Err(invalid(format!("unknown JSON escape {:?}", char::from(other)))),
        };
        out.push(plain);
        Ok(())
    }

    fn code_unit(&mut self) -> io::Result<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.byte()?).to_digit(16).ok_or_else(|| invalid("bad digit in a JSON escape"))?;
            unit = unit << 4 | digit as u16;
        }
        Ok(unit)
    }

    /// Appends the text of a number, `true`, `false` or `null`.
    pub fn literal(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let before = out.len();
        if self.peek()?.is_none() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the JSON text ends early"));
        }
        loop {
            if self.start == self.end && !self.fill()? {
                break;
            }
            let unread = &self.buffer[self.start..self.end];
            let end = unread
                .iter()
                .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')))
                .unwrap_or(unread.len());
            out.extend_from_slice(&unread[..end]);
            self.start += end;
            if self.start < self.end {
                break;
            }
        }
        if out.len() == before {
            return Err(invalid("expected a JSON value"));
        }
        Ok(())
    }

    /// Reads over one value of any kind.
    pub fn skip(&mut self) -> io::Result<()> {
        self.skip_at(0, &mut Vec::new())
    }

    fn skip_at(&mut self, depth: u32, scratch: &mut Vec<u8>) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(invalid("the JSON text is nested too deeply"));
        }
        scratch.clear();
        match self.peek()? {
            Some(b'"') => self.string(scratch),
            Some(open @ (b'[' | b'{')) => {
                self.start += 1;
                let mut first = true;
                while self.more(&mut first, open + 2)? {
                    if open == b'{' {
                        self.string(scratch)?;
                        self.expect(b':')?;
                    }
                    self.skip_at(depth + 1, scratch)?;
                }
                Ok(())
            }
            _ => self.literal(scratch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte a read, so that every token is cut everywhere.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(1);
            out[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn strings_and_numbers_survive_any_cut() {
        let text = br#" ["a\"\\\u003c\ud83d\ude00", -1.5e+21 , null,{"k":[1,{}]}]"#;
        let mut reader = JsonReader::new(Drip(text));
        reader.expect(b'[').unwrap();
        let mut out = Vec::new();
        reader.string(&mut out).unwrap();
        assert_eq!(out, "a\"\\<😀".as_bytes());
        reader.expect(b',').unwrap();
        out.clear();
        reader.literal(&mut out).unwrap();
        assert_eq!(out, b"-1.5e+21");
        reader.expect(b',').unwrap();
        reader.skip().unwrap();
        reader.expect(b',').unwrap();
        reader.skip().unwrap();
        reader.expect(b']').unwrap();
        assert_eq!(reader.peek().unwrap(), None);
        assert_eq!(reader.bytes_read(), text.len() as u64);
    }

    #[test]
    fn broken_text_is_an_error() {
        for text in ["[", "{\"a\"", "\"abc", "[1", "[1 2]", "\"\\x\"", "\"\\ud800x\"", "[,]", "{1:2}"] {
            let mut reader = JsonReader::new(text.as_bytes());
            assert!(reader.skip().is_err(), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(JsonReader::new(deep.as_bytes()).skip().is_err());
    }
}
