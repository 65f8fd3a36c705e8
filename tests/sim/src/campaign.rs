//! Many seeds.

use crate::{counters::Counters, swarm::ELECTION_TICKS, world::World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

/// Ticks within which a healed group must have committed something new everywhere.
const HEALED_WITHIN: u64 = 60 * ELECTION_TICKS;

#[derive(Clone, Debug)]
pub struct Campaign {
    pub first_seed: u64,
    pub seeds: u64,
    /// Ticks of each run before it is healed.
    pub ticks: u64,
    pub threads: usize,
    /// Ends at the first violation.
    pub stop_at_first: bool,
}

#[derive(Debug, Default)]
pub struct Report {
    pub seeds: u64,
    pub node_ticks: u64,
    pub counters: Counters,
    /// Seed and what was violated.
    pub violations: Vec<(u64, String)>,
}

/// One run; returns its ticks times its members.
///
/// # Panics
/// At the first violation.
pub fn run(seed: u64, ticks: u64) -> (u64, Counters) {
    let mut world = World::new(seed);
    for _ in 0..ticks {
        world.tick();
    }
    world.check_liveness(HEALED_WITHIN);
    (world.now * world.nodes.len() as u64, world.counters)
}

pub fn try_run(seed: u64, ticks: u64) -> Result<(u64, Counters), String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, ticks))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

impl Campaign {
    pub fn run(&self) -> Report {
        let next = AtomicU64::new(0);
        let report = Mutex::new(Report::default());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    let mut own = Report::default();
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= self.seeds {
                            break;
                        }
                        let seed = self.first_seed + at;
                        own.seeds += 1;
                        match try_run(seed, self.ticks) {
                            Ok((node_ticks, counters)) => {
                                own.node_ticks += node_ticks;
                                own.counters.add(&counters);
                            }
                            Err(text) => {
                                own.violations.push((seed, text));
                                if self.stop_at_first {
                                    next.store(self.seeds, Ordering::Relaxed);
                                }
                            }
                        }
                    }
                    let mut report = report.lock().expect("no panic while it was held");
                    report.seeds += own.seeds;
                    report.node_ticks += own.node_ticks;
                    report.counters.add(&own.counters);
                    report.violations.extend(own.violations);
                });
            }
        });
        let mut report = report.into_inner().expect("no panic while it was held");
        report.violations.sort();
        report
    }
}

/// Adds a row to `tests/ledger.csv`.
pub fn ledger(mode: &str, campaign: &Campaign, report: &Report) -> anyhow::Result<()> {
    use std::io::Write;
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let said = |program: &str, arguments: &[&str]| -> anyhow::Result<String> {
        let output = std::process::Command::new(program).args(arguments).current_dir(root).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let date = said("date", &["+%Y-%m-%d"])?;
    let commit = said("git", &["rev-parse", "--short", "HEAD"])?;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(format!("{root}/tests/ledger.csv"))?;
    let (first, seeds, ticks) = (campaign.first_seed, report.seeds, report.node_ticks);
    writeln!(file, "{date},{commit},{mode},{first},{seeds},{ticks},{}", report.violations.len())?;
    Ok(())
}
