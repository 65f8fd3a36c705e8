//! The command line of the simulation.

use anyhow::{Context, bail};
use std::time::Instant;
use tidemill_sim::{campaign::Campaign, planted, prng::Prng, script, swarm::Swarm};

const USAGE: &str = "\
tidemill-sim fast [--seeds N] [--first S] [--ticks T] [--threads N] [--ledger]   a campaign over the model of a disk
tidemill-sim replay SEED [--ticks T]     one run, its settings first
tidemill-sim scripts [FILE..] [--write]  text scripts; --write fills in what they print
tidemill-sim planted [NAME..]            plants each defect in a copy of the tree and looks for it
";

fn number(arguments: &[String], name: &str, default: u64) -> anyhow::Result<u64> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(default) };
    let value = arguments.get(at + 1).with_context(|| format!("{name} wants a number"))?;
    value.replace('_', "").parse().with_context(|| format!("{name} {value}"))
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("fast") => fast(&arguments),
        Some("replay") => replay(&arguments),
        Some("scripts") => script::main(&arguments[1..]),
        Some("planted") => planted::main(&arguments[1..]),
        _ => {
            print!("{USAGE}");
            Ok(())
        }
    }
}

fn fast(arguments: &[String]) -> anyhow::Result<()> {
    let campaign = Campaign {
        first_seed: number(arguments, "--first", 0)?,
        seeds: number(arguments, "--seeds", 1000)?,
        ticks: number(arguments, "--ticks", 2000)?,
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
    println!(
        "{} seeds, {} node-ticks, {} violations, {seconds:.1} s, {:.2} M node-ticks/s",
        report.seeds,
        report.node_ticks,
        report.violations.len(),
        report.node_ticks as f64 / seconds / 1e6
    );
    if arguments.iter().any(|argument| argument == "--ledger") {
        tidemill_sim::campaign::ledger("fast", &campaign, &report)?;
    }
    if !report.violations.is_empty() {
        bail!("{} seeds with violations; tidemill-sim replay SEED --ticks {}", report.violations.len(), campaign.ticks);
    }
    let zeros = report.counters.zeros();
    if campaign.seeds >= 1000 && !zeros.is_empty() {
        bail!("never happened, so never tested: {zeros:?}");
    }
    Ok(())
}

fn replay(arguments: &[String]) -> anyhow::Result<()> {
    let seed: u64 = arguments.get(1).context("replay wants a seed")?.parse()?;
    println!("{:#?}", Swarm::draw(&mut Prng::new(seed)));
    let (node_ticks, counters) = tidemill_sim::campaign::run(seed, number(arguments, "--ticks", 2000)?);
    println!("{node_ticks} node-ticks without a violation; {counters:?}");
    Ok(())
}
