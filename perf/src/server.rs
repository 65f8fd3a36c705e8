//! Server processes: starting one on a loopback port with a folder of its own, waiting for it, stopping or killing it.

use crate::http::Client;
use crate::process;
use anyhow::{Context, Result, bail};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tidemill,
    Influxd,
    VictoriaMetrics,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Tidemill => "tidemill",
            Kind::Influxd => "influxdb",
            Kind::VictoriaMetrics => "victoria-metrics",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "tidemill" => Kind::Tidemill,
            "influxd" | "influxdb" => Kind::Influxd,
            "victoria-metrics" | "vm" => Kind::VictoriaMetrics,
            _ => return None,
        })
    }

    /// Where Debian's packages put the binary; None for Tidemill, which is built.
    pub fn system_binary(self) -> Option<PathBuf> {
        let path = match self {
            Kind::Tidemill => return None,
            Kind::Influxd => "/usr/bin/influxd",
            Kind::VictoriaMetrics => "/usr/bin/victoria-metrics",
        };
        Path::new(path).exists().then(|| path.into())
    }
}

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Setup {
    pub kind: Kind,
    pub binary: PathBuf,
    /// Its data folder; made when missing.
    pub data: PathBuf,
    /// 0 picks a free port.
    pub port: u16,
    /// Tidemill only: number of cores, all when None.
    pub cores: Option<usize>,
    /// Tidemill only: memory budget such as `512M`.
    pub memory_limit: Option<String>,
    /// Callers must prove who they are; this secret signs bearer tokens.
    pub shared_secret: Option<String>,
    /// The file of a control group (`cgroup.procs`) that the process is put into before it begins.
    pub control_group: Option<PathBuf>,
    /// Tidemill only: the role that it is started in, if it is not the default one.
    pub role: Option<String>,
    /// Tidemill only: further arguments.
    pub arguments: Vec<String>,
    /// Influxd only: seconds until data that settled goes to files.
    pub cold_seconds: u32,
    /// Where its standard output and error go.
    pub log: PathBuf,
    /// Longest wait for its first answer.
    pub start_timeout: Duration,
}

impl Setup {
    /// `folder` gets the server's data in `data/` and its output in `server.log`.
    pub fn new(kind: Kind, binary: impl Into<PathBuf>, folder: &Path) -> Self {
        Self {
            kind,
            binary: binary.into(),
            data: folder.join("data"),
            port: 0,
            cores: None,
            memory_limit: None,
            shared_secret: None,
            control_group: None,
            role: None,
            arguments: Vec::new(),
            cold_seconds: 5,
            log: folder.join("server.log"),
            start_timeout: Duration::from_secs(60),
        }
    }
}

impl Setup {
    /// Tidemill takes any number of series and of values of a tag: what is measured are other limits.
    ///
    /// # Errors
    /// If its configuration cannot be written beside its data.
    pub fn without_series_limits(mut self) -> Result<Self> {
        let path = self.data.with_extension("toml");
        let folder = self.data.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        std::fs::write(&path, "[data]\nmax-series-per-database = 0\nmax-values-per-tag = 0\n")
            .with_context(|| format!("write {}", path.display()))?;
        self.arguments.extend(["--config".to_owned(), path.to_string_lossy().into_owned()]);
        Ok(self)
    }
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    child: Child,
    port: u16,
    /// From the start of the process to its first answer.
    pub start_time: Duration,
}

/// A port of 127.0.0.1 that nobody listened on a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("no free loopback port")?.local_addr()?.port())
}

/// The first of so many UDP ports of 127.0.0.1 behind each other that nobody listened on a moment ago.
pub fn free_udp_ports(count: usize) -> Result<u16> {
    for _ in 0..1000 {
        let first = UdpSocket::bind("127.0.0.1:0").context("no free loopback port")?;
        let port = first.local_addr()?.port();
        let at = |further: usize| UdpSocket::bind(("127.0.0.1", port.checked_add(u16::try_from(further).ok()?)?)).ok();
        let others: Vec<UdpSocket> = (1..count).map_while(at).collect();
        if others.len() + 1 >= count {
            return Ok(port);
        }
    }
    bail!("no {count} free UDP ports behind each other")
}

