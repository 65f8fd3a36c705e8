//! The distinct schemas of a batch: a measurement with its fields as lines write them, names and types in order.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use std::ops::Range;

use tidemill_column::FieldType;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::series_key::push_unescaped_tag;
use crate::slots::Slots;
use crate::text::Text;

/// A field as the text of a line gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TextField {
    /// The name with its escapes.
    pub(crate) name: Text,
    pub(crate) field_type: FieldType,
}

/// A field that is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// The name without escapes.
    pub(crate) name: Text,
    pub(crate) field_type: FieldType,
    /// Which of the values in the line is stored: the last of a name that is repeated.
    source: u32,
}

/// One distinct schema.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema {
    hash: u64,
    pub(crate) measurement: u32,
    text_start: u32,
    pub(crate) text_count: u32,
    field_start: u32,
    pub(crate) field_count: u32,
    /// Bytes of the longest field name as written, which the limit of keys counts.
    pub(crate) name_len_max: u32,
    /// The first series that had it: its key starts with the measurement.
    pub(crate) series: u32,
    /// Stored fields are the fields of the line in their order: nothing is named `time` and nothing is repeated.
    pub(crate) as_written: bool,
    /// Some of the stored fields are strings.
    pub(crate) has_string: bool,
}

#[derive(Debug, Default)]
pub(crate) struct SchemaTable {
    seed: u64,
    schemas: Vec<Schema>,
    text_fields: Vec<TextField>,
    fields: Vec<Field>,
    slots: Slots,
    /// Numbers of text fields, to find repeated names of a wide line by sorting.
    order: Vec<u32>,
    row: Vec<u64>,
}

impl SchemaTable {
    pub(crate) fn new(seed: u64) -> SchemaTable {
        SchemaTable { seed, ..SchemaTable::default() }
    }

    pub(crate) fn clear(&mut self) {
        self.schemas.clear();
        self.text_fields.clear();
        self.fields.clear();
        self.slots.clear();
    }

    pub(crate) fn shrink(&mut self) {
        self.schemas.shrink_to(0);
        self.text_fields.shrink_to(0);
        self.fields.shrink_to(0);
        self.order.shrink_to(0);
        self.row.shrink_to(0);
        self.slots.shrink();
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.schemas.capacity() * size_of::<Schema>()
            + self.text_fields.capacity() * size_of::<TextField>()
            + self.fields.capacity() * size_of::<Field>()
            + self.order.capacity() * 4
            + self.row.capacity() * 8
            + self.slots.byte_size()
    }

    pub(crate) fn len(&self) -> usize {
        self.schemas.len()
    }

    #[inline(always)]
    pub(crate) fn schema(&self, number: u32) -> Option<&Schema> {
        self.schemas.get(number as usize)
    }

    #[inline(always)]
    pub(crate) fn text_fields(&self, schema: &Schema) -> &[TextField] {
        range_of(&self.text_fields, schema.text_start, schema.text_count)
    }

    pub(crate) fn fields(&self, schema: &Schema) -> &[Field] {
        range_of(&self.fields, schema.field_start, schema.field_count)
    }

    /// The number of the schema of a row with these fields.
    pub(crate) fn find_or_insert(
        &mut self,
        measurement: u32,
        series: u32,
        found: &[TextField],
        input: &[u8],
        arena: &mut Vec<u8>,
    ) -> u32 {
        let hash = self.hash(measurement, found, input, arena);
        let known = self.slots.find(hash, |number| {
            let Some(schema) = self.schemas.get(number as usize) else { return false };
            schema.measurement == measurement && is_same(self.text_fields(schema), found, input, arena)
        });
        if let Some(number) = known {
            return number;
        }
        let number = self.schemas.len() as u32;
        let text_start = self.text_fields.len();
        let field_start = self.fields.len();
        self.text_fields.extend_from_slice(found);
        let as_written = self.push_fields(found, input, arena);
        self.schemas.push(Schema {
            hash,
            measurement,
            text_start: text_start as u32,
            text_count: found.len() as u32,
            field_start: field_start as u32,
            field_count: (self.fields.len() - field_start) as u32,
            name_len_max: found.iter().map(|field| field.name.len()).max().unwrap_or(0) as u32,
            series,
            as_written,
            has_string: found.iter().any(|field| field.field_type == FieldType::String),
        });
        let schemas = &self.schemas;
        self.slots.insert(hash, number, |n| schemas.get(n as usize).map_or(0, |schema| schema.hash));
        number
    }

    /// Reduces the values of one line, which are `values[start..]`, to those that the schema stores.
    #[cold]
    pub(crate) fn keep_stored(&mut self, number: u32, values: &mut Vec<u64>, start: usize) {
        let Some(schema) = self.schemas.get(number as usize) else { return };
        let fields = range_of(&self.fields, schema.field_start, schema.field_count);
        let written = values.get(start..).unwrap_or_default();
        self.row.clear();
        self.row.extend(fields.iter().map(|field| written.get(field.source as usize).copied().unwrap_or(0)));
        values.truncate(start);
        values.extend_from_slice(&self.row);
    }

    /// Appends the stored fields of a line with these fields. Tells whether they are the same ones.
    fn push_fields(&mut self, found: &[TextField], input: &[u8], arena: &mut Vec<u8>) -> bool {
        let name = |number: u32| found.get(number as usize).map_or(&[][..], |field| field.name.bytes(input, arena));
        // Sorted by name, then by position: the last of equal names gives the value, the first one the place.
        let order = &mut self.order;
        order.clear();
        order.extend(0..found.len() as u32);
        order.sort_unstable_by(|a, b| name(*a).cmp(name(*b)).then(a.cmp(b)));
        let mut as_written = true;
        let mut places = Vec::new();
        for equal in order.chunk_by(|a, b| name(*a) == name(*b)) {
            let (Some(first), Some(last)) = (equal.first(), equal.last()) else { continue };
            let is_time = name(*first) == b"time";
            as_written &= equal.len() == 1 && !is_time;
            if !is_time {
                places.push((*first, *last));
            }
        }
        places.sort_unstable();
        for (_, source) in places {
            let Some(field) = found.get(source as usize) else { continue };
            let name = unescaped(field.name, input, arena);
            self.fields.push(Field { name, field_type: field.field_type, source });
        }
        as_written
    }

    fn hash(&self, measurement: u32, fields: &[TextField], input: &[u8], arena: &[u8]) -> u64 {
        let mut hash = self.seed ^ u64::from(measurement);
        for field in fields {
            let name =
                xxh3_64_with_seed(field.name.bytes(input, arena), self.seed ^ u64::from(field.field_type.code()));
            hash = (hash.rotate_left(5) ^ name).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        hash ^ hash >> 32
    }
}

/// `names[start..start + count]`.
fn range_of<T>(all: &[T], start: u32, count: u32) -> &[T] {
    let range: Range<usize> = start as usize..start as usize + count as usize;
    all.get(range).unwrap_or_default()
}

fn is_same(a: &[TextField], b: &[TextField], input: &[u8], arena: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| a.field_type == b.field_type && a.name.bytes(input, arena) == b.name.bytes(input, arena))
}

/// The name without escapes: itself, or rewritten into the arena. Field names have the escapes of tags.
fn unescaped(name: Text, input: &[u8], arena: &mut Vec<u8>) -> Text {
    let raw = name.bytes(input, &[]);
    if !raw.contains(&b'\\') {
        return name;
    }
    let start = arena.len();
    push_unescaped_tag(raw, arena);
    Text::at_arena_end(start, arena)
}
