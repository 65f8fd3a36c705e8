//! Calls that fail and disks that are full, at every place of a flush: nothing is lost, reads go on, a retry works.

use crate::{
    harness::*,
    model::{Model, Point},
};
use tidemill_column::Value;
use tidemill_disk::sim::{Crash, Executor, Fault, Operation, Prng, SimDisk};
use tidemill_store::{Command, MaintainError, Measurements, TagCondition};

const DATABASE: u32 = 7;

struct Scene {
    store: Store,
    model: Model,
}

/// Files, tombstones, and a flush with two runs in one group and one in another that is yet to be worked off.
async fn scene(seed: u64) -> Scene {
    let disk = SimDisk::new(seed);
    disk.set_yields(false);
    let mut scene = Scene { store: Store::new(disk, 100_000).await, model: Model::default() };
    scene.write(0..400, 1);
    scene.write(0..20, 2);
    scene.store.flush().await;
    let command = Command::Delete {
        database: DATABASE,
        measurements: Measurements::Named(vec![b"cpu".to_vec()]),
        condition: TagCondition::Equal { key: b"host".to_vec(), value: b"h1".to_vec() },
        min_time: start_of(1),
        max_time: start_of(1) + 99,
    };
    scene.store.command(&command);
    // What a look at deleted series cannot read is no matter of a flush.
    scene.store.partition.settle().await.unwrap();
    scene.model.delete(DATABASE, |series| series.1["host"] == "h1", start_of(1), start_of(1) + 99);
    scene.write(200..1200, 1);
    scene.write(20..50, 2);
    scene.store.command(&Command::PLAIN_FLUSH);
    scene
}

impl Scene {
    fn write(&mut self, times: std::ops::Range<i64>, group: u64) {
        let point_at = |time: i64| {
            // Groups have series of their own: the older group's rows are late for series that the newer one has too.
            let host = format!("{}{}", if group == 1 { 'h' } else { 'g' }, time % 3);
            let text = Value::String(format!("{}", time * time).into_bytes().into());
            point("cpu", &[("host", &host)], &[("v", Value::Integer(time * 7)), ("s", text)], start_of(group) + time)
        };
        let points: Vec<Point> = times.map(point_at).collect();
        points.iter().for_each(|point| self.model.write(DATABASE, point));
        self.store.write(DATABASE, &points);
    }

    async fn check(&self, context: &str) {
        check_points(&self.store.partition, &self.model, &mut Prng::new(1), 1, context).await;
    }
}

#[test]
fn a_call_that_fails_anywhere_in_a_flush_loses_nothing() {
    let (mut struck, mut calls) = (0, 0);
    for fault in [Fault::Eio, Fault::StorageFull, Fault::ShortWrite] {
        for nth in 1.. {
            let executor = Executor::new(nth);
            let ended = executor.block_on(async {
                let mut scene = scene(nth).await;
                let before = scene.store.disk.operations_total();
                scene.store.disk.fail_at(None, nth, fault);
                let context = format!("{fault:?} at call {nth}");
                let failed = scene.store.partition.maintain().await;
                if failed.is_ok() {
                    // A flush does nothing that may fail unnoticed.
                    let took = scene.store.disk.operations_total() - before;
                    assert!(took < nth, "{context}: it went unnoticed");
                    return true;
                }
                struck += 1;
                calls = calls.max(nth);
                let text = failed.as_ref().unwrap_err().to_string();
                assert!(text.contains(FOLDER), "{context}: {text}");
                let error = failed.unwrap_err();
                let is_read = matches!(error, MaintainError::Read(_));
                assert_eq!(error.is_disk_full(), fault == Fault::StorageFull && !is_read, "{context}: {text}");
                scene.check(&context).await;
                for crash in Crash::ALL {
                    let disk = scene.store.disk.crash(crash, nth);
                    disk.set_yields(false);
                    let partition = open(&disk, 0).await.unwrap_or_else(|error| panic!("{context} {crash:?}: {error}"));
                    replay(&partition, &scene.store.log);
                    check_points(&partition, &scene.model, &mut Prng::new(2), 2, &format!("{context} {crash:?}")).await;
                    partition.maintain().await.unwrap();
                    check_points(&partition, &scene.model, &mut Prng::new(2), 2, &format!("{context} {crash:?}")).await;
                }
                scene.write(1200..1300, 1);
                scene.check(&context).await;
                scene.store.partition.maintain().await.unwrap_or_else(|error| panic!("{context}, again: {error}"));
                scene.check(&context).await;
                scene.store.flush().await;
                scene.check(&context).await;
                scene.store.crash(Crash::Drop, nth).await;
                scene.check(&context).await;
                false
            });
            if ended {
                break;
            }
        }
    }
    println!("{struck} failed flushes, each of up to {calls} calls");
    assert!(struck > 60);
}

