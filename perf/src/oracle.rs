//! What every count, sum, minimum, maximum and mean of the reference set must be.
//!
//! One cell a (device group, minute); the answers by group, by minute and in total are sums of cells. All figures are
//! integers (floats in units of 1/SCALE), so they are exact in whatever order rows are added.

use crate::devices::{DeviceSpec, GROUPS, Row, SCALE, START_MS, STEP_MS};
use serde::{Deserialize, Serialize};

const MINUTE_MS: i64 = 60_000;

/// Figures over some rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub count: u64,
    /// CSV humidity, field `temperature`.
    pub integer_sum: i64,
    pub integer_min: i64,
    pub integer_max: i64,
    /// CSV temperature, field `humidity`, in units of 1/SCALE.
    pub scaled_sum: i64,
    pub scaled_min: i64,
    pub scaled_max: i64,
}

impl Summary {
    pub const EMPTY: Summary = Summary {
        count: 0,
        integer_sum: 0,
        integer_min: i64::MAX,
        integer_max: i64::MIN,
        scaled_sum: 0,
        scaled_min: i64::MAX,
        scaled_max: i64::MIN,
    };

    pub fn add(&mut self, row: &Row) {
        self.count += 1;
        self.integer_sum += row.integer;
        self.integer_min = self.integer_min.min(row.integer);
        self.integer_max = self.integer_max.max(row.integer);
        self.scaled_sum += row.scaled;
        self.scaled_min = self.scaled_min.min(row.scaled);
        self.scaled_max = self.scaled_max.max(row.scaled);
    }

    pub fn merge(&mut self, other: &Summary) {
        self.count += other.count;
        self.integer_sum += other.integer_sum;
        self.integer_min = self.integer_min.min(other.integer_min);
        self.integer_max = self.integer_max.max(other.integer_max);
        self.scaled_sum += other.scaled_sum;
        self.scaled_min = self.scaled_min.min(other.scaled_min);
        self.scaled_max = self.scaled_max.max(other.scaled_max);
    }

    pub fn integer_mean(&self) -> f64 {
        self.integer_sum as f64 / self.count as f64
    }

    pub fn float_sum(&self) -> f64 {
        self.scaled_sum as f64 / SCALE as f64
    }

    pub fn float_min(&self) -> f64 {
        self.scaled_min as f64 / SCALE as f64
    }

    pub fn float_max(&self) -> f64 {
        self.scaled_max as f64 / SCALE as f64
    }

    pub fn float_mean(&self) -> f64 {
        self.float_sum() / self.count as f64
    }
}

/// The figures of a whole set, or of the part of it that was added.
#[derive(Clone, Debug, PartialEq)]
pub struct Oracle {
    spec: DeviceSpec,
    minutes: usize,
    cells: Vec<Summary>,
}

/// The form in which an oracle is saved beside its data.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedOracle {
    pub spec: DeviceSpec,
    pub total: Summary,
    /// Index is the device group.
    pub groups: Vec<Summary>,
    /// Start of the minute, ms since the epoch.
    pub minutes: Vec<(i64, Summary)>,
}

impl Oracle {
    /// No rows yet.
    pub fn empty(spec: DeviceSpec) -> Self {
        let last = START_MS + (spec.rows_per_device as i64 - 1) * STEP_MS;
        let minutes = (last.div_euclid(MINUTE_MS) - START_MS.div_euclid(MINUTE_MS) + 1) as usize;
        Self { spec, minutes, cells: vec![Summary::EMPTY; minutes * GROUPS as usize] }
    }

