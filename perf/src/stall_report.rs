//! Does the load stall while the server flushes, copies, deletes and drops?
//!
//! Owns: the watch over one load run (what the server does beside it, as its metrics tell every tenth of a second), the
//! deletes and drops that are made meanwhile on a database of their own, and the report: figures by second as CSV, the
//! same as a drawing (SVG), and the latency beside each kind of work against the latency of moments without any, in the
//! same run.
//! Knows nothing of how requests are sent.

use crate::http::Client;
use crate::load::Sample;
use crate::report::new_histogram;
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the server is asked what it does.
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// Statements on the other database: deletes from this part of the rows on, then the drops.
const DELETE_FROM: f64 = 0.25;
const DROP_MEASUREMENT_FROM: f64 = 0.65;
const DROP_DATABASE_FROM: f64 = 0.8;
/// Between two deletes.
const DELETE_EVERY: Duration = Duration::from_millis(250);
/// A drop is worked off behind its answer.
const DROP_LASTS: Duration = Duration::from_millis(500);
/// A request that began so long before a stretch of work still counts as beside it. Fixed, so that what counts does not
/// depend on how long a request took: if every request counted that a stretch of a few milliseconds met, the slow ones
/// would be among them out of all proportion, whatever made them slow.
const MET_WITHIN: Duration = Duration::from_millis(100);
/// The slowest requests that the report names.
const SLOWEST_MAX: usize = 20;

/// What the server may do beside the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    Flush,
    Copy,
    Delete,
    Drop,
}

impl Work {
    pub const ALL: [Work; 4] = [Work::Flush, Work::Copy, Work::Delete, Work::Drop];

    pub fn name(self) -> &'static str {
        match self {
            Work::Flush => "flush",
            Work::Copy => "copy",
            Work::Delete => "delete",
            Work::Drop => "drop",
        }
    }
}

/// A stretch of the run in which a kind of work was under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    pub work: Work,
    pub from: Duration,
    pub until: Duration,
}

/// One second of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Second {
    pub rows: u64,
    pub requests: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
    /// In the order of [`Work::ALL`].
    pub work: [bool; 4],
}

/// The report.
#[derive(Debug)]
pub struct StallReport {
    /// The last one is cut short.
    pub seconds: Vec<Second>,
    /// Requests that began beside no work, and beside each kind.
    pub idle: Histogram<u64>,
    pub beside: Vec<(Work, Histogram<u64>)>,
    /// The slowest requests, the slowest first.
    pub slowest: Vec<Slow>,
}

/// One of the slowest requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Slow {
    pub began: Duration,
    pub latency: Duration,
    pub beside: Vec<Work>,
}

/// Watches until `stop`, while `statements` runs beside: gives the stretches of work, in time from `begin`, with those
/// that it gives.
pub fn watch(
    target: &str,
    begin: Instant,
    stop: &AtomicBool,
    statements: impl FnOnce() -> Vec<Stretch> + Send,
) -> Vec<Stretch> {
    std::thread::scope(|scope| {
        let statements = scope.spawn(statements);
        let mut client = Client::new(target).with_timeout(Duration::from_secs(30));
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut last: Option<Activity> = None;
        let mut since = begin.elapsed();
        while !stop.load(Ordering::Acquire) {
            std::thread::sleep(WATCH_EVERY);
            let Ok(answer) = client.get("/metrics") else { continue };
            let now = Activity::read(&answer.text());
            let until = begin.elapsed();
            if let Some(last) = last {
                let kinds = [(Work::Flush, now.flushed_since(&last)), (Work::Copy, now.copied_since(&last))];
                stretches.extend(kinds.iter().filter(|(_, is)| *is).map(|(work, _)| Stretch {
                    work: *work,
                    from: since,
                    until,
                }));
            }
            (last, since) = (Some(now), until);
        }
        stretches.extend(statements.join().unwrap_or_default());
        stretches
    })
}

