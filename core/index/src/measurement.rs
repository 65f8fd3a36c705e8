//! What is known of one measurement: its series, its tags, its fields.

use crate::{
    dictionary::Dictionary,
    id::FieldId,
    posting::{Posting, PostingRef},
    predicate::TagPredicate,
    tag_values::{TagValues, Texts},
};
use roaring::RoaringBitmap;
use std::{borrow::Cow, collections::BTreeMap};
use tidemill_column::FieldType;
use tidemill_line::series_key;

/// A measurement. It stays when it has lost its series, for the ids of its fields.
#[derive(Default)]
pub struct Measurement {
    series: Posting,
    tags: BTreeMap<Box<[u8]>, TagValues>,
    fields: BTreeMap<Box<[u8]>, KnownTypes>,
    /// Of tags and fields on the heap.
    bytes: usize,
}

/// The ids of one field name, by the code of the type.
type KnownTypes = [Option<KnownField>; FieldType::ALL.len()];

#[derive(Clone, Copy)]
struct KnownField {
    id: FieldId,
    /// It was written since the measurement was last empty.
    is_written: bool,
}

/// What a tree takes for an entry: its nodes are about two thirds full.
pub(crate) const fn tree_bytes<T>() -> usize {
    size_of::<T>() / 2 * 3 + 16
}

impl Measurement {
    /// The postings of a measurement that has none.
    pub fn restore(&mut self, series: Posting, tags: BTreeMap<Box<[u8]>, TagValues>) {
        assert!(self.is_empty() && self.tags.is_empty(), "a measurement is restored once");
        self.bytes += tags.iter().map(|(tag, values)| tag_bytes(tag) + values.byte_size()).sum::<usize>();
        (self.series, self.tags) = (series, tags);
    }

    /// The series enters the postings.
    ///
    /// Returns how many values the one of its tags has that has most.
    pub fn post(&mut self, dictionary: &Dictionary, key: &[u8], id: u32) -> usize {
        self.series.insert(id);
        let mut values_max = 0;
        for (tag, value) in distinct_tags(key) {
            let values = match self.tags.get_mut(tag.as_ref()) {
                Some(values) => values,
                None => {
                    self.bytes += tag_bytes(&tag);
                    self.tags.entry(tag.as_ref().into()).or_default()
                }
            };
            self.bytes -= values.byte_size();
            values.insert(Texts { dictionary, tag: &tag }, &value, id);
            values_max = values_max.max(values.len());
            self.bytes += values.byte_size();
        }
        values_max
    }

    /// The series leaves the postings.
    pub fn unpost(&mut self, dictionary: &Dictionary, key: &[u8], id: u32) {
        self.series.remove(id);
        for (tag, value) in distinct_tags(key) {
            let Some(values) = self.tags.get_mut(tag.as_ref()) else { continue };
            self.bytes -= values.byte_size();
            values.remove(Texts { dictionary, tag: &tag }, &value, id);
            if values.is_empty() {
                self.tags.remove(tag.as_ref());
                self.bytes -= tag_bytes(&tag);
            } else {
                self.bytes += values.byte_size();
            }
        }
        if self.is_empty() {
            // The measurement starts anew if it is written again.
            self.fields.values_mut().flatten().flatten().for_each(|field| field.is_written = false);
        }
    }

    /// The id of a field, `next` if it is a new one.
    pub fn insert_field(&mut self, name: &[u8], field_type: FieldType, next: FieldId) -> FieldId {
        let types = match self.fields.get_mut(name) {
            Some(types) => types,
            None => {
                self.bytes += tree_bytes::<(Box<[u8]>, KnownTypes)>() + name.len();
                self.fields.entry(name.into()).or_default()
            }
        };
        let field = types[field_type.code() as usize].get_or_insert(KnownField { id: next, is_written: true });
        field.is_written = true;
        field.id
    }

    /// The field is shown no more until it is written again. Its ids stay.
    pub fn unwrite_field(&mut self, name: &[u8], field_type: Option<FieldType>) {
        let Some(types) = self.fields.get_mut(name) else { return };
        for (code, field) in types.iter_mut().enumerate() {
            if let Some(field) = field
                && field_type.is_none_or(|meant| usize::from(meant.code()) == code)
            {
                field.is_written = false;
            }
        }
    }

    pub fn field_ids(&self, name: &[u8]) -> impl Iterator<Item = FieldId> {
        let fields = self.fields.get(name).into_iter().flatten().flatten();
        fields.filter(|field| field.is_written).map(|field| field.id)
    }

