//! Rot in TSM files and the manifest: an error that names the place, never a wrong value (D5).

use crate::{
    harness::*,
    model::{Model, Point, Series, group_id},
};
use tidemill_column::Value;
use tidemill_disk::sim::{Crash, Prng, SimDisk, block_on};
use tidemill_store::{Command, CopyOrder, Floats, Measurements, TagCondition};

const DATABASE: u32 = 3;

fn fields(number: i64) -> Vec<(&'static str, Value)> {
    vec![
        ("f", Value::Float(number as f64 * 0.5)),
        ("i", Value::Integer(-number)),
        ("uns", Value::Unsigned(number as u64 * 3)),
        ("b", Value::Boolean(number % 2 == 0)),
        ("s", Value::String(format!("text {number}").into_bytes().into())),
    ]
}

/// A partition with an ordered and a late file.
async fn small() -> (Store, Model) {
    let disk = SimDisk::new(1);
    disk.set_yields(false);
    let mut store = Store::new(disk, 1 << 20).await;
    let mut model = Model::default();
    let mut write = async |store: &mut Store, times: &[i64], floats: Floats| {
        let points: Vec<Point> = times
            .iter()
            .flat_map(|time| ["a", "b"].map(|host| point("cpu", &[("host", host)], &fields(*time), *time)))
            .collect();
        points.iter().for_each(|point| model.write(DATABASE, point));
        store.write(DATABASE, &points);
        store.command(&Command::Flush { floats });
        store.partition.maintain().await.unwrap();
    };
    write(&mut store, &[10, 20, 30], Floats::Gorilla).await;
    write(&mut store, &[15, 20, 40], Floats::Alp).await;
    assert_eq!(store.tsm_files().len(), 3);
    (store, model)
}

/// A partition whose files were sealed by a copy, one of merged and one of copied blocks, with deletes that only the
/// manifest knows and a newer file above.
async fn sealed() -> (Store, Model) {
    let (mut store, mut model) = small().await;
    let copy = async |store: &mut Store, floats: Floats| {
        let through = store.log.len() as u64 + 1;
        let order = CopyOrder {
            shard_group: group_id(DATABASE, 1),
            ordered_through: through,
            late_through: through,
            sealed: Vec::new(),
            with_deleted: false,
            floats,
            file_bytes_max: 1 << 30,
        };
        store.command(&Command::Copy(order));
        while store.partition.has_copies() || store.partition.has_work() {
            store.partition.maintain().await.unwrap();
            store.partition.copy().await.unwrap();
        }
    };
    let mut flush = async |store: &mut Store, time: i64| {
        let points = ["a", "b"].map(|host| point("cpu", &[("host", host)], &fields(time), time));
        points.iter().for_each(|point| model.write(DATABASE, point));
        store.write(DATABASE, &points);
        store.flush().await;
    };
    copy(&mut store, Floats::Alp).await;
    flush(&mut store, 60).await;
    copy(&mut store, Floats::Gorilla).await;
    let condition = TagCondition::Equal { key: b"host".to_vec(), value: b"a".to_vec() };
    let (measurements, database) = (Measurements::Named(vec![b"cpu".to_vec()]), DATABASE);
    store.command(&Command::Delete { database, measurements, condition, min_time: 20, max_time: 20 });
    flush(&mut store, 70).await;
    model.delete(DATABASE, |series| series.1["host"] == "a", 20, 20);
    let manifest = store.manifest();
    let levels: Vec<u8> = manifest.files.iter().map(|file| file.level).collect();
    assert_eq!(levels, [2, 2, 1]);
    assert!(manifest.files.iter().any(|file| !file.tombstones.is_empty()));
    (store, model)
}

