//! One connection: its streams, what waits to be sent on it, and what was read from it.
//!
//! ```text
//! dialled or accepted ─ TLS ─> node known ─ Hello ─> peer known ─> up ─> closing ─> drained
//! ```
//!
//! Invariants: before both Hellos only the peer's control stream is read, so that nothing of a stranger, or of a core that
//! is not who we called, is acted upon; a violation closes the connection and nothing read after it is handed out.
//! Knows no other connection: `driver` decides which of two survives.

use super::lane::SendLane;
use super::stream::{ReadEnd, Role, Stream};
use crate::frame::{Frame, FrameError, FrameKind};
use crate::identity::{ClusterId, IdentityError, NodeId, PeerId, node_of_certificate};
use crate::message::{ArchiveError, Heartbeat, Heartbeats, Hello, PROTOCOL_VERSION, archive, check};
use crate::metrics::PeerMetrics;
use crate::options::Options;
use bytes::Bytes;
use quinn_proto::{Connection, ConnectionError, Dir, Event, ReadError, ReadableError, StreamEvent, StreamId, VarInt};
use rustls::pki_types::CertificateDer;
use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;
use std::time::{Duration, Instant};

/// Reasons of ours for closing a connection or giving up a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Close {
    /// The owner stops, or has no more use for it.
    Done = 0,
    /// The peer broke the protocol.
    Violation = 1,
    /// There is another connection between the same two cores.
    Duplicate = 2,
    /// The certificate or the Hello names somebody else.
    Identity = 3,
    /// The handshake took too long.
    Late = 4,
}

impl Close {
    pub fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Violation {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{kind:?} on a stream of {role:?}")]
    OutOfPlace { kind: FrameKind, role: Role },
    #[error("protocol version {0}")]
    Version(u32),
    #[error("somebody else answered")]
    OtherPeer,
    #[error("a stream that must stay open has ended")]
    Ended,
}

/// What a connection tells its driver.
pub(crate) enum LinkOutput {
    Hello(Hello),
    Message { group: u64, payload: Bytes },
    Heartbeats(Bytes),
    Request { stream: StreamId, group: u64, payload: Bytes },
    File { stream: StreamId, group: u64, description: Bytes, length: u64 },
    Lost(ConnectionError),
}

pub(crate) struct Link {
    /// Never used again, unlike QUIC's handles.
    pub serial: u64,
    pub connection: Connection,
    /// Whom we called; none when we were called.
    pub dialled: Option<PeerId>,
    /// Who it is, as both certificate and Hello say.
    pub peer: Option<PeerId>,
    pub incarnation: u64,
    pub opened_at: Instant,
    pub is_lost: bool,
    /// In the driver's queue of connections that may have something to send.
    pub is_queued: bool,
    /// Something happened since [`Link::advance`].
    pub is_stirred: bool,
    pub deadline: Option<Instant>,
    /// Callers that wait for a stream, by direction.
    pub stream_wakers: [Vec<Waker>; 2],
    /// Senders that wait for room in the lanes.
    pub room_wakers: Vec<Waker>,
    pub last_round_trip: Duration,

    node: Option<NodeId>,
    control: SendLane,
    lanes: Vec<SendLane>,
    heartbeats: BTreeMap<u64, Bytes>,
    pub streams: BTreeMap<StreamId, Stream>,
    /// Streams of the driver's own roles that may have something to read.
    readable: BTreeSet<StreamId>,
    /// Lanes that are not read because the owner's inbox is full.
    parked: BTreeSet<StreamId>,
    /// Streams of the owner with something to send.
    writable: BTreeSet<StreamId>,
    has_bulk: bool,
}

impl Link {
    pub fn new(serial: u64, connection: Connection, dialled: Option<PeerId>, now: Instant) -> Link {
        Link {
            serial,
            connection,
            dialled,
            peer: None,
            incarnation: 0,
            opened_at: now,
            is_lost: false,
            is_queued: false,
            is_stirred: false,
            deadline: None,
            stream_wakers: [Vec::new(), Vec::new()],
            room_wakers: Vec::new(),
            last_round_trip: Duration::ZERO,
            node: None,
            control: SendLane::default(),
            lanes: Vec::new(),
            heartbeats: BTreeMap::new(),
            streams: BTreeMap::new(),
            readable: BTreeSet::new(),
            parked: BTreeSet::new(),
            writable: BTreeSet::new(),
            has_bulk: false,
        }
    }

