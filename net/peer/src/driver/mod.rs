//! All connections of one core as a state machine: datagrams, time and the owner's wishes in; datagrams and events out.
//!
//! ```text
//! handle_datagram, handle_timeouts, connect, send, .. ─> Driver ─> poll_transmit, poll_event, poll_timeout
//! ```
//!
//! Owns QUIC's endpoint, the connections (`link`), who is to be called and when, and which of two connections between
//! the same two cores survives:
//!
//! 1. a connection to a process that has been started since the other one was made wins: the other one is dead;
//! 2. else, of two that the same side called, the newer wins: that side has given up the older one;
//! 3. else the one that the lower [`PeerId`] called wins.
//!
//! Both sides know the same of both connections, so both keep the same one, whatever arrives first.
//!
//! Invariants: at most one connection per peer is up; no call returns to the owner while the driver is borrowed; a
//! connection that has something to send has its turn before another one has its second. Knows no socket, no executor.

mod handles;
mod lane;
mod link;
mod redial;
mod stream;

pub use handles::StreamError;

use crate::credentials::Credentials;
use crate::frame::Frame;
use crate::identity::{PeerId, certificate_name};
use crate::message::Hello;
use crate::metrics::PeerMetrics;
use crate::options::{MTU_MIN, Options};
use bytes::{Bytes, BytesMut};
use link::{Close, Context, Link, LinkOutput};
use quinn_proto::{
    ClientConfig, ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint, EndpointConfig, Incoming,
    MtuDiscoveryConfig, ServerConfig, StreamId, Transmit, TransportConfig, VarInt,
};
use redial::Redial;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// QUIC draws its first packets' timers from this until it has measured: a LAN, with room.
const ROUND_TRIP_FIRST: Duration = Duration::from_millis(10);
/// A stream with more than this waiting is bulk.
const BULK_BYTES_MIN: usize = 256 << 10;
/// Datagrams in one batch when nothing is bulk. A window of small messages that leaves in one batch also comes back as
/// one; in several, sender and receiver work at the same time.
const SMALL_BATCH_DATAGRAMS: usize = 10;
/// Bytes of one batch: the kernel's limit for one UDP datagram before segmentation is 65 507.
const BATCH_BYTES_MAX: usize = 65_000;

/// A stream of a connection, as handles of the owner know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamKey {
    pub link: ConnectionHandle,
    pub serial: u64,
    pub stream: StreamId,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("there is no connection to the peer")]
    NotConnected,
    #[error("too many bytes wait for the peer")]
    Full,
    #[error("the message is longer than the peer takes")]
    TooLong,
}

/// What happens to the connection of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Messages can be sent. After a loss nothing that was sent before arrives any more.
    Connected,
    /// What was sent and not answered may have arrived or not. Peers that were asked for are called again.
    Lost { reason: String },
}

/// What the owner is told.
pub(crate) enum DriverEvent {
    Message { from: PeerId, group: u64, payload: Bytes },
    Heartbeats { from: PeerId, payload: Bytes },
    Request { from: PeerId, key: StreamKey, group: u64, payload: Bytes },
    File { from: PeerId, key: StreamKey, group: u64, description: Bytes, length: u64 },
    State { peer: PeerId, state: PeerState },
}

/// What is due at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Link(usize),
    Greeted(usize, u64),
    Redial(PeerId),
}

/// What the driver knows of a peer.
struct Peer {
    /// To be called when there is no connection; none: it calls us, or nobody does.
    address: Option<SocketAddr>,
    up: Option<ConnectionHandle>,
    calling: Option<ConnectionHandle>,
    redial: Redial,
    redial_at: Option<Instant>,
}

