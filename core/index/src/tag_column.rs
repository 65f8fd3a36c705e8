//! One tag of a measurement while an index is restored: the value of each series, and then the sets of series.
//!
//! Owns: what all series of a tag are taken in at once with, instead of one by one as they came. Values are told apart
//! by a flat table of their hashes, a batch of series at a time so that looking up many of them overlaps; texts, which
//! lie all over the memory, are read only where hashes are equal. Sets are made when their sizes are known.
//! Invariants: slots are dealt out in the order in which values come, as [`TagValues::insert`] does it.

use crate::{
    dictionary::Dictionary,
    id_table::{IdTable, IdTableBuilder},
    tag_values::TagValues,
};
use std::borrow::Cow;
use tidemill_line::series_key;

/// Ids that get their sets before other tasks of the core get a turn.
const IDS_PER_STEP: usize = 4096;
/// Places of the smallest table.
const PLACES_MIN: usize = 16;

/// A series and its value of the tag.
#[derive(Clone, Copy)]
pub struct Member {
    /// Of the value.
    pub hash: u64,
    pub text: TextPlace,
    pub series: u32,
}

/// Where the text of a value is.
#[derive(Clone, Copy)]
pub struct TextPlace {
    /// Of its key in the dictionary.
    pub key: u32,
    pub start: u16,
    /// Zero: the key has escapes, and is looked through.
    pub len: u16,
}

impl TextPlace {
    fn read<'a>(&self, dictionary: &'a Dictionary, tag: &[u8]) -> Cow<'a, [u8]> {
        let key = dictionary.key_in(self.key);
        match self.len {
            0 => series_key::tag_value(key, tag).unwrap_or_default(),
            len => Cow::Borrowed(&key[usize::from(self.start)..][..usize::from(len)]),
        }
    }
}

/// A tag whose series come one after the other.
pub struct TagColumn {
    pub tag: Box<[u8]>,
    /// Series whose value is not looked up yet.
    pending: Vec<Member>,
    /// Slot plus one and upper half of the hash, at the place of the lower half or the next free one behind it. A power
    /// of two of places, at most half of them taken.
    places: Vec<(u32, u32)>,
    /// By slot.
    hashes: Vec<u64>,
    texts: Vec<TextPlace>,
    /// Slot and series.
    members: Vec<(u32, u32)>,
}

impl TagColumn {
    pub fn new(tag: &[u8]) -> TagColumn {
        TagColumn {
            tag: tag.into(),
            pending: Vec::new(),
            places: vec![(0, 0); PLACES_MIN],
            hashes: Vec::new(),
            texts: Vec::new(),
            members: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes a series in; whether it is the first one since [`TagColumn::settle`]. A key may say the same twice.
    pub fn push(&mut self, member: Member) -> bool {
        if self.pending.last().is_some_and(|last| last.series == member.series) {
            return false;
        }
        self.pending.push(member);
        self.pending.len() == 1
    }

    /// Looks up the values of the series that were taken in.
    pub fn settle(&mut self, dictionary: &Dictionary) {
        let pending = std::mem::take(&mut self.pending);
        for member in &pending {
            let slot = self.slot_of(dictionary, member);
            self.members.push((slot, member.series));
        }
        self.pending = pending;
        self.pending.clear();
    }

    fn slot_of(&mut self, dictionary: &Dictionary, member: &Member) -> u32 {
        let check = (member.hash >> 32) as u32;
        let mask = self.places.len() - 1;
        let mut at = member.hash as usize & mask;
        while let (slot @ 1.., known) = self.places[at] {
            let slot = slot - 1;
            if known == check && self.hashes[slot as usize] == member.hash {
                let text = self.texts[slot as usize].read(dictionary, &self.tag);
                if text == member.text.read(dictionary, &self.tag) {
                    return slot;
                }
            }
            at = (at + 1) & mask;
        }
        let slot = self.hashes.len() as u32;
        self.places[at] = (slot + 1, check);
        self.hashes.push(member.hash);
        self.texts.push(member.text);
        if self.hashes.len() * 2 > self.places.len() {
            self.grow();
        }
        slot
    }

    fn grow(&mut self) {
        let count = self.places.len() * 2;
        self.places = vec![(0, 0); count];
        for (slot, hash) in self.hashes.iter().enumerate() {
            let mut at = *hash as usize & (count - 1);
            while self.places[at].0 != 0 {
                at = (at + 1) & (count - 1);
            }
            self.places[at] = (slot as u32 + 1, (hash >> 32) as u32);
        }
    }
}

/// Makes the sets of a tag, a little at a time.
pub struct TagValuesBuilder {
    made: TagValues,
    /// Slots that have their sets.
    slots: usize,
    /// Series by slot, ascending in each.
    series: Vec<u32>,
    /// Where the series of each slot end.
    ends: Vec<usize>,
    hashes: Vec<u64>,
    table: IdTableBuilder,
}

impl TagValuesBuilder {
    /// This step grows with the series: a few nanoseconds each.
    pub fn new(column: TagColumn) -> TagValuesBuilder {
        let TagColumn { pending, places, hashes, texts, members, .. } = column;
        assert!(pending.is_empty(), "all series were looked up");
        drop((places, texts));
        // First the starts; what is put at one moves it on, to the end.
        let mut ends = vec![0; hashes.len()];
        for (slot, _) in &members {
            ends[*slot as usize] += 1;
        }
        let mut start = 0;
        for end in &mut ends {
            start += std::mem::replace(end, start);
        }
        let mut series = vec![0; members.len()];
        for (slot, id) in members {
            let end = &mut ends[slot as usize];
            series[*end] = id;
            *end += 1;
        }
        let table = IdTableBuilder::new(&hashes);
        TagValuesBuilder { made: TagValues::default(), slots: 0, series, ends, hashes, table }
    }

    /// Makes a little more; `false` when all is made.
    pub fn advance(&mut self) -> bool {
        let begin = self.slots.checked_sub(1).map_or(0, |before| self.ends[before]);
        let mut start = begin;
        while start - begin < IDS_PER_STEP
            && let Some(end) = self.ends.get(self.slots)
        {
            self.made.restore(&self.series[start..*end]);
            (self.slots, start) = (self.slots + 1, *end);
        }
        // No two slots are of the same value.
        start > begin || self.table.advance(&self.hashes, |_, _| false).is_ok_and(|is_more| is_more)
    }

    /// The tag, once all is made.
    pub fn finish(mut self) -> TagValues {
        let table: IdTable = self.table.finish();
        self.made.restore_table(table);
        self.made
    }
}
