//! What the node was told, and what must therefore be found.

use std::collections::BTreeMap;
use std::rc::Rc;
use tidemill_column::Value;
use tidemill_disk::sim::SimDisk;
use tidemill_store::{DatabaseId, Partition, ReadError, ScanField, ShardGroupId};
use xxhash_rust::xxh3::xxh3_64;

pub const DATABASE: u32 = 5;
/// Width of a shard group, ns.
pub const GROUP_WIDTH: i64 = 1_000_000;
pub const SHARD_GROUPS: u64 = 3;

/// One value of one point.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub series: String,
    pub field: &'static str,
    pub time: i64,
    pub value: Value,
}

/// What an entry of a partition's log does.
#[derive(Clone, Debug)]
pub enum Deed {
    Nothing,
    Write(Vec<Cell>),
    /// Series whose key ends so, in an inclusive time range.
    Delete {
        ending: String,
        min_time: i64,
        max_time: i64,
    },
}

/// The entries of one partition's log.
#[derive(Clone, Debug, Default)]
pub struct PartitionTruth {
    /// By index from 1.
    deeds: Vec<Deed>,
    acknowledged: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Truth {
    pub partitions: BTreeMap<u32, PartitionTruth>,
}

type Model = BTreeMap<(String, &'static str), BTreeMap<i64, Value>>;

impl PartitionTruth {
    fn model(&self, entries: u64) -> Model {
        let mut model = Model::new();
        for deed in &self.deeds[..entries as usize] {
            match deed {
                Deed::Nothing => {}
                Deed::Write(cells) => {
                    for cell in cells {
                        let times = model.entry((cell.series.clone(), cell.field)).or_default();
                        times.insert(cell.time, cell.value.clone());
                    }
                }
                Deed::Delete { ending, min_time, max_time } => {
                    for (_, times) in model.iter_mut().filter(|((series, _), _)| series.ends_with(ending)) {
                        times.retain(|time, _| !(*min_time..=*max_time).contains(time));
                    }
                }
            }
        }
        model
    }
}

impl Truth {
    /// An entry was taken; returns its index.
    pub fn proposed(&mut self, partition: u32, deed: Deed) -> u64 {
        let truth = self.partitions.entry(partition).or_default();
        truth.deeds.push(deed);
        truth.deeds.len() as u64
    }

    pub fn acknowledged(&mut self, partition: u32, index: u64) {
        let truth = self.partitions.entry(partition).or_default();
        truth.acknowledged = truth.acknowledged.max(index);
    }

    pub fn acknowledged_total(&self) -> u64 {
        self.partitions.values().map(|truth| truth.acknowledged).sum()
    }

    /// Entries that were never acknowledged and that a recovery did not find are gone for good.
    pub fn forget_after(&mut self, partition: u32, index: u64) {
        self.partitions.entry(partition).or_default().deeds.truncate(index as usize);
    }

    /// Compares a partition with the log up to where it has been applied.
    pub async fn check(&self, number: u32, partition: &Partition<SimDisk>, context: &str) {
        let nothing = PartitionTruth::default();
        let truth = self.partitions.get(&number).unwrap_or(&nothing);
        let applied = partition.applied().0;
        assert!(
            (truth.acknowledged..=truth.deeds.len() as u64).contains(&applied),
            "{context}: partition {number} holds {applied} entries; {} were acknowledged, {} proposed",
            truth.acknowledged,
            truth.deeds.len()
        );
        let model = truth.model(applied);
        let found = everything(partition).await.unwrap_or_else(|error| panic!("{context}: {error}"));
        let expected: Model = model.into_iter().filter(|(_, times)| !times.is_empty()).collect();
        if found != expected {
            let differs = |(place, times): &(&(String, &'static str), &BTreeMap<i64, Value>)| {
                expected.get(*place) != Some(*times)
            };
            let surplus = found.iter().find(differs);
            let missing = expected.iter().find(|(place, times)| found.get(*place) != Some(*times));
            panic!(
                "{context}: partition {number} after entry {applied} differs: found {surplus:?}, expected {missing:?}"
            );
        }
    }
}

pub const FIELDS: [&str; 3] = ["number", "share", "text"];

/// All that a partition holds, by the series of its index.
async fn everything(partition: &Partition<SimDisk>) -> Result<Model, ReadError> {
    let mut found = Model::new();
    let keys: Vec<Vec<u8>> = {
        let Some(index) = partition.index(DatabaseId(DATABASE)) else { return Ok(found) };
        let all = index.select(b"m", &tidemill_store::TagPredicate::All);
        all.iter().map(|id| index.key(tidemill_store::SeriesId(id)).to_vec()).collect()
    };
    let groups: Vec<ShardGroupId> = (1..=SHARD_GROUPS).map(ShardGroupId).collect();
    for key in keys {
        let (series, fields) = {
            let index = partition.index(DatabaseId(DATABASE)).expect("it was there");
            let series = index.find(xxh3_64(&key), &key).expect("a series of the index");
            let field = |name: &&str| ScanField::of(&index, b"m", name.as_bytes());
            (series, FIELDS.iter().map(field).collect::<Rc<[_]>>())
        };
        let view = partition.view(&groups);
        let range = (i64::MIN, i64::MAX);
        let mut cursor = partition.cursor(&view, DatabaseId(DATABASE), series, &fields, range, false);
        let name = String::from_utf8_lossy(&key).into_owned();
        while let Some(points) = cursor.next().await? {
            for (field, column) in FIELDS.iter().zip(&points.columns) {
                let Some(column) = column else { continue };
                for (row, time) in points.times.iter().enumerate() {
                    if let Some(value) = column.value(row) {
                        let times = found.entry((name.clone(), *field)).or_default();
                        assert!(times.insert(*time, value).is_none(), "a row came twice");
                    }
                }
            }
        }
    }
    Ok(found)
}
