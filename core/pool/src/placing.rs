//! Where a copy goes.

use std::collections::{BTreeMap, BTreeSet};

/// What a slave has left.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub domain: String,
    /// Of the pool's files, those on their way included.
    pub held_bytes: u64,
    pub free_bytes: u64,
    /// Copies that may still be sent there, and of them those that replace lost ones.
    pub arrivals: usize,
    pub repairs: usize,
}

impl Room {
    /// How much of what the pool may have there it has. Slaves that share a disk are told apart by it, and so are those of
    /// different sizes.
    fn fullness(&self) -> u128 {
        (u128::from(self.held_bytes) << 32) / (u128::from(self.held_bytes) + u128::from(self.free_bytes)).max(1)
    }
}

/// Slaves for `count` copies of a file, and takes their room: in domains that have none of it while there are any, there
/// the least full.
pub(crate) fn choose(
    rooms: &mut BTreeMap<u64, Room>,
    domains: BTreeSet<&str>,
    size: u64,
    is_repair: bool,
    count: usize,
    is_barred: impl Fn(u64) -> bool,
) -> Vec<u64> {
    let mut used: BTreeSet<String> = domains.into_iter().map(str::to_owned).collect();
    let mut chosen = Vec::new();
    for _ in 0..count {
        let fits = |id: u64, room: &Room| !is_barred(id) && !chosen.contains(&id) && room.free_bytes > size;
        let is_open = |room: &Room| room.arrivals > 0 && (!is_repair || room.repairs > 0);
        // One that is only busy now is waited for, before two copies share a domain.
        let has_other_domain = rooms.iter().any(|(id, room)| fits(*id, room) && !used.contains(&room.domain));
        let best = rooms
            .iter()
            .filter(|(id, room)| fits(**id, room) && is_open(room))
            .filter(|(_, room)| !has_other_domain || !used.contains(&room.domain))
            .min_by_key(|(id, room)| (room.fullness(), u64::MAX - room.free_bytes, **id))
            .map(|(id, _)| *id);
        let Some(best) = best else { break };
        if let Some(room) = rooms.get_mut(&best) {
            room.free_bytes = room.free_bytes.saturating_sub(size);
            room.held_bytes = room.held_bytes.saturating_add(size);
            room.arrivals -= 1;
            room.repairs = room.repairs.saturating_sub(usize::from(is_repair));
            used.insert(room.domain.clone());
        }
        chosen.push(best);
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(domain: &str, free_bytes: u64) -> Room {
        Room {
            domain: domain.to_owned(),
            held_bytes: 100u64.saturating_sub(free_bytes),
            free_bytes,
            arrivals: 2,
            repairs: 1,
        }
    }

    #[test]
    fn copies_are_in_different_domains_while_there_are_some() {
        let rooms = BTreeMap::from([(1, room("a", 90)), (2, room("a", 80)), (3, room("b", 50)), (4, room("b", 5))]);
        let with = |domains: &[&str], size, count| {
            choose(&mut rooms.clone(), domains.iter().copied().collect(), size, false, count, |_| false)
        };
        assert_eq!(with(&[], 10, 2), [1, 3], "not the two that have most room");
        assert_eq!(with(&[], 10, 3), [1, 2, 3], "better there than nowhere");
        assert_eq!(with(&["a"], 10, 1), [3]);
        assert_eq!(with(&["b"], 10, 1), [1]);
        assert_eq!(with(&[], 60, 3), [1, 2]);
        assert!(with(&[], 90, 1).is_empty(), "a disk is never filled to the last byte");
    }

    #[test]
    fn slaves_that_share_a_disk_are_filled_alike() {
        let shared = |held_bytes, free_bytes| Room { held_bytes, ..room("", free_bytes) };
        let mut rooms = BTreeMap::from([(1, shared(70, 1000)), (2, shared(10, 999)), (3, shared(20, 1001))]);
        let domains = |rooms: &mut BTreeMap<u64, Room>| {
            rooms.values_mut().for_each(|room| room.arrivals = 9);
            choose(rooms, BTreeSet::from([""]), 15, false, 1, |_| false)
        };
        assert_eq!((domains(&mut rooms), domains(&mut rooms), domains(&mut rooms)), (vec![2], vec![3], vec![2]));
    }

    #[test]
    fn a_slave_that_is_busy_is_waited_for() {
        let mut rooms = BTreeMap::from([(1, room("a", 90)), (2, room("a", 80)), (3, room("b", 50))]);
        assert_eq!(choose(&mut rooms, BTreeSet::new(), 1, true, 2, |_| false), [1, 3]);
        assert_eq!(choose(&mut rooms, BTreeSet::from(["a"]), 1, true, 1, |_| false), [0; 0]);
        assert_eq!(choose(&mut rooms, BTreeSet::from(["a"]), 1, false, 1, |_| false), [3]);
    }
}
