//! Why a line was rejected: a second, unhurried reading that finds the first problem in upstream's order, which is key,
//! fields, length of keys, timestamp, range of time, rest of the line.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use tidemill_column::{TIME_MAX, TIME_MIN};

use crate::KEY_BYTES_MAX;
use crate::key::{key_end, push_canonical, scan_key};
use crate::line_error::{Reason, Span};
use crate::text::{byte_at, skip_whitespace};
use crate::value::boolean_word;

/// The first problem of the line `input[start..end]`.
pub(crate) fn reason(input: &[u8], start: usize, end: usize, multiplier: i64) -> Reason {
    // The line alone, with positions that stay those of the body.
    let input = input.get(..end).unwrap_or(input);
    match first_problem(input, start, multiplier) {
        Err(reason) => reason,
        // Equals signs and commas that are even in number, but not in the right places.
        Ok(()) => Reason::InvalidFieldFormat,
    }
}

fn first_problem(input: &[u8], start: usize, multiplier: i64) -> Result<(), Reason> {
    let mut tags = Vec::new();
    let end = key_end(input, start);
    // Without a space that ends it, the key goes on to the end of the line.
    let raw = input.get(start..end.unwrap_or(input.len())).unwrap_or_default();
    let shape = scan_key(raw, end.is_some(), &mut tags)?;
    let mut key = Vec::new();
    push_canonical(raw, shape, &tags, &mut key);
    if key.len() > KEY_BYTES_MAX {
        return Err(Reason::KeyTooLong(key.len()));
    }
    let mut names = Names { key_len: key.len(), too_long: None };
    let at = fields(input, skip_whitespace(input, end.unwrap_or(input.len())), &mut names)?;
    if let Some(len) = names.too_long {
        return Err(Reason::KeyTooLong(len));
    }
    time(input, skip_whitespace(input, at), multiplier)
}

/// Watches the length of keys, which counts only after all fields were found to be well written.
struct Names {
    key_len: usize,
    too_long: Option<usize>,
}

impl Names {
    fn note(&mut self, name_len: usize) {
        let len = self.key_len + 4 + name_len;
        if len > KEY_BYTES_MAX && self.too_long.is_none() {
            self.too_long = Some(len);
        }
    }
}

/// Checks the fields from `at` on. Gives the position of the space or line end behind them.
///
/// As upstream, only values are looked at on the way; whether names, equals signs and commas come in the right order is
/// asked at the end, by their number.
fn fields(input: &[u8], mut at: usize, names: &mut Names) -> Result<usize, Reason> {
    let (mut equals, mut commas, mut quoted) = (0usize, 0usize, false);
    let mut name_start = at;
    while let Some(byte) = input.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' if equals > commas => quoted = !quoted,
            b'=' if !quoted => {
                equals += 1;
                if at == name_start {
                    return Err(Reason::MissingFieldKey);
                }
                names.note(at - name_start);
                if let Some(end) = value(input, at + 1)? {
                    at = end;
                    continue;
                }
            }
            b',' if !quoted => {
                commas += 1;
                name_start = at + 1;
            }
            b' ' if !quoted => break,
            _ => {}
        }
        at += 1;
    }
    if quoted {
        return Err(Reason::UnbalancedQuotes);
    }
    if equals == 0 || commas + 1 != equals {
        return Err(Reason::InvalidFieldFormat);
    }
    Ok(at.min(input.len()))
}

/// Checks the value from `at` on. Gives its end, or `None` for a string, which the caller walks through.
fn value(input: &[u8], at: usize) -> Result<Option<usize>, Reason> {
    let end = word_end(input, at);
    let word = input.get(at..end).unwrap_or_default();
    match word.first() {
        None => Err(Reason::MissingFieldValue),
        Some(b'"') => Ok(None),
        Some(b'0'..=b'9' | b'-' | b'.' | b'N' | b'n') => number(word, Span::new(at, end)).map(|()| Some(end)),
        Some(_) => boolean_word(word).map(|_| Some(end)).ok_or(Reason::InvalidBoolean),
    }
}

fn word_end(input: &[u8], mut at: usize) -> usize {
    while input.get(at).is_some_and(|byte| !matches!(byte, b',' | b' ')) {
        at += 1;
    }
    at
}

/// Checks a word that starts like a number.
fn number(word: &[u8], span: Span) -> Result<(), Reason> {
    let text = std::str::from_utf8(word).map_err(|_| Reason::InvalidNumber)?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if let Some(whole) = digits.strip_suffix('i') {
        if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Reason::InvalidNumber);
        }
        let parsed: Result<i64, _> = text.trim_end_matches('i').parse();
        let named = Span { end: span.end - 1, ..span };
        return parsed.map(|_| ()).map_err(|_| Reason::IntegerOutOfRange(named));
    }
    // Digits, one point, and an exponent mark with signs right behind it make a float that may still be wrong.
    let mut points = 0;
    let mut previous = b' ';
    let signed = digits.len() < text.len();
    for (index, byte) in digits.bytes().enumerate() {
        let fits = match byte {
            b'0'..=b'9' => true,
            b'.' => {
                points += 1;
                points == 1
            }
            b'e' | b'E' => index > 0 || signed,
            b'+' | b'-' => matches!(previous, b'e' | b'E'),
            _ => false,
        };
        if !fits {
            return Err(Reason::InvalidNumber);
        }
        previous = byte;
    }
    if digits.len() == points {
        return Err(Reason::InvalidNumber);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(()),
        _ => Err(Reason::InvalidFloat),
    }
}

/// Checks the timestamp from `at` on and what follows it.
fn time(input: &[u8], at: usize, multiplier: i64) -> Result<(), Reason> {
    let first = at + usize::from(input.get(at) == Some(&b'-'));
    let mut end = first;
    while let Some(byte) = input.get(end).filter(|byte| **byte != b' ' && **byte != b'\n') {
        if !byte.is_ascii_digit() {
            return Err(Reason::BadTimestamp);
        }
        end += 1;
    }
    let text = input.get(at..end).unwrap_or_default();
    if text.is_empty() {
        return if byte_at(input, end) == b'\n' { Ok(()) } else { Err(Reason::PointIsInvalid) };
    }
    if first == end {
        return Err(Reason::TimestampSyntax(Span::new(at, end)));
    }
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    let value = parsed.ok_or(Reason::TimestampOutOfRange(Span::new(at, end)))?;
    let time = value.checked_mul(multiplier).ok_or(Reason::TimeOutsideRange)?;
    if !(TIME_MIN..=TIME_MAX).contains(&time) {
        return Err(Reason::TimeOutsideRange);
    }
    if input.get(end..).unwrap_or_default().iter().any(|byte| *byte != b' ') {
        return Err(Reason::PointIsInvalid);
    }
    Ok(())
}
