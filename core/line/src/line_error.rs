//! Why a line or a point was not taken, in upstream's words.

use std::fmt;

/// Rejected lines that a batch keeps; further ones are only counted. A body of bad lines must not cost more memory
/// than a body of good ones.
pub const ERRORS_MAX: usize = 16_384;
/// Dropped points that a batch keeps; further ones are only counted.
pub const DROPPED_MAX: usize = 16_384;
/// Bytes of the joined text of all rejected lines. One body of 25 MB with an open quote in its first line would
/// otherwise be sent back whole, and escaped.
pub const ERROR_TEXT_BYTES_MAX: usize = 1 << 20;

/// Bytes of the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    /// The bytes of `input` that are meant; empty if they do not lie in it.
    pub fn bytes(self, input: &[u8]) -> &[u8] {
        input.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// What is wrong with a line. Spans are positions in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    MissingMeasurement,
    MissingFields,
    MissingTagKey,
    MissingTagValue,
    InvalidTagFormat,
    DuplicateTags,
    MissingFieldKey,
    MissingFieldValue,
    InvalidFieldFormat,
    UnbalancedQuotes,
    InvalidNumber,
    InvalidFloat,
    InvalidBoolean,
    /// The digits of a field value that do not fit int64.
    IntegerOutOfRange(Span),
    BadTimestamp,
    /// The digits of a timestamp that do not fit int64.
    TimestampOutOfRange(Span),
    /// A timestamp that is a lone sign.
    TimestampSyntax(Span),
    TimeOutsideRange,
    PointIsInvalid,
    /// Bytes of the key that is too long.
    KeyTooLong(usize),
}

/// One rejected line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The line without leading white space and without its newline.
    pub line: Span,
    pub reason: Reason,
}

impl LineError {
    /// The same error with at most `bytes_max` bytes of its line and of the digits that it names.
    pub(crate) fn cut(&self, bytes_max: usize) -> LineError {
        let cut = |span: Span| Span { end: span.end.min(span.start.saturating_add(bytes_max as u32)), ..span };
        let reason = match self.reason {
            Reason::IntegerOutOfRange(span) => Reason::IntegerOutOfRange(cut(span)),
            Reason::TimestampOutOfRange(span) => Reason::TimestampOutOfRange(cut(span)),
            reason => reason,
        };
        LineError { line: cut(self.line), reason }
    }

    /// `unable to parse '<line>': <reason>`; `input` is the body that was parsed.
    pub fn display<'a>(&self, input: &'a [u8]) -> impl fmt::Display + 'a {
        let error = *self;
        fmt::from_fn(move |f| {
            let line = String::from_utf8_lossy(error.line.bytes(input));
            write!(f, "unable to parse '{line}': {}", error.reason.display(input))
        })
    }
}

impl Reason {
    /// Upstream's text; `input` is the body that was parsed.
    pub fn display<'a>(&self, input: &'a [u8]) -> impl fmt::Display + 'a {
        let reason = *self;
        fmt::from_fn(move |f| reason.write(input, f))
    }

    fn write(self, input: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |span: Span| String::from_utf8_lossy(span.bytes(input));
        f.write_str(match self {
            Reason::MissingMeasurement => "missing measurement",
            Reason::MissingFields => "missing fields",
            Reason::MissingTagKey => "missing tag key",
            Reason::MissingTagValue => "missing tag value",
            Reason::InvalidTagFormat => "invalid tag format",
            Reason::DuplicateTags => "duplicate tags",
            Reason::MissingFieldKey => "missing field key",
            Reason::MissingFieldValue => "missing field value",
            Reason::InvalidFieldFormat => "invalid field format",
            Reason::UnbalancedQuotes => "unbalanced quotes",
            Reason::InvalidNumber => "invalid number",
            Reason::InvalidFloat => "invalid float",
            Reason::InvalidBoolean => "invalid boolean",
            Reason::BadTimestamp => "bad timestamp",
            Reason::PointIsInvalid => "point is invalid",
            Reason::IntegerOutOfRange(span) => {
                let digits = text(span);
                let range = Reason::TimestampOutOfRange(span);
                return write!(f, "unable to parse integer {digits}: {}", range.display(input));
            }
            Reason::TimestampOutOfRange(span) => {
                return write!(f, "strconv.ParseInt: parsing \"{}\": value out of range", text(span));
            }
            Reason::TimestampSyntax(span) => {
                return write!(f, "strconv.ParseInt: parsing \"{}\": invalid syntax", text(span));
            }
            Reason::TimeOutsideRange => {
                let (min, max) = (tidemill_column::TIME_MIN, tidemill_column::TIME_MAX);
                return write!(f, "time outside range {min} - {max}");
            }
            Reason::KeyTooLong(len) => {
                return write!(f, "max key length exceeded: {len} > {}", crate::KEY_BYTES_MAX);
            }
        })
    }
}

/// Why a point that parsed well is dropped all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// One of its tags is named `time`.
    TimeTag,
    /// Its only field is named `time`.
    TimeField,
    /// Its key is no printable unicode, which `validate-keys` asks for.
    InvalidUnicode,
}

/// A point that parsed well and is dropped: it is answered as `partial write: <text> dropped=N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedPoint {
    pub reason: DropReason,
    /// Number of its series in the batch.
    pub series: u32,
    /// ns since the epoch.
    pub time: i64,
}

impl DropReason {
    /// The part between `partial write: ` and ` dropped=N`, for a point of this measurement (unescaped) and series key.
    pub fn display<'a>(self, measurement: &'a [u8], key: &'a [u8]) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            let name = String::from_utf8_lossy(measurement);
            match self {
                DropReason::TimeTag => {
                    write!(f, "invalid tag key: input tag \"time\" on measurement \"{name}\" is invalid")
                }
                DropReason::TimeField => {
                    write!(f, "invalid field name: input field \"time\" on measurement \"{name}\" is invalid")
                }
                DropReason::InvalidUnicode => {
                    write!(f, "key contains invalid unicode: \"{}\"", key.escape_ascii())
                }
            }
        })
    }
}
