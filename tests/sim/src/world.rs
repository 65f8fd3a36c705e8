//! Members, disks, network and clocks of one run, tick by tick.

use crate::{
    clients::{Proposal, Read},
    counters::Counters,
    disk::{Disk, Write},
    judge::Judge,
    network::Network,
    prng::Prng,
    swarm::{ELECTION_TICKS, Swarm, UNITS_PER_TICK},
};
use std::collections::VecDeque;
use tidemill_raft::{
    Content, Entry, EntryId, Fetch, GroupId, LogIndex, Membership, Moment, NodeId, Options, Output, Raft, Role,
    Snapshot, Term,
};

pub const GROUP: GroupId = GroupId(1);
/// Steps between two looks at all invariants of one member.
const CHECK_EVERY: u64 = 8;

pub struct Node {
    pub raft: Option<Raft<u64>>,
    pub disk: Disk,
    /// The log as the process wrote it, whether durable or not; begins behind `memory_start`.
    memory: VecDeque<Entry<u64>>,
    memory_start: LogIndex,
    /// As told; in files or applied.
    pub committed: LogIndex,
    clock_offset: u64,
    clock_rate: u64,
    down_until: u64,
    paused_until: u64,
    inbox: Vec<tidemill_raft::Message<u64>>,
    install: Option<Installation>,
    fetches: VecDeque<(u64, Fetch)>,
    pub proposals: VecDeque<Proposal>,
    pub reads: Vec<Read>,
    pub ready_reads: Vec<(LogIndex, LogIndex)>,
    starts: u64,
}

struct Installation {
    snapshot: Snapshot,
    files_at: u64,
    log_at: u64,
    files_done: bool,
}

pub struct World {
    pub seed: u64,
    pub swarm: Swarm,
    pub random: Prng,
    pub now: u64,
    pub nodes: Vec<Node>,
    pub network: Network,
    pub judge: Judge,
    pub counters: Counters,
    /// Nothing goes wrong any more.
    pub calm: bool,
    pub next_value: u64,
    steps: u64,
    pub fooled: Option<Fooled>,
}

/// A leader that another member is to replace behind its back.
#[derive(Clone, Copy)]
pub struct Fooled {
    pub leader: usize,
    rival: usize,
    /// From then on it hears nothing.
    pub deaf_at: u64,
}

