//! Names: databases, series, fields, shard groups.
//!
//! Owns: what the metadata would say of shard groups, which outlives every crash here.

use std::collections::BTreeMap;
use tidemill_line::ShardGroupRange;
use xxhash_rust::xxh3::xxh3_64;

pub const DATABASES: [u32; 2] = [5, 6];
pub const POLICY: u32 = 1;
pub const PARTITIONS: u32 = 2;
pub const MEASUREMENTS: [&str; 2] = ["m", "n n"];
pub const HOSTS: u16 = 5;
pub const RACKS: u16 = 2;
pub const SERIES: u16 = MEASUREMENTS.len() as u16 * HOSTS * RACKS;
pub const FIELDS: [&str; 4] = ["number", "share", "text", "up"];
/// Width of a shard group, ns.
pub const GROUP_WIDTH: i64 = 1_000_000;
/// Stretches of time that have a shard group each.
pub const STRETCHES: u64 = 3;
/// Of the ids of shard groups those of one database.
const IDS_PER_DATABASE: u64 = 1_000_000;

/// A series by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series(pub u16);

impl Series {
    pub fn measurement(self) -> u16 {
        self.0 / (HOSTS * RACKS)
    }

    pub fn host(self) -> u16 {
        self.0 / RACKS % HOSTS
    }

    pub fn rack(self) -> u16 {
        self.0 % RACKS
    }

    /// As in line protocol; also its canonical key.
    pub fn text(self) -> String {
        let measurement = MEASUREMENTS[self.measurement() as usize].replace(' ', "\\ ");
        format!("{measurement},host=h{},rack=r{}", self.host(), self.rack())
    }

    pub fn partition(self) -> u32 {
        (xxh3_64(self.text().as_bytes()) >> (64 - PARTITIONS.trailing_zeros())) as u32
    }
}

pub fn all_series() -> impl Iterator<Item = Series> {
    (0..SERIES).map(Series)
}

pub fn database_of(group: u64) -> u32 {
    (group / IDS_PER_DATABASE) as u32
}

/// Which shard group covers which stretch of time. A dropped one leaves its place to a new one, as in the metadata.
#[derive(Clone, Debug)]
pub struct Layout {
    groups: BTreeMap<(u32, u64), u64>,
    next: u64,
}

impl Default for Layout {
    fn default() -> Layout {
        let mut layout = Layout { groups: BTreeMap::new(), next: 1 };
        for database in DATABASES {
            for stretch in 0..STRETCHES {
                layout.renew(database, stretch);
            }
        }
        layout
    }
}

impl Layout {
    pub fn group(&self, database: u32, stretch: u64) -> u64 {
        self.groups[&(database, stretch)]
    }

    /// The groups of a database in ascending time.
    pub fn of_database(&self, database: u32) -> Vec<u64> {
        (0..STRETCHES).map(|stretch| self.group(database, stretch)).collect()
    }

    /// The stretch has a new group; returns the one before.
    pub fn renew(&mut self, database: u32, stretch: u64) -> Option<u64> {
        let id = u64::from(database) * IDS_PER_DATABASE + self.next;
        self.next += 1;
        self.groups.insert((database, stretch), id)
    }

    pub fn ranges(&self, database: u32) -> Vec<ShardGroupRange> {
        let range = |stretch: u64| {
            let start = stretch as i64 * GROUP_WIDTH;
            ShardGroupRange { id: self.group(database, stretch), start, end: start + GROUP_WIDTH }
        };
        (0..STRETCHES).map(range).collect()
    }
}
