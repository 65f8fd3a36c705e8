//! Many seeds.

use crate::counters::Counts;
use anyhow::bail;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// From this many seeds on a campaign must have met everything.
const SEEDS_OF_EVERYTHING: u64 = 1000;
/// Violations that are printed.
const VIOLATIONS_TOLD: usize = 20;

#[derive(Clone, Debug)]
pub struct Campaign {
    pub first_seed: u64,
    pub seeds: u64,
    pub threads: usize,
    pub stop_at_first: bool,
}

#[derive(Debug, Default)]
pub struct Report<C> {
    pub seeds: u64,
    /// Of the runs without a violation.
    pub counters: C,
    /// Seed and what was wrong.
    pub violations: Vec<(u64, String)>,
}

/// Runs a seed; a violation is told, not thrown.
pub fn try_run<C>(seed: u64, run: impl Fn(u64) -> C) -> Result<C, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

impl Campaign {
    /// The campaign of a command line: `--first S --seeds N --threads N --stop`.
    ///
    /// # Errors
    /// If a number is none.
    pub fn of(arguments: &[String]) -> anyhow::Result<Campaign> {
        Ok(Campaign {
            first_seed: crate::number(arguments, "--first", 0)?,
            seeds: crate::number(arguments, "--seeds", 1000)?,
            threads: crate::number(arguments, "--threads", 1)? as usize,
            stop_at_first: crate::has(arguments, "--stop"),
        })
    }

    pub fn run<C: Counts>(&self, run: impl Fn(u64) -> C + Sync) -> Report<C> {
        let next = AtomicU64::new(0);
        let report: Mutex<Report<C>> = Mutex::new(Report::default());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= self.seeds {
                            break;
                        }
                        let seed = self.first_seed + at;
                        let outcome = try_run(seed, &run);
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

impl<C: Counts> Report<C> {
    /// Prints how often everything happened, and what was wrong.
    pub fn print(&self) {
        for (name, count) in self.counters.named() {
            println!("  {name:<28} {count}");
        }
        for (seed, text) in self.violations.iter().take(VIOLATIONS_TOLD) {
            println!("seed {seed}: {text}");
        }
    }

    /// Whether the campaign has shown that nothing is wrong.
    ///
    /// # Errors
    /// What it has shown else.
    pub fn verdict(&self) -> anyhow::Result<()> {
        if !self.violations.is_empty() {
            bail!("{} of {} seeds with a violation; replay SEED tells more", self.violations.len(), self.seeds);
        }
        let zeros = self.counters.zeros();
        if self.seeds >= SEEDS_OF_EVERYTHING && !zeros.is_empty() {
            bail!("never happened, so never tested: {zeros:?}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::counters! { runs nothing }

    #[test]
    fn a_violation_is_told_with_its_seed_and_ends_the_campaign_if_wanted() {
        let run = |seed: u64| {
            assert!(seed != 13, "seed {seed} fails");
            Counters { runs: 1, nothing: 0 }
        };
        let mut campaign = Campaign { first_seed: 10, seeds: 9, threads: 2, stop_at_first: false };
        let report = campaign.run(run);
        assert_eq!((report.seeds, report.counters.runs), (9, 8));
        assert_eq!(report.violations, [(13, "seed 13 fails".to_owned())]);
        assert_eq!(report.counters.zeros(), ["nothing"]);
        assert!(report.verdict().is_err());
        campaign.threads = 1;
        campaign.stop_at_first = true;
        assert_eq!(campaign.run(run).seeds, 4);
    }

    #[test]
    fn what_a_long_campaign_never_met_fails_it() {
        let campaign = Campaign { first_seed: 0, seeds: 1000, threads: 1, stop_at_first: false };
        assert!(campaign.run(|_| Counters { runs: 1, nothing: 0 }).verdict().is_err());
        assert!(campaign.run(|_| Counters { runs: 1, nothing: 1 }).verdict().is_ok());
        let short = Campaign { seeds: 999, ..campaign };
        assert!(short.run(|_| Counters { runs: 1, nothing: 0 }).verdict().is_ok());
    }
}
