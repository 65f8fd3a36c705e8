//! The background scrub: files are read again before somebody needs them, slowly.
//!
//! One task a core, in the background class, at a bounded rate. A finding is logged with file and place and counted; the
//! block answers queries with an error anyway, and stays where it is: an operator, or a replica, has a good copy.

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
    /// Bytes of the present pass that are still to be read.
    pub left_bytes: Cell<u64>,
}

impl DataCore {
    /// Runs until the core stops.
    pub(crate) async fn scrub(self: Rc<Self>) {
        let options = self.options.scrub;
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
        figures.left_bytes.set(records.iter().map(|(_, record)| record.size).sum());
        let mut owed = 0;
        for (id, record) in records {
            let Some(partition) = self.partitions.get(&id) else { continue };
            let mut pace = async |bytes: u64| {
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
            figures.left_bytes.set(figures.left_bytes.get().saturating_sub(record.size));
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
            if self.stopping.get() {
                return;
            }
        }
        figures.left_bytes.set(0);
        figures.passes.set(figures.passes.get() + 1);
    }
}
