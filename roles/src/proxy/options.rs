//! What an operator may set for a proxy: its own configuration file.
//!
//! Every key works or is refused by name; there is none that is read and ignored.

use crate::options::{Size, duration};
use anyhow::{Context, bail};
use serde::Deserialize;
use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    time::Duration,
};

/// Standing options of a proxy.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    pub bind: SocketAddr,
    /// HTTP addresses of nodes, with the names that stand in the configuration.
    pub nodes: Vec<(String, SocketAddr)>,
    /// Threads.
    pub cores: usize,
    /// By which nodes know this proxy; empty: they need not, and a write goes whole to one node.
    pub shared_secret: String,
    /// Writes that are smaller go together while an earlier one is on its way, up to so many bytes; zero: never.
    pub flush_bytes: usize,
    /// Databases that clients may name; none: all.
    pub databases: Vec<String>,
    /// Connections to each node, of each thread.
    pub connections_per_node: usize,
    /// Requests in work at a time, of all threads; further ones are answered with 503.
    pub requests_max: usize,
    /// Bytes of the bodies of those; further ones are answered with 503.
    pub bodies_bytes_max: usize,
    pub connect_deadline: Duration,
    /// How long a write may take until its client is answered.
    pub write_deadline: Duration,
    /// How long a query may take until its answer begins; zero is any time.
    pub query_deadline: Duration,
    pub health_interval: Duration,
    pub http: tidemill_http::Options,
    pub log_level: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    proxy: ProxySection,
    logging: LoggingSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct LoggingSection {
    level: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct ProxySection {
    bind_address: Option<String>,
    nodes: Vec<String>,
    cores: Option<usize>,
    shared_secret: Option<String>,
    databases: Vec<String>,
    flush_size: Option<Size>,
    conn_pool_size: Option<usize>,
    max_body_size: Option<Size>,
    max_bodies_size: Option<Size>,
    max_connection_limit: Option<usize>,
    max_requests_waiting: Option<usize>,
    connect_timeout: Option<String>,
    write_timeout: Option<String>,
    query_timeout: Option<String>,
    health_interval: Option<String>,
    idle_timeout: Option<String>,
    shutdown_timeout: Option<String>,
}

const BIND_DEFAULT: &str = "127.0.0.1:8086";
/// As the reference system has it for each node of a back end.
const CONNECTIONS_PER_NODE_DEFAULT: usize = 20;
const REQUESTS_DEFAULT: usize = 1024;
const CORES_MAX: usize = 64;
const BODIES_BYTES_DEFAULT: usize = 256 << 20;

impl ProxyOptions {
    /// # Errors
    /// The file cannot be read, or says something that cannot be done.
    pub fn read(path: &Path) -> anyhow::Result<ProxyOptions> {
        let told = || format!("configuration file {}", path.display());
        let text = std::fs::read_to_string(path).with_context(told)?;
        ProxyOptions::of_text(&text).with_context(told)
    }

    fn of_text(text: &str) -> anyhow::Result<ProxyOptions> {
        let File { proxy, logging } = toml::from_str(text)?;
        if proxy.nodes.is_empty() {
            bail!("proxy.nodes names no node");
        }
        let mut nodes = Vec::new();
        for name in &proxy.nodes {
            let address = resolve(name, "proxy.nodes")?;
            if nodes.iter().any(|(_, known)| *known == address) {
                bail!("proxy.nodes names {name} twice");
            }
            nodes.push((name.clone(), address));
        }
        let time = |text: &Option<String>, key: &str, default: Duration| match text {
            None => Ok(default),
            Some(text) => duration(text, key),
        };
        let positive = |value: Option<usize>, key: &str, default: usize| match value {
            Some(0) => bail!("{key}: at least 1"),
            value => Ok(value.unwrap_or(default)),
        };
        let of_surface = tidemill_http::Options::default();
        let http = tidemill_http::Options {
            body_bytes_max: match &proxy.max_body_size {
                Some(size) => usize::try_from(size.bytes("proxy.max-body-size")?)?,
                None => of_surface.body_bytes_max,
            },
            connection_count_max: proxy.max_connection_limit.unwrap_or(0),
            idle_deadline: time(&proxy.idle_timeout, "proxy.idle-timeout", of_surface.idle_deadline)?,
            shutdown_deadline: time(&proxy.shutdown_timeout, "proxy.shutdown-timeout", of_surface.shutdown_deadline)?,
            ..of_surface
        };
        let flush_bytes = match &proxy.flush_size {
            Some(size) => usize::try_from(size.bytes("proxy.flush-size")?)?,
            None => 0,
        };
        if flush_bytes > 0 && proxy.shared_secret.as_ref().is_none_or(String::is_empty) {
            bail!("proxy.flush-size needs proxy.shared-secret: a write that nodes do not know goes as it is");
        }
        let cores = positive(proxy.cores, "proxy.cores", 1)?;
        if cores > CORES_MAX {
            bail!("proxy.cores: at most {CORES_MAX}");
        }
        let health_interval = time(&proxy.health_interval, "proxy.health-interval", Duration::from_secs(1))?;
        if health_interval < Duration::from_millis(10) {
            bail!("proxy.health-interval: at least 10ms");
        }
        Ok(ProxyOptions {
            bind: resolve(proxy.bind_address.as_deref().unwrap_or(BIND_DEFAULT), "proxy.bind-address")?,
            nodes,
            cores,
            shared_secret: proxy.shared_secret.unwrap_or_default(),
            flush_bytes,
            databases: proxy.databases,
            connections_per_node: positive(proxy.conn_pool_size, "proxy.conn-pool-size", CONNECTIONS_PER_NODE_DEFAULT)?,
            requests_max: positive(proxy.max_requests_waiting, "proxy.max-requests-waiting", REQUESTS_DEFAULT)?,
            bodies_bytes_max: match &proxy.max_bodies_size {
                Some(size) => usize::try_from(size.bytes("proxy.max-bodies-size")?)?,
                None => BODIES_BYTES_DEFAULT,
            },
            connect_deadline: time(&proxy.connect_timeout, "proxy.connect-timeout", Duration::from_secs(1))?,
            write_deadline: time(&proxy.write_timeout, "proxy.write-timeout", Duration::from_secs(15))?,
            query_deadline: time(&proxy.query_timeout, "proxy.query-timeout", Duration::ZERO)?,
            health_interval,
            http,
            log_level: logging.level.unwrap_or_else(|| "info".to_owned()),
        })
    }

    /// Whether clients may name a database.
    pub fn serves(&self, database: &str) -> bool {
        self.databases.is_empty() || self.databases.iter().any(|served| served == database)
    }
}

/// An address, or `:port` for all of this machine's.
fn resolve(text: &str, key: &str) -> anyhow::Result<SocketAddr> {
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let mut found = whole.to_socket_addrs().with_context(|| format!("{key}: {text}"))?;
    found.next().with_context(|| format!("{key}: {text} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_nodes_is_enough() {
        let options = ProxyOptions::of_text("[proxy]\nnodes = [\"127.0.0.1:1\", \"127.0.0.1:2\"]").unwrap();
        assert_eq!(options.bind.to_string(), BIND_DEFAULT);
        assert_eq!((options.nodes.len(), options.cores), (2, 1));
        assert!(options.serves("any"));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (text, name) in [
            ("", "proxy.nodes"),
            ("[proxy]\nnodes = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "twice"),
            ("[proxy]\nnodes = [\"127.0.0.1:1\"]\ncores = 0", "proxy.cores"),
            ("[proxy]\nnodes = [\"127.0.0.1:1\"]\nconn-pool-size = 0", "proxy.conn-pool-size"),
            ("[proxy]\nnodes = [\"127.0.0.1:1\"]\nhealth-interval = \"soon\"", "proxy.health-interval"),
            ("[proxy]\nnodes = [\"127.0.0.1:1\"]\nhttps-enabled = true", "https-enabled"),
            ("[proxy]\nnodes = [\"127.0.0.1:1\"]\nflush-size = \"64k\"", "proxy.shared-secret"),
            ("[data]\ndir = \"x\"", "data"),
        ] {
            let error = format!("{:#}", ProxyOptions::of_text(text).unwrap_err());
            assert!(error.contains(name), "{text}: {error}");
        }
    }
}
