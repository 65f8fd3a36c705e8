//! Reads the image of a partition batch.
//!
//! [`PartitionBatch::parse`] walks the whole image once and checks every length, number and code. What it hands out
//! afterwards borrows from the image; walking it again cannot fail, so the iterators have no errors: on an image that
//! was not checked they would end early instead of panicking.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use tidemill_column::{FieldType, Strings, Values};

use crate::image::{FORMAT_VERSION, MAGIC, PartitionHeader, Reader};

/// Why bytes are no partition batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("not a partition batch")]
    Magic,
    #[error("a partition batch of version {version}; this build reads version {FORMAT_VERSION}")]
    Version { version: u16 },
    /// The image ends too early or says something impossible; `offset` is where the part in question starts.
    #[error("a damaged partition batch: bad {what} at offset {offset}")]
    Damaged { what: &'static str, offset: usize },
}

/// A checked image.
#[derive(Clone, Debug)]
pub struct PartitionBatch<'a> {
    bytes: &'a [u8],
    header: PartitionHeader,
    schemas: Vec<SchemaPlace<'a>>,
    /// Types of the fields of all schemas, one behind the other.
    types: Vec<FieldType>,
    series: &'a [u8],
}

/// A schema that was read: groups of few rows are many, and each has one.
#[derive(Clone, Debug)]
struct SchemaPlace<'a> {
    schema: BatchSchema<'a>,
    /// Where its types begin.
    types_start: u32,
    /// Bytes of the values of a row, where no field is a string.
    row_bytes: Option<u32>,
}

/// One measurement with fields.
#[derive(Clone, Copy, Debug)]
pub struct BatchSchema<'a> {
    /// Unescaped.
    pub measurement: &'a [u8],
    pub field_count: usize,
    /// The image from the first field on: where the last one ends is found by reading them.
    fields: &'a [u8],
}

/// Name (unescaped) and type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldDefinition<'a> {
    pub name: &'a [u8],
    pub field_type: FieldType,
}

/// One series with its row groups.
#[derive(Clone, Copy, Debug)]
pub struct BatchSeries<'b, 'a> {
    /// xxh3_64 of the key.
    pub hash: u64,
    /// The canonical key.
    pub key: &'a [u8],
    /// Bytes of the measurement at the start of the key, escapes included.
    pub measurement_len: usize,
    pub group_count: usize,
    batch: &'b PartitionBatch<'a>,
    groups: &'a [u8],
}

/// Rows of one series with the same fields, in order of arrival.
#[derive(Clone, Copy, Debug)]
pub struct RowGroup<'a> {
    /// Number of the schema in the batch.
    pub schema_index: usize,
    pub row_count: usize,
    schema: BatchSchema<'a>,
    times: &'a [u8],
    columns: &'a [u8],
}

