//! From a memtable to TSM files.
//!
//! The bytes of the files depend on the memtable alone, and so on the log: series in the order of their keys, fields in
//! the order of their names, blocks of a fixed number of points (I7).

use crate::{
    file_run::{FileRun, FileTarget, FlushError},
    id::{FieldId, SeriesId},
    index::SeriesIndex,
    manifest::FileRecord,
    memtable::{Memtable, RunKind},
    pace::breathe,
};
use std::{cell::RefCell, cmp::Ordering};
use tidemill_column::{Column, Values};
use tidemill_disk::{Disk, DiskFile};
use tidemill_tsm::{BLOCK_POINTS_DEFAULT, block, key};

/// Points that are encoded before other tasks of the core get a turn: about 300 us of work. A series of more takes several.
const POINTS_PER_TURN: u64 = 16 * 1024;
/// The same of series, each of which is taken out of the memtable and encoded: two steps.
const SERIES_PER_TURN: usize = 2 * 256;
/// Keys that are sorted in one go.
const SORT_RUN: usize = 2048;

/// Gives the dictionary for the time of one call; `false` when there is none any more, because the rows were dropped.
pub type LendIndex<'a> = dyn Fn(&mut dyn FnMut(&SeriesIndex)) -> bool + 'a;

/// Writes the ordered rows and, if there are any, the late rows of a memtable into a file each, durable and under
/// their final names. `None`: the rows were dropped meanwhile; whoever dropped them removes what was written.
pub async fn write_files<D: Disk>(
    disk: &D,
    folder: &str,
    target: FileTarget,
    generation: u64,
    memtable: &RefCell<Memtable>,
    lend_index: &LendIndex<'_>,
) -> Result<Option<Vec<FileRecord>>, FlushError> {
    let mut records = Vec::new();
    for kind in [RunKind::Ordered, RunKind::Late] {
        let series: Vec<SeriesId> = memtable.borrow().series(kind).collect();
        if series.is_empty() {
            continue;
        }
        let Some(series) = sort_by_key(series, lend_index).await else { return Ok(None) };
        // A key can hold one type a file. A field that changed its type inside this memtable (its points were deleted
        // in between) puts the other type into a file of its own.
        let mut round = 0;
        loop {
            let sequence = records.len() as u32 + 1;
            let record = FileRecord::begin(target, generation, sequence, kind == RunKind::Late);
            let mut run = FileRun::create(disk, folder, record, target.floats).await?;
            let Some(more) = write_series(&mut run, memtable, kind, round, &series, lend_index).await? else {
                run.abandon().await?;
                return Ok(None);
            };
            if let Some(record) = run.finish(disk, folder).await? {
                records.push(record);
            }
            if !more {
                break;
            }
            round += 1;
        }
    }
    Ok(Some(records))
}

/// Encodes all series; `round` counts the types of a field name that went into files before. Returns whether another
/// round is needed; `None` if the rows were dropped.
async fn write_series<F: DiskFile>(
    run: &mut FileRun<F>,
    memtable: &RefCell<Memtable>,
    kind: RunKind,
    round: usize,
    series: &[SeriesId],
    lend_index: &LendIndex<'_>,
) -> Result<Option<bool>, FlushError> {
    let mut more = false;
    let mut next = 0;
    let mut begun: Option<SeriesPoints> = None;
    while next < series.len() || begun.is_some() {
        let mut result = Ok(());
        let lent = lend_index(&mut |index| {
            let memtable = memtable.borrow();
            let mut left = POINTS_PER_TURN;
            for _ in 0..SERIES_PER_TURN {
                let Some(points) = &mut begun else {
                    let Some(id) = series.get(next) else { break };
                    next += 1;
                    match SeriesPoints::of(run, &memtable, kind, round, *id, index) {
                        Ok(points) => begun = points,
                        Err(error) => result = Err(error),
                    }
                    if result.is_err() {
                        break;
                    }
                    continue;
                };
                match points.encode(run, &mut left) {
                    Ok(true) => {
                        more |= points.more;
                        begun = None;
                    }
                    Ok(false) => {}
                    Err(error) => result = Err(error),
                }
                if result.is_err() || left == 0 {
                    break;
                }
            }
        });
        result?;
        if !lent {
            return Ok(None);
        }
        run.write_out().await?;
        breathe().await;
    }
    Ok(Some(more))
}

/// The points of a series that go into a file, and how many of them did.
struct SeriesPoints {
    times: Vec<i64>,
    fields: Vec<FieldPoints>,
    /// Of the present field, from this row on.
    field: usize,
    row: usize,
    shared: SharedTimes,
    /// Whether a field has another type, for another file.
    more: bool,
}

struct FieldPoints {
    key: Vec<u8>,
    /// Where some rows hold no value.
    own_times: Option<Vec<i64>>,
    values: Values,
}

impl SeriesPoints {
    /// Takes a series out of the memtable; `None` if it has no points.
    fn of<F: DiskFile>(
        run: &FileRun<F>,
        memtable: &Memtable,
        kind: RunKind,
        round: usize,
        series: SeriesId,
        index: &SeriesIndex,
    ) -> Result<Option<SeriesPoints>, FlushError> {
        let Some(rows) = memtable.sorted(kind, series, i64::MIN, i64::MAX) else { return Ok(None) };
        let mut names: Vec<FieldId> = rows.fields().to_vec();
        names.sort_by(|a, b| index.field(*a).name.cmp(&index.field(*b).name));
        let (mut more, mut fields) = (false, Vec::new());
        for same_name in names.chunk_by(|a, b| index.field(*a).name == index.field(*b).name) {
            // A field whose values were all deleted takes no turn.
            let mut types = same_name.iter().filter_map(|id| {
                let field = index.field(*id);
                rows.column(*id, field.field_type).map(|column| (field, column))
            });
            let Some((field, column)) = types.nth(round) else { continue };
            more |= same_name.len() > 1 && types.next().is_some();
            let mut key = Vec::new();
            key::join(index.key(series), &field.name, &mut key).map_err(|error| run.format_error(&error))?;
            let (own_times, values) = dense(rows.times(), column);
            fields.push(FieldPoints { key, own_times, values });
        }
        let times = rows.into_times();
        Ok(Some(SeriesPoints { times, fields, field: 0, row: 0, shared: SharedTimes::default(), more }))
    }

