//! Parts of TSM files in memory: direct I/O leaves nothing in the page cache.
//!
//! Owns: one byte budget of a core for chunks of blocks, pages of indexes and pages of statistics, and which of them
//! stay. What was read once waits in a queue of a quarter of the budget; only what is asked for again after it left that
//! queue, while its name is still remembered, comes into the protected part (2Q: Johnson and Shasha, VLDB 1994). A scan
//! of everything passes through the queue alone, and the several blocks that a scan takes from one chunk are one use.
//! Invariants: the bytes of all parts, with what it costs to keep them and with what open files hold, stay within the
//! budget as long as open files leave room; the same part is read
//! by one task at a time, and others wait for it. Parts are copies, so that the registered buffers of the reads go back
//! to their pool.
//! Knows nothing of formats: pages are verified before they come in, a block whenever it is decoded.

use crate::{file_place::FilePlace, id::IdHash};
use hashbrown::{HashMap, HashSet};
use std::{cell::RefCell, collections::VecDeque, io, ops::Range, rc::Rc};
use tidemill_disk::{DiskFile, Notify};
use tidemill_tsm::{index::FileIndex, statistics::Statistics};

/// Bytes of a chunk: about four blocks of a thousand floats, so that a query of one series reads little in vain.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// Parts in one read once a reader goes through a file in order: 512 KiB of chunks is where a device at depth one is at
/// its speed.
const READ_AHEAD_MAX: u64 = 32;
/// What is read ahead may take this part of the budget.
const READ_AHEAD_SHARE: usize = 16;
/// The queue of what was read once takes this part of the budget.
const ENTERING_SHARE: usize = 4;
/// Names are remembered of this part of the budget.
const REMEMBERED_SHARE: usize = 2;
/// Places of parts that were dropped may stay in the queues up to so many.
const QUEUE_SLACK: usize = 4096;
/// What it costs to keep a part: its slot in the table, at three quarters of its load, its place in a queue, its
/// counts and its allocation.
const SLOT_BYTES: usize = 128;

/// The cache of one core.
pub struct ReadCache {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    slots: HashMap<Place, Slot, IdHash>,
    /// Read once, oldest first.
    entering: VecDeque<Place>,
    entering_bytes: usize,
    /// Protected; the hand of a clock goes round.
    kept: VecDeque<Place>,
    /// Names of what left the queue of the entering, oldest first, with their bytes.
    remembered: VecDeque<(Place, usize)>,
    remembered_set: HashSet<Place, IdHash>,
    remembered_bytes: usize,
    under_way: HashMap<Place, Rc<Notify>, IdHash>,
    /// Where the last read of each file and kind ended, and how many parts it took.
    runs: HashMap<Place, Run, IdHash>,
    bytes_max: usize,
    figures: CacheFigures,
}

struct Slot {
    part: Part,
    bytes: usize,
    is_kept: bool,
    used: bool,
}

#[derive(Clone, Copy)]
struct Run {
    next: u64,
    parts: u64,
}

/// A part of a file.
#[derive(Clone)]
pub enum Part {
    Chunk(Rc<[u8]>),
    Index(Rc<FileIndex>),
    Statistics(Rc<Statistics>),
}

/// What is numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    Chunk = 0,
    Index = 1,
    Statistics = 2,
}

/// A part's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    file: FileKey,
    /// Kind in the lowest two bits, number above.
    part: u64,
}

/// A file of this core, numbered when it is opened; numbers are not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey(pub u64);

/// What the cache did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFigures {
    /// Held now, with what it costs to keep it.
    pub bytes: usize,
    /// Of these, pages of indexes and statistics.
    pub page_bytes: usize,
    /// What open files hold beside these: it cannot make room.
    pub held_bytes: usize,
    pub hits: u64,
    pub misses: u64,
    /// Misses that found another task reading.
    pub waits: u64,
    /// Parts that made room.
    pub evictions: u64,
}

/// A range of a file.
pub enum FileBytes {
    Chunk(Rc<[u8]>, Range<usize>),
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

impl Place {
    fn new(file: FileKey, kind: PartKind, number: u64) -> Place {
        Place { file, part: number << 2 | kind as u64 }
    }
}

impl Part {
    fn byte_size(&self) -> usize {
        let content = match self {
            Part::Chunk(bytes) => bytes.len(),
            Part::Index(index) => index.byte_size() + size_of::<FileIndex>(),
            Part::Statistics(statistics) => statistics.byte_size() + size_of::<Statistics>(),
        };
        content + SLOT_BYTES
    }

