//! The write driver: C clients, each on its own thread and connection, sending ready bodies.
//!
//! Closed loop: a client sends its next request when the answer to the last one is there. Open loop (`rate`): each
//! request has a time at which it should leave, and its latency counts from that time, so a server that stalls
//! cannot hide the requests that had to wait (coordinated omission).

use crate::acknowledgement::{Entry, Outcome, Writer};
use crate::http::{Client, encode};
use crate::process;
use crate::report::{LoadReport, new_histogram};
use crate::workload::{Batch, ClientPlan, Lines};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How a plan is sent.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// host:port of the servers; batches go to them in turn.
    pub targets: Vec<String>,
    pub database: String,
    pub retention_policy: String,
    pub consistency: String,
    pub precision: String,
    /// Rows a second over all clients; None sends as fast as answers come.
    pub rate: Option<f64>,
    /// Send a batch again that got 429, 5xx or no answer, until it is taken.
    pub retry: bool,
    /// Process whose CPU time and memory are reported.
    pub server_pid: Option<u32>,
}

impl LoadOptions {
    pub fn new(target: impl Into<String>, database: &str, precision: &str) -> Self {
        Self {
            targets: vec![target.into()],
            database: database.to_owned(),
            retention_policy: String::new(),
            consistency: "one".to_owned(),
            precision: precision.to_owned(),
            rate: None,
            retry: false,
            server_pid: None,
        }
    }
}

/// Where outcomes are kept, and what ends a run early.
#[derive(Debug, Default)]
pub struct LoadControl<'a> {
    pub log: Option<&'a Writer>,
    /// Once true, clients send nothing more.
    pub stop: Option<&'a AtomicBool>,
    /// First sequence number of every client: runs on one data set follow each other.
    pub first_sequence: u64,
    /// Every answered request is kept as a sample.
    pub keeps_samples: bool,
    /// Grows by the rows that are acknowledged.
    pub rows_done: Option<&'a AtomicU64>,
}

/// One answered request.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// From the start of the run.
    pub done: Duration,
    pub latency: Duration,
    pub rows: u64,
}

/// Longest pause between two tries of a batch.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A server that gives no answer at all for this long is given up.
const RETRY_GIVE_UP: Duration = Duration::from_secs(120);
/// Different failure texts that are kept.
const FAILURE_KINDS_MAX: usize = 20;

#[derive(Debug)]
struct ClientResult {
    latency: hdrhistogram::Histogram<u64>,
    rows_per_second: Vec<u64>,
    entries: Vec<Entry>,
    failures: BTreeMap<String, u64>,
    body_bytes: u64,
    retries: u64,
    rows_unsent: u64,
    samples: Vec<Sample>,
    finished: Duration,
}

/// Creates the database and gives its default retention policy unlimited duration, as the reference writer does.
pub fn create_database(address: &str, database: &str, replication: u32) -> Result<()> {
    let mut client = Client::new(address);
    for statement in [
        format!("CREATE DATABASE {database}"),
        format!("ALTER RETENTION POLICY autogen ON {database} DURATION INF REPLICATION {replication}"),
    ] {
        let answer = client.query(&statement, "").with_context(|| format!("{statement} at {address}"))?;
        let text = answer.text();
        if answer.status != 200 || text.contains("\"error\"") {
            bail!("{statement} at {address}: {} {text}", answer.status);
        }
    }
    Ok(())
}

/// Where the requests of a client come from.
enum Supply<'a> {
    /// They were rendered before the clock started.
    Ready(&'a ClientPlan),
    /// Each is rendered when the one before is answered, into a plan of one.
    Rendered { lines: Lines, rows_per_request: u64, next_row: u64, plan: ClientPlan },
}

impl Supply<'_> {
    /// The request of this number; none at the end.
    fn request(&mut self, number: usize) -> Result<Option<(&ClientPlan, Batch)>> {
        match self {
            Supply::Ready(plan) => Ok(plan.batches.get(number).map(|batch| (*plan, *batch))),
            Supply::Rendered { lines, rows_per_request, next_row, plan } => {
                *plan = ClientPlan::render(lines, *next_row, *rows_per_request, *rows_per_request, false)?;
                let Some(batch) = plan.batches.first().copied() else { return Ok(None) };
                *next_row = batch.last_row + 1;
                Ok(Some((plan, batch)))
            }
        }
    }
}

