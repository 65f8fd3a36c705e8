//! The file of a partition's series indexes.
//!
//! Owns: where it is, what of it is there for good, and when it is written anew.
//! Invariants: the manifest names the file with a size and a checksum, and is published after they are durable; what
//! lies behind that size is nothing. A file that an append to it failed for is not appended to again: a manifest whose
//! fate is unknown may name what was appended. Then, and when most of a file has been replaced by later parts of it, a
//! new one is begun.
//! Knows nothing of what an index is: see the module `image` of `core/index`.

use crate::{manifest::IndexRecord, pace::breathe};
use std::{collections::BTreeMap, io};
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};
use tidemill_index::{ImageError, ImageReader, ImageWriter, Restored, Written};

/// Bytes that are written with one call.
const CALL_BYTES: usize = 512 * 1024;
/// Bytes that are read with one call: buffers below a quarter of a mebibyte are used again by the allocator, larger ones
/// are the system's each time, which is a page fault for every four kibibytes of the file.
const READ_BYTES: usize = 128 * 1024;
/// Replaced bytes that are not worth a new file.
const REPLACED_BYTES_MIN: u64 = 4 << 20;

/// What is known of the file.
#[derive(Default)]
pub struct IndexFile {
    /// Of the newest file that was begun.
    generation: u64,
    /// The file that the manifest names, if it can be appended to.
    current: Option<Current>,
    /// The last file that a manifest named for certain. It is there until a manifest names another one.
    named: Option<IndexRecord>,
    /// Files of earlier generations may be there.
    has_older: bool,
}

/// A file up to a commit.
#[derive(Clone)]
pub struct Current {
    pub record: IndexRecord,
    /// By database.
    pub written: BTreeMap<u32, Written>,
    /// Databases with series that may have lost their points.
    pub has_unsettled: bool,
    kept: u64,
}

/// A file that is being appended to.
pub struct Appending<F: DiskFile> {
    pub writer: ImageWriter,
    /// What the file says so far, by database.
    pub written: BTreeMap<u32, Written>,
    generation: u64,
    path: String,
    file: F,
    /// Where it began: the length of what a manifest names.
    start: u64,
    offset: u64,
    kept: u64,
}

/// Why an index is made anew from the files.
#[derive(Debug, thiserror::Error)]
pub enum IndexFileError {
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    #[error("{path}: {error}")]
    Image { path: String, error: ImageError },
}

fn path_of(folder: &str, generation: u64) -> String {
    format!("{folder}/{}", name_of(generation))
}

pub fn name_of(generation: u64) -> String {
    format!("index-{generation:09}")
}

/// Whether a file of a partition's folder is one of these.
pub fn is_name(name: &str) -> bool {
    name.starts_with("index-")
}

/// Reads the file that the manifest names; the indexes in it are whole.
pub async fn load<D: Disk>(disk: &D, folder: &str, record: &IndexRecord) -> Result<Restored, IndexFileError> {
    let path = path_of(folder, record.generation);
    let io_error = |error| IndexFileError::Io { path: path.clone(), error };
    let image_error = |error| IndexFileError::Image { path: path.clone(), error };
    let file = disk.open(&path, Purpose::Data).await.map_err(io_error)?;
    let mut reader = ImageReader::default();
    let (mut held, mut offset) = (Vec::new(), 0);
    while offset < record.size {
        let part = file.read_at(offset, READ_BYTES).await.map_err(io_error)?;
        let upto = part.as_ref().len().min((record.size - offset) as usize);
        held.extend_from_slice(&part.as_ref()[..upto]);
        offset += upto as u64;
        let mut at = 0;
        loop {
            let len = reader.read_frame(&held[at..]).map_err(image_error)?;
            if len == 0 {
                break;
            }
            at += len;
            breathe().await;
        }
        held.drain(..at);
        if part.as_ref().len() < READ_BYTES {
            break;
        }
    }
    file.close().await.map_err(io_error)?;
    let mut restored = reader.finish(record.size, record.crc).map_err(image_error)?;
    for index in &mut restored.indexes {
        while index.advance().map_err(image_error)? {
            breathe().await;
        }
    }
    Ok(restored)
}

/// Gives back what was appended to a file behind `start`, or all of it, as [`Appending::abandon`] does. No manifest may
/// name it.
pub async fn give_back<D: Disk>(disk: &D, folder: &str, record: &IndexRecord, start: Option<u64>) {
    let path = path_of(folder, record.generation);
    let Some(start) = start else {
        let _ = disk.remove(&path).await;
        return;
    };
    if let Ok(file) = disk.open(&path, Purpose::Data).await {
        let _ = file.set_len(start).await;
        let _ = file.close().await;
    }
}