    fn is_page(&self) -> bool {
        !matches!(self, Part::Chunk(_))
    }
}

impl ReadCache {
    /// A cache of at most `bytes_max` bytes (plus the parts of the reads under way).
    pub fn new(bytes_max: usize) -> ReadCache {
        ReadCache { state: RefCell::new(State { bytes_max, ..State::default() }) }
    }

    /// The bytes `offset..offset + len` of a file of `file_len` bytes. The reader goes on behind them for `ahead` bytes,
    /// which may be read in the same call.
    pub async fn read<F: DiskFile>(
        &self,
        key: FileKey,
        file: &FilePlace<F>,
        file_len: u64,
        offset: u64,
        len: usize,
        ahead: u64,
    ) -> io::Result<FileBytes> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= file_len);
        let end = end.ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("{len} bytes at {offset} of a file of {file_len}"))
        })?;
        let number_of = |offset: u64| offset / CHUNK_BYTES as u64;
        let (first, last) = (number_of(offset), number_of(end.saturating_sub(1)));
        let wanted = number_of(end.saturating_sub(1).saturating_add(ahead).min(file_len.saturating_sub(1))) + 1;
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
            let bytes = self.chunk(key, file, file_len, first, wanted).await?;
            if bytes.len() < start + len {
                return Err(short(first));
            }
            return Ok(FileBytes::Chunk(bytes, start..start + len));
        }
        let mut joined = Vec::with_capacity(len);
        for number in first..=last {
            let bytes = self.chunk(key, file, file_len, number, wanted).await?;
            let from = if number == first { start } else { 0 };
            let upto = (from + len - joined.len()).min(CHUNK_BYTES);
            joined.extend_from_slice(bytes.get(from..upto).ok_or_else(|| short(number))?);
        }
        Ok(FileBytes::Joined(joined))
    }

    async fn chunk<F: DiskFile>(
        &self,
        key: FileKey,
        file: &FilePlace<F>,
        file_len: u64,
        number: u64,
        wanted: u64,
    ) -> io::Result<Rc<[u8]>> {
        let parts = file_len.div_ceil(CHUNK_BYTES as u64);
        let nothing = || {
            let offset = number * CHUNK_BYTES as u64;
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("nothing at {offset}"))
        };
        let load = async |numbers: Range<u64>| {
            let offset = numbers.start * CHUNK_BYTES as u64;
            let buf = file.read_blocks(offset, CHUNK_BYTES * (numbers.end - numbers.start) as usize).await?;
            let available = (file_len - offset).min(buf.as_ref().len() as u64) as usize;
            let chunks = buf.as_ref()[..available].chunks(CHUNK_BYTES);
            let chunks: Vec<Part> = chunks.map(|chunk| Part::Chunk(chunk.into())).collect();
            if chunks.is_empty() { Err(nothing()) } else { Ok(chunks) }
        };
        match self.part(key, PartKind::Chunk, number, wanted.min(parts), parts, load).await? {
            Part::Chunk(bytes) => Ok(bytes),
            _ => Err(nothing()),
        }
    }

    /// A part, from memory or by `load`, which is given the numbers to read, the asked one first, and returns at least
    /// that one and of the others as many as it likes. The caller knows that it needs the parts below `wanted`; the file
    /// has `parts` of them.
    pub async fn part<E>(
        &self,
        file: FileKey,
        kind: PartKind,
        number: u64,
        wanted: u64,
        parts: u64,
        load: impl AsyncFnOnce(Range<u64>) -> Result<Vec<Part>, E>,
    ) -> Result<Part, E> {
        loop {
            let other = match self.state.borrow_mut().look(Place::new(file, kind, number)) {
                Look::Found(part) => return Ok(part),
                Look::Absent => break,
                Look::UnderWay(other) => other,
            };
            // Nothing runs between the look and this call: the notification cannot be missed.
            other.notified().await;
        }
        let numbers = self.state.borrow_mut().begin(file, kind, number, wanted, parts);
        // A reader that goes away, or fails, leaves the parts to whoever waits for them.
        let reading = Reading { cache: self, file, kind, numbers: numbers.clone() };
        let loaded = load(numbers.clone()).await?;
        let asked = loaded.first().cloned();
        let mut state = self.state.borrow_mut();
        if let Some(run) = state.runs.get_mut(&Place::new(file, kind, 0)).filter(|run| run.next == numbers.end) {
            run.next = number + loaded.len() as u64;
        }
        for (number, part) in numbers.zip(loaded) {
            state.insert(Place::new(file, kind, number), part);
        }
        drop(state);
        drop(reading);
        Ok(asked.expect("what is loaded begins with what was asked for"))
    }

    /// Drops the chunks that hold a range of a file's bytes: they were not what they should be.
    pub fn drop_chunks(&self, file: FileKey, bytes: Range<u64>) {
        let state = &mut *self.state.borrow_mut();
        let numbers = bytes.start / CHUNK_BYTES as u64..bytes.end.div_ceil(CHUNK_BYTES as u64);
        numbers.for_each(|number| state.drop_part(Place::new(file, PartKind::Chunk, number)));
    }

    /// Takes bytes of the budget for what an open file holds as long as it is open.
    pub fn hold(&self, bytes: usize) {
        let state = &mut *self.state.borrow_mut();
        state.figures.held_bytes += bytes;
        state.make_room(0);
    }

    /// Gives back what [`ReadCache::hold`] took.
    pub fn release(&self, bytes: usize) {
        self.state.borrow_mut().figures.held_bytes -= bytes;
    }

    /// Drops the parts of a file that is gone; it has at most `parts` of a kind.
    pub fn forget(&self, file: FileKey, parts: u64) {
        let state = &mut *self.state.borrow_mut();
        let kinds = [PartKind::Chunk, PartKind::Index, PartKind::Statistics];
        if (state.slots.len() as u64) < parts.saturating_mul(kinds.len() as u64) {
            let gone: Vec<Place> = state.slots.keys().filter(|place| place.file == file).copied().collect();
            gone.into_iter().for_each(|place| state.drop_part(place));
        } else {
            for kind in kinds {
                (0..parts).for_each(|number| state.drop_part(Place::new(file, kind, number)));
            }
        }
        for kind in kinds {
            state.runs.remove(&Place::new(file, kind, 0));
        }
        // Their places in the queues are passed over when their turn comes, unless they are too many.
        if state.entering.len() + state.kept.len() > 2 * state.slots.len() + QUEUE_SLACK {
            let slots = &state.slots;
            state.entering.retain(|place| slots.contains_key(place));
            state.kept.retain(|place| slots.contains_key(place));
        }
    }

    pub fn figures(&self) -> CacheFigures {
        self.state.borrow().figures
    }
}

