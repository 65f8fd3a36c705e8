//! `tidemill inspect`: tools for data folders of stopped servers, Tidemill's and upstream's.
//!
//! Owns: one file a subcommand, and what they share: reading TSM files and folders, bringing up a stopped server's
//! state in memory. Invariants: only `import` changes a data folder, and only one that no server uses; what cannot be
//! read is named with file and range, and ends the tool with a failure; memory does not grow with the data, but for what
//! each subcommand says.
//! Knows nothing of running servers.

mod cat_log;
mod dump;
pub(crate) mod export;
mod export_upstream;
mod folder;
mod import;

mod report;
mod scratch_disk;
pub(crate) mod stopped;
mod table;
mod tsm_source;
mod upstream_shard;
mod verify;

use std::{
    fmt::Display,
    io::{self, BufWriter, StdoutLock, Write},
    process::ExitCode,
};

/// Looks into data folders and files of a server that does not run
#[derive(clap::Subcommand, Debug)]
pub enum Inspect {
    Dump(dump::Dump),
    Report(report::Report),
    Verify(verify::Verify),
    CatLog(cat_log::CatLog),
    Export(export::Export),
    Import(import::Import),
}

/// Everything was looked at, and some of it is damaged: told already, line by line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(pub String);

impl Inspect {
    /// Runs a subcommand; its answer goes to standard output, complaints and progress to standard error.
    pub fn run(&self) -> ExitCode {
        let mut out = Output(BufWriter::new(io::stdout().lock()));
        let result = match self {
            Inspect::Dump(dump) => dump.run(&mut out),
            Inspect::Report(report) => report.run(&mut out),
            Inspect::Verify(verify) => verify.run(&mut out),
            Inspect::CatLog(cat_log) => cat_log.run(&mut out),
            Inspect::Export(export) => export.run(&mut out),
            Inspect::Import(import) => import.run(&mut out),
        };
        let flushed = out.0.flush();
        match result.and_then(|()| Ok(flushed?)) {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads has seen enough, as `head` does.
            Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("tidemill inspect: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Standard output.
pub struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    fn line(&mut self, text: impl Display) -> anyhow::Result<()> {
        Ok(writeln!(self.0, "{text}")?)
    }
}
