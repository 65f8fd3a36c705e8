//! Bringing state machines up to what a log holds.

use super::Machine;
use std::{collections::BTreeMap, rc::Rc};
use tidemill_disk::Disk;
use tidemill_log::{Log, LogOptions, OpenError, Record, RecoveryError};
use tidemill_raft::{GroupId, LogIndex, Term};

/// Why a core does not come up.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] RecoveryError),
    #[error("group {group}: entry {index} cannot be applied: {error}")]
    Apply { group: GroupId, index: LogIndex, error: String },
    #[error("the log holds entries of group {group}, which is none of this server's")]
    UnknownGroup { group: GroupId },
}

/// Opens the log in `folder` and applies what it holds behind the machines' files. A group of one voter has committed
/// whatever its log holds, so entries are applied as they are read. Returns the newest durable term of each group.
pub async fn recover<D: Disk>(
    disk: D,
    folder: &str,
    options: LogOptions,
    machines: &BTreeMap<GroupId, Rc<dyn Machine>>,
) -> Result<(Log<D>, BTreeMap<GroupId, Term>), RecoverError> {
    let from = |group: GroupId| machines.get(&group).map_or(LogIndex(0), |machine| machine.flushed().0);
    let (log, mut recovery) = Log::open(disk, folder, options, from).await?;
    if let Some(cut) = recovery.cut() {
        tracing::warn!(folder, ?cut, "the log ended in a torn commit, which nobody was told was durable");
    }
    let mut terms: BTreeMap<GroupId, Term> = BTreeMap::new();
    while let Some(record) = recovery.next().await? {
        let group = record.group();
        match record {
            Record::HardState { term, .. } => {
                let known = terms.entry(group).or_default();
                *known = term.max(*known);
            }
            Record::Entry { term, index, payload, .. } => {
                let machine = machines.get(&group).ok_or(RecoverError::UnknownGroup { group })?;
                let applied = machine.replay(term, index, payload);
                applied.map_err(|error| RecoverError::Apply { group, index, error })?;
                let known = terms.entry(group).or_default();
                *known = term.max(*known);
            }
        }
    }
    drop(recovery);
    for (group, machine) in machines {
        log.release(*group, machine.flushed().0);
    }
    Ok((log, terms))
}
