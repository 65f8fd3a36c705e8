//! What a leader tells of the pool: to partitions and to people.

use super::{Counts, Leader};
use crate::{File, FileId, Place, Placed, Pool, Session, Slave, Standing};
use std::collections::BTreeMap;

impl Leader {
    /// How it stands with a file that a partition has placed.
    pub fn placed(&self, pool: &Pool, place: &Place) -> Placed {
        let Some(file) = pool.file(&place.file) else {
            return Placed { durable: Vec::new(), wanted: place.copies, why: None };
        };
        let confirmed = |slave: &u64| self.confirms(*slave, &place.file);
        let durable: Vec<u64> =
            file.durable.iter().copied().filter(|slave| pool.keeps(*slave)).filter(confirmed).collect();
        let mut why = None;
        if pool.kept(file) + file.targets.len() < file.wanted() {
            why = self.shortage(pool, file.wanted(), file.size);
        } else if durable.len() < file.wanted() {
            let failure = |slave: &u64| self.copies.get(&(place.file, *slave))?.why.clone();
            why = file.targets.iter().find_map(failure);
        }
        Placed { durable, wanted: place.copies, why }
    }

    /// Why a file does not get its copies; nothing if that is only a matter of time.
    pub(super) fn shortage(&self, pool: &Pool, wanted: usize, size: u64) -> Option<String> {
        let takes = |(id, slave): &(&u64, &Slave)| {
            slave.standing == Standing::Active && !slave.is_lost && self.sessions.contains_key(id)
        };
        let active: Vec<u64> = pool.slaves().iter().filter(takes).map(|(id, _)| *id).collect();
        let count = active.len();
        if count < wanted {
            let slaves = if count == 1 { "slave that takes" } else { "slaves that take" };
            return Some(format!("the pool has {count} {slaves} files, {wanted} copies were asked for"));
        }
        let with_room = active.iter().filter(|id| self.sessions[id].free_bytes > size).count();
        if with_room < wanted {
            return Some(format!("{with_room} slaves have room for {size} bytes, {wanted} copies were asked for"));
        }
        None
    }

    /// Whether all of a slave's files have copies enough elsewhere.
    pub fn does_without(&self, pool: &Pool, slave: u64) -> bool {
        let others = |file: &File| file.durable.iter().filter(|other| **other != slave && pool.keeps(**other)).count();
        pool.files()
            .values()
            .filter(|file| file.durable.contains(&slave) && !file.owners.is_empty())
            .all(|file| others(file) >= file.wanted())
    }

    pub fn sessions(&self) -> &BTreeMap<u64, Session> {
        &self.sessions
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn is_rebalancing(&self) -> bool {
        self.is_rebalancing
    }

    /// Copies that slaves make now.
    pub fn copying(&self) -> impl Iterator<Item = (&FileId, u64)> {
        self.copies.iter().filter(|(_, copying)| copying.is_running).map(|((file, slave), _)| (file, *slave))
    }

    /// What went wrong with copies that are tried again.
    pub fn failures(&self) -> impl Iterator<Item = (&FileId, u64, &str)> {
        self.copies.iter().filter_map(|((file, slave), copying)| Some((file, *slave, copying.why.as_deref()?)))
    }

    /// Partitions with files that are short of copies for want of something, how many and of what.
    pub fn waiting(&self, pool: &Pool) -> BTreeMap<u32, (usize, String)> {
        let mut waiting: BTreeMap<u32, (usize, String)> = BTreeMap::new();
        for file in pool.short().iter().filter_map(|id| pool.file(id)) {
            if pool.kept(file) + file.targets.len() >= file.wanted() {
                continue;
            }
            let Some(why) = self.shortage(pool, file.wanted(), file.size) else { continue };
            for (partition, _) in &file.owners {
                waiting.entry(*partition).or_insert_with(|| (0, why.clone())).0 += 1;
            }
        }
        waiting
    }

    /// Partitions that have not reported to this leader.
    pub fn unreported(&self) -> u32 {
        self.options.partitions.saturating_sub(self.reported.len() as u32)
    }
}