/// The values of one field in a row group, one for each row.
#[derive(Clone, Copy, Debug)]
pub enum ColumnSlice<'a> {
    /// Eight bytes a row.
    Float(&'a [u8]),
    Integer(&'a [u8]),
    /// One byte a row.
    Boolean(&'a [u8]),
    /// Four bytes of length a row, and the bytes of all rows.
    String {
        lengths: &'a [u8],
        bytes: &'a [u8],
    },
    Unsigned(&'a [u8]),
}

impl<'a> PartitionBatch<'a> {
    /// Checks `bytes`, which must be one whole image.
    ///
    /// # Errors
    /// If they are not. Memory for at most one number for every six bytes is allocated on the way.
    pub fn parse(bytes: &'a [u8]) -> Result<PartitionBatch<'a>, FormatError> {
        let mut reader = Reader { rest: bytes };
        if reader.array() != Some(MAGIC) {
            return Err(FormatError::Magic);
        }
        let damaged = |what, reader: Reader<'_>| FormatError::Damaged { what, offset: bytes.len() - reader.rest.len() };
        let version = reader.array().map(u16::from_le_bytes).ok_or(damaged("version", reader))?;
        if version != FORMAT_VERSION {
            return Err(FormatError::Version { version });
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(damaged("header", reader));
        }
        let header = PartitionHeader::read(&mut reader).filter(is_sound).ok_or(damaged("header", reader))?;
        let mut schemas = Vec::with_capacity((header.schema_count as usize).min(reader.rest.len() / SCHEMA_BYTES_MIN));
        let mut types = Vec::new();
        for _ in 0..header.schema_count {
            let start = reader;
            schemas.push(check_schema(&mut reader, &mut types).ok_or(damaged("schema", start))?);
        }
        let mut batch = PartitionBatch { bytes, header, schemas, types, series: reader.rest };
        let mut seen = Seen { rows: 0, groups: 0 };
        for _ in 0..header.series_count {
            let start = reader;
            batch.check_series(&mut reader, &mut seen).ok_or(damaged("series", start))?;
        }
        if !reader.rest.is_empty() || seen.rows != header.row_count || seen.groups != header.group_count {
            return Err(damaged("end", reader));
        }
        batch.series = batch.series.get(..batch.series.len() - reader.rest.len()).unwrap_or_default();
        Ok(batch)
    }

    /// The header of an image that is not checked otherwise.
    pub fn header_of(bytes: &[u8]) -> Option<PartitionHeader> {
        let mut reader = Reader { rest: bytes.get(MAGIC.len() + size_of::<u16>()..)? };
        PartitionHeader::read(&mut reader).filter(is_sound)
    }

    pub fn header(&self) -> &PartitionHeader {
        &self.header
    }

    /// The image itself.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn schema_count(&self) -> usize {
        self.schemas.len()
    }

    /// Schema `index`, if there is one.
    pub fn schema(&self, index: usize) -> Option<BatchSchema<'a>> {
        Some(self.schemas.get(index)?.schema)
    }

    pub fn schemas(&self) -> impl Iterator<Item = BatchSchema<'a>> {
        (0..self.schemas.len()).filter_map(|index| self.schema(index))
    }

    /// The series in the order of their first rows.
    pub fn series(&self) -> SeriesIter<'_, 'a> {
        SeriesIter { batch: self, reader: Reader { rest: self.series }, left: self.header.series_count }
    }

    fn check_series(&self, reader: &mut Reader<'a>, seen: &mut Seen) -> Option<()> {
        let series = read_series(self, reader)?;
        let measurement_fits = (1..=series.key.len()).contains(&series.measurement_len);
        if !measurement_fits || series.group_count == 0 {
            return None;
        }
        for _ in 0..series.group_count {
            let group = self.read_group(reader)?;
            let in_range = |time| self.header.time_min <= time && time <= self.header.time_max;
            if group.row_count == 0 || !group.times().all(in_range) {
                return None;
            }
            // Lengths of strings were added up on the way; what is left are the truth values.
            let sound = self.columns_of(&group).all(|column| match column {
                ColumnSlice::Boolean(bytes) => bytes.iter().all(|byte| *byte <= 1),
                _ => true,
            });
            if !sound {
                return None;
            }
            seen.rows = seen.rows.checked_add(group.row_count as u32)?;
            seen.groups = seen.groups.checked_add(1)?;
        }
        Some(())
    }

    fn read_group(&self, reader: &mut Reader<'a>) -> Option<RowGroup<'a>> {
        let schema_index = reader.varint()? as usize;
        let row_count = reader.varint()? as usize;
        let place = self.schemas.get(schema_index)?;
        let times = reader.items(row_count, 8)?;
        let columns = match place.row_bytes {
            Some(row_bytes) => reader.items(row_count, row_bytes as usize)?,
            None => {
                let start = reader.rest;
                for field_type in self.types_of(place) {
                    read_column(*field_type, row_count, reader)?;
                }
                start.get(..start.len() - reader.rest.len())?
            }
        };
        Some(RowGroup { schema_index, row_count, schema: place.schema, times, columns })
    }

    fn types_of(&self, place: &SchemaPlace<'_>) -> &[FieldType] {
        let start = place.types_start as usize;
        self.types.get(start..start + place.schema.field_count).unwrap_or_default()
    }

    /// The columns of a group of this batch, in the order of the schema, as [`RowGroup::columns`] but for the names.
    pub fn columns_of(&self, group: &RowGroup<'a>) -> impl Iterator<Item = ColumnSlice<'a>> {
        let types = self.schemas.get(group.schema_index).map(|place| self.types_of(place)).unwrap_or_default();
        let (row_count, mut reader) = (group.row_count, Reader { rest: group.columns });
        types.iter().map_while(move |field_type| read_column(*field_type, row_count, &mut reader))
    }
}

/// A measurement of one byte with one field of one byte.
const SCHEMA_BYTES_MIN: usize = 6;

struct Seen {
    rows: u32,
    groups: u32,
}

fn is_sound(header: &PartitionHeader) -> bool {
    header.partition < header.partition_count
        && header.row_count > 0
        && header.time_min <= header.time_max
        && header.shard_group_start <= header.time_min
        && header.time_max < header.shard_group_end
}

fn read_schema<'a>(reader: &mut Reader<'a>) -> Option<BatchSchema<'a>> {
    let measurement = reader.prefixed()?;
    let field_count = reader.varint()? as usize;
    Some(BatchSchema { measurement, field_count, fields: reader.rest })
}

/// Reads a schema with its fields, which must have names; appends their types.
fn check_schema<'a>(reader: &mut Reader<'a>, types: &mut Vec<FieldType>) -> Option<SchemaPlace<'a>> {
    let schema = read_schema(reader)?;
    let types_start = types.len() as u32;
    let mut row_bytes = Some(0u32);
    for _ in 0..schema.field_count {
        let field = read_field(reader).filter(|field| !field.name.is_empty())?;
        types.push(field.field_type);
        let bytes = match field.field_type {
            FieldType::Float | FieldType::Integer | FieldType::Unsigned => Some(8),
            FieldType::Boolean => Some(1),
            FieldType::String => None,
        };
        row_bytes = row_bytes.zip(bytes).and_then(|(sum, bytes)| sum.checked_add(bytes));
    }
    let is_sound = !schema.measurement.is_empty() && schema.field_count > 0;
    is_sound.then_some(SchemaPlace { schema, types_start, row_bytes })
}

