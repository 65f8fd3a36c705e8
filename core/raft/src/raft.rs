//! One member of one group: its state, and the doors through which the world comes in.

use crate::{
    Content, Ended, Entry, EntryId, GroupId, HardState, LogIndex, Membership, Message, MessageError, Moment, NodeId,
    Options, Output, Payload, Rejected, Snapshot, Term, WriteId,
    log_view::{LogView, Write},
    message::{Body, MESSAGE_BYTES_MAX, Round},
    progress::Followers,
    read::PendingRead,
};
use alloc::{boxed::Box, collections::VecDeque, vec, vec::Vec};

/// What the shell found on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub hard_state: HardState,
    /// Up to this entry the state is in files.
    pub base: EntryId,
    /// The first entry of each term in the log behind `base`, upwards.
    pub terms: Vec<EntryId>,
    /// Newest entry in the log, or `base`.
    pub last_index: LogIndex,
    /// Known to be committed beyond `base`, and applied. Zero: nothing is.
    pub committed: LogIndex,
    /// Memberships with the index that brought each, upwards: the one in force at `base` first.
    pub members: Vec<(LogIndex, Membership)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// The state machine. `P` is the payload as the shell holds it.
#[derive(Debug)]
pub struct Raft<P> {
    pub(crate) options: Options,
    pub(crate) now: Moment,
    random: u64,
    pub(crate) hard_state: HardState,
    pub(crate) state: State,
    pub(crate) log: LogView<P>,
    pub(crate) commit: LogIndex,
    /// With the index that brought each; the last one is in force. Those before the one in force at the base of the log
    /// are gone.
    pub(crate) members: Vec<(LogIndex, Membership)>,
    write: WriteId,
    /// Messages that rest on writes which are not durable yet.
    waiting: VecDeque<(WriteId, Message<P>)>,
    /// When a leader was heard last, or the start of this process: before an election timeout has passed since then,
    /// this member votes for nobody (thesis, sections 4.2.3 and 6.4.1). A start counts because the promise is not on disk.
    pub(crate) heard_leader: Moment,
    pub(crate) deadline: Moment,
    /// As a follower: equal to the leader's log up to here.
    pub(crate) matched: LogIndex,
    /// As a follower: acknowledged to this leader.
    pub(crate) told: LogIndex,
    /// As a follower: the leader waits for an acknowledgement.
    pub(crate) acknowledge: bool,
    /// Entries that this member proposed and that have not ended.
    pub(crate) own: VecDeque<Own>,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) installing: Option<Snapshot>,
    pub(crate) out: Output<P>,
}

#[derive(Debug)]
pub(crate) enum State {
    Follower { leader: NodeId },
    PreCandidate { granted: Vec<NodeId> },
    Candidate { granted: Vec<NodeId> },
    Leader(Box<Leader>),
}

#[derive(Debug)]
pub(crate) struct Leader {
    pub followers: Followers,
    /// The entry that opened the term: nothing commits by count before it (thesis, section 3.6.2).
    pub term_start: LogIndex,
    pub round: u64,
    /// Rounds of heartbeats that may still prove something, upwards.
    pub rounds: VecDeque<Round>,
    pub heartbeat_due: Moment,
    pub quorum_check_due: Moment,
    pub reads: VecDeque<PendingRead>,
    pub transfer: Option<Transfer>,
    /// Somebody may have been told to stand for election: from then on, the voters' promise is not worth anything.
    pub lease_void: bool,
    /// Sizes of entries that are not committed.
    pub uncommitted: VecDeque<(LogIndex, usize)>,
    pub uncommitted_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub to: NodeId,
    pub until: Moment,
    pub told: bool,
}

/// Entries of one term that this member appended as leader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub term: Term,
    pub first: LogIndex,
    pub last: LogIndex,
    /// The log was cut back from this entry on while it held them: they can only be committed if it is.
    pub cut: Option<EntryId>,
}

impl Restored {
    /// A group of one voter whose state is in files, or applied, up to `last`.
    pub fn single(node: NodeId, hard_state: HardState, last: EntryId) -> Restored {
        Restored {
            hard_state,
            base: last,
            terms: Vec::new(),
            last_index: last.index,
            committed: last.index,
            members: vec![(LogIndex(0), Membership::single(node))],
        }
    }
}