enum Look {
    Found(Part),
    UnderWay(Rc<Notify>),
    Absent,
}

/// Parts that a task is reading.
struct Reading<'a> {
    cache: &'a ReadCache,
    file: FileKey,
    kind: PartKind,
    numbers: Range<u64>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut ended = None;
        let mut state = self.cache.state.borrow_mut();
        for number in self.numbers.clone() {
            ended = state.under_way.remove(&Place::new(self.file, self.kind, number)).or(ended);
        }
        drop(state);
        if let Some(ended) = ended {
            ended.notify();
        }
    }
}

impl State {
    fn look(&mut self, place: Place) -> Look {
        if let Some(slot) = self.slots.get_mut(&place) {
            slot.used = true;
            self.figures.hits += 1;
            return Look::Found(slot.part.clone());
        }
        match self.under_way.get(&place) {
            Some(other) => {
                self.figures.waits += 1;
                Look::UnderWay(other.clone())
            }
            None => Look::Absent,
        }
    }

    /// Says what to read for a part that is absent: more each time that a reader goes on where the last read ended.
    fn begin(&mut self, file: FileKey, kind: PartKind, number: u64, wanted: u64, parts: u64) -> Range<u64> {
        self.figures.misses += 1;
        let run = self.runs.entry(Place::new(file, kind, 0)).or_insert(Run { next: 0, parts: 0 });
        let in_order = if run.next == number && run.parts > 0 { run.parts * 2 } else { 1 };
        let ahead_max = READ_AHEAD_MAX.min((self.bytes_max / READ_AHEAD_SHARE / CHUNK_BYTES) as u64).max(1);
        let count = in_order.max(wanted.saturating_sub(number)).min(ahead_max).min(parts.saturating_sub(number)).max(1);
        let is_absent = |number: &u64| {
            let place = Place::new(file, kind, *number);
            !self.slots.contains_key(&place) && !self.under_way.contains_key(&place)
        };
        let end = (number + 1..number + count).find(|number| !is_absent(number)).unwrap_or(number + count);
        *run = Run { next: end, parts: end - number };
        let notify = Rc::new(Notify::new());
        for number in number..end {
            self.under_way.insert(Place::new(file, kind, number), notify.clone());
        }
        number..end
    }

