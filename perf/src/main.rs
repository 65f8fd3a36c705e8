//! `perf`: generate, write, query, verify, compare, crash. README.md has a line on each.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemill_perf::acknowledgement;
use tidemill_perf::check;
use tidemill_perf::compare::{self, CompareOptions};
use tidemill_perf::crash::{self, CrashOptions};
use tidemill_perf::devices::DeviceSpec;
use tidemill_perf::emission::SendOrder;
use tidemill_perf::http::Client;
use tidemill_perf::load::{self, LoadControl, LoadOptions};
use tidemill_perf::oracle::{Oracle, SavedOracle};
use tidemill_perf::process;
use tidemill_perf::report;
use tidemill_perf::server::{Kind, Setup};
use tidemill_perf::statements;
use tidemill_perf::verify::{self, Grouping, Obligation};
use tidemill_perf::workload::{self, Workload};

#[derive(Parser)]
#[command(version, about = "Load, queries and measurements for Tidemill and its peers")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the reference set as CSV files, with its oracle beside them.
    Gen(GenArgs),
    /// Send a workload to a server and measure.
    Write(WriteArgs),
    /// Run the reference queries, check every answer and measure.
    Query(QueryArgs),
    /// Compare every figure that a server holds with the oracle, or every row with an acknowledgement log.
    Verify(VerifyArgs),
    /// The same load on several servers, side by side.
    Compare(CompareArgs),
    /// Kill a server under load, again and again, and check every row.
    Crash(CrashArgs),
}

/// Which data set.
#[derive(Args, Clone)]
struct DataArgs {
    /// Total rows of the reference set; instead of --devices.
    #[arg(long, conflicts_with = "devices")]
    rows: Option<u64>,
    /// Number of devices.
    #[arg(long)]
    devices: Option<u64>,
    /// Number of files that the devices are dealt to; one a device unless given.
    #[arg(long)]
    files: Option<u64>,
    #[arg(long, default_value_t = 10_000)]
    rows_per_device: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder of `perf gen`: takes the numbers from its oracle.json.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl DataArgs {
    fn spec(&self) -> Result<DeviceSpec> {
        if let Some(directory) = self.dir.as_deref().filter(|_| self.rows.is_none() && self.devices.is_none()) {
            return Ok(saved_oracle(directory)?.spec);
        }
        let spec = match (self.rows, self.devices) {
            (Some(rows), _) => {
                let spec = DeviceSpec::with_rows(rows, self.seed);
                DeviceSpec { files: self.files.unwrap_or(spec.files), ..spec }
            }
            (None, devices) => {
                let devices = devices.unwrap_or(1000);
                DeviceSpec {
                    devices,
                    files: self.files.unwrap_or(devices),
                    rows_per_device: self.rows_per_device,
                    seed: self.seed,
                }
            }
        };
        spec.validate().map_err(|text| anyhow::anyhow!(text))?;
        Ok(spec)
    }
}

fn saved_oracle(directory: &Path) -> Result<SavedOracle> {
    let path = directory.join("oracle.json");
    let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
}

/// In which order the rows are sent.
#[derive(Args, Clone)]
struct OrderArgs {
    /// Series whose rows are sent in turn.
    #[arg(long, default_value_t = 1)]
    interleave: u64,
    /// Part of the rows that come late, and the longest lag, such as `0.1,1h`.
    #[arg(long, value_parser = parse_disorder)]
    disorder: Option<(f64, i64)>,
    /// Part of the rows that are sent twice.
    #[arg(long, default_value_t = 0.0, value_parser = parse_part)]
    dup: f64,
}

impl OrderArgs {
    fn order(&self) -> SendOrder {
        let (late_part, lag_ms_max) = self.disorder.unwrap_or((0.0, 0));
        SendOrder { interleave: self.interleave, late_part, lag_ms_max, duplicate_part: self.dup }
    }

    fn is_plain(&self) -> bool {
        self.order() == SendOrder::default()
    }
}

fn parse_part(text: &str) -> Result<f64, String> {
    let part: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=1.0).contains(&part) { Ok(part) } else { Err(format!("{part} is not between 0 and 1")) }
}

