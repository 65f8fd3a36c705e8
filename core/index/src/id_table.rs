//! A hash table of ids that grows a little at a time.
//!
//! Linear hashing (Litwin, VLDB 1980) over small tables: when the mean fill is reached, one of them is split in two. So
//! the longest step is the splitting of one table, about 3 500 entries, and the memory of the table never doubles.
//! Entries are ids alone; whoever asks knows what an id's key is.

use hashbrown::HashTable;

/// Mean entries of a table above which the next one is split. A table that waits for its split holds up to twice as
/// many, which is just below what a table of 4 096 buckets takes.
const MEAN_LEN: usize = 1700;

/// Ids by hash. Never iterated: its order says nothing.
#[derive(Default)]
pub struct IdTable {
    tables: Vec<HashTable<u32>>,
    len: usize,
    bytes: usize,
}

impl IdTable {
    /// The id with this hash that is the one meant.
    #[inline]
    pub fn find(&self, hash: u64, mut is_meant: impl FnMut(u32) -> bool) -> Option<u32> {
        self.tables.get(self.table_of(hash))?.find(hash, |id| is_meant(*id)).copied()
    }

    /// Enters an id that is not there; `hash_of` gives the hash of any id that is.
    pub fn insert(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        if self.tables.is_empty() {
            self.tables.push(HashTable::new());
        } else if self.len >= self.tables.len() * MEAN_LEN {
            self.split(&hash_of);
        }
        let at = self.table_of(hash);
        let table = &mut self.tables[at];
        self.bytes -= table.allocation_size();
        table.insert_unique(hash, id, |id| hash_of(*id));
        self.bytes += table.allocation_size();
        self.len += 1;
    }

    /// Takes out the id with this hash that is the one meant; whether it was there.
    pub fn remove(&mut self, hash: u64, is_meant: impl Fn(u32) -> bool) -> bool {
        let at = self.table_of(hash);
        let Some(table) = self.tables.get_mut(at) else { return false };
        let Ok(entry) = table.find_entry(hash, |id| is_meant(*id)) else { return false };
        entry.remove();
        self.len -= 1;
        true
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes on the heap.
    pub fn byte_size(&self) -> usize {
        self.bytes + self.tables.capacity() * size_of::<HashTable<u32>>()
    }

    #[inline]
    fn table_of(&self, hash: u64) -> usize {
        table_of(self.tables.len(), hash)
    }

    fn split(&mut self, hash_of: &impl Fn(u32) -> u64) {
        let count = self.tables.len();
        // The tables in front of this one have been split at this level.
        let at = count - (1 << count.ilog2());
        self.tables.push(HashTable::new());
        let old = std::mem::take(&mut self.tables[at]);
        self.bytes -= old.allocation_size();
        let hashes: Vec<(u64, u32)> = old.iter().map(|id| (hash_of(*id), *id)).collect();
        drop(old);
        let moved = hashes.iter().filter(|(hash, _)| self.table_of(*hash) == count).count();
        self.tables[at] = HashTable::with_capacity(hashes.len() - moved);
        self.tables[count] = HashTable::with_capacity(moved);
        for (hash, id) in hashes {
            let to = self.table_of(hash);
            self.tables[to].insert_unique(hash, id, |id| hash_of(*id));
        }
        self.bytes += self.tables[at].allocation_size() + self.tables[count].allocation_size();
    }
}

/// Tables are chosen by bits that a table itself does not use much: it takes the lowest and the highest ones.
#[inline]
fn table_of(count: usize, hash: u64) -> usize {
    let bits = (hash >> 24) as usize;
    let mask = count.next_power_of_two() - 1;
    let at = bits & mask;
    if at < count { at } else { at & mask >> 1 }
}

/// Makes the table of ids that are all known, one small table at a time: a third of the work of inserting them.
pub struct IdTableBuilder {
    made: IdTable,
    /// Ids by their table, ascending in each.
    ids: Vec<u32>,
    /// Where the ids of each table end.
    ends: Vec<usize>,
}

impl IdTableBuilder {
    /// For the ids `0..hashes.len()`. This step grows with them: a few nanoseconds each.
    pub fn new(hashes: &[u64]) -> IdTableBuilder {
        let count = hashes.len().div_ceil(MEAN_LEN);
        // First the starts; what is put at one moves it on, to the end.
        let mut ends = vec![0; count];
        for hash in hashes {
            ends[table_of(count, *hash)] += 1;
        }
        let mut start = 0;
        for end in &mut ends {
            start += std::mem::replace(end, start);
        }
        let mut ids = vec![0; hashes.len()];
        for (id, hash) in hashes.iter().enumerate() {
            let end = &mut ends[table_of(count, *hash)];
            ids[*end] = id as u32;
            *end += 1;
        }
        IdTableBuilder { made: IdTable { tables: Vec::with_capacity(count), ..IdTable::default() }, ids, ends }
    }

