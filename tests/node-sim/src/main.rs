//! The command line of the simulation.

use anyhow::{Context, bail};
use std::time::Instant;
use tidemill_disk::sim::Prng;
use tidemill_node_sim::{
    campaign::{self, Campaign},
    crash_points, lives, planted,
    swarm::Swarm,
};

const USAGE: &str = "\
tidemill-node-sim random [--seeds N] [--first S] [--threads N] [--stop] [--ledger]   a campaign of random lives
tidemill-node-sim replay SEED            one run, its settings first
tidemill-node-sim crash-points [--stride N] [--ledger]   the fixed run, the power failing at each of its points
tidemill-node-sim planted [NAME..] [--ledger]   plants each defect in a copy of the tree and looks for it
";

fn number(arguments: &[String], name: &str, default: u64) -> anyhow::Result<u64> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(default) };
    let value = arguments.get(at + 1).with_context(|| format!("{name} wants a number"))?;
    value.replace('_', "").parse().with_context(|| format!("{name} {value}"))
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("random") => random(&arguments),
        Some("replay") => replay(&arguments),
        Some("crash-points") => crash_points(&arguments),
        Some("planted") => {
            let is_name = |argument: &&String| !argument.starts_with("--");
            let names: Vec<String> = arguments[1..].iter().filter(is_name).cloned().collect();
            planted::main(&names, arguments.iter().any(|argument| argument == "--ledger"))
        }
        _ => {
            print!("{USAGE}");
            Ok(())
        }
    }
}

fn random(arguments: &[String]) -> anyhow::Result<()> {
    let campaign = Campaign {
        first_seed: number(arguments, "--first", 0)?,
        seeds: number(arguments, "--seeds", 1000)?,
        threads: number(arguments, "--threads", 1)? as usize,
        stop_at_first: arguments.iter().any(|argument| argument == "--stop"),
    };
    println!("{campaign:?}");
    // Violations are reported with their seeds.
    std::panic::set_hook(Box::new(|_| ()));
    let start = Instant::now();
    let report = campaign.run();
    let seconds = start.elapsed().as_secs_f64();
    for (name, count) in report.counters.named() {
        println!("  {name:<28} {count}");
    }
    for (seed, text) in report.violations.iter().take(20) {
        println!("seed {seed}: {text}");
    }
    let (seeds, violations) = (report.seeds, report.violations.len());
    println!("{seeds} seeds, {violations} violations, {seconds:.1} s, {:.3} s a seed", seconds / seeds as f64);
    if arguments.iter().any(|argument| argument == "--ledger") {
        campaign::ledger("store: random lives", campaign.first_seed, seeds, report.counters.entries, violations)?;
    }
    if violations > 0 {
        println!("tidemill-node-sim replay SEED tells more");
        std::process::exit(1);
    }
    let zeros = report.counters.zeros();
    if seeds >= 1000 && !zeros.is_empty() {
        bail!("never happened, so never tested: {zeros:?}");
    }
    Ok(())
}

fn crash_points(arguments: &[String]) -> anyhow::Result<()> {
    let stride = number(arguments, "--stride", 1)?.max(1);
    let start = Instant::now();
    let report = crash_points::run(stride);
    println!("{report:#?}");
    println!("every {stride}. point, {:.1} s", start.elapsed().as_secs_f64());
    if arguments.iter().any(|argument| argument == "--ledger") {
        let mode = format!("store: crash points (of {} every {stride}.; recoveries)", report.points);
        campaign::ledger(&mode, 0, report.points / stride, report.recoveries, 0)?;
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
