//! `tidemill ctl`: what an operator does to a cluster from a shell.
//!
//! Owns the commands. Certificates are made before there is a server; the others ask one of the cluster's nodes.

mod ask;
pub(crate) mod certificate;
mod digest;
mod handoff;
mod show;

use clap::Subcommand;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Ctl {
    /// Makes the certificates that nodes of a cluster prove themselves with
    #[command(subcommand)]
    Cert(certificate::Certificate),
    /// Shows the nodes, who leads what, and how far each replica is
    Show(show::Show),
    /// Compares the files of all replicas
    Digest(digest::Digest),
    /// Writes that wait for partitions without a majority
    #[command(subcommand)]
    Handoff(handoff::Handoff),
}

impl Ctl {
    pub fn run(&self) -> ExitCode {
        let outcome = match self {
            Ctl::Cert(command) => command.run(),
            Ctl::Show(command) => command.run(),
            Ctl::Digest(command) => command.run(),
            Ctl::Handoff(command) => command.run(),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("tidemill: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}