/// What a member was before a step.
struct Before {
    role: Role,
    term: Term,
    joint: Option<Membership>,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Prng::new(seed);
        let swarm = Swarm::draw(&mut random);
        let voters = Membership::new((1..=swarm.voters as u64).map(NodeId), []).expect("voters");
        let nodes = (0..swarm.nodes).map(|_| Node::new(voters.clone())).collect();
        let network = Network::new(swarm.nodes);
        let mut world = World {
            seed,
            swarm,
            random,
            now: 0,
            nodes,
            network,
            judge: Judge::new(voters),
            counters: Counters::default(),
            calm: false,
            next_value: 0,
            steps: 0,
            fooled: None,
        };
        for at in 0..world.nodes.len() {
            let spread = u64::from(world.swarm.rate_spread) * UNITS_PER_TICK / 1_000_000;
            let rate = world.random.within(UNITS_PER_TICK - spread, UNITS_PER_TICK + spread);
            world.counters.clocks_off_rate += u64::from(rate != UNITS_PER_TICK);
            world.nodes[at].clock_rate = rate;
            world.nodes[at].clock_offset = world.random.below(1 << 40);
            world.start(at);
        }
        world
    }

    fn options(&self, at: usize) -> Options {
        let swarm = &self.swarm;
        Options {
            election_timeout: ELECTION_TICKS * UNITS_PER_TICK,
            heartbeat_interval: swarm.heartbeat_ticks * UNITS_PER_TICK,
            clock_rate_bound: swarm.lease.then_some(25_000),
            message_bytes_max: swarm.message_bytes_max,
            window_messages_max: swarm.window_messages_max,
            window_bytes_max: swarm.window_bytes_max,
            tail_bytes_max: swarm.tail_bytes_max,
            uncommitted_bytes_max: swarm.uncommitted_bytes_max,
            ..Options::new(GROUP, NodeId(at as u64 + 1), self.seed ^ self.nodes[at].starts << 32)
        }
    }

    fn start(&mut self, at: usize) {
        let options = self.options(at);
        let node = &mut self.nodes[at];
        node.starts += 1;
        let restored = node.disk.restore();
        node.committed = restored.base.index;
        node.memory_start = node.disk.base.index;
        node.memory = (node.disk.base.index.0 + 1..=node.disk.last().0)
            .filter_map(|index| node.disk.entry(LogIndex(index)).cloned())
            .collect();
        let now = node.clock(self.now);
        node.raft = Some(Raft::new(options, restored, now));
    }

    pub fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.raft.take().is_none() {
            return;
        }
        self.counters.crashes += 1;
        node.disk.crash(&mut self.random, &mut self.counters);
        node.inbox.clear();
        node.install = None;
        node.fetches.clear();
        node.proposals.clear();
        node.reads.clear();
        node.ready_reads.clear();
        node.down_until = self.now + self.random.within(1, self.swarm.down_max);
        self.judge.durable_vote(NodeId(at as u64 + 1), &self.nodes[at].disk);
    }

    fn is_paused(&self, at: usize) -> bool {
        self.nodes[at].paused_until > self.now
    }

    /// One tick of everything.
    pub fn tick(&mut self) {
        self.now += 1;
        if !self.calm {
            self.disturb();
        }
        let mut due = self.network.due(self.now);
        for message in due.drain(..) {
            let at = message.to.0 as usize - 1;
            if self.is_paused(at) {
                self.nodes[at].inbox.push(message);
            } else {
                self.deliver(at, message);
            }
        }
        self.network.give_back(self.now, due);
        for at in 0..self.nodes.len() {
            self.tick_node(at);
        }
        self.use_it();
    }

    fn deliver(&mut self, at: usize, message: tidemill_raft::Message<u64>) {
        self.step(at, |raft, now| {
            raft.handle_message(now, message)
                .unwrap_or_else(|error| panic!("a message of a member is refused: {error}"))
        });
    }

    fn tick_node(&mut self, at: usize) {
        if self.nodes[at].raft.is_none() {
            if self.nodes[at].down_until <= self.now {
                self.start(at);
            }
            return;
        }
        if self.is_paused(at) {
            return;
        }
        if !self.nodes[at].inbox.is_empty() {
            for message in core::mem::take(&mut self.nodes[at].inbox) {
                self.deliver(at, message);
            }
        }
        if let Some(write) = self.nodes[at].disk.finish(self.now) {
            self.judge.durable_vote(NodeId(at as u64 + 1), &self.nodes[at].disk);
            self.step(at, |raft, _| raft.handle_stable(write));
        }
        if self.nodes[at].install.is_some() {
            self.install(at);
        }
        while self.nodes[at].fetches.front().is_some_and(|(due, _)| *due <= self.now) {
            let Some((_, fetch)) = self.nodes[at].fetches.pop_front() else { break };
            let entries = self.nodes[at].fetched(&fetch);
            self.step(at, |raft, _| raft.handle_fetched(fetch.to, entries));
        }
        let node = &self.nodes[at];
        let now = node.clock(self.now);
        if node.raft.as_ref().is_some_and(|raft| now >= raft.deadline()) {
            self.step(at, |raft, now| raft.handle_tick(now));
        }
    }

    fn install(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        let Some(install) = &mut node.install else { return };
        if !install.files_done {
            if now < install.files_at || !node.disk.queue.is_empty() {
                return;
            }
            if !self.calm && self.random.chance(self.swarm.install_failure) {
                self.counters.snapshots_failed += 1;
                node.install = None;
                return self.step(at, |raft, _| raft.handle_install_failed());
            }
            node.disk.install_files(install.snapshot.base, install.snapshot.members.clone());
            install.files_done = true;
        }
        if now >= install.log_at {
            let Snapshot { base, members: sent, .. } = install.snapshot.clone();
            node.disk.install_log();
            node.install = None;
            node.memory.clear();
            node.memory_start = base.index;
            node.committed = base.index;
            let members = self.judge.members_at(base.index);
            assert!(members == Some(&sent), "R8: {sent:?} comes with {base}, where {members:?} was in force");
            let known = self.judge.committed_term(base.index);
            assert!(known == Some(base.term), "R4: a snapshot of {base}, committed there is term {known:?}");
            self.counters.snapshots_installed += 1;
            self.step(at, |raft, _| raft.handle_installed());
        }
    }

    /// Lets a member do something, and does what it then wants done.
    pub fn step(&mut self, at: usize, act: impl FnOnce(&mut Raft<u64>, Moment) -> Output<u64>) {
        let now = self.nodes[at].clock(self.now);
        let Some(raft) = &mut self.nodes[at].raft else { return };
        let role = raft.role();
        let joint = (role == Role::Leader && raft.members().is_joint()).then(|| raft.members().clone());
        let before = Before { role, term: raft.term(), joint };
        let output = act(raft, now);
        self.steps += 1;
        if self.steps.is_multiple_of(CHECK_EVERY) {
            raft.check_invariants();
        }
        if !self.calm && self.random.chance(self.swarm.crash_inside) {
            return self.crash_inside(at, output);
        }
        self.take(at, &before, output);
    }

    /// The power fails between two of the things that an output asks for.
    fn crash_inside(&mut self, at: usize, output: Output<u64>) {
        self.counters.crashes_inside_a_step += 1;
        match self.random.below(3) {
            0 => {}
            1 => self.send(at, output.send),
            _ => self.write(at, &output),
        }
        self.crash(at);
    }

    fn send(&mut self, at: usize, messages: Vec<tidemill_raft::Message<u64>>) {
        for message in messages {
            let node = &self.nodes[at];
            if let Some(raft) = &node.raft {
                self.judge.sends(&message, &node.disk, |index| raft.term_at(index));
            }
            self.network.send(self.now, message, &mut self.random, &self.swarm, self.calm, &mut self.counters);
        }
    }

    fn write(&mut self, at: usize, output: &Output<u64>) {
        let Some(id) = output.write else { return };
        let delay = if self.calm { 0 } else { self.random.within(0, self.swarm.disk_delay_max) };
        let stalled = !self.calm && self.random.chance(self.swarm.disk_stall);
        self.counters.disk_stalls += u64::from(stalled);
        let done_at = self.now + delay + if stalled { 80 } else { 0 };
        let write = Write { id, hard_state: output.hard_state, append: output.append.clone(), done_at };
        self.nodes[at].disk.write(write, &mut self.counters);
    }

    fn take(&mut self, at: usize, before: &Before, output: Output<u64>) {
        self.write(at, &output);
        let id = NodeId(at as u64 + 1);
        let node = &mut self.nodes[at];
        let alone = node.raft.as_ref().is_some_and(|raft| raft.members().is_single(id));
        for entry in &output.append {
            let previous = node.push(entry.clone(), &mut self.counters);
            // The only voter leads before its vote is durable; nothing of that has happened if it is lost.
            if entry.term <= node.disk.hard_state.term || !alone {
                self.judge.appended(id, entry, previous);
            }
            let left = matches!(&entry.content, Content::Members(to) if !to.is_joint());
            self.counters.joint_memberships_left += u64::from(left && before.joint.is_some());
        }
        let Some(raft) = &node.raft else { return };
        let (role, term) = (raft.role(), raft.term());
        if role == Role::Leader && (before.role != Role::Leader || before.term != term) {
            self.counters.elections += 1;
            let holds = |id: EntryId| id.index <= raft.base().index || raft.term_at(id.index) == Some(id.term);
            self.judge.leads(id, term, holds);
            self.check_votes(id, term);
        }
        self.send(at, output.send);
        if let Some(committed) = output.committed {
            self.commit(at, before, committed);
        }
        for ended in &output.ended {
            self.judge.ended(ended);
            let node = &mut self.nodes[at];
            let count = node.proposals.len();
            node.proposals.retain(|proposal| {
                let index = proposal.id.index;
                proposal.id.term != ended.term || index < ended.first || index > ended.last
            });
            let gone = (count - node.proposals.len()) as u64;
            match ended.how {
                tidemill_raft::Ending::Dropped => self.counters.proposals_dropped += gone,
                tidemill_raft::Ending::Unknown => self.counters.proposals_unknown += gone,
            }
        }
        if output.committed.is_some() {
            self.acknowledge(at);
        }
        if !output.reads.is_empty() || output.committed.is_some() {
            self.finish_reads(at, output.reads, role == Role::Leader);
        }
        for fetch in output.fetch {
            self.counters.fetches += 1;
            let due = self.now + if self.calm { 1 } else { self.random.within(1, 10) };
            self.nodes[at].fetches.push_back((due, fetch));
        }
        if let Some(install) = output.install {
            let files_at = self.now + if self.calm { 1 } else { self.random.within(1, 30) };
            let log_at = files_at + if self.calm { 1 } else { self.random.within(0, 20) };
            let snapshot = install.snapshot;
            self.nodes[at].install = Some(Installation { snapshot, files_at, log_at, files_done: false });
        }
        if output.manifest_wanted {
            let fresh = self.nodes[at].raft.as_ref().map(|raft| raft.committed().min(raft.stable_index()));
            if let Some(index) = fresh {
                self.offer_snapshot(at, index);
            }
        }
    }

    fn check_votes(&mut self, id: NodeId, term: Term) {
        let Some(raft) = &self.nodes[id.0 as usize - 1].raft else { return };
        for set in [raft.members().voters(), raft.members().outgoing()] {
            let may_have_voted = |node: &&NodeId| {
                let state = self.nodes[node.0 as usize - 1].disk.hard_state;
                state.term > term || state.term == term && state.vote == id
            };
            // The only voter leads before its vote is durable: nothing of it is told until then.
            let votes = set.iter().filter(may_have_voted).count();
            let alone = raft.members().is_single(id);
            assert!(set.is_empty() || alone || votes * 2 > set.len(), "R9: {id} leads in {term} by {votes} of {set:?}");
        }
    }

    fn commit(&mut self, at: usize, before: &Before, committed: LogIndex) {
        let id = NodeId(at as u64 + 1);
        let node = &self.nodes[at];
        let Some(raft) = &node.raft else { return };
        assert!(
            committed >= node.committed,
            "R4: the commit index of {id} fell from {} to {committed}",
            node.committed
        );
        let newest = node.entry(committed).map(Entry::id);
        if before.role == Role::Leader
            && let Some(newest) = newest
        {
            let durable = |holder: NodeId| self.nodes[holder.0 as usize - 1].disk.holds(newest);
            if raft.term() == before.term {
                self.judge.counted(raft.term(), newest, before.joint.as_ref().unwrap_or(raft.members()), durable);
            }
            let (since, members) = raft.members_at(committed);
            let is_removed =
                *since <= committed && members == raft.members() && !members.is_joint() && !members.is_voter(id);
            assert!(!is_removed || raft.role() != Role::Leader, "R9: {id} leads where it is no voter");
            self.counters.leaders_removed += u64::from(raft.role() != Role::Leader);
        }
        for index in node.committed.0 + 1..=committed.0 {
            let entry = node.entry(LogIndex(index)).unwrap_or_else(|| panic!("{id} commits {index}, which it lacks"));
            self.judge.commits(id, raft.term(), entry);
            self.counters.entries_committed += 1;
        }
        self.nodes[at].committed = committed;
    }

    pub fn offer_snapshot(&mut self, at: usize, index: LogIndex) {
        let node = &mut self.nodes[at];
        let Some(raft) = &node.raft else { return };
        if node.install.is_some() || index < raft.base().index {
            return;
        }
        let Some(term) = raft.term_at(index) else { return };
        let compact = LogIndex(self.random.within(raft.base().index.0, index.0));
        let members = raft.members_at(index).clone();
        // A newer state may be in files already.
        if index >= node.disk.base.index {
            node.disk.flush(EntryId { term, index }, members, compact);
        }
        while node.memory_start < compact && node.memory.pop_front().is_some() {
            node.memory_start = node.memory_start.next();
        }
        self.counters.snapshots_offered += 1;
        let manifest = index.0.to_le_bytes();
        self.step(at, |raft, _| raft.offer_snapshot(index, manifest[..].into(), compact));
    }

    fn disturb(&mut self) {
        let swarm = &self.swarm;
        if self.random.chance(swarm.partition) {
            self.network.partition(&mut self.random, swarm, &mut self.counters);
        } else if self.random.chance(swarm.heal) {
            self.counters.heals += 1;
            self.network.heal();
        }
        if self.random.chance(swarm.clog) {
            self.network.clog(self.now, &mut self.random);
        }
        if self.random.chance(swarm.rival) {
            self.raise_rival();
        }
        if let Some(Fooled { leader, rival, deaf_at }) = &mut self.fooled {
            let stands = self.nodes[*rival].raft.as_ref().is_some_and(|raft| raft.role() == Role::PreCandidate);
            if stands && *deaf_at > self.now {
                *deaf_at = self.now;
            }
            let (leader, rival, deaf_at) = (*leader, *rival, *deaf_at);
            if deaf_at == self.now {
                self.deafen(leader, rival);
            }
        }
        let swarm = &self.swarm;
        let (crash, pause, jump) = (swarm.crash, swarm.pause, swarm.clock_jump);
        if self.random.chance(swarm.crash_all) {
            self.counters.crashes_of_all += 1;
            (0..self.nodes.len()).for_each(|at| self.crash(at));
        }
        let roll = self.random.below(1_000_000) as u32;
        let at = self.random.below(self.nodes.len() as u64) as usize;
        if roll < crash {
            self.crash(at);
        } else if roll < crash + pause {
            let time = self.random.within(1, self.swarm.pause_max);
            self.counters.pauses_beyond_the_lease += u64::from(time > ELECTION_TICKS);
            self.nodes[at].paused_until = self.now + time;
        } else if roll < crash + pause + jump {
            self.counters.clock_jumps += 1;
            self.nodes[at].clock_offset += self.random.below(100 * UNITS_PER_TICK);
        }
    }

    /// Another member hears nothing of the leader; when it stands for election, or a little earlier, the leader hears
    /// nothing at all, and answers what it may answer alone.
    fn raise_rival(&mut self) {
        let Some(leader) = self.leader() else { return };
        let rival = self.random.below(self.nodes.len() as u64) as usize;
        if rival == leader {
            return;
        }
        self.counters.rivals += 1;
        self.network.heal();
        self.network.cut[leader][rival] = true;
        self.network.cut[rival][leader] = true;
        let deaf_at = self.now + self.random.within(1, 4 * ELECTION_TICKS);
        self.fooled = Some(Fooled { leader, rival, deaf_at });
    }

    fn deafen(&mut self, leader: usize, rival: usize) {
        self.network.deafen(leader);
        // Whoever forgets by a start what it has promised the leader votes for the rival.
        let restart = rival != leader && self.random.below(2) == 0;
        for at in (0..self.nodes.len()).filter(|at| restart && *at != leader && *at != rival) {
            self.crash(at);
            self.nodes[at].down_until = self.now;
        }
    }

    /// A leader that has told another one to stand does not hear what came of it.
    pub fn deafen_now(&mut self, leader: usize) {
        self.network.deafen(leader);
        self.fooled = Some(Fooled { leader, rival: leader, deaf_at: self.now });
    }

    /// Everything works again: all members are up, clocks run alike.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.fooled = None;
        self.network.heal();
        for at in 0..self.nodes.len() {
            self.nodes[at].paused_until = 0;
            if self.nodes[at].raft.is_none() {
                self.start(at);
            }
            let now = self.now;
            let node = &mut self.nodes[at];
            node.clock_offset += now * node.clock_rate;
            node.clock_rate = UNITS_PER_TICK;
            node.clock_offset = node.clock_offset.saturating_sub(now * UNITS_PER_TICK);
        }
    }

    /// The leader of the newest term.
    pub fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| self.nodes[*at].raft.as_ref().is_some_and(|raft| raft.role() == Role::Leader);
        (0..self.nodes.len()).filter(leads).max_by_key(|at| self.nodes[*at].raft.as_ref().map(|raft| raft.term()))
    }
}

