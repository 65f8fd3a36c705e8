//! A second parser: slow, and written to be seen to be right rather than to be fast.
//!
//! It marks each byte of a line with its role first and cuts the line up afterwards, one rule of the format after the
//! other. It shares no code with the crate. The differential tests and the fuzz target include this file; it is no part
//! of the crate, so that it can never be called in production by mistake.

use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The bits, so that -0 and 0 differ.
    Float(u64),
    Integer(i64),
    Boolean(bool),
    String(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub key: Vec<u8>,
    pub measurement: Vec<u8>,
    /// In the order in which the names appear first; the last value of a name.
    pub fields: Vec<(Vec<u8>, Value)>,
    pub time: i64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub points: Vec<Point>,
    /// Reasons of points that are well written and dropped.
    pub dropped: Vec<String>,
    /// `unable to parse ...`, one a bad line.
    pub errors: Vec<String>,
}

const KEY_BYTES_MAX: usize = 65_535;

pub fn parse(body: &[u8], multiplier: i64, default_time: i64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut rest = body;
    while !rest.is_empty() {
        while let [b' ' | b'\t' | 0, after @ ..] = rest {
            rest = after;
        }
        let len = line_len(rest);
        let line = &rest[..len];
        rest = &rest[(len + 1).min(rest.len())..];
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        match point(line, multiplier, default_time) {
            Ok(point) => keep(point, &mut outcome),
            Err(reason) => {
                outcome.errors.push(format!("unable to parse '{}': {reason}", String::from_utf8_lossy(line)));
            }
        }
    }
    outcome
}

fn keep(mut point: Point, outcome: &mut Outcome) {
    let name = String::from_utf8_lossy(&point.measurement).into_owned();
    let tags = split(&point.key, &escapes_by_previous(&point.key), b',');
    point.fields.retain(|(field, _)| field != b"time");
    if tags.iter().skip(1).any(|tag| tag.starts_with(b"time=")) {
        outcome.dropped.push(format!("invalid tag key: input tag \"time\" on measurement \"{name}\" is invalid"));
    } else if point.fields.is_empty() {
        outcome.dropped.push(format!("invalid field name: input field \"time\" on measurement \"{name}\" is invalid"));
    } else {
        outcome.points.push(point);
    }
}

/// In keys a byte is escaped when the byte before it is a backslash.
fn escapes_by_previous(text: &[u8]) -> Vec<bool> {
    (0..text.len()).map(|index| index > 0 && text[index - 1] == b'\\').collect()
}

/// Cuts at each unescaped `separator`.
fn split(text: &[u8], escaped: &[bool], separator: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    for (byte, escaped) in text.iter().zip(escaped) {
        if *byte == separator && !escaped {
            parts.push(Vec::new());
        } else {
            parts.last_mut().unwrap().push(*byte);
        }
    }
    parts
}

/// Bytes of the key of a line: up to its first unescaped space; `None` if a newline or the end comes first.
fn key_len(text: &[u8]) -> Option<usize> {
    let line = text.split(|byte| *byte == b'\n').next().unwrap();
    let escaped = escapes_by_previous(line);
    (1..line.len()).find(|index| line[*index] == b' ' && !escaped[*index])
}

