//! What replication costs: the same load on a standalone server and on a cluster of three nodes, all on this machine.
//!
//! The cluster stores everything three times and sends it twice. Its clients write to the three nodes in turn, so that
//! two of three batches for a partition come to a node that does not lead it. Afterwards every node must answer the same
//! count, and the files of the replicas must not differ.

use crate::cluster::{self, ClusterPlan, NODES};
use crate::load::{self, LoadControl, LoadOptions};
use crate::process;
use crate::report::LoadReport;
use crate::server::{Server, Setup};
use crate::workload::{self, ClientPlan, Workload};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What a run does.
#[derive(Clone, Debug)]
pub struct ReplicationOptions {
    pub alone: Setup,
    pub cluster: ClusterPlan,
    pub workload: Workload,
    pub clients: u64,
    pub rows_per_request: u64,
    /// Rows a second over all clients; None sends as fast as answers come.
    pub rate: Option<f64>,
}

/// What a run found.
#[derive(Debug)]
pub struct ReplicationReport {
    pub alone: LoadReport,
    pub cluster: LoadReport,
    /// CPU seconds of all nodes.
    pub cluster_cpu_seconds: f64,
    /// Partitions whose replicas have the same files, and those that were not equally far.
    pub equal: usize,
    pub behind: usize,
}

const DATABASE: &str = "perf";
/// Longest wait for every group to have a leader, and for replicas to be equally far.
const PATIENCE: Duration = Duration::from_secs(60);

/// Loads the one, then the other.
pub fn run(options: &ReplicationOptions) -> Result<ReplicationReport> {
    let plans = workload::render_all(&options.workload, options.clients, options.rows_per_request, false)?;
    println!("--- standalone");
    let server = Server::start(options.alone.clone().without_series_limits()?)?;
    load::create_database(&server.address(), DATABASE, 1)?;
    let alone = load_all(options, &plans, &[&server], Some(server.pid()))?;
    check_count(&server, &options.workload)?;
    server.stop(Duration::from_secs(120))?;

    println!("--- three nodes");
    let nodes: Vec<Server> = options.cluster.prepare()?.into_iter().map(Server::start).collect::<Result<_>>()?;
    cluster::wait_for_leaders(&nodes[0], PATIENCE)?;
    load::create_database(&nodes[0].address(), DATABASE, 1)?;
    let before: f64 = cpu_seconds(&nodes)?;
    let cluster = load_all(options, &plans, &nodes.iter().collect::<Vec<_>>(), None)?;
    let cluster_cpu_seconds = cpu_seconds(&nodes)? - before;
    for (node, server) in NODES.iter().zip(&nodes) {
        check_count(server, &options.workload).with_context(|| format!("node {node}"))?;
    }
    let (equal, behind) = compare_files(&nodes[0])?;
    for node in nodes {
        node.stop(Duration::from_secs(120))?;
    }
    Ok(ReplicationReport { alone, cluster, cluster_cpu_seconds, equal, behind })
}

fn cpu_seconds(nodes: &[Server]) -> Result<f64> {
    let each = nodes.iter().map(|node| process::cpu_seconds(node.pid()).context("a node's CPU time"));
    each.sum()
}

fn load_all(
    options: &ReplicationOptions,
    plans: &[ClientPlan],
    servers: &[&Server],
    server_pid: Option<u32>,
) -> Result<LoadReport> {
    let mut load_options = LoadOptions::new("", DATABASE, options.workload.precision());
    load_options.targets = servers.iter().map(|server| server.address()).collect();
    load_options.rate = options.rate;
    load_options.retry = true;
    load_options.server_pid = server_pid;
    let (report, _) = load::run(plans, &load_options, &LoadControl::default())?;
    report.print();
    ensure!(report.rows_acknowledged == options.workload.rows(), "some rows were not acknowledged");
    Ok(report)
}

fn check_count(server: &Server, workload: &Workload) -> Result<()> {
    let text = server.client().query(workload.count_statement(), &format!("db={DATABASE}"))?.text();
    let value: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let count = value["results"][0]["series"][0]["values"][0][1].as_u64();
    ensure!(count == Some(workload.rows()), "{text} instead of {} rows", workload.rows());
    Ok(())
}

/// Waits until replicas are equally far, and compares what their files hold.
fn compare_files(node: &Server) -> Result<(usize, usize)> {
    let begin = Instant::now();
    loop {
        let described = cluster::described_by(&mut node.client())?;
        let (mut equal, mut behind) = (0, 0);
        let own = described["nodes"][0]["groups"].as_array().context("groups of the first node")?;
        for group in own.iter().filter(|group| !group["group"].is_null()) {
            let replicas: Vec<&Value> = described["nodes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|node| node["groups"].as_array()?.iter().find(|one| one["group"] == group["group"]))
                .map(|replica| &replica["files"])
                .collect();
            let place = |files: &Value| [&files["flushed"], &files["copied"], &files["copies_left"]].map(Value::as_u64);
            if replicas.iter().any(|files| place(files) != place(replicas[0])) {
                behind += 1;
                continue;
            }
            let same = replicas.iter().all(|files| files["digest"] == replicas[0]["digest"]);
            ensure!(same, "the replicas of partition {} differ: {replicas:?}", group["group"]);
            equal += 1;
        }
        if behind == 0 || begin.elapsed() > PATIENCE {
            return Ok((equal, behind));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl ReplicationReport {
    fn cluster_cpu_per_million(&self) -> f64 {
        self.cluster_cpu_seconds / (self.cluster.rows_acknowledged as f64 / 1e6)
    }

    fn cpu_ratio(&self) -> f64 {
        self.cluster_cpu_per_million() / self.alone.server_cpu_per_million().unwrap_or(f64::NAN)
    }

    pub fn print(&self) {
        println!("\n{:<34} {:>12} {:>12} {:>7}", "", "standalone", "three nodes", "ratio");
        let line = |name: &str, alone: f64, cluster: f64| {
            println!("{name:<34} {alone:>12.3} {cluster:>12.3} {:>7.2}", cluster / alone);
        };
        let alone_cpu = self.alone.server_cpu_per_million().unwrap_or(f64::NAN);
        line("server CPU s per million rows", alone_cpu, self.cluster_cpu_per_million());
        line("p50 ms", self.alone.latency_ms(0.5), self.cluster.latency_ms(0.5));
        line("p99 ms", self.alone.latency_ms(0.99), self.cluster.latency_ms(0.99));
        line("rows/s", self.alone.rows_per_wall_second(), self.cluster.rows_per_wall_second());
        println!("replicas of {} partitions have the same files, {} were not equally far", self.equal, self.behind);
    }

    pub fn to_json(&self) -> Value {
        json!({
            "standalone": self.alone.to_json(),
            "cluster": self.cluster.to_json(),
            "cluster_cpu_seconds_per_million_rows": self.cluster_cpu_per_million(),
            "cpu_ratio": self.cpu_ratio(),
            "p99_ratio": self.cluster.latency_ms(0.99) / self.alone.latency_ms(0.99),
            "partitions_with_equal_files": self.equal,
            "partitions_not_equally_far": self.behind,
        })
    }
}
