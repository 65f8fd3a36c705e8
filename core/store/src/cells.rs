//! The rows of one series in memory: a column behind the other, a word a cell.
//!
//! A word is the time (i64), the bits of a float, an integer, an unsigned, a boolean (0 or 1), or the handle of a string
//! in the memtable's [`StringHeap`]. A series of few rows has one allocation, which keeps a million of them small, and a
//! row that arrives alone touches one line of memory a column. What a series has beyond that goes into chunks of
//! [`CHUNK_ROWS`]: growing copies at most one of them. (With one allocation for all rows a tenth of the CPU of an ingest
//! went into copying and clearing it.)

use crate::{deletion::ranges_from, id::FieldId};
use std::{borrow::Cow, ops::Range, rc::Rc};
use tidemill_column::{Bitmap, FieldType};

/// How a word is to be read.
pub type CellType = FieldType;

/// Columns of a series: times first, then one column a field.
pub struct Cells {
    /// The rows behind the full chunks.
    open: Box<[u64]>,
    /// Shared between tables of one shape.
    fields: Rc<[FieldId]>,
    /// What most series do not have.
    more: Option<Box<More>>,
    rows: u32,
    /// Rows that `open` has room for, at most [`CHUNK_ROWS`].
    capacity: u32,
    ascending: bool,
}

#[derive(Default)]
struct More {
    /// Chunks of [`CHUNK_ROWS`] rows.
    full: Vec<Box<[u64]>>,
    /// Per field, rows without a value are cleared; absent while every row has one. Nothing at all while every row has
    /// all values.
    valid: Option<Box<[Option<Bitmap>]>>,
}

/// Rows of a chunk: some pages a column.
pub const CHUNK_ROWS: usize = 1024;
/// Rows that a series gets room for at first, and how many more at least. Growth is by a half: a series should not hold
/// half of its memory empty.
const ROWS_FIRST: usize = 2;

/// The words of a column.
pub struct ColumnWords<'a> {
    cells: &'a Cells,
    /// Zero is the times.
    column: usize,
}

impl Cells {
    pub fn new(fields: Rc<[FieldId]>) -> Cells {
        Cells { open: Box::default(), fields, more: None, rows: 0, capacity: 0, ascending: true }
    }

    /// Appends the rows `range` of `cells`, which hold `stride` rows of times and of each of `fields`.
    pub fn append(&mut self, fields: &[FieldId], cells: &[u64], stride: usize, range: Range<usize>) {
        if self.fields.as_ref() != fields {
            self.widen(fields);
        }
        let mut last = match self.rows() {
            0 => i64::MIN,
            rows => self.column_words(0).word(rows - 1) as i64,
        };
        for time in &cells[range.clone()] {
            self.ascending &= *time as i64 > last;
            last = *time as i64;
        }
        // The columns here, in the order of ours; `None` brings no values.
        let is_same = self.fields.as_ref() == fields;
        let place = |field: &FieldId| fields.iter().position(|incoming| incoming == field).map(|place| place + 1);
        let places: Vec<Option<usize>> = if is_same { Vec::new() } else { self.fields.iter().map(place).collect() };
        let incoming = |column: usize| match column {
            column if column == 0 || is_same => Some(column),
            column => places[column - 1],
        };
        let mut from = range.start;
        while from < range.end {
            let count = (range.end - from).min(CHUNK_ROWS - self.open_rows());
            self.reserve(count);
            let (start, capacity) = (self.open_rows(), self.capacity as usize);
            for (column, words) in self.open.chunks_exact_mut(capacity).enumerate() {
                let to = &mut words[start..start + count];
                match incoming(column) {
                    Some(place) => to.copy_from_slice(&cells[place * stride + from..][..count]),
                    None => to.fill(0),
                }
            }
            self.rows += count as u32;
            from += count;
            if self.open_rows() == 0 {
                // The chunk is full: the count of rows says that a new one begins.
                let full = std::mem::take(&mut self.open);
                self.capacity = 0;
                self.more.get_or_insert_default().full.push(full);
            }
        }
        let before = self.rows as usize - range.len();
        if !is_same {
            self.more.get_or_insert_default().valid.get_or_insert_with(|| places.iter().map(|_| None).collect());
        }
        let Some(valid) = self.more.as_mut().and_then(|more| more.valid.as_mut()) else { return };
        for (column, valid) in valid.iter_mut().enumerate() {
            let is_there = is_same || places[column].is_some();
            if !is_there {
                valid.get_or_insert_with(|| Bitmap::filled(before, true));
            }
            if let Some(valid) = valid {
                range.clone().for_each(|_| valid.push(is_there));
            }
        }
    }

