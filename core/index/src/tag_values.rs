//! The values of one tag of one measurement, each with the series that have it.
//!
//! A value keeps no text of its own: it is read from the key of one of its series. A value of a single series is four
//! bytes besides its entry in the hash table, so that a tag with a value of its own for each series stays cheap.

use crate::{
    chunked::ChunkedVec,
    dictionary::Dictionary,
    id::SeriesId,
    id_table::IdTable,
    posting::{Posting, PostingRef},
};
use std::borrow::Cow;
use tidemill_line::series_key;
use xxhash_rust::xxh3::xxh3_64;

/// A slot that no value has.
const FREE: u32 = u32::MAX;
/// A slot with this bit holds the number of a posting, one without it the only series.
const IS_POSTING: u32 = 1 << 31;

/// Values of a tag.
#[derive(Default)]
pub struct TagValues {
    /// A value has its slot as long as it has series.
    slots: ChunkedVec<u32>,
    by_text: IdTable,
    postings: ChunkedVec<Posting>,
    free_slots: Vec<u32>,
    free_postings: Vec<u32>,
    /// Series that have any of the values.
    series: u64,
    posting_bytes: usize,
}

/// What the texts of values are read with.
#[derive(Clone, Copy)]
pub struct Texts<'a> {
    pub dictionary: &'a Dictionary,
    pub tag: &'a [u8],
}

impl<'a> Texts<'a> {
    fn of(self, series: u32) -> Cow<'a, [u8]> {
        series_key::tag_value(self.dictionary.key(SeriesId(series)), self.tag).unwrap_or_default()
    }
}

impl TagValues {
    /// The next value, of these series, which ascend. It is not found before [`TagValues::restore_table`].
    pub fn restore(&mut self, series: &[u32]) {
        let slot = match series {
            [one] => *one,
            _ => {
                let posting = Posting::from_sorted(series);
                self.posting_bytes += posting.heap_bytes();
                self.postings.push(posting);
                (self.postings.len() as u32 - 1) | IS_POSTING
            }
        };
        self.slots.push(slot);
        self.series += series.len() as u64;
    }

    /// The table of all values, by their slots.
    pub fn restore_table(&mut self, by_text: IdTable) {
        assert_eq!(by_text.len(), self.slots.len(), "all values are in the table");
        self.by_text = by_text;
    }

    /// The series enters the posting of its value. Its key is in the dictionary.
    pub fn insert(&mut self, texts: Texts<'_>, value: &[u8], series: u32) {
        let hash = xxh3_64(value);
        let Some(slot) = self.find_slot(texts, hash, value) else {
            let slot = match self.free_slots.pop() {
                Some(slot) => {
                    self.slots[slot as usize] = series;
                    slot
                }
                None => {
                    self.slots.push(series);
                    self.slots.len() as u32 - 1
                }
            };
            let (slots, postings) = (&self.slots, &self.postings);
            let hash_of = |slot: u32| match view(slots, postings, slot).and_then(|view| view.first()) {
                Some(sample) => xxh3_64(&texts.of(sample)),
                None => 0,
            };
            self.by_text.insert(hash, slot, hash_of);
            self.series += 1;
            return;
        };
        let known = self.slots[slot as usize];
        if known & IS_POSTING == 0 {
            if known == series {
                return;
            }
            let mut posting = Posting::default();
            posting.insert(known.min(series));
            posting.insert(known.max(series));
            self.posting_bytes += posting.heap_bytes();
            let number = match self.free_postings.pop() {
                Some(number) => {
                    self.postings[number as usize] = posting;
                    number
                }
                None => {
                    self.postings.push(posting);
                    self.postings.len() as u32 - 1
                }
            };
            self.slots[slot as usize] = number | IS_POSTING;
            self.series += 1;
            return;
        }
        let posting = &mut self.postings[(known & !IS_POSTING) as usize];
        self.posting_bytes -= posting.heap_bytes();
        self.series += u64::from(posting.insert(series));
        self.posting_bytes += posting.heap_bytes();
    }

    /// The series leaves the posting of its value; a value without series is gone.
    pub fn remove(&mut self, texts: Texts<'_>, value: &[u8], series: u32) {
        let hash = xxh3_64(value);
        let Some(slot) = self.find_slot(texts, hash, value) else { return };
        let known = self.slots[slot as usize];
        if known & IS_POSTING == 0 {
            if known != series {
                return;
            }
        } else {
            let number = known & !IS_POSTING;
            let posting = &mut self.postings[number as usize];
            self.posting_bytes -= posting.heap_bytes();
            let was_there = posting.remove(series);
            self.posting_bytes += posting.heap_bytes();
            self.series -= u64::from(was_there);
            if !posting.view().is_empty() {
                return;
            }
            self.posting_bytes -= posting.heap_bytes();
            *posting = Posting::default();
            self.free_postings.push(number);
            self.series += 1;
        }
        self.series -= 1;
        self.slots[slot as usize] = FREE;
        self.by_text.remove(hash, |found| found == slot);
        self.free_slots.push(slot);
    }

    /// The series that have the value.
    pub fn find(&self, texts: Texts<'_>, value: &[u8]) -> Option<PostingRef<'_>> {
        view(&self.slots, &self.postings, self.find_slot(texts, xxh3_64(value), value)?)
    }

    /// All values with their series, in an order that says nothing but follows from what was inserted and removed.
    pub fn iter<'a>(&'a self, texts: Texts<'a>) -> impl Iterator<Item = (Cow<'a, [u8]>, PostingRef<'a>)> {
        self.postings_of_all().filter_map(move |posting| Some((texts.of(posting.first()?), posting)))
    }

    /// The series of each value.
    pub fn postings_of_all(&self) -> impl Iterator<Item = PostingRef<'_>> {
        (0..self.slots.len() as u32).filter_map(|slot| view(&self.slots, &self.postings, slot))
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.by_text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_text.is_empty()
    }

    /// How many series have a value.
    pub fn series_count(&self) -> u64 {
        self.series
    }

    pub fn byte_size(&self) -> usize {
        self.slots.byte_size()
            + self.by_text.byte_size()
            + self.postings.byte_size()
            + self.posting_bytes
            + (self.free_slots.capacity() + self.free_postings.capacity()) * size_of::<u32>()
    }

    fn find_slot(&self, texts: Texts<'_>, hash: u64, value: &[u8]) -> Option<u32> {
        self.by_text.find(hash, |slot| {
            let sample = view(&self.slots, &self.postings, slot).and_then(|posting| posting.first());
            sample.is_some_and(|sample| texts.of(sample).as_ref() == value)
        })
    }
}

fn view<'a>(slots: &ChunkedVec<u32>, postings: &'a ChunkedVec<Posting>, slot: u32) -> Option<PostingRef<'a>> {
    match *slots.get(slot as usize)? {
        FREE => None,
        series if series & IS_POSTING == 0 => Some(PostingRef::One(series)),
        number => Some(postings.get((number & !IS_POSTING) as usize)?.view()),
    }
}
