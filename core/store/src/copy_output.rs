//! The files that a copy makes.
//!
//! Owns: what blocks look like that come out: copied as they are, joined from small neighbours, or made of merged
//! points; and where one file ends and the next begins.
//! Invariants: all of it follows from the keys, blocks and points that are put in, in their order (I7). No block that is
//! made holds more than `BLOCK_POINTS_DEFAULT` points. What stays in memory is bounded by [`TAIL_BYTES_MAX`], not by
//! the number of series.
//! Knows nothing of sources and deletes.

use crate::{
    copy_source::decode,
    file_run::{BlockPlace, FileRun, FileTarget, FlushError},
    manifest::FileRecord,
};
use std::ops::Range;
use tidemill_column::{FieldType, Values};
use tidemill_disk::Disk;
use tidemill_tsm::{
    BLOCK_POINTS_DEFAULT, block,
    index::{CRC_BYTES, ENTRIES_MAX, Entry},
    key,
    statistics::BlockStatistics,
};

/// Blocks of at most so many points are joined with their neighbours. Above it an entry of the index and the heads of
/// the streams are a few per cent of a block, not worth decoding it.
const JOIN_POINTS_MAX: usize = BLOCK_POINTS_DEFAULT / 4;
/// Index and statistics of a file stay in memory until it is finished; from here on it ends at the next series.
const TAIL_BYTES_MAX: usize = 16 << 20;

/// What a copy did with blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyWork {
    /// Blocks that went along as they are, and their bytes.
    pub blocks_copied: u64,
    pub bytes_copied: u64,
    /// Blocks that were decoded: to be merged with others, or because points of them were deleted.
    pub blocks_merged: u64,
    /// Small blocks that were decoded to be joined.
    pub blocks_joined: u64,
    /// Blocks of which nothing was left.
    pub blocks_vanished: u64,
}

/// Where a copy writes.
pub struct CopyOutput<'a, D: Disk> {
    disk: &'a D,
    folder: &'a str,
    target: FileTarget,
    generation: u64,
    file_bytes_max: u64,
    /// The open files. A key has one type in a file: what has another type there goes into the next file of the list.
    open: Vec<Option<OpenFile<D>>>,
    finished: Vec<FileRecord>,
    sequence: u32,
    key: Vec<u8>,
    round: usize,
    run: Run,
    pub work: CopyWork,
}

struct OpenFile<D: Disk> {
    run: FileRun<D::File>,
    series: Vec<u8>,
    /// Of the present key.
    blocks: usize,
}

/// Points of the present key that are not in a block yet: a small block that may stay as it is, or points.
struct Run {
    small: Option<Small>,
    times: Vec<i64>,
    values: Values,
}

struct Small {
    entry: Entry,
    points: usize,
    statistics: Option<BlockStatistics>,
    stored: Vec<u8>,
}

impl Run {
    fn points(&self) -> usize {
        self.times.len() + self.small.as_ref().map_or(0, |small| small.points)
    }
}

