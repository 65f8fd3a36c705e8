//! Random points and random statements for the differential test, from a seed.
//!
//! Statements stay within what upstream answers in a defined way: no OFFSET without LIMIT on raw rows (upstream gives
//! one row), no arithmetic that yields infinity, no unbounded windows, no functions in WHERE (1.6.7 has none).

mod grammar;
mod points;
mod select;
mod shows;

pub use grammar::select;
pub use points::{delete, points};
pub use select::{Kind, Select, Source};
pub use shows::{SHOWS, show};

use tidemill_perf::random::Sequence;

/// Points lie within this many units after the epoch. A unit of one second keeps them in one shard group, one of an
/// hour spreads them over four.
const UNITS: u64 = 600;

/// What a seed decides about its points and statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    pub unit_seconds: u64,
    /// No two points have the same time: the order of rows, and with it what goes from one row to the next, is defined.
    pub has_unique_times: bool,
}

impl World {
    pub fn of(seed: u64) -> Self {
        Self { unit_seconds: if seed.is_multiple_of(2) { 3600 } else { 1 }, has_unique_times: seed % 4 >= 2 }
    }
}

/// One entry of a list.
fn one(random: &mut Sequence, list: &[&'static str]) -> &'static str {
    let index = random.below(list.len() as u64);
    list[index as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_statements() {
        let all = |seed| {
            let mut random = Sequence::new(seed);
            let world = World::of(seed);
            let lines = points(&mut random, 100, world, &mut Vec::new());
            (lines, (0..100).map(|_| select(&mut random, world)).collect::<Vec<_>>())
        };
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(3));
    }

    #[test]
    fn simpler_statements_are_shorter() {
        let mut random = Sequence::new(7);
        let world = World::of(2);
        for _ in 0..200 {
            let select = select(&mut random, world);
            assert!(select.simpler().iter().all(|simpler| simpler.whole().len() < select.whole().len()), "{select:?}");
        }
    }
}
