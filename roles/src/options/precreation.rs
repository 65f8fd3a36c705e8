//! `[shard-precreation]`.

use super::duration;
use crate::data::PrecreationOptions;
use anyhow::bail;
use serde::Deserialize;
use std::time::Duration;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PrecreationSection {
    enabled: Option<bool>,
    check_interval: Option<String>,
    advance_period: Option<String>,
}

impl PrecreationSection {
    /// The options that hold, or which one is wrong.
    pub fn options(&self) -> anyhow::Result<PrecreationOptions> {
        let defaults = PrecreationOptions::default();
        let positive = |text: &Option<String>, key: &str, default: Duration| {
            let value = text.as_ref().map_or(Ok(default), |text| duration(text, key))?;
            if value.is_zero() {
                bail!("{key} must be positive; shard-precreation.enabled = false turns it off");
            }
            Ok(value)
        };
        let (check, advance) = ("shard-precreation.check-interval", "shard-precreation.advance-period");
        Ok(PrecreationOptions {
            is_enabled: self.enabled.unwrap_or(defaults.is_enabled),
            check_interval: positive(&self.check_interval, check, defaults.check_interval)?,
            advance_period: positive(&self.advance_period, advance, defaults.advance_period)?,
        })
    }
}
