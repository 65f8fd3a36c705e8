//! Nodes in one executor, each with an answerer that writes down what comes.

use bytes::Bytes;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    rc::Rc,
    time::{Duration, Instant},
};
use tidemill::{
    links::{
        Answerer, Duty, Links, Member, ReadOutlet, RemoteCall, RemoteReply, Roster, Start, core_of, peer_options,
        read_file,
    },
    replica::{FilePart, LocalFuture, Payload, Pieces},
};
use tidemill_disk::{Notify, sim::SimDisk};
use tidemill_line::PartitionMap;
use tidemill_peer::{ClusterId, Credentials, GlommioRt, MTU_DEFAULT, Options, authority::Authority};
use tidemill_raft::{GroupId, Message, NodeId};

pub const CLUSTER: ClusterId = ClusterId([9; 16]);
/// Nothing of this takes so long unless it never comes; it bounds the test, it is not what is tested.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const DAY: Duration = Duration::from_secs(86_400);
pub const SHAPE: u64 = 77;
pub const FOLDER: &str = "partition";

/// The certificates and the addresses of a cluster.
pub struct Trust {
    pub authority: Authority,
    pub root_pem: String,
    pub nodes: BTreeMap<NodeId, Member>,
}

impl Trust {
    /// Nodes 1, 2 and so on, with so many cores.
    pub fn new(cores: &[u16]) -> Trust {
        let (authority, issued) = Authority::make(CLUSTER, DAY).unwrap();
        let member = |cores: u16| Member { address: free_ports(cores), cores, duty: Duty::Data { group: 0 } };
        let nodes = cores.iter().enumerate().map(|(at, cores)| (NodeId(at as u64 + 1), member(*cores))).collect();
        Trust { authority, root_pem: issued.certificate_pem, nodes }
    }

    pub fn credentials(&self, node: u64) -> Credentials {
        let node = tidemill_peer::NodeId(node);
        let issued = self.authority.issue(node, DAY).unwrap();
        let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
        Credentials::from_pem(CLUSTER, node, self.root_pem.as_bytes(), certificate, key).unwrap()
    }
}

/// Ports that follow each other and that nobody has now. Each test process looks in a range of its own, and takes none
/// twice.
fn free_ports(count: u16) -> SocketAddr {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..500 {
        let offset = NEXT.fetch_add(count, Ordering::Relaxed);
        let port = 21_000 + (std::process::id() % 40) as u16 * 200 + offset % 200;
        let is_free = |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if (port..port + count).all(is_free) {
            return SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        }
    }
    panic!("no free ports");
}

pub type Inlet = Box<dyn Fn(Message<Payload>)>;

/// What an answerer saw, and how it answers.
pub struct Seen {
    pub messages: RefCell<Vec<Message<Payload>>>,
    pub calls: RefCell<Vec<(NodeId, GroupId, RemoteCall)>>,
    pub reply: RefCell<RemoteReply>,
    /// Answers are held back.
    pub holds: Cell<bool>,
    pub goes_on: Notify,
    /// Answers that were dropped before they were given.
    pub dropped: Cell<u64>,
    pub disk: SimDisk,
    /// Takes messages, instead of the list.
    pub inlet: RefCell<Option<Inlet>>,
}

impl Seen {
    fn new(seed: u64) -> Seen {
        Seen {
            messages: RefCell::default(),
            calls: RefCell::default(),
            reply: RefCell::new(RemoteReply::Done(Ok(()))),
            holds: Cell::new(false),
            goes_on: Notify::new(),
            dropped: Cell::new(0),
            disk: SimDisk::new(seed),
            inlet: RefCell::default(),
        }
    }
}

struct Dropped(Rc<Seen>, bool);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.dropped.set(self.0.dropped.get() + u64::from(self.1));
    }
}

impl Answerer for Seen {
    fn message(&self, message: Message<Payload>) {
        match &*self.inlet.borrow() {
            Some(inlet) => inlet(message),
            None => self.messages.borrow_mut().push(message),
        }
    }

