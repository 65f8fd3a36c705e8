//! The command line of `perf`.

use crate::commands::saved_oracle;
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemill_perf::devices::DeviceSpec;
use tidemill_perf::emission::SendOrder;
use tidemill_perf::scenario::Faults;
use tidemill_perf::server::{Kind, Setup};

#[derive(Parser)]
#[command(version, about = "Load, queries and measurements for Tidemill and its peers")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Write the reference set as CSV files, with its oracle beside them.
    Gen(GenArgs),
    /// Send a workload to a server and measure.
    Write(WriteArgs),
    /// Run the reference queries, check every answer and measure.
    Query(QueryArgs),
    /// Compare every figure that a server holds with the oracle, or every row with an acknowledgement log.
    Verify(VerifyArgs),
    /// The same load on several servers, side by side.
    Compare(CompareArgs),
    /// Kill a server under load, again and again, and check every row.
    Crash(CrashArgs),
    /// Load, far too many series and queries for everything at once: does the server hold its memory limit?
    Memory(MemoryArgs),
    /// Thousands of connections that do nothing, or as little as they can: do they keep anybody out?
    Connections(ConnectionsArgs),
    /// Many series: memory, rate, what the index answers, the start.
    Index(IndexArgs),
    /// The same load on a standalone server and on three nodes of a cluster: what replication costs.
    Replication(ReplicationArgs),
    /// The same load straight at the nodes of a cluster and through a proxy before them.
    Proxy(ProxyArgs),
    /// One of the five cluster scenarios of the reference: load through the cluster, kill nodes, compare every row.
    Scenario(ScenarioArgs),
    /// The transport between nodes beside quinn on tokio: `perf peer --help` (runs `perf-peer`, from beside this binary).
    #[command(disable_help_flag = true)]
    Peer {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Files from disk to disk between two cores, beside the device alone, memory to memory and a plain path; further
    /// options are those of `perf peer`.
    #[command(disable_help_flag = true)]
    Stream {
        /// Both ends have their files below it
        directory: std::ffi::OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Replicated commits beside etcd and the device alone: `perf raft --help` (runs `perf-raft`, from beside this binary).
    #[command(disable_help_flag = true)]
    Raft {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

/// Which data set.
#[derive(Args, Clone)]
pub struct DataArgs {
    /// Total rows of the reference set; instead of --devices.
    #[arg(long, conflicts_with = "devices")]
    pub rows: Option<u64>,
    /// Number of devices.
    #[arg(long)]
    pub devices: Option<u64>,
    /// Number of files that the devices are dealt to; one a device unless given.
    #[arg(long)]
    pub files: Option<u64>,
    #[arg(long, default_value_t = 10_000)]
    pub rows_per_device: u64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder of `perf gen`: takes the numbers from its oracle.json.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

impl DataArgs {
    pub fn spec(&self) -> Result<DeviceSpec> {
        if let Some(directory) = self.dir.as_deref().filter(|_| self.rows.is_none() && self.devices.is_none()) {
            return Ok(saved_oracle(directory)?.spec);
        }
        let spec = match (self.rows, self.devices) {
            (Some(rows), _) => {
                let spec = DeviceSpec::with_rows(rows, self.seed);
                DeviceSpec { files: self.files.unwrap_or(spec.files), ..spec }
            }
            (None, devices) => {
                let devices = devices.unwrap_or(1000);
                DeviceSpec {
                    devices,
                    files: self.files.unwrap_or(devices),
                    rows_per_device: self.rows_per_device,
                    seed: self.seed,
                }
            }
        };
        spec.validate().map_err(|text| anyhow::anyhow!(text))?;
        Ok(spec)
    }
}

/// In which order the rows are sent.
#[derive(Args, Clone)]
pub struct OrderArgs {
    /// Series whose rows are sent in turn.
    #[arg(long, default_value_t = 1)]
    pub interleave: u64,
    /// Part of the rows that come late, and the longest lag, such as `0.1,1h`.
    #[arg(long, value_parser = parse_disorder)]
    pub disorder: Option<(f64, i64)>,
    /// Part of the rows that are sent twice.
    #[arg(long, default_value_t = 0.0, value_parser = parse_part)]
    pub dup: f64,
}

impl OrderArgs {
    pub fn order(&self) -> SendOrder {
        let (late_part, lag_ms_max) = self.disorder.unwrap_or((0.0, 0));
        SendOrder { interleave: self.interleave, late_part, lag_ms_max, duplicate_part: self.dup }
    }

    pub fn is_plain(&self) -> bool {
        self.order() == SendOrder::default()
    }
}

pub fn parse_part(text: &str) -> Result<f64, String> {
    let part: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=1.0).contains(&part) { Ok(part) } else { Err(format!("{part} is not between 0 and 1")) }
}

pub fn parse_disorder(text: &str) -> Result<(f64, i64), String> {
    let (part, lag) = text.split_once(',').ok_or("expected PART,LAG such as 0.1,1h")?;
    Ok((parse_part(part)?, parse_duration(lag)?.as_millis() as i64))
}

/// Bytes of a text such as `512m`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a size"))?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(format!("unknown unit {unit:?}: k, m and g are known")),
    };
    number.checked_shl(shift).filter(|bytes| bytes >> shift == number).ok_or_else(|| format!("{text:?} is too large"))
}

pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: f64 = digits.parse().map_err(|_| format!("{text:?} is not a duration"))?;
    let factor = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit {unit:?}: ms, s, m and h are known")),
    };
    Duration::try_from_secs_f64(number * factor).map_err(|error| error.to_string())
}

