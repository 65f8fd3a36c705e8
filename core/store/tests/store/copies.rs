//! Files that move to the next level, and what meets them on the way.

use crate::{
    harness::*,
    model::{Model, Point, group_id},
};
use std::{cell::Cell, rc::Rc};
use tidemill_column::Value;
use tidemill_disk::sim::{Crash, Executor, Fault, Prng, SimDisk, block_on};
use tidemill_store::{Command, CopyFigures, CopyOrder, Floats, Manifest, Measurements, TagCondition};

const DATABASE: u32 = 7;
const ALL: (i64, i64) = (i64::MIN, i64::MAX);

struct Scene {
    store: Store,
    model: Model,
}

fn points(hosts: i64, times: impl Iterator<Item = i64>, value: &dyn Fn(i64) -> Value) -> Vec<Point> {
    let at = |time: i64| (0..hosts).map(move |host| (time, host));
    times
        .flat_map(at)
        .map(|(time, host)| point("cpu", &[("host", &format!("h{host}"))], &[("v", value(time * 10 + host))], time))
        .collect()
}

impl Scene {
    async fn new(seed: u64) -> Scene {
        let disk = SimDisk::new(seed);
        disk.set_yields(seed != 0);
        Scene { store: Store::new(disk, 1 << 16).await, model: Model::default() }
    }

    fn write(&mut self, points: &[Point]) {
        points.iter().for_each(|point| self.model.write(DATABASE, point));
        self.store.write(DATABASE, points);
    }

    async fn flushed(&mut self, points: &[Point]) {
        self.write(points);
        self.store.flush().await;
    }

    fn delete(&mut self, host: Option<&str>, (min_time, max_time): (i64, i64)) {
        let condition = match host {
            Some(host) => TagCondition::Equal { key: b"host".to_vec(), value: host.as_bytes().to_vec() },
            None => TagCondition::All,
        };
        let measurements = Measurements::Named(vec![b"cpu".to_vec()]);
        self.store.command(&Command::Delete { database: DATABASE, measurements, condition, min_time, max_time });
        let covers = |series: &crate::model::Series| host.is_none_or(|host| series.1["host"] == host);
        self.model.delete(DATABASE, covers, min_time, max_time);
    }

    fn decide(&mut self, change: impl FnOnce(&mut CopyOrder)) {
        let through = self.store.log.len() as u64 + 1;
        let mut order = CopyOrder {
            shard_group: group_id(DATABASE, 1),
            ordered_through: through,
            late_through: through,
            sealed: Vec::new(),
            with_deleted: true,
            floats: Floats::Gorilla,
            file_bytes_max: 1 << 30,
        };
        change(&mut order);
        self.store.command(&Command::Copy(order));
    }

    /// Makes every copy that is decided, and removes what they took.
    async fn settle(&self) {
        while self.store.partition.has_copies() || self.store.partition.has_work() {
            self.store.partition.maintain().await.unwrap();
            self.store.partition.copy().await.unwrap();
        }
    }

    async fn copied(&mut self, change: impl FnOnce(&mut CopyOrder)) -> CopyFigures {
        let before = self.figures();
        self.decide(change);
        self.settle().await;
        let after = self.figures();
        CopyFigures {
            copies: after.copies - before.copies,
            files_read: after.files_read - before.files_read,
            files_written: after.files_written - before.files_written,
            blocks_copied: after.blocks_copied - before.blocks_copied,
            blocks_merged: after.blocks_merged - before.blocks_merged,
            blocks_joined: after.blocks_joined - before.blocks_joined,
            blocks_vanished: after.blocks_vanished - before.blocks_vanished,
            ..after
        }
    }

    fn figures(&self) -> CopyFigures {
        self.store.partition.figures().copies
    }

    async fn check(&self, context: &str) {
        check_points(&self.store.partition, &self.model, &mut Prng::new(1), 1, context).await;
    }

    async fn check_restarted(&mut self, context: &str) {
        self.check(context).await;
        self.store.crash(Crash::Drop, 1).await;
        self.check(&format!("{context}, restarted")).await;
    }
}

fn float(number: i64) -> Value {
    Value::Float((number.wrapping_mul(0x9e37_79b9) % 8191) as f64 * 0.1)
}