/// Sends all plans, one client each. Returns the figures and the outcome of every batch that was sent.
pub fn run(plans: &[ClientPlan], options: &LoadOptions, control: &LoadControl<'_>) -> Result<(LoadReport, Vec<Entry>)> {
    run_supplies(plans.iter().map(Supply::Ready).collect(), options, control)
}

/// As [`run`], of clients that render their requests as they go: for sets that do not fit into memory beside the servers.
pub fn run_rendering(
    lines: Vec<Lines>,
    rows_per_request: u64,
    options: &LoadOptions,
    control: &LoadControl<'_>,
) -> Result<(LoadReport, Vec<Entry>)> {
    let supply = |lines| Supply::Rendered { lines, rows_per_request, next_row: 0, plan: ClientPlan::default() };
    run_supplies(lines.into_iter().map(supply).collect(), options, control)
}

fn run_supplies(
    supplies: Vec<Supply<'_>>,
    options: &LoadOptions,
    control: &LoadControl<'_>,
) -> Result<(LoadReport, Vec<Entry>)> {
    assert!(!options.targets.is_empty(), "a load run needs a target");
    let server_before = options.server_pid.map(process::cpu_seconds).transpose()?;
    let client_before = process::own_cpu_seconds();
    let (begin, clients) = (Instant::now(), supplies.len() as u64);
    let results: Vec<Result<ClientResult>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..)
            .zip(supplies)
            .map(|(index, supply)| {
                let sender = Sender { index, clients, options, control, begin };
                scope.spawn(move || sender.run(supply))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client thread died"))))
            .collect()
    });
    let client_cpu_seconds = process::own_cpu_seconds() - client_before;
    let server_after = options.server_pid.and_then(|pid| process::cpu_seconds(pid).ok());
    let mut report = LoadReport {
        rows_acknowledged: 0,
        rows_rejected: 0,
        rows_unknown: 0,
        rows_unsent: 0,
        requests: 0,
        body_bytes: 0,
        retries: 0,
        wall_seconds: 0.0,
        latency: new_histogram(),
        rows_per_second: Vec::new(),
        samples: Vec::new(),
        client_cpu_seconds,
        server_cpu_seconds: server_before.zip(server_after).map(|(before, after)| after - before),
        server_peak_rss_bytes: options.server_pid.and_then(|pid| process::peak_rss_bytes(pid).ok()),
        failures: BTreeMap::new(),
    };
    let mut entries = Vec::new();
    for result in results {
        let result = result?;
        report.wall_seconds = report.wall_seconds.max(result.finished.as_secs_f64());
        report.latency.add(&result.latency).map_err(|error| anyhow::anyhow!("merge histograms: {error}"))?;
        report.body_bytes += result.body_bytes;
        report.retries += result.retries;
        report.rows_unsent += result.rows_unsent;
        report.samples.extend(result.samples);
        if report.rows_per_second.len() < result.rows_per_second.len() {
            report.rows_per_second.resize(result.rows_per_second.len(), 0);
        }
        for (total, rows) in report.rows_per_second.iter_mut().zip(&result.rows_per_second) {
            *total += rows;
        }
        for (text, count) in result.failures {
            *report.failures.entry(text).or_default() += count;
        }
        entries.extend(result.entries);
    }
    for entry in &entries {
        report.requests += 1;
        let rows = entry.last_row - entry.first_row + 1;
        *match entry.outcome {
            Outcome::Acknowledged => &mut report.rows_acknowledged,
            Outcome::Rejected => &mut report.rows_rejected,
            Outcome::Unknown => &mut report.rows_unknown,
        } += rows;
    }
    Ok((report, entries))
}

struct Sender<'a> {
    index: u64,
    clients: u64,
    options: &'a LoadOptions,
    control: &'a LoadControl<'a>,
    begin: Instant,
}