#[derive(Args)]
pub struct GenArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// Files to write; all unless given.
    #[arg(long)]
    pub file: Vec<u64>,
    #[arg(long, default_value_t = 2)]
    pub threads: u64,
}

#[derive(Args)]
pub struct WriteArgs {
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub order: OrderArgs,
    /// Make the rows in memory instead of reading the files of --dir.
    #[arg(long)]
    pub generate: bool,
    /// A workload of the goal sheet (w1, w2a, w2b, w3, w4), or w5 or w5i (w1 a day late), instead of the options above; --rows cuts it.
    #[arg(long)]
    pub workload: Option<String>,
    /// host:port of the server, or several between commas.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:8086")]
    pub target: Vec<String>,
    #[arg(long, default_value = "mydb")]
    pub db: String,
    #[arg(long, default_value = "")]
    pub rp: String,
    #[arg(long, default_value = "one")]
    pub consistency: String,
    /// Replication of the default retention policy.
    #[arg(long, default_value_t = 1)]
    pub replication: u32,
    #[arg(long, default_value_t = 8)]
    pub clients: u64,
    /// 1000, or what the workload says.
    #[arg(long)]
    pub rows_per_request: Option<u64>,
    /// Compress the bodies (before the clock starts).
    #[arg(long)]
    pub gzip: bool,
    /// Rows a second over all clients, at fixed times: an open loop.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Send a batch again after 429, 5xx or no answer, until it is taken.
    #[arg(long)]
    pub retry: bool,
    /// Acknowledgement log.
    #[arg(long)]
    pub ack_log: Option<PathBuf>,
    /// Process whose CPU time and memory are reported.
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Folder for figures by second (CSV, SVG), and the latency beside flush, copy, delete and drop. Deletes and drops
    /// are made meanwhile in a database of their own, which gets the rows of one client before.
    #[arg(long)]
    pub stall_report: Option<PathBuf>,
    /// With --stall-report: the other database gets so many series of one point instead, and one statement takes them
    /// all away when 40 % of the rows are there. Adds the figures before, beside and behind it.
    #[arg(long, requires = "stall_report")]
    pub remove_series: Option<u64>,
    /// That statement.
    #[arg(long, requires = "remove_series", default_value = "drop-series", value_parser = tidemill_perf::removal::NAMES)]
    pub remove_with: String,
    /// JSON file for the figures, the latency histogram and the one-second series.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
pub struct QueryArgs {
    #[command(flatten)]
    pub data: DataArgs,
    #[arg(long, default_value = "127.0.0.1:8086")]
    pub target: String,
    #[arg(long, default_value = "mydb")]
    pub db: String,
    /// Query files to run: q, q1, q2, q3, q4.
    #[arg(long, value_delimiter = ',', default_value = "q,q1,q2,q3,q4")]
    pub query_files: Vec<String>,
    /// Times that each statement is run.
    #[arg(long, default_value_t = 1)]
    pub repeat: u32,
    #[arg(long)]
    pub server_pid: Option<u32>,
    #[arg(long)]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub order: OrderArgs,
    #[arg(long, default_value = "127.0.0.1:8086")]
    pub target: String,
    #[arg(long, default_value = "mydb")]
    pub db: String,
    /// Check row by row against this log instead of the figures of the whole set.
    #[arg(long)]
    pub ack_log: Option<PathBuf>,
    /// Clients of the run that wrote the log.
    #[arg(long, default_value_t = 8)]
    pub clients: u64,
}

#[derive(Args)]
pub struct ServerArgs {
    /// Tidemill's binary.
    #[arg(long, default_value = "./target/release/tidemill")]
    pub tidemill: PathBuf,
    /// Tidemill's number of cores.
    #[arg(long)]
    pub cores: Option<usize>,
    /// Tidemill's memory budget.
    #[arg(long)]
    pub memory_limit: Option<String>,
    /// Folder for the servers' data; a fresh one in the folder for temporary files unless given.
    #[arg(long)]
    pub folder: Option<PathBuf>,
}

impl ServerArgs {
    pub fn setup(&self, kind: Kind, folder: &Path) -> Option<Setup> {
        let binary = match kind {
            Kind::Tidemill => Some(self.tidemill.clone()).filter(|path| path.exists()),
            _ => kind.system_binary(),
        }?;
        let folder = folder.join(kind.name());
        let mut setup = Setup::new(kind, binary, &folder);
        setup.cores = self.cores;
        setup.memory_limit = self.memory_limit.clone();
        Some(setup)
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.clone().unwrap_or_else(fresh_folder)
    }
}

pub fn fresh_folder() -> PathBuf {
    std::env::temp_dir().join(format!("tidemill-perf-{}", std::process::id()))
}

#[derive(Args)]
pub struct CompareArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[arg(long, default_value = "w1")]
    pub workload: String,
    /// The order in which the other servers are sent the same rows: `w1` is the easiest for them.
    #[arg(long)]
    pub peers_workload: Option<String>,
    /// Compare every figure and every row of Tidemill with the oracle after its restart.
    #[arg(long)]
    pub verify: bool,
    /// Rows, instead of the workload's own number.
    #[arg(long)]
    pub rows: Option<u64>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[arg(long, default_value_t = 8)]
    pub clients: u64,
    #[arg(long)]
    pub rows_per_request: Option<u64>,
    #[arg(long)]
    pub rate: Option<f64>,
    /// Servers: tidemill, influxdb, victoria-metrics.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Query files to time on the reference workload.
    #[arg(long, value_delimiter = ',', default_value = "q,q1,q2,q3,q4")]
    pub query_files: Vec<String>,
    /// Longest wait until the folder stops changing.
    #[arg(long, default_value = "120s", value_parser = parse_duration)]
    pub settle: Duration,
    #[arg(long, default_value = "perf-out/compare.json")]
    pub out: PathBuf,
    /// Keep the servers' folders.
    #[arg(long)]
    pub keep: bool,
}

