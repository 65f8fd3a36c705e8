//! Nodes of one cluster in one executor, each with a handler that writes down what comes.

use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tidemill_peer::authority::{Authority, Issued};
use tidemill_peer::{
    ClusterId, Credentials, FileReceiver, GlommioRt, Handler, HeartbeatBatch, Inquiry, Message, NodeId, Options,
    PeerId, PeerState, Peers, bind, certificate_name,
};

pub const CLUSTER: ClusterId = ClusterId([7; 16]);
/// Nothing of this takes so long unless it never comes; it bounds the test, it is not what is tested.
pub const PATIENCE: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);

pub fn peer(node: u64) -> PeerId {
    PeerId { node: NodeId(node), core: 0 }
}

/// The authority of a cluster and its certificate.
pub struct Trust {
    pub cluster: ClusterId,
    pub authority: Authority,
    pub root_pem: String,
    key_pem: String,
}

impl Trust {
    pub fn new(cluster: ClusterId) -> Trust {
        let (authority, issued) = Authority::make(cluster, DAY).unwrap();
        Trust { cluster, authority, root_pem: issued.certificate_pem, key_pem: issued.key_pem }
    }

    /// The credentials of a node of another cluster whose certificates this authority signs too.
    pub fn credentials_in(&self, cluster: ClusterId, node: u64) -> Credentials {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("tidemill cluster {}", self.cluster));
        let issuer = rcgen::Issuer::new(params, rcgen::KeyPair::from_pem(&self.key_pem).unwrap());
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([certificate_name(cluster, NodeId(node))]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        let roots = self.root_pem.as_bytes();
        Credentials::from_pem(cluster, NodeId(node), roots, certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    pub fn credentials(&self, node: u64) -> Credentials {
        self.credentials_of(node, &self.authority.issue(NodeId(node), DAY).unwrap(), &self.root_pem)
    }

    pub fn credentials_of(&self, node: u64, issued: &Issued, roots: &str) -> Credentials {
        Credentials::from_pem(
            self.cluster,
            NodeId(node),
            roots.as_bytes(),
            issued.certificate_pem.as_bytes(),
            issued.key_pem.as_bytes(),
        )
        .unwrap()
    }
}

/// Groups and payloads of one message.
pub type Beats = Vec<(u64, Vec<u8>)>;

/// What a handler saw.
#[derive(Default)]
pub struct Seen {
    pub messages: RefCell<VecDeque<Message>>,
    /// Drop messages at once, counting them.
    pub is_dropping: Cell<bool>,
    pub dropped: Cell<u64>,
    pub beats: RefCell<Vec<Beats>>,
    pub inquiries: RefCell<VecDeque<Inquiry>>,
    pub files: RefCell<VecDeque<FileReceiver>>,
    pub states: RefCell<Vec<(PeerId, PeerState)>>,
    /// Answers each raft message with itself.
    pub echo: RefCell<Option<Peers>>,
}

impl Handler for Seen {
    fn message(&self, message: Message) {
        if let Some(peers) = &*self.echo.borrow() {
            let _ = peers.send(message.from, message.group, message.payload.clone());
        }
        if self.is_dropping.get() {
            self.dropped.set(self.dropped.get() + 1);
        } else {
            self.messages.borrow_mut().push_back(message);
        }
    }

    fn heartbeats(&self, batch: HeartbeatBatch) {
        self.beats.borrow_mut().push(batch.beats().map(|(group, payload)| (group, payload.to_vec())).collect());
    }

    fn request(&self, inquiry: Inquiry) {
        self.inquiries.borrow_mut().push_back(inquiry);
    }

    fn file(&self, file: FileReceiver) {
        self.files.borrow_mut().push_back(file);
    }

    fn state(&self, peer: PeerId, state: PeerState) {
        self.states.borrow_mut().push((peer, state));
    }
}

impl Seen {
    pub fn connected_count(&self) -> usize {
        self.states.borrow().iter().filter(|(_, state)| *state == PeerState::Connected).count()
    }
}

pub struct Node {
    pub id: PeerId,
    pub peers: Peers,
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
        ..Options::default()
    }
}

impl Node {
    pub fn start(trust: &Trust, node: u64, options: Options) -> Node {
        Node::start_with(trust.credentials(node), node, options)
    }

    pub fn start_with(credentials: Credentials, node: u64, options: Options) -> Node {
        Node::start_at("127.0.0.1:0", credentials, node, options)
    }

    pub fn start_at(address: &str, credentials: Credentials, node: u64, options: Options) -> Node {
        thread_local!(static INCARNATION: Cell<u64> = const { Cell::new(1) });
        let incarnation = INCARNATION.replace(INCARNATION.get() + 1);
        let seen = Rc::new(Seen::default());
        // The kernel may still be letting go of a port that was in use a moment ago.
        let socket = (0..200)
            .find_map(|_| {
                let bound = bind(address.parse().unwrap(), options.socket_buffer_bytes).ok();
                bound.or_else(|| {
                    std::thread::sleep(Duration::from_millis(10));
                    None
                })
            })
            .unwrap();
        let rt = GlommioRt::new(None);
        let id = peer(node);
        let peers = Peers::start(&rt, id, incarnation, socket, credentials, options, seen.clone()).unwrap();
        Node { id, peers, seen }
    }

    pub fn connect(&self, other: &Node) {
        self.peers.connect(other.id, other.peers.address());
    }

    pub async fn connected(&self, other: &Node) {
        until("a connection", || self.peers.is_connected(other.id)).await;
    }

    pub async fn message(&self) -> Message {
        until("a message", || !self.seen.messages.borrow().is_empty()).await;
        self.seen.messages.borrow_mut().pop_front().unwrap()
    }

    pub async fn inquiry(&self) -> Inquiry {
        until("a request", || !self.seen.inquiries.borrow().is_empty()).await;
        self.seen.inquiries.borrow_mut().pop_front().unwrap()
    }

    pub async fn file(&self) -> FileReceiver {
        until("a file", || !self.seen.files.borrow().is_empty()).await;
        self.seen.files.borrow_mut().pop_front().unwrap()
    }
}

pub async fn pair(options: Options) -> (Node, Node) {
    let trust = Trust::new(CLUSTER);
    let (one, two) = (Node::start(&trust, 1, options.clone()), Node::start(&trust, 2, options));
    one.connect(&two);
    one.connected(&two).await;
    two.connected(&one).await;
    (one, two)
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