#[test]
fn blocks_that_nothing_overlaps_go_along_as_they_are() {
    block_on(1, async {
        let mut scene = Scene::new(0).await;
        let mut blocks = Vec::new();
        for part in 0..3 {
            scene.flushed(&points(2, part * 900..part * 900 + 900, &float)).await;
        }
        for content in scene.store.tsm_files().values() {
            let file = tidemill_tsm::file::FileBytes::open(content).unwrap();
            let entries: Vec<_> = file.index.iter().flat_map(|key| key.entries.iter()).collect();
            blocks.extend(entries.iter().map(|entry| file.block(entry).unwrap().to_vec()));
        }
        let figures = scene.copied(|_| {}).await;
        assert_eq!((figures.files_read, figures.files_written, figures.blocks_copied), (3, 1, 6));
        assert_eq!((figures.blocks_merged, figures.blocks_joined), (0, 0));
        let files = scene.store.tsm_files();
        let content = files.values().next().unwrap();
        let file = tidemill_tsm::file::FileBytes::open(content).unwrap();
        let mut copied = Vec::new();
        for key in file.index.iter() {
            copied.extend(key.entries.iter().map(|entry| file.block(&entry).unwrap().to_vec()));
        }
        blocks.sort();
        copied.sort();
        assert_eq!(copied, blocks);
        assert!(file.statistics.is_some());
        let record = &scene.store.manifest().files[0];
        assert_eq!((record.level, record.hash), (2, *blake3::hash(content).as_bytes()));
        scene.check_restarted("copied").await;
    });
}

#[test]
fn a_late_run_has_only_the_blocks_decoded_that_its_points_lie_in() {
    block_on(1, async {
        let mut scene = Scene::new(0).await;
        scene.flushed(&points(1, (0..20_000).map(|time| time * 4), &float)).await;
        scene.copied(|_| {}).await;
        // Two points far from each other, in one late block; and one between two blocks.
        scene.flushed(&points(1, [4 * 1500 + 1, 4 * 999 + 1, 4 * 17_500].into_iter(), &|_| Value::Float(-1.0))).await;
        let figures = scene.copied(|_| {}).await;
        assert_eq!((figures.files_read, figures.files_written), (2, 1));
        assert_eq!((figures.blocks_merged, figures.blocks_copied), (3, 18));
        scene.check_restarted("merged").await;
    });
}

#[test]
fn a_late_run_rewrites_only_the_sealed_files_that_it_touches() {
    block_on(1, async {
        let mut scene = Scene::new(0).await;
        scene.flushed(&points(8, 0..2000, &float)).await;
        let figures = scene.copied(|order| order.file_bytes_max = 1).await;
        assert_eq!(figures.files_written, 8);
        let before = scene.store.tsm_files();
        scene.flushed(&[point("cpu", &[("host", "h3")], &[("v", Value::Float(9.0))], 700)]).await;
        let figures = scene.copied(|order| order.file_bytes_max = 1).await;
        assert_eq!((figures.files_read, figures.files_written), (2, 1));
        let after = scene.store.tsm_files();
        assert_eq!(before.keys().filter(|path| after.contains_key(*path)).count(), 7);
        scene.check_restarted("touched").await;
        let figures = scene.copied(|order| order.sealed = (0..100).collect()).await;
        assert_eq!((figures.files_read, figures.files_written), (8, 1));
        scene.check_restarted("all together").await;
    });
}

#[test]
fn small_blocks_are_joined_to_full_ones() {
    block_on(1, async {
        let mut scene = Scene::new(0).await;
        for part in 0..30 {
            scene.flushed(&points(3, part * 100..part * 100 + 100, &float)).await;
        }
        let figures = scene.copied(|_| {}).await;
        assert_eq!((figures.blocks_joined, figures.blocks_copied, figures.blocks_merged), (90, 0, 0));
        let files = scene.store.tsm_files();
        let file = tidemill_tsm::file::FileBytes::open(files.values().next().unwrap()).unwrap();
        assert_eq!(file.index.block_count(), 9);
        scene.check_restarted("joined").await;
        assert_eq!(scene.copied(|_| {}).await.files_read, 0);
    });
}

