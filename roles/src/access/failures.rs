//! Logins that failed, so that guessing is slow.

use std::{collections::BTreeMap, net::IpAddr};

/// A user and an address may fail so often within [`WINDOW_S`].
const FAILURES_MAX: u32 = 10;
const WINDOW_S: i64 = 60;
/// Pairs that are remembered; past it the oldest window is forgotten.
const PAIRS_MAX: usize = 4096;
/// Longer names are remembered by their beginning.
const NAME_BYTES_MAX: usize = 64;

/// Failures of a core by user and address.
#[derive(Default)]
pub struct Failures {
    windows: BTreeMap<(String, Option<IpAddr>), Window>,
}

struct Window {
    began_s: i64,
    failures: u32,
}

impl Failures {
    /// Whether this pair must wait before it is looked at again.
    pub fn is_barred(&self, user: &str, peer: Option<IpAddr>, now_s: i64) -> bool {
        let window = self.windows.get(&pair(user, peer));
        window.is_some_and(|window| window.failures >= FAILURES_MAX && now_s < window.began_s + WINDOW_S)
    }

    pub fn failed(&mut self, user: &str, peer: Option<IpAddr>, now_s: i64) {
        let pair = pair(user, peer);
        if !self.windows.contains_key(&pair) && self.windows.len() >= PAIRS_MAX {
            self.forget_oldest(now_s);
        }
        let window = self.windows.entry(pair).or_insert(Window { began_s: now_s, failures: 0 });
        if now_s >= window.began_s + WINDOW_S {
            *window = Window { began_s: now_s, failures: 0 };
        }
        window.failures += 1;
    }

    pub fn succeeded(&mut self, user: &str, peer: Option<IpAddr>) {
        if !self.windows.is_empty() {
            self.windows.remove(&pair(user, peer));
        }
    }

    fn forget_oldest(&mut self, now_s: i64) {
        self.windows.retain(|_, window| now_s < window.began_s + WINDOW_S);
        if self.windows.len() >= PAIRS_MAX {
            let oldest = self.windows.iter().min_by_key(|(_, window)| window.began_s).map(|(pair, _)| pair.clone());
            oldest.map(|pair| self.windows.remove(&pair));
        }
    }
}

fn pair(user: &str, peer: Option<IpAddr>) -> (String, Option<IpAddr>) {
    let end = (0..=user.len().min(NAME_BYTES_MAX)).rev().find(|end| user.is_char_boundary(*end)).unwrap_or(0);
    (user[..end].to_owned(), peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[test]
    fn guessing_is_barred_for_a_while_and_for_this_pair_alone() {
        let mut failures = Failures::default();
        for _ in 0..FAILURES_MAX {
            assert!(!failures.is_barred("u", PEER, 100));
            failures.failed("u", PEER, 100);
        }
        assert!(failures.is_barred("u", PEER, 100) && failures.is_barred("u", PEER, 159));
        assert!(!failures.is_barred("v", PEER, 100) && !failures.is_barred("u", None, 100));
        assert!(!failures.is_barred("u", PEER, 160));
        failures.failed("u", PEER, 160);
        assert!(!failures.is_barred("u", PEER, 160));
    }

    #[test]
    fn a_success_clears_and_the_table_is_bounded() {
        let mut failures = Failures::default();
        (0..FAILURES_MAX - 1).for_each(|_| failures.failed("u", PEER, 0));
        failures.succeeded("u", PEER);
        failures.failed("u", PEER, 0);
        assert!(!failures.is_barred("u", PEER, 0));
        for number in 0..PAIRS_MAX * 2 {
            failures.failed(&format!("user{number}"), PEER, 1);
        }
        assert_eq!(failures.windows.len(), PAIRS_MAX);
        failures.failed(&"ü".repeat(1000), PEER, 1);
        assert_eq!(failures.windows.len(), PAIRS_MAX);
    }
}
