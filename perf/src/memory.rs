//! Whether a server holds its memory limit while everything comes at once.
//!
//! One run: a server with a memory limit, in a control group of that limit and a tenth where the machine permits it,
//! and at the same time a full-speed load of known series, clients that try to make far more series than fit, and
//! clients that ask for everything (`SELECT *`, `GROUP BY *`). What must hold: the resident memory stays within the
//! limit and a tenth, nothing is killed, every refusal is a 4xx or 503 with a reason, known series are taken all the
//! time, and afterwards every acknowledged row is there.

use crate::acknowledgement::{Entry, Outcome};
use crate::control_group::{ControlGroup, GroupFigures};
use crate::devices::DeviceSpec;
use crate::http::Client;
use crate::load::{self, LoadControl, LoadOptions};
use crate::process;
use crate::server::{Server, Setup};
use crate::verify::{self, Obligation};
use crate::workload::{self, Workload};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a run does.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    pub setup: Setup,
    pub limit_bytes: u64,
    /// How long the storm lasts.
    pub duration: Duration,
    /// Series that are tried.
    pub series: u64,
    /// Bytes of one more tag of each of them: longer keys come to the limit with fewer series.
    pub padding_bytes: usize,
    /// Before the storm nothing but new series come, until the first of them is refused or for so long.
    pub fill: Duration,
    /// Rows of the known series, sent before and during the storm, in turn and again from the start.
    pub rows: u64,
    pub load_clients: u64,
    pub series_clients: u64,
    pub query_clients: u64,
    /// Whether a control group is tried.
    pub control_group: bool,
}

/// What a run found.
#[derive(Debug)]
pub struct MemoryReport {
    pub limit_bytes: u64,
    /// In which group the server ran, or why in none.
    pub group: String,
    pub group_figures: GroupFigures,
    pub resident_bytes_max: u64,
    /// Resident bytes every tenth of a second.
    pub resident_series: Vec<u64>,
    /// What the server counted of its own parts at the end of the storm, by part.
    pub counted: BTreeMap<String, u64>,
    pub known_rows: u64,
    /// Rows of known series acknowledged in each second of the storm.
    pub known_rows_per_second: Vec<u64>,
    pub new_series: u64,
    pub new_series_refused: u64,
    /// Seconds until the first of them was refused, before the storm.
    pub filled_after: Option<f64>,
    /// Answers by what was done, status and reason; numbers in reasons are left out.
    pub answers: BTreeMap<String, u64>,
    /// What must not be.
    pub faults: Vec<String>,
}

const DATABASE: &str = "storm";
/// Values of the other tag of new series.
const RACKS: u64 = 500;
/// Lines in one request of new series.
const SERIES_PER_REQUEST: u64 = 5_000;
/// How often the resident memory is read.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);
/// Samples of which the largest is kept in the series.
const SAMPLES_KEPT_OF: usize = 20;
/// Reasons that are told apart.
const REASONS_MAX: usize = 200;
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for one answer while the storm lasts, and behind it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const CHECK_TIMEOUT: Duration = Duration::from_secs(300);

const STATEMENTS: [&str; 6] = [
    "SELECT * FROM devices",
    "SELECT * FROM attempt",
    "SELECT count(v) FROM attempt GROUP BY *",
    "SELECT mean(c0), max(c1) FROM devices GROUP BY *",
    "SELECT * FROM attempt GROUP BY *",
    "SHOW SERIES",
];

/// What all clients of the storm share.
struct Storm<'a> {
    address: String,
    stop: &'a AtomicBool,
    next_series: AtomicU64,
    series_max: u64,
    padding: String,
    /// A new series was refused.
    is_full: AtomicBool,
}

#[derive(Default)]
struct Told {
    answers: BTreeMap<String, u64>,
    faults: Vec<String>,
    new_series: u64,
    new_series_refused: u64,
    /// Series of requests without a clear answer.
    new_series_unknown: u64,
}

