//! Canonical series keys and their ids.
//!
//! Keys lie behind each other in chunks and never move; an id never changes its key.

use crate::{chunked::ChunkedVec, id::SeriesId, id_table::IdTable};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a chunk: small beside a million series, large beside a key.
const CHUNK_BYTES: usize = 1 << 20;
/// Places are counted in these units, so that 32 bits reach 16 GiB of keys.
const UNIT_BYTES: usize = 4;
const CHUNK_UNITS: usize = CHUNK_BYTES / UNIT_BYTES;
/// Longest key: as TSM files and line protocol have it. With it a chunk has room for many keys.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;
/// First bytes of a chunk that is the only one.
const FIRST_BYTES: usize = 256;

/// Ids above this one are used for something else where ids are stored.
pub(crate) const SERIES_MAX: usize = 1 << 31;

/// Keys by id, and ids by key.
#[derive(Default)]
pub struct Dictionary {
    /// Each key behind two bytes of its length.
    chunks: Vec<Vec<u8>>,
    chunk_bytes: usize,
    /// Chunk and unit in it, by id.
    places: ChunkedVec<u32>,
    by_key: IdTable,
}

impl Dictionary {
    /// The id of a key.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<SeriesId> {
        self.by_key.find(hash, |id| self.key_at(id as usize) == key).map(SeriesId)
    }

    /// Gives a key that is not there the next id.
    pub fn push(&mut self, hash: u64, key: &[u8]) -> SeriesId {
        let id = self.append(key);
        let (chunks, places) = (&self.chunks, &self.places);
        let hash_of = |other: u32| xxh3_64(text_at(chunks, places[other as usize]));
        self.by_key.insert(hash, id.0, hash_of);
        id
    }

    /// As [`Dictionary::push`], for a key that is not found before [`Dictionary::restore_table`].
    pub fn append(&mut self, key: &[u8]) -> SeriesId {
        assert!(key.len() <= KEY_BYTES_MAX, "a series key has at most {KEY_BYTES_MAX} bytes");
        assert!(self.places.len() < SERIES_MAX, "fewer than 2^31 series in a partition");
        let id = self.places.len() as u32;
        let place = self.store(key);
        self.places.push(place);
        SeriesId(id)
    }

    /// The table of all keys, which were appended.
    pub fn restore_table(&mut self, by_key: IdTable) {
        assert_eq!(by_key.len(), self.places.len(), "all keys are in the table");
        self.by_key = by_key;
    }

    pub fn key(&self, id: SeriesId) -> &[u8] {
        self.key_at(id.0 as usize)
    }

    /// Where a key lies: shorter than the key itself, and as good as its id.
    pub fn place(&self, id: SeriesId) -> u32 {
        self.places[id.0 as usize]
    }

    pub fn key_in(&self, place: u32) -> &[u8] {
        text_at(&self.chunks, place)
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn byte_size(&self) -> usize {
        self.chunk_bytes
            + self.chunks.capacity() * size_of::<Vec<u8>>()
            + self.places.byte_size()
            + self.by_key.byte_size()
    }

    #[inline]
    fn key_at(&self, id: usize) -> &[u8] {
        text_at(&self.chunks, self.places[id])
    }

    fn store(&mut self, key: &[u8]) -> u32 {
        let needed = (2 + key.len()).next_multiple_of(UNIT_BYTES);
        if self.chunks.last().is_none_or(|chunk| chunk.len() + needed > CHUNK_BYTES) {
            let first = if self.chunks.is_empty() { FIRST_BYTES } else { CHUNK_BYTES };
            let chunk = Vec::with_capacity(first.max(needed));
            self.chunk_bytes += chunk.capacity();
            self.chunks.push(chunk);
        }
        let number = self.chunks.len() - 1;
        let chunk = &mut self.chunks[number];
        let capacity = chunk.capacity();
        if chunk.len() + needed > capacity {
            chunk.reserve_exact(needed.max(capacity.min(CHUNK_BYTES - capacity)));
            self.chunk_bytes += chunk.capacity() - capacity;
        }
        let unit = number * CHUNK_UNITS + chunk.len() / UNIT_BYTES;
        chunk.extend_from_slice(&(key.len() as u16).to_le_bytes());
        chunk.extend_from_slice(key);
        chunk.resize(chunk.len().next_multiple_of(UNIT_BYTES), 0);
        u32::try_from(unit).expect("fewer than 16 GiB of series keys in a partition")
    }
}

#[inline]
fn text_at(chunks: &[Vec<u8>], place: u32) -> &[u8] {
    let chunk = &chunks[place as usize / CHUNK_UNITS];
    let start = place as usize % CHUNK_UNITS * UNIT_BYTES;
    let len = usize::from(u16::from_le_bytes([chunk[start], chunk[start + 1]]));
    &chunk[start + 2..start + 2 + len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_lengths_come_back_across_chunks() {
        let mut dictionary = Dictionary::default();
        let key = |number: usize| -> Vec<u8> {
            let len = if number.is_multiple_of(50) { KEY_BYTES_MAX - number } else { 4 + number % 90 };
            [number.to_string().into_bytes(), vec![b'k'; len - len.min(4)]].concat()
        };
        for number in 0..3_000 {
            let key = key(number);
            if dictionary.find(xxh3_64(&key), &key).is_none() {
                dictionary.push(xxh3_64(&key), &key);
            }
        }
        assert!(dictionary.chunks.len() > 3);
        for number in 0..3_000 {
            let key = key(number);
            let id = dictionary.find(xxh3_64(&key), &key).unwrap();
            assert_eq!(dictionary.key(id), key);
        }
        let held: usize = dictionary.chunks.iter().map(Vec::capacity).sum();
        assert_eq!(dictionary.chunk_bytes, held);
        assert!(dictionary.chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES));
    }
}
