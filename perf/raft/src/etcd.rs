//! Debian's `etcd-server`: three of it on loopback, and the load on the one that leads.
//!
//! The client speaks gRPC over HTTP/2 itself: a put is one message of two byte strings, for which no generated code is
//! needed. Each put in flight has a task of its own; the tasks share a number of connections, because one alone is held up
//! by the flow control of etcd's HTTP/2.

use crate::{
    measure::{Cell, Figures, cpu_seconds_of, histogram, own_cpu_seconds},
    node::random_bytes,
};
use anyhow::{Context, Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use hdrhistogram::Histogram;
use std::{
    cell::{Cell as Shared, RefCell},
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

const MEMBERS: u16 = 3;
/// Values are written over and over to so many keys.
const KEYS: u64 = 1_000;
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// The default of 2 GiB is less than what some cells write.
const QUOTA_BYTES: u64 = 8 << 30;
const WINDOW_BYTES: u32 = 16 << 20;
const PUT: &str = "http://etcd/etcdserverpb.KV/Put";

/// Three members, one of which leads.
pub struct Etcd {
    members: Vec<Child>,
    first_port: u16,
    connections_max: usize,
}

/// The version that is installed; none without etcd.
pub fn version() -> Option<String> {
    let output = Command::new("etcd").arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Etcd {
    /// Starts three members whose ports follow `first_port`: clients, then peers.
    pub fn start(folder: &Path, first_port: u16, connections_max: usize) -> Result<Etcd> {
        let url = |port: u16| format!("http://{}", address(port));
        let peers = |at: u16| url(first_port + MEMBERS + at);
        let all: Vec<String> = (0..MEMBERS).map(|at| format!("n{at}={}", peers(at))).collect();
        let mut etcd = Etcd { members: Vec::new(), first_port, connections_max };
        for at in 0..MEMBERS {
            let data = folder.join(format!("etcd-{at}"));
            fs::create_dir_all(&data)?;
            let log = File::create(folder.join(format!("etcd-{at}.log")))?;
            let child = Command::new("etcd")
                .arg(format!("--name=n{at}"))
                .arg(format!("--data-dir={}", data.display()))
                .arg(format!("--listen-client-urls={}", url(first_port + at)))
                .arg(format!("--advertise-client-urls={}", url(first_port + at)))
                .arg(format!("--listen-peer-urls={}", peers(at)))
                .arg(format!("--initial-advertise-peer-urls={}", peers(at)))
                .arg(format!("--initial-cluster={}", all.join(",")))
                .arg("--initial-cluster-state=new")
                .arg(format!("--quota-backend-bytes={QUOTA_BYTES}"))
                .arg("--logger=zap")
                .arg("--log-level=warn")
                .stdin(Stdio::null())
                .stdout(Stdio::from(log.try_clone()?))
                .stderr(Stdio::from(log))
                .spawn()
                .context("start etcd")?;
            etcd.members.push(child);
        }
        etcd.leader()?;
        Ok(etcd)
    }

    /// The client port of the leader, once there is one.
    fn leader(&self) -> Result<u16> {
        let begun = Instant::now();
        loop {
            let leads = |port: &u16| metrics(*port).is_ok_and(|text| text.contains("\netcd_server_is_leader 1\n"));
            let has_leader = |port: u16| metrics(port).is_ok_and(|text| text.contains("\netcd_server_has_leader 1\n"));
            let ports = self.first_port..self.first_port + MEMBERS;
            if ports.clone().all(has_leader)
                && let Some(port) = ports.clone().find(leads)
            {
                return Ok(port);
            }
            anyhow::ensure!(begun.elapsed() < START_TIME_MAX, "etcd has found no leader; its output is in its folder");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn cpu_seconds(&self) -> Result<f64> {
        self.members.iter().map(|member| cpu_seconds_of(member.id())).sum()
    }

    pub fn run(&mut self, cell: Cell) -> Result<Figures> {
        let leader = self.leader()?;
        let connections = cell.window.min(self.connections_max);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let etcd = &*self;
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let mut senders = Vec::new();
            for _ in 0..connections {
                senders.push(connect(leader).await?);
            }
            let begun = Instant::now();
            let lane = Rc::new(Lane {
                from: begun + cell.warm_up,
                until: begun + cell.warm_up + cell.length,
                value: random_bytes(cell.payload_bytes, 5),
                next_key: Shared::new(0),
                commits: Shared::new(0),
                latency: RefCell::new(histogram()),
            });
            let tasks: Vec<_> = (0..cell.window)
                .map(|at| tokio::task::spawn_local(keep_one_in_flight(senders[at % connections].clone(), lane.clone())))
                .collect();
            tokio::time::sleep(cell.warm_up).await;
            let before = (etcd.cpu_seconds()?, own_cpu_seconds());
            tokio::time::sleep(cell.length).await;
            let after = (etcd.cpu_seconds()?, own_cpu_seconds());
            for task in tasks {
                task.await??;
            }
            Ok(Figures {
                commits: lane.commits.get(),
                seconds: cell.length.as_secs_f64(),
                latency: lane.latency.replace(histogram()),
                cpu_seconds: after.0 - before.0,
                client_cpu_seconds: after.1 - before.1,
                note: format!("{connections} connections"),
            })
        })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

/// A member's figures, by HTTP/1.1.
fn metrics(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address(port), Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

async fn connect(port: u16) -> Result<SendRequest<Bytes>> {
    let stream = tokio::net::TcpStream::connect(address(port)).await?;
    stream.set_nodelay(true)?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    builder.max_send_buffer_size(WINDOW_BYTES as usize);
    let (sender, connection) = builder.handshake(stream).await?;
    tokio::task::spawn_local(connection);
    Ok(sender.ready().await?)
}

struct Lane {
    from: Instant,
    until: Instant,
    value: Bytes,
    next_key: Shared<u64>,
    commits: Shared<u64>,
    latency: RefCell<Histogram<u64>>,
}

async fn keep_one_in_flight(sender: SendRequest<Bytes>, lane: Rc<Lane>) -> Result<()> {
    loop {
        let begun = Instant::now();
        if begun >= lane.until {
            return Ok(());
        }
        let key = lane.next_key.replace(lane.next_key.get() + 1) % KEYS;
        put(&sender, put_request(format!("key{key:04}").as_bytes(), &lane.value)).await?;
        let ended = Instant::now();
        if ended >= lane.from && ended < lane.until {
            lane.commits.set(lane.commits.get() + 1);
            lane.latency.borrow_mut().saturating_record((ended - begun).as_nanos() as u64);
        }
    }
}

async fn put(sender: &SendRequest<Bytes>, message: Bytes) -> Result<()> {
    let request =
        http::Request::post(PUT).header("content-type", "application/grpc").header("te", "trailers").body(())?;
    let mut sender = sender.clone().ready().await?;
    let (response, mut body) = sender.send_request(request, false)?;
    body.send_data(message, true)?;
    let response = response.await?;
    // An error has its status in the first head, which is then the only one.
    let early = response.headers().get("grpc-status").cloned();
    let mut answer = response.into_body();
    while let Some(piece) = answer.data().await {
        let length = piece?.len();
        answer.flow_control().release_capacity(length)?;
    }
    let trailers = answer.trailers().await?;
    let status =
        early.or_else(|| trailers.as_ref()?.get("grpc-status").cloned()).context("an answer without status")?;
    if status != "0" {
        bail!("etcd refused a put: {status:?}, {trailers:?}");
    }
    Ok(())
}

/// A gRPC frame with `PutRequest { key = 1, value = 2 }`.
fn put_request(key: &[u8], value: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(key.len() + value.len() + 24);
    frame.put_u8(0);
    frame.put_u32(0);
    for (field, bytes) in [(1u8, key), (2, value)] {
        frame.put_u8(field << 3 | 2);
        let mut length = bytes.len();
        while length >= 0x80 {
            frame.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        frame.put_u8(length as u8);
        frame.put_slice(bytes);
    }
    let length = (frame.len() - 5) as u32;
    frame[1..5].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_framed_as_grpc_says() {
        let frame = put_request(b"k", &[9; 300]);
        assert_eq!(frame[..5], [0, 0, 0, 1, 50]);
        assert_eq!(frame[5..8], [0x0a, 1, b'k']);
        assert_eq!(frame[8..11], [0x12, 0xac, 0x02]);
        assert_eq!(frame.len(), 5 + 306);
    }
}
