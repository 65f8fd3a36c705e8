//! `inspect export`: the points of a stopped server, as line protocol or as a data folder of upstream.
//!
//! Both read through the engine, so that what is exported is what a query would show: rows that are only in the log are
//! there, deleted ones are not. Memory: what the log held, and one block a field.

use super::{
    Damaged, Output, export_upstream,
    stopped::{SeriesReader, Stopped},
    table::time_text,
};
use crate::line_text::{push_field, push_time};
use anyhow::Context;
use flate2::{Compression, write::GzEncoder};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};
use tidemill_column::Points;
use tidemill_influxql::{TimeText, parse_time_text};
use tidemill_meta::{Database, RetentionPolicy};
use tidemill_store::ScanField;

/// Writes the points of a data folder as line protocol, as `influx_inspect export` does, or as a folder that InfluxDB 1.x serves
#[derive(clap::Args, Debug)]
pub struct Export {
    /// The data folder of a stopped server
    folder: PathBuf,
    /// Only this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Only this retention policy
    #[arg(long, value_name = "NAME", requires = "database")]
    retention: Option<String>,
    /// From this time on (RFC 3339, or nanoseconds since 1970)
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
    start: Option<i64>,
    /// Up to this time, itself included
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
    end: Option<i64>,
    /// Where to write line protocol; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-", conflicts_with = "upstream")]
    out: PathBuf,
    /// With gzip
    #[arg(long, conflicts_with = "upstream")]
    compress: bool,
    /// Only the lines, without statements that make databases
    #[arg(long, conflicts_with = "upstream")]
    lponly: bool,
    /// Writes `data`, `wal` and `meta` of InfluxDB 1.x into this new folder instead
    #[arg(long, value_name = "DIR")]
    upstream: Option<PathBuf>,
}

/// What is exported.
pub struct Selection<'a> {
    export: &'a Export,
}

impl Selection<'_> {
    pub fn databases<'m>(&self, stopped: &'m Stopped) -> impl Iterator<Item = &'m Database> {
        let only = self.export.database.clone();
        stopped.meta.databases().iter().filter(move |known| only.as_ref().is_none_or(|only| *only == known.name))
    }

    pub fn policies<'m>(&self, database: &'m Database) -> impl Iterator<Item = &'m RetentionPolicy> {
        let only = self.export.retention.clone();
        database.policies.iter().filter(move |known| only.as_ref().is_none_or(|only| *only == known.name))
    }

    /// First and last instant.
    pub fn range(&self) -> (i64, i64) {
        (self.export.start.unwrap_or(i64::MIN), self.export.end.unwrap_or(i64::MAX))
    }
}

impl Export {
    pub fn run(&self, out: &mut Output) -> anyhow::Result<()> {
        futures_lite::future::block_on(async {
            let stopped = Stopped::open(&self.folder).await?;
            let selection = Selection { export: self };
            if let Some(name) = &self.database {
                anyhow::ensure!(stopped.meta.database(name).is_some(), "database not found: {name}");
            }
            match &self.upstream {
                Some(folder) => export_upstream::write(&stopped, &selection, folder).await,
                None => self.write_lines(&stopped, &selection, out).await,
            }
        })
    }

    async fn write_lines(&self, stopped: &Stopped, selection: &Selection<'_>, out: &mut Output) -> anyhow::Result<()> {
        let mut sink: Box<dyn Write + '_> = if self.out == Path::new("-") {
            Box::new(&mut out.0)
        } else {
            let file = File::create(&self.out).with_context(|| self.out.display().to_string())?;
            Box::new(BufWriter::with_capacity(1 << 20, file))
        };
        let inexpressible = if self.compress {
            let mut packed = GzEncoder::new(&mut sink, Compression::default());
            let inexpressible = self.lines(stopped, selection, &mut packed).await?;
            packed.finish()?;
            inexpressible
        } else {
            self.lines(stopped, selection, &mut sink).await?
        };
        sink.flush()?;
        match inexpressible {
            0 => Ok(()),
            count => {
                Err(Damaged(format!("{count} values are infinite or no number; line protocol has no text for them"))
                    .into())
            }
        }
    }

    /// Returns how many values line protocol cannot express.
    async fn lines(&self, stopped: &Stopped, selection: &Selection<'_>, out: &mut dyn Write) -> anyhow::Result<u64> {
        let range = selection.range();
        if !self.lponly {
            writeln!(out, "# INFLUXDB EXPORT: {} - {}", time_text(range.0), time_text(range.1))?;
            writeln!(out, "# DDL")?;
            for database in selection.databases(stopped) {
                define(database, selection.policies(database), out)?;
            }
            writeln!(out, "# DML")?;
        }
        let mut inexpressible = 0;
        for database in selection.databases(stopped) {
            for policy in selection.policies(database) {
                if !self.lponly {
                    writeln!(out, "# CONTEXT-DATABASE:{}", database.name)?;
                    writeln!(out, "# CONTEXT-RETENTION-POLICY:{}", policy.name)?;
                    writeln!(out, "# writing tsm data")?;
                }
                inexpressible += lines_of(stopped, database, policy, range, out).await?;
            }
        }
        Ok(inexpressible)
    }
}

