//! Single queries that are timed on every server, each in the server's own language.
//!
//! The figures of the performance goals: whole-set aggregates, rows of one group, grouped and windowed aggregates over
//! the reference set. All have time bounds, so that no server is asked for more windows than another.

use crate::devices::{DeviceSpec, START_MS};
use crate::http::{Client, encode};
use crate::server::Kind;
use anyhow::{Context, Result, bail};
use std::io::Read;
use std::time::Instant;

/// Runs of one probe; the median counts.
const RUNS: usize = 3;

/// One question in two languages.
#[derive(Clone, Debug)]
pub struct Probe {
    pub name: &'static str,
    /// InfluxQL.
    statement: String,
    /// Path and query string of VictoriaMetrics; several when one cannot ask everything.
    targets: Vec<String>,
}

/// The probes for a set in database `database`.
pub fn all(spec: &DeviceSpec) -> Vec<Probe> {
    let (start, end) = (START_MS, spec.end_ms());
    let bounds = format!("time >= {start}ms AND time < {end}ms");
    let last_s = (end - 1000) / 1000;
    // A range selector leaves its left border out: from the last row back over all rows it holds the first one, too.
    let range = format!("[{}s]", spec.rows_per_device);
    let instant = |query: String| format!("/api/v1/query?time={last_s}&query={}", encode(&query));
    let windows = |function: &str, step: &str| {
        let query = format!("sum({function}_over_time(devices_temperature[{step}]))");
        format!("/api/v1/query_range?start={}&end={}&step={step}&query={}", start / 1000, last_s + 60, encode(&query))
    };
    let over = |function: &str, by: &str| instant(format!("sum{by}({function}_over_time(devices_temperature{range}))"));
    let probe = |name, statement: String, targets| Probe { name, statement, targets };
    vec![
        probe("count", format!("SELECT count(temperature) FROM devices WHERE {bounds}"), vec![over("count", "")]),
        probe(
            "mean",
            format!("SELECT mean(temperature) FROM devices WHERE {bounds}"),
            vec![over("sum", ""), over("count", "")],
        ),
        probe(
            "spread",
            format!("SELECT spread(temperature) FROM devices WHERE {bounds}"),
            vec![instant(format!(
                "max(max_over_time(devices_temperature{range})) - min(min_over_time(devices_temperature{range}))"
            ))],
        ),
        probe(
            "q1, rows of one group",
            format!("SELECT * FROM devices WHERE devgroup = '10' AND {bounds}"),
            vec![format!(
                "/api/v1/export?start={}&end={}&match[]={}",
                start / 1000,
                end / 1000,
                encode("{__name__=~\"devices_.*\",devgroup=\"10\"}")
            )],
        ),
        probe(
            "q3, all groups",
            format!(
                "SELECT count(temperature), sum(temperature), mean(temperature) FROM devices WHERE {bounds} GROUP BY devgroup"
            ),
            vec![over("count", " by (devgroup) "), over("sum", " by (devgroup) ")],
        ),
        probe(
            "q4, bounded, by 1m",
            format!(
                "SELECT count(temperature), sum(temperature), mean(temperature) FROM devices WHERE {bounds} GROUP BY time(1m)"
            ),
            vec![windows("count", "1m"), windows("sum", "1m")],
        ),
        probe(
            "mean by 1h",
            format!("SELECT mean(temperature) FROM devices WHERE {bounds} GROUP BY time(1h)"),
            vec![windows("sum", "1h"), windows("count", "1h")],
        ),
    ]
}

impl Probe {
    /// Median seconds of a few runs.
    pub fn time(&self, kind: Kind, client: &mut Client, database: &str) -> Result<f64> {
        let mut seconds = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            let begin = Instant::now();
            if kind == Kind::VictoriaMetrics {
                for target in &self.targets {
                    self.drain(client.open("GET", &format!("{target}&nocache=1"), &[], b"")?)?;
                }
            } else {
                let parameters = format!("db={}&epoch=ms", encode(database));
                self.drain(client.open_query(&self.statement, &parameters)?)?;
            }
            seconds.push(begin.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[RUNS / 2])
    }

    fn drain(&self, mut answer: crate::http::Answer<'_>) -> Result<()> {
        let status = answer.status;
        let mut start = Vec::new();
        answer.by_ref().take(4096).read_to_end(&mut start).with_context(|| self.name)?;
        std::io::copy(&mut answer, &mut std::io::sink()).with_context(|| self.name)?;
        let text = String::from_utf8_lossy(&start);
        if status != 200 || start.is_empty() || text.contains("\"error\"") {
            bail!("{}: {status} {text}", self.name);
        }
        Ok(())
    }
}
