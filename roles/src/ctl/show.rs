//! `tidemill ctl show`: the nodes of a cluster and what they lead.

use super::{ask::Asked, change::group_name};
use clap::Args;
use serde_json::Value;

#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    asked: Asked,
    /// Print what the node says, for scripts
    #[arg(long)]
    json: bool,
}

impl Show {
    pub fn run(&self) -> anyhow::Result<()> {
        let value = self.asked.cluster()?;
        if self.json {
            println!("{value}");
        } else {
            print!("{}", table(&value));
        }
        Ok(())
    }
}

/// One line a node, then one a group.
fn table(value: &Value) -> String {
    let nodes: Vec<&Value> = value["nodes"].as_array().into_iter().flatten().collect();
    let mut out = format!("cluster {}\n\n", value["cluster"].as_str().unwrap_or("?"));
    out.push_str(&format!(
        "{:<6} {:<11} {:>5}  {:<22} {:>5}  {:<8} {:>5}\n",
        "node", "role", "group", "address", "cores", "state", "leads"
    ));
    for node in &nodes {
        let groups = node["groups"].as_array().into_iter().flatten();
        let leads = groups.filter(|group| group["leader"] == node["node"]).count();
        let state = match (node["reachable"] == Value::Bool(true), node["state"].as_str()) {
            (false, _) => "away",
            (true, None | Some("active")) => "up",
            (true, Some(state)) => state,
        };
        let address = node["address"].as_str().unwrap_or("?");
        let (id, cores) = (number(&node["node"]), number(&node["cores"]));
        let role = node["role"].as_str().unwrap_or("?");
        let group = node["data_group"].as_u64().map_or_else(|| "-".to_owned(), |group| group.to_string());
        out.push_str(&format!("{id:<6} {role:<11} {group:>5}  {address:<22} {cores:>5}  {state:<8} {leads:>5}\n"));
    }
    let mut names: Vec<&Value> =
        nodes.iter().flat_map(|node| node["groups"].as_array()).flatten().map(|group| &group["group"]).collect();
    names.sort_by_key(|name| (name.as_u64(), name.is_string()));
    names.dedup();
    out.push_str(&format!("\n{:<9} {:>6} {:>6}  {}\n", "group", "leader", "term", "applied, by node"));
    for name in names {
        let replicas: Vec<(&Value, &Value)> = nodes
            .iter()
            .flat_map(|node| node["groups"].as_array().into_iter().flatten().map(move |group| (&node["node"], group)))
            .filter(|(_, group)| group["group"] == *name)
            .collect();
        let newest = replicas.iter().map(|(_, group)| *group).max_by_key(|group| group["term"].as_u64());
        let Some(newest) = newest else { continue };
        let applied: Vec<String> = replicas
            .iter()
            .map(|(node, group)| {
                let stopped = if group["stopped"] == Value::Bool(true) { " (stopped)" } else { "" };
                format!("{}: {}{stopped}", number(node), number(&group["applied"]))
            })
            .collect();
        let leader = match newest["leader"].as_u64() {
            None | Some(0) => "-".to_owned(),
            Some(leader) => leader.to_string(),
        };
        let (name, step) = (group_name(name), step(value, name, newest));
        out.push_str(&format!("{name:<9} {leader:>6} {:>6}  {}{step}\n", number(&newest["term"]), applied.join("  ")));
    }
    out
}

/// How far the members of a group are on their way to others; nothing if they are not on any.
fn step(cluster: &Value, group: &Value, newest: &Value) -> String {
    let holders = cluster["holders"].as_array().into_iter().flatten();
    let Some(holders) = holders.into_iter().find(|holders| holders["group"] == *group) else { return String::new() };
    if holders["wanted"] == holders["noted"] {
        return String::new();
    }
    let list = |nodes: &Value| nodes.as_array().into_iter().flatten().map(number).collect::<Vec<_>>().join(",");
    let joint = if newest["joint"] == Value::Bool(true) { ", changing" } else { "" };
    format!(
        "   voters {} learners {}{joint}, to be {}",
        list(&newest["voters"]),
        list(&newest["learners"]),
        list(&holders["wanted"])
    )
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

pub(super) fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "?".to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_are_away_and_groups_without_a_leader_are_shown_as_such() {
        let group = |group: Option<u32>, leader: u64, applied: u64| serde_json::json!({ "group": group, "leader": leader, "term": 3, "applied": applied, "stopped": applied == 0 });
        let value = serde_json::json!({ "cluster": "ab", "node": 1, "nodes": [
            { "node": 1, "role": "data", "data_group": 2, "address": "a:1", "cores": 2, "reachable": true, "groups": [group(None, 2, 5), group(Some(0), 1, 7)] },
            { "node": 2, "role": "meta", "data_group": null, "address": "b:1", "cores": 2, "reachable": true, "groups": [group(None, 2, 6), group(Some(1), 0, 0)] },
            { "node": 3, "role": "data", "data_group": 1, "address": "c:1", "cores": 2, "reachable": false, "groups": [] },
        ], "holders": [
            { "group": 0, "wanted": [1, 2, 3], "noted": [1, 2, 3] },
            { "group": 1, "wanted": [1, 2, 4], "noted": [1, 2, 3] },
        ] });
        let text = table(&value);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[3], ["1", "data", "2", "a:1", "2", "up", "1"]);
        assert_eq!(lines[5], ["3", "data", "1", "c:1", "2", "away", "0"]);
        assert_eq!(lines[8], ["metadata", "2", "3", "1:", "5", "2:", "6"]);
        assert_eq!(lines[9].len(), 5, "nothing is to be done: {:?}", lines[9]);
        assert_eq!(lines[10][..6], ["1", "-", "3", "2:", "0", "(stopped)"]);
        assert!(lines[10].ends_with(&["to", "be", "1,2,4"]), "{:?}", lines[10]);
    }
}
