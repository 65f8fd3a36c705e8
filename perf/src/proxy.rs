//! Proxies before nodes, and what they cost: the same load at the nodes of a cluster and at a proxy before them.
//!
//! Clients that go straight to the nodes write to them in turn. Through a proxy that the nodes know, a write is dealt to
//! the nodes that lead its partitions; through one that they do not know it goes whole to a node in turn. Rounds of the
//! three alternate on one cluster, each into a database of its own, which must hold every row afterwards.

use crate::cluster::{self, ClusterPlan, PROXY_SECRET};
use crate::load::{self, LoadControl, LoadOptions};
use crate::process;
use crate::report::LoadReport;
use crate::server::{Kind, Server, Setup};
use crate::workload::{self, ClientPlan, Workload};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How a proxy is started that stands before these nodes (HTTP addresses); its configuration and log go to `folder`.
/// `more`: the rest of its `[proxy]` section.
///
/// # Errors
/// Its configuration cannot be written.
pub fn setup(binary: impl Into<PathBuf>, folder: &Path, name: &str, nodes: &[String], more: &str) -> Result<Setup> {
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, format!("[proxy]\nnodes = {nodes:?}\n{more}\n"))
        .with_context(|| format!("write {}", path.display()))?;
    let mut setup = Setup::new(Kind::Tidemill, binary, folder);
    setup.role = Some("proxy".to_owned());
    setup.data = folder.to_owned();
    setup.log = folder.join(format!("{name}.log"));
    setup.arguments = vec!["--config".to_owned(), path.to_string_lossy().into_owned()];
    Ok(setup)
}

/// The line of a proxy's configuration by which the nodes of a [`ClusterPlan`] know it.
pub fn secret() -> String {
    format!("shared-secret = \"{PROXY_SECRET}\"\n")
}

