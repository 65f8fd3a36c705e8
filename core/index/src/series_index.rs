//! The series of one database in one partition: dictionary, postings and fields.

use crate::{
    chunked::ChunkedVec,
    dictionary::{Dictionary, KEY_BYTES_MAX},
    id::{FieldId, SeriesId},
    id_table::IdTable,
    measurement::{Measurement, tree_bytes},
    posting::{Posting, PostingRef},
    predicate::TagPredicate,
    tag_values::{TagValues, Texts},
    watermark::WatermarkColumn,
};
use roaring::RoaringBitmap;
use std::{borrow::Cow, collections::BTreeMap, ops::Range};
use tidemill_column::FieldType;
use tidemill_line::series_key;
use xxhash_rust::xxh3::xxh3_64;

/// Dictionary and postings.
#[derive(Default)]
pub struct SeriesIndex {
    dictionary: Dictionary,
    alive: AliveBits,
    measurements: BTreeMap<Box<[u8]>, Measurement>,
    fields: ChunkedVec<Field>,
    /// Of `measurements` and `fields`.
    named_bytes: usize,
    /// Measurements that have series.
    measurement_count: u64,
    /// By retention policy.
    watermarks: Vec<(u32, WatermarkColumn)>,
    /// Counts the marks.
    epoch: u32,
    born: u64,
    /// Counts the changes of what a file holds as a whole: series that died or came back, fields shown or not.
    version: u64,
    /// No tag ever had more values.
    tag_values_max: u64,
}

/// An index at one moment of the log: how much of it there was. It takes what it holds of the index along.
#[derive(Clone)]
pub struct IndexMark {
    pub born: u64,
    pub series: u32,
    pub fields: u32,
    pub epoch: u32,
    pub(crate) watermarks: Vec<(u32, WatermarkColumn)>,
}

/// A field of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub measurement: Box<[u8]>,
    pub name: Box<[u8]>,
    pub field_type: FieldType,
}

/// Which series have points.
#[derive(Default)]
struct AliveBits {
    words: ChunkedVec<u64>,
    count: u64,
}

impl AliveBits {
    /// Of `count` ids that all have points.
    fn all(count: u32) -> AliveBits {
        let mut bits = AliveBits { words: ChunkedVec::default(), count: u64::from(count) };
        (0..count / 64).for_each(|_| bits.words.push(u64::MAX));
        if !count.is_multiple_of(64) {
            bits.words.push((1 << (count % 64)) - 1);
        }
        bits
    }

    fn contains(&self, id: u32) -> bool {
        self.words.get(id as usize / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    /// Ids below `end` whose bit is not set. Behind the last word there are those that never were, and those that were
    /// dead in the file that the index was restored from.
    fn unset(&self, end: u32) -> impl Iterator<Item = u32> {
        let words = self.words.iter().enumerate().filter(|(_, word)| **word != u64::MAX);
        let ids = words.flat_map(|(at, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 0).map(move |bit| at as u32 * 64 + bit)
        });
        ids.chain(self.words.len() as u32 * 64..end).take_while(move |id| *id < end)
    }

    /// Sets the bit of an id that is the next one or was there before; returns the former bit.
    fn set(&mut self, id: u32, alive: bool) -> bool {
        while self.words.len() <= id as usize / 64 {
            self.words.push(0);
        }
        let word = &mut self.words[id as usize / 64];
        let was = *word >> (id % 64) & 1 == 1;
        *word = *word & !(1 << (id % 64)) | u64::from(alive) << (id % 64);
        self.count = self.count + u64::from(alive) - u64::from(was);
        was
    }
}

impl SeriesIndex {
    /// An empty index that begins with this entry of the log.
    pub fn born_at(born: u64) -> SeriesIndex {
        SeriesIndex { born, ..SeriesIndex::default() }
    }

    /// The entry of the log that the index began with: it tells an index from another one of the same database.
    pub fn born(&self) -> u64 {
        self.born
    }

