//! Whether a batch may bring new series.
//!
//! Owns: the question, asked on the core that the batch's partition lives on, before the batch goes into the log: what
//! is in the log is applied, on every replica, whatever it takes. A batch with refused series goes back as a whole; its
//! sender leaves their rows out and proposes the rest.
//! Knows nothing of the rows.

use crate::data::core::DataCore;
use tidemill_line::PartitionBatch;
use tidemill_store::DatabaseId;

/// New series that a partition does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct SeriesRefusal {
    /// Which budget or limit, and the first of the series.
    pub why: String,
    /// Hashes of their canonical keys, sorted.
    pub series: Vec<u64>,
}

impl DataCore {
    /// Refuses the series of a batch that the partition does not know, if there is no room for more.
    pub(super) fn admit_series(&self, partition: u32, image: &[u8]) -> Result<(), SeriesRefusal> {
        let index_bytes = self.held.index_bytes.get() + self.held.tag_values_bytes.get();
        let is_full = index_bytes >= self.budget.index_bytes_max;
        if !is_full && !self.gauge.refuses_series() {
            return Ok(());
        }
        // A batch that cannot be read is refused where it is applied.
        let (Some(partition), Ok(batch)) = (self.partitions.get(&partition), PartitionBatch::parse(image)) else {
            return Ok(());
        };
        let index = partition.index(DatabaseId(batch.header().database));
        let is_known = |hash, key| index.as_ref().is_some_and(|index| index.contains(hash, key));
        let mut first = None;
        let mut series: Vec<u64> = Vec::new();
        for new in batch.series().filter(|series| !is_known(series.hash, series.key)) {
            first.get_or_insert_with(|| String::from_utf8_lossy(new.key).into_owned());
            series.push(new.hash);
        }
        let Some(first) = first else { return Ok(()) };
        series.sort_unstable();
        self.figures.series_refused.set(self.figures.series_refused.get() + series.len() as u64);
        let why = match is_full {
            true => format!(
                "the memory budget of the series index is used up ({index_bytes} of {} bytes on this core): no new \
                 series, such as \"{first}\"",
                self.budget.index_bytes_max
            ),
            false => format!(
                "the server is at its memory limit of {} bytes: no new series, such as \"{first}\"",
                self.gauge.limit_bytes()
            ),
        };
        Err(SeriesRefusal { why, series })
    }
}
