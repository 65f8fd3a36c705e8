//! `tidemill ctl`: what an operator does to a cluster from a shell.
//!
//! Owns the commands. Certificates are made before there is a server; the others ask one of the cluster's nodes.

mod ask;
pub(crate) mod certificate;
mod change;
mod digest;
mod entropy;
mod handoff;
mod pool;
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
    /// Reads all files of all nodes again, and fetches damaged ones from other nodes
    #[command(subcommand)]
    Entropy(entropy::Entropy),
    /// Writes that wait for partitions without a majority
    #[command(subcommand)]
    Handoff(handoff::Handoff),
    /// The storage pool: its slaves, its files, and what is copied
    #[command(subcommand)]
    Pool(pool::Pool),
    /// Tells the cluster of a node that comes; it is given replicas by `replace`, `drain` and `move-replica`
    AddData(change::AddData),
    /// The same of a node that is to vote on the metadata and hold no rows
    AddMeta(change::AddMeta),
    /// Puts one node in the place of another, which may be lost
    Replace(change::Replace),
    /// Gives the replicas of a node to others; the node stays, without any
    Drain(change::OneNode),
    /// Takes a node out that holds nothing any more; its number is never used again
    RemoveData(change::OneNode),
    /// As `remove-data`, of a node that holds no rows
    RemoveMeta(change::OneNode),
    /// Gives one replica to another node
    MoveReplica(change::MoveReplica),
    /// Has a node lead a partition or the metadata
    TransferLeader(change::TransferLeader),
}

impl Ctl {
    pub fn run(&self) -> ExitCode {
        let outcome = match self {
            Ctl::Cert(command) => command.run(),
            Ctl::Show(command) => command.run(),
            Ctl::Digest(command) => command.run(),
            Ctl::Entropy(command) => command.run(),
            Ctl::Handoff(command) => command.run(),
            Ctl::Pool(command) => command.run(),
            Ctl::AddData(command) => command.run(),
            Ctl::AddMeta(command) => command.run(),
            Ctl::Replace(command) => command.run(),
            Ctl::Drain(command) => command.run("drain"),
            Ctl::RemoveData(command) => command.run("remove-data"),
            Ctl::RemoveMeta(command) => command.run("remove-meta"),
            Ctl::MoveReplica(command) => command.run(),
            Ctl::TransferLeader(command) => command.run(),
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
