//! The postings of an index whose keys are there: all at once instead of series by series.
//!
//! Owns: reading the keys in the order of their ids, a batch at a time, into the columns of their tags, and the order of
//! what is made of those. Most keys have the tags of the key of their measurement before them: such a key is compared
//! with the names that are expected and not taken apart. What is made is what [`SeriesIndex::insert`] would have made of
//! the series that have points, in the order of their ids.
//! Knows nothing of files.

use crate::{
    dictionary::Dictionary,
    id::SeriesId,
    measurement::distinct_tags,
    posting::Posting,
    series_index::SeriesIndex,
    tag_column::{Member, TagColumn, TagValuesBuilder, TextPlace},
    tag_values::TagValues,
};
use std::collections::BTreeMap;
use tidemill_line::series_key;
use xxhash_rust::xxh3::xxh3_64;

/// Series that are read in one step.
const BATCH_SERIES: u32 = 2048;

/// Postings in the making.
#[derive(Default)]
pub struct PostingsBuilder {
    /// The next series to be read.
    next: u32,
    measurements: Vec<MeasurementColumns>,
    by_name: BTreeMap<Box<[u8]>, usize>,
    /// That of the key before.
    last: usize,
    /// Measurement and column of those that series of this batch were pushed to.
    touched: Vec<(usize, usize)>,
    /// Where the values of a key are.
    values: Vec<(usize, usize)>,
}

/// A measurement in the making.
#[derive(Default)]
struct MeasurementColumns {
    name: Box<[u8]>,
    series: Vec<u32>,
    columns: Vec<TagColumn>,
    by_tag: BTreeMap<Box<[u8]>, usize>,
    /// The columns of the tags of the last key without escapes.
    expected: Vec<usize>,
    building: Option<(Box<[u8]>, TagValuesBuilder)>,
    made: BTreeMap<Box<[u8]>, TagValues>,
}

impl PostingsBuilder {
    /// Makes a little more; `false` when the index has all of its postings.
    pub fn advance(&mut self, index: &mut SeriesIndex) -> bool {
        let end = index.series_count().min(self.next + BATCH_SERIES);
        if self.next < end {
            for id in (self.next..end).filter(|id| index.is_alive(SeriesId(*id))) {
                self.read(index.dictionary(), SeriesId(id));
            }
            for (measurement, column) in self.touched.drain(..) {
                self.measurements[measurement].columns[column].settle(index.dictionary());
            }
            self.next = end;
            return true;
        }
        let Some(measurement) = self.measurements.last_mut() else { return false };
        if !measurement.advance()
            && let Some(MeasurementColumns { name, series, made, .. }) = self.measurements.pop()
        {
            index.restore_postings(&name, Posting::from_sorted(&series), made);
        }
        true
    }

    fn read(&mut self, dictionary: &Dictionary, id: SeriesId) {
        let key = dictionary.key(id);
        let place = dictionary.place(id);
        if key.contains(&b'\\') {
            return self.read_any(key, place, id);
        }
        let name_len = match self.measurements.get(self.last) {
            Some(last) if is_part(key, &last.name, b',') => last.name.len(),
            _ => {
                let name = series_key::measurement_part(key);
                self.last = self.number_of(name);
                name.len()
            }
        };
        let measurement = &mut self.measurements[self.last];
        let is_expected = measurement.find_expected(key, name_len, &mut self.values)
            || (measurement.expect_tags_of(key) && measurement.find_expected(key, name_len, &mut self.values));
        if !is_expected {
            return self.read_any(key, place, id);
        }
        measurement.series.push(id.0);
        for (column, (start, end)) in measurement.expected.iter().zip(&self.values) {
            let text = TextPlace { key: place, start: *start as u16, len: (end - start) as u16 };
            let member = Member { hash: xxh3_64(&key[*start..*end]), text, series: id.0 };
            if measurement.columns[*column].push(member) {
                self.touched.push((self.last, *column));
            }
        }
    }

    /// A key with escapes, or with tags that do not ascend or have no value.
    fn read_any(&mut self, key: &[u8], place: u32, id: SeriesId) {
        let number = self.number_of(&series_key::measurement(key));
        let measurement = &mut self.measurements[number];
        measurement.series.push(id.0);
        for (tag, value) in distinct_tags(key) {
            let column = measurement.column_of(&tag);
            let text = TextPlace { key: place, start: 0, len: 0 };
            if measurement.columns[column].push(Member { hash: xxh3_64(&value), text, series: id.0 }) {
                self.touched.push((number, column));
            }
        }
    }

    fn number_of(&mut self, name: &[u8]) -> usize {
        if let Some(number) = self.by_name.get(name) {
            return *number;
        }
        self.measurements.push(MeasurementColumns { name: name.into(), ..MeasurementColumns::default() });
        self.by_name.insert(name.into(), self.measurements.len() - 1);
        self.measurements.len() - 1
    }
}

impl MeasurementColumns {
    /// Makes a little more of the tags; `false` when all are made.
    fn advance(&mut self) -> bool {
        match self.building.take() {
            Some((tag, mut building)) => {
                if building.advance() {
                    self.building = Some((tag, building));
                } else {
                    self.made.insert(tag, building.finish());
                }
            }
            None => {
                let Some(mut column) = self.columns.pop() else { return false };
                // A tag that was only ever expected is none.
                if !column.is_empty() {
                    self.building = Some((std::mem::take(&mut column.tag), TagValuesBuilder::new(column)));
                }
            }
        }
        true
    }

    fn column_of(&mut self, tag: &[u8]) -> usize {
        if let Some(number) = self.by_tag.get(tag) {
            return *number;
        }
        self.columns.push(TagColumn::new(tag));
        self.by_tag.insert(tag.into(), self.columns.len() - 1);
        self.columns.len() - 1
    }

    /// Finds the values of a key without escapes if its tags are the expected ones.
    fn find_expected(&self, key: &[u8], name_len: usize, values: &mut Vec<(usize, usize)>) -> bool {
        values.clear();
        let mut at = name_len;
        for column in &self.expected {
            let tag = &self.columns[*column].tag;
            if at == key.len() || !is_part(&key[at + 1..], tag, b'=') {
                return false;
            }
            let start = at + 1 + tag.len() + 1;
            let Some(value) = key.get(start..) else { return false };
            at = start + memchr::memchr(b',', value).unwrap_or(value.len());
            if at == start {
                return false;
            }
            values.push((start, at));
        }
        at == key.len()
    }

    /// Expects the tags of a key without escapes from now on, if they ascend.
    fn expect_tags_of(&mut self, key: &[u8]) -> bool {
        self.expected.clear();
        let mut last = None;
        for (tag, _) in series_key::tags(key) {
            if last.as_ref().is_some_and(|last| *last >= tag) {
                self.expected.clear();
                return false;
            }
            let column = self.column_of(&tag);
            self.expected.push(column);
            last = Some(tag);
        }
        true
    }
}

/// Whether a text begins with a part of it, behind which it ends or goes on with `separator`.
fn is_part(text: &[u8], part: &[u8], separator: u8) -> bool {
    text.starts_with(part) && text.get(part.len()).is_none_or(|next| *next == separator)
}
