//! One seed.

use crate::{counters::Counters, swarm::ELECTION_TICKS, world::World};

/// Ticks within which a healed group must have committed something new everywhere.
const HEALED_WITHIN: u64 = 60 * ELECTION_TICKS;

/// One run of so many ticks before it is healed.
///
/// # Panics
/// At the first violation.
pub fn run(seed: u64, ticks: u64) -> Counters {
    let mut world = World::new(seed);
    for _ in 0..ticks {
        world.tick();
    }
    world.check_liveness(HEALED_WITHIN);
    world.counters.node_ticks = world.now * world.nodes.len() as u64;
    world.counters
}