fn parse_disorder(text: &str) -> Result<(f64, i64), String> {
    let (part, lag) = text.split_once(',').ok_or("expected PART,LAG such as 0.1,1h")?;
    Ok((parse_part(part)?, parse_duration(lag)?.as_millis() as i64))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: f64 = digits.parse().map_err(|_| format!("{text:?} is not a duration"))?;
    let factor = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit {unit:?}: ms, s, m and h are known")),
    };
    Duration::try_from_secs_f64(number * factor).map_err(|error| error.to_string())
}

#[derive(Args)]
struct GenArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Files to write; all unless given.
    #[arg(long)]
    file: Vec<u64>,
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

#[derive(Args)]
struct WriteArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    order: OrderArgs,
    /// Make the rows in memory instead of reading the files of --dir.
    #[arg(long)]
    generate: bool,
    /// A workload of the goal sheet (w1, w2a, w2b, w3, w4) instead of the options above; --rows cuts it.
    #[arg(long)]
    workload: Option<String>,
    /// host:port of the server, or several between commas.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:8086")]
    target: Vec<String>,
    #[arg(long, default_value = "mydb")]
    db: String,
    #[arg(long, default_value = "")]
    rp: String,
    #[arg(long, default_value = "one")]
    consistency: String,
    /// Replication of the default retention policy.
    #[arg(long, default_value_t = 1)]
    replication: u32,
    #[arg(long, default_value_t = 8)]
    clients: u64,
    /// 1000, or what the workload says.
    #[arg(long)]
    rows_per_request: Option<u64>,
    /// Compress the bodies (before the clock starts).
    #[arg(long)]
    gzip: bool,
    /// Rows a second over all clients, at fixed times: an open loop.
    #[arg(long)]
    rate: Option<f64>,
    /// Send a batch again after 429, 5xx or no answer, until it is taken.
    #[arg(long)]
    retry: bool,
    /// Acknowledgement log.
    #[arg(long)]
    ack_log: Option<PathBuf>,
    /// Process whose CPU time and memory are reported.
    #[arg(long)]
    server_pid: Option<u32>,
    /// JSON file for the figures, the latency histogram and the one-second series.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct QueryArgs {
    #[command(flatten)]
    data: DataArgs,
    #[arg(long, default_value = "127.0.0.1:8086")]
    target: String,
    #[arg(long, default_value = "mydb")]
    db: String,
    /// Query files to run: q, q1, q2, q3, q4.
    #[arg(long, value_delimiter = ',', default_value = "q,q1,q2,q3,q4")]
    files: Vec<String>,
    /// Times that each statement is run.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    #[arg(long)]
    server_pid: Option<u32>,
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct VerifyArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    order: OrderArgs,
    #[arg(long, default_value = "127.0.0.1:8086")]
    target: String,
    #[arg(long, default_value = "mydb")]
    db: String,
    /// Check row by row against this log instead of the figures of the whole set.
    #[arg(long)]
    ack_log: Option<PathBuf>,
    /// Clients of the run that wrote the log.
    #[arg(long, default_value_t = 8)]
    clients: u64,
}

#[derive(Args)]
struct ServerArgs {
    /// Tidemill's binary.
    #[arg(long, default_value = "./target/release/tidemill")]
    tidemill: PathBuf,
    /// Tidemill's number of cores.
    #[arg(long)]
    cores: Option<usize>,
    /// Tidemill's memory budget.
    #[arg(long)]
    memory_limit: Option<String>,
    /// Folder for the servers' data; a fresh one in the folder for temporary files unless given.
    #[arg(long)]
    folder: Option<PathBuf>,
}

impl ServerArgs {
    fn setup(&self, kind: Kind, folder: &Path) -> Option<Setup> {
        let binary = match kind {
            Kind::Tidemill => Some(self.tidemill.clone()).filter(|path| path.exists()),
            _ => kind.system_binary(),
        }?;
        let folder = folder.join(kind.name());
        let mut setup = Setup::new(kind, binary, &folder);
        setup.cores = self.cores;
        setup.memory_limit = self.memory_limit.clone();
        Some(setup)
    }

