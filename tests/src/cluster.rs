//! A cluster of three nodes on one machine.

use crate::subject::{self, Home};
use std::{path::PathBuf, time::Duration};
use tidemill_perf::{
    cluster::{self, ClusterPlan},
    http::Client,
    server::{Server, Setup},
};

pub use tidemill_perf::cluster::NODES;

/// Longest wait for every group to have a leader.
const ELECTION_PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes; those that run end when this is dropped.
pub struct Cluster {
    home: Home,
    plan: ClusterPlan,
    setups: Vec<Setup>,
    nodes: [Option<Server>; 3],
}

impl Cluster {
    /// Makes a cluster and waits until it takes writes.
    pub fn start() -> Cluster {
        Cluster::start_with("")
    }

    /// As [`Cluster::start`], with more in each node's configuration file, above its sections.
    pub fn start_with(configuration: &str) -> Cluster {
        let mut cluster = Cluster::prepare(configuration);
        NODES.iter().for_each(|node| cluster.start_node(*node));
        cluster.wait_for_leaders();
        cluster
    }

    /// Certificates and configurations of a cluster of which no node runs.
    pub fn prepare(configuration: &str) -> Cluster {
        let home = Home::new();
        let of_subject = home.setup();
        let plan = ClusterPlan {
            binary: of_subject.binary,
            folder: home.path().to_owned(),
            cores: of_subject.cores.unwrap_or(1),
            memory_limit: of_subject.memory_limit,
            configuration: configuration.to_owned(),
            partitions: 4,
        };
        let setups = plan.prepare().unwrap_or_else(|error| panic!("{error:#}"));
        Cluster { home, plan, setups, nodes: [None, None, None] }
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A node's configuration file.
    pub fn configuration(&self, node: usize) -> PathBuf {
        self.plan.configuration_of(node)
    }

    /// How a node is started.
    pub fn setup(&self, node: usize) -> Setup {
        self.setups[node - 1].clone()
    }

    /// Starts a node that does not run.
    pub fn start_node(&mut self, node: usize) {
        self.nodes[node - 1] = Some(subject::start(self.setup(node)));
    }

    pub fn node(&self, node: usize) -> &Server {
        self.nodes[node - 1].as_ref().expect("the node runs")
    }

    pub fn client(&self, node: usize) -> Client {
        subject::client(self.node(node))
    }

    /// SIGKILL.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node - 1].take().expect("the node runs").kill().unwrap();
    }

    /// SIGTERM, and status 0 is what must come of it.
    pub fn stop(&mut self, node: usize) {
        subject::stop(self.nodes[node - 1].take().expect("the node runs"));
    }

    /// What a node says of the cluster.
    pub fn described_by(&self, node: usize) -> serde_json::Value {
        cluster::described_by(&mut self.client(node)).unwrap()
    }

    /// Waits until every group has a leader.
    pub fn wait_for_leaders(&self) {
        let running = self.nodes.iter().flatten().next().expect("a node runs");
        cluster::wait_for_leaders(running, ELECTION_PATIENCE).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// SIGTERM for all nodes, one after the other.
    pub fn stop_all(mut self) {
        for node in NODES {
            if self.nodes[node - 1].is_some() {
                self.stop(node);
            }
        }
    }
}
