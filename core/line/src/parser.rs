//! The one pass over a body.
//!
//! Each line is first read as what it probably is: the series and the fields of the line before, or of the one that
//! followed it last time. Comparing known bytes is several times cheaper than finding separators. Only where that guess
//! fails is the text taken apart, and only for a line that is bad is it read a second time, to name the reason.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use memchr::memchr;
use tidemill_column::{TIME_MAX, TIME_MIN};

use crate::KEY_BYTES_MAX;
use crate::batch::{Batch, ParseOptions, Row};
use crate::key::key_end;
use crate::line_end::line_end;
use crate::line_error::{DROPPED_MAX, DropReason, DroppedPoint, ERRORS_MAX, LineError, Span};
use crate::number::integer;
use crate::reason::reason;
use crate::schema_table::TextField;
use crate::text::{Text, byte_at, has_text_then, skip_whitespace};
use crate::value::{FieldValue, field_value, unsigned_value};

/// A line that is bad in some way.
struct Rejected;

/// Appends the lines of `input` to an empty batch.
pub(crate) fn parse(batch: &mut Batch, input: &[u8], options: &ParseOptions) {
    let multiplier = options.precision.multiplier_ns();
    let default_time = options.precision.truncate_ns(options.now_ns).clamp(TIME_MIN, TIME_MAX);
    let mut parser = Parser { batch, input, multiplier, default_time, validate_keys: options.validate_keys };
    let mut at = 0;
    while at < input.len() {
        let values = parser.batch.values.len();
        at = match parser.line(at, values) {
            Ok(next) => next,
            Err(Rejected) => {
                parser.batch.values.truncate(values);
                parser.reject(at)
            }
        };
    }
}

struct Parser<'a> {
    batch: &'a mut Batch,
    input: &'a [u8],
    multiplier: i64,
    default_time: i64,
    validate_keys: bool,
}

