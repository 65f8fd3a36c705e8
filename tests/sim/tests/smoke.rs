//! A campaign small enough for every run of the tests.

use tidemill_sim::campaign::{Campaign, try_run};

#[test]
fn a_few_hundred_seeds_hold_all_invariants() {
    let campaign = Campaign { first_seed: 0, seeds: 400, ticks: 1200, threads: 1, stop_at_first: false };
    let report = campaign.run();
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    assert!(report.counters.zeros().is_empty(), "never happened: {:?}", report.counters.zeros());
}

#[test]
fn a_seed_is_a_run() {
    let (one, other) = (try_run(77, 600).unwrap(), try_run(77, 600).unwrap());
    assert_eq!(one.0, other.0);
    assert_eq!(one.1.named(), other.1.named());
}