/// Reads everything; `Ok(true)` if something could not be read.
async fn damage_shows(disk: &SimDisk, store: &Store, model: &Model, path: &str) -> bool {
    let partition = match open(disk, 1 << 20).await {
        Ok(partition) => partition,
        Err(error) => {
            assert!(error.to_string().contains(path), "{error}");
            return true;
        }
    };
    replay(&partition, &store.log);
    let names: Vec<String> = ["f", "i", "uns", "b", "s"].map(String::from).to_vec();
    let mut shows = false;
    for (_, series) in &model.seen {
        for name in &names {
            let one = std::slice::from_ref(name);
            let range = (i64::MIN, i64::MAX);
            let expected = model.rows(DATABASE, &GROUPS, series, one, range);
            let rows = read(&partition, DATABASE, &GROUPS, series, one, range, false).await;
            let place = (DATABASE, &GROUPS[..], series);
            let summaries = check_summaries(&partition, place, one, (range, false), &expected, &mut || true).await;
            for error in [rows.as_ref().err(), summaries.as_ref().err()].into_iter().flatten() {
                let text = error.to_string();
                assert!(text.contains(path) && text.contains("offset"), "{text}");
                shows = true;
            }
            if let Ok(rows) = rows {
                assert_eq!(rows, expected, "{path}");
            }
        }
    }
    shows
}

#[test]
fn every_flipped_bit_of_a_file_is_an_error_that_names_it() {
    block_on(1, async {
        for (store, model) in [small().await, sealed().await] {
            let paths: Vec<String> = store.disk.paths();
            assert!(paths.iter().any(|path| path.ends_with("manifest")));
            let mut flips = 0;
            for path in paths.into_iter().filter(|path| !path.contains("/index-") && !path.ends_with("/spare")) {
                let bytes = store.disk.content(&path).unwrap().len();
                for bit in 0..bytes * 8 {
                    let disk = store.disk.crash(Crash::None, 0);
                    disk.set_yields(false);
                    disk.flip_bit(&path, bit / 8, (bit % 8) as u8);
                    assert!(damage_shows(&disk, &store, &model, &path).await, "{path}: bit {bit} changes nothing");
                    flips += 1;
                }
            }
            println!("{flips} flips");
        }
    });
}

#[test]
fn the_scrub_finds_every_flipped_bit_and_nothing_else() {
    block_on(1, async {
        let (store, _) = small().await;
        let everything = async |disk: &SimDisk| {
            let Ok(partition) = open(disk, 1 << 20).await else { return None };
            let (mut findings, mut bytes, mut sizes) = (Vec::new(), 0, 0);
            for record in partition.file_records() {
                let scrubbed = partition
                    .scrub(&record, &mut async |read| {
                        bytes += read;
                        true
                    })
                    .await;
                assert!(scrubbed.is_complete || !scrubbed.findings.is_empty());
                findings.extend(scrubbed.findings.iter().map(ToString::to_string));
                sizes += record.size;
            }
            Some((findings, bytes, sizes))
        };
        let (findings, bytes, sizes) = everything(&store.disk).await.unwrap();
        assert!(findings.is_empty() && bytes == sizes, "{findings:?} {bytes} {sizes}");
        for (path, content) in store.tsm_files() {
            for bit in (0..content.len() * 8).step_by(3) {
                let disk = store.disk.crash(Crash::None, 0);
                disk.set_yields(false);
                disk.flip_bit(&path, bit / 8, (bit % 8) as u8);
                // What shows when the file is opened need not be looked for.
                let Some((findings, ..)) = everything(&disk).await else { continue };
                assert!(!findings.is_empty(), "{path}: bit {bit}");
                assert!(findings.iter().all(|finding| finding.contains(&path)), "{findings:?}");
            }
        }
    });
}

#[test]
fn a_file_that_was_cut_lost_or_swapped_is_an_error() {
    block_on(1, async {
        let (store, model) = small().await;
        let files = store.tsm_files();
        for (path, content) in &files {
            for cut in (0..content.len()).step_by(7) {
                let disk = store.disk.crash(Crash::None, 0);
                disk.set_yields(false);
                disk.lose(path);
                disk.plant(path, content[..cut].to_vec());
                assert!(damage_shows(&disk, &store, &model, path).await, "{path} cut at {cut}");
            }
            let disk = store.disk.crash(Crash::None, 0);
            disk.lose(path);
            assert!(damage_shows(&disk, &store, &model, path).await);
            for other in files.keys().filter(|other| *other != path) {
                let disk = store.disk.crash(Crash::None, 0);
                disk.lose(path);
                disk.plant(path, files[other].clone());
                assert!(damage_shows(&disk, &store, &model, path).await, "{other} in the place of {path}");
            }
        }
    });
}

