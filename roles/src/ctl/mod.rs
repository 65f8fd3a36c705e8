//! `tidemill ctl`: what an operator does to a cluster from a shell.
//!
//! Owns the commands. Knows no running server yet: certificates are made before there is one.

mod certificate;

use clap::Subcommand;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Ctl {
    /// Makes the certificates that nodes of a cluster prove themselves with
    #[command(subcommand)]
    Cert(certificate::Certificate),
}

impl Ctl {
    pub fn run(&self) -> ExitCode {
        let outcome = match self {
            Ctl::Cert(command) => command.run(),
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