    fn answer(self: Rc<Self>, from: NodeId, group: GroupId, call: RemoteCall) -> LocalFuture<'static, RemoteReply> {
        self.calls.borrow_mut().push((from, group, call));
        Box::pin(async move {
            let mut dropped = Dropped(self.clone(), true);
            loop {
                let goes_on = self.goes_on.notified();
                if !self.holds.get() {
                    break;
                }
                goes_on.await;
            }
            dropped.1 = false;
            self.reply.borrow().clone()
        })
    }

    /// The order says how long the pieces are, four bytes each; behind them nothing comes while answers are held back.
    fn read(self: Rc<Self>, _: GroupId, order: Bytes, outlet: ReadOutlet) -> LocalFuture<'static, ()> {
        Box::pin(async move {
            let mut dropped = Dropped(self.clone(), true);
            for (number, length) in order.as_chunks::<4>().0.iter().enumerate() {
                let piece = pattern(number as u64, u32::from_le_bytes(*length) as usize);
                if outlet.send(piece).await.is_err() {
                    return;
                }
            }
            if self.holds.get() {
                return outlet.given_up().await;
            }
            dropped.1 = false;
            outlet.end().await;
        })
    }

    fn open_file(self: Rc<Self>, _: GroupId, part: FilePart) -> LocalFuture<'static, Result<Box<dyn Pieces>, String>> {
        read_file(self.disk.clone(), FOLDER.into(), part)
    }
}

/// One core of a node.
pub struct Core {
    pub links: Rc<Links>,
    pub seen: Rc<Seen>,
}

/// Small times, so that losses are found soon.
pub fn options() -> Options {
    Options {
        keep_alive: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(1500),
        redial_min: Duration::from_millis(20),
        redial_max: Duration::from_millis(100),
        socket_buffer_bytes: 1 << 20,
        ..peer_options(MTU_DEFAULT, 1)
    }
}

impl Core {
    /// Not started.
    pub fn new(trust: &Trust, node: u64, core: u16) -> Core {
        let roster = Roster {
            node: NodeId(node),
            nodes: trust.nodes.clone(),
            partitions: PartitionMap::single(64),
            shape: SHAPE,
        };
        Core { links: Links::new(roster, core), seen: Rc::new(Seen::new(node)) }
    }

    pub fn begin(&self, trust: &Trust, node: u64, core: u16, groups: &[GroupId]) {
        self.begin_with(trust, node, core, groups, trust.credentials(node));
    }

    pub fn begin_with(&self, trust: &Trust, node: u64, core: u16, groups: &[GroupId], credentials: Credentials) {
        thread_local!(static INCARNATION: Cell<u64> = const { Cell::new(1) });
        let member = trust.nodes[&NodeId(node)];
        let start = Start {
            rt: GlommioRt::new(None),
            background: GlommioRt::new(None),
            bind: member.address_of(core).unwrap(),
            credentials,
            options: options(),
            incarnation: INCARNATION.replace(INCARNATION.get() + 1),
            groups: groups.iter().copied().filter(|group| core_of(*group, member.cores) == core).collect(),
            answerer: self.seen.clone(),
        };
        self.links.start(start).unwrap();
    }

    pub fn start(trust: &Trust, node: u64, core: u16, groups: &[GroupId]) -> Core {
        let made = Core::new(trust, node, core);
        made.begin(trust, node, core, groups);
        made
    }

    pub async fn connected(&self, node: u64, group: GroupId) {
        until("a connection", || self.links.is_connected(NodeId(node), group)).await;
    }
}

/// Two nodes of one core, connected.
pub async fn pair(group: GroupId) -> (Trust, Core, Core) {
    let trust = Trust::new(&[1, 1]);
    let (one, two) = (Core::start(&trust, 1, 0, &[group]), Core::start(&trust, 2, 0, &[group]));
    one.connected(2, group).await;
    two.connected(1, group).await;
    (trust, one, two)
}

pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        pause(1).await;
    }
}

pub async fn pause(ms: u64) {
    glommio::timer::sleep(Duration::from_millis(ms)).await;
}

/// Runs a test in an executor.
pub fn run<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
    glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound)
        .io_memory(1 << 20)
        .spawn(move || async move { test().await })
        .unwrap()
        .join()
        .unwrap();
}

/// Bytes that tell where they belong.
pub fn pattern(seed: u64, length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length + 8);
    let mut number = seed;
    while bytes.len() < length {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}
