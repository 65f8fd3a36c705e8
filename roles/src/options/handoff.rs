//! What the configuration says of hinted handoff, under the names of InfluxDB's clusters.

use super::{Size, duration, effective::duration as time};
use crate::handoff::HandoffOptions;
use anyhow::{bail, ensure};
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};
use toml::Value;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct HandoffSection {
    enabled: Option<bool>,
    dir: Option<PathBuf>,
    max_size: Option<Size>,
    max_age: Option<String>,
    retry_rate_limit: Option<Size>,
    retry_interval: Option<String>,
    retry_max_interval: Option<String>,
    purge_interval: Option<String>,
}

impl HandoffSection {
    pub fn options(&self, data_dir: &std::path::Path) -> anyhow::Result<HandoffOptions> {
        let defaults = HandoffOptions::default();
        let time = |text: &Option<String>, key: &str, default: Duration| match text {
            None => Ok(default),
            Some(text) => duration(text, &format!("hinted-handoff.{key}")),
        };
        let size = |size: &Option<Size>, key: &str, default: u64| match size {
            None => Ok(default),
            Some(size) => size.bytes(&format!("hinted-handoff.{key}")),
        };
        let options = HandoffOptions {
            is_enabled: self.enabled.unwrap_or(defaults.is_enabled),
            folder: match &self.dir {
                None => defaults.folder,
                Some(dir) => folder_of(dir, data_dir)?,
            },
            bytes_max: size(&self.max_size, "max-size", defaults.bytes_max)?,
            age_max: time(&self.max_age, "max-age", defaults.age_max)?,
            rate_bytes: size(&self.retry_rate_limit, "retry-rate-limit", defaults.rate_bytes)?,
            retry_interval: time(&self.retry_interval, "retry-interval", defaults.retry_interval)?,
            retry_interval_max: time(&self.retry_max_interval, "retry-max-interval", defaults.retry_interval_max)?,
            purge_interval: time(&self.purge_interval, "purge-interval", defaults.purge_interval)?,
        };
        ensure!(options.bytes_max > 0, "hinted-handoff.max-size must be greater than 0");
        for (key, time) in [
            ("max-age", options.age_max),
            ("retry-interval", options.retry_interval),
            ("retry-max-interval", options.retry_interval_max),
            ("purge-interval", options.purge_interval),
        ] {
            ensure!(!time.is_zero(), "hinted-handoff.{key} must be greater than 0");
        }
        Ok(options)
    }
}

/// The queue lies in the data folder, whose lock and disk it shares; a link there may lead elsewhere.
fn folder_of(dir: &std::path::Path, data_dir: &std::path::Path) -> anyhow::Result<String> {
    let below = dir.strip_prefix(data_dir).unwrap_or(dir);
    let is_plain = |part| matches!(part, std::path::Component::Normal(_));
    match below.to_str() {
        Some(text) if !text.is_empty() && below.components().all(is_plain) => Ok(text.to_owned()),
        _ => bail!("hinted-handoff.dir {} must be a folder below data.dir", dir.display()),
    }
}

/// The keys with their values.
pub fn keys(options: &HandoffOptions) -> Vec<(&'static str, Value)> {
    let size = |bytes: u64| Value::Integer(i64::try_from(bytes).unwrap_or(i64::MAX));
    vec![
        ("enabled", Value::Boolean(options.is_enabled)),
        ("dir", Value::String(options.folder.clone())),
        ("max-size", size(options.bytes_max)),
        ("max-age", time(options.age_max)),
        ("retry-rate-limit", size(options.rate_bytes)),
        ("retry-interval", time(options.retry_interval)),
        ("retry-max-interval", time(options.retry_interval_max)),
        ("purge-interval", time(options.purge_interval)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> anyhow::Result<HandoffOptions> {
        toml::from_str::<HandoffSection>(text)?.options(Path::new("/data"))
    }

    #[test]
    fn every_key_holds_and_what_makes_no_sense_is_refused_by_name() {
        assert_eq!(read("").unwrap(), HandoffOptions::default());
        let options = read(
            "dir = \"/data/hh/one\"\nmax-size = \"1m\"\nmax-age = \"2h\"\nretry-rate-limit = 7\nretry-interval = \"3s\"\n\
             retry-max-interval = \"4s\"\npurge-interval = \"5s\"\nenabled = false",
        )
        .unwrap();
        assert_eq!((options.folder.as_str(), options.bytes_max, options.rate_bytes), ("hh/one", 1 << 20, 7));
        let seconds = [options.age_max, options.retry_interval, options.retry_interval_max, options.purge_interval];
        assert_eq!(seconds.map(|time| time.as_secs()), [7200, 3, 4, 5]);
        assert!(!options.is_enabled);
        for (text, named) in [
            ("max-size = 0", "max-size"),
            ("max-age = \"0s\"", "max-age"),
            ("purge-interval = \"x\"", "purge-interval"),
            ("dir = \"/elsewhere\"", "hinted-handoff.dir"),
            ("dir = \"../up\"", "hinted-handoff.dir"),
            ("batch-size = 3", "batch-size"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
