//! What the log keeps.

use tidemill_raft::{GroupId, LogIndex, Term};

/// One record of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// An entry of the group's raft log. One with an index that is already there replaces it and all that follow it.
    Entry { group: GroupId, term: Term, index: LogIndex, payload: &'a [u8] },
    /// Term and vote, durable before any answer that depends on them (R5). The newest one of each group is kept for as
    /// long as the log lives. Entries up to `committed` were known to be committed when it was written, if not more.
    HardState { group: GroupId, term: Term, vote: Option<u64>, committed: LogIndex },
}

impl Record<'_> {
    pub fn group(&self) -> GroupId {
        match self {
            Record::Entry { group, .. } | Record::HardState { group, .. } => *group,
        }
    }
}
