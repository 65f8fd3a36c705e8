//! What the configuration says of services beside queries and writes over HTTP: subscriptions, the statistics that the
//! server keeps of itself, and UDP. Names and defaults are upstream's, but that nothing is stored in `_internal` unless
//! it is asked for.

use super::{Size, bind_address_of, duration};
use crate::{data::self_monitor::MonitorOptions, subscriber::SubscriberOptions, udp::UdpOptions};
use anyhow::bail;
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};
use tidemill_line::Precision;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SubscriberSection {
    enabled: Option<bool>,
    http_timeout: Option<String>,
    insecure_skip_verify: Option<bool>,
    ca_certs: Option<PathBuf>,
    write_concurrency: Option<usize>,
    write_buffer_size: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MonitorSection {
    store_enabled: Option<bool>,
    store_database: Option<String>,
    store_interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct UdpSection {
    enabled: Option<bool>,
    bind_address: Option<String>,
    database: Option<String>,
    retention_policy: Option<String>,
    batch_size: Option<usize>,
    batch_pending: Option<usize>,
    batch_timeout: Option<String>,
    read_buffer: Option<Size>,
    precision: Option<String>,
}

/// Threads and batches of a subscription: beyond them a mistake is more likely.
const CONCURRENCY_MAX: usize = 1024;
const BUFFER_SIZE_MAX: usize = 1 << 20;

impl SubscriberSection {
    pub fn options(&self) -> anyhow::Result<SubscriberOptions> {
        let options = SubscriberOptions {
            is_enabled: self.enabled.unwrap_or(true),
            http_timeout: match &self.http_timeout {
                None => Duration::from_secs(30),
                Some(text) => duration(text, "subscriber.http-timeout")?,
            },
            trusts_anybody: self.insecure_skip_verify.unwrap_or(false),
            ca_certs: self.ca_certs.clone().unwrap_or_default(),
            write_concurrency: self.write_concurrency.unwrap_or(40),
            write_buffer_size: self.write_buffer_size.unwrap_or(1000),
        };
        if options.http_timeout.is_zero() {
            bail!("subscriber.http-timeout must be greater than 0");
        }
        if !options.ca_certs.as_os_str().is_empty() && !options.ca_certs.exists() {
            bail!("subscriber.ca-certs file {} does not exist", options.ca_certs.display());
        }
        for (key, count, count_max) in [
            ("write-concurrency", options.write_concurrency, CONCURRENCY_MAX),
            ("write-buffer-size", options.write_buffer_size, BUFFER_SIZE_MAX),
        ] {
            if count == 0 || count > count_max {
                bail!("subscriber.{key} must be greater than 0 and at most {count_max}");
            }
        }
        Ok(options)
    }
}

impl MonitorSection {
    pub fn options(&self) -> anyhow::Result<MonitorOptions> {
        let options = MonitorOptions {
            is_enabled: self.store_enabled.unwrap_or(false),
            database: self.store_database.clone().unwrap_or_else(|| "_internal".to_owned()),
            interval: match &self.store_interval {
                None => Duration::from_secs(10),
                Some(text) => duration(text, "monitor.store-interval")?,
            },
        };
        if options.interval.is_zero() {
            bail!("monitor.store-interval must be positive");
        }
        if options.database.is_empty() {
            bail!("monitor.store-database must not be empty");
        }
        Ok(options)
    }
}

/// The listeners that are on.
pub fn udp_listeners(sections: &[UdpSection]) -> anyhow::Result<Vec<UdpOptions>> {
    sections.iter().filter(|section| section.enabled == Some(true)).map(UdpSection::options).collect()
}

impl UdpSection {
    fn options(&self) -> anyhow::Result<UdpOptions> {
        let named = |text: &Option<String>, default: &str| {
            text.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        let precision = named(&self.precision, "n");
        let options = UdpOptions {
            addr: bind_address_of("udp", &named(&self.bind_address, ":8089"))?,
            database: named(&self.database, "udp"),
            retention_policy: self.retention_policy.clone().filter(|policy| !policy.is_empty()),
            batch_points: self.batch_size.unwrap_or(5000),
            batches_pending: self.batch_pending.unwrap_or(10),
            batch_timeout: match &self.batch_timeout {
                None => Duration::from_secs(1),
                Some(text) => duration(text, "udp.batch-timeout")?,
            },
            read_buffer_bytes: match &self.read_buffer {
                None => 0,
                Some(size) => usize::try_from(size.bytes("udp.read-buffer")?)?,
            },
            precision: match precision.as_str() {
                "n" | "ns" => Precision::Nanosecond,
                "u" | "us" => Precision::Microsecond,
                "ms" => Precision::Millisecond,
                "s" => Precision::Second,
                "m" => Precision::Minute,
                "h" => Precision::Hour,
                other => bail!("udp.precision \"{other}\" must be n, u, ms, s, m or h"),
            },
        };
        if options.batch_points == 0 || options.batches_pending == 0 || options.batch_timeout.is_zero() {
            bail!("udp.batch-size, udp.batch-pending and udp.batch-timeout must be greater than 0");
        }
        Ok(options)
    }
}
