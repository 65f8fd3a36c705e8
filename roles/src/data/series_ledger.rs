//! How many series each database has, in all partitions of all cores, and whether there may be more.
//!
//! Owns: `data.max-series-per-database`. A batch is asked about before it goes into the log, on the core that its
//! partition lives on; what is in the log is applied whatever the limit is.
//! Invariants: a database has never more series than the limit allows, unless it had them when it was set (a series that
//! is dropped while a row of it is on its way comes back uncounted); a series is refused only if there is no room for
//! it; series that are there are never refused. Far below the limit a batch costs one addition, as if all of its series
//! were new. Near it, its series are looked up, and a new one takes its place in the count before its batch is proposed.
//! Places are given back when the batch is applied, in the order of the log, whoever still waits for it.
//! Knows nothing of rows.

use crate::data::{SeriesRefusal, message::CallError, tag_values::NewValues};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tidemill_disk::Disk;
use tidemill_line::PartitionBatch;
use tidemill_store::{Applied, DatabaseId, Partition};

/// Databases of a chunk, and chunks: ids of databases count from one, and each takes 16 bytes once it is written to.
const CHUNK_LEN: usize = 1024;
const CHUNKS_MAX: usize = 4096;
/// The lower bits of a count hold what is guessed, the others what is known.
const GUESSED_BITS: u32 = 24;
const GUESSED_MAX: u64 = (1 << GUESSED_BITS) - 1;
/// More than there can be.
const UNLIMITED: u64 = (1 << (u64::BITS - GUESSED_BITS)) - 1;

/// The counts of all databases, which all cores share.
#[derive(Debug)]
pub struct SeriesCounts {
    series_max: u64,
    /// Counts the times that series or values went that were counted.
    removals: AtomicU64,
    chunks: Vec<OnceLock<Box<[Count]>>>,
}

#[derive(Debug, Default)]
struct Count {
    /// Both figures in one word, so that no core ever sees one without the other. Known: series that are there, and new
    /// ones that were looked up and are on their way. Guessed: series of batches on their way that nobody has looked up.
    word: AtomicU64,
    /// Batches that wait until nothing is guessed: meanwhile nobody guesses.
    waiting: AtomicU64,
}

/// One core's part of the counts.
pub struct SeriesLedger {
    counts: Arc<SeriesCounts>,
    /// By partition and database.
    parts: RefCell<BTreeMap<(u32, u32), Part>>,
    /// By partition.
    entered: RefCell<BTreeMap<u32, Entered>>,
}

/// Batches of a partition.
#[derive(Default)]
struct Entered {
    /// What those on their way take, in the order of the log.
    places: VecDeque<Place>,
    /// New series that they may have.
    fresh: u64,
    /// Batches that came into the log since the start.
    count: u64,
}

#[derive(Default)]
struct Part {
    /// What the shared count knows of this part.
    counted: u64,
    /// Keys of new series on their way.
    coming: BTreeSet<Box<[u8]>>,
    /// Of the index that was counted.
    version: u64,
}

/// Why a batch may not go.
pub enum Denial {
    /// It does not go like this.
    Refused(CallError),
    /// What is on its way has to be counted first.
    Counting,
    /// These values of tags have to be asked for.
    NewValues(NewValues),
}

/// What a batch takes of the counts.
#[derive(Default)]
pub struct Place {
    database: u32,
    /// New series that the batch may have.
    fresh: u64,
    guessed: u64,
    keys: Vec<Box<[u8]>>,
}

/// Nobody guesses while it is held.
pub struct Waiting {
    counts: Arc<SeriesCounts>,
    database: u32,
}

impl SeriesCounts {
    /// `series_max` zero is any number.
    pub fn new(series_max: u64) -> SeriesCounts {
        let series_max = if series_max == 0 { UNLIMITED } else { series_max.min(UNLIMITED) };
        let chunks = (0..CHUNKS_MAX).map(|_| OnceLock::new()).collect();
        SeriesCounts { series_max, removals: AtomicU64::new(0), chunks }
    }

