//! Copies that move: out of domains that have two of a file, and from full slaves to empty ones.
//!
//! A move is a copy more at the one slave; when it is there, the other one gives its own up like any that is too many.

use super::{Leader, Steps};
use crate::{Command, File, FileId, Pool, Standing};
use std::collections::BTreeMap;

/// Slaves that differ less than one part of so many of what they hold on the average are left as they are.
const UNEVEN_PART: u64 = 20;
/// Copies that move at once.
const MOVES_MAX: usize = 8;

/// Slaves that take files, as a rebalancing sees them.
struct Loads<'a> {
    pool: &'a Pool,
    /// Of files that they have or are to have.
    bytes: BTreeMap<u64, u64>,
    free_bytes: BTreeMap<u64, u64>,
}

impl Loads<'_> {
    fn domain(&self, slave: u64) -> Option<&str> {
        self.pool.slaves().get(&slave).map(|slave| slave.domain.as_str())
    }

    fn fullest(&self) -> Option<(u64, u64)> {
        self.bytes.iter().map(|(slave, bytes)| (*bytes, *slave)).max()
    }

    fn emptiest(&self) -> Option<(u64, u64)> {
        self.bytes.iter().map(|(slave, bytes)| (*bytes, *slave)).min()
    }

    /// Whether a copy of a file can go from one slave to another.
    fn fits(&self, file: &File, from: u64, to: u64) -> bool {
        let mut others = file.durable.iter().filter(|slave| **slave != from);
        file.durable.contains(&from)
            && !file.durable.contains(&to)
            && self.free_bytes.get(&to).is_some_and(|free| *free > file.size)
            && others.all(|slave| self.domain(*slave) != self.domain(to))
    }

    fn moved(&mut self, from: u64, to: u64, size: u64) {
        self.bytes.entry(from).and_modify(|bytes| *bytes = bytes.saturating_sub(size));
        self.bytes.entry(to).and_modify(|bytes| *bytes += size);
        self.free_bytes.entry(to).and_modify(|bytes| *bytes = bytes.saturating_sub(size));
    }
}

impl Leader {
    /// One step of a rebalancing, if one is under way.
    pub(super) fn move_copies(&mut self, pool: &Pool, steps: &mut Steps) {
        if !self.is_rebalancing || !pool.short().is_empty() {
            return;
        }
        let mut loads = self.loads(pool);
        let mut count = 0;
        for (id, file) in pool.files().iter().filter(|(_, file)| file.targets.is_empty() && !file.owners.is_empty()) {
            if self.moving.len() >= MOVES_MAX {
                break;
            }
            let Some((from, to)) = self.way(&loads, id, file) else { continue };
            count += 1;
            loads.moved(from, to, file.size);
            self.moving.insert(*id, from);
            steps.commands.push(Command::Assign { file: *id, slaves: vec![to] });
        }
        if count == 0 && self.moving.is_empty() {
            self.is_rebalancing = false;
        }
    }

    fn loads<'a>(&self, pool: &'a Pool) -> Loads<'a> {
        let takes =
            |id: &u64| pool.slaves().get(id).is_some_and(|slave| slave.standing == Standing::Active && !slave.is_lost);
        let sessions = || self.sessions.iter().filter(|(id, _)| takes(id));
        let mut bytes: BTreeMap<u64, u64> = sessions().map(|(id, _)| (*id, 0)).collect();
        for file in pool.files().values() {
            for slave in file.durable.iter().chain(&file.targets) {
                bytes.entry(*slave).and_modify(|bytes| *bytes += file.size);
            }
        }
        Loads { pool, bytes, free_bytes: sessions().map(|(id, session)| (*id, session.free_bytes())).collect() }
    }

    /// From where to where a copy of a file is to move.
    fn way(&self, loads: &Loads<'_>, id: &FileId, file: &File) -> Option<(u64, u64)> {
        if self.moving.contains_key(id) {
            return None;
        }
        let is_free = |to: u64| !self.going.contains_key(&(to, *id)) && !self.unneeded.contains(&(to, *id));
        let shares = |slave: &&u64| {
            let mut others = file.durable.iter().filter(|other| other != slave);
            others.any(|other| loads.domain(*other) == loads.domain(**slave))
        };
        if let Some(from) = file.durable.iter().filter(shares).max_by_key(|slave| loads.bytes.get(slave)).copied() {
            let fitting = loads.bytes.iter().filter(|(to, _)| loads.fits(file, from, **to) && is_free(**to));
            if let Some((to, _)) = fitting.min_by_key(|(to, bytes)| (**bytes, **to)) {
                return Some((from, *to));
            }
        }
        let ((most, fullest), (least, emptiest)) = (loads.fullest()?, loads.emptiest()?);
        let average = loads.bytes.values().sum::<u64>() / loads.bytes.len().max(1) as u64;
        let gap = most - least;
        let is_uneven = gap > average / UNEVEN_PART && file.size <= gap / 2;
        (is_uneven && loads.fits(file, fullest, emptiest) && is_free(emptiest)).then_some((fullest, emptiest))
    }
}
