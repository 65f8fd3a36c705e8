//! Keys of upstream's configuration that mean nothing here.
//!
//! A key is accepted with the values that ask for what this server does anyway, so that the file of a package and one
//! that spells out its defaults start a server; with any other value it is refused by name, with what to do instead.
//! Knows nothing of the keys that have a meaning here.

use anyhow::bail;
use toml::{Table, Value};

/// Section, key, values that are accepted (`*`: any), and what to do instead of another one.
type Foreign = (&'static str, &'static str, &'static [&'static str], &'static str);

const MEMORY: &str = "memory-limit bounds the memory of the whole server";
const COPIES: &str = "files are copied from level to level as they fill up, without full compactions";
const INDEX: &str = "there is one kind of index, with a memory budget of its own";
const NONE: &str = "it is not supported";
const GO: &str = "there is no Go runtime to look into";
const THROTTLE: &str = "writes are slowed and then refused by memory-limit";
const SOCKET: &str = "HTTP is served on http.bind-address alone";

const FOREIGN: &[Foreign] = &[
    ("", "reporting-disabled", &["*"], "nothing is ever reported"),
    // Debian's packages turned the word round.
    ("", "reporting-enabled", &["false"], "nothing is ever reported"),
    ("", "bind-address", &["127.0.0.1:8088", ":8088"], "`tidemill backup` asks over HTTP"),
    ("meta", "dir", &["/var/lib/influxdb/meta", "~/.influxdb/meta"], "metadata are kept in data.dir"),
    ("meta", "logging-enabled", &["true"], "TIDEMILL_LOG decides what is logged"),
    ("data", "wal-dir", &["/var/lib/influxdb/wal", "~/.influxdb/wal"], "the log is kept in data.dir"),
    ("data", "index-version", &["inmem", "tsi1"], INDEX),
    ("data", "wal-fsync-delay", &["0s"], "a write is durable before it is acknowledged, always"),
    ("data", "validate-keys", &["false"], NONE),
    ("data", "strict-error-handling", &["false"], NONE),
    ("data", "cache-max-memory-size", &["1g"], MEMORY),
    ("data", "cache-snapshot-memory-size", &["25m"], MEMORY),
    ("data", "cache-snapshot-write-cold-duration", &["10m"], MEMORY),
    ("data", "compact-full-write-cold-duration", &["4h"], COPIES),
    ("data", "compact-throughput", &["48m"], COPIES),
    ("data", "compact-throughput-burst", &["48m"], COPIES),
    ("data", "max-concurrent-compactions", &["0"], COPIES),
    ("data", "max-index-log-file-size", &["1m"], INDEX),
    ("data", "series-id-set-cache-size", &["0", "100"], INDEX),
    ("data", "series-file-max-concurrent-snapshot-compactions", &["0"], INDEX),
    ("data", "trace-logging-enabled", &["false"], "TIDEMILL_LOG=debug logs more"),
    ("data", "tsm-use-madv-willneed", &["false"], "files are read with direct I/O"),
    ("coordinator", "write-timeout", &["10s"], "a write is answered when it is durable, or refused"),
    ("http", "enabled", &["true"], "there is no other way in"),
    ("http", "write-tracing", &["false"], NONE),
    ("http", "flux-enabled", &["false"], "Flux is not supported"),
    ("http", "flux-log-enabled", &["false"], "Flux is not supported"),
    ("http", "debug-pprof-enabled", &["false"], GO),
    ("http", "prom-read-auth-enabled", &["*"], "reading needs READ on the database, always"),
    ("http", "unix-socket-enabled", &["false"], SOCKET),
    ("http", "unix-socket-group", &[""], SOCKET),
    ("http", "unix-socket-permissions", &["0777"], SOCKET),
    ("http", "bind-socket", &["/var/run/influxdb.sock"], SOCKET),
    ("http", "max-concurrent-write-limit", &["0"], THROTTLE),
    ("http", "max-enqueued-write-limit", &["0"], THROTTLE),
    ("http", "enqueued-write-timeout", &["30s"], THROTTLE),
    ("ifql", "enabled", &["false"], "Flux is not supported"),
    ("ifql", "log-enabled", &["*"], "Flux is not supported"),
    ("ifql", "bind-address", &["*"], "Flux is not supported"),
    ("logging", "format", &["auto"], "there is one format of the log"),
    ("logging", "suppress-logo", &["*"], "there is no logo"),
    ("tls", "ciphers", &["[]"], "the ciphers of TLS 1.2 and 1.3 that are safe are on"),
];

