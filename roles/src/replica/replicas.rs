//! All groups of one core.
//!
//! Invariants: what a group asks to be written goes into the log in the order in which it was asked for, at once or,
//! where the log has no room, from the backlog; while anything waits there, nothing is proposed.

use super::{
    Gift, Group, InstallFailure, Machine, NoSources, Offer, Payload, Placement, Sources,
    outbox::Outbox,
    payload::{is_plain, logged, members_entry},
    recover::Found,
    ticket::Ticket,
};
use bytes::Bytes;
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};
use tidemill_disk::{Disk, LocalQueue, Notify};
use tidemill_log::{AppendError, Log, Position, ReadEntry, Record};
use tidemill_raft::{
    Content, Entry, EntryId, Fetch, GroupId, HardState, Install, LogIndex, Membership, Message, MessageError, Moment,
    NodeId, Options, Output, Raft, ReadId, Rejected, Restored, Role, WriteId,
};
use tidemill_store::breathe;

/// Entries between their append and their commit on one core. A thousand clients with a request each on sixteen
/// partitions stay below it.
pub const COMMITS_MAX: usize = 32 * 1024;
/// Commits that are applied before other tasks of the core get a turn.
const COMMITS_PER_TURN: usize = 4;
/// Bytes of entries of one group that are applied before other tasks get a turn, where a quorum decides: then many become
/// committed at a time.
const APPLIED_BYTES_PER_TURN: usize = 256 << 10;
/// Readings of the log for members that lag, waiting for their turn.
const FETCHES_MAX: usize = 1024;
/// The log is told what is committed after so many bytes of it: at most that much of each group waits in memory, beside
/// what really is undecided, when it is read again.
const MARK_BYTES: usize = 1 << 20;

const TOO_MUCH_WAITS: &str = "too much waits for its commit";

/// What a core's groups have of the world around them.
pub struct Surroundings {
    pub placement: Placement,
    /// Microseconds of a clock that never goes back.
    pub clock: Box<dyn Fn() -> Moment>,
    /// Takes what is for other nodes. It may lose messages, never change them.
    pub outlet: Box<dyn Fn(Message<Payload>)>,
    /// Settings of a group: times, windows, the seed, which must be another one after every start.
    pub options: Box<dyn Fn(GroupId, NodeId) -> Options>,
    /// Where files of other nodes come from.
    pub sources: Box<dyn Sources>,
}

impl Surroundings {
    /// Of a server without others: there is nothing to time and nobody to talk to.
    pub fn standalone() -> Surroundings {
        Surroundings {
            placement: Placement::standalone(),
            clock: Box::new(|| Moment(0)),
            outlet: Box::new(|_| ()),
            options: Box::new(|group, node| Options::new(group, node, 0)),
            sources: Box::new(NoSources),
        }
    }
}

/// Groups, log, and the queue between append and commit.
pub struct Replicas<D: Disk> {
    log: Log<D>,
    surroundings: Surroundings,
    groups: RefCell<BTreeMap<GroupId, Rc<Group>>>,
    commits: LocalQueue<Commit>,
    backlog: RefCell<VecDeque<Write>>,
    backlog_changed: Notify,
    fetches: LocalQueue<(Rc<Group>, Fetch)>,
    /// Groups of which a member wants the state as files.
    offers: LocalQueue<Rc<Group>>,
    installs: LocalQueue<(Rc<Group>, Install)>,
    outbox: Outbox,
    /// Groups with committed entries that wait for their turn to be applied.
    lagging: RefCell<VecDeque<Rc<Group>>>,
    lags: Notify,
    /// Payloads that are not applied yet.
    unapplied_bytes: Rc<Cell<usize>>,
    stopped: Cell<bool>,
}

struct Commit {
    position: Position,
    group: Rc<Group>,
    write: WriteId,
}

