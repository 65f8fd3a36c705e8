//! What the leader of the masters does: who is there, what is to be copied from where to where, what may go.
//!
//! It decides by the state that the masters agreed on and by what it has heard itself; what it decides comes back as
//! commands for the log and orders for slaves, and whoever drives it carries them out and tells what came of them. Time
//! comes in as an argument. A new leader begins with nothing but the log, and goes on from there: a copy that is assigned
//! is ordered again, and a slave that has got it meanwhile says so.
//!
//! Invariants: a file is deleted at a slave only after the log says that the pool does without that copy, and from then
//! until the slave has said that it is gone nothing of it is noted or ordered there; nothing is deleted for want of an
//! owner before every partition has reported to this leader.

mod deletes;
mod moves;
mod view;

use crate::{
    Beat, Beaten, Command, FILES_IN_COMMAND_MAX, File, FileId, Heard, Place, Pool, Report, Session, Source, Standing,
    placing::{Room, choose},
};
use std::collections::{BTreeMap, BTreeSet};

const SECOND_NS: u64 = 1_000_000_000;
/// Copies on their way to one slave at once, and of them those that replace lost ones: what is new finds room always.
const ARRIVALS_MAX: usize = 6;
const REPAIRS_MAX: usize = 4;
/// Repairs that read from one slave at once, where another one has the file, too.
const DEPARTURES_MAX: usize = 6;
/// Between two comparisons of what the log says with what the slaves say.
const COMPARE_EVERY_NS: u64 = SECOND_NS;
/// While nothing was heard and nothing is to be done.
const COMPARE_IDLE_NS: u64 = 10 * SECOND_NS;
/// A file that a slave was to have and does not name may be named by its next beats.
const MISSING_NS: u64 = 5 * SECOND_NS;
/// A slave where a file has failed so often is not the place for it now.
const TRIES_MAX: u32 = 5;
const AVOID_NS: u64 = 60 * SECOND_NS;
const RETRY_NS_MIN: u64 = SECOND_NS / 2;
const RETRY_NS_MAX: u64 = 30 * SECOND_NS;
/// Nobody knows whether the slave has deleted what it was told to.
const UNKNOWN_NS: u64 = 60 * SECOND_NS;
/// Files of one order to delete.
const DELETES_MAX: usize = 1024;
/// Whoever drives this has slept: that a slave said nothing meanwhile is no fault of the slave.
const STALL_NS: u64 = 2 * SECOND_NS;

/// What may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderOptions {
    /// A slave that says nothing for so long is lost.
    pub slave_timeout_ns: u64,
    /// What nobody owns is kept so long.
    pub delete_after_ns: u64,
    /// Copies beyond those that are wanted are kept so long.
    pub excess_after_ns: u64,
    /// Bytes a second of copies that replace lost ones; zero: as fast as it goes.
    pub copy_rate_max: u64,
    /// Partitions that there are.
    pub partitions: u32,
}

/// What is to be done now.
#[derive(Debug, Default)]
pub struct Steps {
    /// In this order, and before the next look.
    pub commands: Vec<Command>,
    /// Each on its own: how it ended is told to [`Leader::fetched`].
    pub fetches: Vec<FetchOrder>,
    /// To [`Leader::deleted`].
    pub deletes: Vec<(u64, Vec<FileId>)>,
    pub scrubs: Vec<u64>,
}

/// A slave is to get a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOrder {
    pub slave: u64,
    pub file: FileId,
    pub size: u64,
    pub sources: Vec<Source>,
}

/// What has been done since this leader began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub placed_files: u64,
    pub placed_bytes: u64,
    pub repaired_files: u64,
    pub repaired_bytes: u64,
    pub fetches_failed: u64,
    pub deleted_files: u64,
    pub slaves_lost: u64,
    pub slaves_regained: u64,
}

/// A copy that was ordered.
#[derive(Debug, Default)]
struct Copying {
    is_running: bool,
    is_repair: bool,
    sources: Vec<u64>,
    tries: u32,
    next_try_ns: u64,
    why: Option<String>,
}

/// In the order in which files are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Danger {
    /// It was not complete before.
    is_new: bool,
    /// Perhaps nobody has it: whoever can be saved goes first.
    is_nowhere: bool,
    copies: usize,
}

