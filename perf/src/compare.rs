//! The same load on several servers, one after the other, side by side.

use crate::check;
use crate::http::{Client, encode};
use crate::load::{self, LoadControl, LoadOptions};
use crate::oracle::Oracle;
use crate::probes;
use crate::process::{self, FolderSize};
use crate::report::{self, LoadReport};
use crate::server::{Kind, Server, Setup};
use crate::statements;
use crate::verify::{self, Grouping};
use crate::workload::{self, ClientPlan, Workload};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// How a comparison runs.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    pub clients: u64,
    pub rows_per_request: u64,
    pub rate: Option<f64>,
    /// Query files to time; their answers are checked.
    pub query_files: Vec<String>,
    /// Longest wait until the folder stops changing.
    pub settle_max: Duration,
    /// What the other servers are sent instead of Tidemill's workload; the same rows.
    pub peers_workload: Option<Workload>,
    /// After the restart Tidemill's figures in all groupings and all of its rows are compared with the oracle.
    pub verify: bool,
}

/// One server's column.
#[derive(Debug)]
pub struct Column {
    pub kind: Kind,
    pub load: LoadReport,
    /// CPU seconds from the first request until the folder was settled.
    pub settled_cpu_seconds: f64,
    pub folder: FolderSize,
    pub start_time: Duration,
    pub restart_time: Duration,
    /// Name, seconds, verdict.
    pub queries: Vec<(String, f64, bool)>,
    pub peak_rss_bytes: u64,
    /// Figures and rows that were compared after the restart; none differed.
    pub verified: Option<u64>,
}

const DATABASE: &str = "perf";

/// Starts each server in a folder of its own below `folder`, runs the load and the queries, stops it.
pub fn run(setups: &[Setup], workload: &Workload, options: &CompareOptions) -> Result<Vec<Column>> {
    let oracle = workload.device_spec().map(|spec| Oracle::compute(spec, 2));
    let mut rendered: Option<(bool, Vec<ClientPlan>)> = None;
    let mut columns = Vec::new();
    for setup in setups {
        let peers = options.peers_workload.as_ref().filter(|_| setup.kind != Kind::Tidemill);
        println!("--- {}", setup.kind.name());
        if rendered.as_ref().is_none_or(|(of_peers, _)| *of_peers != peers.is_some()) {
            // One set of bodies at a time: they are as large as the data.
            drop(rendered.take());
            let plans =
                workload::render_all(peers.unwrap_or(workload), options.clients, options.rows_per_request, false)?;
            println!("{} rows for {} clients", plans.iter().map(ClientPlan::rows).sum::<u64>(), plans.len());
            rendered = Some((peers.is_some(), plans));
        }
        let plans = rendered.as_ref().map(|(_, plans)| plans.as_slice()).unwrap_or_default();
        let made = column(setup, peers.unwrap_or(workload), plans, options, oracle.as_ref());
        columns.push(made.with_context(|| setup.kind.name())?);
    }
    Ok(columns)
}

fn column(
    setup: &Setup,
    workload: &Workload,
    plans: &[ClientPlan],
    options: &CompareOptions,
    oracle: Option<&Oracle>,
) -> Result<Column> {
    let server = Server::start(match setup.kind {
        Kind::Tidemill => setup.clone().without_series_limits()?,
        _ => setup.clone(),
    })?;
    let start_time = server.start_time;
    if setup.kind != Kind::VictoriaMetrics {
        load::create_database(&server.address(), DATABASE, 1)?;
    }
    let mut load_options = LoadOptions::new(server.address(), DATABASE, workload.precision());
    load_options.rate = options.rate;
    load_options.server_pid = Some(server.pid());
    load_options.retry = true;
    let cpu_before = process::cpu_seconds(server.pid())?;
    let (load, _) = load::run(plans, &load_options, &LoadControl::default())?;
    load.print();
    settle(&server, &setup.data, options.settle_max);
    let settled_cpu_seconds = process::cpu_seconds(server.pid())? - cpu_before;
    let mut queries = Vec::new();
    if setup.kind != Kind::VictoriaMetrics {
        queries.push(count(&server, workload)?);
    }
    if let Some(oracle) = oracle {
        let mut client = server.client();
        for probe in probes::all(&oracle.spec()) {
            queries.push((probe.name.to_owned(), probe.time(setup.kind, &mut client, DATABASE)?, true));
        }
        if setup.kind != Kind::VictoriaMetrics {
            queries.extend(time_queries(&server, options, oracle)?);
        }
    }
    let peak_rss_bytes = process::peak_rss_bytes(server.pid())?;
    let status = server.stop(Duration::from_secs(120))?;
    if !status.success() {
        println!("{} ended with {status} after SIGTERM", setup.kind.name());
    }
    let folder = process::folder_size(&setup.data);
    let again = Server::start(setup.clone())?;
    let restart_time = again.start_time;
    if setup.kind != Kind::VictoriaMetrics {
        let (_, _, right) = count(&again, workload)?;
        if !right {
            bail!("the count after the restart is wrong");
        }
    }
    let verified = match oracle.filter(|_| options.verify && setup.kind == Kind::Tidemill) {
        Some(oracle) => Some(verify_all(&again, oracle)?),
        None => None,
    };
    again.stop(Duration::from_secs(120))?;
    Ok(Column {
        kind: setup.kind,
        load,
        settled_cpu_seconds,
        folder,
        start_time,
        restart_time,
        queries,
        peak_rss_bytes,
        verified,
    })
}

