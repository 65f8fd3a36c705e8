//! Raft messages: what arrives, what is dropped, what is refused.

use crate::harness::{Core, SHAPE, Trust, options, pair, pattern, pause, run, until};
use bytes::Bytes;
use std::{net::UdpSocket, rc::Rc};
use tidemill::{links::encoding::encode_message, replica::Payload};
use tidemill_peer::{FileReceiver, GlommioRt, Handler, HeartbeatBatch, Inquiry, PeerId, PeerState, Peers, bind};
use tidemill_raft::{Body, Content, Entry, EntryId, GroupId, LogIndex, Message, NodeId, Term};

const GROUP: GroupId = GroupId(4);

fn message(from: u64, to: u64, body: Body<Payload>) -> Message<Payload> {
    Message { group: GROUP, from: NodeId(from), to: NodeId(to), term: Term(3), body }
}

fn append(payload: Bytes) -> Body<Payload> {
    let content = Content::Data(Payload::Logged(payload));
    let entry = Entry { term: Term(2), index: LogIndex(8), content };
    Body::Append { previous: EntryId { term: Term(1), index: LogIndex(7) }, entries: vec![entry], commit: LogIndex(6) }
}

#[test]
fn messages_and_heartbeats_arrive_as_they_were_sent() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        let sent: Vec<Message<Payload>> =
            [1, 5_000, 3 << 20].map(|length| message(1, 2, append(pattern(length as u64, length)))).into();
        sent.iter().cloned().for_each(|message| one.links.send(message));
        until("messages", || two.seen.messages.borrow().len() == sent.len()).await;
        assert_eq!(two.seen.messages.take(), sent);
        let beat = message(2, 1, Body::Heartbeat { commit: LogIndex(4), round: 9 });
        two.links.send(beat.clone());
        until("a heartbeat", || !one.seen.messages.borrow().is_empty()).await;
        assert_eq!(one.seen.messages.take(), [beat]);
        let metrics = two.links.metrics();
        assert_eq!((metrics.heartbeats_sent, metrics.messages_received, metrics.messages_dropped), (1, 3, 0));
        assert_eq!(metrics.peer.unwrap().heartbeats_sent, 1);
        one.links.close().await;
        two.links.close().await;
    });
}

#[test]
fn the_largest_message_of_raft_gets_through() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        let payload = pattern(5, tidemill_raft::MESSAGE_BYTES_MAX - tidemill_raft::ENTRY_OVERHEAD_BYTES);
        let sent = message(1, 2, append(payload));
        assert!(sent.check().is_ok());
        one.links.send(sent.clone());
        until("a large message", || !two.seen.messages.borrow().is_empty()).await;
        assert!(two.seen.messages.take() == [sent]);
    });
}

#[test]
fn a_message_without_a_way_is_dropped_and_counted() {
    run(|| async {
        let trust = Trust::new(&[1, 1]);
        let one = Core::new(&trust, 1, 0);
        one.links.send(message(1, 2, Body::TimeoutNow));
        one.begin(&trust, 1, 0, &[GROUP]);
        one.links.send(message(1, 2, Body::TimeoutNow));
        one.links.send(message(1, 7, Body::TimeoutNow));
        one.links.send(message(1, 1, Body::TimeoutNow));
        assert_eq!((one.links.metrics().messages_dropped, one.links.metrics().messages_sent), (4, 0));
        one.links.close().await;
        one.links.send(message(1, 2, Body::TimeoutNow));
        assert_eq!(one.links.metrics().messages_dropped, 5);
    });
}

#[test]
fn a_full_queue_drops_instead_of_waiting() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        // Nothing of this is handed to the transport before the executor has a turn.
        let large = message(1, 2, append(pattern(1, 16 << 20)));
        (0..6).for_each(|_| one.links.send(large.clone()));
        let metrics = one.links.metrics();
        assert!(metrics.messages_dropped > 0 && metrics.messages_sent >= 4, "{metrics:?}");
        until("what was taken", || two.seen.messages.borrow().len() as u64 == metrics.messages_sent).await;
    });
}

#[test]
fn a_node_that_comes_back_is_heard_again() {
    run(|| async {
        let (trust, one, two) = pair(GROUP).await;
        two.links.close().await;
        until("the loss", || !one.links.is_connected(NodeId(2), GROUP)).await;
        drop(two);
        // The executor and the kernel may still be letting go of the port.
        let address = trust.nodes[&NodeId(2)].address;
        until("a free port", || UdpSocket::bind(address).is_ok()).await;
        let two = Core::start(&trust, 2, 0, &[GROUP]);
        one.connected(2, GROUP).await;
        one.links.send(message(1, 2, Body::TimeoutNow));
        until("a message", || !two.seen.messages.borrow().is_empty()).await;
    });
}

