//! Time and chance, the two things that a test replaces.
//!
//! Owns: [`Clock`] and [`Seed`]. Invariants: the monotonic clock never steps back; a fixed seed gives the same numbers
//! in the same order. Knows nothing of who asks.

use crate::syscall;
use std::{
    cell::Cell,
    rc::Rc,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual { wall_ns: Rc<Cell<i64>>, monotonic_ns: Rc<Cell<u64>> },
}

/// Wall time and monotonic time of a core.
#[derive(Clone, Debug)]
pub struct Clock(Source);

impl Clock {
    /// The operating system's clocks.
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// A clock that stands still until it is told otherwise.
    pub fn manual(wall_ns: i64) -> Clock {
        Clock(Source::Manual { wall_ns: Rc::new(Cell::new(wall_ns)), monotonic_ns: Rc::default() })
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z. May step, as the operator or NTP sets it.
    pub fn now_ns(&self) -> i64 {
        match &self.0 {
            Source::System => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
                Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
            },
            Source::Manual { wall_ns, .. } => wall_ns.get(),
        }
    }

    /// Nanoseconds since some fixed moment of this process; never steps back.
    pub fn monotonic_ns(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        match &self.0 {
            Source::System => START.get_or_init(Instant::now).elapsed().as_nanos() as u64,
            Source::Manual { monotonic_ns, .. } => monotonic_ns.get(),
        }
    }

    /// Moves a manual clock on, both its times.
    ///
    /// # Panics
    /// If this is the system's clock.
    pub fn advance(&self, by: Duration) {
        let Source::Manual { wall_ns, monotonic_ns } = &self.0 else { panic!("the system's clock moves by itself") };
        wall_ns.set(wall_ns.get().saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)));
        monotonic_ns.set(monotonic_ns.get().saturating_add(by.as_nanos() as u64));
    }
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Seed(Rc<Cell<u64>>);

impl Seed {
    /// Starts from a number of the operating system.
    pub fn from_system() -> std::io::Result<Seed> {
        Ok(Seed::fixed(syscall::random_u64()?))
    }

    /// Gives the same numbers for the same start.
    pub fn fixed(start: u64) -> Seed {
        Seed(Rc::new(Cell::new(start)))
    }

    /// The next number (splitmix64, Steele et al. 2014): for identities and jitter, not for secrets.
    pub fn random_u64(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(1_000);
        let seen_by_another_owner = clock.clone();
        assert_eq!((clock.now_ns(), clock.monotonic_ns()), (1_000, 0));
        clock.advance(Duration::from_nanos(7));
        assert_eq!((seen_by_another_owner.now_ns(), seen_by_another_owner.monotonic_ns()), (1_007, 7));
    }

    #[test]
    fn the_system_clock_is_after_2020_and_does_not_step_back() {
        let clock = Clock::system();
        assert!(clock.now_ns() > 1_577_836_800_000_000_000);
        let first = clock.monotonic_ns();
        assert!(clock.monotonic_ns() >= first);
    }

    #[test]
    fn a_fixed_seed_repeats_and_two_starts_of_the_system_differ() {
        let numbers = |seed: Seed| (0..4).map(|_| seed.random_u64()).collect::<Vec<_>>();
        assert_eq!(numbers(Seed::fixed(42)), numbers(Seed::fixed(42)));
        assert_ne!(numbers(Seed::fixed(42)), numbers(Seed::fixed(43)));
        assert_ne!(numbers(Seed::from_system().unwrap()), numbers(Seed::from_system().unwrap()));
    }
}
