//! A statement in FROM: its answer as the rows of a scan.
//!
//! Owns the answer of the inner statement, by measurement and series, until the outer one has read it. Tags that the
//! inner statement shows as columns are tags of the outer one's series, so rows are dealt out by them too. All of it is
//! held: [`SubqueryRows::bytes_held`] goes to the query's budget.

use crate::part::{PartDemand, PartExec, PartOutput, ScanSeries};
use crate::plan::{Plan, ScanPlan};
use crate::result::{ResultColumn, ResultSeries};
use crate::rows;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use tidemill_column::{Column, FieldType, Points, Value};

/// Rows that a part takes in between two turns of other tasks: some hundred microseconds of work.
const BATCH_ROWS: usize = 4096;

/// Tags by key. One that a row's series lacks is empty where the inner statement groups by it, and no value at all where
/// it shows it as a column.
type Tags = Vec<(String, Option<String>)>;

/// The answer of an inner statement.
pub struct SubqueryRows {
    plan: Arc<Plan>,
    /// By measurement, then by tags.
    series: BTreeMap<Arc<str>, BTreeMap<Tags, SeriesRows>>,
    bytes: usize,
}

/// Rows of one series, newest first where the statement says so. Columns are the answer's without its tags.
struct SeriesRows {
    times: Vec<i64>,
    columns: Vec<Column>,
}

impl SubqueryRows {
    /// Of the inner statement's plan.
    pub fn new(plan: Arc<Plan>) -> SubqueryRows {
        SubqueryRows { plan, series: BTreeMap::new(), bytes: 0 }
    }

    /// Takes a piece of the inner statement's answer.
    pub fn push(&mut self, piece: &ResultSeries) {
        let Some((ResultColumn::Time(times), columns)) = piece.values.split_first() else { return };
        let kinds: Vec<(&str, Option<FieldType>)> = self.plan.answer_columns().collect();
        let mut fields: Vec<&Column> = Vec::new();
        let mut tags: Vec<(&str, &Column)> = Vec::new();
        for ((name, kind), column) in kinds.iter().zip(columns) {
            let ResultColumn::Values(column) = column else { continue };
            match kind {
                Some(_) => fields.push(column),
                None => tags.push((name, column)),
            }
        }
        let of_measurement = self.series.entry(piece.name.clone()).or_default();
        let bytes = &mut self.bytes;
        let mut add = |tags: Tags, wanted: Option<&[u32]>| {
            let rows = of_measurement.entry(tags).or_insert_with(|| SeriesRows {
                times: Vec::new(),
                columns: fields.iter().map(|field| Column::new(field.values.field_type())).collect(),
            });
            let before = rows.byte_size();
            rows.append(times, &fields, wanted);
            *bytes += rows.byte_size() - before;
        };
        let grouped: BTreeMap<String, Option<String>> =
            piece.tags.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        if tags.is_empty() {
            return add(grouped.into_iter().collect(), None);
        }
        let mut by_tags: BTreeMap<Tags, Vec<u32>> = BTreeMap::new();
        for row in 0..times.len() {
            let mut all = grouped.clone();
            all.extend(tags.iter().map(|(name, column)| ((*name).to_owned(), text(column, row))));
            by_tags.entry(all.into_iter().collect()).or_default().push(row as u32);
        }
        by_tags.into_iter().for_each(|(tags, wanted)| add(tags, Some(&wanted)));
    }

    /// Bytes held, for budgets.
    pub fn bytes_held(&self) -> usize {
        self.bytes
    }

    /// The one part of a scan over this answer.
    pub fn part(self: &Rc<Self>, scan: &Arc<ScanPlan>) -> SubqueryPart {
        let names: Vec<&str> =
            self.plan.answer_columns().filter(|(_, kind)| kind.is_some()).map(|(name, _)| name).collect();
        let place = |field: &String| match names.iter().position(|name| name == field) {
            Some(column) => Place::Column(column),
            None => Place::Tag(field.clone()),
        };
        let places: Vec<Place> = scan.fields().iter().map(|(field, _)| place(field)).collect();
        let mut series = Vec::new();
        let mut readers = Vec::new();
        for (tags, rows) in self.series.get(scan.measurement()).into_iter().flatten() {
            let tag = |name: &str| tags.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref());
            if !scan.tag_filter().accepts(&tag) {
                continue;
            }
            let known = |(name, value): &(String, Option<String>)| Some((name.clone(), value.clone()?));
            let shown: Vec<(String, String)> = tags.iter().filter_map(known).collect();
            // Empty tags too: rows of equal time come in the order of the groups.
            let mut key = scan.measurement().to_owned();
            shown.iter().for_each(|(name, value)| key.push_str(&format!(",{name}={value}")));
            series.push(ScanSeries { key: key.into_bytes().into(), tags: shown });
            readers.push(Reader { tags: tags.clone(), order: None, left: 0..rows.times.len() });
        }
        let exec = PartExec::new(scan.clone(), series);
        SubqueryPart { exec, rows: self.clone(), scan: scan.clone(), places, readers }
    }
}

/// The value of a tag's column.
fn text(column: &Column, row: usize) -> Option<String> {
    match column.value(row) {
        Some(Value::String(text)) => Some(String::from_utf8_lossy(&text).into_owned()),
        _ => None,
    }
}

