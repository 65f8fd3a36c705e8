//! Content and names, durable and volatile.

use super::{FaultCounts, Operation, Prng, fault::Fault};
use crate::BLOCK_BYTES;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct State {
    pub prng: Prng,
    pub inodes: BTreeMap<u64, Inode>,
    pub next_inode: u64,
    pub next_change: u64,
    /// Folders are durable when made, as the seam says.
    pub folders: BTreeSet<String>,
    pub durable_names: BTreeMap<String, u64>,
    pub names: BTreeMap<String, u64>,
    /// Name changes by folder that no `sync_dir` covered yet.
    pub name_changes: BTreeMap<String, Vec<NameChange>>,
    pub capacity_bytes: Option<u64>,
    pub plans: Vec<Plan>,
    /// Operations until the power fails, counting the one that it strikes.
    pub crash_in: Option<u64>,
    pub power_is_off: bool,
    pub operations: [u64; super::OPERATIONS.len()],
    pub faults: FaultCounts,
    pub yields: bool,
}

#[derive(Default)]
pub(super) struct Inode {
    /// Durable content, as of before `changes`.
    pub base: Vec<u8>,
    /// What a read sees.
    pub current: Vec<u8>,
    /// In the order of the calls; the first is not durable. A durable one behind it stays in the list, so that a
    /// power loss that keeps an older change cannot put it on top of a newer one.
    pub changes: Vec<Logged>,
    pub handles: u32,
}

pub(super) struct Logged {
    pub id: u64,
    pub change: Change,
    /// The call returned. Only then does a later sync cover it.
    pub completed: bool,
    pub durable: bool,
}

pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Link { path: String, inode: u64 },
    Unlink { path: String, inode: u64 },
    Rename { from: String, to: String, inode: u64 },
}

pub(super) struct Plan {
    pub operation: Option<Operation>,
    pub remaining: u64,
    pub fault: Fault,
}

impl State {
    pub fn new(seed: u64) -> State {
        State {
            prng: Prng::new(seed),
            inodes: BTreeMap::new(),
            next_inode: 1,
            next_change: 1,
            folders: BTreeSet::from([String::new()]),
            durable_names: BTreeMap::new(),
            names: BTreeMap::new(),
            name_changes: BTreeMap::new(),
            capacity_bytes: None,
            plans: Vec::new(),
            crash_in: None,
            power_is_off: false,
            operations: [0; super::OPERATIONS.len()],
            faults: FaultCounts::default(),
            yields: true,
        }
    }

    /// The planned fault of this call, if its turn has come.
    pub fn planned(&mut self, operation: Operation) -> Option<Fault> {
        let mut struck = None;
        for (at, plan) in self.plans.iter_mut().enumerate() {
            if plan.operation.is_none_or(|only| only == operation) {
                plan.remaining -= 1;
                if plan.remaining == 0 && struck.is_none() {
                    struck = Some(at);
                }
            }
        }
        let fault = struck.map(|at| self.plans[at].fault);
        self.plans.retain(|plan| plan.remaining > 0);
        fault
    }

