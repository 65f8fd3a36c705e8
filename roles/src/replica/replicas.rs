//! All groups of one core.

use super::{
    Group, Machine, Payload,
    ticket::{Slot, Ticket},
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};
use tidemill_disk::{Disk, LocalQueue};
use tidemill_log::{AppendError, Log, Position, Record};
use tidemill_raft::{
    Content, Entry, EntryId, GroupId, HardState, Moment, NodeId, Options, Raft, Restored, Term, WriteId,
};
use tidemill_store::breathe;

/// Entries between their append and their commit on one core. A thousand clients with a request each on sixteen
/// partitions stay below it.
pub const COMMITS_MAX: usize = 32 * 1024;
/// Commits that are applied before other tasks of the core get a turn.
const COMMITS_PER_TURN: usize = 4;

const TOO_MUCH_WAITS: &str = "too much waits for its commit";

/// The one voter of a standalone group.
const NODE: NodeId = NodeId(1);

/// Groups, log, and the queue between append and commit.
pub struct Replicas<D: Disk> {
    log: Log<D>,
    groups: RefCell<BTreeMap<GroupId, Rc<Group>>>,
    commits: LocalQueue<Commit>,
    /// Payloads that are not applied yet.
    unapplied_bytes: Rc<Cell<usize>>,
}

struct Commit {
    position: Position,
    group: Rc<Group>,
    write: WriteId,
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
    /// The log or the group has stopped for good.
    #[error("{0}")]
    Stopped(String),
}

impl<D: Disk> Replicas<D> {
    pub fn new(log: Log<D>) -> Replicas<D> {
        Replicas {
            log,
            groups: RefCell::default(),
            commits: LocalQueue::new(COMMITS_MAX),
            unapplied_bytes: Rc::default(),
        }
    }

    /// Bytes of entries between their proposal and their application: in the log's buffers and beside them.
    pub fn queued_bytes(&self) -> usize {
        self.unapplied_bytes.get() + self.log.metrics().pending_bytes as usize
    }

    pub fn log(&self) -> &Log<D> {
        &self.log
    }

    /// Makes a group whose machine has been brought up to its log, and opens a term in it. [`Log::run`] must be running:
    /// a log that came back with its last segment full first needs another one. The opening entry commits once
    /// [`Replicas::run_commits`] runs.
    pub async fn open_group(&self, id: GroupId, hard_term: Term, machine: Rc<dyn Machine>) -> Result<(), ProposeError> {
        let term = hard_term.max(machine.flushed().1);
        // The only voter has committed all that it has applied, and nobody asks it for entries.
        let last = EntryId { term, index: machine.applied() };
        let restored = Restored::single(NODE, HardState { term, vote: NODE }, last);
        // Alone there is nothing to time.
        let mut raft = Raft::new(Options::new(id, NODE, 0), restored, Moment(0));
        let output = raft.campaign(Moment(0));
        if let Some(state) = output.hard_state {
            let vote = Some(state.vote.0);
            self.append_when_ready(|log| log.append(Record::HardState { group: id, term: state.term, vote })).await?;
        }
        let group = Rc::new(Group::new(raft, machine, self.unapplied_bytes.clone()));
        for entry in output.append {
            let append = |log: &Log<D>| log.append_command(id, entry.term, entry.index, &[]);
            let position = self.append_when_ready(append).await?;
            let (_, slot) = Ticket::new();
            group.push(entry.term, entry.index, None, slot);
            self.enqueue(position, &group, output.write)?;
        }
        self.groups.borrow_mut().insert(id, group);
        Ok(())
    }

    async fn append_when_ready(
        &self,
        append: impl Fn(&Log<D>) -> Result<Position, AppendError>,
    ) -> Result<Position, ProposeError> {
        loop {
            match append(&self.log) {
                Err(AppendError::Busy) => self.log.room().await,
                done => return done.map_err(refusal),
            }
        }
    }

    pub fn group(&self, id: GroupId) -> Option<Rc<Group>> {
        self.groups.borrow().get(&id).cloned()
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
        if self.commits.len() >= COMMITS_MAX {
            return Err((ProposeError::Busy(TOO_MUCH_WAITS), Some(payload)));
        }
        let mut raft = group.raft.borrow_mut();
        let (_, output) = raft.propose(payload).map_err(|error| stopped(error.to_string()))?;
        let (ticket, slot) = Ticket::new();
        for Entry { term, index, content } in output.append {
            let parts = content.data().map_or([&[][..]; 2], Payload::parts);
            let appended = match content.data() {
                Some(Payload::Batch(_)) => self.log.append_entry(id, term, index, &parts),
                // What may be what makes room.
                Some(Payload::Command(_)) | None => self.log.append_command(id, term, index, &parts),
            };
            match appended {
                Ok(position) => {
                    let payload = match content {
                        Content::Data(payload) => Some(payload),
                        Content::Opening | Content::Members(_) => None,
                    };
                    group.push(term, index, payload, Rc::<Slot>::clone(&slot));
                    self.enqueue(position, &group, output.write).map_err(|error| (error, None))?;
                }
                Err(error) => {
                    raft.retract(index);
                    let payload = match content {
                        Content::Data(payload) => Some(payload),
                        Content::Opening | Content::Members(_) => None,
                    };
                    return Err((refusal(error), payload));
                }
            }
        }
        Ok(ticket)
    }

    /// Commits and applies what becomes durable, in the order of the log, until [`Replicas::close`]. To be run once,
    /// beside [`Log::run`].
    pub async fn run_commits(&self) {
        let mut turn = 0;
        while let Some(commit) = self.commits.pop().await {
            match self.log.stable(commit.position).await {
                Ok(()) => commit.group.handle_stable(commit.write),
                Err(poisoned) => {
                    tracing::error!(%poisoned, "writes have stopped");
                    self.commits.close();
                    self.groups.borrow().values().for_each(|group| group.give_up(&poisoned.to_string()));
                    while self.commits.try_pop().is_some() {}
                    return;
                }
            }
            turn += 1;
            if turn % COMMITS_PER_TURN == 0 {
                breathe().await;
            }
        }
    }

    /// No more proposals; what was taken is still committed.
    pub fn close(&self) {
        self.commits.close();
        self.log.close();
    }

    fn enqueue(&self, position: Position, group: &Rc<Group>, write: Option<WriteId>) -> Result<(), ProposeError> {
        let write = write.expect("an output with an entry asks for a write");
        let commit = Commit { position, group: group.clone(), write };
        self.commits.try_push(commit).map_err(|_| ProposeError::Stopped("the core is stopping".into()))
    }
}

fn refusal(error: AppendError) -> ProposeError {
    match error {
        AppendError::Full => ProposeError::DiskFull,
        AppendError::Busy => ProposeError::Busy(TOO_MUCH_WAITS),
        AppendError::TooLarge { .. } => ProposeError::TooLarge(error.to_string()),
        AppendError::Poisoned(_) | AppendError::Closed => ProposeError::Stopped(error.to_string()),
    }
}
