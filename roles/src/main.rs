//! The command line of `tidemill`.

use clap::{Args, Parser, Subcommand};
use std::{ffi::OsString, net::SocketAddr, path::PathBuf, process::ExitCode};
use tidemill::{
    backup::{self, PointsOptions, PointsRestored, RestoreOptions, TakeOptions},
    ctl::Ctl,
    demo::Cluster,
    http_agent::Trust,
    inspect::Inspect,
    options::{CommandLine, Options},
    proxy::{self, ProxyOptions},
    shell::Shell,
};
use tracing_subscriber::EnvFilter;

/// A time series database that speaks InfluxDB 1.x.
#[derive(Parser)]
#[command(name = "tidemill", version, args_conflicts_with_subcommands = true)]
struct Tidemill {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    server: Server,
}

#[derive(Subcommand)]
enum Role {
    /// Everything in one process (the default)
    Standalone(Server),
    /// A node of a cluster that holds data; its configuration file has a [cluster] section
    Data(Server),
    /// A node of a cluster that votes on its metadata and holds no data; its configuration file has a [cluster] section
    Meta(Server),
    /// A node of a cluster that decides what its storage pool holds; its configuration file has a [cluster] section
    PoolMaster(Server),
    /// A node of a cluster that stores files of its storage pool; its configuration file has a [cluster] section
    PoolSlave(Server),
    /// A front of a cluster that keeps nothing: passes requests to its nodes, and to others where one does not answer
    Proxy(Proxy),
    /// Looks into data folders and files of a server that does not run
    #[command(subcommand)]
    Inspect(Inspect),
    /// Prepares and steers a cluster
    #[command(subcommand)]
    Ctl(Ctl),
    /// Starts and stops a cluster on this machine, to try it out
    #[command(subcommand)]
    Cluster(Cluster),
    /// Copy a snapshot of a running server into a folder; what is there already, by hash, is not copied again
    Backup(BackupArguments),
    /// Ask a running server, this one or InfluxDB
    Shell(Shell),
    /// Print the configuration that a server started like this would have
    Config(Server),
    /// Make a data folder of a backup, or write its points into a running server; every file is checked
    Restore(RestoreArguments),
}

#[derive(Args)]
struct BackupArguments {
    /// Folder of the backup; an earlier or interrupted one in it is brought up to date
    target: PathBuf,
    /// The server to back up
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8086")]
    host: String,
    /// An admin, where the server asks who calls; the password is read from TIDEMILL_PASSWORD
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The certificate behind https://.. is not looked at
    #[arg(long, alias = "unsafeSsl")]
    unsafe_ssl: bool,
    /// Another backup whose files are linked instead of copied where they are the same
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Only check an existing backup: read every file and compare its hash
    #[arg(long, conflicts_with_all = ["username", "base"])]
    verify: bool,
}

#[derive(Args)]
struct RestoreArguments {
    /// Folder of the backup
    source: PathBuf,
    /// The new data folder; must be empty or missing
    #[arg(long, value_name = "DIR", default_value = "./tidemill-data", conflicts_with = "host")]
    data: PathBuf,
    /// Write the points into this running server instead, beside what it has; may be started again
    #[arg(long, value_name = "URL")]
    host: Option<String>,
    /// An admin, where the server asks who calls; the password is read from TIDEMILL_PASSWORD
    #[arg(long, value_name = "NAME", requires = "host")]
    username: Option<String>,
    /// The certificate behind https://.. is not looked at
    #[arg(long, alias = "unsafeSsl", requires = "host")]
    unsafe_ssl: bool,
    /// Only this database
    #[arg(long, value_name = "NAME", requires = "host")]
    database: Option<String>,
    /// Into a database of this name
    #[arg(long, value_name = "NAME", requires = "database")]
    new_database: Option<String>,
    /// Only this retention policy
    #[arg(long, value_name = "NAME", requires = "database")]
    retention: Option<String>,
    /// Into a retention policy of this name
    #[arg(long, value_name = "NAME", requires = "retention")]
    new_retention: Option<String>,
}

#[derive(Args)]
struct Proxy {
    /// Configuration file (TOML) with a [proxy] section
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where to serve HTTP, instead of the file's bind-address
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
}