impl Danger {
    fn of(pool: &Pool, file: &File) -> Danger {
        let copies = pool.present(file).count();
        Danger { is_new: !file.was_complete, is_nowhere: copies == 0, copies }
    }
}

/// The memory of a leader.
#[derive(Debug)]
pub struct Leader {
    options: LeaderOptions,
    /// From when on a silence counts.
    awake_ns: u64,
    looked_ns: u64,
    sessions: BTreeMap<u64, Session>,
    copies: BTreeMap<(FileId, u64), Copying>,
    /// The slave is no place for the file until then.
    avoided: BTreeMap<(FileId, u64), u64>,
    /// Deletes that were ordered, or whose end is not known: nothing of the file happens at the slave until then.
    going: BTreeMap<(u64, FileId), u64>,
    deleting: BTreeSet<u64>,
    /// What the log does without, and slaves still have.
    unneeded: BTreeSet<(u64, FileId)>,
    forgotten: BTreeSet<FileId>,
    missing: BTreeMap<(u64, FileId), u64>,
    stray: BTreeMap<(u64, FileId), u64>,
    garbage: BTreeMap<FileId, u64>,
    excess: BTreeMap<FileId, u64>,
    arrived: BTreeMap<u64, BTreeMap<FileId, u64>>,
    reported: BTreeMap<u32, Heard>,
    compared_ns: u64,
    /// Something came or went since the last comparison.
    has_news: bool,
    /// Bytes that repairs may read now; ns when that was counted.
    allowance: i128,
    allowance_ns: u64,
    is_rebalancing: bool,
    /// Copies that are to leave this slave.
    moving: BTreeMap<FileId, u64>,
    scrubs: BTreeSet<u64>,
    counts: Counts,
}

