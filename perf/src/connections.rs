//! Whether thousands of connections that do nothing, or as little as they can, keep anybody out.
//!
//! One run: a server and a few clients that write one row at a time, first alone and then beside the crowd: connections
//! that send nothing, that send a head or a body a byte at a time, and that ask for much and do not read. What must
//! hold: all of them are accepted, each costs little memory, the others wait hardly longer, connections that sent nothing
//! are good for a request, and those whose head is not complete at its deadline are closed.

use crate::http::Client;
use crate::process;
use crate::report::new_histogram;
use crate::server::{Server, Setup};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a run does.
#[derive(Clone, Debug)]
pub struct ConnectionsOptions {
    pub setup: Setup,
    /// Connections of the crowd.
    pub count: usize,
    /// How long the others are measured, without the crowd and beside it; less than [`HEAD_DEADLINE`].
    pub duration: Duration,
    /// The others.
    pub clients: u64,
}

/// What a run found.
#[derive(Debug)]
pub struct ConnectionsReport {
    pub count: usize,
    /// Microseconds that a write took, without the crowd and beside it.
    pub alone: Histogram<u64>,
    pub crowded: Histogram<u64>,
    /// Resident bytes of the server that came with the crowd, but for answers that are not read.
    pub resident_bytes: u64,
    /// CPU seconds of the server in both measurements.
    pub cpu_seconds: [f64; 2],
    /// Connections without a whole head, and how many of them were closed at their deadline.
    pub heads: [usize; 2],
    /// What must not be.
    pub faults: Vec<String>,
}

/// The server's deadline for a head.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// How much later than that a connection may be closed.
const LATE_MAX: Duration = Duration::from_secs(5);
/// What a connection may cost.
pub const CONNECTION_BYTES_MAX: u64 = 32 << 10;
/// Rows of the measurement that connections ask for which do not read: more than sockets buffer.
const ROWS: u64 = 200_000;
/// Each answer is held in part, and what is measured is the connections.
const DEAF_MAX: usize = 20;
/// Silent connections that are asked at the end.
const ASKED: usize = 100;
/// Until all of the crowd are accepted.
const SETTLE: Duration = Duration::from_secs(1);
const DRIP_EVERY: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const DATABASE: &str = "crowd";

/// What the connections of the crowd do.
#[derive(Default)]
struct Crowd {
    silent: Vec<TcpStream>,
    heads: Vec<TcpStream>,
    bodies: Vec<TcpStream>,
    deaf: Vec<TcpStream>,
}

