//! The HTTP side of a running server, as backup and restore see it.

use super::contents::Contents;
use crate::http_agent::{Trust, agent_builder};
use anyhow::{Context, bail};
use std::{
    io::{self, Read},
    time::Duration,
};

/// How long the server may be silent: a snapshot takes a flush.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// The list of a million files is below it.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// A server at an address.
pub struct Server {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
}

/// What a server said of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteAnswer {
    pub status: u16,
    pub retry_after_s: Option<u64>,
    /// Its error, if it has one.
    pub text: String,
}

impl Server {
    /// `user` with password, where the server asks who calls.
    ///
    /// # Errors
    /// TLS is to be spoken, and certificates cannot be read.
    pub fn new(url: &str, user: Option<&(String, String)>, trust: &Trust) -> anyhow::Result<Server> {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let config = agent_builder(url, trust)?
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(SILENCE_MAX))
            .build();
        let authorization =
            user.map(|(user, password)| format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))));
        Ok(Server { agent: config.into(), url: url.trim_end_matches('/').to_owned(), authorization })
    }

    /// Has a snapshot made: its name, and what is in it.
    pub fn make_snapshot(&self) -> anyhow::Result<(String, Contents)> {
        let url = format!("{}/snapshots", self.url);
        let request = self.authorized(self.agent.post(&url));
        let mut answer = request.send_empty().with_context(|| url.clone())?;
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        if answer.status() != 201 {
            bail!("{url}: {} {}", answer.status(), text.trim());
        }
        let json: serde_json::Value = serde_json::from_str(&text).context("the server's answer")?;
        let name = json["name"].as_str().context("the server's answer names no snapshot")?;
        let list = json["contents"].as_str().context("the server's answer lists no files")?;
        Ok((name.to_owned(), Contents::parse(list)?))
    }

    /// The bytes of one of its files from `offset` on.
    pub fn read(&self, name: &str, path: &str, offset: u64) -> io::Result<impl Read + use<>> {
        let url = format!("{}/snapshots/{name}/{path}?offset={offset}", self.url);
        let answer = self.authorized(self.agent.get(&url)).call().map_err(io::Error::other)?;
        if answer.status() != 200 {
            return Err(io::Error::other(format!("{url}: {}", answer.status())));
        }
        Ok(answer.into_body().into_reader())
    }

    pub fn drop_snapshot(&self, name: &str) -> anyhow::Result<()> {
        let url = format!("{}/snapshots/{name}", self.url);
        let answer = self.authorized(self.agent.delete(&url)).call()?;
        if answer.status() != 204 {
            bail!("{url}: {}", answer.status());
        }
        Ok(())
    }

    /// Runs a statement.
    ///
    /// # Errors
    /// With the text of the server's error, if it has one.
    pub fn query(&self, statement: &str) -> anyhow::Result<serde_json::Value> {
        let url = format!("{}/query", self.url);
        let request = self.authorized(self.agent.post(&url)).query("q", statement);
        let mut answer = request.send_empty().with_context(|| url.clone())?;
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        let json: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let error = |json: &serde_json::Value| {
            let error = json["error"].as_str().or_else(|| json["results"][0]["error"].as_str());
            error.map(str::to_owned)
        };
        match json {
            Some(json) if answer.status() == 200 && error(&json).is_none() => Ok(json),
            Some(json) => bail!("{statement}: {}", error(&json).unwrap_or_else(|| answer.status().to_string())),
            None => bail!("{statement}: {} {}", answer.status(), text.trim()),
        }
    }

    /// Writes lines to a retention policy of a database.
    ///
    /// # Errors
    /// If no whole answer came: the lines may have been written.
    pub fn write(&self, database: &str, policy: &str, lines: &[u8]) -> Result<WriteAnswer, ureq::Error> {
        let request = self.authorized(self.agent.post(format!("{}/write", self.url)));
        let request = request.query("db", database).query("rp", policy).query("precision", "ns");
        let mut answer = request.query("unsigned", "true").send(lines)?;
        let retry_after = answer.headers().get("retry-after").and_then(|text| text.to_str().ok()?.parse().ok());
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        let json: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let error = json.and_then(|json| Some(json["error"].as_str()?.to_owned()));
        Ok(WriteAnswer { status, retry_after_s: retry_after, text: error.unwrap_or(text) })
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        }
    }
}
