//! What a partition holds after some entries.

use crate::world::{Series, database_of};
use std::collections::BTreeMap;
use tidemill_column::Value;

/// Where a value is, but for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub group: u64,
    pub series: Series,
    /// Position in [`crate::world::FIELDS`].
    pub field: u8,
}

/// One value of one point.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub series: Series,
    pub field: u8,
    pub time: i64,
    pub value: Value,
}

/// Series that a delete is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    All,
    Rack(u16),
    OtherRacks(u16),
    Host(u16),
}

/// What an entry of a partition's log does.
#[derive(Clone, Debug)]
pub enum Deed {
    Nothing,
    Write {
        session: u64,
        sequence: u64,
        group: u64,
        cells: Vec<Cell>,
    },
    /// Points in an inclusive time range.
    Delete {
        database: u32,
        measurement: Option<u16>,
        covers: Covers,
        min_time: i64,
        max_time: i64,
    },
    DropField {
        database: u32,
        measurement: u16,
        field: u8,
    },
    DropShardGroups(Vec<u64>),
    DropDatabase(u32),
}

pub type Places = BTreeMap<Place, BTreeMap<i64, Value>>;

#[derive(Clone, Debug, Default)]
pub struct Model {
    /// No place is empty.
    pub places: Places,
    sessions: BTreeMap<u64, u64>,
}

impl Covers {
    fn series(self, series: Series) -> bool {
        match self {
            Covers::All => true,
            Covers::Rack(rack) => series.rack() == rack,
            Covers::OtherRacks(rack) => series.rack() != rack,
            Covers::Host(host) => series.host() == host,
        }
    }
}

impl Model {
    pub fn apply(&mut self, deed: &Deed) {
        match deed {
            Deed::Nothing => {}
            Deed::Write { session, sequence, group, cells } => {
                if *session != 0 {
                    let newest = self.sessions.entry(*session).or_default();
                    if *sequence <= *newest {
                        return;
                    }
                    *newest = *sequence;
                }
                for Cell { series, field, time, value } in cells {
                    let place = Place { group: *group, series: *series, field: *field };
                    self.places.entry(place).or_default().insert(*time, value.clone());
                }
            }
            Deed::Delete { database, measurement, covers, min_time, max_time } => {
                let is_meant = |place: &Place| {
                    database_of(place.group) == *database
                        && measurement.is_none_or(|measurement| place.series.measurement() == measurement)
                        && covers.series(place.series)
                };
                self.places.retain(|place, times| {
                    if is_meant(place) {
                        times.retain(|time, _| !(*min_time..=*max_time).contains(time));
                    }
                    !times.is_empty()
                });
            }
            Deed::DropField { database, measurement, field } => self.places.retain(|place, _| {
                (database_of(place.group), place.series.measurement(), place.field) != (*database, *measurement, *field)
            }),
            Deed::DropShardGroups(groups) => self.places.retain(|place, _| !groups.contains(&place.group)),
            Deed::DropDatabase(database) => self.places.retain(|place, _| database_of(place.group) != *database),
        }
    }

    /// Series of a database that have a point.
    pub fn alive(&self, database: u32) -> Vec<Series> {
        let places = self.places.keys().filter(|place| database_of(place.group) == database);
        let mut series: Vec<Series> = places.map(|place| place.series).collect();
        series.sort_unstable();
        series.dedup();
        series
    }
}
