//! The state machine of one group at one voter.

use crate::{GroupId, LogIndex, NodeId, Term};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<P> {
    pub term: Term,
    pub index: LogIndex,
    /// `None`: the empty entry with which a leader opens its term.
    pub payload: Option<P>,
}

/// What must be durable before anything of the term is answered (R5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: Term,
    pub vote: NodeId,
}

/// What the shell found on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub hard_state: HardState,
    /// Newest entry in the log, or the point up to which the state is in files, whichever is later.
    pub last_index: LogIndex,
    /// Term of that entry; zero if it is not known any more.
    pub last_term: Term,
}

/// What the shell must do next, in this order: make `hard_state` and `append` durable, then call
/// [`Raft::handle_stable`]; wake the waiters up to `committed` and apply up to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output<P> {
    pub hard_state: Option<HardState>,
    pub append: Vec<Entry<P>>,
    /// The commit index, if it rose.
    pub committed: Option<LogIndex>,
}

impl<P> Output<P> {
    fn nothing() -> Output<P> {
        Output { hard_state: None, append: Vec::new(), committed: None }
    }
}

/// Why a proposal was not taken. It is certain that it will never commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("this voter has not opened a term as leader")]
    NotLeader,
}

/// The state machine. `P` is the payload as the shell holds it.
#[derive(Debug)]
pub struct Raft {
    group: GroupId,
    node: NodeId,
    hard_state: HardState,
    leads: bool,
    last_index: LogIndex,
    stable_index: LogIndex,
    committed: LogIndex,
    /// First index of the current term: nothing commits by count before it is stable.
    term_start: LogIndex,
}

impl Raft {
    /// A voter as it comes back from its disk. Nothing is committed yet.
    pub fn new(group: GroupId, node: NodeId, restored: Restored) -> Raft {
        assert!(
            restored.last_term <= restored.hard_state.term,
            "group {group}: an entry of term {} is ahead of the durable term {}",
            restored.last_term,
            restored.hard_state.term
        );
        Raft {
            group,
            node,
            hard_state: restored.hard_state,
            leads: false,
            last_index: restored.last_index,
            stable_index: restored.last_index,
            committed: LogIndex(0),
            term_start: LogIndex(u64::MAX),
        }
    }

    pub fn group(&self) -> GroupId {
        self.group
    }

    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    pub fn last_index(&self) -> LogIndex {
        self.last_index
    }

    pub fn committed(&self) -> LogIndex {
        self.committed
    }

    /// Opens a term: votes for itself, which is a majority of one, and appends the empty entry that lets the entries of
    /// earlier terms commit (thesis, section 3.6.2).
    pub fn campaign<P>(&mut self) -> Output<P> {
        self.hard_state = HardState { term: Term(self.hard_state.term.0 + 1), vote: self.node };
        self.leads = true;
        let opening = self.append(None);
        self.term_start = opening.index;
        Output { hard_state: Some(self.hard_state), append: vec![opening], committed: None }
    }

    /// Takes a payload into the log; it commits when its index is stable.
    pub fn propose<P>(&mut self, payload: P) -> Result<Output<P>, Rejected> {
        if !self.leads {
            return Err(Rejected::NotLeader);
        }
        let entry = self.append(Some(payload));
        Ok(Output { append: vec![entry], ..Output::nothing() })
    }

    /// The log did not take the entry that was proposed last: as if it had never been proposed.
    ///
    /// # Panics
    /// If `index` is not the newest entry, or is stable already.
    pub fn retract(&mut self, index: LogIndex) {
        assert!(index == self.last_index && index > self.stable_index, "group {}: retract {index}", self.group);
        self.last_index = LogIndex(index.0 - 1);
    }

    /// Everything up to `index` is durable in this voter's log.
    ///
    /// # Panics
    /// If `index` was never appended: the shell would acknowledge what does not exist.
    pub fn handle_stable<P>(&mut self, index: LogIndex) -> Output<P> {
        assert!(index <= self.last_index, "group {}: {index} stable, {} appended", self.group, self.last_index);
        self.stable_index = self.stable_index.max(index);
        if !self.leads || self.stable_index < self.term_start || self.stable_index <= self.committed {
            return Output::nothing();
        }
        self.committed = self.stable_index;
        Output { committed: Some(self.committed), ..Output::nothing() }
    }

    fn append<P>(&mut self, payload: Option<P>) -> Entry<P> {
        self.last_index = self.last_index.next();
        Entry { term: self.hard_state.term, index: self.last_index, payload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restored(last: u64, term: u64) -> Raft {
        let hard_state = HardState { term: Term(term), vote: NodeId(1) };
        Raft::new(GroupId(3), NodeId(1), Restored { hard_state, last_index: LogIndex(last), last_term: Term(term) })
    }

    #[test]
    fn nothing_commits_before_it_is_stable() {
        let mut raft = restored(0, 0);
        assert_eq!(raft.propose(7u8), Err(Rejected::NotLeader));
        let opened = raft.campaign::<u8>();
        assert_eq!(opened.append[0].index, LogIndex(1));
        let first = raft.propose(7u8).unwrap();
        assert_eq!((first.append[0].index, first.committed), (LogIndex(2), None));
        assert_eq!(raft.committed(), LogIndex(0));
        assert_eq!(raft.handle_stable::<u8>(LogIndex(2)).committed, Some(LogIndex(2)));
        assert_eq!(raft.handle_stable::<u8>(LogIndex(1)).committed, None);
        assert_eq!(raft.committed(), LogIndex(2));
    }

    #[test]
    fn entries_of_an_earlier_term_commit_with_the_opening_entry() {
        let mut raft = restored(9, 4);
        assert_eq!(raft.handle_stable::<u8>(LogIndex(9)).committed, None);
        let opened = raft.campaign::<u8>();
        assert_eq!((opened.hard_state.unwrap().term, opened.append[0].index), (Term(5), LogIndex(10)));
        assert_eq!(raft.handle_stable::<u8>(LogIndex(9)).committed, None);
        assert_eq!(raft.handle_stable::<u8>(LogIndex(10)).committed, Some(LogIndex(10)));
    }

    #[test]
    fn a_retracted_entry_leaves_no_gap() {
        let mut raft = restored(0, 0);
        raft.campaign::<u8>();
        let refused = raft.propose(1u8).unwrap().append[0].index;
        raft.retract(refused);
        assert_eq!(raft.propose(2u8).unwrap().append[0].index, refused);
    }

    #[test]
    #[should_panic(expected = "stable")]
    fn stability_of_an_entry_that_was_never_appended_is_a_programmer_error() {
        restored(1, 1).handle_stable::<u8>(LogIndex(2));
    }
}