#[derive(Args)]
pub struct MemoryArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// How long the storm lasts.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Series that are tried.
    #[arg(long, default_value_t = 10_000_000)]
    pub series: u64,
    /// Bytes of one more tag of each of them: longer keys come to the limit with fewer series.
    #[arg(long, default_value_t = 0)]
    pub padding_bytes: usize,
    /// Before the storm nothing but new series come, until the first of them is refused or for so long.
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub fill: Duration,
    /// Rows of known series, sent again and again.
    #[arg(long, default_value_t = 2_000_000)]
    pub rows: u64,
    /// Clients that write known series, that write new series, that ask for everything.
    #[arg(long, value_delimiter = ',', default_values_t = [4, 2, 6])]
    pub clients: Vec<u64>,
    /// Only watch the process, without a control group.
    #[arg(long)]
    pub no_control_group: bool,
    #[arg(long, default_value = "perf-out/memory.json")]
    pub out: PathBuf,
    /// Keep the server's folder.
    #[arg(long)]
    pub keep: bool,
}

#[derive(Args)]
pub struct ConnectionsArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Connections of the crowd.
    #[arg(long, default_value_t = 10_000)]
    pub count: usize,
    /// How long the others are measured, without the crowd and beside it; less than 30 s.
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    pub duration: Duration,
    /// The others: clients that write a row at a time.
    #[arg(long, default_value_t = 4)]
    pub clients: u64,
    #[arg(long, default_value = "perf-out/connections.json")]
    pub out: PathBuf,
    /// Keep the server's folder.
    #[arg(long)]
    pub keep: bool,
}

#[derive(Args)]
pub struct IndexArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[arg(long, default_value_t = 1_000_000)]
    pub series: u64,
    #[arg(long, default_value_t = 4)]
    pub clients: u64,
    #[arg(long, default_value_t = 5_000)]
    pub rows_per_request: u64,
    /// Each statement is asked so often; the fastest answer counts.
    #[arg(long, default_value_t = 3)]
    pub repeat: u32,
    #[arg(long, default_value = "perf-out/index.json")]
    pub out: PathBuf,
    /// Keep the server's folder.
    #[arg(long)]
    pub keep: bool,
}

