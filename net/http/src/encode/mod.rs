//! Answers as bytes, one encoder a format.
//!
//! Owns: the spelling of documents, results, series, rows and values in JSON, CSV and MessagePack.
//! Invariants: an encoder only appends to the buffer that it is given, but for lengths that it patches inside the
//! document it has open and rows that it takes back because one of their values has no spelling.
//! Knows nothing of pieces, chunks, compression or sockets: [`crate::answer`] calls it in the right order.

mod csv;
mod json;
mod message_pack;
mod number;
mod text;
mod time;

pub use json::JsonEncoder;
pub(crate) use json::push_error_document;
pub(crate) use number::push_float_text;
pub use time::TimeFormat;

pub(crate) use csv::CsvEncoder;
pub(crate) use message_pack::MessagePackEncoder;

use crate::service::Zone;
use std::ops::Range;
use std::rc::Rc;
use tidemill_query::ResultSeries;

/// The formats that a client can ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    /// `application/csv`
    Csv,
    /// `text/csv`, the same bytes under another name.
    TextCsv,
    MessagePack,
}

impl Format {
    /// All, in the order in which a wildcard meets them.
    pub const ALL: [Format; 4] = [Format::Json, Format::Csv, Format::TextCsv, Format::MessagePack];

    /// What `Content-Type` says.
    pub const fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Csv => "application/csv",
            Format::TextCsv => "text/csv",
            Format::MessagePack => "application/x-msgpack",
        }
    }

    pub(crate) fn encoder(self, time_format: TimeFormat) -> Box<dyn Encoder> {
        match self {
            Format::Json => Box::new(JsonEncoder::new(time_format)),
            Format::Csv | Format::TextCsv => Box::new(CsvEncoder::new(time_format)),
            Format::MessagePack => Box::new(MessagePackEncoder::new(time_format)),
        }
    }
}

/// A note of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub level: String,
    pub text: String,
}

/// Why a row cannot be spelled, as the client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("json: unsupported value: {}Inf", if *.negative { "-" } else { "+" })]
    Infinite { negative: bool },
}

/// Spells one answer. Calls nest: document, result, series, rows.
pub trait Encoder {
    /// False when the bytes of an open document may still change, so that it must be kept until its end.
    fn is_streamable(&self) -> bool {
        true
    }

    /// The offsets of the times from here on; `None` is UTC.
    fn set_zone(&mut self, zone: Option<Rc<dyn Zone>>);

    fn begin_document(&mut self, out: &mut Vec<u8>);

    fn begin_result(&mut self, out: &mut Vec<u8>, statement: u32);

    /// The caller has cut the buffer back to where the open result began and will begin it anew.
    fn rewind_result(&mut self);

    fn begin_series(&mut self, out: &mut Vec<u8>, series: &ResultSeries);

    /// Appends rows `rows` of the series.
    ///
    /// # Errors
    /// A value has no spelling; the rows before its row are in the buffer.
    fn rows(&mut self, out: &mut Vec<u8>, series: &ResultSeries, rows: Range<usize>) -> Result<(), EncodeError>;

    fn end_series(&mut self, out: &mut Vec<u8>, partial: bool);

    fn end_result(&mut self, out: &mut Vec<u8>, messages: &[Message], partial: bool, error: Option<&str>);

    /// `error` is the error of the request as a whole.
    fn end_document(&mut self, out: &mut Vec<u8>, error: Option<&str>);
}