impl Parser<'_> {
    /// Reads the line from `start` on, whose values go behind the first `values` ones. Gives the start of the next line.
    #[inline(always)]
    fn line(&mut self, start: usize, values: usize) -> Result<usize, Rejected> {
        let input = self.input;
        let (series, at) = match self.batch.series.predicted(input, &self.batch.arena, start) {
            Some(found) => found,
            None => {
                let start = skip_whitespace(input, start);
                match byte_at(input, start) {
                    b'\n' => return Ok(start + 1),
                    b'#' => return Ok(next_line(input, start)),
                    _ => self.series(start)?,
                }
            }
        };
        let (schema, at) = self.fields(series, self.skip_separator(at))?;
        let (time, next) = self.time(at)?;
        self.finish(series, schema, time, values)?;
        Ok(next)
    }

    /// The position behind the space at `at` and all white space that follows it.
    #[inline(always)]
    fn skip_separator(&self, at: usize) -> usize {
        match byte_at(self.input, at + 1) {
            b' ' | b'\t' | 0 => skip_whitespace(self.input, at + 1),
            _ => at + 1,
        }
    }

    /// The series of a line that was not foreseen, and where its key ends.
    fn series(&mut self, start: usize) -> Result<(u32, usize), Rejected> {
        let end = key_end(self.input, start).ok_or(Rejected)?;
        let batch = &mut *self.batch;
        let series = batch.series.find_or_insert(self.input, &mut batch.arena, start, end, self.validate_keys);
        Ok((series.map_err(|_| Rejected)?, end))
    }

    /// Appends the values of the fields from `at` on. Gives their schema and the position of the space or line end
    /// behind them.
    #[inline(always)]
    fn fields(&mut self, series: u32, mut at: usize) -> Result<(u32, usize), Rejected> {
        let input = self.input;
        let batch = &mut *self.batch;
        let found = batch.series.series(series).ok_or(Rejected)?;
        let (expected, measurement) = (found.schema, found.measurement);
        let mut matched = 0;
        let mut more = true;
        if let Some(schema) = batch.schemas.schema(expected) {
            let fields = batch.schemas.text_fields(schema);
            for field in fields {
                let name = field.name.bytes(input, &[]);
                if !more || !has_text_then(input, at, name, b'=') {
                    break;
                }
                let value = value(input, at + name.len() + 1, &mut batch.arena, batch.takes_unsigned)?;
                if value.field_type != field.field_type {
                    break;
                }
                batch.values.push(value.bits);
                matched += 1;
                more = byte_at(input, value.end) == b',';
                at = value.end + usize::from(more);
            }
            if matched == fields.len() && !more {
                return Ok((expected, at));
            }
        }
        self.other_fields(series, measurement, expected, matched, more, at)
    }

    /// Continues a line of which only the first `matched` fields are those of the schema `expected`.
    fn other_fields(
        &mut self,
        series: u32,
        measurement: u32,
        expected: u32,
        matched: usize,
        mut more: bool,
        mut at: usize,
    ) -> Result<(u32, usize), Rejected> {
        let input = self.input;
        let batch = &mut *self.batch;
        batch.fields.clear();
        if let Some(schema) = batch.schemas.schema(expected) {
            let known = batch.schemas.text_fields(schema);
            batch.fields.extend_from_slice(known.get(..matched).unwrap_or_default());
        }
        while more {
            let name_end = field_name_end(input, at).ok_or(Rejected)?;
            let value = value(input, name_end + 1, &mut batch.arena, batch.takes_unsigned)?;
            batch.fields.push(TextField { name: Text::in_input(at, name_end), field_type: value.field_type });
            batch.values.push(value.bits);
            more = byte_at(input, value.end) == b',';
            at = value.end + usize::from(more);
        }
        let schema = batch.schemas.find_or_insert(measurement, series, &batch.fields, input, &mut batch.arena);
        batch.series.set_schema(series, schema);
        Ok((schema, at))
    }

    /// The time of the line, ns, from the separator at `at` on, and the start of the next line.
    #[inline(always)]
    fn time(&self, at: usize) -> Result<(i64, usize), Rejected> {
        let input = self.input;
        if byte_at(input, at) == b'\n' {
            return Ok((self.default_time, at + 1));
        }
        let at = self.skip_separator(at);
        if byte_at(input, at) == b'\n' {
            return Ok((self.default_time, at + 1));
        }
        let (value, mut end) = integer(input, at).ok_or(Rejected)?;
        let time = value.checked_mul(self.multiplier).ok_or(Rejected)?;
        while byte_at(input, end) == b' ' {
            end += 1;
        }
        if byte_at(input, end) != b'\n' || !(TIME_MIN..=TIME_MAX).contains(&time) {
            return Err(Rejected);
        }
        Ok((time, end + 1))
    }

    /// Stores or drops a line that is well written.
    #[inline(always)]
    fn finish(&mut self, series: u32, schema: u32, time: i64, values: usize) -> Result<(), Rejected> {
        let batch = &mut *self.batch;
        let found = batch.series.series(series).ok_or(Rejected)?;
        let shape = batch.schemas.schema(schema).ok_or(Rejected)?;
        if found.key.len() + 4 + shape.name_len_max as usize > KEY_BYTES_MAX {
            return Err(Rejected);
        }
        let dropped = match found.dropped {
            None if shape.field_count == 0 => Some(DropReason::TimeField),
            dropped => dropped,
        };
        if let Some(reason) = dropped {
            batch.values.truncate(values);
            self.drop_point(DroppedPoint { reason, series, time });
            return Ok(());
        }
        if !shape.as_written {
            batch.schemas.keep_stored(schema, &mut batch.values, values);
        }
        batch.rows.push(Row { time, series, schema, values: values as u32 });
        Ok(())
    }

    #[cold]
    fn drop_point(&mut self, point: DroppedPoint) {
        self.batch.dropped_count += 1;
        if self.batch.dropped.len() < DROPPED_MAX {
            self.batch.dropped.push(point);
        }
    }

    /// Notes why the line from `at` on is bad. Gives the start of the next line.
    #[cold]
    fn reject(&mut self, at: usize) -> usize {
        let start = skip_whitespace(self.input, at);
        let end = line_end(self.input, start);
        self.batch.error_count += 1;
        if self.batch.errors.len() < ERRORS_MAX {
            let reason = reason(self.input, start, end, self.multiplier);
            self.batch.errors.push(LineError { line: Span::new(start, end), reason });
        }
        end + 1
    }
}

/// The value from `at` on.
#[inline(always)]
fn value(input: &[u8], at: usize, arena: &mut Vec<u8>, takes_unsigned: bool) -> Result<FieldValue, Rejected> {
    match field_value(input, at, arena) {
        Some(value) => Ok(value),
        None if takes_unsigned => unsigned_value(input, at).ok_or(Rejected),
        None => Err(Rejected),
    }
}

fn next_line(input: &[u8], at: usize) -> usize {
    input.get(at..).and_then(|rest| memchr(b'\n', rest)).map_or(input.len(), |offset| at + offset + 1)
}

/// The position of the equals sign behind the field name from `at` on. A backslash takes the byte behind it along.
fn field_name_end(input: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match byte_at(input, at) {
            b'=' => return (at > start).then_some(at),
            b',' | b' ' | b'\n' => return None,
            b'\\' if byte_at(input, at + 1) != b'\n' => at += 2,
            _ => at += 1,
        }
    }
}
