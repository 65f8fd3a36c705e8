//! A cluster on one machine.

use crate::{
    case, play,
    subject::{self, Home},
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use tidemill_perf::{
    cluster::{self, ClusterPlan},
    http::Client,
    server::{Server, Setup},
};

pub use tidemill_perf::cluster::{Duty, NODES, ONE_GROUP};

/// Longest wait for a write of a cluster whose nodes come and go.
const WRITE_PATIENCE: Duration = Duration::from_secs(120);
/// Longest wait for every group to have a leader.
const ELECTION_PATIENCE: Duration = Duration::from_secs(60);

/// Some nodes, and those that join; those that run end when this is dropped.
pub struct Cluster {
    home: Home,
    plan: ClusterPlan,
    setups: BTreeMap<usize, Setup>,
    nodes: BTreeMap<usize, Server>,
}

impl Cluster {
    /// Makes a cluster and waits until it takes writes.
    pub fn start() -> Cluster {
        Cluster::start_with("")
    }

    /// As [`Cluster::start`], with more in each node's configuration file, above its sections.
    pub fn start_with(configuration: &str) -> Cluster {
        Cluster::prepare(configuration).started()
    }

    /// As [`Cluster::start`], of nodes with these duties.
    pub fn start_of(duties: &[Duty]) -> Cluster {
        Cluster::prepare_of(duties, "").started()
    }

    /// Starts the nodes of a prepared cluster.
    pub fn started(mut self) -> Cluster {
        (1..=self.setups.len()).for_each(|node| self.start_node(node));
        self.wait_for_leaders();
        self
    }

    /// Certificates and configurations of a cluster of which no node runs.
    pub fn prepare(configuration: &str) -> Cluster {
        Cluster::prepare_of(&ONE_GROUP, configuration)
    }

    /// As [`Cluster::prepare`], of nodes with these duties.
    pub fn prepare_of(duties: &[Duty], configuration: &str) -> Cluster {
        let home = Home::new();
        let of_subject = home.setup();
        let plan = ClusterPlan {
            binary: of_subject.binary,
            folder: home.path().to_owned(),
            cores: of_subject.cores.unwrap_or(1),
            memory_limit: of_subject.memory_limit,
            configuration: configuration.to_owned(),
            data_section: String::new(),
            partitions: 4,
            duties: duties.to_vec(),
        };
        let setups = plan.prepare().unwrap_or_else(|error| panic!("{error:#}"));
        let setups = (1..).zip(setups).collect();
        Cluster { home, plan, setups, nodes: BTreeMap::new() }
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
        self.setups[&node].clone()
    }

    /// A node that does not run yet keeps its data there.
    pub fn put_data(&mut self, node: usize, folder: PathBuf) {
        self.setups.get_mut(&node).expect("a node of the cluster").data = folder;
    }

    /// Starts a node that does not run.
    pub fn start_node(&mut self, node: usize) {
        self.nodes.insert(node, subject::start(self.setup(node)));
    }

    /// Starts a node that was killed or stopped, at the HTTP address that it had.
    pub fn start_node_at(&mut self, node: usize, address: &str) {
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("host:port");
        self.nodes.insert(node, subject::start(Setup { port, ..self.setup(node) }));
    }

    pub fn node(&self, node: usize) -> &Server {
        self.nodes.get(&node).expect("the node runs")
    }

    pub fn client(&self, node: usize) -> Client {
        subject::client(self.node(node))
    }

    /// SIGKILL.
    pub fn kill(&mut self, node: usize) {
        self.nodes.remove(&node).expect("the node runs").kill().unwrap();
    }

    /// SIGTERM, and status 0 is what must come of it.
    pub fn stop(&mut self, node: usize) {
        subject::stop(self.nodes.remove(&node).expect("the node runs"));
    }

    /// Tells the cluster, through a node of it, of a node of the first data group that comes, and starts that node.
    pub fn add_node(&mut self, through: usize, node: usize) {
        self.add_node_for(through, node, Duty::Data(1));
    }

    /// As [`Cluster::add_node`], of a data node or a meta node.
    pub fn add_node_for(&mut self, through: usize, node: usize, duty: Duty) {
        let address = self.prepare_joining(node, duty);
        let (number, cores) = (node.to_string(), self.plan.cores.to_string());
        let group = if let Duty::Data(group) = duty { group.to_string() } else { String::new() };
        let command = match duty {
            Duty::Data(_) => vec!["add-data", &number, &address, &cores, "--group", &group],
            Duty::Meta => vec!["add-meta", &number, &address, &cores],
            Duty::PoolMaster | Duty::PoolSlave => panic!("nodes of the pool come by other commands"),
        };
        // Who led may have been killed a moment ago: then nobody knows, and the next try does.
        while let Err(refused) = self.ctl(through, &command) {
            if refused.contains("is there already") {
                break;
            }
            assert!(refused.contains("is not known"), "{refused}");
        }
        self.start_node(node);
    }

    /// Makes a node that the cluster is not told of yet; where it will listen for others.
    pub fn prepare_joining(&mut self, node: usize, duty: Duty) -> String {
        let joining = self.plan.prepare_joining(node, duty);
        let (setup, address) = joining.unwrap_or_else(|error| panic!("{error:#}"));
        self.setups.insert(node, setup);
        address
    }

    /// Runs `tidemill ctl` against a node; what it prints.
    ///
    /// # Errors
    /// What it prints, where it does not end well.
    pub fn ctl(&self, node: usize, arguments: &[&str]) -> Result<String, String> {
        let host = format!("http://{}", self.node(node).address());
        let output = Command::new(&self.setup(node).binary).arg("ctl").args(arguments).args(["--host", &host]).output();
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr) + &text(&output.stdout))
        }
    }

    /// What a node says of the cluster.
    pub fn described_by(&self, node: usize) -> serde_json::Value {
        cluster::described_by(&mut self.client(node)).unwrap()
    }

    /// Waits until every group has a leader.
    pub fn wait_for_leaders(&self) {
        for running in self.nodes.values() {
            cluster::wait_for_leaders(running, ELECTION_PATIENCE).unwrap_or_else(|error| panic!("{error:#}"));
        }
    }

    /// SIGTERM for all nodes, one after the other.
    pub fn stop_all(mut self) {
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop(node);
        }
    }
}

/// Plays the cases of a file with each request at another of these nodes than the one before, and stops the cluster.
pub fn play_in_turn(cluster: Cluster, nodes: &[usize], cases: &str) {
    let mut clients: Vec<Client> = nodes.iter().map(|node| cluster.client(*node)).collect();
    let mut faults = Vec::new();
    let steps = case::parse(cases).unwrap().into_iter().flat_map(|case| {
        let title = case.title.clone();
        case.steps.into_iter().map(move |step| (title.clone(), step))
    });
    for (number, (title, step)) in steps.enumerate() {
        if let Err(fault) = play::step(&mut clients[number % nodes.len()], &step) {
            faults.push(format!("[{title}] {fault}"));
        }
    }
    cluster.stop_all();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults[..faults.len().min(5)].join("\n"));
}

/// Writes until the lines are taken: what a lost node led is led by others soon, and what nobody knows of is written
/// again, as a client does.
pub fn write_until_taken(client: &mut Client, lines: &str) {
    let begin = Instant::now();
    while begin.elapsed() < WRITE_PATIENCE {
        let answer = client.write("db=d", lines.as_bytes()).unwrap();
        if answer.status == 204 {
            return;
        }
        assert!(matches!(answer.status, 500 | 503), "{} {}", answer.status, answer.text());
    }
    panic!("no write is taken");
}