impl IndexFile {
    /// The state behind a start: the file that was read, or that nothing can be appended to.
    pub fn opened(record: Option<IndexRecord>, restored: Option<&Restored>) -> IndexFile {
        let generation = record.as_ref().map_or(0, |record| record.generation);
        let named = record.filter(|_| restored.is_some()).map(|record| IndexRecord { is_behind: false, ..record });
        let current = named.clone().zip(restored).map(|(record, restored)| Current {
            record,
            written: restored.indexes.iter().map(|index| (index.database, index.written)).collect(),
            has_unsettled: restored.indexes.iter().any(|index| !index.unsettled.is_empty()),
            kept: restored.kept,
        });
        IndexFile { generation, current, named, has_older: false }
    }

    /// The file as the manifest on disk names it.
    pub fn current(&self) -> Option<&Current> {
        self.current.as_ref()
    }

    /// What a manifest says of the indexes that is published without writing them.
    pub fn as_it_is(&self) -> Option<IndexRecord> {
        self.named.as_ref().map(|record| IndexRecord { is_behind: true, ..record.clone() })
    }

    /// Whether most of the file has been replaced by later parts of it.
    pub fn is_worn(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.record.size > 2 * current.kept + REPLACED_BYTES_MIN)
    }

    /// Begins to append, to a new file if `anew` or if there is none. Until [`IndexFile::end`] there is none.
    pub fn begin(&mut self, anew: bool) -> Begun {
        let current = self.current.take().filter(|_| !anew);
        if current.is_none() {
            self.generation += 1;
        }
        Begun { generation: self.generation, current }
    }

    /// The manifest names the file, which was begun anew or not. Returns whether there may be earlier ones.
    pub fn end(&mut self, current: Current, is_anew: bool) -> bool {
        self.has_older |= is_anew && current.record.generation > 1;
        self.named = Some(current.record.clone());
        self.current = Some(current);
        self.has_older
    }

    /// A generation of which no manifest names a file.
    pub fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    pub fn older_are_gone(&mut self) {
        self.has_older = false;
    }
}

/// What is to be appended to.
pub struct Begun {
    generation: u64,
    current: Option<Current>,
}

impl Begun {
    pub async fn open<D: Disk>(self, disk: &D, folder: &str) -> Result<Appending<D::File>, IndexFileError> {
        let path = path_of(folder, self.generation);
        let io_error = |error| IndexFileError::Io { path: path.clone(), error };
        let generation = self.generation;
        if let Some(Current { record, written, kept, .. }) = self.current {
            let file = disk.open(&path, Purpose::Data).await.map_err(io_error)?;
            let writer = ImageWriter::resume(record.size, record.crc);
            return Ok(Appending {
                writer,
                written,
                generation,
                path,
                file,
                start: record.size,
                offset: record.size,
                kept,
            });
        }
        if disk.list(folder).await.map_err(io_error)?.contains(&name_of(generation)) {
            // Left by a try that failed.
            disk.remove(&path).await.map_err(io_error)?;
        }
        let file = disk.create(&path, Purpose::Data).await.map_err(io_error)?;
        disk.sync_dir(folder).await.map_err(io_error)?;
        let (writer, written) = (ImageWriter::begin(), BTreeMap::new());
        Ok(Appending { writer, written, generation, path, file, start: 0, offset: 0, kept: 0 })
    }
}

impl<F: DiskFile> Appending<F> {
    /// Writes the whole blocks that are pending, if there are enough of them.
    pub async fn write_out(&mut self, all: bool) -> Result<(), IndexFileError> {
        let io_error = |error| IndexFileError::Io { path: self.path.clone(), error };
        let pending = self.writer.pending();
        while pending.len() >= CALL_BYTES || (all && !pending.is_empty()) {
            let len = (pending.len().min(CALL_BYTES)) / BLOCK_BYTES * BLOCK_BYTES;
            let mut buf = self.file.alloc(len);
            buf.as_mut().copy_from_slice(&pending[..len]);
            self.file.write_at(buf, self.offset).await.map_err(io_error)?;
            self.offset += len as u64;
            pending.drain(..len);
        }
        Ok(())
    }

    /// Gives back what was appended, as far as the disk lets us: the room may be what the next try needs.
    pub async fn abandon<D: Disk<File = F>>(self, disk: &D) {
        if self.start > 0 {
            let _ = self.file.set_len(self.start).await;
            let _ = self.file.close().await;
            return;
        }
        let _ = self.file.close().await;
        let _ = disk.remove(&self.path).await;
    }

    /// Makes everything up to the commit that was made last durable.
    pub async fn finish<D: Disk<File = F>>(mut self, disk: &D, has_unsettled: bool) -> Result<Current, IndexFileError> {
        if let Err(error) = self.write_out(true).await {
            self.abandon(disk).await;
            return Err(error);
        }
        let io_error = |error| IndexFileError::Io { path: self.path.clone(), error };
        self.file.sync_data().await.map_err(io_error)?;
        self.file.close().await.map_err(io_error)?;
        let (size, crc) = self.writer.end();
        assert_eq!(size, self.offset, "{}: bytes written", self.path);
        let kept = self.kept + self.writer.kept();
        let record = IndexRecord { generation: self.generation, size, crc, is_behind: false };
        Ok(Current { record, written: self.written, has_unsettled, kept })
    }
}
