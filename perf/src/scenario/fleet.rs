//! The processes of a scenario.
//!
//! Owns: their start, their ends, who of them is asked for what, and the most memory that each has had.

use super::plan::Scenario;
use super::watch::{PoolState, Watch};
use crate::cluster::{self, ClusterPlan, Duty};
use crate::http::Client;
use crate::process;
use crate::proxy;
use crate::server::Server;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for every group to have a leader.
const ELECTION_PATIENCE: Duration = Duration::from_secs(120);
/// Longest wait for an answer about the pool.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);
/// The pool is quiet when nothing changed for so long.
const QUIET_AFTER: Duration = Duration::from_secs(5);

/// Longest wait for the end of a process.
const STOP_PATIENCE: Duration = Duration::from_secs(120);
/// The number under which the proxy's memory is kept.
pub const PROXY: usize = 0;

/// L1 files that become L2 files together where a scenario does not say: few, so that most of the rows come into the pool.
const FILES_PER_COPY: usize = 2;

/// What the processes may use.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    pub binary: PathBuf,
    pub folder: PathBuf,
    /// Of each data group.
    pub partitions: u32,
    /// Memory of a data node, and of each other process: with suffix k, m or g.
    pub data_memory: String,
    pub other_memory: String,
    /// Copies of each file in the pool.
    pub copies: u32,
}

/// All nodes that run.
#[derive(Debug)]
pub struct Fleet {
    duties: Vec<Duty>,
    nodes: Mutex<BTreeMap<usize, Server>>,
    proxy: Mutex<Option<Server>>,
    /// Of those that are gone, too.
    peaks: Mutex<BTreeMap<usize, u64>>,
}

impl Fleet {
    /// Starts every node and waits until all groups have leaders.
    pub fn start(scenario: &Scenario, options: &FleetOptions) -> Result<Fleet> {
        let duties = scenario.duties();
        let files_per_copy = if scenario.seals_each_file { 1 } else { FILES_PER_COPY };
        let plan = ClusterPlan {
            binary: options.binary.clone(),
            folder: options.folder.clone(),
            cores: 1,
            memory_limit: Some(options.other_memory.clone()),
            configuration: format!("[pool]\ncopies = {}\nafter = \"0s\"\n", options.copies),
            data_section: format!("l1-files-per-l2 = {files_per_copy}\n"),
            partitions: options.partitions,
            duties: duties.clone(),
        };
        let mut nodes = BTreeMap::new();
        for (node, mut setup) in (1..).zip(plan.prepare()?) {
            if matches!(duties[node - 1], Duty::Data(_)) {
                setup.memory_limit = Some(options.data_memory.clone());
            }
            nodes.insert(node, Server::start(setup).with_context(|| format!("node {node}"))?);
        }
        cluster::wait_for_leaders(&nodes[&1], ELECTION_PATIENCE)?;
        let fleet = Fleet { duties, nodes: Mutex::new(nodes), proxy: Mutex::default(), peaks: Mutex::default() };
        let proxy = fleet.start_proxy(options).context("the proxy")?;
        *fleet.proxy() = Some(proxy);
        Ok(fleet)
    }

    /// Before the data nodes, those that are going to be killed included.
    fn start_proxy(&self, options: &FleetOptions) -> Result<Server> {
        let nodes = self.data_nodes();
        let setup = proxy::setup(&options.binary, &options.folder, "proxy", &nodes, &proxy::secret())?;
        let proxy = Server::start(setup)?;
        proxy::wait_until_placed(&proxy, nodes.len())?;
        Ok(proxy)
    }

    fn proxy(&self) -> MutexGuard<'_, Option<Server>> {
        self.proxy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where clients write to and ask.
    pub fn front(&self) -> Result<String> {
        Ok(self.proxy().as_ref().context("the proxy does not run")?.address())
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<usize, Server>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn duty(&self, node: usize) -> Duty {
        self.duties[node - 1]
    }

    /// What a process is started as.
    pub fn role(&self, node: usize) -> &'static str {
        if node == PROXY { "proxy" } else { self.duty(node).role() }
    }

    /// The data nodes that run.
    fn data_nodes(&self) -> Vec<String> {
        let nodes = self.nodes();
        let data = nodes.iter().filter(|(node, _)| matches!(self.duty(**node), Duty::Data(_)));
        data.map(|(_, server)| server.address()).collect()
    }

    /// CPU seconds of all processes that run.
    pub fn cpu_seconds(&self) -> f64 {
        let proxy = self.proxy().as_ref().map(Server::pid);
        let pids: Vec<u32> = self.nodes().values().map(Server::pid).chain(proxy).collect();
        pids.into_iter().filter_map(|pid| process::cpu_seconds(pid).ok()).sum()
    }

    /// SIGKILL.
    pub fn kill(&self, node: usize) -> Result<()> {
        self.note_memory();
        let server = self.nodes().remove(&node).with_context(|| format!("node {node} does not run"))?;
        server.kill().map(drop)
    }

