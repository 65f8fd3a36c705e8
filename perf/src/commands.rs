//! What the subcommands of `perf` do.

use crate::arguments::{
    CompareArgs, ConnectionsArgs, CrashArgs, DataArgs, GenArgs, IndexArgs, MemoryArgs, ProxyArgs, QueryArgs,
    ReplicationArgs, ScenarioArgs, VerifyArgs, WriteArgs, fresh_folder, parse_size,
};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tidemill_perf::acknowledgement;
use tidemill_perf::cardinality::SeriesSpec;
use tidemill_perf::check;
use tidemill_perf::cluster::{ClusterPlan, Duty, ONE_GROUP};
use tidemill_perf::compare::{self, CompareOptions};
use tidemill_perf::connections::{self, ConnectionsOptions};
use tidemill_perf::crash::{self, CrashOptions};
use tidemill_perf::devices::DeviceSpec;
use tidemill_perf::http::Client;
use tidemill_perf::load::{self, LoadControl, LoadOptions};
use tidemill_perf::memory::{self, MemoryOptions};
use tidemill_perf::oracle::{Oracle, SavedOracle};
use tidemill_perf::process;
use tidemill_perf::proxy::{self, ProxyOptions};
use tidemill_perf::removal::{self, RemovalReport};
use tidemill_perf::replication::{self, ReplicationOptions};
use tidemill_perf::report::{self, LoadReport};
use tidemill_perf::scenario::fleet::{Fleet, FleetOptions};
use tidemill_perf::scenario::{self, Scenario, ScenarioOptions};
use tidemill_perf::series_index::{self, IndexOptions};
use tidemill_perf::server::Kind;
use tidemill_perf::stall_report::{self, StallReport, Stretch};
use tidemill_perf::statements;
use tidemill_perf::verify::{self, Grouping, Obligation};
use tidemill_perf::workload::{self, ClientPlan, Workload};