    fn insert(&mut self, place: Place, part: Part) {
        let bytes = part.byte_size();
        if self.slots.contains_key(&place) || bytes + self.figures.held_bytes > self.bytes_max {
            return;
        }
        let is_kept = self.remembered_set.remove(&place);
        self.make_room(bytes);
        self.figures.bytes += bytes;
        self.figures.page_bytes += if part.is_page() { bytes } else { 0 };
        if is_kept {
            self.kept.push_back(place);
        } else {
            self.entering.push_back(place);
            self.entering_bytes += bytes;
        }
        self.slots.insert(place, Slot { part, bytes, is_kept, used: false });
    }

    fn drop_part(&mut self, place: Place) {
        let Some(slot) = self.slots.remove(&place) else { return };
        self.figures.bytes -= slot.bytes;
        self.figures.page_bytes -= if slot.part.is_page() { slot.bytes } else { 0 };
        self.entering_bytes -= if slot.is_kept { 0 } else { slot.bytes };
    }

    fn make_room(&mut self, bytes: usize) {
        while self.figures.bytes + self.figures.held_bytes + bytes > self.bytes_max {
            let from_entering = self.entering_bytes > self.bytes_max / ENTERING_SHARE || self.kept.is_empty();
            let queue = if from_entering { &mut self.entering } else { &mut self.kept };
            let Some(place) = queue.pop_front() else { return };
            if let Some(slot) = self.slots.get_mut(&place)
                && slot.is_kept
                && std::mem::take(&mut slot.used)
            {
                self.kept.push_back(place);
                continue;
            }
            let Some((is_kept, bytes)) = self.slots.get(&place).map(|slot| (slot.is_kept, slot.bytes)) else {
                continue;
            };
            self.drop_part(place);
            self.figures.evictions += 1;
            if !is_kept {
                self.remember(place, bytes);
            }
        }
    }

