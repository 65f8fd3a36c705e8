//! The command line of the simulation.

use anyhow::Context;
use std::time::Instant;
use tidemill_campaign::{Campaign, Row, has, number};
use tidemill_sim::{planted::PLANTING, prng::Prng, script, seed, swarm::Swarm};

const USAGE: &str = "\
tidemill-sim fast [--seeds N] [--first S] [--ticks T] [--threads N] [--ledger]   a campaign over the model of a disk
tidemill-sim replay SEED [--ticks T]     one run, its settings first
tidemill-sim scripts [FILE..] [--write]  text scripts; --write fills in what they print
tidemill-sim planted [NAME..] [--ledger] plants each defect in a copy of the tree and looks for it
";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("fast") => fast(&arguments),
        Some("replay") => replay(&arguments),
        Some("scripts") => script::main(&arguments[1..]),
        Some("planted") => PLANTING.main(&arguments[1..]),
        _ => {
            print!("{USAGE}");
            Ok(())
        }
    }
}

fn fast(arguments: &[String]) -> anyhow::Result<()> {
    let (campaign, ticks) = (Campaign::of(arguments)?, ticks(arguments)?);
    println!("{campaign:?}, {ticks} ticks");
    // Violations are reported with their seeds.
    std::panic::set_hook(Box::new(|_| ()));
    let start = Instant::now();
    let report = campaign.run(|seed| seed::run(seed, ticks));
    let seconds = start.elapsed().as_secs_f64();
    report.print();
    let (seeds, violations, work) = (report.seeds, report.violations.len(), report.counters.node_ticks);
    let speed = work as f64 / seconds / 1e6;
    println!("{seeds} seeds, {work} node-ticks, {violations} violations, {seconds:.1} s, {speed:.2} M node-ticks/s");
    if has(arguments, "--ledger") {
        let mode = format!("raft: fast ({ticks} ticks)");
        Row { mode: &mode, first_seed: campaign.first_seed, seeds, work, violations }.append()?;
    }
    report.verdict()
}

fn ticks(arguments: &[String]) -> anyhow::Result<u64> {
    number(arguments, "--ticks", 2000)
}

fn replay(arguments: &[String]) -> anyhow::Result<()> {
    let seed: u64 = arguments.get(1).context("replay wants a seed")?.parse()?;
    println!("{:#?}", Swarm::draw(&mut Prng::new(seed)));
    println!("no violation; {:?}", seed::run(seed, ticks(arguments)?));
    Ok(())
}
