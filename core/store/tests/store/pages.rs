//! Files whose index takes many pages: look-ups with any cache, damage of one page, files without a directory.

use crate::{
    harness::*,
    model::{Model, Point, Series},
};
use tidemill_column::Value;
use tidemill_disk::{
    Disk, DiskFile, Purpose,
    sim::{Prng, SimDisk, block_on},
};
use tidemill_store::{Manifest, ReadError};
use tidemill_tsm::file::FileBytes;

const DATABASE: u32 = 3;
const SERIES: usize = 1500;

/// Three files of 1500 series each, the last one late for half of them.
async fn many_series(cache_bytes: usize) -> (Store, Model) {
    let disk = SimDisk::new(1);
    disk.set_yields(false);
    let mut store = Store::new(disk, cache_bytes).await;
    let mut model = Model::default();
    for (file, times) in [[10i64, 20], [30, 40], [15, 50]].into_iter().enumerate() {
        // Every file lacks some of the series.
        let numbers = (0..SERIES).filter(|number| number % 7 != file);
        let points: Vec<Point> = numbers
            .flat_map(|number| {
                let host = format!("host-{number:04}");
                times.map(|time| {
                    let fields = [("f", Value::Float(time as f64 + number as f64)), ("i", Value::Integer(time))];
                    point("cpu", &[("host", &host)], &fields, time)
                })
            })
            .collect();
        points.iter().for_each(|point| model.write(DATABASE, point));
        store.write(DATABASE, &points);
        store.flush().await;
    }
    (store, model)
}

async fn read_one(store: &Store, model: &Model, series: &Series) -> Result<(), ReadError> {
    let names = ["f", "i", "none"].map(String::from).to_vec();
    let range = (i64::MIN, i64::MAX);
    let expected = model.rows(DATABASE, &GROUPS, series, &names, range);
    let rows = read(&store.partition, DATABASE, &GROUPS, series, &names, range, false).await?;
    assert_eq!(rows, expected, "{series:?}");
    let place = (DATABASE, &GROUPS[..], series);
    check_summaries(&store.partition, place, &names, (range, true), &expected, &mut || true).await?;
    Ok(())
}

#[test]
fn every_series_is_found_whatever_the_cache_holds() {
    for cache_bytes in [0, 30_000, 100_000, 10 << 20] {
        block_on(1, async {
            let (mut store, model) = many_series(cache_bytes).await;
            let figures = store.partition.figures();
            assert!(figures.file_bytes < 3 * SERIES * 2, "{} bytes for 9000 keys", figures.file_bytes);
            let mut prng = Prng::new(7);
            for reopened in [false, true] {
                for (_, series) in model.seen.iter().filter(|_| prng.one_in(if cache_bytes < 100_000 { 20 } else { 1 }))
                {
                    read_one(&store, &model, series).await.unwrap();
                }
                if !reopened {
                    let disk = store.disk.clone();
                    store.reopen(disk).await;
                }
            }
        });
    }
}

#[test]
fn a_damaged_page_is_an_error_for_its_series_alone() {
    block_on(1, async {
        let (store, model) = many_series(0).await;
        let (path, bytes) = store.tsm_files().into_iter().next().unwrap();
        let directory = FileBytes::open(&bytes).unwrap().directory.unwrap();
        assert!(directory.page_count() > 5);
        for (number, is_index) in [(1, true), (4, true), (0, false), (3, false)] {
            let page = directory.page(number).unwrap();
            let range = if is_index { page.index } else { page.statistics };
            let at = (range.start + (range.end - range.start) / 2) as usize;
            store.disk.flip_bit(&path, at, 3);
            let mut failed = 0;
            for (_, series) in &model.seen {
                if let Err(error) = read_one(&store, &model, series).await {
                    let text = error.to_string();
                    assert!(text.contains(&path) && text.contains(&format!("offset {}", range.start)), "{text}");
                    failed += 1;
                }
            }
            assert!((10..200).contains(&failed), "{failed} of {SERIES} series fail for page {number}");
            store.disk.flip_bit(&path, at, 3);
        }
        for (_, series) in &model.seen {
            read_one(&store, &model, series).await.unwrap();
        }
    });
}

/// Takes statistics and directory out of every file, as if upstream had written them.
async fn strip(store: &Store) {
    let mut manifest = Manifest::load(&store.disk, FOLDER).await.unwrap();
    for record in &mut manifest.files {
        let path = format!("{FOLDER}/g{}/{}", record.shard_group, record.name());
        let content = store.disk.content(&path).unwrap();
        let mut bytes = content[..record.blocks_end as usize].to_vec();
        bytes.extend_from_slice(&content[record.index_offset as usize..content.len() - 8]);
        bytes.extend_from_slice(&record.blocks_end.to_be_bytes());
        (record.directory_offset, record.index_offset) = (record.blocks_end, record.blocks_end);
        record.size = bytes.len() as u64;
        record.tail_crc = crc32c::crc32c(&bytes[record.index_offset as usize..]);
        store.disk.lose(&path);
        store.disk.plant(&path, bytes);
    }
    manifest.publish(&store.disk, FOLDER).await.unwrap();
}

#[test]
fn files_without_a_directory_get_one_when_they_are_opened() {
    block_on(1, async {
        let (mut store, model) = many_series(200_000).await;
        strip(&store).await;
        let disk = store.disk.clone();
        store.reopen(disk).await;
        for (_, series) in &model.seen {
            read_one(&store, &model, series).await.unwrap();
        }
        let (path, bytes) = store.tsm_files().into_iter().next().unwrap();
        let index = FileBytes::open(&bytes).unwrap().layout.index;
        for at in (index.start as usize..bytes.len()).step_by(997) {
            store.disk.flip_bit(&path, at, 0);
            let error = open(&store.disk, 0).await.err().unwrap_or_else(|| panic!("byte {at} changes nothing"));
            assert!(error.to_string().contains(&path), "{error}");
            store.disk.flip_bit(&path, at, 0);
        }
        let file = store.disk.open(&path, Purpose::Data).await.unwrap();
        file.set_len(bytes.len() as u64 - 1).await.unwrap();
        assert!(open(&store.disk, 0).await.is_err());
    });
}