/// Listeners that are not there, which may be told of as long as they are off.
const LISTENERS: [&str; 3] = ["graphite", "collectd", "opentsdb"];

/// Takes the keys that mean nothing here out of a file.
///
/// # Errors
/// One of them asks for something that is not done here.
pub fn take_out(file: &mut Table) -> anyhow::Result<()> {
    // A section of ours says the nodes.
    if file.get("cluster").is_some_and(|section| section.get("nodes").is_none()) {
        bail!("[cluster] without `nodes`: if upstream's section is meant, it is called [coordinator] now");
    }
    for listener in LISTENERS {
        if let Some(value) = file.remove(listener) {
            refuse_listener(listener, &value)?;
        }
    }
    for (section, key, accepted, instead) in FOREIGN {
        let keys = match *section {
            "" => Some(&mut *file),
            section => file.get_mut(section).and_then(Value::as_table_mut),
        };
        let Some(value) = keys.and_then(|keys| keys.remove(*key)) else { continue };
        if !accepted.iter().any(|accepted| *accepted == "*" || is_same(&value, accepted)) {
            let name = full_name(section, key);
            bail!("{name} = {value} is not possible here: {instead}; remove the key");
        }
    }
    // What is left of a section that is upstream's alone is no key of anybody.
    for (section, ..) in FOREIGN {
        let is_left = |value: &Value| value.as_table().is_some_and(Table::is_empty);
        if !section.is_empty() && file.get(*section).is_some_and(is_left) {
            file.remove(*section);
        }
    }
    Ok(())
}

/// Whether a section or key stands in the list; whether the environment may name it.
pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    FOREIGN.iter().map(|(section, key, ..)| (*section, *key))
}

/// Names of the listeners that may be off.
pub fn listeners() -> impl Iterator<Item = &'static str> {
    LISTENERS.into_iter()
}

pub fn full_name(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

fn refuse_listener(name: &str, value: &Value) -> anyhow::Result<()> {
    let tables: Vec<&Value> = value.as_array().map_or_else(|| vec![value], |tables| tables.iter().collect());
    let is_on = |table: &&Value| table.get("enabled").is_some_and(|enabled| *enabled != Value::Boolean(false));
    if tables.iter().any(is_on) {
        bail!(
            "[[{name}]] enabled = true is not possible here: send line protocol over HTTP or UDP, as Telegraf's inputs do"
        );
    }
    Ok(())
}

/// Whether a value means the accepted one: sizes and durations may be written in several ways.
fn is_same(value: &Value, accepted: &str) -> bool {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let size = |text: &str| super::parse_size(text).ok();
    let duration = |text: &str| tidemill_influxql::parse_duration(text).ok();
    text == accepted
        || size(&text).is_some_and(|bytes| size(accepted) == Some(bytes))
        || duration(&text).is_some_and(|ns| duration(accepted) == Some(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> anyhow::Result<Table> {
        let mut table: Table = text.parse()?;
        take_out(&mut table).map(|()| table)
    }

    #[test]
    fn defaults_are_taken_however_they_are_written() {
        for text in [
            "reporting-disabled = true",
            "[data]\nwal-dir = \"/var/lib/influxdb/wal\"\ncache-max-memory-size = 1073741824\ncompact-throughput = \"48m\"",
            "[data]\nindex-version = \"tsi1\"\ncompact-full-write-cold-duration = \"4h0m0s\"",
            "[coordinator]\nwrite-timeout = \"10s0ms\"\n[tls]\n[[collectd]]\n[[graphite]]\nenabled = false",
        ] {
            let left = taken(text).unwrap();
            let is_empty = |value: &Value| value.as_table().is_some_and(Table::is_empty);
            assert!(left.values().all(is_empty), "{text}: {left}");
        }
    }

    #[test]
    fn what_is_not_done_here_is_refused_by_name_with_what_to_do() {
        for (text, named) in [
            ("[data]\nwal-dir = \"/fast\"", "data.wal-dir"),
            ("[data]\nvalidate-keys = true", "data.validate-keys"),
            ("[[opentsdb]]\nenabled = true", "opentsdb"),
            ("[http]\nflux-enabled = true", "Flux"),
            ("[cluster]\nwrite-timeout = \"1s\"", "coordinator"),
            ("bind-address = \":9\"", "bind-address"),
        ] {
            let error = taken(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
