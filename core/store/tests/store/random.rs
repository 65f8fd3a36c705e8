//! Random runs: writes of all shapes, deletes, drops, flushes, copies and crashes at any moment, against the model.

use crate::{
    harness::*,
    model::{GROUP_WIDTH, Model, Point, Series, UNSIGNED, group_id, group_of},
};
use std::collections::BTreeMap;
use tidemill_column::{FieldType, Value};
use tidemill_disk::sim::{Crash, Executor, Fault, Prng, SimDisk, Task};
use tidemill_store::{Applied, Command, CopyFigures, CopyOrder, Floats, HandedFile, Measurements, TagCondition};

const DATABASES: [u32; 2] = [7, 9];
const MEASUREMENTS: [&str; 3] = ["cpu", "m e,m", "net"];
const FIELDS: [&str; 5] = ["a", "b b", "c", "d", UNSIGNED];
const TAGS: [(&str, &[&str]); 3] = [("host", &["h1", "h2", "h 3"]), ("dc", &["x", "y,z"]), ("rack", &["r=1"])];

/// What a run does how often; drawn from its seed.
#[derive(Debug)]
struct Swarm {
    steps: u64,
    bulk_one_in: u64,
    flush_one_in: u64,
    delete_one_in: u64,
    drop_one_in: u64,
    copy_one_in: u64,
    hand_over_one_in: u64,
    pool_fails_one_in: u64,
    crash_one_in: u64,
    fault_one_in: u64,
    late_one_in: u64,
    time_grid: u64,
    cache_bytes: usize,
}

impl Swarm {
    fn draw(prng: &mut Prng) -> Swarm {
        let mut one_of = |choices: &[u64]| choices[prng.below(choices.len() as u64) as usize];
        Swarm {
            steps: one_of(&[40, 80, 160]),
            bulk_one_in: one_of(&[10, 30, 1000]),
            flush_one_in: one_of(&[3, 8, 20]),
            delete_one_in: one_of(&[5, 12, 1000]),
            drop_one_in: one_of(&[20, 60, 1000]),
            copy_one_in: one_of(&[2, 6, 1000]),
            hand_over_one_in: one_of(&[2, 6, 1000]),
            pool_fails_one_in: one_of(&[2, 20, u64::MAX]),
            crash_one_in: one_of(&[15, 40, 1000]),
            fault_one_in: one_of(&[3, 10, 1000]),
            late_one_in: one_of(&[2, 5, 1000]),
            time_grid: one_of(&[1, 7, 100]),
            cache_bytes: one_of(&[0, 70_000, 1 << 20]) as usize,
        }
    }
}

/// Whether a delete means a series.
type Covers = Box<dyn Fn(&Series) -> bool>;

struct Run {
    prng: Prng,
    swarm: Swarm,
    executor: Executor,
    store: Store,
    model: Model,
    /// Newest time of each group, so that most points come in order.
    newest: BTreeMap<u64, i64>,
    sequences: BTreeMap<u64, u64>,
    background: Vec<Task<()>>,
    /// What was handed over before, which may be gone.
    handed: Vec<(u64, HandedFile)>,
    pool_failures: u64,
}

#[derive(Debug, Default)]
struct Totals {
    writes: u64,
    flushes: u64,
    deletes: u64,
    drops: u64,
    copies: CopyFigures,
    files_handed_over: u64,
    pool_reads: u64,
    pool_failures: u64,
    crashes: u64,
    failures: u64,
    summaries: u64,
}

fn value(prng: &mut Prng, field_type: FieldType) -> Value {
    match field_type {
        FieldType::Float => Value::Float([0.0, -0.0, 1.5, -2.25e300, 5e-324, 3.0][prng.below(6) as usize]),
        FieldType::Integer => Value::Integer([0, -1, 7, i64::MAX, i64::MIN, 123_456][prng.below(6) as usize]),
        FieldType::Unsigned => Value::Unsigned([0, 1, u64::MAX, 77][prng.below(4) as usize]),
        FieldType::Boolean => Value::Boolean(prng.one_in(2)),
        FieldType::String => {
            let texts: [&[u8]; 5] = [b"", b"x", b"a \"quoted\", text=1", &[b'l'; 300], "gr\u{fc}n".as_bytes()];
            Value::String(texts[prng.below(5) as usize].into())
        }
    }
}

