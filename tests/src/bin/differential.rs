//! `differential [FIRST] [SEEDS] [STATEMENTS]`: random points and statements to our server and to Debian's influxd.
//!
//! Prints a line for each seed, every difference with the smallest points and statement that show it, and how often
//! each exception was used. Fails if there is a difference. `TIDEMILL_BIN` names the server's binary.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use tidemill_tests::differential::{NOT_ASKED, Pair};
use tidemill_tests::subject;

fn main() -> Result<()> {
    let number = |at: usize, default: u64| match std::env::args().nth(at) {
        Some(text) => text.parse::<u64>().with_context(|| format!("{text} is no number")),
        None => Ok(default),
    };
    let (first, seeds, statements) = (number(1, 1)?, number(2, 50)?, number(3, 400)?);
    let (mut asked, mut full, mut faults) = (0, 0, 0);
    let mut exceptions = BTreeMap::new();
    // New servers every now and then: neither has to keep what all the shrinking left behind.
    for start in (first..first + seeds).step_by(10) {
        let judge = subject::judge().context("the judge is missing")?;
        let home = subject::Home::new();
        let server = home.start();
        let mut pair = Pair::new(subject::client(&server), subject::client(&judge.server));
        for seed in start..(start + 10).min(first + seeds) {
            let before = (pair.asked, pair.full, pair.faults.len());
            pair.run_seed(seed, statements, true).with_context(|| format!("seed {seed}"))?;
            let (asked, full) = (pair.asked - before.0, pair.full - before.1);
            println!(
                "seed {seed}: {asked} statements, {full} answers with rows, {} differ",
                pair.faults.len() - before.2
            );
            for fault in &pair.faults[before.2..] {
                println!("  {}\n    {}", fault.statement, fault.difference);
                if let Some(shrunk) = &fault.shrunk {
                    println!("  shrunk:\n{shrunk}");
                }
            }
        }
        asked += pair.asked;
        full += pair.full;
        faults += pair.faults.len();
        for (exception, count) in &pair.exceptions {
            *exceptions.entry(*exception).or_insert(0) += count;
        }
        subject::stop(server);
    }
    println!("{seeds} seeds from {first}: {asked} statements, {full} answers with rows, {faults} differ");
    for (exception, count) in exceptions {
        println!("  {count} times {exception}");
    }
    println!("not asked");
    for text in NOT_ASKED {
        println!("  {text}");
    }
    if faults > 0 {
        bail!("{faults} of {asked} answers differ");
    }
    Ok(())
}
