//! A partition with the log that drives it, beside its model.

use crate::model::{GROUP_WIDTH, Model, Point, Series, UNSIGNED, group_id, group_of, key_of};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};
use tidemill_column::{FieldType, Points, Value};
use tidemill_disk::sim::{Crash, Prng, SimDisk};
use tidemill_line::{Batch, ParseOptions, PartitionMap, Precision, ShardGroupRange, SplitPlan, Splitter};
use tidemill_raft::{LogIndex, Term};
use tidemill_store::{
    Applied, Batch as CursorBatch, Command, DatabaseId, Entry, FileRecord, HandedFile, Manifest, Partition, ReadCache,
    ReadError, ScanField, SeriesId, ShardGroupId, SimPool, TagPredicate, write_prefix,
};
use tidemill_tsm::statistics::BlockStatistics;

pub const FOLDER: &str = "data/p0";

pub struct Store {
    pub disk: SimDisk,
    pub partition: Rc<Partition<SimDisk>>,
    /// The entries since the beginning, by index from 1.
    pub log: Vec<Vec<u8>>,
    pub cache_bytes: usize,
    pub pool: Rc<SimPool>,
}

/// Images of the points as entries, one a shard group.
pub fn images(database: u32, points: &[Point], session: u64, sequence: u64) -> Vec<Vec<u8>> {
    let text: String = points.iter().map(Point::line).collect();
    let mut batch = Batch::new(1);
    let options = ParseOptions { precision: Precision::Nanosecond, now_ns: 0, validate_keys: false };
    let parsed = batch.parse(text.as_bytes(), &options).unwrap();
    assert_eq!((parsed.error_text(), parsed.rows().len()), (None, points.len()), "{text}");
    let groups: BTreeSet<u64> = points.iter().map(Point::group).collect();
    let range = |id: &u64| {
        let start = (*id as i64 - 1) * GROUP_WIDTH;
        ShardGroupRange { id: group_id(database, *id), start, end: start + GROUP_WIDTH }
    };
    let ranges: Vec<ShardGroupRange> = groups.iter().map(range).collect();
    let plan = SplitPlan {
        database,
        retention_policy: 1,
        shard_groups: &ranges,
        partitions: PartitionMap::single(1),
        session,
        sequence,
    };
    let images = Splitter::new().split(&parsed, &plan, |_, _| true).unwrap();
    let entry = |mut bytes: Vec<u8>| {
        // The image's definition of the field: type, length of the name, name.
        let definition = |code: u8| [&[code, UNSIGNED.len() as u8], UNSIGNED.as_bytes()].concat();
        let (integer, unsigned) = (definition(FieldType::Integer.code()), definition(FieldType::Unsigned.code()));
        for at in 0..bytes.len().saturating_sub(integer.len()) {
            if bytes[at..].starts_with(&integer) {
                bytes[at..at + unsigned.len()].copy_from_slice(&unsigned);
            }
        }
        [vec![write_prefix()], bytes].concat()
    };
    images.into_iter().map(|image| entry(image.bytes)).collect()
}

impl Store {
    pub async fn new(disk: SimDisk, cache_bytes: usize) -> Store {
        let pool = Rc::new(SimPool::new(cache_bytes as u64));
        let partition = open_with(&disk, cache_bytes, &pool).await.unwrap();
        Store { disk, partition: Rc::new(partition), log: Vec::new(), cache_bytes, pool }
    }

    pub fn apply(&mut self, entry: Vec<u8>) -> Applied {
        let index = LogIndex(self.log.len() as u64 + 1);
        let applied = self.partition.apply(Term(1), index, Some(Entry::parse(&entry).unwrap())).unwrap();
        self.log.push(entry);
        applied
    }

    pub fn command(&mut self, command: &Command) -> Applied {
        self.apply(command.encode())
    }

    pub fn write(&mut self, database: u32, points: &[Point]) {
        for image in images(database, points, 0, 0) {
            self.apply(image);
        }
    }

