//! A scenario from the start of its processes to the last row that is compared.

use super::fleet::{Fleet, FleetOptions, Recovery};
use super::plan::{Faults, Scenario};
use super::watch::Watch;
use crate::cluster::Duty;
use crate::devices::DeviceSpec;
use crate::emission::SendOrder;
use crate::http::Client;
use crate::load::{self, LoadControl, LoadOptions};
use crate::oracle::Oracle;
use crate::report::LoadReport;
use crate::verify::{self, Grouping};
use crate::workload::{Lines, Workload};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The databases of the reference.
const DATABASES: [&str; 2] = ["mydb", "testdb"];
/// A load whose faults come during it has them between these parts of its rows.
const FAULTS_FROM: f64 = 0.1;
const FAULTS_UNTIL: f64 = 0.8;
/// Longest wait for the pool to have every copy.
const POOL_PATIENCE: Duration = Duration::from_secs(600);

/// What a run does.
#[derive(Clone, Debug)]
pub struct ScenarioOptions {
    pub scenario: Scenario,
    pub faults: Faults,
    pub fleet: FleetOptions,
    pub clients: u64,
    pub rows_per_request: u64,
    /// Rows a second over all clients; None sends as fast as answers come.
    pub rate: Option<f64>,
    pub seed: u64,
}

/// What was found of one database.
#[derive(Clone, Debug)]
pub struct DatabaseReport {
    pub name: &'static str,
    pub load: LoadReport,
    /// Rows that were read one by one, and figures that were compared.
    pub rows_compared: u64,
    pub figures_compared: u64,
    /// Differences, with the first few in words.
    pub wrong: u64,
    pub findings: Vec<String>,
}

/// What a run found.
#[derive(Debug)]
pub struct ScenarioReport {
    pub scenario: Scenario,
    pub faults: Faults,
    pub databases: Vec<DatabaseReport>,
    pub recoveries: Vec<Recovery>,
    pub cpu_seconds: f64,
    /// By node: what it is, the most resident bytes, the limit it was given.
    pub memory: BTreeMap<usize, (&'static str, u64, u64)>,
    pub watch: Watch,
}

/// Runs a scenario. An error is a fault of the run; differences are in the report.
pub fn run(options: &ScenarioOptions) -> Result<ScenarioReport> {
    let watch = Watch::default();
    let scenario = &options.scenario;
    watch.note(format!("scenario {}: {} nodes start", scenario.number, scenario.duties().len()));
    let fleet = Fleet::start(scenario, &options.fleet)?;
    watch.note("all groups have leaders");
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| watch.run(&fleet));
        let outcome = run_watched(options, &fleet, &watch);
        watch.end();
        outcome
    });
    let (databases, recoveries, cpu_seconds) = outcome.with_context(|| {
        let fallen = fleet.fallen();
        let names: Vec<String> = fallen.iter().map(|(node, tail)| format!("node {node} has ended:\n{tail}")).collect();
        names.join("\n")
    })?;
    let data_role = Duty::Data(1).role();
    let (of_data, of_others) = (bytes_of(&options.fleet.data_memory)?, bytes_of(&options.fleet.other_memory)?);
    let stopped = fleet.stop();
    let memory = fleet.peaks().into_iter().map(|(node, peak)| {
        let role = fleet.role(node);
        (node, (role, peak, if role == data_role { of_data } else { of_others }))
    });
    let memory = memory.collect();
    stopped?;
    let (scenario, faults) = (scenario.clone(), options.faults);
    Ok(ScenarioReport { scenario, faults, databases, recoveries, cpu_seconds, memory, watch })
}

