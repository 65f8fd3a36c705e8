//! What an operator may set: command line over environment over file over defaults.
//!
//! Every key works or is refused by name; there is none that is read and ignored.

mod cluster;
mod effective;
mod environment;
mod go_duration;
mod handoff;
mod pool;
mod precreation;
mod services;
mod upstream;

pub use cluster::ClusterOptions;
pub use effective::Section;
pub use pool::{COPIES_MAX, PoolOptions};

use crate::{
    access::AccessOptions,
    data::{Budget, PrecreationOptions, ScrubOptions, self_monitor::MonitorOptions},
    handoff::HandoffOptions,
    https::{HttpsOptions, TlsVersion},
    query::{QueryLimits, continuous::ContinuousOptions},
    subscriber::SubscriberOptions,
    udp::UdpOptions,
};
use anyhow::{Context, bail};
use serde::Deserialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tidemill_http::AccessLogOptions;
use tidemill_log::{Durability, LogOptions};
use tidemill_store::{Command as StoreCommand, Floats};

/// Standing options of a server.
#[derive(Clone, Debug)]
pub struct Options {
    pub data_dir: PathBuf,
    pub http_addr: SocketAddr,
    pub cores: usize,
    /// None: a server without others.
    pub cluster: Option<ClusterOptions>,
    pub memory_limit_bytes: u64,
    /// Partitions that a new data folder gets; an existing one has its own.
    pub partitions: Option<u32>,
    pub allow_buffered: bool,
    /// Series that a database may have, in all; zero is any number.
    pub series_per_database_max: u64,
    /// Values that a tag of a measurement may have; zero is any number.
    pub values_per_tag_max: u64,
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
    pub access_log: AccessLogOptions,
    pub https: HttpsOptions,
    pub access: AccessOptions,
    pub query: QueryLimits,
    pub retention_is_enabled: bool,
    /// How often shard groups are looked at that may be too old.
    pub retention_check_interval: Duration,
    pub precreation: PrecreationOptions,
    pub continuous: ContinuousOptions,
    pub subscriber: SubscriberOptions,
    pub monitor: MonitorOptions,
    /// Those that are on.
    pub udp: Vec<UdpOptions>,
    pub handoff: HandoffOptions,
    pub pool: PoolOptions,
    /// What is logged unless `TIDEMILL_LOG` says it.
    pub log_level: String,
}

