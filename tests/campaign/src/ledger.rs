//! The list of all campaigns.

use anyhow::{Context, bail};
use std::{io::Write, path::PathBuf, process::Command};

/// A row of `tests/ledger.csv`.
#[derive(Debug)]
pub struct Row<'a> {
    pub mode: &'a str,
    pub first_seed: u64,
    pub seeds: u64,
    /// What counts as the size of the campaign: entries, recoveries, ticks times members.
    pub work: u64,
    pub violations: usize,
}

/// The tree that the command was called in.
pub fn root() -> anyhow::Result<PathBuf> {
    Ok(said("git", &["rev-parse", "--show-toplevel"])?.into())
}

fn said(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("{program} {arguments:?}"))?;
    if !output.status.success() {
        bail!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Row<'_> {
    /// Adds the row, with today's date and the commit that is checked out.
    ///
    /// # Errors
    /// If this is no checked-out tree, or the file cannot be written.
    pub fn append(&self) -> anyhow::Result<()> {
        let date = said("date", &["+%Y-%m-%d"])?;
        let commit = said("git", &["rev-parse", "--short", "HEAD"])?;
        let Row { mode, first_seed, seeds, work, violations } = self;
        let path = root()?.join("tests/ledger.csv");
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
        writeln!(file, "{date},{commit},{mode},{first_seed},{seeds},{work},{violations}")?;
        Ok(())
    }
}
