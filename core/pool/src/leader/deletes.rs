//! What may go, and how it goes.
//!
//! First the log does without a copy, then the slave is told to delete it: whoever leads in between finds a file at a
//! slave that the log does not know there, and decides anew.

use super::{DELETES_MAX, Leader, Steps};
use crate::{Command, FILES_IN_COMMAND_MAX, FileId, Pool};
use std::collections::{BTreeMap, BTreeSet};

impl Leader {
    /// Garbage, and copies beyond those that are wanted.
    pub(super) fn let_go(&mut self, pool: &Pool, now_ns: u64, steps: &mut Steps) {
        self.garbage.retain(|file, _| pool.garbage().contains(file));
        let has_all_reports = self.reported.len() as u64 >= u64::from(self.options.partitions);
        let mut forgotten = Vec::new();
        for file in pool.garbage() {
            let since = *self.garbage.entry(*file).or_insert(now_ns);
            let is_due = now_ns - since >= self.options.delete_after_ns && has_all_reports;
            if is_due && forgotten.len() < FILES_IN_COMMAND_MAX {
                forgotten.push(*file);
            }
        }
        if !forgotten.is_empty() {
            self.forgotten.extend(&forgotten);
            steps.commands.push(Command::Forget { files: forgotten });
        }
        self.excess.retain(|file, _| pool.excess().contains(file));
        let mut given_up: BTreeMap<u64, Vec<FileId>> = BTreeMap::new();
        for id in pool.excess() {
            let since = *self.excess.entry(*id).or_insert(now_ns);
            let Some(file) = pool.file(id) else { continue };
            let mover = self.moving.get(id).copied().filter(|slave| file.durable.contains(slave));
            if now_ns - since < self.options.excess_after_ns && mover.is_none() {
                continue;
            }
            let least = file.durable.iter().filter(|slave| pool.is_present(**slave)).max_by_key(|slave| {
                let domain = pool.slaves().get(slave).map(|slave| &slave.domain);
                let is_like =
                    |other: &&u64| *other != *slave && pool.slaves().get(other).map(|other| &other.domain) == domain;
                let shares = file.durable.iter().filter(is_like).count();
                (!pool.keeps(**slave), shares, self.fullness(pool, **slave), **slave)
            });
            let Some(least) = mover.as_ref().or(least) else { continue };
            let left = file
                .durable
                .iter()
                .filter(|slave| **slave != *least && pool.keeps(**slave) && self.confirms(**slave, id));
            if left.count() >= file.wanted() {
                self.moving.remove(id);
                given_up.entry(*least).or_default().push(*id);
            }
        }
        for (slave, files) in given_up {
            for files in files.chunks(FILES_IN_COMMAND_MAX) {
                steps.commands.push(Command::GiveUp { slave, files: files.to_vec() });
            }
            self.unneeded.extend(files.into_iter().map(|file| (slave, file)));
        }
    }

    /// How full a slave is, in thousandths.
    pub(super) fn fullness(&self, pool: &Pool, slave: u64) -> u64 {
        let Some(session) = self.sessions.get(&slave).filter(|_| pool.is_present(slave)) else { return 0 };
        let used = u128::from(session.capacity_bytes.saturating_sub(session.free_bytes));
        (used * 1000 / u128::from(session.capacity_bytes.max(1))) as u64
    }

    /// Has slaves delete what the log does without.
    pub(super) fn order_deletes(&mut self, pool: &Pool, steps: &mut Steps) {
        // The commands of the last look have been applied or have failed: what the log still has stays.
        let is_known = |file: &FileId| pool.file(file).is_some();
        for (slave, session) in &self.sessions {
            let forgotten = self.forgotten.iter().filter(|file| session.has(file) && !is_known(file));
            self.unneeded.extend(forgotten.map(|file| (*slave, *file)));
        }
        self.forgotten.retain(is_known);
        let mut orders: BTreeMap<u64, Vec<FileId>> = BTreeMap::new();
        let proposed: BTreeSet<(u64, FileId)> = steps
            .commands
            .iter()
            .filter_map(|command| match command {
                Command::GiveUp { slave, files } => Some(files.iter().map(|file| (*slave, *file)).collect::<Vec<_>>()),
                _ => None,
            })
            .flatten()
            .collect();
        let sessions = &self.sessions;
        self.unneeded.retain(|(slave, file)| sessions.get(slave).is_some_and(|session| session.has(file)));
        let fetched: BTreeSet<(FileId, u64)> =
            self.copies.iter().filter(|(_, copying)| copying.is_running).map(|(key, _)| *key).collect();
        for (slave, file) in self.unneeded.iter().filter(|key| !proposed.contains(key)) {
            let is_needed = pool.file(file).is_some_and(|known| {
                known.durable.contains(slave) || known.targets.contains(slave) || pool.short().contains(file)
            });
            let is_busy =
                self.deleting.contains(slave) || !pool.is_present(*slave) || fetched.contains(&(*file, *slave));
            let order = orders.entry(*slave).or_default();
            if !is_needed && !is_busy && order.len() < DELETES_MAX && !self.going.contains_key(&(*slave, *file)) {
                order.push(*file);
            }
        }
        for (slave, files) in orders.into_iter().filter(|(_, files)| !files.is_empty()) {
            self.deleting.insert(slave);
            for file in &files {
                self.going.insert((slave, *file), u64::MAX);
                self.unneeded.remove(&(slave, *file));
            }
            steps.deletes.push((slave, files));
        }
        // What turned out to be needed is compared again.
        self.unneeded.retain(|key| {
            let known = pool.file(&key.1);
            proposed.contains(key) || known.is_none_or(|known| !known.durable.contains(&key.0))
        });
    }
}