    /// Flushes, and works the flush off.
    pub async fn flush(&mut self) {
        self.command(&Command::PLAIN_FLUSH);
        let flushed = self.partition.maintain().await.unwrap();
        assert_eq!(flushed, LogIndex(self.log.len() as u64));
    }

    /// As after a restart: the log's entries are applied behind what the files hold.
    pub async fn reopen(&mut self, disk: SimDisk) {
        let partition = open_with(&disk, self.cache_bytes, &self.pool).await.unwrap();
        replay(&partition, &self.log);
        self.disk = disk;
        self.partition = Rc::new(partition);
    }

    pub async fn crash(&mut self, crash: Crash, seed: u64) {
        let disk = self.disk.crash(crash, seed);
        self.reopen(disk).await;
    }

    /// Puts sealed files that `is_meant` into the pool, and gives what hands them over, by shard group.
    pub fn shipped(&self, mut is_meant: impl FnMut(&FileRecord) -> bool) -> BTreeMap<u64, Vec<HandedFile>> {
        let mut handed: BTreeMap<u64, Vec<HandedFile>> = BTreeMap::new();
        for record in self.partition.sealed_files() {
            let path = format!("{FOLDER}/g{}/{}", record.shard_group, record.name());
            let Some(content) = self.disk.content(&path).filter(|_| is_meant(&record)) else { continue };
            assert_eq!(self.pool.put(content), record.hash);
            handed.entry(record.shard_group).or_default().push(record.handed());
        }
        handed
    }

    /// Hands over all sealed files; how many.
    pub fn hand_over(&mut self, keeps_local: bool) -> usize {
        let handed = self.shipped(|_| true);
        let count = handed.values().map(Vec::len).sum();
        for (shard_group, files) in handed {
            self.command(&Command::HandOver { shard_group, files, keeps_local });
        }
        count
    }

    /// The manifest on disk.
    pub fn manifest(&self) -> Manifest {
        let path = format!("{FOLDER}/manifest");
        Manifest::decode(&self.disk.content(&path).unwrap(), &path).unwrap()
    }

    /// TSM files by path.
    pub fn tsm_files(&self) -> BTreeMap<String, Vec<u8>> {
        let paths = self.disk.paths().into_iter().filter(|path| path.ends_with(".tsm"));
        paths.map(|path| (path.clone(), self.disk.content(&path).unwrap())).collect()
    }
}

pub async fn open(disk: &SimDisk, cache_bytes: usize) -> Result<Partition<SimDisk>, tidemill_store::OpenError> {
    let cache = Rc::new(ReadCache::new(cache_bytes));
    Partition::open(disk.clone(), FOLDER.into(), cache, Rc::new(Cell::new(0))).await
}

/// As [`open`], with a pool to read from.
pub async fn open_with(
    disk: &SimDisk,
    cache_bytes: usize,
    pool: &Rc<SimPool>,
) -> Result<Partition<SimDisk>, tidemill_store::OpenError> {
    let cache = Rc::new(ReadCache::new(cache_bytes));
    Partition::open_with_pool(disk.clone(), FOLDER.into(), cache, Rc::new(Cell::new(0)), pool.clone()).await
}

pub fn replay(partition: &Partition<SimDisk>, log: &[Vec<u8>]) {
    for index in partition.flushed().0.0..log.len() as u64 {
        let entry = Entry::parse(&log[index as usize]).unwrap();
        partition.apply(Term(1), LogIndex(index + 1), Some(entry)).unwrap();
    }
}

/// The id of a series, if the partition knows its key.
pub fn find(partition: &Partition<SimDisk>, database: u32, series: &Series) -> Option<SeriesId> {
    let key = key_of(series);
    partition.index(DatabaseId(database))?.find(xxhash_rust::xxh3::xxh3_64(&key), &key)
}