/// Every figure in every grouping, and every row.
fn verify_all(server: &Server, oracle: &Oracle) -> Result<u64> {
    let mut client = server.client();
    let mut compared = 0;
    for grouping in Grouping::ALL {
        let verdict = verify::figures(&mut client, DATABASE, grouping, oracle)?;
        if !verdict.is_right() {
            bail!("{grouping:?} after the restart: {} differences: {:?}", verdict.wrong, verdict.findings);
        }
        compared += verdict.rows;
    }
    let (present, verdict) = verify::present_rows(&mut client, DATABASE, oracle.spec())?;
    if !verdict.is_right() || present.count() != oracle.spec().rows() {
        bail!(
            "rows after the restart: {} of {}, {} differences: {:?}",
            present.count(),
            oracle.spec().rows(),
            verdict.wrong,
            verdict.findings
        );
    }
    Ok(compared + present.count())
}

/// Waits until the folder keeps its size and the server its CPU time for eight seconds.
fn settle(server: &Server, data: &Path, longest: Duration) {
    let begin = Instant::now();
    let look = || (process::folder_size(data).bytes, process::cpu_seconds(server.pid()).unwrap_or(0.0));
    let (mut last, mut quiet_since) = (look(), Instant::now());
    while begin.elapsed() < longest && quiet_since.elapsed() < Duration::from_secs(8) {
        std::thread::sleep(Duration::from_millis(500));
        let now = look();
        if now.0 != last.0 || now.1 - last.1 > 0.1 {
            quiet_since = Instant::now();
        }
        last = now;
    }
    println!("settled after {:.1} s", begin.elapsed().as_secs_f64());
}

fn count(server: &Server, workload: &Workload) -> Result<(String, f64, bool)> {
    let mut client: Client = server.client();
    let begin = Instant::now();
    let answer = client.query(workload.count_statement(), &format!("db={}", encode(DATABASE)))?;
    let seconds = begin.elapsed().as_secs_f64();
    let right = answer.text().contains(&format!(",{}]]", workload.rows()));
    if !right {
        println!("wrong count: {} instead of {}", answer.text().trim(), workload.rows());
    }
    Ok(("first count".into(), seconds, right))
}

fn time_queries(server: &Server, options: &CompareOptions, oracle: &Oracle) -> Result<Vec<(String, f64, bool)>> {
    let mut client = server.client();
    let mut times = Vec::new();
    for file in &options.query_files {
        let (mut total, mut last, mut right) = (0.0, 0.0, true);
        for statement in statements::of_file(file) {
            let verdict = check::run(&mut client, DATABASE, &statement, oracle)?;
            (total, last) = (total + verdict.seconds, verdict.seconds);
            if !verdict.is_right() {
                right = false;
                println!("{}: {} differences: {:?}", statement.text, verdict.wrong, verdict.findings);
            }
        }
        times.push((format!("{file} (all lines)"), total, right));
        times.push((format!("{file} (last line)"), last, right));
    }
    Ok(times)
}

