//! What the simulations have in common around their runs.
//!
//! Owns: campaigns over many seeds, counters of what happened in them, their rows in `tests/ledger.csv`, and defects that
//! are planted in a copy of the tree to see them found.
//! Invariants: a violation is a panic of a run, and is told with its seed; what never happened in a campaign of a thousand
//! seeds fails it, because it was never tested; a row of the ledger names the commit that was checked out.
//! Knows nothing of what is simulated.

mod counters;
mod ledger;
mod planted;
mod seeds;

pub use counters::Counts;
pub use ledger::Row;
pub use planted::{Planting, Profile};
pub use seeds::{Campaign, Report, try_run};

use anyhow::Context;

/// The number behind an option of the command line.
///
/// # Errors
/// If there is none.
pub fn number(arguments: &[String], name: &str, default: u64) -> anyhow::Result<u64> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(default) };
    let value = arguments.get(at + 1).with_context(|| format!("{name} wants a number"))?;
    value.replace('_', "").parse().with_context(|| format!("{name} {value}"))
}

/// Whether an option without a value is there.
pub fn has(arguments: &[String], name: &str) -> bool {
    arguments.iter().any(|argument| argument == name)
}
