//! An in-memory source: points by series, and the driver that runs a statement over them in partitions.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemill_column::{Column, FieldType, Points, Value};
use tidemill_influxql::{Statement, parse_statement};
use tidemill_query::{
    BlockSummary, CompileOptions, Compiled, Join, JoinDemand, MeasurementSelector, Merge, MergeDemand, PartDemand,
    PartExec, Plan, ResultColumn, ResultSeries, ScanPlan, ScanSeries, SelectLimits, Sort, SortStep, SourceIndex,
    SourceSchema, SubqueryPart, SubqueryRows, SubqueryStep, compile, winner,
};

pub const SECOND: i64 = 1_000_000_000;

/// One series: rows by time, fields by name.
#[derive(Clone, Debug, Default)]
pub struct MemorySeries {
    pub measurement: String,
    pub tags: Vec<(String, String)>,
    pub rows: BTreeMap<i64, BTreeMap<String, Value>>,
}

impl MemorySeries {
    pub fn key(&self) -> String {
        let tags: String = self.tags.iter().map(|(key, value)| format!(",{key}={value}")).collect();
        format!("{}{tags}", self.measurement)
    }
}

#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    pub series: Vec<MemorySeries>,
}

/// How a statement is run.
#[derive(Clone, Debug)]
pub struct Run {
    pub now_ns: i64,
    pub partitions: u32,
    pub batch_rows: usize,
    pub chunk_rows: usize,
    pub limits: SelectLimits,
    /// Which partition a series falls into: mixes the key, so that different salts give different spreads.
    pub salt: u64,
    /// Batches of one window are given by their summaries where those are accepted; every other one as the salt says.
    pub statistics: bool,
}

impl Default for Run {
    fn default() -> Run {
        Run {
            now_ns: 200 * SECOND,
            partitions: 3,
            batch_rows: 3,
            chunk_rows: 4,
            limits: SelectLimits::default(),
            salt: 7,
            statistics: false,
        }
    }
}