    /// Bytes that named and open files occupy, in whole blocks.
    pub fn used_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let blocks = |inode: &Inode| inode.current.len().next_multiple_of(BLOCK_BYTES) as u64;
        self.inodes.iter().filter(|(id, inode)| inode.handles > 0 || named.contains(id)).map(|(_, i)| blocks(i)).sum()
    }

    /// Whether the file may grow to `len` bytes.
    pub fn has_room(&self, inode: u64, len: usize) -> bool {
        let Some(capacity) = self.capacity_bytes else { return true };
        let present = self.inodes[&inode].current.len().next_multiple_of(BLOCK_BYTES);
        let wanted = len.next_multiple_of(BLOCK_BYTES);
        wanted <= present || self.used_bytes() + (wanted - present) as u64 <= capacity
    }

    /// Makes the change visible to reads; durable only by a later sync.
    pub fn change(&mut self, inode: u64, change: Change) -> u64 {
        let id = self.next_change;
        self.next_change += 1;
        let inode = self.inode(inode);
        apply(&mut inode.current, &change);
        inode.changes.push(Logged { id, change, completed: false, durable: false });
        id
    }

    pub fn complete(&mut self, inode: u64, change: u64) {
        if let Some(logged) = self.inode(inode).changes.iter_mut().find(|logged| logged.id == change) {
            logged.completed = true;
        }
    }

    /// Makes the changes for which `covered` says so durable.
    pub fn make_durable(&mut self, inode: u64, covered: impl Fn(&Logged) -> bool) {
        let inode = self.inode(inode);
        inode.changes.iter_mut().for_each(|logged| logged.durable |= covered(logged));
        inode.settle();
    }

    /// A failed sync: the system has given up on these writes, though it still shows them to reads.
    pub fn fail_sync(&mut self, inode: u64) {
        self.faults.failed_syncs += 1;
        let changes = std::mem::take(&mut self.inode(inode).changes);
        for mut logged in changes {
            logged.durable |= self.prng.one_in(2);
            if logged.durable {
                self.inode(inode).changes.push(logged);
            } else {
                self.faults.writes_dropped += 1;
            }
        }
        self.inode(inode).settle();
    }

    pub fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("inodes of open and named files are kept")
    }

    pub fn change_name(&mut self, folder: &str, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.name_changes.entry(folder.to_owned()).or_default().push(change);
    }

    pub fn sync_folder(&mut self, folder: &str) {
        for change in self.name_changes.remove(folder).unwrap_or_default() {
            // The journal keeps order: what made the source name is durable before its move to another folder is.
            if let NameChange::Rename { from, .. } = &change
                && folder_of(from) != folder
            {
                let source = folder_of(from).to_owned();
                self.sync_folder(&source);
            }
            apply_name(&mut self.durable_names, &change);
        }
    }

    /// Forgets files that nothing can reach any more.
    pub fn forget_unreachable(&mut self) {
        let mut reachable: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        for change in self.name_changes.values().flatten() {
            let (NameChange::Link { inode, .. } | NameChange::Unlink { inode, .. } | NameChange::Rename { inode, .. }) =
                change;
            reachable.insert(*inode);
        }
        self.inodes.retain(|id, inode| inode.handles > 0 || reachable.contains(id));
    }
}

impl Inode {
    pub fn holding(content: Vec<u8>) -> Inode {
        Inode { base: content.clone(), current: content, changes: Vec::new(), handles: 0 }
    }

    /// Folds the durable changes that nothing un-synced precedes into the base.
    fn settle(&mut self) {
        let settled = self.changes.iter().take_while(|logged| logged.durable).count();
        for logged in self.changes.drain(..settled) {
            apply(&mut self.base, &logged.change);
        }
    }

    pub fn flip_bit(&mut self, byte: usize, bit: u8) {
        self.current[byte] ^= 1 << bit;
        if let Some(byte) = self.base.get_mut(byte) {
            *byte ^= 1 << bit;
        }
        for logged in &mut self.changes {
            if let Change::Write { offset, bytes } = &mut logged.change
                && let Some(byte) = byte.checked_sub(*offset).and_then(|at| bytes.get_mut(at))
            {
                *byte ^= 1 << bit;
            }
        }
    }
}

pub(super) fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(bytes);
        }
        Change::SetLen(len) => content.resize(*len, 0),
    }
}

/// A move or removal of a name that is not there (its making was lost) does nothing.
pub(super) fn apply_name(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Link { path, inode } => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Unlink { path, inode } => {
            if names.get(path) == Some(inode) {
                names.remove(path);
            }
        }
        NameChange::Rename { from, to, inode } => {
            if names.get(from) == Some(inode) {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

pub(super) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
