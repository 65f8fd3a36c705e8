//! Files from disk to disk: two cores with the server's own links, beside the device alone.
//!
//! Both ends have their data folders below the same directory, so that one device reads and writes at once.

use crate::measure::{Bulk, Meter, pin};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::{
    cell::Cell,
    future::Future,
    io::{Read, Write},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tidemill::{
    data::message::CallError,
    links::{
        Answerer, Duty, Links, Member, ReadOutlet, RemoteCall, RemoteReply, Roster, Start, peer_options, read_file,
    },
    pool::slave::{Files, Way, fetch},
    replica::{FilePart, LocalFuture, Payload, Pieces},
};
use tidemill_disk::{Disk, DiskFile, Purpose, ReadAhead, WriteBehind};
use tidemill_line::PartitionMap;
use tidemill_peer::{ClusterId, Credentials, GlommioRt, authority::Authority};
use tidemill_pool::{FileId, Source};
use tidemill_raft::{GroupId, Message, NodeId};
use tidemill_reactor::{CoreContext, CoreError, ReactorOptions};

const CLUSTER: ClusterId = ClusterId([1; 16]);
const SENDER: NodeId = NodeId(1);
const RECEIVER: NodeId = NodeId(2);
const GROUP: GroupId = GroupId(0);
const FOLDER: &str = "source";
const NAME: &str = "g1/file.tsm";
const BLOCK_BYTES: usize = 1 << 20;
const READS_MAX: usize = 4;
const WRITES_MAX: usize = 3;
const PATIENCE: Duration = Duration::from_secs(600);

/// What is sent: a file of bytes that nothing can compress, not in the page cache.
pub struct Sample {
    folder: PathBuf,
    bytes: u64,
    file: FileId,
}

impl Sample {
    pub fn make(folder: &Path, bytes: u64) -> Result<Sample> {
        let folder = folder.to_owned();
        let path = folder.join("sender").join(FOLDER).join(NAME);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        let mut file = std::fs::File::create(&path)?;
        let mut hash = blake3::Hasher::new();
        let (mut block, mut state) = (vec![0; BLOCK_BYTES], 1u64);
        for at in (0..bytes).step_by(BLOCK_BYTES) {
            for word in block.as_chunks_mut::<8>().0 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *word = (state ^ (state >> 29)).to_le_bytes();
            }
            let count = (bytes - at).min(BLOCK_BYTES as u64) as usize;
            hash.update(&block[..count]);
            file.write_all(&block[..count])?;
        }
        file.sync_all()?;
        Ok(Sample { folder, bytes, file: FileId(*hash.finalize().as_bytes()) })
    }

    pub fn path(&self) -> PathBuf {
        self.folder.join("sender").join(FOLDER).join(NAME)
    }

    pub fn target(&self) -> PathBuf {
        self.folder.join("receiver").join("file.tsm")
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next read comes from the device.
    pub fn forget_cached(&self) -> Result<()> {
        let file = std::fs::File::open(self.path())?;
        // SAFETY: the descriptor is open; the kernel only drops clean pages.
        let failed = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        anyhow::ensure!(failed == 0, "the cache of the source cannot be dropped");
        Ok(())
    }

    /// Compares what arrived, and removes it.
    pub fn check(&self, target: &Path) -> Result<()> {
        let mut file = std::fs::File::open(target)?;
        let (mut hash, mut block) = (blake3::Hasher::new(), vec![0; BLOCK_BYTES]);
        loop {
            let count = file.read(&mut block)?;
            if count == 0 {
                break;
            }
            hash.update(&block[..count]);
        }
        anyhow::ensure!(*hash.finalize().as_bytes() == self.file.0, "what arrived is not what was sent");
        Ok(std::fs::remove_file(target)?)
    }
}

/// Runs on a core of a data folder, in a thread of its own, and answers what came of it.
fn on_core<T: Send + 'static, F: Future<Output = Result<T>> + 'static>(
    core: usize,
    folder: PathBuf,
    work: impl Fn(CoreContext<()>) -> F + Clone + Send + 'static,
) -> JoinHandle<Result<T>> {
    std::thread::spawn(move || {
        // The reactor takes the first of the cores that its thread may use.
        pin(core % std::thread::available_parallelism().map_or(1, usize::from));
        let outcome = Arc::new(Mutex::new(None));
        let kept = outcome.clone();
        tidemill_reactor::run(ReactorOptions::new(1, folder), move |context: CoreContext<()>| {
            let (work, kept) = (work.clone(), kept.clone());
            async move {
                let worked = work(context.clone()).await;
                context.mail.close();
                if let Ok(mut kept) = kept.lock() {
                    *kept = Some(worked);
                }
                Ok::<(), CoreError>(())
            }
        })?;
        let outcome = outcome.lock().ok().and_then(|mut outcome| outcome.take());
        outcome.context("the core has ended early")?
    })
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a core died"))?
}

/// What the device is to do alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Direction {
    Read,
    Write,
    Both,
}

