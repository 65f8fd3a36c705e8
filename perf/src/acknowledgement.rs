//! The acknowledgement log: what became of every batch that was sent.
//!
//! One line a batch: `client sequence first_row last_row outcome`. Rows are positions in the client's sending order
//! (both inclusive), which `emission` makes again from the seed. A batch that has no line was never sent.

use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;

/// What the server said to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 204: every row must be there.
    Acknowledged,
    /// 4xx: the server refused the batch.
    Rejected,
    /// No answer, or one that leaves the fate of the batch open: its rows may be there or not.
    Unknown,
}

/// One line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub client: u64,
    pub sequence: u64,
    pub first_row: u64,
    pub last_row: u64,
    pub outcome: Outcome,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let outcome = match self.outcome {
            Outcome::Acknowledged => "acknowledged",
            Outcome::Rejected => "rejected",
            Outcome::Unknown => "unknown",
        };
        write!(out, "{} {} {} {} {outcome}", self.client, self.sequence, self.first_row, self.last_row)
    }
}

impl FromStr for Entry {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let wrong = || format!("not a line of an acknowledgement log: {line:?}");
        let mut fields = line.split(' ');
        let mut number = || fields.next().and_then(|field| field.parse::<u64>().ok()).with_context(wrong);
        let (client, sequence, first_row, last_row) = (number()?, number()?, number()?, number()?);
        let outcome = match fields.next() {
            Some("acknowledged") => Outcome::Acknowledged,
            Some("rejected") => Outcome::Rejected,
            Some("unknown") => Outcome::Unknown,
            _ => anyhow::bail!(wrong()),
        };
        anyhow::ensure!(fields.next().is_none() && first_row <= last_row, wrong());
        Ok(Entry { client, sequence, first_row, last_row, outcome })
    }
}

/// A log being written by several clients.
#[derive(Debug)]
pub struct Writer {
    file: Mutex<std::fs::File>,
}

impl Writer {
    pub fn create(path: &Path) -> Result<Self> {
        let file = std::fs::File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Writes the line at once, so that it outlives this process.
    pub fn append(&self, entry: &Entry) -> Result<()> {
        let mut file = self.file.lock().map_err(|_| anyhow::anyhow!("another client died at the log"))?;
        Ok(file.write_all(format!("{entry}\n").as_bytes())?)
    }
}

/// Reads a whole log.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    BufReader::new(file).lines().map(|line| line?.parse()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_print_and_parse() {
        for outcome in [Outcome::Acknowledged, Outcome::Rejected, Outcome::Unknown] {
            let entry = Entry { client: 7, sequence: 3, first_row: 3000, last_row: 3999, outcome };
            assert_eq!(entry.to_string().parse::<Entry>().unwrap(), entry);
        }
        for bad in ["", "1 2 3", "1 2 3 4", "1 2 9 4 unknown", "1 2 3 4 maybe", "1 2 3 4 unknown x", "-1 2 3 4 unknown"]
        {
            assert!(bad.parse::<Entry>().is_err(), "{bad:?}");
        }
    }
}