/// Deletes and drops on the other database while the load goes on.
pub fn run_statements(
    target: &str,
    database: &str,
    begin: Instant,
    rows_total: u64,
    rows_done: &AtomicU64,
    stop: &AtomicBool,
) -> Vec<Stretch> {
    let mut client = Client::new(target).with_timeout(Duration::from_secs(60));
    let mut stretches = Vec::new();
    let mut drops = [
        (DROP_MEASUREMENT_FROM, "DROP MEASUREMENT devices".to_owned()),
        (DROP_DATABASE_FROM, format!("DROP DATABASE {database}")),
    ]
    .into_iter()
    .peekable();
    let mut deleted = 0u32;
    while !stop.load(Ordering::Acquire) {
        let part = rows_done.load(Ordering::Relaxed) as f64 / rows_total as f64;
        let (work, statement) = match drops.next_if(|(from, _)| part >= *from) {
            Some((_, statement)) => (Work::Drop, statement),
            None if (DELETE_FROM..DROP_MEASUREMENT_FROM).contains(&part) => {
                deleted += 1;
                (Work::Delete, format!("DELETE FROM devices WHERE devgroup = '{}'", deleted % 100))
            }
            None => {
                std::thread::sleep(WATCH_EVERY);
                continue;
            }
        };
        let from = begin.elapsed();
        let answered = client.query(&statement, &format!("db={database}"));
        if !answered.is_ok_and(|answer| answer.status == 200 && !answer.text().contains("\"error\"")) {
            continue;
        }
        let lasts = if work == Work::Drop { DROP_LASTS } else { Duration::ZERO };
        stretches.push(Stretch { work, from, until: begin.elapsed() + lasts });
        std::thread::sleep(DELETE_EVERY);
    }
    stretches
}

/// What the metrics say at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Activity {
    flushes: f64,
    frozen_bytes: f64,
    copies: f64,
    copies_under_way: f64,
}

impl Activity {
    fn read(metrics: &str) -> Activity {
        let sum = |name: &str| -> f64 {
            let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
            let values = lines.filter(|rest| rest.starts_with(['{', ' ']));
            values.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        Activity {
            flushes: sum("tidemill_flushes_total"),
            frozen_bytes: sum("tidemill_memtable_frozen_bytes"),
            copies: sum("tidemill_copies_total"),
            copies_under_way: sum("tidemill_copies_under_way"),
        }
    }

    fn flushed_since(&self, last: &Activity) -> bool {
        self.flushes > last.flushes || self.frozen_bytes > 0.0
    }

    fn copied_since(&self, last: &Activity) -> bool {
        self.copies > last.copies || self.copies_under_way > 0.0
    }
}

impl StallReport {
    pub fn new(samples: &[Sample], stretches: &[Stretch]) -> StallReport {
        let beside_work = |began: Duration, work: Work| {
            let met = |stretch: &Stretch| stretch.from <= began + MET_WITHIN && began <= stretch.until;
            stretches.iter().any(|stretch| stretch.work == work && met(stretch))
        };
        let mut by_second: Vec<(u64, Histogram<u64>, [bool; 4])> = Vec::new();
        let mut idle = new_histogram();
        let mut beside: Vec<(Work, Histogram<u64>)> = Work::ALL.iter().map(|work| (*work, new_histogram())).collect();
        for sample in samples {
            let second = sample.done.as_secs() as usize;
            if by_second.len() <= second {
                by_second.resize_with(second + 1, || (0, new_histogram(), [false; 4]));
            }
            let micros = (sample.latency.as_micros() as u64).max(1);
            let (rows, latency, works) = &mut by_second[second];
            *rows += sample.rows;
            latency.saturating_record(micros);
            let mut is_idle = true;
            for (place, (work, histogram)) in beside.iter_mut().enumerate() {
                if beside_work(sample.done.saturating_sub(sample.latency), *work) {
                    is_idle = false;
                    works[place] = true;
                    histogram.saturating_record(micros);
                }
            }
            if is_idle {
                idle.saturating_record(micros);
            }
        }
        let second = |(rows, latency, work): (u64, Histogram<u64>, [bool; 4])| Second {
            rows,
            requests: latency.len(),
            p50_us: latency.value_at_quantile(0.5),
            p99_us: latency.value_at_quantile(0.99),
            max_us: latency.max(),
            work,
        };
        let mut order: Vec<&Sample> = samples.iter().collect();
        order.sort_by_key(|sample| (Reverse(sample.latency), sample.done));
        let slow = |sample: &&Sample| {
            let began = sample.done.saturating_sub(sample.latency);
            let beside = Work::ALL.into_iter().filter(|work| beside_work(began, *work)).collect();
            Slow { began, latency: sample.latency, beside }
        };
        let slowest = order.iter().take(SLOWEST_MAX).map(slow).collect();
        StallReport { seconds: by_second.into_iter().map(second).collect(), idle, beside, slowest }
    }