fn read_field<'a>(reader: &mut Reader<'a>) -> Option<FieldDefinition<'a>> {
    let [code] = reader.array()?;
    Some(FieldDefinition { field_type: FieldType::from_code(code)?, name: reader.prefixed()? })
}

fn read_series<'b, 'a>(batch: &'b PartitionBatch<'a>, reader: &mut Reader<'a>) -> Option<BatchSeries<'b, 'a>> {
    let hash = reader.u64()?;
    let key = reader.prefixed()?;
    let measurement_len = reader.varint()? as usize;
    let group_count = reader.varint()? as usize;
    Some(BatchSeries { hash, key, measurement_len, group_count, batch, groups: reader.rest })
}

#[inline]
fn read_column<'a>(field_type: FieldType, row_count: usize, reader: &mut Reader<'a>) -> Option<ColumnSlice<'a>> {
    Some(match field_type {
        FieldType::Float => ColumnSlice::Float(reader.items(row_count, 8)?),
        FieldType::Integer => ColumnSlice::Integer(reader.items(row_count, 8)?),
        FieldType::Unsigned => ColumnSlice::Unsigned(reader.items(row_count, 8)?),
        FieldType::Boolean => ColumnSlice::Boolean(reader.bytes(row_count)?),
        FieldType::String => {
            let lengths = reader.items(row_count, 4)?;
            let total: u64 = numbers_u32(lengths).map(u64::from).sum();
            ColumnSlice::String { lengths, bytes: reader.bytes(usize::try_from(total).ok()?)? }
        }
    })
}

fn numbers_u64(bytes: &[u8]) -> impl ExactSizeIterator<Item = u64> + '_ {
    bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk))
}

fn numbers_u32(bytes: &[u8]) -> impl ExactSizeIterator<Item = u32> + '_ {
    bytes.as_chunks().0.iter().map(|chunk| u32::from_le_bytes(*chunk))
}

impl<'a> BatchSchema<'a> {
    /// The fields in the order of the columns.
    pub fn fields(&self) -> impl Iterator<Item = FieldDefinition<'a>> + use<'a> {
        let mut reader = Reader { rest: self.fields };
        (0..self.field_count).map_while(move |_| read_field(&mut reader))
    }
}

/// Iterator over the series of a batch.
#[derive(Clone, Debug)]
pub struct SeriesIter<'b, 'a> {
    batch: &'b PartitionBatch<'a>,
    reader: Reader<'a>,
    left: u32,
}

impl<'b, 'a> Iterator for SeriesIter<'b, 'a> {
    type Item = BatchSeries<'b, 'a>;

    fn next(&mut self) -> Option<BatchSeries<'b, 'a>> {
        self.left = self.left.checked_sub(1)?;
        let series = read_series(self.batch, &mut self.reader)?;
        for _ in 0..series.group_count {
            self.batch.read_group(&mut self.reader)?;
        }
        Some(series)
    }
}

impl<'b, 'a> BatchSeries<'b, 'a> {
    /// The row groups in order of arrival.
    pub fn groups(&self) -> RowGroups<'b, 'a> {
        RowGroups { batch: self.batch, reader: Reader { rest: self.groups }, left: self.group_count }
    }

    /// The measurement as the key holds it, escapes included.
    pub fn measurement_part(&self) -> &'a [u8] {
        self.key.get(..self.measurement_len).unwrap_or_default()
    }
}

