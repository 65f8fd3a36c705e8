//! The rows of one series in memory: one allocation, a column behind the other, a word a cell.
//!
//! A word is the time (i64), the bits of a float, an integer, an unsigned, a boolean (0 or 1), or the handle of a string
//! in the memtable's [`StringHeap`]. One allocation a series keeps a million series of few rows small, and a row that
//! arrives alone touches one line of memory a column.

use crate::id::FieldId;
use std::rc::Rc;
use tidemill_column::{Bitmap, FieldType};

/// How a word is to be read.
pub type CellType = FieldType;

/// Columns of a series: times first, then one column a field.
pub struct Cells {
    words: Box<[u64]>,
    /// Shared between tables of one shape.
    fields: Rc<[FieldId]>,
    /// Per field, rows without a value are cleared; absent while every row has one. Nothing at all while every row has
    /// all values.
    valid: Option<Box<[Option<Bitmap>]>>,
    rows: u32,
    capacity: u32,
    ascending: bool,
}

/// Rows that a series gets room for at first, and how many more at least. Growth is by a half: a series should not hold
/// half of its memory empty.
const ROWS_FIRST: usize = 2;

impl Cells {
    pub fn new(fields: Rc<[FieldId]>) -> Cells {
        Cells { words: Box::default(), fields, valid: None, rows: 0, capacity: 0, ascending: true }
    }

    /// Appends the rows `range` of `cells`, which hold `stride` rows of times and of each of `fields`.
    pub fn append(&mut self, fields: &[FieldId], cells: &[u64], stride: usize, range: std::ops::Range<usize>) {
        if self.fields.as_ref() != fields {
            self.widen(fields);
        }
        self.reserve(range.len());
        let times = &cells[range.clone()];
        let mut last = if self.rows == 0 { i64::MIN } else { self.times()[self.rows as usize - 1] as i64 };
        for time in times {
            self.ascending &= *time as i64 > last;
            last = *time as i64;
        }
        let (start, end) = (self.rows as usize, self.rows as usize + range.len());
        let capacity = self.capacity as usize;
        self.words[start..end].copy_from_slice(times);
        if self.fields.as_ref() == fields {
            for column in 1..=fields.len() {
                let from = column * stride + range.start;
                let to = column * capacity;
                self.words[to + start..to + end].copy_from_slice(&cells[from..from + range.len()]);
            }
            for valid in self.valid.iter_mut().flatten().flatten() {
                range.clone().for_each(|_| valid.push(true));
            }
        } else {
            self.append_by_name(fields, cells, stride, range);
        }
        self.rows = end as u32;
    }

    /// The rows bring other fields than the table has, or in another order.
    fn append_by_name(&mut self, fields: &[FieldId], cells: &[u64], stride: usize, range: std::ops::Range<usize>) {
        let (start, end, capacity) = (self.rows as usize, self.rows as usize + range.len(), self.capacity as usize);
        let valid = self.valid.get_or_insert_with(|| self.fields.iter().map(|_| None).collect());
        for (position, field) in self.fields.iter().enumerate() {
            let to = (position + 1) * capacity;
            match fields.iter().position(|incoming| incoming == field) {
                Some(incoming) => {
                    let from = (incoming + 1) * stride + range.start;
                    self.words[to + start..to + end].copy_from_slice(&cells[from..from + range.len()]);
                    if let Some(valid) = &mut valid[position] {
                        range.clone().for_each(|_| valid.push(true));
                    }
                }
                None => {
                    self.words[to + start..to + end].fill(0);
                    let valid = valid[position].get_or_insert_with(|| Bitmap::filled(start, true));
                    range.clone().for_each(|_| valid.push(false));
                }
            }
        }
    }

    /// Makes columns for fields that the table does not have yet.
    fn widen(&mut self, fields: &[FieldId]) {
        let new: Vec<FieldId> = fields.iter().copied().filter(|field| !self.fields.contains(field)).collect();
        if new.is_empty() {
            return;
        }
        let rows = self.rows as usize;
        let held = match self.valid.take() {
            Some(valid) => valid.into_vec(),
            None => self.fields.iter().map(|_| None).collect(),
        };
        let added = new.iter().map(|_| (rows > 0).then(|| Bitmap::filled(rows, false)));
        self.valid = Some(held.into_iter().chain(added).collect());
        self.fields = self.fields.iter().copied().chain(new).collect();
        self.resize(self.capacity as usize);
    }

