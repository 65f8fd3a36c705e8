//! Strings in JSON.

/// What a byte needs inside a JSON string.
const PLAIN: u8 = 0;
const ESCAPED: u8 = 1;
/// Part of a character of several bytes, or not UTF-8 at all.
const WIDE: u8 = 2;

const CLASSES: [u8; 256] = {
    let mut classes = [PLAIN; 256];
    let mut byte = 0;
    while byte < 256 {
        if byte < 0x20 || matches!(byte as u8, b'"' | b'\\' | b'<' | b'>' | b'&') {
            classes[byte] = ESCAPED;
        } else if byte >= 0x80 {
            classes[byte] = WIDE;
        }
        byte += 1;
    }
    classes
};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `text` in quotes. Besides what JSON asks for, `<`, `>`, `&`, U+2028 and U+2029 are escaped, and every
/// byte that is not UTF-8 becomes `\ufffd`.
pub(crate) fn push_json_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let found = text.iter().fold(PLAIN, |found, byte| found | CLASSES[usize::from(*byte)]);
    if found == PLAIN {
        out.extend_from_slice(text);
    } else if found & WIDE == 0 {
        push_narrow(out, text);
    } else {
        for chunk in text.utf8_chunks() {
            for part in chunk.valid().split_inclusive(['\u{2028}', '\u{2029}']) {
                let separator =
                    if part.ends_with('\u{2028}') { Some(b'8') } else { part.ends_with('\u{2029}').then_some(b'9') };
                match separator {
                    Some(digit) => {
                        push_narrow(out, &part.as_bytes()[..part.len() - '\u{2028}'.len_utf8()]);
                        out.extend_from_slice(b"\\u202");
                        out.push(digit);
                    }
                    None => push_narrow(out, part.as_bytes()),
                }
            }
            chunk.invalid().iter().for_each(|_| out.extend_from_slice(b"\\ufffd"));
        }
    }
    out.push(b'"');
}

/// Escapes the bytes of class `ESCAPED`, copies all others.
fn push_narrow(out: &mut Vec<u8>, text: &[u8]) {
    let mut copied = 0;
    for (at, byte) in text.iter().enumerate() {
        if CLASSES[usize::from(*byte)] != ESCAPED {
            continue;
        }
        out.extend_from_slice(&text[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&text[copied..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &[u8]) -> String {
        let mut out = Vec::new();
        push_json_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes_are_the_ones_of_the_reference() {
        assert_eq!(json(b"a\"b\\c\n\r\t\x01\x1f"), r#""a\"b\\c\n\r\t\u0001\u001f""#);
        assert_eq!(json(b"<a>&"), r#""\u003ca\u003e\u0026""#);
        assert_eq!(json("é\u{2028}x\u{2029}<".as_bytes()), "\"é\\u2028x\\u2029\\u003c\"");
        assert_eq!(json(b"a\xffb\xe2\x80"), r#""a\ufffdb\ufffd\ufffd""#);
        assert_eq!(json(b"\x08\x0c\x7f"), "\"\\u0008\\u000c\x7f\"");
    }

    proptest! {
        #[test]
        fn strings_read_back(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&json(text.as_bytes())).unwrap(), text);
        }

        #[test]
        fn any_bytes_give_valid_json(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(serde_json::from_str::<String>(&json(&bytes)).is_ok());
        }
    }
}