impl Told {
    fn answer(&mut self, what: &str, status: u16, reason: &str) {
        let reason: String = reason.chars().take(160).collect();
        let text = format!("{what}: {status} {}", without_numbers(&reason));
        if self.answers.len() < REASONS_MAX || self.answers.contains_key(&text) {
            *self.answers.entry(text).or_default() += 1;
        }
        let is_refusal = status == 503 || (400..500).contains(&status);
        if status >= 300 && (!is_refusal || reason.trim().is_empty()) {
            self.faults.push(format!("{what} was answered with {status} {reason}"));
        }
    }

    fn merge(&mut self, other: Told) {
        for (text, count) in other.answers {
            *self.answers.entry(text).or_default() += count;
        }
        self.faults.extend(other.faults);
        self.new_series += other.new_series;
        self.new_series_refused += other.new_series_refused;
        self.new_series_unknown += other.new_series_unknown;
    }
}

/// Texts that differ in numbers only count as one.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            other => out.push(other),
        }
    }
    out
}

/// Runs the storm.
pub fn run(options: &MemoryOptions) -> Result<MemoryReport> {
    let group = match options.control_group {
        true => ControlGroup::make(
            &format!("tidemill-{}", std::process::id()),
            options.limit_bytes + options.limit_bytes / 10,
        ),
        false => Err(anyhow::anyhow!("none was asked for")),
    };
    let mut setup = options.setup.clone().without_series_limits()?;
    setup.memory_limit = Some(options.limit_bytes.to_string());
    setup.control_group = group.as_ref().ok().map(ControlGroup::entrance);
    let mut server = Server::start(setup)?;
    load::create_database(&server.address(), DATABASE, 1)?;
    let spec = DeviceSpec::with_rows(options.rows, 1);
    let plans = workload::render_all(
        &Workload::Devices { spec, order: Default::default() },
        options.load_clients.max(1),
        1000,
        false,
    )?;
    let stop = AtomicBool::new(false);
    let storm = Storm {
        address: server.address(),
        stop: &stop,
        next_series: AtomicU64::new(0),
        series_max: options.series,
        padding: if options.padding_bytes > 0 {
            format!(",pad={}", "p".repeat(options.padding_bytes))
        } else {
            String::new()
        },
        is_full: AtomicBool::new(false),
    };
    let mut load_options = LoadOptions::new(server.address(), DATABASE, "ms");
    load_options.retry = true;
    // Series are known once they have a row.
    let (known, sent) = load::run(&plans, &load_options, &LoadControl::default())?;
    if known.rows_acknowledged < spec.rows() {
        bail!("the known series were not all taken before the storm: {:?}", known.failures);
    }
    let pid = server.pid();
    let mut told = Told::default();
    let filled_after = fill(&storm, options, &mut told)?;
    let mut rounds: Vec<Vec<Entry>> = vec![sent];
    let (mut known_rows, mut known_rows_per_second) = (0, Vec::new());
    let mut resident_series = Vec::new();
    let result: Result<()> = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(pid, &stop));
        let load = scope.spawn(|| {
            let mut rounds = Vec::new();
            while !stop.load(Ordering::Acquire) {
                let control = LoadControl { stop: Some(&stop), ..LoadControl::default() };
                rounds.push(load::run(&plans, &load_options, &control)?);
            }
            Ok::<_, anyhow::Error>(rounds)
        });
        let makers: Vec<_> =
            (0..options.series_clients).map(|_| scope.spawn(|| make_series(&storm, || false))).collect();
        let askers: Vec<_> = (0..options.query_clients)
            .map(|first| (first, &storm))
            .map(|(first, storm)| scope.spawn(move || ask(storm, first)))
            .collect();
        std::thread::sleep(options.duration);
        stop.store(true, Ordering::Release);
        for worker in makers.into_iter().chain(askers) {
            told.merge(worker.join().map_err(|_| anyhow::anyhow!("a client thread died"))?);
        }
        for (report, sent) in load.join().map_err(|_| anyhow::anyhow!("the load died"))?? {
            known_rows += report.rows_acknowledged;
            known_rows_per_second.extend(&report.rows_per_second);
            for (text, count) in report.failures {
                let (status, reason) = text.split_once(' ').unwrap_or((&text, ""));
                let status = status.parse().unwrap_or(0);
                told.answer("write of known series", status, reason);
                *told.answers.entry("write of known series: refused, in all".into()).or_default() += count;
            }
            rounds.push(sent);
        }
        resident_series = sampler.join().map_err(|_| anyhow::anyhow!("the sampler died"))?;
        Ok(())
    });
    result?;
    if !server.is_running() {
        let figures = group.as_ref().map(ControlGroup::figures).unwrap_or_default();
        bail!(
            "the server ended during the storm ({figures:?}); largest {:?}\n{}",
            resident_series.iter().max(),
            server.log_tail()
        );
    }
    let counted = counted(&mut server.client()).unwrap_or_default();
    let mut faults = told.faults;
    let clients = options.load_clients.max(1);
    check_known(&mut server.client().with_timeout(CHECK_TIMEOUT), spec, clients, &rounds, &mut faults)?;
    let there = told.new_series..=told.new_series + told.new_series_unknown;
    check_new(&mut server.client().with_timeout(CHECK_TIMEOUT), there, &mut faults)?;
    let resident_bytes_max = process::peak_rss_bytes(pid)?;
    let group_figures = group.as_ref().map(ControlGroup::figures).unwrap_or_default();
    if resident_bytes_max > options.limit_bytes + options.limit_bytes / 10 {
        faults.push(format!("{resident_bytes_max} resident bytes are more than the limit and a tenth"));
    }
    if group_figures.killed.is_some_and(|killed| killed > 0) {
        faults.push(format!("{:?}: the kernel killed for lack of memory", group_figures.killed));
    }
    if known_rows == 0 {
        faults.push("no row of a known series was taken".to_owned());
    }
    server.stop(STOP_TIMEOUT).context("stop the server")?;
    Ok(MemoryReport {
        limit_bytes: options.limit_bytes,
        group: group.as_ref().map_or_else(|error| format!("no control group: {error:#}"), ControlGroup::describe),
        group_figures,
        resident_bytes_max,
        resident_series,
        counted,
        known_rows,
        known_rows_per_second,
        new_series: told.new_series,
        new_series_refused: told.new_series_refused,
        filled_after,
        answers: told.answers,
        faults,
    })
}

