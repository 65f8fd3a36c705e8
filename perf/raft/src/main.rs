//! Replicated commits: ours beside Debian's etcd, and the device alone, in one run.
//!
//! Three nodes on loopback, each with its own log on the same disk, durable. A cell of the grid is a payload and a number
//! of proposals in flight; candidates are our nodes in one process and in three, with one group and with many, and three
//! etcd servers. Ours are proposed to on the cores themselves, as a partition's batches are; etcd is asked through its API.

mod cluster;
mod device;
mod etcd;
mod machine;
mod measure;
mod node;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use cluster::{Cluster, Shape};
use device::Device;
use etcd::Etcd;
use measure::{Cell, Figures};
use node::{NODES, Plan};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(Parser)]
#[command(name = "perf-raft", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Proposals in flight, in the whole cluster
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    window: Vec<usize>,
    /// Bytes of a proposal
    #[arg(long, value_delimiter = ',', default_value = "1024,65536")]
    payload: Vec<usize>,
    /// Numbers of groups
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    groups: Vec<u32>,
    /// Nodes as threads of one process, as processes, or first so and then so
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    processes: Vec<u16>,
    /// Seconds of each cell
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before each cell of which nothing counts
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Folder for all data, on the disk to measure; a folder is made in it and removed
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The first of nine UDP and TCP ports that follow each other
    #[arg(long, default_value_t = 23700)]
    port: u16,
    /// UDP payload of our packets
    #[arg(long, default_value_t = tidemill_peer::MTU_DEFAULT)]
    mtu: u16,
    /// Processors of nodes 1, 2 and 3; by default the first alone for node 1
    #[arg(long, value_delimiter = ',')]
    processors: Vec<usize>,
    /// Microseconds that our cores poll before they sleep, as `data.spin-before-park-us`
    #[arg(long, default_value_t = 0)]
    spin: u64,
    /// One RWF_DSYNC write instead of a write and an fdatasync, as `[data] durability = "dsync"`
    #[arg(long)]
    dsync: bool,
    /// HTTP/2 connections to etcd, at most
    #[arg(long, default_value_t = 8)]
    etcd_connections: usize,
    /// Only candidates whose name contains this
    #[arg(long)]
    only: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// One node, under orders from standard input
    #[command(hide = true)]
    Node(NodeArguments),
}

#[derive(clap::Args)]
struct NodeArguments {
    #[arg(long)]
    node: u64,
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    certificates: PathBuf,
    #[arg(long)]
    first_port: u16,
    #[arg(long)]
    groups: u32,
    #[arg(long)]
    processor: usize,
    #[arg(long)]
    mtu: u16,
    #[arg(long)]
    spin: u64,
    #[arg(long)]
    dsync: bool,
}

/// Whose turn it is in a cell.
enum Candidate {
    Ours(Shape, u32),
    Etcd,
}

/// One line of the table.
struct Row {
    name: String,
    cell: Cell,
    figures: Figures,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Node(node)) = arguments.command {
        let NodeArguments { node, folder, certificates, first_port, groups, processor, mtu, spin, dsync } = node;
        let spin = Duration::from_micros(spin);
        return cluster::serve_lines(Plan {
            node,
            folder,
            certificates,
            first_port,
            groups,
            processor,
            mtu,
            dsync,
            spin,
        });
    }
    let scratch = tempfile::Builder::new().prefix("perf-raft-").tempdir_in(&arguments.dir)?;
    measure_all(&arguments, scratch.path())
}

fn measure_all(arguments: &Arguments, folder: &Path) -> Result<()> {
    let certificates = folder.join("certificates");
    cluster::make_certificates(&certificates)?;
    let (mut alone, mut three) = (Device::new(), Device::new());
    let mut look_at_device = || -> Result<()> {
        alone.merge(&device::measure(&folder.join("device"), 1, Duration::from_secs(3))?)?;
        three.merge(&device::measure(&folder.join("device"), NODES as usize, Duration::from_secs(3))?)
    };
    let mut rows = Vec::new();
    for payload_bytes in &arguments.payload {
        for (name, candidate) in candidates(arguments) {
            look_at_device()?;
            let data = folder.join("data");
            let mut cell = Cell {
                window: 64,
                payload_bytes: *payload_bytes,
                warm_up: Duration::ZERO,
                length: Duration::from_secs(2),
            };
            let mut started = Started::start(&candidate, arguments, &data, &certificates)
                .with_context(|| format!("starting {name}"))?;
            // Logs reach their size and caches fill.
            started.run(cell)?;
            for window in &arguments.window {
                cell.window = *window;
                cell.warm_up = Duration::from_secs_f64(arguments.warm_up);
                cell.length = Duration::from_secs_f64(arguments.seconds);
                let figures = started.run(cell).with_context(|| format!("{name} at window {window}"))?;
                let row = Row { name: name.clone(), cell, figures };
                row.print();
                rows.push(row);
            }
            started.stop()?;
            std::fs::remove_dir_all(&data)?;
        }
    }
    look_at_device()?;
    alone.print("one writer");
    three.print("three writers");
    conclude(&rows, &alone);
    Ok(())
}