#[derive(Args)]
pub struct ReplicationArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[arg(long, default_value = "w1")]
    pub workload: String,
    /// Cuts the workload.
    #[arg(long)]
    pub rows: Option<u64>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[arg(long, default_value_t = 8)]
    pub clients: u64,
    #[arg(long)]
    pub rows_per_request: Option<u64>,
    /// Rows a second over all clients; as fast as answers come unless given.
    #[arg(long)]
    pub rate: Option<f64>,
    #[arg(long, default_value = "perf-out/replication.json")]
    pub out: PathBuf,
    /// Keep the servers' folders.
    #[arg(long)]
    pub keep: bool,
}

#[derive(Args)]
pub struct ProxyArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[arg(long, default_value = "w1")]
    pub workload: String,
    /// Cuts the workload.
    #[arg(long)]
    pub rows: Option<u64>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[arg(long, default_value_t = 8)]
    pub clients: u64,
    #[arg(long)]
    pub rows_per_request: Option<u64>,
    /// Rows a second over all clients; as fast as answers come unless given.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Data groups, of a node each.
    #[arg(long, default_value_t = 2)]
    pub groups: u32,
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    #[arg(long, default_value = "perf-out/proxy.json")]
    pub out: PathBuf,
    /// Keep the servers' folders.
    #[arg(long)]
    pub keep: bool,
}

#[derive(Args)]
pub struct ScenarioArgs {
    /// Tidemill's binary.
    #[arg(long, default_value = "./target/release/tidemill")]
    pub tidemill: PathBuf,
    /// Folder for the data of all nodes; a fresh one in the folder for temporary files unless given.
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// 1 to 5.
    pub number: u8,
    /// Rows of each database; 50 M unless given, 10 M in scenario 4.
    #[arg(long)]
    pub rows: Option<u64>,
    /// Whether nodes are killed where the reference kills them, or while rows are written.
    #[arg(long, default_value = "after", value_parser = parse_faults)]
    pub faults: Faults,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[arg(long, default_value_t = 8)]
    pub clients: u64,
    #[arg(long, default_value_t = 1000)]
    pub rows_per_request: u64,
    /// Rows a second over all clients; as fast as answers come unless given.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Partitions of each data group.
    #[arg(long, default_value_t = 4)]
    pub partitions: u32,
    /// Copies of each file in the pool.
    #[arg(long, default_value_t = 2)]
    pub copies: u32,
    /// Memory of each data node.
    #[arg(long, default_value = "1g")]
    pub data_memory: String,
    /// Memory of each other process.
    #[arg(long, default_value = "256m")]
    pub other_memory: String,
    /// The figures; the page is beside it, with the ending html.
    #[arg(long, default_value = "perf-out/scenario.json")]
    pub out: PathBuf,
    /// Keep the servers' folders.
    #[arg(long)]
    pub keep: bool,
}

fn parse_faults(text: &str) -> Result<Faults, String> {
    match text {
        "after" => Ok(Faults::After),
        "during" => Ok(Faults::During),
        _ => Err("faults come `after` the load or `during` it".to_owned()),
    }
}

#[derive(Args)]
pub struct CrashArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// tidemill or influxdb.
    #[arg(long, default_value = "tidemill")]
    pub kind: String,
    #[arg(long, default_value_t = 200)]
    pub cycles: u64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[arg(long, default_value_t = 4)]
    pub clients: u64,
    #[arg(long, default_value_t = 100)]
    pub rows_per_request: u64,
    /// Rows a second over all clients.
    #[arg(long, default_value_t = 50_000.0)]
    pub rate: f64,
    /// The kill comes within this time after the load began.
    #[arg(long, default_value = "700ms", value_parser = parse_duration)]
    pub within: Duration,
    /// Cycles on one database before the next one is begun.
    #[arg(long, default_value_t = 20)]
    pub cycles_per_database: u64,
    /// Numbers of cores, one of which is drawn for each start.
    #[arg(long, value_delimiter = ',')]
    pub vary_cores: Vec<usize>,
    /// Keep the server's folder.
    #[arg(long)]
    pub keep: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!((parse_size("5"), parse_size("2k"), parse_size("1G")), (Ok(5), Ok(2048), Ok(1 << 30)));
        assert!(parse_size("1x").is_err() && parse_size("g").is_err() && parse_size("99999999999999g").is_err());
    }

    #[test]
    fn disorder_is_a_part_and_a_lag() {
        assert_eq!(parse_disorder("0.1,1h"), Ok((0.1, 3_600_000)));
        assert_eq!(parse_disorder("1,250ms"), Ok((1.0, 250)));
        for bad in ["0.1", "2,1h", "0.1,1d", "0.1,-1s", "x,1s", "0.1,"] {
            assert!(parse_disorder(bad).is_err(), "{bad}");
        }
    }
}