/// Stands for a secret wherever options are shown.
pub(crate) const SECRET_SHOWN: &str = "[REDACTED]";

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
    cluster: Option<cluster::ClusterSection>,
    data: DataSection,
    log: LogSection,
    http: HttpSection,
    meta: MetaSection,
    coordinator: CoordinatorSection,
    retention: RetentionSection,
    shard_precreation: precreation::PrecreationSection,
    // The one section that upstream writes with an underscore.
    #[serde(rename = "continuous_queries")]
    continuous_queries: ContinuousSection,
    subscriber: services::SubscriberSection,
    monitor: services::MonitorSection,
    udp: Vec<services::UdpSection>,
    hinted_handoff: handoff::HandoffSection,
    pool: pool::PoolSection,
    logging: LoggingSection,
    tls: TlsSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct LoggingSection {
    level: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct TlsSection {
    min_version: Option<String>,
    max_version: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct ContinuousSection {
    enabled: Option<bool>,
    log_enabled: Option<bool>,
    query_stats_enabled: Option<bool>,
    run_interval: Option<String>,
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
    max_values_per_tag: Option<u64>,
    allow_buffered_io: Option<bool>,
    spin_before_park_us: Option<u64>,
    float_encoding: Option<FloatEncodingName>,
    scrub_rate: Option<Size>,
    scrub_interval: Option<String>,
    l1_files_per_l2: Option<usize>,
    l2_file_size: Option<Size>,
    query_log_enabled: Option<bool>,
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
    proxy_secret: Option<String>,
    ping_auth_enabled: Option<bool>,
    pprof_auth_enabled: Option<bool>,
    pprof_enabled: Option<bool>,
    https_enabled: Option<bool>,
    https_certificate: Option<PathBuf>,
    https_private_key: Option<PathBuf>,
    log_enabled: Option<bool>,
    suppress_write_log: Option<bool>,
    access_log_path: Option<PathBuf>,
    access_log_status_filters: Option<Vec<String>>,
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
    log_queries_after: Option<String>,
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
pub(crate) enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    pub(crate) fn bytes(&self, key: &str) -> anyhow::Result<u64> {
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
const VALUES_PER_TAG_MAX_DEFAULT: u64 = 100_000;
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
        Options::read_with(line, &|name| std::env::var(name).ok())
    }

    fn read_with(line: &CommandLine, variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Options> {
        let named = ["TIDEMILL_CONFIG_PATH", "INFLUXDB_CONFIG_PATH"].into_iter().find_map(variable).map(PathBuf::from);
        let path = line.config.clone().or(named.filter(|path| !path.as_os_str().is_empty()));
        let mut table = path.as_deref().map_or_else(|| Ok(toml::Table::new()), read_file)?;
        // Only to have all keys: no value of these is looked at.
        let mut defaults = Options::of(&CommandLine { cores: Some(1), ..CommandLine::default() }, &File::default())?;
        defaults.partitions = Some(1);
        environment::put_in(&mut table, &defaults.effective(), variable)?;
        let told =
            || path.as_ref().map_or("environment".to_owned(), |path| format!("configuration file {}", path.display()));
        upstream::take_out(&mut table).with_context(told)?;
        let file: File = table.try_into().with_context(told)?;
        Options::of(line, &file)
    }

    fn of(line: &CommandLine, file: &File) -> anyhow::Result<Options> {
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
        let data_dir = line.data_dir.clone().or(file.data.dir.clone()).unwrap_or_else(|| DATA_DIR_DEFAULT.into());
        let options = Options {
            handoff: file.hinted_handoff.options(&data_dir)?,
            pool: file.pool.options()?,
            data_dir,
            http_addr,
            cores,
            cluster: file.cluster.as_ref().map(|section| section.options(cores)).transpose()?,
            memory_limit_bytes,
            partitions: file.data.partitions,
            series_per_database_max: file.data.max_series_per_database.unwrap_or(SERIES_PER_DATABASE_MAX_DEFAULT),
            values_per_tag_max: file.data.max_values_per_tag.unwrap_or(VALUES_PER_TAG_MAX_DEFAULT),
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
            access_log: access_log_options(&file.http)?,
            https: https_options(&file.http, &file.tls)?,
            access: access_options(&file.http)?,
            query: QueryLimits {
                logs_queries: file.data.query_log_enabled.unwrap_or(false),
                ..query_limits(&file.coordinator, &file.meta, memory_limit_bytes)?
            },
            retention_is_enabled: file.retention.enabled.unwrap_or(true),
            retention_check_interval: retention_check_interval(&file.retention)?,
            precreation: file.shard_precreation.options()?,
            continuous: continuous_options(&file.continuous_queries)?,
            subscriber: file.subscriber.options()?,
            monitor: file.monitor.options()?,
            udp: services::udp_listeners(&file.udp)?,
            log_level: match file.logging.level.as_deref() {
                None => "info".to_owned(),
                Some(level @ ("debug" | "info" | "warn" | "error")) => level.to_owned(),
                Some(other) => bail!("logging.level \"{other}\" must be debug, info, warn or error"),
            },
        };
        options.check_exposure()?;
        Ok(options)
    }

    /// A node of a cluster is not open to other machines by accident.
    fn check_exposure(&self) -> anyhow::Result<()> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        if self.http_addr.ip().is_loopback() || cluster.is_insecure {
            return Ok(());
        }
        let switches = [("http.auth-enabled", self.access.is_enabled), ("http.https-enabled", self.https.is_enabled)];
        let missing: Vec<&str> = switches.iter().filter(|(_, is_on)| !is_on).map(|(key, _)| *key).collect();
        if missing.is_empty() {
            return Ok(());
        }
        bail!(
            "http.bind-address {} can be reached from other machines, without {}: turn that on, or say \
             cluster.insecure = true",
            self.http_addr,
            missing.join(" and ")
        )
    }
}

impl Options {
    /// The flush that this server proposes.
    pub fn flush(&self) -> StoreCommand {
        StoreCommand::Flush { floats: self.floats }
    }
}

fn read_file(path: &Path) -> anyhow::Result<toml::Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("configuration file {}", path.display()))?;
    // Some editors put a byte order mark in front.
    let text = text.trim_start_matches('\u{feff}');
    text.parse().with_context(|| format!("configuration file {}", path.display()))
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
    options.serves_debug = section.pprof_enabled.unwrap_or(true);
    if let Some(realm) = &section.realm {
        options.realm.clone_from(realm);
    }
    if let Some(headers) = &section.headers {
        options.headers = headers.clone().into_iter().collect();
    }
    Ok(options)
}