pub fn scan_fields(
    partition: &Partition<SimDisk>,
    database: u32,
    measurement: &str,
    names: &[String],
) -> Rc<[ScanField]> {
    let index = partition.index(DatabaseId(database)).expect("a database that has series");
    names.iter().map(|name| ScanField::of(&index, measurement.as_bytes(), name.as_bytes())).collect()
}

/// Appends the rows of a batch, checking its shape.
pub fn collect_rows(points: &Points, fields: usize, rows: &mut Vec<(i64, Vec<Option<Value>>)>) {
    assert!(!points.is_empty() && points.columns.len() == fields);
    assert!(points.times.is_sorted_by(|a, b| a < b), "times of a batch ascend strictly");
    for column in points.columns.iter().flatten() {
        assert_eq!(column.len(), points.len());
        assert!(column.valid.as_ref().is_none_or(|valid| valid.len() == points.len()));
    }
    for (row, time) in points.times.iter().enumerate() {
        let values = points.columns.iter().map(|column| column.as_ref().and_then(|column| column.value(row)));
        rows.push((*time, values.collect()));
    }
}

/// All rows of a series, in ascending time, whatever the direction.
pub async fn read(
    partition: &Partition<SimDisk>,
    database: u32,
    groups: &[u64],
    series: &Series,
    names: &[String],
    range: (i64, i64),
    descending: bool,
) -> Result<Vec<(i64, Vec<Option<Value>>)>, ReadError> {
    let Some(id) = find(partition, database, series) else { return Ok(Vec::new()) };
    let mut ids: Vec<ShardGroupId> = groups.iter().map(|group| ShardGroupId(group_id(database, *group))).collect();
    ids.sort_unstable();
    let view = partition.view(&ids);
    let fields = scan_fields(partition, database, &series.0, names);
    let mut cursor = partition.cursor(&view, DatabaseId(database), id, &fields, range, descending);
    let mut batches = Vec::new();
    while let Some(points) = cursor.next().await? {
        batches.push(points);
    }
    if descending {
        batches.reverse();
    }
    let mut rows = Vec::new();
    batches.iter().for_each(|points| collect_rows(points, names.len(), &mut rows));
    assert!(rows.is_sorted_by(|a, b| a.0 < b.0), "batches follow each other");
    Ok(rows)
}

