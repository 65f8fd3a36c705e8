//! The pool in a world of slaves that fail, come back, lose files and answers, with leaders that come and go.
//!
//! The model knows what really lies on each disk and what each partition really owns, which no leader does. Looked at after
//! every event: no delete makes an owned file have fewer copies on disks than are wanted; whoever is told of a durable
//! copy finds it; the log alone makes the state. At the end, when the faults have stopped: everything owned has its copies,
//! and nothing else is left.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tidemill_pool::{
    Beat, Command, FetchOrder, FileId, FilesDigest, Leader, LeaderOptions, Place, Pool, Report, Source, Standing,
};

const MS: u64 = 1_000_000;
const PARTITIONS: u32 = 3;
const OPTIONS: LeaderOptions = LeaderOptions {
    slave_timeout_ns: 10_000 * MS,
    delete_after_ns: 20_000 * MS,
    excess_after_ns: 8_000 * MS,
    copy_rate_max: 0,
    partitions: PARTITIONS,
};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// A slave as it really is.
#[derive(Default)]
struct Disk {
    files: BTreeSet<FileId>,
    is_up: bool,
    incarnation: u64,
    sequence: u64,
    told: BTreeSet<FileId>,
    restarts: bool,
    epoch: u64,
    /// A beat that was not answered.
    pending: Option<Beat>,
}

struct World {
    random: Random,
    now_ns: u64,
    term: u64,
    log: Vec<Command>,
    pool: Pool,
    leader: Leader,
    disks: BTreeMap<u64, Disk>,
    /// Who really owns what, with the copies that are wanted; handed over: the partition has let its own copy go.
    owned: BTreeMap<(u32, FileId), (u8, bool)>,
    local: BTreeSet<FileId>,
    fetches: Vec<(u64, FetchOrder)>,
    deletes: Vec<(u64, u64, Vec<FileId>)>,
    next_file: u64,
    harmed: BTreeSet<FileId>,
    deleted: u64,
}

fn file(number: u64) -> FileId {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(at as u32 * 2) >> 8) as u8;
    }
    FileId(bytes)
}

impl World {
    fn new(seed: u64, slaves: u64) -> World {
        let mut world = World {
            random: Random(seed | 1),
            now_ns: 1_000 * MS,
            term: 1,
            log: Vec::new(),
            pool: Pool::default(),
            leader: Leader::new(OPTIONS, 1_000 * MS),
            disks: BTreeMap::new(),
            owned: BTreeMap::new(),
            local: BTreeSet::new(),
            fetches: Vec::new(),
            deletes: Vec::new(),
            next_file: 1,
            harmed: BTreeSet::new(),
            deleted: 0,
        };
        for slave in 1..=slaves {
            world.apply(Command::Admit { slave, domain: format!("rack {}", slave % 3) });
            world.disks.insert(slave, Disk { is_up: true, incarnation: slave, restarts: true, ..Disk::default() });
        }
        world
    }

    fn apply(&mut self, command: Command) {
        let command = Command::decode(&command.encode()).unwrap();
        self.log.push(command.clone());
        self.pool.apply(command);
    }

    fn wanted(&self, file: &FileId) -> usize {
        self.owned
            .iter()
            .filter(|((_, id), _)| id == file)
            .map(|(_, (copies, _))| usize::from(*copies))
            .max()
            .unwrap_or(0)
    }

    fn on_disks(&self, file: &FileId) -> usize {
        self.disks.values().filter(|disk| disk.files.contains(file)).count()
    }

    fn place(&self, partition: u32, id: FileId, copies: u8) -> Place {
        let name = format!("g1/{id}.tsm");
        let sources = vec![Source::Data { node: 100, partition, name }];
        Place { partition, term: 1, file: id, size: 10, min_time: 0, max_time: 1, copies, sources }
    }

