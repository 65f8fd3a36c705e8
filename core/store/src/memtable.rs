//! L0: the rows of one shard group that are in memory.
//!
//! Owns: per series an append-only table in columns, twice: rows later than everything that the series has in ordered
//! files, and the *late* rows (the disorder table).
//! Invariants: the owning core alone touches it; rows stay in arrival order until they are read; for equal times the
//! later row wins, field by field. A delete is noted at once and carried out series by series: before the series is
//! appended to or read, and for all before the memtable is frozen.
//! Knows nothing of keys, files and the log.

use crate::{
    cells::{Cells, StringHeap},
    deletion::Deletion,
    id::{FieldId, SeriesId},
    slots::Slots,
    sorted::SortedRows,
};
use std::{collections::BTreeSet, rc::Rc};
use tidemill_index::{ChunkedVec, WatermarkColumn};

/// The rows of one shard group.
#[derive(Default)]
pub struct Memtable {
    runs: [Run; 2],
    strings: StringHeap,
    /// Lists of fields, each held once for all tables that have it.
    shapes: BTreeSet<Rc<[FieldId]>>,
    /// Deletes that some series may not have carried out yet, oldest first.
    pending: Vec<Pending>,
    /// Deletes before the first pending one: all series have carried them out.
    deletions_done: u32,
    bytes: usize,
    rows: u64,
    min_time: Option<i64>,
    max_time: i64,
}

/// How far [`Memtable::settle`] has come, and how many deletes are to be behind all series at its end.
#[derive(Clone, Copy, Debug)]
pub struct SettlePlace {
    kind: RunKind,
    slot: usize,
    deletions: u32,
}

/// Which of the two tables of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunKind {
    /// Later than all ordered files of the series.
    Ordered = 0,
    /// Everything else.
    Late = 1,
}

/// Tables are in arrival order of their first row, which the log decides.
#[derive(Default)]
struct Run {
    slots: Slots,
    tables: ChunkedVec<SeriesTable>,
}

struct SeriesTable {
    series: SeriesId,
    /// The series' watermark when the table was made: what is not newer is late.
    watermark: i64,
    /// Deletes that are behind it.
    deletions_done: u32,
    cells: Cells,
}

/// A delete that was noted.
struct Pending {
    deletion: Rc<Deletion>,
    /// The ids of the deletion's field, if it has one.
    fields: Vec<FieldId>,
}

/// Rows of one series and one list of fields, on their way into the memtable: `cells` holds the times, then one column
/// after the other, `rows` words each (see [`crate::cells`] for the words).
pub struct IncomingRows<'a> {
    pub series: SeriesId,
    /// The series' canonical key.
    pub key: &'a [u8],
    pub fields: &'a [FieldId],
    pub rows: usize,
    pub cells: &'a [u64],
}

impl Memtable {
    /// Where strings are put before their handles go into cells.
    pub fn strings_mut(&mut self) -> &mut StringHeap {
        &mut self.strings
    }

    /// Newest time of all rows that were appended.
    pub fn newest(&self) -> Option<i64> {
        self.min_time.map(|_| self.max_time)
    }

    /// Appends rows in arrival order. `watermarks` are those of the shard group's retention policy; up to the time
    /// `floor` rows of every series are late.
    pub fn append(&mut self, incoming: &IncomingRows<'_>, watermarks: &mut WatermarkColumn, floor: Option<i64>) {
        let times = &incoming.cells[..incoming.rows];
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for time in times {
            min = min.min(*time as i64);
            max = max.max(*time as i64);
        }
        // Of deleted rows too: whether they have been settled must make no difference.
        self.max_time = if self.min_time.is_none() { max } else { self.max_time.max(max) };
        self.min_time = Some(self.min_time.map_or(min, |known| known.min(min)));
        self.rows += incoming.rows as u64;
        let ordered = &self.runs[RunKind::Ordered as usize];
        let watermark = match ordered.slots.find(incoming.series) {
            // The watermark has risen since by the table's own rows.
            Some(slot) => Some(ordered.tables[slot].watermark).filter(|time| *time != NO_WATERMARK),
            None => watermarks.watermark(incoming.series),
        };
        let watermark = watermark.max(floor);
        match watermark {
            Some(watermark) if min <= watermark => self.append_split(incoming, watermark),
            _ => self.append_run(RunKind::Ordered, incoming, 0..incoming.rows, watermark),
        }
        if watermark.is_none_or(|watermark| max > watermark) {
            watermarks.raise(incoming.series, max);
        }
    }

