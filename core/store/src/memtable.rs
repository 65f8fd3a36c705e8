//! L0: the rows of one shard group that are in memory.
//!
//! Owns: per series an append-only table in columns, twice: rows later than everything that the series has in ordered
//! files, and the *late* rows (the disorder table).
//! Invariants: the owning core alone touches it; rows stay in arrival order until they are read; for equal times the
//! later row wins, field by field.
//! Knows nothing of keys, files and the log.

use crate::{
    cells::{Cells, StringHeap},
    id::{FieldId, IdHash, SeriesId},
    sorted::SortedRows,
};
use hashbrown::HashMap;

/// Map from series to table. The hasher is fixed, and the map is never iterated: tables are in arrival order of their
/// first row, which the log decides.
type Slots = HashMap<SeriesId, u32, IdHash>;

/// The rows of one shard group.
#[derive(Default)]
pub struct Memtable {
    runs: [Run; 2],
    strings: StringHeap,
    /// Newest time that each series has in ordered files.
    watermarks: Watermarks,
    bytes: usize,
    rows: u64,
    min_time: Option<i64>,
    max_time: i64,
}

/// Newest time in ordered files, by series.
pub type Watermarks = HashMap<SeriesId, i64, IdHash>;

/// Which of the two tables of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunKind {
    /// Later than all ordered files of the series.
    Ordered = 0,
    /// Everything else.
    Late = 1,
}

#[derive(Default)]
struct Run {
    slots: Slots,
    tables: Vec<SeriesTable>,
}

struct SeriesTable {
    series: SeriesId,
    cells: Cells,
}

/// Rows of one series and one list of fields, on their way into the memtable: `cells` holds the times, then one column
/// after the other, `rows` words each (see [`crate::cells`] for the words).
pub struct IncomingRows<'a> {
    pub series: SeriesId,
    pub fields: &'a [FieldId],
    pub rows: usize,
    pub cells: &'a [u64],
}

impl Memtable {
    /// An empty memtable above files that end at these times.
    pub fn above(watermarks: Watermarks) -> Memtable {
        Memtable { watermarks, ..Memtable::default() }
    }

    /// Where strings are put before their handles go into cells.
    pub fn strings_mut(&mut self) -> &mut StringHeap {
        &mut self.strings
    }

    /// Appends rows in arrival order.
    pub fn append(&mut self, incoming: &IncomingRows<'_>) {
        let times = &incoming.cells[..incoming.rows];
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for time in times {
            min = min.min(*time as i64);
            max = max.max(*time as i64);
        }
        self.min_time = Some(self.min_time.map_or(min, |known| known.min(min)));
        self.max_time = if self.rows == 0 { max } else { self.max_time.max(max) };
        self.rows += incoming.rows as u64;
        let watermark = self.watermarks.get(&incoming.series).copied();
        match watermark {
            Some(watermark) if min <= watermark => self.append_split(incoming, watermark),
            _ => self.append_run(RunKind::Ordered, incoming, 0..incoming.rows),
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
            self.append_run(kind(start), incoming, start..end);
            start = end;
        }
    }

    fn append_run(&mut self, kind: RunKind, incoming: &IncomingRows<'_>, rows: std::ops::Range<usize>) {
        let run = &mut self.runs[kind as usize];
        let slot = match run.slots.get(&incoming.series) {
            Some(slot) => *slot as usize,
            None => {
                run.slots.insert(incoming.series, run.tables.len() as u32);
                run.tables.push(SeriesTable { series: incoming.series, cells: Cells::new(incoming.fields) });
                self.bytes += size_of::<SeriesTable>() + size_of::<(SeriesId, u32)>() * 2;
                run.tables.len() - 1
            }
        };
        let cells = &mut run.tables[slot].cells;
        let before = cells.byte_size();
        cells.append(incoming.fields, incoming.cells, incoming.rows, rows);
        self.bytes += cells.byte_size() - before;
    }

    /// Removes the rows of these series in the inclusive time range.
    pub fn delete(&mut self, covers: &dyn Fn(SeriesId) -> bool, min_time: i64, max_time: i64) {
        for run in &mut self.runs {
            for table in run.tables.iter_mut().filter(|table| covers(table.series)) {
                let before = table.cells.byte_size();
                let removed = table.cells.delete(min_time, max_time);
                self.rows -= removed as u64;
                self.bytes = self.bytes + table.cells.byte_size() - before;
            }
        }
    }