    /// Changes when something went that was counted.
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    pub fn count_removal(&self) {
        self.removals.fetch_add(1, Ordering::SeqCst);
    }

    fn of(&self, database: u32) -> &Count {
        let chunk = self.chunks[database as usize / CHUNK_LEN % CHUNKS_MAX]
            .get_or_init(|| (0..CHUNK_LEN).map(|_| Count::default()).collect());
        &chunk[database as usize % CHUNK_LEN]
    }
}

impl Count {
    /// Takes room for `guessed` and `known` new series if all of it is there; what the count is (known, guessed) if not.
    fn take(&self, known: u64, guessed: u64, series_max: u64) -> Result<(), (u64, u64)> {
        let taken = self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
            let (has, may_have) = split(word);
            let fits = has + may_have + known + guessed <= series_max && may_have + guessed <= GUESSED_MAX;
            fits.then(|| word + (known << GUESSED_BITS) + guessed)
        });
        taken.map(drop).map_err(split)
    }

    /// Known becomes more, or less if `more` wraps around, and guessed becomes less.
    fn settle(&self, more: u64, guessed: u64) {
        let change = (more << GUESSED_BITS).wrapping_sub(guessed);
        if change != 0 {
            self.word.fetch_add(change, Ordering::SeqCst);
        }
    }
}

fn split(word: u64) -> (u64, u64) {
    (word >> GUESSED_BITS, word & GUESSED_MAX)
}

impl SeriesLedger {
    pub fn new(counts: Arc<SeriesCounts>) -> SeriesLedger {
        SeriesLedger { counts, parts: RefCell::default(), entered: RefCell::default() }
    }

    pub fn counts(&self) -> &Arc<SeriesCounts> {
        &self.counts
    }

    /// New series that may be on their way to a partition.
    pub fn coming(&self, id: u32) -> u64 {
        self.entered.borrow().get(&id).map_or(0, |entered| entered.fresh)
    }

    /// Whether the new series of a batch may come, of which it has at most `fresh`. What it takes is to be entered or
    /// given back.
    ///
    /// # Errors
    /// Which of them may not.
    pub fn admit<D: Disk>(&self, id: u32, partition: &Partition<D>, image: &[u8], fresh: u64) -> Result<Place, Denial> {
        let series_max = self.counts.series_max;
        // A batch that cannot be read is refused where it is applied.
        let Some(header) = PartitionBatch::header_of(image) else { return Ok(Place::default()) };
        let database = header.database;
        let count = self.counts.of(database);
        let empty = Place { database, fresh, ..Place::default() };
        let guessed = fresh;
        if count.waiting.load(Ordering::Relaxed) == 0 && count.take(0, guessed, series_max).is_ok() {
            return Ok(Place { guessed, ..empty });
        }
        let Ok(batch) = PartitionBatch::parse(image) else { return Ok(empty) };
        let index = partition.index(DatabaseId(database));
        let mut parts = self.parts.borrow_mut();
        let part = parts.entry((id, database)).or_default();
        let is_there = |hash, key: &[u8]| {
            index.as_ref().is_some_and(|index| index.contains(hash, key)) || part.coming.contains(key)
        };
        let new: Vec<_> = batch.series().filter(|series| !is_there(series.hash, series.key)).collect();
        let Err((known, guessed)) = count.take(new.len() as u64, 0, series_max) else {
            let keys: Vec<Box<[u8]>> = new.iter().map(|series| series.key.into()).collect();
            part.counted += keys.len() as u64;
            part.coming.extend(keys.iter().cloned());
            return Ok(Place { keys, ..empty });
        };
        if new.is_empty() {
            return Ok(empty);
        }
        if guessed > 0 {
            return Err(Denial::Counting);
        }
        let room = series_max.saturating_sub(known) as usize;
        let mut series: Vec<u64> = new.iter().skip(room).map(|series| series.hash).collect();
        series.sort_unstable();
        let why = format!("max-series-per-database limit exceeded: ({series_max})");
        Err(Denial::Refused(SeriesRefusal { why, series }.into()))
    }