    /// Some of the rows are late: cut into stretches of one kind.
    fn append_split(&mut self, incoming: &IncomingRows<'_>, watermark: i64) {
        let kind = |row: usize| {
            if incoming.cells[row] as i64 <= watermark { RunKind::Late } else { RunKind::Ordered }
        };
        let mut start = 0;
        while start < incoming.rows {
            let mut end = start + 1;
            while end < incoming.rows && kind(end) == kind(start) {
                end += 1;
            }
            self.append_run(kind(start), incoming, start..end, Some(watermark));
            start = end;
        }
    }

    fn append_run(
        &mut self,
        kind: RunKind,
        incoming: &IncomingRows<'_>,
        rows: std::ops::Range<usize>,
        watermark: Option<i64>,
    ) {
        let deletions = self.deletions_done + self.pending.len() as u32;
        let run = &mut self.runs[kind as usize];
        let slot = match run.slots.find(incoming.series) {
            Some(slot) => {
                if run.tables[slot].deletions_done != deletions {
                    self.carry_out(kind, slot, incoming.key);
                }
                slot
            }
            None => {
                self.bytes -= run.byte_size();
                let slot = run.tables.len();
                run.slots.insert(incoming.series, slot as u32);
                let cells = Cells::new(shape(&mut self.shapes, incoming.fields));
                let watermark = watermark.unwrap_or(NO_WATERMARK);
                let series = incoming.series;
                run.tables.push(SeriesTable { series, deletions_done: deletions, watermark, cells });
                self.bytes += run.byte_size();
                slot
            }
        };
        let cells = &mut self.runs[kind as usize].tables[slot].cells;
        let before = cells.byte_size();
        cells.append(incoming.fields, incoming.cells, incoming.rows, rows);
        self.bytes += cells.byte_size() - before;
    }

    /// Notes that the points which a deletion covers are gone, of those that are there now. `fields` are the ids of its
    /// field.
    pub fn delete(&mut self, deletion: Rc<Deletion>, fields: Vec<FieldId>) {
        if self.min_time.is_some_and(|min| deletion.touches(min, self.max_time)) {
            self.pending.push(Pending { deletion, fields });
        }
    }

    /// Carries out what was deleted of one series.
    pub fn settle_series(&mut self, series: SeriesId, key: &[u8]) {
        for kind in [RunKind::Ordered, RunKind::Late] {
            if let Some(slot) = self.runs[kind as usize].slots.find(series) {
                self.carry_out(kind, slot, key);
            }
        }
    }