/// A failure behind the publication of the manifest would leave the partition with an older state than its folder: what it
/// clears away or publishes next would be of the wrong one.
#[test]
fn two_calls_that_fail_in_a_row_leave_the_folder_and_the_partition_of_one_mind() {
    let mut struck = 0;
    for first in (1..).step_by(13) {
        let mut ended = false;
        for second in 1.. {
            let is_over = Executor::new(second).block_on(async {
                let scene = scene(second).await;
                let partition = &scene.store.partition;
                let context = format!("EIO at call {first}, then at call {second}");
                scene.store.disk.fail_at(None, first, Fault::Eio);
                let tried = partition.maintain().await;
                ended = tried.is_ok();
                let before = scene.store.disk.operations_total();
                scene.store.disk.fail_at(None, second, Fault::Eio);
                let again = partition.maintain().await;
                let has_struck = scene.store.disk.operations_total() - before >= second;
                let is_unknown = |result: &Result<_, _>| matches!(result, Err(MaintainError::Manifest(_)));
                if again.is_ok() || !is_unknown(&tried) && !is_unknown(&again) {
                    let flushed = scene.store.manifest().flushed_index;
                    assert_eq!(flushed, partition.flushed().0.0, "{context}: {again:?}");
                }
                struck += u64::from(again.is_err());
                for crash in [Crash::None, Crash::Drop, Crash::Random] {
                    let disk = scene.store.disk.crash(crash, second);
                    disk.set_yields(false);
                    let partition = open(&disk, 0).await.unwrap_or_else(|error| panic!("{context} {crash:?}: {error}"));
                    replay(&partition, &scene.store.log);
                    check_points(&partition, &scene.model, &mut Prng::new(2), 4, &format!("{context} {crash:?}")).await;
                }
                !has_struck
            });
            if is_over || ended {
                break;
            }
        }
        if ended {
            break;
        }
    }
    println!("{struck} flushes that failed twice");
    assert!(struck > 60);
}

#[test]
fn a_full_disk_stops_flushes_until_there_is_room_and_keeps_nothing_of_the_attempts() {
    Executor::new(1).block_on(async {
        let mut scene = scene(1).await;
        let used = scene.store.disk.used_bytes();
        for room in (0..80).map(|blocks| blocks * 4096) {
            scene.store.disk.set_capacity(Some(used + room));
            let result = scene.store.partition.maintain().await;
            let Err(error) = result else { break };
            assert!(error.is_disk_full(), "{error}");
            scene.check("full").await;
        }
        assert!(!scene.store.partition.has_work());
        scene.check("room again").await;
        scene.store.crash(Crash::Drop, 1).await;
        scene.check("after a restart").await;
    });
}

#[test]
fn a_failed_attempt_gives_its_room_back() {
    Executor::new(1).block_on(async {
        let scene = scene(1).await;
        let used = scene.store.disk.used_bytes();
        scene.store.disk.set_capacity(Some(used + 3 * 4096));
        assert!(scene.store.partition.maintain().await.unwrap_err().is_disk_full());
        assert_eq!(scene.store.disk.used_bytes(), used);
    });
}

#[test]
fn dropping_makes_room_although_a_flush_waits_for_it() {
    Executor::new(1).block_on(async {
        let mut scene = scene(1).await;
        let used = scene.store.disk.used_bytes();
        scene.store.disk.set_capacity(Some(used + 3 * 4096));
        assert!(scene.store.partition.maintain().await.unwrap_err().is_disk_full());
        scene.store.command(&Command::DropShardGroups { groups: vec![crate::model::group_id(DATABASE, 1)] });
        scene.model.drop_group(DATABASE, 1);
        scene.store.partition.maintain().await.unwrap();
        scene.check("after the drop").await;
    });
}