/// Waits until so many nodes have told a proxy where series go.
///
/// # Errors
/// They have not in time.
pub fn wait_until_placed(proxy: &Server, nodes: usize) -> Result<()> {
    let begin = Instant::now();
    loop {
        let text = proxy.client().get("/metrics")?.text();
        let is_placed = |line: &&str| line.starts_with("tidemill_proxy_node_placed{") && line.ends_with(" 1");
        if text.lines().filter(is_placed).count() >= nodes {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "the proxy was not told where series go: {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    pub cluster: ClusterPlan,
    pub workload: Workload,
    pub clients: u64,
    pub rows_per_request: u64,
    /// Rows a second over all clients; None sends as fast as answers come.
    pub rate: Option<f64>,
    pub rounds: u32,
}

/// A way to the nodes, with its rounds.
#[derive(Debug)]
pub struct Way {
    pub name: &'static str,
    pub rounds: Vec<Round>,
}

/// One load.
#[derive(Debug)]
pub struct Round {
    pub load: LoadReport,
    pub node_cpu_seconds: f64,
    pub proxy_cpu_seconds: f64,
}

/// What a run found.
#[derive(Debug)]
pub struct ProxyReport {
    pub ways: Vec<Way>,
}

const WAYS: [&str; 3] = ["nodes", "proxy", "proxy without secret"];
const PATIENCE: Duration = Duration::from_secs(60);

/// Loads a cluster by all ways in turn.
///
/// # Errors
/// A server does not start, or a row is missing.
pub fn run(options: &ProxyOptions) -> Result<ProxyReport> {
    let plans = workload::render_all(&options.workload, options.clients, options.rows_per_request, false)?;
    let nodes: Vec<Server> = options.cluster.prepare()?.into_iter().map(Server::start).collect::<Result<_>>()?;
    cluster::wait_for_leaders(&nodes[0], PATIENCE)?;
    let addresses: Vec<String> = nodes.iter().map(Server::address).collect();
    let front = |name: &str, more: &str| {
        Server::start(setup(&options.cluster.binary, &options.cluster.folder, name, &addresses, more)?)
    };
    let fronts = [front("known", &secret())?, front("unknown", "")?];
    wait_until_placed(&fronts[0], nodes.len())?;
    let mut ways: Vec<Way> = WAYS.map(|name| Way { name, rounds: Vec::new() }).into();
    for round in 0..options.rounds {
        for (number, way) in ways.iter_mut().enumerate() {
            println!("--- {}, round {}", way.name, round + 1);
            let targets = if number == 0 { addresses.clone() } else { vec![fronts[number - 1].address()] };
            let database = format!("perf_{round}_{number}");
            load::create_database(&nodes[0].address(), &database, 1)?;
            let before = (cpu_seconds(&nodes)?, cpu_seconds(&fronts)?);
            let load = load_all(options, &plans, targets, &database)?;
            let node_cpu_seconds = cpu_seconds(&nodes)? - before.0;
            let proxy_cpu_seconds = cpu_seconds(&fronts)? - before.1;
            check_count(&nodes[0], &database, &options.workload)?;
            way.rounds.push(Round { load, node_cpu_seconds, proxy_cpu_seconds });
        }
    }
    for server in fronts.into_iter().chain(nodes) {
        server.stop(Duration::from_secs(120))?;
    }
    Ok(ProxyReport { ways })
}

fn cpu_seconds(servers: &[Server]) -> Result<f64> {
    servers.iter().map(|server| process::cpu_seconds(server.pid()).context("a server's CPU time")).sum()
}

fn load_all(options: &ProxyOptions, plans: &[ClientPlan], targets: Vec<String>, database: &str) -> Result<LoadReport> {
    let mut load_options = LoadOptions::new("", database, options.workload.precision());
    load_options.targets = targets;
    load_options.rate = options.rate;
    load_options.retry = true;
    let (report, _) = load::run(plans, &load_options, &LoadControl::default())?;
    report.print();
    ensure!(report.rows_acknowledged == options.workload.rows(), "some rows were not acknowledged");
    Ok(report)
}

fn check_count(node: &Server, database: &str, workload: &Workload) -> Result<()> {
    let text = node.client().query(workload.count_statement(), &format!("db={database}"))?.text();
    let value: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let count = value["results"][0]["series"][0]["values"][0][1].as_u64();
    ensure!(count == Some(workload.rows()), "{text} instead of {} rows", workload.rows());
    Ok(())
}

impl Way {
    /// The middle of the rounds.
    fn middle(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        let mut figures: Vec<f64> = self.rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn figures(&self) -> [(&'static str, f64); 6] {
        let million = |round: &Round| round.load.rows_acknowledged as f64 / 1e6;
        [
            ("rows/s", self.middle(|round| round.load.rows_per_wall_second())),
            ("p50 ms", self.middle(|round| round.load.latency_ms(0.5))),
            ("p99 ms", self.middle(|round| round.load.latency_ms(0.99))),
            ("nodes' CPU s per million rows", self.middle(|round| round.node_cpu_seconds / million(round))),
            ("proxy's CPU s per million rows", self.middle(|round| round.proxy_cpu_seconds / million(round))),
            (
                "CPU s per million rows",
                self.middle(|round| (round.node_cpu_seconds + round.proxy_cpu_seconds) / million(round)),
            ),
        ]
    }
}

impl ProxyReport {
    pub fn print(&self) {
        print!("\n{:<34}", "middle of the rounds");
        self.ways.iter().for_each(|way| print!(" {:>22}", way.name));
        println!();
        let all: Vec<_> = self.ways.iter().map(Way::figures).collect();
        let Some(first) = all.first() else { return };
        for (row, (name, direct)) in first.iter().enumerate() {
            print!("{name:<34}");
            for figures in &all {
                let figure = figures[row].1;
                let ratio = if *direct > 0.0 { format!("x{:.2}", figure / direct) } else { String::new() };
                print!(" {figure:>14.3} {ratio:>7}");
            }
            println!();
        }
    }

    pub fn to_json(&self) -> Value {
        let ways = self.ways.iter().map(|way| {
            let figures: serde_json::Map<String, Value> =
                way.figures().into_iter().map(|(name, figure)| (name.to_owned(), figure.into())).collect();
            let rounds: Vec<Value> = way.rounds.iter().map(|round| round.load.to_json()).collect();
            json!({ "way": way.name, "middle": figures, "rounds": rounds })
        });
        Value::Array(ways.collect())
    }
}
