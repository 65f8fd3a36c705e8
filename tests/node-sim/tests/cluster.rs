//! A data group of three nodes.

use tidemill_campaign::Counts;
use tidemill_node_sim::{
    cluster::{counters::Counters, run::run},
    setting,
};

#[test]
fn three_nodes_lose_and_invent_nothing_whatever_fails() {
    let seeds = match setting("TIDEMILL_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("TIDEMILL_SIM_SEEDS").unwrap_or(24),
    };
    let mut counters = Counters::default();
    for seed in seeds.clone() {
        counters.add(&run(seed));
    }
    println!("{seeds:?}: {counters:#?}");
    if seeds.end - seeds.start >= 1000 {
        assert_eq!(counters.zeros(), Vec::<&str>::new());
    }
}