    fn folder(&self) -> PathBuf {
        self.folder
            .clone()
            .unwrap_or_else(|| std::env::temp_dir().join(format!("tidemill-perf-{}", std::process::id())))
    }
}

#[derive(Args)]
struct CompareArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[arg(long, default_value = "w1")]
    workload: String,
    /// Rows, instead of the workload's own number.
    #[arg(long)]
    rows: Option<u64>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 8)]
    clients: u64,
    #[arg(long)]
    rows_per_request: Option<u64>,
    #[arg(long)]
    rate: Option<f64>,
    /// Servers: tidemill, influxdb, victoria-metrics.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Query files to time on the reference workload.
    #[arg(long, value_delimiter = ',', default_value = "q,q1,q2,q3,q4")]
    files: Vec<String>,
    /// Longest wait until the folder stops changing.
    #[arg(long, default_value = "120s", value_parser = parse_duration)]
    settle: Duration,
    #[arg(long, default_value = "perf-out/compare.json")]
    out: PathBuf,
    /// Keep the servers' folders.
    #[arg(long)]
    keep: bool,
}

#[derive(Args)]
struct CrashArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// tidemill or influxdb.
    #[arg(long, default_value = "tidemill")]
    kind: String,
    #[arg(long, default_value_t = 200)]
    cycles: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 4)]
    clients: u64,
    #[arg(long, default_value_t = 100)]
    rows_per_request: u64,
    /// Rows a second over all clients.
    #[arg(long, default_value_t = 50_000.0)]
    rate: f64,
    /// The kill comes within this time after the load began.
    #[arg(long, default_value = "700ms", value_parser = parse_duration)]
    within: Duration,
    /// Cycles on one database before the next one is begun.
    #[arg(long, default_value_t = 20)]
    cycles_per_database: u64,
    /// Numbers of cores, one of which is drawn for each start.
    #[arg(long, value_delimiter = ',')]
    vary_cores: Vec<usize>,
    /// Keep the server's folder.
    #[arg(long)]
    keep: bool,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Gen(args) => generate(&args),
        Command::Write(args) => write(&args),
        Command::Query(args) => query(&args),
        Command::Verify(args) => verify_all(&args),
        Command::Compare(args) => compare_all(&args),
        Command::Crash(args) => crash_cycles(&args),
    }
}

fn generate(args: &GenArgs) -> Result<()> {
    // The folder's own oracle must not decide what is written into it.
    let directory = args.data.dir.clone().context("perf gen needs --dir")?;
    let spec = DataArgs { dir: None, ..args.data.clone() }.spec()?;
    std::fs::create_dir_all(&directory)?;
    let files: Vec<u64> = if args.file.is_empty() { (0..spec.files).collect() } else { args.file.clone() };
    if let Some(file) = files.iter().find(|file| **file >= spec.files) {
        bail!("file {file} is asked for, but the set has {} files", spec.files);
    }
    let threads = args.threads.clamp(1, 64) as usize;
    let parts: Vec<Result<Oracle>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let (files, directory) = (&files, &directory);
                scope.spawn(move || {
                    let mut oracle = Oracle::empty(spec);
                    for file in files.iter().skip(worker).step_by(threads) {
                        let path = workload::csv_path(directory, *file);
                        let out = std::fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
                        spec.write_csv(*file, out, |device, row| oracle.add(device.group(), row))
                            .with_context(|| format!("write {}", path.display()))?;
                    }
                    Ok(oracle)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a generator thread died"))))
            .collect()
    });
    let mut oracle = Oracle::empty(spec);
    for part in parts {
        oracle.merge(&part?);
    }
    if args.file.is_empty() {
        report::save(&directory.join("oracle.json"), &serde_json::to_value(oracle.save())?)?;
    }
    println!("{} rows in {} files in {}", oracle.total(|_| true).count, files.len(), directory.display());
    Ok(())
}

