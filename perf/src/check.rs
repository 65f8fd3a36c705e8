//! Compares streamed answers with the oracle while they are read.
//!
//! Integers must be exact. Floats may differ by `TOLERANCE` relative to their size, because a server may add in
//! another order than the oracle, which adds exactly.

use crate::answer::{AnswerSink, Cell, SeriesHead, read_answer};
use crate::devices::{Device, GROUPS};
use crate::http::{Client, encode};
use crate::oracle::{Oracle, Summary};
use crate::statements::{Function, Groups, Shape, Statement};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// Accepted relative difference of sums and means of floats: 10 M additions of like-signed doubles lose about half of
/// their 16 digits at worst, typically far less.
pub const TOLERANCE: f64 = 1e-9;

/// Findings that are kept with their text; more are only counted.
const FINDINGS_MAX: usize = 5;

/// What an answer showed.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub rows: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub wrong: u64,
    /// The first few differences in words.
    pub findings: Vec<String>,
}

impl Verdict {
    pub fn is_right(&self) -> bool {
        self.wrong == 0
    }

    pub fn add(&mut self, text: impl Into<String>) {
        self.wrong += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(text.into());
        }
    }
}

/// Runs one statement of the reference files against a server and checks its answer.
pub fn run(client: &mut Client, database: &str, statement: &Statement, oracle: &Oracle) -> Result<Verdict> {
    let chunks = match statement.shape {
        Shape::Rows => "&chunked=true&chunk_size=1000",
        // Millions of filled minutes: only a chunked answer can be written in bounded memory by every server.
        Shape::ByMinute => "&chunked=true",
        _ => "",
    };
    let parameters = format!("db={}&epoch=ms{chunks}", encode(database));
    let begin = Instant::now();
    let answer = client.open_query(&statement.text, &parameters).with_context(|| statement.text.clone())?;
    if answer.status != 200 {
        let response = answer.into_response()?;
        bail!("{}: {} {}", statement.text, response.status, response.text());
    }
    let mut sink = Checker::new(statement, oracle);
    let bytes = read_answer(answer, &mut sink).with_context(|| statement.text.clone())?;
    let mut verdict = sink.finish();
    verdict.seconds = begin.elapsed().as_secs_f64();
    verdict.bytes = bytes;
    Ok(verdict)
}

/// One bit a row of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSet {
    words: Vec<u64>,
    bits: u64,
}

impl RowSet {
    pub fn new(bits: u64) -> Self {
        Self { words: vec![0; bits.div_ceil(64) as usize], bits }
    }

