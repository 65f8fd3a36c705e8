//! Which node is asked, and by whom.

use crate::http_agent::{self, Trust};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;
use ureq::http::Response;

#[derive(Args)]
pub struct Asked {
    /// Any node of the cluster
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8086")]
    host: String,
    /// An admin, where the server asks who calls; the password is read from TIDEMILL_PASSWORD
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The certificate behind https://.. is not looked at
    #[arg(long)]
    unsafe_ssl: bool,
}

impl Asked {
    /// What the node says of its cluster.
    pub fn cluster(&self) -> anyhow::Result<Value> {
        self.answer(|agent, url, user| agent.get(url).query_pairs(user).call())
    }

    /// What the leader of the pool's masters says of the pool.
    pub fn pool(&self) -> anyhow::Result<Value> {
        self.answer(|agent, url, user| agent.get(format!("{url}/pool")).query_pairs(user).call())
    }

    /// Has the node do something with its cluster; what it answers.
    pub fn change(&self, verb: &str, arguments: &[(&str, &str)]) -> anyhow::Result<Value> {
        let arguments = arguments.iter().copied().chain([("do", verb)]);
        self.answer(|agent, url, user| agent.post(url).query_pairs(arguments.clone()).query_pairs(user).send_empty())
    }

    /// What all nodes find in their files, and what came of repairing them.
    pub fn entropy(&self, repairs: bool) -> anyhow::Result<Value> {
        self.answer(|agent, url, user| match repairs {
            true => agent.post(url).query("entropy", "repair").query_pairs(user).send_empty(),
            false => agent.get(url).query("entropy", "show").query_pairs(user).call(),
        })
    }

    /// `asking` is given the agent, the path, and who asks.
    fn answer(
        &self,
        asking: impl FnOnce(&ureq::Agent, String, Vec<(&str, String)>) -> Result<Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<Value> {
        let trust = Trust { anybody: self.unsafe_ssl, ..Trust::default() };
        let agent = ureq::Agent::new_with_config(http_agent::agent_builder(&self.host, &trust)?.build());
        let mut user = Vec::new();
        if let Some(name) = &self.username {
            user.push(("u", name.clone()));
            user.push(("p", std::env::var("TIDEMILL_PASSWORD").unwrap_or_default()));
        }
        let url = format!("{}/cluster", self.host.trim_end_matches('/'));
        let mut response = asking(&agent, url, user).with_context(|| self.host.clone())?;
        let text = response.body_mut().read_to_string().with_context(|| self.host.clone())?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("{}: {text}", self.host))?;
        if response.status() != 200 {
            bail!("{}: {}", self.host, value["error"].as_str().unwrap_or(&text));
        }
        Ok(value)
    }
}