    fn reserve(&mut self, additional: usize) {
        let needed = self.rows as usize + additional;
        let capacity = self.capacity as usize;
        if needed > capacity {
            self.resize(needed.max(capacity + (capacity / 2).max(ROWS_FIRST)));
        }
    }

    fn resize(&mut self, capacity: usize) {
        let (rows, old) = (self.rows as usize, self.capacity as usize);
        let mut words = vec![0; capacity * (self.fields.len() + 1)].into_boxed_slice();
        let held = self.words.len().checked_div(old).unwrap_or(0);
        for column in 0..held {
            words[column * capacity..column * capacity + rows]
                .copy_from_slice(&self.words[column * old..column * old + rows]);
        }
        self.words = words;
        self.capacity = u32::try_from(capacity).expect("a series has fewer than 2^32 rows in memory");
    }

    /// Removes the rows in the inclusive time range; returns how many.
    pub fn delete(&mut self, min_time: i64, max_time: i64) -> usize {
        let kept: Vec<usize> =
            (0..self.rows as usize).filter(|row| !(min_time..=max_time).contains(&(self.words[*row] as i64))).collect();
        let removed = self.rows as usize - kept.len();
        if removed == 0 {
            return 0;
        }
        let capacity = self.capacity as usize;
        for column in 0..=self.fields.len() {
            for (to, from) in kept.iter().enumerate() {
                self.words[column * capacity + to] = self.words[column * capacity + from];
            }
        }
        for valid in self.valid.iter_mut().flatten().flatten() {
            let mut left = Bitmap::new();
            kept.iter().for_each(|row| left.push(valid.bit(*row)));
            *valid = left;
        }
        self.rows = kept.len() as u32;
        removed
    }

    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    pub fn fields(&self) -> &[FieldId] {
        &self.fields
    }

    /// Times in arrival order.
    pub fn times(&self) -> &[u64] {
        &self.words[..self.rows as usize]
    }

    /// Words of a field in arrival order, and which of them are values.
    pub fn column(&self, field: FieldId) -> Option<(&[u64], Option<&Bitmap>)> {
        let position = self.fields.iter().position(|known| *known == field)?;
        let start = (position + 1) * self.capacity as usize;
        Some((
            &self.words[start..start + self.rows as usize],
            self.valid.as_ref().and_then(|valid| valid[position].as_ref()),
        ))
    }

    /// Whether arrival order is strictly ascending time.
    pub fn is_ascending(&self) -> bool {
        self.ascending
    }

    /// Bytes on the heap, approximately.
    pub fn byte_size(&self) -> usize {
        let bitmaps = self.valid.iter().flatten().flatten().map(|valid| valid.len() / 8).sum::<usize>();
        self.words.len() * 8
            + self.valid.as_ref().map_or(0, |valid| valid.len() * size_of::<Option<Bitmap>>())
            + bitmaps
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

    fn column(cells: &Cells, field: u32) -> Vec<Option<u64>> {
        let (words, valid) = cells.column(FieldId(field)).unwrap();
        (0..cells.rows()).map(|row| valid.is_none_or(|valid| valid.bit(row)).then(|| words[row])).collect()
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
        assert_eq!(cells.delete(20, 30), 2);
        assert_eq!((column(&cells, 1), column(&cells, 2)), (vec![Some(100), None], vec![None, Some(9)]));
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

    #[test]
    fn strings_of_all_sizes_come_back() {
        let mut heap = StringHeap::default();
        let long = vec![b'x'; CHUNK_BYTES * 2];
        let handles: Vec<u64> = [&b"a"[..], b"", &long, b"b"].iter().map(|value| heap.push(value)).collect();
        let values: Vec<&[u8]> = handles.iter().map(|handle| heap.value(*handle)).collect();
        assert_eq!(values, [&b"a"[..], b"", &long, b"b"]);
    }
}
