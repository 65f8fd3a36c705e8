//! What many series cost: memory, the rate at which they come, what is asked of the index, and the start.
//!
//! One run: a server without limits of series gets so many of them with one row each, answers the statements that the
//! index answers, is stopped, started, killed and started again. A start is measured from the start of the process to
//! the first row that it acknowledges. Every count that it answers is checked.

use crate::cardinality::SeriesSpec;
use crate::http::Client;
use crate::load::{self, LoadControl, LoadOptions};
use crate::process;
use crate::server::{Server, Setup};
use crate::workload::{ClientPlan, Lines, Workload};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What a run does.
#[derive(Clone, Debug)]
pub struct IndexOptions {
    pub setup: Setup,
    pub series: u64,
    pub clients: u64,
    pub rows_per_request: u64,
    /// Each statement is asked so often, and the fastest answer counts.
    pub repeat: u32,
}

/// What a run found.
#[derive(Debug)]
pub struct IndexReport {
    pub series: u64,
    pub load_seconds: f64,
    pub load_server_cpu_seconds: f64,
    /// As the server counts its index, and the growth of its resident memory.
    pub index_bytes: u64,
    pub resident_bytes: u64,
    pub file_bytes: u64,
    pub questions: Vec<Asked>,
    pub starts: Vec<Start>,
}

/// One statement.
#[derive(Debug)]
pub struct Asked {
    pub statement: String,
    pub seconds: f64,
    pub server_cpu_seconds: f64,
    pub answer_bytes: usize,
    /// The only figure of the answer, or its error.
    pub result: String,
}

/// One start: from the start of the process.
#[derive(Debug)]
pub struct Start {
    pub after: &'static str,
    pub seconds_to_answer: f64,
    pub seconds_to_write: f64,
    pub cpu_seconds_to_write: f64,
    pub resident_bytes: u64,
}

const DATABASE: &str = "many";
/// More series are not listed: what is compared shows itself with fewer.
const LISTED_SERIES_MAX: u64 = 2_000_000;
/// Rows that are rendered before they are sent.
const SLICE_ROWS: u64 = 400_000;
const STOP_TIMEOUT: Duration = Duration::from_secs(120);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs all of it.
pub fn run(options: &IndexOptions) -> Result<IndexReport> {
    let setup = options.setup.clone().without_series_limits()?;
    let server = Server::start(setup.clone())?;
    load::create_database(&server.address(), DATABASE, 1)?;
    let resident_before = process::rss_bytes(server.pid())?;
    let (load_seconds, load_server_cpu_seconds) = load_series(options, &server)?;
    println!("{} series in {load_seconds:.1} s, {load_server_cpu_seconds:.1} CPU seconds", options.series);
    expect_count(&server, options.series)?;
    let index_bytes = metric(&mut server.client(), "tidemill_index_bytes")?;
    let resident_bytes = process::rss_bytes(server.pid())?.saturating_sub(resident_before);
    let questions = ask(options, &server)?;
    server.stop(STOP_TIMEOUT).context("stop the server")?;
    let file_bytes = index_file_bytes(&setup.data);
    let mut starts = Vec::new();
    let (server, start) = start(setup.clone(), "a stop", options.series)?;
    starts.push(start);
    expect_count(&server, options.series)?;
    server.kill()?;
    let (server, start) = self::start(setup, "a kill", options.series)?;
    starts.push(start);
    expect_count(&server, options.series)?;
    server.stop(STOP_TIMEOUT).context("stop the server")?;
    let series = options.series;
    Ok(IndexReport {
        series,
        load_seconds,
        load_server_cpu_seconds,
        index_bytes,
        resident_bytes,
        file_bytes,
        questions,
        starts,
    })
}