    /// What data nodes do: place, hand over, report.
    fn partitions(&mut self, is_calm: bool) {
        if !is_calm && self.random.one_in(3) {
            let (partition, copies) = (self.random.below(PARTITIONS.into()) as u32, 1 + self.random.below(3) as u8);
            let id = file(self.next_file);
            self.next_file += 1;
            self.owned.insert((partition, id), (copies, false));
            self.local.insert(id);
        }
        if !is_calm && self.random.one_in(6) && !self.owned.is_empty() {
            let at = self.random.below(self.owned.len() as u64) as usize;
            let key = *self.owned.keys().nth(at).unwrap();
            self.owned.remove(&key);
        }
        let waiting: Vec<(u32, FileId, u8)> = self
            .owned
            .iter()
            .filter(|(_, (_, is_handed))| !is_handed)
            .map(|((partition, id), (copies, _))| (*partition, *id, *copies))
            .collect();
        for (partition, id, copies) in waiting {
            let place = self.place(partition, id, copies);
            if let Some(command) = self.leader.place(&self.pool, &place) {
                self.apply(command);
            }
            let placed = self.leader.placed(&self.pool, &place);
            for slave in &placed.durable {
                let is_there = self.disks[slave].files.contains(&id);
                assert!(is_there || self.harmed.contains(&id), "{id} is told to be at {slave}");
            }
            if placed.durable.len() >= usize::from(copies) {
                self.owned.insert((partition, id), (copies, true));
                self.local.remove(&id);
            }
        }
        let partition = self.random.below(PARTITIONS.into()) as u32;
        let of_partition = self.owned.iter().filter(|((owner, _), _)| *owner == partition);
        let files = of_partition.map(|((_, id), (copies, _))| (*id, *copies)).collect();
        let report = Report { partition, term: 1, index: self.now_ns, files };
        for command in self.leader.report(&self.pool, &report).unwrap() {
            self.apply(command);
        }
    }

    fn beats(&mut self, is_calm: bool) {
        let slaves: Vec<u64> = self.disks.keys().copied().collect();
        for slave in slaves {
            let (loses_question, loses_answer) = (self.random.one_in(9), self.random.one_in(9));
            let disk = self.disks.get_mut(&slave).unwrap();
            if !disk.is_up || (!is_calm && loses_question) {
                continue;
            }
            let beat = disk.pending.take().unwrap_or_else(|| {
                if disk.restarts {
                    disk.told.clear();
                }
                disk.sequence += 1;
                let beat = Beat {
                    slave,
                    incarnation: disk.incarnation,
                    sequence: disk.sequence,
                    capacity_bytes: 100_000,
                    free_bytes: 100_000 - 10 * disk.files.len() as u64,
                    restarts: disk.restarts,
                    is_complete: true,
                    added: disk.files.difference(&disk.told).map(|id| (*id, 10)).collect(),
                    removed: disk.told.difference(&disk.files).copied().collect(),
                    told: FilesDigest::of(&disk.files),
                };
                disk.told = disk.files.clone();
                disk.restarts = false;
                beat
            });
            let beaten = self.leader.heard(&beat, self.term, self.now_ns);
            if !is_calm && loses_answer {
                disk.pending = Some(beat);
                continue;
            }
            disk.restarts = beaten.wants_all;
            disk.epoch = disk.epoch.max(beaten.epoch);
        }
    }

    fn look(&mut self, is_calm: bool) {
        let steps = self.leader.look(&self.pool, self.now_ns);
        for command in steps.commands {
            if !is_calm && self.random.one_in(20) {
                break;
            }
            self.apply(command);
        }
        let term = self.term;
        self.fetches.extend(steps.fetches.into_iter().map(|order| (term, order)));
        self.deletes.extend(steps.deletes.into_iter().map(|(slave, files)| (term, slave, files)));
    }