pub(crate) struct Driver {
    me: PeerId,
    incarnation: u64,
    options: Arc<Options>,
    credentials: Credentials,
    client: ClientConfig,
    endpoint: Endpoint,
    links: BTreeMap<usize, Link>,
    peers: BTreeMap<PeerId, Peer>,
    /// Connections that may have something to send, in the order of their turns.
    queue: VecDeque<usize>,
    due: BTreeSet<(Instant, Due)>,
    events: VecDeque<DriverEvent>,
    /// Answers of the endpoint itself: Retry, resets, refusals.
    responses: VecDeque<(Transmit, Vec<u8>)>,
    metrics: PeerMetrics,
    inbox_bytes: Rc<Cell<usize>>,
    is_inbox_full: bool,
    next_serial: u64,
    output: Vec<LinkOutput>,
    frames: Vec<Frame>,
    batch_datagrams_max: usize,
    is_closing: bool,
}

impl Driver {
    pub fn new(
        me: PeerId,
        credentials: Credentials,
        options: Options,
        segments_max: usize,
        incarnation: u64,
    ) -> Driver {
        options.assert_sound();
        assert_eq!(credentials.node, me.node, "the credentials are those of another node");
        let options = Arc::new(options);
        let mut config = EndpointConfig::default();
        let payload_max = options.mtu_probe_max.unwrap_or(options.mtu).max(options.mtu).max(1472);
        config.max_udp_payload_size(payload_max).expect("the MTU was checked");
        let transport = Arc::new(transport(&options));
        let server = server_config(&credentials, &transport, &options);
        let endpoint = Endpoint::new(Arc::new(config), Some(server), true, None);
        let batch_datagrams_max = (BATCH_BYTES_MAX / usize::from(payload_max)).min(segments_max).max(1);
        let client = client_config(&credentials, transport);
        Driver {
            me,
            incarnation,
            credentials,
            client,
            endpoint,
            links: BTreeMap::new(),
            peers: BTreeMap::new(),
            queue: VecDeque::new(),
            due: BTreeSet::new(),
            events: VecDeque::new(),
            responses: VecDeque::new(),
            metrics: PeerMetrics::new(),
            inbox_bytes: Rc::default(),
            is_inbox_full: false,
            next_serial: 0,
            output: Vec::new(),
            frames: Vec::new(),
            batch_datagrams_max,
            is_closing: false,
            options,
        }
    }

    /// New connections use these; the others live on with what they were made with.
    pub fn set_credentials(&mut self, credentials: Credentials) {
        assert_eq!(credentials.node, self.me.node, "the credentials are those of another node");
        let transport = Arc::new(transport(&self.options));
        self.endpoint.set_server_config(Some(server_config(&credentials, &transport, &self.options)));
        self.client = client_config(&credentials, transport);
        self.credentials = credentials;
    }

    /// Calls the peer until it answers, and again whenever the connection is lost.
    pub fn connect(&mut self, peer: PeerId, address: SocketAddr, now: Instant) {
        assert_ne!(peer, self.me, "a core does not call itself");
        let entry = self.peer_entry(peer);
        entry.address = Some(address);
        if entry.up.is_none() && entry.calling.is_none() {
            self.dial(peer, now);
        }
    }

    /// Closes the connection of the peer and calls it no more. It may still call us.
    pub fn disconnect(&mut self, peer: PeerId, now: Instant) {
        let Some(entry) = self.peers.remove(&peer) else { return };
        if let Some(at) = entry.redial_at {
            self.due.remove(&(at, Due::Redial(peer)));
        }
        for handle in entry.up.into_iter().chain(entry.calling) {
            self.close_link(handle, Close::Done, now);
        }
        if entry.up.is_some() {
            let state = PeerState::Lost { reason: "disconnected by its owner".into() };
            self.events.push_back(DriverEvent::State { peer, state });
        }
    }