    /// Changes with what is dead and what is shown.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What there is now. The work is a thousandth of the number of series.
    pub fn mark(&mut self) -> IndexMark {
        let epoch = self.epoch;
        self.epoch += 1;
        let snapshot = |(policy, column): &mut (u32, WatermarkColumn)| (*policy, column.snapshot(epoch + 1));
        IndexMark {
            born: self.born,
            series: self.series_count(),
            fields: self.field_count(),
            epoch,
            watermarks: self.watermarks.iter_mut().map(snapshot).collect(),
        }
    }

    /// The next key of a dictionary as it was; `None` if it is none. It is found from [`SeriesIndex::restore_keys`] on.
    pub(crate) fn restore_key(&mut self, key: &[u8]) -> Option<SeriesId> {
        (key.len() <= KEY_BYTES_MAX).then(|| self.dictionary.append(key))
    }

    /// The table of all keys.
    pub(crate) fn restore_keys(&mut self, by_key: IdTable) {
        self.dictionary.restore_table(by_key);
    }

    /// All keys have points, but those of these runs, which ascend.
    pub(crate) fn restore_alive(&mut self, dead: &[Range<u32>]) {
        self.alive = AliveBits::all(self.series_count());
        for id in dead.iter().cloned().flatten() {
            self.alive.set(id, false);
        }
    }

    /// The postings of a measurement, all at once.
    pub(crate) fn restore_postings(&mut self, name: &[u8], series: Posting, tags: BTreeMap<Box<[u8]>, TagValues>) {
        let values_max = tags.values().map(TagValues::len).max().unwrap_or(0);
        self.tag_values_max = self.tag_values_max.max(values_max as u64);
        let known = known_or_new(&mut self.measurements, &mut self.named_bytes, name);
        let before = known.heap_bytes();
        known.restore(series, tags);
        self.measurement_count += u64::from(!known.is_empty());
        self.named_bytes += known.heap_bytes() - before;
    }

    pub(crate) fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// Of all fields these are not shown.
    pub(crate) fn restore_unwritten(&mut self, ids: impl Iterator<Item = FieldId>) {
        for id in ids {
            let Field { measurement, name, field_type } = self.field(id).clone();
            self.unwrite_field(&measurement, &name, Some(field_type));
        }
        self.version = 0;
    }

    /// The id of a canonical key, whether the series has points or not.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<SeriesId> {
        self.dictionary.find(hash, key)
    }

    /// As [`SeriesIndex::find`], hashing the key.
    pub fn find_key(&self, key: &[u8]) -> Option<SeriesId> {
        self.find(Self::hash_of(key), key)
    }

    /// The hash of a canonical key; its top bits name the series' partition.
    pub fn hash_of(key: &[u8]) -> u64 {
        xxh3_64(key)
    }

    /// The id of a canonical key; a new or returning series enters the postings. The work is bounded: nothing that
    /// grows with the series is copied or built anew.
    pub fn insert(&mut self, hash: u64, key: &[u8]) -> SeriesId {
        let id = match self.find(hash, key) {
            Some(id) if self.is_alive(id) => return id,
            Some(id) => {
                self.version += 1;
                id
            }
            None => self.dictionary.push(hash, key),
        };
        self.alive.set(id.0, true);
        self.post(id);
        id
    }

    /// As [`SeriesIndex::insert`], hashing the key.
    pub fn insert_key(&mut self, key: &[u8]) -> SeriesId {
        self.insert(Self::hash_of(key), key)
    }

    /// Takes a series without points out of the postings.
    pub fn remove(&mut self, id: SeriesId) {
        if !self.alive.set(id.0, false) {
            return;
        }
        self.version += 1;
        let key = self.dictionary.key(id);
        let Some(measurement) = self.measurements.get_mut(series_key::measurement(key).as_ref()) else { return };
        let before = measurement.heap_bytes();
        measurement.unpost(&self.dictionary, key, id.0);
        self.measurement_count -= u64::from(measurement.is_empty());
        self.named_bytes = self.named_bytes + measurement.heap_bytes() - before;
    }

