//! What all members together must hold to.

use crate::disk::Disk;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use tidemill_raft::{Body, Content, Ended, Ending, Entry, EntryId, LogIndex, Membership, Message, NodeId, Term};

/// Keys are already spread well enough by one multiplication.
#[derive(Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

/// What an entry is, in one number.
fn fingerprint(entry: &Entry<u64>) -> u64 {
    match &entry.content {
        Content::Opening => 1,
        Content::Data(value) => value.wrapping_mul(8) + 2,
        Content::Members(members) => {
            let mut hash = Spread::default();
            hash.write(&members.encode());
            hash.finish() | 7
        }
    }
}

#[derive(Default)]
pub struct Judge {
    leaders: BTreeMap<Term, NodeId>,
    /// Content and term of the predecessor of every entry there ever was, by term and index.
    entries: HashMap<(u64, u64), (u64, Term), BuildHasherDefault<Spread>>,
    /// What was committed first at each index, from 1.
    committed: Vec<(Term, u64)>,
    /// Proposals that were called dropped before anything was committed in their places: term, first, last.
    dropped: Vec<(Term, LogIndex, LogIndex)>,
    /// The term of the leader that did.
    committed_in: Vec<Term>,
    /// Memberships by the index of their committed entry; the first one is that at zero.
    members: BTreeMap<u64, Membership>,
    /// Votes as they became durable.
    votes: BTreeMap<(Term, NodeId), NodeId>,
    /// Newest index that a client was told of.
    pub acknowledged: LogIndex,
    /// Newest state that a read has returned.
    pub read: LogIndex,
}

impl Judge {
    pub fn new(members: Membership) -> Judge {
        Judge { members: BTreeMap::from([(0, members)]), ..Judge::default() }
    }

    /// The membership as of a committed entry.
    pub fn members_at(&self, index: LogIndex) -> Option<&Membership> {
        self.members.range(..=index.0).next_back().map(|(_, members)| members)
    }

    pub fn committed(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    pub fn committed_term(&self, index: LogIndex) -> Option<Term> {
        self.committed.get((index.0 as usize).checked_sub(1)?).map(|(term, _)| *term)
    }

    /// R1 and R3, and that a majority voted durably.
    pub fn leads(&mut self, node: NodeId, term: Term, holds: impl Fn(EntryId) -> bool) {
        let known = *self.leaders.entry(term).or_insert(node);
        assert!(known == node, "R1: nodes {known} and {node} lead in term {term}");
        // A leader of an old term may come late; what was committed in a newer term is not its to have.
        let newest = LogIndex(self.committed_in.partition_point(|of| *of < term) as u64);
        if let Some(term_there) = self.committed_term(newest) {
            let id = EntryId { term: term_there, index: newest };
            assert!(holds(id), "R3: leader {node} of term {term} lacks the committed entry {id}");
        }
    }

    /// R2: an entry is one entry everywhere, and so is what comes before it.
    pub fn appended(&mut self, node: NodeId, entry: &Entry<u64>, previous: Term) {
        let fact = (fingerprint(entry), previous);
        let known = *self.entries.entry((entry.term.0, entry.index.0)).or_insert(fact);
        assert!(known == fact, "R2: node {node} appends another {} than was known", entry.id());
    }

    /// R4 and R8.
    pub fn commits(&mut self, node: NodeId, term: Term, entry: &Entry<u64>) {
        let at = entry.index.0 as usize - 1;
        let fact = (entry.term, fingerprint(entry));
        if at == self.committed.len() {
            let is_dropped = |(term, first, last): &(Term, LogIndex, LogIndex)| {
                *term == entry.term && (*first..=*last).contains(&entry.index)
            };
            assert!(!self.dropped.iter().any(is_dropped), "{} is committed and was called dropped", entry.id());
            self.committed.push(fact);
            self.committed_in.push(term);
            if let Content::Members(members) = &entry.content {
                self.members.insert(entry.index.0, members.clone());
            }
        }
        let known = self.committed.get(at);
        assert!(known == Some(&fact), "R4: node {node} commits {} where {known:?} was committed", entry.id());
    }

    /// R3, R7 and R9, for the newest entry that the leader of a term has just counted.
    pub fn counted(&self, term: Term, id: EntryId, members: &Membership, durable: impl Fn(NodeId) -> bool) {
        // Another leader may lack it however many have it (thesis, figure 3.7).
        assert!(id.term == term, "R3: the leader of term {term} counts copies of {id}");
        for set in [members.voters(), members.outgoing()] {
            let holders = set.iter().filter(|node| durable(**node)).count();
            assert!(
                set.is_empty() || holders * 2 > set.len(),
                "R7/R9: {id} is committed with {holders} durable copies among {set:?}"
            );
        }
    }

    /// One vote a term (R5), as the disk has it.
    pub fn durable_vote(&mut self, node: NodeId, disk: &Disk) {
        let state = disk.hard_state;
        if state.vote != NodeId(0) {
            let known = *self.votes.entry((state.term, node)).or_insert(state.vote);
            assert!(known == state.vote, "R5: node {node} voted for {known} and {} in {}", state.vote, state.term);
        }
    }

    /// R5 and R6, for a message that leaves.
    pub fn sends(&self, message: &Message<u64>, disk: &Disk, term_at: impl Fn(LogIndex) -> Option<Term>) {
        let durable = disk.hard_state;
        match &message.body {
            Body::PreVote { .. } | Body::PreVoteAnswer { granted: true } => return,
            Body::VoteAnswer { granted: true } => {
                let told = durable.term == message.term && durable.vote == message.to;
                assert!(told, "R5: node {} tells a vote that is not durable: {durable:?}", message.from);
            }
            Body::Vote { .. } => {
                let told = durable.term == message.term && durable.vote == message.from;
                assert!(told, "R5: node {} asks for votes before its own is durable", message.from);
            }
            Body::Appended { matched } => {
                let there = *matched <= disk.base.index || disk.term_at(*matched) == term_at(*matched);
                assert!(there, "R6: node {} acknowledges {matched}, durable is {}", message.from, disk.last());
            }
            _ => {}
        }
        assert!(message.term <= durable.term, "R5: node {} speaks in a term that is not durable", message.from);
    }

    pub fn ended(&mut self, ended: &Ended) {
        if ended.how == Ending::Dropped {
            // Another entry in the place of the first is proof for those behind it as well.
            let (term, first) = (ended.term, ended.first);
            match self.committed_term(first) {
                Some(there) => {
                    assert!(there != term, "the proposal {term}/{first} was called dropped, and is committed")
                }
                None => self.dropped.push((term, first, ended.last)),
            }
        }
    }

    /// A client is told that its entry is committed; `floor`: what was acknowledged when it asked.
    pub fn acknowledges(&mut self, id: EntryId, value: u64, floor: LogIndex) {
        let known = self.committed.get(id.index.0 as usize - 1);
        let fact = (id.term, value.wrapping_mul(8) + 2);
        assert!(known == Some(&fact), "an append was acknowledged as {id}, committed there is {known:?}");
        assert!(id.index > floor, "an append took its place before one that had been acknowledged");
        self.acknowledged = self.acknowledged.max(id.index);
    }

    /// R10; `floor`: what was acknowledged or read when the read began.
    pub fn reads(&mut self, node: NodeId, seen: LogIndex, floor: LogIndex) {
        assert!(seen >= floor, "R10: a read at node {node} sees {seen}, another had seen {floor} before it began");
        self.read = self.read.max(seen);
    }
}