    fn carry_out(&mut self, is_calm: bool) {
        for (term, order) in std::mem::take(&mut self.fetches) {
            if !is_calm && self.random.one_in(2) {
                self.fetches.push((term, order));
                continue;
            }
            let has = |source: &Source| match source {
                Source::Slave(slave) => {
                    let disk = &self.disks[slave];
                    disk.is_up && disk.files.contains(&order.file)
                }
                Source::Data { .. } => self.local.contains(&order.file),
            };
            let is_found = order.sources.iter().any(has);
            let disk = self.disks.get_mut(&order.slave).unwrap();
            let mut outcome = Err("lost".to_owned());
            if disk.is_up && disk.epoch <= term {
                disk.epoch = term;
                if is_found || disk.files.contains(&order.file) {
                    disk.files.insert(order.file);
                    outcome = Ok(());
                }
            }
            if !is_calm && self.random.one_in(8) {
                outcome = Err("no answer".to_owned());
            }
            if term == self.term {
                self.leader.fetched(order.slave, order.file, order.size, outcome, self.now_ns);
            }
        }
        for (term, slave, files) in std::mem::take(&mut self.deletes) {
            if !is_calm && self.random.one_in(3) {
                self.deletes.push((term, slave, files));
                continue;
            }
            let disk = &self.disks[&slave];
            let mut is_known = false;
            if disk.is_up && disk.epoch <= term {
                for id in files.iter().filter(|id| disk.files.contains(*id)) {
                    let (left, wanted) = (self.on_disks(id) - 1, self.wanted(id));
                    let is_handed = self.owned.iter().any(|((_, owned), (_, handed))| owned == id && *handed);
                    assert!(
                        left >= wanted || !is_handed || self.harmed.contains(id),
                        "{id} is deleted at {slave} and {left} of {wanted} copies are left"
                    );
                }
                let disk = self.disks.get_mut(&slave).unwrap();
                disk.epoch = term;
                files.iter().for_each(|id| self.deleted += u64::from(disk.files.remove(id)));
                is_known = !self.random.one_in(6);
            }
            if term == self.term {
                self.leader.deleted(slave, &files, is_known, self.now_ns);
            }
        }
    }

    fn fault(&mut self) {
        let slave = 1 + self.random.below(self.disks.len() as u64);
        let up = self.disks.values().filter(|disk| disk.is_up).count();
        match self.random.below(40) {
            0 | 1 if up > 3 => self.disks.get_mut(&slave).unwrap().is_up = false,
            2..=6 => self.start(slave),
            7 => {
                // Rot: as many files as a disk can lose while others have them.
                let id = self.disks[&slave].files.iter().next().copied();
                if let Some(id) = id.filter(|id| self.on_disks(id) > 1) {
                    self.harmed.insert(id);
                    self.disks.get_mut(&slave).unwrap().files.remove(&id);
                }
            }
            8 => {
                self.term += 1;
                self.leader = Leader::new(OPTIONS, self.now_ns);
                self.pool = Pool::decode(&self.pool.encode()).unwrap();
            }
            9 => self.apply(Command::SetStanding { slave, standing: Standing::Evacuating }),
            10 => self.apply(Command::SetStanding { slave, standing: Standing::Draining }),
            11..=13 => self.apply(Command::SetStanding { slave, standing: Standing::Active }),
            14 => self.leader.rebalance(),
            _ => {}
        }
    }

    fn start(&mut self, slave: u64) {
        let incarnation = self.random.below(u64::MAX);
        let disk = self.disks.get_mut(&slave).unwrap();
        if !disk.is_up {
            (disk.is_up, disk.incarnation, disk.sequence) = (true, incarnation, 0);
            (disk.restarts, disk.pending) = (true, None);
        }
    }

    fn step(&mut self, is_calm: bool) {
        self.now_ns += (100 + self.random.below(400)) * MS;
        if !is_calm {
            self.fault();
        }
        self.partitions(is_calm);
        self.beats(is_calm);
        self.look(is_calm);
        self.carry_out(is_calm);
    }

    fn replayed(&self) -> Pool {
        let mut pool = Pool::default();
        for command in self.log.iter().cloned() {
            pool.apply(command);
        }
        pool
    }

    fn settle(&mut self) {
        let slaves: Vec<u64> = self.disks.keys().copied().collect();
        for slave in slaves {
            self.start(slave);
            self.apply(Command::SetStanding { slave, standing: Standing::Active });
        }
        for _ in 0..800 {
            self.step(true);
        }
    }