    pub fn key(&self, id: SeriesId) -> &[u8] {
        self.dictionary.key(id)
    }

    /// As [`SeriesIndex::key`], for an id that may be of a dictionary that was dropped.
    pub fn known_key(&self, id: SeriesId) -> Option<&[u8]> {
        ((id.0 as usize) < self.dictionary.len()).then(|| self.key(id))
    }

    /// Whether a series with this key has points.
    #[inline]
    pub fn contains(&self, hash: u64, key: &[u8]) -> bool {
        self.find(hash, key).is_some_and(|id| self.is_alive(id))
    }

    pub fn is_alive(&self, id: SeriesId) -> bool {
        self.alive.contains(id.0)
    }

    /// Series below an id that have no points.
    pub fn dead(&self, end: u32) -> impl Iterator<Item = SeriesId> {
        self.alive.unset(end).map(SeriesId)
    }

    /// Series that have points.
    pub fn alive_count(&self) -> u64 {
        self.alive.count
    }

    /// Series that have an id: the next one's.
    pub fn series_count(&self) -> u32 {
        self.dictionary.len() as u32
    }

    /// Measurements that have series.
    pub fn measurement_count(&self) -> u64 {
        self.measurement_count
    }

    /// The measurement's field of this name and type, made if it is new.
    pub fn insert_field(&mut self, measurement: &[u8], name: &[u8], field_type: FieldType) -> FieldId {
        let next = FieldId(u32::try_from(self.fields.len()).expect("fewer than 2^32 fields in a partition"));
        let known = known_or_new(&mut self.measurements, &mut self.named_bytes, measurement);
        let before = known.heap_bytes();
        let was_written = known.is_written(name, field_type);
        let id = known.insert_field(name, field_type, next);
        if !was_written && id != next {
            self.version += 1;
        }
        if id == next {
            self.named_bytes += known.heap_bytes() - before + measurement.len() + name.len();
            self.fields.push(Field { measurement: measurement.into(), name: name.into(), field_type });
        }
        id
    }

    /// The measurement shows the field, in this type or in all, no more until it is written again. It keeps its id.
    pub fn unwrite_field(&mut self, measurement: &[u8], name: &[u8], field_type: Option<FieldType>) {
        if let Some(known) = self.measurements.get_mut(measurement) {
            known.unwrite_field(name, field_type);
            self.version += 1;
        }
    }

    /// The ids of a field's name, one a type that it has been written with.
    pub fn field_ids(&self, measurement: &[u8], name: &[u8]) -> Vec<FieldId> {
        self.measurements.get(measurement).into_iter().flat_map(|known| known.field_ids(name)).collect()
    }

    /// Names of the fields that a measurement has been written with, sorted.
    pub fn field_names(&self, measurement: &[u8]) -> impl Iterator<Item = &[u8]> {
        self.measurements.get(measurement).into_iter().flat_map(Measurement::field_names)
    }

    pub fn field(&self, id: FieldId) -> &Field {
        &self.fields[id.0 as usize]
    }

    /// Fields that have an id: the next one's.
    pub fn field_count(&self) -> u32 {
        self.fields.len() as u32
    }

    /// Whether the measurement shows the field.
    pub fn is_written(&self, id: FieldId) -> bool {
        let field = self.field(id);
        let known = self.measurements.get(&field.measurement);
        known.is_some_and(|known| known.is_written(&field.name, field.field_type))
    }

    /// Names of the measurements that have series, sorted.
    pub fn measurement_names(&self) -> impl Iterator<Item = &[u8]> {
        self.measurements.iter().filter(|(_, known)| !known.is_empty()).map(|(name, _)| name.as_ref())
    }

    /// How many series a measurement has.
    pub fn series_count_of(&self, measurement: &[u8]) -> u64 {
        self.measurements.get(measurement).map_or(0, |known| known.series().len())
    }