impl<P: Payload> Raft<P> {
    /// A member as it comes back from its disk. What is in files is committed, and what `committed` says.
    ///
    /// # Panics
    /// If what was restored contradicts itself.
    pub fn new(options: Options, restored: Restored, now: Moment) -> Raft<P> {
        options.check();
        let group = options.group;
        let Restored { hard_state, base, terms, last_index, committed, members } = restored;
        assert!(!members.is_empty(), "group {group}: a member without a membership");
        let log = LogView::new(base, &terms, last_index);
        let newest = log.last_id().term;
        let commit = committed.max(base.index);
        assert!(commit <= log.last(), "group {group}: {commit} is committed, and the log ends before it");
        assert!(
            newest <= hard_state.term,
            "group {group}: an entry of term {newest} is ahead of the durable term {}",
            hard_state.term
        );
        let mut raft = Raft {
            now,
            random: options.seed ^ options.node.0.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            hard_state,
            state: State::Follower { leader: NodeId(0) },
            log,
            commit,
            members,
            write: WriteId(0),
            waiting: VecDeque::new(),
            heard_leader: now,
            deadline: now,
            matched: LogIndex(0),
            told: LogIndex(0),
            acknowledge: false,
            own: VecDeque::new(),
            snapshot: None,
            installing: None,
            out: Output::default(),
            options,
        };
        raft.reset_deadline();
        raft.log.check();
        raft
    }

    pub fn group(&self) -> GroupId {
        self.options.group
    }

    pub fn node(&self) -> NodeId {
        self.options.node
    }

    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub fn last_index(&self) -> LogIndex {
        self.log.last()
    }

    pub fn stable_index(&self) -> LogIndex {
        self.log.stable()
    }

    pub fn committed(&self) -> LogIndex {
        self.commit
    }

    /// The last entry that is only in files.
    pub fn base(&self) -> EntryId {
        self.log.base()
    }