fn candidates(arguments: &Arguments) -> Vec<(String, Candidate)> {
    let mut candidates = Vec::new();
    for processes in &arguments.processes {
        for groups in &arguments.groups {
            let (shape, place) = match processes {
                1 => (Shape::OneProcess, "1 process"),
                _ => (Shape::ThreeProcesses, "3 processes"),
            };
            let plural = if *groups == 1 { "" } else { "s" };
            candidates.push((format!("tidemill, {place}, {groups} group{plural}"), Candidate::Ours(shape, *groups)));
        }
    }
    match etcd::version() {
        Some(version) => {
            println!("{version}");
            candidates.push(("etcd".into(), Candidate::Etcd));
        }
        None => eprintln!("SKIPPED: etcd is not installed (apt-get install etcd-server)"),
    }
    if let Some(part) = &arguments.only {
        candidates.retain(|(name, _)| name.contains(part));
    }
    candidates
}

/// A candidate at work.
enum Started {
    Ours(Cluster),
    Etcd(Etcd),
}

impl Started {
    fn start(candidate: &Candidate, arguments: &Arguments, data: &Path, certificates: &Path) -> Result<Started> {
        std::fs::create_dir_all(data)?;
        let Candidate::Ours(shape, groups) = candidate else {
            return Ok(Started::Etcd(Etcd::start(data, arguments.port + NODES as u16, arguments.etcd_connections)?));
        };
        let allowed = measure::processors();
        let plan = |node: u64| Plan {
            node,
            folder: data.join(format!("node-{node}")),
            certificates: certificates.join(node.to_string()),
            first_port: arguments.port,
            groups: *groups,
            processor: match arguments.processors.get(node as usize - 1) {
                Some(processor) => *processor,
                // Whoever leads a single group has one for itself.
                None if node == 1 || allowed.len() == 1 => allowed[0],
                None => allowed[1 + (node as usize - 2) % (allowed.len() - 1)],
            },
            mtu: arguments.mtu,
            dsync: arguments.dsync,
            spin: Duration::from_micros(arguments.spin),
        };
        Ok(Started::Ours(Cluster::start(*shape, (1..=NODES).map(plan).collect())?))
    }

    fn run(&mut self, cell: Cell) -> Result<Figures> {
        match self {
            Started::Ours(cluster) => cluster.run(cell),
            Started::Etcd(etcd) => etcd.run(cell),
        }
    }

    fn stop(self) -> Result<()> {
        if let Started::Ours(mut cluster) = self {
            cluster.check()?;
            cluster.stop()?;
        }
        Ok(())
    }
}

impl Row {
    fn print(&self) {
        let Row { name, cell, figures } = self;
        let commits = figures.commits.max(1) as f64;
        println!(
            "{name:<34} {:>5} B window {:<4} {:>8.0} commits/s {:>7.1} MB/s  p50 {:>8.3} ms  p90 {:>8.3}  p99 {:>8.3}  p99.9 {:>8.3}  CPU-us/commit {:>6.1} + {:>5.1} client  {}",
            cell.payload_bytes,
            cell.window,
            figures.commits_per_second(),
            figures.bytes_per_second(cell.payload_bytes) / 1e6,
            figures.ms(0.5),
            figures.ms(0.9),
            figures.ms(0.99),
            figures.ms(0.999),
            figures.cpu_seconds * 1e6 / commits,
            figures.client_cpu_seconds * 1e6 / commits,
            figures.note
        );
    }

    fn bytes_per_second(&self) -> f64 {
        self.figures.bytes_per_second(self.cell.payload_bytes)
    }

    fn is_etcd(&self) -> bool {
        self.name == "etcd"
    }
}

/// The two ratios that are asked for: the best committed bytes a second of both over the same cells, and the tail at
/// sixteen in flight beside the device's own.
fn conclude(rows: &[Row], device: &Device) {
    let best = |mine: bool, keep: &dyn Fn(&Row) -> bool| {
        let rates = rows.iter().filter(|row| row.is_etcd() != mine && keep(row)).map(Row::bytes_per_second);
        rates.fold(0.0, f64::max)
    };
    let tell = |what: &str, keep: &dyn Fn(&Row) -> bool| {
        let (ours, theirs) = (best(true, keep), best(false, keep));
        if ours > 0.0 && theirs > 0.0 {
            let ratio = ours / theirs;
            println!("{what}: {:.1} MB/s, etcd {:.1} MB/s: {ratio:.1} times", ours / 1e6, theirs / 1e6);
        }
    };
    let mut cells: Vec<(usize, usize)> = rows.iter().map(|row| (row.cell.payload_bytes, row.cell.window)).collect();
    cells.sort_unstable();
    cells.dedup();
    for (payload_bytes, window) in &cells {
        let here = |row: &Row| (row.cell.payload_bytes, row.cell.window) == (*payload_bytes, *window);
        tell(&format!("best of {payload_bytes} B, window {window}"), &here);
    }
    tell("best of all cells", &|_| true);
    let sync = device.sync.value_at_quantile(0.99) as f64 / 1e6;
    for row in rows.iter().filter(|row| row.cell.window == 16) {
        let p99 = row.figures.ms(0.99);
        let times = p99 / sync;
        println!(
            "{}, {} B, window 16: p99 {p99:.3} ms is {times:.1} times the device's fdatasync ({sync:.3} ms)",
            row.name, row.cell.payload_bytes
        );
    }
}
