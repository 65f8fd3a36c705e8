//! `perf`: generate, write, query, verify, compare, crash, memory, index. README.md has a line on each.

mod arguments;
mod commands;

use arguments::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Gen(args) => commands::generate(&args),
        Command::Write(args) => commands::write(&args),
        Command::Query(args) => commands::query(&args),
        Command::Verify(args) => commands::verify_all(&args),
        Command::Compare(args) => commands::compare_all(&args),
        Command::Crash(args) => commands::crash_cycles(&args),
        Command::Memory(args) => commands::memory_storm(&args),
        Command::Connections(args) => commands::connection_crowd(&args),
        Command::Index(args) => commands::series_index(&args),
        Command::Replication(args) => commands::replicate(&args),
        Command::Proxy(args) => commands::through_proxy(&args),
        Command::Scenario(args) => commands::play_scenario(&args),
        Command::Peer { arguments } => commands::beside("perf-peer", &arguments),
        Command::Stream { directory, arguments } => {
            commands::beside("perf-peer", &[vec!["--files".into(), directory], arguments].concat())
        }
        Command::Raft { arguments } => commands::beside("perf-raft", &arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}
