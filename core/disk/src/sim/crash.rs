//! What a power loss leaves behind.

use super::{
    FaultCounts, Prng, SECTOR_BYTES,
    state::{Change, Inode, Logged, NameChange, State, apply, apply_name},
};
use std::collections::BTreeMap;

/// What becomes of what no sync covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// All of it is there: the device had it in time.
    None,
    /// Nothing of it is there.
    Drop,
    /// Every write is there in part, cut at a sector or with sectors missing; names up to some change of each folder.
    Tear,
    /// Whole writes and names, but any of them: a later one can be there without an earlier one.
    Reorder,
    /// Each write and each name for itself: there, not there, or torn.
    Random,
}

impl Crash {
    pub const ALL: [Crash; 5] = [Crash::None, Crash::Drop, Crash::Tear, Crash::Reorder, Crash::Random];
}

/// The disk as the next start finds it.
pub(super) fn after_power_loss(before: &State, crash: Crash, seed: u64, faults: &mut FaultCounts) -> State {
    let mut prng = Prng::new(seed);
    let mut after = State::new(prng.next_u64());
    after.folders = before.folders.clone();
    after.capacity_bytes = before.capacity_bytes;
    after.yields = before.yields;
    after.next_inode = before.next_inode;
    let mut names = before.durable_names.clone();
    for changes in before.name_changes.values() {
        keep_names(&mut names, changes, crash, &mut prng, faults);
    }
    for inode in names.values() {
        if !after.inodes.contains_key(inode) {
            let content = content_after(&before.inodes[inode], crash, &mut prng, faults);
            after.inodes.insert(*inode, Inode::holding(content));
        }
    }
    after.names = names.clone();
    after.durable_names = names;
    after
}

fn keep_names(
    names: &mut BTreeMap<String, u64>,
    changes: &[NameChange],
    crash: Crash,
    prng: &mut Prng,
    faults: &mut FaultCounts,
) {
    let cut = prng.below(changes.len() as u64 + 1) as usize;
    for (at, change) in changes.iter().enumerate() {
        let kept = match crash {
            Crash::None => true,
            Crash::Drop => false,
            Crash::Tear => at < cut,
            Crash::Reorder | Crash::Random => prng.one_in(2),
        };
        if kept {
            apply_name(names, change);
        } else {
            faults.names_dropped += 1;
        }
    }
}

fn content_after(inode: &Inode, crash: Crash, prng: &mut Prng, faults: &mut FaultCounts) -> Vec<u8> {
    let mut content = inode.base.clone();
    let mut something_missing = false;
    for Logged { change, durable, .. } in &inode.changes {
        let fate = match crash {
            _ if *durable => Fate::Kept,
            Crash::None => Fate::Kept,
            Crash::Drop => Fate::Dropped,
            Crash::Tear => Fate::Torn,
            Crash::Reorder => [Fate::Kept, Fate::Dropped][prng.below(2) as usize],
            Crash::Random => [Fate::Kept, Fate::Dropped, Fate::Torn][prng.below(3) as usize],
        };
        match (fate, change) {
            (Fate::Kept, change) => {
                apply(&mut content, change);
                faults.writes_reordered += u64::from(something_missing && !durable);
            }
            (Fate::Torn, Change::Write { offset, bytes }) => {
                faults.writes_torn += 1;
                something_missing = true;
                tear(&mut content, *offset, bytes, prng);
            }
            // A length has no sectors to tear.
            (Fate::Torn, change) if prng.one_in(2) => apply(&mut content, change),
            (Fate::Torn | Fate::Dropped, _) => {
                faults.writes_dropped += 1;
                something_missing = true;
            }
        }
    }
    content
}

#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Dropped,
    Torn,
}

/// Writes some but not all sectors: a prefix, a suffix, or any of them.
fn tear(content: &mut Vec<u8>, offset: usize, bytes: &[u8], prng: &mut Prng) {
    let sectors = bytes.len().div_ceil(SECTOR_BYTES);
    let cut = prng.below(sectors as u64) as usize;
    let shape = prng.below(3);
    let missing = prng.below(sectors as u64) as usize;
    for (sector, part) in bytes.chunks(SECTOR_BYTES).enumerate() {
        let written = match shape {
            0 => sector < cut,
            1 => sector > cut,
            _ => sector != missing && prng.one_in(2),
        };
        if written {
            apply(content, &Change::Write { offset: offset + sector * SECTOR_BYTES, bytes: part.to_vec() });
        }
    }
}
