//! What a partition should hold: every value by database, shard group, series, field and time.

use std::collections::{BTreeMap, BTreeSet};
use tidemill_column::{FieldType, Value};

/// Width of the shard groups of the tests, ns.
pub const GROUP_WIDTH: i64 = 100_000;

/// The one field that is unsigned, and never anything else.
pub const UNSIGNED: &str = "uns";

/// One point as the tests make it.
#[derive(Clone, Debug)]
pub struct Point {
    pub measurement: String,
    pub tags: BTreeMap<String, String>,
    pub fields: BTreeMap<String, Value>,
    pub time: i64,
}

pub type Times = BTreeMap<i64, Value>;
/// Measurement and tags.
pub type Series = (String, BTreeMap<String, String>);

#[derive(Clone, Debug, Default)]
pub struct Model {
    /// By database, shard group, series, field.
    pub points: BTreeMap<(u32, u64, Series, String), Times>,
    /// Every series that was ever written, by database.
    pub seen: BTreeSet<(u32, Series)>,
}

impl Point {
    pub fn series(&self) -> Series {
        (self.measurement.clone(), self.tags.clone())
    }

    pub fn group(&self) -> u64 {
        group_of(self.time)
    }

    pub fn line(&self) -> String {
        let tags: String =
            self.tags.iter().map(|(key, value)| format!(",{}={}", escape(key, ",= "), escape(value, ",= "))).collect();
        let fields: Vec<String> =
            self.fields.iter().map(|(name, value)| format!("{}={}", escape(name, ",= "), text(value))).collect();
        format!("{}{tags} {} {}\n", escape(&self.measurement, ", "), fields.join(","), self.time)
    }
}

pub fn group_of(time: i64) -> u64 {
    time.div_euclid(GROUP_WIDTH) as u64 + 1
}

/// The number of a shard group among those of all databases.
pub fn group_id(database: u32, group: u64) -> u64 {
    u64::from(database) * 10 + group
}

pub fn escape(text: &str, special: &str) -> String {
    text.chars().flat_map(|c| special.contains(c).then_some('\\').into_iter().chain([c])).collect()
}

pub fn key_of(series: &Series) -> Vec<u8> {
    let tags: Vec<(&[u8], &[u8])> = series.1.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
    tidemill_line::series_key::format_key(series.0.as_bytes(), &tags)
}

fn text(value: &Value) -> String {
    match value {
        Value::Float(value) => format!("{value:?}"),
        Value::Integer(value) => format!("{value}i"),
        // Line protocol has no unsigned numbers; the harness makes them of integers.
        Value::Unsigned(value) => format!("{}i", value.cast_signed()),
        Value::Boolean(value) => value.to_string(),
        Value::String(value) => {
            format!("\"{}\"", String::from_utf8_lossy(value).replace('\\', "\\\\").replace('"', "\\\""))
        }
    }
}

impl Model {
    pub fn write(&mut self, database: u32, point: &Point) {
        self.seen.insert((database, point.series()));
        for (field, value) in &point.fields {
            let place = (database, point.group(), point.series(), field.clone());
            self.points.entry(place).or_default().insert(point.time, value.clone());
        }
    }

    /// The type that a field has in a shard group, while it has points there.
    pub fn field_type(&self, database: u32, group: u64, measurement: &str, field: &str) -> Option<FieldType> {
        let of_field = |place: &&(u32, u64, Series, String)| {
            place.0 == database && place.1 == group && place.2.0 == measurement && place.3 == field
        };
        let times = self.points.iter().find(|(place, _)| of_field(place))?.1;
        times.values().next().map(Value::field_type)
    }

    pub fn delete(&mut self, database: u32, covers: impl Fn(&Series) -> bool, min_time: i64, max_time: i64) {
        for ((of, _, series, _), times) in &mut self.points {
            if *of == database && covers(series) {
                times.retain(|time, _| !(min_time..=max_time).contains(time));
            }
        }
        self.points.retain(|_, times| !times.is_empty());
    }

    pub fn drop_field(&mut self, database: u32, measurement: &str, field: &str) {
        self.points
            .retain(|place, _| (place.0, place.2.0.as_str(), place.3.as_str()) != (database, measurement, field));
    }

    pub fn drop_group(&mut self, database: u32, group: u64) {
        self.points.retain(|place, _| (place.0, place.1) != (database, group));
    }

    pub fn drop_database(&mut self, database: u32) {
        self.points.retain(|(of, ..), _| *of != database);
        self.seen.retain(|(of, _)| *of != database);
    }

    /// Series with points.
    pub fn alive(&self, database: u32) -> BTreeSet<Series> {
        self.points.keys().filter(|place| place.0 == database).map(|place| place.2.clone()).collect()
    }

    /// Names of the fields with points.
    pub fn fields(&self, database: u32, measurement: &str) -> BTreeSet<String> {
        let of = self.points.keys().filter(|place| place.0 == database && place.2.0 == measurement);
        of.map(|place| place.3.clone()).collect()
    }

    /// Rows of a series in ascending time: those with a value of an asked field.
    pub fn rows(
        &self,
        database: u32,
        groups: &[u64],
        series: &Series,
        fields: &[String],
        range: (i64, i64),
    ) -> Vec<(i64, Vec<Option<Value>>)> {
        let mut rows: BTreeMap<i64, Vec<Option<Value>>> = BTreeMap::new();
        for group in groups {
            for (position, field) in fields.iter().enumerate() {
                let Some(times) = self.points.get(&(database, *group, series.clone(), field.clone())) else { continue };
                for (time, value) in times.range(range.0..=range.1) {
                    let row = rows.entry(*time).or_insert_with(|| vec![None; fields.len()]);
                    row[position] = Some(value.clone());
                }
            }
        }
        rows.into_iter().collect()
    }
}