    /// Rows behind the full chunks.
    fn open_rows(&self) -> usize {
        self.rows as usize % CHUNK_ROWS
    }

    fn full(&self) -> &[Box<[u64]>] {
        self.more.as_ref().map_or(&[], |more| &more.full)
    }

    fn valid(&self) -> Option<&[Option<Bitmap>]> {
        self.more.as_ref()?.valid.as_deref()
    }

    /// Makes columns for fields that the table does not have yet.
    fn widen(&mut self, fields: &[FieldId]) {
        let new: Vec<FieldId> = fields.iter().copied().filter(|field| !self.fields.contains(field)).collect();
        if new.is_empty() {
            return;
        }
        let rows = self.rows as usize;
        let more = self.more.get_or_insert_default();
        let held = match more.valid.take() {
            Some(valid) => valid.into_vec(),
            None => self.fields.iter().map(|_| None).collect(),
        };
        let added = new.iter().map(|_| (rows > 0).then(|| Bitmap::filled(rows, false)));
        more.valid = Some(held.into_iter().chain(added).collect());
        for full in &mut more.full {
            let mut words = std::mem::take(full).into_vec();
            words.resize(words.len() + new.len() * CHUNK_ROWS, 0);
            *full = words.into_boxed_slice();
        }
        self.fields = self.fields.iter().copied().chain(new).collect();
        self.resize(self.capacity as usize);
    }

    /// Room for so many more rows of the open chunk.
    fn reserve(&mut self, additional: usize) {
        let needed = self.open_rows() + additional;
        let capacity = self.capacity as usize;
        if needed > capacity {
            let grown = if self.full().is_empty() { capacity + (capacity / 2).max(ROWS_FIRST) } else { CHUNK_ROWS };
            self.resize(grown.max(needed).min(CHUNK_ROWS));
        }
    }

    fn resize(&mut self, capacity: usize) {
        let (rows, old) = (self.open_rows(), self.capacity as usize);
        let mut words = vec![0; capacity * (self.fields.len() + 1)].into_boxed_slice();
        let held = self.open.len().checked_div(old).unwrap_or(0);
        for column in 0..held {
            words[column * capacity..column * capacity + rows]
                .copy_from_slice(&self.open[column * old..column * old + rows]);
        }
        self.open = words;
        self.capacity = u32::try_from(capacity).expect("a chunk has few rows");
    }

    /// Removes the rows in the inclusive time ranges, which ascend; returns how many.
    pub fn delete(&mut self, ranges: &[(i64, i64)]) -> usize {
        let times = self.times();
        let is_kept = |time: &u64| {
            let time = *time as i64;
            ranges_from(ranges, time).first().is_none_or(|(min, _)| *min > time)
        };
        let kept: Vec<usize> = (0..times.len()).filter(|row| is_kept(&times[*row])).collect();
        let removed = times.len() - kept.len();
        if removed > 0 {
            self.keep(&kept);
        }
        removed
    }

