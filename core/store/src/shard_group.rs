//! The points of one shard group in one partition: active memtable, frozen ones, files.

use crate::{
    block_lane::{Blocks, Lane, Slice},
    cursor::Scan,
    entry::Floats,
    id::{DatabaseId, SeriesId},
    manifest::{FileRecord, Tombstone, TombstoneScope},
    memtable::{Memtable, RunKind},
    read_error::ReadError,
    tsm_file::TsmFile,
};
use roaring::RoaringBitmap;
use std::{cell::RefCell, rc::Rc};
use tidemill_column::{Bitmap, Column, Values};
use tidemill_disk::DiskFile;
use tidemill_line::series_key;
use tidemill_tsm::key;

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
    pub tombstones: RefCell<Vec<(Covered, Tombstone)>>,
}

/// The series that a tombstone covers.
pub struct Covered(pub Rc<RoaringBitmap>);

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

    /// Freezes the active memtable, if it has rows.
    pub fn freeze(&mut self, generation: u64, floats: Floats) -> bool {
        if self.active.borrow().is_untouched() {
            return false;
        }
        self.newest_frozen = self.newest();
        let memtable = std::mem::take(&mut self.active);
        if memtable.borrow().row_count() == 0 {
            // All of its rows were deleted. Its tables must not stay either: after a restart there are none, and the
            // rows to come are to be sorted alike.
            return false;
        }
        self.frozen.push(Rc::new(Frozen { generation, floats, memtable, tombstones: RefCell::default() }));
        true
    }

    /// The files of a flush take over from the memtable that they were written from. Tombstones that came while it was
    /// written go along.
    pub fn thaw(&mut self, generation: u64, files: Vec<TsmFile<F>>) {
        let Some(position) = self.frozen.iter().position(|frozen| frozen.generation == generation) else { return };
        let frozen = self.frozen.remove(position);
        let mut all = self.files.as_ref().clone();
        for file in files {
            for (_, tombstone) in frozen.tombstones.borrow().iter() {
                file.add_tombstone(tombstone.clone());
            }
            all.push(Rc::new(file));
        }
        self.set_files(all);
    }

    /// The files of a copy take over from its sources; tombstones that the copy did not apply go along.
    pub fn replace(&mut self, copy: u64, sources: &[Rc<TsmFile<F>>], made: Vec<TsmFile<F>>) {
        let mut all = self.files.as_ref().clone();
        all.retain(|file| !sources.iter().any(|source| Rc::ptr_eq(source, file)));
        let left = tombstones_behind(copy, sources);
        for file in made {
            for tombstone in left.iter().filter(|tombstone| file.touches(tombstone.min_time, tombstone.max_time)) {
                file.add_tombstone(tombstone.clone());
            }
            all.push(Rc::new(file));
        }
        self.set_files(all);
    }

    fn set_files(&mut self, mut files: Vec<Rc<TsmFile<F>>>) {
        files.sort_by_key(|file| file.rank());
        self.files = Rc::new(files);
    }

    /// Points of these series in the range are gone: at once from the active memtable, by tombstone elsewhere.
    pub fn delete(&mut self, series: &Rc<RoaringBitmap>, tombstone: &Tombstone) {
        let (min, max) = (tombstone.min_time, tombstone.max_time);
        self.active.borrow_mut().delete(&|id| series.contains(id.0), min, max);
        for frozen in &self.frozen {
            frozen.tombstones.borrow_mut().push((Covered(series.clone()), tombstone.clone()));
        }
        // A file of a later entry was made without these points: this entry is being replayed.
        let before = |file: &&Rc<TsmFile<F>>| file.rank().1 < tombstone.index;
        for file in self.files.iter().filter(before).filter(|file| file.touches(min, max)) {
            let concerned = match &tombstone.scope {
                TombstoneScope::Measurement(_) => true,
                TombstoneScope::Series(keys) => keys.iter().any(|key| file.may_hold(key)),
            };
            if concerned {
                file.add_tombstone(tombstone.clone());
            }
        }
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

/// Tombstones of the files whose entries came after the copy's, by the index of their entries.
pub fn tombstones_behind<F: DiskFile>(copy: u64, files: &[Rc<TsmFile<F>>]) -> Vec<Tombstone> {
    let mut left: Vec<Tombstone> = Vec::new();
    for file in files {
        for tombstone in file.record().tombstones {
            if tombstone.index > copy && !left.contains(&tombstone) {
                left.push(tombstone);
            }
        }
    }
    left.sort_by_key(|tombstone| tombstone.index);
    left
}

impl Frozen {
    /// A file of these rows as the manifest names it: with the deletes that came since. The series that they emptied are
    /// out of the index that is published with it, so that a delete that is replayed does not find them any more.
    pub fn marked(&self, record: &FileRecord) -> FileRecord {
        let known = self.tombstones.borrow();
        let tombstones = known.iter().map(|(_, tombstone)| tombstone);
        let touching = tombstones.filter(|of| record.min_time <= of.max_time && record.max_time >= of.min_time);
        FileRecord { tombstones: touching.cloned().collect(), ..record.clone() }
    }

    /// Inclusive ranges in which points of the series are gone.
    fn deleted(&self, series: SeriesId) -> Vec<(i64, i64)> {
        let tombstones = self.tombstones.borrow();
        let covering = tombstones.iter().filter(|(covered, _)| covered.0.contains(series.0));
        covering.map(|(_, tombstone)| (tombstone.min_time, tombstone.max_time)).collect()
    }
}

impl<F: DiskFile> ShardGroupView<F> {
    /// Lanes of one series, oldest source first.
    pub async fn lanes(&self, scan: &Scan) -> Result<Vec<Lane<F>>, ReadError> {
        let (range, measurement) = (scan.range, series_key::measurement(&scan.key));
        let mut lanes = Vec::new();
        let mut tsm_key = [&scan.key, key::SEPARATOR].concat();
        let prefix = tsm_key.len();
        for file in self.files.iter().filter(|file| file.touches(range.0, range.1)) {
            let deleted = file.deleted(&scan.key, &measurement);
            if deleted.iter().flat_map(|deleted| deleted.iter()).any(|gone| file.lies_within(*gone)) {
                continue;
            }
            for (position, field) in scan.fields.iter().enumerate() {
                tsm_key.truncate(prefix);
                tsm_key.extend_from_slice(&field.name);
                if let Some(found) = file.find(&tsm_key, range).await? {
                    lanes.push(Lane::of_blocks(position, Blocks::new(file.clone(), found), range, deleted.clone()));
                }
            }
        }
        for frozen in &self.frozen {
            push_rows(&frozen.memtable.borrow(), scan, &frozen.deleted(scan.series), &mut lanes);
        }
        push_rows(&self.active.borrow(), scan, &[], &mut lanes);
        Ok(lanes)
    }

    /// Whether a row of the series is in memory.
    pub fn has_rows_in_memory(&self, series: SeriesId) -> bool {
        if self.active.borrow().has_rows(series) {
            return true;
        }
        self.frozen.iter().any(|frozen| {
            let deleted = frozen.deleted(series);
            let memtable = frozen.memtable.borrow();
            let mut runs = [RunKind::Ordered, RunKind::Late].into_iter();
            runs.any(|kind| {
                let rows = memtable.sorted(kind, series, i64::MIN, i64::MAX);
                rows.is_some_and(|rows| rows.times().iter().any(|time| !covered(&deleted, *time)))
            })
        })
    }

    /// Whether every file of the view is one of the other.
    pub fn has_only_files_of(&self, other: &ShardGroupView<F>) -> bool {
        self.files.iter().all(|file| other.files.iter().any(|known| Rc::ptr_eq(file, known)))
    }
}

fn covered(deleted: &[(i64, i64)], time: i64) -> bool {
    deleted.iter().any(|(min, max)| (*min..=*max).contains(&time))
}

/// The memtable's rows of one series as lanes.
fn push_rows<F: DiskFile>(memtable: &Memtable, scan: &Scan, deleted: &[(i64, i64)], lanes: &mut Vec<Lane<F>>) {
    let (series, range) = (scan.series, scan.range);
    if !memtable.touches(range.0, range.1) {
        return;
    }
    for kind in [RunKind::Ordered, RunKind::Late] {
        let Some(rows) = memtable.sorted(kind, series, range.0, range.1) else { continue };
        for (position, field) in scan.fields.iter().enumerate() {
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