    /// Rows of the worst full second as a part of the mean of all; `None` below two seconds.
    pub fn worst_part(&self) -> Option<f64> {
        let (_, full) = self.seconds.split_last()?;
        let mean = full.iter().map(|second| second.rows).sum::<u64>() as f64 / full.len() as f64;
        full.iter().map(|second| second.rows as f64 / mean).min_by(f64::total_cmp)
    }

    /// The latency beside a kind of work as a multiple of the latency without any, at the 99th percentile.
    pub fn factor(&self, work: Work) -> Option<f64> {
        let (_, histogram) = self.beside.iter().find(|(known, _)| *known == work)?;
        let both = !self.idle.is_empty() && !histogram.is_empty();
        both.then(|| histogram.value_at_quantile(0.99) as f64 / self.idle.value_at_quantile(0.99) as f64)
    }

    pub fn print(&self) {
        let ms = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        if let Some(part) = self.worst_part() {
            println!("worst second: {part:.2} of the mean of {} full seconds", self.seconds.len() - 1);
        }
        let line = |name: &str, histogram: &Histogram<u64>, factor: Option<f64>| {
            let factor = factor.map_or(String::new(), |factor| format!(", p99 {factor:.2} times that of idle"));
            println!(
                "latency beside {name}: {} requests, p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms{factor}",
                histogram.len(),
                ms(histogram, 0.5),
                ms(histogram, 0.99),
                histogram.max() as f64 / 1e3
            );
        };
        line("nothing (idle)", &self.idle, None);
        for (work, histogram) in self.beside.iter().filter(|(_, histogram)| !histogram.is_empty()) {
            line(work.name(), histogram, self.factor(*work));
        }
    }

    pub fn csv(&self) -> String {
        let mut text = "second,rows,requests,p50_us,p99_us,max_us,flush,copy,delete,drop\n".to_owned();
        for (number, second) in self.seconds.iter().enumerate() {
            let [flush, copy, delete, drop] = second.work.map(u8::from);
            let Second { rows, requests, p50_us, p99_us, max_us, .. } = second;
            let _ =
                writeln!(text, "{number},{rows},{requests},{p50_us},{p99_us},{max_us},{flush},{copy},{delete},{drop}");
        }
        text
    }

    /// Bars of rows and a line of the 99th percentile, one column a second, with marks for the work beside.
    pub fn svg(&self) -> String {
        const WIDTH: f64 = 1000.0;
        const HEIGHT: f64 = 300.0;
        const COLOURS: [&str; 4] = ["#e07b39", "#8e44ad", "#c0392b", "#2c3e50"];
        let count = self.seconds.len().max(1) as f64;
        let rows_max = self.seconds.iter().map(|second| second.rows).max().unwrap_or(0).max(1) as f64;
        let p99_max = self.seconds.iter().map(|second| second.p99_us).max().unwrap_or(0).max(1) as f64;
        let (column, mut line) = (WIDTH / count, String::new());
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-10 -30 {} {}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<text x=\"0\" y=\"-12\">rows a second (bars, up to {rows_max}) and p99 (line, up to \
             {:.1} ms)</text>\n",
            WIDTH + 20.0,
            HEIGHT + 100.0,
            p99_max / 1e3
        );
        for (number, second) in self.seconds.iter().enumerate() {
            let (x, height) = (number as f64 * column, second.rows as f64 / rows_max * HEIGHT);
            let _ = writeln!(
                text,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#9dbad5\"/>",
                HEIGHT - height,
                column * 0.9
            );
            for (place, is) in second.work.iter().enumerate().filter(|(_, is)| **is) {
                let _ = is;
                let y = HEIGHT + 6.0 + 12.0 * place as f64;
                let _ = writeln!(
                    text,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"8\" fill=\"{}\"/>",
                    column * 0.9,
                    COLOURS[place]
                );
            }
            let y = HEIGHT - second.p99_us as f64 / p99_max * HEIGHT;
            let _ = write!(line, "{:.1},{y:.1} ", x + column / 2.0);
        }
        let _ = writeln!(text, "<polyline points=\"{line}\" fill=\"none\" stroke=\"#b03030\" stroke-width=\"1.5\"/>");
        for (place, work) in Work::ALL.iter().enumerate() {
            let x = place as f64 * 90.0;
            let _ = writeln!(
                text,
                "<text x=\"{x}\" y=\"{}\" fill=\"{}\">{}</text>",
                HEIGHT + 72.0,
                COLOURS[place],
                work.name()
            );
        }
        text.push_str("</svg>\n");
        text
    }