    /// The batch is in the log.
    pub fn enter(&self, id: u32, place: Place) {
        let mut entered = self.entered.borrow_mut();
        let entered = entered.entry(id).or_default();
        entered.fresh += place.fresh;
        entered.count += 1;
        entered.places.push_back(place);
    }

    /// The batch did not come into the log.
    pub fn give_back(&self, id: u32, place: Place) {
        let mut parts = self.parts.borrow_mut();
        let less = parts.get_mut(&(id, place.database)).map_or(0, |part| {
            let less = part.leave(&place);
            part.counted -= less;
            less
        });
        self.counts.of(place.database).settle(0u64.wrapping_sub(less), place.guessed);
    }

    /// An entry was applied: its series are counted as what they are.
    pub fn follow<D: Disk>(&self, id: u32, partition: &Partition<D>, applied: &Applied) {
        if !matches!(applied, Applied::Written { .. }) {
            return self.count(id, partition);
        }
        // What the log gives back at a start is counted behind it.
        let place = self.entered.borrow_mut().get_mut(&id).and_then(|entered| {
            let place = entered.places.pop_front()?;
            entered.fresh -= place.fresh;
            Some(place)
        });
        if let Some(place) = place {
            self.settle(id, partition, DatabaseId(place.database), &place);
        }
    }

    /// Counts what a partition has, after series came or went.
    pub fn count<D: Disk>(&self, id: u32, partition: &Partition<D>) {
        let counted = self.parts.borrow().range((id, 0)..=(id, u32::MAX)).map(|((_, database), _)| *database).collect();
        let mut databases: BTreeSet<u32> = counted;
        databases.extend(partition.databases().iter().map(|database| database.0));
        for database in databases {
            self.settle(id, partition, DatabaseId(database), &Place::default());
        }
    }

    fn settle<D: Disk>(&self, id: u32, partition: &Partition<D>, database: DatabaseId, place: &Place) {
        let (alive, version) = match partition.index(database) {
            Some(index) => (index.alive_count(), index.version()),
            // Beside every version of an index that was dropped.
            None => (0, u64::MAX),
        };
        let mut parts = self.parts.borrow_mut();
        let part = parts.entry((id, database.0)).or_default();
        part.leave(place);
        if part.version != version {
            part.version = version;
            self.counts.count_removal();
        }
        let counted = alive + part.coming.len() as u64;
        let more = counted.wrapping_sub(part.counted);
        part.counted = counted;
        self.counts.of(database.0).settle(more, place.guessed);
    }

    /// How many batches each partition has got, to be asked later whether it has applied them.
    pub fn entered(&self) -> Vec<(u32, u64)> {
        self.entered.borrow().iter().map(|(id, entered)| (*id, entered.count)).collect()
    }

    /// Whether so many batches have been applied.
    pub fn has_applied(&self, counts: &[(u32, u64)]) -> bool {
        let all = self.entered.borrow();
        let applied = |id| all.get(id).map_or(0, |entered| entered.count - entered.places.len() as u64);
        counts.iter().all(|(id, count)| applied(id) >= *count)
    }

    /// While the guard is held, nobody guesses how many new series a batch has for the database of this one.
    pub fn wait(&self, image: &[u8]) -> Waiting {
        let database = PartitionBatch::header_of(image).map_or(0, |header| header.database);
        self.counts.of(database).waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { counts: self.counts.clone(), database }
    }
}

impl Part {
    /// Keys that do not come any more; how many of them there were.
    fn leave(&mut self, place: &Place) -> u64 {
        place.keys.iter().filter(|key| self.coming.remove(*key)).count() as u64
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.counts.of(self.database).waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