    /// Closes all connections; after this nothing is called or accepted.
    pub fn close(&mut self, now: Instant) {
        self.is_closing = true;
        self.endpoint.set_server_config(None);
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.disconnect(peer, now));
        let rest: Vec<usize> = self.links.keys().copied().collect();
        rest.into_iter().for_each(|handle| self.close_link(ConnectionHandle(handle), Close::Done, now));
    }

    pub fn has_connections(&self) -> bool {
        !self.links.is_empty()
    }

    pub fn is_connected(&self, peer: PeerId) -> bool {
        self.up(peer).is_some()
    }

    /// Queues a raft message.
    pub fn send(&mut self, peer: PeerId, group: u64, payload: Bytes) -> Result<(), SendError> {
        let outcome = self.try_send(peer, group, payload);
        match outcome {
            Ok(()) => self.metrics.messages_sent += 1,
            Err(_) => self.metrics.messages_refused += 1,
        }
        outcome
    }

    fn try_send(&mut self, peer: PeerId, group: u64, payload: Bytes) -> Result<(), SendError> {
        let handle = self.up(peer).ok_or(SendError::NotConnected)?;
        let link = self.links.get_mut(&handle.0).ok_or(SendError::NotConnected)?;
        if payload.len() > self.options.payload_bytes_max as usize {
            return Err(SendError::TooLong);
        }
        if link.raft_queue_bytes() + payload.len() > self.options.raft_queue_bytes_max {
            return Err(SendError::Full);
        }
        self.metrics.bytes_copied_out += link.push_raft(group, payload) as u64;
        self.stir(handle);
        Ok(())
    }

    /// Queues the newest heartbeat of a group.
    pub fn send_heartbeat(&mut self, peer: PeerId, group: u64, payload: Bytes) -> Result<(), SendError> {
        let handle = self.up(peer).ok_or(SendError::NotConnected)?;
        let link = self.links.get_mut(&handle.0).ok_or(SendError::NotConnected)?;
        if payload.len() > HEARTBEAT_BYTES_MAX {
            return Err(SendError::TooLong);
        }
        if !link.push_heartbeat(group, payload, self.options.heartbeat_groups_max) {
            return Err(SendError::Full);
        }
        self.stir(handle);
        Ok(())
    }

    /// Whether a message of this length would be refused for want of room; then the waker is woken when there is some,
    /// or when the connection is lost.
    pub fn wait_for_room(&mut self, peer: PeerId, length: usize, waker: &Waker) -> bool {
        let Some(link) = self.up(peer).and_then(|handle| self.links.get_mut(&handle.0)) else { return false };
        let is_full =
            link.raft_queue_bytes() > 0 && link.raft_queue_bytes() + length > self.options.raft_queue_bytes_max;
        if is_full && !link.room_wakers.iter().any(|known| known.will_wake(waker)) {
            link.room_wakers.push(waker.clone());
        }
        is_full
    }

    pub fn inbox(&self) -> Rc<Cell<usize>> {
        self.inbox_bytes.clone()
    }

    /// The owner has dropped messages.
    pub fn inbox_has_room(&mut self) {
        if std::mem::take(&mut self.is_inbox_full) {
            let waiting: Vec<usize> =
                self.links.iter_mut().filter_map(|(handle, link)| link.read_again().then_some(*handle)).collect();
            waiting.into_iter().for_each(|handle| self.stir(ConnectionHandle(handle)));
        }
    }

    pub fn is_inbox_full(&self) -> bool {
        self.is_inbox_full
    }

    pub fn handle_datagram(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: Option<IpAddr>,
        ecn: Option<EcnCodepoint>,
        datagram: BytesMut,
    ) {
        self.metrics.datagrams_received += 1;
        self.metrics.bytes_received += datagram.len() as u64;
        let mut response = Vec::new();
        match self.endpoint.handle(now, remote, local, ecn, datagram, &mut response) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(link) = self.links.get_mut(&handle.0) {
                    link.connection.handle_event(event);
                    self.stir(handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.answer_call(incoming, now),
            Some(DatagramEvent::Response(transmit)) => self.respond(transmit, response),
            None => {}
        }
    }

    /// Does what was due until now.
    pub fn handle_timeouts(&mut self, now: Instant) {
        while let Some((at, due)) = self.due.first().copied() {
            if at > now {
                break;
            }
            self.due.pop_first();
            match due {
                Due::Link(handle) => {
                    if let Some(link) = self.links.get_mut(&handle) {
                        link.deadline = None;
                        link.connection.handle_timeout(now);
                        self.stir(ConnectionHandle(handle));
                    }
                }
                Due::Greeted(handle, serial) => {
                    let is_late =
                        self.links.get(&handle).is_some_and(|link| link.serial == serial && link.peer.is_none());
                    if is_late {
                        self.fail_link(ConnectionHandle(handle), Close::Late, "the handshake took too long", now);
                    }
                }
                Due::Redial(peer) => {
                    if let Some(entry) = self.peers.get_mut(&peer) {
                        entry.redial_at = None;
                        self.dial(peer, now);
                    }
                }
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    pub fn poll_event(&mut self) -> Option<DriverEvent> {
        self.events.pop_front()
    }

    /// The next batch of datagrams, in `buffer`. Every connection has its turn.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        buffer.clear();
        if let Some((transmit, bytes)) = self.responses.pop_front() {
            buffer.extend_from_slice(&bytes);
            self.count_transmit(&transmit);
            return Some(transmit);
        }
        while let Some(handle) = self.queue.pop_front() {
            self.advance(ConnectionHandle(handle), now);
            let Some(link) = self.links.get_mut(&handle) else { continue };
            let batch = if link.has_bulk() { usize::MAX } else { SMALL_BATCH_DATAGRAMS }.min(self.batch_datagrams_max);
            let transmit = link.connection.poll_transmit(now, batch, buffer);
            if transmit.is_some() || link.is_stirred {
                self.queue.push_back(handle);
            } else {
                link.is_queued = false;
                self.settle(ConnectionHandle(handle));
            }
            if let Some(transmit) = transmit {
                self.count_transmit(&transmit);
                return Some(transmit);
            }
            // What was read goes to the owner before more is read.
            if !self.events.is_empty() {
                return None;
            }
        }
        None
    }

    pub fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.responses.is_empty() || !self.events.is_empty()
    }

    pub fn metrics_mut(&mut self) -> &mut PeerMetrics {
        &mut self.metrics
    }

    pub fn metrics(&self) -> PeerMetrics {
        let mut metrics = self.metrics.clone();
        for link in self.links.values() {
            let path = link.connection.stats().path;
            metrics.packets_lost += path.lost_packets;
            metrics.bytes_lost += path.lost_bytes;
            metrics.congestion_events += path.congestion_events;
            metrics.connections += usize::from(link.is_up());
            metrics.send_queue_bytes += link.queue_bytes();
        }
        metrics.inbox_bytes = self.inbox_bytes.get();
        metrics
    }

    fn count_transmit(&mut self, transmit: &Transmit) {
        self.metrics.sends += 1;
        self.metrics.bytes_sent += transmit.size as u64;
        self.metrics.datagrams_sent +=
            transmit.segment_size.map_or(1, |segment| transmit.size.div_ceil(segment)) as u64;
    }

    fn peer_entry(&mut self, peer: PeerId) -> &mut Peer {
        let options = &self.options;
        self.peers.entry(peer).or_insert_with(|| Peer {
            address: None,
            up: None,
            calling: None,
            redial: Redial::new(options, peer),
            redial_at: None,
        })
    }

    fn up(&self, peer: PeerId) -> Option<ConnectionHandle> {
        self.peers.get(&peer).and_then(|entry| entry.up)
    }

    /// The connection has a turn coming.
    fn stir(&mut self, handle: ConnectionHandle) {
        if let Some(link) = self.links.get_mut(&handle.0) {
            link.is_stirred = true;
            if !std::mem::replace(&mut link.is_queued, true) {
                self.queue.push_back(handle.0);
            }
        }
    }

    fn respond(&mut self, transmit: Transmit, bytes: Vec<u8>) {
        // Answers to strangers are dropped rather than queued without bound; callers repeat themselves.
        if self.responses.len() < RESPONSES_MAX {
            self.responses.push_back((transmit, bytes));
        }
    }

    fn answer_call(&mut self, incoming: Incoming, now: Instant) {
        let mut response = Vec::new();
        let handshakes = self.links.values().filter(|link| link.peer.is_none() && !link.is_lost).count();
        if self.links.len() >= self.options.connections_max || handshakes >= self.options.handshakes_max {
            self.metrics.calls_refused += 1;
            let transmit = self.endpoint.refuse(incoming, &mut response);
            return self.respond(transmit, response);
        }
        if handshakes >= self.options.retry_above && !incoming.remote_address_validated() && incoming.may_retry() {
            self.metrics.calls_retried += 1;
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut response) {
                self.respond(transmit, response);
            }
            return;
        }
        match self.endpoint.accept(incoming, now, &mut response, None) {
            Ok((handle, connection)) => {
                self.metrics.calls_accepted += 1;
                self.insert_link(handle, connection, None, now);
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.respond(transmit, response);
                }
            }
        }
    }

    fn dial(&mut self, peer: PeerId, now: Instant) {
        let name = certificate_name(self.credentials.cluster, peer.node);
        let Some(entry) = self.peers.get(&peer) else { return };
        let Some(address) = entry.address else { return };
        if self.is_closing || entry.up.is_some() || entry.calling.is_some() {
            return;
        }
        self.metrics.calls_made += 1;
        match self.endpoint.connect(now, self.client.clone(), address, &name) {
            Ok((handle, connection)) => {
                self.insert_link(handle, connection, Some(peer), now);
                self.peer_entry(peer).calling = Some(handle);
            }
            Err(error) => {
                tracing::warn!(%peer, %address, %error, "the peer cannot be called");
                self.redial_later(peer, now);
            }
        }
    }

    fn redial_later(&mut self, peer: PeerId, now: Instant) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.address.is_none() || entry.up.is_some() || entry.calling.is_some() || entry.redial_at.is_some() {
            return;
        }
        let at = now + entry.redial.pause();
        entry.redial_at = Some(at);
        self.due.insert((at, Due::Redial(peer)));
    }

    fn insert_link(
        &mut self,
        handle: ConnectionHandle,
        connection: quinn_proto::Connection,
        dialled: Option<PeerId>,
        now: Instant,
    ) {
        let serial = self.next_serial;
        self.next_serial += 1;
        self.links.insert(handle.0, Link::new(serial, connection, dialled, now));
        self.due.insert((now + self.options.handshake_timeout, Due::Greeted(handle.0, serial)));
        self.stir(handle);
    }

    /// Lets a connection work off what happened to it.
    fn advance(&mut self, handle: ConnectionHandle, now: Instant) {
        let Some(link) = self.links.get_mut(&handle.0) else { return };
        if !std::mem::take(&mut link.is_stirred) {
            return;
        }
        let mut is_drained = false;
        while let Some(event) = link.connection.poll_endpoint_events() {
            is_drained |= event.is_drained();
            if let Some(event) = self.endpoint.handle_event(handle, event) {
                link.connection.handle_event(event);
            }
        }
        let mut context = Context {
            cluster: self.credentials.cluster,
            me: self.me,
            incarnation: self.incarnation,
            options: &self.options,
            metrics: &mut self.metrics,
            output: &mut self.output,
            frames: &mut self.frames,
            inbox_bytes_held: self.inbox_bytes.get(),
            is_inbox_full: &mut self.is_inbox_full,
            bulk_bytes_min: BULK_BYTES_MIN,
        };
        let outcome = link.advance(&mut context);
        let round_trip = link.connection.rtt();
        if round_trip != link.last_round_trip && link.is_up() {
            link.last_round_trip = round_trip;
            self.metrics.record_round_trip(round_trip);
        }
        let mut output = std::mem::take(&mut self.output);
        for output in output.drain(..) {
            self.take_output(handle, output, now);
        }
        self.output = output;
        if let Err(violation) = outcome {
            self.metrics.violations += 1;
            self.frames.clear();
            let reason = match &violation {
                link::Violation::OtherPeer | link::Violation::Identity(_) => Close::Identity,
                _ => Close::Violation,
            };
            let text = violation.to_string();
            tracing::warn!(error = %text, "a peer broke the protocol");
            self.fail_link(handle, reason, &text, now);
        }
        if is_drained {
            self.forget_link(handle);
        }
    }

    fn take_output(&mut self, handle: ConnectionHandle, output: LinkOutput, now: Instant) {
        let Some(link) = self.links.get(&handle.0) else { return };
        let serial = link.serial;
        if let LinkOutput::Lost(reason) = output {
            self.note_loss(handle, &reason.to_string(), now);
            return;
        }
        if let LinkOutput::Hello(hello) = output {
            self.welcome(handle, &hello, now);
            return;
        }
        // Of a connection that lost against another one nothing is taken any more.
        let Some(from) = link.peer.filter(|peer| !link.is_lost && self.up(*peer) == Some(handle)) else { return };
        let key = |stream| StreamKey { link: handle, serial, stream };
        self.events.push_back(match output {
            LinkOutput::Message { group, payload } => {
                self.metrics.messages_received += 1;
                self.inbox_bytes.set(self.inbox_bytes.get() + payload.len());
                DriverEvent::Message { from, group, payload }
            }
            LinkOutput::Heartbeats(payload) => DriverEvent::Heartbeats { from, payload },
            LinkOutput::Request { stream, group, payload } => {
                DriverEvent::Request { from, key: key(stream), group, payload }
            }
            LinkOutput::File { stream, group, description, length } => {
                DriverEvent::File { from, key: key(stream), group, description, length }
            }
            LinkOutput::Hello(_) | LinkOutput::Lost(_) => return,
        });
    }

    /// The peer has said who it is: this connection is up, unless there is a better one.
    fn welcome(&mut self, handle: ConnectionHandle, hello: &Hello, now: Instant) {
        let Some(link) = self.links.get(&handle.0) else { return };
        let Some(peer) = link.peer else { return };
        let (is_ours, incarnation) = (link.was_dialled(), hello.incarnation);
        let me = self.me;
        let entry = self.peer_entry(peer);
        if entry.calling == Some(handle) {
            entry.calling = None;
        }
        let older = entry.up;
        let is_better = match older.and_then(|older| self.links.get(&older.0)) {
            None => true,
            Some(older) if older.incarnation != incarnation => true,
            Some(older) if older.was_dialled() == is_ours => true,
            Some(_) => is_ours == (me < peer),
        };
        if !is_better {
            self.metrics.connections_superseded += 1;
            self.close_link(handle, Close::Duplicate, now);
            return;
        }
        if let Some(older) = older {
            self.metrics.connections_superseded += 1;
            self.close_link(older, Close::Duplicate, now);
            let state = PeerState::Lost { reason: "a newer connection took its place".into() };
            self.events.push_back(DriverEvent::State { peer, state });
        }
        let entry = self.peer_entry(peer);
        entry.up = Some(handle);
        entry.redial.reset();
        if let Some(at) = entry.redial_at.take() {
            self.due.remove(&(at, Due::Redial(peer)));
        }
        self.events.push_back(DriverEvent::State { peer, state: PeerState::Connected });
    }

    /// Closes a connection that its peer or its slowness made useless.
    fn fail_link(&mut self, handle: ConnectionHandle, reason: Close, text: &str, now: Instant) {
        self.close_link(handle, reason, now);
        self.note_loss(handle, text, now);
    }

    fn close_link(&mut self, handle: ConnectionHandle, reason: Close, now: Instant) {
        if let Some(link) = self.links.get_mut(&handle.0) {
            if !link.is_lost {
                link.close(now, reason);
            }
            self.stir(handle);
        }
    }

    /// A connection is over: its peer is told as lost, and called again later.
    fn note_loss(&mut self, handle: ConnectionHandle, reason: &str, now: Instant) {
        let Some(link) = self.links.get(&handle.0) else { return };
        let Some(peer) = link.peer.or(link.dialled) else { return };
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.calling == Some(handle) {
            entry.calling = None;
            tracing::debug!(%peer, reason, "a call failed");
        } else if entry.up == Some(handle) {
            entry.up = None;
            self.metrics.connections_lost += 1;
            let state = PeerState::Lost { reason: reason.to_owned() };
            self.events.push_back(DriverEvent::State { peer, state });
            if entry.address.is_none() {
                self.peers.remove(&peer);
            }
        }
        self.redial_later(peer, now);
    }

    fn forget_link(&mut self, handle: ConnectionHandle) {
        let Some(link) = self.links.remove(&handle.0) else { return };
        if let Some(at) = link.deadline {
            self.due.remove(&(at, Due::Link(handle.0)));
        }
        self.due.remove(&(link.opened_at + self.options.handshake_timeout, Due::Greeted(handle.0, link.serial)));
        let path = link.connection.stats().path;
        self.metrics.packets_lost += path.lost_packets;
        self.metrics.bytes_lost += path.lost_bytes;
        self.metrics.congestion_events += path.congestion_events;
    }

    /// Nothing to do for a connection now: when next?
    fn settle(&mut self, handle: ConnectionHandle) {
        let Some(link) = self.links.get_mut(&handle.0) else { return };
        let deadline = link.connection.poll_timeout();
        if deadline != link.deadline {
            if let Some(at) = link.deadline {
                self.due.remove(&(at, Due::Link(handle.0)));
            }
            if let Some(at) = deadline {
                self.due.insert((at, Due::Link(handle.0)));
            }
            link.deadline = deadline;
        }
    }
}