    /// Keeps the rows at these ascending positions alone.
    fn keep(&mut self, kept: &[usize]) {
        let mut left = Cells::new(self.fields.clone());
        let fields = self.fields.clone();
        let mut words = Vec::with_capacity(CHUNK_ROWS.min(kept.len()) * (fields.len() + 1));
        for rows in kept.chunks(CHUNK_ROWS) {
            words.clear();
            for column in 0..=fields.len() {
                let column = self.column_words(column);
                words.extend(rows.iter().map(|row| column.word(*row)));
            }
            left.append(&fields, &words, rows.len(), 0..rows.len());
        }
        if let Some(valid) = self.valid() {
            let part = |valid: &Option<Bitmap>| {
                valid.as_ref().map(|valid| {
                    let mut left = Bitmap::new();
                    kept.iter().for_each(|row| left.push(valid.bit(*row)));
                    left
                })
            };
            left.more.get_or_insert_default().valid = Some(valid.iter().map(part).collect());
        }
        *self = left;
    }

    /// Removes the values of these fields; rows without another value are removed. Returns how many.
    pub fn delete_fields(&mut self, fields: &[FieldId]) -> usize {
        let rows = self.rows();
        let is_meant: Vec<bool> = self.fields.iter().map(|field| fields.contains(field)).collect();
        if !is_meant.contains(&true) {
            return 0;
        }
        let valid = &mut self.more.get_or_insert_default().valid;
        let valid = valid.get_or_insert_with(|| is_meant.iter().map(|_| None).collect());
        for (valid, _) in valid.iter_mut().zip(&is_meant).filter(|(_, is_meant)| **is_meant) {
            *valid = Some(Bitmap::filled(rows, false));
        }
        let has_value = |row: &usize| valid.iter().any(|valid| valid.as_ref().is_none_or(|valid| valid.bit(*row)));
        let kept: Vec<usize> = (0..rows).filter(has_value).collect();
        if kept.len() < rows {
            self.keep(&kept);
        }
        rows - kept.len()
    }

    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    pub fn fields(&self) -> &[FieldId] {
        &self.fields
    }

    /// Times in arrival order.
    pub fn times(&self) -> Cow<'_, [u64]> {
        self.column_words(0).range(0..self.rows())
    }

    /// Words of a field in arrival order, and which of them are values.
    pub fn column(&self, field: FieldId) -> Option<(ColumnWords<'_>, Option<&Bitmap>)> {
        let position = self.fields.iter().position(|known| *known == field)?;
        let valid = self.valid().and_then(|valid| valid[position].as_ref());
        Some((self.column_words(position + 1), valid))
    }

    fn column_words(&self, column: usize) -> ColumnWords<'_> {
        ColumnWords { cells: self, column }
    }

    /// Whether arrival order is strictly ascending time.
    pub fn is_ascending(&self) -> bool {
        self.ascending
    }

    /// Bytes on the heap, approximately.
    pub fn byte_size(&self) -> usize {
        let Some(more) = &self.more else { return self.open.len() * 8 };
        let valid = more.valid.as_ref();
        let bitmaps = valid.into_iter().flatten().flatten().map(|valid| valid.len() / 8).sum::<usize>();
        let chunks = more.full.len() * CHUNK_ROWS * (self.fields.len() + 1) + self.open.len();
        chunks * 8
            + more.full.capacity() * size_of::<Box<[u64]>>()
            + size_of::<More>()
            + valid.map_or(0, |valid| valid.len() * size_of::<Option<Bitmap>>())
            + bitmaps
    }
}