    /// Adds a row; false when it was there already.
    pub fn insert(&mut self, row: u64) -> bool {
        assert!(row < self.bits, "row {row} of {}", self.bits);
        let (word, bit) = (&mut self.words[(row / 64) as usize], 1 << (row % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    pub fn contains(&self, row: u64) -> bool {
        row < self.bits && self.words[(row / 64) as usize] & (1 << (row % 64)) != 0
    }

    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Rows that are in `self` but not in `other`.
    pub fn difference<'a>(&'a self, other: &'a RowSet) -> impl Iterator<Item = u64> + 'a {
        self.words.iter().zip(&other.words).enumerate().flat_map(|(index, (mine, theirs))| {
            let missing = mine & !theirs;
            (0..64).filter(move |bit| missing & (1 << bit) != 0).map(move |bit| index as u64 * 64 + bit)
        })
    }
}

/// Reads rows of `select * from devices` and says which row of the set each one is.
#[derive(Debug)]
pub struct RowReader {
    columns: Option<[usize; 6]>,
    device: Option<Device>,
}

impl RowReader {
    const NAMES: [&'static str; 6] = ["time", "devgroup", "devid", "devname", "humidity", "temperature"];

    pub fn new() -> Self {
        Self { columns: None, device: None }
    }

    pub fn series(&mut self, head: &SeriesHead) -> Result<(), String> {
        let mut columns = [0; 6];
        for (column, name) in columns.iter_mut().zip(Self::NAMES) {
            *column = head
                .columns
                .iter()
                .position(|column| column == name)
                .ok_or_else(|| format!("column {name} is missing in {:?}", head.columns))?;
        }
        self.columns = Some(columns);
        Ok(())
    }

    /// Number of the row in the set when each of its values is what was generated.
    pub fn row(&mut self, oracle: &Oracle, cells: &[Cell<'_>]) -> Result<u64, String> {
        let wrong = |what: &str| format!("{what}: {cells:?}");
        let [time, group, id, name, humidity, temperature] =
            self.columns.ok_or_else(|| wrong("a row before its columns"))?.map(|column| cells[column]);
        let spec = oracle.spec();
        let device_id = id
            .text()
            .and_then(|id| id.parse::<u64>().ok())
            .filter(|id| (1..=spec.devices).contains(id))
            .ok_or_else(|| wrong("no such device"))?;
        let device = match self.device {
            Some(device) if device.id == device_id => device,
            _ => *self.device.insert(spec.device(device_id)),
        };
        let number = time.integer().and_then(|time| spec.row_at(time)).ok_or_else(|| wrong("no row has that time"))?;
        let row = device.row(number);
        if group.text().and_then(|group| group.parse().ok()) != Some(device.group()) {
            return Err(wrong("wrong devgroup"));
        }
        if name.text().and_then(|name| name.strip_prefix("dev_")?.parse().ok()) != Some(device_id) {
            return Err(wrong("wrong devname"));
        }
        if temperature.integer() != Some(row.integer) {
            return Err(wrong(&format!("temperature is not {}", row.integer)));
        }
        if humidity.float() != Some(row.float()) {
            return Err(wrong(&format!("humidity is not {}", row.float())));
        }
        Ok(spec.row_number(device_id, number))
    }
}

impl Default for RowReader {
    fn default() -> Self {
        Self::new()
    }
}

struct Checker<'a> {
    statement: &'a Statement,
    oracle: &'a Oracle,
    verdict: Verdict,
    head: SeriesHead,
    rows: RowReader,
    seen: RowSet,
    groups_seen: Vec<u64>,
    last_time: Option<i64>,
}

impl<'a> Checker<'a> {
    fn new(statement: &'a Statement, oracle: &'a Oracle) -> Self {
        let bits = if statement.shape == Shape::Rows { oracle.spec().rows() } else { 0 };
        Self {
            statement,
            oracle,
            verdict: Verdict::default(),
            head: SeriesHead::default(),
            rows: RowReader::new(),
            seen: RowSet::new(bits),
            groups_seen: Vec::new(),
            last_time: None,
        }
    }

    fn expected(&self) -> Summary {
        self.oracle.total(|group| self.statement.groups.contains(group))
    }

    fn check_row(&mut self, cells: &[Cell<'_>]) -> Result<(), String> {
        match self.statement.shape {
            Shape::Rows => {
                let time = cells.first().and_then(Cell::integer);
                if time < self.last_time {
                    return Err(format!("rows go back in time: {cells:?} after {:?}", self.last_time));
                }
                self.last_time = time;
                let row = self.rows.row(self.oracle, cells)?;
                if !self.statement.groups.contains((row / self.oracle.spec().rows_per_device + 1) % GROUPS) {
                    return Err(format!("a row of another group: {cells:?}"));
                }
                if !self.seen.insert(row) {
                    return Err(format!("a row comes twice: {cells:?}"));
                }
                Ok(())
            }
            Shape::Figure(function) => check_figure(cells, function, &self.expected()),
            Shape::ByGroup => {
                let group = self.head.tag("devgroup").and_then(|group| group.parse::<u64>().ok());
                let group = group
                    .filter(|group| self.statement.groups.contains(*group))
                    .ok_or_else(|| format!("a group that was not asked for: {:?}", self.head.tags))?;
                if self.groups_seen.contains(&group) {
                    return Err(format!("group {group} comes twice"));
                }
                self.groups_seen.push(group);
                check_three(cells, &self.oracle.group(group)).map_err(|text| format!("group {group}: {text}"))
            }
            Shape::ByMinute => {
                let time =
                    cells.first().and_then(Cell::integer).ok_or_else(|| format!("a row without time: {cells:?}"))?;
                let next = match self.last_time {
                    Some(last) => last + 60_000,
                    None => self.oracle.minute_starts().next().unwrap_or(0),
                };
                self.last_time = Some(time);
                if time != next {
                    return Err(format!("minute {time} where {next} was due"));
                }
                let expected = self.oracle.minute(time, |group| self.statement.groups.contains(group));
                check_three(cells, &expected).map_err(|text| format!("minute {time}: {text}"))
            }
        }
    }

    fn finish(mut self) -> Verdict {
        let spec = self.oracle.spec();
        let groups =
            (0..GROUPS).filter(|group| self.statement.groups.contains(*group) && self.oracle.group(*group).count > 0);
        match self.statement.shape {
            Shape::Rows => {
                let expected = self.expected().count;
                if self.seen.count() != expected {
                    self.verdict.add(format!("{} different rows instead of {expected}", self.seen.count()));
                }
            }
            Shape::Figure(_) => {
                let due = u64::from(self.expected().count > 0);
                if self.verdict.rows != due {
                    self.verdict.add(format!("{} rows instead of {due}", self.verdict.rows));
                }
            }
            Shape::ByGroup => {
                let due = groups.count();
                if self.groups_seen.len() != due {
                    self.verdict.add(format!("{} groups instead of {due}", self.groups_seen.len()));
                }
            }
            Shape::ByMinute if groups.count() > 0 => {
                // The answer must reach the present, give or take the minutes that the query itself took.
                let now_ms = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap_or(Duration::ZERO)
                    .as_millis() as i64;
                let last = self.last_time.unwrap_or(0);
                if last < spec.end_ms() - 60_000 || last < now_ms - 30 * 60_000 || last > now_ms {
                    self.verdict.add(format!("the last minute is {last}, now is {now_ms}"));
                }
            }
            Shape::ByMinute => {}
        }
        self.verdict
    }
}

impl AnswerSink for Checker<'_> {
    fn series(&mut self, head: &SeriesHead) {
        if self.statement.shape == Shape::Rows
            && let Err(text) = self.rows.series(head)
        {
            self.verdict.add(text);
        }
        self.head = head.clone();
    }

    fn row(&mut self, cells: &[Cell<'_>]) {
        self.verdict.rows += 1;
        if let Err(text) = self.check_row(cells) {
            self.verdict.add(text);
        }
    }

    fn error(&mut self, _statement: Option<u64>, text: &str) {
        self.verdict.add(format!("error {text:?}"));
    }
}

fn check_figure(cells: &[Cell<'_>], function: Function, expected: &Summary) -> Result<(), String> {
    let [_, value] = cells else { return Err(format!("two columns were due: {cells:?}")) };
    match function {
        Function::Count => exact(value, expected.count as i64, "count"),
        Function::Sum => exact(value, expected.integer_sum, "sum"),
        Function::Max => exact(value, expected.integer_max, "max"),
        Function::Min => exact(value, expected.integer_min, "min"),
        Function::Spread => exact(value, expected.integer_max - expected.integer_min, "spread"),
        Function::Mean => near(value, expected.integer_mean(), "mean"),
    }
}

/// time, count, sum, mean of the integer field.
fn check_three(cells: &[Cell<'_>], expected: &Summary) -> Result<(), String> {
    let [_, count, sum, mean] = cells else { return Err(format!("four columns were due: {cells:?}")) };
    exact(count, expected.count as i64, "count")?;
    if expected.count == 0 {
        return match (sum, mean) {
            (Cell::Null, Cell::Null) => Ok(()),
            _ => Err(format!("an empty minute has figures: {cells:?}")),
        };
    }
    exact(sum, expected.integer_sum, "sum")?;
    near(mean, expected.integer_mean(), "mean")
}

/// The cell must hold exactly this integer.
pub fn exact(cell: &Cell<'_>, expected: i64, what: &str) -> Result<(), String> {
    if cell.integer() == Some(expected) { Ok(()) } else { Err(format!("{what} is {cell:?} instead of {expected}")) }
}

/// The cell must hold a number within `TOLERANCE` of the expected one.
pub fn near(cell: &Cell<'_>, expected: f64, what: &str) -> Result<(), String> {
    match cell.float() {
        Some(value) if (value - expected).abs() <= TOLERANCE * expected.abs().max(1.0) => Ok(()),
        _ => Err(format!("{what} is {cell:?} instead of {expected}")),
    }
}

/// All groups of a statement, for callers that build statements of their own.
pub fn everything(text: impl Into<String>, shape: Shape) -> Statement {
    Statement { text: text.into(), groups: Groups::All, shape }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::DeviceSpec;

    const SPEC: DeviceSpec = DeviceSpec { devices: 12, files: 3, rows_per_device: 100, seed: 8 };

    /// The right answer to `select * from devices`, with one row changed by `spoil`.
    fn answer(spoil: impl Fn(u64, u64, String) -> Option<String>) -> String {
        let mut rows = Vec::new();
        for number in 0..SPEC.rows_per_device {
            for id in 1..=SPEC.devices {
                let row = SPEC.device(id).row(number);
                let text =
                    format!("[{},\"{}\",\"{id}\",\"dev_{id}\",{},{}]", row.time_ms, id % 100, row.float(), row.integer);
                rows.extend(spoil(id, number, text));
            }
        }
        format!(
            r#"{{"results":[{{"statement_id":0,"series":[{{"name":"devices","columns":["time","devgroup","devid","devname","humidity","temperature"],"values":[{}]}}]}}]}}"#,
            rows.join(",")
        )
    }

    fn verdict(text: &str) -> Verdict {
        let oracle = Oracle::compute(SPEC, 1);
        let statement = &crate::statements::of_file("q")[0];
        let mut sink = Checker::new(statement, &oracle);
        read_answer(text.as_bytes(), &mut sink).unwrap();
        sink.finish()
    }

    #[test]
    fn the_right_answer_passes_and_each_planted_fault_is_found() {
        let right = verdict(&answer(|_, _, text| Some(text)));
        assert!(right.is_right(), "{right:?}");
        assert_eq!(right.rows, 1200);
        let at = |id, number| id == 5 && number == 50;
        type Spoil = Box<dyn Fn(u64, u64, String) -> Option<String>>;
        let spoils: [(&str, Spoil); 4] = [
            ("lost", Box::new(move |id, n, text| (!at(id, n)).then_some(text))),
            ("doubled", Box::new(move |id, n, text| Some(if at(id, n) { format!("{text},{text}") } else { text }))),
            ("changed", Box::new(move |id, n, text| Some(if at(id, n) { text.replace(']', "1]") } else { text }))),
            (
                "other device",
                Box::new(move |id, n, text| Some(if at(id, n) { text.replace("\"5\"", "\"6\"") } else { text })),
            ),
        ];
        for (name, spoil) in spoils {
            let wrong = verdict(&answer(spoil));
            assert!(!wrong.is_right(), "a row that is {name} passes");
        }
    }

    #[test]
    fn row_sets_count_and_subtract() {
        let (mut a, mut b) = (RowSet::new(200), RowSet::new(200));
        for row in [0, 63, 64, 199] {
            assert!(a.insert(row));
        }
        assert!(!a.insert(64));
        b.insert(63);
        assert_eq!(a.count(), 4);
        assert_eq!(a.difference(&b).collect::<Vec<_>>(), [0, 64, 199]);
        assert!(a.contains(199) && !a.contains(198) && !a.contains(10_000));
    }
}