    fn check_end(&self) {
        assert_eq!(self.replayed(), self.pool, "the log alone makes the state");
        assert_eq!(Pool::decode(&self.pool.encode()).unwrap(), self.pool);
        for ((partition, id), (copies, is_handed)) in &self.owned {
            let known = self.pool.file(id).unwrap_or_else(|| panic!("{id} of {partition} is forgotten"));
            let on_disks = self.on_disks(id);
            if self.harmed.contains(id) && on_disks == 0 && !self.local.contains(id) {
                continue;
            }
            assert!(*is_handed, "{id} was never handed over: {known:?}");
            assert_eq!(on_disks, self.wanted(id), "{id}: {known:?}");
            assert!(on_disks >= usize::from(*copies));
            assert!(known.durable.iter().all(|slave| self.disks[slave].files.contains(id)), "{id}");
        }
        for (slave, disk) in &self.disks {
            for id in &disk.files {
                assert!(self.wanted(id) > 0, "{id} is of nobody and left at {slave}");
            }
        }
        assert!(self.pool.short().iter().all(|id| self.harmed.contains(id)), "{:?}", self.pool.short());
        assert!(self.pool.garbage().is_empty() && self.pool.under_way().is_empty(), "{:?}", self.pool.under_way());
    }
}

fn run(seed: u64, slaves: u64, steps: usize) -> World {
    let mut world = World::new(seed, slaves);
    for _ in 0..steps {
        world.step(false);
    }
    world.settle();
    world.check_end();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn nothing_that_is_owned_is_lost_and_nothing_else_stays(seed in 1u64.., slaves in 4u64..9, steps in 20usize..400) {
        run(seed, slaves, steps);
    }
}

#[test]
fn a_long_run_meets_everything() {
    let world = run(77, 7, 3_000);
    let has = |wanted: fn(&Command) -> bool| world.log.iter().any(wanted);
    assert!(has(|command| matches!(command, Command::Lose { .. })));
    assert!(has(|command| matches!(command, Command::Regain { .. })));
    assert!(has(|command| matches!(command, Command::Miss { .. })));
    assert!(has(|command| matches!(command, Command::GiveUp { .. })));
    assert!(has(|command| matches!(command, Command::Forget { .. })));
    assert!(has(|command| matches!(command, Command::Unassign { .. })));
    assert!(world.deleted > 20 && world.owned.len() > 20, "{} {}", world.deleted, world.owned.len());
}

/// Without faults copies are in different domains, and a lost slave costs one copy of each of its files and no more.
#[test]
fn a_lost_slave_is_made_up_for_once_and_in_other_domains() {
    let mut world = World::new(5, 6);
    for number in 1..=40 {
        world.owned.insert((0, file(number)), (2, false));
        world.local.insert(file(number));
    }
    for _ in 0..200 {
        world.step(true);
    }
    world.check_end();
    let domain = |world: &World, slave: &u64| world.pool.slaves()[slave].domain.clone();
    let are_apart = |world: &World| {
        let mut files = world.pool.files().values();
        files.all(|file| file.durable.len() == 2 && domain(world, &file.durable[0]) != domain(world, &file.durable[1]))
    };
    assert!(are_apart(&world));
    let held = world.disks[&2].files.len() as u64;
    assert!(held > 5);
    world.disks.get_mut(&2).unwrap().is_up = false;
    for _ in 0..200 {
        world.step(true);
    }
    assert_eq!(world.leader.counts().repaired_files, held);
    assert!(world.pool.short().is_empty());
    // It comes back with all its files: nothing is copied to it again.
    world.start(2);
    for _ in 0..400 {
        world.step(true);
    }
    assert_eq!(world.leader.counts().repaired_files, held);
    world.check_end();
    assert!(are_apart(&world));
}

