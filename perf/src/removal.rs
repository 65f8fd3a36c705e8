//! One statement that takes very many series away, in the middle of a load run.
//!
//! Owns: the statement and its moment, and the figures of the load before, beside and behind it.
//! Knows nothing of how the series came there and of how requests are sent.

use crate::http::Client;
use crate::load::Sample;
use crate::report::new_histogram;
use crate::stall_report::{Stretch, Work};
use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The statement is sent when this part of the rows is there.
const FROM_PART: f64 = 0.4;
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A server that takes longer does not answer at all.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// Names of the statements that [`statement`] knows.
pub const NAMES: [&str; 3] = ["drop-series", "drop-measurement", "delete"];

/// A statement that removes all of [`crate::cardinality`]'s series.
pub fn statement(name: &str) -> Result<&'static str> {
    Ok(match name {
        "drop-series" => "DROP SERIES FROM meter",
        "drop-measurement" => "DROP MEASUREMENT meter",
        "delete" => "DELETE FROM meter WHERE site =~ /./",
        other => bail!("unknown statement {other:?}: {} are known", NAMES.join(", ")),
    })
}

/// Sends the statement when its moment has come; gives when it was sent and answered, in time from `begin`. `None` if the
/// load was over before.
pub fn run(
    target: &str,
    database: &str,
    statement: &str,
    begin: Instant,
    rows_total: u64,
    rows_done: &AtomicU64,
    stop: &AtomicBool,
) -> Result<Option<Stretch>> {
    let mut client = Client::new(target).with_timeout(ANSWER_WITHIN);
    while (rows_done.load(Ordering::Relaxed) as f64) < rows_total as f64 * FROM_PART {
        if stop.load(Ordering::Acquire) {
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let parameters = format!("db={database}");
    let from = begin.elapsed();
    let answer = client.query(statement, &parameters).with_context(|| statement.to_owned())?;
    let until = begin.elapsed();
    if answer.status != 200 || answer.text().contains("\"error\"") {
        bail!("{statement}: {} {}", answer.status, answer.text());
    }
    let left = client.query("SHOW SERIES LIMIT 1", &parameters)?.text();
    if left.contains("\"values\"") {
        bail!("{statement} was answered, and this is left: {left}");
    }
    Ok(Some(Stretch { work: Work::Drop, from, until }))
}

/// A part of the load run.
#[derive(Debug)]
pub struct Phase {
    pub name: &'static str,
    pub seconds: f64,
    pub rows: u64,
    /// Of requests, in microseconds.
    pub latency: Histogram<u64>,
}

impl Phase {
    pub fn rows_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.rows as f64 / self.seconds } else { 0.0 }
    }

    fn p99_us(&self) -> u64 {
        self.latency.value_at_quantile(0.99)
    }
}

/// What the removal did to the load.
#[derive(Debug)]
pub struct RemovalReport {
    pub series: u64,
    pub statement: String,
    pub answer_seconds: f64,
    /// Before the statement, while it was under way, and behind its answer.
    pub phases: [Phase; 3],
}

impl RemovalReport {
    /// `samples` of the load; a request that met the statement at any time belongs to the second phase.
    pub fn new(series: u64, statement: &str, stretch: &Stretch, samples: &[Sample]) -> RemovalReport {
        let end = samples.iter().map(|sample| sample.done).max().unwrap_or_default();
        let during = (stretch.until.min(end)).saturating_sub(stretch.from);
        let lengths = [stretch.from.min(end), during, end.saturating_sub(stretch.until)];
        let mut phases =
            ["before", "during", "after"].map(|name| Phase { name, seconds: 0.0, rows: 0, latency: new_histogram() });
        for (phase, length) in phases.iter_mut().zip(lengths) {
            phase.seconds = length.as_secs_f64();
        }
        for sample in samples {
            // Rows count where they were acknowledged, a latency where any of its time was.
            let place = |at: Duration| usize::from(at >= stretch.from) + usize::from(at > stretch.until);
            phases[place(sample.done)].rows += sample.rows;
            let began = sample.done.saturating_sub(sample.latency);
            let has_met = began <= stretch.until && sample.done >= stretch.from;
            let of_latency = if has_met { 1 } else { place(sample.done) };
            phases[of_latency].latency.saturating_record((sample.latency.as_micros() as u64).max(1));
        }
        let answer_seconds = stretch.until.saturating_sub(stretch.from).as_secs_f64();
        RemovalReport { series, statement: statement.to_owned(), answer_seconds, phases }
    }