impl Run {
    fn series(&mut self) -> Series {
        let measurement = MEASUREMENTS[self.prng.below(3) as usize].to_string();
        let mut tags = BTreeMap::new();
        for (key, values) in TAGS {
            if !self.prng.one_in(3) {
                tags.insert(key.to_string(), values[self.prng.below(values.len() as u64) as usize].to_string());
            }
        }
        (measurement, tags)
    }

    fn time(&mut self, group: u64) -> i64 {
        let start = start_of(group);
        let newest = self.newest.entry(group).or_insert(start);
        let grid = self.swarm.time_grid as i64;
        let time = if self.prng.one_in(self.swarm.late_one_in) {
            start + self.prng.below((*newest - start) as u64 + 1) as i64 / grid * grid
        } else {
            *newest + self.prng.below(3) as i64 * grid
        };
        let time = time.min(start + GROUP_WIDTH - 1);
        *newest = time.max(*newest);
        time
    }

    fn point(&mut self, database: u32, series: &Series, time: i64, planned: &mut Model) -> Point {
        let mut fields = BTreeMap::new();
        while fields.is_empty() {
            for name in FIELDS {
                if self.prng.one_in(2) {
                    let known = planned.field_type(database, group_of(time), &series.0, name);
                    let any = FieldType::ALL[self.prng.below(4) as usize];
                    let chosen = if name == UNSIGNED { FieldType::Unsigned } else { known.unwrap_or(any) };
                    fields.insert(name.to_string(), value(&mut self.prng, chosen));
                }
            }
        }
        let point = Point { measurement: series.0.clone(), tags: series.1.clone(), fields, time };
        planned.write(database, &point);
        point
    }

    fn write(&mut self) {
        let database = DATABASES[self.prng.below(2) as usize];
        let mut points = Vec::new();
        // Types of fields are decided as the metadata would: before the batch is split.
        let mut planned = self.model.clone();
        if self.prng.one_in(self.swarm.bulk_one_in) {
            let series = self.series();
            let group = GROUPS[self.prng.below(4) as usize];
            let shape = self.point(database, &series, start_of(group), &mut planned).fields;
            for _ in 0..self.prng.below(2500) {
                let time = self.time(group);
                let fields = shape.iter().map(|(name, of)| (name.clone(), value(&mut self.prng, of.field_type())));
                let fields = fields.collect();
                points.push(Point { measurement: series.0.clone(), tags: series.1.clone(), fields, time });
            }
        } else {
            for _ in 0..1 + self.prng.below(30) {
                let series = self.series();
                let group = GROUPS[self.prng.below(4) as usize];
                let time = self.time(group);
                points.push(self.point(database, &series, time, &mut planned));
            }
        }
        if points.is_empty() {
            return;
        }
        let session = self.prng.below(3);
        let is_new = session == 0 || !self.prng.one_in(6);
        let sequence = self.sequences.entry(session).or_insert(0);
        *sequence += u64::from(is_new);
        if *sequence == 0 {
            return;
        }
        // One image has one identity: of a body that touches several groups, each group's part is a batch of its own.
        let mut by_group: BTreeMap<u64, Vec<Point>> = BTreeMap::new();
        points.into_iter().for_each(|point| by_group.entry(point.group()).or_default().push(point));
        for (at, (_, part)) in by_group.into_iter().enumerate() {
            let sequence = self.sequences.entry(session).or_insert(0);
            if at > 0 && is_new {
                *sequence += 1;
            }
            for image in images(database, &part, session, *sequence) {
                let applied = self.store.apply(image);
                let rows = if is_new { part.len() as u64 } else { 0 };
                assert_eq!(applied, Applied::Written { rows });
            }
            if is_new {
                part.iter().for_each(|point| self.model.write(database, point));
            }
        }
    }

    fn settle(&mut self, applied: Applied) {
        assert_eq!(applied, Applied::Deleted);
        let partition = self.store.partition.clone();
        self.background.push(self.executor.spawn(async move {
            // The pool may be in trouble; then the series are looked at behind the next flush.
            let _ = partition.settle().await;
        }));
    }

    fn drop_field(&mut self) {
        let database = DATABASES[self.prng.below(2) as usize];
        let measurement = MEASUREMENTS[self.prng.below(3) as usize];
        let field = FIELDS[self.prng.below(FIELDS.len() as u64) as usize];
        let (of, name) = (measurement.as_bytes().to_vec(), field.as_bytes().to_vec());
        let applied = self.store.command(&Command::DropField { database, measurement: of, field: name });
        self.model.drop_field(database, measurement, field);
        self.settle(applied);
    }

