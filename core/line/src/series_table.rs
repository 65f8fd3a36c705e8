//! The distinct series and measurements of a batch.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::KEY_BYTES_MAX;
use crate::key::{TagSpan, push_canonical, scan_key};
use crate::line_error::{DropReason, Reason};
use crate::slots::Slots;
use crate::text::{Text, has_text_then};

/// One distinct series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    /// The canonical key.
    pub(crate) key: Text,
    /// xxh3_64 of the canonical key.
    pub(crate) hash: u64,
    pub(crate) measurement: u32,
    /// Bytes of the measurement in the key, escapes included.
    pub(crate) measurement_len: u32,
    /// The schema of its newest row, which the next one probably has too.
    pub(crate) schema: u32,
    pub(crate) dropped: Option<DropReason>,
}

/// One way in which a series is written. A series has several when its tags come in different orders.
#[derive(Clone, Copy, Debug)]
struct Spelling {
    text: Text,
    hash: u64,
    series: u32,
    /// The spelling that followed this one last time: clients send the same series in the same order again and again.
    next: u32,
}

/// One distinct measurement.
#[derive(Clone, Copy, Debug)]
struct Measurement {
    /// As written in keys, escapes included.
    text: Text,
    hash: u64,
    schema: u32,
}

/// No schema yet.
pub(crate) const NO_SCHEMA: u32 = u32::MAX;
const NO_SPELLING: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(crate) struct SeriesTable {
    /// Seed of the look-up hashes, so that nobody outside can make keys that collide. The hash of a series itself has no
    /// seed, as all nodes must agree on it.
    seed: u64,
    series: Vec<Series>,
    spellings: Vec<Spelling>,
    measurements: Vec<Measurement>,
    spelling_slots: Slots,
    measurement_slots: Slots,
    newest: Option<u32>,
    tags: Vec<TagSpan>,
}

impl SeriesTable {
    pub(crate) fn new(seed: u64) -> SeriesTable {
        SeriesTable { seed, ..SeriesTable::default() }
    }

    pub(crate) fn clear(&mut self) {
        self.series.clear();
        self.spellings.clear();
        self.measurements.clear();
        self.spelling_slots.clear();
        self.measurement_slots.clear();
        self.newest = None;
    }

    pub(crate) fn shrink(&mut self) {
        self.series.shrink_to(0);
        self.spellings.shrink_to(0);
        self.measurements.shrink_to(0);
        self.tags.shrink_to(0);
        self.spelling_slots.shrink();
        self.measurement_slots.shrink();
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.series.capacity() * size_of::<Series>()
            + self.spellings.capacity() * size_of::<Spelling>()
            + self.measurements.capacity() * size_of::<Measurement>()
            + self.tags.capacity() * size_of::<TagSpan>()
            + self.spelling_slots.byte_size()
            + self.measurement_slots.byte_size()
    }

    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    pub(crate) fn all(&self) -> &[Series] {
        &self.series
    }

    #[inline]
    pub(crate) fn series(&self, number: u32) -> Option<&Series> {
        self.series.get(number as usize)
    }

    /// Keeps the schema of a row for the series and its measurement.
    pub(crate) fn set_schema(&mut self, number: u32, schema: u32) {
        let Some(series) = self.series.get_mut(number as usize) else { return };
        series.schema = schema;
        if let Some(measurement) = self.measurements.get_mut(series.measurement as usize) {
            measurement.schema = schema;
        }
    }

    /// The series that followed the newest one last time, if the line from `at` on is of it; and where its key ends.
    #[inline(always)]
    pub(crate) fn predicted(&mut self, input: &[u8], arena: &[u8], at: usize) -> Option<(u32, usize)> {
        let newest = self.spellings.get(self.newest? as usize)?;
        let number = newest.next;
        let spelling = self.spellings.get(number as usize)?;
        let text = spelling.text.bytes(input, arena);
        if !has_text_then(input, at, text, b' ') {
            return None;
        }
        self.newest = Some(number);
        Some((spelling.series, at + text.len()))
    }

