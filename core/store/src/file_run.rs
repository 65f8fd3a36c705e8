//! A TSM file on its way to the disk.
//!
//! Owns: its temporary name, the bytes that wait to be written, its record and its hash.
//! Invariants: bytes go out in file order, each once; under its final name a file is complete and durable.
//! Knows nothing of where blocks come from.

use crate::{
    manifest::{FileRecord, Tier},
    tsm_file::tail_crc,
};
use std::io;
use tidemill_column::{FieldType, Values};
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};
use tidemill_tsm::{FloatEncoding, block, file::FileWriter, statistics::BlockStatistics};

/// Bytes that are written with one call: large enough for the device, small enough for a pooled buffer.
const WRITE_BYTES: usize = 512 * 1024;

/// Why a file was not written. What it was to hold is where it was; the work can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    #[error("{path}: {what}")]
    Format { path: String, what: String },
}

/// One file being written.
pub struct FileRun<F: DiskFile> {
    pub record: FileRecord,
    floats: FloatEncoding,
    temporary: String,
    file: F,
    writer: FileWriter,
    pending: Vec<u8>,
    written: u64,
    hasher: blake3::Hasher,
}

/// The block of a key: where it goes, and what is known of it.
pub struct BlockPlace<'a> {
    pub key: &'a [u8],
    pub field_type: FieldType,
    pub min_time: i64,
    pub max_time: i64,
    pub statistics: Option<&'a BlockStatistics>,
}

impl FileRecord {
    /// The record of a file that is yet to be written.
    pub fn begin(target: FileTarget, generation: u64, sequence: u32, late: bool) -> FileRecord {
        FileRecord {
            database: target.database,
            policy: target.policy,
            shard_group: target.shard_group,
            generation,
            sequence,
            level: target.level,
            late,
            tier: Tier::Local,
            hash: [0; 32],
            size: 0,
            blocks_end: 0,
            directory_offset: 0,
            index_offset: 0,
            tail_crc: 0,
            min_time: i64::MAX,
            max_time: i64::MIN,
            points: 0,
            tombstones: Vec::new(),
        }
    }
}

/// Where a file belongs.
#[derive(Clone, Copy, Debug)]
pub struct FileTarget {
    pub database: u32,
    pub policy: u32,
    pub shard_group: u64,
    pub level: u8,
    /// How blocks of floats are written that are made of points.
    pub floats: FloatEncoding,
}

impl<F: DiskFile> FileRun<F> {
    /// Begins a file under a temporary name. What a failed try or a crash left there is removed.
    pub async fn create<D: Disk<File = F>>(
        disk: &D,
        folder: &str,
        record: FileRecord,
        floats: FloatEncoding,
    ) -> Result<FileRun<F>, FlushError> {
        let name = format!("{}.tmp", record.name());
        let temporary = format!("{folder}/{name}");
        let io_error = |error| FlushError::Io { path: temporary.clone(), error };
        if disk.list(folder).await.map_err(io_error)?.contains(&name) {
            disk.remove(&temporary).await.map_err(io_error)?;
        }
        let file = disk.create(&temporary, Purpose::Data).await.map_err(io_error)?;
        let mut pending = Vec::with_capacity(WRITE_BYTES * 2);
        let writer = FileWriter::begin(&mut pending);
        let hasher = blake3::Hasher::new();
        Ok(FileRun { record, floats, temporary, file, writer, pending, written: 0, hasher })
    }

    /// An error that names the file.
    pub fn format_error(&self, what: &dyn std::fmt::Display) -> FlushError {
        FlushError::Format { path: self.temporary.clone(), what: what.to_string() }
    }

    /// Bytes that the file would have if it were finished now.
    pub fn byte_count(&self) -> u64 {
        self.writer.byte_count()
    }

    /// Bytes that stay in memory until the file is finished.
    pub fn held_byte_count(&self) -> usize {
        self.writer.tail_byte_count() + self.pending.len()
    }

