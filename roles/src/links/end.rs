//! The end of one core: sending, asking, fetching.

use super::{
    call::{Answerer, CallFailure, RemoteCall, RemoteReply},
    encoding::{Answered, Asked, decode_answered, encode_asked, encode_message},
    files::{Arrivals, RemoteFiles},
    metrics::{Counts, LinkMetrics, count},
    receiver::Receiver,
    roster::{Member, Roster},
    rotation::{LOOK_INTERVAL, Rotation},
};
use crate::replica::{Payload, Sources};
use bytes::Bytes;
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tidemill_peer::{Credentials, GlommioRt, Options, PeerId, Peers, Request, Rt, SendError, bind};
use tidemill_raft::{Body, ENTRIES_MAX, GroupId, MESSAGE_BYTES_MAX, Message, NodeId};

/// The longest raft message: entries weigh what [`tidemill_raft::ENTRY_OVERHEAD_BYTES`] says, which is more than they
/// take in an archive, and the rest of a message is small.
const PAYLOAD_BYTES_MAX: usize = MESSAGE_BYTES_MAX + (64 << 10);
const _: () = assert!(ENTRIES_MAX * 13 <= ENTRIES_MAX * tidemill_raft::ENTRY_OVERHEAD_BYTES);
/// Of two nodes the one with the higher number calls later: when two calls meet, one of the connections is given up, and
/// with it what was asked on it. It does call, because a node that was away is missed by the others only after a while.
const CALL_PAUSE: Duration = Duration::from_millis(250);
const NOT_STARTED: &str = "this node has no links yet, or no more";

/// The links of one core with the cores of other nodes that hold the same groups.
pub struct Links {
    roster: RefCell<Rc<Roster>>,
    core: u16,
    peers: RefCell<Option<Peers>>,
    background: RefCell<Option<GlommioRt>>,
    /// Once it is started: what runs the tasks, and the groups that decide whom it is linked with.
    started: RefCell<Option<(GlommioRt, Vec<GroupId>)>>,
    pub(super) counts: Counts,
    pub(super) arrivals: Arrivals,
}

/// What a core needs to speak with others.
pub struct Start {
    /// Where messages and calls are dealt with: somebody waits for them.
    pub rt: GlommioRt,
    /// Where files are read for others.
    pub background: GlommioRt,
    /// Of this core, its port its own.
    pub bind: SocketAddr,
    pub credentials: Credentials,
    /// As [`peer_options`] makes them.
    pub options: Options,
    /// Drawn at random at each start of the process.
    pub incarnation: u64,
    /// The groups that live on this core: they decide whom it is linked with.
    pub groups: Vec<GroupId>,
    pub answerer: Rc<dyn Answerer>,
}

/// Settings of the transport that let every raft message through.
pub fn peer_options(mtu: u16, seed: u64) -> Options {
    Options {
        mtu,
        seed,
        payload_bytes_max: PAYLOAD_BYTES_MAX as u32,
        // The largest message finds room beside others.
        raft_queue_bytes_max: 2 * PAYLOAD_BYTES_MAX,
        inbox_bytes_max: 2 * PAYLOAD_BYTES_MAX,
        // Each write that came to a node which does not lead is a request of its own.
        requests_max: 256,
        ..Options::default()
    }
}

impl Links {
    /// Links that drop what they are given until [`Links::start`].
    pub fn new(roster: Roster, core: u16) -> Rc<Links> {
        Rc::new(Links {
            roster: RefCell::new(Rc::new(roster)),
            core,
            peers: RefCell::default(),
            background: RefCell::default(),
            started: RefCell::default(),
            counts: Counts::default(),
            arrivals: Arrivals::default(),
        })
    }

    /// Listens, and keeps connections to all cores of other nodes that hold one of the groups.
    pub fn start(self: &Rc<Self>, start: Start) -> io::Result<()> {
        let Start { rt, background, bind: address, credentials, options, incarnation, groups, answerer } = start;
        let socket = bind(address, options.socket_buffer_bytes)?;
        let roster = self.roster();
        let me = self.me();
        *self.background.borrow_mut() = Some(background.clone());
        let handler = Rc::new(Receiver::new(self, answerer, rt.clone(), background));
        let peers = Peers::start(&rt, me, incarnation, socket, credentials, options, handler)?;
        *self.peers.borrow_mut() = Some(peers);
        for peer in roster.peers(&groups) {
            let no_port = || io::Error::new(io::ErrorKind::InvalidInput, format!("no port is left for core {peer}"));
            self.connect(&rt, peer, roster.address(peer).ok_or_else(no_port)?);
        }
        *self.started.borrow_mut() = Some((rt, groups));
        Ok(())
    }