    /// A phase against the one before the statement: rows a second, and the latency at the 99th percentile.
    pub fn factors(&self, phase: usize) -> (f64, f64) {
        let [before, ..] = &self.phases;
        let phase = &self.phases[phase];
        (phase.rows_per_second() / before.rows_per_second(), phase.p99_us() as f64 / before.p99_us() as f64)
    }

    pub fn print(&self) {
        println!("{} on {} series: answered in {:.3} s", self.statement, self.series, self.answer_seconds);
        for (number, phase) in self.phases.iter().enumerate() {
            let (rate, p99) = self.factors(number);
            println!(
                "{}: {:.1} s, {:.0} rows/s ({rate:.2} of before), {} requests, p50 {:.3} ms, p99 {:.3} ms ({p99:.2} of \
                 before), max {:.3} ms",
                phase.name,
                phase.seconds,
                phase.rows_per_second(),
                phase.latency.len(),
                phase.latency.value_at_quantile(0.5) as f64 / 1e3,
                phase.p99_us() as f64 / 1e3,
                phase.latency.max() as f64 / 1e3,
            );
        }
    }

    pub fn to_json(&self) -> Value {
        let phase = |phase: &Phase| {
            json!({
                "name": phase.name,
                "seconds": phase.seconds,
                "rows_per_second": phase.rows_per_second(),
                "requests": phase.latency.len(),
                "p50_us": phase.latency.value_at_quantile(0.5),
                "p99_us": phase.p99_us(),
                "max_us": phase.latency.max(),
            })
        };
        json!({
            "series": self.series,
            "statement": self.statement,
            "answer_seconds": self.answer_seconds,
            "phases": self.phases.iter().map(phase).collect::<Vec<_>>(),
        })
    }

    /// Writes `removal.json` into a folder.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let path = folder.join("removal.json");
        let text = serde_json::to_string_pretty(&self.to_json())? + "\n";
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fall_before_beside_and_behind_the_statement() {
        let sample = |done_ms, latency_ms| Sample {
            done: Duration::from_millis(done_ms),
            latency: Duration::from_millis(latency_ms),
            rows: 10,
        };
        let (from, until) = (Duration::from_secs(1), Duration::from_secs(3));
        let stretch = Stretch { work: Work::Drop, from, until };
        let samples =
            [sample(500, 2), sample(999, 2), sample(1100, 300), sample(2500, 8), sample(3001, 4), sample(5000, 2)];
        let report = RemovalReport::new(7, "DROP", &stretch, &samples);
        let counts: Vec<u64> = report.phases.iter().map(|phase| phase.latency.len()).collect();
        let rows: Vec<u64> = report.phases.iter().map(|phase| phase.rows).collect();
        let seconds: Vec<f64> = report.phases.iter().map(|phase| phase.seconds).collect();
        // The one that ended just behind had met it.
        assert_eq!((counts, rows, seconds), (vec![2, 3, 1], vec![20, 20, 20], vec![1.0, 2.0, 2.0]));
        assert_eq!(report.answer_seconds, 2.0);
        let (rate, p99) = report.factors(1);
        assert!(rate == 0.5 && p99 > 100.0, "{rate} {p99}");
        report.print();
        assert_eq!(report.to_json()["phases"][2]["requests"], 1);
    }

    #[test]
    fn the_statements_have_names() {
        assert!(NAMES.iter().all(|name| statement(name).is_ok()) && statement("truncate").is_err());
    }
}