/// # Errors
/// If the server does not start, or a connection cannot be opened.
pub fn run(options: &ConnectionsOptions) -> Result<ConnectionsReport> {
    ensure!(options.duration < HEAD_DEADLINE, "the crowd is gone after {HEAD_DEADLINE:?}");
    raise_descriptor_limit(options.count as u64 + 200)?;
    let server = Server::start(with_connections(options.setup.clone(), options.count)?)?;
    let mut client = server.client().with_timeout(Duration::from_secs(60));
    crate::load::create_database(&server.address(), DATABASE, 1)?;
    let lines: Vec<String> = (0..ROWS).map(|time| format!("big v={time} {time}\n")).collect();
    for part in lines.chunks(10_000) {
        ensure!(client.write(&format!("db={DATABASE}"), part.concat().as_bytes())?.status == 204, "rows are refused");
    }
    let mut faults = Vec::new();
    // Once, so that what the first requests make is not counted with the crowd.
    measure(options, &server, Duration::from_secs(1), &mut faults)?;
    let (alone, cpu_alone) = measure(options, &server, options.duration, &mut faults)?;
    let resident_before = process::rss_bytes(server.pid())?;
    let deaf = (options.count / 8).min(DEAF_MAX);
    let mut crowd = Crowd::open(&server, options.count - deaf)?;
    let opened = Instant::now();
    std::thread::sleep(SETTLE);
    let resident_bytes = process::rss_bytes(server.pid())?.saturating_sub(resident_before);
    crowd.open_deaf(&server, deaf)?;
    let is_over = AtomicBool::new(false);
    let (crowded, cpu_crowded) = std::thread::scope(|scope| {
        let crowd = &mut crowd;
        scope.spawn(|| crowd.drip(&is_over));
        let measured = measure(options, &server, options.duration, &mut faults);
        is_over.store(true, Ordering::Relaxed);
        measured
    })?;
    // The last ones: the first have waited longest, and opening all of them takes its time.
    let asked = crowd.silent.split_off(crowd.silent.len() - crowd.silent.len().min(ASKED));
    let unusable = asked.iter().filter(|stream| !answers(stream)).count();
    if unusable > 0 {
        faults.push(format!("{unusable} of {} silent connections are of no use", asked.len()));
    }
    std::thread::sleep((HEAD_DEADLINE + LATE_MAX).saturating_sub(opened.elapsed()));
    let incomplete = crowd.heads.len() + crowd.silent.len();
    let closed = crowd.heads.iter().chain(&crowd.silent).filter(|stream| is_closed(stream)).count();
    if closed < incomplete {
        faults.push(format!("{} of {incomplete} connections without a head are still open", incomplete - closed));
    }
    let heads = [incomplete, closed];
    drop(crowd);
    if resident_bytes > CONNECTION_BYTES_MAX * options.count as u64 {
        faults.push(format!("{} bytes a connection", resident_bytes / options.count as u64));
    }
    server.stop(STOP_TIMEOUT).context("stop the server")?;
    let cpu_seconds = [cpu_alone, cpu_crowded];
    Ok(ConnectionsReport { count: options.count, alone, crowded, resident_bytes, cpu_seconds, heads, faults })
}

/// A server that takes so many connections, whichever cores they come to.
fn with_connections(mut setup: Setup, count: usize) -> Result<Setup> {
    let path = setup.data.with_extension("toml");
    let folder = setup.data.parent().unwrap_or(std::path::Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let text = format!("[http]\nmax-connection-limit = {}\n", count + 200);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    setup.arguments.extend(["--config".to_owned(), path.to_string_lossy().into_owned()]);
    Ok(setup)
}

/// Connections are descriptors; the server gets the same limit.
fn raise_descriptor_limit(wanted: u64) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit fills the struct it is given.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    ensure!(known && limit.rlim_max >= wanted, "{wanted} descriptors are needed, {} may be had", limit.rlim_max);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: setrlimit only reads the struct.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0;
    ensure!(raised, "the limit of descriptors cannot be raised");
    Ok(())
}

/// Latencies in microseconds of single rows that the others write, and the server's CPU seconds meanwhile.
fn measure(
    options: &ConnectionsOptions,
    server: &Server,
    duration: Duration,
    faults: &mut Vec<String>,
) -> Result<(Histogram<u64>, f64)> {
    let begin = Instant::now();
    let cpu_before = process::cpu_seconds(server.pid())?;
    let parts: Vec<Result<Histogram<u64>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.clients.max(1))
            .map(|number| {
                scope.spawn(move || {
                    let mut client = Client::new(server.address()).with_timeout(Duration::from_secs(30));
                    let mut latencies = new_histogram();
                    let mut time = 0;
                    while begin.elapsed() < duration {
                        time += 1;
                        let line = format!("m,client={number} v=1 {time}");
                        let sent = Instant::now();
                        let answer = client.write(&format!("db={DATABASE}"), line.as_bytes())?;
                        latencies.saturating_record(sent.elapsed().as_micros() as u64);
                        ensure!(answer.status == 204, "{} {}", answer.status, answer.text());
                    }
                    Ok(latencies)
                })
            })
            .collect();
        let died = || Err(anyhow::anyhow!("a client died"));
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| died())).collect()
    });
    let mut all = new_histogram();
    for part in parts {
        match part {
            Ok(part) => all.add(part)?,
            Err(error) => faults.push(format!("a write beside {} connections: {error:#}", options.count)),
        }
    }
    Ok((all, process::cpu_seconds(server.pid())? - cpu_before))
}

