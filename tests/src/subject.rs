//! The server under test and the judge.

use anyhow::{Result, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_perf::http::Client;
use tidemill_perf::server::{Kind, Server, Setup};

/// Longest wait for a server to end after SIGTERM.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for one answer: a scenario that hangs fails instead of holding up the run.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Which server the scenarios test.
pub fn kind() -> Kind {
    match std::env::var("TIDEMILL_SUBJECT") {
        Ok(name) => Kind::from_name(&name).unwrap_or_else(|| panic!("TIDEMILL_SUBJECT={name} is no known server")),
        Err(_) => Kind::Tidemill,
    }
}

/// Says why a scenario is skipped. Not by `println!`: the test harness shows that of failing tests only.
pub fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// True, with a note, when the subject is not Tidemill: for scenarios that upstream is known to fail.
pub fn skip_for_upstream(reason: &str) -> bool {
    let skipped = kind() != Kind::Tidemill;
    if skipped {
        skip(&format!("upstream differs here: {reason}"));
    }
    skipped
}

fn tidemill_binary() -> PathBuf {
    if let Ok(path) = std::env::var("TIDEMILL_BIN") {
        return path.into();
    }
    // target/<profile>/deps/main-<hash> lies two folders below target/<profile>/tidemill.
    let own = std::env::current_exe().unwrap_or_else(|error| panic!("where is the test binary: {error}"));
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("tidemill")).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no tidemill binary near {}: build it with `cargo build -p tidemill --bin tidemill`", own.display())
    })
}

/// A fresh folder for one server, removed at the end.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    pub fn new() -> Self {
        // Not in a memory file system: the servers open their files for direct I/O.
        let folder = tempfile::Builder::new().prefix("tidemill-test-").tempdir();
        Self { folder: folder.unwrap_or_else(|error| panic!("no folder for temporary files: {error}")) }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// How the subject is started here: small, since several scenarios run at a time.
    pub fn setup(&self) -> Setup {
        let kind = kind();
        let binary = if kind == Kind::Tidemill {
            tidemill_binary()
        } else {
            kind.system_binary().unwrap_or_else(|| panic!("{} is not installed", kind.name()))
        };
        let mut setup = Setup::new(kind, binary, self.path());
        setup.cores = Some(2);
        setup.memory_limit = Some("256M".into());
        setup
    }

    /// Starts the subject here.
    pub fn start(&self) -> Server {
        start(self.setup())
    }
}

/// Starts a server or fails the test with what it printed.
pub fn start(setup: Setup) -> Server {
    Server::start(setup).unwrap_or_else(|error| panic!("{error:#}"))
}

/// A connection to a server, with a bound on every wait.
pub fn client(server: &Server) -> Client {
    server.client().with_timeout(ANSWER_TIMEOUT)
}

/// SIGTERM; the server must end by itself and with status 0.
pub fn stop(server: Server) {
    let log = server.setup().log.clone();
    match server.stop(STOP_TIMEOUT) {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("ended with {status}\n{}", std::fs::read_to_string(log).unwrap_or_default()),
        Err(error) => panic!("{error:#}"),
    }
}

/// Upstream's server as judge, in a folder of its own.
#[derive(Debug)]
pub struct Judge {
    pub server: Server,
    _home: Home,
}

/// Starts the judge; None, with a note, when Debian's influxd is not installed.
pub fn judge() -> Option<Judge> {
    judge_with(|_| ())
}

/// As [`judge`], started otherwise.
pub fn judge_with(change: impl FnOnce(&mut Setup)) -> Option<Judge> {
    let Some(binary) = Kind::Influxd.system_binary() else {
        skip("/usr/bin/influxd is missing (apt-get install influxdb)");
        return None;
    };
    let home = Home::new();
    let mut setup = Setup::new(Kind::Influxd, binary, home.path());
    change(&mut setup);
    let server = start(setup);
    Some(Judge { server, _home: home })
}

/// Runs a statement that must succeed and returns its answer's text.
pub fn query(client: &mut Client, statement: &str, parameters: &str) -> Result<String> {
    let answer = client.query(statement, parameters)?;
    let text = answer.text();
    if answer.status != 200 || text.contains("\"error\"") {
        bail!("{statement}: {} {text}", answer.status);
    }
    Ok(text)
}

/// Writes lines that must all be taken.
pub fn write(client: &mut Client, parameters: &str, lines: &str) -> Result<()> {
    let answer = client.write(parameters, lines.as_bytes())?;
    if answer.status != 204 {
        bail!("write: {} {}", answer.status, answer.text());
    }
    Ok(())
}

/// A client of a server that has the database `d`.
pub fn with_database(server: &Server) -> Client {
    let mut client = client(server);
    query(&mut client, "CREATE DATABASE d", "").unwrap();
    client
}

/// Points of `v` in a measurement of `d`.
pub fn count(client: &mut Client, measurement: &str) -> u64 {
    let text = query(client, &format!("SELECT count(v) FROM {measurement}"), "db=d").unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["results"][0]["series"][0]["values"][0][1].as_u64().unwrap_or(0)
}
