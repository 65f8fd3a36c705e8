//! `chaos [--first SEED] [--seeds N] [--seconds N] [--ledger]`: nodes of clusters die, freeze and stop while clients
//! write and read.
//!
//! Prints a line for each seed and stops at the first that breaks a rule. `--ledger` adds a row to `tests/ledger.csv`;
//! its work is rows that were acknowledged. `TIDEMILL_BIN` names the server's binary.

use anyhow::{Result, bail};
use std::time::Duration;
use tidemill_campaign::{Row, has, number};
use tidemill_tests::chaos::Chaos;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (first, seeds) = (number(&arguments, "--first", 1)?, number(&arguments, "--seeds", 10)?);
    let time = Duration::from_secs(number(&arguments, "--seconds", 60)?);
    let mut work = 0;
    let mut broken = None;
    for seed in first..first + seeds {
        match (Chaos { seed, time }).run() {
            Ok(report) => {
                work += report.rows_acknowledged;
                println!("seed {seed}: {report:?}");
            }
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    if has(&arguments, "--ledger") {
        let violations = usize::from(broken.is_some());
        Row { mode: "cluster: chaos of processes", first_seed: first, seeds, work, violations }.append()?;
    }
    match broken {
        Some(error) => bail!("{error:#}"),
        None => Ok(()),
    }
}