/// The resident memory over time: of every so many samples the largest.
fn sample(pid: u32, stop: &AtomicBool) -> Vec<u64> {
    let mut kept: Vec<u64> = Vec::new();
    let mut count = 0;
    while !stop.load(Ordering::Acquire) {
        let Ok(bytes) = process::rss_bytes(pid) else { break };
        match kept.last_mut().filter(|_| count % SAMPLES_KEPT_OF != 0) {
            Some(largest) => *largest = bytes.max(*largest),
            None => kept.push(bytes),
        }
        count += 1;
        std::thread::sleep(SAMPLE_EVERY);
    }
    kept
}

/// Makes series until one is refused; seconds until then, if it came so far.
fn fill(storm: &Storm<'_>, options: &MemoryOptions, told: &mut Told) -> Result<Option<f64>> {
    let begun = Instant::now();
    let is_enough = || storm.is_full.load(Ordering::Acquire) || begun.elapsed() >= options.fill;
    std::thread::scope(|scope| {
        let makers: Vec<_> =
            (0..options.series_clients).map(|_| scope.spawn(|| make_series(storm, is_enough))).collect();
        for maker in makers {
            told.merge(maker.join().map_err(|_| anyhow::anyhow!("a client thread died"))?);
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(storm.is_full.load(Ordering::Acquire).then(|| begun.elapsed().as_secs_f64()))
}

/// Tries series that were never there, one point each.
fn make_series(storm: &Storm<'_>, is_enough: impl Fn() -> bool) -> Told {
    let mut client = Client::new(&storm.address).with_timeout(ANSWER_TIMEOUT);
    let mut told = Told::default();
    let mut body = Vec::new();
    while !storm.stop.load(Ordering::Acquire) && !is_enough() {
        let first = storm.next_series.fetch_add(SERIES_PER_REQUEST, Ordering::Relaxed);
        let count = storm.series_max.saturating_sub(first).min(SERIES_PER_REQUEST);
        if count == 0 {
            break;
        }
        body.clear();
        for series in first..first + count {
            let (padding, rack) = (&storm.padding, series % RACKS);
            let line = format!("attempt,host=host-{series:09}{padding},rack=r{rack:03} v={series}i {series}\n");
            body.extend_from_slice(line.as_bytes());
        }
        match client.write(&format!("db={DATABASE}"), &body) {
            Ok(answer) => {
                let text = answer.text();
                told.answer("write of new series", answer.status, text.trim());
                if text.contains("no new series") {
                    storm.is_full.store(true, Ordering::Release);
                }
                match (answer.status, dropped(&text)) {
                    (204, _) => told.new_series += count,
                    (400, Some(dropped)) if dropped <= count => {
                        told.new_series += count - dropped;
                        told.new_series_refused += dropped;
                    }
                    // Some partitions may have taken theirs.
                    _ => told.new_series_unknown += count,
                }
            }
            Err(error) => {
                told.faults.push(format!("write of new series: no answer: {error}"));
                told.new_series_unknown += count;
            }
        }
    }
    told
}

/// The count in a text such as `partial write: why dropped=7`.
fn dropped(text: &str) -> Option<u64> {
    let digits = text.rsplit_once("dropped=")?.1;
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Asks for everything, again and again, and reads the answers as fast as they come.
fn ask(storm: &Storm<'_>, first: u64) -> Told {
    use std::io::Read;
    let mut client = Client::new(&storm.address).with_timeout(ANSWER_TIMEOUT);
    let mut told = Told::default();
    let mut buffer = vec![0; 256 << 10];
    for statement in STATEMENTS.iter().cycle().skip(first as usize) {
        if storm.stop.load(Ordering::Acquire) {
            break;
        }
        let chunked = if first.is_multiple_of(2) { "&chunked=true" } else { "" };
        let what = format!("{statement}{chunked}");
        let mut answer = match client.open_query(statement, &format!("db={DATABASE}{chunked}")) {
            Ok(answer) => answer,
            Err(error) => {
                told.faults.push(format!("{what}: no answer: {error}"));
                continue;
            }
        };
        let status = answer.status;
        // An error in a 200 stands at its end.
        let mut tail = Vec::new();
        let ended = loop {
            match answer.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(count) => {
                    tail.extend_from_slice(&buffer[count.saturating_sub(512)..count]);
                    tail.drain(..tail.len().saturating_sub(512));
                }
                Err(error) => break Err(error),
            }
            if storm.stop.load(Ordering::Acquire) {
                break Ok(());
            }
        };
        drop(answer);
        let tail = String::from_utf8_lossy(&tail);
        let error = tail.rsplit_once("\"error\":").map_or("", |(_, error)| error);
        match ended {
            Ok(()) if status == 200 && error.is_empty() => told.answer(&what, 200, "answered"),
            Ok(()) => told.answer(&what, if status == 200 { 299 } else { status }, error),
            Err(error) => told.faults.push(format!("{what}: the answer broke off: {error}")),
        }
    }
    told
}

/// Bytes of each part as the server counts them, over all cores.
fn counted(client: &mut Client) -> Result<BTreeMap<String, u64>> {
    let text = client.get("/metrics")?.text();
    let mut parts: BTreeMap<String, u64> = BTreeMap::new();
    for line in text.lines() {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let value = value.parse::<f64>().unwrap_or(0.0).max(0.0) as u64;
        if let Some(rest) = name.strip_prefix("tidemill_memory_bytes{") {
            let part = rest.split_once("part=\"").and_then(|(_, rest)| rest.split_once('"'));
            *parts.entry(part.map_or("", |(part, _)| part).to_owned()).or_default() += value;
        } else if let Some(name) = name.strip_prefix("tidemill_memory_").filter(|name| !name.contains('{')) {
            parts.insert(name.to_owned(), value);
        }
    }
    Ok(parts)
}

/// Every row of known series that was acknowledged is there, with its values.
fn check_known(
    client: &mut Client,
    spec: DeviceSpec,
    clients: u64,
    rounds: &[Vec<Entry>],
    faults: &mut Vec<String>,
) -> Result<()> {
    let mut owed = Obligation::none(&spec);
    for round in rounds {
        let of_round = Obligation::from_log(&spec, Default::default(), clients, round)?;
        let must: Vec<u64> = of_round.must.difference(&owed.must).collect();
        owed.add(Outcome::Acknowledged, must);
        let may: Vec<u64> = of_round.may.difference(&owed.may).collect();
        owed.add(Outcome::Unknown, may);
    }
    let (present, verdict) = verify::obligations(client, DATABASE, spec, &owed)?;
    if !verdict.is_right() {
        let (must, there) = (owed.must.count(), present.count());
        faults.push(format!("known series: {must} rows owed, {there} there: {:?}", verdict.findings));
    }
    Ok(())
}

/// As many points of new series are there as were acknowledged.
fn check_new(client: &mut Client, expected: std::ops::RangeInclusive<u64>, faults: &mut Vec<String>) -> Result<()> {
    let mut count = 0;
    // Rack by rack, so that no question is about more series than a query may hold.
    for rack in 0..RACKS {
        let statement = format!("SELECT count(v) FROM attempt WHERE rack = 'r{rack:03}'");
        let text = client.query(&statement, &format!("db={DATABASE}"))?.text();
        let value: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        if text.contains("\"error\"") {
            faults.push(format!("{statement}: {text}"));
        }
        count += value["results"][0]["series"][0]["values"][0][1].as_u64().unwrap_or(0);
    }
    if !expected.contains(&count) {
        faults.push(format!("new series: {count} points are there instead of {expected:?}"));
    }
    Ok(())
}

impl MemoryReport {
    pub fn print(&self) {
        let mib = |bytes: u64| bytes as f64 / 1048576.0;
        println!("{}; {:?}", self.group, self.group_figures);
        println!(
            "limit {:.0} MiB, largest resident {:.1} MiB ({:.2} of the limit)",
            mib(self.limit_bytes),
            mib(self.resident_bytes_max),
            self.resident_bytes_max as f64 / self.limit_bytes as f64
        );
        println!(
            "known series: {} rows acknowledged, in each second {:?}",
            self.known_rows, self.known_rows_per_second
        );
        println!("new series: {} acknowledged, {} refused by name", self.new_series, self.new_series_refused);
        if let Some(seconds) = self.filled_after {
            println!("the first was refused after {seconds:.1} s of nothing but new series");
        }
        for (part, bytes) in &self.counted {
            println!("  {part}: {:.1} MiB", mib(*bytes));
        }
        for (answer, count) in &self.answers {
            println!("{count:>8} x {answer}");
        }
        for fault in &self.faults {
            println!("FAULT: {fault}");
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "limit_bytes": self.limit_bytes,
            "group": self.group,
            "group_bytes_max": self.group_figures.bytes_max,
            "group_killed": self.group_figures.killed,
            "resident_bytes_max": self.resident_bytes_max,
            "resident_bytes_every_tenth_of_a_second": self.resident_series,
            "counted_bytes": self.counted,
            "known_rows": self.known_rows,
            "known_rows_per_second": self.known_rows_per_second,
            "new_series": self.new_series,
            "new_series_refused": self.new_series_refused,
            "filled_after_seconds": self.filled_after,
            "answers": self.answers,
            "faults": self.faults,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_apart_without_their_numbers_and_500_is_a_fault() {
        let mut told = Told::default();
        told.answer("write", 503, "budget of 12 bytes");
        told.answer("write", 503, "budget of 345 bytes");
        assert_eq!(told.answers.get("write: 503 budget of # bytes"), Some(&2));
        assert!(told.faults.is_empty());
        told.answer("write", 500, "broken");
        told.answer("write", 503, " ");
        assert_eq!(told.faults.len(), 2);
    }

    #[test]
    fn the_count_of_dropped_points_is_read_from_its_text() {
        assert_eq!(dropped("{\"error\":\"partial write: why dropped=42\"}"), Some(42));
        assert_eq!((dropped("dropped=x"), dropped("none")), (None, None));
    }
}