#[test]
fn a_file_that_shrinks_while_it_is_open_is_an_error() {
    block_on(1, async {
        let disk = SimDisk::new(1);
        let mut store = Store::new(disk, 0).await;
        let points: Vec<Point> = (0..90_000i64)
            .map(|time| {
                point("cpu", &[], &[("v", Value::Float((time.wrapping_mul(0x9e37_79b9) % 8191) as f64 * 0.1))], time)
            })
            .collect();
        store.write(DATABASE, &points);
        store.flush().await;
        let series: Series = ("cpu".into(), Default::default());
        let path = store.tsm_files().into_keys().next().unwrap();
        let file = tidemill_disk::Disk::open(&store.disk, &path, tidemill_disk::Purpose::Data).await.unwrap();
        let names = ["v".to_string()];
        for left in [300_000, 65_536, 70_000, 4096, 0] {
            tidemill_disk::DiskFile::set_len(&file, left).await.unwrap();
            let result = read(&store.partition, DATABASE, &GROUPS, &series, &names, (0, i64::MAX), false).await;
            let text = result.unwrap_err().to_string();
            assert!(text.contains(&path), "{text}");
        }
    });
}

/// Opens, replays and compares everything that the index and the points say. Whether the index was made anew.
async fn reopened_whole(disk: &SimDisk, store: &Store, model: &Model, context: &str) -> bool {
    let partition = open(disk, 1 << 20).await.unwrap();
    let was_rebuilt = partition.index_was_rebuilt();
    replay(&partition, &store.log);
    partition.maintain().await.unwrap();
    check_index(&partition, model, &[DATABASE], context);
    check_points(&partition, model, &mut Prng::new(1), 1, context).await;
    was_rebuilt
}

#[test]
fn a_damaged_lost_or_foreign_index_is_made_anew_from_the_files() {
    block_on(1, async {
        let (mut store, model) = small().await;
        let path = store.disk.paths().into_iter().find(|path| path.contains("/index-")).unwrap();
        let content = store.disk.content(&path).unwrap();
        let pristine = store.disk.crash(Crash::None, 0);
        pristine.set_yields(false);
        assert!(!reopened_whole(&pristine, &store, &model, "sound").await);
        // Every bit on its own: core/index.
        for bit in (0..content.len() * 8).step_by(331) {
            let disk = store.disk.crash(Crash::None, 0);
            disk.set_yields(false);
            disk.flip_bit(&path, bit / 8, (bit % 8) as u8);
            assert!(reopened_whole(&disk, &store, &model, &format!("bit {bit}")).await);
        }
        for cut in (0..content.len()).step_by(911) {
            let disk = store.disk.crash(Crash::None, 0);
            disk.set_yields(false);
            disk.lose(&path);
            disk.plant(&path, content[..cut].to_vec());
            assert!(reopened_whole(&disk, &store, &model, &format!("cut at {cut}")).await);
        }
        let disk = store.disk.crash(Crash::None, 0);
        disk.set_yields(false);
        disk.lose(&path);
        assert!(reopened_whole(&disk, &store, &model, "lost").await);
        // What lies behind the part that the manifest names is nothing.
        let disk = store.disk.crash(Crash::None, 0);
        disk.set_yields(false);
        disk.lose(&path);
        disk.plant(&path, [content.clone(), vec![7; 5_000]].concat());
        assert!(!reopened_whole(&disk, &store, &model, "garbage behind").await);
        // An older state of the same file is not the one that is named.
        store.flush().await;
        store.write(DATABASE, &[point("cpu", &[("host", "c")], &fields(50), 50)]);
        store.flush().await;
        let disk = store.disk.crash(Crash::None, 0);
        disk.set_yields(false);
        disk.lose(&path);
        disk.plant(&path, content);
        assert!(open(&disk, 0).await.unwrap().index_was_rebuilt());
    });
}
