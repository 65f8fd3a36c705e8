//! `net/peer` on either executor.

use crate::measure::{Bulk, Meter, Small, histogram, pin};
use anyhow::{Context, Result};
use bytes::Bytes;
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::net::UdpSocket;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidemill_peer::authority::Authority;
use tidemill_peer::{
    ClusterId, Credentials, FileReceiver, GlommioRt, Handler, HeartbeatBatch, Inquiry, Message, MonoioRt, NodeId,
    Options, PeerId, PeerState, Peers, Rt, bind,
};

#[derive(Clone, Copy, PartialEq)]
pub enum Executor {
    Glommio { spin_us: u64 },
    Monoio,
}

const CLUSTER: ClusterId = ClusterId([1; 16]);
const CALLER: PeerId = PeerId { node: NodeId(1), core: 0 };
const CALLED: PeerId = PeerId { node: NodeId(2), core: 0 };
const BLOCK_BYTES: usize = 1 << 20;
const MESSAGE_BYTES: usize = 1024;
/// Of the first messages nothing is recorded.
const WARM_UP: u64 = 2_000;

/// Both ends' credentials, as PEM; each thread reads its own.
struct Pems {
    root: String,
    nodes: [(String, String); 2],
}

impl Pems {
    fn make() -> Result<Pems> {
        let day = Duration::from_secs(86_400);
        let (authority, root) = Authority::make(CLUSTER, day)?;
        let issue = |node: PeerId| -> Result<(String, String)> {
            let issued = authority.issue(node.node, day)?;
            Ok((issued.certificate_pem, issued.key_pem))
        };
        Ok(Pems { root: root.certificate_pem, nodes: [issue(CALLER)?, issue(CALLED)?] })
    }

    fn credentials(&self, node: PeerId) -> Result<Credentials> {
        let (certificate, key) = &self.nodes[usize::from(node == CALLED)];
        let root = self.root.as_bytes();
        Ok(Credentials::from_pem(CLUSTER, node.node, root, certificate.as_bytes(), key.as_bytes())?)
    }
}

#[derive(Default)]
struct Ends {
    peers: RefCell<Option<Peers>>,
    file: RefCell<Option<FileReceiver>>,
    is_connected: Cell<bool>,
    was_lost: Cell<bool>,
    caller: RefCell<Option<Caller>>,
}

/// The state of the asking side of a small run.
struct Caller {
    started: VecDeque<Instant>,
    sent: u64,
    received: u64,
    messages: u64,
    latency: Histogram<u64>,
    meter: Meter,
    message: Bytes,
}

impl Handler for Ends {
    fn message(&self, message: Message) {
        let peers = self.peers.borrow();
        let Some(peers) = &*peers else { return };
        let mut caller = self.caller.borrow_mut();
        let Some(caller) = &mut *caller else {
            let _ = peers.send(message.from, message.group, message.payload.clone());
            return;
        };
        let started = caller.started.pop_front();
        caller.received += 1;
        if caller.received == WARM_UP {
            caller.meter = Meter::start();
        }
        if let Some(started) = started.filter(|_| caller.received > WARM_UP) {
            caller.latency.saturating_record(started.elapsed().as_nanos() as u64);
        }
        caller.send_one(peers);
    }

    fn heartbeats(&self, _: HeartbeatBatch) {}

    fn request(&self, _: Inquiry) {}

    fn file(&self, file: FileReceiver) {
        *self.file.borrow_mut() = Some(file);
    }

    fn state(&self, _: PeerId, state: PeerState) {
        self.is_connected.set(state == PeerState::Connected);
        self.was_lost.set(state != PeerState::Connected);
    }
}

impl Caller {
    fn send_one(&mut self, peers: &Peers) {
        if self.sent < self.messages && peers.send(CALLED, 1, self.message.clone()).is_ok() {
            self.sent += 1;
            self.started.push_back(Instant::now());
        }
    }
}

fn options(mtu: u16) -> Options {
    Options { mtu, socket_buffer_bytes: 16 << 20, stream_window_bytes: 16 << 20, ..Options::default() }
}

fn start<R: Rt>(rt: &R, me: PeerId, socket: UdpSocket, pems: &Pems, mtu: u16) -> Result<(Peers, Rc<Ends>)> {
    let ends = Rc::new(Ends::default());
    let peers = Peers::start(rt, me, 1, socket, pems.credentials(me)?, options(mtu), ends.clone())?;
    *ends.peers.borrow_mut() = Some(peers.clone());
    Ok((peers, ends))
}

