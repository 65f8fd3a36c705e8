//! One field value of a line.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use memchr::memchr2;
use tidemill_column::FieldType;

use crate::number::{Number, number, unsigned};
use crate::text::{Text, byte_at};

/// A parsed value: its type, the content of its value slot, and the position of the comma, space or line end behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldValue {
    pub(crate) field_type: FieldType,
    pub(crate) bits: u64,
    pub(crate) end: usize,
}

/// The value from `at` on; `None` if there is none that a comma, a space or the end of the line follows.
///
/// Strings with escapes are unescaped into `arena`.
#[inline(always)]
pub(crate) fn field_value(input: &[u8], at: usize, arena: &mut Vec<u8>) -> Option<FieldValue> {
    match byte_at(input, at) {
        b'0'..=b'9' | b'-' | b'.' => {
            let (number, end) = number(input, at)?;
            let (field_type, bits) = match number {
                Number::Float(value) => (FieldType::Float, value.to_bits()),
                Number::Integer(value) => (FieldType::Integer, value as u64),
            };
            Some(FieldValue { field_type, bits, end })
        }
        b'"' => string(input, at, arena),
        _ => boolean(input, at),
    }
}

/// An unsigned integer (`7u`) from `at` on, for a batch that takes them; `None` if there is none.
#[cold]
pub(crate) fn unsigned_value(input: &[u8], at: usize) -> Option<FieldValue> {
    let (bits, end) = unsigned(input, at)?;
    matches!(byte_at(input, end), b',' | b' ' | b'\n').then_some(FieldValue {
        field_type: FieldType::Unsigned,
        bits,
        end,
    })
}

/// The position behind a word that ends with a comma, a space or the line.
#[inline]
fn word_end(input: &[u8], mut at: usize) -> usize {
    while !matches!(byte_at(input, at), b',' | b' ' | b'\n') {
        at += 1;
    }
    at
}

fn boolean(input: &[u8], at: usize) -> Option<FieldValue> {
    // Reading on to the end of a long word is not needed to see that it is none of these.
    let end = word_end(input.get(..(at + 6).min(input.len()))?, at);
    let value = boolean_word(input.get(at..end)?)?;
    matches!(byte_at(input, end), b',' | b' ' | b'\n').then_some(FieldValue {
        field_type: FieldType::Boolean,
        bits: u64::from(value),
        end,
    })
}

/// The truth that `word` spells, if it is one of the ten spellings.
pub(crate) fn boolean_word(word: &[u8]) -> Option<bool> {
    match word {
        b"t" | b"T" | b"true" | b"True" | b"TRUE" => Some(true),
        b"f" | b"F" | b"false" | b"False" | b"FALSE" => Some(false),
        _ => None,
    }
}

/// A string is everything between the first and the last byte of the value, and the value goes on to the next comma,
/// space or line end outside of quotes: `"a"b` is the string `a"`.
fn string(input: &[u8], start: usize, arena: &mut Vec<u8>) -> Option<FieldValue> {
    let mut escaped = false;
    let mut at = start + 1;
    let mut quoted = true;
    let end = loop {
        if quoted {
            at += memchr2(b'"', b'\\', input.get(at..)?)?;
            if byte_at(input, at) == b'"' {
                quoted = false;
                at += 1;
            } else {
                escaped = true;
                at += 2;
            }
            continue;
        }
        match byte_at(input, at) {
            b',' | b' ' | b'\n' => break at,
            b'=' => return None,
            b'"' => {
                quoted = true;
                at += 1;
            }
            b'\\' => {
                escaped = true;
                at += if byte_at(input, at + 1) == b'\n' { 1 } else { 2 };
            }
            _ => at += 1,
        }
    };
    let text = Text::in_input(start + 1, end - 1);
    if !escaped {
        return Some(FieldValue { field_type: FieldType::String, bits: text.to_bits(), end });
    }
    let arena_start = arena.len();
    unescape_string(input.get(start + 1..end - 1)?, arena);
    let bits = Text::at_arena_end(arena_start, arena).to_bits();
    Some(FieldValue { field_type: FieldType::String, bits, end })
}

/// Appends `text` with `\"` and `\\` replaced by the byte that they stand for. Other backslashes stay.
fn unescape_string(mut text: &[u8], out: &mut Vec<u8>) {
    while let Some((&first, rest)) = text.split_first() {
        match (first, rest.split_first()) {
            (b'\\', Some((&next @ (b'"' | b'\\'), after))) => {
                out.push(next);
                text = after;
            }
            _ => {
                out.push(first);
                text = rest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string_of(text: &str) -> Option<(Vec<u8>, usize)> {
        let mut arena = Vec::new();
        let value = field_value(text.as_bytes(), 0, &mut arena)?;
        assert_eq!(value.field_type, FieldType::String);
        Some((Text::from_bits(value.bits).bytes(text.as_bytes(), &arena).to_vec(), value.end))
    }

    #[test]
    fn strings_and_their_quirks() {
        for (text, expected) in [
            (r#""""#, Some("")),
            (r#""a b,c=d""#, Some("a b,c=d")),
            (r#""q\"w""#, Some(r#"q"w"#)),
            (r#""a\nb""#, Some(r"a\nb")),
            (r#""a\\""#, Some(r"a\")),
            (r#""a"b"#, Some(r#"a""#)),
            (r#""a""b""#, Some(r#"a""b"#)),
            ("\"x\ny\"", Some("x\ny")),
            (r#""a"#, None),
            (r#"""#, None),
            (r#""a\""#, None),
            (r#""a"b=1"#, None),
        ] {
            assert_eq!(string_of(text), expected.map(|value| (value.as_bytes().to_vec(), text.len())), "{text}");
        }
        assert_eq!(string_of("\"a\"\nnext"), Some((b"a".to_vec(), 3)));
        assert_eq!(string_of("\"a\"\\\nnext"), Some((b"a\"".to_vec(), 4)));
    }

    #[test]
    fn booleans_are_ten_spellings() {
        let mut arena = Vec::new();
        for (text, expected) in [("t", 1), ("True", 1), ("TRUE", 1), ("f", 0), ("FALSE", 0), ("false", 0)] {
            for stop in ["", ",", " ", "\n"] {
                let value = field_value(format!("{text}{stop}").as_bytes(), 0, &mut arena).unwrap();
                assert_eq!((value.field_type, value.bits, value.end), (FieldType::Boolean, expected, text.len()));
            }
        }
        for text in ["", "tru", "tRUE", "falsee", "false\t", "truetrue", "n", "=1", "T\r"] {
            assert!(field_value(text.as_bytes(), 0, &mut arena).is_none(), "{text}");
        }
    }
}
