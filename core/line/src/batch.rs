//! The columns of one parsed body and the view of them.

use tidemill_column::FieldType;

use crate::line_error::{DropReason, DroppedPoint, ERROR_TEXT_BYTES_MAX, LineError};
use crate::parser;
use crate::precision::Precision;
use crate::schema_table::{Schema, SchemaTable, TextField};
use crate::series_key;
use crate::series_table::{Series, SeriesTable};
use crate::text::Text;

/// Longest body. Positions are held in 31 bits, and rewritten keys may be longer than their text.
pub const INPUT_BYTES_MAX: usize = 256 << 20;

/// Bytes of buffers that a batch keeps from one body to the next: enough for bodies of about 8 MB, so that one body of
/// 25 MB does not hold its memory for the rest of a connection's life.
pub const RETAINED_BYTES_MAX: usize = 32 << 20;

/// How a body is to be read.
#[derive(Clone, Copy, Debug)]
pub struct ParseOptions {
    pub precision: Precision,
    /// Time of lines without one, ns since the epoch; it is truncated to the precision.
    pub now_ns: i64,
    /// Drop points whose key is no printable unicode.
    pub validate_keys: bool,
}

/// A body longer than [`INPUT_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a body of {bytes} bytes is longer than the {INPUT_BYTES_MAX} that can be parsed at once")]
pub struct InputTooLong {
    pub bytes: usize,
}

/// One stored point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// ns since the epoch.
    pub time: i64,
    /// Number of its series in the batch.
    pub series: u32,
    /// Number of its schema in the batch.
    pub schema: u32,
    /// Where its values start.
    pub(crate) values: u32,
}

/// Buffers of the parser, reused from body to body.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) arena: Vec<u8>,
    pub(crate) series: SeriesTable,
    pub(crate) schemas: SchemaTable,
    pub(crate) rows: Vec<Row>,
    /// Row after row, one slot a field: the bits of a number or boolean, or the place of a string.
    pub(crate) values: Vec<u64>,
    pub(crate) errors: Vec<LineError>,
    pub(crate) error_count: usize,
    pub(crate) dropped: Vec<DroppedPoint>,
    pub(crate) dropped_count: usize,
    /// Fields of a line whose schema was not the expected one.
    pub(crate) fields: Vec<TextField>,
    pub(crate) takes_unsigned: bool,
}

impl Batch {
    /// An empty batch. `seed` should be random once a process and unknown outside: it keeps clients from making keys
    /// that collide in the look-up tables. It changes nothing in the result.
    pub fn new(seed: u64) -> Batch {
        Batch { series: SeriesTable::new(seed), schemas: SchemaTable::new(seed), ..Batch::default() }
    }

    /// Whether bodies from now on may hold unsigned integers (`7u`). Upstream's default build refuses them, and so does
    /// a new batch.
    pub fn take_unsigned(&mut self, takes_unsigned: bool) {
        self.takes_unsigned = takes_unsigned;
    }

    /// Forgets the last body and keeps the buffers, unless they exceed [`RETAINED_BYTES_MAX`].
    pub fn clear(&mut self) {
        self.arena.clear();
        self.series.clear();
        self.schemas.clear();
        self.rows.clear();
        self.values.clear();
        self.errors.clear();
        self.error_count = 0;
        self.dropped.clear();
        self.dropped_count = 0;
        self.fields.clear();
        if self.byte_size() > RETAINED_BYTES_MAX {
            self.arena.shrink_to(0);
            self.series.shrink();
            self.schemas.shrink();
            self.rows.shrink_to(0);
            self.values.shrink_to(0);
            self.errors.shrink_to(0);
            self.dropped.shrink_to(0);
            self.fields.shrink_to(0);
        }
    }

    /// Bytes that the buffers hold, for budgets.
    pub fn byte_size(&self) -> usize {
        self.arena.capacity()
            + self.series.byte_size()
            + self.schemas.byte_size()
            + self.rows.capacity() * size_of::<Row>()
            + self.values.capacity() * 8
            + self.errors.capacity() * size_of::<LineError>()
            + self.dropped.capacity() * size_of::<DroppedPoint>()
            + self.fields.capacity() * size_of::<TextField>()
    }

    /// Reads `input`, after forgetting what was parsed before.
    ///
    /// # Errors
    /// Only for a body that is too long; bad lines are part of the result.
    pub fn parse<'a>(&'a mut self, input: &'a [u8], options: &ParseOptions) -> Result<Parsed<'a>, InputTooLong> {
        self.clear();
        if input.len() > INPUT_BYTES_MAX {
            return Err(InputTooLong { bytes: input.len() });
        }
        parser::parse(self, input, options);
        Ok(Parsed { batch: self, input })
    }
}

/// A parsed body: the columns together with the text that they refer to.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) input: &'a [u8],
}

/// One distinct series of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesView<'a> {
    /// The canonical key.
    pub key: &'a [u8],
    /// xxh3_64 of the key.
    pub hash: u64,
    /// Bytes of the measurement at the start of the key, escapes included.
    pub measurement_len: usize,
}

/// One distinct measurement with fields.
#[derive(Clone, Copy, Debug)]
pub struct SchemaView<'a> {
    parsed: Parsed<'a>,
    schema: &'a Schema,
}

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    Float(f64),
    Integer(i64),
    Boolean(bool),
    String(&'a [u8]),
    Unsigned(u64),
}