    pub fn is_written(&self, name: &[u8], field_type: FieldType) -> bool {
        let field = self.fields.get(name).and_then(|types| types[field_type.code() as usize]);
        field.is_some_and(|field| field.is_written)
    }

    /// Names of written fields, sorted.
    pub fn field_names(&self) -> impl Iterator<Item = &[u8]> {
        let is_written = |types: &KnownTypes| types.iter().flatten().any(|field| field.is_written);
        self.fields.iter().filter(move |(_, types)| is_written(types)).map(|(name, _)| name.as_ref())
    }

    pub fn series(&self) -> PostingRef<'_> {
        self.series.view()
    }

    pub fn is_empty(&self) -> bool {
        self.series.view().is_empty()
    }

    /// Sorted by their keys.
    pub fn tags(&self) -> impl Iterator<Item = (&[u8], &TagValues)> {
        self.tags.iter().map(|(key, values)| (key.as_ref(), values))
    }

    pub fn tag(&self, key: &[u8]) -> Option<&TagValues> {
        self.tags.get(key)
    }

    /// The tag's key as the measurement holds it.
    pub fn tag_entry(&self, key: &[u8]) -> Option<(&[u8], &TagValues)> {
        self.tags.get_key_value(key).map(|(key, values)| (key.as_ref(), values))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.series.heap_bytes() + self.bytes
    }

    pub fn select(&self, dictionary: &Dictionary, predicate: &TagPredicate) -> RoaringBitmap {
        let all = || self.series.view().to_bitmap();
        match predicate {
            TagPredicate::All => all(),
            TagPredicate::And(parts) => {
                let mut parts = parts.iter();
                let first = parts.next().map_or_else(all, |part| self.select(dictionary, part));
                parts.fold(
                    first,
                    |selected, part| {
                        if selected.is_empty() { selected } else { selected & self.select(dictionary, part) }
                    },
                )
            }
            TagPredicate::Or(parts) => {
                parts.iter().fold(RoaringBitmap::new(), |selected, part| selected | self.select(dictionary, part))
            }
            TagPredicate::Equal { key, value } => self.equal(dictionary, key, value),
            TagPredicate::NotEqual { key, value } => all() - self.equal(dictionary, key, value),
            TagPredicate::Matches { key, regex } => self.matching(dictionary, key, regex),
            TagPredicate::NotMatches { key, regex } => all() - self.matching(dictionary, key, regex),
        }
    }

    fn equal(&self, dictionary: &Dictionary, tag: &[u8], value: &[u8]) -> RoaringBitmap {
        if value.is_empty() {
            return self.without(tag);
        }
        let posting = self.tags.get(tag).and_then(|values| values.find(Texts { dictionary, tag }, value));
        posting.map_or_else(RoaringBitmap::new, |posting| posting.to_bitmap())
    }

    fn matching(&self, dictionary: &Dictionary, tag: &[u8], regex: &regex::bytes::Regex) -> RoaringBitmap {
        let mut selected = if regex.is_match(b"") { self.without(tag) } else { RoaringBitmap::new() };
        for (value, posting) in self.tags.get(tag).into_iter().flat_map(|values| values.iter(Texts { dictionary, tag }))
        {
            if regex.is_match(&value) {
                posting.add_to(&mut selected);
            }
        }
        selected
    }

    fn without(&self, tag: &[u8]) -> RoaringBitmap {
        let values = self.tags.get(tag);
        // The common case costs nothing: a tag that all series have.
        if values.is_some_and(|values| values.series_count() == self.series.view().len()) {
            return RoaringBitmap::new();
        }
        let mut selected = self.series.view().to_bitmap();
        values.into_iter().flat_map(TagValues::postings_of_all).for_each(|posting| posting.take_from(&mut selected));
        selected
    }
}

fn tag_bytes(tag: &[u8]) -> usize {
    tree_bytes::<(Box<[u8]>, TagValues)>() + tag.len()
}

/// The tags of a key: of those with equal names the first one, and none without a value, as that is no tag.
pub fn distinct_tags(key: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    let mut last: Option<Cow<'_, [u8]>> = None;
    let mut ascending = true;
    series_key::tags(key).filter(move |(tag, value)| {
        ascending &= last.as_ref().is_none_or(|last| last.as_ref() < tag.as_ref());
        last = Some(tag.clone());
        let is_first = ascending || series_key::tag_value(key, tag).is_some_and(|first| first == *value);
        is_first && !value.is_empty()
    })
}
