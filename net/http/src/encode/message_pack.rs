//! MessagePack answers (format page: msgpack specification, "Formats").

use super::time::TimeFormat;
use super::{EncodeError, Encoder, Message};
use crate::service::Zone;
use std::ops::Range;
use std::rc::Rc;
use tidemill_column::Values;
use tidemill_query::{ResultColumn, ResultSeries};

/// Spells answers as MessagePack. Its maps and arrays begin with their length, which is patched when they end: a
/// document stays in memory until then.
pub(crate) struct MessagePackEncoder {
    time_format: TimeFormat,
    /// Where the open document, result, series and values have their lengths.
    document: Option<Open>,
    result: Open,
    series_list: Open,
    series: Open,
    values: Option<Open>,
    result_start: usize,
    /// Where the key `series` stands; messages go before it.
    series_key: usize,
}

/// An open map or array.
#[derive(Clone, Copy, Default)]
struct Open {
    /// Offset of the length.
    at: usize,
    count: u32,
}

const MAP_32: u8 = 0xdf;
const ARRAY_32: u8 = 0xdd;
/// Upstream's extension type of an instant: seconds and ns.
const TIME_EXTENSION: u8 = 5;

impl Open {
    /// Maps here have fewer than 16 entries: a byte holds the length.
    fn small_map(out: &mut Vec<u8>) -> Open {
        out.push(0x80);
        Open { at: out.len() - 1, count: 0 }
    }

    fn array(out: &mut Vec<u8>) -> Open {
        out.extend_from_slice(&[ARRAY_32, 0, 0, 0, 0]);
        Open { at: out.len() - 4, count: 0 }
    }

    fn close_small_map(self, out: &mut [u8]) {
        out[self.at] = 0x80 | self.count as u8;
    }

    fn close_array(self, out: &mut [u8]) {
        out[self.at..self.at + 4].copy_from_slice(&self.count.to_be_bytes());
    }
}

impl MessagePackEncoder {
    pub(crate) fn new(time_format: TimeFormat) -> MessagePackEncoder {
        MessagePackEncoder {
            time_format,
            document: None,
            result: Open::default(),
            series_list: Open::default(),
            series: Open::default(),
            values: None,
            result_start: 0,
            series_key: 0,
        }
    }

    fn push_time(&self, out: &mut Vec<u8>, time_ns: i64) {
        match self.time_format {
            TimeFormat::Epoch { unit_ns } => push_integer(out, time_ns / unit_ns),
            TimeFormat::Rfc3339 => {
                out.extend_from_slice(&[0xc7, 12, TIME_EXTENSION]);
                out.extend_from_slice(&time_ns.div_euclid(1_000_000_000).to_be_bytes());
                out.extend_from_slice(&(time_ns.rem_euclid(1_000_000_000) as i32).to_be_bytes());
            }
        }
    }
}

