//! Kill cycles: load a server, `kill -9` it at a seeded moment, start it on the same folder, check every row; again.
//!
//! A row that was acknowledged must be there after every later start; a row of a batch without an answer may be there
//! or not, but once the first look after the kill has settled that, it may not change any more. Rows that were never
//! sent, rows with other values and rows that come twice are faults.

use crate::acknowledgement::Outcome;
use crate::check::RowSet;
use crate::devices::DeviceSpec;
use crate::emission::{Emission, SendOrder};
use crate::load::{self, LoadControl, LoadOptions};
use crate::random::Sequence;
use crate::server::{Server, Setup};
use crate::verify::{self, Obligation};
use crate::workload::{ClientPlan, Lines};
use anyhow::{Context, Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How the cycles run.
#[derive(Clone, Debug)]
pub struct CrashOptions {
    pub setup: Setup,
    pub cycles: u64,
    pub clients: u64,
    pub rows_per_request: u64,
    /// Rows a second over all clients: keeps the check of a cycle as short as the cycle.
    pub rate: f64,
    /// The kill comes at a uniform moment up to this long after the load began.
    pub load_time_max: Duration,
    /// Cycles that share a database; after them the next one starts empty and the old one is only counted.
    pub cycles_per_database: u64,
    pub order: SendOrder,
    pub seed: u64,
    /// Cores to choose from at each start; empty keeps the setup's.
    pub cores: Vec<usize>,
    /// Print a line a cycle.
    pub verbose: bool,
}

impl CrashOptions {
    pub fn new(setup: Setup, cycles: u64, seed: u64) -> Self {
        Self {
            setup,
            cycles,
            clients: 4,
            rows_per_request: 100,
            rate: 50_000.0,
            load_time_max: Duration::from_millis(700),
            cycles_per_database: 20,
            order: SendOrder { interleave: 3, late_part: 0.1, lag_ms_max: 600_000, duplicate_part: 0.01 },
            seed,
            cores: Vec::new(),
            verbose: false,
        }
    }
}

/// Totals of a campaign without a fault.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CrashReport {
    pub cycles: u64,
    pub rows_acknowledged: u64,
    pub rows_of_unknown_fate: u64,
    /// Of the rows of unknown fate, those that were there after the start.
    pub unknown_rows_present: u64,
    pub batches_unknown: u64,
    /// Longest time from the start of the process to its first answer.
    pub slowest_start: Duration,
}

/// One database and all that was sent to it.
struct Campaign {
    database: String,
    spec: DeviceSpec,
    emissions: Vec<Emission>,
    next_row: Vec<u64>,
    sequence: u64,
    owed: Obligation,
}

impl Campaign {
    fn new(options: &CrashOptions, number: u64) -> Self {
        let rows_a_cycle = options.rate * options.load_time_max.as_secs_f64();
        let rows = (rows_a_cycle * options.cycles_per_database as f64 * 1.5) as u64 + 10_000;
        let rows_per_device = 2000;
        let devices =
            (rows / rows_per_device).max(1).next_multiple_of(options.clients * options.order.interleave.max(1));
        let spec = DeviceSpec { devices, files: devices, rows_per_device, seed: options.seed.wrapping_add(number) };
        let emissions = (0..options.clients)
            .map(|client| Emission::new(spec, options.order, spec.devices_of_client(client, options.clients)))
            .collect();
        Self {
            database: format!("crash{number}"),
            spec,
            emissions,
            next_row: vec![0; options.clients as usize],
            sequence: 0,
            owed: Obligation::none(&spec),
        }
    }

    /// Bodies of the next `rows` rows of each client, and the rows in them.
    fn plan(&mut self, rows: u64, rows_per_request: u64) -> Result<Vec<(ClientPlan, Vec<u64>)>> {
        let mut plans = Vec::new();
        for (emission, next) in self.emissions.iter_mut().zip(&mut self.next_row) {
            let items: Vec<_> = emission.by_ref().take(rows as usize).collect();
            let numbers = items.iter().map(|(device, row)| self.spec.row_number(device.id, *row)).collect();
            let mut lines = Lines::Ready(items.into_iter());
            let plan = ClientPlan::render(&mut lines, *next, rows, rows_per_request, false)?;
            *next += plan.rows();
            plans.push((plan, numbers));
        }
        Ok(plans)
    }
}