    fn remember(&mut self, place: Place, bytes: usize) {
        self.remembered.push_back((place, bytes));
        self.remembered_set.insert(place);
        self.remembered_bytes += bytes;
        while self.remembered_bytes > self.bytes_max / REMEMBERED_SHARE {
            let Some((place, bytes)) = self.remembered.pop_front() else { return };
            self.remembered_set.remove(&place);
            self.remembered_bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use tidemill_disk::sim::{Executor, block_on};

    const PART: usize = 1000 - SLOT_BYTES;

    fn chunk(number: u64) -> Part {
        Part::Chunk(vec![number as u8; PART].into())
    }

    /// Asks for a part as a reader does that knows nothing of what comes next; says whether it was read.
    async fn ask(cache: &ReadCache, number: u64) -> bool {
        let read = Cell::new(false);
        let load = async |numbers: Range<u64>| {
            read.set(true);
            Ok::<_, io::Error>(numbers.map(chunk).collect::<Vec<_>>())
        };
        let part = cache.part(FileKey(1), PartKind::Chunk, number, number + 1, u64::MAX >> 2, load).await.unwrap();
        assert!(matches!(part, Part::Chunk(bytes) if bytes[0] == number as u8));
        read.get()
    }

    #[test]
    fn what_is_asked_for_again_and_again_outlives_a_scan_of_everything() {
        block_on(1, async {
            let cache = ReadCache::new(100_000);
            for round in 0..10 {
                for hot in 0..20 {
                    ask(&cache, hot * 2).await;
                }
                for other in 0..40 {
                    ask(&cache, 10_000 + round * 1000 + other * 2).await;
                }
            }
            for scanned in 0..5000 {
                // A scan takes several blocks from a chunk.
                for _ in 0..3 {
                    ask(&cache, 100_000 + scanned).await;
                }
            }
            let mut read = 0;
            for hot in 0..20 {
                read += usize::from(ask(&cache, hot * 2).await);
            }
            assert_eq!(read, 0, "hot parts had to be read again");
            assert!(cache.figures().bytes <= 100_000);
        });
    }

    #[test]
    fn a_reader_in_order_reads_more_at_a_time_and_one_that_leaps_does_not() {
        block_on(1, async {
            let cache = ReadCache::new(64 << 20);
            let mut reads = 0;
            for number in 0..1000 {
                reads += usize::from(ask(&cache, number).await);
            }
            assert_eq!(reads, 5 + (1000 - 31usize).div_ceil(32));
            let cache = ReadCache::new(64 << 20);
            for number in 0..100 {
                assert!(ask(&cache, number * 7).await);
            }
            assert_eq!((cache.figures().misses, cache.figures().bytes), (100, 100_000));
            cache.forget(FileKey(2), 1000);
            assert_eq!(cache.figures().bytes, 100_000);
            cache.forget(FileKey(1), 10_000);
            assert_eq!(cache.figures().bytes, 0);
        });
    }

    #[test]
    fn one_task_reads_and_the_others_wait_also_when_the_reader_fails_or_leaves() {
        let executor = Executor::new(1);
        executor.block_on(async {
            let cache = Rc::new(ReadCache::new(64 << 20));
            let reads = Rc::new(Cell::new(0));
            let load = |fails: bool| {
                let reads = reads.clone();
                async move |numbers: Range<u64>| {
                    reads.set(reads.get() + 1);
                    for _ in 0..10 {
                        crate::pace::breathe().await;
                    }
                    if fails { Err("failed") } else { Ok(numbers.map(chunk).collect::<Vec<_>>()) }
                }
            };
            let part = |fails: bool| cache.part(FileKey(1), PartKind::Chunk, 3, 4, 100, load(fails));
            // The first is polled and dropped, the second fails, the others share the third.
            let mut first = Box::pin(part(false));
            let mut second = Box::pin(part(true));
            let mut third = Box::pin(part(false));
            let mut fourth = Box::pin(part(false));
            let mut results = Vec::new();
            let mut first_polls = 0;
            std::future::poll_fn(|cx| {
                if first_polls < 3 {
                    first_polls += 1;
                    assert!(first.as_mut().poll(cx).is_pending());
                    if first_polls == 3 {
                        first = Box::pin(part(false));
                    }
                }
                for (number, future) in [&mut second, &mut third, &mut fourth].into_iter().enumerate() {
                    if !results.iter().any(|(known, _)| *known == number)
                        && let std::task::Poll::Ready(result) = future.as_mut().poll(cx)
                    {
                        results.push((number, result.map(|_| ())));
                    }
                }
                if results.len() == 3 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
            results.sort_by_key(|(number, _)| *number);
            assert_eq!(results, [(0, Err("failed")), (1, Ok(())), (2, Ok(()))]);
            assert_eq!(reads.get(), 3);
            assert!(cache.state.borrow().under_way.is_empty());
        });
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_counts_are_right(asked in proptest::collection::vec((0u64..3, 0u64..60), 1..400), budget in 0usize..40_000) {
            block_on(1, async {
                let cache = ReadCache::new(budget);
                for (file, number) in asked {
                    if number == 59 {
                        cache.forget(FileKey(file), if budget % 2 == 0 { 60 } else { 5 << 40 });
                        continue;
                    }
                    let load = async |numbers: Range<u64>| Ok::<_, io::Error>(numbers.map(chunk).collect::<Vec<_>>());
                    cache.part(FileKey(file), PartKind::Chunk, number, number + 2, 50, load).await.unwrap();
                    let state = cache.state.borrow();
                    let sum = |kept: bool| state.slots.values().filter(|slot| slot.is_kept == kept).map(|slot| slot.bytes).sum::<usize>();
                    assert!(state.figures.bytes <= budget);
                    assert_eq!(state.figures.bytes, sum(true) + sum(false));
                    assert_eq!(state.entering_bytes, sum(false));
                    let places: std::collections::BTreeSet<u64> =
                        state.entering.iter().chain(&state.kept).map(|place| place.file.0 << 32 | place.part).collect();
                    assert!(state.slots.keys().all(|place| places.contains(&(place.file.0 << 32 | place.part))));
                    assert!(state.under_way.is_empty() && state.remembered_bytes <= budget / REMEMBERED_SHARE);
                    assert!(state.remembered_set.len() <= state.remembered.len());
                }
            });
        }
    }
}
