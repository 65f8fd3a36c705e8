//! The series of one database in one partition: dictionary, postings and fields.
//!
//! Owns: canonical series keys and their ids, for each tag value the set of series that have it, and the fields that
//! each measurement has been written with.
//! Invariants: an id never changes its key; a series that lost all of its points keeps its id and is only taken out of
//! the postings, so that an entry of the log that names it stays true. Fields keep their ids in the same way: when a
//! measurement is found empty differs from replica to replica, and what a flush writes must not.
//! Knows nothing of points, files and the log. It is derived: files and log rebuild it.

use crate::id::{FieldId, SeriesId};
use hashbrown::HashTable;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use tidemill_column::FieldType;
use tidemill_line::series_key;
use xxhash_rust::xxh3::xxh3_64;

/// Dictionary and postings.
#[derive(Default)]
pub struct SeriesIndex {
    /// Keys behind each other; `series` holds their ends.
    key_bytes: Vec<u8>,
    series: Vec<SeriesRecord>,
    by_key: HashTable<u32>,
    measurements: BTreeMap<Box<[u8]>, Measurement>,
    fields: Vec<Field>,
}

struct SeriesRecord {
    hash: u64,
    key_end: u64,
    alive: bool,
}

/// A field of a measurement.
pub struct Field {
    pub name: Box<[u8]>,
    pub field_type: FieldType,
}

/// What is known of a measurement.
#[derive(Default)]
pub struct Measurement {
    series: RoaringBitmap,
    tags: BTreeMap<Box<[u8]>, TagValues>,
    /// By name, then by the code of the type.
    fields: BTreeMap<Box<[u8]>, [Option<KnownField>; FieldType::ALL.len()]>,
}

/// The series that have a value, by value.
type TagValues = BTreeMap<Box<[u8]>, RoaringBitmap>;

#[derive(Clone, Copy)]
struct KnownField {
    id: FieldId,
    /// It was written since the measurement was last empty.
    is_written: bool,
}

/// A condition on tags, as the index evaluates it. A series that lacks a tag has the empty value.
#[derive(Clone, Debug)]
pub enum TagPredicate {
    All,
    And(Vec<TagPredicate>),
    Or(Vec<TagPredicate>),
    Equal { key: Box<[u8]>, value: Box<[u8]> },
    NotEqual { key: Box<[u8]>, value: Box<[u8]> },
    Matches { key: Box<[u8]>, regex: regex::bytes::Regex },
    NotMatches { key: Box<[u8]>, regex: regex::bytes::Regex },
}

impl SeriesIndex {
    /// The id of a canonical key, whether the series has points or not.
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<SeriesId> {
        let found =
            self.by_key.find(hash, |id| self.series[*id as usize].hash == hash && self.key_of(*id as usize) == key);
        found.copied().map(SeriesId)
    }

    /// The id of a canonical key; a new or returning series enters the postings.
    pub fn insert(&mut self, hash: u64, key: &[u8]) -> SeriesId {
        if let Some(id) = self.find(hash, key) {
            if !self.series[id.0 as usize].alive {
                self.series[id.0 as usize].alive = true;
                self.post(id);
            }
            return id;
        }
        let id = SeriesId(u32::try_from(self.series.len()).expect("fewer than 2^32 series in a partition"));
        self.key_bytes.extend_from_slice(key);
        self.series.push(SeriesRecord { hash, key_end: self.key_bytes.len() as u64, alive: true });
        let series = &self.series;
        self.by_key.insert_unique(hash, id.0, |other| series[*other as usize].hash);
        self.post(id);
        id
    }

    /// As [`SeriesIndex::insert`], hashing the key.
    pub fn insert_key(&mut self, key: &[u8]) -> SeriesId {
        self.insert(xxh3_64(key), key)
    }

    /// Takes a series without points out of the postings.
    pub fn remove(&mut self, id: SeriesId) {
        if !std::mem::replace(&mut self.series[id.0 as usize].alive, false) {
            return;
        }
        let key: Box<[u8]> = self.key(id).into();
        let name = series_key::measurement(&key);
        let Some(measurement) = self.measurements.get_mut(name.as_ref()) else { return };
        measurement.series.remove(id.0);
        for (tag, value) in series_key::tags(&key) {
            if let Some(values) = measurement.tags.get_mut(tag.as_ref()) {
                if let Some(posting) = values.get_mut(value.as_ref()) {
                    posting.remove(id.0);
                    if posting.is_empty() {
                        values.remove(value.as_ref());
                    }
                }
                if values.is_empty() {
                    measurement.tags.remove(tag.as_ref());
                }
            }
        }
        if measurement.series.is_empty() {
            // The measurement starts anew if it is written again.
            measurement.fields.values_mut().flatten().flatten().for_each(|field| field.is_written = false);
        }
    }