fn run_watched(
    options: &ScenarioOptions,
    fleet: &Fleet,
    watch: &Watch,
) -> Result<(Vec<DatabaseReport>, Vec<Recovery>, f64)> {
    let scenario = &options.scenario;
    if options.faults == Faults::After {
        kill_others(scenario, fleet, watch)?;
    }
    let cpu_before = fleet.cpu_seconds();
    let (mut loads, mut recoveries) = (Vec::new(), Vec::new());
    for (number, database) in DATABASES.into_iter().enumerate() {
        load::create_database(&fleet.front()?, database, 3)?;
        watch.note(format!("{database}: {} rows are written", scenario.rows));
        let has_faults = options.faults == Faults::During && number == 0;
        let (load, more) = load_beside_faults(options, fleet, watch, database, has_faults)?;
        watch.note(format!("{database}: written at {:.0} rows/s", load.rows_per_wall_second()));
        loads.push((database, load));
        recoveries.extend(more);
    }
    let cpu_seconds = fleet.cpu_seconds() - cpu_before;
    let (took, state) = fleet.wait_for_pool(POOL_PATIENCE)?;
    ensure!(
        state.files > 0,
        "no file has come into the pool: more rows or less memory of the data nodes, or nothing is shown"
    );
    watch.note(format!("{} files are in the pool, with all copies {:.1} s later", state.files, took.as_secs_f64()));
    if options.faults == Faults::After {
        for slave in scenario.slaves_to_kill() {
            recoveries.push(kill_slave(slave, fleet, watch)?);
        }
    }
    let spec = spec_of(options);
    let oracle = Oracle::compute(spec, std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64));
    let mut databases = Vec::new();
    for (database, load) in loads {
        databases.push(compare(fleet, watch, database, load, &oracle)?);
    }
    let fallen = fleet.fallen();
    ensure!(fallen.is_empty(), "nodes have ended that nobody killed: {fallen:?}");
    Ok((databases, recoveries, cpu_seconds))
}

fn spec_of(options: &ScenarioOptions) -> DeviceSpec {
    DeviceSpec::with_rows(options.scenario.rows, options.seed)
}

fn kill_others(scenario: &Scenario, fleet: &Fleet, watch: &Watch) -> Result<()> {
    for node in scenario.others_killed() {
        fleet.kill(node)?;
        watch.note(format!("node {node} ({}) is killed", fleet.duty(node).role()));
    }
    Ok(())
}

fn kill_slave(slave: usize, fleet: &Fleet, watch: &Watch) -> Result<Recovery> {
    fleet.kill(slave)?;
    watch.note(format!("slave {slave} is killed"));
    fleet.wait_for_recovery(slave, POOL_PATIENCE, watch)
}

/// Writes a database; the faults of the scenario come meanwhile, if there are to be any.
fn load_beside_faults(
    options: &ScenarioOptions,
    fleet: &Fleet,
    watch: &Watch,
    database: &str,
    has_faults: bool,
) -> Result<(LoadReport, Vec<Recovery>)> {
    let (rows_done, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let faults = has_faults.then(|| scope.spawn(|| faults_beside(options, fleet, watch, &rows_done, &is_over)));
        let load = load_all(options, fleet, database, &rows_done);
        is_over.store(true, Ordering::Release);
        let recoveries = faults.map_or(Ok(Vec::new()), |faults| {
            faults.join().unwrap_or_else(|_| bail!("the thread of the faults has ended with a panic"))
        });
        Ok((load?, recoveries?))
    })
}

