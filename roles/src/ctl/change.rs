//! `tidemill ctl add-data`, `add-meta`, `replace`, `drain`, `remove-data`, `move-replica`, `transfer-leader`: who is a member of what.
//!
//! What takes long is only begun: the cluster goes on with it whatever becomes of the one who asked, and `ctl show` tells
//! how far it is.

use super::{ask::Asked, show::number};
use anyhow::bail;
use clap::Args;
use serde_json::Value;
use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct Change {
    #[command(flatten)]
    asked: Asked,
    /// Print an object, for scripts
    #[arg(long)]
    json: bool,
    /// Return when it has come to its end, or fail after so long
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

#[derive(Args)]
pub struct AddData {
    /// Number of the node: none that a node of the cluster has or had
    node: u64,
    /// Where its core 0 listens for other nodes
    address: SocketAddr,
    cores: u16,
    /// The data group whose series it may store
    #[arg(long, value_name = "N", default_value_t = 1)]
    group: u32,
    #[command(flatten)]
    change: Change,
}

#[derive(Args)]
pub struct AddMeta {
    /// Number of the node: none that a node of the cluster has or had
    node: u64,
    /// Where its core 0 listens for other nodes
    address: SocketAddr,
    cores: u16,
    #[command(flatten)]
    change: Change,
}

#[derive(Args)]
pub struct Replace {
    /// The node that goes; it may be lost with its disk
    old: u64,
    /// The node that takes all replicas of it
    new: u64,
    #[command(flatten)]
    change: Change,
}

#[derive(Args)]
pub struct OneNode {
    node: u64,
    #[command(flatten)]
    change: Change,
}

#[derive(Args)]
pub struct MoveReplica {
    /// Number of a partition, `meta` or `pool`
    group: String,
    from: u64,
    to: u64,
    #[command(flatten)]
    change: Change,
}

#[derive(Args)]
pub struct TransferLeader {
    /// Number of a partition, `meta` or `pool`
    group: String,
    to: u64,
    #[command(flatten)]
    change: Change,
}

impl AddData {
    pub fn run(&self) -> anyhow::Result<()> {
        let (node, address, cores) = (self.node.to_string(), self.address.to_string(), self.cores.to_string());
        let group = self.group.to_string();
        let arguments = [("node", &*node), ("address", &address), ("cores", &cores), ("group", &group)];
        self.change.run("add-data", &arguments)
    }
}

impl AddMeta {
    pub fn run(&self) -> anyhow::Result<()> {
        let (node, address, cores) = (self.node.to_string(), self.address.to_string(), self.cores.to_string());
        self.change.run("add-meta", &[("node", &node), ("address", &address), ("cores", &cores)])
    }
}

impl Replace {
    pub fn run(&self) -> anyhow::Result<()> {
        let (old, new) = (self.old.to_string(), self.new.to_string());
        self.change.run("replace", &[("old", &old), ("new", &new)])
    }
}

impl OneNode {
    pub fn run(&self, verb: &str) -> anyhow::Result<()> {
        self.change.run(verb, &[("node", &self.node.to_string())])
    }
}

impl MoveReplica {
    pub fn run(&self) -> anyhow::Result<()> {
        let (from, to) = (self.from.to_string(), self.to.to_string());
        self.change.run("move-replica", &[("group", &self.group), ("from", &from), ("to", &to)])
    }
}

impl TransferLeader {
    pub fn run(&self) -> anyhow::Result<()> {
        self.change.run("transfer-leader", &[("group", &self.group), ("to", &self.to.to_string())])
    }
}

impl Change {
    fn run(&self, verb: &str, arguments: &[(&str, &str)]) -> anyhow::Result<()> {
        let answer = self.asked.change(verb, arguments)?;
        if let Some(seconds) = self.wait {
            self.wait_for_end(Duration::from_secs(seconds))?;
        }
        if self.json {
            println!("{answer}");
        } else if self.wait.is_some() || answer["done"].is_string() {
            println!("{verb}: done");
        } else {
            println!("{verb}: begun; `tidemill ctl show` tells how far it is");
        }
        Ok(())
    }

    fn wait_for_end(&self, limit: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let moving = moving(&self.asked.cluster()?);
            if moving.is_empty() {
                return Ok(());
            }
            if begin.elapsed() > limit {
                bail!("not done after {limit:?}, and it goes on: groups {}", moving.join(", "));
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Groups that are not held by whom they are to be held by.
pub(super) fn moving(cluster: &Value) -> Vec<String> {
    let holders = cluster["holders"].as_array().into_iter().flatten();
    let moving = holders.filter(|holders| holders["wanted"] != holders["noted"]);
    moving.map(|holders| group_name(&holders["group"])).collect()
}

/// The metadata's group has no number, and that of the pool's masters has a name.
pub(super) fn group_name(group: &Value) -> String {
    match group {
        Value::Null => "metadata".to_owned(),
        Value::String(name) => name.clone(),
        group => number(group),
    }
}