    pub fn key(&self, id: SeriesId) -> &[u8] {
        self.key_of(id.0 as usize)
    }

    /// As [`SeriesIndex::key`], for an id that may be of a dictionary that was dropped.
    pub fn known_key(&self, id: SeriesId) -> Option<&[u8]> {
        ((id.0 as usize) < self.series.len()).then(|| self.key(id))
    }

    pub fn is_alive(&self, id: SeriesId) -> bool {
        self.series[id.0 as usize].alive
    }

    /// Series that have points.
    pub fn alive_count(&self) -> u64 {
        self.measurements.values().map(|measurement| measurement.series.len()).sum()
    }

    /// The measurement's field of this name and type, made if it is new.
    pub fn insert_field(&mut self, measurement: &[u8], name: &[u8], field_type: FieldType) -> FieldId {
        let known = match self.measurements.get_mut(measurement) {
            Some(known) => known,
            None => self.measurements.entry(measurement.into()).or_default(),
        };
        let ids = match known.fields.get_mut(name) {
            Some(ids) => ids,
            None => known.fields.entry(name.into()).or_default(),
        };
        let slot = &mut ids[field_type.code() as usize];
        if let Some(field) = slot {
            field.is_written = true;
            return field.id;
        }
        let id = FieldId(u32::try_from(self.fields.len()).expect("fewer than 2^32 fields in a partition"));
        *slot = Some(KnownField { id, is_written: true });
        self.fields.push(Field { name: name.into(), field_type });
        id
    }

    /// The ids of a field's name, one a type that it has been written with.
    pub fn field_ids(&self, measurement: &[u8], name: &[u8]) -> Vec<FieldId> {
        let fields = self.measurements.get(measurement).and_then(|known| known.fields.get(name));
        fields.into_iter().flatten().flatten().filter(|field| field.is_written).map(|field| field.id).collect()
    }

    /// Names of the fields that a measurement has been written with, sorted.
    pub fn field_names(&self, measurement: &[u8]) -> impl Iterator<Item = &[u8]> {
        let known = self.measurements.get(measurement);
        let fields = known.into_iter().flat_map(|known| &known.fields);
        let is_written = |types: &[Option<KnownField>]| types.iter().flatten().any(|field| field.is_written);
        fields.filter(move |(_, types)| is_written(types.as_slice())).map(|(name, _)| name.as_ref())
    }

    pub fn field(&self, id: FieldId) -> &Field {
        &self.fields[id.0 as usize]
    }

    /// Names of the measurements that have series, sorted.
    pub fn measurement_names(&self) -> impl Iterator<Item = &[u8]> {
        self.measurements.iter().filter(|(_, known)| !known.series.is_empty()).map(|(name, _)| name.as_ref())
    }

    /// Tag keys of a measurement, sorted.
    pub fn tag_keys(&self, measurement: &[u8]) -> impl Iterator<Item = &[u8]> {
        let known = self.measurements.get(measurement);
        known.into_iter().flat_map(|known| known.tags.keys().map(AsRef::as_ref))
    }

    /// Values of a tag with the series that have them, sorted.
    pub fn tag_values(&self, measurement: &[u8], key: &[u8]) -> impl Iterator<Item = (&[u8], &RoaringBitmap)> {
        let values = self.measurements.get(measurement).and_then(|known| known.tags.get(key));
        values.into_iter().flatten().map(|(value, posting)| (value.as_ref(), posting))
    }

    /// Series of a measurement that satisfy the condition.
    pub fn select(&self, measurement: &[u8], predicate: &TagPredicate) -> RoaringBitmap {
        match self.measurements.get(measurement) {
            Some(known) => known.select(predicate),
            None => RoaringBitmap::new(),
        }
    }

    /// Bytes that the index takes, approximately: what grows with series.
    pub fn byte_size(&self) -> usize {
        self.key_bytes.capacity()
            + self.series.capacity() * size_of::<SeriesRecord>()
            + self.by_key.capacity() * (size_of::<u32>() + 1)
    }

    fn key_of(&self, id: usize) -> &[u8] {
        let start = if id == 0 { 0 } else { self.series[id - 1].key_end as usize };
        &self.key_bytes[start..self.series[id].key_end as usize]
    }