    fn delete(&mut self) {
        if self.prng.one_in(4) {
            return self.drop_field();
        }
        let database = DATABASES[self.prng.below(2) as usize];
        let (measurements, name) = match self.prng.below(4) {
            0 => (Measurements::All, None),
            1 => (Measurements::Matching("^c.u$".into()), Some("cpu")),
            other => {
                let name = MEASUREMENTS[other as usize - 1];
                (Measurements::Named(vec![name.as_bytes().to_vec(), b"unknown".to_vec()]), Some(name))
            }
        };
        let (tag, values) = TAGS[self.prng.below(3) as usize];
        let chosen = values[self.prng.below(values.len() as u64) as usize];
        let (key, value) = (tag.as_bytes().to_vec(), chosen.as_bytes().to_vec());
        let (condition, holds): (_, Covers) = match self.prng.below(4) {
            0 => (TagCondition::All, Box::new(|_| true)),
            1 => (
                TagCondition::Equal { key, value },
                Box::new(move |series| series.1.get(tag).is_some_and(|value| value == chosen)),
            ),
            2 => (
                TagCondition::NotEqual { key, value },
                Box::new(move |series| series.1.get(tag).is_none_or(|value| value != chosen)),
            ),
            _ => (
                TagCondition::Or(vec![
                    TagCondition::Matches { key: b"host".to_vec(), regex: "1$".into() },
                    TagCondition::And(vec![TagCondition::Equal { key, value: Vec::new() }]),
                ]),
                Box::new(move |series| {
                    series.1.get("host").is_some_and(|value| value.ends_with('1')) || !series.1.contains_key(tag)
                }),
            ),
        };
        let (min_time, max_time) = match self.prng.below(3) {
            0 => (i64::MIN, i64::MAX),
            1 => {
                let group = GROUPS[self.prng.below(4) as usize];
                (start_of(group), start_of(group) + GROUP_WIDTH - 1)
            }
            _ => {
                let group = GROUPS[self.prng.below(4) as usize];
                let time = self.time(group);
                (time - self.prng.below(500) as i64, time)
            }
        };
        let database_id = database;
        let command = Command::Delete { database, measurements, condition, min_time, max_time };
        let applied = self.store.command(&command);
        let covers = |series: &Series| name.is_none_or(|name| series.0 == name) && holds(series);
        self.model.delete(database_id, covers, min_time, max_time);
        self.settle(applied);
    }

    fn drop_some(&mut self) {
        if self.prng.one_in(3) {
            let database = DATABASES[self.prng.below(2) as usize];
            let groups = GROUPS.iter().map(|group| group_id(database, *group)).collect();
            self.store.command(&Command::DropDatabase { database, groups });
            self.model.drop_database(database);
        } else {
            let database = DATABASES[self.prng.below(2) as usize];
            let group = GROUPS[self.prng.below(4) as usize];
            self.store.command(&Command::DropShardGroups { groups: vec![group_id(database, group)] });
            self.model.drop_group(database, group);
        }
    }

    fn floats(&mut self) -> Floats {
        if self.prng.one_in(2) { Floats::Alp } else { Floats::Gorilla }
    }

    fn flush_some(&mut self) {
        let floats = self.floats();
        self.store.command(&Command::Flush { floats });
    }

    /// Decides a copy of any kind, and begins it.
    fn copy(&mut self) {
        let database = DATABASES[self.prng.below(2) as usize];
        let group = GROUPS[self.prng.below(4) as usize];
        let newest = self.store.log.len() as u64 + 1;
        let ordered_through = newest - self.prng.below(newest.min(30));
        let sealed_one_in = [1, 2, 1000][self.prng.below(3) as usize];
        let sealed = (0..newest).filter(|_| self.prng.one_in(sealed_one_in)).collect();
        let order = CopyOrder {
            shard_group: group_id(database, group),
            ordered_through,
            late_through: if self.prng.one_in(3) {
                0
            } else {
                ordered_through - self.prng.below(ordered_through.min(9))
            },
            floats: self.floats(),
            sealed,
            with_deleted: self.prng.one_in(2),
            file_bytes_max: [1, 5_000, 1 << 30][self.prng.below(3) as usize],
        };
        self.store.command(&Command::Copy(order));
        let partition = self.store.partition.clone();
        self.background.push(self.executor.spawn(async move {
            // The pool may be in trouble.
            let _ = partition.copy().await;
        }));
    }

