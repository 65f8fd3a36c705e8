//! A campaign small enough for every run of the tests.

use tidemill_campaign::{Campaign, Counts};
use tidemill_sim::seed::run;

#[test]
fn a_few_hundred_seeds_hold_all_invariants() {
    let campaign = Campaign { first_seed: 0, seeds: 400, threads: 1, stop_at_first: false };
    let report = campaign.run(|seed| run(seed, 1200));
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    assert!(report.counters.zeros().is_empty(), "never happened: {:?}", report.counters.zeros());
}

#[test]
fn a_seed_is_a_run() {
    assert_eq!(run(77, 600), run(77, 600));
}
