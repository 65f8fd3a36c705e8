//! What a load run measured: figures, latency histogram, one-second series; printed and saved.

use crate::load::Sample;
use crate::process::FolderSize;
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A latency histogram in microseconds, to three digits, up to ten minutes.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).unwrap_or_else(|error| panic!("constant bounds: {error}"))
}

/// Everything measured in one load run.
#[derive(Clone, Debug)]
pub struct LoadReport {
    pub rows_acknowledged: u64,
    pub rows_rejected: u64,
    pub rows_unknown: u64,
    /// Rows of batches that never left, since nobody listened.
    pub rows_unsent: u64,
    pub requests: u64,
    pub body_bytes: u64,
    pub retries: u64,
    pub wall_seconds: f64,
    /// Request latency in microseconds; in an open loop counted from the intended send time.
    pub latency: Histogram<u64>,
    /// Rows acknowledged in each second of the run; the last one is cut short.
    pub rows_per_second: Vec<u64>,
    /// Where the run was asked to keep them.
    pub samples: Vec<Sample>,
    pub client_cpu_seconds: f64,
    pub server_cpu_seconds: Option<f64>,
    pub server_peak_rss_bytes: Option<u64>,
    /// Answers other than 204: how often, with one text of each kind.
    pub failures: BTreeMap<String, u64>,
}

/// Seconds in which the throughput fell below half of the mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Stalls {
    pub mean: f64,
    pub worst: u64,
    /// Index of each such second.
    pub seconds: Vec<usize>,
}

/// Looks for stalls in the full seconds of a series; the last, cut one does not count.
pub fn stalls(rows_per_second: &[u64]) -> Option<Stalls> {
    let (_, full) = rows_per_second.split_last()?;
    if full.is_empty() {
        return None;
    }
    let mean = full.iter().sum::<u64>() as f64 / full.len() as f64;
    let seconds = full.iter().enumerate().filter(|(_, rows)| (**rows as f64) < mean / 2.0).map(|(i, _)| i).collect();
    Some(Stalls { mean, worst: full.iter().copied().min().unwrap_or(0), seconds })
}

impl LoadReport {
    pub fn rows_per_wall_second(&self) -> f64 {
        self.rows_acknowledged as f64 / self.wall_seconds
    }

    /// Server CPU seconds per million acknowledged rows.
    pub fn server_cpu_per_million(&self) -> Option<f64> {
        self.server_cpu_seconds.map(|seconds| seconds / (self.rows_acknowledged as f64 / 1e6))
    }

    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    pub fn latency_max_ms(&self) -> f64 {
        self.latency.max() as f64 / 1e3
    }

    pub fn print(&self) {
        println!(
            "rows {} in {:.3} s: {:.0} rows/s, {:.1} MB/s of bodies, {} requests, {} retries",
            self.rows_acknowledged,
            self.wall_seconds,
            self.rows_per_wall_second(),
            self.body_bytes as f64 / 1e6 / self.wall_seconds,
            self.requests,
            self.retries,
        );
        if self.rows_rejected + self.rows_unknown + self.rows_unsent > 0 {
            println!(
                "rows rejected {}, of unknown fate {}, never sent {}",
                self.rows_rejected, self.rows_unknown, self.rows_unsent
            );
        }
        println!(
            "latency ms: p50 {:.3} p90 {:.3} p99 {:.3} p99.9 {:.3} max {:.3}",
            self.latency_ms(0.5),
            self.latency_ms(0.9),
            self.latency_ms(0.99),
            self.latency_ms(0.999),
            self.latency_max_ms(),
        );
        print!("client CPU {:.2} s", self.client_cpu_seconds);
        if let (Some(cpu), Some(per_million)) = (self.server_cpu_seconds, self.server_cpu_per_million()) {
            print!(", server CPU {cpu:.2} s ({per_million:.3} s per million rows)");
        }
        if let Some(rss) = self.server_peak_rss_bytes {
            print!(", server peak RSS {:.1} MiB", rss as f64 / 1048576.0);
        }
        println!();
        println!("rows in each second: {:?}", self.rows_per_second);
        if let Some(stalls) = stalls(&self.rows_per_second) {
            println!(
                "stalls: {} of {} seconds below half of the mean of {:.0} rows, worst second {:.2} of the mean{}",
                stalls.seconds.len(),
                self.rows_per_second.len() - 1,
                stalls.mean,
                stalls.worst as f64 / stalls.mean,
                if stalls.seconds.is_empty() { String::new() } else { format!(", at seconds {:?}", stalls.seconds) },
            );
        }
        for (text, count) in &self.failures {
            println!("{count} x {text}");
        }
    }

    /// The report with the whole histogram (value in microseconds, count) and the series.
    pub fn to_json(&self) -> Value {
        let found = stalls(&self.rows_per_second);
        json!({
            "rows_acknowledged": self.rows_acknowledged,
            "rows_rejected": self.rows_rejected,
            "rows_unknown": self.rows_unknown,
            "rows_unsent": self.rows_unsent,
            "requests": self.requests,
            "retries": self.retries,
            "body_bytes": self.body_bytes,
            "wall_seconds": self.wall_seconds,
            "rows_per_wall_second": self.rows_per_wall_second(),
            "latency_ms": {
                "p50": self.latency_ms(0.5),
                "p90": self.latency_ms(0.9),
                "p99": self.latency_ms(0.99),
                "p99.9": self.latency_ms(0.999),
                "max": self.latency_max_ms(),
            },
            "latency_histogram_us": self.latency.iter_recorded()
                .map(|bucket| json!([bucket.value_iterated_to(), bucket.count_at_value()])).collect::<Vec<_>>(),
            "rows_per_second": self.rows_per_second,
            "stalls": found.map(|stalls| json!({
                "mean_rows": stalls.mean, "worst_rows": stalls.worst, "seconds": stalls.seconds,
            })),
            "client_cpu_seconds": self.client_cpu_seconds,
            "server_cpu_seconds": self.server_cpu_seconds,
            "server_cpu_seconds_per_million_rows": self.server_cpu_per_million(),
            "server_peak_rss_bytes": self.server_peak_rss_bytes,
            "failures": self.failures,
        })
    }
}

/// Writes a JSON value to a file, with the folders above it.
pub fn save(path: &Path, value: &Value) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let text = serde_json::to_string_pretty(value)?;
    std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
}

/// A folder's size as JSON.
pub fn folder_json(size: &FolderSize, rows: u64) -> Value {
    json!({
        "bytes": size.bytes,
        "allocated_bytes": size.allocated_bytes,
        "tsm_bytes": size.tsm_bytes,
        "files": size.files,
        "bytes_a_row": size.allocated_bytes as f64 / rows as f64,
        "tsm_bytes_a_row": size.tsm_bytes as f64 / rows as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_a_full_second_below_half_of_the_mean() {
        let found = stalls(&[100, 100, 10, 100, 90, 3]).unwrap();
        assert_eq!((found.mean, found.worst, found.seconds), (80.0, 10, vec![2]));
        assert_eq!(stalls(&[5]), None);
        assert_eq!(stalls(&[]), None);
        assert!(stalls(&[10, 10, 0]).unwrap().seconds.is_empty());
    }
}