#[test]
fn groups_reach_the_cores_they_live_on() {
    run(|| async {
        let trust = Trust::new(&[2, 3]);
        let groups: Vec<GroupId> = (0..12).map(GroupId).collect();
        let ones: Vec<Core> = (0..2).map(|core| Core::start(&trust, 1, core, &groups)).collect();
        let twos: Vec<Core> = (0..3).map(|core| Core::start(&trust, 2, core, &groups)).collect();
        for group in &groups {
            let (from, to) = (&ones[group.0 as usize % 2], &twos[group.0 as usize % 3]);
            from.connected(2, *group).await;
            from.links.send(Message { group: *group, ..message(1, 2, Body::TimeoutNow) });
            until("a message", || !to.seen.messages.borrow().is_empty()).await;
            assert_eq!(to.seen.messages.take()[0].group, *group);
            to.connected(1, *group).await;
            to.links.send(Message { group: *group, ..message(2, 1, Body::StaleTerm) });
            until("an answer", || !from.seen.messages.borrow().is_empty()).await;
            from.seen.messages.take();
        }
        assert!(ones.iter().chain(&twos).all(|core| core.links.metrics().foreign == 0));
    });
}

/// A node that says what it wants.
struct Mute;

impl Handler for Mute {
    fn message(&self, _: tidemill_peer::Message) {}
    fn heartbeats(&self, _: HeartbeatBatch) {}
    fn request(&self, _: Inquiry) {}
    fn file(&self, _: FileReceiver) {}
    fn state(&self, _: PeerId, _: PeerState) {}
}

async fn liar(trust: &Trust, node: u64) -> (Peers, PeerId) {
    let me = PeerId { node: tidemill_peer::NodeId(node), core: 0 };
    let socket = bind("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
    let (rt, credentials) = (GlommioRt::new(None), trust.credentials(node));
    let peers = Peers::start(&rt, me, 77, socket, credentials, options(), Rc::new(Mute)).unwrap();
    let victim = PeerId { node: tidemill_peer::NodeId(1), core: 0 };
    peers.connect(victim, trust.nodes[&NodeId(1)].address);
    until("a connection", || peers.is_connected(victim)).await;
    (peers, victim)
}

#[test]
fn messages_in_other_names_for_others_and_of_no_sense_are_refused() {
    run(|| async {
        let trust = Trust::new(&[1, 1, 1]);
        let one = Core::start(&trust, 1, 0, &[GROUP]);
        let (peers, victim) = liar(&trust, 2).await;
        let send = |message: &Message<Payload>| {
            peers.send(victim, u64::from(GROUP.0), encode_message(SHAPE, message)).unwrap()
        };
        send(&message(3, 1, Body::TimeoutNow));
        send(&message(2, 3, Body::TimeoutNow));
        let beat = encode_message(SHAPE, &message(3, 1, Body::HeartbeatAnswer { round: 1 }));
        peers.send_heartbeat(victim, u64::from(GROUP.0), beat).unwrap();
        until("three lies", || one.links.metrics().foreign == 3).await;
        let nonsense = [b"no archive at all", &SHAPE.to_le_bytes()[..]].concat();
        peers.send(victim, u64::from(GROUP.0), nonsense.into()).unwrap();
        peers.send(victim, u64::from(GROUP.0), Bytes::new()).unwrap();
        peers.send(victim, u64::MAX, encode_message(SHAPE, &message(2, 1, Body::TimeoutNow))).unwrap();
        until("three pieces of nonsense", || one.links.metrics().undecodable == 3).await;
        peers.send(victim, u64::from(GROUP.0), encode_message(SHAPE + 1, &message(2, 1, Body::TimeoutNow))).unwrap();
        until("another shape", || one.links.metrics().misshapen == 1).await;
        // It is told from what is true.
        send(&message(2, 1, Body::TimeoutNow));
        until("a message", || !one.seen.messages.borrow().is_empty()).await;
        assert_eq!(one.seen.messages.take(), [message(2, 1, Body::TimeoutNow)]);
    });
}

#[test]
fn a_node_with_a_certificate_that_is_none_of_the_cluster_is_refused() {
    run(|| async {
        let trust = Trust::new(&[1, 1]);
        let one = Core::start(&trust, 1, 0, &[GROUP]);
        let (peers, victim) = liar(&trust, 9).await;
        peers.send(victim, u64::from(GROUP.0), encode_message(SHAPE, &message(9, 1, Body::TimeoutNow))).unwrap();
        let mut request = peers.request(victim, u64::from(GROUP.0), Bytes::from_static(b"?")).await.unwrap();
        assert!(request.next().await.is_err());
        until("two refusals", || one.links.metrics().foreign == 2).await;
        pause(5).await;
        assert!(one.seen.messages.borrow().is_empty() && one.seen.calls.borrow().is_empty());
    });
}
