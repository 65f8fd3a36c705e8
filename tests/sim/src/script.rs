//! Text scripts: a tricky case as commands and what they print.
//!
//! A line that begins with `> ` is a command for the [`crate::lab`]; the lines below it, up to a blank line, a comment or
//! the next command, are what it must print. `tidemill-sim scripts --write` fills them in, to be read before they are
//! kept.

use crate::lab::Lab;
use anyhow::{Context, bail};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The script with what its commands print now.
pub fn play(script: &str) -> anyhow::Result<String> {
    let mut lab = Lab::default();
    let mut played = String::new();
    let mut lines = script.lines().peekable();
    while let Some(line) = lines.next() {
        played.push_str(line);
        played.push('\n');
        let Some(command) = line.strip_prefix("> ") else { continue };
        while lines.next_if(|line| !line.is_empty() && !line.starts_with("> ") && !line.starts_with('#')).is_some() {}
        let outcome = catch_unwind(AssertUnwindSafe(|| lab.execute(command)));
        let Ok(said) = outcome else { bail!("{command}: panicked") };
        for line in said.with_context(|| command.to_owned())? {
            played.push_str(&line);
            played.push('\n');
        }
    }
    Ok(played)
}

/// All scripts of the crate, in order.
pub fn files() -> anyhow::Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

/// Plays one file; `write`: keeps what it prints.
pub fn check(file: &Path, write: bool) -> anyhow::Result<()> {
    let script = std::fs::read_to_string(file)?;
    let played = play(&script).with_context(|| file.display().to_string())?;
    if played == script {
        return Ok(());
    }
    if write {
        return Ok(std::fs::write(file, played)?);
    }
    let differs = script.lines().zip(played.lines()).position(|(wanted, got)| wanted != got);
    let at = differs.unwrap_or_else(|| script.lines().count().min(played.lines().count()));
    let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_owned();
    bail!("{}:{}: expected {:?}, got {:?}", file.display(), at + 1, line(&script), line(&played))
}

pub fn main(arguments: &[String]) -> anyhow::Result<()> {
    let write = arguments.iter().any(|argument| argument == "--write");
    let named: Vec<PathBuf> =
        arguments.iter().filter(|argument| !argument.starts_with("--")).map(PathBuf::from).collect();
    let files = if named.is_empty() { files()? } else { named };
    for file in &files {
        check(file, write)?;
    }
    println!("{} scripts", files.len());
    Ok(())
}