    /// Nodes that have ended although nobody killed them, with the end of what they printed.
    pub fn fallen(&self) -> Vec<(usize, String)> {
        let mut nodes = self.nodes();
        let ended =
            nodes.iter_mut().filter_map(|(node, server)| (!server.is_running()).then(|| (*node, server.log_tail())));
        ended.collect()
    }

    /// Resident bytes of all processes; keeps the most of each.
    pub fn note_memory(&self) -> u64 {
        let nodes = self.nodes();
        let mut peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner);
        let (proxy, mut total) = (self.proxy(), 0);
        // The proxy has the number of no node.
        let all = nodes.iter().map(|(node, server)| (*node, server)).chain(proxy.iter().map(|proxy| (PROXY, proxy)));
        for (node, server) in all {
            total += process::rss_bytes(server.pid()).unwrap_or(0);
            let peak = process::peak_rss_bytes(server.pid()).unwrap_or(0);
            let known = peaks.entry(node).or_default();
            *known = peak.max(*known);
        }
        total
    }

    /// The most resident bytes that each process has had.
    pub fn peaks(&self) -> BTreeMap<usize, u64> {
        self.peaks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the pool is, as the first data node says that knows it.
    pub fn pool_state(&self) -> Option<PoolState> {
        self.data_nodes().into_iter().find_map(|target| {
            let mut client = Client::new(target).with_timeout(STATUS_PATIENCE);
            let answer = client.get("/cluster/pool").ok().filter(|answer| answer.status == 200)?;
            PoolState::read(&serde_json::from_slice::<Value>(&answer.body).ok()?)
        })
    }

    /// Waits until every file of the pool has its copies and none came for a while; how long that took.
    pub fn wait_for_pool(&self, patience: Duration) -> Result<(Duration, PoolState)> {
        let begin = Instant::now();
        let (mut last, mut since) = (None, Instant::now());
        while begin.elapsed() < patience {
            let now = self.pool_state();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if let Some(state) = now.filter(PoolState::is_whole).filter(|_| since.elapsed() >= QUIET_AFTER) {
                return Ok((since - begin, state));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        bail!("the pool was not whole within {patience:?}: {last:?}")
    }

    /// Waits until the masters have seen that a slave is gone and its files have been copied again.
    pub fn wait_for_recovery(&self, slave: usize, patience: Duration, watch: &Watch) -> Result<Recovery> {
        let begin = Instant::now();
        let (mut short_max, mut seen) = (PoolState::default(), None);
        while begin.elapsed() < patience {
            let state = self.pool_state();
            let is_lost = self.is_lost(slave);
            if let Some(state) = state {
                if state.missing_copies > short_max.missing_copies {
                    short_max = state;
                }
                if is_lost && seen.is_none() {
                    seen = Some(begin.elapsed());
                }
                if let Some(seen) = seen.filter(|_| state.is_whole()) {
                    let recovery = Recovery {
                        slave,
                        seen_after: seen,
                        whole_after: begin.elapsed(),
                        missing_copies: short_max.missing_copies,
                    };
                    watch.note(recovery.to_string());
                    return Ok(recovery);
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the files of slave {slave} were not copied again within {patience:?}: {:?}", self.pool_state())
    }

    fn is_lost(&self, slave: usize) -> bool {
        self.data_nodes().into_iter().any(|target| {
            let mut client = Client::new(target).with_timeout(STATUS_PATIENCE);
            let answer = client.get("/cluster/pool").ok().filter(|answer| answer.status == 200);
            let status = answer.and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
            let slaves = status.as_ref().and_then(|status| status["slaves"].as_array());
            slaves.into_iter().flatten().any(|one| one["node"] == slave && one["state"] == "lost")
        })
    }

    /// SIGTERM, one after the other: what each leads, others take over.
    pub fn stop(&self) -> Result<()> {
        self.note_memory();
        if let Some(proxy) = self.proxy().take() {
            let status = proxy.stop(STOP_PATIENCE).context("the proxy")?;
            ensure!(status.success(), "the proxy ended with {status} after SIGTERM");
        }
        let nodes = std::mem::take(&mut *self.nodes());
        for (node, server) in nodes {
            let status = server.stop(STOP_PATIENCE).with_context(|| format!("node {node}"))?;
            ensure!(status.success(), "node {node} ended with {status} after SIGTERM");
        }
        Ok(())
    }

    /// Where the processes write what they have to say.
    pub fn logs(folder: &Path) -> String {
        format!("{}/*.log", folder.display())
    }
}

/// What came after the end of a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    pub slave: usize,
    /// Until the masters knew.
    pub seen_after: Duration,
    /// Until every file had its copies again.
    pub whole_after: Duration,
    /// The most copies that were missing.
    pub missing_copies: u64,
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "slave {}: known to be lost after {:.1} s, {} copies missing at most, all there after {:.1} s",
            self.slave,
            self.seen_after.as_secs_f64(),
            self.missing_copies,
            self.whole_after.as_secs_f64()
        )
    }
}