    /// Adds a block of points `rows` of `values`, whose times were encoded before.
    pub fn push_points(
        &mut self,
        key: &[u8],
        encoded_times: &[u8],
        (times, values): (&[i64], &Values),
        rows: std::ops::Range<usize>,
    ) -> Result<(), FlushError> {
        let count = rows.len();
        let mut bytes = Vec::with_capacity(encoded_times.len() + count * 4);
        block::encode_with_times(encoded_times, values, rows.clone(), self.floats, &mut bytes)
            .map_err(|error| self.format_error(&error))?;
        let statistics = BlockStatistics::of(times, values, rows.clone());
        let (min_time, max_time) = (times[rows.start], times[rows.end - 1]);
        let field_type = values.field_type();
        let pushed =
            self.writer.push_block(key, field_type, min_time, max_time, &bytes, Some(&statistics), &mut self.pending);
        pushed.map_err(|error| self.format_error(&error))?;
        self.record.points += count as u64;
        Ok(())
    }

    /// Adds a block as another file has it, its CRC before it.
    pub fn push_stored(&mut self, place: &BlockPlace<'_>, stored: &[u8], points: u64) -> Result<(), FlushError> {
        let pushed = self.writer.push_stored_block(
            place.key,
            place.field_type,
            place.min_time,
            place.max_time,
            stored,
            place.statistics,
            &mut self.pending,
        );
        pushed.map_err(|error| self.format_error(&error))?;
        self.record.points += points;
        Ok(())
    }

    /// Writes whole blocks of the device, if enough has gathered.
    pub async fn write_out(&mut self) -> Result<(), FlushError> {
        self.write_pending(false).await
    }

    /// With `all` also the rest, padded.
    async fn write_pending(&mut self, all: bool) -> Result<(), FlushError> {
        let mut start = 0;
        while self.pending.len() - start >= WRITE_BYTES || (all && start < self.pending.len()) {
            let part = &self.pending[start..self.pending.len().min(start + WRITE_BYTES)];
            let len = part.len();
            self.hasher.update(part);
            let mut buf = self.file.alloc(len.next_multiple_of(BLOCK_BYTES));
            buf.as_mut()[..len].copy_from_slice(part);
            buf.as_mut()[len..].fill(0);
            let written = self.file.write_at(buf, self.written).await;
            written.map_err(|error| FlushError::Io { path: self.temporary.clone(), error })?;
            self.written += len as u64;
            start += len;
        }
        self.pending.drain(..start);
        Ok(())
    }

    /// Gives the file up.
    pub async fn abandon(self) -> Result<(), FlushError> {
        self.file.close().await.map_err(|error| FlushError::Io { path: self.temporary, error })
    }

    /// Completes the file and makes it visible; a file without blocks is not kept.
    pub async fn finish<D: Disk<File = F>>(mut self, disk: &D, folder: &str) -> Result<Option<FileRecord>, FlushError> {
        let path = self.temporary.clone();
        let io_error = |error| FlushError::Io { path: path.clone(), error };
        if self.writer.is_empty() {
            self.file.close().await.map_err(io_error)?;
            disk.remove(&path).await.map_err(io_error)?;
            return Ok(None);
        }
        let blocks_end = self.written + self.pending.len() as u64;
        let tail_start = self.pending.len();
        let writer = std::mem::replace(&mut self.writer, FileWriter::begin(&mut Vec::new()));
        let summary = writer.finish(&mut self.pending);
        self.record.tail_crc = tail_crc(&self.pending[tail_start..], blocks_end, &summary);
        self.record.directory_offset = summary.directory_offset;
        self.record.blocks_end = blocks_end;
        self.record.index_offset = summary.index_offset;
        self.record.size = summary.byte_count;
        (self.record.min_time, self.record.max_time) = (summary.min_time, summary.max_time);
        assert_eq!(self.written + self.pending.len() as u64, summary.byte_count, "{path}: bytes written");
        self.write_pending(true).await?;
        self.record.hash = *self.hasher.finalize().as_bytes();
        self.file.set_len(summary.byte_count).await.map_err(io_error)?;
        disk.publish(self.file, &path, &format!("{folder}/{}", self.record.name())).await.map_err(io_error)?;
        Ok(Some(self.record))
    }
}