fn write(args: &WriteArgs) -> Result<()> {
    let workload = match (&args.workload, args.generate) {
        (Some(name), _) if args.order.is_plain() => Workload::named(name, args.data.rows, args.data.seed)?,
        (Some(_), _) => bail!("--workload has its own order of rows: leave out --interleave, --disorder and --dup"),
        (None, true) => Workload::Devices { spec: args.data.spec()?, order: args.order.order() },
        (None, false) if args.order.is_plain() => {
            let directory = args.data.dir.clone().context("perf write needs --dir, --generate or --workload")?;
            Workload::Files { spec: args.data.spec()?, directory }
        }
        (None, false) => bail!("--interleave, --disorder and --dup need --generate"),
    };
    let rows_per_request = args.rows_per_request.unwrap_or(workload.rows_per_request()).max(1);
    println!("rendering {} rows for {} clients", workload.rows(), args.clients);
    let plans = workload::render_all(&workload, args.clients.max(1), rows_per_request, args.gzip)?;
    for target in &args.target {
        load::create_database(target, &args.db, args.replication)?;
    }
    let mut options = LoadOptions::new("", &args.db, workload.precision());
    options.targets.clone_from(&args.target);
    options.retention_policy.clone_from(&args.rp);
    options.consistency.clone_from(&args.consistency);
    options.rate = args.rate;
    options.retry = args.retry;
    options.server_pid = args.server_pid;
    let log = args.ack_log.as_deref().map(acknowledgement::Writer::create).transpose()?;
    let control = LoadControl { log: log.as_ref(), ..LoadControl::default() };
    let (figures, _) = load::run(&plans, &options, &control)?;
    figures.print();
    if let Some(path) = &args.out {
        report::save(path, &figures.to_json())?;
        println!("saved {}", path.display());
    }
    if figures.rows_rejected + figures.rows_unknown > 0 {
        bail!("{} rows were not acknowledged", figures.rows_rejected + figures.rows_unknown);
    }
    Ok(())
}

fn query(args: &QueryArgs) -> Result<()> {
    let oracle = Oracle::compute(args.data.spec()?, 2);
    let mut client = Client::new(&args.target);
    let mut wrong = 0;
    let mut saved = Vec::new();
    if let Some(pid) = args.server_pid {
        // Without the right to reset it the peak since the server's start is reported, which is only higher.
        let _ = process::reset_peak_rss(pid);
    }
    for file in &args.files {
        let statements = statements::of_file(file);
        if statements.is_empty() {
            bail!("unknown query file {file:?}: {:?} are known", statements::FILES);
        }
        let mut total = 0.0;
        for statement in &statements {
            for _ in 0..args.repeat.max(1) {
                let verdict = check::run(&mut client, &args.db, statement, &oracle)?;
                total += verdict.seconds;
                println!(
                    "{file}: {:>10.1} ms {:>11} rows {:>12} bytes {} {}",
                    verdict.seconds * 1e3,
                    verdict.rows,
                    verdict.bytes,
                    if verdict.is_right() { "right" } else { "WRONG" },
                    statement.text,
                );
                for finding in &verdict.findings {
                    println!("    {finding}");
                }
                wrong += u64::from(!verdict.is_right());
                saved.push(serde_json::json!({
                    "file": file, "statement": statement.text, "seconds": verdict.seconds, "rows": verdict.rows,
                    "bytes": verdict.bytes, "right": verdict.is_right(),
                }));
            }
        }
        println!("{file}: {} statements in {:.1} ms", statements.len(), total * 1e3);
    }
    let peak = args.server_pid.map(process::peak_rss_bytes).transpose()?;
    if let Some(peak) = peak {
        println!("server peak RSS {:.1} MiB", peak as f64 / 1048576.0);
    }
    if let Some(path) = &args.out {
        report::save(path, &serde_json::json!({ "queries": saved, "server_peak_rss_bytes": peak }))?;
    }
    if wrong > 0 {
        bail!("{wrong} answers differ from the oracle");
    }
    Ok(())
}