    /// Hands over some of what is sealed, and now and then what is not there any more.
    fn hand_over(&mut self, totals: &mut Totals) {
        let one_in = [1, 2][self.prng.below(2) as usize];
        let prng = &mut self.prng;
        let shipped = self.store.shipped(|_| prng.one_in(one_in));
        for (shard_group, mut files) in shipped {
            totals.files_handed_over += files.len() as u64;
            self.handed.extend(files.iter().map(|file| (shard_group, *file)));
            let older = self.handed.iter().filter(|(group, _)| *group == shard_group).map(|(_, file)| *file);
            files.extend(older.filter(|_| self.prng.one_in(4)));
            let keeps_local = self.prng.one_in(4);
            self.store.command(&Command::HandOver { shard_group, files, keeps_local });
        }
        if self.prng.one_in(2) {
            let partition = self.store.partition.clone();
            self.background.push(self.executor.spawn(async move {
                partition.maintain().await.unwrap();
            }));
        }
    }

    fn count_copies(&self, totals: &mut Totals) {
        totals.copies.add(&self.store.partition.figures().copies);
    }

    /// Lets everything in the background end, and whatever a fault left undone be done.
    async fn quiesce(&mut self, totals: &mut Totals) {
        for task in std::mem::take(&mut self.background) {
            task.join().await;
        }
        let failures = self.store.pool.figures().failures;
        if std::mem::replace(&mut self.pool_failures, failures) != failures {
            // Series of which blocks could not be read are looked at behind a flush.
            self.flush_some();
        }
        for _ in 0..100 {
            match self.store.partition.maintain().await {
                Ok(_) if !self.store.partition.has_copies() && !self.store.partition.has_work() => break,
                // A copy may leave the removal of its files behind, and a maintenance settles a part of what it finds.
                Ok(_) => {
                    totals.failures += u64::from(self.store.partition.copy().await.is_err());
                    totals.failures += u64::from(self.store.partition.settle().await.is_err());
                }
                Err(_) => totals.failures += 1,
            }
        }
        assert!(!self.store.partition.has_work() && !self.store.partition.has_copies());
    }

