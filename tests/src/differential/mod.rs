//! The random differential test: the same points and statements to our server and to upstream's, the same answers.
//!
//! Where upstream's answer is an accident of its heaps and sorts, or where 1.6.7 is known to differ from the reference,
//! less is compared; each such rule is an [`Exception`], and how often it was used is counted. What is not asked at all
//! is in [`NOT_ASKED`].

mod exceptions;
mod shrink;

pub use exceptions::{Exception, NOT_ASKED};

use crate::answers::{self, Numbers};
use crate::random_statements::{self, Kind, Select, World};
use crate::subject;
use anyhow::Result;
use serde_json::Value;
use std::collections::BTreeMap;
use tidemill_perf::http::Client;
use tidemill_perf::random::Sequence;

/// The order in which floats are added is free: that moves the last digits of means and deviations.
const TOLERANCE: Numbers = Numbers::Within(1e-12);
/// Changes of a database while its statements are asked.
const ROUNDS: u64 = 3;

/// One change of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Line(String),
    Statement(String),
}

/// What both servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Select(Box<Select>),
    Show(String),
}

impl Asked {
    fn text(&self) -> String {
        match self {
            Asked::Select(select) => select.whole(),
            Asked::Show(text) => text.clone(),
        }
    }

    /// With one part left out, in every way.
    fn simpler(&self) -> Vec<Asked> {
        match self {
            Asked::Select(select) => {
                select.simpler().into_iter().map(|simpler| Asked::Select(Box::new(simpler))).collect()
            }
            Asked::Show(_) => Vec::new(),
        }
    }
}

/// Both servers answered otherwise.
#[derive(Clone, Debug)]
pub struct Fault {
    pub seed: u64,
    /// As it was asked.
    pub statement: String,
    pub difference: String,
    /// The smallest points and statement that still show a difference.
    pub shrunk: Option<String>,
}

/// Both servers, with what was asked and what differed.
#[derive(Debug)]
pub struct Pair {
    ours: Client,
    theirs: Client,
    pub asked: u64,
    /// Answers that hold rows.
    pub full: u64,
    pub exceptions: BTreeMap<Exception, u64>,
    pub faults: Vec<Fault>,
    databases: u64,
}

impl Pair {
    pub fn new(ours: Client, theirs: Client) -> Self {
        let exceptions = BTreeMap::new();
        Self { ours, theirs, asked: 0, full: 0, exceptions, faults: Vec::new(), databases: 0 }
    }

