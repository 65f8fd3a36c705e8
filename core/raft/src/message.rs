//! What members tell each other, and the limits within which they are listened to.
//!
//! Invariants: a message that passed [`Message::check`] has indices and terms with which no arithmetic overflows, and
//! entries that follow each other. Its sender is who it says (the transport has proved that); that it is right is not
//! assumed.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::{Entry, EntryId, GroupId, LogIndex, Membership, Moment, NodeId, Payload, ReadId, Term};
use alloc::{sync::Arc, vec::Vec};

/// Terms and indices stay below: a thousand years of a billion entries a second.
pub const COUNTER_MAX: u64 = 1 << 62;
/// Entries of one append message.
pub const ENTRIES_MAX: usize = 4096;
/// One append message; the largest frame of the log and a batch of small entries fit.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// A manifest: names and hashes, no contents.
pub const MANIFEST_BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<P> {
    pub group: GroupId,
    pub from: NodeId,
    pub to: NodeId,
    /// The sender's; of a pre-vote and of its being granted, the term that would follow.
    pub term: Term,
    pub body: Body<P>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<P> {
    /// Would you vote for me (thesis, section 9.6)?
    PreVote {
        last: EntryId,
    },
    PreVoteAnswer {
        granted: bool,
    },
    /// `transfer`: the leader has asked for it, so that its being alive is no reason against.
    Vote {
        last: EntryId,
        transfer: bool,
    },
    VoteAnswer {
        granted: bool,
    },
    Append {
        previous: EntryId,
        entries: Vec<Entry<P>>,
        commit: LogIndex,
    },
    /// Durable and equal to the leader's log up to here.
    Appended {
        matched: LogIndex,
    },
    /// The entry at `previous` is missing or another one; the logs can match at `hint` or earlier.
    Refused {
        previous: LogIndex,
        hint: EntryId,
    },
    Heartbeat {
        commit: LogIndex,
        round: u64,
    },
    HeartbeatAnswer {
        round: u64,
    },
    Snapshot(Snapshot),
    /// The state up to `index` could not be fetched.
    SnapshotFailed {
        index: LogIndex,
    },
    /// Stand for election now (thesis, section 3.10).
    TimeoutNow,
    /// The receiver's term is old; the message that said so was not listened to.
    StaleTerm,
    /// From which index on may a read be answered?
    Read {
        id: ReadId,
    },
    /// `None`: not by this member.
    ReadAnswer {
        id: ReadId,
        index: Option<LogIndex>,
    },
}

/// The state up to an entry, as a list of files that the receiver fetches as far as it has not got them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub base: EntryId,
    pub members: Membership,
    pub manifest: Arc<[u8]>,
}

/// Why a message was not listened to. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("for another group or member")]
    Address,
    #[error("a term or an index is out of range")]
    Range,
    #[error("larger than a message may be")]
    TooLarge,
    #[error("entries do not follow each other")]
    Entries,
    #[error("its terms contradict each other")]
    Terms,
    #[error("a second leader in one term")]
    SecondLeader,
    #[error("would change what is committed")]
    Committed,
    #[error("acknowledges what was not sent")]
    Unsent,
}

impl<P: Payload> Message<P> {
    /// Whether a member may look at it.
    pub fn check(&self) -> Result<(), MessageError> {
        let in_range = |value: u64| if value < COUNTER_MAX { Ok(()) } else { Err(MessageError::Range) };
        let id_in_range = |id: &EntryId| in_range(id.term.0).and(in_range(id.index.0));
        if self.from == NodeId(0) || self.from == self.to {
            return Err(MessageError::Address);
        }
        in_range(self.term.0)?;
        match &self.body {
            Body::PreVote { last } | Body::Vote { last, .. } => {
                id_in_range(last)?;
                if last.term >= self.term { Err(MessageError::Terms) } else { Ok(()) }
            }
            Body::Append { previous, entries, commit } => {
                id_in_range(previous)?;
                in_range(commit.0)?;
                self.check_entries(*previous, entries)
            }
            Body::Appended { matched: index } | Body::SnapshotFailed { index } => in_range(index.0),
            Body::Refused { previous, hint } => in_range(previous.0).and(id_in_range(hint)),
            Body::Heartbeat { commit, round } => in_range(commit.0).and(in_range(*round)),
            Body::HeartbeatAnswer { round } => in_range(*round),
            Body::Snapshot(Snapshot { base, manifest, .. }) => {
                id_in_range(base)?;
                if manifest.len() > MANIFEST_BYTES_MAX {
                    return Err(MessageError::TooLarge);
                }
                if base.term > self.term || base.index == LogIndex(0) {
                    return Err(MessageError::Terms);
                }
                Ok(())
            }
            Body::ReadAnswer { index, .. } => in_range(index.map_or(0, |index| index.0)),
            Body::PreVoteAnswer { .. }
            | Body::VoteAnswer { .. }
            | Body::TimeoutNow
            | Body::StaleTerm
            | Body::Read { .. } => Ok(()),
        }
    }

    fn check_entries(&self, previous: EntryId, entries: &[Entry<P>]) -> Result<(), MessageError> {
        if entries.len() > ENTRIES_MAX {
            return Err(MessageError::TooLarge);
        }
        let mut before = previous;
        let mut bytes = 0usize;
        for entry in entries {
            if entry.index.0 != before.index.0.saturating_add(1) || entry.index.0 >= COUNTER_MAX {
                return Err(MessageError::Entries);
            }
            if entry.term < before.term {
                return Err(MessageError::Terms);
            }
            bytes = bytes.saturating_add(entry.byte_size());
            before = entry.id();
        }
        if bytes > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLarge);
        }
        if before.term > self.term { Err(MessageError::Terms) } else { Ok(()) }
    }

    /// Bytes on the wire, about: what a transport reckons with.
    pub fn byte_size(&self) -> usize {
        const HEAD_BYTES: usize = 64;
        HEAD_BYTES
            + match &self.body {
                Body::Append { entries, .. } => entries.iter().map(Entry::byte_size).sum(),
                Body::Snapshot(snapshot) => snapshot.manifest.len() + snapshot.members.byte_size(),
                _ => 0,
            }
    }
}

/// When a round of heartbeats left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub number: u64,
    pub sent: Moment,
}