    /// Whether the series has a row.
    pub fn has_rows(&self, series: SeriesId) -> bool {
        self.runs
            .iter()
            .any(|run| run.slots.get(&series).is_some_and(|slot| run.tables[*slot as usize].cells.rows() > 0))
    }

    /// The rows of one series in one run, sorted, equal times merged; `None` if there are none in the inclusive range.
    /// The fields are the table's own.
    pub fn sorted(&self, kind: RunKind, series: SeriesId, min_time: i64, max_time: i64) -> Option<SortedRows<'_>> {
        let run = &self.runs[kind as usize];
        let table = &run.tables[*run.slots.get(&series)? as usize];
        SortedRows::new(&table.cells, &self.strings, min_time, max_time)
    }

    /// Series with a table in this run, in order of their first row.
    pub fn series(&self, kind: RunKind) -> impl Iterator<Item = SeriesId> {
        self.runs[kind as usize].tables.iter().filter(|table| table.cells.rows() > 0).map(|table| table.series)
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

    /// The memtable that takes over from this one, which takes no more rows: it is above the files that these rows
    /// will be in.
    pub fn successor(&mut self) -> Memtable {
        let mut watermarks = std::mem::take(&mut self.watermarks);
        for table in &self.runs[RunKind::Ordered as usize].tables {
            if let Some(max) = table.cells.max_time() {
                let known = watermarks.entry(table.series).or_insert(max);
                *known = max.max(*known);
            }
        }
        Memtable::above(watermarks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::CellType;
    use tidemill_column::Value;

    const FIELD: FieldId = FieldId(0);

    fn put(memtable: &mut Memtable, series: u32, rows: &[(i64, u64)]) {
        let cells: Vec<u64> = rows.iter().map(|row| row.0 as u64).chain(rows.iter().map(|row| row.1)).collect();
        memtable.append(&IncomingRows { series: SeriesId(series), fields: &[FIELD], rows: rows.len(), cells: &cells });
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
        let mut memtable = Memtable::default();
        put(&mut memtable, 1, &[(10, 1), (30, 2)]);
        put(&mut memtable, 1, &[(20, 3), (10, 4)]);
        put(&mut memtable, 2, &[(5, 9)]);
        assert_eq!(values(&memtable, RunKind::Ordered, 1), [(10, 4), (20, 3), (30, 2)]);
        assert_eq!(memtable.row_count(), 5);
        assert!(memtable.touches(30, 40) && memtable.touches(0, 5) && !memtable.touches(31, 40));
    }

    #[test]
    fn rows_at_or_before_the_watermark_are_late_and_the_watermark_moves_with_a_flush() {
        let mut memtable = Memtable::above([(SeriesId(1), 20)].into_iter().collect());
        put(&mut memtable, 1, &[(19, 1), (21, 2), (20, 3), (40, 4)]);
        assert_eq!(values(&memtable, RunKind::Late, 1), [(19, 1), (20, 3)]);
        assert_eq!(values(&memtable, RunKind::Ordered, 1), [(21, 2), (40, 4)]);
        let mut next = memtable.successor();
        put(&mut next, 1, &[(40, 5), (41, 6)]);
        assert_eq!(
            (values(&next, RunKind::Late, 1), values(&next, RunKind::Ordered, 1)),
            (vec![(40, 5)], vec![(41, 6)])
        );
        assert_eq!(values(&memtable, RunKind::Ordered, 1), [(21, 2), (40, 4)]);
    }

    #[test]
    fn a_delete_takes_its_rows_out_of_both_runs() {
        let mut memtable = Memtable::above([(SeriesId(1), 20)].into_iter().collect());
        put(&mut memtable, 1, &[(19, 1), (21, 2), (40, 4)]);
        put(&mut memtable, 2, &[(21, 7)]);
        memtable.delete(&|series| series == SeriesId(1), 19, 21);
        assert_eq!(values(&memtable, RunKind::Late, 1), []);
        assert_eq!(values(&memtable, RunKind::Ordered, 1), [(40, 4)]);
        assert_eq!(values(&memtable, RunKind::Ordered, 2), [(21, 7)]);
        memtable.delete(&|_| true, i64::MIN, i64::MAX);
        assert!(!memtable.has_rows(SeriesId(1)) && memtable.row_count() == 0);
    }
}
