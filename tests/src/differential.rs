//! The random differential test: the same points and statements to our server and to upstream's, the same answers.
//!
//! Where upstream's answer is an accident of its heaps and sorts, or where 1.6.7 is known to differ from the reference,
//! less is compared; each such rule is an [`Exception`], and how often it was used is counted.

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
/// Databases that shrinking one fault may make.
const SHRINK_TRIALS_MAX: u32 = 400;
/// Changes of a database while its statements are asked.
const ROUNDS: u64 = 3;

/// Why less is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exception {
    EqualTimes,
    Limits,
    ModeTies,
    PercentileTime,
    TaglessSeries,
    Sample,
}

impl Exception {
    /// What is not compared, and the paragraph of the reference that says what we do.
    pub fn text(self) -> &'static str {
        match self {
            Exception::EqualTimes => {
                "rows of equal time are compared as sets: they keep the order of their series here (influxql.md 5.1), \
                 the judge gives them as its heap comes to them"
            }
            Exception::Limits => {
                "LIMIT is held against our own whole answer, which is compared: it counts assembled rows (influxql.md \
                 5.1); the judge counts those of each function, and cuts rows of equal time anywhere"
            }
            Exception::ModeTies => {
                "mode() is left out of rows: its ties are decided by times (influxql.md 6.1); the judge sorts in a way \
                 that does not keep the order of equal values"
            }
            Exception::PercentileTime => {
                "the time of a percentile() is left out: of equal values the earlier is taken here (influxql.md 6.2 \
                 leaves it open), the judge's sort takes any"
            }
            Exception::TaglessSeries => {
                "a series without tags is left out of SHOW SERIES after a delete: one without points leaves the index \
                 (influxql.md 15), the judge may keep it"
            }
            Exception::Sample => "the rows of sample() are compared when it takes all of them",
        }
    }
}

/// One change of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Line(String),
    Statement(String),
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
            for statement in 0..share {
                if statement % 16 == 15 {
                    let text = random_statements::show(&mut random);
                    self.ask_show(seed, &text, &database, round > 0)?;
                    continue;
                }
                let select = random_statements::select(&mut random, world);
                self.asked += 1;
                let Some(difference) = self.select_difference(&select, world, &database)? else { continue };
                let shrunk = if shrink { Some(self.shrink(&select, world, &changes)?) } else { None };
                self.faults.push(Fault { seed, statement: select.whole(), difference, shrunk });
            }
            for text in random_statements::SHOWS {
                self.ask_show(seed, text, &database, round > 0)?;
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

    fn ask_show(&mut self, seed: u64, statement: &str, database: &str, is_deleted_from: bool) -> Result<()> {
        self.asked += 1;
        let (a, b, status) = self.ask(statement, &format!("db={database}&epoch=ms"))?;
        let difference = if statement.starts_with("SHOW SERIES") && is_deleted_from {
            *self.exceptions.entry(Exception::TaglessSeries).or_default() += 1;
            compare(answers::without_tagless_series(&b), answers::without_tagless_series(&a))
        } else {
            answers::body_difference(&b, &a, TOLERANCE)
        };
        if let Some(difference) = status.or(difference) {
            self.faults.push(Fault { seed, statement: statement.to_owned(), difference, shrunk: None });
        }
        Ok(())
    }

    /// Asks both the same and compares what is defined.
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
                status.or_else(|| compare(comparable(&b), comparable(&a))).or_else(slice)
            }
            _ => {
                let (a, b, status) = self.ask(&whole, &parameters)?;
                status.or_else(|| compare(comparable(&b), comparable(&a)))
            }
        };
        used.into_iter().for_each(|exception| *self.exceptions.entry(exception).or_default() += 1);
        Ok(difference)
    }

    /// Leaves out points, deletes and parts of the statement as long as the servers still differ; the rest as text.
    fn shrink(&mut self, select: &Select, world: World, changes: &[Change]) -> Result<String> {
        let (asked, full, exceptions) = (self.asked, self.full, self.exceptions.clone());
        let mut trials = 0;
        let mut differs = |pair: &mut Self, select: &Select, changes: &[Change]| -> Result<Option<String>> {
            trials += 1;
            if trials > SHRINK_TRIALS_MAX {
                return Ok(None);
            }
            let database = pair.database(changes)?;
            let difference = pair.select_difference(select, world, &database)?;
            pair.drop_database(&database)?;
            Ok(difference)
        };
        let (mut select, mut changes, mut last) = (select.clone(), changes.to_vec(), None);
        loop {
            let before = (select.clone(), changes.len());
            let mut candidates = select.simpler();
            while let Some(simpler) = candidates.pop() {
                if let Some(difference) = differs(self, &simpler, &changes)? {
                    (select, last) = (simpler, Some(difference));
                    candidates = select.simpler();
                }
            }
            let mut size = changes.len().div_ceil(2);
            while size > 0 {
                let mut at = 0;
                while at < changes.len() {
                    let mut fewer = changes.clone();
                    fewer.drain(at..(at + size).min(changes.len()));
                    match differs(self, &select, &fewer)? {
                        Some(difference) => (changes, last) = (fewer, Some(difference)),
                        None => at += size,
                    }
                }
                size /= 2;
            }
            if before == (select.clone(), changes.len()) {
                break;
            }
        }
        (self.asked, self.full, self.exceptions) = (asked, full, exceptions);
        let changes = changes.iter().map(|change| match change {
            Change::Line(text) | Change::Statement(text) => format!("    {text}\n"),
        });
        Ok(format!(
            "{}\n    {}\n    {}",
            changes.collect::<String>().trim_end(),
            select.whole(),
            last.unwrap_or_else(|| "did not come again in a database of its own".into())
        ))
    }
}

fn compare(b: Option<Value>, a: Option<Value>) -> Option<String> {
    match (b, a) {
        (Some(b), Some(a)) => answers::difference(&b, &a, TOLERANCE),
        _ => Some("an answer is not JSON".to_owned()),
    }
}