    fn me(&self) -> PeerId {
        PeerId { node: tidemill_peer::NodeId(self.roster.borrow().node.0), core: self.core }
    }

    fn connect(self: &Rc<Self>, rt: &GlommioRt, peer: PeerId, address: SocketAddr) {
        if self.me() < peer {
            self.peers().inspect(|peers| peers.connect(peer, address));
            return;
        }
        let links = Rc::downgrade(self);
        rt.spawn(async move {
            GlommioRt::sleep(CALL_PAUSE).await;
            let links = links.upgrade().filter(|links| links.roster().address(peer) == Some(address));
            if let Some(peers) = links.and_then(|links| links.peers()) {
                peers.connect(peer, address);
            }
        });
    }

    /// From now on these are the nodes of the cluster: who came is called, who went is not heard any more.
    pub fn set_nodes(self: &Rc<Self>, nodes: BTreeMap<NodeId, Member>) {
        let before = self.roster();
        if before.nodes == nodes {
            return;
        }
        let after = Rc::new(Roster { nodes, ..Roster::clone(&before) });
        *self.roster.borrow_mut() = after.clone();
        let (Some((rt, groups)), Some(peers)) = (self.started.borrow().clone(), self.peers()) else { return };
        let is_kept = |peer: &PeerId| before.address(*peer) == after.address(*peer);
        for gone in before.peers(&groups).into_iter().filter(|peer| !is_kept(peer)) {
            peers.disconnect(gone);
        }
        for come in after.peers(&groups).into_iter().filter(|peer| !is_kept(peer)) {
            if let Some(address) = after.address(come) {
                self.connect(&rt, come, address);
            }
        }
    }

    pub fn roster(&self) -> Rc<Roster> {
        self.roster.borrow().clone()
    }

    /// Where this end listens; none unless it is started.
    pub fn address(&self) -> Option<SocketAddr> {
        self.peers.borrow().as_ref().map(Peers::address)
    }

    /// Whether the core that holds a group on another node can be reached.
    pub fn is_connected(&self, node: NodeId, group: GroupId) -> bool {
        let peer = self.roster().peer(node, group);
        peer.is_some_and(|peer| self.peers.borrow().as_ref().is_some_and(|peers| peers.is_connected(peer)))
    }

    /// Sends a raft message, or drops it: there may be no connection, or no room.
    pub fn send(&self, message: Message<Payload>) {
        let is_beat = matches!(message.body, Body::Heartbeat { .. } | Body::HeartbeatAnswer { .. });
        let outcome = self.try_send(&message, is_beat);
        count(match outcome {
            Ok(()) if is_beat => &self.counts.heartbeats_sent,
            Ok(()) => &self.counts.messages_sent,
            Err(_) => &self.counts.messages_dropped,
        });
    }

    fn try_send(&self, message: &Message<Payload>, is_beat: bool) -> Result<(), SendError> {
        let peers = self.peers.borrow();
        let peers = peers.as_ref().ok_or(SendError::NotConnected)?;
        let peer = self.roster().peer(message.to, message.group).ok_or(SendError::NotConnected)?;
        // Before entries are copied into a message that goes nowhere.
        if !peers.is_connected(peer) {
            return Err(SendError::NotConnected);
        }
        let (group, bytes) = (u64::from(message.group.0), encode_message(self.roster().shape, message));
        if is_beat { peers.send_heartbeat(peer, group, bytes) } else { peers.send(peer, group, bytes) }
    }