fn verify_all(args: &VerifyArgs) -> Result<()> {
    let spec = args.data.spec()?;
    let mut client = Client::new(&args.target);
    if let Some(path) = &args.ack_log {
        let entries = acknowledgement::read(path)?;
        let owed = Obligation::from_log(&spec, args.order.order(), args.clients, &entries)?;
        let (present, verdict) = verify::obligations(&mut client, &args.db, spec, &owed)?;
        println!(
            "{} rows owed, {} allowed, {} there, {} faults",
            owed.must.count(),
            owed.may.count(),
            present.count(),
            verdict.wrong
        );
        if !verdict.is_right() {
            bail!("{:#?}", verdict.findings);
        }
        return Ok(());
    }
    let oracle = Oracle::compute(spec, 2);
    if let Some(directory) = &args.data.dir
        && saved_oracle(directory)? != oracle.save()
    {
        bail!("{} does not belong to this set", directory.join("oracle.json").display());
    }
    let mut wrong = 0;
    for grouping in Grouping::ALL {
        let verdict = verify::figures(&mut client, &args.db, grouping, &oracle)?;
        println!("{grouping:?}: {} rows compared, {} differences", verdict.rows, verdict.wrong);
        for finding in &verdict.findings {
            println!("    {finding}");
        }
        wrong += verdict.wrong;
    }
    if wrong > 0 {
        bail!("{wrong} differences from the oracle");
    }
    Ok(())
}

fn compare_all(args: &CompareArgs) -> Result<()> {
    let folder = args.server.folder();
    let mut kinds = vec![Kind::Tidemill, Kind::Influxd, Kind::VictoriaMetrics];
    if !args.only.is_empty() {
        kinds = args
            .only
            .iter()
            .map(|name| Kind::from_name(name).with_context(|| format!("unknown server {name:?}")))
            .collect::<Result<_>>()?;
    }
    let mut setups = Vec::new();
    for kind in kinds {
        match args.server.setup(kind, &folder) {
            Some(setup) => setups.push(setup),
            None if args.only.is_empty() && kind != Kind::Tidemill => {
                println!("{} is not installed: left out", kind.name())
            }
            None => bail!("{} has no binary", kind.name()),
        }
    }
    let workload = Workload::named(&args.workload, args.rows, args.seed)?;
    let rows_per_request = args.rows_per_request.unwrap_or(workload.rows_per_request()).max(1);
    println!("rendering {} rows for {} clients", workload.rows(), args.clients);
    let plans = workload::render_all(&workload, args.clients.max(1), rows_per_request, false)?;
    let options = CompareOptions {
        clients: args.clients,
        rows_per_request,
        rate: args.rate,
        query_files: args.files.clone(),
        settle_max: args.settle,
    };
    let result = compare::run(&setups, &workload, &plans, &options);
    if !args.keep {
        for setup in &setups {
            let _ = std::fs::remove_dir_all(folder.join(setup.kind.name()));
        }
        let _ = std::fs::remove_dir(&folder);
    }
    let columns = result?;
    compare::print(&columns, &workload);
    report::save(&args.out, &compare::to_json(&columns, &workload))?;
    println!("saved {}", args.out.display());
    Ok(())
}

fn crash_cycles(args: &CrashArgs) -> Result<()> {
    let kind = Kind::from_name(&args.kind).with_context(|| format!("unknown server {:?}", args.kind))?;
    let folder = args.server.folder();
    let setup = args.server.setup(kind, &folder).with_context(|| format!("{} has no binary", kind.name()))?;
    let options = CrashOptions {
        clients: args.clients.max(1),
        rows_per_request: args.rows_per_request.max(1),
        rate: args.rate,
        load_time_max: args.within,
        cycles_per_database: args.cycles_per_database.max(1),
        cores: args.vary_cores.clone(),
        verbose: true,
        ..CrashOptions::new(setup, args.cycles, args.seed)
    };
    let report = crash::run(&options).with_context(|| format!("the folder is kept: {}", folder.display()))?;
    println!(
        "{} cycles: {} rows acknowledged, 0 lost, 0 invented, 0 doubled; {} batches without an answer held {} rows, \
         of which {} were there; slowest start {:?}",
        report.cycles,
        report.rows_acknowledged,
        report.batches_unknown,
        report.rows_of_unknown_fate,
        report.unknown_rows_present,
        report.slowest_start,
    );
    if !args.keep {
        std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}