fn https_options(section: &HttpSection, tls: &TlsSection) -> anyhow::Result<HttpsOptions> {
    let version = |text: &Option<String>, key: &str| -> anyhow::Result<Option<TlsVersion>> {
        match text.as_deref() {
            None | Some("") => Ok(None),
            Some("tls1.2" | "1.2") => Ok(Some(TlsVersion::Tls12)),
            Some("tls1.3" | "1.3") => Ok(Some(TlsVersion::Tls13)),
            Some(other) => bail!("{key}: unknown TLS version: {other} (there are tls1.2 and tls1.3)"),
        }
    };
    let options = HttpsOptions {
        is_enabled: section.https_enabled.unwrap_or(false),
        certificate: section.https_certificate.clone().unwrap_or_else(|| HTTPS_CERTIFICATE_DEFAULT.into()),
        private_key: section.https_private_key.clone().unwrap_or_default(),
        version_min: version(&tls.min_version, "tls.min-version")?.unwrap_or(TlsVersion::Tls12),
        version_max: version(&tls.max_version, "tls.max-version")?.unwrap_or(TlsVersion::Tls13),
    };
    if options.version_min > options.version_max {
        bail!("tls.min-version is above tls.max-version");
    }
    Ok(options)
}

/// As upstream's.
const HTTPS_CERTIFICATE_DEFAULT: &str = "/etc/ssl/influxdb.pem";

fn access_log_options(section: &HttpSection) -> anyhow::Result<AccessLogOptions> {
    let filters = section.access_log_status_filters.iter().flatten().map(|filter| filter.parse());
    Ok(AccessLogOptions {
        // Upstream's is on: there a line costs little beside its request.
        is_enabled: section.log_enabled.unwrap_or(false),
        leaves_out_writes: section.suppress_write_log.unwrap_or(false),
        path: section.access_log_path.clone().unwrap_or_default(),
        filters: filters.collect::<Result<_, _>>().context("http.access-log-status-filters")?,
    })
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
    Ok(AccessOptions {
        is_enabled,
        shared_secret: section.shared_secret.clone().unwrap_or_default(),
        proxy_secret: section.proxy_secret.clone().unwrap_or_default(),
    })
}

/// As upstream's.
const RETENTION_CHECK_INTERVAL_DEFAULT: Duration = Duration::from_secs(30 * 60);

fn retention_check_interval(section: &RetentionSection) -> anyhow::Result<Duration> {
    let interval = match &section.check_interval {
        None => RETENTION_CHECK_INTERVAL_DEFAULT,
        Some(text) => duration(text, "retention.check-interval")?,
    };
    if interval.is_zero() {
        bail!("retention.check-interval must be positive; retention.enabled = false turns the check off");
    }
    Ok(interval)
}

