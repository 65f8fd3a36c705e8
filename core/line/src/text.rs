//! Where a piece of text lies: in the body, or in the batch's own arena when it had to be rewritten.

/// A range of the body or of the arena. Eight bytes, so that a string value fits a value slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    start: u32,
    /// Length in the low 31 bits; the top bit says that `start` counts in the arena.
    len: u32,
}

const IN_ARENA: u32 = 1 << 31;

impl Text {
    /// Bytes `start..end` of the body.
    pub(crate) fn in_input(start: usize, end: usize) -> Text {
        Text { start: start as u32, len: end.saturating_sub(start) as u32 }
    }

    /// Bytes `start..` of the arena, whose end is the end of the text.
    pub(crate) fn at_arena_end(start: usize, arena: &[u8]) -> Text {
        Text { start: start as u32, len: arena.len().saturating_sub(start) as u32 | IN_ARENA }
    }

    pub(crate) fn len(self) -> usize {
        (self.len & !IN_ARENA) as usize
    }

    /// The first `len` bytes of the text.
    pub(crate) fn prefix(self, len: usize) -> Text {
        Text { start: self.start, len: self.len & IN_ARENA | len.min(self.len()) as u32 }
    }

    pub(crate) fn bytes<'a>(self, input: &'a [u8], arena: &'a [u8]) -> &'a [u8] {
        let source = if self.len & IN_ARENA == 0 { input } else { arena };
        let start = self.start as usize;
        source.get(start..start + self.len()).unwrap_or_default()
    }

    /// The text as the content of a value slot.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.start) << 32 | u64::from(self.len)
    }

    pub(crate) fn from_bits(bits: u64) -> Text {
        Text { start: (bits >> 32) as u32, len: bits as u32 }
    }
}

/// The byte at `at`; the end of the input reads as the end of a line.
#[inline(always)]
pub(crate) fn byte_at(input: &[u8], at: usize) -> u8 {
    input.get(at).copied().unwrap_or(b'\n')
}

/// Eight bytes from `at` on; behind the end of the input come line ends.
#[inline(always)]
pub(crate) fn load(input: &[u8], at: usize) -> u64 {
    match input.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()) {
        Some(bytes) => u64::from_le_bytes(bytes),
        None => load_at_end(input, at),
    }
}

#[cold]
fn load_at_end(input: &[u8], at: usize) -> u64 {
    (0..8).fold(0, |word, index| word | u64::from(byte_at(input, at + index)) << (8 * index))
}

/// The first position from `at` on that holds none of space, tab and NUL.
#[inline]
pub(crate) fn skip_whitespace(input: &[u8], mut at: usize) -> usize {
    while matches!(input.get(at), Some(b' ' | b'\t' | 0)) {
        at += 1;
    }
    at
}

/// From here on the call is worth it.
const INLINE_BYTES_MAX: usize = 64;

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Whether `input[at..]` starts with `text` and goes on with `stop`.
///
/// Field names and most keys are short: comparing words inline saves the call that a slice comparison costs.
#[inline(always)]
pub(crate) fn has_text_then(input: &[u8], at: usize, text: &[u8], stop: u8) -> bool {
    let len = text.len();
    let Some(found) = input.get(at..at + len) else { return false };
    if input.get(at + len) != Some(&stop) {
        return false;
    }
    if len < 8 {
        return found.iter().zip(text).all(|(a, b)| a == b);
    }
    if len > INLINE_BYTES_MAX {
        return found == text;
    }
    let last = len - 8;
    let mut from = 0;
    while from < last {
        if word(found, from) != word(text, from) {
            return false;
        }
        from += 8;
    }
    word(found, last) == word(text, last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn has_text_then_is_starts_with(
            text in proptest::collection::vec(0u8..3, 0..80), at in 0usize..5, change in any::<proptest::sample::Index>(),
            flip in any::<bool>(), stop in 0u8..3,
        ) {
            let mut input = vec![9; at];
            input.extend_from_slice(&text);
            input.push(1);
            if flip {
                let index = change.index(input.len());
                input[index] ^= 1;
            }
            let expected = input[at..].starts_with(&text) && input.get(at + text.len()) == Some(&stop);
            prop_assert_eq!(has_text_then(&input, at, &text, stop), expected);
            prop_assert!(!has_text_then(&input[..at + text.len()], at, &text, 1));
        }
    }

    #[test]
    fn a_text_survives_a_value_slot() {
        let arena = b"..hello".to_vec();
        let text = Text::from_bits(Text::at_arena_end(2, &arena).to_bits());
        assert_eq!(text.bytes(b"", &arena), b"hello");
        assert_eq!(Text::from_bits(Text::in_input(1, 3).to_bits()).bytes(b"abcd", b""), b"bc");
    }
}