pub fn generate(args: &GenArgs) -> Result<()> {
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

pub fn write(args: &WriteArgs) -> Result<()> {
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
    let figures = match &args.stall_report {
        None => load::run(&plans, &options, &control)?.0,
        Some(folder) => match args.remove_series {
            None => write_and_watch(&plans, &options, control, folder)?,
            Some(series) => write_and_remove(&plans, &options, control, folder, series, &args.remove_with)?,
        },
    };
    figures.print();
    if let Some(path) = &args.out {
        report::save(path, &figures.to_json())?;
        println!("saved {}", path.display());
    }
    let rows_lost = figures.rows_rejected + figures.rows_unknown + figures.rows_unsent;
    if rows_lost > 0 {
        bail!("{rows_lost} rows were not acknowledged");
    }
    Ok(())
}

/// A load run beside deletes and drops, with the report of its stalls.
fn write_and_watch(
    plans: &[ClientPlan],
    options: &LoadOptions,
    control: LoadControl<'_>,
    folder: &Path,
) -> Result<LoadReport> {
    let target = &options.targets[0];
    let side = format!("{}_side", options.database);
    load::create_database(target, &side, 1)?;
    let side_options = LoadOptions { database: side.clone(), retry: true, server_pid: None, ..options.clone() };
    load::run(&plans[..1], &side_options, &LoadControl::default())?;
    let (rows_done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let rows_total = plans.iter().map(ClientPlan::rows).sum();
    let begin = Instant::now();
    let (figures, stretches) = std::thread::scope(|scope| {
        let (side, rows_done, stop) = (&side, &rows_done, &stop);
        let statements = move || stall_report::run_statements(target, side, begin, rows_total, rows_done, stop);
        let watch = scope.spawn(move || stall_report::watch(target, begin, stop, statements));
        let control = LoadControl { keeps_samples: true, rows_done: Some(rows_done), ..control };
        let run = load::run(plans, options, &control);
        stop.store(true, Ordering::Release);
        run.map(|(figures, _)| (figures, watch.join().unwrap_or_default()))
    })?;
    let report = StallReport::new(&figures.samples, &stretches);
    report.print();
    report.save(folder)?;
    println!("saved {}", folder.display());
    Ok(figures)
}

/// A load run beside one statement that takes `series` series away, with the report of what it did to the load.
fn write_and_remove(
    plans: &[ClientPlan],
    options: &LoadOptions,
    control: LoadControl<'_>,
    folder: &Path,
    series: u64,
    statement: &str,
) -> Result<LoadReport> {
    let statement = removal::statement(statement)?;
    let target = &options.targets[0];
    let side = format!("{}_side", options.database);
    load::create_database(target, &side, 1)?;
    let many = Workload::Series(SeriesSpec { series, points: 1, seed: 1 });
    println!("writing {series} series");
    let side_plans = workload::render_all(&many, plans.len() as u64, many.rows_per_request(), false)?;
    let mut side_options = LoadOptions { database: side.clone(), retry: true, server_pid: None, ..options.clone() };
    (side_options.rate, side_options.precision) = (None, many.precision().to_owned());
    let written = load::run(&side_plans, &side_options, &LoadControl::default())?.0;
    if written.rows_acknowledged != series {
        bail!(
            "{} of {series} series were acknowledged: is there a limit of series, or of the values of a tag?",
            written.rows_acknowledged
        );
    }
    let (rows_done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let rows_total = plans.iter().map(ClientPlan::rows).sum();
    let removed = Mutex::new(None);
    let begin = Instant::now();
    let (figures, stretches) = std::thread::scope(|scope| {
        let (side, rows_done, stop, removed) = (&side, &rows_done, &stop, &removed);
        let statements = move || {
            let result = removal::run(target, side, statement, begin, rows_total, rows_done, stop);
            let stretches: Vec<Stretch> = result.as_ref().ok().copied().flatten().into_iter().collect();
            *removed.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            stretches
        };
        let watch = scope.spawn(move || stall_report::watch(target, begin, stop, statements));
        let control = LoadControl { keeps_samples: true, rows_done: Some(rows_done), ..control };
        let run = load::run(plans, options, &control);
        stop.store(true, Ordering::Release);
        run.map(|(figures, _)| (figures, watch.join().unwrap_or_default()))
    })?;
    let removed = removed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let stretch = removed.context("the statement did not come to its end")??;
    let stretch = stretch.context("the load was over before the statement: give it more --rows")?;
    let report = StallReport::new(&figures.samples, &stretches);
    report.print();
    report.save(folder)?;
    let report = RemovalReport::new(series, statement, &stretch, &figures.samples);
    report.print();
    report.save(folder)?;
    println!("saved {}", folder.display());
    Ok(figures)
}

pub fn query(args: &QueryArgs) -> Result<()> {
    let oracle = Oracle::compute(args.data.spec()?, 2);
    let mut client = Client::new(&args.target);
    let mut wrong = 0;
    let mut saved = Vec::new();
    if let Some(pid) = args.server_pid {
        // Without the right to reset it the peak since the server's start is reported, which is only higher.
        let _ = process::reset_peak_rss(pid);
    }
    for file in &args.query_files {
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

pub fn verify_all(args: &VerifyArgs) -> Result<()> {
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

pub fn compare_all(args: &CompareArgs) -> Result<()> {
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
    let peers_workload = args.peers_workload.as_ref().map(|name| Workload::named(name, args.rows, args.seed));
    let peers_workload = peers_workload.transpose()?;
    if let Some(peers) = &peers_workload
        && (peers.device_spec() != workload.device_spec() || peers.device_spec().is_none())
    {
        bail!("--peers-workload is to bring the same rows: w1, w4, w5 and w5i do");
    }
    let options = CompareOptions {
        clients: args.clients.max(1),
        rows_per_request,
        rate: args.rate,
        query_files: args.query_files.clone(),
        settle_max: args.settle,
        peers_workload,
        verify: args.verify,
    };
    let result = compare::run(&setups, &workload, &options);
    if !args.keep {
        for setup in &setups {
            let _ = std::fs::remove_dir_all(folder.join(setup.kind.name()));
        }
        let _ = std::fs::remove_dir(&folder);
    }
    let columns = result?;
    compare::print(&columns, &workload);
    if let Some(verdict) = compare::verdict(&columns) {
        println!("{verdict}");
    }
    report::save(&args.out, &compare::to_json(&columns, &workload))?;
    println!("saved {}", args.out.display());
    Ok(())
}

/// Saves what a run found, and removes its folder unless it is to be kept.
fn finish(out: &Path, found: &serde_json::Value, folder: &Path, keep: bool) -> Result<()> {
    report::save(out, found)?;
    println!("saved {}", out.display());
    clear(folder, keep)
}

fn clear(folder: &Path, keep: bool) -> Result<()> {
    if !keep {
        std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}

pub fn crash_cycles(args: &CrashArgs) -> Result<()> {
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
    clear(&folder, args.keep)
}

pub fn memory_storm(args: &MemoryArgs) -> Result<()> {
    let folder = args.server.folder();
    let setup = args.server.setup(Kind::Tidemill, &folder).context("no binary of tidemill")?;
    let limit = args.server.memory_limit.as_deref().unwrap_or("1g");
    let [load_clients, series_clients, query_clients] = args.clients[..] else {
        bail!("--clients takes three numbers, such as 4,2,6");
    };
    let options = MemoryOptions {
        setup,
        limit_bytes: parse_size(limit).map_err(|text| anyhow::anyhow!("--memory-limit: {text}"))?,
        duration: args.duration,
        series: args.series,
        padding_bytes: args.padding_bytes,
        fill: args.fill,
        rows: args.rows,
        load_clients,
        series_clients,
        query_clients,
        control_group: !args.no_control_group,
    };
    let report = memory::run(&options).with_context(|| format!("the folder is kept: {}", folder.display()))?;
    report.print();
    finish(&args.out, &report.to_json(), &folder, args.keep)?;
    if !report.faults.is_empty() {
        bail!("{} faults", report.faults.len());
    }
    Ok(())
}

pub fn connection_crowd(args: &ConnectionsArgs) -> Result<()> {
    let folder = args.server.folder();
    let setup = args.server.setup(Kind::Tidemill, &folder).context("no binary of tidemill")?;
    let ConnectionsArgs { count, duration, clients, .. } = *args;
    let options = ConnectionsOptions { setup, count, duration, clients };
    let report = connections::run(&options).with_context(|| format!("the folder is kept: {}", folder.display()))?;
    report.print();
    finish(&args.out, &report.to_json(), &folder, args.keep)?;
    if !report.faults.is_empty() {
        bail!("{} faults", report.faults.len());
    }
    Ok(())
}

pub fn series_index(args: &IndexArgs) -> Result<()> {
    let folder = args.server.folder();
    let setup = args.server.setup(Kind::Tidemill, &folder).context("no binary of tidemill")?;
    let options = IndexOptions {
        setup,
        series: args.series.max(1),
        clients: args.clients,
        rows_per_request: args.rows_per_request.max(1),
        repeat: args.repeat,
    };
    let report = series_index::run(&options).with_context(|| format!("the folder is kept: {}", folder.display()))?;
    report.print();
    finish(&args.out, &report.to_json(), &folder, args.keep)
}

pub fn replicate(args: &ReplicationArgs) -> Result<()> {
    let folder = args.server.folder();
    let alone = args.server.setup(Kind::Tidemill, &folder).context("no binary of tidemill")?;
    let workload = Workload::named(&args.workload, args.rows, args.seed)?;
    let cluster = ClusterPlan {
        duties: ONE_GROUP.to_vec(),
        binary: alone.binary.clone(),
        folder: folder.join("cluster"),
        cores: match args.server.cores {
            Some(cores) => cores,
            None => std::thread::available_parallelism()?.get(),
        },
        memory_limit: args.server.memory_limit.clone(),
        configuration: String::new(),
        data_section: String::new(),
        partitions: 16,
    };
    let rows_per_request = args.rows_per_request.unwrap_or(workload.rows_per_request()).max(1);
    let options = ReplicationOptions {
        alone,
        cluster,
        workload,
        clients: args.clients.max(1),
        rows_per_request,
        rate: args.rate,
    };
    let report = replication::run(&options).with_context(|| format!("the folder is kept: {}", folder.display()))?;
    report.print();
    finish(&args.out, &report.to_json(), &folder, args.keep)
}

pub fn through_proxy(args: &ProxyArgs) -> Result<()> {
    let folder = args.server.folder();
    let binary = args.server.setup(Kind::Tidemill, &folder).context("no binary of tidemill")?.binary;
    let workload = Workload::named(&args.workload, args.rows, args.seed)?;
    let cluster = ClusterPlan {
        duties: (1..=args.groups.max(1)).map(Duty::Data).collect(),
        binary,
        folder: folder.join("cluster"),
        cores: args.server.cores.unwrap_or(1),
        memory_limit: args.server.memory_limit.clone(),
        configuration: String::new(),
        data_section: String::new(),
        partitions: 16,
    };
    let rows_per_request = args.rows_per_request.unwrap_or(workload.rows_per_request()).max(1);
    let options = ProxyOptions {
        cluster,
        workload,
        clients: args.clients.max(1),
        rows_per_request,
        rate: args.rate,
        rounds: args.rounds.max(1),
    };
    let report = proxy::run(&options).with_context(|| format!("the folder is kept: {}", folder.display()))?;
    report.print();
    finish(&args.out, &report.to_json(), &folder, args.keep)
}

pub fn play_scenario(args: &ScenarioArgs) -> Result<()> {
    let mut scenario = Scenario::numbered(args.number)?;
    if let Some(rows) = args.rows {
        scenario.rows = DeviceSpec::with_rows(rows, args.seed).rows();
    }
    let folder = args.folder.clone().unwrap_or_else(fresh_folder);
    let fleet = FleetOptions {
        binary: std::fs::canonicalize(&args.tidemill).with_context(|| format!("{}", args.tidemill.display()))?,
        folder: folder.clone(),
        partitions: args.partitions,
        data_memory: args.data_memory.clone(),
        other_memory: args.other_memory.clone(),
        copies: args.copies,
    };
    let options = ScenarioOptions {
        scenario,
        faults: args.faults,
        fleet,
        clients: args.clients.max(1),
        rows_per_request: args.rows_per_request.max(1),
        rate: args.rate,
        seed: args.seed,
    };
    let kept = || format!("the folder is kept; what the nodes said is in {}", Fleet::logs(&folder));
    let report = scenario::run(&options).with_context(kept)?;
    report.print();
    let page = args.out.with_extension("html");
    if let Some(folder) = page.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&page, scenario::page::html(&report)).with_context(|| format!("write {}", page.display()))?;
    println!("{}", page.display());
    if !report.is_right() {
        report::save(&args.out, &report.to_json())?;
        bail!("the scenario failed; {}", kept());
    }
    finish(&args.out, &report.to_json(), &folder, args.keep)
}

/// Hands over to `perf-peer`: a binary of its own, so that this one is built without a second QUIC stack.
pub fn beside(program: &str, arguments: &[std::ffi::OsString]) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let binary = std::env::current_exe()?.with_file_name(program);
    let error = std::process::Command::new(&binary).args(arguments).exec();
    Err(error).with_context(|| format!("{} (build it: cargo build --release --bin {program})", binary.display()))
}

/// The oracle that `perf gen` left in a folder.
pub fn saved_oracle(directory: &Path) -> Result<SavedOracle> {
    let path = directory.join("oracle.json");
    let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
}