#[test]
fn deleted_points_give_their_space_back() {
    block_on(1, async {
        let mut scene = Scene::new(0).await;
        scene.flushed(&points(4, 0..5000, &float)).await;
        scene.copied(|_| {}).await;
        let full = scene.store.disk.used_bytes();
        scene.delete(Some("h1"), ALL);
        scene.delete(Some("h2"), (1500, 3499));
        let figures = scene.copied(|order| order.with_deleted = false).await;
        assert_eq!(figures.files_read, 0);
        scene.check_restarted("marked").await;
        let figures = scene.copied(|_| {}).await;
        assert_eq!((figures.files_read, figures.blocks_vanished, figures.blocks_merged), (1, 6, 2));
        assert!(scene.store.disk.used_bytes() < full * 3 / 4);
        assert!(scene.store.manifest().files.iter().all(|file| file.tombstones.is_empty()));
        scene.check_restarted("reclaimed").await;
        scene.delete(None, ALL);
        scene.copied(|_| {}).await;
        assert_eq!(scene.store.tsm_files().len(), 0);
        scene.check_restarted("emptied").await;
    });
}

#[test]
fn a_delete_behind_the_copy_is_carried_over_and_one_before_it_is_not_again_after_a_replay() {
    block_on(1, async {
        let mut scene = Scene::new(0).await;
        scene.flushed(&points(3, 0..2000, &float)).await;
        scene.delete(Some("h0"), (0, 10));
        scene.decide(|_| {});
        scene.delete(Some("h1"), (5, 600));
        scene.settle().await;
        let index = scene.store.log.len() as u64;
        for round in 0..2 {
            let records = scene.store.manifest().files;
            assert_eq!(records.len(), 1);
            let carried: Vec<u64> = records[0].tombstones.iter().map(|tombstone| tombstone.index).collect();
            assert_eq!(carried, [index], "round {round}");
            scene.check_restarted("carried over").await;
            scene.store.flush().await;
        }
    });
}

#[test]
fn a_copy_that_is_decided_survives_a_restart_without_its_entry() {
    block_on(1, async {
        let mut scene = Scene::new(0).await;
        scene.flushed(&points(3, 0..1000, &float)).await;
        scene.decide(|_| {});
        scene.flushed(&points(3, 1000..2000, &float)).await;
        assert!(scene.store.partition.flushed().0.0 > scene.store.manifest().copies[0].index);
        scene.store.crash(Crash::Drop, 1).await;
        assert!(scene.store.partition.has_copies());
        scene.settle().await;
        assert_eq!(scene.figures().files_read, 1);
        assert_eq!(scene.store.manifest().copies, []);
        scene.check_restarted("copied after all").await;
        assert!(!scene.store.partition.has_copies());
    });
}

#[test]
fn a_field_that_changed_its_type_is_copied_with_both() {
    block_on(1, async {
        let mut scene = Scene::new(0).await;
        let host = |host: &str, value: Value, time| point("cpu", &[("host", host)], &[("v", value)], time);
        scene.flushed(&[host("a", Value::Float(1.0), 5), host("b", Value::Float(2.0), 5)]).await;
        scene.flushed(&[host("a", Value::Float(1.5), 4), host("c", Value::Float(2.0), 5)]).await;
        scene.delete(Some("a"), ALL);
        scene.flushed(&[host("a", Value::Integer(3), 6), host("a", Value::Integer(4), 5)]).await;
        scene.check("before").await;
        scene.copied(|_| {}).await;
        scene.check_restarted("after").await;
        // Both types of one key at one time: the newer stays.
        scene.model.delete(DATABASE, |series| series.1["host"] == "c", 5, 5);
        scene.flushed(&[host("c", Value::Integer(3), 5), host("c", Value::Integer(3), 6)]).await;
        scene.copied(|order| order.sealed = (0..100).collect()).await;
        assert_eq!(scene.store.manifest().files.iter().map(|file| file.points).sum::<u64>(), 5);
        scene.check_restarted("both").await;
    });
}

/// Ordered and late runs, blocks that stay, merge and vanish, and a copy that is decided.
async fn before_copy(seed: u64) -> Scene {
    let mut scene = Scene::new(seed).await;
    scene.flushed(&points(3, 0..1100, &float)).await;
    scene.copied(|order| order.file_bytes_max = 1).await;
    scene.flushed(&points(3, 1100..1300, &float)).await;
    scene.flushed(&points(1, (90..95).chain(1250..1350), &|_| Value::Float(-2.0))).await;
    scene.delete(Some("h2"), (500, 1150));
    scene.decide(|order| order.file_bytes_max = 1);
    scene
}