/// Iterator over the row groups of a series.
#[derive(Clone, Debug)]
pub struct RowGroups<'b, 'a> {
    batch: &'b PartitionBatch<'a>,
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for RowGroups<'_, 'a> {
    type Item = RowGroup<'a>;

    fn next(&mut self) -> Option<RowGroup<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.batch.read_group(&mut self.reader)
    }
}

impl<'a> RowGroup<'a> {
    /// ns since the epoch, in order of arrival.
    pub fn times(&self) -> impl ExactSizeIterator<Item = i64> + use<'a> {
        numbers_u64(self.times).map(|time| time as i64)
    }

    pub fn schema(&self) -> BatchSchema<'a> {
        self.schema
    }

    /// All columns with their fields, in the order of the schema.
    pub fn columns(&self) -> Columns<'a> {
        Columns {
            fields: Reader { rest: self.schema.fields },
            columns: Reader { rest: self.columns },
            row_count: self.row_count,
            left: self.schema.field_count,
        }
    }

    /// Column `index`, if the schema has one; walks over those before it.
    pub fn column(&self, index: usize) -> Option<ColumnSlice<'a>> {
        self.columns().nth(index).map(|(_, column)| column)
    }
}

/// Iterator over the columns of a row group.
#[derive(Clone, Debug)]
pub struct Columns<'a> {
    fields: Reader<'a>,
    columns: Reader<'a>,
    row_count: usize,
    left: usize,
}

impl<'a> Iterator for Columns<'a> {
    type Item = (FieldDefinition<'a>, ColumnSlice<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let field = read_field(&mut self.fields)?;
        Some((field, read_column(field.field_type, self.row_count, &mut self.columns)?))
    }
}

impl<'a> ColumnSlice<'a> {
    pub fn field_type(&self) -> FieldType {
        match self {
            ColumnSlice::Float(_) => FieldType::Float,
            ColumnSlice::Integer(_) => FieldType::Integer,
            ColumnSlice::Boolean(_) => FieldType::Boolean,
            ColumnSlice::String { .. } => FieldType::String,
            ColumnSlice::Unsigned(_) => FieldType::Unsigned,
        }
    }

    /// Appends all rows to `values`, which must be of the same type; returns whether it was.
    #[must_use]
    pub fn append_to(&self, values: &mut Values) -> bool {
        match (self, values) {
            (ColumnSlice::Float(bytes), Values::Float(out)) => out.extend(numbers_u64(bytes).map(f64::from_bits)),
            (ColumnSlice::Integer(bytes), Values::Integer(out)) => {
                out.extend(numbers_u64(bytes).map(|bits| bits as i64));
            }
            (ColumnSlice::Unsigned(bytes), Values::Unsigned(out)) => out.extend(numbers_u64(bytes)),
            (ColumnSlice::Boolean(bytes), Values::Boolean(out)) => out.extend(bytes.iter().map(|byte| *byte != 0)),
            (ColumnSlice::String { .. }, Values::String(out)) => self.append_strings(out),
            _ => return false,
        }
        true
    }

    fn append_strings(&self, out: &mut Strings) {
        self.strings().for_each(|value| out.push(value));
    }

    /// Floats of a float column, nothing of another one.
    pub fn floats(&self) -> impl ExactSizeIterator<Item = f64> + use<'a> {
        let bytes = if let ColumnSlice::Float(bytes) = *self { bytes } else { &[] };
        numbers_u64(bytes).map(f64::from_bits)
    }

    /// Integers of an integer column, nothing of another one.
    pub fn integers(&self) -> impl ExactSizeIterator<Item = i64> + use<'a> {
        let bytes = if let ColumnSlice::Integer(bytes) = *self { bytes } else { &[] };
        numbers_u64(bytes).map(|bits| bits as i64)
    }

    /// Numbers of an unsigned column, nothing of another one.
    pub fn unsigneds(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        let bytes = if let ColumnSlice::Unsigned(bytes) = *self { bytes } else { &[] };
        numbers_u64(bytes)
    }

    /// Truth values of a boolean column, nothing of another one.
    pub fn booleans(&self) -> impl ExactSizeIterator<Item = bool> + use<'a> {
        let bytes = if let ColumnSlice::Boolean(bytes) = *self { bytes } else { &[] };
        bytes.iter().map(|byte| *byte != 0)
    }

    /// Strings of a string column, nothing of another one.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (lengths, bytes) = match *self {
            ColumnSlice::String { lengths, bytes } => (lengths, bytes),
            _ => (&[][..], &[][..]),
        };
        let mut reader = Reader { rest: bytes };
        numbers_u32(lengths).map_while(move |len| reader.bytes(len as usize))
    }
}