    /// The whole set, computed on `threads` threads.
    pub fn compute(spec: DeviceSpec, threads: u64) -> Self {
        let threads = threads.clamp(1, spec.devices);
        let mut oracle = Self::empty(spec);
        let parts: Vec<Oracle> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|worker| {
                    scope.spawn(move || {
                        let mut part = Oracle::empty(spec);
                        let mut id = 1 + worker;
                        while id <= spec.devices {
                            let device = spec.device(id);
                            for number in 0..spec.rows_per_device {
                                part.add(device.group(), &device.row(number));
                            }
                            id += threads;
                        }
                        part
                    })
                })
                .collect();
            workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
        });
        assert_eq!(parts.len() as u64, threads, "an oracle worker died");
        for part in &parts {
            oracle.merge(part);
        }
        oracle
    }

    pub fn spec(&self) -> DeviceSpec {
        self.spec
    }

    pub fn add(&mut self, group: u64, row: &Row) {
        let minute = (row.time_ms.div_euclid(MINUTE_MS) - START_MS.div_euclid(MINUTE_MS)) as usize;
        self.cells[group as usize * self.minutes + minute].add(row);
    }

    pub fn merge(&mut self, other: &Oracle) {
        assert_eq!(self.spec, other.spec, "oracles of two different sets");
        for (cell, more) in self.cells.iter_mut().zip(&other.cells) {
            cell.merge(more);
        }
    }

    /// All rows of the groups that `select` picks.
    pub fn total(&self, select: impl Fn(u64) -> bool) -> Summary {
        let mut total = Summary::EMPTY;
        for group in (0..GROUPS).filter(|group| select(*group)) {
            total.merge(&self.group(group));
        }
        total
    }

    pub fn group(&self, group: u64) -> Summary {
        let start = group as usize * self.minutes;
        let mut total = Summary::EMPTY;
        for cell in &self.cells[start..start + self.minutes] {
            total.merge(cell);
        }
        total
    }

    /// The minute that starts at `time_ms`, over the groups that `select` picks; empty when the set has no such minute.
    pub fn minute(&self, time_ms: i64, select: impl Fn(u64) -> bool) -> Summary {
        let mut total = Summary::EMPTY;
        // Answers fill millions of minutes behind the last row; they must not cost a walk over all groups each.
        if !(START_MS - MINUTE_MS..self.spec.end_ms()).contains(&time_ms) {
            return total;
        }
        for group in (0..GROUPS).filter(|group| select(*group)) {
            total.merge(&self.cell(group, time_ms));
        }
        total
    }

    /// One group in the minute that starts at `time_ms`.
    pub fn cell(&self, group: u64, time_ms: i64) -> Summary {
        let minute = time_ms.div_euclid(MINUTE_MS) - START_MS.div_euclid(MINUTE_MS);
        if time_ms.rem_euclid(MINUTE_MS) != 0 || minute < 0 || minute >= self.minutes as i64 {
            return Summary::EMPTY;
        }
        self.cells[group as usize * self.minutes + minute as usize]
    }

    /// Starts of all minutes of the set, ms since the epoch.
    pub fn minute_starts(&self) -> impl Iterator<Item = i64> + use<> {
        let first = START_MS.div_euclid(MINUTE_MS);
        (0..self.minutes as i64).map(move |minute| (first + minute) * MINUTE_MS)
    }

    pub fn save(&self) -> SavedOracle {
        SavedOracle {
            spec: self.spec,
            total: self.total(|_| true),
            groups: (0..GROUPS).map(|group| self.group(group)).collect(),
            minutes: self.minute_starts().map(|start| (start, self.minute(start, |_| true))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_parallel_equal_the_whole_and_all_views_agree() {
        let spec = DeviceSpec { devices: 230, files: 23, rows_per_device: 130, seed: 9 };
        let whole = Oracle::compute(spec, 1);
        assert_eq!(whole, Oracle::compute(spec, 3));
        let saved = whole.save();
        assert_eq!(saved.total.count, spec.rows());
        assert_eq!(saved.groups.iter().map(|group| group.count).sum::<u64>(), spec.rows());
        assert_eq!(saved.minutes.iter().map(|(_, minute)| minute.scaled_sum).sum::<i64>(), saved.total.scaled_sum);
        // 04:01:40 plus 130 seconds touches the minutes 04:01, 04:02 and 04:03.
        assert_eq!(saved.minutes.iter().map(|(_, minute)| minute.count / 230).collect::<Vec<_>>(), [20, 60, 50]);
        assert_eq!(whole.minute(0, |_| true), Summary::EMPTY);
    }
}
