//! What an operator may set: command line over file over defaults.
//!
//! Every key works or is refused by name; there is none that is read and ignored.

use crate::{
    access::AccessOptions,
    data::{Budget, ScrubOptions},
    query::QueryLimits,
};
use anyhow::{Context, bail};
use serde::Deserialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tidemill_log::{Durability, LogOptions};
use tidemill_store::{Command as StoreCommand, Floats};

/// Standing options of a server.
#[derive(Clone, Debug)]
pub struct Options {
    pub data_dir: PathBuf,
    pub http_addr: SocketAddr,
    pub cores: usize,
    pub memory_limit_bytes: u64,
    /// Partitions that a new data folder gets; an existing one has its own.
    pub partitions: Option<u32>,
    pub allow_buffered: bool,
    /// Series that a database may have, in all; zero is any number.
    pub series_per_database_max: u64,
    pub spin_before_park: Duration,
    /// Ordered L1 files of a shard group that become L2 files together.
    pub l1_files_per_l2: usize,
    /// Size at which a copy begins another L2 file.
    pub l2_file_bytes_max: u64,
    /// How float blocks of new files are encoded.
    pub floats: Floats,
    pub scrub: ScrubOptions,
    pub log: LogOptions,
    pub http: tidemill_http::Options,
    pub access: AccessOptions,
    pub query: QueryLimits,
    /// How often shard groups are looked at that may be too old; `None`: never.
    pub retention_check_interval: Option<Duration>,
}