    pub fn is_up(&self) -> bool {
        self.peer.is_some() && !self.is_lost
    }

    /// Who of the two called: the tie between two connections is broken by it.
    pub fn was_dialled(&self) -> bool {
        self.dialled.is_some()
    }

    /// Files or large answers are on their way: then packets leave in the largest batches.
    pub fn has_bulk(&self) -> bool {
        self.has_bulk
    }

    pub fn raft_queue_bytes(&self) -> usize {
        self.lanes.iter().map(SendLane::queued_bytes).sum()
    }

    pub fn queue_bytes(&self) -> usize {
        self.raft_queue_bytes()
            + self.control.queued_bytes()
            + self.streams.values().map(|stream| stream.lane.queued_bytes()).sum::<usize>()
    }

    pub fn push_raft(&mut self, group: u64, payload: Bytes) -> usize {
        let lane = (group % self.lanes.len() as u64) as usize;
        self.lanes[lane].push_frame(FrameKind::Raft, group, payload)
    }

    /// The newest heartbeat of a group replaces one that has not left yet. False: too many groups wait.
    pub fn push_heartbeat(&mut self, group: u64, payload: Bytes, groups_max: usize) -> bool {
        if self.heartbeats.len() >= groups_max && !self.heartbeats.contains_key(&group) {
            return false;
        }
        self.heartbeats.insert(group, payload);
        true
    }

    /// A stream of ours was written to.
    pub fn mark_writable(&mut self, id: StreamId) {
        self.writable.insert(id);
    }

    /// The inbox has room again; answers whether somebody waited for it.
    pub fn read_again(&mut self) -> bool {
        let is_awaited = !self.parked.is_empty();
        self.readable.append(&mut self.parked);
        is_awaited
    }

    /// Opens a stream for a request or a file, if the peer allows one more now.
    pub fn open(&mut self, role: Role, options: &Options) -> Option<StreamId> {
        let (dir, priority) = match role {
            Role::Asked => (Dir::Bi, PRIORITY_REQUEST),
            _ => (Dir::Uni, PRIORITY_FILE),
        };
        let id = self.connection.streams().open(dir)?;
        let _ = self.connection.send_stream(id).set_priority(priority);
        let mut stream = Stream::new(role, options.payload_bytes_max, SendLane::on(id));
        stream.is_held = true;
        self.streams.insert(id, stream);
        Some(id)
    }

    /// Takes QUIC's events, reads what may be read, hands over what waits.
    pub fn advance(&mut self, context: &mut Context<'_>) -> Result<(), Violation> {
        while let Some(event) = self.connection.poll() {
            self.take_event(event, context)?;
        }
        if self.is_lost {
            return Ok(());
        }
        self.read(context)?;
        self.flush(context);
        Ok(())
    }

