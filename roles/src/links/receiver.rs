//! What arrives from other nodes: judged, decoded, handed on.

use super::{
    call::Answerer,
    encoding::{Answered, Asked, DecodeError, decode_asked, decode_message, encode_answered, shape_of},
    end::Links,
    files::{FileOrder, serve_file},
    metrics::{Counts, count},
    read::ReadOutlet,
    roster::Roster,
};
use bytes::Bytes;
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::{Rc, Weak},
};
use tidemill_peer::{FileReceiver, GlommioRt, Handler, HeartbeatBatch, Inquiry, PeerId, PeerState, Rt};
use tidemill_raft::{GroupId, NodeId};

pub(super) struct Receiver {
    /// The links hold the transport, which holds this.
    links: Weak<Links>,
    answerer: Rc<dyn Answerer>,
    rt: GlommioRt,
    background: GlommioRt,
    /// Nodes of which that was told.
    misshapen: RefCell<BTreeSet<tidemill_peer::NodeId>>,
    /// As those, of nodes with a certificate of the cluster that are none of it.
    strangers: RefCell<BTreeSet<tidemill_peer::NodeId>>,
}

impl Receiver {
    pub fn new(links: &Rc<Links>, answerer: Rc<dyn Answerer>, rt: GlommioRt, background: GlommioRt) -> Receiver {
        let links = Rc::downgrade(links);
        Receiver { links, answerer, rt, background, misshapen: RefCell::default(), strangers: RefCell::default() }
    }

    /// A raft message, if it is from whom it says and for us.
    fn take(&self, links: &Links, from: PeerId, group: u64, bytes: &Bytes) {
        let counts = &links.counts;
        let decoded = group_of(group).and_then(|group| decode_message(links.roster().shape, group, bytes));
        let message = match decoded {
            Ok(message) => message,
            Err(error) => return self.refuse_undecodable(counts, from, error),
        };
        let roster = links.roster();
        self.note_stranger(&roster, from);
        if message.from.0 != from.node.0 || message.to != roster.node || !roster.has(message.from) {
            return refuse(&counts.foreign, from, &"a message in another node's name, or for another node");
        }
        count(&counts.messages_received);
        self.answerer.message(message);
    }

    fn answer(&self, links: Rc<Links>, inquiry: Inquiry, group: GroupId, asked: Asked) {
        let from = NodeId(inquiry.from.node.0);
        match asked {
            Asked::Call(call) => {
                let answer = self.answerer.clone().answer(from, group, call);
                self.rt.spawn(async move {
                    let answer = async { Some(answer.await) };
                    let reply = future::or(answer, async {
                        inquiry.given_up().await;
                        None
                    });
                    if let Some(reply) = reply.await {
                        count(&links.counts.calls_answered);
                        // If the other node is gone it knows that it has no answer.
                        let _ =
                            inquiry.finish_with(encode_answered(links.roster().shape, &Answered::Reply(reply))).await;
                    }
                });
            }
            Asked::Read(order) => {
                count(&links.counts.reads_answered);
                let outlet = ReadOutlet::new(inquiry, links.roster().shape);
                self.rt.spawn(self.answerer.clone().read(group, order, outlet));
            }
            Asked::File { part, number } => {
                let order = FileOrder { to: inquiry.from, group, part, number };
                self.background.spawn(serve_file(links, self.answerer.clone(), inquiry, order));
            }
        }
    }

    /// Says it once of each, and again after it was a member.
    fn note_stranger(&self, roster: &Roster, from: PeerId) {
        let node = from.node.0;
        if roster.has(NodeId(node)) {
            self.strangers.borrow_mut().remove(&from.node);
        } else if self.strangers.borrow_mut().insert(from.node) {
            tracing::warn!(node, "a node that is none of the cluster, or not any more, is not heard");
        }
    }

    fn refuse_undecodable(&self, counts: &Counts, from: PeerId, error: DecodeError) {
        if error != DecodeError::Shape {
            return refuse(&counts.undecodable, from, &error);
        }
        count(&counts.misshapen);
        if self.misshapen.borrow_mut().insert(from.node) {
            let node = from.node.0;
            tracing::error!(node, "a node has other partitions or members in its [cluster] section: it is not heard");
        }
    }

    fn with_links(&self, act: impl FnOnce(&Rc<Links>)) {
        if let Some(links) = self.links.upgrade() {
            act(&links);
        }
    }
}

impl Handler for Receiver {
    fn message(&self, message: tidemill_peer::Message) {
        self.with_links(|links| {
            let (from, group) = (message.from, message.group);
            self.take(links, from, group, &message.into_payload());
        });
    }

    fn heartbeats(&self, batch: HeartbeatBatch) {
        self.with_links(|links| {
            for (group, bytes) in batch.beats() {
                self.take(links, batch.from, group, &Bytes::copy_from_slice(bytes));
            }
        });
    }

    fn request(&self, inquiry: Inquiry) {
        self.with_links(|links| {
            let counts: &Counts = &links.counts;
            self.note_stranger(&links.roster(), inquiry.from);
            if !links.roster().has(NodeId(inquiry.from.node.0)) {
                return refuse(&counts.foreign, inquiry.from, &"a call from a node that is none of the cluster");
            }
            let shape = links.roster().shape;
            let asked = group_of(inquiry.group).and_then(|group| Ok((group, decode_asked(shape, &inquiry.payload)?)));
            match asked {
                Ok((group, asked)) => self.answer(links.clone(), inquiry, group, asked),
                Err(error) => {
                    self.refuse_undecodable(counts, inquiry.from, error);
                    // In the asker's shape, or it could not read even that.
                    let shape = shape_of(&inquiry.payload).unwrap_or(shape);
                    self.rt.spawn(async move {
                        let _ = inquiry.finish_with(encode_answered(shape, &Answered::NotUnderstood)).await;
                    });
                }
            }
        });
    }

    fn file(&self, file: FileReceiver) {
        self.with_links(|links| links.arrivals.arrived(file));
    }

    fn state(&self, peer: PeerId, state: PeerState) {
        match state {
            PeerState::Connected => tracing::info!(%peer, "connected"),
            PeerState::Lost { reason } => tracing::info!(%peer, reason, "the connection is lost"),
        }
    }
}

fn group_of(group: u64) -> Result<GroupId, DecodeError> {
    u32::try_from(group).map(GroupId).map_err(|_| DecodeError::Group)
}

fn refuse(counter: &Cell<u64>, from: PeerId, why: &dyn std::fmt::Display) {
    count(counter);
    tracing::debug!(%from, %why, "refused");
}
