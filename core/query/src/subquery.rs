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
use std::sync::Arc;
use tidemill_column::{Column, FieldType, Points};

/// Tags by key.
type Tags = Vec<(String, String)>;

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
        if tags.is_empty() {
            return add(piece.tags.to_vec(), None);
        }
        let mut by_tags: BTreeMap<Tags, Vec<u32>> = BTreeMap::new();
        for row in 0..times.len() {
            let mut all: BTreeMap<String, String> = piece.tags.iter().cloned().collect();
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
    pub fn part(&self, scan: &Arc<ScanPlan>) -> SubqueryPart {
        let names: Vec<&str> =
            self.plan.answer_columns().filter(|(_, kind)| kind.is_some()).map(|(name, _)| name).collect();
        let places: Vec<Option<usize>> =
            scan.fields().iter().map(|(field, _)| names.iter().position(|name| name == field)).collect();
        let mut series = Vec::new();
        let mut batches = Vec::new();
        for (tags, rows) in self.series.get(scan.measurement()).into_iter().flatten() {
            let tag = |name: &str| tags.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
            if !scan.tag_filter().accepts(&tag) {
                continue;
            }
            let mut key = scan.measurement().to_owned();
            for (name, value) in tags.iter().filter(|(_, value)| !value.is_empty()) {
                key.push_str(&format!(",{name}={value}"));
            }
            let tags = tags.iter().filter(|(_, value)| !value.is_empty()).cloned().collect();
            series.push(ScanSeries { key: key.into_bytes().into(), tags });
            batches.push(Some(rows.points(&places, self.plan.shape.descending)));
        }
        SubqueryPart { exec: PartExec::new(scan.clone(), series), batches }
    }
}

/// The value of a tag's column; a series without the tag has the empty one.
fn text(column: &Column, row: usize) -> String {
    match column.value(row) {
        Some(tidemill_column::Value::String(text)) => String::from_utf8_lossy(&text).into_owned(),
        _ => String::new(),
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

    /// The rows, ascending, in the columns that a scan reads.
    fn points(&self, places: &[Option<usize>], descending: bool) -> Points {
        let column = |place: &Option<usize>| place.and_then(|place| self.columns.get(place));
        if !descending && self.times.is_sorted() {
            let columns = places.iter().map(|place| column(place).cloned()).collect();
            return Points { times: self.times.clone(), columns };
        }
        let mut order: Vec<u32> = (0..self.times.len() as u32).collect();
        if descending {
            order.reverse();
        }
        order.sort_by_key(|row| self.times[*row as usize]);
        let columns = places.iter().map(|place| column(place).map(|column| rows::take(column, &order))).collect();
        Points { times: order.iter().map(|row| self.times[*row as usize]).collect(), columns }
    }
}

/// A scan over an inner statement's answer.
pub struct SubqueryPart {
    exec: PartExec,
    /// One a series, until it is asked for.
    batches: Vec<Option<Points>>,
}

impl SubqueryPart {
    /// The next output for the merge; `None` behind the last.
    pub fn next_output(&mut self) -> Option<PartOutput> {
        loop {
            match self.exec.poll() {
                PartDemand::Points(series) => {
                    let points = self.batches[series as usize].take();
                    self.exec.supply(series, points);
                }
                PartDemand::Emit(output) => return Some(output),
                PartDemand::Done => return None,
            }
        }
    }

    /// Bytes held, for budgets.
    pub fn bytes_held(&self) -> usize {
        let column_bytes = |points: &Points| points.columns.iter().flatten().map(Column::byte_size).sum::<usize>();
        let batches = self.batches.iter().flatten().map(|points| points.times.len() * 8 + column_bytes(points));
        batches.sum::<usize>() + self.exec.bytes_held()
    }
}