fn line_len(text: &[u8]) -> usize {
    let first_newline = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    if text.starts_with(b"#") {
        return first_newline;
    }
    match key_len(text) {
        None => first_newline,
        Some(start) => {
            let roles = roles(&text[start..]);
            (start..text.len()).find(|index| roles[index - start] == Role::LineEnd).unwrap_or(text.len())
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Plain,
    /// A backslash and the byte that it takes along.
    Escaped,
    /// Between quotes.
    Quoted,
    OpeningQuote,
    ClosingQuote,
    Equals,
    Comma,
    Space,
    LineEnd,
}

/// The role of each byte behind the key.
fn roles(text: &[u8]) -> Vec<Role> {
    let mut roles: Vec<Role> = Vec::new();
    let (mut quoted, mut ended, mut equals, mut commas) = (false, false, 0, 0);
    while roles.len() < text.len() {
        let byte = text[roles.len()];
        let next = text.get(roles.len() + 1);
        if ended {
            roles.push(Role::Plain);
        } else if byte == b'\\' && next.is_some() && (quoted || next != Some(&b'\n')) {
            roles.extend([Role::Escaped; 2]);
        } else if byte == b'"' && equals > commas {
            roles.push(if quoted { Role::ClosingQuote } else { Role::OpeningQuote });
            quoted = !quoted;
        } else if quoted {
            roles.push(Role::Quoted);
        } else {
            roles.push(match byte {
                b'=' => Role::Equals,
                b',' => Role::Comma,
                b' ' => Role::Space,
                b'\n' => Role::LineEnd,
                _ => Role::Plain,
            });
            equals += usize::from(byte == b'=');
            commas += usize::from(byte == b',');
            ended = byte == b'\n';
        }
    }
    roles
}

fn point(line: &[u8], multiplier: i64, default_time: i64) -> Result<Point, String> {
    let key_len = key_len(line);
    let (key, measurement) = key(&line[..key_len.unwrap_or(line.len())], key_len.is_some())?;
    if key.len() > KEY_BYTES_MAX {
        return Err(format!("max key length exceeded: {} > 65535", key.len()));
    }
    let rest = skip_white_space(&line[key_len.unwrap()..]);
    let roles = roles(rest);
    let fields_len = roles.iter().position(|role| *role == Role::Space).unwrap_or(rest.len());
    let fields = fields(&rest[..fields_len], &roles[..fields_len], rest, key.len())?;
    let time = time(skip_white_space(&rest[fields_len..]), multiplier)?.unwrap_or(default_time);
    Ok(Point { key, measurement, fields: fields.ok_or("invalid field format")?, time })
}

fn skip_white_space(text: &[u8]) -> &[u8] {
    &text[text.iter().position(|byte| ![b' ', b'\t', 0].contains(byte)).unwrap_or(text.len())..]
}

fn unescape(text: &[u8], special: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(byte) = rest.first() {
        if *byte == b'\\' && rest.len() > 1 && special.contains(&rest[1]) {
            out.push(rest[1]);
            rest = &rest[2..];
        } else {
            out.push(*byte);
            rest = &rest[1..];
        }
    }
    out
}

fn escape(text: &[u8], special: &[u8]) -> Vec<u8> {
    text.iter().flat_map(|byte| if special.contains(byte) { vec![b'\\', *byte] } else { vec![*byte] }).collect()
}

/// The canonical key and the measurement.
fn key(raw: &[u8], has_fields: bool) -> Result<(Vec<u8>, Vec<u8>), String> {
    if raw.is_empty() || raw[0] == b',' {
        return Err("missing measurement".into());
    }
    let mut parts = split(raw, &escapes_by_previous(raw), b',');
    let measurement = unescape(&parts.remove(0), b", ");
    let mut tags = Vec::new();
    for part in parts {
        if part.is_empty() || part[0] == b'=' {
            return Err("missing tag key".into());
        }
        let escaped = escapes_by_previous(&part);
        let equals: Vec<usize> = (0..part.len()).filter(|index| part[*index] == b'=' && !escaped[*index]).collect();
        let Some(&middle) = equals.first().filter(|middle| **middle + 1 < part.len()) else {
            return Err("missing tag value".into());
        };
        if equals[1..].iter().any(|index| *index > middle + 1) {
            return Err("invalid tag format".into());
        }
        tags.push((part[..middle].to_vec(), unescape(&part[middle + 1..], b",= ")));
    }
    if !has_fields {
        return Err("missing fields".into());
    }
    tags.sort();
    let distinct: BTreeSet<&Vec<u8>> = tags.iter().map(|(name, _)| name).collect();
    if distinct.len() < tags.len() {
        return Err("duplicate tags".into());
    }
    let mut key = escape(&measurement, b", ");
    for (name, value) in &tags {
        key.extend([b",", name.as_slice(), b"=", &escape(value, b",= ")].concat());
    }
    Ok((key, measurement))
}

pub type Fields = Vec<(Vec<u8>, Value)>;

/// The fields; `None` if only their order is wrong, which is the least of all problems. `rest` is the line from the
/// fields on.
fn fields(text: &[u8], roles: &[Role], rest: &[u8], key_len: usize) -> Result<Option<Fields>, String> {
    let positions = |wanted: Role| (0..text.len()).filter(|index| roles[*index] == wanted).collect::<Vec<_>>();
    let (equals, commas) = (positions(Role::Equals), positions(Role::Comma));
    for &at in &equals {
        if at == 0 || commas.contains(&(at - 1)) {
            return Err("missing field key".into());
        }
        let word = rest[at + 1..].split(|byte| [b',', b' '].contains(byte)).next().unwrap();
        check_word(word)?;
    }
    let opened = positions(Role::OpeningQuote).len();
    if opened > positions(Role::ClosingQuote).len() {
        return Err("unbalanced quotes".into());
    }
    if equals.len() != commas.len() + 1 {
        return Err("invalid field format".into());
    }
    let mut fields: Fields = Vec::new();
    let mut in_order = true;
    let mut start = 0;
    let mut lengths = Vec::new();
    for end in commas.into_iter().chain([text.len()]) {
        let within: Vec<usize> = equals.iter().copied().filter(|at| (start..end).contains(at)).collect();
        in_order &= within.len() == 1;
        if let Some(at) = within.first() {
            lengths.push(key_len + 4 + at - start);
            let name = unescape(&text[start..*at], b",= ");
            let value = value(&text[at + 1..end]);
            match fields.iter_mut().find(|(known, _)| *known == name) {
                Some(field) => field.1 = value,
                None => fields.push((name, value)),
            }
        }
        start = end + 1;
    }
    if let Some(len) = lengths.into_iter().find(|len| *len > KEY_BYTES_MAX) {
        return Err(format!("max key length exceeded: {len} > 65535"));
    }
    Ok(in_order.then_some(fields))
}

fn check_word(word: &[u8]) -> Result<(), String> {
    match word.first() {
        None => Err("missing field value".into()),
        Some(b'"') => Ok(()),
        Some(b'0'..=b'9' | b'-' | b'.' | b'n' | b'N') => number(word).map(|_| ()),
        Some(_) => boolean(word).map(|_| ()).ok_or("invalid boolean".into()),
    }
}

fn boolean(word: &[u8]) -> Option<bool> {
    let is = |spellings: [&str; 5]| spellings.iter().any(|spelling| spelling.as_bytes() == word);
    match (is(["t", "T", "true", "True", "TRUE"]), is(["f", "F", "false", "False", "FALSE"])) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

fn number(word: &[u8]) -> Result<Value, String> {
    let invalid = || "invalid number".to_string();
    let text = String::from_utf8(word.to_vec()).map_err(|_| invalid())?;
    let magnitude = text.strip_prefix('-').unwrap_or(&text);
    let is_digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if is_digits(magnitude.strip_suffix('i').unwrap_or("")) {
        let digits = &text[..text.len() - 1];
        let out_of_range = format!("strconv.ParseInt: parsing \"{digits}\": value out of range");
        let parsed: i128 = digits.parse().unwrap_or(i128::MAX);
        return i64::try_from(parsed)
            .map(Value::Integer)
            .map_err(|_| format!("unable to parse integer {digits}: {out_of_range}"));
    }
    // Signs are looked at only behind an exponent mark, exponent marks only behind the first character of the word.
    for (index, c) in text.char_indices() {
        let before = text[..index].chars().next_back();
        let allowed = match c {
            '0'..='9' => true,
            '.' => !text[..index].contains('.'),
            'e' | 'E' => index > 0,
            '-' if index == 0 => true,
            '+' | '-' => matches!(before, Some('e' | 'E')),
            _ => false,
        };
        if !allowed {
            return Err(invalid());
        }
    }
    if matches!(magnitude, "" | ".") {
        return Err(invalid());
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Value::Float(value.to_bits())),
        _ => Err("invalid float".into()),
    }
}

/// A value that [`check_word`] accepted.
fn value(text: &[u8]) -> Value {
    if text.first() == Some(&b'"') {
        return Value::String(unescape(&text[1..text.len().max(2) - 1], b"\"\\"));
    }
    match boolean(text) {
        Some(value) => Value::Boolean(value),
        None => number(text).unwrap_or(Value::Boolean(false)),
    }
}

fn time(text: &[u8], multiplier: i64) -> Result<Option<i64>, String> {
    let mut words = text.splitn(2, |byte| *byte == b' ');
    let word = words.next().unwrap();
    if word.is_empty() {
        return Ok(None);
    }
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err("bad timestamp".into());
    }
    let word = String::from_utf8_lossy(word);
    if digits.is_empty() {
        return Err(format!("strconv.ParseInt: parsing \"{word}\": invalid syntax"));
    }
    let value: i128 = word.parse().unwrap_or(i128::MAX);
    if i64::try_from(value).is_err() {
        return Err(format!("strconv.ParseInt: parsing \"{word}\": value out of range"));
    }
    let time = value * i128::from(multiplier);
    if !(-9_223_372_036_854_775_806..=9_223_372_036_854_775_806).contains(&time) {
        return Err("time outside range -9223372036854775806 - 9223372036854775806".into());
    }
    if words.next().unwrap_or_default().iter().any(|byte| *byte != b' ') {
        return Err("point is invalid".into());
    }
    Ok(Some(time as i64))
}
