//! Compares what a server holds of the reference set with the oracle or, row by row, with an acknowledgement log.

use crate::acknowledgement::{Entry, Outcome};
use crate::answer::{AnswerSink, Cell, SeriesHead, read_answer};
use crate::check::{RowReader, RowSet, Verdict, exact, near};
use crate::devices::{DeviceSpec, START_MS};
use crate::emission::{Emission, SendOrder};
use crate::http::{Client, encode};
use crate::oracle::{Oracle, Summary};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;

const FIGURES: &str = "count(temperature), sum(temperature), min(temperature), max(temperature), mean(temperature), \
                       count(humidity), sum(humidity), min(humidity), max(humidity), mean(humidity)";

/// How the rows are grouped in one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grouping {
    Total,
    ByGroup,
    ByMinute,
    ByGroupAndMinute,
}

impl Grouping {
    pub const ALL: [Grouping; 4] = [Grouping::Total, Grouping::ByGroup, Grouping::ByMinute, Grouping::ByGroupAndMinute];

    fn clause(self) -> &'static str {
        match self {
            Grouping::Total => "",
            Grouping::ByGroup => " GROUP BY devgroup",
            Grouping::ByMinute => " GROUP BY time(1m)",
            Grouping::ByGroupAndMinute => " GROUP BY devgroup, time(1m)",
        }
    }

    fn has_minutes(self) -> bool {
        matches!(self, Grouping::ByMinute | Grouping::ByGroupAndMinute)
    }

    fn has_groups(self) -> bool {
        matches!(self, Grouping::ByGroup | Grouping::ByGroupAndMinute)
    }

    fn expected(self, oracle: &Oracle, group: u64, minute_ms: i64) -> Summary {
        match self {
            Grouping::Total => oracle.total(|_| true),
            Grouping::ByGroup => oracle.group(group),
            Grouping::ByMinute => oracle.minute(minute_ms, |_| true),
            Grouping::ByGroupAndMinute => oracle.cell(group, minute_ms),
        }
    }
}

/// Asks for all figures in one grouping and compares each of them.
pub fn figures(client: &mut Client, database: &str, grouping: Grouping, oracle: &Oracle) -> Result<Verdict> {
    let end = oracle.spec().end_ms();
    let statement =
        format!("SELECT {FIGURES} FROM devices WHERE time >= {START_MS}ms AND time < {end}ms{}", grouping.clause());
    let answer = client.open_query(&statement, &format!("db={}&epoch=ms", encode(database)))?;
    if answer.status != 200 {
        let response = answer.into_response()?;
        bail!("{statement}: {} {}", response.status, response.text());
    }
    let mut sink = FigureSink { grouping, oracle, group: None, seen: BTreeSet::new(), verdict: Verdict::default() };
    let bytes = read_answer(answer, &mut sink).with_context(|| statement.clone())?;
    let mut verdict = sink.finish();
    verdict.bytes = bytes;
    Ok(verdict)
}

struct FigureSink<'a> {
    grouping: Grouping,
    oracle: &'a Oracle,
    group: Option<u64>,
    seen: BTreeSet<(u64, i64)>,
    verdict: Verdict,
}

impl FigureSink<'_> {
    fn check(&mut self, cells: &[Cell<'_>]) -> Result<(), String> {
        let group = if self.grouping.has_groups() { self.group.ok_or("a series without devgroup")? } else { 0 };
        let time = cells.first().and_then(Cell::integer).ok_or("a row without time")?;
        let key = (group, if self.grouping.has_minutes() { time } else { 0 });
        let expected = self.grouping.expected(self.oracle, group, time);
        let at = |text: String| format!("{:?} {key:?}: {text}", self.grouping);
        if !self.seen.insert(key) {
            return Err(at("comes twice".into()));
        }
        let [_, count, sum, min, max, mean, float_count, float_sum, float_min, float_max, float_mean] = cells else {
            return Err(at(format!("eleven columns were due: {cells:?}")));
        };
        let check = || {
            exact(count, expected.count as i64, "count")?;
            exact(float_count, expected.count as i64, "count of the float")?;
            if expected.count == 0 {
                return Ok(());
            }
            exact(sum, expected.integer_sum, "sum")?;
            exact(min, expected.integer_min, "min")?;
            exact(max, expected.integer_max, "max")?;
            near(mean, expected.integer_mean(), "mean")?;
            near(float_sum, expected.float_sum(), "sum of the float")?;
            near(float_mean, expected.float_mean(), "mean of the float")?;
            same(float_min, expected.float_min(), "min of the float")?;
            same(float_max, expected.float_max(), "max of the float")
        };
        check().map_err(at)
    }

    fn finish(mut self) -> Verdict {
        let groups: Vec<u64> = if self.grouping.has_groups() { (0..crate::devices::GROUPS).collect() } else { vec![0] };
        let minutes: Vec<i64> =
            if self.grouping.has_minutes() { self.oracle.minute_starts().collect() } else { vec![0] };
        for group in groups {
            for minute in &minutes {
                let expected = self.grouping.expected(self.oracle, group, *minute);
                if expected.count > 0 && !self.seen.contains(&(group, *minute)) {
                    self.verdict.add(format!("{:?} ({group}, {minute}) is missing", self.grouping));
                }
            }
        }
        self.verdict
    }
}

