//! The points of one shard group in one partition: active memtable, frozen ones, files.

use crate::{
    block_lane::{Blocks, Lane, Slice},
    cursor::Scan,
    deletion::{Deletion, ranges_from, ranges_of},
    entry::Floats,
    id::{DatabaseId, FieldId, SeriesId},
    index::SeriesIndex,
    manifest::FileRecord,
    memtable::{Memtable, RunKind},
    pace::breathe,
    read_error::ReadError,
    tsm_file::TsmFile,
};
use roaring::RoaringBitmap;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};
use tidemill_column::{Bitmap, Column, Values};
use tidemill_disk::DiskFile;
use tidemill_tsm::key;

/// Tables of a memtable that are given back in one go: below 100 us.
const TABLES_PER_TURN: usize = 512;

/// L0 and files of a shard group.
pub struct ShardGroup<F: DiskFile> {
    pub database: DatabaseId,
    pub policy: u32,
    pub active: Rc<RefCell<Memtable>>,
    /// On their way to files, oldest first.
    pub frozen: Vec<Rc<Frozen>>,
    /// By [`crate::FileRecord::rank`].
    pub files: Rc<Vec<Rc<TsmFile<F>>>>,
    /// Newest time that was ever frozen; the smallest time if none was.
    pub newest_frozen: i64,
}

/// A memtable that takes no more rows.
pub struct Frozen {
    /// Index of the flush entry that froze it.
    pub generation: u64,
    /// How its floats are to be encoded, as that entry said.
    pub floats: Floats,
    pub memtable: Rc<RefCell<Memtable>>,
    /// What was deleted since: the rows stay as they are, so that the files are the same on every replica.
    pub tombstones: RefCell<Vec<Rc<Deletion>>>,
}

/// A shard group at one moment: rows that move to files later are still found here, and no file vanishes.
pub struct ShardGroupView<F: DiskFile> {
    active: Rc<RefCell<Memtable>>,
    frozen: Vec<Rc<Frozen>>,
    files: Rc<Vec<Rc<TsmFile<F>>>>,
}

impl<F: DiskFile> ShardGroup<F> {
    pub fn new(database: DatabaseId, policy: u32) -> ShardGroup<F> {
        let (active, frozen, files) = (Rc::default(), Vec::new(), Rc::default());
        ShardGroup { database, policy, active, frozen, files, newest_frozen: i64::MIN }
    }

    /// Newest time that was ever written, whether the row is still there or not.
    pub fn newest(&self) -> i64 {
        self.active.borrow().newest().map_or(self.newest_frozen, |time| time.max(self.newest_frozen))
    }

    /// Freezes the active memtable, if it has rows. What was deleted of them must not come into files.
    pub fn freeze(&mut self, generation: u64, floats: Floats, index: &SeriesIndex) -> bool {
        if self.active.borrow().is_untouched() {
            return false;
        }
        self.newest_frozen = self.newest();
        let mut place = Some(self.active.borrow().settle_start());
        while let Some(from) = place {
            place = self.active.borrow_mut().settle(from, usize::MAX, |series| index.key(series));
        }
        let memtable = std::mem::take(&mut self.active);
        if memtable.borrow().row_count() == 0 {
            // All of its rows were deleted. Its tables must not stay either: after a restart there are none, and the
            // rows to come are to be sorted alike.
            return false;
        }
        self.frozen.push(Rc::new(Frozen { generation, floats, memtable, tombstones: RefCell::default() }));
        true
    }

    /// The files of a flush take over from the memtable that they were written from, which is given back. Tombstones that
    /// came while it was written go along.
    pub fn thaw(&mut self, generation: u64, files: Vec<TsmFile<F>>) -> Option<Rc<Frozen>> {
        let position = self.frozen.iter().position(|frozen| frozen.generation == generation)?;
        let frozen = self.frozen.remove(position);
        let mut all = self.files.as_ref().clone();
        for file in files {
            frozen.tombstones.borrow().iter().for_each(|deletion| file.add_tombstone(deletion));
            all.push(Rc::new(file));
        }
        self.set_files(all);
        Some(frozen)
    }