fn continuous_options(section: &ContinuousSection) -> anyhow::Result<ContinuousOptions> {
    let defaults = ContinuousOptions::default();
    let run_interval = match &section.run_interval {
        None => defaults.run_interval,
        Some(text) => duration(text, "continuous_queries.run-interval")?,
    };
    if run_interval.is_zero() {
        bail!("continuous_queries.run-interval must be positive; continuous_queries.enabled = false turns them off");
    }
    Ok(ContinuousOptions {
        is_enabled: section.enabled.unwrap_or(defaults.is_enabled),
        logs_runs: section.log_enabled.unwrap_or(defaults.logs_runs),
        keeps_statistics: section.query_stats_enabled.unwrap_or(defaults.keeps_statistics),
        run_interval,
    })
}

/// As Go writes it, or with the units of the query language, such as `7d`.
pub(crate) fn duration(text: &str, key: &str) -> anyhow::Result<Duration> {
    if let Some(parsed) = go_duration::parse(text) {
        return Ok(parsed);
    }
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
    if let Some(text) = &section.log_queries_after {
        limits.log_after_ns = u64::try_from(duration(text, "coordinator.log-queries-after")?.as_nanos())?;
    }
    if let Some(size) = &section.query_memory_limit {
        limits.query_memory_bytes_max = size.bytes("coordinator.query-memory-limit")?;
    }
    Ok(limits)
}

/// An address as upstream writes it: the host may be left out.
fn bind_address(text: &str) -> anyhow::Result<SocketAddr> {
    bind_address_of("http", text)
}

