//! Random lives of a node.

use tidemill_campaign::Counts;
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
        // Writes that take effect out of order need two under way, and a copy must find the pool in trouble: a hundred
        // seeds may miss that.
        let seldom = ["writes_reordered", "pool_failures"];
        let zeros: Vec<_> = counters.zeros().into_iter().filter(|name| !seldom.contains(name)).collect();
        assert_eq!(zeros, Vec::<&str>::new());
    }
}
