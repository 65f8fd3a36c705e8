//! Random lives of a node.

use tidemill_node_sim::{counters::Counters, lives, setting};

#[test]
fn random_lives_lose_and_invent_nothing() {
    let seeds = match setting("TIDEMILL_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("TIDEMILL_SIM_SEEDS").unwrap_or(100),
    };
    let mut counters = Counters::default();
    for seed in seeds.clone() {
        counters.add(&lives::run(seed));
    }
    println!("{seeds:?}: {counters:?}");
    if seeds.end - seeds.start >= 100 {
        assert_eq!(counters.zeros(), Vec::<&str>::new());
    }
}
