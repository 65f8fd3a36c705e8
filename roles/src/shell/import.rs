//! `--import`: the files that exports make.
//!
//! A file has a part of statements (`# DDL`) and one of points (`# DML`), whose targets stand in `# CONTEXT-...` lines.
//! A batch that fails is told and counted, and the next one goes on.

use crate::shell::client::Connection;
use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant};

/// Points of one write, as upstream has it.
const BATCH_POINTS: u64 = 5000;
const BATCH_BYTES_MAX: usize = 8 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    None,
    Statements,
    Points,
}

struct Import<'a> {
    connection: &'a Connection,
    part: Part,
    database: String,
    policy: String,
    batch: Vec<u8>,
    batch_points: u64,
    points_per_second: u64,
    begun: Instant,
    commands: u64,
    written: u64,
    failed: u64,
}

/// Imports a file. Returns how many points were not written.
pub fn run(connection: &Connection, path: &Path, is_packed: bool, points_per_second: u64) -> anyhow::Result<u64> {
    let told = || path.display().to_string();
    let file = File::open(path).with_context(told)?;
    let bar = ProgressBar::new(file.metadata().with_context(told)?.len());
    if let Ok(style) = ProgressStyle::with_template("import {bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    let counted = bar.wrap_read(file);
    let reader: Box<dyn Read> = if is_packed { Box::new(MultiGzDecoder::new(counted)) } else { Box::new(counted) };
    let mut import = Import {
        connection,
        part: Part::None,
        database: String::new(),
        policy: String::new(),
        batch: Vec::new(),
        batch_points: 0,
        points_per_second,
        begun: Instant::now(),
        commands: 0,
        written: 0,
        failed: 0,
    };
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).with_context(told)? > 0 {
        import.take(&line)?;
        line.clear();
    }
    import.flush();
    bar.finish_and_clear();
    println!("Processed {} commands", import.commands);
    println!("Processed {} inserts", import.written + import.failed);
    println!("Failed {} inserts", import.failed);
    Ok(import.failed)
}

impl Import<'_> {
    fn take(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let line = line.trim_ascii_end();
        if let Some(note) = line.strip_prefix(b"#") {
            self.note(String::from_utf8_lossy(note).trim());
            return Ok(());
        }
        match self.part {
            _ if line.is_empty() => {}
            Part::None => bail!("neither # DDL nor # DML stands before the first line"),
            Part::Statements => {
                self.commands += 1;
                let statement = String::from_utf8_lossy(line);
                let answer = self.connection.query(&statement, &mut |document| {
                    let json: serde_json::Value = serde_json::from_str(document).map_err(|error| error.to_string())?;
                    let error = json["error"].as_str().or(json["results"][0]["error"].as_str());
                    error.map_or(Ok(()), |error| Err(error.to_owned()))
                });
                if let Err(error) = answer {
                    eprintln!("error: {error}: {statement}");
                }
            }
            Part::Points => {
                self.batch.extend_from_slice(line);
                self.batch.push(b'\n');
                self.batch_points += 1;
                if self.batch_points >= BATCH_POINTS || self.batch.len() >= BATCH_BYTES_MAX {
                    self.flush();
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, note: &str) {
        let value = |name: &str| note.strip_prefix(name).map(|value| value.trim().to_owned());
        if note == "DDL" {
            self.part = Part::Statements;
        } else if note == "DML" {
            self.part = Part::Points;
        } else if let Some(database) = value("CONTEXT-DATABASE:") {
            self.flush();
            (self.database, self.policy) = (database, String::new());
        } else if let Some(policy) = value("CONTEXT-RETENTION-POLICY:") {
            self.flush();
            self.policy = policy;
        }
    }

    fn flush(&mut self) {
        if self.batch_points == 0 {
            return;
        }
        let precision = match self.connection.precision.as_str() {
            "rfc3339" => "ns",
            unit => unit,
        };
        match self.connection.write(&self.database, &self.policy, precision, &self.batch) {
            Ok(()) => self.written += self.batch_points,
            Err(error) => {
                self.failed += self.batch_points;
                eprintln!("error writing batch: {error}");
            }
        }
        self.batch.clear();
        self.batch_points = 0;
        if self.points_per_second > 0 {
            let due = Duration::from_secs_f64((self.written + self.failed) as f64 / self.points_per_second as f64);
            std::thread::sleep(due.saturating_sub(self.begun.elapsed()));
        }
    }
}
