//! Deletes and drops while files are written.

use crate::{
    harness::*,
    model::{Model, Point, group_id},
};
use tidemill_column::Value;
use tidemill_disk::sim::{Crash, Executor, Prng, SimDisk};
use tidemill_store::{Applied, Command, DatabaseId, Measurements, TagCondition};

const DATABASE: u32 = 7;

fn points(series: i64, rows: i64) -> Vec<Point> {
    (0..series * rows)
        .map(|at| point("cpu", &[("host", &format!("h{}", at % series))], &[("v", Value::Float(at as f64))], at))
        .collect()
}

fn delete(condition: TagCondition, min_time: i64, max_time: i64) -> Command {
    let measurements = Measurements::Named(vec![b"cpu".to_vec()]);
    Command::Delete { database: DATABASE, measurements, condition, min_time, max_time }
}

/// Runs `meddle` at every moment of a flush, then compares, lets the flush end, compares, restarts and compares.
fn at_every_moment(meddle: impl Fn(&mut Store, &mut Model)) {
    for moment in 0..200u64 {
        let executor = Executor::new(moment);
        let ended = executor.clone().block_on(async {
            let mut store = Store::new(SimDisk::new(moment), 1 << 16).await;
            let mut model = Model::default();
            for part in [points(40, 30), points(1, 60)] {
                part.iter().for_each(|point| model.write(DATABASE, point));
                store.write(DATABASE, &part);
                store.command(&Command::PLAIN_FLUSH);
            }
            let partition = store.partition.clone();
            let flushing = executor.spawn(async move { partition.maintain().await.map(drop) });
            for _ in 0..moment * 3 {
                executor.yield_now().await;
            }
            let ended = flushing.is_done();
            meddle(&mut store, &mut model);
            let context = format!("moment {moment}");
            check_points(&store.partition, &model, &mut Prng::new(moment), 1, &context).await;
            flushing.join().await.unwrap();
            store.partition.maintain().await.unwrap();
            check_points(&store.partition, &model, &mut Prng::new(moment), 1, &context).await;
            check_index(&store.partition, &model, &[DATABASE], &context);
            store.crash(Crash::Drop, moment).await;
            store.partition.maintain().await.unwrap();
            check_points(&store.partition, &model, &mut Prng::new(moment), 1, &context).await;
            check_index(&store.partition, &model, &[DATABASE], &context);
            let left: Vec<String> = store.disk.paths();
            assert!(left.iter().all(|path| !path.ends_with(".tmp")), "{context}: {left:?}");
            ended
        });
        if ended {
            return;
        }
    }
    panic!("the flush did not end");
}

#[test]
fn a_database_is_dropped_during_a_flush() {
    at_every_moment(|store, model| {
        store.command(&Command::DropDatabase { database: DATABASE, groups: vec![group_id(DATABASE, 1)] });
        model.drop_database(DATABASE);
    });
}

#[test]
fn a_database_is_dropped_and_made_anew_during_a_flush() {
    at_every_moment(|store, model| {
        store.command(&Command::DropDatabase { database: DATABASE, groups: Vec::new() });
        model.drop_database(DATABASE);
        let part = points(3, 2);
        part.iter().for_each(|point| model.write(DATABASE, point));
        store.write(DATABASE, &part);
    });
}

#[test]
fn a_shard_group_is_dropped_and_written_again_during_a_flush() {
    at_every_moment(|store, model| {
        store.command(&Command::DropShardGroups { groups: vec![group_id(DATABASE, 1)] });
        model.drop_group(DATABASE, 1);
        let part = points(50, 2);
        part.iter().for_each(|point| model.write(DATABASE, point));
        store.write(DATABASE, &part);
    });
}

#[test]
fn points_are_deleted_during_a_flush() {
    at_every_moment(|store, model| {
        store.command(&delete(TagCondition::Equal { key: b"host".to_vec(), value: b"h3".to_vec() }, 100, 700));
        model.delete(DATABASE, |series| series.1["host"] == "h3", 100, 700);
        store.command(&delete(
            TagCondition::Equal { key: b"host".to_vec(), value: b"h4".to_vec() },
            i64::MIN,
            i64::MAX,
        ));
        model.delete(DATABASE, |series| series.1["host"] == "h4", i64::MIN, i64::MAX);
    });
}

#[test]
fn points_that_were_deleted_before_their_flush_was_done_do_not_come_back_when_the_series_does() {
    Executor::new(1).block_on(async {
        let mut store = Store::new(SimDisk::new(1), 1 << 16).await;
        let written = |host: &str, at: i64| point("cpu", &[("host", host)], &[("v", Value::Float(0.5))], at);
        store.write(DATABASE, &[written("h0", 1), written("h1", 1)]);
        store.command(&Command::PLAIN_FLUSH);
        let condition = TagCondition::Equal { key: b"host".to_vec(), value: b"h0".to_vec() };
        assert_eq!(store.command(&delete(condition, i64::MIN, i64::MAX)), Applied::Deleted);
        // The series leaves the index before the index is published with the flush.
        store.partition.settle().await.unwrap();
        store.partition.maintain().await.unwrap();
        store.crash(Crash::Drop, 1).await;
        store.write(DATABASE, &[written("h0", 2)]);
        for (host, expected) in [("h0", 2), ("h1", 1)] {
            let (series, all) = (written(host, 1).series(), (i64::MIN, i64::MAX));
            let rows = read(&store.partition, DATABASE, &[1], &series, &["v".into()], all, false).await.unwrap();
            assert_eq!(rows, [(expected, vec![Some(Value::Float(0.5))])], "{host}");
        }
    });
}

