//! `tidemill ctl handoff show`: writes that nodes keep for partitions without a majority.

use super::{ask::Asked, show::number};
use clap::{Args, Subcommand};
use serde_json::Value;

#[derive(Subcommand)]
pub enum Handoff {
    /// Shows what waits in the hinted-handoff queues of the nodes that can be reached, and what became of the rest
    Show(Show),
}

#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    asked: Asked,
    /// Print an array, for scripts
    #[arg(long)]
    json: bool,
}

const COUNTERS: [&str; 6] = ["queued", "delivered", "retries", "refused", "purged", "dropped"];

impl Handoff {
    pub fn run(&self) -> anyhow::Result<()> {
        let Handoff::Show(Show { asked, json }) = self;
        let queues = queues(&asked.cluster()?);
        if *json {
            println!("{}", Value::from(queues));
        } else {
            print!("{}", table(&queues));
        }
        Ok(())
    }
}

/// The queue of each node, its cores' parts together.
fn queues(cluster: &Value) -> Vec<Value> {
    let nodes = cluster["nodes"].as_array().into_iter().flatten();
    let of_node = |node: &Value| {
        let cores: Vec<&Value> = node["handoff"].as_array().into_iter().flatten().collect();
        let mut queue = serde_json::json!({ "node": node["node"], "reachable": node["reachable"] });
        for counter in COUNTERS {
            queue[counter] = cores.iter().filter_map(|core| core[counter].as_u64()).sum::<u64>().into();
        }
        let mut waiting: Vec<Value> =
            cores.iter().flat_map(|core| core["waiting"].as_array()).flatten().cloned().collect();
        waiting.sort_by_key(|group| group["group"].as_u64());
        queue["waiting"] = waiting.into();
        queue
    };
    nodes.map(of_node).collect()
}

/// A line a node, and one a partition that something waits for.
fn table(queues: &[Value]) -> String {
    let mut out = format!("{:<6}", "node");
    COUNTERS.iter().for_each(|counter| out.push_str(&format!(" {counter:>10}")));
    out.push('\n');
    for queue in queues {
        out.push_str(&format!("{:<6}", number(&queue["node"])));
        if queue["reachable"] != Value::Bool(true) {
            out.push_str(" away\n");
            continue;
        }
        COUNTERS.iter().for_each(|counter| out.push_str(&format!(" {:>10}", number(&queue[*counter]))));
        out.push('\n');
    }
    out.push_str(&format!("\n{:<6} {:<9} {:>10} {:>12}  {}\n", "node", "partition", "batches", "bytes", "oldest"));
    for queue in queues {
        for group in queue["waiting"].as_array().into_iter().flatten() {
            let oldest_ns = group["oldest_ms"].as_i64().unwrap_or_default().saturating_mul(1_000_000);
            let oldest = tidemill_influxql::TimestampText(oldest_ns);
            let (node, partition) = (number(&queue["node"]), number(&group["group"]));
            let (batches, bytes) = (number(&group["batches"]), number(&group["bytes"]));
            out.push_str(&format!("{node:<6} {partition:<9} {batches:>10} {bytes:>12}  {oldest}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cores_of_a_node_are_one_queue() {
        let core = |group: u32, queued: u32| {
            serde_json::json!({ "queued": queued, "delivered": 1, "retries": 0, "refused": 0, "purged": 0, "dropped": 0,
                "waiting": [{ "group": group, "batches": 2, "bytes": 100, "oldest_ms": 1000 }] })
        };
        let cluster = serde_json::json!({ "nodes": [
            { "node": 1, "reachable": true, "handoff": [core(3, 5), core(0, 7)] },
            { "node": 2, "reachable": false },
        ] });
        let text = table(&queues(&cluster));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["1", "12", "2", "0", "0", "0", "0"]);
        assert_eq!(lines[2], ["2", "away"]);
        assert_eq!(lines[5], ["1", "0", "2", "100", "1970-01-01T00:00:01Z"]);
        assert_eq!(lines[6][..2], ["1", "3"]);
    }
}