    /// Tag keys of a measurement, sorted.
    pub fn tag_keys(&self, measurement: &[u8]) -> impl Iterator<Item = &[u8]> {
        self.measurements.get(measurement).into_iter().flat_map(|known| known.tags().map(|(key, _)| key))
    }

    /// Values of a tag with the series that have them, in no order that means anything.
    pub fn tag_values(&self, measurement: &[u8], key: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, PostingRef<'_>)> {
        let tag = self.measurements.get(measurement).and_then(|known| known.tag_entry(key));
        tag.into_iter().flat_map(|(tag, values)| values.iter(Texts { dictionary: &self.dictionary, tag }))
    }

    /// The series of each value of a tag, in no order that means anything.
    pub fn tag_postings(&self, measurement: &[u8], key: &[u8]) -> impl Iterator<Item = PostingRef<'_>> {
        let values = self.measurements.get(measurement).and_then(|known| known.tag(key));
        values.into_iter().flat_map(TagValues::postings_of_all)
    }

    /// How many values a tag has.
    pub fn tag_value_count(&self, measurement: &[u8], key: &[u8]) -> u64 {
        let values = self.measurements.get(measurement).and_then(|known| known.tag(key));
        values.map_or(0, |values| values.len() as u64)
    }

    /// No tag of any measurement has more values than this.
    pub fn tag_values_max(&self) -> u64 {
        self.tag_values_max
    }

    /// Whether a series has this value of a tag.
    pub fn has_tag_value(&self, measurement: &[u8], key: &[u8], value: &[u8]) -> bool {
        let tag = self.measurements.get(measurement).and_then(|known| known.tag_entry(key));
        tag.is_some_and(|(tag, values)| values.find(Texts { dictionary: &self.dictionary, tag }, value).is_some())
    }

    /// Series of a measurement that satisfy the condition.
    pub fn select(&self, measurement: &[u8], predicate: &TagPredicate) -> RoaringBitmap {
        match self.measurements.get(measurement) {
            Some(known) => known.select(&self.dictionary, predicate),
            None => RoaringBitmap::new(),
        }
    }

    /// The watermarks of the series in a retention policy.
    pub fn watermarks_mut(&mut self, policy: u32) -> &mut WatermarkColumn {
        // A database has few policies.
        let at = match self.watermarks.iter().position(|(known, _)| *known == policy) {
            Some(at) => at,
            None => {
                self.watermarks.push((policy, WatermarkColumn::begin(self.epoch)));
                self.watermarks.len() - 1
            }
        };
        &mut self.watermarks[at].1
    }

    /// The newest time in order of a series in a retention policy.
    pub fn watermark(&self, policy: u32, series: SeriesId) -> Option<i64> {
        let (_, column) = self.watermarks.iter().find(|(known, _)| *known == policy)?;
        column.watermark(series)
    }

    /// Bytes that the index takes. The work does not grow with the series.
    pub fn byte_size(&self) -> usize {
        self.dictionary.byte_size()
            + self.alive.words.byte_size()
            + self.fields.byte_size()
            + self.named_bytes
            + self.watermarks.iter().map(|(_, column)| column.byte_size()).sum::<usize>()
    }

    fn post(&mut self, id: SeriesId) {
        let key = self.dictionary.key(id);
        let name = series_key::measurement(key);
        let known = known_or_new(&mut self.measurements, &mut self.named_bytes, &name);
        self.measurement_count += u64::from(known.is_empty());
        let before = known.heap_bytes();
        let values = known.post(&self.dictionary, key, id.0);
        self.tag_values_max = self.tag_values_max.max(values as u64);
        self.named_bytes = self.named_bytes + known.heap_bytes() - before;
    }
}

