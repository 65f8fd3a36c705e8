//! What a partition holds, read as a query reads it, against the model.

use crate::{
    model::{Model, Place, Places},
    truth::Truth,
    world::{DATABASES, FIELDS, GROUP_WIDTH, Layout, MEASUREMENTS, Series, all_series, database_of},
};
use std::{collections::BTreeMap, rc::Rc};
use tidemill_disk::sim::{Prng, SimDisk};
use tidemill_store::{DatabaseId, Partition, ReadError, ScanField, SeriesId, ShardGroupId, TagPredicate};
use xxhash_rust::xxh3::xxh3_64;

/// Compares a partition with the log up to where it has been applied; returns how many values there are.
///
/// # Panics
/// If they differ.
pub async fn check(
    number: u32,
    partition: &Partition<SimDisk>,
    truth: &Truth,
    layout: &Layout,
    prng: &mut Prng,
    context: &str,
) -> u64 {
    let applied = partition.applied().0;
    let context = format!("{context}, partition {number} after entry {applied}");
    let model = truth.partition(number).model(applied, &context);
    let found = everything(partition, layout, prng).await.unwrap_or_else(|error| panic!("{context}: {error}"));
    compare(&found, &model.places, &context);
    found.values().map(|times| times.len() as u64).sum()
}

fn compare(found: &Places, expected: &Places, context: &str) {
    if found == expected {
        return;
    }
    let differs = |(place, times): &(&Place, &BTreeMap<i64, tidemill_column::Value>)| {
        expected.get(*place).is_none_or(|expected| expected != *times)
    };
    if let Some((place, times)) = found.iter().find(differs) {
        let nothing = BTreeMap::new();
        let expected = expected.get(place).unwrap_or(&nothing);
        let surplus = times.iter().find(|(time, value)| expected.get(time) != Some(value));
        let missing = expected.iter().find(|(time, value)| times.get(time) != Some(value));
        panic!("{context}: {place:?}: found {surplus:?}, expected {missing:?}");
    }
    let missing = expected.iter().find(|(place, _)| !found.contains_key(place));
    panic!("{context}: nothing found of {missing:?}");
}

/// All that a partition holds, by the series of its index.
async fn everything(partition: &Partition<SimDisk>, layout: &Layout, prng: &mut Prng) -> Result<Places, ReadError> {
    let mut found = Places::new();
    for database in DATABASES {
        for series in known_series(partition, database) {
            found.extend(read_series(partition, layout, database, series, prng.one_in(3)).await?);
        }
    }
    Ok(found)
}

fn known_series(partition: &Partition<SimDisk>, database: u32) -> Vec<Series> {
    let Some(index) = partition.index(DatabaseId(database)) else { return Vec::new() };
    let mut known = Vec::new();
    for measurement in MEASUREMENTS {
        for id in index.select(measurement.as_bytes(), &TagPredicate::All).iter() {
            let key = index.key(SeriesId(id));
            let series = all_series().find(|series| series.text().as_bytes() == key);
            known.push(series.unwrap_or_else(|| panic!("a series that nobody wrote: {}", key.escape_ascii())));
        }
    }
    known
}

/// The points of one series: of the shard groups that are there as one, as a query reads them; of others each alone.
pub async fn read_series(
    partition: &Partition<SimDisk>,
    layout: &Layout,
    database: u32,
    series: Series,
    descending: bool,
) -> Result<Places, ReadError> {
    let live = layout.of_database(database);
    let (_, held) = partition.holdings();
    let others =
        held.iter().map(|group| group.0).filter(|group| database_of(*group) == database && !live.contains(group));
    let mut views = vec![live.clone()];
    views.extend(others.map(|group| vec![group]));
    let mut found = Places::new();
    for groups in views {
        let key = series.text().into_bytes();
        let (id, fields) = {
            let Some(index) = partition.index(DatabaseId(database)) else { return Ok(found) };
            let Some(id) = index.find(xxh3_64(&key), &key) else { return Ok(found) };
            let measurement = MEASUREMENTS[series.measurement() as usize].as_bytes();
            let field = |name: &&str| ScanField::of(&index, measurement, name.as_bytes());
            (id, FIELDS.iter().map(field).collect::<Rc<[_]>>())
        };
        let view = partition.view(&groups.iter().copied().map(ShardGroupId).collect::<Vec<_>>());
        let range = (i64::MIN, i64::MAX);
        let mut cursor = partition.cursor(&view, DatabaseId(database), id, &fields, range, descending);
        while let Some(points) = cursor.next().await? {
            for (field, column) in points.columns.iter().enumerate() {
                let Some(column) = column else { continue };
                for (row, time) in points.times.iter().enumerate() {
                    let Some(value) = column.value(row) else { continue };
                    let group = groups.get(time.div_euclid(GROUP_WIDTH) as usize).or(groups.first());
                    let place = Place { group: *group.expect("a view of some groups"), series, field: field as u8 };
                    let earlier = found.entry(place).or_default().insert(*time, value);
                    assert!(earlier.is_none(), "a row came twice: {place:?} at {time}");
                }
            }
        }
    }
    Ok(found)
}

/// What the index says when maintenance has ended: exactly the series that have points.
pub fn check_index(partition: &Partition<SimDisk>, model: &Model, context: &str) {
    for database in DATABASES {
        let mut known = known_series(partition, database);
        known.sort_unstable();
        let alive = model.alive(database);
        assert!(known == alive, "{context}: series {known:?} of database {database}, points of {alive:?}");
        if let Some(index) = partition.index(DatabaseId(database)) {
            assert_eq!(index.alive_count(), known.len() as u64, "{context}");
        }
    }
}

/// With damage somewhere, each series either reads as the model says or is an error. Returns how many were errors.
pub async fn check_damaged(partition: &Partition<SimDisk>, model: &Model, layout: &Layout, context: &str) -> u64 {
    let mut errors = 0;
    for database in DATABASES {
        for series in all_series() {
            match read_series(partition, layout, database, series, false).await {
                Ok(found) => {
                    let of_series = |place: &Place| database_of(place.group) == database && place.series == series;
                    let expected = model.places.iter().filter(|(place, _)| of_series(place));
                    compare(&found, &expected.map(|(place, times)| (*place, times.clone())).collect(), context);
                }
                Err(_) => errors += 1,
            }
        }
    }
    errors
}