/// What a group wants durable.
struct Write {
    group: Rc<Group>,
    id: WriteId,
    hard_state: Option<HardState>,
    entries: VecDeque<Entry<Payload>>,
    /// Of the newest part that the log has taken.
    position: Option<Position>,
}

/// The entry was not taken; nothing of it is anywhere.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Come back later.
    #[error("{0}")]
    Busy(&'static str),
    #[error("the disk is full")]
    DiskFull,
    #[error("{0}")]
    TooLarge(String),
    /// Zero: nobody is known to lead.
    #[error("this node does not lead the partition; node {0} may")]
    NotLeader(NodeId),
    /// It was in the log of a leader and is not any more.
    #[error("another node became the leader of the partition")]
    Overtaken,
    /// The log or the group has stopped for good.
    #[error("{0}")]
    Stopped(String),
}

/// This node cannot tell what a read would have to see: ask again, or another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not known now which node leads this partition")]
pub struct Leaderless;

/// Why a message of another node was not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    #[error("no such group on this core")]
    UnknownGroup,
    #[error("the group has stopped")]
    Stopped,
    #[error("an entry of a kind that only this node itself can make")]
    Kind,
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl<D: Disk> Replicas<D> {
    pub fn new(log: Log<D>, surroundings: Surroundings) -> Replicas<D> {
        Replicas {
            log,
            surroundings,
            groups: RefCell::default(),
            commits: LocalQueue::new(COMMITS_MAX),
            backlog: RefCell::default(),
            backlog_changed: Notify::new(),
            fetches: LocalQueue::new(FETCHES_MAX),
            offers: LocalQueue::new(FETCHES_MAX),
            installs: LocalQueue::new(FETCHES_MAX),
            outbox: Outbox::default(),
            lagging: RefCell::default(),
            lags: Notify::new(),
            unapplied_bytes: Rc::default(),
            stopped: Cell::new(false),
        }
    }

    /// Bytes of entries between their proposal and their application: in the log's buffers and beside them.
    pub fn queued_bytes(&self) -> usize {
        self.unapplied_bytes.get() + self.log.metrics().pending_bytes as usize
    }

    pub fn log(&self) -> &Log<D> {
        &self.log
    }

    pub fn placement(&self) -> &Placement {
        &self.surroundings.placement
    }

    /// Makes a group whose machine has been brought up to its log. Alone, this node opens a term in it at once:
    /// [`Log::run`] must be running, because a log that came back with its last segment full first needs another one, and
    /// the opening entry commits once [`Replicas::run_commits`] runs. With others, an election follows by
    /// [`Replicas::tick`].
    pub async fn open_group(&self, id: GroupId, found: Found, machine: Rc<dyn Machine>) -> Result<(), ProposeError> {
        let node = self.placement().node;
        let options = (self.surroundings.options)(id, node);
        let seed = options.seed;
        let now = (self.surroundings.clock)();
        let (flushed, flushed_term) = machine.flushed();
        let term = found.term().max(flushed_term);
        if self.placement().is_alone(id) {
            // The only voter has committed all that it has applied, and nobody asks it for entries.
            let last = EntryId { term, index: machine.applied() };
            let restored = Restored::single(node, HardState { term, vote: node }, last);
            let mut raft = Raft::new(options, restored, now);
            let output = raft.campaign(now);
            let group = Rc::new(Group::new(raft, machine, seed, self.unapplied_bytes.clone()));
            self.groups.borrow_mut().insert(id, group.clone());
            self.carry_out(&group, output);
            loop {
                match self.work_off() {
                    Ok(()) => return Ok(()),
                    Err(AppendError::Busy) => self.log.room().await,
                    Err(error) => return Err(refusal(error)),
                }
            }
        }
        let members = match &machine.flushed_members()[..] {
            [] => self.placement().members(id),
            members => Membership::decode(members)
                .map_err(|error| ProposeError::Stopped(format!("the files of group {id}: {error}")))?,
        };
        let mut members = vec![(flushed, members)];
        members.extend(found.members.into_iter().filter(|(at, _)| *at > flushed));
        let vote = if found.hard_state.term == term { found.hard_state.vote } else { NodeId(0) };
        let restored = Restored {
            hard_state: HardState { term, vote },
            base: EntryId { term: flushed_term, index: flushed },
            last_index: found.last.map_or(flushed, |last| last.index),
            terms: found.terms,
            committed: machine.applied(),
            members,
        };
        let raft = Raft::new(options, restored, now);
        let group = Rc::new(Group::new(raft, machine, seed, self.unapplied_bytes.clone()));
        found.undecided.iter().for_each(|entry| group.push(entry));
        self.groups.borrow_mut().insert(id, group);
        Ok(())
    }

    pub fn group(&self, id: GroupId) -> Option<Rc<Group>> {
        self.groups.borrow().get(&id).cloned()
    }

    fn all(&self) -> Vec<Rc<Group>> {
        self.groups.borrow().values().cloned().collect()
    }

    /// Takes an entry into the group's log. The ticket tells when it is committed and applied.
    pub fn propose(&self, id: GroupId, payload: Payload) -> Result<Ticket, ProposeError> {
        self.propose_or_return(id, payload).map_err(|(error, _)| error)
    }

    /// As [`Replicas::propose`]; what is only [`ProposeError::Busy`] is given back, to be tried again when there is room.
    pub fn propose_or_return(&self, id: GroupId, payload: Payload) -> Result<Ticket, (ProposeError, Option<Payload>)> {
        let stopped = |text: String| (ProposeError::Stopped(text), None);
        let group = self.group(id).ok_or_else(|| stopped(format!("no group {id} on this core")))?;
        if group.is_broken() {
            return Err(stopped(format!("group {id} has stopped: an entry could not be applied")));
        }
        if self.commits.len() >= COMMITS_MAX || !self.backlog.borrow().is_empty() {
            return Err((ProposeError::Busy(TOO_MUCH_WAITS), Some(payload)));
        }
        let kept = payload.clone();
        let proposed = group.raft.borrow_mut().propose(payload);
        let (entry, mut output) = proposed.map_err(|rejected| match rejected {
            Rejected::Busy => (ProposeError::Busy(TOO_MUCH_WAITS), Some(kept.clone())),
            Rejected::NotLeader { leader } => (ProposeError::NotLeader(leader), None),
            Rejected::Transferring { to } => (ProposeError::NotLeader(to), None),
            Rejected::TooLarge => (ProposeError::TooLarge(rejected.to_string()), None),
            rejected => stopped(rejected.to_string()),
        })?;
        // The log may refuse what is proposed, and nothing has happened.
        let mut write = Write::begin(&group, &mut output);
        if let Err(error) = self.append(&mut write) {
            group.retract(entry.index);
            return Err((refusal(error), Some(kept)));
        }
        let (ticket, slot) = Ticket::new();
        group.expect(entry, slot);
        self.await_stable(write);
        self.tell(&group, output);
        Ok(ticket)
    }

    /// A message of another node.
    pub fn receive(&self, message: Message<Payload>) -> Result<(), Unheard> {
        let group = self.group(message.group).ok_or(Unheard::UnknownGroup)?;
        if self.stopped.get() || group.is_broken() {
            return Err(Unheard::Stopped);
        }
        if let tidemill_raft::Body::Append { entries, .. } = &message.body
            && entries.iter().filter_map(|entry| entry.content.data()).any(|payload| !is_plain(payload))
        {
            return Err(Unheard::Kind);
        }
        let output = group.raft.borrow_mut().handle_message((self.surroundings.clock)(), message)?;
        self.carry_out(&group, output);
        Ok(())
    }

    /// Time has passed: to be called several times within a heartbeat interval.
    pub fn tick(&self) {
        if self.stopped.get() {
            return;
        }
        let now = (self.surroundings.clock)();
        for group in self.all() {
            if group.is_broken() || self.placement().is_alone(group.id()) {
                continue;
            }
            let output = group.raft.borrow_mut().handle_tick(now);
            self.carry_out(&group, output);
        }
        self.backlog_changed.notify();
    }

    /// No group does anything any more.
    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Groups that this node leads beside others.
    pub fn led(&self) -> Vec<GroupId> {
        let leads = |group: &Rc<Group>| group.raft.borrow().role() == Role::Leader;
        self.all().iter().filter(|group| leads(group)).map(|group| group.id()).collect()
    }

    /// Proposals of this node that have not ended.
    pub fn waiting(&self) -> usize {
        self.all().iter().map(|group| group.waiting()).sum()
    }

    pub fn leads(&self, id: GroupId) -> bool {
        self.group(id).is_some_and(|group| group.raft.borrow().role() == Role::Leader)
    }

    /// Who leads a group, as far as this node knows; zero: nobody is known to.
    pub fn leader(&self, id: GroupId) -> NodeId {
        self.group(id).map_or(NodeId(0), |group| group.leader())
    }

    /// Up to here every replica of a group has its log durably; `None`: this node does not lead it.
    pub fn durable_everywhere(&self, id: GroupId) -> Option<LogIndex> {
        self.group(id)?.raft.borrow().durable_everywhere()
    }

    /// Whether this node leads the group and the other one has said that it has all of the log.
    pub fn has_all(&self, id: GroupId, node: NodeId) -> bool {
        self.group(id).is_some_and(|group| group.raft.borrow().has_all(node))
    }

    /// Hands the leadership of a group over, if it is this node's and the other one has caught up.
    pub fn hand_over(&self, id: GroupId, to: NodeId) -> Result<(), Rejected> {
        let Some(group) = self.group(id) else { return Err(Rejected::NotLeader { leader: NodeId(0) }) };
        let output = group.raft.borrow_mut().transfer_leadership(to)?;
        self.carry_out(&group, output);
        Ok(())
    }

    /// The members of a group that are in force here.
    pub fn members(&self, id: GroupId) -> Option<Membership> {
        self.group(id).map(|group| group.members())
    }

    /// Begins the change to these members; the ticket tells when its first entry is committed. The change has ended when
    /// [`Group::settled_members`] is `to`: the leader leaves a joint membership by itself, and so does one that comes
    /// after it. Only learners that have caught up become voters.
    pub fn change_members(&self, id: GroupId, to: Membership) -> Result<Ticket, Rejected> {
        let group = self.group(id).filter(|group| !group.is_broken() && !self.stopped.get());
        let group = group.ok_or(Rejected::NotLeader { leader: NodeId(0) })?;
        let (entry, output) = group.raft.borrow_mut().change_members(to)?;
        let (ticket, slot) = Ticket::new();
        group.expect(entry, slot);
        self.carry_out(&group, output);
        Ok(ticket)
    }

    /// Returns once this node's state of the group shows everything that was acknowledged, by whatever node, before this
    /// call. A follower asks its leader; the answer may get lost, so the caller sets a limit.
    pub async fn read(&self, id: GroupId) -> Result<(), Leaderless> {
        let group = self.group(id).ok_or(Leaderless)?;
        let (read, slot) = group.expect_read();
        let forget = Forget { group: &group, read };
        let output = group.raft.borrow_mut().read((self.surroundings.clock)(), read);
        self.carry_out(&group, output);
        let index = slot.take().await.ok_or(Leaderless)?;
        drop(forget);
        group.applied_up_to(index).await;
        Ok(())
    }

    /// Commits and applies what becomes durable, in the order of the log, until [`Replicas::close`]. To be run once,
    /// beside [`Log::run`].
    pub async fn run_commits(&self) {
        let mut turn = 0;
        while let Some(commit) = self.commits.pop().await {
            if let Err(poisoned) = self.log.stable(commit.position).await {
                return self.stop(&poisoned.to_string());
            }
            if self.placement().is_alone(commit.group.id()) {
                self.handle_stable(&commit.group, commit.write);
            } else {
                // The others hear of all that became durable by now at once.
                for (group, write) in self.stable_writes(commit) {
                    self.handle_stable(&group, write);
                }
            }
            turn += 1;
            if turn % COMMITS_PER_TURN == 0 {
                breathe().await;
            }
        }
    }

    fn handle_stable(&self, group: &Rc<Group>, write: WriteId) {
        let output = group.raft.borrow_mut().handle_stable(write);
        self.carry_out(group, output);
    }

    /// The newest durable write of each group, from the queue's head on.
    fn stable_writes(&self, first: Commit) -> Vec<(Rc<Group>, WriteId)> {
        let durable = self.log.durable();
        let mut newest = BTreeMap::from([(first.group.id(), (first.group, first.write))]);
        while let Some(commit) = self.commits.try_pop_if(|next| next.position <= durable) {
            newest.insert(commit.group.id(), (commit.group, commit.write));
        }
        newest.into_values().collect()
    }

    /// Sends what groups say, goes on applying, puts into the log what it had no room for, reads from it what members
    /// that lag need, and gives and takes state as files, until [`Replicas::close`]. To be run once where there are other
    /// nodes.
    pub async fn run_chores(&self) {
        let log = future::zip(self.run_backlog(), self.run_fetches());
        let files = future::zip(self.run_offers(), self.run_installs());
        let words = future::zip(self.run_outbox(), self.run_applies());
        future::zip(words, future::zip(log, files)).await;
    }

    async fn run_outbox(&self) {
        loop {
            let more = self.outbox.changed.notified();
            self.outbox.take().for_each(&self.surroundings.outlet);
            if self.stopped.get() {
                return;
            }
            more.await;
        }
    }

    async fn run_applies(&self) {
        loop {
            let more = self.lags.notified();
            let next = self.lagging.borrow_mut().pop_front();
            match next {
                Some(group) => {
                    group.lags.set(false);
                    self.apply_some(&group);
                    self.mark(&group);
                    breathe().await;
                }
                None if self.stopped.get() => return,
                None => more.await,
            }
        }
    }

    /// Applies what is committed: all of it where this node decides alone, because then it is as much as became durable.
    fn apply_some(&self, group: &Rc<Group>) {
        let alone = self.placement().is_alone(group.id());
        let bytes_max = if alone { usize::MAX } else { APPLIED_BYTES_PER_TURN };
        if !group.lags.get() && group.apply_committed(bytes_max) && !group.lags.replace(true) {
            self.lagging.borrow_mut().push_back(group.clone());
            self.lags.notify();
        }
    }

    /// The state of the group is in files up to `flushed`. Alone, the log is released up to there; with others, up to
    /// where the files were before: members that lag a little get entries instead of files.
    pub fn release(&self, id: GroupId, flushed: LogIndex) {
        let Some(group) = self.group(id) else { return };
        if self.placement().is_alone(id) {
            return self.log.release(id, flushed);
        }
        let before = group.flushed_up_to(flushed);
        if before > LogIndex(0) {
            group.raft.borrow_mut().compact(before);
            self.log.release(id, before);
        }
    }

    async fn run_offers(&self) {
        while let Some(group) = self.offers.pop().await {
            let offer = group.machine().offer().await;
            group.offered();
            let Some(Offer { index, manifest }) = offer else { continue };
            let output = {
                let mut raft = group.raft.borrow_mut();
                let is_known = index <= raft.committed().min(raft.stable_index()) && raft.term_at(index).is_some();
                let base = raft.base().index;
                is_known.then(|| raft.offer_snapshot(index, manifest, base.min(index)))
            };
            if let Some(output) = output {
                self.carry_out(&group, output);
            }
        }
    }

    async fn run_installs(&self) {
        while let Some((group, Install { from, snapshot })) = self.installs.pop().await {
            let gift = Gift { from, group: group.id(), base: snapshot.base, manifest: snapshot.manifest };
            // Nothing becomes committed before the end of the installation, and nothing must be applied beside it.
            group.apply_committed(usize::MAX);
            let installed = group.machine().install(&gift, self.surroundings.sources.as_ref()).await;
            let output = match installed {
                Ok(()) => {
                    tracing::info!(group = gift.group.0, from = from.0, index = gift.base.index.0, "took files over");
                    self.log.release(gift.group, gift.base.index);
                    group.installed();
                    group.raft.borrow_mut().handle_installed()
                }
                Err(InstallFailure::Unchanged(why)) => {
                    tracing::warn!(group = gift.group.0, from = from.0, why, "files were not taken over");
                    group.raft.borrow_mut().handle_install_failed()
                }
                Err(InstallFailure::Broken(why)) => {
                    group.break_down(&why);
                    continue;
                }
            };
            self.carry_out(&group, output);
            group.notify_applied();
        }
    }

    async fn run_backlog(&self) {
        loop {
            let changed = self.backlog_changed.notified();
            if self.stopped.get() {
                return;
            }
            match self.work_off() {
                Ok(()) | Err(AppendError::Busy | AppendError::Full) => {}
                Err(error) => return self.stop(&error.to_string()),
            }
            changed.await;
        }
    }

    async fn run_fetches(&self) {
        while let Some((group, Fetch { to, first, last, bytes_max })) = self.fetches.pop().await {
            let entries = match self.log.read_entries(group.id(), first, last, bytes_max).await {
                Ok(entries) => entries,
                Err(error) => {
                    tracing::error!(group = group.id().0, %error, "entries for another node cannot be read");
                    Vec::new()
                }
            };
            let entry = |entry: ReadEntry| {
                let ReadEntry { term, index, payload } = entry;
                logged(Bytes::from(payload)).map(|content| Entry { term, index, content })
            };
            let entries = entries.into_iter().map(entry).collect::<Result<Vec<_>, _>>().unwrap_or_else(|error| {
                tracing::error!(group = group.id().0, %error, "entries for another node cannot be read");
                Vec::new()
            });
            let output = group.raft.borrow_mut().handle_fetched(to, entries);
            self.carry_out(&group, output);
        }
    }

    /// No more proposals; what was taken is still committed.
    pub fn close(&self) {
        self.end_tasks();
        self.log.close();
    }

    fn end_tasks(&self) {
        self.stopped.set(true);
        self.commits.close();
        self.fetches.close();
        self.offers.close();
        self.installs.close();
        self.backlog_changed.notify();
        self.outbox.close();
        self.lags.notify();
    }

    fn stop(&self, reason: &str) {
        tracing::error!(reason, "writes have stopped");
        self.end_tasks();
        self.all().iter().for_each(|group| group.give_up(reason));
        while self.commits.try_pop().is_some() {}
    }

    /// Does what a group's raft asks for.
    fn carry_out(&self, group: &Rc<Group>, mut output: Output<Payload>) {
        if output.write.is_some() {
            let mut write = Write::begin(group, &mut output);
            let is_free = self.backlog.borrow().is_empty() && self.commits.len() < COMMITS_MAX;
            if is_free && self.append(&mut write).is_ok() {
                self.await_stable(write);
            } else {
                self.backlog.borrow_mut().push_back(write);
            }
        }
        self.tell(group, output);
    }

    /// All that is not for the log.
    fn tell(&self, group: &Rc<Group>, output: Output<Payload>) {
        group.settle_ended(&output.ended);
        output.send.into_iter().for_each(|message| self.outbox.push(message));
        for fetch in output.fetch {
            // A request that is dropped is made again with the next answer to a heartbeat.
            let _ = self.fetches.try_push((group.clone(), fetch));
        }
        if output.manifest_wanted && group.begin_offer() && self.offers.try_push(group.clone()).is_err() {
            group.offered();
        }
        if let Some(install) = output.install
            && self.installs.try_push((group.clone(), install)).is_err()
        {
            let refused = group.raft.borrow_mut().handle_install_failed();
            self.carry_out(group, refused);
        }
        self.apply_some(group);
        group.settle_reads(&output.reads);
        self.mark(group);
    }

    /// Tells the log what is committed, if that is worth it. Nothing waits for it.
    fn mark(&self, group: &Rc<Group>) {
        let alone = self.placement().is_alone(group.id());
        if alone || !group.wants_mark(MARK_BYTES) || !self.backlog.borrow().is_empty() {
            return;
        }
        let HardState { term, vote } = group.raft.borrow().hard_state();
        let committed = group.machine().applied();
        let record = Record::HardState { group: group.id(), term, vote: vote_of(vote), committed };
        if self.log.append(record).is_ok() {
            group.marked();
        }
    }

    /// Gives the log what is left of a write, as far as it takes it.
    fn append(&self, write: &mut Write) -> Result<(), AppendError> {
        let group = write.group.id();
        if let Some(HardState { term, vote }) = write.hard_state {
            let committed = write.group.machine().applied();
            let record = Record::HardState { group, term, vote: vote_of(vote), committed };
            write.position = Some(self.log.append(record)?);
            write.hard_state = None;
        }
        while let Some(Entry { term, index, content }) = write.entries.front() {
            let members;
            let payload = match content {
                Content::Opening => None,
                Content::Data(payload) => Some(payload),
                Content::Members(brought) => {
                    members = members_entry(brought);
                    Some(&members)
                }
            };
            let parts = payload.map_or([&[][..]; 2], Payload::parts);
            let appended = match payload {
                Some(Payload::Batch(_)) => self.log.append_entry(group, *term, *index, &parts),
                // What may be what makes room.
                _ => self.log.append_command(group, *term, *index, &parts),
            };
            write.position = Some(appended?);
            write.entries.pop_front();
        }
        Ok(())
    }

    /// Once a write is in the log: its group hears when it is durable.
    fn await_stable(&self, write: Write) {
        let Write { group, id, position, .. } = write;
        let position = position.expect("a write of something has a place");
        // Closed: the core is stopping, and nobody listens any more.
        let _ = self.commits.try_push(Commit { position, group, write: id });
    }

    /// Gives the log what waits for room in it.
    fn work_off(&self) -> Result<(), AppendError> {
        loop {
            let next = self.backlog.borrow_mut().pop_front();
            let Some(mut write) = next else { return Ok(()) };
            if self.commits.len() >= COMMITS_MAX {
                self.backlog.borrow_mut().push_front(write);
                return Err(AppendError::Busy);
            }
            if let Err(error) = self.append(&mut write) {
                self.backlog.borrow_mut().push_front(write);
                return Err(error);
            }
            self.await_stable(write);
        }
    }
}

impl Write {
    /// What an output wants written; its entries are on their way from now on.
    fn begin(group: &Rc<Group>, output: &mut Output<Payload>) -> Write {
        let id = output.write.expect("an output with an entry or a term asks for a write");
        let entries = std::mem::take(&mut output.append);
        entries.iter().for_each(|entry| group.push(entry));
        Write { group: group.clone(), id, hard_state: output.hard_state, entries: entries.into(), position: None }
    }
}

/// A reader that went away is not waited for.
struct Forget<'a> {
    group: &'a Group,
    read: ReadId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.group.forget_read(self.read);
    }
}

fn vote_of(vote: NodeId) -> Option<u64> {
    (vote != NodeId(0)).then_some(vote.0)
}

fn refusal(error: AppendError) -> ProposeError {
    match error {
        AppendError::Full => ProposeError::DiskFull,
        AppendError::Busy => ProposeError::Busy(TOO_MUCH_WAITS),
        AppendError::TooLarge { .. } => ProposeError::TooLarge(error.to_string()),
        AppendError::Poisoned(_) | AppendError::Closed => ProposeError::Stopped(error.to_string()),
    }
}
