//! `[pool]`: what becomes of sealed files where there is a storage pool.

use super::{Size, duration, effective::duration as time};
use anyhow::ensure;
use serde::Deserialize;
use std::time::Duration;
use tidemill_pool::LeaderOptions;
use toml::Value;

/// Copies beyond those that are wanted, of a slave that came back, are kept so long: it may go again.
const EXCESS_AFTER: Duration = Duration::from_secs(30);
/// Slaves beat once a second.
const SLAVE_TIMEOUT_MIN: Duration = Duration::from_secs(3);

/// More copies than this of one file help against nothing.
pub const COPIES_MAX: u8 = 8;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PoolSection {
    copies: Option<u8>,
    after: Option<String>,
    keep_local: Option<bool>,
    slave_timeout: Option<String>,
    delete_after: Option<String>,
    copy_rate_max: Option<Size>,
}

/// For retention policies that say nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Of each file, on different slaves.
    pub copies: u8,
    /// A sealed file that has not changed for so long is handed over.
    pub after: Duration,
    /// Data nodes keep the blocks of files that the pool has.
    pub keeps_local: bool,
    /// A slave that says nothing for so long is lost, and its files are copied again.
    pub slave_timeout: Duration,
    /// Files that nobody owns any more are kept so long.
    pub delete_after: Duration,
    /// Bytes a second of copies that replace lost ones, in the whole pool; zero: as fast as it goes.
    pub copy_rate_max: u64,
}

impl Default for PoolOptions {
    fn default() -> PoolOptions {
        PoolOptions {
            copies: 2,
            after: Duration::from_secs(600),
            keeps_local: false,
            slave_timeout: Duration::from_secs(10),
            delete_after: Duration::from_secs(600),
            copy_rate_max: 0,
        }
    }
}

impl PoolSection {
    /// The options that hold, or which one is wrong.
    pub fn options(&self) -> anyhow::Result<PoolOptions> {
        let defaults = PoolOptions::default();
        let copies = self.copies.unwrap_or(defaults.copies);
        ensure!((1..=COPIES_MAX).contains(&copies), "pool.copies must be from 1 to {COPIES_MAX}");
        let time = |text: &Option<String>, key: &str, default: Duration| match text {
            None => Ok(default),
            Some(text) => duration(text, &format!("pool.{key}")),
        };
        let options = PoolOptions {
            copies,
            after: time(&self.after, "after", defaults.after)?,
            keeps_local: self.keep_local.unwrap_or(defaults.keeps_local),
            slave_timeout: time(&self.slave_timeout, "slave-timeout", defaults.slave_timeout)?,
            delete_after: time(&self.delete_after, "delete-after", defaults.delete_after)?,
            copy_rate_max: match &self.copy_rate_max {
                None => defaults.copy_rate_max,
                Some(size) => size.bytes("pool.copy-rate-max")?,
            },
        };
        ensure!(
            options.slave_timeout >= SLAVE_TIMEOUT_MIN,
            "pool.slave-timeout must be at least {SLAVE_TIMEOUT_MIN:?}"
        );
        Ok(options)
    }
}

impl PoolOptions {
    /// What the leader of the masters goes by.
    pub fn leader(&self, partitions: u32) -> LeaderOptions {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        LeaderOptions {
            slave_timeout_ns: ns(self.slave_timeout),
            delete_after_ns: ns(self.delete_after),
            excess_after_ns: ns(EXCESS_AFTER),
            copy_rate_max: self.copy_rate_max,
            partitions,
        }
    }
}

/// The keys with their values.
pub fn keys(options: &PoolOptions) -> Vec<(&'static str, Value)> {
    vec![
        ("copies", Value::Integer(options.copies.into())),
        ("after", time(options.after)),
        ("keep-local", Value::Boolean(options.keeps_local)),
        ("slave-timeout", time(options.slave_timeout)),
        ("delete-after", time(options.delete_after)),
        ("copy-rate-max", super::effective::integer(options.copy_rate_max)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<PoolOptions> {
        toml::from_str::<PoolSection>(text)?.options()
    }

    #[test]
    fn every_key_holds_and_what_makes_no_sense_is_refused_by_name() {
        assert_eq!(read("").unwrap(), PoolOptions::default());
        let options = read("copies = 3\nafter = \"0s\"\nkeep-local = true").unwrap();
        let set = PoolOptions { copies: 3, after: Duration::ZERO, keeps_local: true, ..PoolOptions::default() };
        assert_eq!(options, set);
        let options = read("slave-timeout = \"5s\"\ndelete-after = \"0s\"\ncopy-rate-max = \"10m\"").unwrap();
        assert_eq!((options.slave_timeout.as_secs(), options.delete_after.as_secs()), (5, 0));
        assert_eq!(options.copy_rate_max, 10 << 20);
        for (text, named) in [
            ("copies = 0", "pool.copies"),
            ("copies = 9", "pool.copies"),
            ("after = \"soon\"", "pool.after"),
            ("slave-timeout = \"1s\"", "pool.slave-timeout"),
            ("delete-after = \"x\"", "pool.delete-after"),
            ("keep-locally = true", "keep-locally"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