    /// The files of a copy take over from its sources; tombstones that the copy did not apply go along.
    pub fn replace(&mut self, copy: u64, sources: &[Rc<TsmFile<F>>], made: Vec<Rc<TsmFile<F>>>) {
        let mut all = self.files.as_ref().clone();
        all.retain(|file| !sources.iter().any(|source| Rc::ptr_eq(source, file)));
        let left = deletions_behind(copy, sources);
        for file in made {
            left.iter().for_each(|deletion| file.add_tombstone(deletion));
            all.push(file);
        }
        self.set_files(all);
    }

    fn set_files(&mut self, mut files: Vec<Rc<TsmFile<F>>>) {
        files.sort_by_key(|file| file.rank());
        self.files = Rc::new(files);
    }

    /// Points that the deletion covers are gone. `fields` are the ids of its field, if it has one.
    pub fn delete(&mut self, deletion: &Rc<Deletion>, fields: &[FieldId]) {
        self.active.borrow_mut().delete(deletion.clone(), fields.to_vec());
        for frozen in &self.frozen {
            frozen.tombstones.borrow_mut().push(deletion.clone());
        }
        self.files.iter().for_each(|file| file.add_tombstone(deletion));
    }

    /// All series that have rows in memory.
    pub fn series_in_memory(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        let memtables = self.frozen.iter().map(|frozen| &frozen.memtable).chain([&self.active]);
        for memtable in memtables {
            for kind in [RunKind::Ordered, RunKind::Late] {
                all.extend(memtable.borrow().series(kind).map(|series| series.0));
            }
        }
        all
    }

    pub fn view(&self) -> ShardGroupView<F> {
        ShardGroupView { active: self.active.clone(), frozen: self.frozen.clone(), files: self.files.clone() }
    }

    /// Bytes of rows in memory.
    pub fn memtable_bytes(&self) -> (usize, usize) {
        let frozen = self.frozen.iter().map(|frozen| frozen.memtable.borrow().byte_size()).sum();
        (self.active.borrow().byte_size(), frozen)
    }
}

/// What was deleted of the files by entries behind the copy's, by the index of those entries.
pub fn deletions_behind<F: DiskFile>(copy: u64, files: &[Rc<TsmFile<F>>]) -> Vec<Rc<Deletion>> {
    let mut left: BTreeMap<u64, Rc<Deletion>> = BTreeMap::new();
    for file in files {
        let behind = file.all_deletions().into_iter().filter(|deletion| deletion.index() > copy);
        left.extend(behind.map(|deletion| (deletion.index(), deletion)));
    }
    left.into_values().collect()
}

impl Frozen {
    /// A file of these rows as the manifest names it: with the deletes that came since. The series that they emptied are
    /// out of the index that is published with it.
    pub fn marked(&self, record: &FileRecord) -> FileRecord {
        let known = self.tombstones.borrow();
        let touching = known.iter().filter(|deletion| deletion.touches(record.min_time, record.max_time));
        FileRecord { tombstones: touching.map(|deletion| deletion.tombstone().clone()).collect(), ..record.clone() }
    }

    /// Gives back the memory little by little, if this is the last one who reads it.
    pub async fn discard(self: Rc<Frozen>) {
        let Ok(memtable) = Rc::try_unwrap(self).map(|frozen| frozen.memtable) else { return };
        let Ok(memtable) = Rc::try_unwrap(memtable) else { return };
        let mut memtable = memtable.into_inner();
        while memtable.discard(TABLES_PER_TURN) {
            breathe().await;
        }
    }

    /// What was deleted of the series.
    fn deletions(&self, key: &[u8]) -> Vec<Rc<Deletion>> {
        self.tombstones.borrow().iter().filter(|deletion| deletion.covers(key)).cloned().collect()
    }
}

impl<F: DiskFile> ShardGroupView<F> {
    /// Lanes of one series, oldest source first.
    pub async fn lanes(&self, scan: &Scan) -> Result<Vec<Lane<F>>, ReadError> {
        let range = scan.range;
        let mut lanes = Vec::new();
        let mut tsm_key = [&scan.key, key::SEPARATOR].concat();
        let prefix = tsm_key.len();
        for file in self.files.iter().filter(|file| file.touches(range.0, range.1)) {
            let deletions = file.deletions(&scan.key);
            for (position, field) in scan.fields.iter().enumerate() {
                let deleted = ranges_of(&deletions, &scan.key, &field.name);
                if deleted.iter().flat_map(|ranges| ranges.iter()).any(|gone| file.lies_within(*gone)) {
                    continue;
                }
                tsm_key.truncate(prefix);
                tsm_key.extend_from_slice(&field.name);
                if let Some(found) = file.find(&tsm_key, range).await? {
                    lanes.push(Lane::of_blocks(position, Blocks::new(file.clone(), found), range, deleted));
                }
            }
        }
        for frozen in &self.frozen {
            push_rows(&frozen.memtable.borrow(), scan, &frozen.deletions(&scan.key), &mut lanes);
        }
        self.active.borrow_mut().settle_series(scan.series, &scan.key);
        push_rows(&self.active.borrow(), scan, &[], &mut lanes);
        Ok(lanes)
    }