/// Sends one row for each series; wall time and CPU time of the server while it was sent.
fn load_series(options: &IndexOptions, server: &Server) -> Result<(f64, f64)> {
    let clients = options.clients.max(1);
    let workload = Workload::Series(SeriesSpec { series: options.series, points: 1, seed: 1 });
    let mut lines: Vec<Lines> = (0..clients).map(|client| workload.lines(client, clients)).collect::<Result<_>>()?;
    let mut load_options = LoadOptions::new(server.address(), DATABASE, workload.precision());
    load_options.retry = true;
    load_options.server_pid = Some(server.pid());
    let (mut sent, mut seconds, mut cpu_seconds) = (0, 0.0, 0.0);
    while sent < options.series {
        let rows_max = (SLICE_ROWS / clients).max(1);
        let render = |lines: &mut Lines| ClientPlan::render(lines, 0, rows_max, options.rows_per_request, false);
        let plans: Vec<ClientPlan> = lines.iter_mut().map(render).collect::<Result<_>>()?;
        let rows: u64 = plans.iter().map(ClientPlan::rows).sum();
        let (report, _) = load::run(&plans, &load_options, &LoadControl::default())?;
        if rows == 0 || report.rows_acknowledged < rows {
            bail!("{} of {rows} rows were acknowledged: {:?}", report.rows_acknowledged, report.failures);
        }
        sent += rows;
        seconds += report.wall_seconds;
        cpu_seconds += report.server_cpu_seconds.unwrap_or(0.0);
    }
    Ok((seconds, cpu_seconds))
}

fn ask(options: &IndexOptions, server: &Server) -> Result<Vec<Asked>> {
    let some = options.series / 2;
    let statements = [
        "SHOW SERIES CARDINALITY".to_owned(),
        "SHOW SERIES EXACT CARDINALITY".to_owned(),
        "SHOW SERIES EXACT CARDINALITY FROM meter".to_owned(),
        "SHOW MEASUREMENT EXACT CARDINALITY".to_owned(),
        "SHOW TAG KEY EXACT CARDINALITY".to_owned(),
        "SHOW FIELD KEY EXACT CARDINALITY".to_owned(),
        "SHOW TAG VALUES EXACT CARDINALITY WITH KEY = site".to_owned(),
        "SHOW TAG VALUES EXACT CARDINALITY WITH KEY = unit".to_owned(),
        "SHOW SERIES EXACT CARDINALITY WHERE site = 's7'".to_owned(),
        "SHOW SERIES EXACT CARDINALITY WHERE site =~ /^s.7/".to_owned(),
        "SHOW SERIES EXACT CARDINALITY WHERE unit =~ /7.*5$/".to_owned(),
        "SHOW SERIES EXACT CARDINALITY WHERE unit !~ /7.*5$/ AND site =~ /^s1/".to_owned(),
        format!("SHOW SERIES WHERE unit = 'u{some}'"),
        format!("SHOW SERIES WHERE unit =~ /^u{some}$/"),
    ];
    let listing = ["SHOW SERIES LIMIT 10".to_owned(), "SHOW SERIES".to_owned()];
    let listing = listing.into_iter().filter(|_| options.series <= LISTED_SERIES_MAX);
    let mut client = server.client().with_timeout(ANSWER_TIMEOUT);
    let mut asked = Vec::new();
    for statement in statements.into_iter().chain(listing) {
        let mut best: Option<Asked> = None;
        for _ in 0..options.repeat.max(1) {
            let before = process::cpu_seconds(server.pid())?;
            let begin = Instant::now();
            let answer = client.query(&statement, &format!("db={DATABASE}"))?;
            let text = answer.text();
            let seconds = begin.elapsed().as_secs_f64();
            let server_cpu_seconds = process::cpu_seconds(server.pid())? - before;
            if best.as_ref().is_none_or(|best| seconds < best.seconds) {
                let result = result_of(&text);
                best = Some(Asked {
                    statement: statement.clone(),
                    seconds,
                    server_cpu_seconds,
                    answer_bytes: text.len(),
                    result,
                });
            }
        }
        asked.extend(best);
    }
    Ok(asked)
}

/// The only figure of an answer, or how many rows it has, or its error.
fn result_of(text: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return "no JSON".to_owned() };
    let result = &value["results"][0];
    if let Some(error) = result["error"].as_str().or(value["error"].as_str()) {
        return error.to_owned();
    }
    let rows = result["series"][0]["values"].as_array().map_or(&[][..], Vec::as_slice);
    match rows {
        [Value::Array(row)] if row.len() == 1 => row[0].to_string(),
        rows => format!("{} rows", rows.len()),
    }
}