/// Reads and writes of the same sizes as on the way between nodes.
pub fn device(sample: &Sample, direction: Direction) -> Result<Bulk> {
    sample.forget_cached()?;
    let bytes = sample.bytes;
    let measuring = on_core(0, sample.folder.join("sender"), move |context| async move {
        let meter = Meter::start();
        let reading = async {
            if direction == Direction::Write {
                return Ok::<(), anyhow::Error>(());
            }
            let file = Rc::new(context.disk.open(&format!("{FOLDER}/{NAME}"), Purpose::Data).await?);
            let mut reading = ReadAhead::new(file, 0..bytes, 512 << 10, READS_MAX);
            while reading.next().await?.is_some() {}
            Ok(())
        };
        let writing = async {
            if direction == Direction::Read {
                return Ok::<(), anyhow::Error>(());
            }
            let file = Rc::new(context.disk.create("written", Purpose::Data).await?);
            let mut writing = WriteBehind::new(file.clone(), 0, BLOCK_BYTES, WRITES_MAX);
            for _ in 0..bytes / BLOCK_BYTES as u64 {
                let room = writing.room().len();
                writing.advance(room).await?;
            }
            writing.flush().await?;
            Ok(file.sync_data().await?)
        };
        let (read, written) = futures_lite::future::zip(reading, writing).await;
        read.and(written)?;
        let (wall, cpu) = meter.seconds();
        Ok(Bulk { bytes, wall, cpu, note: String::new() })
    });
    let bulk = joined(measuring);
    let _ = std::fs::remove_file(sample.folder.join("sender/written"));
    bulk
}

/// How the receiver takes the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Taking {
    /// As a replica takes a file: one stream, written and synced.
    Stream,
    /// As a pool slave does: by ranges, hashed, with a journal, renamed.
    Pool,
}

/// Certificates and addresses of both ends.
#[derive(Clone)]
struct Pair {
    root: String,
    issued: [(String, String); 2],
    addresses: [SocketAddr; 2],
    mtu: u16,
}

impl Pair {
    fn make(mtu: u16) -> Result<Pair> {
        let day = Duration::from_secs(86_400);
        let (authority, root) = Authority::make(CLUSTER, day)?;
        let issue = |node: NodeId| -> Result<(String, String)> {
            let issued = authority.issue(tidemill_peer::NodeId(node.0), day)?;
            Ok((issued.certificate_pem, issued.key_pem))
        };
        // Both are held until both are known, or they could be the same.
        let sockets = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
        let addresses = [sockets[0].local_addr()?, sockets[1].local_addr()?];
        Ok(Pair { root: root.certificate_pem, issued: [issue(SENDER)?, issue(RECEIVER)?], addresses, mtu })
    }

    fn links(&self, context: &CoreContext<()>, node: NodeId) -> Result<Rc<Links>> {
        let at = usize::from(node == RECEIVER);
        let member = |at: usize| Member { address: self.addresses[at], cores: 1, duty: Duty::Data { group: 0 } };
        let nodes = [(SENDER, member(0)), (RECEIVER, member(1))].into();
        let links = Links::new(Roster { node, nodes, partitions: PartitionMap::single(1), shape: 1 }, 0);
        let (certificate, key) = &self.issued[at];
        let root = self.root.as_bytes();
        let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
        links.start(Start {
            rt: GlommioRt::new(Some(context.queues.latency)),
            background: GlommioRt::new(Some(context.queues.background)),
            bind: self.addresses[at],
            credentials: Credentials::from_pem(CLUSTER, tidemill_peer::NodeId(node.0), root, certificate, key)?,
            options: peer_options(self.mtu, context.seed.random_u64()),
            incarnation: context.seed.random_u64(),
            groups: vec![GROUP],
            answerer: Rc::new(Node { context: context.clone() }),
        })?;
        Ok(links)
    }
}

struct Node {
    context: CoreContext<()>,
}

impl Answerer for Node {
    fn message(&self, _: Message<Payload>) {}

    fn answer(self: Rc<Self>, _: NodeId, _: GroupId, _: RemoteCall) -> LocalFuture<'static, RemoteReply> {
        Box::pin(async { RemoteReply::Done(Err(CallError::Unknown("nothing is answered here".into()))) })
    }

    fn read(self: Rc<Self>, _: GroupId, _: Bytes, outlet: ReadOutlet) -> LocalFuture<'static, ()> {
        // Dropped before its end: there is no answer.
        drop(outlet);
        Box::pin(async {})
    }

    fn open_file(self: Rc<Self>, _: GroupId, part: FilePart) -> LocalFuture<'static, Result<Box<dyn Pieces>, String>> {
        read_file(self.context.disk.clone(), FOLDER.into(), part)
    }
}

