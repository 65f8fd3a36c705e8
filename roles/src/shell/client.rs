//! Requests to the server.

use crate::http_agent::{Trust, agent_builder};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// Where requests go, and what they say of times and writes.
pub struct Connection {
    agent: ureq::Agent,
    is_secure: bool,
    host: String,
    port: u16,
    pub user: Option<(String, String)>,
    pub database: String,
    /// Empty for the database's default.
    pub retention_policy: String,
    pub precision: String,
    pub consistency: String,
    pub is_chunked: bool,
    /// Rows; 0 leaves it to the server.
    pub chunk_size: u64,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks the name of a unit of time.
pub fn precision(name: &str) -> Result<String, String> {
    match name {
        "rfc3339" | "h" | "m" | "s" | "ms" | "u" | "ns" => Ok(name.to_owned()),
        other => Err(format!("Unknown precision {other:?}. Please use rfc3339, h, m, s, ms, u or ns.")),
    }
}

/// Checks the name of a consistency.
pub fn consistency(name: &str) -> Result<String, String> {
    match name {
        "any" | "one" | "quorum" | "all" => Ok(name.to_owned()),
        other => Err(format!("Unknown consistency level {other:?}. Please use any, one, quorum, or all.")),
    }
}

/// A line of points, with where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insert {
    pub database: Option<String>,
    pub retention_policy: Option<String>,
    pub line: String,
}

impl Connection {
    /// `trust` is there where TLS is spoken.
    ///
    /// # Errors
    /// Certificates cannot be read.
    pub fn new(host: &str, port: u16, trust: Option<&Trust>) -> Result<Connection, String> {
        let scheme = if trust.is_some() { "https://" } else { "http://" };
        let builder =
            agent_builder(scheme, trust.unwrap_or(&Trust::default())).map_err(|error| format!("{error:#}"))?;
        Ok(Connection {
            // Queries may take as long as they like.
            agent: builder.timeout_connect(Some(CONNECT_TIMEOUT)).build().into(),
            is_secure: trust.is_some(),
            host: host.to_owned(),
            port,
            user: None,
            database: String::new(),
            retention_policy: String::new(),
            precision: "ns".to_owned(),
            consistency: "all".to_owned(),
            is_chunked: true,
            chunk_size: 0,
        })
    }

    pub fn url(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// Goes to another server.
    pub fn connect(&mut self, place: &str) -> Result<String, String> {
        let (host, port) = place.rsplit_once(':').unwrap_or((place, "8086"));
        let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
        let (host, port) =
            (std::mem::replace(&mut self.host, host.to_owned()), std::mem::replace(&mut self.port, port));
        self.ping().inspect_err(|_| (self.host, self.port) = (host, port))
    }

    /// The server's version.
    pub fn ping(&self) -> Result<String, String> {
        let answer = self.authorized(self.agent.get(format!("{}/ping", self.url()))).call().map_err(text)?;
        if answer.status().is_client_error() {
            return Err(answer.status().to_string());
        }
        let version = answer.headers().get("x-influxdb-version").and_then(|version| version.to_str().ok());
        Ok(version.unwrap_or("unknown").to_owned())
    }

    /// Runs statements; `sink` gets each document of the answer.
    pub fn query(&self, statements: &str, sink: &mut dyn FnMut(&str) -> Result<(), String>) -> Result<(), String> {
        self.query_in_pieces(statements, self.is_chunked, sink)
    }

    /// As [`Connection::query`], with an answer of several documents or of one.
    pub fn query_in_pieces(
        &self,
        statements: &str,
        is_chunked: bool,
        sink: &mut dyn FnMut(&str) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("q", statements).append_pair("db", &self.database);
        if !self.retention_policy.is_empty() {
            form.append_pair("rp", &self.retention_policy);
        }
        if self.precision != "rfc3339" {
            form.append_pair("epoch", &self.precision);
        }
        if is_chunked {
            form.append_pair("chunked", "true");
        }
        if is_chunked && self.chunk_size > 0 {
            form.append_pair("chunk_size", &self.chunk_size.to_string());
        }
        let request = self.authorized(self.agent.post(format!("{}/query", self.url())));
        let request = request.header("Content-Type", "application/x-www-form-urlencoded");
        let answer = request.send(form.finish()).map_err(text)?;
        let mut lines = BufReader::new(answer.into_body().into_reader());
        let mut document = String::new();
        while lines.read_line(&mut document).map_err(text)? > 0 {
            if !document.trim().is_empty() {
                sink(&document)?;
            }
            document.clear();
        }
        Ok(())
    }

    /// Writes one line.
    pub fn insert(&self, insert: &Insert) -> Result<(), String> {
        let database = insert.database.as_deref().unwrap_or(&self.database);
        let policy = insert.retention_policy.as_deref().unwrap_or(&self.retention_policy);
        let precision = if self.precision == "rfc3339" { "ns" } else { &self.precision };
        self.write(database, policy, precision, insert.line.as_bytes())
    }

    /// Writes lines.
    pub fn write(&self, database: &str, policy: &str, precision: &str, lines: &[u8]) -> Result<(), String> {
        let mut target = form_urlencoded::Serializer::new(format!("{}/write?", self.url()));
        target.append_pair("db", database).append_pair("precision", precision);
        target.append_pair("consistency", &self.consistency);
        if !policy.is_empty() {
            target.append_pair("rp", policy);
        }
        let mut answer = self.authorized(self.agent.post(target.finish())).send(lines).map_err(text)?;
        if answer.status().is_success() {
            return Ok(());
        }
        let body = answer.body_mut().read_to_string().map_err(text)?;
        let json: Option<serde_json::Value> = serde_json::from_str(&body).ok();
        let told = json.as_ref().and_then(|json| json["error"].as_str()).map(str::to_owned);
        Err(told.unwrap_or_else(|| format!("{} {}", answer.status(), body.trim())))
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.user {
            Some((user, password)) => request
                .header("Authorization", format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))),
            None => request,
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