    /// Carries out deletes for at most `tables` tables from the given place on. Returns the place to go on from; `None`
    /// when nothing is pending any more.
    pub fn settle<'k>(
        &mut self,
        from: SettlePlace,
        tables: usize,
        key_of: impl Fn(SeriesId) -> &'k [u8],
    ) -> Option<SettlePlace> {
        let SettlePlace { kind, slot, deletions } = from;
        if self.pending.is_empty() {
            return None;
        }
        let run = &self.runs[kind as usize];
        let end = run.tables.len().min(slot.saturating_add(tables));
        for slot in slot..end {
            self.carry_out(kind, slot, key_of(self.runs[kind as usize].tables[slot].series));
        }
        let deletions = deletions.max(self.deletions_done);
        if end < self.runs[kind as usize].tables.len() {
            return Some(SettlePlace { kind, slot: end, deletions });
        }
        if kind == RunKind::Ordered {
            return Some(SettlePlace { kind: RunKind::Late, slot: 0, deletions });
        }
        // Tables that came meanwhile are behind these deletions from their beginning.
        let done = (deletions - self.deletions_done) as usize;
        self.pending.drain(..done.min(self.pending.len()));
        self.deletions_done = deletions;
        (!self.pending.is_empty()).then(|| self.settle_start())
    }

    /// Where [`Memtable::settle`] begins.
    pub fn settle_start(&self) -> SettlePlace {
        let deletions = self.deletions_done + self.pending.len() as u32;
        SettlePlace { kind: RunKind::Ordered, slot: 0, deletions }
    }

    fn carry_out(&mut self, kind: RunKind, slot: usize, key: &[u8]) {
        let table = &mut self.runs[kind as usize].tables[slot];
        let before = table.cells.byte_size();
        let first = (table.deletions_done.max(self.deletions_done) - self.deletions_done) as usize;
        for Pending { deletion, fields } in self.pending.iter().skip(first).filter(|known| known.deletion.covers(key)) {
            let removed = match deletion.field() {
                Some(_) => table.cells.delete_fields(fields),
                None => table.cells.delete(&deletion.ranges(key).collect::<Vec<_>>()),
            };
            self.rows -= removed as u64;
        }
        table.deletions_done = self.deletions_done + self.pending.len() as u32;
        self.bytes = self.bytes + table.cells.byte_size() - before;
    }

    /// Whether the series has a row. What was deleted of it must be settled.
    pub fn has_rows(&self, series: SeriesId) -> bool {
        self.runs.iter().any(|run| run.slots.find(series).is_some_and(|slot| run.tables[slot].cells.rows() > 0))
    }

    /// The rows of one series in one run, sorted, equal times merged; `None` if there are none in the inclusive range.
    /// The fields are the table's own. What was deleted of the series must be settled.
    pub fn sorted(&self, kind: RunKind, series: SeriesId, min_time: i64, max_time: i64) -> Option<SortedRows<'_>> {
        let run = &self.runs[kind as usize];
        let table = &run.tables[run.slots.find(series)?];
        SortedRows::new(&table.cells, &self.strings, min_time, max_time)
    }

    /// Series with a table in this run, in order of their first row.
    pub fn series(&self, kind: RunKind) -> impl Iterator<Item = SeriesId> {
        self.runs[kind as usize].tables.iter().filter(|table| table.cells.rows() > 0).map(|table| table.series)
    }

    /// Gives back the memory of at most so many tables, of a memtable that nobody reads any more. Whether some are left:
    /// a hundred thousand series at once would hold the core for ten milliseconds.
    pub fn discard(&mut self, tables: usize) -> bool {
        for _ in 0..tables {
            let taken = self.runs.iter_mut().any(|run| run.tables.pop().is_some());
            if !taken {
                return false;
            }
        }
        self.runs.iter().any(|run| !run.tables.is_empty())
    }

    /// Bytes held, approximately.
    pub fn byte_size(&self) -> usize {
        self.bytes + self.strings.byte_size()
    }

    pub fn row_count(&self) -> u64 {
        self.rows
    }

    /// Whether a row may lie in the inclusive range.
    pub fn touches(&self, min_time: i64, max_time: i64) -> bool {
        self.rows > 0 && self.min_time.is_some_and(|min| min <= max_time) && self.max_time >= min_time
    }

    /// Whether a series has a table, with rows or without.
    pub fn is_untouched(&self) -> bool {
        self.runs.iter().all(|run| run.tables.is_empty())
    }

    /// Whether all rows lie in the inclusive range.
    pub fn lies_within(&self, range: (i64, i64)) -> bool {
        self.min_time.is_none_or(|min| range.0 <= min) && self.max_time <= range.1
    }
}

/// In a table: its series had no watermark. No row is as old as this.
const NO_WATERMARK: i64 = i64::MIN;

impl Run {
    fn byte_size(&self) -> usize {
        self.slots.byte_size() + self.tables.byte_size()
    }
}