impl Sender<'_> {
    fn run(&self, mut supply: Supply<'_>) -> Result<ClientResult> {
        let options = self.options;
        let mut connections: Vec<Client> = options.targets.iter().map(Client::new).collect();
        let target = format!(
            "/write?consistency={}&db={}&precision={}&rp={}",
            encode(&options.consistency),
            encode(&options.database),
            encode(&options.precision),
            encode(&options.retention_policy)
        );
        let mut headers = vec![("Content-Type", "text/plain")];
        if matches!(&supply, Supply::Ready(plan) if plan.gzip) {
            headers.push(("Content-Encoding", "gzip"));
        }
        let mut result = ClientResult {
            latency: new_histogram(),
            rows_per_second: Vec::with_capacity(600),
            entries: Vec::new(),
            failures: BTreeMap::new(),
            body_bytes: 0,
            retries: 0,
            rows_unsent: 0,
            samples: Vec::new(),
            finished: Duration::ZERO,
        };
        let (mut rows_before, mut number) = (0, 0);
        while let Some((plan, batch)) = supply.request(number)? {
            let intended = self.intended(rows_before, batch.rows());
            rows_before += batch.rows();
            if let Some(wait) = intended.and_then(|at| at.checked_sub(self.begin.elapsed())) {
                std::thread::sleep(wait);
            }
            if self.stopped() {
                break;
            }
            let (sequence, connection) = (number as u64, &mut connections[number % options.targets.len()]);
            number += 1;
            let head = connection.head("POST", &target, &headers, batch.end - batch.start);
            let sent = intended.unwrap_or_else(|| self.begin.elapsed());
            let Some(outcome) = self.deliver(connection, &head, plan.body(&batch), &mut result) else {
                result.rows_unsent += batch.rows();
                continue;
            };
            let done = self.begin.elapsed();
            let micros = done.saturating_sub(sent).as_micros() as u64;
            result.latency.saturating_record(micros.max(1));
            result.body_bytes += (batch.end - batch.start) as u64;
            let entry = Entry {
                client: self.index,
                sequence: self.control.first_sequence + sequence,
                first_row: batch.first_row,
                last_row: batch.last_row,
                outcome,
            };
            if let Some(log) = self.control.log {
                log.append(&entry)?;
            }
            result.entries.push(entry);
            if self.control.keeps_samples {
                result.samples.push(Sample { done, latency: done.saturating_sub(sent), rows: batch.rows() });
            }
            if outcome == Outcome::Acknowledged {
                if let Some(rows_done) = self.control.rows_done {
                    rows_done.fetch_add(batch.rows(), Ordering::Relaxed);
                }
                let second = done.as_secs() as usize;
                if result.rows_per_second.len() <= second {
                    result.rows_per_second.resize(second + 1, 0);
                }
                result.rows_per_second[second] += batch.rows();
            }
            result.finished = done;
        }
        Ok(result)
    }

    fn stopped(&self) -> bool {
        self.control.stop.is_some_and(|stop| stop.load(Ordering::Acquire))
    }

    /// In an open loop: when, from the start of the run, the batch of so many rows behind `rows_before` rows should leave.
    /// Clients start a fraction of their interval apart.
    fn intended(&self, rows_before: u64, rows: u64) -> Option<Duration> {
        let rate = self.options.rate? / self.clients as f64;
        let phase = rows as f64 * self.index as f64 / self.clients as f64;
        Some(Duration::from_secs_f64((rows_before as f64 + phase) / rate))
    }

    /// Sends one batch until its fate is settled, or once when retries are off. None: it never left, since nobody
    /// listened.
    fn deliver(&self, connection: &mut Client, head: &[u8], body: &[u8], result: &mut ClientResult) -> Option<Outcome> {
        let mut pause = Duration::from_millis(5);
        let mut silent_since: Option<Instant> = None;
        let mut sent = false;
        loop {
            let (outcome, text) = match connection.send(head, body) {
                Ok((204, _)) => return Some(Outcome::Acknowledged),
                Ok((status, body)) => {
                    sent = true;
                    silent_since = None;
                    let body = String::from_utf8_lossy(&body);
                    // 4xx but for 429 is the server's last word; after 429 and 5xx the rows may or may not be stored.
                    let settled = (400..500).contains(&status) && status != 429;
                    let outcome = if settled { Outcome::Rejected } else { Outcome::Unknown };
                    (outcome, format!("{status} {}", body.trim_end().chars().take(200).collect::<String>()))
                }
                Err(error) => {
                    sent |= error.kind() != std::io::ErrorKind::ConnectionRefused;
                    silent_since.get_or_insert_with(Instant::now);
                    (Outcome::Unknown, format!("no answer: {error}"))
                }
            };
            if result.failures.len() < FAILURE_KINDS_MAX || result.failures.contains_key(&text) {
                *result.failures.entry(text).or_default() += 1;
            }
            let given_up = silent_since.is_some_and(|since| since.elapsed() > RETRY_GIVE_UP);
            if outcome == Outcome::Rejected || !self.options.retry || given_up || self.stopped() {
                return sent.then_some(outcome);
            }
            result.retries += 1;
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }
}