async fn until<R: Rt>(mut is_so: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !is_so() {
        anyhow::ensure!(start.elapsed() < Duration::from_secs(120), "a run got stuck");
        R::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Runs a future in an executor of its own thread on one core.
fn on_core<T, F>(
    executor: Executor,
    core: usize,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<JoinHandle<Result<T>>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + 'static,
{
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let core = core % cores;
    Ok(std::thread::Builder::new().spawn(move || match executor {
        Executor::Glommio { spin_us } => {
            let builder = glommio::LocalExecutorBuilder::new(glommio::Placement::Fixed(core)).io_memory(1 << 20);
            let builder = match spin_us {
                0 => builder,
                spin => builder.spin_before_park(Duration::from_micros(spin)),
            };
            let executor = builder.make().map_err(|error| anyhow::anyhow!("{error}"))?;
            executor.run(async move { make().await })
        }
        Executor::Monoio => {
            pin(core);
            let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build()?;
            runtime.block_on(async move { make().await })
        }
    })?)
}

pub fn bulk(executor: Executor, mtu: u16, bytes: u64) -> Result<Bulk> {
    match executor {
        Executor::Glommio { .. } => bulk_on(executor, GlommioRt::new(None), mtu, bytes),
        Executor::Monoio => bulk_on(executor, MonoioRt, mtu, bytes),
    }
}

fn bulk_on<R: Rt + Send>(executor: Executor, rt: R, mtu: u16, bytes: u64) -> Result<Bulk> {
    let pems = std::sync::Arc::new(Pems::make()?);
    let called = bind("127.0.0.1:0".parse()?, options(mtu).socket_buffer_bytes)?;
    let address = called.local_addr()?;
    let (rt_of_called, pems_of_called) = (rt.clone(), pems.clone());
    let receiver = on_core(executor, 1, move || async move {
        let (peers, ends) = start(&rt_of_called, CALLED, called, &pems_of_called, mtu)?;
        until::<R>(|| ends.file.borrow().is_some()).await?;
        let mut file = ends.file.take().context("a file")?;
        let mut block = vec![0; BLOCK_BYTES];
        let mut received = 0;
        loop {
            let filled = file.fill(&mut block).await?;
            received += filled as u64;
            if filled < block.len() {
                break;
            }
        }
        drop(file);
        until::<R>(|| ends.was_lost.get()).await?;
        let copied = peers.metrics().bytes_copied_in;
        peers.close().await;
        ends.peers.take();
        Ok((received, copied))
    })?;
    let sender = on_core(executor, 0, move || async move {
        let socket = bind("127.0.0.1:0".parse()?, options(mtu).socket_buffer_bytes)?;
        let (peers, ends) = start(&rt, CALLER, socket, &pems, mtu)?;
        peers.connect(CALLED, address);
        until::<R>(|| ends.is_connected.get()).await?;
        let block = Bytes::from(vec![7; BLOCK_BYTES]);
        let meter = Meter::start();
        let mut file = peers.send_file(CALLED, 0, b"", bytes).await?;
        for _ in 0..bytes / BLOCK_BYTES as u64 {
            file.write(block.clone()).await?;
        }
        file.finish().await?;
        let (wall, cpu) = meter.seconds();
        let metrics = peers.metrics();
        let note = format!(
            "lost {} packets, {:.1} datagrams a send, {} blocked, {} bytes copied by the sender",
            metrics.packets_lost,
            metrics.datagrams_sent as f64 / metrics.sends as f64,
            metrics.sends_blocked,
            metrics.bytes_copied_out
        );
        peers.close().await;
        ends.peers.take();
        Ok(Bulk { bytes, wall, cpu, note })
    })?;
    let bulk = sender.join().map_err(|_| anyhow::anyhow!("the sender died"))??;
    let (received, copied) = receiver.join().map_err(|_| anyhow::anyhow!("the receiver died"))??;
    anyhow::ensure!(received == bytes, "{received} of {bytes} bytes arrived");
    anyhow::ensure!(copied < bytes + 10_000, "{copied} bytes copied for {bytes}");
    Ok(bulk)
}

pub fn small(executor: Executor, window: usize, messages: u64) -> Result<Small> {
    match executor {
        Executor::Glommio { .. } => small_on(executor, GlommioRt::new(None), window, messages),
        Executor::Monoio => small_on(executor, MonoioRt, window, messages),
    }
}

fn small_on<R: Rt + Send>(executor: Executor, rt: R, window: usize, messages: u64) -> Result<Small> {
    let mtu = tidemill_peer::MTU_DEFAULT;
    let messages = messages + WARM_UP;
    let pems = std::sync::Arc::new(Pems::make()?);
    let called = bind("127.0.0.1:0".parse()?, options(mtu).socket_buffer_bytes)?;
    let address = called.local_addr()?;
    let (rt_of_called, pems_of_called) = (rt.clone(), pems.clone());
    let answering = on_core(executor, 1, move || async move {
        let (peers, ends) = start(&rt_of_called, CALLED, called, &pems_of_called, mtu)?;
        until::<R>(|| ends.was_lost.get()).await?;
        peers.close().await;
        ends.peers.take();
        Ok(())
    })?;
    let asking = on_core(executor, 0, move || async move {
        let socket = bind("127.0.0.1:0".parse()?, options(mtu).socket_buffer_bytes)?;
        let (peers, ends) = start(&rt, CALLER, socket, &pems, mtu)?;
        peers.connect(CALLED, address);
        until::<R>(|| ends.is_connected.get()).await?;
        let mut caller = Caller {
            started: VecDeque::new(),
            sent: 0,
            received: 0,
            messages,
            latency: histogram(),
            meter: Meter::start(),
            message: Bytes::from(vec![3; MESSAGE_BYTES]),
        };
        (0..window).for_each(|_| caller.send_one(&peers));
        *ends.caller.borrow_mut() = Some(caller);
        // A timer a hundred times a second is all that this adds to what is measured.
        let start = Instant::now();
        while ends.caller.borrow().as_ref().is_some_and(|caller| caller.received < messages) {
            anyhow::ensure!(start.elapsed() < Duration::from_secs(120), "a run got stuck");
            R::sleep(Duration::from_millis(10)).await;
        }
        let caller = ends.caller.take().context("the run's state")?;
        let (wall, cpu) = caller.meter.seconds();
        peers.close().await;
        ends.peers.take();
        Ok(Small { latency: caller.latency, wall, cpu })
    })?;
    let small = asking.join().map_err(|_| anyhow::anyhow!("the asking side died"))??;
    answering.join().map_err(|_| anyhow::anyhow!("the answering side died"))??;
    Ok(small)
}