    /// `None`: not in the log, or before its base.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.log.term_at(index)
    }

    pub fn role(&self) -> Role {
        match self.state {
            State::Follower { .. } => Role::Follower,
            State::PreCandidate { .. } => Role::PreCandidate,
            State::Candidate { .. } => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Zero: none is known.
    pub fn leader(&self) -> NodeId {
        match self.state {
            State::Follower { leader } => leader,
            State::Leader(_) => self.options.node,
            State::PreCandidate { .. } | State::Candidate { .. } => NodeId(0),
        }
    }

    /// The membership in force.
    pub fn members(&self) -> &Membership {
        self.members.last().map(|(_, members)| members).expect("a member has a membership")
    }

    /// When [`Raft::handle_tick`] has something to do next, as far as nothing else happens before.
    pub fn deadline(&self) -> Moment {
        match &self.state {
            State::Leader(leader) => leader.heartbeat_due.min(leader.quorum_check_due),
            _ => self.deadline,
        }
    }

    /// A message from another member. A message that is refused has changed nothing.
    pub fn handle_message(&mut self, now: Moment, message: Message<P>) -> Result<Output<P>, MessageError> {
        message.check()?;
        if message.group != self.options.group || message.to != self.options.node {
            return Err(MessageError::Address);
        }
        self.vet(&message)?;
        self.advance(now);
        self.dispatch(message);
        Ok(self.finish())
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Moment) -> Output<P> {
        self.advance(now);
        if self.now >= self.deadline() {
            match self.state {
                State::Leader(_) => self.tick_leader(),
                _ => self.tick_others(),
            }
        }
        self.finish()
    }

    /// The write, and all before it, are durable.
    pub fn handle_stable(&mut self, write: WriteId) -> Output<P> {
        assert!(write <= self.write, "group {}: a write that was never asked for is done", self.group());
        self.log.complete_writes(write);
        self.release_waiting(write);
        match &self.state {
            State::Leader(_) => self.maybe_commit(),
            State::Candidate { .. } => self.count_own_vote(),
            State::Follower { .. } => self.acknowledge_stable(),
            State::PreCandidate { .. } => {}
        }
        self.log.shrink_tail(self.options.tail_bytes_max);
        self.finish()
    }

    /// Takes a payload into the log of a leader; returns the name of its entry. The shell remembers who waits for it:
    /// it ends as committed, or as [`Output::ended`] says; until then its outcome is unknown.
    pub fn propose(&mut self, payload: P) -> Result<(EntryId, Output<P>), Rejected> {
        let single = self.members().is_single(self.options.node) && self.members().learners().is_empty();
        let (uncommitted_bytes_max, leader) = (self.options.uncommitted_bytes_max, self.leading()?);
        if let Some(transfer) = leader.transfer {
            return Err(Rejected::Transferring { to: transfer.to });
        }
        if !single {
            let bytes = payload.byte_size();
            if bytes > MESSAGE_BYTES_MAX / 2 {
                return Err(Rejected::TooLarge);
            }
            if leader.uncommitted_bytes > 0 && leader.uncommitted_bytes + bytes > uncommitted_bytes_max {
                return Err(Rejected::Busy);
            }
        }
        let id = self.append_own(Content::Data(payload));
        self.send_appends();
        Ok((id, self.finish()))
    }

    /// The log did not take the entry that was proposed last, and the output that came with it was thrown away: as if it
    /// had never been proposed.
    ///
    /// # Panics
    /// If `index` is not the newest entry, or is stable already.
    pub fn retract(&mut self, index: LogIndex) {
        assert!(index == self.log.last() && index > self.log.stable(), "group {}: retract {index}", self.group());
        self.log.truncate_from(index);
        self.log.pop_write();
        self.forget_members_from(index);
        if let Some(own) = self.own.back_mut() {
            own.last = index.before();
            if own.last < own.first {
                self.own.pop_back();
            }
        }
        let State::Leader(leader) = &mut self.state else { return };
        if let Some((_, bytes)) = leader.uncommitted.pop_back_if(|(at, _)| *at == index) {
            leader.uncommitted_bytes -= bytes;
        }
        for (_, progress) in leader.followers.iter_mut() {
            if progress.next > index {
                progress.probe_from(index);
            }
        }
    }

    pub(crate) fn advance(&mut self, now: Moment) {
        self.now = self.now.max(now);
    }

    pub(crate) fn leading(&mut self) -> Result<&mut Leader, Rejected> {
        let leader = self.leader();
        match &mut self.state {
            State::Leader(leader) => Ok(leader),
            _ => Err(Rejected::NotLeader { leader }),
        }
    }

    /// What can be seen to be wrong before anything changes.
    fn vet(&self, message: &Message<P>) -> Result<(), MessageError> {
        let from_leader =
            matches!(message.body, Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot(_) | Body::TimeoutNow);
        if from_leader && message.term == self.hard_state.term {
            let known = self.leader();
            if known != NodeId(0) && known != message.from {
                return Err(MessageError::SecondLeader);
            }
        }
        if message.term < self.hard_state.term {
            return Ok(());
        }
        let contradicts = |id: EntryId| {
            id.index <= self.commit && self.log.term_at(id.index).is_some_and(|committed| committed != id.term)
        };
        match &message.body {
            Body::Append { previous, entries, .. } => {
                let committed = entries.iter().take_while(|entry| entry.index <= self.commit);
                if contradicts(*previous) || committed.map(Entry::id).any(contradicts) {
                    return Err(MessageError::Committed);
                }
            }
            Body::Snapshot(snapshot) if contradicts(snapshot.base) => return Err(MessageError::Committed),
            _ => {}
        }
        let State::Leader(leader) = &self.state else { return Ok(()) };
        let unsent = match &message.body {
            Body::Appended { matched } => *matched > self.log.last(),
            Body::HeartbeatAnswer { round } => *round > leader.round,
            _ => false,
        };
        if unsent && message.term == self.hard_state.term { Err(MessageError::Unsent) } else { Ok(()) }
    }

    fn dispatch(&mut self, message: Message<P>) {
        let Message { from, term, body, .. } = message;
        match body {
            Body::PreVote { last } => return self.handle_pre_vote(from, term, last),
            Body::PreVoteAnswer { granted: true } => return self.handle_pre_vote_granted(from, term),
            Body::Vote { last, transfer } => return self.handle_vote(from, term, last, transfer),
            _ => {}
        }
        if term < self.hard_state.term {
            // A leader of an old term learns of the new one; without this, a member with a term of its own that nobody
            // voted for would never come back (pre-vote keeps it from asking).
            let leads =
                matches!(body, Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot(_) | Body::TimeoutNow);
            if leads {
                self.send(from, Body::StaleTerm);
            }
            return;
        }
        if term > self.hard_state.term {
            self.become_follower(term, NodeId(0));
        }
        match body {
            Body::VoteAnswer { granted: true } => self.handle_vote_granted(from),
            Body::Append { previous, entries, commit } => {
                self.hear_leader(from);
                self.handle_append(previous, entries, commit);
            }
            Body::Heartbeat { commit, round } => {
                self.hear_leader(from);
                self.handle_heartbeat(from, commit, round);
            }
            Body::Snapshot(snapshot) => {
                self.hear_leader(from);
                self.handle_snapshot(from, snapshot);
            }
            Body::TimeoutNow => {
                self.hear_leader(from);
                self.stand_for_transfer();
            }
            Body::Appended { matched } => self.handle_appended(from, matched),
            Body::Refused { previous, hint } => self.handle_refused(from, previous, hint),
            Body::HeartbeatAnswer { round } => self.handle_heartbeat_answer(from, round),
            Body::SnapshotFailed { index } => self.handle_snapshot_failed(from, index),
            Body::Read { id } => self.handle_read(from, id),
            Body::ReadAnswer { id, index } => self.handle_read_answer(id, index),
            Body::PreVote { .. }
            | Body::PreVoteAnswer { .. }
            | Body::Vote { .. }
            | Body::VoteAnswer { .. }
            | Body::StaleTerm => {}
        }
    }

    fn hear_leader(&mut self, from: NodeId) {
        if !matches!(self.state, State::Follower { leader } if leader == from) {
            self.become_follower(self.hard_state.term, from);
        }
        self.heard_leader = self.now;
        self.reset_deadline();
    }

    pub(crate) fn become_follower(&mut self, term: Term, leader: NodeId) {
        if term > self.hard_state.term {
            self.set_hard_state(HardState { term, vote: NodeId(0) });
        }
        self.fail_reads();
        self.state = State::Follower { leader };
        self.matched = LogIndex(0);
        self.told = LogIndex(0);
        self.acknowledge = false;
        self.reset_deadline();
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
        self.out.hard_state = Some(hard_state);
    }

    /// The random spread keeps members from standing at the same time (thesis, section 3.4).
    pub(crate) fn reset_deadline(&mut self) {
        let timeout = self.options.election_timeout;
        // splitmix64: any seed will do.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.deadline = self.now.after(timeout + (mixed ^ (mixed >> 31)) % timeout);
    }

    /// Sends in the own term, once that term and the vote in it are durable (R5).
    pub(crate) fn send(&mut self, to: NodeId, body: Body<P>) {
        let message =
            Message { group: self.options.group, from: self.options.node, to, term: self.hard_state.term, body };
        let rests_on = match self.out.hard_state {
            Some(_) => Some(WriteId(self.write.0 + 1)),
            None => self.log.unstable_hard_state(),
        };
        match rests_on {
            Some(write) => self.waiting.push_back((write, message)),
            None => self.out.send.push(message),
        }
    }

    /// Sends at once, in a term that binds nobody.
    pub(crate) fn send_unbound(&mut self, to: NodeId, term: Term, body: Body<P>) {
        self.out.send.push(Message { group: self.options.group, from: self.options.node, to, term, body });
    }

    fn release_waiting(&mut self, write: WriteId) {
        while self.waiting.front().is_some_and(|(rests_on, _)| *rests_on <= write) {
            if let Some((_, message)) = self.waiting.pop_front()
                && message.term == self.hard_state.term
            {
                self.out.send.push(message);
            }
        }
    }

    /// Appends to the own log as leader.
    pub(crate) fn append_own(&mut self, content: Content<P>) -> EntryId {
        let entry = Entry { term: self.hard_state.term, index: self.log.last().next(), content };
        let id = entry.id();
        match self.own.back_mut() {
            Some(own) if own.term == id.term && own.last.next() == id.index => own.last = id.index,
            _ => self.own.push_back(Own { term: id.term, first: id.index, last: id.index, cut: None }),
        }
        let bytes = entry.byte_size();
        self.append(entry);
        if let State::Leader(leader) = &mut self.state
            && leader.followers.len() > 0
        {
            leader.uncommitted.push_back((id.index, bytes));
            leader.uncommitted_bytes += bytes;
        }
        id
    }

    /// Appends to the log what follows its end. Alone, nobody will ask for the entry.
    pub(crate) fn append(&mut self, entry: Entry<P>) {
        if let Content::Members(members) = &entry.content {
            self.members.push((entry.index, members.clone()));
        }
        let node = self.options.node;
        let keep = !self.members().is_single(node) || !self.members().learners().is_empty();
        self.log.append(&entry, keep);
        if matches!(entry.content, Content::Members(_)) {
            self.follow_members();
        }
        self.out.append.push(entry);
    }

    pub(crate) fn end(&mut self, ended: Ended) {
        self.out.ended.push(ended);
    }

    pub(crate) fn finish(&mut self) -> Output<P> {
        if self.out.hard_state.is_some() || !self.out.append.is_empty() {
            self.write = WriteId(self.write.0 + 1);
            let last = self.out.append.last().map_or(LogIndex(0), |entry| entry.index);
            self.log.push_write(Write { id: self.write, last, hard_state: self.out.hard_state });
            self.out.write = Some(self.write);
        }
        core::mem::take(&mut self.out)
    }
}
