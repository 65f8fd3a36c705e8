//! What clients send: batches of points and their images, deletes, drops, copies.

use crate::{
    model::{Cell, Covers, Deed},
    swarm::Swarm,
    world::{
        DATABASES, FIELDS, GROUP_WIDTH, HOSTS, Layout, MEASUREMENTS, PARTITIONS, POLICY, RACKS, SERIES, STRETCHES,
        Series,
    },
};
use std::{collections::BTreeSet, rc::Rc};
use tidemill_column::Value;
use tidemill_disk::sim::Prng;
use tidemill_disk::sim::SimDisk;
use tidemill_line::{Batch, ParseOptions, PartitionMap, Precision, SplitPlan, Splitter};
use tidemill_store::{Command, CopyOrder, Floats, HandedFile, Measurements, Partition, SimPool, TagCondition, Tier};

/// Requests that share the newest time.
const REQUESTS_PER_TIME: u64 = 8;
/// Points of a bulk, so that a series has more than one block.
const BULK_POINTS: u64 = 1500;

/// What one request brings to one shard group of one partition.
#[derive(Clone)]
pub struct Part {
    pub partition: u32,
    pub image: Rc<[u8]>,
    pub deed: Rc<Deed>,
}

#[derive(Clone, Default)]
pub struct Request {
    pub parts: Vec<Part>,
    pub rows_late: u64,
    pub is_bulk: bool,
}

/// A request of a few points whose values tell them from all others, or of many of one series.
pub fn request(prng: &mut Prng, swarm: &Swarm, layout: &Layout, number: u64, session: u64) -> Request {
    let database = DATABASES[usize::from(prng.one_in(4))];
    let mut request = Request { is_bulk: prng.one_in(swarm.bulk_one_in), ..Request::default() };
    let mut lines = String::new();
    let mut cells = Vec::new();
    let newest = (number / REQUESTS_PER_TIME * 100) as i64;
    // Most requests are of one stretch of time; each stretch has its turn.
    let hot = number / 24 % STRETCHES;
    if request.is_bulk {
        let series = Series(prng.below(u64::from(SERIES)) as u16);
        let start = if prng.one_in(3) { prng.below(newest as u64 + 1) as i64 } else { newest };
        for point in 0..1 + prng.below(BULK_POINTS) {
            let time = (start + point as i64) % GROUP_WIDTH + hot as i64 * GROUP_WIDTH;
            let value = (number * 10_000 + point) as i64;
            lines.push_str(&format!("{} number={value}i {time}\n", series.text()));
            cells.push(Cell { series, field: 0, time, value: Value::Integer(value) });
        }
    } else {
        for point in 0..1 + prng.below(swarm.points_max) {
            let series = Series(prng.below(u64::from(SERIES)) as u16);
            let time = match prng.below(8) {
                0 => prng.below(newest as u64 + 1) as i64 / 100 * 100,
                _ => newest,
            };
            request.rows_late += u64::from(time < newest);
            let stretch = if prng.one_in(4) { prng.below(STRETCHES) } else { hot };
            let time = time % GROUP_WIDTH + stretch as i64 * GROUP_WIDTH;
            let identity = number * 1000 + point;
            let values = values(prng, identity, swarm.text_bytes_max);
            let texts: Vec<String> =
                values.iter().map(|(field, _, text)| format!("{}={text}", FIELDS[*field as usize])).collect();
            lines.push_str(&format!("{} {} {time}\n", series.text(), texts.join(",")));
            cells.extend(values.into_iter().map(|(field, value, _)| Cell { series, field, time, value }));
        }
    }
    request.parts = split(&lines, &cells, (database, layout), (session, number));
    request
}

/// Some fields of one point: position, value, text.
fn values(prng: &mut Prng, identity: u64, text_bytes_max: u64) -> Vec<(u8, Value, String)> {
    let mut values = vec![(0, Value::Integer(identity as i64), format!("{identity}i"))];
    if prng.one_in(2) {
        let share = identity as f64 * 0.25;
        values.push((1, Value::Float(share), format!("{share}")));
    }
    if prng.one_in(3) {
        let text = format!("{identity} {}", "x".repeat(prng.below(text_bytes_max) as usize));
        values.push((2, Value::String(text.as_bytes().into()), format!("\"{text}\"")));
    }
    if prng.one_in(5) {
        let is_up = identity.is_multiple_of(3);
        values.push((3, Value::Boolean(is_up), is_up.to_string()));
    }
    // The first is not always there.
    if values.len() > 1 && prng.one_in(4) {
        values.remove(0);
    }
    values
}

/// Each stretch of time is a split of its own, because one identity is good for one image of a partition.
fn split(lines: &str, cells: &[Cell], (database, layout): (u32, &Layout), (session, number): (u64, u64)) -> Vec<Part> {
    let mut batch = Batch::new(1);
    let options = ParseOptions { precision: Precision::Nanosecond, now_ns: 0, validate_keys: false };
    let parsed = batch.parse(lines.as_bytes(), &options).expect("a short body");
    assert_eq!(parsed.error_text(), None);
    let mut parts = Vec::new();
    for (stretch, range) in layout.ranges(database).into_iter().enumerate() {
        let is_in = |time: i64| (range.start..range.end).contains(&time);
        let sequence = (number + 1) * STRETCHES + stretch as u64;
        let shard_groups = [range];
        let plan = SplitPlan {
            database,
            retention_policy: POLICY,
            shard_groups: &shard_groups,
            partitions: PartitionMap::single(PARTITIONS),
            session,
            sequence,
        };
        let images = Splitter::new().split(&parsed, &plan, |_, row| is_in(row.time));
        for image in images.expect("the plan covers the times that are kept") {
            let partition = image.partition;
            let of_part = |cell: &&Cell| is_in(cell.time) && cell.series.partition() == partition;
            let cells: Vec<Cell> = cells.iter().filter(of_part).cloned().collect();
            assert!(!cells.is_empty());
            let deed = Deed::Write { session, sequence, group: shard_groups[0].id, cells };
            parts.push(Part { partition, image: image.bytes.into(), deed: Rc::new(deed) });
        }
    }
    parts
}