impl Leader {
    pub fn new(options: LeaderOptions, now_ns: u64) -> Leader {
        Leader {
            options,
            awake_ns: now_ns,
            looked_ns: now_ns,
            sessions: BTreeMap::new(),
            copies: BTreeMap::new(),
            avoided: BTreeMap::new(),
            going: BTreeMap::new(),
            deleting: BTreeSet::new(),
            unneeded: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            missing: BTreeMap::new(),
            stray: BTreeMap::new(),
            garbage: BTreeMap::new(),
            excess: BTreeMap::new(),
            arrived: BTreeMap::new(),
            reported: BTreeMap::new(),
            compared_ns: now_ns,
            has_news: true,
            allowance: 0,
            allowance_ns: now_ns,
            is_rebalancing: false,
            moving: BTreeMap::new(),
            scrubs: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// A slave is there. `epoch` is this leader's term.
    pub fn heard(&mut self, beat: &Beat, epoch: u64, now_ns: u64) -> Beaten {
        self.has_news |= beat.restarts || !beat.added.is_empty() || !beat.removed.is_empty();
        let wants_all = self.sessions.entry(beat.slave).or_default().hear(beat, now_ns);
        Beaten { wants_all, epoch }
    }

    /// The command that a request to place a file wants in the log; none if the log says the same already.
    pub fn place(&self, pool: &Pool, place: &Place) -> Option<Command> {
        let is_known = pool.file(&place.file).is_some_and(|file| {
            file.owners.contains(&(place.partition, place.copies))
                && file.size == place.size
                && file.sources == place.sources
        });
        let is_heard = pool.partitions().get(&place.partition).is_some_and(|heard| heard.term == place.term);
        (!is_known || !is_heard).then(|| Command::Place(place.clone()))
    }

    /// The commands that make the log say what a partition has reported.
    pub fn report(&mut self, pool: &Pool, report: &Report) -> Result<Vec<Command>, u64> {
        let heard = Heard { term: report.term, index: report.index };
        let known = pool.partitions().get(&report.partition).copied().unwrap_or_default();
        let before = self.reported.get(&report.partition).copied().unwrap_or_default();
        let newest = known.term.max(before.term);
        if heard.term < newest {
            return Err(newest);
        }
        if heard.index < known.index.max(before.index) {
            return Ok(Vec::new());
        }
        self.reported.insert(report.partition, heard);
        let named: BTreeMap<FileId, u8> = report.files.iter().copied().collect();
        let owns = |id: &FileId, copies: u8| {
            pool.file(id).is_some_and(|file| file.owners.contains(&(report.partition, copies)))
        };
        let added: Vec<(FileId, u8)> = named
            .iter()
            .filter(|(id, copies)| !owns(id, (**copies).max(1)))
            .map(|(id, copies)| (*id, *copies))
            .collect();
        let is_owner = |file: &File| file.owners.iter().any(|(owner, _)| *owner == report.partition);
        let given_up: Vec<FileId> = pool
            .files()
            .iter()
            .filter(|(id, file)| is_owner(file) && !named.contains_key(*id))
            .map(|(id, _)| *id)
            .collect();
        if added.is_empty() && given_up.is_empty() && known.term == heard.term {
            return Ok(Vec::new());
        }
        let parts = added.len().max(given_up.len()).div_ceil(FILES_IN_COMMAND_MAX).max(1);
        fn part<T: Clone>(of: &[T], at: usize) -> Vec<T> {
            of.iter().skip(at * FILES_IN_COMMAND_MAX).take(FILES_IN_COMMAND_MAX).cloned().collect()
        }
        Ok((0..parts)
            .map(|at| Command::Own {
                partition: report.partition,
                term: report.term,
                index: report.index,
                added: part(&added, at),
                given_up: part(&given_up, at),
            })
            .collect())
    }

    /// A slave has a file, or why it has not.
    pub fn fetched(&mut self, slave: u64, file: FileId, size: u64, outcome: Result<(), String>, now_ns: u64) {
        let Some(copying) = self.copies.get_mut(&(file, slave)) else { return };
        copying.is_running = false;
        copying.sources.clear();
        match outcome {
            Ok(()) => {
                let (files, bytes) = match copying.is_repair {
                    true => (&mut self.counts.repaired_files, &mut self.counts.repaired_bytes),
                    false => (&mut self.counts.placed_files, &mut self.counts.placed_bytes),
                };
                *files += 1;
                *bytes += size;
                self.copies.remove(&(file, slave));
                self.arrived.entry(slave).or_default().insert(file, size);
            }
            Err(why) => {
                self.counts.fetches_failed += 1;
                copying.tries += 1;
                let pause = RETRY_NS_MIN.saturating_mul(1 << copying.tries.min(16)).min(RETRY_NS_MAX);
                copying.next_try_ns = now_ns + pause;
                copying.why = Some(format!("node {slave}: {why}"));
            }
        }
    }

    /// A slave has deleted files, or nobody knows.
    pub fn deleted(&mut self, slave: u64, files: &[FileId], is_known: bool, now_ns: u64) {
        self.deleting.remove(&slave);
        if is_known {
            self.counts.deleted_files += files.len() as u64;
        }
        // Its beats may still be on the way that name them.
        let until = now_ns + if is_known { self.options.slave_timeout_ns } else { UNKNOWN_NS };
        for file in files {
            self.going.insert((slave, *file), until);
        }
    }

    /// Copies are to move from full slaves to empty ones.
    pub fn rebalance(&mut self) {
        self.is_rebalancing = true;
        self.has_news = true;
    }

    /// Slaves are to read their files again.
    pub fn scrub(&mut self, pool: &Pool, slave: Option<u64>) {
        let chosen = pool.slaves().keys().filter(|id| slave.is_none_or(|slave| slave == **id));
        self.scrubs.extend(chosen);
    }

    fn confirms(&self, slave: u64, file: &FileId) -> bool {
        let is_going = self.going.contains_key(&(slave, *file));
        let is_fresh = |session: &Session| {
            self.looked_ns.saturating_sub(session.heard_ns) < self.options.slave_timeout_ns && session.is_complete()
        };
        !is_going && self.sessions.get(&slave).is_some_and(|session| is_fresh(session) && session.has(file))
    }

    /// What is to be done now. To be called again and again, when the commands of the call before have been applied or
    /// have failed.
    pub fn look(&mut self, pool: &Pool, now_ns: u64) -> Steps {
        if now_ns.saturating_sub(self.looked_ns) > STALL_NS {
            self.awake_ns = now_ns;
        }
        self.looked_ns = now_ns;
        self.going.retain(|_, until| *until > now_ns);
        self.avoided.retain(|_, until| *until > now_ns);
        let mut steps = Steps::default();
        self.note_presence(pool, now_ns, &mut steps);
        let mut arrived: BTreeSet<(u64, FileId)> = BTreeSet::new();
        for (slave, files) in std::mem::take(&mut self.arrived) {
            let going = |file: &FileId| self.going.contains_key(&(slave, *file));
            let files: Vec<(FileId, u64)> = files.into_iter().filter(|(file, _)| !going(file)).collect();
            if !files.is_empty() {
                arrived.extend(files.iter().map(|(file, _)| (slave, *file)));
                steps.commands.push(Command::Hold { slave, files });
            }
        }
        let is_open = !self.missing.is_empty() || !self.stray.is_empty() || !self.going.is_empty();
        let has_open_ends = self.has_news || is_open;
        let every_ns = if has_open_ends { COMPARE_EVERY_NS } else { COMPARE_IDLE_NS };
        let compares = now_ns - self.compared_ns >= every_ns;
        if compares {
            self.compared_ns = now_ns;
            self.has_news = false;
            self.compare(pool, now_ns, &mut steps);
        }
        self.let_go(pool, now_ns, &mut steps);
        self.withdraw(pool, now_ns, &mut steps);
        if compares {
            self.move_copies(pool, &mut steps);
        }
        self.assign(pool, &mut steps);
        self.order_fetches(pool, &arrived, now_ns, &mut steps);
        self.order_deletes(pool, &mut steps);
        let scrubs = std::mem::take(&mut self.scrubs);
        self.has_news |= !steps.commands.is_empty() || self.is_rebalancing;
        steps.scrubs.extend(scrubs.into_iter().filter(|slave| pool.is_present(*slave)));
        steps
    }

    fn note_presence(&mut self, pool: &Pool, now_ns: u64, steps: &mut Steps) {
        for (id, slave) in pool.slaves() {
            let session = self.sessions.get(id);
            let heard_ns = session.map_or(0, |session| session.heard_ns).max(self.awake_ns);
            let is_silent = now_ns.saturating_sub(heard_ns) >= self.options.slave_timeout_ns;
            if is_silent && !slave.is_lost {
                self.counts.slaves_lost += 1;
                steps.commands.push(Command::Lose { slave: *id });
            }
            let is_back = session.is_some_and(|session| {
                session.is_complete() && now_ns.saturating_sub(session.heard_ns) < self.options.slave_timeout_ns
            });
            if slave.is_lost && is_back {
                self.counts.slaves_regained += 1;
                // First what it does not have: no copy counts that is not there.
                let session = &self.sessions[id];
                let missing =
                    pool.files().iter().filter(|(file, known)| known.durable.contains(id) && !session.has(file));
                let missing: Vec<FileId> = missing.map(|(file, _)| *file).collect();
                for files in missing.chunks(FILES_IN_COMMAND_MAX) {
                    steps.commands.push(Command::Miss { slave: *id, files: files.to_vec() });
                }
                steps.commands.push(Command::Regain { slave: *id });
            }
        }
        self.sessions.retain(|id, session| {
            pool.slaves().contains_key(id) || now_ns.saturating_sub(session.heard_ns) < self.options.slave_timeout_ns
        });
    }

    /// What the log says beside what the slaves say.
    fn compare(&mut self, pool: &Pool, now_ns: u64, steps: &mut Steps) {
        let (missing_before, stray_before) = (std::mem::take(&mut self.missing), std::mem::take(&mut self.stray));
        let has_all_reports = self.reported.len() as u64 >= u64::from(self.options.partitions);
        let mut gone: BTreeMap<u64, Vec<FileId>> = BTreeMap::new();
        for (file, known) in pool.files() {
            for id in known.durable.iter().filter(|id| pool.is_present(**id)) {
                if self.sessions.get(id).is_none_or(|session| !session.is_complete() || session.has(file)) {
                    continue;
                }
                let since = missing_before.get(&(*id, *file)).copied().unwrap_or(now_ns);
                if now_ns - since >= MISSING_NS {
                    gone.entry(*id).or_default().push(*file);
                } else {
                    self.missing.insert((*id, *file), since);
                }
            }
        }
        for (slave, files) in gone {
            for files in files.chunks(FILES_IN_COMMAND_MAX) {
                steps.commands.push(Command::Miss { slave, files: files.to_vec() });
            }
        }
        for (id, session) in self.sessions.iter().filter(|(id, session)| session.is_complete() && pool.is_present(**id))
        {
            let mut found = Vec::new();
            for (file, size) in session.files().iter().filter(|(file, _)| !self.going.contains_key(&(*id, **file))) {
                let known = pool.file(file);
                if known.is_some_and(|known| known.durable.contains(id)) {
                    continue;
                }
                let is_wanted = known.is_some_and(|known| known.targets.contains(id)) || pool.short().contains(file);
                if is_wanted {
                    // Also what another leader had ordered, and what a slave brings back.
                    found.push((*file, *size));
                    continue;
                }
                let since = stray_before.get(&(*id, *file)).copied().unwrap_or(now_ns);
                let after_ns = match known {
                    Some(known) if !known.owners.is_empty() => self.options.excess_after_ns,
                    _ => self.options.delete_after_ns,
                };
                if now_ns - since >= after_ns && (known.is_some() || has_all_reports) {
                    self.unneeded.insert((*id, *file));
                } else {
                    self.stray.insert((*id, *file), since);
                }
            }
            for files in found.chunks(FILES_IN_COMMAND_MAX) {
                steps.commands.push(Command::Hold { slave: *id, files: files.to_vec() });
            }
        }
    }

    /// Copies that are not needed any more, and those that a slave does not get done.
    fn withdraw(&mut self, pool: &Pool, now_ns: u64, steps: &mut Steps) {
        self.moving.retain(|file, _| pool.under_way().contains(file) || pool.excess().contains(file));
        for id in pool.under_way() {
            let Some(file) = pool.file(id) else { continue };
            let is_needed = pool.short().contains(id) || self.moving.contains_key(id);
            for slave in &file.targets {
                let is_stuck = self.copies.get(&(*id, *slave)).is_some_and(|copying| copying.tries >= TRIES_MAX);
                if is_stuck {
                    self.avoided.insert((*id, *slave), now_ns + AVOID_NS);
                }
                if is_stuck || !is_needed {
                    steps.commands.push(Command::Unassign { file: *id, slave: *slave });
                }
            }
        }
        let is_target = |file: &FileId, slave: u64| pool.file(file).is_some_and(|file| file.targets.contains(&slave));
        self.copies.retain(|(file, slave), copying| copying.is_running || is_target(file, *slave));
    }

    /// Copies on their way to each slave: all, and of them those that replace lost ones.
    fn arrivals(&self, pool: &Pool) -> BTreeMap<u64, (usize, usize, u64)> {
        let mut arrivals: BTreeMap<u64, (usize, usize, u64)> = BTreeMap::new();
        for id in pool.under_way() {
            let Some(file) = pool.file(id) else { continue };
            for slave in &file.targets {
                let (all, repairs, bytes) = arrivals.entry(*slave).or_default();
                *all += 1;
                *repairs += usize::from(file.was_complete);
                *bytes += file.size;
            }
        }
        arrivals
    }

    /// Whether a slave says that it has a file which the log does not know to be there: it will.
    fn is_brought_back(&self, file: &File, id: &FileId) -> bool {
        self.sessions.iter().any(|(slave, session)| {
            let is_known = file.durable.contains(slave) || self.going.contains_key(&(*slave, *id));
            !is_known && session.is_complete() && session.files().get(id) == Some(&file.size)
        })
    }

    /// Chooses where copies go that are missing: what is most in danger first.
    fn assign(&mut self, pool: &Pool, steps: &mut Steps) {
        let arrivals = self.arrivals(pool);
        let mut rooms: BTreeMap<u64, Room> = BTreeMap::new();
        for (id, slave) in pool.slaves() {
            let Some(session) = self.sessions.get(id) else { continue };
            if slave.is_lost || slave.standing != Standing::Active || !session.is_complete() {
                continue;
            }
            let (all, repairs, bytes) = arrivals.get(id).copied().unwrap_or_default();
            rooms.insert(
                *id,
                Room {
                    domain: slave.domain.clone(),
                    held_bytes: session.held_bytes().saturating_add(bytes),
                    free_bytes: session.free_bytes.saturating_sub(bytes),
                    arrivals: ARRIVALS_MAX.saturating_sub(all),
                    repairs: REPAIRS_MAX.saturating_sub(repairs),
                },
            );
        }
        if rooms.values().all(|room| room.arrivals == 0) {
            return;
        }
        let mut wanting: Vec<(Danger, &FileId)> = Vec::new();
        for id in pool.short() {
            let Some(file) = pool.file(id) else { continue };
            let has_source = pool.present(file).next().is_some() || !file.sources.is_empty();
            if has_source && pool.kept(file) + file.targets.len() < file.wanted() && !self.is_brought_back(file, id) {
                wanting.push((Danger::of(pool, file), id));
            }
        }
        wanting.sort_unstable();
        for (Danger { is_new, .. }, id) in wanting {
            let Some(file) = pool.file(id) else { continue };
            let held: Vec<u64> = file.durable.iter().chain(&file.targets).copied().collect();
            let domains: BTreeSet<&str> = held
                .iter()
                .filter(|slave| pool.keeps(**slave) || file.targets.contains(slave))
                .filter_map(|slave| Some(pool.slaves().get(slave)?.domain.as_str()))
                .collect();
            let is_barred = |slave: u64| {
                held.contains(&slave)
                    || self.going.contains_key(&(slave, *id))
                    || self.unneeded.contains(&(slave, *id))
                    || self.avoided.contains_key(&(*id, slave))
            };
            let count = file.wanted() - pool.kept(file) - file.targets.len();
            let slaves = choose(&mut rooms, domains, file.size, !is_new, count, is_barred);
            if !slaves.is_empty() {
                steps.commands.push(Command::Assign { file: *id, slaves });
            }
        }
    }

    /// Has slaves fetch what they are to have.
    fn order_fetches(&mut self, pool: &Pool, arrived: &BTreeSet<(u64, FileId)>, now_ns: u64, steps: &mut Steps) {
        if self.options.copy_rate_max > 0 {
            let passed = u128::from(now_ns.saturating_sub(self.allowance_ns));
            let earned = passed * u128::from(self.options.copy_rate_max) / u128::from(SECOND_NS);
            // What was not used for long is not made up for.
            self.allowance = (self.allowance + earned as i128).min(i128::from(self.options.copy_rate_max));
            if earned > 0 {
                self.allowance_ns = now_ns;
            }
        }
        let mut departures: BTreeMap<u64, usize> = BTreeMap::new();
        for slave in self.copies.values().filter(|copying| copying.is_running).flat_map(|copying| &copying.sources) {
            *departures.entry(*slave).or_default() += 1;
        }
        let under_way = pool.under_way().iter().filter_map(|id| Some((Danger::of(pool, pool.file(id)?), *id)));
        let mut due: Vec<(Danger, FileId)> = under_way.collect();
        due.sort_unstable();
        for (Danger { is_new, .. }, id) in due {
            let Some(file) = pool.file(&id) else { continue };
            for slave in file.targets.iter().copied() {
                let before = self.copies.get(&(id, slave));
                let waits = before.is_some_and(|copying| copying.is_running || copying.next_try_ns > now_ns);
                if waits
                    || arrived.contains(&(slave, id))
                    || self.going.contains_key(&(slave, id))
                    || !pool.is_present(slave)
                {
                    continue;
                }
                let limits = self.options.copy_rate_max > 0 && !is_new;
                if limits && self.allowance < 0 {
                    continue;
                }
                let mut holders: Vec<u64> =
                    pool.present(file).filter(|holder| *holder != slave && self.confirms(*holder, &id)).collect();
                holders.sort_by_key(|holder| departures.get(holder).copied().unwrap_or(0));
                let is_free = |holder: &u64| departures.get(holder).copied().unwrap_or(0) < DEPARTURES_MAX;
                if !is_new && !holders.is_empty() && !holders.iter().any(is_free) {
                    continue;
                }
                let mut sources: Vec<Source> = holders.iter().map(|holder| Source::Slave(*holder)).collect();
                if is_new || holders.is_empty() {
                    sources.extend(file.sources.iter().cloned());
                }
                if sources.is_empty() {
                    continue;
                }
                if limits {
                    self.allowance -= i128::from(file.size);
                }
                holders.iter().for_each(|holder| *departures.entry(*holder).or_default() += 1);
                let copying = self.copies.entry((id, slave)).or_default();
                copying.is_running = true;
                copying.is_repair = !is_new;
                copying.sources = holders;
                steps.fetches.push(FetchOrder { slave, file: id, size: file.size, sources });
            }
        }
    }
}
