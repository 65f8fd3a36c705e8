//! MessagePack answers as JSON text, so that case files can show them and lengths may be written in any form.

use serde_json::{Map, Value, json};

/// One line of JSON for each value; times (extension 5) as `{"s":seconds,"ns":nanoseconds}`.
///
/// # Errors
/// If the bytes are no whole values, or of a kind that no answer has.
pub fn as_json(bytes: &[u8]) -> Result<String, String> {
    let mut reader = Reader { bytes };
    let mut lines = Vec::new();
    while !reader.bytes.is_empty() {
        lines.push(reader.value().ok_or_else(|| format!("no MessagePack: {bytes:02x?}"))?.to_string());
    }
    Ok(lines.join("\n"))
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn unsigned(&mut self, width: usize) -> Option<u64> {
        Some(self.take(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, width: usize) -> Option<i64> {
        let shift = 64 - 8 * width as u32;
        Some((self.unsigned(width)? << shift) as i64 >> shift)
    }

    fn text(&mut self, count: usize) -> Option<Value> {
        Some(String::from_utf8_lossy(self.take(count)?).into_owned().into())
    }

    fn array(&mut self, count: usize) -> Option<Value> {
        (0..count).map(|_| self.value()).collect::<Option<Vec<Value>>>().map(Value::Array)
    }

    fn map(&mut self, count: usize) -> Option<Value> {
        let mut map = Map::new();
        for _ in 0..count {
            let key = self.value()?.as_str()?.to_owned();
            map.insert(key, self.value()?);
        }
        Some(Value::Object(map))
    }

    fn value(&mut self) -> Option<Value> {
        let tag = self.unsigned(1)? as u8;
        let low = usize::from(tag & 0x0f);
        Some(match tag {
            0x00..=0x7f => json!(tag),
            0x80..=0x8f => self.map(low)?,
            0x90..=0x9f => self.array(low)?,
            0xa0..=0xbf => self.text(usize::from(tag & 0x1f))?,
            0xc0 => Value::Null,
            0xc2 | 0xc3 => json!(tag == 0xc3),
            0xc7 => {
                if (self.unsigned(1)?, self.unsigned(1)?) != (12, 5) {
                    return None;
                }
                json!({"s": self.signed(8)?, "ns": self.unsigned(4)?})
            }
            0xcb => json!(f64::from_bits(self.unsigned(8)?)),
            0xcc..=0xcf => json!(self.unsigned(1 << (tag - 0xcc))?),
            0xd0..=0xd3 => json!(self.signed(1 << (tag - 0xd0))?),
            0xd9..=0xdb => {
                let count = self.unsigned(1 << (tag - 0xd9))?;
                self.text(count as usize)?
            }
            0xdc | 0xdd => {
                let count = self.unsigned(2 << (tag - 0xdc))?;
                self.array(count as usize)?
            }
            0xde | 0xdf => {
                let count = self.unsigned(2 << (tag - 0xde))?;
                self.map(count as usize)?
            }
            0xe0..=0xff => json!(tag as i8),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_integers_of_any_width_are_the_same() {
        let short = b"\x81\xa1a\x93\x01\xff\xc0";
        let long = b"\xdf\x00\x00\x00\x01\xd9\x01a\xdd\x00\x00\x00\x03\xd3\x00\x00\x00\x00\x00\x00\x00\x01\xd0\xff\xc0";
        assert_eq!(as_json(short).unwrap(), r#"{"a":[1,-1,null]}"#);
        assert_eq!(as_json(short), as_json(long));
        let time = b"\xc7\x0c\x05\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x07\xcb\x3f\xf0\0\0\0\0\0\0";
        assert_eq!(as_json(time).unwrap(), "{\"ns\":7,\"s\":-1}\n1.0");
        assert!(as_json(b"\x92\x01").is_err() && as_json(b"\xc1").is_err());
    }
}