impl MemorySource {
    /// Adds `measurement[,tag=value...] field=value[,...] seconds`, as in line protocol, without escapes.
    pub fn line(&mut self, line: &str) {
        let [key, fields, seconds] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        let mut parts = key.split(',');
        let measurement = parts.next().unwrap().to_owned();
        let mut tags: Vec<(String, String)> =
            parts.map(|tag| tag.split_once('=').unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        tags.sort();
        let fields = fields.split(',').map(|field| {
            let (name, value) = field.split_once('=').unwrap();
            let value = match value {
                "true" => Value::Boolean(true),
                "false" => Value::Boolean(false),
                text if text.starts_with('"') => Value::String(text.trim_matches('"').as_bytes().into()),
                text if text.ends_with('i') => Value::Integer(text.trim_end_matches('i').parse().unwrap()),
                text if text.ends_with('u') => Value::Unsigned(text.trim_end_matches('u').parse().unwrap()),
                text => Value::Float(text.parse().unwrap()),
            };
            (name.to_owned(), value)
        });
        let time = seconds.parse::<i64>().unwrap() * SECOND;
        self.point(&measurement, tags, time, fields.collect());
    }

    pub fn point(
        &mut self,
        measurement: &str,
        tags: Vec<(String, String)>,
        time: i64,
        fields: BTreeMap<String, Value>,
    ) {
        let found = self.series.iter().position(|one| one.measurement == measurement && one.tags == tags);
        let index = found.unwrap_or_else(|| {
            let measurement = measurement.to_owned();
            self.series.push(MemorySeries { measurement, tags, rows: BTreeMap::new() });
            self.series.len() - 1
        });
        self.series[index].rows.entry(time).or_default().extend(fields);
    }

    pub fn schema(&self, source: usize, measurement: &str) -> SourceSchema {
        let mut fields: BTreeMap<String, FieldType> = BTreeMap::new();
        let mut tag_keys = BTreeSet::new();
        for series in self.series.iter().filter(|series| series.measurement == measurement) {
            tag_keys.extend(series.tags.iter().map(|(key, _)| key.clone()));
            for (name, value) in series.rows.values().flatten() {
                let field_type = value.field_type();
                let merged = fields.get(name).map_or(field_type, |other| winner(*other, field_type));
                fields.insert(name.clone(), merged);
            }
        }
        SourceSchema {
            source: SourceIndex::Measurement(source),
            database: "d".to_owned(),
            retention_policy: "autogen".to_owned(),
            measurement: measurement.to_owned(),
            fields,
            tag_keys,
        }
    }

    /// Runs a statement; pieces of one series are put together again.
    pub fn run(&self, text: &str, run: &Run) -> Result<Vec<ResultSeries>, String> {
        let statement = parse_statement(text).map_err(|error| error.to_string())?;
        let Statement::Select(select) = statement else { panic!("{text}") };
        let options = CompileOptions { now_ns: run.now_ns, default_database: Some("d".to_owned()), limits: run.limits };
        let compiled = compile(&select, &options).map_err(|error| error.to_string())?;
        let prepared = self.prepare(&compiled)?;
        let pieces = self.pieces(&prepared.plan, &prepared.inner, run)?;
        let mut answer: Vec<ResultSeries> = Vec::new();
        let mut continues = false;
        for series in pieces {
            assert!(series.row_count() > 0 && series.row_count() <= run.chunk_rows.max(64));
            assert!(series.values.iter().all(|column| column.len() == series.row_count()));
            let partial = series.partial;
            if continues {
                append(answer.last_mut().unwrap(), series);
            } else {
                answer.push(series);
            }
            continues = partial;
        }
        assert!(!continues, "the last piece says that more follow");
        Ok(answer)
    }

    fn prepare(&self, compiled: &Compiled) -> Result<Prepared, String> {
        let measurements: BTreeSet<&str> = self.series.iter().map(|series| series.measurement.as_str()).collect();
        let mut schemas = Vec::new();
        for (index, source) in compiled.sources().iter().enumerate() {
            let matching = measurements.iter().filter(|name| match &source.measurement {
                MeasurementSelector::Name(wanted) => wanted == *name,
                MeasurementSelector::Regex(regex) => regex.is_match(name.as_bytes()),
            });
            schemas.extend(matching.map(|name| self.schema(index, name)));
        }
        let inner = compiled.subqueries().iter().map(|inner| self.prepare(inner)).collect::<Result<Vec<_>, _>>()?;
        for (index, inner) in inner.iter().enumerate() {
            schemas.extend(inner.plan.schemas(index));
        }
        let plan = Arc::new(compiled.plan(schemas).map_err(|error| error.to_string())?);
        Ok(Prepared { plan, inner })
    }

    /// The pieces of a plan's answer.
    fn pieces(&self, plan: &Arc<Plan>, inner: &[Prepared], run: &Run) -> Result<Vec<ResultSeries>, String> {
        let pieces = self.pieces_by_time(plan, inner, run)?;
        let Some(mut sort) = Sort::new(plan, run.chunk_rows) else { return Ok(pieces) };
        let mut pieces = pieces.into_iter();
        let mut sorted = Vec::new();
        loop {
            match sort.step() {
                SortStep::Input => sort.supply(pieces.next()),
                SortStep::Turn => {}
                SortStep::Rows(series) => sorted.push(series),
                SortStep::Done => return Ok(sorted),
            }
        }
    }

    /// The pieces of a plan's answer before they are ordered.
    fn pieces_by_time(&self, plan: &Arc<Plan>, inner: &[Prepared], run: &Run) -> Result<Vec<ResultSeries>, String> {
        let legs: Vec<Arc<Plan>> = plan.legs().cloned().collect();
        if !legs.is_empty() {
            let answers = legs.iter().map(|leg| Ok(self.pieces(leg, inner, run)?.into_iter()));
            let mut answers: Vec<std::vec::IntoIter<ResultSeries>> = answers.collect::<Result<_, String>>()?;
            let mut join = Join::new(plan.clone(), run.chunk_rows);
            let mut pieces = Vec::new();
            loop {
                match join.poll() {
                    JoinDemand::Leg(leg) => {
                        let piece = answers[leg as usize].next();
                        join.supply(leg, piece);
                    }
                    JoinDemand::Rows(series) => pieces.push(series),
                    JoinDemand::Turn => {}
                    JoinDemand::Done => return Ok(pieces),
                }
            }
        }
        let mut parts: BTreeMap<(u32, u32), PartDriver> = BTreeMap::new();
        let mut answers: BTreeMap<u32, SubqueryPart> = BTreeMap::new();
        for (scan, plan) in plan.scans().iter().enumerate() {
            if let SourceIndex::Subquery(index) = plan.source() {
                let mut rows = SubqueryRows::new(inner[index].plan.clone());
                let pieces = self.pieces(&inner[index].plan, &inner[index].inner, run)?;
                pieces.iter().for_each(|piece| rows.push(piece));
                answers.insert(scan as u32, std::rc::Rc::new(rows).part(plan));
                continue;
            }
            for part in 0..run.partitions {
                parts.insert((scan as u32, part), PartDriver::new(self, plan.clone(), part, run));
            }
        }
        let mut merge = Merge::new(plan.clone(), run.partitions, run.chunk_rows);
        let mut pieces = Vec::new();
        loop {
            match merge.poll().map_err(|error| error.to_string())? {
                MergeDemand::Part { scan, part } => {
                    let output = match answers.get_mut(&scan) {
                        Some(answer) if part == 0 => loop {
                            match answer.step() {
                                SubqueryStep::Output(output) => break Some(output),
                                SubqueryStep::Turn => {}
                                SubqueryStep::Done => break None,
                            }
                        },
                        Some(_) => None,
                        None => parts.get_mut(&(scan, part)).unwrap().next_output(),
                    };
                    merge.supply(scan, part, output);
                }
                MergeDemand::Rows(series) => pieces.push(series),
                MergeDemand::Done => return Ok(pieces),
            }
        }
    }
}

/// A plan with those of the statements in its FROM.
struct Prepared {
    plan: Arc<Plan>,
    inner: Vec<Prepared>,
}

fn append(to: &mut ResultSeries, from: ResultSeries) {
    assert_eq!((&to.name, &to.tags, &to.columns), (&from.name, &from.tags, &from.columns));
    for (to, from) in to.values.iter_mut().zip(from.values) {
        match (to, from) {
            (ResultColumn::Time(to), ResultColumn::Time(from)) => to.extend(from),
            (ResultColumn::Values(to), ResultColumn::Values(from)) => to.extend_from(&from, 0..from.len()),
            _ => panic!("pieces of different kinds"),
        }
    }
    to.partial = from.partial;
}

/// Runs one part and reads its series from memory.
struct PartDriver {
    exec: PartExec,
    scan: Arc<ScanPlan>,
    series: Vec<MemorySeries>,
    /// Batches that were not yet asked for, a series.
    batches: Vec<std::collections::VecDeque<Points>>,
    /// Decides which batches are given by their summaries; `None` where none is.
    summaries: Option<u64>,
}

fn mix(key: &str, salt: u64) -> u64 {
    key.bytes().fold(salt ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

impl PartDriver {
    fn new(source: &MemorySource, scan: Arc<ScanPlan>, part: u32, run: &Run) -> PartDriver {
        let series: Vec<MemorySeries> = source
            .series
            .iter()
            .filter(|series| series.measurement == scan.measurement())
            .filter(|series| (mix(&series.key(), run.salt) >> 20) % u64::from(run.partitions) == u64::from(part))
            .filter(|series| {
                let tag = |name: &str| series.tags.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
                scan.tag_filter().accepts(&tag)
            })
            .cloned()
            .collect();
        let scanned = series
            .iter()
            .map(|series| ScanSeries { key: series.key().into_bytes().into(), tags: series.tags.clone() })
            .collect();
        let batches = series.iter().map(|series| batches(series, &scan, run.batch_rows)).collect();
        let summaries = run.statistics.then_some(run.salt);
        PartDriver { exec: PartExec::new(scan.clone(), scanned), scan, series, batches, summaries }
    }

    fn next_output(&mut self) -> Option<tidemill_query::PartOutput> {
        loop {
            match self.exec.poll() {
                PartDemand::Points(series) => {
                    let points = self.batches[series as usize].pop_front();
                    match points.as_ref().and_then(|points| self.summaries_of(series, points)) {
                        Some(summaries) => {
                            self.exec.supply_statistics(series, &summaries);
                        }
                        None => self.exec.supply(series, points),
                    }
                }
                PartDemand::Emit(output) => return Some(output),
                PartDemand::Done => return None,
            }
        }
    }
}

impl PartDriver {
    /// The summaries of a batch, if it may be given by them and it is its turn.
    fn summaries_of(&mut self, series: u32, points: &Points) -> Option<Vec<BlockSummary>> {
        let draw = self.summaries?;
        self.summaries = Some(draw.rotate_right(1) ^ u64::from(series));
        let (first, last) = (points.times[0], points.times[points.len() - 1]);
        let columns =
            || points.columns.iter().enumerate().filter_map(|(field, column)| Some((field, column.as_ref()?)));
        let is_of_type = |(field, column): (usize, &Column)| column.values.field_type() == self.scan.fields()[field].1;
        if draw & 1 == 0
            || !self.exec.accepts_statistics(series)
            || last > self.scan.window_bounds(first).1
            || !columns().all(is_of_type)
        {
            return None;
        }
        Some(columns().map(|(field, column)| summary(field as u32, &points.times, column)).collect())
    }
}

fn summary(field: u32, times: &[i64], column: &Column) -> BlockSummary {
    let rows: Vec<(i64, Value)> =
        times.iter().enumerate().filter_map(|(row, time)| Some((*time, column.value(row)?))).collect();
    let extreme = |better: fn(&Value, &Value) -> bool| {
        let best = rows.iter().reduce(|best, row| if better(&row.1, &best.1) { row } else { best });
        best.map(|(time, value)| (value.clone(), *time)).unwrap()
    };
    let less = |a: &Value, b: &Value| match (a, b) {
        (Value::Float(a), Value::Float(b)) => a < b,
        (Value::Integer(a), Value::Integer(b)) => a < b,
        (Value::Unsigned(a), Value::Unsigned(b)) => a < b,
        (Value::Boolean(a), Value::Boolean(b)) => !a & b,
        _ => false,
    };
    let sum = rows.iter().map(|(_, value)| value.clone()).reduce(|a, b| match (a, b) {
        (Value::Float(a), Value::Float(b)) => Value::Float(a + b),
        (Value::Integer(a), Value::Integer(b)) => Value::Integer(a.wrapping_add(b)),
        (Value::Unsigned(a), Value::Unsigned(b)) => Value::Unsigned(a.wrapping_add(b)),
        (a, _) => a,
    });
    let (first, last) = (rows[0].clone(), rows[rows.len() - 1].clone());
    BlockSummary {
        column: field,
        count: rows.len() as u64,
        min_time: first.0,
        max_time: last.0,
        min: extreme(less),
        max: extreme(|a, b| match (a, b) {
            (Value::Float(a), Value::Float(b)) => a > b,
            (Value::Integer(a), Value::Integer(b)) => a > b,
            (Value::Unsigned(a), Value::Unsigned(b)) => a > b,
            (Value::Boolean(a), Value::Boolean(b)) => *a && !b,
            _ => false,
        }),
        sum,
        first: first.1,
        last: last.1,
    }
}

/// The rows of a series in batches, cut where a field's type changes, newest batch first if the scan wants so.
fn batches(series: &MemorySeries, scan: &ScanPlan, batch_rows: usize) -> std::collections::VecDeque<Points> {
    let mut all = std::collections::VecDeque::new();
    let (min, max) = scan.time_range();
    let mut batch = Points { times: Vec::new(), columns: vec![None; scan.fields().len()] };
    for (time, fields) in series.rows.range(min..=max) {
        let values: Vec<Option<&Value>> = scan.fields().iter().map(|(name, _)| fields.get(name)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let changes = values.iter().zip(&batch.columns).any(|(value, column)| {
            matches!((value, column), (Some(value), Some(column)) if column.values.field_type() != value.field_type())
        });
        if changes || batch.times.len() == batch_rows {
            let fresh = Points { times: Vec::new(), columns: vec![None; scan.fields().len()] };
            all.push_back(std::mem::replace(&mut batch, fresh));
        }
        for (value, column) in values.iter().zip(&mut batch.columns) {
            match (value, &mut *column) {
                (Some(value), Some(column)) => column.push(value),
                (Some(value), none) => {
                    let mut fresh = Column::absent(value.field_type(), batch.times.len());
                    fresh.push(value);
                    *none = Some(fresh);
                }
                (None, Some(column)) => column.push_null(),
                (None, None) => {}
            }
        }
        batch.times.push(*time);
    }
    if !batch.times.is_empty() {
        all.push_back(batch);
    }
    if scan.descending() {
        all = all.into_iter().rev().collect();
    }
    all
}

fn value_text(value: Option<Value>) -> String {
    match value {
        None => "null".to_owned(),
        Some(Value::Float(value)) => value.to_string(),
        Some(Value::Integer(value)) => value.to_string(),
        Some(Value::Unsigned(value)) => value.to_string(),
        Some(Value::Boolean(value)) => value.to_string(),
        Some(Value::String(value)) => format!("\"{}\"", String::from_utf8_lossy(&value)),
    }
}

/// `name{tag=value} column,column seconds:value,value seconds:value,value`, one line a series.
pub fn text(answer: &[ResultSeries]) -> String {
    let mut lines = Vec::new();
    for series in answer {
        let tags: Vec<String> = series.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let tags = if tags.is_empty() { String::new() } else { format!("{{{}}}", tags.join(",")) };
        let mut line = format!("{}{tags} {}", series.name, series.columns[1..].join(","));
        for row in 0..series.row_count() {
            let mut cells = Vec::new();
            let mut time = String::new();
            for column in &series.values {
                match column {
                    ResultColumn::Time(times) => {
                        let seconds = times[row] as f64 / SECOND as f64;
                        time = seconds.to_string();
                    }
                    ResultColumn::Values(column) => cells.push(value_text(column.value(row))),
                    ResultColumn::StringLists(_) => panic!("a list in a SELECT"),
                }
            }
            line.push_str(&format!(" {time}:{}", cells.join(",")));
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// The data set of the reference's worked examples.
pub fn worked_example_source() -> MemorySource {
    let mut source = MemorySource::default();
    for line in [
        "n v=1,i=1i 0",
        "n v=3,i=3i 10",
        "n v=2,i=2i 20",
        "n v=5,i=5i 30",
        "n v=8,i=8i 40",
        "n v=7,i=7i 50",
        "n v=7,i=7i 60",
        "n v=10,i=10i 90",
        "k,host=a,dc=x v=1,s=\"p\",b=true 0",
        "k,host=b,dc=x v=9,s=\"q\",b=false 5",
        "k,host=a,dc=y v=4,s=\"r\",b=true 12",
        "k,host=b,dc=y v=6,s=\"p\",b=true 27",
        "k,host=c,dc=y v=6,s=\"q\",b=false 27",
    ] {
        source.line(line);
    }
    source
}