impl Node {
    fn new(members: Membership) -> Node {
        Node {
            raft: None,
            disk: Disk::new(members),
            memory: VecDeque::new(),
            memory_start: LogIndex(0),
            committed: LogIndex(0),
            clock_offset: 0,
            clock_rate: UNITS_PER_TICK,
            down_until: 0,
            paused_until: 0,
            inbox: Vec::new(),
            install: None,
            fetches: VecDeque::new(),
            proposals: VecDeque::new(),
            reads: Vec::new(),
            ready_reads: Vec::new(),
            starts: 0,
        }
    }

    pub fn clock(&self, now: u64) -> Moment {
        Moment(self.clock_offset + now * self.clock_rate)
    }

    pub fn entry(&self, index: LogIndex) -> Option<&Entry<u64>> {
        self.memory.get(index.0.checked_sub(self.memory_start.0 + 1)? as usize)
    }

    /// Returns the term of the entry before.
    fn push(&mut self, entry: Entry<u64>, counters: &mut Counters) -> Term {
        let keep = (entry.index.0 - self.memory_start.0 - 1) as usize;
        counters.truncations += u64::from(keep < self.memory.len());
        self.memory.truncate(keep);
        assert!(self.memory.len() == keep, "an append leaves a gap at {}", entry.index);
        let before = entry.index.before();
        let previous = match self.memory.back() {
            Some(previous) => previous.term,
            None => self.raft.as_ref().and_then(|raft| raft.term_at(before)).unwrap_or_default(),
        };
        self.memory.push_back(entry);
        previous
    }

    fn fetched(&self, fetch: &Fetch) -> Vec<Entry<u64>> {
        let mut bytes = 0;
        (fetch.first.0..=fetch.last.0)
            .map_while(|index| self.entry(LogIndex(index)).cloned())
            .take_while(|entry| {
                let first = bytes == 0;
                bytes += entry.byte_size();
                first || bytes <= fetch.bytes_max
            })
            .collect()
    }

    pub fn forget_newest(&mut self) {
        self.memory.pop_back();
    }
}
