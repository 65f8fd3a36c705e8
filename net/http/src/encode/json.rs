//! JSON answers.

use super::number::{push_float, push_integer, push_unsigned};
use super::text::push_json_string;
use super::time::{TimeFormat, TimeText, push_epoch};
use super::{EncodeError, Encoder, Message};
use crate::service::Zone;
use std::ops::Range;
use std::rc::Rc;
use tidemill_column::{Strings, Values};
use tidemill_query::{ResultColumn, ResultSeries};

/// Spells answers as compact JSON; [`crate::indent`] makes them pretty.
pub struct JsonEncoder {
    time_format: TimeFormat,
    time_text: TimeText,
    /// Closed results of this document.
    result_count: usize,
    /// Series of this result.
    series_count: usize,
    has_rows: bool,
    /// Per column, the last string and its spelling: tags repeat from row to row.
    last_strings: Vec<LastString>,
}

#[derive(Default)]
struct LastString {
    raw: Vec<u8>,
    /// With quotes; empty before the first string.
    spelled: Vec<u8>,
}

impl LastString {
    fn push(&mut self, out: &mut Vec<u8>, text: &[u8]) {
        if self.raw != text || self.spelled.is_empty() {
            self.raw.clear();
            self.raw.extend_from_slice(text);
            self.spelled.clear();
            push_json_string(&mut self.spelled, text);
        }
        out.extend_from_slice(&self.spelled);
    }
}

/// Strings longer than this are not kept for the next row.
const KEPT_STRING_BYTES_MAX: usize = 256;

impl JsonEncoder {
    pub fn new(time_format: TimeFormat) -> JsonEncoder {
        JsonEncoder {
            time_format,
            time_text: TimeText::new(),
            result_count: 0,
            series_count: 0,
            has_rows: false,
            last_strings: Vec::new(),
        }
    }

    fn push_time(&mut self, out: &mut Vec<u8>, time_ns: i64) {
        match self.time_format {
            TimeFormat::Epoch { unit_ns } => push_epoch(out, time_ns, unit_ns),
            TimeFormat::Rfc3339 => {
                out.push(b'"');
                self.time_text.push(out, time_ns);
                out.push(b'"');
            }
        }
    }

    fn push_row(&mut self, out: &mut Vec<u8>, columns: &[ResultColumn], row: usize) -> Result<(), EncodeError> {
        out.push(b'[');
        for (at, column) in columns.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            match column {
                ResultColumn::Time(times) => self.push_time(out, times[row]),
                ResultColumn::StringLists(lists) => push_list(out, &lists[row]),
                ResultColumn::Values(column) if !column.is_valid(row) => out.extend_from_slice(b"null"),
                ResultColumn::Values(column) => match &column.values {
                    Values::Float(values) => push_json_float(out, values[row])?,
                    Values::Integer(values) => push_integer(out, values[row]),
                    Values::Unsigned(values) => push_unsigned(out, values[row]),
                    Values::Boolean(values) => out.extend_from_slice(if values[row] { b"true" } else { b"false" }),
                    Values::String(values) => self.push_string(out, values, row, at),
                },
            }
        }
        out.push(b']');
        Ok(())
    }

    fn push_string(&mut self, out: &mut Vec<u8>, values: &Strings, row: usize, column: usize) {
        let text = values.value(row);
        match self.last_strings.get_mut(column) {
            Some(last) if text.len() <= KEPT_STRING_BYTES_MAX => last.push(out, text),
            _ => push_json_string(out, text),
        }
    }
}

fn push_json_float(out: &mut Vec<u8>, value: f64) -> Result<(), EncodeError> {
    if value.is_infinite() {
        return Err(EncodeError::Infinite { negative: value < 0.0 });
    }
    if value.is_nan() {
        out.extend_from_slice(b"null");
    } else {
        push_float(out, value);
    }
    Ok(())
}

fn push_list(out: &mut Vec<u8>, list: &[String]) {
    out.push(b'[');
    for (at, text) in list.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_json_string(out, text.as_bytes());
    }
    out.push(b']');
}

