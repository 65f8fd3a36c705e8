//! `tidemill ctl pool`: the storage pool, its slaves and what is copied.

use super::{
    ask::Asked,
    show::{number, text},
};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::net::SocketAddr;

#[derive(Subcommand)]
pub enum Pool {
    /// Shows the slaves, how many files are short of copies, and what is copied now
    Show(Show),
    /// Tells the cluster of a node that comes to store files
    Add(Add),
    /// Gives a slave no more files; what it has stays
    Drain(OneSlave),
    /// Has all files of a slave copied to others, and then deleted there; it stays, without any
    Evacuate(OneSlave),
    /// Gives a slave files again that was drained or evacuated
    Activate(OneSlave),
    /// Takes a slave or a master out; its number is never used again
    Remove(OneSlave),
    /// Moves copies from full slaves to empty ones
    Rebalance(All),
    /// Has slaves read all their files again; what is damaged is copied anew
    Scrub(Scrub),
    /// Says what becomes of the sealed files of a retention policy; what is left out is as the configuration says
    Policy(Policy),
}

#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    asked: Asked,
    /// Print what the leader of the masters says, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Add {
    /// Number of the node: none that a node of the cluster has or had
    node: u64,
    /// Where it listens for other nodes
    address: SocketAddr,
    /// Slaves of one domain may fail together; without, the slave is one of its own
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    #[command(flatten)]
    all: All,
}

#[derive(Args)]
pub struct OneSlave {
    node: u64,
    #[command(flatten)]
    all: All,
}

#[derive(Args)]
pub struct Scrub {
    /// Only this slave
    node: Option<u64>,
    #[command(flatten)]
    all: All,
}

#[derive(Args)]
pub struct All {
    #[command(flatten)]
    asked: Asked,
    /// Print an object, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Policy {
    database: String,
    policy: String,
    /// Copies of each file, on different slaves
    #[arg(long, value_name = "N")]
    copies: Option<u8>,
    /// A sealed file that has not changed for so long goes to the pool
    #[arg(long, value_name = "DURATION")]
    after: Option<String>,
    /// Data nodes keep the blocks of files that the pool has
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    keep_local: Option<bool>,
    #[command(flatten)]
    asked: Asked,
}

impl Pool {
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Pool::Show(Show { asked, json }) => {
                let status = asked.pool()?;
                match json {
                    true => println!("{status}"),
                    false => print!("{}", table(&status)),
                }
                Ok(())
            }
            Pool::Add(Add { node, address, domain, all }) => {
                let (node, address) = (node.to_string(), address.to_string());
                let mut arguments = vec![("node", &*node), ("address", &*address)];
                arguments.extend(domain.as_deref().map(|domain| ("domain", domain)));
                all.run("add-pool-slave", &arguments)
            }
            Pool::Drain(slave) => slave.run("pool-drain"),
            Pool::Evacuate(slave) => slave.run("pool-evacuate"),
            Pool::Activate(slave) => slave.run("pool-activate"),
            Pool::Remove(slave) => slave.run("remove-pool"),
            Pool::Policy(policy) => policy.run(),
            Pool::Rebalance(all) => all.run("pool-rebalance", &[]),
            Pool::Scrub(Scrub { node: None, all }) => all.run("pool-scrub", &[]),
            Pool::Scrub(Scrub { node: Some(node), all }) => all.run("pool-scrub", &[("node", &node.to_string())]),
        }
    }
}

impl OneSlave {
    fn run(&self, verb: &str) -> anyhow::Result<()> {
        self.all.run(verb, &[("node", &self.node.to_string())])
    }
}

impl All {
    fn run(&self, verb: &str, arguments: &[(&str, &str)]) -> anyhow::Result<()> {
        let answer = self.asked.change(verb, arguments)?;
        match (self.json, answer["what"].as_str()) {
            (true, _) => println!("{answer}"),
            (false, Some(what)) => println!("{what}"),
            (false, None) => println!("{verb}: begun; `tidemill ctl pool show` tells how far it is"),
        }
        Ok(())
    }
}

