//! The harness: members, their durable logs, and the messages between them.

use std::collections::{BTreeMap, VecDeque};
use tidemill_raft::{
    Content, Entry, EntryId, GroupId, HardState, LogIndex, Membership, Message, Moment, NodeId, Options, Output, Raft,
    ReadReady, Restored, Role, Term, WriteId,
};

pub const GROUP: GroupId = GroupId(3);
pub const ELECTION: u64 = 100;

pub struct Member {
    pub raft: Raft<u64>,
    pub log: Vec<Entry<u64>>,
    pub writes: VecDeque<WriteId>,
    pub committed: LogIndex,
    pub reads: Vec<ReadReady>,
    /// Writes finish by themselves.
    pub quick: bool,
    pub connected: bool,
}

pub struct Network {
    pub members: BTreeMap<u64, Member>,
    pub mail: VecDeque<Message<u64>>,
    pub now: u64,
}

pub fn options(node: u64) -> Options {
    Options { election_timeout: ELECTION, heartbeat_interval: 10, ..Options::new(GROUP, NodeId(node), 7) }
}

pub fn voters(nodes: &[u64]) -> Membership {
    Membership::new(nodes.iter().map(|node| NodeId(*node)), []).unwrap()
}

impl Network {
    pub fn new(nodes: &[u64]) -> Network {
        let mut network = Network { members: BTreeMap::new(), mail: VecDeque::new(), now: 0 };
        for node in nodes {
            network.start(*node, voters(nodes));
        }
        network
    }

    pub fn start(&mut self, node: u64, members: Membership) {
        let restored = Restored {
            hard_state: HardState { term: Term(0), vote: NodeId(0) },
            base: EntryId::default(),
            terms: Vec::new(),
            last_index: LogIndex(0),
            committed: LogIndex(0),
            members: vec![(LogIndex(0), members)],
        };
        let raft = Raft::new(options(node), restored, Moment(self.now));
        let member = Member {
            raft,
            log: Vec::new(),
            writes: VecDeque::new(),
            committed: LogIndex(0),
            reads: Vec::new(),
            quick: true,
            connected: true,
        };
        self.members.insert(node, member);
    }

    pub fn of(&mut self, node: u64) -> &mut Member {
        self.members.get_mut(&node).unwrap()
    }

    pub fn take(&mut self, node: u64, output: Output<u64>) {
        let member = self.of(node);
        if let Some(first) = output.append.first() {
            member.log.retain(|entry| entry.index < first.index);
            member.log.extend(output.append.iter().cloned());
        }
        member.committed = output.committed.unwrap_or(member.committed);
        member.writes.extend(output.write);
        member.reads.extend(output.reads);
        member.raft.check_invariants();
        self.mail.extend(output.send);
        if self.of(node).quick {
            self.sync(node);
        }
    }

    /// The disk finishes all that it was given.
    pub fn sync(&mut self, node: u64) {
        while let Some(write) = self.of(node).writes.pop_front() {
            let output = self.of(node).raft.handle_stable(write);
            self.take(node, output);
        }
    }

    pub fn deliver(&mut self) {
        for _ in 0..10_000 {
            let Some(message) = self.mail.pop_front() else { return };
            let (from, to) = (message.from.0, message.to.0);
            let reachable = |node| self.members.get(&node).is_some_and(|member| member.connected);
            if reachable(from) && reachable(to) {
                let now = Moment(self.now);
                let output = self.of(to).raft.handle_message(now, message).unwrap();
                self.take(to, output);
            }
        }
        panic!("messages without end");
    }

    pub fn tick(&mut self, time: u64) {
        for _ in 0..time {
            self.now += 1;
            for node in self.members.keys().copied().collect::<Vec<_>>() {
                let now = Moment(self.now);
                let output = self.of(node).raft.handle_tick(now);
                self.take(node, output);
            }
            self.deliver();
        }
    }

    /// Lets time pass until one leads, and returns it.
    pub fn elect(&mut self) -> u64 {
        for _ in 0..20 {
            self.tick(ELECTION / 2);
            let leads = |member: &&Member| member.connected && member.raft.role() == Role::Leader;
            if let Some(leader) = self.members.values().find(leads) {
                return leader.raft.node().0;
            }
        }
        panic!("nobody leads");
    }

    pub fn propose(&mut self, node: u64, value: u64) -> EntryId {
        let (id, output) = self.of(node).raft.propose(value).unwrap();
        self.take(node, output);
        id
    }

    pub fn data(&self, node: u64) -> Vec<u64> {
        self.members[&node].log.iter().filter_map(|entry| entry.content.data().copied()).collect()
    }
}

pub fn append(from: u64, to: u64, term: u64, previous: (u64, u64), terms: &[u64], commit: u64) -> Message<u64> {
    let entries = terms.iter().zip(previous.1 + 1..);
    let entries = entries.map(|(term, index)| Entry {
        term: Term(*term),
        index: LogIndex(index),
        content: Content::Data(term * 1000 + index),
    });
    Message {
        group: GROUP,
        from: NodeId(from),
        to: NodeId(to),
        term: Term(term),
        body: tidemill_raft::Body::Append {
            previous: EntryId { term: Term(previous.0), index: LogIndex(previous.1) },
            entries: entries.collect(),
            commit: LogIndex(commit),
        },
    }
}