    /// Makes the next table; `false` when all are made. `hashes` are those from the beginning, and `is_same` tells
    /// whether two ids with the same hash are of the same key.
    ///
    /// # Errors
    /// The first id that is the same as another.
    pub fn advance(&mut self, hashes: &[u64], is_same: impl Fn(u32, u32) -> bool) -> Result<bool, u32> {
        let number = self.made.tables.len();
        let Some(end) = self.ends.get(number) else { return Ok(false) };
        let ids = &self.ids[number.checked_sub(1).map_or(0, |before| self.ends[before])..*end];
        let mut table = HashTable::with_capacity(ids.len());
        for id in ids {
            let hash = hashes[*id as usize];
            if table.find(hash, |other: &u32| hashes[*other as usize] == hash && is_same(*other, *id)).is_some() {
                return Err(*id);
            }
            table.insert_unique(hash, *id, |other| hashes[*other as usize]);
        }
        self.made.bytes += table.allocation_size();
        self.made.len += table.len();
        self.made.tables.push(table);
        Ok(true)
    }

    /// The table, once all small ones are made.
    pub fn finish(self) -> IdTable {
        assert_eq!(self.made.len, self.ids.len(), "all tables are made");
        self.made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn hash_of(id: u32) -> u64 {
        xxh3_64(&id.to_le_bytes())
    }

    #[test]
    fn every_id_is_found_at_every_size_and_removed_ones_are_not() {
        let mut table = IdTable::default();
        for id in 0..40_000 {
            assert_eq!(table.find(hash_of(id), |found| found == id), None);
            table.insert(hash_of(id), id, hash_of);
            let earlier = id / 2;
            assert_eq!(table.find(hash_of(earlier), |found| found == earlier), Some(earlier));
        }
        assert!((0..40_000).all(|id| table.find(hash_of(id), |found| found == id) == Some(id)));
        assert!((0..40_000).step_by(3).all(|id| table.remove(hash_of(id), |found| found == id)));
        assert!(!table.remove(hash_of(0), |found| found == 0));
        assert!((0..40_000).all(|id| table.find(hash_of(id), |found| found == id).is_none() == (id % 3 == 0)));
        assert_eq!(table.len(), 40_000 - 40_000usize.div_ceil(3));
    }

    #[test]
    fn no_table_grows_beyond_its_bound_and_the_bytes_are_those_of_the_tables() {
        let mut table = IdTable::default();
        for id in 0..200_000 {
            table.insert(hash_of(id), id, hash_of);
        }
        let largest = table.tables.iter().map(HashTable::len).max().unwrap();
        assert!(largest < 3_584, "{largest}");
        assert_eq!(table.bytes, table.tables.iter().map(HashTable::allocation_size).sum::<usize>());
        assert!(table.byte_size() < 200_000 * 10, "{}", table.byte_size());
    }

    #[test]
    fn a_table_that_is_made_at_once_goes_on_as_one_that_grew() {
        for count in [0, 1, 2, 1_699, 1_700, 1_701, 9_000, 60_000] {
            let hashes: Vec<u64> = (0..count).map(hash_of).collect();
            let mut builder = IdTableBuilder::new(&hashes);
            while builder.advance(&hashes, |_, _| true).unwrap() {}
            let mut table = builder.finish();
            assert_eq!(table.bytes, table.tables.iter().map(HashTable::allocation_size).sum::<usize>());
            assert!(table.tables.iter().all(|table| table.len() < 3_584));
            (count..count + 9_000).for_each(|id| table.insert(hash_of(id), id, hash_of));
            assert_eq!(table.len(), count as usize + 9_000);
            assert!((0..count + 9_000).all(|id| table.find(hash_of(id), |found| found == id) == Some(id)));
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_told_and_two_keys_with_one_hash_are_not() {
        let mut hashes: Vec<u64> = (0..5_000).map(hash_of).collect();
        (hashes[4_000], hashes[77]) = (hashes[7], hashes[78]);
        let build = |is_same: &dyn Fn(u32, u32) -> bool| {
            let mut builder = IdTableBuilder::new(&hashes);
            loop {
                match builder.advance(&hashes, is_same) {
                    Ok(true) => {}
                    Ok(false) => return Ok(builder.finish()),
                    Err(id) => return Err(id),
                }
            }
        };
        assert_eq!(build(&|a, b| (a, b) == (7, 4_000)).map(|table| table.len()), Err(4_000));
        let table = build(&|_, _| false).unwrap();
        assert!([7, 4_000].iter().all(|id| table.find(hashes[7], |found| found == *id) == Some(*id)));
    }

    #[test]
    fn equal_hashes_are_kept_apart_by_their_ids() {
        let mut table = IdTable::default();
        for id in 0..3_000 {
            table.insert(7, id, |_| 7);
        }
        assert!((0..3_000).all(|id| table.find(7, |found| found == id) == Some(id)));
    }
}
