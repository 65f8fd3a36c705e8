//! `tidemill ctl pool`: what the storage pool is to do.

use super::ask::Asked;
use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub enum Pool {
    /// Says what becomes of the sealed files of a retention policy; what is left out is as the configuration says
    Policy(Policy),
}

#[derive(Args)]
pub struct Policy {
    database: String,
    policy: String,
    /// Copies of each file, on different slaves
    #[arg(long, value_name = "N")]
    copies: Option<u8>,
    /// A sealed file that has not changed for so long goes to the pool
    #[arg(long, value_name = "DURATION")]
    after: Option<String>,
    /// Data nodes keep the blocks of files that the pool has
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    keep_local: Option<bool>,
    #[command(flatten)]
    asked: Asked,
}

impl Pool {
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Pool::Policy(policy) => policy.run(),
        }
    }
}

impl Policy {
    fn run(&self) -> anyhow::Result<()> {
        let mut arguments = vec![("database", self.database.clone()), ("policy", self.policy.clone())];
        arguments.extend(self.copies.map(|copies| ("copies", copies.to_string())));
        arguments.extend(self.after.clone().map(|after| ("after", after)));
        arguments.extend(self.keep_local.map(|keeps| ("keep-local", keeps.to_string())));
        let arguments: Vec<(&str, &str)> = arguments.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.asked.change("pool-policy", &arguments)?;
        println!("pool policy: done");
        Ok(())
    }
}
