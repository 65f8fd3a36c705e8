//! One partition's part of a scan.
//!
//! A part tells what it needs ([`PartDemand`]) and is given it; it never waits and does no I/O. It demands one batch of
//! one series at a time. For an aggregation it goes through the groups in the order of the answer and through the
//! series of a group one after the other: once it demands another series, it is done with the former one. For a raw
//! select it holds one batch of each series of the present group and merges them by time.
//!
//! Invariants: outputs come in the order of the answer; what is held is one group's windows, or one batch per series of
//! one group and one piece of output, never the number of rows read.

mod aggregate;
pub(crate) mod batch;
mod image;
pub(crate) mod output;
mod raw;
pub(crate) mod window_table;

use crate::accumulator::BlockSummary;
use crate::plan::{ScanPlan, Work};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_column::Points;

pub use image::{PartDecoder, PartEncoder, PartImageError};
pub use output::{PART_OUTPUT_BYTES_MAX, PART_OUTPUT_ROWS_MAX, PART_OUTPUT_WINDOWS_MAX, PartOutput};

use aggregate::AggregatePart;
use raw::RawPart;

/// A series that the index found for a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanSeries {
    /// The canonical series key.
    pub key: Box<[u8]>,
    /// Tags by key.
    pub tags: Vec<(String, String)>,
}

/// What a part needs next.
#[derive(Debug)]
pub enum PartDemand {
    /// The next batch of the series with this index, by [`PartExec::supply`].
    Points(u32),
    /// A piece of output for the merge.
    Emit(PartOutput),
    /// Nothing: all of it was emitted.
    Done,
}

/// The execution of a scan over the series of one partition.
pub struct PartExec {
    work: PartWork,
}

enum PartWork {
    Raw(RawPart),
    Aggregate(AggregatePart),
}

/// A series while its part runs.
pub(crate) struct PartSeries {
    pub key: Arc<[u8]>,
    pub tags: Vec<(String, String)>,
}

/// The series of one group, by key.
pub(crate) struct Group {
    pub values: Arc<[String]>,
    pub series: Vec<u32>,
}

/// The value of a tag, if the series has it.
pub(crate) fn tag_value<'a>(tags: &'a [(String, String)], name: &str) -> Option<&'a str> {
    tags.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The groups in the order of the answer.
fn groups(scan: &ScanPlan, series: &[PartSeries]) -> Vec<Group> {
    let mut by_values: BTreeMap<Vec<&str>, Vec<u32>> = BTreeMap::new();
    for (index, one) in series.iter().enumerate() {
        let values = scan.shape.dimensions.iter().map(|name| tag_value(&one.tags, name).unwrap_or("")).collect();
        by_values.entry(values).or_default().push(index as u32);
    }
    let mut groups: Vec<Group> = by_values
        .into_iter()
        .map(|(values, mut members)| {
            members.sort_by(|a, b| series[*a as usize].key.cmp(&series[*b as usize].key));
            Group { values: values.into_iter().map(str::to_owned).collect(), series: members }
        })
        .collect();
    if scan.shape.descending {
        groups.reverse();
    }
    groups
}

impl PartExec {
    /// The part of `scan` over `series`, in any order.
    pub fn new(scan: Arc<ScanPlan>, series: Vec<ScanSeries>) -> PartExec {
        let series: Vec<PartSeries> =
            series.into_iter().map(|series| PartSeries { key: series.key.into(), tags: series.tags }).collect();
        let groups = groups(&scan, &series);
        let work = match &scan.shape.work {
            Work::Raw { .. } => PartWork::Raw(RawPart::new(scan, series, groups)),
            Work::Aggregate(_) => PartWork::Aggregate(AggregatePart::new(scan, series, groups)),
        };
        PartExec { work }
    }

    /// What the part needs next. The same answer until it is given.
    pub fn poll(&mut self) -> PartDemand {
        match &mut self.work {
            PartWork::Raw(part) => part.poll(),
            PartWork::Aggregate(part) => part.poll(),
        }
    }

    /// Gives the demanded batch: rows ascending; the next batch is later, or earlier where
    /// [`ScanPlan::descending`] says so. `None` when the series has no more.
    ///
    /// # Panics
    /// If another series was demanded, or none.
    pub fn supply(&mut self, series: u32, points: Option<Points>) {
        match &mut self.work {
            PartWork::Raw(part) => part.supply(series, points),
            PartWork::Aggregate(part) => part.supply(series, points),
        }
    }

    /// Whether blocks of the demanded series may be given by [`PartExec::supply_statistics`].
    pub fn accepts_statistics(&self, series: u32) -> bool {
        match &self.work {
            PartWork::Raw(_) => false,
            PartWork::Aggregate(part) => part.accepts_statistics(series),
        }
    }

    /// Gives summaries of blocks of the demanded series in place of their rows. Each block must lie within the scan's
    /// time range and within one window (see [`ScanPlan::window_bounds`]), no other row may replace one of its rows,
    /// and none of its rows may be given by [`PartExec::supply`] too for the same column. Returns whether the demand
    /// stands: where only the last value is asked for, it may be met.
    ///
    /// # Panics
    /// If the series was not demanded or does not accept statistics.
    pub fn supply_statistics(&mut self, series: u32, summaries: &[BlockSummary]) -> bool {
        assert!(self.accepts_statistics(series), "statistics of series {series} where rows decide");
        match &mut self.work {
            PartWork::Raw(_) => true,
            PartWork::Aggregate(part) => part.supply_statistics(summaries),
        }
    }

    /// Bytes held, for budgets.
    pub fn bytes_held(&self) -> usize {
        match &self.work {
            PartWork::Raw(part) => part.bytes_held(),
            PartWork::Aggregate(part) => part.bytes_held(),
        }
    }
}
