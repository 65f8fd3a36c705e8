//! The options that hold, key by key, as a configuration file would say them.
//!
//! Invariant: every key of the file stands here once, so that this list is also the list of keys that the environment
//! can set, and the one of SHOW DIAGNOSTICS. Secrets are not shown.

use crate::{
    options::{ClusterOptions, Options, SECRET_SHOWN, handoff, pool},
    udp::UdpOptions,
};
use std::time::Duration;
use tidemill_influxql::GoDurationText;
use tidemill_line::Precision;
use tidemill_log::Durability;
use tidemill_store::Floats;
use toml::Value;

/// Keys of a section with their values. The first section has no name.
pub type Section = (&'static str, Vec<(&'static str, Value)>);

impl Options {
    /// All keys.
    pub fn effective(&self) -> Vec<Section> {
        let mut sections = vec![
            ("", vec![("cores", count(self.cores)), ("memory-limit", integer(self.memory_limit_bytes))]),
            ("data", self.data_keys()),
            (
                "log",
                vec![
                    (
                        "durability",
                        text(match self.log.durability {
                            Durability::Fdatasync => "fdatasync",
                            Durability::Dsync => "dsync",
                        }),
                    ),
                    ("segment-size", integer(self.log.segment_bytes)),
                    ("segments-max", count(self.log.segments_max)),
                ],
            ),
            ("http", self.http_keys()),
            ("meta", vec![("retention-autocreate", Value::Boolean(self.query.autocreate_policy))]),
            ("coordinator", self.coordinator_keys()),
            (
                "retention",
                vec![
                    ("enabled", Value::Boolean(self.retention_is_enabled)),
                    ("check-interval", duration(self.retention_check_interval)),
                ],
            ),
            (
                "shard-precreation",
                vec![
                    ("enabled", Value::Boolean(self.precreation.is_enabled)),
                    ("check-interval", duration(self.precreation.check_interval)),
                    ("advance-period", duration(self.precreation.advance_period)),
                ],
            ),
            (
                "continuous_queries",
                vec![
                    ("enabled", Value::Boolean(self.continuous.is_enabled)),
                    ("log-enabled", Value::Boolean(self.continuous.logs_runs)),
                    ("query-stats-enabled", Value::Boolean(self.continuous.keeps_statistics)),
                    ("run-interval", duration(self.continuous.run_interval)),
                ],
            ),
            ("subscriber", self.subscriber_keys()),
            ("hinted-handoff", handoff::keys(&self.handoff)),
            ("pool", pool::keys(&self.pool)),
            (
                "monitor",
                vec![
                    ("store-enabled", Value::Boolean(self.monitor.is_enabled)),
                    ("store-database", text(&self.monitor.database)),
                    ("store-interval", duration(self.monitor.interval)),
                ],
            ),
            ("logging", vec![("level", text(&self.log_level))]),
            (
                "tls",
                vec![
                    ("min-version", text(self.https.version_min.name())),
                    ("max-version", text(self.https.version_max.name())),
                ],
            ),
        ];
        let headers: toml::Table = self.http.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        if let Some((_, keys)) = sections.iter_mut().find(|(name, _)| *name == "http") {
            keys.push(("headers", Value::Table(headers)));
        }
        sections
    }

    fn data_keys(&self) -> Vec<(&'static str, Value)> {
        let mut keys = vec![("dir", text(&self.data_dir.display().to_string()))];
        if let Some(partitions) = self.partitions {
            keys.push(("partitions", integer(partitions.into())));
        }
        keys.extend([
            ("max-series-per-database", integer(self.series_per_database_max)),
            ("max-values-per-tag", integer(self.values_per_tag_max)),
            ("allow-buffered-io", Value::Boolean(self.allow_buffered)),
            ("spin-before-park-us", integer(self.spin_before_park.as_micros() as u64)),
            (
                "float-encoding",
                text(match self.floats {
                    Floats::Gorilla => "gorilla",
                    Floats::Alp => "alp",
                }),
            ),
            ("scrub-rate", integer(self.scrub.rate_bytes)),
            ("scrub-interval", duration(self.scrub.interval)),
            ("l1-files-per-l2", count(self.l1_files_per_l2)),
            ("l2-file-size", integer(self.l2_file_bytes_max)),
            ("query-log-enabled", Value::Boolean(self.query.logs_queries)),
        ]);
        keys
    }