    fn post(&mut self, id: SeriesId) {
        let start = if id.0 == 0 { 0 } else { self.series[id.0 as usize - 1].key_end as usize };
        let key = &self.key_bytes[start..self.series[id.0 as usize].key_end as usize];
        let name = series_key::measurement(key);
        let known = match self.measurements.get_mut(name.as_ref()) {
            Some(known) => known,
            None => self.measurements.entry(name.as_ref().into()).or_default(),
        };
        known.series.insert(id.0);
        for (tag, value) in series_key::tags(key) {
            let values = match known.tags.get_mut(tag.as_ref()) {
                Some(values) => values,
                None => known.tags.entry(tag.as_ref().into()).or_default(),
            };
            match values.get_mut(value.as_ref()) {
                Some(posting) => posting.insert(id.0),
                None => values.entry(value.as_ref().into()).or_default().insert(id.0),
            };
        }
    }
}

impl Measurement {
    fn select(&self, predicate: &TagPredicate) -> RoaringBitmap {
        match predicate {
            TagPredicate::All => self.series.clone(),
            TagPredicate::And(parts) => {
                parts.iter().fold(self.series.clone(), |selected, part| selected & self.select(part))
            }
            TagPredicate::Or(parts) => {
                parts.iter().fold(RoaringBitmap::new(), |selected, part| selected | self.select(part))
            }
            TagPredicate::Equal { key, value } => self.equal(key, value),
            TagPredicate::NotEqual { key, value } => &self.series - self.equal(key, value),
            TagPredicate::Matches { key, regex } => self.matching(key, regex),
            TagPredicate::NotMatches { key, regex } => &self.series - self.matching(key, regex),
        }
    }

    fn equal(&self, key: &[u8], value: &[u8]) -> RoaringBitmap {
        if value.is_empty() {
            return self.without(key);
        }
        self.tags.get(key).and_then(|values| values.get(value)).cloned().unwrap_or_default()
    }

    fn matching(&self, key: &[u8], regex: &regex::bytes::Regex) -> RoaringBitmap {
        let mut selected = if regex.is_match(b"") { self.without(key) } else { RoaringBitmap::new() };
        for (value, posting) in self.tags.get(key).into_iter().flatten() {
            if regex.is_match(value) {
                selected |= posting;
            }
        }
        selected
    }

    fn without(&self, key: &[u8]) -> RoaringBitmap {
        let mut selected = self.series.clone();
        for posting in self.tags.get(key).into_iter().flat_map(BTreeMap::values) {
            selected -= posting;
        }
        selected
    }
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
        let not = TagPredicate::NotEqual { key: b"dc"[..].into(), value: b"x"[..].into() };
        assert_eq!(selected(&index, &not), [1, 3]);
        let regex =
            |text| TagPredicate::Matches { key: b"host"[..].into(), regex: regex::bytes::Regex::new(text).unwrap() };
        assert_eq!(selected(&index, &regex("a")), [0, 3]);
        assert_eq!(selected(&index, &regex("")), [0, 1, 3]);
        assert_eq!(selected(&index, &TagPredicate::And(vec![regex("a"), equal("dc", "y")])), [3]);
        assert_eq!(selected(&index, &TagPredicate::Or(vec![equal("host", "b"), equal("dc", "y")])), [1, 3]);
        assert_eq!(index.tag_keys(b"cpu").collect::<Vec<_>>(), [b"dc".as_slice(), b"host"]);
        assert_eq!(index.tag_values(b"cpu", b"dc").count(), 2);
    }

    #[test]
    fn a_removed_series_vanishes_from_answers_and_comes_back_with_its_id() {
        let mut index = SeriesIndex::default();
        let (a, b) = (index.insert_key(b"cpu,host=a"), index.insert_key(b"mem,host=b"));
        let field = index.insert_field(b"cpu", b"v", FieldType::Float);
        index.remove(a);
        index.remove(a);
        assert_eq!(index.measurement_names().collect::<Vec<_>>(), [b"mem".as_slice()]);
        assert_eq!((index.alive_count(), index.is_alive(b)), (1, true));
        assert_eq!(index.insert_key(b"cpu,host=a"), a);
        assert_eq!(selected(&index, &TagPredicate::All), [a.0]);
        assert_eq!(index.field_names(b"cpu").count(), 0);
        assert_ne!(index.insert_field(b"cpu", b"w", FieldType::Float), field);
        assert_eq!(index.field_names(b"cpu").collect::<Vec<_>>(), [b"w".as_slice()]);
        assert_eq!(index.insert_field(b"cpu", b"v", FieldType::Float), field);
        assert_eq!(index.field_ids(b"cpu", b"v"), [field]);
    }
}
