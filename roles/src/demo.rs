//! `tidemill cluster`: a cluster of three nodes on this machine, to try out.
//!
//! ```text
//! D/authority                         ca.pem, ca.key
//! D/node-N.toml                       configuration
//! D/node-N/{certificates,data}/       what the node has
//! D/node-N/{log,process}              what it said, which process it is
//! ```
//!
//! Invariants: a folder that is there is not written over: what was stopped is started again as it was; only processes
//! that were started here are ended: a process is known by its number and the time of its start, so that one that has
//! got the number later is let be.
//! Knows nothing of what the nodes do. Unsafe code: one call, which sends a signal.

use crate::{
    ctl::certificate::{AuthorityArguments, NodeArguments, make_authority, make_node},
    options::{CommandLine, Options},
};
use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};
use tidemill_peer::ClusterId;

const NODES: [u64; 3] = [1, 2, 3];
/// Between the ports of one node and the next.
const PORT_STEP: u16 = 100;
/// Certificates of a demonstration outlive it.
const DAYS: u32 = 3650;
/// For three starts and the first elections on a slow disk.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// A node writes what it has in memory to files before it ends.
const STOP_TIME_MAX: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);
/// Lines of a node's log that are shown when it does not start.
const LOG_LINES_MAX: usize = 10;

#[derive(Subcommand)]
pub enum Cluster {
    /// Starts three nodes on this machine and prints where they answer
    Demo(Demo),
    /// Stops the nodes that `cluster demo` has started
    Stop(Place),
}

#[derive(Args)]
pub struct Place {
    /// Folder of the three nodes
    #[arg(long, value_name = "DIR", default_value = "./tidemill-cluster")]
    dir: PathBuf,
}

/// What holds for a new folder; one that is there keeps what it was made with.
#[derive(Args)]
pub struct Demo {
    #[command(flatten)]
    place: Place,
    /// Port of the first node's HTTP; the others are 100 and 200 higher
    #[arg(long, value_name = "PORT", default_value_t = 8086)]
    http_port: u16,
    /// UDP port on which the first node hears the others; theirs are 100 and 200 higher
    #[arg(long, value_name = "PORT", default_value_t = 8088)]
    node_port: u16,
    /// Cores of each node
    #[arg(long, value_name = "N", default_value_t = 1)]
    cores: u16,
    /// Memory of each node, with suffix k, m or g
    #[arg(long, value_name = "SIZE", default_value = "512m")]
    memory_limit: String,
}