    fn http_keys(&self) -> Vec<(&'static str, Value)> {
        let http = &self.http;
        let shown = |secret: &String| text(if secret.is_empty() { "" } else { SECRET_SHOWN });
        vec![
            ("bind-address", text(&self.http_addr.to_string())),
            ("auth-enabled", Value::Boolean(self.access.is_enabled)),
            ("shared-secret", shown(&self.access.shared_secret)),
            ("proxy-secret", shown(&self.access.proxy_secret)),
            ("ping-auth-enabled", Value::Boolean(http.ping_auth)),
            ("pprof-auth-enabled", Value::Boolean(http.debug_auth)),
            ("pprof-enabled", Value::Boolean(http.serves_debug)),
            ("realm", text(&http.realm)),
            ("max-body-size", count(http.body_bytes_max)),
            ("max-connection-limit", count(http.connection_count_max)),
            ("max-row-limit", count(http.row_count_max)),
            ("https-enabled", Value::Boolean(self.https.is_enabled)),
            ("https-certificate", text(&self.https.certificate.display().to_string())),
            ("https-private-key", text(&self.https.private_key.display().to_string())),
            ("log-enabled", Value::Boolean(self.access_log.is_enabled)),
            ("suppress-write-log", Value::Boolean(self.access_log.leaves_out_writes)),
            ("access-log-path", text(&self.access_log.path.display().to_string())),
            (
                "access-log-status-filters",
                Value::Array(self.access_log.filters.iter().map(|filter| text(&filter.to_string())).collect()),
            ),
        ]
    }

    fn subscriber_keys(&self) -> Vec<(&'static str, Value)> {
        let subscriber = &self.subscriber;
        vec![
            ("enabled", Value::Boolean(subscriber.is_enabled)),
            ("http-timeout", duration(subscriber.http_timeout)),
            ("insecure-skip-verify", Value::Boolean(subscriber.trusts_anybody)),
            ("ca-certs", text(&subscriber.ca_certs.display().to_string())),
            ("write-concurrency", count(subscriber.write_concurrency)),
            ("write-buffer-size", count(subscriber.write_buffer_size)),
        ]
    }

    fn coordinator_keys(&self) -> Vec<(&'static str, Value)> {
        let (query, select) = (&self.query, &self.query.select);
        vec![
            ("max-concurrent-queries", integer(query.max_concurrent_queries)),
            ("query-timeout", duration(Duration::from_nanos(query.query_timeout_ns))),
            ("log-queries-after", duration(Duration::from_nanos(query.log_after_ns))),
            ("max-select-point", integer(select.max_select_point)),
            ("max-select-series", integer(select.max_select_series)),
            ("max-select-buckets", integer(select.max_select_buckets)),
            ("query-memory-limit", integer(query.query_memory_bytes_max)),
        ]
    }

    /// All keys as the text of a configuration file.
    pub fn effective_text(&self) -> String {
        let mut out = String::new();
        for (section, keys) in self.effective() {
            if !section.is_empty() {
                out.push_str(&format!("\n[{section}]\n"));
            }
            for (key, value) in &keys {
                match value {
                    Value::Table(members) if members.is_empty() => {}
                    Value::Table(members) => {
                        out.push_str(&format!("\n[{section}.{key}]\n"));
                        members.iter().for_each(|(name, value)| {
                            out.push_str(&format!("{} = {value}\n", Value::String(name.clone())));
                        });
                    }
                    Value::String(shown) if shown == SECRET_SHOWN => {
                        out.push_str(&format!("# {key} is set and not shown\n"));
                    }
                    value => out.push_str(&format!("{key} = {value}\n")),
                }
            }
        }
        out.extend(self.cluster.as_ref().map(ClusterOptions::text));
        self.udp.iter().for_each(|listener| out.push_str(&udp_text(listener)));
        out
    }
}

/// A listener, of which there may be several: the environment does not name its keys.
fn udp_text(listener: &UdpOptions) -> String {
    let precision = match listener.precision {
        Precision::Nanosecond => "n",
        Precision::Microsecond => "u",
        Precision::Millisecond => "ms",
        Precision::Second => "s",
        Precision::Minute => "m",
        Precision::Hour => "h",
    };
    let keys = [
        ("enabled", Value::Boolean(true)),
        ("bind-address", text(&listener.addr.to_string())),
        ("database", text(&listener.database)),
        ("retention-policy", text(listener.retention_policy.as_deref().unwrap_or_default())),
        ("batch-size", count(listener.batch_points)),
        ("batch-pending", count(listener.batches_pending)),
        ("batch-timeout", duration(listener.batch_timeout)),
        ("read-buffer", count(listener.read_buffer_bytes)),
        ("precision", text(precision)),
    ];
    let lines = keys.iter().map(|(key, value)| format!("{key} = {value}\n"));
    format!("\n[[udp]]\n{}", lines.collect::<String>())
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

pub(super) fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn count(number: usize) -> Value {
    integer(number as u64)
}

pub(super) fn duration(duration: Duration) -> Value {
    let ns = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    Value::String(GoDurationText(ns).to_string())
}
