//! Clusters on one machine: their certificates, configurations and processes.

use crate::http::Client;
use crate::server::{Kind, Server, Setup, free_udp_ports};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Numbers of the nodes.
pub const NODES: [usize; 3] = [1, 2, 3];
/// Any cluster's id will do: each has an authority of its own.
const ID: &str = "7469646d696c6c20706572662e2e2e2e";

/// By which the nodes know a proxy.
pub const PROXY_SECRET: &str = "of the proxies";

/// How the nodes of a cluster are made.
#[derive(Clone, Debug)]
pub struct ClusterPlan {
    pub binary: PathBuf,
    /// Certificates, configurations, data and logs go here.
    pub folder: PathBuf,
    pub cores: usize,
    pub memory_limit: Option<String>,
    /// More of each node's configuration file, above its sections.
    pub configuration: String,
    /// More of its section `[data]`.
    pub data_section: String,
    /// Of each data group.
    pub partitions: u32,
    /// What the nodes are there for, from node 1 on.
    pub duties: Vec<Duty>,
}

/// What a node is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// For a data group, from 1.
    Data(u32),
    Meta,
    PoolMaster,
    PoolSlave,
}

impl Duty {
    /// The role that a node is started in, and its name in the configuration.
    pub fn role(self) -> &'static str {
        match self {
            Duty::Data(_) => "data",
            Duty::Meta => "meta",
            Duty::PoolMaster => "pool-master",
            Duty::PoolSlave => "pool-slave",
        }
    }

    /// Of the cores that the nodes of the plan have: a pool slave runs on one.
    fn cores(self, cores: usize) -> usize {
        if self == Duty::PoolSlave { 1 } else { cores }
    }
}

/// Three data nodes of one group.
pub const ONE_GROUP: [Duty; 3] = [Duty::Data(1); 3];

impl ClusterPlan {
    /// Makes certificates and configurations; how each node is started.
    pub fn prepare(&self) -> Result<Vec<Setup>> {
        let authority = self.folder.join("authority");
        self.certify(&["authority"], &authority)?;
        let ports: Vec<u16> = self.duties.iter().map(|_| free_udp_ports(self.cores)).collect::<Result<_>>()?;
        (1..=self.duties.len()).map(|node| self.prepare_node(node, &authority, &ports)).collect()
    }

    fn prepare_node(&self, node: usize, authority: &Path, ports: &[u16]) -> Result<Setup> {
        let nodes = (1..).zip(self.duties.iter().zip(ports));
        let nodes: Vec<String> = nodes.map(|(other, (duty, port))| self.named(other, *duty, *port)).collect();
        self.prepare_named(node, self.duties[node - 1], authority, &nodes.concat())
    }

    /// A section of a node.
    fn named(&self, node: usize, duty: Duty, port: u16) -> String {
        let cores = duty.cores(self.cores);
        let duty = match duty {
            Duty::Data(group) => format!("group = {group}"),
            other => format!("role = {:?}", other.role()),
        };
        format!("[[cluster.nodes]]\nnode = {node}\naddress = \"127.0.0.1:{port}\"\ncores = {cores}\n{duty}\n")
    }

    /// As [`ClusterPlan::prepare`], of a node that comes to the cluster later; also where it listens for others.
    pub fn prepare_joining(&self, node: usize, duty: Duty) -> Result<(Setup, String)> {
        let first = std::fs::read_to_string(self.configuration_of(NODES[0]))?;
        let (_, founders) = first.split_once("[[cluster.nodes]]").context("a configuration without nodes")?;
        let port = free_udp_ports(self.cores)?;
        let nodes = format!("[[cluster.nodes]]{founders}{}joins = true\n", self.named(node, duty, port));
        let setup = self.prepare_named(node, duty, &self.folder.join("authority"), &nodes)?;
        Ok((setup, format!("127.0.0.1:{port}")))
    }

    fn prepare_named(&self, node: usize, duty: Duty, authority: &Path, nodes: &str) -> Result<Setup> {
        let certificates = self.folder.join(format!("certificates-{node}"));
        let authority = authority.to_string_lossy();
        self.certify(&["node", "--node", &node.to_string(), "--authority", &authority], &certificates)?;
        let text = format!(
            "{}[data]\npartitions = {}\nmax-series-per-database = 0\nmax-values-per-tag = 0\n{}[http]\nlog-enabled = \
             false\nproxy-secret = \"{PROXY_SECRET}\"\n[cluster]\nid = \"{ID}\"\nnode = {node}\ncertificates = \
             {certificates:?}\n{nodes}",
            self.configuration, self.partitions, self.data_section
        );
        let configuration = self.configuration_of(node);
        std::fs::write(&configuration, text).with_context(|| format!("write {}", configuration.display()))?;
        let mut setup = Setup::new(Kind::Tidemill, &self.binary, &self.folder);
        setup.role = Some(duty.role().to_owned());
        setup.data = self.folder.join(format!("data-{node}"));
        setup.log = self.folder.join(format!("node-{node}.log"));
        setup.cores = Some(duty.cores(self.cores));
        setup.memory_limit = self.memory_limit.clone();
        setup.arguments = vec!["--config".to_owned(), configuration.to_string_lossy().into_owned()];
        Ok(setup)
    }

    /// A node's configuration file.
    pub fn configuration_of(&self, node: usize) -> PathBuf {
        self.folder.join(format!("node-{node}.toml"))
    }

    fn certify(&self, arguments: &[&str], out: &Path) -> Result<()> {
        std::fs::create_dir_all(&self.folder).with_context(|| format!("create {}", self.folder.display()))?;
        let mut command = Command::new(&self.binary);
        command.args(["ctl", "cert"]).args(arguments).args(["--cluster", ID, "--out"]).arg(out);
        let status = command.status().with_context(|| format!("run {}", self.binary.display()))?;
        ensure!(status.success(), "ctl cert {}: {status}", arguments.join(" "));
        Ok(())
    }
}

/// What a node says of its cluster.
pub fn described_by(client: &mut Client) -> Result<Value> {
    let answer = client.get("/cluster")?;
    ensure!(answer.status == 200, "/cluster: {} {}", answer.status, answer.text());
    serde_json::from_slice(&answer.body).context("/cluster")
}

/// The groups with the node that leads each, as a node sees it; zero is nobody, and the group without a number the
/// metadata.
pub fn leaders(client: &mut Client) -> Result<Vec<(Option<u64>, u64)>> {
    let described = described_by(client)?;
    let own = described["nodes"].as_array().into_iter().flatten().find(|node| node["node"] == described["node"]);
    let groups = own.and_then(|own| own["groups"].as_array()).context("the node does not say what it has")?;
    Ok(groups.iter().map(|group| (group["group"].as_u64(), group["leader"].as_u64().unwrap_or(0))).collect())
}

/// Waits until every group has a leader.
pub fn wait_for_leaders(server: &Server, patience: Duration) -> Result<()> {
    let begin = Instant::now();
    let mut client = server.client();
    while leaders(&mut client)?.iter().any(|(_, leader)| *leader == 0) {
        if begin.elapsed() > patience {
            bail!("no leaders within {patience:?}: {}", described_by(&mut client)?);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