impl<'a> ColumnWords<'a> {
    /// The words of a chunk.
    fn chunk(&self, chunk: usize) -> &'a [u64] {
        let (words, capacity) = match self.cells.full().get(chunk) {
            Some(full) => (full, CHUNK_ROWS),
            None => (&self.cells.open, self.cells.capacity as usize),
        };
        &words[self.column * capacity..(self.column + 1) * capacity]
    }

    pub fn word(&self, row: usize) -> u64 {
        self.chunk(row / CHUNK_ROWS)[row % CHUNK_ROWS]
    }

    /// The words of some rows; only copied where they lie in several chunks.
    pub fn range(&self, rows: Range<usize>) -> Cow<'a, [u64]> {
        let (first, last) = (rows.start / CHUNK_ROWS, rows.end.saturating_sub(1) / CHUNK_ROWS);
        if rows.is_empty() {
            return Cow::Borrowed(&[]);
        }
        if first == last {
            let start = first * CHUNK_ROWS;
            return Cow::Borrowed(&self.chunk(first)[rows.start - start..rows.end - start]);
        }
        let mut words = Vec::with_capacity(rows.len());
        for chunk in first..=last {
            let start = chunk * CHUNK_ROWS;
            let end = (rows.end - start).min(CHUNK_ROWS);
            words.extend_from_slice(&self.chunk(chunk)[rows.start.saturating_sub(start)..end]);
        }
        Cow::Owned(words)
    }
}

/// Bytes of a chunk of the heap. A longer string gets a chunk of its own.
const CHUNK_BYTES: usize = 256 * 1024;
/// A handle is chunk number << 32 | offset; the string's length stands before its bytes.
const LENGTH_BYTES: usize = 4;

/// The strings of a memtable. Never moves nor frees one before it is dropped as a whole.
#[derive(Default)]
pub struct StringHeap {
    chunks: Vec<Vec<u8>>,
    bytes: usize,
}

impl StringHeap {
    /// Keeps a string; the handle is a cell's word.
    pub fn push(&mut self, value: &[u8]) -> u64 {
        let needed = LENGTH_BYTES + value.len();
        if self.chunks.last().is_none_or(|chunk| chunk.len() + needed > chunk.capacity()) {
            let chunk = Vec::with_capacity(needed.max(CHUNK_BYTES));
            self.bytes += chunk.capacity();
            self.chunks.push(chunk);
        }
        let number = self.chunks.len() - 1;
        let chunk = &mut self.chunks[number];
        let offset = chunk.len();
        chunk.extend_from_slice(&u32::try_from(value.len()).expect("a body is far below 4 GiB").to_le_bytes());
        chunk.extend_from_slice(value);
        (number as u64) << 32 | offset as u64
    }

    /// The string of a handle that this heap gave out.
    pub fn value(&self, handle: u64) -> &[u8] {
        let (chunk, offset) = (&self.chunks[(handle >> 32) as usize], handle as u32 as usize);
        let mut length = [0; LENGTH_BYTES];
        length.copy_from_slice(&chunk[offset..offset + LENGTH_BYTES]);
        let start = offset + LENGTH_BYTES;
        &chunk[start..start + u32::from_le_bytes(length) as usize]
    }

