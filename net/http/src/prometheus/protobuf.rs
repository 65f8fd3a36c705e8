//! The protobuf messages of Prometheus' remote write and read, as far as they matter here: bytes to values, and back.
//!
//! Invariants: any bytes are read or refused, and nothing is reserved for lengths that the bytes only claim; what is held
//! of a message is bounded by the `_MAX` of its parts, as two bytes make a label of fifty.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

/// The bytes are no message of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("unexpected EOF")]
    Short,
    #[error("proto: illegal wireType {0}")]
    WireType(u64),
    #[error("proto: field {0} is of the wrong kind")]
    Kind(u64),
    #[error("proto: a text that is not UTF-8")]
    Text,
    #[error("proto: field {0} is there too often")]
    TooMany(u64),
}

/// Labels of a series: far more than Prometheus sends.
pub const LABELS_MAX: usize = 1024;
/// Samples of a series in one message: a day of one a tenth of a second.
pub const SAMPLES_MAX: usize = 1 << 20;
/// Queries of a message, and matchers of a query.
pub const QUERIES_MAX: usize = 1024;
pub const MATCHERS_MAX: usize = 1024;

/// Appends what field `number` holds.
fn push<T>(all: &mut Vec<T>, one: T, number: u64, count_max: usize) -> Result<(), Malformed> {
    if all.len() >= count_max {
        return Err(Malformed::TooMany(number));
    }
    all.push(one);
    Ok(())
}

/// Samples of one series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TimeSeries {
    /// Name and value, in the order of the message.
    pub labels: Vec<(String, String)>,
    /// Value, and ms since the epoch.
    pub samples: Vec<(f64, i64)>,
}

/// What a remote read asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadQuery {
    /// ms, inclusive.
    pub start_ms: i64,
    pub end_ms: i64,
    pub matchers: Vec<Matcher>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Matcher {
    pub kind: MatcherKind,
    pub name: String,
    pub value: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatcherKind {
    #[default]
    Equal,
    NotEqual,
    Matches,
    NotMatches,
}

enum Field<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(&self, number: u64) -> Result<&'a [u8], Malformed> {
        if let Field::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed::Kind(number)) }
    }

    fn text(&self, number: u64) -> Result<String, Malformed> {
        String::from_utf8(self.bytes(number)?.to_vec()).map_err(|_| Malformed::Text)
    }

    fn integer(&self, number: u64) -> Result<i64, Malformed> {
        if let Field::Varint(value) = self { Ok(value.cast_signed()) } else { Err(Malformed::Kind(number)) }
    }

    fn float(&self, number: u64) -> Result<f64, Malformed> {
        if let Field::Fixed(bits) = self { Ok(f64::from_bits(*bits)) } else { Err(Malformed::Kind(number)) }
    }
}

/// Hands over number and content of each field of a message.
fn for_each_field<'a>(
    mut message: &'a [u8],
    mut sink: impl FnMut(u64, Field<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut message)?),
            1 => Field::Fixed(u64::from_le_bytes(fixed(&mut message)?)),
            2 => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| Malformed::Short)?;
                Field::Bytes(take(&mut message, length)?)
            }
            5 => Field::Fixed(u32::from_le_bytes(fixed(&mut message)?).into()),
            kind => return Err(Malformed::WireType(kind)),
        };
        sink(tag >> 3, field)?;
    }
    Ok(())
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = message.split_at_checked(length).ok_or(Malformed::Short)?;
    *message = rest;
    Ok(taken)
}

fn fixed<const N: usize>(message: &mut &[u8]) -> Result<[u8; N], Malformed> {
    take(message, N)?.try_into().map_err(|_| Malformed::Short)
}

fn varint(message: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = fixed(message)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed::Short)
}

/// The series of a WriteRequest.
pub fn write_request(
    message: &[u8],
    mut sink: impl FnMut(TimeSeries) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for_each_field(message, |number, field| match number {
        1 => sink(time_series(field.bytes(number)?)?),
        _ => Ok(()),
    })
}

fn time_series(message: &[u8]) -> Result<TimeSeries, Malformed> {
    let mut series = TimeSeries::default();
    for_each_field(message, |number, field| match number {
        1 => push(&mut series.labels, label(field.bytes(number)?)?, number, LABELS_MAX),
        2 => push(&mut series.samples, sample(field.bytes(number)?)?, number, SAMPLES_MAX),
        _ => Ok(()),
    })?;
    Ok(series)
}

