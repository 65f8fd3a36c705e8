//! Many seeds.

use crate::{counters::Counters, lives};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

#[derive(Clone, Debug)]
pub struct Campaign {
    pub first_seed: u64,
    pub seeds: u64,
    pub threads: usize,
    pub stop_at_first: bool,
}

#[derive(Default)]
pub struct Report {
    pub seeds: u64,
    pub counters: Counters,
    /// Seed and what was wrong.
    pub violations: Vec<(u64, String)>,
}

/// Runs a seed; a violation is told, not thrown.
pub fn try_run(seed: u64) -> Result<Counters, String> {
    catch_unwind(AssertUnwindSafe(|| lives::run(seed))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default()
    })
}

impl Campaign {
    pub fn run(&self) -> Report {
        let next = AtomicU64::new(0);
        let report = Mutex::new(Report::default());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= self.seeds {
                            break;
                        }
                        let seed = self.first_seed + at;
                        let outcome = try_run(seed);
                        let mut report = report.lock().expect("no panic while it was held");
                        report.seeds += 1;
                        match outcome {
                            Ok(counters) => report.counters.add(&counters),
                            Err(text) => {
                                report.violations.push((seed, text));
                                if self.stop_at_first {
                                    next.store(self.seeds, Ordering::Relaxed);
                                }
                            }
                        }
                    }
                });
            }
        });
        let mut report = report.into_inner().expect("no panic while it was held");
        report.violations.sort();
        report
    }
}

/// Adds a row to `tests/ledger.csv`; `work` is what counts as the size of the campaign: entries, or recoveries.
pub fn ledger(mode: &str, first_seed: u64, seeds: u64, work: u64, violations: usize) -> anyhow::Result<()> {
    use std::io::Write;
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let said = |program: &str, arguments: &[&str]| -> anyhow::Result<String> {
        let output = std::process::Command::new(program).args(arguments).current_dir(root).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let date = said("date", &["+%Y-%m-%d"])?;
    let commit = said("git", &["rev-parse", "--short", "HEAD"])?;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(format!("{root}/tests/ledger.csv"))?;
    writeln!(file, "{date},{commit},{mode},{first_seed},{seeds},{work},{violations}")?;
    Ok(())
}
