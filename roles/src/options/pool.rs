//! `[pool]`: what becomes of sealed files where there is a storage pool.

use super::{duration, effective::duration as time};
use anyhow::ensure;
use serde::Deserialize;
use std::time::Duration;
use toml::Value;

/// More copies than this of one file help against nothing.
pub const COPIES_MAX: u8 = 8;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PoolSection {
    copies: Option<u8>,
    after: Option<String>,
    keep_local: Option<bool>,
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
}

impl Default for PoolOptions {
    fn default() -> PoolOptions {
        PoolOptions { copies: 2, after: Duration::from_secs(600), keeps_local: false }
    }
}

impl PoolSection {
    /// The options that hold, or which one is wrong.
    pub fn options(&self) -> anyhow::Result<PoolOptions> {
        let defaults = PoolOptions::default();
        let copies = self.copies.unwrap_or(defaults.copies);
        ensure!((1..=COPIES_MAX).contains(&copies), "pool.copies must be from 1 to {COPIES_MAX}");
        Ok(PoolOptions {
            copies,
            after: self.after.as_ref().map_or(Ok(defaults.after), |text| duration(text, "pool.after"))?,
            keeps_local: self.keep_local.unwrap_or(defaults.keeps_local),
        })
    }
}

/// The keys with their values.
pub fn keys(options: &PoolOptions) -> Vec<(&'static str, Value)> {
    vec![
        ("copies", Value::Integer(options.copies.into())),
        ("after", time(options.after)),
        ("keep-local", Value::Boolean(options.keeps_local)),
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
        assert_eq!(options, PoolOptions { copies: 3, after: Duration::ZERO, keeps_local: true });
        for (text, named) in [
            ("copies = 0", "pool.copies"),
            ("copies = 9", "pool.copies"),
            ("after = \"soon\"", "pool.after"),
            ("keep-locally = true", "keep-locally"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
