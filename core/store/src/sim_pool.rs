//! The pool in simulations: files in memory, with everything that can go wrong when they are read.
//!
//! Invariant: what happens follows from the seed and the order of the calls.

use crate::{
    pace::breathe,
    pool_blocks::{LocalFuture, PoolBlocks},
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt, io,
};
use tidemill_disk::sim::Prng;

/// Files by hash.
pub struct SimPool {
    files: RefCell<BTreeMap<[u8; 32], Vec<u8>>>,
    prng: RefCell<Prng>,
    fails_one_in: Cell<u64>,
    /// Reads that give a wrong byte, and nothing else is wrong with them.
    rotten_reads: Cell<u64>,
    is_away: Cell<bool>,
    figures: Cell<SimPoolFigures>,
}

/// What a simulated pool was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimPoolFigures {
    pub reads: u64,
    pub bytes: u64,
    pub failures: u64,
    pub distrusted: u64,
}

impl SimPool {
    pub fn new(seed: u64) -> SimPool {
        SimPool {
            files: RefCell::default(),
            prng: RefCell::new(Prng::new(seed)),
            fails_one_in: Cell::new(u64::MAX),
            rotten_reads: Cell::new(0),
            is_away: Cell::new(false),
            figures: Cell::default(),
        }
    }

    /// Takes a file in; its hash.
    pub fn put(&self, bytes: Vec<u8>) -> [u8; 32] {
        let hash = *blake3::hash(&bytes).as_bytes();
        self.files.borrow_mut().insert(hash, bytes);
        hash
    }

    /// The bytes of a file, if it is here.
    pub fn content(&self, file: &[u8; 32]) -> Option<Vec<u8>> {
        self.files.borrow().get(file).cloned()
    }

    /// All copies of a file are gone.
    pub fn lose(&self, file: &[u8; 32]) {
        self.files.borrow_mut().remove(file);
    }

    /// One read of so many fails; none for `u64::MAX`.
    pub fn fail_one_in(&self, reads: u64) {
        self.fails_one_in.set(reads);
    }

    /// The next reads give a wrong byte.
    pub fn rot(&self, reads: u64) {
        self.rotten_reads.set(reads);
    }

    /// Nothing can be read while it is away.
    pub fn set_away(&self, is_away: bool) {
        self.is_away.set(is_away);
    }

    pub fn figures(&self) -> SimPoolFigures {
        self.figures.get()
    }

    fn count(&self, change: impl FnOnce(&mut SimPoolFigures)) {
        let mut figures = self.figures.get();
        change(&mut figures);
        self.figures.set(figures);
    }
}

impl fmt::Debug for SimPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimPool").field("files", &self.files.borrow().len()).finish_non_exhaustive()
    }
}

impl PoolBlocks for SimPool {
    fn read(&self, file: [u8; 32], offset: u64, length: usize) -> LocalFuture<'_, io::Result<Vec<u8>>> {
        Box::pin(async move {
            let waits = self.prng.borrow_mut().below(3);
            for _ in 0..waits {
                breathe().await;
            }
            self.count(|figures| figures.reads += 1);
            let fails = self.fails_one_in.get() != u64::MAX && self.prng.borrow_mut().one_in(self.fails_one_in.get());
            let failure = match () {
                () if self.is_away.get() => Some("the pool is away"),
                () if fails => Some("a slave does not answer"),
                () if !self.files.borrow().contains_key(&file) => Some("no copy is left"),
                () => None,
            };
            if let Some(text) = failure {
                self.count(|figures| figures.failures += 1);
                return Err(io::Error::other(text));
            }
            let files = self.files.borrow();
            let bytes = files.get(&file).map(Vec::as_slice).unwrap_or_default();
            let from = (offset as usize).min(bytes.len());
            let mut read = bytes[from..(from + length).min(bytes.len())].to_vec();
            self.count(|figures| figures.bytes += read.len() as u64);
            if self.rotten_reads.get() > 0 && !read.is_empty() {
                self.rotten_reads.set(self.rotten_reads.get() - 1);
                let at = self.prng.borrow_mut().below(read.len() as u64) as usize;
                read[at] ^= 1 << self.prng.borrow_mut().below(8);
            }
            Ok(read)
        })
    }

    fn distrust(&self, _file: [u8; 32], _offset: u64) {
        self.count(|figures| figures.distrusted += 1);
    }
}