#[test]
fn a_drop_for_which_the_index_has_no_room_keeps_its_file_and_loses_no_series() {
    let mut moments = 0;
    for room in 1..6 {
        Executor::new(1).block_on(async {
            let mut scene = scene(1).await;
            scene.store.disk.set_capacity(Some(scene.store.disk.used_bytes() + room * 4096));
            assert!(scene.store.partition.maintain().await.unwrap_err().is_disk_full());
            scene.store.command(&Command::DropShardGroups { groups: vec![crate::model::group_id(DATABASE, 1)] });
            scene.model.drop_group(DATABASE, 1);
            let _ = scene.store.partition.maintain().await;
            scene.store.crash(Crash::Drop, room).await;
            // It knows the newest times of the files that went: a row is late here if it is on other nodes.
            assert!(!scene.store.partition.index_was_rebuilt(), "{room} blocks");
            let behind = scene.store.manifest().index.is_some_and(|index| index.is_behind);
            moments += usize::from(behind);
            scene.store.disk.set_capacity(None);
            scene.store.partition.maintain().await.unwrap();
            scene.store.partition.settle().await.unwrap();
            scene.check("after a restart").await;
            check_index(&scene.store.partition, &scene.model, &[DATABASE], "after a restart");
            assert!(!scene.store.manifest().index.unwrap().is_behind);
        });
    }
    assert!(moments > 0);
}

/// Where nothing can be written, not even a manifest: without it the files that are to make room could not go.
#[test]
fn a_drop_on_a_disk_without_a_free_block_makes_room_and_keeps_the_index_whenever_the_power_fails() {
    let group = crate::model::group_id(DATABASE, 1);
    for crash in Crash::ALL {
        for nth in 1.. {
            let ended = Executor::new(nth).block_on(async {
                let mut scene = scene(nth).await;
                scene.store.disk.set_capacity(Some(scene.store.disk.used_bytes()));
                assert!(scene.store.partition.maintain().await.unwrap_err().is_disk_full());
                scene.store.command(&Command::DropShardGroups { groups: vec![group] });
                scene.model.drop_group(DATABASE, 1);
                let before = scene.store.disk.operations_total();
                scene.store.disk.crash_at(nth);
                let result = scene.store.partition.maintain().await;
                let ended = scene.store.disk.operations_total() - before < nth;
                let context = format!("{crash:?} at call {nth}");
                if ended {
                    assert!(result.as_ref().err().is_none_or(MaintainError::is_disk_full), "{result:?}");
                    let files = scene.store.manifest().files;
                    assert!(!files.is_empty() && files.iter().all(|file| file.shard_group != group));
                }
                scene.store.crash(crash, nth).await;
                assert!(!scene.store.partition.index_was_rebuilt(), "{context}");
                scene.check(&context).await;
                // Still without a free block.
                let _ = scene.store.partition.maintain().await;
                let files = scene.store.manifest().files;
                assert!(files.iter().all(|file| file.shard_group != group), "{context}");
                scene.store.disk.set_capacity(None);
                scene.store.partition.maintain().await.unwrap();
                scene.store.partition.settle().await.unwrap();
                scene.check(&context).await;
                check_index(&scene.store.partition, &scene.model, &[DATABASE], &context);
                ended
            });
            if ended {
                assert!(nth > 10);
                break;
            }
        }
    }
}

#[test]
fn what_a_start_removes_on_the_word_of_a_manifest_is_not_named_after_a_power_loss() {
    for seed in 0..40 {
        Executor::new(seed).block_on(async {
            let mut scene = scene(seed).await;
            scene.store.command(&Command::DropShardGroups { groups: vec![crate::model::group_id(DATABASE, 1)] });
            scene.model.drop_group(DATABASE, 1);
            // The manifest without the files has its name, and the process ends before that is durable.
            scene.store.disk.fail_at(Some(Operation::SyncDir), 1, Fault::Eio);
            assert!(scene.store.partition.maintain().await.is_err());
            let killed = scene.store.disk.clone();
            scene.store.reopen(killed).await;
            scene.store.crash(Crash::Random, seed).await;
            scene.check("after a kill and a power loss").await;
        });
    }
}

#[test]
fn an_open_that_fails_names_the_file_and_works_the_next_time() {
    let executor = Executor::new(3);
    executor.block_on(async {
        let scene = scene(3).await;
        scene.store.partition.maintain().await.unwrap();
        let mut rebuilt = 0;
        for nth in 1.. {
            let disk = scene.store.disk.crash(Crash::Drop, nth);
            disk.set_yields(false);
            disk.fail_at(None, nth, Fault::Eio);
            match open(&disk, 0).await {
                // A call that failed on the index: it is made from the files.
                Ok(partition) if partition.index_was_rebuilt() => rebuilt += 1,
                Ok(_) => {
                    assert!(nth > 10 && rebuilt > 1, "{nth} {rebuilt}");
                    break;
                }
                Err(error) => assert!(error.to_string().contains(FOLDER), "{error}"),
            }
            let partition = open(&disk, 0).await.unwrap();
            replay(&partition, &scene.store.log);
            check_points(&partition, &scene.model, &mut Prng::new(2), 1, "reopened").await;
        }
    });
}