impl AnswerSink for FigureSink<'_> {
    fn series(&mut self, head: &SeriesHead) {
        self.group = head.tag("devgroup").and_then(|group| group.parse().ok());
    }

    fn row(&mut self, cells: &[Cell<'_>]) {
        self.verdict.rows += 1;
        if let Err(text) = self.check(cells) {
            self.verdict.add(text);
        }
    }

    fn error(&mut self, _statement: Option<u64>, text: &str) {
        self.verdict.add(format!("error {text:?}"));
    }
}

/// Minima and maxima are values that were written: they come back as they were.
fn same(cell: &Cell<'_>, expected: f64, what: &str) -> Result<(), String> {
    if cell.float() == Some(expected) { Ok(()) } else { Err(format!("{what} is {cell:?} instead of {expected}")) }
}

/// The rows that must be there and those that may be there, by an acknowledgement log.
#[derive(Clone, Debug)]
pub struct Obligation {
    /// Rows of acknowledged batches.
    pub must: RowSet,
    /// These and the rows of batches whose fate is unknown.
    pub may: RowSet,
}

impl Obligation {
    pub fn none(spec: &DeviceSpec) -> Self {
        Self { must: RowSet::new(spec.rows()), may: RowSet::new(spec.rows()) }
    }

    /// Adds one batch: `rows` are the numbers of its rows in the set.
    pub fn add(&mut self, outcome: Outcome, rows: impl IntoIterator<Item = u64>) {
        for row in rows {
            match outcome {
                Outcome::Acknowledged => {
                    self.must.insert(row);
                    self.may.insert(row);
                }
                Outcome::Unknown => {
                    self.may.insert(row);
                }
                // A refused batch may still have stored its good rows: it counts as unknown, too.
                Outcome::Rejected => {
                    self.may.insert(row);
                }
            }
        }
    }

    /// Replays the sending order of all clients and adds every batch of the log.
    pub fn from_log(spec: &DeviceSpec, order: SendOrder, clients: u64, entries: &[Entry]) -> Result<Self> {
        let mut obligation = Self::none(spec);
        for client in 0..clients {
            let mut mine: Vec<&Entry> = entries.iter().filter(|entry| entry.client == client).collect();
            mine.sort_by_key(|entry| entry.first_row);
            let mut emission = Emission::new(*spec, order, spec.devices_of_client(client, clients));
            let mut next = 0;
            for entry in mine {
                if entry.first_row < next {
                    bail!("two batches of client {client} claim position {}", entry.first_row);
                }
                for _ in next..entry.first_row {
                    emission.next();
                }
                let count = (entry.last_row - entry.first_row + 1) as usize;
                let rows: Vec<u64> =
                    emission.by_ref().take(count).map(|(device, number)| spec.row_number(device.id, number)).collect();
                if rows.len() != count {
                    bail!("the log of client {client} goes beyond its rows: wrong number of clients, or another set?");
                }
                obligation.add(entry.outcome, rows);
                next = entry.last_row + 1;
            }
        }
        Ok(obligation)
    }
}

/// Which rows a server has, and whether each is as it was sent.
pub fn present_rows(client: &mut Client, database: &str, spec: DeviceSpec) -> Result<(RowSet, Verdict)> {
    present_rows_of(client, database, spec, &["SELECT * FROM devices".to_owned()])
}

/// As [`present_rows`], by statements of which each row is in one answer.
fn present_rows_of(
    client: &mut Client,
    database: &str,
    spec: DeviceSpec,
    statements: &[String],
) -> Result<(RowSet, Verdict)> {
    let oracle = Oracle::empty(spec);
    let parameters = format!("db={}&epoch=ms&chunked=true&chunk_size=10000", encode(database));
    let mut sink = PresenceSink {
        oracle: &oracle,
        reader: RowReader::new(),
        present: RowSet::new(spec.rows()),
        verdict: Verdict::default(),
    };
    let mut bytes = 0;
    for statement in statements {
        let answer = client.open_query(statement, &parameters)?;
        if answer.status != 200 {
            let response = answer.into_response()?;
            bail!("{statement}: {} {}", response.status, response.text());
        }
        bytes += read_answer(answer, &mut sink)?;
    }
    let mut verdict = sink.verdict;
    verdict.bytes = bytes;
    Ok((sink.present, verdict))
}