impl<'a, D: Disk> CopyOutput<'a, D> {
    pub fn new(
        disk: &'a D,
        folder: &'a str,
        target: FileTarget,
        generation: u64,
        file_bytes_max: u64,
    ) -> CopyOutput<'a, D> {
        CopyOutput {
            disk,
            folder,
            target,
            generation,
            file_bytes_max,
            open: Vec::new(),
            finished: Vec::new(),
            sequence: 0,
            key: Vec::new(),
            round: 0,
            run: Run { small: None, times: Vec::new(), values: Values::new(FieldType::Float) },
            work: CopyWork::default(),
        }
    }

    /// Begins a key; keys ascend in each round. Round zero is for the first type of a key, and so on.
    pub async fn begin_key(&mut self, tsm_key: &[u8], field_type: FieldType, round: usize) -> Result<(), FlushError> {
        assert_eq!(self.run.points(), 0, "the key before was ended");
        if self.run.values.field_type() != field_type {
            self.run.values = Values::new(field_type);
        }
        self.key.clear();
        self.key.extend_from_slice(tsm_key);
        self.round = round;
        let series = key::split(tsm_key).map_or(tsm_key, |(series, _)| series);
        let Some(Some(open)) = self.open.get_mut(round) else { return Ok(()) };
        open.blocks = 0;
        if open.series != series {
            let is_full = open.run.byte_count() >= self.file_bytes_max || open.run.held_byte_count() >= TAIL_BYTES_MAX;
            open.series.clear();
            open.series.extend_from_slice(series);
            if is_full {
                self.finish_file(round).await?;
            }
        }
        Ok(())
    }

    /// A block of the present key that nothing overlaps.
    pub async fn block(
        &mut self,
        entry: &Entry,
        statistics: Option<BlockStatistics>,
        stored: &[u8],
    ) -> Result<(), CopyOutputError> {
        let points = match &statistics {
            Some(statistics) => statistics.count as usize,
            None => block::point_count(&stored[CRC_BYTES as usize..])
                .map_err(|error| CopyOutputError::Block(*entry, error.to_string()))?,
        };
        let is_small = points <= JOIN_POINTS_MAX;
        if is_small && self.run.points() > 0 && self.run.points() + points <= BLOCK_POINTS_DEFAULT {
            self.open_small()?;
            let (times, values) = decode(stored, entry).map_err(|what| CopyOutputError::Block(*entry, what))?;
            self.work.blocks_joined += 1;
            self.append(&times, &values, 0..times.len());
            return Ok(());
        }
        self.end_run().await?;
        if is_small {
            self.run.small = Some(Small { entry: *entry, points, statistics, stored: stored.to_vec() });
        } else {
            self.write_stored(entry, statistics.as_ref(), stored, points).await?;
        }
        Ok(())
    }

    /// Points of the present key, behind all others of it. [`CopyOutput::write_points`] is to follow.
    pub fn points(&mut self, times: &[i64], values: &Values, rows: Range<usize>) -> Result<(), CopyOutputError> {
        self.open_small()?;
        self.append(times, values, rows);
        Ok(())
    }

    /// Whether [`CopyOutput::write_points`] has something to write.
    pub fn has_whole_blocks(&self) -> bool {
        self.run.times.len() >= 2 * BLOCK_POINTS_DEFAULT
    }

    /// Writes whole blocks while more than one is there.
    pub async fn write_points(&mut self) -> Result<(), FlushError> {
        let mut start = 0;
        while self.run.times.len() - start >= 2 * BLOCK_POINTS_DEFAULT {
            self.write_block(start..start + BLOCK_POINTS_DEFAULT).await?;
            start += BLOCK_POINTS_DEFAULT;
        }
        if start > 0 {
            let mut rest = Values::new(self.run.values.field_type());
            rest.extend_from(&self.run.values, start..self.run.times.len());
            self.run.values = rest;
            self.run.times.drain(..start);
        }
        Ok(())
    }

    pub async fn end_key(&mut self) -> Result<(), FlushError> {
        self.end_run().await
    }

    /// Completes all files.
    pub async fn finish(mut self) -> Result<(Vec<FileRecord>, CopyWork), FlushError> {
        for round in 0..self.open.len() {
            self.finish_file(round).await?;
        }
        self.finished.sort_by_key(|record| record.sequence);
        Ok((self.finished, self.work))
    }

    fn append(&mut self, times: &[i64], values: &Values, rows: Range<usize>) {
        self.run.times.extend_from_slice(&times[rows.clone()]);
        self.run.values.extend_from(values, rows);
    }

    /// A small block that gets company is decoded.
    fn open_small(&mut self) -> Result<(), CopyOutputError> {
        let Some(small) = self.run.small.take() else { return Ok(()) };
        let decoded = decode(&small.stored, &small.entry);
        let (times, values) = decoded.map_err(|what| CopyOutputError::Block(small.entry, what))?;
        self.work.blocks_joined += 1;
        self.append(&times, &values, 0..times.len());
        Ok(())
    }

    /// Writes what is gathered: one block if it fits, two halves rather than a full block and a splinter.
    async fn end_run(&mut self) -> Result<(), FlushError> {
        if let Some(small) = self.run.small.take() {
            self.write_stored(&small.entry, small.statistics.as_ref(), &small.stored, small.points).await?;
        }
        self.write_points().await?;
        let points = self.run.times.len();
        let half = if points > BLOCK_POINTS_DEFAULT { points.div_ceil(2) } else { points };
        for rows in [0..half, half..points] {
            if !rows.is_empty() {
                self.write_block(rows).await?;
            }
        }
        self.run.times.clear();
        self.run.values.truncate(0);
        Ok(())
    }

    async fn write_stored(
        &mut self,
        entry: &Entry,
        statistics: Option<&BlockStatistics>,
        stored: &[u8],
        points: usize,
    ) -> Result<(), FlushError> {
        let field_type = self.run.values.field_type();
        let (min_time, max_time) = (entry.min_time, entry.max_time);
        let (key, open) = self.open_file().await?;
        let place = BlockPlace { key, field_type, min_time, max_time, statistics };
        open.run.push_stored(&place, stored, points as u64)?;
        open.run.write_out().await?;
        self.work.blocks_copied += 1;
        self.work.bytes_copied += stored.len() as u64;
        Ok(())
    }

    async fn write_block(&mut self, rows: Range<usize>) -> Result<(), FlushError> {
        let mut encoded = Vec::new();
        block::encode_times(&self.run.times[rows.clone()], &mut encoded);
        let run = std::mem::replace(
            &mut self.run,
            Run { small: None, times: Vec::new(), values: Values::new(FieldType::Float) },
        );
        let (key, open) = self.open_file().await?;
        open.run.push_points(key, &encoded, (&run.times, &run.values), rows)?;
        open.run.write_out().await?;
        self.run = run;
        Ok(())
    }

    /// The file of the present key and round, with room for a block.
    async fn open_file(&mut self) -> Result<(&[u8], &mut OpenFile<D>), FlushError> {
        let round = self.round;
        if self.open.len() <= round {
            self.open.resize_with(round + 1, || None);
        }
        if self.open[round].as_ref().is_some_and(|open| open.blocks == ENTRIES_MAX) {
            self.finish_file(round).await?;
        }
        if self.open[round].is_none() {
            self.sequence += 1;
            let record = FileRecord::begin(self.target, self.generation, self.sequence, false);
            let run = FileRun::create(self.disk, self.folder, record, self.target.floats).await?;
            let series = key::split(&self.key).map_or(self.key.as_slice(), |(series, _)| series).to_vec();
            self.open[round] = Some(OpenFile { run, series, blocks: 0 });
        }
        let open = self.open[round].as_mut().expect("made above");
        open.blocks += 1;
        Ok((&self.key, open))
    }

    async fn finish_file(&mut self, round: usize) -> Result<(), FlushError> {
        if let Some(open) = self.open[round].take() {
            self.finished.extend(open.run.finish(self.disk, self.folder).await?);
        }
        Ok(())
    }
}

/// Why a copy could not go on.
#[derive(Debug, thiserror::Error)]
pub enum CopyOutputError {
    #[error(transparent)]
    File(#[from] FlushError),
    /// A block that does not decode; the one who reads knows its file.
    #[error("{1}")]
    Block(Entry, String),
}