    fn take_event(&mut self, event: Event, context: &mut Context<'_>) -> Result<(), Violation> {
        match event {
            Event::Connected => self.greet(context)?,
            Event::ConnectionLost { reason } => {
                self.lose();
                context.output.push(LinkOutput::Lost(reason));
            }
            Event::Stream(StreamEvent::Opened { dir }) => {
                while let Some(id) = self.connection.streams().accept(dir) {
                    let lane = if dir == Dir::Bi { SendLane::on(id) } else { SendLane::default() };
                    self.streams.insert(id, Stream::new(Role::Unknown, context.options.payload_bytes_max, lane));
                    self.readable.insert(id);
                }
            }
            Event::Stream(StreamEvent::Readable { id }) => self.note_readable(id),
            Event::Stream(StreamEvent::Writable { id }) => {
                self.writable.insert(id);
            }
            Event::Stream(StreamEvent::Finished { id }) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.is_acknowledged = true;
                    stream.wake_writer();
                }
                self.forget_if_done(id);
            }
            Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.stopped = Some(error_code);
                    stream.lane.clear();
                    stream.wake();
                    // RFC 9000 section 3.5: a stream that is stopped is reset.
                    let _ = self.connection.send_stream(id).reset(error_code);
                }
                self.forget_if_done(id);
            }
            Event::Stream(StreamEvent::Available { dir }) => {
                self.stream_wakers[dir as usize].drain(..).for_each(Waker::wake);
            }
            Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
        Ok(())
    }

    /// TLS is through: who is it by certificate, and our streams and our Hello.
    fn greet(&mut self, context: &mut Context<'_>) -> Result<(), Violation> {
        let identity = self.connection.crypto_session().peer_identity();
        let chain = identity.and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
        let own = chain.as_ref().and_then(|chain| chain.first()).ok_or(IdentityError::Names)?;
        let node = node_of_certificate(context.cluster, own)?;
        if self.dialled.is_some_and(|peer| peer.node != node) {
            return Err(Violation::OtherPeer);
        }
        self.node = Some(node);

        let mut open = |priority: i32| {
            let id = self.connection.streams().open(Dir::Uni).ok_or(Violation::Ended)?;
            let _ = self.connection.send_stream(id).set_priority(priority);
            Ok::<_, Violation>(SendLane::on(id))
        };
        self.control = open(PRIORITY_CONTROL)?;
        self.lanes = (0..context.options.raft_lanes).map(|_| open(PRIORITY_RAFT)).collect::<Result<_, _>>()?;
        let hello = Hello {
            version: PROTOCOL_VERSION,
            node: context.me.node.0,
            core: context.me.core,
            wanted: self.dialled.map(|peer| (peer.node.0, peer.core)),
            incarnation: context.incarnation,
        };
        self.control.push_frame(FrameKind::Hello, 0, archive(&hello)?);
        Ok(())
    }

    fn take_hello(&mut self, payload: &Bytes, context: &mut Context<'_>) -> Result<(), Violation> {
        let hello = check::<Hello>(payload)?;
        if hello.version != PROTOCOL_VERSION {
            return Err(Violation::Version(hello.version.to_native()));
        }
        let peer = PeerId { node: NodeId(hello.node.to_native()), core: hello.core.to_native() };
        let wanted = hello.wanted.as_ref().map(|wanted| (wanted.0.to_native(), wanted.1.to_native()));
        let is_us = wanted.is_none_or(|wanted| wanted == (context.me.node.0, context.me.core));
        let is_called = self.dialled.is_none_or(|dialled| dialled == peer);
        if self.node != Some(peer.node) || !is_us || !is_called || peer == context.me {
            return Err(Violation::OtherPeer);
        }
        self.peer = Some(peer);
        self.incarnation = hello.incarnation.to_native();
        // What arrived before the Hello was left alone.
        self.readable.extend(self.streams.keys());
        let hello = Hello {
            version: PROTOCOL_VERSION,
            node: peer.node.0,
            core: peer.core,
            wanted,
            incarnation: self.incarnation,
        };
        context.output.push(LinkOutput::Hello(hello));
        Ok(())
    }

    fn note_readable(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.role {
            Role::Asked | Role::FileIn { .. } => stream.wake_reader(),
            _ => {
                self.readable.insert(id);
            }
        }
    }

    /// Reads the streams that are not read by a handle of the owner, each once; what is left is for the next turn.
    fn read(&mut self, context: &mut Context<'_>) -> Result<(), Violation> {
        for id in std::mem::take(&mut self.readable) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let is_control = id.dir() == Dir::Uni && id.index() == 0;
            // Before the Hello the others stay as they are; it makes all of them readable again.
            if self.peer.is_none() && !is_control {
                continue;
            }
            if stream.role == Role::Raft && context.inbox_bytes() >= context.options.inbox_bytes_max {
                self.parked.insert(id);
                *context.is_inbox_full = true;
                continue;
            }
            if matches!(stream.role, Role::Asked | Role::FileIn { .. } | Role::FileOut { .. }) {
                continue;
            }
            let progress = read_frames(&mut self.connection, id, stream, context)?;
            let (role, is_between) = (stream.role, stream.reader.is_between_frames());
            let mut frames = std::mem::take(context.frames);
            for frame in frames.drain(..) {
                self.take_frame(id, frame, context)?;
            }
            *context.frames = frames;
            match (progress, role) {
                (Progress::Blocked, _) => {}
                (Progress::More, _) => {
                    self.readable.insert(id);
                }
                // They live as long as the connection.
                (Progress::End(_), Role::Control | Role::Raft) => return Err(Violation::Ended),
                (Progress::End(ReadEnd::Finished), _) if !is_between => return Err(Violation::Ended),
                (Progress::End(end), _) => {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.read_end = Some(end);
                    }
                    self.forget_if_done(id);
                }
            }
        }
        self.is_stirred |= !self.readable.is_empty();
        Ok(())
    }

    fn take_frame(&mut self, id: StreamId, frame: Frame, context: &mut Context<'_>) -> Result<(), Violation> {
        let Frame { kind, group, payload } = frame;
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let is_control = id.dir() == Dir::Uni && id.index() == 0;
        let out_of_place = Violation::OutOfPlace { kind, role: stream.role };
        context.metrics.bytes_copied_in += payload.len() as u64;
        match (stream.role, kind, id.dir()) {
            (Role::Unknown, FrameKind::Hello, Dir::Uni) if is_control => {
                stream.role = Role::Control;
                self.readable.insert(id);
                self.take_hello(&payload, context)?;
            }
            (Role::Control, FrameKind::Heartbeats, _) => {
                check::<Heartbeats>(&payload)?;
                context.output.push(LinkOutput::Heartbeats(payload));
            }
            (Role::Unknown, FrameKind::Raft, Dir::Uni) if !is_control => {
                stream.role = Role::Raft;
                self.readable.insert(id);
                context.output.push(LinkOutput::Message { group, payload });
            }
            (Role::Raft, FrameKind::Raft, _) => context.output.push(LinkOutput::Message { group, payload }),
            (Role::Unknown, FrameKind::Request, Dir::Bi) => {
                stream.role = Role::Asking;
                stream.is_held = true;
                self.readable.insert(id);
                let _ = self.connection.send_stream(id).set_priority(PRIORITY_REQUEST);
                context.output.push(LinkOutput::Request { stream: id, group, payload });
            }
            (Role::Unknown, FrameKind::FileHead, Dir::Uni) if !is_control => {
                let (length, description) = payload.split_first_chunk::<8>().ok_or(out_of_place)?;
                let length = u64::from_le_bytes(*length);
                stream.role = Role::FileIn { missing_bytes: length, crc: 0 };
                stream.is_held = true;
                let description = payload.slice_ref(description);
                context.output.push(LinkOutput::File { stream: id, group, description, length });
            }
            _ => return Err(out_of_place),
        }
        Ok(())
    }

    fn flush(&mut self, context: &mut Context<'_>) {
        if !self.heartbeats.is_empty() && self.control.is_idle() && self.peer.is_some() {
            let beats: Vec<Heartbeat> = std::mem::take(&mut self.heartbeats)
                .into_iter()
                .map(|(group, payload)| Heartbeat { group, payload: payload.into() })
                .collect();
            context.metrics.heartbeats_sent += beats.len() as u64;
            context.metrics.heartbeat_messages_sent += 1;
            if let Ok(payload) = archive(&Heartbeats { beats }) {
                context.metrics.bytes_copied_out += self.control.push_frame(FrameKind::Heartbeats, 0, payload) as u64;
            }
        }
        // Control and lanes are never stopped by a peer that keeps the protocol; a closed connection says so itself.
        let mut is_moved = self.control.flush(&mut self.connection).unwrap_or(false);
        for lane in &mut self.lanes {
            is_moved |= lane.flush(&mut self.connection).unwrap_or(false);
        }
        if is_moved
            && !self.room_wakers.is_empty()
            && self.raft_queue_bytes() * 2 <= context.options.raft_queue_bytes_max
        {
            self.room_wakers.drain(..).for_each(Waker::wake);
        }
        self.has_bulk = false;
        while let Some(id) = self.writable.pop_first() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let before = stream.lane.queued_bytes();
            self.has_bulk |= before > context.bulk_bytes_min;
            match stream.lane.flush(&mut self.connection) {
                Ok(_) if stream.lane.queued_bytes() < before => stream.wake_writer(),
                Ok(_) => {}
                Err(_) => stream.wake(),
            }
            self.forget_if_done(id);
        }
        self.has_bulk |= self.streams.values().any(|stream| matches!(stream.role, Role::FileOut { .. }));
    }

    /// The owner has dropped its handle.
    pub fn release(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.is_held = false;
        let is_sending = id.dir() == Dir::Bi || id.initiator() == self.connection.side();
        let is_receiving = id.dir() == Dir::Bi || id.initiator() != self.connection.side();
        if is_receiving && stream.read_end.is_none() && stream.role != Role::Asking {
            let _ = self.connection.recv_stream(id).stop(Close::Done.code());
            stream.read_end = Some(ReadEnd::Finished);
        }
        // What was not ended properly must not look whole.
        let is_ended = stream.lane.has_end();
        if is_sending && !is_ended && stream.stopped.is_none() {
            stream.lane.clear();
            let _ = self.connection.send_stream(id).reset(Close::Done.code());
            stream.stopped = Some(Close::Done.code());
        }
        self.forget_if_done(id);
    }

    /// Forgets a stream that nobody needs: not the owner, nor we for what is still to be sent or read.
    pub fn forget_if_done(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        let is_sending = id.dir() == Dir::Bi || id.initiator() == self.connection.side();
        let is_receiving = id.dir() == Dir::Bi || id.initiator() != self.connection.side();
        let is_sent = !is_sending || stream.stopped.is_some() || (stream.lane.has_end() && stream.lane.is_idle());
        let is_read = !is_receiving || stream.read_end.is_some();
        if !stream.is_held && is_sent && is_read {
            self.streams.remove(&id);
            self.readable.remove(&id);
            self.writable.remove(&id);
        }
    }

    pub fn close(&mut self, now: Instant, reason: Close) {
        self.connection.close(now, reason.code(), Bytes::new());
        self.lose();
    }

    /// Everybody who waits for this connection learns that it is over.
    fn lose(&mut self) {
        self.is_lost = true;
        self.lanes.iter_mut().for_each(SendLane::clear);
        self.control.clear();
        self.heartbeats.clear();
        self.readable.clear();
        self.writable.clear();
        self.streams.values_mut().for_each(|stream| {
            stream.lane.clear();
            stream.wake();
        });
        self.streams.retain(|_, stream| stream.is_held);
        self.room_wakers
            .drain(..)
            .chain(self.stream_wakers.iter_mut().flat_map(|wakers| wakers.drain(..)))
            .for_each(Waker::wake);
    }
}