    /// Asks another node to do something with a group, and waits for so long.
    pub async fn call(
        &self,
        to: NodeId,
        group: GroupId,
        call: RemoteCall,
        limit: Duration,
    ) -> Result<RemoteReply, CallFailure> {
        count(&self.counts.calls);
        let is_sent = Cell::new(false);
        let asking = async {
            let mut request = self.ask(to, group, &Asked::Call(call)).await?;
            is_sent.set(true);
            self.reply(to, &mut request).await
        };
        let outcome = future::or(asking, async {
            GlommioRt::sleep(limit).await;
            let why = format!("no answer within {limit:?}");
            Err(if is_sent.get() { CallFailure::Unknown { to, why } } else { CallFailure::NotSent { to, why } })
        })
        .await;
        match &outcome {
            Ok(_) => {}
            Err(CallFailure::NotSent { .. }) => count(&self.counts.calls_not_sent),
            Err(CallFailure::Unknown { .. }) => count(&self.counts.calls_unknown),
        }
        outcome
    }

    /// The question is on its way.
    pub(super) async fn ask(&self, to: NodeId, group: GroupId, asked: &Asked) -> Result<Request, CallFailure> {
        let not_sent = |why: &dyn ToString| CallFailure::NotSent { to, why: why.to_string() };
        let peers = self.peers.borrow().clone().ok_or_else(|| not_sent(&NOT_STARTED))?;
        let peer = self.roster().peer(to, group).ok_or_else(|| not_sent(&"it is no other node of the cluster"))?;
        peers
            .request(peer, u64::from(group.0), encode_asked(self.roster().shape, asked))
            .await
            .map_err(|error| not_sent(&error))
    }

    async fn reply(&self, to: NodeId, request: &mut Request) -> Result<RemoteReply, CallFailure> {
        let unknown = |why: &dyn ToString| CallFailure::Unknown { to, why: why.to_string() };
        match self.answer(request).await {
            Ok(Answered::Reply(reply)) => Ok(reply),
            // It has certainly not done it.
            Ok(Answered::NotUnderstood) => {
                let why = "it does not understand what it was asked, or has other partitions or members";
                Err(CallFailure::NotSent { to, why: why.into() })
            }
            Ok(Answered::File(_) | Answered::Read { .. }) => Err(unknown(&"it answered something else")),
            Err(why) => Err(unknown(&why)),
        }
    }

    /// The whole answer to a question.
    pub(super) async fn answer(&self, request: &mut Request) -> Result<Answered, String> {
        let piece = request.next().await.map_err(|error| error.to_string())?;
        let piece: Bytes = piece.ok_or("an empty answer")?;
        let answered = self.decoded(&piece)?;
        // The end is on its way with it. If it is lost, the answer was there all the same.
        let _ = request.next().await;
        Ok(answered)
    }

    pub(super) fn decoded(&self, piece: &Bytes) -> Result<Answered, String> {
        decode_answered(self.roster().shape, piece).map_err(|error| {
            count(&self.counts.undecodable);
            error.to_string()
        })
    }

    /// The way to the files of the other nodes.
    pub fn sources(self: &Rc<Self>) -> Box<dyn Sources> {
        Box::new(RemoteFiles::new(self))
    }

    /// New connections are made with what the certificates' files say by then; those that exist go on. To be called once,
    /// behind [`Links::start`].
    pub fn follow(self: &Rc<Self>, rotation: &Arc<Rotation>) {
        let (links, rotation) = (Rc::downgrade(self), rotation.clone());
        let mut version = 0;
        let Some(rt) = self.background.borrow().clone() else { return };
        rt.spawn(async move {
            loop {
                GlommioRt::sleep(LOOK_INTERVAL).await;
                let Some(peers) = links.upgrade().and_then(|links| links.peers()) else { return };
                let newest = rotation.version();
                if newest != version {
                    version = newest;
                    peers.set_credentials(rotation.current());
                }
            }
        });
    }

    pub fn metrics(&self) -> LinkMetrics {
        self.counts.read(self.peers.borrow().as_ref().map(Peers::metrics))
    }

    pub(super) fn peers(&self) -> Option<Peers> {
        self.peers.borrow().clone()
    }

    /// Closes all connections, tells the other nodes, and ends the tasks. What is sent from now on is dropped.
    pub async fn close(&self) {
        let peers = self.peers.borrow_mut().take();
        if let Some(peers) = peers {
            peers.close().await;
        }
    }
}