impl<'a> Parsed<'a> {
    /// Stored points in order of arrival.
    pub fn rows(&self) -> &'a [Row] {
        &self.batch.rows
    }

    pub fn series_count(&self) -> usize {
        self.batch.series.len()
    }

    /// Series `number`, in order of first appearance. Series of which every line was rejected or dropped are counted too.
    ///
    /// # Panics
    /// If `number` is not below [`Parsed::series_count`].
    pub fn series(&self, number: u32) -> SeriesView<'a> {
        self.view(&self.batch.series.all()[number as usize])
    }

    fn view(&self, series: &Series) -> SeriesView<'a> {
        SeriesView { key: self.bytes(series.key), hash: series.hash, measurement_len: series.measurement_len as usize }
    }

    /// Schemas of the body. Two may be equal if they were written differently: with a repeated field, or one named
    /// `time`, which is not stored. One that stores no field has no rows.
    pub fn schema_count(&self) -> usize {
        self.batch.schemas.len()
    }

    /// Schema `number`.
    ///
    /// # Panics
    /// If `number` is not below [`Parsed::schema_count`].
    pub fn schema(&self, number: u32) -> SchemaView<'a> {
        let schema = self.batch.schemas.schema(number).expect("schemas are numbered without gaps");
        SchemaView { parsed: *self, schema }
    }

    /// The value of field `column` of `row`, which must be a row of this body.
    ///
    /// # Panics
    /// If the schema of the row has no such field.
    pub fn value(&self, row: &Row, column: usize) -> ValueRef<'a> {
        let schema = self.schema(row.schema);
        let field = self.batch.schemas.fields(schema.schema)[column];
        let bits = self.batch.values[row.values as usize + column];
        match field.field_type {
            FieldType::Float => ValueRef::Float(f64::from_bits(bits)),
            FieldType::Integer => ValueRef::Integer(bits as i64),
            FieldType::Boolean => ValueRef::Boolean(bits != 0),
            FieldType::String => ValueRef::String(self.bytes(Text::from_bits(bits))),
            FieldType::Unsigned => ValueRef::Unsigned(bits),
        }
    }

    /// The values of `row` with the names of their fields.
    pub fn values(&self, row: &Row) -> impl Iterator<Item = (&'a [u8], ValueRef<'a>)> + use<'a> {
        let (parsed, row) = (*self, *row);
        parsed.schema(row.schema).fields().enumerate().map(move |(c, (name, _))| (name, parsed.value(&row, c)))
    }

    /// Smallest and largest time of the stored points; `None` without points.
    pub fn time_range(&self) -> Option<(i64, i64)> {
        let times = self.batch.rows.iter().map(|row| row.time);
        Some((times.clone().min()?, times.max()?))
    }

    /// Rejected lines, the first [`crate::ERRORS_MAX`] of them.
    pub fn errors(&self) -> &'a [LineError] {
        &self.batch.errors
    }

    /// How many lines were rejected.
    pub fn error_count(&self) -> usize {
        self.batch.error_count
    }

    /// The texts of all rejected lines, joined by newlines, cut at [`ERROR_TEXT_BYTES_MAX`]. `None` without any.
    pub fn error_text(&self) -> Option<String> {
        use std::fmt::Write;
        if self.batch.error_count == 0 {
            return None;
        }
        let mut text = String::new();
        let mut written = 0;
        for error in &self.batch.errors {
            let fits = text.len() + (error.line.end - error.line.start) as usize <= ERROR_TEXT_BYTES_MAX;
            if written > 0 && !fits {
                break;
            }
            if written > 0 {
                text.push('\n');
            }
            let cut = error.cut(ERROR_TEXT_BYTES_MAX);
            let _ = write!(text, "{}", cut.display(self.input));
            written += 1;
        }
        let left_out = self.batch.error_count - written;
        if left_out > 0 {
            let _ = write!(text, "\n{left_out} more lines could not be parsed");
        }
        Some(text)
    }

    /// Points that parsed well and are dropped all the same, the first [`crate::DROPPED_MAX`] of them.
    pub fn dropped(&self) -> &'a [DroppedPoint] {
        &self.batch.dropped
    }

    /// How many points parsed well and are dropped.
    pub fn dropped_count(&self) -> usize {
        self.batch.dropped_count
    }

    /// The reason why `point` is dropped, as the answer gives it between `partial write: ` and ` dropped=N`.
    pub fn dropped_text(&self, point: &DroppedPoint) -> String {
        let series = self.series(point.series);
        let part = series.key.get(..series.measurement_len).unwrap_or_default();
        let reason: DropReason = point.reason;
        reason.display(&series_key::unescape_measurement(part), series.key).to_string()
    }

    pub(crate) fn bytes(&self, text: Text) -> &'a [u8] {
        text.bytes(self.input, &self.batch.arena)
    }
}

impl<'a> SchemaView<'a> {
    /// The measurement, unescaped; borrowed unless something is escaped.
    pub fn measurement(&self) -> std::borrow::Cow<'a, [u8]> {
        let series = self.parsed.series(self.schema.series);
        series_key::unescape_measurement(&series.key[..series.measurement_len])
    }

    /// Names (unescaped) and types of the stored fields, in the order of a row's values.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], FieldType)> + use<'a> {
        let parsed = self.parsed;
        let fields = parsed.batch.schemas.fields(self.schema);
        fields.iter().map(move |field| (parsed.bytes(field.name), field.field_type))
    }

    pub fn field_count(&self) -> usize {
        self.schema.field_count as usize
    }
}