    /// Whether the active memtable has a row of the series.
    pub fn has_active_rows(&self, series: SeriesId, series_key: &[u8]) -> bool {
        self.active.borrow_mut().settle_series(series, series_key);
        self.active.borrow().has_rows(series)
    }

    /// Whether it is certain, without reading a file, that no point of the series is left.
    pub fn is_surely_without(&self, series: SeriesId, series_key: &[u8]) -> bool {
        let is_gone = |deletions: &[Rc<Deletion>], lies_within: &dyn Fn((i64, i64)) -> bool| {
            let is_whole = |deletion: &&Rc<Deletion>| deletion.field().is_none() && deletion.points().is_none();
            deletions.iter().filter(is_whole).any(|deletion| lies_within(deletion.range()))
        };
        let is_without = |frozen: &Rc<Frozen>| {
            let memtable = frozen.memtable.borrow();
            !memtable.has_rows(series) || is_gone(&frozen.deletions(series_key), &|range| memtable.lies_within(range))
        };
        !self.has_active_rows(series, series_key)
            && self.frozen.iter().all(is_without)
            && self.files.iter().all(|file| is_gone(&file.deletions(series_key), &|range| file.lies_within(range)))
    }

    /// Whether every file and every frozen memtable of the view is one of the other.
    pub fn has_only_sources_of(&self, other: &ShardGroupView<F>) -> bool {
        self.files.iter().all(|file| other.files.iter().any(|known| Rc::ptr_eq(file, known)))
            && self.frozen.iter().all(|frozen| other.frozen.iter().any(|known| Rc::ptr_eq(frozen, known)))
    }
}

fn covered(deleted: &[(i64, i64)], time: i64) -> bool {
    ranges_from(deleted, time).first().is_some_and(|(min, _)| *min <= time)
}

/// The memtable's rows of one series as lanes.
fn push_rows<F: DiskFile>(memtable: &Memtable, scan: &Scan, deletions: &[Rc<Deletion>], lanes: &mut Vec<Lane<F>>) {
    let (series, range) = (scan.series, scan.range);
    if !memtable.touches(range.0, range.1) {
        return;
    }
    for kind in [RunKind::Ordered, RunKind::Late] {
        let Some(rows) = memtable.sorted(kind, series, range.0, range.1) else { continue };
        for (position, field) in scan.fields.iter().enumerate() {
            let deleted = ranges_of(deletions, &scan.key, &field.name);
            let deleted = deleted.as_deref().unwrap_or_default();
            for (id, field_type) in field.ids.iter().filter(|(id, _)| rows.fields().contains(id)) {
                let Some(column) = rows.column(*id, *field_type) else { continue };
                if let Some(slice) = present_rows(position, rows.times(), column, deleted) {
                    lanes.push(Lane::of_rows(slice));
                }
            }
        }
    }
}

/// The rows that hold a value that was not deleted.
fn present_rows(field: usize, times: &[i64], column: Column, deleted: &[(i64, i64)]) -> Option<Slice> {
    if column.valid.is_none() && deleted.is_empty() {
        return Some(Slice::new(field, times.to_vec(), column));
    }
    let valid = column.valid.clone().unwrap_or_else(|| Bitmap::filled(column.len(), true));
    let mut values = Values::new(column.values.field_type());
    let mut kept = Vec::new();
    for (row, time) in times.iter().enumerate() {
        if valid.bit(row) && !covered(deleted, *time) {
            kept.push(*time);
            values.push_from(&column.values, row);
        }
    }
    (!kept.is_empty()).then(|| Slice::new(field, kept, Column::dense(values)))
}