#[test]
fn a_rebalancing_parts_copies_that_share_a_domain_and_fills_slaves_alike() {
    let mut world = World::new(9, 6);
    // Both that are there are of one domain.
    for slave in [1, 2, 4, 5] {
        world.disks.get_mut(&slave).unwrap().is_up = false;
    }
    for number in 1..=60 {
        world.owned.insert((0, file(number)), (2, false));
        world.local.insert(file(number));
    }
    for _ in 0..200 {
        world.step(true);
    }
    assert!(world.pool.files().values().all(|file| file.durable == [3, 6]));
    for slave in [1, 2, 4, 5] {
        world.start(slave);
    }
    for _ in 0..100 {
        world.step(true);
    }
    assert!(world.pool.files().values().all(|file| file.durable == [3, 6]), "nothing moves unasked");
    world.leader.rebalance();
    for _ in 0..600 {
        world.step(true);
    }
    assert!(!world.leader.is_rebalancing());
    world.check_end();
    let domain = |slave: &u64| world.pool.slaves()[slave].domain.clone();
    assert!(world.pool.files().values().all(|file| domain(&file.durable[0]) != domain(&file.durable[1])));
    let held: Vec<usize> = world.disks.values().map(|disk| disk.files.len()).collect();
    assert!(held.iter().all(|count| (18..=22).contains(count)), "{held:?}");
}

#[test]
fn repairs_keep_to_their_rate_and_new_files_do_not_wait_for_them() {
    let options = LeaderOptions { copy_rate_max: 20, ..OPTIONS };
    let mut world = World::new(11, 6);
    world.leader = Leader::new(options, world.now_ns);
    for number in 1..=60 {
        world.owned.insert((0, file(number)), (2, false));
        world.local.insert(file(number));
    }
    for _ in 0..100 {
        world.step(true);
    }
    assert!(world.pool.short().is_empty(), "files of 10 bytes are placed at any rate");
    let held = world.disks[&1].files.len() as u64;
    world.disks.get_mut(&1).unwrap().is_up = false;
    let begun_ns = world.now_ns;
    while !world.pool.slaves()[&1].is_lost || !world.pool.short().is_empty() {
        world.step(true);
        let passed_s = (world.now_ns - begun_ns) / (1_000 * MS);
        assert!(world.leader.counts().repaired_bytes <= 20 * (passed_s + 2), "after {passed_s} s");
        assert!(passed_s < 600, "{} are short", world.pool.short().len());
    }
    assert_eq!(world.leader.counts().repaired_files, held);
}

/// A leader of a partition that was deposed places nothing and gives nothing up.
#[test]
fn an_older_term_of_a_partition_is_not_listened_to() {
    let mut world = World::new(3, 3);
    let newer = Place { term: 5, ..world.place(1, file(1), 2) };
    world.apply(Command::Place(newer.clone()));
    let before = world.pool.clone();
    let older = Place { term: 4, ..world.place(1, file(2), 2) };
    let fenced = tidemill_pool::Applied::Fenced { term: 5 };
    assert_eq!(world.pool.apply(Command::Place(older)), fenced);
    let give_up = |term, index| Command::Own { partition: 1, term, index, added: Vec::new(), given_up: vec![file(1)] };
    assert_eq!(world.pool.apply(give_up(4, 9)), fenced);
    let report = Report { partition: 1, term: 4, index: 9, files: Vec::new() };
    assert_eq!(world.leader.report(&world.pool, &report), Err(5));
    assert_eq!(world.pool.files(), before.files());
    world.pool.apply(Command::Forget { files: vec![file(1)] });
    assert_eq!(world.pool.files(), before.files(), "it has an owner");
    assert_eq!(world.pool.apply(give_up(5, 9)), tidemill_pool::Applied::Done);
    assert!(world.pool.garbage().contains(&file(1)));
    // What was said of an older state of the partition comes too late.
    let known_again = Command::Own { partition: 1, term: 5, index: 8, added: vec![(file(7), 1)], given_up: Vec::new() };
    assert!(matches!(world.pool.apply(known_again), tidemill_pool::Applied::Refused(_)));
    assert!(world.pool.file(&file(7)).is_none());
}