const PRIORITY_CONTROL: i32 = 3;
const PRIORITY_RAFT: i32 = 2;
const PRIORITY_REQUEST: i32 = 1;
const PRIORITY_FILE: i32 = 0;

/// What a connection may use of its driver while it advances.
pub(crate) struct Context<'a> {
    pub cluster: ClusterId,
    pub me: PeerId,
    pub incarnation: u64,
    pub options: &'a Options,
    pub metrics: &'a mut PeerMetrics,
    pub output: &'a mut Vec<LinkOutput>,
    /// Room for the frames of one read.
    pub frames: &'a mut Vec<Frame>,
    /// Held by the owner before this turn.
    pub inbox_bytes_held: usize,
    pub is_inbox_full: &'a mut bool,
    pub bulk_bytes_min: usize,
}

impl Context<'_> {
    fn inbox_bytes(&self) -> usize {
        let fresh = self.output.iter().map(|output| match output {
            LinkOutput::Message { payload, .. } => payload.len(),
            _ => 0,
        });
        self.inbox_bytes_held + fresh.sum::<usize>()
    }
}

/// Reads frames into `context.frames` until the stream has no more now, or until a stream shows what it is for.
fn read_frames(
    connection: &mut Connection,
    id: StreamId,
    stream: &mut Stream,
    context: &mut Context<'_>,
) -> Result<Progress, Violation> {
    let mut source = connection.recv_stream(id);
    let mut chunks = match source.read(true) {
        Ok(chunks) => chunks,
        Err(ReadableError::ClosedStream) => return Ok(Progress::End(ReadEnd::Finished)),
        Err(ReadableError::IllegalOrderedRead) => return Err(Violation::Ended),
    };
    let mut read_bytes = 0;
    let progress = loop {
        // Behind the first frame may follow what is not framed.
        let length = if stream.role == Role::Unknown { stream.reader.wanted_bytes().max(1) } else { usize::MAX };
        match chunks.next(length) {
            Ok(Some(chunk)) => {
                let mut bytes = &chunk.bytes[..];
                read_bytes += bytes.len();
                while let Some(frame) = stream.reader.feed(&mut bytes)? {
                    context.frames.push(frame);
                }
            }
            Ok(None) => break Progress::End(ReadEnd::Finished),
            Err(ReadError::Blocked) => break Progress::Blocked,
            Err(ReadError::Reset(code)) => break Progress::End(ReadEnd::Reset(code)),
        }
        if read_bytes >= TURN_READ_BYTES_MAX || (stream.role == Role::Unknown && !context.frames.is_empty()) {
            break Progress::More;
        }
    };
    let _ = chunks.finalize();
    Ok(progress)
}

/// How a read ended.
enum Progress {
    Blocked,
    More,
    End(ReadEnd),
}

/// Read from one stream before others have their turn: about 100 us of copying and checking.
const TURN_READ_BYTES_MAX: usize = 512 << 10;
