//! What is deleted is gone, its series leave the index, and its room comes back: whatever happens in between.

use crate::{
    harness::*,
    model::{Model, Point, group_id},
};
use tidemill_column::Value;
use tidemill_disk::sim::{Crash, Executor, Fault, Prng, SimDisk, block_on};
use tidemill_line::PartitionMap;
use tidemill_store::{Command, CopyOrder, DatabaseId, Floats, Measurements, SeriesTimes, TagCondition};

const DATABASE: u32 = 7;
/// That of the harness.
const POLICY: u32 = 1;
const ALL: (i64, i64) = (i64::MIN, i64::MAX);

struct Scene {
    store: Store,
    model: Model,
}

impl Scene {
    async fn new(seed: u64) -> Scene {
        let disk = SimDisk::new(seed);
        disk.set_yields(seed != 0);
        Scene { store: Store::new(disk, 1 << 16).await, model: Model::default() }
    }

    /// Rows of these hosts, each with both fields.
    fn write(&mut self, hosts: &[&str], group: u64, rows: std::ops::Range<i64>) {
        let row = |host: &str, at: i64| {
            let fields = [("v", Value::Float(at as f64)), ("w", Value::Integer(at))];
            point("cpu", &[("host", host)], &fields, start_of(group) + at)
        };
        let points: Vec<Point> = rows.flat_map(|at| hosts.iter().map(move |host| row(host, at))).collect();
        self.write_points(&points);
    }

    fn write_points(&mut self, points: &[Point]) {
        points.iter().for_each(|point| self.model.write(DATABASE, point));
        self.store.write(DATABASE, points);
    }

    fn delete(&mut self, host: &str, (min_time, max_time): (i64, i64)) {
        let condition = TagCondition::Equal { key: b"host".to_vec(), value: host.as_bytes().to_vec() };
        let measurements = Measurements::All;
        self.store.command(&Command::Delete { database: DATABASE, measurements, condition, min_time, max_time });
        self.model.delete(DATABASE, |series| series.1["host"] == host, min_time, max_time);
    }

    /// Deletes these points of a host, of the policy that the harness writes to or of another.
    fn delete_points(&mut self, policy: u32, host: &str, times: &[i64]) {
        let key = format!("cpu,host={host}").into_bytes();
        let series = vec![SeriesTimes { key, times: times.to_vec() }];
        self.store.command(&Command::Delete {
            database: DATABASE,
            measurements: Measurements::Points { policy, series },
            condition: TagCondition::All,
            min_time: times[0],
            max_time: times[times.len() - 1],
        });
        for time in times.iter().filter(|_| policy == POLICY) {
            self.model.delete(DATABASE, |series| series.1["host"] == host, *time, *time);
        }
    }

    fn drop_field(&mut self, field: &str) {
        let (measurement, name) = (b"cpu".to_vec(), field.as_bytes().to_vec());
        self.store.command(&Command::DropField { database: DATABASE, measurement, field: name });
        self.model.drop_field(DATABASE, "cpu", field);
    }

    fn drop_group(&mut self, group: u64) {
        self.store.command(&Command::DropShardGroups { groups: vec![group_id(DATABASE, group)] });
        self.model.drop_group(DATABASE, group);
    }

    fn decide_copy(&mut self, group: u64) {
        let through = self.store.log.len() as u64 + 1;
        self.store.command(&Command::Copy(CopyOrder {
            shard_group: group_id(DATABASE, group),
            ordered_through: through,
            late_through: through,
            sealed: Vec::new(),
            with_deleted: true,
            floats: Floats::Gorilla,
            file_bytes_max: 1 << 30,
        }));
    }

    async fn work_off(&self) {
        let partition = &self.store.partition;
        while partition.has_copies() || partition.has_work() {
            partition.maintain().await.unwrap();
            partition.copy().await.unwrap();
        }
    }

    async fn check(&self, context: &str) {
        check_points(&self.store.partition, &self.model, &mut Prng::new(1), 1, context).await;
        check_index(&self.store.partition, &self.model, &[DATABASE], context);
    }

