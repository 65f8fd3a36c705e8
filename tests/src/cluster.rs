//! A cluster of three nodes on one machine.

use crate::subject::{self, Home};
use std::{
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use tidemill_perf::{http::Client, server::Server};

/// Nodes of every cluster here.
pub const NODES: [usize; 3] = [1, 2, 3];
const CORES: u16 = 2;
const ID: &str = "7469646d696c6c2074657374732e2e2e";
/// Longest wait for every group to have a leader.
const ELECTION_PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes; those that run end when this is dropped.
pub struct Cluster {
    home: Home,
    nodes: [Option<Server>; 3],
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster::start()
    }
}

impl Cluster {
    /// Makes a cluster and waits until it takes writes.
    pub fn start() -> Cluster {
        let mut cluster = Cluster::prepare();
        NODES.iter().for_each(|node| cluster.start_node(*node));
        cluster.wait_for_leaders();
        cluster
    }

    /// Certificates and configurations of a cluster of which no node runs.
    pub fn prepare() -> Cluster {
        let home = Home::new();
        let cluster = Cluster { home, nodes: [None, None, None] };
        let authority = cluster.folder("authority");
        cluster.certify(&["authority", "--out"], &authority);
        let ports = NODES.map(|_| free_ports());
        for node in NODES {
            let folder = cluster.folder(&format!("certificates-{node}"));
            let authority = authority.to_string_lossy();
            cluster.certify(&["node", "--node", &node.to_string(), "--authority", &authority, "--out"], &folder);
            let mut text = format!(
                "[data]\npartitions = 4\n[http]\nlog-enabled = false\n[cluster]\nid = \"{ID}\"\nnode = {node}\ncertificates = {folder:?}\n"
            );
            for (other, port) in NODES.iter().zip(&ports) {
                text.push_str(&format!(
                    "[[cluster.nodes]]\nnode = {other}\naddress = \"127.0.0.1:{port}\"\ncores = {CORES}\n"
                ));
            }
            std::fs::write(cluster.configuration(node), text).unwrap();
        }
        cluster
    }

    fn certify(&self, arguments: &[&str], out: &PathBuf) {
        let command = ["ctl", "cert"].iter().chain(&arguments[..1]).chain(&["--cluster", ID]).chain(&arguments[1..]);
        let status = Command::new(self.home.setup().binary).args(command).arg(out).status().unwrap();
        assert!(status.success(), "ctl cert: {status}");
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn configuration(&self, node: usize) -> PathBuf {
        self.folder(&format!("node-{node}.toml"))
    }

    /// How a node is started.
    pub fn setup(&self, node: usize) -> tidemill_perf::server::Setup {
        let mut setup = self.home.setup();
        setup.role = Some("data".to_owned());
        setup.data = self.folder(&format!("data-{node}"));
        setup.log = self.folder(&format!("node-{node}.log"));
        setup.cores = Some(CORES.into());
        setup.arguments = vec!["--config".to_owned(), self.configuration(node).to_string_lossy().into_owned()];
        setup
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
        let answer = self.client(node).get("/cluster").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The groups of the cluster with the node that leads each, as one of the running nodes sees it.
    pub fn leaders(&self) -> Vec<(Option<u64>, u64)> {
        let node = NODES.into_iter().find(|node| self.nodes[node - 1].is_some()).expect("a node runs");
        let described = self.described_by(node);
        let nodes = described["nodes"].as_array().unwrap();
        let own = nodes.iter().find(|one| one["node"] == node as u64).unwrap();
        let groups = own["groups"].as_array().unwrap().iter();
        groups.map(|group| (group["group"].as_u64(), group["leader"].as_u64().unwrap())).collect()
    }

    /// Waits until every group has a leader.
    pub fn wait_for_leaders(&self) {
        let begin = Instant::now();
        while self.leaders().iter().any(|(_, leader)| *leader == 0) {
            assert!(begin.elapsed() < ELECTION_PATIENCE, "no leaders: {}", self.described_by(1));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM for all nodes, one after the other.
    pub fn stop_all(mut self) {
        for node in NODES.into_iter().filter(|node| self.nodes[node - 1].is_some()).collect::<Vec<_>>() {
            self.stop(node);
        }
    }
}

/// The first of as many free UDP ports behind each other as a node has cores.
fn free_ports() -> u16 {
    let at = |port: u16| UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], port)));
    for _ in 0..1000 {
        let first = at(0).unwrap();
        let port = first.local_addr().unwrap().port();
        let others: Vec<_> = (1..CORES).map_while(|core| at(port.checked_add(core)?).ok()).collect();
        if others.len() == usize::from(CORES) - 1 {
            return port;
        }
    }
    panic!("no free UDP ports behind each other");
}