impl Cluster {
    pub fn run(&self) -> ExitCode {
        let outcome = match self {
            Cluster::Demo(demo) => demo.run(),
            Cluster::Stop(place) => Folder::existing(&place.dir).and_then(|folder| folder.stop(&NODES)),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("tidemill: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}

impl Demo {
    fn run(&self) -> anyhow::Result<()> {
        let folder = self.folder()?;
        let missing: Vec<u64> = NODES.into_iter().filter(|node| folder.running(*node).is_none()).collect();
        let started = missing.iter().try_for_each(|node| folder.start(*node));
        let addresses = started.and_then(|()| folder.wait_until_ready());
        let addresses = addresses.inspect_err(|_| {
            // What has failed is told by the error; nodes that came up with it are not left behind.
            let _ = folder.stop(&missing);
        })?;
        for (node, address) in NODES.iter().zip(addresses) {
            println!("node {node}: http://{address}");
        }
        println!("stop them with: tidemill cluster stop --dir {}", self.place.dir.display());
        Ok(())
    }

    /// The folder as it is, or a new one.
    fn folder(&self) -> anyhow::Result<Folder> {
        let dir = &self.place.dir;
        if dir.join("node-1.toml").exists() {
            return Folder::existing(dir);
        }
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        ensure!(fs::read_dir(dir)?.next().is_none(), "{} is neither empty nor of a demonstration", dir.display());
        ensure!(self.cores > 0 && self.cores <= PORT_STEP, "--cores must be 1 to {PORT_STEP}");
        let folder = Folder(dir.canonicalize()?);
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).context("a random number for the cluster")?;
        let cluster = ClusterId(bytes);
        let authority = folder.0.join("authority");
        make_authority(&AuthorityArguments { cluster, out: authority.clone(), days: DAYS })?;
        let mut configurations = Vec::new();
        for node in NODES {
            let out = folder.node(node).join("certificates");
            make_node(&NodeArguments { cluster, authority: authority.clone(), node, out, days: DAYS })?;
            configurations.push((node, self.configuration(&folder, cluster, node)?));
        }
        // Last, the first node's very last: by it a folder is known to be whole.
        for (node, text) in configurations.into_iter().rev() {
            let path = folder.configuration(node);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(folder)
    }

    fn configuration(&self, folder: &Folder, cluster: ClusterId, node: u64) -> anyhow::Result<String> {
        let port = |first: u16, node: u64| {
            let port = (node - 1) as u16 * PORT_STEP;
            first.checked_add(port).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        };
        let port = |first, node| port(first, node).context("there are no ports for three nodes behind this one");
        let quoted = |path: PathBuf| toml::Value::String(path.display().to_string()).to_string();
        let mut text = format!(
            "cores = {}\nmemory-limit = \"{}\"\n\n[data]\ndir = {}\n\n[http]\nbind-address = \"{}\"\nlog-enabled = false\n\n\
             [cluster]\nid = \"{cluster}\"\nnode = {node}\ncertificates = {}\n",
            self.cores,
            self.memory_limit,
            quoted(folder.node(node).join("data")),
            port(self.http_port, node)?,
            quoted(folder.node(node).join("certificates")),
        );
        for other in NODES {
            let address = port(self.node_port, other)?;
            let cores = self.cores;
            text.push_str(&format!("\n[[cluster.nodes]]\nnode = {other}\naddress = \"{address}\"\ncores = {cores}\n"));
        }
        Ok(text)
    }
}

/// The folder of a demonstration.
struct Folder(PathBuf);

impl Folder {
    fn existing(dir: &Path) -> anyhow::Result<Folder> {
        let folder = Folder(dir.canonicalize().with_context(|| format!("{}", dir.display()))?);
        let is_whole = NODES.iter().all(|node| folder.configuration(*node).exists());
        ensure!(is_whole, "{} is not the folder of a demonstration", dir.display());
        Ok(folder)
    }

    fn node(&self, node: u64) -> PathBuf {
        self.0.join(format!("node-{node}"))
    }

    fn configuration(&self, node: u64) -> PathBuf {
        self.0.join(format!("node-{node}.toml"))
    }

    fn process_file(&self, node: u64) -> PathBuf {
        self.node(node).join("process")
    }

    /// The process of a node, if it runs.
    fn running(&self, node: u64) -> Option<Process> {
        let text = fs::read_to_string(self.process_file(node)).ok()?;
        Process::parse(&text).filter(Process::is_running)
    }

    fn options(&self, node: u64) -> anyhow::Result<Options> {
        Options::read(&CommandLine { config: Some(self.configuration(node)), ..CommandLine::default() })
    }

    /// Starts a node that does not run.
    fn start(&self, node: u64) -> anyhow::Result<()> {
        let options = self.options(node)?;
        // A server shares its port with others that do as it does: another one's answers would be taken for its own.
        let http = options.http_addr;
        TcpListener::bind(http).with_context(|| format!("node {node} is to answer on {http}"))?;
        if let Some(cluster) = &options.cluster {
            let address = cluster.bind_addr;
            UdpSocket::bind(address).with_context(|| format!("node {node} is to hear the others on UDP {address}"))?;
        }
        let log = self.node(node).join("log");
        let log = File::options().create(true).append(true).open(&log).with_context(|| log.display().to_string())?;
        let binary = std::env::current_exe().context("where is this program")?;
        let mut command = Command::new(&binary);
        command.arg("data").arg("--config").arg(self.configuration(node));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // What ends this shell's job does not end the node.
        let child = command.process_group(0).spawn().with_context(|| format!("starting {}", binary.display()))?;
        let process = Process::of(child.id()).context("a node has ended at once")?;
        fs::write(self.process_file(node), process.text()).context("noting the process of a node")
    }

    /// Returns where the nodes answer, once they do and every group has a leader.
    fn wait_until_ready(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let mut addresses = Vec::new();
        for node in NODES {
            addresses.push(self.options(node)?.http_addr);
        }
        let begun = Instant::now();
        for (node, address) in NODES.iter().zip(&addresses) {
            while !(answers(*address) && has_leaders(*address, *node)) {
                if self.running(*node).is_none() {
                    bail!("node {node} has ended:\n{}", self.last_words(*node));
                }
                if begun.elapsed() > START_TIME_MAX {
                    bail!("node {node} is not ready after {START_TIME_MAX:?}:\n{}", self.last_words(*node));
                }
                std::thread::sleep(PAUSE);
            }
        }
        Ok(addresses)
    }

    fn last_words(&self, node: u64) -> String {
        let log = fs::read_to_string(self.node(node).join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
    }

    /// Asks nodes to end and waits until they have.
    fn stop(&self, nodes: &[u64]) -> anyhow::Result<()> {
        let running: Vec<(u64, Process)> =
            nodes.iter().filter_map(|node| Some((*node, self.running(*node)?))).collect();
        for (_, process) in &running {
            process.ask_to_end();
        }
        let begun = Instant::now();
        for (node, process) in &running {
            while process.is_running() {
                let id = process.id;
                ensure!(begun.elapsed() < STOP_TIME_MAX, "node {node} (process {id}) has not ended yet");
                std::thread::sleep(PAUSE);
            }
            println!("node {node} has ended");
        }
        for node in nodes {
            // It may never have been started.
            let _ = fs::remove_file(self.process_file(*node));
        }
        Ok(())
    }
}

fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(5)));
    let mut response =
        ureq::Agent::new_with_config(config.build()).get(format!("http://{address}{path}")).call().ok()?;
    Some((response.status().as_u16(), response.body_mut().read_to_string().ok()?))
}

fn answers(address: SocketAddr) -> bool {
    get(address, "/ping").is_some_and(|(status, _)| status == 204)
}

/// Whether a node knows who leads each of its groups.
fn has_leaders(address: SocketAddr, node: u64) -> bool {
    let Some((200, text)) = get(address, "/cluster") else { return false };
    let described: Value = serde_json::from_str(&text).unwrap_or_default();
    let nodes = described["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let own = nodes.iter().filter(|described| described["node"] == node);
    let groups: Vec<&Value> = own.flat_map(|own| own["groups"].as_array()).flatten().collect();
    !groups.is_empty() && groups.iter().all(|group| group["leader"].as_u64().is_some_and(|leader| leader > 0))
}

/// A process, told from a later one with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    id: u32,
    /// Ticks from the start of the machine to its own.
    start: u64,
}

impl Process {
    /// None if there is none, or only what is left of it for its parent.
    fn of(id: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The command's name in parentheses may hold spaces (proc_pid_stat(5)); behind it come state and, as the
        // twentieth, the time of the start.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let is_alive = !matches!(fields.next()?, "Z" | "X");
        let start = fields.nth(18)?.parse().ok()?;
        is_alive.then_some(Process { id, start })
    }

    fn parse(text: &str) -> Option<Process> {
        let (id, start) = text.trim().split_once(' ')?;
        Some(Process { id: id.parse().ok().filter(|id| *id > 0)?, start: start.parse().ok()? })
    }

    fn text(&self) -> String {
        format!("{} {}\n", self.id, self.start)
    }

    fn is_running(&self) -> bool {
        Process::of(self.id).as_ref() == Some(self)
    }

    fn ask_to_end(&self) {
        if let Ok(id) = libc::pid_t::try_from(self.id)
            && self.is_running()
        {
            // SAFETY: kill takes numbers only. Where the process has just ended it says so, which is as good.
            unsafe { libc::kill(id, libc::SIGTERM) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.is_running());
        assert_eq!(Process::parse(&own.text()), Some(own));
        let earlier = Process { start: own.start - 1, ..own };
        assert!(!earlier.is_running());
        // Were it signalled, this test would end here.
        earlier.ask_to_end();
        for text in ["", "12", "x 1", "0 1", "-1 5", "12 x"] {
            assert_eq!(Process::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_process_that_has_ended_does_not_run() {
        let mut child = Command::new("true").spawn().unwrap();
        let process = Process { id: child.id(), start: 1 };
        assert!(!process.is_running());
        child.wait().unwrap();
        assert_eq!(Process::of(process.id), None);
    }

    fn demo(dir: &Path) -> Demo {
        let memory_limit = "256m".to_owned();
        Demo { place: Place { dir: dir.into() }, http_port: 20_986, node_port: 20_988, cores: 1, memory_limit }
    }

    #[test]
    fn a_folder_is_made_once_and_kept() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("cluster");
        let folder = demo(&dir).folder().unwrap();
        let read = |node| fs::read_to_string(folder.configuration(node)).unwrap();
        let texts = NODES.map(read);
        for (node, text) in NODES.iter().zip(&texts) {
            assert!(text.contains(&format!("\nnode = {node}\n")) && text.contains("127.0.0.1:21188"), "{text}");
        }
        let again = Demo { http_port: 1, ..demo(&dir) };
        again.folder().unwrap();
        assert_eq!(NODES.map(read), texts);
        assert!(folder.running(1).is_none());
        folder.stop(&NODES).unwrap();
    }

    #[test]
    fn a_node_is_not_started_where_another_server_answers() {
        let home = tempfile::tempdir().unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let http_port = other.local_addr().unwrap().port();
        let folder = Demo { http_port, ..demo(&home.path().join("cluster")) }.folder();
        // The last ports have none behind them.
        let Ok(folder) = folder else { return };
        let error = format!("{:#}", folder.start(1).unwrap_err());
        assert!(error.contains(&http_port.to_string()), "{error}");
        assert!(folder.running(1).is_none());
    }

    #[test]
    fn a_folder_of_something_else_is_let_be() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("mine"), "1").unwrap();
        assert!(demo(home.path()).folder().is_err());
        assert!(Folder::existing(home.path()).is_err());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