/// Runs `meddle` at every moment of a copy, then compares, lets everything end, compares, restarts and compares.
fn at_every_moment(meddle: impl Fn(&mut Scene)) {
    for moment in 0..400u64 {
        let executor = Executor::new(moment);
        let ended = executor.clone().block_on(async {
            let mut scene = before_copy(moment + 1).await;
            let partition = scene.store.partition.clone();
            let copying = executor.spawn(async move { partition.copy().await.map(drop) });
            for _ in 0..moment * 3 {
                executor.yield_now().await;
            }
            let ended = copying.is_done();
            meddle(&mut scene);
            let context = format!("moment {moment}");
            scene.check(&context).await;
            copying.join().await.unwrap();
            scene.check(&context).await;
            scene.settle().await;
            scene.check(&context).await;
            check_index(&scene.store.partition, &scene.model, &[DATABASE], &context);
            scene.store.crash(Crash::Drop, moment).await;
            scene.settle().await;
            scene.check(&context).await;
            check_index(&scene.store.partition, &scene.model, &[DATABASE], &context);
            let known: Vec<String> = scene.store.manifest().files.iter().map(|file| file.name()).collect();
            for path in scene.store.disk.paths() {
                let is_known = known.iter().any(|name| path.ends_with(name)) || path.ends_with("/manifest");
                assert!(is_known || !path.contains(".t"), "{context}: {path} is left over");
            }
            ended
        });
        if ended {
            return;
        }
    }
    panic!("the copy did not end");
}

#[test]
fn points_are_deleted_and_written_during_a_copy() {
    at_every_moment(|scene| {
        scene.delete(Some("h1"), (200, 1220));
        scene.write(&points(3, 300..320, &|_| Value::Float(-3.0)));
        scene.store.command(&Command::PLAIN_FLUSH);
        scene.delete(None, (310, 312));
    });
}

#[test]
fn a_flush_ends_while_a_copy_goes_on() {
    let mut ended_first = 0;
    for moment in 0..40u64 {
        let executor = Executor::new(moment);
        executor.clone().block_on(async {
            let mut scene = before_copy(moment + 1).await;
            let partition = scene.store.partition.clone();
            let copying = executor.spawn(async move { partition.copy().await.map(drop) });
            for _ in 0..moment {
                executor.yield_now().await;
            }
            scene.flushed(&points(4, 1290..1400, &|_| Value::Float(-3.0))).await;
            ended_first += u64::from(!copying.is_done());
            scene.check("flushed").await;
            copying.join().await.unwrap();
            scene.settle().await;
            scene.check_restarted("both").await;
        });
    }
    assert!(ended_first > 0, "{ended_first}");
}

#[test]
fn the_shard_group_is_dropped_and_written_again_during_a_copy() {
    at_every_moment(|scene| {
        scene.store.command(&Command::DropShardGroups { groups: vec![group_id(DATABASE, 1)] });
        scene.model.drop_group(DATABASE, 1);
        scene.write(&points(2, 0..30, &float));
        scene.store.command(&Command::PLAIN_FLUSH);
        scene.decide(|_| {});
    });
}

#[test]
fn the_database_is_dropped_during_a_copy() {
    at_every_moment(|scene| {
        scene.store.command(&Command::DropDatabase { database: DATABASE, groups: Vec::new() });
        scene.model.drop_database(DATABASE);
    });
}

#[test]
fn another_copy_of_the_group_waits() {
    at_every_moment(|scene| {
        scene.write(&points(3, 1000..1020, &|_| Value::Float(-4.0)));
        scene.store.command(&Command::PLAIN_FLUSH);
        scene.decide(|order| order.sealed = (0..1000).collect());
        scene.decide(|_| {});
    });
}

#[test]
fn a_halted_copy_is_made_after_the_next_start() {
    for moment in 0..60u64 {
        let executor = Executor::new(moment);
        executor.clone().block_on(async {
            let mut scene = before_copy(moment + 1).await;
            let partition = scene.store.partition.clone();
            let copying = executor.spawn(async move { partition.copy().await.map(drop) });
            for _ in 0..moment {
                executor.yield_now().await;
            }
            scene.store.partition.halt_copies();
            copying.join().await.unwrap();
            scene.store.flush().await;
            scene.store.crash(Crash::Drop, moment).await;
            scene.settle().await;
            scene.check_restarted(&format!("moment {moment}")).await;
            assert_eq!(scene.store.manifest().copies, []);
        });
    }
}