    /// Asks `statements` of one seed; with `shrink`, faults are made small.
    ///
    /// # Errors
    /// If a server does not answer, or refuses what both must take.
    pub fn run_seed(&mut self, seed: u64, statements: u64, shrink: bool) -> Result<()> {
        let mut random = Sequence::new(seed);
        let world = World::of(seed);
        let (mut changes, mut taken) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let lines = random_statements::points(&mut random, 100, world, &mut taken);
            changes.extend(lines.into_iter().map(Change::Line));
        }
        let database = self.database(&changes)?;
        for round in 0..ROUNDS {
            let share = statements * (round + 1) / ROUNDS - statements * round / ROUNDS;
            let mut all: Vec<Asked> = (0..share)
                .map(|statement| match statement % 16 {
                    15 => Asked::Show(random_statements::show(&mut random)),
                    _ => Asked::Select(Box::new(random_statements::select(&mut random, world))),
                })
                .collect();
            all.extend(random_statements::SHOWS.iter().map(|text| Asked::Show((*text).to_owned())));
            for asked in all {
                self.asked += 1;
                let Some(difference) = self.difference(&asked, world, &database, round > 0)? else { continue };
                let shrunk = if shrink { Some(shrink::shrink(self, &asked, world, &changes)?) } else { None };
                self.faults.push(Fault { seed, statement: asked.text(), difference, shrunk });
            }
            let delete = random_statements::delete(&mut random, world);
            self.apply(&database, &[Change::Statement(delete.clone())])?;
            changes.push(Change::Statement(delete));
        }
        self.drop_database(&database)
    }

    /// A fresh database on both servers.
    fn database(&mut self, changes: &[Change]) -> Result<String> {
        self.databases += 1;
        let database = format!("random{}", self.databases);
        for client in [&mut self.ours, &mut self.theirs] {
            subject::query(client, &format!("CREATE DATABASE {database}"), "")?;
        }
        self.apply(&database, changes)?;
        Ok(database)
    }

    fn drop_database(&mut self, database: &str) -> Result<()> {
        for client in [&mut self.ours, &mut self.theirs] {
            subject::query(client, &format!("DROP DATABASE {database}"), "")?;
        }
        Ok(())
    }

    fn apply(&mut self, database: &str, changes: &[Change]) -> Result<()> {
        let parameters = format!("db={database}");
        for client in [&mut self.ours, &mut self.theirs] {
            for part in changes.chunk_by(|a, b| matches!((a, b), (Change::Line(_), Change::Line(_)))) {
                if let [Change::Statement(text)] = part {
                    subject::query(client, text, &parameters)?;
                    continue;
                }
                let lines = part.iter().map(|change| match change {
                    Change::Line(line) | Change::Statement(line) => line.as_str(),
                });
                subject::write(client, &parameters, &lines.collect::<Vec<_>>().join("\n"))?;
            }
        }
        Ok(())
    }

    /// Both answers, ours first; a difference of their statuses.
    fn ask(&mut self, statement: &str, parameters: &str) -> Result<(String, String, Option<String>)> {
        let a = self.ours.query(statement, parameters)?;
        let b = self.theirs.query(statement, parameters)?;
        self.full += u64::from(b.text().contains("\"values\""));
        let status = (a.status != b.status).then(|| format!("status {} and {}", a.status, b.status));
        Ok((a.text(), b.text(), status))
    }

    /// Asks both the same and compares what is defined.
    fn difference(
        &mut self,
        asked: &Asked,
        world: World,
        database: &str,
        is_deleted_from: bool,
    ) -> Result<Option<String>> {
        match asked {
            Asked::Select(select) => self.select_difference(select, world, database),
            Asked::Show(text) => self.show_difference(text, database, is_deleted_from),
        }
    }

    fn show_difference(&mut self, statement: &str, database: &str, is_deleted_from: bool) -> Result<Option<String>> {
        let is_of_tags = statement.starts_with("SHOW TAG VALUES") || statement.contains(" WHERE ");
        let is_conditional = is_of_tags && !statement.starts_with("SHOW SERIES");
        // Which rows LIMIT leaves depends on series that are not there any more.
        let asked = match statement.find(" LIMIT ") {
            Some(limit) if is_deleted_from && is_conditional => &statement[..limit],
            _ => statement,
        };
        let (a, b, status) = self.ask(asked, &format!("db={database}&epoch=ms"))?;
        let stale = match is_deleted_from {
            true if statement.starts_with("SHOW SERIES") => {
                Some(answers::without_stale_series as fn(Value, &Value) -> Value)
            }
            true if is_conditional => Some(answers::only_rows_of as fn(Value, &Value) -> Value),
            _ => None,
        };
        let difference = match stale {
            None => answers::body_difference(&b, &a, TOLERANCE),
            Some(without_stale) => {
                *self.exceptions.entry(Exception::StaleSeries).or_default() += 1;
                let (b, a) = (serde_json::from_str(&b).ok(), serde_json::from_str(&a).ok());
                compare(b.zip(a.as_ref()).map(|(b, a)| without_stale(b, a)), a)
            }
        };
        Ok(status.or(difference))
    }

    fn select_difference(&mut self, select: &Select, world: World, database: &str) -> Result<Option<String>> {
        // In a zone, times as texts: they show its offset.
        let epoch = if select.zone.is_some() { "" } else { "&epoch=ms" };
        let parameters = format!("db={database}{epoch}");
        let mut used = Vec::new();
        let free_column = if select.calls(&["mode"]) {
            used.push(Exception::ModeTies);
            Some("mode")
        } else if select.calls(&["percentile"]) && !select.dimensions.iter().any(|text| text.starts_with("time(")) {
            used.push(Exception::PercentileTime);
            Some("time")
        } else {
            None
        };
        if select.calls(&["sample"]) {
            used.push(Exception::Sample);
        }
        let has_rows_of_points = select.kind == Kind::Raw || select.calls(&["top", "bottom", "sample"]);
        let free_order = has_rows_of_points && !world.has_unique_times;
        if free_order {
            used.push(Exception::EqualTimes);
        }
        let comparable = |body: &str| match free_column {
            Some(name) => answers::without_columns(body, name),
            None if free_order => answers::with_equal_times_sorted(body),
            None => serde_json::from_str(body).ok(),
        };
        let fills_numbers = ["fill(0)", "fill(-3)"].iter().any(|fill| select.text().contains(fill));
        if fills_numbers {
            used.push(Exception::FillOfBooleans);
        }
        let difference_of = |b: &str, a: &str| {
            let (b, a) = (comparable(b), comparable(a));
            compare(if fills_numbers { b.zip(a.as_ref()).map(|(b, a)| answers::with_fills_of(b, a)) } else { b }, a)
        };
        let is_of_several = select.kind == Kind::Transformation && select.fields.len() > 1;
        let is_limited_alike = !free_order && !is_of_several && !select.text().contains("fill(none)");
        let whole = select.whole();
        let difference = match select.limit {
            Some(limit) if !is_limited_alike => {
                used.push(Exception::Limits);
                let (a, b, status) = self.ask(&select.unlimited(), &parameters)?;
                let some = self.ours.query(&whole, &parameters)?.text();
                let slice = || compare(answers::limited(&a, limit), serde_json::from_str(&some).ok());
                let is_answered = a.contains("\"results\"");
                let slice =
                    || slice().filter(|_| is_answered).map(|text| format!("is no slice of the whole answer: {text}"));
                status.or_else(|| difference_of(&b, &a)).or_else(slice)
            }
            _ => {
                let (a, b, status) = self.ask(&whole, &parameters)?;
                status.or_else(|| difference_of(&b, &a))
            }
        };
        used.into_iter().for_each(|exception| *self.exceptions.entry(exception).or_default() += 1);
        Ok(difference)
    }
}

fn compare(b: Option<Value>, a: Option<Value>) -> Option<String> {
    match (b, a) {
        (Some(b), Some(a)) => answers::difference(&b, &a, TOLERANCE),
        _ => Some("an answer is not JSON".to_owned()),
    }
}
