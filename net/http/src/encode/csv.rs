//! CSV answers.

use super::number::{push_float_text, push_integer, push_unsigned};
use super::time::{TimeFormat, push_epoch};
use super::{EncodeError, Encoder, Message};
use crate::service::Zone;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use tidemill_column::Values;
use tidemill_query::{ResultColumn, ResultSeries};

/// Spells answers as blocks of rows under header rows; a blank line parts two blocks.
pub(crate) struct CsvEncoder {
    unit_ns: i64,
    /// Statement and columns of the last header row.
    block: Option<(u32, Arc<[String]>)>,
    /// `block` as it was when the open result began.
    block_before: Option<(u32, Arc<[String]>)>,
    statement: u32,
    /// The cells `name,tags` of the open series.
    prefix: Vec<u8>,
}

impl CsvEncoder {
    pub(crate) fn new(time_format: TimeFormat) -> CsvEncoder {
        let unit_ns = match time_format {
            TimeFormat::Rfc3339 => 1,
            TimeFormat::Epoch { unit_ns } => unit_ns,
        };
        CsvEncoder { unit_ns, block: None, block_before: None, statement: 0, prefix: Vec::new() }
    }

    fn begin_block(&mut self, out: &mut Vec<u8>, columns: &Arc<[String]>) {
        if self.block.is_some() {
            out.push(b'\n');
        }
        out.extend_from_slice(b"name,tags");
        for column in columns.iter() {
            out.push(b',');
            push_cell(out, column.as_bytes());
        }
        out.push(b'\n');
        self.block = Some((self.statement, columns.clone()));
    }
}

fn push_cell(out: &mut Vec<u8>, text: &[u8]) {
    let is_special = |byte: &u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
    let is_quoted = text.iter().any(is_special) || matches!(text.first(), Some(b' ' | b'\t')) || text == b"\\.";
    if !is_quoted {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// `k=v` pairs, with the escapes of a series key; tags without a value are left out.
fn tags_text(tags: &[(String, String)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in tags.iter().filter(|(_, value)| !value.is_empty()) {
        if !text.is_empty() {
            text.push(b',');
        }
        push_escaped_tag(&mut text, key);
        text.push(b'=');
        push_escaped_tag(&mut text, value);
    }
    text
}

fn push_escaped_tag(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        if matches!(byte, b',' | b'=' | b' ') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

impl Encoder for CsvEncoder {
    fn set_zone(&mut self, _: Option<Rc<dyn Zone>>) {}

    fn begin_document(&mut self, _: &mut Vec<u8>) {}

    fn begin_result(&mut self, _: &mut Vec<u8>, statement: u32) {
        self.statement = statement;
        self.block_before = self.block.clone();
    }

    fn rewind_result(&mut self) {
        self.block = self.block_before.clone();
    }

    fn begin_series(&mut self, out: &mut Vec<u8>, series: &ResultSeries) {
        let fits = self
            .block
            .as_ref()
            .is_some_and(|(statement, columns)| *statement == self.statement && columns == &series.columns);
        if !fits {
            self.begin_block(out, &series.columns);
        }
        self.prefix.clear();
        push_cell(&mut self.prefix, series.name.as_bytes());
        self.prefix.push(b',');
        push_cell(&mut self.prefix, &tags_text(&series.tags));
    }

    fn rows(&mut self, out: &mut Vec<u8>, series: &ResultSeries, rows: Range<usize>) -> Result<(), EncodeError> {
        for row in rows {
            out.extend_from_slice(&self.prefix);
            for column in &series.values {
                out.push(b',');
                match column {
                    ResultColumn::Time(times) => push_epoch(out, times[row], self.unit_ns),
                    ResultColumn::StringLists(lists) => push_cell(out, lists[row].join(",").as_bytes()),
                    ResultColumn::Values(column) if !column.is_valid(row) => {}
                    ResultColumn::Values(column) => push_value(out, &column.values, row),
                }
            }
            out.push(b'\n');
        }
        Ok(())
    }

    fn end_series(&mut self, _: &mut Vec<u8>, _: bool) {}

    /// An error of a statement leaves no trace when the statement has no rows in the answer. When some of its rows
    /// are already on their way, a block of its own says that they are not all.
    fn end_result(&mut self, out: &mut Vec<u8>, _: &[Message], _: bool, error: Option<&str>) {
        let has_rows = self.block.as_ref().is_some_and(|(statement, _)| *statement == self.statement);
        if let (true, Some(text)) = (has_rows, error) {
            out.push(b'\n');
            push_error(out, text);
        }
    }

    fn end_document(&mut self, out: &mut Vec<u8>, error: Option<&str>) {
        if let Some(text) = error {
            push_error(out, text);
        }
    }
}

fn push_error(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"error\n");
    push_cell(out, text.as_bytes());
    out.push(b'\n');
}

fn push_value(out: &mut Vec<u8>, values: &Values, row: usize) {
    match values {
        Values::Float(values) => push_float_text(out, values[row]),
        Values::Integer(values) => push_integer(out, values[row]),
        Values::Unsigned(values) => push_unsigned(out, values[row]),
        Values::Boolean(values) => out.extend_from_slice(if values[row] { b"true" } else { b"false" }),
        Values::String(values) => push_cell(out, values.value(row)),
    }
}
