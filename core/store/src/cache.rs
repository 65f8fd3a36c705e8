//! Bytes of TSM files in memory: direct I/O leaves nothing in the page cache.
//!
//! Owns: chunks of files, up to a budget; the chunk that was not asked for since the hand last passed goes first
//! (CLOCK). Chunks are copies, so that the registered buffers of the reads go back to their pool.
//! Knows nothing of blocks and checksums: what a block holds is verified whenever it is decoded.

use crate::id::IdHash;
use hashbrown::HashMap;
use std::{cell::RefCell, collections::VecDeque, io, rc::Rc};
use tidemill_disk::DiskFile;

/// Bytes of a chunk: about eight blocks of a thousand floats, so that a query of one series reads little in vain.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks in one read once a reader goes through a file in order: 512 KiB is where a device at depth one is at speed.
const CHUNKS_READ_AHEAD: u64 = 8;

/// The cache of one core.
pub struct ReadCache {
    state: RefCell<State>,
}

struct State {
    chunks: HashMap<(FileKey, u64), Chunk, IdHash>,
    clock: VecDeque<(FileKey, u64)>,
    bytes: usize,
    bytes_max: usize,
    hits: u64,
    misses: u64,
}

struct Chunk {
    bytes: Rc<[u8]>,
    used: bool,
}

/// A file of this core, numbered when it is opened; numbers are not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey(pub u64);

/// What the cache did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFigures {
    pub bytes: usize,
    pub hits: u64,
    pub misses: u64,
}

/// A range of a file.
pub enum FileBytes {
    Chunk(Rc<[u8]>, std::ops::Range<usize>),
    Joined(Vec<u8>),
}

impl std::ops::Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Chunk(bytes, range) => &bytes[range.clone()],
            FileBytes::Joined(bytes) => bytes,
        }
    }
}

impl ReadCache {
    /// A cache of at most `bytes_max` bytes (plus the chunks of the read under way).
    pub fn new(bytes_max: usize) -> ReadCache {
        ReadCache {
            state: RefCell::new(State {
                chunks: HashMap::default(),
                clock: VecDeque::new(),
                bytes: 0,
                bytes_max,
                hits: 0,
                misses: 0,
            }),
        }
    }

    /// The bytes `offset..offset + len` of a file of `file_len` bytes.
    pub async fn read<F: DiskFile>(
        &self,
        key: FileKey,
        file: &F,
        file_len: u64,
        offset: u64,
        len: usize,
    ) -> io::Result<FileBytes> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= file_len);
        let end = end.ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("{len} bytes at {offset} of a file of {file_len}"))
        })?;
        let (first, last) = (offset / CHUNK_BYTES as u64, end.saturating_sub(1) / CHUNK_BYTES as u64);
        let start = (offset % CHUNK_BYTES as u64) as usize;
        // A file that was cut short under its reader gives chunks that are too short.
        let short = |number: u64| {
            let offset = number * CHUNK_BYTES as u64;
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file ends in the {CHUNK_BYTES} bytes at {offset}"),
            )
        };
        if first == last {
            let bytes = self.chunk(key, file, file_len, first).await?;
            if bytes.len() < start + len {
                return Err(short(first));
            }
            return Ok(FileBytes::Chunk(bytes, start..start + len));
        }
        let mut joined = Vec::with_capacity(len);
        for number in first..=last {
            let bytes = self.chunk(key, file, file_len, number).await?;
            let from = if number == first { start } else { 0 };
            let upto = (from + len - joined.len()).min(CHUNK_BYTES);
            joined.extend_from_slice(bytes.get(from..upto).ok_or_else(|| short(number))?);
        }
        Ok(FileBytes::Joined(joined))
    }

    /// Drops the chunks of a file that is gone.
    pub fn forget(&self, key: FileKey) {
        let state = &mut *self.state.borrow_mut();
        state.clock.retain(|(file, number)| {
            if *file != key {
                return true;
            }
            if let Some(chunk) = state.chunks.remove(&(*file, *number)) {
                state.bytes -= chunk.bytes.len();
            }
            false
        });
    }

    pub fn figures(&self) -> CacheFigures {
        let state = self.state.borrow();
        CacheFigures { bytes: state.bytes, hits: state.hits, misses: state.misses }
    }

    async fn chunk<F: DiskFile>(&self, key: FileKey, file: &F, file_len: u64, number: u64) -> io::Result<Rc<[u8]>> {
        let chunks = {
            let mut state = self.state.borrow_mut();
            if let Some(chunk) = state.chunks.get_mut(&(key, number)) {
                chunk.used = true;
                let bytes = chunk.bytes.clone();
                state.hits += 1;
                return Ok(bytes);
            }
            state.misses += 1;
            let in_order = number > 0 && state.chunks.contains_key(&(key, number - 1));
            if in_order { CHUNKS_READ_AHEAD } else { 1 }
        };
        let offset = number * CHUNK_BYTES as u64;
        let buf = file.read_at(offset, CHUNK_BYTES * chunks as usize).await?;
        let available = (file_len - offset).min(buf.as_ref().len() as u64) as usize;
        let mut state = self.state.borrow_mut();
        let mut asked = None;
        for (position, part) in buf.as_ref()[..available].chunks(CHUNK_BYTES).enumerate() {
            let bytes: Rc<[u8]> = part.into();
            if position == 0 {
                asked = Some(bytes.clone());
            }
            state.insert((key, number + position as u64), bytes);
        }
        asked.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("nothing at {offset}")))
    }
}

impl State {
    fn insert(&mut self, place: (FileKey, u64), bytes: Rc<[u8]>) {
        if self.chunks.contains_key(&place) {
            return;
        }
        self.bytes += bytes.len();
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.clock.pop_front() else { break };
            match self.chunks.get_mut(&oldest) {
                Some(chunk) if chunk.used => {
                    chunk.used = false;
                    self.clock.push_back(oldest);
                }
                Some(_) => {
                    if let Some(chunk) = self.chunks.remove(&oldest) {
                        self.bytes -= chunk.bytes.len();
                    }
                }
                None => {}
            }
        }
        self.clock.push_back(place);
        self.chunks.insert(place, Chunk { bytes, used: false });
    }
}