fn bind_address_of(section: &str, text: &str) -> anyhow::Result<SocketAddr> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_string() };
    full.parse().with_context(|| format!("{section}.bind-address \"{text}\" must be ADDRESS:PORT"))
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
            ("[shard-precreation]\nadvance-period = \"0s\"", "shard-precreation.advance-period"),
            ("[shard-precreation]\ncheck-interval = \"often\"", "shard-precreation.check-interval"),
            ("[logging]\nlevel = \"loud\"", "logging.level"),
            ("[http]\naccess-log-status-filters = [\"4yx\"]", "access-log-status-filters"),
            ("[monitor]\ncolour = 1", "colour"),
            ("[tls]\ncolour = 1", "colour"),
            ("[tls]\nmin-version = \"tls1.0\"", "tls.min-version"),
            ("[tls]\nmin-version = \"tls1.3\"\nmax-version = \"tls1.2\"", "tls.max-version"),
            ("[continuous_queries]\nrun-interval = \"0s\"", "run-interval"),
            ("[subscriber]\nwrite-concurrency = 0", "write-concurrency"),
            ("[subscriber]\nhttp-timeout = \"0s\"", "http-timeout"),
            ("[subscriber]\nca-certs = \"/nowhere\"", "ca-certs file /nowhere does not exist"),
            ("[monitor]\nstore-interval = \"0s\"", "store-interval"),
            ("[monitor]\nstore-database = \"\"", "store-database"),
            ("[[udp]]\nenabled = true\nprecision = \"x\"", "precision"),
            ("[[udp]]\nenabled = true\nbind-address = \"x\"", "udp.bind-address"),
            ("[[udp]]\ncolour = 1", "colour"),
        ] {
            let error = format!("{:#}", with_file(text).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn every_key_has_its_effect_and_the_command_line_wins() {
        let options = with_file(
            "memory-limit = \"1g\"\n[data]\ndir = \"/d\"\npartitions = 4\nmax-series-per-database = 77\nmax-values-per-tag = 78\nallow-buffered-io = true\n\
             spin-before-park-us = 50\nfloat-encoding = \"alp\"\nscrub-rate = \"3k\"\nscrub-interval = \"5m\"\nl1-files-per-l2 = 3\nl2-file-size = \"2m\"\nquery-log-enabled = true\n[log]\ndurability = \"dsync\"\nsegment-size = \"8m\"\nsegments-max = 9\n[http]\n\
             bind-address = \":1\"\nmax-body-size = \"1k\"\nmax-connection-limit = 3\nmax-row-limit = 4\nrealm = \"r\"\n\
             auth-enabled = true\nshared-secret = \"s\"\nping-auth-enabled = true\npprof-auth-enabled = true\npprof-enabled = false\nhttps-enabled = true\n\
             https-certificate = \"/c\"\nhttps-private-key = \"/k\"\nlog-enabled = true\nsuppress-write-log = true\naccess-log-path = \"/l\"\n\
             access-log-status-filters = [\"4xx\", \"500\"]\n\
             [http.headers]\nX-A = \"b\"\n[coordinator]\nmax-select-point = 5\nmax-select-series = 6\nmax-select-buckets = 7\n\
             query-memory-limit = \"2k\"\nmax-concurrent-queries = 8\nquery-timeout = \"9s\"\nlog-queries-after = \"3s\"\n[meta]\n\
             retention-autocreate = false\n[retention]\ncheck-interval = \"10m\"\n[continuous_queries]\nenabled = false\n\
             log-enabled = false\nquery-stats-enabled = true\nrun-interval = \"2s\"\n[subscriber]\nenabled = false\nhttp-timeout = \"4s\"\ninsecure-skip-verify = true\n\
             write-concurrency = 5\nwrite-buffer-size = 6\n[monitor]\nstore-enabled = true\nstore-database = \"own\"\nstore-interval = \"7s\"\n\
             [[udp]]\nenabled = true\nbind-address = \":8\"\ndatabase = \"u\"\nretention-policy = \"r\"\nbatch-size = 9\nbatch-pending = 2\n\
             batch-timeout = \"3s\"\nread-buffer = \"1k\"\nprecision = \"s\"\n[[udp]]\n[logging]\nlevel = \"warn\"\n[tls]\nmin-version = \"tls1.3\"",
        )
        .unwrap();
        assert_eq!((options.memory_limit_bytes, options.partitions, options.cores), (1 << 30, Some(4), 1));
        assert_eq!((options.series_per_database_max, options.values_per_tag_max), (77, 78));
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
        let access = AccessOptions { is_enabled: true, shared_secret: "s".into(), proxy_secret: String::new() };
        assert_eq!(options.access, access);
        let https = &options.https;
        assert_eq!((https.is_enabled, https.certificate.as_path()), (true, Path::new("/c")));
        assert_eq!((https.private_key.as_path(), https.version_min), (Path::new("/k"), TlsVersion::Tls13));
        let log = &options.access_log;
        assert_eq!((log.is_enabled, log.leaves_out_writes, log.path.as_path()), (true, true, Path::new("/l")));
        assert_eq!(log.filters.iter().map(ToString::to_string).collect::<Vec<_>>(), ["4xx", "500"]);
        let select = &options.query.select;
        assert_eq!((select.max_select_point, select.max_select_series, select.max_select_buckets), (5, 6, 7));
        let query = &options.query;
        assert_eq!((query.query_memory_bytes_max, query.max_concurrent_queries), (2048, 8));
        assert_eq!((query.query_timeout_ns, query.autocreate_policy), (9_000_000_000, false));
        assert_eq!((options.retention_is_enabled, options.retention_check_interval.as_secs()), (true, 600));
        assert_eq!((query.log_after_ns, query.logs_queries), (3_000_000_000, true));
        assert_eq!((http.serves_debug, options.log_level.as_str()), (false, "warn"));
        let continuous = ContinuousOptions {
            is_enabled: false,
            logs_runs: false,
            keeps_statistics: true,
            run_interval: Duration::from_secs(2),
        };
        assert_eq!(options.continuous, continuous);
        let subscriber = &options.subscriber;
        assert_eq!(
            (subscriber.is_enabled, subscriber.http_timeout.as_secs(), subscriber.trusts_anybody),
            (false, 4, true)
        );
        assert_eq!((subscriber.write_concurrency, subscriber.write_buffer_size), (5, 6));
        let monitor = MonitorOptions { is_enabled: true, database: "own".into(), interval: Duration::from_secs(7) };
        assert_eq!(options.monitor, monitor);
        let udp = UdpOptions {
            addr: "0.0.0.0:8".parse().unwrap(),
            database: "u".into(),
            retention_policy: Some("r".into()),
            batch_points: 9,
            batches_pending: 2,
            batch_timeout: Duration::from_secs(3),
            read_buffer_bytes: 1024,
            precision: tidemill_line::Precision::Second,
        };
        assert_eq!(options.udp, [udp]);
        assert!(!with_file("[retention]\nenabled = false").unwrap().retention_is_enabled);
        assert_eq!(with_file("").unwrap().retention_check_interval, Duration::from_secs(1800));
        let precreation = with_file("[shard-precreation]\nadvance-period = \"2h\"").unwrap().precreation;
        assert_eq!((precreation.is_enabled, precreation.advance_period.as_secs()), (true, 7200));
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

    /// The keys that the packages of 1.8 set.
    const STOCK: &str = "# reporting-disabled = false\n[meta]\n  dir = \"/var/lib/influxdb/meta\"\n[data]\n  dir = \"/var/lib/influxdb/data\"\n  \
                         wal-dir = \"/var/lib/influxdb/wal\"\n  series-id-set-cache-size = 100\n[coordinator]\n[retention]\n[shard-precreation]\n\
                         [monitor]\n[http]\n[logging]\n[subscriber]\n[[graphite]]\n[[collectd]]\n[[opentsdb]]\n[[udp]]\n[continuous_queries]\n[tls]\n";

    #[test]
    fn a_stock_file_of_upstream_is_understood() {
        let options = with_file(STOCK).unwrap();
        assert_eq!(options.data_dir, Path::new("/var/lib/influxdb/data"));
        assert!(options.continuous.is_enabled && options.retention_is_enabled);
    }

    #[test]
    fn the_effective_configuration_reads_back_as_itself_and_hides_secrets() {
        let file = "[http]\nshared-secret = \"topsecret\"\nauth-enabled = true\n[http.headers]\nX-A = \"b\"\n[data]\npartitions = 8\n[retention]\ncheck-interval = \"90m\"";
        let options = with_file(file).unwrap();
        let text = options.effective_text();
        assert!(!text.contains("topsecret"), "{text}");
        let again = with_file(&text).unwrap();
        assert_eq!(
            again.effective_text().replace("shared-secret = \"\"\n", "# shared-secret is set and not shown\n"),
            text
        );
        assert_eq!((again.partitions, again.http.headers.len()), (Some(8), 1));
    }

    #[test]
    fn the_environment_stands_between_the_file_and_the_command_line() {
        let variables = |name: &str| match name {
            "INFLUXDB_HTTP_MAX_ROW_LIMIT" => Some("7".to_owned()),
            "TIDEMILL_DATA_DIR" => Some("/from-environment".to_owned()),
            "TIDEMILL_HTTP_MAX_BODY_SIZE" => Some("3k".to_owned()),
            _ => None,
        };
        let line = CommandLine { data_dir: Some("/from-line".into()), ..CommandLine::default() };
        let options = Options::read_with(&line, &variables).unwrap();
        assert_eq!((options.http.row_count_max, options.http.body_bytes_max), (7, 3072));
        assert_eq!(options.data_dir, Path::new("/from-line"));
        let bad = |name: &str| (name == "TIDEMILL_HTTP_MAX_ROW_LIMIT").then(|| "abc".to_owned());
        assert!(Options::read_with(&CommandLine::default(), &bad).is_err());
    }
}