/// Reads with summaries where `may` lets them be, and holds each against the values that it stands for: those are taken
/// out of `expected`, and what is left must come as rows. Returns how many summaries there were.
pub async fn check_summaries(
    partition: &Partition<SimDisk>,
    (database, groups, series): (u32, &[u64], &Series),
    names: &[String],
    (range, descending): ((i64, i64), bool),
    expected: &[(i64, Vec<Option<Value>>)],
    may: &mut dyn FnMut() -> bool,
) -> Result<u64, ReadError> {
    let Some(id) = find(partition, database, series) else { return Ok(0) };
    let ids: Vec<ShardGroupId> = groups.iter().map(|group| ShardGroupId(group_id(database, *group))).collect();
    let view = partition.view(&ids);
    let fields = scan_fields(partition, database, &series.0, names);
    let mut cursor = partition.cursor(&view, DatabaseId(database), id, &fields, range, descending);
    let mut left: Vec<BTreeMap<i64, Value>> = vec![BTreeMap::new(); names.len()];
    for (time, row) in expected {
        for (field, value) in row.iter().enumerate() {
            left[field].extend(value.clone().map(|value| (*time, value)));
        }
    }
    // Everything comes in the asked direction, summaries included.
    let mut reached = None;
    let mut summaries = 0;
    // The type of a field is what its values here mostly are; a block of another type must come as rows.
    let types: Vec<FieldType> = left
        .iter()
        .map(|values| values.first_key_value().map_or(FieldType::Float, |(_, value)| value.field_type()))
        .collect();
    while let Some(batch) = cursor.next_with(&types, &mut |_, _| may()).await? {
        let (min, max) = match batch {
            CursorBatch::Points(points) => {
                let mut rows = Vec::new();
                collect_rows(&points, names.len(), &mut rows);
                for (time, row) in &rows {
                    for (field, value) in row.iter().enumerate() {
                        if let Some(value) = value {
                            assert_eq!(left[field].remove(time).as_ref(), Some(value), "{series:?} {field} {time}");
                        }
                    }
                }
                (points.times[0], points.times[points.len() - 1])
            }
            CursorBatch::Summary(summary) => {
                assert_eq!(summary.len(), names.len());
                let (mut min, mut max) = (i64::MAX, i64::MIN);
                for (field, statistics) in summary.iter().enumerate() {
                    let Some(statistics) = statistics else { continue };
                    summaries += 1;
                    assert_eq!(statistics.summary.field_type(), types[field], "{series:?} {field}");
                    (min, max) = (min.min(statistics.first_time), max.max(statistics.last_time));
                    let times: Vec<i64> = left[field]
                        .range(statistics.first_time..=statistics.last_time)
                        .map(|(time, _)| *time)
                        .collect();
                    assert_eq!((times[0], times[times.len() - 1]), (statistics.first_time, statistics.last_time));
                    let mut values = tidemill_column::Values::new(statistics.summary.field_type());
                    times.iter().for_each(|time| values.push(&left[field].remove(time).unwrap()));
                    let all = 0..times.len();
                    assert_eq!(BlockStatistics::of(&times, &values, all), *statistics, "{series:?} {field}");
                }
                (min, max)
            }
        };
        let (near, far) = if descending { (max, min) } else { (min, max) };
        assert!(reached.is_none_or(|reached| if descending { near < reached } else { near > reached }));
        reached = Some(far);
    }
    assert!(left.iter().all(BTreeMap::is_empty), "{series:?}: {left:?}");
    Ok(summaries)
}

/// Groups that the model or the tests know.
pub const GROUPS: [u64; 4] = [1, 2, 3, 4];

/// Compares some series, chosen by chance, in both directions, over all of time and over a part of it.
/// Returns how many blocks were given by their summaries.
pub async fn check_points(
    partition: &Partition<SimDisk>,
    model: &Model,
    prng: &mut Prng,
    one_in: u64,
    context: &str,
) -> u64 {
    let mut summaries = 0;
    for (database, series) in &model.seen {
        if !prng.one_in(one_in) {
            continue;
        }
        let mut names: Vec<String> = model.fields(*database, &series.0).into_iter().collect();
        names.push("never written".into());
        if prng.one_in(3) {
            names.retain(|_| prng.one_in(2));
        }
        let span = GROUPS.len() as u64 * GROUP_WIDTH as u64;
        let (a, b) = (prng.below(span) as i64, prng.below(span) as i64);
        let times: Vec<i64> =
            model.rows(*database, &GROUPS, series, &names, (i64::MIN, i64::MAX)).iter().map(|row| row.0).collect();
        let near = times.get(prng.below(times.len() as u64) as usize).copied().unwrap_or(0);
        for range in [(i64::MIN, i64::MAX), (a.min(b), a.max(b)), (near, near), (near, near + 700)] {
            let groups: Vec<u64> = GROUPS.iter().copied().filter(|_| !prng.one_in(8)).collect();
            let expected = model.rows(*database, &groups, series, &names, range);
            for descending in [false, true] {
                let rows = read(partition, *database, &groups, series, &names, range, descending).await;
                let rows = rows.unwrap_or_else(|error| panic!("{context}: {error}"));
                let place = (*database, groups.as_slice(), series);
                let mut may = || !prng.one_in(4);
                let checked = check_summaries(partition, place, &names, (range, descending), &expected, &mut may).await;
                summaries += checked.unwrap_or_else(|error| panic!("{context}: {error}"));
                if rows != expected {
                    let at =
                        rows.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(rows.len().min(expected.len()));
                    panic!(
                        "{context}: {series:?} {names:?} {range:?} descending {descending}: {} rows, {} expected; \
                         differ at {at}: {:?} instead of {:?}",
                        rows.len(),
                        expected.len(),
                        rows.get(at),
                        expected.get(at),
                    );
                }
            }
        }
    }
    summaries
}