impl Crowd {
    /// Half of them silent, a quarter slow heads, a quarter slow bodies.
    fn open(server: &Server, count: usize) -> Result<Crowd> {
        let body = format!("POST /write?db={DATABASE} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
        let mut crowd = Crowd::default();
        for number in 0..count {
            let stream = TcpStream::connect(server.address());
            let mut stream = stream.with_context(|| format!("connection {number} of {count}"))?;
            let (kind, first) = match number % 4 {
                0 | 1 => (&mut crowd.silent, ""),
                2 => (&mut crowd.heads, "POST /write HTTP/1.1\r\nHost: "),
                _ => (&mut crowd.bodies, body.as_str()),
            };
            stream.write_all(first.as_bytes())?;
            kind.push(stream);
        }
        Ok(crowd)
    }

    /// Connections that ask for much and do not read it.
    fn open_deaf(&mut self, server: &Server, count: usize) -> Result<()> {
        let request = format!("GET /query?db={DATABASE}&q=SELECT+*+FROM+big HTTP/1.1\r\nHost: x\r\n\r\n");
        for _ in 0..count {
            let mut stream = TcpStream::connect(server.address())?;
            stream.write_all(request.as_bytes())?;
            self.deaf.push(stream);
        }
        Ok(())
    }

    /// A byte to each slow connection now and then.
    fn drip(&mut self, is_over: &AtomicBool) {
        let mut last = Instant::now();
        while !is_over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
            if last.elapsed() >= DRIP_EVERY {
                last = Instant::now();
                for stream in self.heads.iter_mut().chain(&mut self.bodies) {
                    // One that the server closed is found later.
                    let _ = stream.write_all(b"x");
                }
            }
        }
    }
}

/// Whether the server has closed its end, with or without an answer before that.
fn is_closed(mut stream: &TcpStream) -> bool {
    let mut buffer = [0; 512];
    if stream.set_read_timeout(Some(Duration::from_millis(10))).is_err() {
        return true;
    }
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// Whether a request on this connection is answered.
fn answers(mut stream: &TcpStream) -> bool {
    let mut buffer = [0; 512];
    stream.set_read_timeout(Some(Duration::from_secs(10))).is_ok()
        && stream.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").is_ok()
        && stream.read(&mut buffer).is_ok_and(|count| buffer[..count].starts_with(b"HTTP/1.1 204"))
}

impl ConnectionsReport {
    fn p99_ratio(&self) -> f64 {
        self.crowded.value_at_quantile(0.99) as f64 / self.alone.value_at_quantile(0.99).max(1) as f64
    }

    pub fn print(&self) {
        for (name, latencies, cpu) in
            [("alone", &self.alone, self.cpu_seconds[0]), ("beside them", &self.crowded, self.cpu_seconds[1])]
        {
            let us = |quantile: f64| latencies.value_at_quantile(quantile);
            println!(
                "{name:>12}: {} writes, p50 {} us, p99 {} us, longest {} us, {cpu:.2} CPU seconds",
                latencies.len(),
                us(0.5),
                us(0.99),
                latencies.max()
            );
        }
        println!("{} connections: p99 {:.2} times of without them", self.count, self.p99_ratio());
        println!("{} resident bytes a connection", self.resident_bytes / self.count.max(1) as u64);
        println!("{} of {} connections without a head were closed at its deadline", self.heads[1], self.heads[0]);
        self.faults.iter().for_each(|fault| println!("FAULT: {fault}"));
    }

    pub fn to_json(&self) -> Value {
        let latencies = |histogram: &Histogram<u64>| {
            json!({
                "writes": histogram.len(),
                "p50_us": histogram.value_at_quantile(0.5),
                "p99_us": histogram.value_at_quantile(0.99),
                "max_us": histogram.max(),
            })
        };
        json!({
            "connections": self.count,
            "alone": latencies(&self.alone),
            "crowded": latencies(&self.crowded),
            "p99_ratio": self.p99_ratio(),
            "resident_bytes": self.resident_bytes,
            "cpu_seconds": self.cpu_seconds,
            "without_head": self.heads[0],
            "without_head_closed": self.heads[1],
            "faults": self.faults,
        })
    }
}