    pub fn byte_size(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn column(cells: &Cells, field: u32) -> Vec<Option<u64>> {
        let (words, valid) = cells.column(FieldId(field)).unwrap();
        (0..cells.rows()).map(|row| valid.is_none_or(|valid| valid.bit(row)).then(|| words.word(row))).collect()
    }

    #[test]
    fn fields_that_come_and_go_leave_holes_not_values() {
        let mut cells = Cells::new([FieldId(1)].into());
        cells.append(&[FieldId(1)], &[10, 100], 1, 0..1);
        cells.append(&[FieldId(2), FieldId(1)], &[20, 7, 200], 1, 0..1);
        cells.append(&[FieldId(2)], &[30, 31, 8, 9], 2, 0..2);
        assert_eq!(column(&cells, 1), [Some(100), Some(200), None, None]);
        assert_eq!(column(&cells, 2), [None, Some(7), Some(8), Some(9)]);
        assert!(cells.is_ascending());
        assert_eq!(cells.delete(&[(20, 30)]), 2);
        assert_eq!((column(&cells, 1), column(&cells, 2)), (vec![Some(100), None], vec![None, Some(9)]));
        assert_eq!(cells.delete_fields(&[FieldId(3)]), 0);
        assert_eq!(cells.delete_fields(&[FieldId(2)]), 1);
        assert_eq!((column(&cells, 1), cells.times()), (vec![Some(100)], vec![10].into()));
        cells.append(&[FieldId(1)], &[5, 1], 1, 0..1);
        assert!(!cells.is_ascending());
    }

    #[test]
    fn growth_keeps_every_row() {
        let mut cells = Cells::new([FieldId(0)].into());
        for row in 0..5000u64 {
            cells.append(&[FieldId(0)], &[row, row * 2], 1, 0..1);
        }
        assert_eq!(cells.times(), (0..5000).collect::<Vec<u64>>());
        assert_eq!(column(&cells, 0), (0..5000).map(|row| Some(row * 2)).collect::<Vec<_>>());
    }

    proptest! {
        /// The same rows as a list of maps, whatever comes in which pieces and goes again.
        #[test]
        fn rows_in_chunks_are_the_rows_that_came(
            steps in proptest::collection::vec((0usize..1500, 0u8..4, 0u8..3), 1..8),
        ) {
            let mut cells = Cells::new([FieldId(0)].into());
            let mut expected: Vec<(u64, [Option<u64>; 2])> = Vec::new();
            let mut next = 0;
            for (count, shape, deletes) in steps {
                let fields: &[FieldId] = match shape {
                    0 => &[FieldId(0)],
                    1 => &[FieldId(1)],
                    2 => &[FieldId(0), FieldId(1)],
                    _ => &[FieldId(1), FieldId(0)],
                };
                // One row on each side belongs to nobody.
                let times: Vec<u64> = (0..count as u64 + 2).map(|row| next + row).collect();
                let mut words = times.clone();
                for field in fields {
                    words.extend(times.iter().map(|time| time * 10 + u64::from(field.0)));
                }
                cells.append(fields, &words, count + 2, 1..count + 1);
                for time in &times[1..count + 1] {
                    let value = |field: u32| fields.contains(&FieldId(field)).then(|| time * 10 + u64::from(field));
                    expected.push((*time, [value(0), value(1)]));
                }
                next += count as u64 + 2;
                if deletes == 1 {
                    let before = expected.len();
                    expected.iter_mut().for_each(|(_, values)| values[1] = None);
                    expected.retain(|(_, values)| values[0].is_some());
                    prop_assert_eq!(cells.delete_fields(&[FieldId(1)]), before - expected.len());
                }
                if deletes == 2 {
                    let (min, max) = (next / 3, next / 2);
                    let before = expected.len();
                    expected.retain(|(time, _)| !(min..=max).contains(time));
                    prop_assert_eq!(cells.delete(&[(min as i64, max as i64)]), before - expected.len());
                }
                prop_assert_eq!(cells.rows(), expected.len());
                prop_assert_eq!(cells.times(), expected.iter().map(|(time, _)| *time).collect::<Vec<_>>());
                prop_assert!(cells.is_ascending());
                for field in 0..2 {
                    if cells.fields().contains(&FieldId(field)) {
                        let wanted: Vec<_> = expected.iter().map(|(_, values)| values[field as usize]).collect();
                        prop_assert_eq!(column(&cells, field), wanted);
                    }
                }
                let middle = expected.len() / 4..expected.len() / 2;
                let part: Vec<u64> = expected[middle.clone()].iter().map(|(time, _)| *time).collect();
                prop_assert_eq!(cells.column_words(0).range(middle), part);
            }
        }
    }

    #[test]
    fn strings_of_all_sizes_come_back() {
        let mut heap = StringHeap::default();
        let long = vec![b'x'; CHUNK_BYTES * 2];
        let handles: Vec<u64> = [&b"a"[..], b"", &long, b"b"].iter().map(|value| heap.push(value)).collect();
        let values: Vec<&[u8]> = handles.iter().map(|handle| heap.value(*handle)).collect();
        assert_eq!(values, [&b"a"[..], b"", &long, b"b"]);
    }
}