    fn field_names(&self) -> Vec<String> {
        let Some(index) = self.store.partition.index(DatabaseId(DATABASE)) else { return Vec::new() };
        index.field_names(b"cpu").map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn deleted_files(&self) -> usize {
        self.store.partition.group_files().iter().map(|files| files.deleted_files).sum()
    }

    /// The file of the indexes is lost.
    async fn reopen_without_index(&mut self) {
        let disk = self.store.disk.crash(Crash::Drop, 1);
        disk.set_yields(false);
        let index = disk.paths().into_iter().find(|path| path.contains("/index-")).unwrap();
        disk.lose(&index);
        self.store.reopen(disk).await;
        assert!(self.store.partition.index_was_rebuilt());
    }
}

#[test]
fn a_crash_at_any_moment_of_drops_and_deletes_keeps_no_series_without_points_and_takes_none_that_has_some() {
    let mut moments = 0;
    for seed in [1, 2, 3] {
        for moment in (0..).step_by(2) {
            let executor = Executor::new(seed);
            let has_ended = executor.clone().block_on(async {
                let mut scene = Scene::new(seed).await;
                for group in [1, 2, 3] {
                    let own = format!("h{group}");
                    scene.write(&[&own, "all"], group, 0..40);
                    scene.store.flush().await;
                }
                scene.write(&["h2", "memory"], 2, 40..60);
                scene.drop_group(1);
                scene.delete("h3", ALL);
                scene.decide_copy(2);
                scene.write_points(&[point("cpu", &[("host", "w")], &[("w", Value::Integer(1))], start_of(2))]);
                scene.store.command(&Command::PLAIN_FLUSH);
                if seed == 3 {
                    // It has all series looked at, and so would hide one that was forgotten.
                    scene.drop_field("w");
                }
                scene.decide_copy(3);
                let copied = scene.store.partition.clone();
                let copying = executor.spawn(async move { while copied.copy().await.unwrap() {} });
                let settled = scene.store.partition.clone();
                let settling = executor.spawn(async move { settled.settle().await.unwrap() });
                for _ in 0..seed * 20 {
                    executor.yield_now().await;
                }
                let kept = scene.store.partition.clone();
                let keeping = executor.spawn(async move { kept.maintain().await.map(drop).unwrap() });
                for _ in 0..moment {
                    executor.yield_now().await;
                }
                let has_ended = copying.is_done() && settling.is_done() && keeping.is_done();
                for crash in Crash::ALL {
                    let disk = scene.store.disk.crash(crash, moment);
                    disk.set_yields(false);
                    let mut store = Store::new(disk, 0).await;
                    store.log = scene.store.log.clone();
                    replay(&store.partition, &store.log);
                    let after = Scene { store, model: scene.model.clone() };
                    after.work_off().await;
                    after.check(&format!("seed {seed} moment {moment} {crash:?}")).await;
                }
                has_ended
            });
            moments += 1;
            if has_ended {
                break;
            }
        }
    }
    assert!(moments > 100, "{moments}");
}

#[test]
fn a_dropped_field_stays_away_and_may_come_back_with_another_type() {
    block_on(1, async {
        let mut scene = Scene::new(0).await;
        scene.write(&["a", "b"], 1, 0..20);
        scene.store.flush().await;
        scene.write(&["a", "c"], 1, 20..30);
        scene.store.command(&Command::PLAIN_FLUSH);
        scene.write_points(&[point("cpu", &[("host", "v")], &[("v", Value::Float(1.0))], start_of(1))]);
        // In a file, in a frozen memtable, in the active one.
        scene.drop_field("v");
        scene.work_off().await;
        scene.check("dropped").await;
        assert_eq!(scene.field_names(), ["w"]);
        scene.store.flush().await;
        scene.reopen_without_index().await;
        scene.check("the index was made anew").await;
        assert_eq!(scene.field_names(), ["w"]);
        let text = |at| point("cpu", &[("host", "a")], &[("v", Value::String(b"text"[..].into()))], start_of(1) + at);
        scene.write_points(&[text(5), text(40)]);
        scene.check("written again").await;
        scene.store.flush().await;
        scene.check("in files").await;
        scene.decide_copy(1);
        scene.work_off().await;
        scene.check("copied").await;
        scene.store.crash(Crash::Drop, 1).await;
        scene.check("copied and restarted").await;
        scene.reopen_without_index().await;
        scene.check("copied, the index was made anew").await;
        assert_eq!((scene.field_names(), scene.deleted_files()), (vec!["v".to_owned(), "w".to_owned()], 0));
        let values: usize = scene.model.points.values().map(std::collections::BTreeMap::len).sum();
        let stored: u64 = scene.store.manifest().files.iter().map(|file| file.points).sum();
        assert_eq!(stored, values as u64);
    });
}

#[test]
fn a_delete_that_covers_nothing_of_a_sealed_file_is_forgotten_by_the_copy_that_looked() {
    block_on(1, async {
        let mut scene = Scene::new(0).await;
        scene.write(&["a", "b"], 1, 0..20);
        scene.store.flush().await;
        scene.decide_copy(1);
        scene.work_off().await;
        let before = scene.store.tsm_files();
        scene.delete("nobody", ALL);
        // Between the rows there is nothing, but the block is touched.
        assert_eq!(scene.deleted_files(), 1);
        scene.decide_copy(1);
        scene.work_off().await;
        assert_eq!((scene.deleted_files(), scene.store.tsm_files() == before), (0, true));
        // Nothing was published since: a start finds the delete again, and the next copy forgets it again.
        scene.delete("b", (start_of(1) + 3, start_of(1) + 4));
        scene.store.flush().await;
        scene.store.crash(Crash::Drop, 1).await;
        assert_eq!(scene.store.manifest().files[0].tombstones.len(), 1);
        scene.check("restarted").await;
        scene.decide_copy(1);
        scene.work_off().await;
        assert_eq!((scene.deleted_files(), scene.store.tsm_files() == before), (0, false));
        scene.check("copied").await;
    });
}

#[test]
fn points_that_are_named_one_by_one_go_and_no_others() {
    block_on(1, async {
        let mut scene = Scene::new(0).await;
        let start = start_of(1);
        scene.write(&["a", "b"], 1, 0..2000);
        scene.store.flush().await;
        scene.write(&["a", "b"], 1, 2000..2020);
        let times: Vec<i64> = (0..2020).filter(|at| at % 7 < 3).map(|at| start + at).collect();
        scene.delete_points(POLICY, "a", &times);
        scene.check("in memtable and file").await;
        scene.delete_points(POLICY + 1, "b", &times);
        scene.check("another policy keeps its points").await;
        // Written anew behind the delete.
        scene.write(&["a"], 1, 0..10);
        scene.check("written anew").await;
        scene.store.flush().await;
        scene.check("flushed").await;
        scene.store.crash(Crash::Drop, 1).await;
        scene.check("started again").await;
        scene.decide_copy(1);
        scene.work_off().await;
        scene.check("copied").await;
        assert_eq!(scene.deleted_files(), 0);
        // All that is left of one series.
        scene.delete_points(POLICY, "a", &(0..2020).map(|at| start + at).collect::<Vec<_>>());
        scene.store.partition.settle().await.unwrap();
        scene.check("a series less").await;
        scene.store.flush().await;
        scene.reopen_without_index().await;
        scene.check("the index is made from the files").await;
    });
}

#[test]
fn a_partition_is_told_of_its_own_points_alone() {
    let one = |key: String| SeriesTimes { key: key.into_bytes(), times: vec![1, 2] };
    let series: Vec<SeriesTimes> = (10..40).map(|host| one(format!("cpu,host=h{host}"))).collect();
    let command = |series: &[SeriesTimes]| Command::Delete {
        database: DATABASE,
        measurements: Measurements::Points { policy: POLICY, series: series.to_vec() },
        condition: TagCondition::All,
        min_time: 1,
        max_time: 2,
    };
    for (groups, per_group) in [(1, 1), (1, 2), (1, 16), (3, 16), (1, 256)] {
        let map = PartitionMap::new(groups, per_group).unwrap();
        let mut all: Vec<SeriesTimes> = Vec::new();
        for partition in 0..map.count() {
            let Some(part) = command(&series).of_partition(partition, &map).map(|part| part.into_owned()) else {
                continue;
            };
            let Command::Delete { measurements: Measurements::Points { series, .. }, .. } = part else { panic!() };
            all.extend(series);
        }
        all.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(all, series, "{map:?}");
    }
    assert!(Command::PLAIN_FLUSH.of_partition(3, &PartitionMap::single(16)).is_some());
}

#[test]
fn rows_behind_a_delete_are_sorted_alike_whether_it_was_settled_before_them_or_not() {
    let mut files = Vec::new();
    for is_settled in [false, true] {
        block_on(1, async {
            let mut scene = Scene::new(0).await;
            scene.write(&["a"], 1, 100..110);
            scene.delete("a", ALL);
            if is_settled {
                scene.store.partition.settle().await.unwrap();
            }
            scene.write(&["b"], 1, 50..60);
            scene.store.flush().await;
            // The floor that this raises is the newest time that was ever written.
            scene.delete("nobody", ALL);
            scene.write(&["b", "c"], 1, 80..120);
            scene.store.flush().await;
            scene.check("flushed").await;
            files.push(scene.store.tsm_files());
        });
    }
    assert_eq!(files[0], files[1]);
    assert_eq!(files[0].len(), 3);
}

/// Files of three groups; one is dropped, a series and a field of the others are deleted, a flush and two copies wait.
async fn before_removals(seed: u64) -> Scene {
    let mut scene = Scene::new(0).await;
    for group in [1, 2, 3] {
        let own = format!("h{group}");
        scene.write(&[&own, "all"], group, 0..40 + seed as i64 % 3);
        scene.store.flush().await;
    }
    scene.write(&["h2", "memory"], 2, 40..60);
    scene.drop_group(1);
    scene.delete("h3", (start_of(3), start_of(3) + 10));
    scene.delete("memory", ALL);
    scene.delete_points(POLICY, "all", &[start_of(1), start_of(2) + 3, start_of(2) + 9, start_of(3) + 39]);
    scene.drop_field("w");
    scene.decide_copy(2);
    scene.write(&["h2"], 2, 10..70);
    scene.store.command(&Command::PLAIN_FLUSH);
    scene.decide_copy(3);
    scene
}

#[test]
fn a_call_that_fails_anywhere_in_removals_copies_and_the_index_file_loses_nothing_and_brings_nothing_back() {
    let (mut struck, mut longest) = (0, 0);
    for fault in [Fault::Eio, Fault::StorageFull, Fault::ShortWrite] {
        for nth in 1.. {
            let has_ended = Executor::new(nth).block_on(async {
                let mut scene = before_removals(nth).await;
                let before = scene.store.disk.operations_total();
                scene.store.disk.fail_at(None, nth, fault);
                let context = format!("{fault:?} at call {nth}");
                let partition = scene.store.partition.clone();
                let mut failed = 0;
                for _ in 0..100 {
                    if !partition.has_copies() && !partition.has_work() {
                        break;
                    }
                    failed += usize::from(partition.maintain().await.is_err());
                    failed += usize::from(partition.copy().await.is_err());
                }
                assert!(!partition.has_copies() && !partition.has_work(), "{context}: it does not come to an end");
                let took = scene.store.disk.operations_total() - before;
                if took < nth {
                    assert_eq!(failed, 0, "{context}");
                    longest = longest.max(took);
                    return true;
                }
                struck += failed;
                check_points(&partition, &scene.model, &mut Prng::new(1), 1, &context).await;
                for crash in Crash::ALL {
                    let disk = scene.store.disk.crash(crash, nth);
                    disk.set_yields(false);
                    let partition = open(&disk, 0).await.unwrap_or_else(|error| panic!("{context} {crash:?}: {error}"));
                    replay(&partition, &scene.store.log);
                    let context = format!("{context} {crash:?}");
                    check_points(&partition, &scene.model, &mut Prng::new(2), 1, &context).await;
                }
                // Life goes on, and nothing of what was deleted comes back.
                scene.write(&["h2", "new"], 2, 70..80);
                scene.store.flush().await;
                scene.decide_copy(2);
                scene.work_off().await;
                scene.check(&context).await;
                scene.store.crash(Crash::Drop, nth).await;
                scene.check(&context).await;
                false
            });
            if has_ended {
                break;
            }
        }
    }
    println!("{struck} failed calls of up to {longest}");
    assert!(struck > 100, "{struck}");
}