#[test]
fn a_power_loss_at_any_point_of_a_copy_leaves_the_old_or_the_new() {
    block_on(1, async {
        let scene = before_copy(0).await;
        let log = scene.store.log.clone();
        let model = Rc::new(scene.model.clone());
        let crashes = Rc::new(Cell::new(0));
        let counted = crashes.clone();
        scene.store.disk.observe(move |disk, operation| {
            for crash in Crash::ALL {
                let after = disk.crash(crash, counted.get());
                after.set_yields(false);
                counted.set(counted.get() + 1);
                block_on(2, async {
                    let context = format!("{operation:?}, {crash:?}");
                    let partition = open(&after, 0).await.unwrap_or_else(|error| panic!("{context}: {error}"));
                    replay(&partition, &log);
                    check_points(&partition, &model, &mut Prng::new(2), 2, &context).await;
                    while partition.has_copies() || partition.has_work() {
                        partition.maintain().await.unwrap();
                        partition.copy().await.unwrap();
                    }
                    check_points(&partition, &model, &mut Prng::new(3), 2, &format!("{context}, copied")).await;
                });
            }
        });
        scene.settle().await;
        scene.store.disk.stop_observing();
        println!("{} crashes", crashes.get());
        assert!(crashes.get() > 100);
    });
}

#[test]
fn a_call_that_fails_anywhere_in_a_copy_loses_nothing_and_keeps_no_room() {
    let mut failed = 0;
    for fault in [Fault::Eio, Fault::StorageFull, Fault::ShortWrite] {
        for nth in 1..1000 {
            let ended = Executor::new(nth).block_on(async {
                let mut scene = before_copy(0).await;
                let used = scene.store.disk.used_bytes();
                let before = scene.store.disk.operations_total();
                scene.store.disk.fail_at(None, nth, fault);
                let context = format!("{fault:?} at call {nth}");
                let Err(error) = scene.store.partition.copy().await else {
                    let took = scene.store.disk.operations_total() - before;
                    assert!(took < nth, "{context}: it went unnoticed");
                    return true;
                };
                failed += 1;
                assert!(error.to_string().contains(FOLDER), "{context}: {error}");
                scene.check(&context).await;
                let path = format!("{FOLDER}/manifest");
                let names_new =
                    Manifest::decode(&scene.store.disk.content(&path).unwrap(), &path).unwrap().copies.is_empty();
                assert!(names_new || scene.store.disk.used_bytes() <= used + (8 << 10), "{context}");
                for crash in Crash::ALL {
                    let disk = scene.store.disk.crash(crash, nth);
                    disk.set_yields(false);
                    let partition = open(&disk, 0).await.unwrap_or_else(|error| panic!("{context} {crash:?}: {error}"));
                    replay(&partition, &scene.store.log);
                    check_points(&partition, &scene.model, &mut Prng::new(2), 3, &format!("{context} {crash:?}")).await;
                }
                // Flushes go on beside the copy that failed.
                scene.flushed(&points(3, 1400..1410, &float)).await;
                scene.settle().await;
                scene.check_restarted(&context).await;
                false
            });
            if ended {
                break;
            }
        }
    }
    println!("{failed} failed copies");
    assert!(failed > 60);
}

#[test]
fn rows_in_the_place_of_deleted_ones_go_to_the_same_run_whether_the_node_was_started_since_or_not() {
    block_on(1, async {
        let mut files = Vec::new();
        for restarts in [false, true] {
            let mut scene = Scene::new(0).await;
            scene.flushed(&points(2, 0..100, &float)).await;
            scene.delete(None, (50, 99));
            scene.copied(|_| {}).await;
            scene.store.flush().await;
            if restarts {
                scene.store.crash(Crash::Drop, 1).await;
            }
            scene.flushed(&points(2, 70..130, &|_| Value::Float(-1.0))).await;
            scene.check_restarted("written again").await;
            files.push(scene.store.tsm_files());
        }
        assert_eq!(files[0], files[1]);
    });
}