/// Prints the columns side by side.
pub fn print(columns: &[Column], workload: &Workload) {
    let line = |name: &str, value: &dyn Fn(&Column) -> String| {
        print!("{name:<34}");
        for column in columns {
            print!("{:>20}", value(column));
        }
        println!();
    };
    let rows = workload.rows() as f64;
    println!();
    line("", &|column| column.kind.name().to_owned());
    line("rows sent", &|column| column.load.rows_acknowledged.to_string());
    line("rows/s", &|column| format!("{:.0}", column.load.rows_per_wall_second()));
    line("server CPU-s per M rows", &|column| {
        column.load.server_cpu_per_million().map_or_else(|| "-".into(), |value| format!("{value:.3}"))
    });
    line("  until settled", &|column| {
        format!("{:.3}", column.settled_cpu_seconds / (column.load.rows_acknowledged as f64 / 1e6))
    });
    line("client CPU-s per M rows", &|column| format!("{:.3}", column.load.client_cpu_seconds / (rows / 1e6)));
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
        line(&format!("latency {name} ms"), &|column| format!("{:.2}", column.load.latency_ms(quantile)));
    }
    line("latency max ms", &|column| format!("{:.2}", column.load.latency_max_ms()));
    line("worst second / mean", &|column| {
        report::stalls(&column.load.rows_per_second)
            .map_or_else(|| "-".into(), |stalls| format!("{:.2}", stalls.worst as f64 / stalls.mean))
    });
    line("peak RSS MiB, load", &|column| {
        column.load.server_peak_rss_bytes.map_or_else(|| "-".into(), |bytes| format!("{:.1}", bytes as f64 / 1048576.0))
    });
    line("peak RSS MiB, with queries", &|column| format!("{:.1}", column.peak_rss_bytes as f64 / 1048576.0));
    line("bytes a row on disk, settled", &|column| format!("{:.2}", column.folder.allocated_bytes as f64 / rows));
    line("bytes a row in TSM files", &|column| format!("{:.2}", column.folder.tsm_bytes as f64 / rows));
    line("rows and figures verified", &|column| column.verified.map_or_else(|| "-".into(), |rows| rows.to_string()));
    line("restart to first answer s", &|column| format!("{:.3}", column.restart_time.as_secs_f64()));
    let names: Vec<&str> = columns
        .iter()
        .max_by_key(|column| column.queries.len())
        .map(|column| column.queries.iter().map(|(name, _, _)| name.as_str()).collect())
        .unwrap_or_default();
    for name in names {
        line(&format!("{name} ms"), &|column| {
            column.queries.iter().find(|(query, _, _)| query == name).map_or_else(
                || "-".into(),
                |(_, seconds, right)| format!("{:.1}{}", seconds * 1e3, if *right { "" } else { " WRONG" }),
            )
        });
    }
}

/// Says how Tidemill stands against InfluxDB in the figures that the goals name; None when one of them did not run.
pub fn verdict(columns: &[Column]) -> Option<String> {
    let find = |kind| columns.iter().find(|column: &&Column| column.kind == kind);
    let (ours, theirs) = (find(Kind::Tidemill)?, find(Kind::Influxd)?);
    let cpu = theirs.load.server_cpu_per_million()? / ours.load.server_cpu_per_million()?;
    Some(format!(
        "tidemill against influxdb: {cpu:.2} x the rows per server CPU second, {:.2} x the rows per second, p99 {:.2} ms \
         against {:.2} ms",
        ours.load.rows_per_wall_second() / theirs.load.rows_per_wall_second(),
        ours.load.latency_ms(0.99),
        theirs.load.latency_ms(0.99),
    ))
}

/// The columns with everything that was measured.
pub fn to_json(columns: &[Column], workload: &Workload) -> Value {
    let columns: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({
                "server": column.kind.name(),
                "load": column.load.to_json(),
                "settled_cpu_seconds": column.settled_cpu_seconds,
                "peak_rss_bytes": column.peak_rss_bytes,
                "verified": column.verified,
                "folder": report::folder_json(&column.folder, workload.rows()),
                "start_seconds": column.start_time.as_secs_f64(),
                "restart_seconds": column.restart_time.as_secs_f64(),
                "queries": column.queries.iter().map(|(name, seconds, right)| json!({
                    "name": name, "seconds": seconds, "right": right,
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "workload": format!("{workload:?}"), "rows": workload.rows(), "columns": columns })
}