    async fn go(&mut self, seed: u64, totals: &mut Totals) {
        for step in 0..self.swarm.steps {
            let context = format!("seed {seed} step {step} {:?}", self.swarm);
            self.write();
            totals.writes += 1;
            if self.prng.one_in(self.swarm.delete_one_in) {
                self.delete();
                totals.deletes += 1;
            }
            if self.prng.one_in(self.swarm.drop_one_in) {
                self.drop_some();
                totals.drops += 1;
            }
            if self.prng.one_in(self.swarm.copy_one_in) {
                self.copy();
            }
            if self.prng.one_in(self.swarm.hand_over_one_in) {
                self.hand_over(totals);
            }
            self.store.pool.fail_one_in(self.swarm.pool_fails_one_in);
            if self.prng.one_in(self.swarm.flush_one_in) {
                self.flush_some();
                totals.flushes += 1;
                let partition = self.store.partition.clone();
                let faulty = self.prng.one_in(self.swarm.fault_one_in);
                if faulty {
                    self.quiesce(totals).await;
                    if self.prng.one_in(2) {
                        self.copy();
                        self.background.clear();
                    }
                    self.flush_some();
                    let fault = [Fault::Eio, Fault::StorageFull, Fault::ShortWrite][self.prng.below(3) as usize];
                    self.store.disk.fail_at(None, 1 + self.prng.below(60), fault);
                    let _ = partition.copy().await;
                    let _ = partition.maintain().await;
                    for _ in 0..60 {
                        // What is left of the plan hits harmless calls.
                        let _ = tidemill_disk::Disk::list(&self.store.disk, "nowhere").await;
                    }
                } else {
                    self.background.push(self.executor.spawn(async move {
                        partition.maintain().await.unwrap();
                    }));
                }
            }
            for _ in 0..self.prng.below(40) {
                self.executor.yield_now().await;
            }
            self.store.pool.fail_one_in(u64::MAX);
            totals.summaries += check_points(&self.store.partition, &self.model, &mut self.prng, 12, &context).await;
            if self.prng.one_in(8) {
                self.quiesce(totals).await;
                check_index(&self.store.partition, &self.model, &DATABASES, &context);
            }
            if self.prng.one_in(self.swarm.crash_one_in) {
                totals.crashes += 1;
                let crash = Crash::ALL[self.prng.below(5) as usize];
                self.background.clear();
                self.count_copies(totals);
                self.store.crash(crash, self.prng.next_u64()).await;
                // The series of files that a drop removes are looked at behind their removal.
                self.store.partition.maintain().await.unwrap();
                self.store.partition.settle().await.unwrap();
                let context = format!("{context} after {crash:?}");
                totals.summaries += check_points(&self.store.partition, &self.model, &mut self.prng, 2, &context).await;
                check_index(&self.store.partition, &self.model, &DATABASES, &context);
            }
        }
        let context = format!("seed {seed}, at the end, {:?}", self.swarm);
        self.quiesce(totals).await;
        self.store.flush().await;
        totals.summaries += check_points(&self.store.partition, &self.model, &mut self.prng, 1, &context).await;
        check_index(&self.store.partition, &self.model, &DATABASES, &context);
        let before = self.store.tsm_files();
        self.store.crash(Crash::Drop, seed).await;
        totals.summaries += check_points(&self.store.partition, &self.model, &mut self.prng, 1, &context).await;
        check_index(&self.store.partition, &self.model, &DATABASES, &context);
        assert_eq!(self.store.tsm_files().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{context}");
        self.check_no_strangers(&context);
        self.count_copies(totals);
        let pool = self.store.pool.figures();
        (totals.pool_reads, totals.pool_failures) =
            (totals.pool_reads + pool.reads, totals.pool_failures + pool.failures);
        // All of it to the last level: what was deleted is gone, and everything is in one file a group.
        for database in DATABASES {
            for group in GROUPS {
                let through = self.store.log.len() as u64 + 1;
                let order = CopyOrder {
                    shard_group: group_id(database, group),
                    ordered_through: through,
                    late_through: through,
                    floats: Floats::Gorilla,
                    sealed: (0..through).collect(),
                    with_deleted: false,
                    file_bytes_max: 1 << 30,
                };
                self.store.command(&Command::Copy(order));
            }
        }
        self.quiesce(totals).await;
        totals.summaries += check_points(&self.store.partition, &self.model, &mut self.prng, 1, &context).await;
        self.store.crash(Crash::Drop, seed).await;
        totals.summaries += check_points(&self.store.partition, &self.model, &mut self.prng, 1, &context).await;
        check_index(&self.store.partition, &self.model, &DATABASES, &context);
        self.check_no_strangers(&context);
        let values: usize = self.model.points.values().map(BTreeMap::len).sum();
        assert_eq!(self.store.manifest().files.iter().map(|file| file.points).sum::<u64>(), values as u64, "{context}");
    }

    fn check_no_strangers(&self, context: &str) {
        for path in self.store.disk.paths() {
            let is_known = path.contains("/index-")
                || ["/manifest", "/spare", ".tsm", ".tail"].iter().any(|end| path.ends_with(end));
            assert!(is_known, "{context}: {path} is left over");
        }
        let indexes = self.store.disk.paths().into_iter().filter(|path| path.contains("/index-")).count();
        assert_eq!(indexes, 1, "{context}");
    }
}

fn run(seed: u64, totals: &mut Totals) {
    let mut prng = Prng::new(seed);
    let swarm = Swarm::draw(&mut prng);
    let executor = Executor::new(seed);
    let disk = SimDisk::new(seed);
    executor.clone().block_on(async {
        let store = Store::new(disk, swarm.cache_bytes).await;
        let mut run = Run {
            prng,
            swarm,
            executor,
            store,
            model: Model::default(),
            newest: BTreeMap::new(),
            sequences: BTreeMap::new(),
            background: Vec::new(),
            handed: Vec::new(),
            pool_failures: 0,
        };
        run.go(seed, totals).await;
    });
}

/// `TIDEMILL_STORE_SEED` replays one seed; `TIDEMILL_STORE_SEEDS` says how many are run.
#[test]
fn random_runs_agree_with_the_model() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut totals = Totals::default();
    let seeds = match number("TIDEMILL_STORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDEMILL_STORE_SEEDS").unwrap_or(30),
    };
    for seed in seeds {
        run(seed, &mut totals);
    }
    println!("{totals:?}");
    assert!(totals.summaries > 0 && totals.files_handed_over > 0 && totals.pool_reads > 0 && totals.pool_failures > 0);
    let CopyFigures { copies, blocks_copied, blocks_merged, blocks_joined, blocks_vanished, .. } = totals.copies;
    for counter in [copies, blocks_copied, blocks_merged, blocks_joined, blocks_vanished] {
        assert!(counter > 0, "{totals:?}");
    }
}