/// What the command line said.
#[derive(Clone, Debug, Default)]
pub struct CommandLine {
    pub data_dir: Option<PathBuf>,
    pub http_addr: Option<SocketAddr>,
    pub cores: Option<usize>,
    pub memory_limit: Option<String>,
    pub config: Option<PathBuf>,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    cores: Option<usize>,
    memory_limit: Option<Size>,
    data: DataSection,
    log: LogSection,
    http: HttpSection,
    meta: MetaSection,
    coordinator: CoordinatorSection,
    retention: RetentionSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct RetentionSection {
    enabled: Option<bool>,
    check_interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct DataSection {
    dir: Option<PathBuf>,
    partitions: Option<u32>,
    max_series_per_database: Option<u64>,
    allow_buffered_io: Option<bool>,
    spin_before_park_us: Option<u64>,
    float_encoding: Option<FloatEncodingName>,
    scrub_rate: Option<Size>,
    scrub_interval: Option<String>,
    l1_files_per_l2: Option<usize>,
    l2_file_size: Option<Size>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct LogSection {
    durability: Option<DurabilityName>,
    segment_size: Option<Size>,
    segments_max: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct HttpSection {
    bind_address: Option<String>,
    max_body_size: Option<Size>,
    max_connection_limit: Option<usize>,
    max_row_limit: Option<usize>,
    realm: Option<String>,
    auth_enabled: Option<bool>,
    shared_secret: Option<String>,
    ping_auth_enabled: Option<bool>,
    pprof_auth_enabled: Option<bool>,
    headers: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct MetaSection {
    retention_autocreate: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct CoordinatorSection {
    max_concurrent_queries: Option<u64>,
    query_timeout: Option<String>,
    max_select_point: Option<u64>,
    max_select_series: Option<u64>,
    max_select_buckets: Option<u64>,
    /// Not of upstream: bytes that one query may hold.
    query_memory_limit: Option<Size>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DurabilityName {
    Fdatasync,
    Dsync,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FloatEncodingName {
    Gorilla,
    Alp,
}

/// Bytes: an integer, or a text with the suffix k, m or g (of 1024).
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    fn bytes(&self, key: &str) -> anyhow::Result<u64> {
        match self {
            Size::Bytes(bytes) => Ok(*bytes),
            Size::Text(text) => parse_size(text).with_context(|| key.to_string()),
        }
    }
}

/// The data folder without an option.
const DATA_DIR_DEFAULT: &str = "./tidemill-data";
/// Upstream listens on all addresses; without users a server should be reachable from its own machine only.
const HTTP_ADDR_DEFAULT: &str = "127.0.0.1:8086";
/// As upstream.
const SERIES_PER_DATABASE_MAX_DEFAULT: u64 = 1_000_000;
/// Each point is then copied about once for each power of eight of its shard group's size, and a query of recent rows
/// looks into few files.
const L1_FILES_PER_L2: usize = 8;
/// Half of what upstream writes at most: a file is what is shipped, repaired and backed up as a whole.
const L2_FILE_BYTES_MAX: u64 = 1 << 30;
/// Smaller files cost more in their indexes than they hold.
const L2_FILE_BYTES_MIN: u64 = 1 << 20;
/// Below this a server has no room for one full request a core and its files.
const MEMORY_LIMIT_BYTES_MIN: u64 = 64 << 20;
/// Part of the machine's memory that a server takes without an option: its neighbours and the page cache have the rest.
const MEMORY_PART: u64 = 2;

impl Options {
    /// The options that hold, or which one is wrong.
    pub fn read(line: &CommandLine) -> anyhow::Result<Options> {
        let file = match &line.config {
            Some(path) => read_file(path)?,
            None => File::default(),
        };
        let cores = match line.cores.or(file.cores) {
            Some(0) => bail!("--cores must be at least 1"),
            Some(cores) => cores,
            None => std::thread::available_parallelism().context("counting the machine's cores")?.get(),
        };
        let memory_limit_bytes = match (&line.memory_limit, &file.memory_limit) {
            (Some(text), _) => parse_size(text).context("--memory-limit")?,
            (None, Some(size)) => size.bytes("memory-limit")?,
            (None, None) => machine_memory_bytes() / MEMORY_PART,
        };
        if memory_limit_bytes < MEMORY_LIMIT_BYTES_MIN {
            bail!("--memory-limit must be at least {MEMORY_LIMIT_BYTES_MIN} bytes, got {memory_limit_bytes}");
        }
        if let Some(partitions) = file.data.partitions.filter(|count| !count.is_power_of_two() || *count > 4096) {
            bail!("data.partitions must be a power of two up to 4096, got {partitions}");
        }
        let http_addr = match (line.http_addr, &file.http.bind_address) {
            (Some(addr), _) => addr,
            (None, Some(text)) => bind_address(text)?,
            (None, None) => bind_address(HTTP_ADDR_DEFAULT)?,
        };
        Ok(Options {
            data_dir: line.data_dir.clone().or(file.data.dir.clone()).unwrap_or_else(|| DATA_DIR_DEFAULT.into()),
            http_addr,
            cores,
            memory_limit_bytes,
            partitions: file.data.partitions,
            series_per_database_max: file.data.max_series_per_database.unwrap_or(SERIES_PER_DATABASE_MAX_DEFAULT),
            allow_buffered: file.data.allow_buffered_io.unwrap_or(false),
            spin_before_park: Duration::from_micros(file.data.spin_before_park_us.unwrap_or(0)),
            l1_files_per_l2: match file.data.l1_files_per_l2 {
                Some(0) => bail!("data.l1-files-per-l2 must be at least 1"),
                files => files.unwrap_or(L1_FILES_PER_L2),
            },
            l2_file_bytes_max: match &file.data.l2_file_size {
                Some(size) => match size.bytes("data.l2-file-size")? {
                    bytes if bytes < L2_FILE_BYTES_MIN => {
                        bail!("data.l2-file-size must be at least {L2_FILE_BYTES_MIN} bytes, got {bytes}")
                    }
                    bytes => bytes,
                },
                None => L2_FILE_BYTES_MAX,
            },
            floats: match file.data.float_encoding {
                Some(FloatEncodingName::Alp) => Floats::Alp,
                Some(FloatEncodingName::Gorilla) | None => Floats::Gorilla,
            },
            scrub: scrub_options(&file.data)?,
            log: log_options(&file.log)?,
            http: http_options(&file.http)?,
            access: access_options(&file.http)?,
            query: query_limits(&file.coordinator, &file.meta, memory_limit_bytes)?,
            retention_check_interval: retention_check_interval(&file.retention)?,
        })
    }
}

impl Options {
    /// The flush that this server proposes.
    pub fn flush(&self) -> StoreCommand {
        StoreCommand::Flush { floats: self.floats }
    }
}

fn read_file(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("configuration file {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("configuration file {}", path.display()))
}

fn scrub_options(section: &DataSection) -> anyhow::Result<ScrubOptions> {
    let mut options = ScrubOptions::default();
    if let Some(size) = &section.scrub_rate {
        options.rate_bytes = size.bytes("data.scrub-rate")?;
    }
    if let Some(text) = &section.scrub_interval {
        let parsed = tidemill_influxql::parse_duration(text);
        let ns = parsed.map_err(|error| anyhow::anyhow!("data.scrub-interval \"{text}\": {error}"))?;
        options.interval = Duration::from_nanos(u64::try_from(ns).context("data.scrub-interval")?);
    }
    Ok(options)
}

fn log_options(section: &LogSection) -> anyhow::Result<LogOptions> {
    let durability = match section.durability {
        Some(DurabilityName::Dsync) => Durability::Dsync,
        Some(DurabilityName::Fdatasync) | None => Durability::Fdatasync,
    };
    let mut options = LogOptions { durability, ..LogOptions::default() };
    if let Some(size) = &section.segment_size {
        options.segment_bytes = size.bytes("log.segment-size")?;
    }
    if let Some(segments) = section.segments_max {
        options.segments_max = segments;
    }
    Ok(options)
}

fn http_options(section: &HttpSection) -> anyhow::Result<tidemill_http::Options> {
    let mut options = tidemill_http::Options::default();
    if let Some(size) = &section.max_body_size {
        options.body_bytes_max = usize::try_from(size.bytes("http.max-body-size")?)?;
    }
    options.connection_count_max = section.max_connection_limit.unwrap_or(options.connection_count_max);
    options.row_count_max = section.max_row_limit.unwrap_or(options.row_count_max);
    options.ping_auth = section.ping_auth_enabled.unwrap_or(false);
    options.debug_auth = section.pprof_auth_enabled.unwrap_or(false);
    if let Some(realm) = &section.realm {
        options.realm.clone_from(realm);
    }
    if let Some(headers) = &section.headers {
        options.headers = headers.clone().into_iter().collect();
    }
    Ok(options)
}

/// # Errors
/// A guard of single endpoints without the authentication that it needs.
fn access_options(section: &HttpSection) -> anyhow::Result<AccessOptions> {
    let is_enabled = section.auth_enabled.unwrap_or(false);
    for (key, value) in
        [("ping-auth-enabled", section.ping_auth_enabled), ("pprof-auth-enabled", section.pprof_auth_enabled)]
    {
        if value == Some(true) && !is_enabled {
            bail!("http.{key} needs http.auth-enabled = true");
        }
    }
    Ok(AccessOptions { is_enabled, shared_secret: section.shared_secret.clone().unwrap_or_default() })
}

/// As upstream's.
const RETENTION_CHECK_INTERVAL_DEFAULT: Duration = Duration::from_secs(30 * 60);

fn retention_check_interval(section: &RetentionSection) -> anyhow::Result<Option<Duration>> {
    let interval = match &section.check_interval {
        None => RETENTION_CHECK_INTERVAL_DEFAULT,
        Some(text) => duration(text, "retention.check-interval")?,
    };
    if interval.is_zero() {
        bail!("retention.check-interval must be positive; retention.enabled = false turns the check off");
    }
    Ok(section.enabled.unwrap_or(true).then_some(interval))
}

/// A duration as InfluxQL writes it.
fn duration(text: &str, key: &str) -> anyhow::Result<Duration> {
    let parsed = tidemill_influxql::parse_duration(text);
    let ns = parsed.map_err(|error| anyhow::anyhow!("{key} \"{text}\": {error}"))?;
    Ok(Duration::from_nanos(u64::try_from(ns).with_context(|| key.to_string())?))
}

fn query_limits(
    section: &CoordinatorSection,
    meta: &MetaSection,
    memory_limit_bytes: u64,
) -> anyhow::Result<QueryLimits> {
    let mut limits = QueryLimits::default();
    // One query may take what all together may, and not more than a default of its own.
    limits.query_memory_bytes_max = limits.query_memory_bytes_max.min(Budget::queries_bytes_max(memory_limit_bytes));
    limits.select.max_select_point = section.max_select_point.unwrap_or(0);
    limits.select.max_select_series = section.max_select_series.unwrap_or(0);
    limits.select.max_select_buckets = section.max_select_buckets.unwrap_or(0);
    limits.max_concurrent_queries = section.max_concurrent_queries.unwrap_or(0);
    limits.autocreate_policy = meta.retention_autocreate.unwrap_or(limits.autocreate_policy);
    if let Some(text) = &section.query_timeout {
        limits.query_timeout_ns = u64::try_from(duration(text, "coordinator.query-timeout")?.as_nanos())?;
    }
    if let Some(size) = &section.query_memory_limit {
        limits.query_memory_bytes_max = size.bytes("coordinator.query-memory-limit")?;
    }
    Ok(limits)
}

/// An address as upstream writes it: the host may be left out.
fn bind_address(text: &str) -> anyhow::Result<SocketAddr> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_string() };
    full.parse().with_context(|| format!("http.bind-address \"{text}\" must be ADDRESS:PORT"))
}

/// Bytes of a text like `512m`.
pub fn parse_size(text: &str) -> anyhow::Result<u64> {
    let (digits, factor) = match text.trim().char_indices().last() {
        Some((at, 'k' | 'K')) => (&text.trim()[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text.trim()[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text.trim()[..at], 1 << 30),
        Some((_, last)) if !last.is_ascii_digit() => bail!("unknown size suffix: {last} (expected k, m, or g)"),
        _ => (text.trim(), 1),
    };
    let number: u64 = digits.trim().parse().with_context(|| format!("\"{text}\" is no size"))?;
    number.checked_mul(factor).with_context(|| format!("\"{text}\" is too large"))
}

fn machine_memory_bytes() -> u64 {
    // SAFETY: both calls only read.
    let (pages, page_bytes) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    (pages.max(0) as u64).saturating_mul(page_bytes.max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("512").unwrap(), 512);
        assert_eq!(parse_size("3k").unwrap(), 3072);
        assert_eq!(parse_size("25M").unwrap(), 25 << 20);
        assert_eq!(parse_size("2g").unwrap(), 2 << 30);
        assert_eq!(parse_size("1q").unwrap_err().to_string(), "unknown size suffix: q (expected k, m, or g)");
        assert!(parse_size("").is_err() && parse_size("g").is_err() && parse_size("99999999999g").is_err());
    }

    fn with_file(text: &str) -> anyhow::Result<Options> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("t.toml");
        std::fs::write(&path, text)?;
        Options::read(&CommandLine { config: Some(path), cores: Some(1), ..CommandLine::default() })
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused_by_name() {
        for (text, named) in [
            ("colour = 1", "colour"),
            ("[http]\nbind-adress = \":1\"", "bind-adress"),
            ("[http]\nbind-address = \"x\"", "bind-address"),
            ("memory-limit = \"1q\"", "memory-limit"),
            ("[data]\npartitions = 3", "partitions"),
            ("[data]\nl1-files-per-l2 = 0", "l1-files-per-l2"),
            ("[data]\nl2-file-size = \"1k\"", "l2-file-size"),
            ("[log]\ndurability = \"maybe\"", "maybe"),
            ("[data]\nfloat-encoding = \"xor\"", "xor"),
            ("[http]\nping-auth-enabled = true", "auth-enabled"),
            ("[retention]\ncheck-interval = \"soon\"", "check-interval"),
            ("[retention]\ncheck-interval = \"0s\"", "check-interval"),
        ] {
            let error = format!("{:#}", with_file(text).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn every_key_has_its_effect_and_the_command_line_wins() {
        let options = with_file(
            "memory-limit = \"1g\"\n[data]\ndir = \"/d\"\npartitions = 4\nmax-series-per-database = 77\nallow-buffered-io = true\n\
             spin-before-park-us = 50\nfloat-encoding = \"alp\"\nscrub-rate = \"3k\"\nscrub-interval = \"5m\"\nl1-files-per-l2 = 3\nl2-file-size = \"2m\"\n[log]\ndurability = \"dsync\"\nsegment-size = \"8m\"\nsegments-max = 9\n[http]\n\
             bind-address = \":1\"\nmax-body-size = \"1k\"\nmax-connection-limit = 3\nmax-row-limit = 4\nrealm = \"r\"\n\
             auth-enabled = true\nshared-secret = \"s\"\nping-auth-enabled = true\npprof-auth-enabled = true\n\
             [http.headers]\nX-A = \"b\"\n[coordinator]\nmax-select-point = 5\nmax-select-series = 6\nmax-select-buckets = 7\n\
             query-memory-limit = \"2k\"\nmax-concurrent-queries = 8\nquery-timeout = \"9s\"\n[meta]\n\
             retention-autocreate = false\n[retention]\ncheck-interval = \"10m\"",
        )
        .unwrap();
        assert_eq!((options.memory_limit_bytes, options.partitions, options.cores), (1 << 30, Some(4), 1));
        assert_eq!(options.series_per_database_max, 77);
        assert_eq!((options.data_dir.as_path(), options.allow_buffered), (Path::new("/d"), true));
        assert_eq!(options.spin_before_park, Duration::from_micros(50));
        let scrub = ScrubOptions { rate_bytes: 3072, interval: Duration::from_secs(300) };
        assert_eq!(options.scrub, scrub);
        assert_eq!((options.log.durability, options.floats), (Durability::Dsync, Floats::Alp));
        assert_eq!((options.l1_files_per_l2, options.l2_file_bytes_max), (3, 2 << 20));
        assert_eq!((options.log.segment_bytes, options.log.segments_max), (8 << 20, 9));
        assert_eq!(options.http_addr.to_string(), "0.0.0.0:1");
        let http = &options.http;
        assert_eq!((http.body_bytes_max, http.connection_count_max, http.row_count_max), (1024, 3, 4));
        assert_eq!((http.realm.as_str(), http.headers.len()), ("r", 1));
        assert!(http.ping_auth && http.debug_auth);
        let access = AccessOptions { is_enabled: true, shared_secret: "s".into() };
        assert_eq!(options.access, access);
        let select = &options.query.select;
        assert_eq!((select.max_select_point, select.max_select_series, select.max_select_buckets), (5, 6, 7));
        let query = &options.query;
        assert_eq!((query.query_memory_bytes_max, query.max_concurrent_queries), (2048, 8));
        assert_eq!((query.query_timeout_ns, query.autocreate_policy), (9_000_000_000, false));
        assert_eq!(options.retention_check_interval, Some(Duration::from_secs(600)));
        assert_eq!(with_file("[retention]\nenabled = false").unwrap().retention_check_interval, None);
        assert_eq!(with_file("").unwrap().retention_check_interval, Some(Duration::from_secs(1800)));
        let line = CommandLine {
            http_addr: Some("127.0.0.1:9".parse().unwrap()),
            data_dir: Some("e".into()),
            memory_limit: Some("128m".into()),
            ..CommandLine::default()
        };
        let options = Options::read(&line).unwrap();
        assert_eq!((options.http_addr.port(), options.memory_limit_bytes), (9, 128 << 20));
        assert_eq!(options.data_dir, Path::new("e"));
    }
}