fn push_integer(out: &mut Vec<u8>, value: i64) {
    if let Ok(value) = u64::try_from(value) {
        return push_unsigned(out, value);
    }
    if value >= -32 {
        out.push(value as i8 as u8);
    } else if let Ok(value) = i8::try_from(value) {
        out.extend_from_slice(&[0xd0, value as u8]);
    } else if let Ok(value) = i16::try_from(value) {
        out.push(0xd1);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        out.push(0xd2);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(0xd3);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

fn push_unsigned(out: &mut Vec<u8>, value: u64) {
    if value < 128 {
        out.push(value as u8);
    } else if let Ok(value) = u8::try_from(value) {
        out.extend_from_slice(&[0xcc, value]);
    } else if let Ok(value) = u16::try_from(value) {
        out.push(0xcd);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(0xce);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    let len = text.len() as u32;
    if len < 32 {
        out.push(0xa0 | len as u8);
    } else if let Ok(len) = u8::try_from(len) {
        out.extend_from_slice(&[0xd9, len]);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(0xda);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(0xdb);
        out.extend_from_slice(&len.to_be_bytes());
    }
    out.extend_from_slice(text);
}

fn push_array_header(out: &mut Vec<u8>, len: usize) {
    let len = len as u32;
    if len < 16 {
        out.push(0x90 | len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(0xdc);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(ARRAY_32);
        out.extend_from_slice(&len.to_be_bytes());
    }
}

fn push_map_header(out: &mut Vec<u8>, len: usize) {
    let len = len as u32;
    if len < 16 {
        out.push(0x80 | len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(0xde);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(MAP_32);
        out.extend_from_slice(&len.to_be_bytes());
    }
}

fn push_strings(out: &mut Vec<u8>, list: &[String]) {
    push_array_header(out, list.len());
    list.iter().for_each(|text| push_string(out, text.as_bytes()));
}

fn push_messages(out: &mut Vec<u8>, messages: &[Message]) {
    push_string(out, b"messages");
    push_array_header(out, messages.len());
    for message in messages {
        push_map_header(out, 2);
        push_string(out, b"level");
        push_string(out, message.level.as_bytes());
        push_string(out, b"text");
        push_string(out, message.text.as_bytes());
    }
}

fn push_value(out: &mut Vec<u8>, values: &Values, row: usize) {
    match values {
        Values::Float(values) => {
            out.push(0xcb);
            out.extend_from_slice(&values[row].to_be_bytes());
        }
        Values::Integer(values) => push_integer(out, values[row]),
        Values::Unsigned(values) => push_unsigned(out, values[row]),
        Values::Boolean(values) => out.push(if values[row] { 0xc3 } else { 0xc2 }),
        Values::String(values) => push_string(out, values.value(row)),
    }
}

impl Encoder for MessagePackEncoder {
    fn is_streamable(&self) -> bool {
        false
    }

    fn set_zone(&mut self, _: Option<Rc<dyn Zone>>) {}

    fn begin_document(&mut self, out: &mut Vec<u8>) {
        push_map_header(out, 1);
        self.document = None;
    }

    fn begin_result(&mut self, out: &mut Vec<u8>, statement: u32) {
        if self.document.is_none() {
            push_string(out, b"results");
            self.document = Some(Open::array(out));
        }
        self.result_start = out.len();
        self.result = Open::small_map(out);
        push_string(out, b"statement_id");
        push_unsigned(out, statement.into());
        self.series_key = out.len();
        push_string(out, b"series");
        self.series_list = Open::array(out);
        self.result.count = 2;
    }

    fn rewind_result(&mut self) {
        // The cut took the list of results along when this would have been its first one.
        if self.document.is_some_and(|open| open.count == 0) {
            self.document = None;
        }
    }

    fn begin_series(&mut self, out: &mut Vec<u8>, series: &ResultSeries) {
        self.series_list.count += 1;
        self.series = Open::small_map(out);
        if !series.name.is_empty() {
            push_string(out, b"name");
            push_string(out, series.name.as_bytes());
            self.series.count += 1;
        }
        if !series.tags.is_empty() {
            push_string(out, b"tags");
            push_map_header(out, series.tags.len());
            for (key, value) in series.tags.iter() {
                push_string(out, key.as_bytes());
                push_string(out, value.as_bytes());
            }
            self.series.count += 1;
        }
        push_string(out, b"columns");
        push_strings(out, &series.columns);
        push_string(out, b"values");
        self.values = Some(Open::array(out));
        self.series.count += 2;
    }

    fn rows(&mut self, out: &mut Vec<u8>, series: &ResultSeries, rows: Range<usize>) -> Result<(), EncodeError> {
        if let Some(values) = &mut self.values {
            values.count += rows.len() as u32;
        }
        for row in rows {
            push_array_header(out, series.values.len());
            for column in &series.values {
                match column {
                    ResultColumn::Time(times) => self.push_time(out, times[row]),
                    ResultColumn::StringLists(lists) => push_strings(out, &lists[row]),
                    ResultColumn::Values(column) if !column.is_valid(row) => out.push(0xc0),
                    ResultColumn::Values(column) => push_value(out, &column.values, row),
                }
            }
        }
        Ok(())
    }

    fn end_series(&mut self, out: &mut Vec<u8>, partial: bool) {
        if let Some(values) = self.values.take() {
            values.close_array(out);
        }
        if partial {
            push_string(out, b"partial");
            out.push(0xc3);
            self.series.count += 1;
        }
        self.series.close_small_map(out);
    }

    fn end_result(&mut self, out: &mut Vec<u8>, messages: &[Message], partial: bool, error: Option<&str>) {
        if let Some(document) = &mut self.document {
            document.count += 1;
        }
        if let Some(text) = error {
            out.truncate(self.result_start);
            push_map_header(out, 1);
            push_string(out, b"error");
            return push_string(out, text.as_bytes());
        }
        self.series_list.close_array(out);
        if !messages.is_empty() {
            let mut spelled = Vec::new();
            push_messages(&mut spelled, messages);
            out.splice(self.series_key..self.series_key, spelled);
            self.result.count += 1;
        }
        if partial {
            push_string(out, b"partial");
            out.push(0xc3);
            self.result.count += 1;
        }
        self.result.close_small_map(out);
    }

    fn end_document(&mut self, out: &mut Vec<u8>, error: Option<&str>) {
        match (self.document.take(), error) {
            (Some(document), _) => document.close_array(out),
            (None, Some(text)) => {
                push_string(out, b"error");
                push_string(out, text.as_bytes());
            }
            (None, None) => {
                push_string(out, b"results");
                push_array_header(out, 0);
            }
        }
    }
}