/// Runs all cycles. An error names the cycle and the first faults.
pub fn run(options: &CrashOptions) -> Result<CrashReport> {
    let mut random = Sequence::new(options.seed);
    let mut report = CrashReport::default();
    let mut finished: Vec<(String, DeviceSpec, RowSet)> = Vec::new();
    let mut campaign = Campaign::new(options, 0);
    let mut server = start(options, &mut random, &mut report)?;
    load::create_database(&server.address(), &campaign.database, 1)?;
    for cycle in 0..options.cycles {
        let moment = options.load_time_max.mul_f64(crate::random::unit(random.next_u64()));
        let context = || format!("cycle {cycle} of seed {}, killed after {moment:?}", options.seed);
        let (setup, acknowledged, unknown) =
            load_and_kill(options, server, &mut campaign, moment, &mut report).with_context(context)?;
        server = start_with(setup, options, &mut random, &mut report).with_context(context)?;
        let before = campaign.owed.clone();
        let (present, verdict) =
            verify::obligations(&mut server.client(), &campaign.database, campaign.spec, &campaign.owed)
                .with_context(context)?;
        if !verdict.is_right() {
            bail!("{}: {} faults: {:#?}", context(), verdict.wrong, verdict.findings);
        }
        report.unknown_rows_present += present.difference(&before.must).count() as u64;
        campaign.owed = Obligation { must: present.clone(), may: present };
        report.cycles += 1;
        if options.verbose {
            println!(
                "cycle {cycle}: killed after {moment:?}, {acknowledged} rows acknowledged, {unknown} of unknown fate, \
                 {} rows there, start took {:?}",
                campaign.owed.must.count(),
                server.start_time
            );
        }
        for (database, _, rows) in &finished {
            check_count(&server, database, rows.count()).with_context(context)?;
        }
        if (cycle + 1) % options.cycles_per_database == 0 && cycle + 1 < options.cycles {
            let number = finished.len() as u64 + 1;
            let old = std::mem::replace(&mut campaign, Campaign::new(options, number));
            finished.push((old.database, old.spec, old.owed.must));
            load::create_database(&server.address(), &campaign.database, 1)?;
        }
    }
    finished.push((campaign.database, campaign.spec, campaign.owed.must));
    for (database, spec, rows) in finished {
        let owed = Obligation { must: rows.clone(), may: rows };
        let (_, verdict) = verify::obligations(&mut server.client(), &database, spec, &owed)?;
        if !verdict.is_right() {
            bail!("at the end of seed {}, {database}: {:#?}", options.seed, verdict.findings);
        }
    }
    let status = server.stop(Duration::from_secs(60))?;
    if !status.success() {
        bail!("the server ended with {status} after SIGTERM");
    }
    Ok(report)
}

fn start(options: &CrashOptions, random: &mut Sequence, report: &mut CrashReport) -> Result<Server> {
    start_with(options.setup.clone(), options, random, report)
}

fn start_with(
    mut setup: Setup,
    options: &CrashOptions,
    random: &mut Sequence,
    report: &mut CrashReport,
) -> Result<Server> {
    if !options.cores.is_empty() {
        setup.cores = Some(*random.pick(&options.cores));
    }
    let server = Server::start(setup)?;
    report.slowest_start = report.slowest_start.max(server.start_time);
    Ok(server)
}

/// Loads until `moment`, kills, books every batch. Returns the rows acknowledged and of unknown fate.
fn load_and_kill(
    options: &CrashOptions,
    server: Server,
    campaign: &mut Campaign,
    moment: Duration,
    report: &mut CrashReport,
) -> Result<(Setup, u64, u64)> {
    let rows = (options.rate * options.load_time_max.as_secs_f64() * 1.2 / options.clients as f64) as u64
        + options.rows_per_request;
    let planned = campaign.plan(rows, options.rows_per_request)?;
    let (plans, numbers): (Vec<_>, Vec<_>) = planned.into_iter().unzip();
    let mut load_options = LoadOptions::new(server.address(), &campaign.database, "ms");
    load_options.rate = Some(options.rate);
    let stop = AtomicBool::new(false);
    let control = LoadControl { stop: Some(&stop), first_sequence: campaign.sequence, ..LoadControl::default() };
    let (killed, loaded) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let begin = Instant::now();
            while begin.elapsed() < moment {
                std::thread::sleep(moment.saturating_sub(begin.elapsed()).min(Duration::from_millis(20)));
            }
            // The clients stop after the kill, not before: requests must be under way when it comes.
            let killed = server.kill();
            stop.store(true, Ordering::Release);
            killed
        });
        let loaded = load::run(&plans, &load_options, &control);
        (killer.join(), loaded)
    });
    let setup = killed.map_err(|_| anyhow::anyhow!("the killer died"))??;
    let (figures, entries) = loaded?;
    campaign.sequence += plans.iter().map(|plan| plan.batches.len() as u64).max().unwrap_or(0);
    for entry in &entries {
        let client = entry.client as usize;
        let base = plans[client].batches.first().map_or(0, |batch| batch.first_row);
        let rows = &numbers[client][(entry.first_row - base) as usize..=(entry.last_row - base) as usize];
        if entry.outcome == Outcome::Rejected {
            bail!("a batch was refused: {:?}", figures.failures);
        }
        report.batches_unknown += u64::from(entry.outcome == Outcome::Unknown);
        campaign.owed.add(entry.outcome, rows.iter().copied());
    }
    report.rows_acknowledged += figures.rows_acknowledged;
    report.rows_of_unknown_fate += figures.rows_unknown;
    Ok((setup, figures.rows_acknowledged, figures.rows_unknown))
}

fn check_count(server: &Server, database: &str, expected: u64) -> Result<()> {
    let answer = server.client().query("SELECT count(temperature) FROM devices", &format!("db={database}"))?;
    let text = answer.text();
    let right = if expected == 0 { !text.contains("series") } else { text.contains(&format!(",{expected}]]")) };
    if !right {
        bail!("database {database} should count {expected} rows, but answers {text}");
    }
    Ok(())
}