impl SeriesRows {
    fn append(&mut self, times: &[i64], fields: &[&Column], wanted: Option<&[u32]>) {
        match wanted {
            None => {
                self.times.extend_from_slice(times);
                for (to, from) in self.columns.iter_mut().zip(fields) {
                    to.extend_from(from, 0..from.len());
                }
            }
            Some(wanted) => {
                self.times.extend(wanted.iter().map(|row| times[*row as usize]));
                for (to, from) in self.columns.iter_mut().zip(fields) {
                    wanted.iter().for_each(|row| to.push_from(from, *row as usize));
                }
            }
        }
    }

    fn byte_size(&self) -> usize {
        self.times.len() * size_of::<i64>() + self.columns.iter().map(Column::byte_size).sum::<usize>()
    }

    /// How the rows come in ascending time. Rows of equal time keep the order that the answer would have ascending.
    fn order(&self, descending: bool) -> Order {
        if !descending && self.times.is_sorted() {
            return Order::Stored;
        }
        if descending && self.times.is_sorted_by(|a, b| a >= b) {
            return Order::Reversed;
        }
        let mut order: Vec<u32> = (0..self.times.len() as u32).collect();
        if descending {
            order.reverse();
        }
        order.sort_by_key(|row| self.times[*row as usize]);
        Order::Sorted(order)
    }
}

/// Where a scan's field is in the answer.
enum Place {
    Column(usize),
    /// It is the same in all rows of a series.
    Tag(String),
}

/// How stored rows come in ascending time.
enum Order {
    Stored,
    Reversed,
    Sorted(Vec<u32>),
}

impl Order {
    fn row(&self, position: usize, count: usize) -> usize {
        match self {
            Order::Stored => position,
            Order::Reversed => count - 1 - position,
            Order::Sorted(rows) => rows[position] as usize,
        }
    }
}

/// One series on its way into a scan.
struct Reader {
    tags: Tags,
    /// Once it has begun.
    order: Option<Order>,
    /// Positions in ascending time.
    left: Range<usize>,
}

impl Reader {
    /// The next rows, ascending, in the columns that a scan reads; the newest come first if `newest_first`. Rows of equal
    /// time stay together.
    fn next(&mut self, rows: &SeriesRows, places: &[Place], descending: bool, newest_first: bool) -> Option<Points> {
        let order = self.order.get_or_insert_with(|| rows.order(descending));
        if self.left.is_empty() {
            return None;
        }
        let count = rows.times.len();
        let time = |position: usize| rows.times[order.row(position, count)];
        let Range { mut start, mut end } = self.left;
        if newest_first {
            start = end.saturating_sub(BATCH_ROWS).max(start);
            while start > self.left.start && time(start - 1) == time(start) {
                start -= 1;
            }
            self.left.end = start;
        } else {
            end = (start + BATCH_ROWS).min(end);
            while end < self.left.end && time(end) == time(end - 1) {
                end += 1;
            }
            self.left.start = end;
        }
        let chosen: Option<Vec<u32>> = match order {
            Order::Stored => None,
            _ => Some((start..end).map(|position| order.row(position, count) as u32).collect()),
        };
        let column = |place: &Place| match place {
            Place::Column(place) => {
                let from = rows.columns.get(*place)?;
                Some(match &chosen {
                    Some(chosen) => rows::take(from, chosen),
                    None => {
                        let mut part = Column::new(from.values.field_type());
                        part.extend_from(from, start..end);
                        part
                    }
                })
            }
            Place::Tag(key) => {
                let (_, value) = self.tags.iter().find(|(name, _)| name == key)?;
                let value = Value::String(value.as_ref()?.as_bytes().into());
                let mut column = Column::new(FieldType::String);
                (start..end).for_each(|_| column.push(&value));
                Some(column)
            }
        };
        let columns = places.iter().map(column).collect();
        Some(Points { times: (start..end).map(time).collect(), columns })
    }
}

/// A scan over an inner statement's answer.
pub struct SubqueryPart {
    exec: PartExec,
    rows: Rc<SubqueryRows>,
    scan: Arc<ScanPlan>,
    places: Vec<Place>,
    readers: Vec<Reader>,
}

/// How far a [`SubqueryPart`] is.
#[derive(Debug)]
pub enum SubqueryStep {
    /// The next output for the merge.
    Output(PartOutput),
    /// Some rows were taken in; others should get a turn.
    Turn,
    Done,
}

impl SubqueryPart {
    /// Goes on for a batch of rows.
    pub fn step(&mut self) -> SubqueryStep {
        match self.exec.poll() {
            PartDemand::Points(series) => {
                let reader = &mut self.readers[series as usize];
                let rows = self.rows.series.get(self.scan.measurement()).and_then(|all| all.get(&reader.tags));
                let (is_reversed, newest_first) = (self.rows.plan.shape.descending, self.scan.descending());
                let points = rows.and_then(|rows| reader.next(rows, &self.places, is_reversed, newest_first));
                self.exec.supply(series, points);
                SubqueryStep::Turn
            }
            PartDemand::Emit(output) => SubqueryStep::Output(output),
            PartDemand::Done => SubqueryStep::Done,
        }
    }

    /// Bytes held beside the answer, for budgets.
    pub fn bytes_held(&self) -> usize {
        let sorted = |reader: &Reader| match &reader.order {
            Some(Order::Sorted(rows)) => rows.len() * size_of::<u32>(),
            _ => 0,
        };
        self.readers.iter().map(sorted).sum::<usize>() + self.exec.bytes_held()
    }
}