impl Policy {
    fn run(&self) -> anyhow::Result<()> {
        let mut arguments = vec![("database", self.database.clone()), ("policy", self.policy.clone())];
        arguments.extend(self.copies.map(|copies| ("copies", copies.to_string())));
        arguments.extend(self.after.clone().map(|after| ("after", after)));
        arguments.extend(self.keep_local.map(|keeps| ("keep-local", keeps.to_string())));
        let arguments: Vec<(&str, &str)> = arguments.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.asked.change("pool-policy", &arguments)?;
        println!("pool policy: done");
        Ok(())
    }
}

/// One line a slave, then what is short and why.
fn table(status: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut out = format!("leader of the masters: node {}\n\n", number(&status["leader"]));
    out.push_str(&format!(
        "{:<6} {:<16} {:<10} {:>8} {:>12} {:>12} {:>8}\n",
        "slave", "domain", "state", "files", "bytes", "free", "copying"
    ));
    for slave in list(&status["slaves"]) {
        out.push_str(&format!(
            "{:<6} {:<16} {:<10} {:>8} {:>12} {:>12} {:>8}\n",
            number(&slave["node"]),
            text(&slave["domain"]),
            text(&slave["state"]),
            number(&slave["files"]),
            number(&slave["bytes"]),
            number(&slave["free_bytes"]),
            number(&slave["copying"]),
        ));
    }
    let files = &status["files"];
    out.push_str(&format!(
        "\n{} files, {} bytes; {} short of {} copies, {} being copied, {} nowhere; {} with copies to spare, {} to be deleted\n",
        number(&files["total"]),
        number(&files["bytes"]),
        number(&files["short"]),
        number(&files["missing_copies"]),
        number(&files["copying"]),
        number(&files["nowhere"]),
        number(&files["excess"]),
        number(&files["garbage"]),
    ));
    let since = &status["since_election"];
    out.push_str(&format!(
        "since the leader was elected: {} files copied anew ({} bytes), {} placed, {} tries failed\n",
        number(&since["repaired_files"]),
        number(&since["repaired_bytes"]),
        number(&since["placed_files"]),
        number(&since["fetches_failed"]),
    ));
    for waiting in list(&status["waiting"]) {
        out.push_str(&format!(
            "partition {}: {} files wait: {}\n",
            number(&waiting["partition"]),
            number(&waiting["files"]),
            text(&waiting["why"])
        ));
    }
    for failure in list(&status["failures"]) {
        out.push_str(&format!("file {}: {}\n", text(&failure["file"]), text(&failure["why"])));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slave_that_is_lost_and_files_that_wait_are_shown_as_such() {
        let status = serde_json::json!({
            "leader": 3,
            "slaves": [
                { "node": 7, "domain": "rack 1", "state": "active", "files": 2, "bytes": 30, "free_bytes": 5, "copying": 1 },
                { "node": 8, "domain": "node 8", "state": "lost", "files": 1, "bytes": 10, "free_bytes": null, "copying": 0 },
            ],
            "files": { "total": 2, "bytes": 20, "short": 1, "missing_copies": 1, "copying": 1, "nowhere": 0, "excess": 0, "garbage": 0 },
            "since_election": { "repaired_files": 4, "repaired_bytes": 9, "placed_files": 1, "fetches_failed": 0 },
            "waiting": [{ "partition": 5, "files": 1, "why": "the pool has 1 slave" }],
            "failures": [],
        });
        let text = table(&status);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[4].starts_with("8      node 8           lost"), "{text}");
        assert!(lines[6].contains("1 short of 1 copies, 1 being copied"), "{text}");
        assert_eq!(lines[8], "partition 5: 1 files wait: the pool has 1 slave");
    }
}