/// A heartbeat says little; what is longer is a message.
const HEARTBEAT_BYTES_MAX: usize = 1 << 10;
/// Answers to strangers that wait for the socket.
const RESPONSES_MAX: usize = 256;
/// Of packets that arrived before their connection was accepted; we accept or refuse at once.
const INCOMING_BYTES_MAX: u64 = 64 << 10;

fn transport(options: &Options) -> TransportConfig {
    let window = |bytes: u64| VarInt::from_u64(bytes).unwrap_or(VarInt::MAX);
    let mut transport = TransportConfig::default();
    transport
        .initial_mtu(options.mtu)
        .min_mtu(MTU_MIN)
        .mtu_discovery_config(options.mtu_probe_max.map(|max| {
            let mut discovery = MtuDiscoveryConfig::default();
            discovery.upper_bound(max);
            discovery
        }))
        .max_concurrent_uni_streams(VarInt::from_u32(options.one_way_streams_max()))
        .max_concurrent_bidi_streams(VarInt::from_u32(options.requests_max))
        .stream_receive_window(VarInt::from_u32(options.stream_window_bytes))
        .receive_window(window(options.connection_window_bytes()))
        .send_window(options.connection_window_bytes())
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(options.keep_alive))
        .max_idle_timeout(Some(options.idle_timeout.try_into().expect("an idle timeout of years")))
        .initial_rtt(ROUND_TRIP_FIRST);
    transport
}

fn server_config(credentials: &Credentials, transport: &Arc<TransportConfig>, options: &Options) -> Arc<ServerConfig> {
    let mut server = ServerConfig::with_crypto(credentials.server.clone());
    server
        .transport_config(transport.clone())
        .max_incoming(options.handshakes_max)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX * 64);
    Arc::new(server)
}

fn client_config(credentials: &Credentials, transport: Arc<TransportConfig>) -> ClientConfig {
    let mut client = ClientConfig::new(credentials.client.clone());
    client.transport_config(transport);
    client
}
