//! The command line of the simulation.

use anyhow::{Context, bail};
use std::time::Instant;
use tidemill_campaign::{Campaign, Counts, Report, Row, has, number};
use tidemill_disk::sim::Prng;
use tidemill_node_sim::{
    cluster, crash_points, lives,
    planted::{CLUSTER_PLANTING, PLANTING},
    swarm::Swarm,
};

const USAGE: &str = "\
tidemill-node-sim random [--seeds N] [--first S] [--threads N] [--stop] [--ledger]   a campaign of random lives
tidemill-node-sim replay SEED            one run, its settings first
tidemill-node-sim crash-points [--stride N] [--ledger]   the fixed run, the power failing at each of its points
tidemill-node-sim cluster [--seeds N] [--first S] [--threads N] [--stop] [--ledger]  a campaign of groups of three nodes
tidemill-node-sim cluster-replay SEED    one run of a group, its settings first
tidemill-node-sim cluster-planted [NAME..] [--ledger]   as planted, of what nodes have to do with each other
tidemill-node-sim planted [NAME..] [--ledger]   plants each defect in a copy of the tree and looks for it
";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("random") => random(&arguments),
        Some("replay") => replay(&arguments),
        Some("crash-points") => crash_points(&arguments),
        Some("cluster") => cluster(&arguments),
        Some("cluster-replay") => {
            let seed: u64 = arguments.get(1).context("cluster-replay wants a seed")?.parse()?;
            println!("{}", cluster::run::describe(seed));
            println!("{:#?}", cluster::run::run(seed));
            Ok(())
        }
        Some("cluster-planted") => CLUSTER_PLANTING.main(&arguments[1..]),
        Some("planted") => PLANTING.main(&arguments[1..]),
        _ => {
            print!("{USAGE}");
            Ok(())
        }
    }
}

fn random(arguments: &[String]) -> anyhow::Result<()> {
    campaign(arguments, "store: random lives", lives::run, |counters| counters.entries)
}

fn cluster(arguments: &[String]) -> anyhow::Result<()> {
    campaign(arguments, "cluster: groups of three nodes", cluster::run::run, |counters| counters.entries)
}

/// Runs many seeds, and tells what came of it; `entries` is what the ledger counts.
fn campaign<C: Counts>(
    arguments: &[String],
    mode: &str,
    run: impl Fn(u64) -> C + Sync,
    entries: impl Fn(&C) -> u64,
) -> anyhow::Result<()> {
    let campaign = Campaign::of(arguments)?;
    println!("{campaign:?}");
    // Violations are reported with their seeds.
    std::panic::set_hook(Box::new(|_| ()));
    let start = Instant::now();
    let report: Report<C> = campaign.run(run);
    let seconds = start.elapsed().as_secs_f64();
    report.print();
    let (seeds, violations) = (report.seeds, report.violations.len());
    println!("{seeds} seeds, {violations} violations, {seconds:.1} s, {:.3} s a seed", seconds / seeds as f64);
    if has(arguments, "--ledger") {
        let (first_seed, work) = (campaign.first_seed, entries(&report.counters));
        Row { mode, first_seed, seeds, work, violations }.append()?;
    }
    report.verdict()
}

fn crash_points(arguments: &[String]) -> anyhow::Result<()> {
    let stride = number(arguments, "--stride", 1)?.max(1);
    let start = Instant::now();
    let report = crash_points::run(stride);
    println!("{report:#?}");
    println!("every {stride}. point, {:.1} s", start.elapsed().as_secs_f64());
    if has(arguments, "--ledger") {
        let mode = format!("store: crash points (of {} every {stride}.; recoveries)", report.points);
        let (seeds, work) = (report.points / stride, report.recoveries);
        Row { mode: &mode, first_seed: 0, seeds, work, violations: 0 }.append()?;
    }
    let zeros = report.zeros();
    if !zeros.is_empty() {
        bail!("never happened, so never tested: {zeros:?}");
    }
    Ok(())
}

fn replay(arguments: &[String]) -> anyhow::Result<()> {
    let seed: u64 = arguments.get(1).context("replay wants a seed")?.parse()?;
    println!("{:#?}", Swarm::draw(&mut Prng::new(seed)));
    println!("{:#?}", lives::run(seed));
    Ok(())
}