#[test]
fn a_series_that_is_written_while_it_is_settled_stays() {
    for moment in 0..60u64 {
        let executor = Executor::new(moment);
        executor.clone().block_on(async {
            let mut store = Store::new(SimDisk::new(moment), 0).await;
            let part = points(2, 20);
            store.write(DATABASE, &part);
            store.flush().await;
            // Both ends of the block survive the first delete, so that only reading tells what is left.
            store.command(&delete(TagCondition::All, 0, 20));
            assert_eq!(store.command(&delete(TagCondition::All, 15, 60)), Applied::Deleted);
            let partition = store.partition.clone();
            let settling = executor.spawn(async move { partition.settle().await.unwrap() });
            for _ in 0..moment {
                executor.yield_now().await;
            }
            store.write(DATABASE, &part[..1]);
            settling.join().await;
            store.partition.maintain().await.unwrap();
            let index = store.partition.index(DatabaseId(DATABASE)).unwrap();
            assert_eq!(index.alive_count(), 1, "moment {moment}");
        });
    }
}

#[test]
fn a_field_of_another_type_after_a_delete_is_flushed_beside_the_old_one() {
    Executor::new(1).block_on(async {
        let mut store = Store::new(SimDisk::new(1), 0).await;
        let mut model = Model::default();
        let texts = |value: &dyn Fn(i64) -> Value| -> Vec<Point> {
            (0..5)
                .map(|time| point("cpu", &[("host", "a")], &[("v", value(time)), ("w", Value::Boolean(true))], time))
                .collect()
        };
        for round in 0..3 {
            for part in [texts(&|time| Value::Float(time as f64)), texts(&|time| Value::Integer(time))] {
                store.command(&delete(TagCondition::All, i64::MIN, i64::MAX));
                model.delete(DATABASE, |_| true, i64::MIN, i64::MAX);
                part.iter().for_each(|point| model.write(DATABASE, point));
                store.write(DATABASE, &part);
                check_points(&store.partition, &model, &mut Prng::new(1), 1, "in memory").await;
            }
            store.flush().await;
            assert_eq!(store.tsm_files().len(), round + 1);
            store.partition.maintain().await.unwrap();
            check_points(&store.partition, &model, &mut Prng::new(1), 1, "in files").await;
            store.crash(Crash::Drop, 1).await;
            check_points(&store.partition, &model, &mut Prng::new(1), 1, "reopened").await;
        }
    });
}

#[test]
fn both_types_of_a_field_in_one_memtable_get_files_of_their_own() {
    Executor::new(1).block_on(async {
        let mut store = Store::new(SimDisk::new(1), 0).await;
        let mut model = Model::default();
        // Two series: one lost its floats and has integers, the other keeps its floats.
        for (host, value) in [("a", Value::Float(1.0)), ("b", Value::Float(2.0)), ("a", Value::Integer(3))] {
            if value == Value::Integer(3) {
                store.command(&delete(TagCondition::Equal { key: b"host".to_vec(), value: b"a".to_vec() }, 0, 10));
                model.delete(DATABASE, |series| series.1["host"] == "a", 0, 10);
            }
            let part = [point("cpu", &[("host", host)], &[("v", value)], 5)];
            part.iter().for_each(|point| model.write(DATABASE, point));
            store.write(DATABASE, &part);
        }
        store.flush().await;
        check_points(&store.partition, &model, &mut Prng::new(1), 1, "in files").await;
        store.crash(Crash::Drop, 1).await;
        check_points(&store.partition, &model, &mut Prng::new(1), 1, "reopened").await;
    });
}

#[test]
fn a_flush_of_nothing_moves_the_index_on_and_makes_no_file() {
    Executor::new(1).block_on(async {
        let mut store = Store::new(SimDisk::new(1), 0).await;
        store.flush().await;
        store.write(DATABASE, &points(1, 3));
        store.command(&delete(TagCondition::All, i64::MIN, i64::MAX));
        store.flush().await;
        assert_eq!(store.tsm_files().len(), 0);
        store.crash(Crash::Drop, 1).await;
        assert_eq!(store.partition.flushed().0.0, 4);
    });
}

#[test]
fn a_key_that_no_tsm_file_can_hold_does_not_stop_the_others() {
    Executor::new(1).block_on(async {
        let mut store = Store::new(SimDisk::new(1), 0).await;
        let mut model = Model::default();
        for host in ["a#!~#b", "a", "a#!~"] {
            let part = [point("cpu", &[("host", host)], &[("v", Value::Float(1.0))], 5)];
            store.write(DATABASE, &part);
            if host == "a" {
                model.write(DATABASE, &part[0]);
            }
        }
        store.flush().await;
        check_points(&store.partition, &model, &mut Prng::new(1), 1, "flushed").await;
        check_index(&store.partition, &model, &[DATABASE], "flushed");
    });
}