/// The list of fields as it is shared.
fn shape(shapes: &mut BTreeSet<Rc<[FieldId]>>, fields: &[FieldId]) -> Rc<[FieldId]> {
    if let Some(shared) = shapes.get(fields) {
        return shared.clone();
    }
    let shared: Rc<[FieldId]> = fields.into();
    shapes.insert(shared.clone());
    shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cells::CellType,
        entry::{Measurements, TagCondition},
        manifest::Tombstone,
    };
    use tidemill_column::Value;

    const FIELD: FieldId = FieldId(0);

    fn key_of(series: u32) -> Vec<u8> {
        format!("m,s={series}").into_bytes()
    }

    fn deletion(condition: TagCondition, field: Option<&[u8]>, min_time: i64, max_time: i64) -> Rc<Deletion> {
        let (measurements, field) = (Measurements::All, field.map(<[u8]>::to_vec));
        Rc::new(Deletion::new(Tombstone { index: 9, measurements, condition, field, min_time, max_time }).unwrap())
    }

    fn put(memtable: &mut Memtable, watermarks: &mut WatermarkColumn, series: u32, rows: &[(i64, u64)]) {
        let cells: Vec<u64> = rows.iter().map(|row| row.0 as u64).chain(rows.iter().map(|row| row.1)).collect();
        let key = key_of(series);
        let (series, fields) = (SeriesId(series), &[FIELD][..]);
        memtable.append(&IncomingRows { series, key: &key, fields, rows: rows.len(), cells: &cells }, watermarks, None);
    }

    fn values(memtable: &Memtable, kind: RunKind, series: u32) -> Vec<(i64, i64)> {
        let Some(rows) = memtable.sorted(kind, SeriesId(series), i64::MIN, i64::MAX) else { return Vec::new() };
        let column = rows.column(FIELD, CellType::Integer).unwrap();
        let value = |row| match column.value(row) {
            Some(Value::Integer(value)) => value,
            other => panic!("{other:?}"),
        };
        rows.times().iter().enumerate().map(|(row, time)| (*time, value(row))).collect()
    }

    #[test]
    fn disorder_sorts_and_the_later_of_equal_times_wins() {
        let (mut memtable, mut watermarks) = (Memtable::default(), WatermarkColumn::default());
        put(&mut memtable, &mut watermarks, 1, &[(10, 1), (30, 2)]);
        put(&mut memtable, &mut watermarks, 1, &[(20, 3), (10, 4)]);
        put(&mut memtable, &mut watermarks, 2, &[(5, 9)]);
        assert_eq!(values(&memtable, RunKind::Ordered, 1), [(10, 4), (20, 3), (30, 2)]);
        assert_eq!(memtable.row_count(), 5);
        assert!(memtable.touches(30, 40) && memtable.touches(0, 5) && !memtable.touches(31, 40));
        assert_eq!(memtable.shapes.len(), 1);
    }

    #[test]
    fn rows_at_or_before_the_watermark_are_late_and_it_moves_with_the_memtable() {
        let (mut memtable, mut watermarks) = (Memtable::default(), WatermarkColumn::default());
        watermarks.raise(SeriesId(1), 20);
        put(&mut memtable, &mut watermarks, 1, &[(19, 1), (21, 2), (20, 3), (40, 4)]);
        assert_eq!(values(&memtable, RunKind::Late, 1), [(19, 1), (20, 3)]);
        assert_eq!(values(&memtable, RunKind::Ordered, 1), [(21, 2), (40, 4)]);
        // Rows of the same memtable sort in memory: they are not late for each other.
        put(&mut memtable, &mut watermarks, 1, &[(30, 5)]);
        assert_eq!(values(&memtable, RunKind::Ordered, 1), [(21, 2), (30, 5), (40, 4)]);
        let mut next = Memtable::default();
        put(&mut next, &mut watermarks, 1, &[(40, 5), (41, 6)]);
        assert_eq!(
            (values(&next, RunKind::Late, 1), values(&next, RunKind::Ordered, 1)),
            (vec![(40, 5)], vec![(41, 6)])
        );
        assert_eq!(watermarks.watermark(SeriesId(1)), Some(41));
    }

    #[test]
    fn late_rows_alone_leave_the_watermark_to_the_other_shard_groups() {
        let (mut old, mut new, mut watermarks) = (Memtable::default(), Memtable::default(), WatermarkColumn::default());
        put(&mut new, &mut watermarks, 1, &[(100, 1)]);
        put(&mut old, &mut watermarks, 1, &[(50, 2)]);
        assert_eq!(values(&old, RunKind::Late, 1), [(50, 2)]);
        put(&mut new, &mut watermarks, 1, &[(90, 3)]);
        assert_eq!(values(&new, RunKind::Ordered, 1), [(90, 3), (100, 1)]);
        assert_eq!(watermarks.watermark(SeriesId(1)), Some(100));
    }

    /// Settles everything in steps of two tables.
    fn settle(memtable: &mut Memtable) {
        let keys: Vec<Vec<u8>> = (0..9).map(key_of).collect();
        let mut place = Some(memtable.settle_start());
        while let Some(from) = place {
            place = memtable.settle(from, 2, |series| &keys[series.0 as usize]);
        }
    }

    #[test]
    fn a_delete_takes_its_rows_out_of_both_runs_whoever_settles_it() {
        for settle_first in [false, true] {
            let (mut memtable, mut watermarks) = (Memtable::default(), WatermarkColumn::default());
            watermarks.raise(SeriesId(1), 20);
            put(&mut memtable, &mut watermarks, 1, &[(19, 1), (21, 2), (40, 4)]);
            put(&mut memtable, &mut watermarks, 2, &[(21, 7)]);
            let one = TagCondition::Equal { key: b"s".to_vec(), value: b"1".to_vec() };
            memtable.delete(deletion(one, None, 19, 21), Vec::new());
            if settle_first {
                settle(&mut memtable);
            }
            // What comes behind the delete stays.
            put(&mut memtable, &mut watermarks, 1, &[(21, 5)]);
            put(&mut memtable, &mut watermarks, 3, &[(20, 6)]);
            memtable.settle_series(SeriesId(1), &key_of(1));
            assert_eq!(values(&memtable, RunKind::Late, 1), []);
            assert_eq!(values(&memtable, RunKind::Ordered, 1), [(21, 5), (40, 4)]);
            settle(&mut memtable);
            assert_eq!(values(&memtable, RunKind::Ordered, 2), [(21, 7)]);
            assert_eq!(values(&memtable, RunKind::Ordered, 3), [(20, 6)]);
            memtable.delete(deletion(TagCondition::All, None, i64::MIN, i64::MAX), Vec::new());
            memtable.delete(deletion(TagCondition::All, None, 0, 1), Vec::new());
            settle(&mut memtable);
            assert!(!memtable.has_rows(SeriesId(1)) && memtable.row_count() == 0);
            put(&mut memtable, &mut watermarks, 2, &[(0, 1)]);
            assert_eq!(memtable.row_count(), 1);
        }
    }

    #[test]
    fn a_memtable_is_discarded_table_by_table() {
        let (mut memtable, mut watermarks) = (Memtable::default(), WatermarkColumn::default());
        watermarks.raise(SeriesId(1), 20);
        (0..5).for_each(|series| put(&mut memtable, &mut watermarks, series, &[(19, 1), (21, 2)]));
        let steps = std::iter::from_fn(|| memtable.discard(2).then_some(())).count();
        // Five ordered tables and a late one.
        assert_eq!(steps, 2);
        assert!(!memtable.discard(2) && !Memtable::default().discard(1));
    }

    #[test]
    fn a_deleted_field_takes_its_rows_along_where_they_hold_nothing_else() {
        let (mut memtable, mut watermarks) = (Memtable::default(), WatermarkColumn::default());
        put(&mut memtable, &mut watermarks, 1, &[(1, 1), (2, 2)]);
        memtable.delete(deletion(TagCondition::All, Some(b"v"), i64::MIN, i64::MAX), vec![FIELD]);
        put(&mut memtable, &mut watermarks, 1, &[(2, 3)]);
        settle(&mut memtable);
        assert_eq!(values(&memtable, RunKind::Ordered, 1), [(2, 3)]);
        assert_eq!(memtable.row_count(), 1);
    }
}