    pub fn to_json(&self) -> Value {
        let figures = |histogram: &Histogram<u64>| {
            json!({
                "requests": histogram.len(),
                "p50_us": histogram.value_at_quantile(0.5),
                "p99_us": histogram.value_at_quantile(0.99),
                "max_us": histogram.max(),
            })
        };
        let beside: serde_json::Map<String, Value> =
            self.beside.iter().map(|(work, histogram)| (work.name().to_owned(), figures(histogram))).collect();
        let worst = |work: &Work| json!({ "work": work.name(), "p99_times_idle": self.factor(*work) });
        let slow = |slow: &Slow| {
            let beside: Vec<&str> = slow.beside.iter().map(|work| work.name()).collect();
            json!({
                "began_s": slow.began.as_secs_f64(),
                "latency_ms": slow.latency.as_secs_f64() * 1e3,
                "beside": beside,
            })
        };
        json!({
            "worst_second_part_of_mean": self.worst_part(),
            "idle": figures(&self.idle),
            "beside": beside,
            "factors": Work::ALL.iter().map(worst).collect::<Vec<_>>(),
            "slowest": self.slowest.iter().map(slow).collect::<Vec<_>>(),
        })
    }

    /// Writes `stalls.csv`, `stalls.svg` and `stalls.json` into a folder.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        write("stalls.csv", self.csv())?;
        write("stalls.svg", self.svg())?;
        write("stalls.json", serde_json::to_string_pretty(&self.to_json())? + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(done_ms: u64, latency_ms: u64) -> Sample {
        Sample { done: Duration::from_millis(done_ms), latency: Duration::from_millis(latency_ms), rows: 10 }
    }

    #[test]
    fn requests_belong_to_the_work_beside_which_they_began() {
        let stretch = |work, from, until| Stretch {
            work,
            from: Duration::from_millis(from),
            until: Duration::from_millis(until),
        };
        let stretches = [stretch(Work::Flush, 200, 300), stretch(Work::Drop, 1500, 1600)];
        // The slowest one began long before the drop: that it lasted into it does not make it one of those beside.
        let samples = [
            sample(50, 1),
            sample(150, 4),
            sample(305, 10),
            sample(400, 1),
            sample(1550, 200),
            sample(1550, 2),
            sample(2000, 1),
        ];
        let report = StallReport::new(&samples, &stretches);
        let counts: Vec<u64> = report.beside.iter().map(|(_, histogram)| histogram.len()).collect();
        assert_eq!((report.idle.len(), counts), (4, vec![2, 0, 0, 1]));
        assert!(report.factor(Work::Flush).is_some_and(|factor| factor < 0.1) && report.factor(Work::Copy).is_none());
        let slowest: Vec<u128> = report.slowest.iter().map(|slow| slow.latency.as_millis()).collect();
        assert_eq!((&slowest[..3], report.slowest[1].beside.as_slice()), (&[200, 10, 4][..], &[Work::Flush][..]));
        assert_eq!(report.worst_part(), Some(20.0 / 30.0));
        assert_eq!(report.seconds[0].work, [true, false, false, false]);
        assert!(report.csv().ends_with("2,10,1,1000,1000,1000,0,0,0,0\n"), "{}", report.csv());
        assert!(report.svg().contains("polyline") && report.svg().matches("<rect").count() == 5);
    }

    #[test]
    fn activity_is_summed_over_cores() {
        let text = "tidemill_flushes_total{core=\"0\"} 2\ntidemill_flushes_total{core=\"1\"} 3\n\
                    tidemill_flushes_total_other 9\ntidemill_memtable_frozen_bytes{core=\"0\"} 0\n";
        let now = Activity::read(text);
        assert_eq!(now, Activity { flushes: 5.0, ..Activity::default() });
        assert!(now.flushed_since(&Activity::default()) && !now.flushed_since(&now) && !now.copied_since(&now));
    }
}