fn push_member(out: &mut Vec<u8>, name: &[u8], text: &str) {
    out.extend_from_slice(name);
    push_json_string(out, text.as_bytes());
}

/// `{"error":"…"}` and a newline.
pub(crate) fn push_error_document(out: &mut Vec<u8>, text: &str) {
    push_member(out, b"{\"error\":", text);
    out.extend_from_slice(b"}\n");
}

impl Encoder for JsonEncoder {
    fn set_zone(&mut self, zone: Option<Rc<dyn Zone>>) {
        self.time_text.set_zone(zone);
    }

    fn begin_document(&mut self, out: &mut Vec<u8>) {
        self.result_count = 0;
        out.push(b'{');
    }

    fn begin_result(&mut self, out: &mut Vec<u8>, statement: u32) {
        out.extend_from_slice(if self.result_count == 0 { b"\"results\":[" } else { b"," });
        out.extend_from_slice(b"{\"statement_id\":");
        push_unsigned(out, statement.into());
        self.series_count = 0;
    }

    fn rewind_result(&mut self) {}

    fn begin_series(&mut self, out: &mut Vec<u8>, series: &ResultSeries) {
        out.extend_from_slice(if self.series_count == 0 { b",\"series\":[{" } else { b",{" });
        self.series_count += 1;
        self.has_rows = false;
        let start = out.len();
        if !series.name.is_empty() {
            push_member(out, b"\"name\":", &series.name);
        }
        if !series.tags.is_empty() {
            push_separator(out, start);
            out.extend_from_slice(b"\"tags\":{");
            for (at, (key, value)) in series.tags.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                push_json_string(out, key.as_bytes());
                push_member(out, b":", value);
            }
            out.push(b'}');
        }
        if !series.columns.is_empty() {
            push_separator(out, start);
            out.extend_from_slice(b"\"columns\":");
            push_list(out, &series.columns);
        }
        self.last_strings.clear();
        self.last_strings.resize_with(series.columns.len(), LastString::default);
    }

    fn rows(&mut self, out: &mut Vec<u8>, series: &ResultSeries, rows: Range<usize>) -> Result<(), EncodeError> {
        for row in rows {
            let start = out.len();
            out.extend_from_slice(if self.has_rows { b"," } else { b",\"values\":[" });
            if let Err(error) = self.push_row(out, &series.values, row) {
                out.truncate(start);
                return Err(error);
            }
            self.has_rows = true;
        }
        Ok(())
    }

    fn end_series(&mut self, out: &mut Vec<u8>, partial: bool) {
        if self.has_rows {
            out.push(b']');
        }
        out.extend_from_slice(if partial { b",\"partial\":true}" } else { b"}" });
    }

    fn end_result(&mut self, out: &mut Vec<u8>, messages: &[Message], partial: bool, error: Option<&str>) {
        if self.series_count > 0 {
            out.push(b']');
        }
        for (at, message) in messages.iter().enumerate() {
            out.extend_from_slice(if at == 0 { b",\"messages\":[" } else { b"," });
            push_member(out, b"{\"level\":", &message.level);
            push_member(out, b",\"text\":", &message.text);
            out.push(b'}');
        }
        if !messages.is_empty() {
            out.push(b']');
        }
        if partial {
            out.extend_from_slice(b",\"partial\":true");
        }
        if let Some(text) = error {
            push_member(out, b",\"error\":", text);
        }
        out.push(b'}');
        self.result_count += 1;
    }

    fn end_document(&mut self, out: &mut Vec<u8>, error: Option<&str>) {
        if self.result_count > 0 {
            out.push(b']');
        }
        if let Some(text) = error {
            push_member(out, if self.result_count > 0 { b",\"error\":" } else { b"\"error\":" }, text);
        }
        out.extend_from_slice(b"}\n");
    }
}

fn push_separator(out: &mut Vec<u8>, start: usize) {
    if out.len() > start {
        out.push(b',');
    }
}