/// A delete of some series or of a measurement, everywhere or in a stretch of time around the newest rows.
pub fn delete(prng: &mut Prng, number: u64) -> (Command, Deed) {
    let database = DATABASES[usize::from(prng.one_in(4))];
    let newest = (number / REQUESTS_PER_TIME * 100) as i64 + prng.below(STRETCHES) as i64 * GROUP_WIDTH;
    let (min_time, max_time) = match prng.below(4) {
        0 => (i64::MIN, i64::MAX),
        1 => (newest - 300, newest),
        2 => (prng.below(newest as u64 + 1) as i64, newest),
        _ => (i64::MIN, newest - 100),
    };
    let measurement = (!prng.one_in(4)).then(|| prng.below(MEASUREMENTS.len() as u64) as u16);
    let measurements = match measurement {
        Some(number) => Measurements::Named(vec![MEASUREMENTS[number as usize].as_bytes().to_vec()]),
        None => Measurements::All,
    };
    let tag = |key: &str, value: String| (key.as_bytes().to_vec(), value.into_bytes());
    let (condition, covers) = match prng.below(4) {
        0 => (TagCondition::All, Covers::All),
        1 => {
            let rack = prng.below(u64::from(RACKS)) as u16;
            let (key, value) = tag("rack", format!("r{rack}"));
            (TagCondition::Equal { key, value }, Covers::Rack(rack))
        }
        2 => {
            let rack = prng.below(u64::from(RACKS)) as u16;
            let (key, value) = tag("rack", format!("r{rack}"));
            (TagCondition::NotEqual { key, value }, Covers::OtherRacks(rack))
        }
        _ => {
            let host = prng.below(u64::from(HOSTS)) as u16;
            let (key, value) = tag("host", format!("h{host}"));
            (TagCondition::Equal { key, value }, Covers::Host(host))
        }
    };
    let command = Command::Delete { database, measurements, condition, min_time, max_time };
    (command, Deed::Delete { database, measurement, covers, min_time, max_time })
}

/// All values of one field of a measurement.
pub fn drop_field(prng: &mut Prng) -> (Command, Deed) {
    let database = DATABASES[usize::from(prng.one_in(4))];
    let measurement = prng.below(MEASUREMENTS.len() as u64) as u16;
    let field = prng.below(FIELDS.len() as u64) as u8;
    let name = |text: &str| text.as_bytes().to_vec();
    let command = Command::DropField {
        database,
        measurement: name(MEASUREMENTS[measurement as usize]),
        field: name(FIELDS[field as usize]),
    };
    (command, Deed::DropField { database, measurement, field })
}

/// A copy of any kind of a shard group that has files, besides those that the server's policy decides.
pub fn copy(prng: &mut Prng, partition: &Partition<SimDisk>) -> Option<CopyOrder> {
    let groups = partition.group_files();
    let files = groups.get(prng.below(groups.len() as u64) as usize)?;
    let newest = files.newest_change();
    let ordered_through = newest - if prng.one_in(2) { 0 } else { prng.below(newest.min(30)) };
    let late_through = match prng.below(3) {
        0 => 0,
        1 => ordered_through,
        _ => ordered_through - prng.below(ordered_through.min(9)),
    };
    let sealed_one_in = [1, 2, 1000][prng.below(3) as usize];
    // Those in the pool as well.
    let sealed = partition.sealed_files().into_iter().filter(|file| file.shard_group == files.shard_group.0);
    let sealed: BTreeSet<u64> = sealed.map(|file| file.generation).collect();
    Some(CopyOrder {
        shard_group: files.shard_group.0,
        ordered_through,
        late_through,
        sealed: sealed.into_iter().filter(|_| prng.one_in(sealed_one_in)).collect(),
        with_deleted: prng.one_in(2),
        floats: floats(prng),
        file_bytes_max: [1, 5_000, 1 << 30][prng.below(3) as usize],
    })
}

/// A hand-over of some sealed files, which are in the pool then; how many. Now and then it names what is no such file.
pub fn hand_over(
    prng: &mut Prng,
    folder: &str,
    partition: &Partition<SimDisk>,
    disk: &SimDisk,
    pool: &SimPool,
) -> Option<(Command, u64)> {
    let sealed = partition.sealed_files();
    let shard_group = sealed.get(prng.below(sealed.len() as u64) as usize)?.shard_group;
    let mut files = Vec::new();
    let (one_in, keeps_local) = (1 + prng.below(2), prng.one_in(4));
    for record in sealed.iter().filter(|record| record.shard_group == shard_group && record.tier != Tier::Pool) {
        // It may have been dropped or copied away meanwhile.
        let content = disk.content(&format!("{folder}/g{shard_group}/{}", record.name()));
        if let Some(content) = content.filter(|_| prng.one_in(one_in)) {
            assert_eq!(pool.put(content), record.hash, "a file is what its record says");
            files.push(record.handed());
        }
    }
    let count = files.len() as u64;
    let stranger = sealed.first().filter(|_| prng.one_in(5)).map(|file| file.handed());
    files.extend(stranger.map(|file| HandedFile { hash: [9; 32], ..file }));
    (!files.is_empty()).then_some((Command::HandOver { shard_group, files, keeps_local }, count))
}

pub fn floats(prng: &mut Prng) -> Floats {
    if prng.one_in(2) { Floats::Alp } else { Floats::Gorilla }
}
