//! The command line of `tidemill`.

use clap::{Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};
use tidemill::{
    ctl::Ctl,
    inspect::Inspect,
    options::{CommandLine, Options},
};
use tracing_subscriber::EnvFilter;

/// A time series database that speaks InfluxDB 1.x.
#[derive(Parser)]
#[command(name = "tidemill", version, args_conflicts_with_subcommands = true)]
struct Tidemill {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    server: Server,
}

#[derive(Subcommand)]
enum Role {
    /// Everything in one process (the default)
    Standalone(Server),
    /// Looks into data folders and files of a server that does not run
    #[command(subcommand)]
    Inspect(Inspect),
    /// Prepares and steers a cluster
    #[command(subcommand)]
    Ctl(Ctl),
}

#[derive(Args)]
struct Server {
    /// Folder of all data; made if it is not there [default: ./tidemill-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to serve HTTP [default: 127.0.0.1:8086]
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Cores to run, a pinned thread each; may change between two starts [default: all]
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
    /// Memory that the server may use, with suffix k, m or g [default: half of the machine's]
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
    /// Configuration file (TOML); options given here win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn start_logging(level: &str) {
    let filter = EnvFilter::try_from_env("TIDEMILL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

fn main() -> ExitCode {
    let Tidemill { role, server } = Tidemill::parse();
    let server = match role {
        Some(Role::Standalone(server)) => server,
        Some(Role::Inspect(inspect)) => {
            start_logging("warn");
            return inspect.run();
        }
        Some(Role::Ctl(ctl)) => {
            start_logging("warn");
            return ctl.run();
        }
        None => server,
    };
    start_logging("info");
    let line = CommandLine {
        data_dir: server.data,
        http_addr: server.http,
        cores: server.cores,
        memory_limit: server.memory_limit,
        config: server.config,
    };
    match Options::read(&line).and_then(tidemill::standalone::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidemill: {error:#}");
            ExitCode::FAILURE
        }
    }
}
