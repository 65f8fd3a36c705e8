//! Bringing state machines up to what a log holds.

use super::{
    Machine, Payload,
    payload::{logged, members_entry},
    placement::Placement,
};
use bytes::Bytes;
use std::{collections::BTreeMap, rc::Rc};
use tidemill_disk::Disk;
use tidemill_log::{Log, LogOptions, OpenError, Record, RecoveryError};
use tidemill_raft::{Content, Entry, EntryId, GroupId, HardState, LogIndex, Membership, MembershipError, NodeId, Term};

/// Why a core does not come up.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] RecoveryError),
    #[error("group {group}: entry {index} cannot be applied: {error}")]
    Apply { group: GroupId, index: LogIndex, error: String },
    #[error("group {group}: entry {index}: {error}")]
    Members { group: GroupId, index: LogIndex, error: MembershipError },
    #[error("the log holds entries of group {group}, which is none of this server's")]
    UnknownGroup { group: GroupId },
}

/// What a log tells of one group.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub hard_state: HardState,
    /// The first entry of each term behind the files, upwards.
    pub(super) terms: Vec<EntryId>,
    /// The newest entry behind the files.
    pub(super) last: Option<EntryId>,
    /// Entries of which the log does not say that they are committed, in their order; not applied.
    pub(super) undecided: Vec<Entry<Payload>>,
    /// Members that entries behind the files bring, with the index of each, upwards.
    pub(super) members: Vec<(LogIndex, Membership)>,
}

impl Found {
    /// The term in which the group goes on, at least.
    pub fn term(&self) -> Term {
        self.hard_state.term.max(self.last.map_or(Term(0), |last| last.term))
    }

    /// Bytes of entries of which the log does not say that they are committed, in their order.
    pub fn undecided(&self) -> impl Iterator<Item = &[u8]> {
        let payloads = self.undecided.iter().filter_map(|entry| entry.content.data());
        payloads.map(|payload| payload.parts()[0])
    }

    fn note(&mut self, id: EntryId) {
        if self.last.is_none_or(|last| last.term != id.term) {
            self.terms.push(id);
        }
        self.last = Some(id);
    }
}

/// Opens the log in `folder` and applies what it holds behind the machines' files, as far as it is committed: all of it
/// where this node is alone in a group, and else what the log says. Returns what it tells of each group.
pub async fn recover<D: Disk>(
    disk: D,
    folder: &str,
    options: LogOptions,
    placement: &Placement,
    machines: &BTreeMap<GroupId, Rc<dyn Machine>>,
) -> Result<(Log<D>, BTreeMap<GroupId, Found>), RecoverError> {
    let from = |group: GroupId| machines.get(&group).map_or(LogIndex(0), |machine| machine.flushed().0);
    let (log, mut recovery) = Log::open(disk, folder, options, from).await?;
    if let Some(cut) = recovery.cut() {
        tracing::warn!(folder, ?cut, "the log ended in a torn commit, which nobody was told was durable");
    }
    let mut founds: BTreeMap<GroupId, Found> = BTreeMap::new();
    while let Some(record) = recovery.next().await? {
        let group = record.group();
        let found = founds.entry(group).or_default();
        match record {
            Record::HardState { term, vote, committed, .. } => {
                found.hard_state = HardState { term, vote: NodeId(vote.unwrap_or_default()) };
                if let Some(machine) = machines.get(&group) {
                    let decided = found.undecided.iter().take_while(|entry| entry.index <= committed).count();
                    for entry in found.undecided.drain(..decided) {
                        let payload = match entry.content {
                            Content::Opening => None,
                            Content::Data(payload) => Some(payload),
                            Content::Members(members) => Some(members_entry(&members)),
                        };
                        let bytes = payload.as_ref().map_or(&[][..], |payload| payload.parts()[0]);
                        let applied = machine.replay(entry.term, entry.index, bytes);
                        applied.map_err(|error| RecoverError::Apply { group, index: entry.index, error })?;
                    }
                }
            }
            Record::Entry { term, index, payload, .. } => {
                let machine = machines.get(&group).ok_or(RecoverError::UnknownGroup { group })?;
                if !placement.is_alone(group) && term < machine.flushed().1 {
                    // What stood in the log when other members' files were taken over, of a history that ended.
                    continue;
                }
                found.note(EntryId { term, index });
                if placement.is_alone(group) {
                    let applied = machine.replay(term, index, payload);
                    applied.map_err(|error| RecoverError::Apply { group, index, error })?;
                } else {
                    let content = logged(Bytes::copy_from_slice(payload));
                    let content = content.map_err(|error| RecoverError::Members { group, index, error })?;
                    if let Content::Members(members) = &content {
                        found.members.push((index, members.clone()));
                    }
                    found.undecided.push(Entry { term, index, content });
                }
            }
        }
    }
    drop(recovery);
    for (group, machine) in machines {
        log.release(*group, machine.flushed().0);
    }
    Ok((log, founds))
}
