//! What a slave counts.

use super::Slave;
use std::cell::Cell;
use tidemill_http::metrics::TextWriter;

/// Counters since the start.
#[derive(Default)]
pub struct Counts {
    files_fetched: Cell<u64>,
    bytes_fetched: Cell<u64>,
    fetches_failed: Cell<u64>,
    reads: Cell<u64>,
    bytes_read: Cell<u64>,
    reads_failed: Cell<u64>,
    bytes_scrubbed: Cell<u64>,
    files_rotten: Cell<u64>,
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}

impl Counts {
    pub fn fetched(&self, bytes: u64) {
        add(&self.files_fetched, 1);
        add(&self.bytes_fetched, bytes);
    }

    pub fn fetch_failed(&self) {
        add(&self.fetches_failed, 1);
    }

    pub fn read(&self, bytes: usize) {
        add(&self.reads, 1);
        add(&self.bytes_read, bytes as u64);
    }

    pub fn read_failed(&self) {
        add(&self.reads_failed, 1);
    }

    pub fn scrubbed(&self, bytes: u64) {
        add(&self.bytes_scrubbed, bytes);
    }

    pub fn rotten(&self, files: u64) {
        add(&self.files_rotten, files);
    }
}

/// How a slave is, and what it has done since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlaveFigures {
    pub files: u64,
    pub bytes: u64,
    pub free_bytes: u64,
    /// Files that are kept apart because they were not what their names say.
    pub rotten_kept: u64,
    pub fetches: u64,
    pub files_fetched: u64,
    pub bytes_fetched: u64,
    pub fetches_failed: u64,
    pub reads: u64,
    pub bytes_read: u64,
    pub reads_failed: u64,
    pub bytes_scrubbed: u64,
    pub files_rotten: u64,
}

type Figure = (&'static str, &'static str, fn(&SlaveFigures) -> u64);

impl Slave {
    pub fn figures(&self) -> SlaveFigures {
        let counts = &self.counts;
        SlaveFigures {
            files: self.files.count() as u64,
            bytes: self.files.bytes(),
            free_bytes: self.files.disk().space().map_or(0, |(_, free)| free),
            rotten_kept: self.files.rotten(),
            fetches: self.fetches.borrow().len() as u64,
            files_fetched: counts.files_fetched.get(),
            bytes_fetched: counts.bytes_fetched.get(),
            fetches_failed: counts.fetches_failed.get(),
            reads: counts.reads.get(),
            bytes_read: counts.bytes_read.get(),
            reads_failed: counts.reads_failed.get(),
            bytes_scrubbed: counts.bytes_scrubbed.get(),
            files_rotten: counts.files_rotten.get(),
        }
    }
}

impl SlaveFigures {
    pub fn write(&self, writer: &mut TextWriter) {
        for (kind, figures) in [("gauge", &GAUGES[..]), ("counter", &COUNTERS[..])] {
            for (name, help, value) in figures {
                writer.family(name, kind, help);
                writer.sample(name, &[], value(self) as f64);
            }
        }
    }
}

const GAUGES: [Figure; 5] = [
    ("tidemill_slave_files", "Files of the pool that are here.", |f| f.files),
    ("tidemill_slave_bytes", "Their bytes.", |f| f.bytes),
    ("tidemill_slave_free_bytes", "Room that is left on the filesystem.", |f| f.free_bytes),
    ("tidemill_slave_rotten_files", "Files that are kept apart: they are not what their names say.", |f| f.rotten_kept),
    ("tidemill_slave_fetches", "Files that arrive or wait for their turn.", |f| f.fetches),
];

const COUNTERS: [Figure; 8] = [
    ("tidemill_slave_fetched_files_total", "Files that have arrived.", |f| f.files_fetched),
    ("tidemill_slave_fetched_bytes_total", "Their bytes.", |f| f.bytes_fetched),
    ("tidemill_slave_fetches_failed_total", "Files that did not come.", |f| f.fetches_failed),
    ("tidemill_slave_reads_total", "Parts of files that others asked for.", |f| f.reads),
    ("tidemill_slave_read_bytes_total", "Their bytes.", |f| f.bytes_read),
    ("tidemill_slave_reads_failed_total", "Parts of files that could not be read.", |f| f.reads_failed),
    ("tidemill_slave_scrubbed_bytes_total", "Bytes of files that were read again.", |f| f.bytes_scrubbed),
    ("tidemill_slave_rotten_files_total", "Files that were found not to be what their names say.", |f| f.files_rotten),
];