/// Compares what the index answers. Deleted series must have been settled.
pub fn check_index(partition: &Partition<SimDisk>, model: &Model, databases: &[u32], context: &str) {
    for database in databases {
        let alive = model.alive(*database);
        let Some(index) = partition.index(DatabaseId(*database)) else {
            assert!(alive.is_empty(), "{context}: database {database} is gone");
            continue;
        };
        assert_eq!(index.alive_count(), alive.len() as u64, "{context}: series of database {database}");
        let measurements: BTreeSet<String> = alive.iter().map(|series| series.0.clone()).collect();
        let names: Vec<String> =
            index.measurement_names().map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
        assert_eq!(names, measurements.iter().cloned().collect::<Vec<_>>(), "{context}");
        for measurement in &measurements {
            let of: Vec<&Series> = alive.iter().filter(|series| series.0 == *measurement).collect();
            let keys_of = |ids: roaring::RoaringBitmap| -> BTreeSet<Vec<u8>> {
                ids.iter().map(|id| index.key(SeriesId(id)).to_vec()).collect()
            };
            let expected = |covers: &dyn Fn(&Series) -> bool| -> BTreeSet<Vec<u8>> {
                of.iter().filter(|series| covers(series)).map(|series| key_of(series)).collect()
            };
            let name = measurement.as_bytes();
            assert_eq!(keys_of(index.select(name, &TagPredicate::All)), expected(&|_| true), "{context}");
            let tag_keys: BTreeSet<String> = of.iter().flat_map(|series| series.1.keys().cloned()).collect();
            let found: BTreeSet<String> =
                index.tag_keys(name).map(|key| String::from_utf8(key.to_vec()).unwrap()).collect();
            assert_eq!(found, tag_keys, "{context}");
            for tag in &tag_keys {
                let mut values: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
                for series in &of {
                    if let Some(value) = series.1.get(tag) {
                        values.entry(value.clone()).or_default().insert(key_of(series));
                    }
                }
                let found: BTreeMap<String, BTreeSet<Vec<u8>>> = index
                    .tag_values(name, tag.as_bytes())
                    .map(|(value, ids)| (String::from_utf8(value.to_vec()).unwrap(), keys_of(ids.to_bitmap())))
                    .collect();
                assert_eq!(found, values, "{context}: {measurement} {tag}");
                let key: Box<[u8]> = tag.as_bytes().into();
                let missing = TagPredicate::Equal { key: key.clone(), value: Box::default() };
                assert_eq!(
                    keys_of(index.select(name, &missing)),
                    expected(&|series| !series.1.contains_key(tag)),
                    "{context}"
                );
                for value in values.keys() {
                    let value: Box<[u8]> = value.as_bytes().into();
                    let other = TagPredicate::NotEqual { key: key.clone(), value: value.clone() };
                    let is = |series: &Series| series.1.get(tag).is_some_and(|v| v.as_bytes() == value.as_ref());
                    assert_eq!(keys_of(index.select(name, &other)), expected(&|series| !is(series)), "{context}");
                }
            }
            let fields: BTreeSet<String> =
                index.field_names(name).map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
            assert!(fields.is_superset(&model.fields(*database, measurement)), "{context}: {measurement} {fields:?}");
        }
    }
}

pub fn point(measurement: &str, tags: &[(&str, &str)], fields: &[(&str, Value)], time: i64) -> Point {
    let owned = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
    Point {
        measurement: measurement.into(),
        tags: tags.iter().map(owned).collect(),
        fields: fields.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
        time,
    }
}

/// Start of a shard group.
pub fn start_of(group: u64) -> i64 {
    let start = (group as i64 - 1) * GROUP_WIDTH;
    assert_eq!(group_of(start), group);
    start
}
