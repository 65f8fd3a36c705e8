//! `tidemill shell`: a client like `influx`, good against upstream too.
//!
//! Owns: what the user sees. One statement or a file of standard input runs and ends the shell; on a terminal lines are
//! read with history and completion.
//! Knows nothing of the server's insides: it speaks HTTP.

mod client;
mod command;
mod format;
mod import;
mod prompt;

use crate::http_agent::Trust;
use client::Connection;
use command::{Command, Next};
use format::Format;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of the command line.
#[derive(clap::Args)]
pub struct Shell {
    /// Where the server is; https://NAME speaks TLS
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    host: String,
    #[arg(long, value_name = "PORT", default_value_t = 8086)]
    port: u16,
    /// Speak TLS
    #[arg(long)]
    ssl: bool,
    /// Speak TLS with whoever answers: its certificate is not looked at
    #[arg(long, alias = "unsafeSsl")]
    unsafe_ssl: bool,
    /// Default database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Who asks; the password is asked for, or read from the environment
    #[arg(long, value_name = "NAME", env = "INFLUX_USERNAME")]
    username: Option<String>,
    #[arg(skip)]
    password: Option<String>,
    /// Run these statements and end
    #[arg(long, value_name = "STATEMENTS")]
    execute: Option<String>,
    /// How answers are shown: column, csv or json
    #[arg(long, value_name = "FORMAT", default_value = "column", value_parser = Format::named)]
    format: Format,
    /// How times are shown: rfc3339, h, m, s, ms, u or ns
    #[arg(long, value_name = "UNIT", default_value = "ns", value_parser = client::precision)]
    precision: String,
    /// Of writes: any, one, quorum or all
    #[arg(long, value_name = "LEVEL", default_value = "all", value_parser = client::consistency)]
    consistency: String,
    /// Indent JSON
    #[arg(long)]
    pretty: bool,
    /// Run the statements and write the points of a file that `inspect export` or `influx_inspect export` made
    #[arg(long, value_name = "FILE", conflicts_with = "execute")]
    import: Option<PathBuf>,
    /// The imported file is packed with gzip
    #[arg(long, requires = "import")]
    compressed: bool,
    /// Points per second to import; 0 is as many as the server takes
    #[arg(long, value_name = "N", default_value_t = 0, requires = "import")]
    pps: u64,
}

/// Variables that hold the password, which stands on no command line.
const PASSWORD_VARIABLES: [&str; 2] = ["TIDEMILL_PASSWORD", "INFLUX_PASSWORD"];

impl Shell {
    pub fn run(mut self) -> ExitCode {
        self.password = PASSWORD_VARIABLES.into_iter().find_map(|name| std::env::var(name).ok());
        if self.username.is_some() && self.password.is_none() && io::stdin().is_terminal() {
            self.password = prompt::password().ok();
        }
        let trust = Trust { anybody: self.unsafe_ssl, ..Trust::default() };
        let is_secure = self.ssl || self.unsafe_ssl || self.host.starts_with("https://");
        let host = self.host.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        let connection = match Connection::new(host, self.port, is_secure.then_some(&trust)) {
            Ok(connection) => connection,
            Err(error) => {
                eprintln!("tidemill: {error}");
                return ExitCode::FAILURE;
            }
        };
        let mut session =
            Session { connection, format: self.format, is_pretty: self.pretty, out: Box::new(io::stdout()) };
        session.connection.database = self.database.clone().unwrap_or_default();
        session.connection.precision = self.precision.clone();
        session.connection.consistency = self.consistency.clone();
        if let Some(user) = &self.username {
            session.connection.user = Some((user.clone(), self.password.clone().unwrap_or_default()));
        }
        let version = match session.connection.ping() {
            Ok(version) => version,
            Err(error) => {
                eprintln!("Failed to connect to {}: {error}", session.connection.url());
                eprintln!("Please check your connection settings and ensure the server is running.");
                return ExitCode::FAILURE;
            }
        };
        self.act(&mut session, &version)
    }

    fn act(&self, session: &mut Session, version: &str) -> ExitCode {
        if let Some(statements) = &self.execute {
            return session.run_once(statements);
        }
        if let Some(path) = &self.import {
            return match import::run(&session.connection, path, self.compressed, self.pps) {
                Ok(0) => ExitCode::SUCCESS,
                Ok(_) => ExitCode::FAILURE,
                Err(error) => {
                    eprintln!("ERR: {error:#}");
                    ExitCode::FAILURE
                }
            };
        }
        if !io::stdin().is_terminal() {
            let mut statements = String::new();
            if let Err(error) = io::stdin().read_to_string(&mut statements) {
                eprintln!("ERR: {error}");
                return ExitCode::FAILURE;
            }
            return session.run_once(&statements);
        }
        println!("Connected to {} version {version}", session.connection.url());
        println!("tidemill shell {}; `help` tells more", env!("CARGO_PKG_VERSION"));
        prompt::read_lines(|line| match Command::parse(line) {
            Command::Exit => false,
            command => {
                session.obey(command);
                true
            }
        });
        ExitCode::SUCCESS
    }
}

/// What lasts from line to line.
struct Session {
    connection: Connection,
    format: Format,
    is_pretty: bool,
    out: Box<dyn Write>,
}

impl Session {
    /// Runs statements, or one `insert`, that came as a whole.
    fn run_once(&mut self, text: &str) -> ExitCode {
        let result = match Command::parse(text) {
            Command::Insert(insert) => self.connection.insert(&insert),
            _ => self.query(text),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("ERR: {error}");
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    }

    fn obey(&mut self, command: Command) {
        if let Err(error) = command.run(self).and_then(|next| match next {
            Next::Done => Ok(()),
            Next::Query(text) => self.query(&text),
        }) {
            println!("ERR: {error}");
            if error.contains("database name required") || error.starts_with("database is required") {
                println!("Warning: It is possible this error is due to not setting a database.");
                println!("Please set a database with the command \"use <database>\".");
            }
        }
    }

    /// Runs statements and shows what they answer.
    fn query(&mut self, text: &str) -> Result<(), String> {
        let mut printer = format::Printer::new(self.format, self.is_pretty);
        let out = &mut self.out;
        let connection = &self.connection;
        // What reads JSON expects one document.
        let is_chunked = connection.is_chunked && self.format != Format::Json;
        connection.query_in_pieces(text, is_chunked, &mut |document| printer.print(document, &mut **out))
    }
}