fn known_or_new<'a>(
    measurements: &'a mut BTreeMap<Box<[u8]>, Measurement>,
    named_bytes: &mut usize,
    name: &[u8],
) -> &'a mut Measurement {
    if !measurements.contains_key(name) {
        *named_bytes += tree_bytes::<(Box<[u8]>, Measurement)>() + name.len();
        measurements.insert(name.into(), Measurement::default());
    }
    measurements.get_mut(name).expect("it was there or was made")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(key: &str, value: &str) -> TagPredicate {
        TagPredicate::Equal { key: key.as_bytes().into(), value: value.as_bytes().into() }
    }

    fn selected(index: &SeriesIndex, predicate: &TagPredicate) -> Vec<u32> {
        index.select(b"cpu", predicate).iter().collect()
    }

    #[test]
    fn postings_answer_tag_conditions_and_a_missing_tag_is_the_empty_value() {
        let mut index = SeriesIndex::default();
        for key in ["cpu,host=a,dc=x", "cpu,host=b", "mem,host=a", "cpu,host=ab,dc=y"] {
            index.insert_key(key.as_bytes());
        }
        assert_eq!(index.insert_key(b"cpu,host=b"), SeriesId(1));
        assert_eq!(selected(&index, &equal("host", "a")), [0]);
        assert_eq!(selected(&index, &equal("dc", "")), [1]);
        assert_eq!(selected(&index, &equal("host", "")), Vec::<u32>::new());
        let not = TagPredicate::NotEqual { key: b"dc"[..].into(), value: b"x"[..].into() };
        assert_eq!(selected(&index, &not), [1, 3]);
        let regex =
            |text| TagPredicate::Matches { key: b"host"[..].into(), regex: regex::bytes::Regex::new(text).unwrap() };
        assert_eq!(selected(&index, &regex("a")), [0, 3]);
        assert_eq!(selected(&index, &regex("")), [0, 1, 3]);
        assert_eq!(selected(&index, &TagPredicate::And(vec![regex("a"), equal("dc", "y")])), [3]);
        assert_eq!(selected(&index, &TagPredicate::And(Vec::new())), [0, 1, 3]);
        assert_eq!(selected(&index, &TagPredicate::Or(vec![equal("host", "b"), equal("dc", "y")])), [1, 3]);
        assert_eq!(index.tag_keys(b"cpu").collect::<Vec<_>>(), [b"dc".as_slice(), b"host"]);
        assert_eq!((index.tag_values(b"cpu", b"dc").count(), index.tag_value_count(b"cpu", b"dc")), (2, 2));
        assert!(index.has_tag_value(b"cpu", b"dc", b"y") && !index.has_tag_value(b"cpu", b"dc", b"z"));
    }

    #[test]
    fn a_removed_series_vanishes_from_answers_and_comes_back_with_its_id() {
        let mut index = SeriesIndex::default();
        let (a, b) = (index.insert_key(b"cpu,host=a"), index.insert_key(b"mem,host=b"));
        let field = index.insert_field(b"cpu", b"v", FieldType::Float);
        index.remove(a);
        index.remove(a);
        assert_eq!(index.measurement_names().collect::<Vec<_>>(), [b"mem".as_slice()]);
        assert_eq!((index.alive_count(), index.is_alive(b), index.measurement_count()), (1, true, 1));
        assert_eq!(index.insert_key(b"cpu,host=a"), a);
        assert_eq!(selected(&index, &TagPredicate::All), [a.0]);
        assert_eq!(index.field_names(b"cpu").count(), 0);
        assert_ne!(index.insert_field(b"cpu", b"w", FieldType::Float), field);
        assert_eq!(index.field_names(b"cpu").collect::<Vec<_>>(), [b"w".as_slice()]);
        assert_eq!(index.insert_field(b"cpu", b"v", FieldType::Float), field);
        assert_eq!(index.field_ids(b"cpu", b"v"), [field]);
        index.unwrite_field(b"cpu", b"v", None);
        assert_eq!((index.field_ids(b"cpu", b"v").len(), index.is_written(field)), (0, false));
    }
}