    /// The series that `input[start..end]` names; a space follows there.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub(crate) fn find_or_insert(
        &mut self,
        input: &[u8],
        arena: &mut Vec<u8>,
        start: usize,
        end: usize,
        validate: bool,
    ) -> Result<u32, Reason> {
        let raw = input.get(start..end).unwrap_or_default();
        let hash = xxh3_64_with_seed(raw, self.seed);
        if let Some(number) = self.find_spelling(hash, raw, input, arena) {
            return Ok(self.follow(number));
        }
        let shape = scan_key(raw, true, &mut self.tags)?;
        let text = Text::in_input(start, end);
        if shape.canonical {
            if raw.len() > KEY_BYTES_MAX {
                return Err(Reason::KeyTooLong(raw.len()));
            }
            let series = self.insert_series(text, raw, shape.measurement_len, input, arena);
            self.finish_series(series, raw, shape.has_time_tag, validate);
            return Ok(self.insert_spelling(text, hash, series));
        }
        let key_start = arena.len();
        push_canonical(raw, shape, &self.tags, arena);
        let key = arena.get(key_start..).unwrap_or_default();
        if key.len() > KEY_BYTES_MAX {
            let len = key.len();
            arena.truncate(key_start);
            return Err(Reason::KeyTooLong(len));
        }
        let key_hash = xxh3_64_with_seed(key, self.seed);
        let known = self.find_spelling(key_hash, key, input, arena);
        let series = match known.and_then(|number| self.spellings.get(number as usize)) {
            Some(spelling) => {
                let series = spelling.series;
                arena.truncate(key_start);
                series
            }
            None => {
                let text = Text::at_arena_end(key_start, arena);
                let key = arena.get(key_start..).unwrap_or_default();
                let series = self.insert_series(text, key, shape.measurement_len, input, arena);
                self.finish_series(series, key, shape.has_time_tag, validate);
                self.insert_spelling(text, key_hash, series);
                series
            }
        };
        Ok(self.insert_spelling(text, hash, series))
    }

    #[inline]
    fn find_spelling(&self, hash: u64, raw: &[u8], input: &[u8], arena: &[u8]) -> Option<u32> {
        self.spelling_slots.find(hash, |number| {
            self.spellings.get(number as usize).is_some_and(|spelling| spelling.text.bytes(input, arena) == raw)
        })
    }

    /// Makes `number` the newest spelling and the one to expect after the one before. Gives its series.
    fn follow(&mut self, number: u32) -> u32 {
        if let Some(newest) = self.newest.and_then(|newest| self.spellings.get_mut(newest as usize)) {
            newest.next = number;
        }
        self.newest = Some(number);
        self.spellings.get(number as usize).map_or(0, |spelling| spelling.series)
    }

    fn insert_spelling(&mut self, text: Text, hash: u64, series: u32) -> u32 {
        let number = self.spellings.len() as u32;
        self.spellings.push(Spelling { text, hash, series, next: NO_SPELLING });
        // The first guess for a new series is another row of it.
        if let Some(spelling) = self.spellings.last_mut() {
            spelling.next = number;
        }
        let spellings = &self.spellings;
        self.spelling_slots.insert(hash, number, |n| spellings.get(n as usize).map_or(0, |spelling| spelling.hash));
        self.follow(number)
    }

    fn insert_series(&mut self, text: Text, key: &[u8], measurement_len: usize, input: &[u8], arena: &[u8]) -> u32 {
        let name = key.get(..measurement_len).unwrap_or_default();
        let measurement = self.measurement(text.prefix(measurement_len), name, input, arena);
        let number = self.series.len() as u32;
        self.series.push(Series {
            key: text,
            hash: xxh3_64(key),
            measurement,
            measurement_len: measurement_len as u32,
            schema: self.measurements.get(measurement as usize).map_or(NO_SCHEMA, |measurement| measurement.schema),
            dropped: None,
        });
        number
    }

    fn finish_series(&mut self, number: u32, key: &[u8], has_time_tag: bool, validate: bool) {
        let dropped = if has_time_tag {
            Some(DropReason::TimeTag)
        } else if validate && !is_printable(key) {
            Some(DropReason::InvalidUnicode)
        } else {
            None
        };
        if let Some(series) = self.series.get_mut(number as usize) {
            series.dropped = dropped;
        }
    }

    /// The number of the measurement `name`, which lies at `text`.
    fn measurement(&mut self, text: Text, name: &[u8], input: &[u8], arena: &[u8]) -> u32 {
        let is_name = |measurement: &Measurement| measurement.text.bytes(input, arena) == name;
        let newest = self.series.last().map(|newest| newest.measurement);
        if let Some(number) = newest.filter(|n| self.measurements.get(*n as usize).is_some_and(is_name)) {
            return number;
        }
        let hash = xxh3_64_with_seed(name, self.seed);
        let measurements = &self.measurements;
        let found = self.measurement_slots.find(hash, |n| measurements.get(n as usize).is_some_and(is_name));
        if let Some(number) = found {
            return number;
        }
        let number = self.measurements.len() as u32;
        self.measurements.push(Measurement { text, hash, schema: NO_SCHEMA });
        let measurements = &self.measurements;
        self.measurement_slots.insert(hash, number, |n| measurements.get(n as usize).map_or(0, |m| m.hash));
        number
    }
}

/// Valid UTF-8 without control characters and without the replacement character.
fn is_printable(key: &[u8]) -> bool {
    std::str::from_utf8(key).is_ok_and(|key| !key.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER))
}