fn label(message: &[u8]) -> Result<(String, String), Malformed> {
    let mut label = (String::new(), String::new());
    for_each_field(message, |number, field| {
        match number {
            1 => label.0 = field.text(number)?,
            2 => label.1 = field.text(number)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(label)
}

fn sample(message: &[u8]) -> Result<(f64, i64), Malformed> {
    let mut sample = (0.0, 0);
    for_each_field(message, |number, field| {
        match number {
            1 => sample.0 = field.float(number)?,
            2 => sample.1 = field.integer(number)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(sample)
}

/// The queries of a ReadRequest.
pub fn read_request(message: &[u8]) -> Result<Vec<ReadQuery>, Malformed> {
    let mut queries = Vec::new();
    for_each_field(message, |number, field| match number {
        1 => push(&mut queries, read_query(field.bytes(number)?)?, number, QUERIES_MAX),
        _ => Ok(()),
    })?;
    Ok(queries)
}

fn read_query(message: &[u8]) -> Result<ReadQuery, Malformed> {
    let mut query = ReadQuery::default();
    for_each_field(message, |number, field| {
        match number {
            1 => query.start_ms = field.integer(number)?,
            2 => query.end_ms = field.integer(number)?,
            3 => push(&mut query.matchers, matcher(field.bytes(number)?)?, number, MATCHERS_MAX)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(query)
}

fn matcher(message: &[u8]) -> Result<Matcher, Malformed> {
    let mut matcher = Matcher { kind: MatcherKind::Equal, name: String::new(), value: String::new() };
    for_each_field(message, |number, field| {
        match number {
            1 => {
                matcher.kind = match field.integer(number)? {
                    0 => MatcherKind::Equal,
                    1 => MatcherKind::NotEqual,
                    2 => MatcherKind::Matches,
                    3 => MatcherKind::NotMatches,
                    _ => return Err(Malformed::Kind(number)),
                }
            }
            2 => matcher.name = field.text(number)?,
            3 => matcher.value = field.text(number)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(matcher)
}

/// Appends a series to the one QueryResult of a ReadResponse that is under way.
pub fn push_time_series(out: &mut Vec<u8>, series: &TimeSeries) {
    let mut message = Vec::new();
    for (name, value) in &series.labels {
        let mut label = Vec::new();
        push_bytes(&mut label, 1, name.as_bytes());
        push_bytes(&mut label, 2, value.as_bytes());
        push_bytes(&mut message, 1, &label);
    }
    for (value, time_ms) in &series.samples {
        let mut sample = vec![1 << 3 | 1];
        sample.extend_from_slice(&value.to_bits().to_le_bytes());
        sample.push(2 << 3);
        push_varint(&mut sample, time_ms.cast_unsigned());
        push_bytes(&mut message, 2, &sample);
    }
    push_bytes(out, 1, &message);
}

/// The ReadResponse around its only result.
pub fn read_response(result: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(result.len() + 11);
    push_bytes(&mut out, 1, result);
    out
}

fn push_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    push_varint(out, number << 3 | 2);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(message: &[u8]) -> Result<Vec<TimeSeries>, Malformed> {
        let mut all = Vec::new();
        write_request(message, |series| {
            all.push(series);
            Ok(())
        })?;
        Ok(all)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            labels in prop::collection::vec((".{0,8}", ".{0,8}"), 0..4),
            samples in prop::collection::vec((any::<f64>(), any::<i64>()), 0..4),
        ) {
            let series = TimeSeries { labels, samples };
            let mut message = Vec::new();
            // A WriteRequest is a result that has series in the same field.
            push_time_series(&mut message, &series);
            let found = read(&message).unwrap();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(&found[0].labels, &series.labels);
            let bits = |of: &TimeSeries| of.samples.iter().map(|(value, time)| (value.to_bits(), *time)).collect::<Vec<_>>();
            prop_assert_eq!(bits(&found[0]), bits(&series));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let _ = read_request(&bytes);
        }
    }

    #[test]
    fn a_small_message_does_not_become_a_large_one() {
        let labels = [1 << 3 | 2, 0].repeat(LABELS_MAX + 1);
        let mut message = Vec::new();
        push_bytes(&mut message, 1, &labels[2..]);
        assert_eq!(read(&message).unwrap()[0].labels.len(), LABELS_MAX);
        message.clear();
        push_bytes(&mut message, 1, &labels);
        assert_eq!(read(&message), Err(Malformed::TooMany(1)));
        assert_eq!(read_request(&[1 << 3 | 2, 0].repeat(QUERIES_MAX + 1)), Err(Malformed::TooMany(1)));
    }

    #[test]
    fn queries_are_read() {
        let mut matcher = Vec::new();
        push_varint(&mut matcher, 1 << 3);
        push_varint(&mut matcher, 3);
        push_bytes(&mut matcher, 2, b"host");
        push_bytes(&mut matcher, 3, b"a.*");
        let mut query = Vec::new();
        push_varint(&mut query, 1 << 3);
        push_varint(&mut query, 5);
        push_varint(&mut query, 2 << 3);
        push_varint(&mut query, 7);
        push_bytes(&mut query, 3, &matcher);
        let found = read_request(&read_response(&query)).unwrap();
        let matcher = Matcher { kind: MatcherKind::NotMatches, name: "host".into(), value: "a.*".into() };
        assert_eq!(found, [ReadQuery { start_ms: 5, end_ms: 7, matchers: vec![matcher] }]);
    }
}