/// Starts the server and writes a row, again and again until it is taken.
fn start(setup: Setup, after: &'static str, series: u64) -> Result<(Server, Start)> {
    let begin = Instant::now();
    let server = Server::start(setup)?;
    let mut client = server.client();
    let row = format!("meter,site=s{},unit=u{} value=1 2000000000000", (series - 1) % 1000, series - 1);
    loop {
        let answer = client.write(&format!("db={DATABASE}&precision=ms"), row.as_bytes());
        if answer.as_ref().is_ok_and(|answer| answer.status == 204) {
            break;
        }
        if begin.elapsed() > WRITE_TIMEOUT {
            bail!("no row was taken within {WRITE_TIMEOUT:?} of the start: {answer:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let seconds_to_write = begin.elapsed().as_secs_f64();
    let cpu_seconds_to_write = process::cpu_seconds(server.pid())?;
    let start = Start {
        after,
        seconds_to_answer: server.start_time.as_secs_f64(),
        seconds_to_write,
        cpu_seconds_to_write,
        resident_bytes: process::rss_bytes(server.pid())?,
    };
    Ok((server, start))
}

fn expect_count(server: &Server, series: u64) -> Result<()> {
    let text = server.client().query("SHOW SERIES EXACT CARDINALITY", &format!("db={DATABASE}"))?.text();
    if result_of(&text) != series.to_string() {
        bail!("{series} series were written, the server has {text}");
    }
    Ok(())
}

/// The sum of a metric over its labels.
fn metric(client: &mut Client, name: &str) -> Result<u64> {
    let text = client.get("/metrics")?.text();
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    Ok(values.sum::<f64>() as u64)
}

/// Bytes of the files that hold the indexes.
fn index_file_bytes(data: &std::path::Path) -> u64 {
    let partitions = std::fs::read_dir(data.join("partitions")).into_iter().flatten().flatten();
    let files = partitions.flat_map(|partition| std::fs::read_dir(partition.path()).into_iter().flatten().flatten());
    files
        .filter(|file| file.file_name().to_string_lossy().starts_with("index-"))
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

impl IndexReport {
    pub fn print(&self) {
        let each = |bytes: u64| bytes as f64 / self.series.max(1) as f64;
        println!(
            "{} series: {:.0} series/s, {:.2} us of CPU each; bytes each: {:.1} index, {:.1} growth of the resident \
             memory, {:.1} index files",
            self.series,
            self.series as f64 / self.load_seconds,
            self.load_server_cpu_seconds * 1e6 / self.series.max(1) as f64,
            each(self.index_bytes),
            each(self.resident_bytes),
            each(self.file_bytes),
        );
        for asked in &self.questions {
            println!(
                "{:>10.1} ms {:>6.2} CPU s {:>11} bytes  {}  -> {}",
                asked.seconds * 1e3,
                asked.server_cpu_seconds,
                asked.answer_bytes,
                asked.statement,
                asked.result
            );
        }
        for start in &self.starts {
            println!(
                "start after {}: {:.2} s to the first answer, {:.2} s to the first acknowledged row, {:.2} CPU s, {:.1} \
                 resident bytes a series",
                start.after,
                start.seconds_to_answer,
                start.seconds_to_write,
                start.cpu_seconds_to_write,
                each(start.resident_bytes)
            );
        }
    }

    pub fn to_json(&self) -> Value {
        let questions: Vec<Value> = self
            .questions
            .iter()
            .map(|asked| {
                json!({
                    "statement": asked.statement, "seconds": asked.seconds,
                    "server_cpu_seconds": asked.server_cpu_seconds, "answer_bytes": asked.answer_bytes,
                    "result": asked.result,
                })
            })
            .collect();
        let starts: Vec<Value> = self
            .starts
            .iter()
            .map(|start| {
                json!({
                    "after": start.after, "seconds_to_answer": start.seconds_to_answer,
                    "seconds_to_write": start.seconds_to_write, "cpu_seconds_to_write": start.cpu_seconds_to_write,
                    "resident_bytes": start.resident_bytes,
                })
            })
            .collect();
        json!({
            "series": self.series, "load_seconds": self.load_seconds,
            "load_server_cpu_seconds": self.load_server_cpu_seconds, "index_bytes": self.index_bytes,
            "resident_bytes": self.resident_bytes, "file_bytes": self.file_bytes,
            "questions": questions, "starts": starts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_of_an_answer_is_found() {
        let figure = r#"{"results":[{"statement_id":0,"series":[{"columns":["count"],"values":[[17]]}]}]}"#;
        let rows = r#"{"results":[{"statement_id":0,"series":[{"columns":["key"],"values":[["a"],["b"]]}]}]}"#;
        assert_eq!((result_of(figure).as_str(), result_of(rows).as_str()), ("17", "2 rows"));
        assert_eq!(result_of(r#"{"results":[{"statement_id":0,"error":"no"}]}"#), "no");
        assert_eq!(result_of(r#"{"results":[{"statement_id":0}]}"#), "0 rows");
    }
}