/// Statements that make a database with its policies. Durations are left out, as upstream does: an import must not lose
/// points for their age.
fn define<'a>(
    database: &Database,
    policies: impl Iterator<Item = &'a RetentionPolicy>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    let mut names: Vec<&str> = policies.map(|policy| policy.name.as_str()).collect();
    // The default policy comes with the database.
    names.sort_by_key(|name| *name != database.default_policy);
    let Some((first, others)) = names.split_first() else { return Ok(()) };
    writeln!(out, "CREATE DATABASE {} WITH NAME {}", quoted(&database.name), quoted(first))?;
    for name in others {
        let (name, database) = (quoted(name), quoted(&database.name));
        writeln!(out, "CREATE RETENTION POLICY {name} ON {database} DURATION INF REPLICATION 1")?;
    }
    Ok(())
}

async fn lines_of(
    stopped: &Stopped,
    database: &Database,
    policy: &RetentionPolicy,
    range: (i64, i64),
    out: &mut dyn Write,
) -> anyhow::Result<u64> {
    let groups: Vec<u64> = policy.groups.iter().map(|group| group.id.0).collect();
    let mut inexpressible = 0;
    let mut lines = Vec::new();
    for partition in 0..stopped.partitions.len() {
        let reader = SeriesReader::new(stopped, partition, database.id.0, &groups);
        for series in reader.series() {
            let Some((key, fields)) = reader.known(series) else { continue };
            let mut cursor = reader.cursor(series, &fields, range);
            while let Some(points) = cursor.next().await? {
                inexpressible += push_lines(&key, &fields, &points, &mut lines).inexpressible;
                out.write_all(&lines)?;
                lines.clear();
            }
        }
    }
    Ok(inexpressible)
}

/// What [`push_lines`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Lines that were appended.
    pub rows: u64,
    /// Values that line protocol cannot express, which are left out.
    pub inexpressible: u64,
}

/// Appends the points of a series as lines; `fields` are those of the points' columns.
pub fn push_lines(key: &[u8], fields: &[ScanField], points: &Points, lines: &mut Vec<u8>) -> Pushed {
    let mut pushed = Pushed { rows: 0, inexpressible: 0 };
    for (row, time) in points.times.iter().enumerate() {
        let start = lines.len();
        lines.extend_from_slice(key);
        let mut is_first = true;
        for (field, column) in fields.iter().zip(&points.columns) {
            let Some(value) = column.as_ref().and_then(|column| column.value(row)) else { continue };
            match push_field(lines, is_first, &field.name, &value) {
                Ok(()) => is_first = false,
                Err(_) => pushed.inexpressible += 1,
            }
        }
        if is_first {
            lines.truncate(start);
        } else {
            push_time(lines, *time);
            pushed.rows += 1;
        }
    }
    pushed
}

/// A time as a number of nanoseconds or as text.
fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(ns) = text.parse() {
        return Ok(ns);
    }
    match parse_time_text(text) {
        TimeText::Instant(ns) | TimeText::Local(ns) => i64::try_from(ns).map_err(|_| "beyond what 64 bits hold".into()),
        TimeText::NotATime | TimeText::Malformed => {
            Err("no time: 2020-01-01T00:00:00Z, or nanoseconds since 1970".into())
        }
    }
}