#[derive(Args)]
struct Server {
    /// Folder of all data; made if it is not there [default: ./tidemill-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to serve HTTP [default: 127.0.0.1:8086]
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Cores to run, a pinned thread each; may change between two starts [default: all]
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
    /// Memory that the server may use, with suffix k, m or g [default: half of the machine's]
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
    /// Configuration file (TOML); options given here win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn start_logging(level: &str) {
    let filter = EnvFilter::try_from_env("TIDEMILL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

fn main() -> ExitCode {
    let Tidemill { role, server } = Tidemill::parse_from(like_influx(std::env::args_os()));
    let asked = match role {
        Some(Role::Data(_)) => Some("data"),
        Some(Role::Meta(_)) => Some("meta"),
        Some(Role::PoolMaster(_)) => Some("pool-master"),
        Some(Role::PoolSlave(_)) => Some("pool-slave"),
        _ => None,
    };
    let server = match role {
        Some(
            Role::Standalone(server)
            | Role::Data(server)
            | Role::Meta(server)
            | Role::PoolMaster(server)
            | Role::PoolSlave(server),
        ) => server,
        Some(Role::Proxy(arguments)) => return ended(run_proxy(&arguments)),
        Some(Role::Inspect(inspect)) => {
            start_logging("warn");
            return inspect.run();
        }
        Some(Role::Ctl(ctl)) => {
            start_logging("warn");
            return ctl.run();
        }
        Some(Role::Cluster(cluster)) => {
            start_logging("warn");
            return cluster.run();
        }
        Some(Role::Backup(arguments)) => return ended(run_backup(arguments)),
        Some(Role::Restore(arguments)) => return ended(run_restore(arguments)),
        Some(Role::Shell(shell)) => return shell.run(),
        Some(Role::Config(server)) => {
            return ended(Options::read(&server.into()).map(|options| print!("{}", options.effective_text())));
        }
        None => server,
    };
    let options = match Options::read(&server.into()) {
        Ok(options) => options,
        Err(error) => return ended(Err(error)),
    };
    let role = options.cluster.as_ref().map(|cluster| cluster.role());
    if role != asked {
        return ended(Err(match (role, asked) {
            (Some(role), _) => anyhow::anyhow!("cluster.node is a {role} node: start it with `tidemill {role}`"),
            (None, asked) => {
                let asked = asked.unwrap_or("data");
                anyhow::anyhow!("`tidemill {asked}` needs a configuration file with a [cluster] section")
            }
        }));
    }
    start_logging(&options.log_level);
    ended(tidemill::server::run(options))
}

/// The options of the shell may be written with one dash, as those of `influx` are.
fn like_influx(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut is_of_shell = false;
    arguments.enumerate().map(move |(number, argument)| {
        is_of_shell |= number == 1 && argument == "shell";
        let is_long = |text: &&str| {
            let mut rest = text.strip_prefix('-').unwrap_or_default().chars();
            rest.next().is_some_and(char::is_alphabetic) && rest.next().is_some()
        };
        match argument.to_str().filter(|_| is_of_shell).filter(is_long) {
            Some(text) => format!("-{text}").into(),
            None => argument,
        }
    })
}

impl From<Server> for CommandLine {
    fn from(server: Server) -> CommandLine {
        CommandLine {
            data_dir: server.data,
            http_addr: server.http,
            cores: server.cores,
            memory_limit: server.memory_limit,
            config: server.config,
        }
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidemill: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_proxy(arguments: &Proxy) -> anyhow::Result<()> {
    let mut options = ProxyOptions::read(&arguments.config)?;
    options.bind = arguments.http.unwrap_or(options.bind);
    start_logging(&options.log_level);
    proxy::run(options)
}

fn run_backup(arguments: BackupArguments) -> anyhow::Result<()> {
    if arguments.verify {
        let contents = backup::verify(&arguments.target)?;
        println!("{} files, {} bytes: all are what they should be", contents.entries.len(), contents.byte_count());
        return Ok(());
    }
    let user = with_password(arguments.username);
    let trust = Trust { anybody: arguments.unsafe_ssl, ..Trust::default() };
    let options = TakeOptions { target: arguments.target, url: arguments.host, user, trust, base: arguments.base };
    let taken = backup::take(&options)?;
    println!(
        "{} files, {} bytes; {} files, {} bytes of these were there already",
        taken.files, taken.bytes, taken.files_reused, taken.bytes_reused
    );
    Ok(())
}

fn with_password(username: Option<String>) -> Option<(String, String)> {
    username.map(|name| (name, std::env::var("TIDEMILL_PASSWORD").unwrap_or_default()))
}

fn run_restore(arguments: RestoreArguments) -> anyhow::Result<()> {
    if let Some(url) = arguments.host {
        let RestoreArguments { source, username, unsafe_ssl, database, .. } = arguments;
        let RestoreArguments { new_database, retention, new_retention, .. } = arguments;
        let (user, trust) = (with_password(username), Trust { anybody: unsafe_ssl, ..Trust::default() });
        return restore_points(&PointsOptions {
            source,
            url,
            user,
            trust,
            database,
            new_database,
            retention,
            new_retention,
        });
    }
    let options = RestoreOptions { source: arguments.source, data_dir: arguments.data };
    let contents = backup::restore(&options)?;
    println!("{} files, {} bytes restored", contents.entries.len(), contents.byte_count());
    Ok(())
}

fn restore_points(options: &PointsOptions) -> anyhow::Result<()> {
    let PointsRestored { files, series, rows, too_old, refusals, inexpressible } = backup::restore_points(options)?;
    println!("{files} files are what they should be; {rows} rows of {series} series were written");
    if too_old > 0 {
        println!("{too_old} of them are older than the server's retention policy keeps and were left out");
    }
    if refusals + inexpressible > 0 {
        anyhow::bail!("{refusals} requests were refused in part; {inexpressible} values have no text in line protocol");
    }
    Ok(())
}