impl Server {
    /// Starts the process and waits for its first answer.
    pub fn start(setup: Setup) -> Result<Self> {
        let port = if setup.port == 0 { free_port()? } else { setup.port };
        std::fs::create_dir_all(&setup.data).with_context(|| format!("create {}", setup.data.display()))?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&setup.log)
            .with_context(|| format!("open {}", setup.log.display()))?;
        let mut command = command(&setup, port)?;
        enter_control_group(&mut command, &setup)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let begin = Instant::now();
        let child = command.spawn().with_context(|| format!("start {}", setup.binary.display()))?;
        let mut server = Server { setup, child, port, start_time: Duration::ZERO };
        server.wait_until_ready(begin)?;
        server.start_time = begin.elapsed();
        Ok(server)
    }

    fn wait_until_ready(&mut self, begin: Instant) -> Result<()> {
        let target = if self.setup.kind == Kind::VictoriaMetrics { "/health" } else { "/ping" };
        while begin.elapsed() < self.setup.start_timeout {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended while starting: {status}\n{}", self.setup.binary.display(), self.log_tail());
            }
            let mut client = Client::new(self.address()).with_timeout(Duration::from_secs(5));
            if client.get(target).is_ok_and(|answer| answer.status / 100 == 2) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!(
            "{} gave no answer within {:?}\n{}\n{}",
            self.setup.binary.display(),
            self.setup.start_timeout,
            self.log_tail(),
            process::threads(self.pid())
        )
    }

    /// host:port of its HTTP listener.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The end of what the server printed.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.setup.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned()
    }

    /// True while the process runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM, then waits up to `timeout` for the end; kills it after that and says so.
    pub fn stop(mut self, timeout: Duration) -> Result<ExitStatus> {
        self.terminate();
        let begin = Instant::now();
        while begin.elapsed() < timeout {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("{} did not stop within {timeout:?} of SIGTERM\n{}", self.setup.binary.display(), self.log_tail())
    }

    /// Sends SIGTERM without waiting.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child was not waited for yet, so its pid is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    /// SIGKILL, then waits for the end.
    pub fn kill(mut self) -> Result<Setup> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.setup.clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The process goes into the group before it runs the server, so that every page is counted.
fn enter_control_group(command: &mut Command, setup: &Setup) -> Result<()> {
    use std::io::Write;
    use std::os::unix::process::CommandExt;
    let Some(path) = &setup.control_group else { return Ok(()) };
    let opened = std::fs::OpenOptions::new().write(true).open(path);
    let mut entrance = opened.with_context(|| format!("open {}", path.display()))?;
    // SAFETY: between fork and exec it only writes to an open file: no allocation, no lock.
    unsafe { command.pre_exec(move || entrance.write_all(b"0")) };
    Ok(())
}

fn command(setup: &Setup, port: u16) -> Result<Command> {
    let mut command = Command::new(&setup.binary);
    match setup.kind {
        // It keeps nothing, and its configuration file says the rest.
        Kind::Tidemill if setup.role.as_deref() == Some("proxy") => {
            command.args(["proxy", "--http", &format!("127.0.0.1:{port}")]).args(&setup.arguments);
        }
        Kind::Tidemill => {
            command.args(&setup.role).arg("--data").arg(&setup.data).arg("--http").arg(format!("127.0.0.1:{port}"));
            if let Some(cores) = setup.cores {
                command.arg("--cores").arg(cores.to_string());
            }
            if let Some(limit) = &setup.memory_limit {
                command.arg("--memory-limit").arg(limit);
            }
            if let Some(secret) = &setup.shared_secret {
                let path = setup.data.join("access.toml");
                std::fs::write(&path, format!("[http]\nauth-enabled = true\nshared-secret = \"{secret}\"\n"))?;
                command.arg("--config").arg(path);
            }
            command.args(&setup.arguments);
        }
        Kind::Influxd => {
            let path = setup.data.join("influxd.toml");
            std::fs::write(&path, influxd_config(setup, port)?)?;
            command.arg("-config").arg(path);
        }
        Kind::VictoriaMetrics => {
            command
                .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
                .arg(format!("-storageDataPath={}", setup.data.display()))
                // The reference rows are of 2019; the default of one month would drop them all.
                .arg("-retentionPeriod=100y");
        }
    }
    Ok(command)
}

/// Stock settings but for ports and folders, no limits of series, no statistics about itself, no access log, and shorter waits until cold
/// data settles (so that bytes on disk can be measured soon after a load).
fn influxd_config(setup: &Setup, port: u16) -> Result<String> {
    let folder = setup.data.display();
    let access = setup.shared_secret.as_ref();
    let access = access.map(|secret| format!("  auth-enabled = true\n  shared-secret = \"{secret}\"\n"));
    let access = access.unwrap_or_default();
    Ok(format!(
        r#"reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  cache-snapshot-write-cold-duration = "{cold}s"
  compact-full-write-cold-duration = "{cold}s"
  query-log-enabled = false
  max-series-per-database = 0
  max-values-per-tag = 0
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
{access}[logging]
  level = "error"
"#,
        rpc = free_port()?,
        cold = setup.cold_seconds,
    ))
}
