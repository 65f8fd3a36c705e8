//! `tidemill ctl entropy show | repair`: whether the files on the disks of all nodes are what was written, and whether
//! replicas have the same.
//!
//! Every node reads all of its files and holds them against the hashes in its manifest; what is damaged is fetched from
//! another node that has the same file. Manifests are compared by their digests, as `ctl digest` does.

use super::{ask::Asked, digest, show::number};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Subcommand)]
pub enum Entropy {
    /// Reads all files of all nodes and names what is damaged or differs; it takes as long as reading them does
    Show(Order),
    /// As show, and fetches damaged files from other nodes
    Repair(Order),
}

#[derive(Args)]
pub struct Order {
    #[command(flatten)]
    asked: Asked,
    /// Print an object, for scripts
    #[arg(long)]
    json: bool,
}

impl Entropy {
    pub fn run(&self) -> anyhow::Result<()> {
        let (order, repairs) = match self {
            Entropy::Show(order) => (order, false),
            Entropy::Repair(order) => (order, true),
        };
        let found = order.asked.entropy(repairs)?;
        let differing = digest::differing(&order.asked.cluster()?);
        if order.json {
            println!("{}", json!({ "nodes": found["nodes"], "differing_partitions": differing }));
        } else {
            print!("{}", table(&found, &differing));
        }
        let left = left(&found);
        anyhow::ensure!(left == 0, "{left} nodes or files are not in order");
        anyhow::ensure!(differing.is_empty(), "the replicas of {} partitions differ", differing.len());
        Ok(())
    }
}

/// Nodes that could not be asked, and damaged files that were not repaired.
fn left(found: &Value) -> usize {
    let nodes = || found["nodes"].as_array().into_iter().flatten();
    let away = nodes().filter(|node| !node["error"].is_null()).count();
    let damaged = nodes().flat_map(|node| node["damaged"].as_array()).flatten();
    away + damaged.filter(|file| file["mended_from"].is_null()).count()
}

fn table(found: &Value, differing: &[u64]) -> String {
    let mut out = format!("{:<6} {:>8} {:>14}  {}\n", "node", "files", "bytes", "damaged");
    for node in found["nodes"].as_array().into_iter().flatten() {
        let id = number(&node["node"]);
        if let Some(error) = node["error"].as_str() {
            out.push_str(&format!("{id:<6} {error}\n"));
            continue;
        }
        let damaged = node["damaged"].as_array().map_or(0, Vec::len);
        let (files, bytes) = (number(&node["files"]), number(&node["bytes"]));
        out.push_str(&format!("{id:<6} {files:>8} {bytes:>14}  {damaged}\n"));
        for file in node["damaged"].as_array().into_iter().flatten() {
            let what = match (&file["mended_from"], &file["error"]) {
                (Value::Number(from), _) => format!("fetched from node {from}"),
                (_, Value::String(why)) => format!("not repaired: {why}"),
                _ => file["findings"][0].as_str().unwrap_or("damaged").to_owned(),
            };
            let (partition, name) = (number(&file["partition"]), file["file"].as_str().unwrap_or("?"));
            out.push_str(&format!("       partition {partition} {name}: {what}\n"));
        }
    }
    for partition in differing {
        out.push_str(&format!("partition {partition}: replicas that are equally far have different files\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_counted() {
        let found = json!({ "nodes": [
            { "node": 1, "files": 2, "bytes": 10, "damaged": [{ "partition": 0, "file": "a", "findings": ["x"] }] },
            { "node": 2, "files": 2, "bytes": 10, "damaged": [{ "partition": 0, "file": "a", "findings": ["x"], "mended_from": 3 }] },
            { "node": 3, "error": "away" },
        ] });
        assert_eq!(left(&found), 2);
        let text = table(&found, &[7]);
        assert!(
            text.contains("fetched from node 3") && text.contains("away") && text.contains("partition 7"),
            "{text}"
        );
    }
}