/// Kills node by node, spread over the load. What the load leaves no time for comes behind it.
fn faults_beside(
    options: &ScenarioOptions,
    fleet: &Fleet,
    watch: &Watch,
    rows_done: &AtomicU64,
    is_over: &AtomicBool,
) -> Result<Vec<Recovery>> {
    let scenario = &options.scenario;
    let (others, slaves) = (scenario.others_killed(), scenario.slaves_to_kill());
    let count = (others.len() + slaves.len()).max(1) as f64;
    let wait_for = |number: usize| {
        let part = FAULTS_FROM + (FAULTS_UNTIL - FAULTS_FROM) * number as f64 / count;
        let rows = (scenario.rows as f64 * part) as u64;
        while rows_done.load(Ordering::Relaxed) < rows && !is_over.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    for (number, node) in others.iter().enumerate() {
        wait_for(number);
        fleet.kill(*node)?;
        watch.note(format!("node {node} ({}) is killed", fleet.duty(*node).role()));
    }
    let mut recoveries = Vec::new();
    for (number, slave) in slaves.iter().enumerate() {
        wait_for(others.len() + number);
        recoveries.push(kill_slave(*slave, fleet, watch)?);
    }
    Ok(recoveries)
}

/// Writes all rows; bodies of all of them would not fit beside the servers, so that clients make them as they go.
fn load_all(options: &ScenarioOptions, fleet: &Fleet, database: &str, rows_done: &AtomicU64) -> Result<LoadReport> {
    let workload = Workload::Devices { spec: spec_of(options), order: SendOrder::default() };
    let clients = options.clients;
    let lines: Vec<Lines> = (0..clients).map(|client| workload.lines(client, clients)).collect::<Result<_>>()?;
    let mut load_options = LoadOptions::new("", database, workload.precision());
    load_options.targets = vec![fleet.front()?];
    load_options.rate = options.rate;
    load_options.retry = true;
    let control = LoadControl { rows_done: Some(rows_done), ..LoadControl::default() };
    let (report, _) = load::run_rendering(lines, options.rows_per_request, &load_options, &control)?;
    ensure!(
        report.rows_acknowledged == workload.rows(),
        "{} of {} rows were acknowledged: {:?}",
        report.rows_acknowledged,
        workload.rows(),
        report.failures
    );
    Ok(report)
}

/// Asks for every figure and every row.
fn compare(
    fleet: &Fleet,
    watch: &Watch,
    name: &'static str,
    load: LoadReport,
    oracle: &Oracle,
) -> Result<DatabaseReport> {
    let front = fleet.front()?;
    let begin = Instant::now();
    let mut report =
        DatabaseReport { name, load, rows_compared: 0, figures_compared: 0, wrong: 0, findings: Vec::new() };
    for grouping in Grouping::ALL {
        let mut client = Client::new(front.clone());
        let verdict = verify::figures(&mut client, name, grouping, oracle)?;
        // Five of each of the two fields.
        report.figures_compared += verdict.rows * 10;
        report.wrong += verdict.wrong;
        report.findings.extend(verdict.findings);
    }
    let spec = oracle.spec();
    let (present, verdict) = verify::every_row(&mut Client::new(front), name, spec)?;
    report.rows_compared = present.count();
    report.wrong += verdict.wrong;
    report.findings.extend(verdict.findings);
    watch.note(format!(
        "{name}: {} rows and {} figures compared in {:.1} s, {} differ",
        report.rows_compared,
        report.figures_compared,
        begin.elapsed().as_secs_f64(),
        report.wrong
    ));
    Ok(report)
}

/// Bytes of a size with suffix k, m or g.
pub fn bytes_of(text: &str) -> Result<u64> {
    let (digits, factor) = match text.to_ascii_lowercase() {
        text if text.ends_with('k') => (text.trim_end_matches('k').to_owned(), 1 << 10),
        text if text.ends_with('m') => (text.trim_end_matches('m').to_owned(), 1 << 20),
        text if text.ends_with('g') => (text.trim_end_matches('g').to_owned(), 1 << 30),
        text => (text, 1),
    };
    let number: u64 = digits.parse().with_context(|| format!("{text:?} is not a size"))?;
    number.checked_mul(factor).with_context(|| format!("{text:?} is too large"))
}

impl ScenarioReport {
    /// Whether every row and figure was right and every process kept its limit.
    pub fn is_right(&self) -> bool {
        self.databases.iter().all(|database| database.wrong == 0) && self.over_limit().is_empty()
    }

    /// Nodes that had more resident than they may.
    pub fn over_limit(&self) -> Vec<usize> {
        self.memory.iter().filter(|(_, (_, peak, limit))| peak > limit).map(|(node, _)| *node).collect()
    }

    pub fn print(&self) {
        println!("\nscenario {}, faults {}", self.scenario.number, self.faults_name());
        println!(
            "{:<10} {:>12} {:>12} {:>12} {:>8} {:>12} {:>14}",
            "database", "rows", "rows/s", "reference", "ratio", "differ", "reference"
        );
        for (number, database) in self.databases.iter().enumerate() {
            let reference = &self.scenario.reference;
            let rate = database.load.rows_per_wall_second();
            println!(
                "{:<10} {:>12} {rate:>12.0} {:>12} {:>8.1} {:>12} {:>14}",
                database.name,
                database.rows_compared,
                reference.rows_per_second[number],
                rate / reference.rows_per_second[number] as f64,
                database.wrong,
                reference.miscounted[number],
            );
            for finding in &database.findings {
                println!("  {finding}");
            }
        }
        for recovery in &self.recoveries {
            println!("{recovery}");
        }
        let rows: u64 = self.databases.iter().map(|database| database.load.rows_acknowledged).sum();
        println!(
            "CPU of all processes: {:.1} s, {:.2} s per million rows",
            self.cpu_seconds,
            self.cpu_seconds / (rows as f64 / 1e6)
        );
        for (name, peak, limit) in self.memory_by_role() {
            println!("resident {name}: at most {:.0} of {:.0} MiB", peak as f64 / 1048576.0, limit as f64 / 1048576.0);
        }
        for node in self.over_limit() {
            println!("node {node} had more than its limit");
        }
    }

    pub fn faults_name(&self) -> &'static str {
        match self.faults {
            Faults::After => "after the load",
            Faults::During => "during the load",
        }
    }

    /// The most resident bytes of any node of a role, and the limit.
    pub fn memory_by_role(&self) -> Vec<(&'static str, u64, u64)> {
        let mut roles: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
        for (role, peak, limit) in self.memory.values() {
            let known = roles.entry(role).or_default();
            *known = (known.0.max(*peak), *limit);
        }
        roles.into_iter().map(|(name, (peak, limit))| (name, peak, limit)).collect()
    }

    pub fn to_json(&self) -> Value {
        let database = |database: &DatabaseReport| {
            json!({
                "name": database.name,
                "load": database.load.to_json(),
                "rows_compared": database.rows_compared,
                "figures_compared": database.figures_compared,
                "wrong": database.wrong,
                "findings": database.findings,
            })
        };
        let recovery = |recovery: &Recovery| {
            json!({
                "slave": recovery.slave,
                "seen_after_s": recovery.seen_after.as_secs_f64(),
                "whole_after_s": recovery.whole_after.as_secs_f64(),
                "missing_copies": recovery.missing_copies,
            })
        };
        let memory = |(node, (role, peak, limit)): (&usize, &(&str, u64, u64))| json!({ "node": node, "role": role, "peak_bytes": peak, "limit_bytes": limit });
        json!({
            "scenario": self.scenario.number,
            "faults": self.faults_name(),
            "reference_rows_per_second": self.scenario.reference.rows_per_second,
            "reference_miscounted": self.scenario.reference.miscounted,
            "databases": self.databases.iter().map(database).collect::<Vec<_>>(),
            "recoveries": self.recoveries.iter().map(recovery).collect::<Vec<_>>(),
            "cpu_seconds": self.cpu_seconds,
            "memory": self.memory.iter().map(memory).collect::<Vec<_>>(),
            "watch": self.watch.to_json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!((bytes_of("3k").unwrap(), bytes_of("2G").unwrap(), bytes_of("7").unwrap()), (3072, 2 << 30, 7));
        assert!(bytes_of("m").is_err() && bytes_of("1x").is_err());
    }
}