/// A file from the disk of one core to the disk of another.
pub fn ours(sample: &Sample, mtu: u16, taking: Taking) -> Result<Bulk> {
    sample.forget_cached()?;
    let pair = Pair::make(mtu)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let (of_sender, is_over_there) = (pair.clone(), is_over.clone());
    let sender = on_core(0, sample.folder.join("sender"), move |context| {
        send(context, of_sender.clone(), is_over_there.clone())
    });
    let (bytes, file) = (sample.bytes, sample.file);
    let receiver = on_core(1, sample.folder.join("receiver"), move |context| {
        let pair = pair.clone();
        async move { receive(&context, &pair, (file, bytes), taking).await }
    });
    let received = joined(receiver);
    is_over.store(true, Ordering::Release);
    let copied_out = joined(sender)?;
    let (mut bulk, copied_in) = received?;
    bulk.note = format!(
        "copied: sender {:.2}, receiver {:.2} of the file",
        copied_out as f64 / bytes as f64,
        copied_in as f64 / bytes as f64
    );
    let target = match taking {
        Taking::Stream => sample.target(),
        Taking::Pool => sample.folder.join("receiver/pool/files").join(format!("{file}.tsm")),
    };
    sample.check(&target)?;
    Ok(bulk)
}

/// Serves until it is told to stop; answers how many bytes of files were copied.
async fn send(context: CoreContext<()>, pair: Pair, is_over: Arc<AtomicBool>) -> Result<u64> {
    let links = pair.links(&context, SENDER)?;
    while !is_over.load(Ordering::Acquire) {
        context.sleep(Duration::from_millis(5)).await;
    }
    let copied = links.metrics().peer.map_or(0, |peer| peer.file_bytes_copied_out);
    links.close().await;
    Ok(copied)
}

async fn receive(
    context: &CoreContext<()>,
    pair: &Pair,
    (file, bytes): (FileId, u64),
    taking: Taking,
) -> Result<(Bulk, u64)> {
    let links = pair.links(context, RECEIVER)?;
    let begun = Instant::now();
    while !links.is_connected(SENDER, GROUP) {
        anyhow::ensure!(begun.elapsed() < PATIENCE, "no connection");
        context.sleep(Duration::from_millis(1)).await;
    }
    let meter = Meter::start();
    match taking {
        Taking::Stream => take_stream(context, &links, bytes).await?,
        Taking::Pool => take_as_slave(context, &links, (file, bytes)).await?,
    }
    let (wall, cpu) = meter.seconds();
    let copied = links.metrics().peer.map_or(0, |peer| peer.file_bytes_copied_in);
    links.close().await;
    Ok((Bulk { bytes, wall, cpu, note: String::new() }, copied))
}

async fn take_stream(context: &CoreContext<()>, links: &Rc<Links>, bytes: u64) -> Result<()> {
    let sources = links.sources();
    let opened = sources.open(SENDER, GROUP, FilePart::head(NAME, bytes)).await;
    let mut inflow = opened.map_err(anyhow::Error::msg)?;
    let file = Rc::new(context.disk.create("file.tsm", Purpose::Data).await?);
    let mut writing = WriteBehind::new(file.clone(), 0, BLOCK_BYTES, WRITES_MAX);
    loop {
        let room = writing.room();
        let wanted = room.len();
        let count = inflow.fill(room).await.map_err(anyhow::Error::msg)?;
        writing.advance(count).await?;
        if count < wanted {
            break;
        }
    }
    writing.flush().await?;
    file.set_len(bytes).await?;
    file.sync_data().await?;
    Ok(context.disk.sync_dir("").await?)
}

async fn take_as_slave(context: &CoreContext<()>, links: &Rc<Links>, file: (FileId, u64)) -> Result<()> {
    Files::open(context.disk.clone()).await?;
    let wait = |duration: Duration| -> Box<dyn Fn() -> LocalFuture<'static, ()>> {
        Box::new(move || {
            Box::pin(async move {
                glommio::timer::sleep(duration).await;
            })
        })
    };
    let way = Way {
        sources: links.sources(),
        own: RECEIVER,
        stall: wait(Duration::from_secs(30)),
        pause: wait(Duration::from_secs(1)),
    };
    let source = Source::Data { node: SENDER.0, partition: GROUP.0, name: NAME.into() };
    Ok(fetch(&context.disk, file, &[source], &way, &Cell::new(0)).await?)
}
