//! `tidemill ctl digest`: whether the replicas have the same files.
//!
//! Files follow from the log (I7): replicas whose files end at the same entry, and have made the same copies, must have
//! the same digest. What is in memory only is not looked at.

use super::{ask::Asked, show::number};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Args)]
pub struct Digest {
    #[command(flatten)]
    asked: Asked,
    /// Print an object, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// All replicas that could be asked have the same files.
    Equal,
    /// Some are not as far as others: ask again after a quiet moment.
    Behind,
    /// Files differ that must not.
    Differ,
}

impl Digest {
    pub fn run(&self) -> anyhow::Result<()> {
        let partitions = partitions(&self.asked.cluster()?);
        let verdicts: Vec<(u64, Verdict)> = partitions.iter().map(|(id, replicas)| (*id, verdict(replicas))).collect();
        if self.json {
            let told = partitions.iter().zip(&verdicts).map(|((id, replicas), (_, verdict))| {
                let replicas: serde_json::Map<_, _> =
                    replicas.iter().map(|(node, files)| (node.to_string(), files.clone())).collect();
                json!({ "partition": id, "state": verdict.name(), "nodes": replicas })
            });
            println!("{}", Value::from(told.collect::<Vec<_>>()));
        } else {
            for ((id, replicas), (_, verdict)) in partitions.iter().zip(&verdicts) {
                let told: Vec<String> =
                    replicas.iter().map(|(node, files)| format!("{node}: {}", short(files))).collect();
                println!("{id:<5} {:<7} {}", verdict.name(), told.join("   "));
            }
        }
        let differing = verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Differ).count();
        anyhow::ensure!(differing == 0, "the replicas of {differing} partitions differ");
        Ok(())
    }
}

/// Partitions whose replicas differ that must not.
pub(super) fn differing(cluster: &Value) -> Vec<u64> {
    let partitions = partitions(cluster).into_iter();
    partitions.filter(|(_, replicas)| verdict(replicas) == Verdict::Differ).map(|(id, _)| id).collect()
}

/// The files of each replica, by partition and node.
fn partitions(cluster: &Value) -> BTreeMap<u64, BTreeMap<u64, Value>> {
    let mut partitions: BTreeMap<u64, BTreeMap<u64, Value>> = BTreeMap::new();
    for node in cluster["nodes"].as_array().into_iter().flatten() {
        for group in node["groups"].as_array().into_iter().flatten() {
            if let (Some(id), Some(node)) = (group["group"].as_u64(), node["node"].as_u64()) {
                partitions.entry(id).or_default().insert(node, group["files"].clone());
            }
        }
    }
    partitions
}

fn verdict(replicas: &BTreeMap<u64, Value>) -> Verdict {
    let place = |files: &Value| (files["flushed"].as_u64(), files["copied"].as_u64(), files["copies_left"].as_u64());
    let mut all = replicas.values();
    let Some(first) = all.next() else { return Verdict::Equal };
    let (mut verdict, mut same_place) = (Verdict::Equal, true);
    for other in all {
        same_place &= place(first) == place(other);
        if first["digest"] != other["digest"] {
            verdict = Verdict::Behind;
        }
    }
    // Two that are equally far and differ, whatever a third one is.
    for (node, files) in replicas {
        let rivals = replicas.iter().filter(|(other, _)| *other > node).map(|(_, files)| files);
        if rivals.into_iter().any(|other| place(files) == place(other) && files["digest"] != other["digest"]) {
            return Verdict::Differ;
        }
    }
    if same_place { verdict } else { Verdict::Behind }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Equal => "equal",
            Verdict::Behind => "behind",
            Verdict::Differ => "DIFFER",
        }
    }
}

/// Where the files end, and the first digits of their digest.
fn short(files: &Value) -> String {
    match files["digest"].as_str() {
        Some(digest) => format!("{} {}", number(&files["flushed"]), digest.get(..12).unwrap_or(digest)),
        None => "no files".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(all: &[(u64, u64, &str)]) -> BTreeMap<u64, Value> {
        let files = |flushed: u64, left: u64, digest: &str| json!({ "flushed": flushed, "copied": 3, "copies_left": left, "digest": digest });
        (1..).zip(all).map(|(node, (flushed, left, digest))| (node, files(*flushed, *left, digest))).collect()
    }

    #[test]
    fn replicas_differ_only_if_they_are_equally_far() {
        assert_eq!(verdict(&replicas(&[(9, 0, "a"), (9, 0, "a"), (9, 0, "a")])), Verdict::Equal);
        assert_eq!(verdict(&replicas(&[(9, 0, "a"), (8, 0, "b"), (9, 0, "a")])), Verdict::Behind);
        assert_eq!(verdict(&replicas(&[(9, 0, "a"), (9, 1, "b"), (9, 0, "a")])), Verdict::Behind);
        assert_eq!(verdict(&replicas(&[(9, 0, "a"), (9, 0, "b"), (9, 0, "a")])), Verdict::Differ);
        assert_eq!(verdict(&replicas(&[(7, 0, "a"), (9, 0, "b"), (9, 0, "c")])), Verdict::Differ);
        assert_eq!(verdict(&replicas(&[])), Verdict::Equal);
        let none = [(1, Value::Null), (2, Value::Null)].into();
        assert_eq!(verdict(&none), Verdict::Equal, "nothing was flushed yet");
    }
}
