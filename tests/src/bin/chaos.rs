//! `chaos [--first SEED] [--seeds N] [--seconds N] [--wires] [--small-disk] [--ledger]`: nodes of clusters die, freeze
//! and stop while clients write and read; with `--wires` the lines between them are cut, lose, delay, double and damage as
//! well, with `--small-disk` (which mounts an image) the disk of one is full now and then.
//! `chaos --gaps N`: how long nobody can write when a node that leads is killed, N times.
//!
//! Prints a line for each seed and stops at the first that breaks a rule. `--ledger` adds a row to `tests/ledger.csv`;
//! its work is rows that were acknowledged. `TIDEMILL_BIN` names the server's binary.

use anyhow::{Result, bail};
use std::time::Duration;
use tidemill_campaign::{Row, has, number};
use tidemill_tests::{chaos::Chaos, write_gap};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (first, seeds) = (number(&arguments, "--first", 1)?, number(&arguments, "--seeds", 10)?);
    let time = Duration::from_secs(number(&arguments, "--seconds", 60)?);
    let kills = number(&arguments, "--gaps", 0)?;
    if kills > 0 {
        let gaps = write_gap::measure(kills as usize, first)?;
        let ms = |part: f64| gaps[((gaps.len() - 1) as f64 * part).round() as usize].as_millis();
        let (p50, p99, most) = (ms(0.5), ms(0.99), ms(1.0));
        println!(
            "{kills} kills of a node that leads: nothing written for p50 {p50} ms, p99 {p99} ms, at most {most} ms"
        );
        return Ok(());
    }
    let (has_wires, has_small_disk) = (has(&arguments, "--wires"), has(&arguments, "--small-disk"));
    let mut work = 0;
    let mut broken = None;
    for seed in first..first + seeds {
        match (Chaos { seed, time, has_wires, has_small_disk }).run() {
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
        let mode = match (has_wires, has_small_disk) {
            (false, false) => "cluster: chaos of processes",
            (true, false) => "cluster: chaos of processes and lines",
            (false, true) => "cluster: chaos of processes and a full disk",
            (true, true) => "cluster: chaos of processes and lines and a full disk",
        };
        Row { mode, first_seed: first, seeds, work, violations }.append()?;
    }
    match broken {
        Some(error) => bail!("{error:#}"),
        None => Ok(()),
    }
}