/// Asks for every row of a set that is to be there whole, a device group at a time: all at once would want the memory of
/// a block of each series.
pub fn every_row(client: &mut Client, database: &str, spec: DeviceSpec) -> Result<(RowSet, Verdict)> {
    let statements: Vec<String> =
        (0..crate::devices::GROUPS).map(|group| format!("SELECT * FROM devices WHERE devgroup = '{group}'")).collect();
    let (present, mut verdict) = present_rows_of(client, database, spec, &statements)?;
    (0..spec.rows())
        .filter(|row| !present.contains(*row))
        .for_each(|row| verdict.add(format!("lost: {}", name_of(&spec, row))));
    Ok((present, verdict))
}

fn name_of(spec: &DeviceSpec, row: u64) -> String {
    format!("device {} row {}", row / spec.rows_per_device + 1, row % spec.rows_per_device)
}

struct PresenceSink<'a> {
    oracle: &'a Oracle,
    reader: RowReader,
    present: RowSet,
    verdict: Verdict,
}

impl AnswerSink for PresenceSink<'_> {
    fn series(&mut self, head: &SeriesHead) {
        if let Err(text) = self.reader.series(head) {
            self.verdict.add(text);
        }
    }

    fn row(&mut self, cells: &[Cell<'_>]) {
        self.verdict.rows += 1;
        match self.reader.row(self.oracle, cells) {
            Ok(row) => {
                if !self.present.insert(row) {
                    self.verdict.add(format!("a row comes twice: {cells:?}"));
                }
            }
            Err(text) => self.verdict.add(text),
        }
    }

    fn error(&mut self, _statement: Option<u64>, text: &str) {
        self.verdict.add(format!("error {text:?}"));
    }
}

/// Compares the rows of a server with what it owes. The verdict's `rows` are those it has.
pub fn obligations(
    client: &mut Client,
    database: &str,
    spec: DeviceSpec,
    owed: &Obligation,
) -> Result<(RowSet, Verdict)> {
    let (present, mut verdict) = present_rows(client, database, spec)?;
    let name = |row: u64| name_of(&spec, row);
    for row in owed.must.difference(&present) {
        verdict.add(format!("acknowledged, but lost: {}", name(row)));
    }
    for row in present.difference(&owed.may) {
        verdict.add(format!("there, but never sent: {}", name(row)));
    }
    Ok((present, verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_leads_back_to_the_rows_of_its_batches() {
        let spec = DeviceSpec { devices: 4, files: 4, rows_per_device: 100, seed: 2 };
        let order = SendOrder { late_part: 0.2, lag_ms_max: 20_000, duplicate_part: 0.1, interleave: 2 };
        let entry =
            |client, sequence, first_row, last_row, outcome| Entry { client, sequence, first_row, last_row, outcome };
        let log = [
            entry(0, 1, 50, 99, Outcome::Unknown),
            entry(0, 0, 0, 49, Outcome::Acknowledged),
            entry(1, 0, 0, 49, Outcome::Acknowledged),
        ];
        let owed = Obligation::from_log(&spec, order, 2, &log).unwrap();
        let sent: Vec<u64> = Emission::new(spec, order, spec.devices_of_client(0, 2))
            .map(|(device, number)| spec.row_number(device.id, number))
            .collect();
        assert!(sent[..50].iter().all(|row| owed.must.contains(*row)));
        assert!(sent[50..100].iter().all(|row| owed.may.contains(*row)));
        let distinct: BTreeSet<u64> = sent[..100].iter().copied().collect();
        assert_eq!(
            owed.may.difference(&owed.must).count(),
            distinct.iter().filter(|row| !owed.must.contains(**row)).count()
        );
        let beyond = [entry(0, 0, 0, 100_000, Outcome::Acknowledged)];
        assert!(Obligation::from_log(&spec, order, 2, &beyond).is_err());
        let overlap = [entry(0, 0, 0, 10, Outcome::Acknowledged), entry(0, 1, 10, 20, Outcome::Acknowledged)];
        assert!(Obligation::from_log(&spec, order, 2, &overlap).is_err());
    }
}