    /// Encodes blocks until about `left` points are used up, which are taken off it; whether that was the end.
    fn encode<F: DiskFile>(&mut self, run: &mut FileRun<F>, left: &mut u64) -> Result<bool, FlushError> {
        while let Some(FieldPoints { key, own_times, values }) = self.fields.get(self.field) {
            let times = own_times.as_deref().unwrap_or(&self.times);
            while self.row < times.len() {
                if *left == 0 {
                    return Ok(false);
                }
                let rows = self.row..(self.row + BLOCK_POINTS_DEFAULT).min(times.len());
                let mut own = Vec::new();
                let encoded = if own_times.is_none() {
                    self.shared.block(self.row / BLOCK_POINTS_DEFAULT, &times[rows.clone()])
                } else {
                    block::encode_times(&times[rows.clone()], &mut own);
                    &own
                };
                *left = left.saturating_sub(rows.len() as u64);
                self.row = rows.end;
                run.push_points(key, encoded, (times, values), rows)?;
            }
            self.field += 1;
            self.row = 0;
        }
        Ok(true)
    }
}

/// Encoded times of blocks that several fields of a series share.
#[derive(Default)]
struct SharedTimes {
    blocks: Vec<Vec<u8>>,
}

impl SharedTimes {
    fn block(&mut self, number: usize, times: &[i64]) -> &[u8] {
        if number == self.blocks.len() {
            let mut encoded = Vec::new();
            block::encode_times(times, &mut encoded);
            self.blocks.push(encoded);
        }
        &self.blocks[number]
    }
}

/// The rows that hold a value; own times only where some do not.
fn dense(times: &[i64], column: Column) -> (Option<Vec<i64>>, Values) {
    let Some(valid) = &column.valid else { return (None, column.values) };
    let mut values = Values::new(column.values.field_type());
    let mut kept = Vec::with_capacity(column.valid_count());
    for (row, time) in times.iter().enumerate().filter(|(row, _)| valid.bit(*row)) {
        kept.push(*time);
        values.push_from(&column.values, row);
    }
    (Some(kept), values)
}

/// Series in the order of their keys in a TSM index. Sorts runs and merges them, with a breath in between.
async fn sort_by_key(series: Vec<SeriesId>, lend_index: &LendIndex<'_>) -> Option<Vec<SeriesId>> {
    let mut runs: Vec<Vec<SeriesId>> = Vec::new();
    for part in series.chunks(SORT_RUN) {
        let mut run = part.to_vec();
        if !lend_index(&mut |index| run.sort_by(|a, b| compare_tsm_keys(index.key(*a), index.key(*b)))) {
            return None;
        }
        runs.push(run);
        breathe().await;
    }
    while runs.len() > 1 {
        let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
        let mut pairs = runs.into_iter();
        while let Some(first) = pairs.next() {
            match pairs.next() {
                Some(second) => merged.push(merge_runs(first, second, lend_index).await?),
                None => merged.push(first),
            }
        }
        runs = merged;
    }
    Some(runs.pop().unwrap_or_default())
}

async fn merge_runs(first: Vec<SeriesId>, second: Vec<SeriesId>, lend_index: &LendIndex<'_>) -> Option<Vec<SeriesId>> {
    let mut merged = Vec::with_capacity(first.len() + second.len());
    let (mut a, mut b) = (first.into_iter().peekable(), second.into_iter().peekable());
    loop {
        let mut left = false;
        let lent = lend_index(&mut |index| {
            for _ in 0..SORT_RUN {
                let next = match (a.peek(), b.peek()) {
                    (Some(x), Some(y)) if compare_tsm_keys(index.key(*x), index.key(*y)) == Ordering::Greater => {
                        b.next()
                    }
                    (Some(_), _) => a.next(),
                    (None, _) => b.next(),
                };
                left = next.is_some();
                merged.extend(next);
                if !left {
                    break;
                }
            }
        });
        if !lent || !left {
            return lent.then_some(merged);
        }
        breathe().await;
    }
}

/// Order of two series in a TSM index: as their keys with the separator of the field behind them.
fn compare_tsm_keys(a: &[u8], b: &[u8]) -> Ordering {
    let shared = a.len().min(b.len());
    a[..shared].cmp(&b[..shared]).then_with(|| {
        let rest = |key: &[u8]| -> [u8; 5] {
            // Where the shorter key ends its separator begins; four bytes and an end decide.
            let mut bytes = [0; 5];
            let tail = key[shared..].iter().chain(key::SEPARATOR).take(5);
            bytes.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
            bytes
        };
        rest(a).cmp(&rest(b)).then_with(|| a.len().cmp(&b.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn series_order_is_the_order_of_joined_keys(a in "[a#!~,]{1,6}", b in "[a#!~,]{1,6}") {
            let (mut joined_a, mut joined_b) = (Vec::new(), Vec::new());
            let ok = key::join(a.as_bytes(), b"f", &mut joined_a).is_ok() && key::join(b.as_bytes(), b"f", &mut joined_b).is_ok();
            prop_assume!(ok);
            prop_assert_eq!(compare_tsm_keys(a.as_bytes(), b.as_bytes()), joined_a.cmp(&joined_b));
        }
    }
}
