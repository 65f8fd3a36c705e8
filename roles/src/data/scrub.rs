//! The background scrub: files are read again before somebody needs them, slowly.
//!
//! One task a core, in the background class, at a bounded rate. A finding is logged with file and place and counted; the
//! block answers queries with an error anyway. In a cluster the file is then fetched again from another node; alone it stays
//! where it is: an operator has a good copy.

use crate::data::core::DataCore;
use std::{cell::Cell, rc::Rc, time::Duration};

/// A stop is noticed within this time.
const NAP: Duration = Duration::from_millis(200);
/// So much is read between two naps, at most: small beside what a device moves in the time of a query.
const BURST_BYTES: u64 = 256 << 10;
/// Findings of one file that are logged one by one; a lost device would fill the log.
const LOGGED_MAX: usize = 16;

/// How files are scrubbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Bytes a second and core; zero: not at all.
    pub rate_bytes: u64,
    /// From the end of one pass over all files to the begin of the next.
    pub interval: Duration,
}

/// Passes over everything take hours, and a weekly one finds rot while the copies it can be mended from are there.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
/// A thousandth of what one NVMe device reads; a terabyte takes three days.
const RATE_BYTES_DEFAULT: u64 = 4 << 20;
/// A pass over no files takes no time; it must not be begun again at once.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// A server that was just started has better things to do.
const FIRST_PAUSE: Duration = Duration::from_secs(600);

impl Default for ScrubOptions {
    fn default() -> ScrubOptions {
        ScrubOptions { rate_bytes: RATE_BYTES_DEFAULT, interval: INTERVAL_DEFAULT }
    }
}

/// Counters of one core.
#[derive(Clone, Debug, Default)]
pub struct ScrubFigures {
    pub bytes: Cell<u64>,
    pub files: Cell<u64>,
    pub passes: Cell<u64>,
    /// Blocks and files that are damaged, counted again in each pass.
    pub findings: Cell<u64>,
    /// Damaged files that were fetched again from other nodes.
    pub mended: Cell<u64>,
    /// Bytes of the files of the present pass, or of the last one.
    pub pass_bytes: Cell<u64>,
    /// Bytes of the present pass that are still to be read.
    pub left_bytes: Cell<u64>,
    /// The most that is read in a second.
    pub rate_bytes: Cell<u64>,
}

impl DataCore {
    /// Runs until the core stops.
    pub(crate) async fn scrub(self: Rc<Self>) {
        let options = self.options.scrub;
        self.scrub_figures.rate_bytes.set(options.rate_bytes);
        if options.rate_bytes == 0 {
            return;
        }
        let mut pause = FIRST_PAUSE.min(options.interval);
        while self.rest(pause).await {
            self.scrub_all(options.rate_bytes).await;
            pause = options.interval.max(INTERVAL_MIN);
        }
    }

    /// Sleeps; `false` if the core stops.
    async fn rest(&self, mut time: Duration) -> bool {
        while !self.stopping.get() && !time.is_zero() {
            let nap = time.min(NAP);
            self.context.sleep(nap).await;
            time -= nap;
        }
        !self.stopping.get()
    }

    async fn scrub_all(&self, rate_bytes: u64) {
        let figures = &self.scrub_figures;
        let records: Vec<_> = self
            .partitions
            .iter()
            .flat_map(|(id, known)| known.file_records().into_iter().map(|file| (*id, file)))
            .collect();
        let pass_bytes = records.iter().map(|(_, record)| record.size).sum();
        figures.pass_bytes.set(pass_bytes);
        figures.left_bytes.set(pass_bytes);
        let (started, before) = (self.context.clock.monotonic_ns(), figures.findings.get());
        let files = records.len();
        if files > 0 {
            tracing::info!(files, bytes = pass_bytes, rate_bytes, "the scrub begins to read files again");
        }
        let mut owed = 0;
        for (id, record) in records {
            let Some(partition) = self.partitions.get(&id) else { continue };
            let (left_bytes, mut read_bytes) = (figures.left_bytes.get(), 0);
            let mut pace = async |bytes: u64| {
                // Places of damage are looked for in a second reading.
                read_bytes = record.size.min(read_bytes + bytes);
                figures.left_bytes.set(left_bytes.saturating_sub(read_bytes));
                figures.bytes.set(figures.bytes.get() + bytes);
                owed += bytes;
                if owed < BURST_BYTES {
                    return !self.stopping.get();
                }
                let time = Duration::from_nanos((owed as u128 * 1_000_000_000 / u128::from(rate_bytes)) as u64);
                owed = 0;
                self.rest(time).await
            };
            let scrubbed = partition.scrub(&record, &mut pace).await;
            figures.files.set(figures.files.get() + u64::from(scrubbed.is_complete));
            figures.findings.set(figures.findings.get() + scrubbed.findings.len() as u64);
            figures.left_bytes.set(left_bytes.saturating_sub(record.size));
            for finding in scrubbed.findings.iter().take(LOGGED_MAX) {
                tracing::error!(partition = id, %finding, "the scrub found damage; queries of it answer with an error");
            }
            if scrubbed.findings.len() > LOGGED_MAX {
                tracing::error!(
                    partition = id,
                    file = record.name(),
                    count = scrubbed.findings.len(),
                    "and more in this file"
                );
            }
            if !scrubbed.findings.is_empty()
                && self.links.is_some()
                && let Err(why) = self.mend(id, &record).await
            {
                tracing::error!(partition = id, file = record.name(), why, "a damaged file was not fetched again");
            }
            if self.stopping.get() {
                return;
            }
        }
        figures.left_bytes.set(0);
        figures.passes.set(figures.passes.get() + 1);
        if files > 0 {
            let seconds = (self.context.clock.monotonic_ns() - started) / 1_000_000_000;
            let findings = figures.findings.get() - before;
            tracing::info!(files, bytes = pass_bytes, findings, seconds, "the scrub has read all files again");
        }
    }
}
