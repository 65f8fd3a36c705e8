//! Which files a copy takes.
//!
//! Owns: the walk over the keys of several files in their order, and the decision which L2 files a copy writes anew.
//! Invariants: the decision follows from the order of the entry, the indexes of the files and the deletes before the
//! entry (I7). A block of L2 that a block of the L1 files overlaps is among the sources, so that after the copy no time of
//! a key is in two files of L2. (Their blocks may overlap: small ones are joined across a point of another file.)
//! Knows nothing of blocks' contents.

use crate::{copy_source::CopySource, entry::CopyOrder, pace::breathe, read_error::ReadError, tsm_file::TsmFile};
use std::{cmp::Reverse, collections::BinaryHeap, rc::Rc};
use tidemill_disk::DiskFile;
use tidemill_tsm::index::Entry;

/// Keys that are compared before other tasks of the core get a turn.
const KEYS_PER_TURN: usize = 512;

/// Files whose keys are visited together, in ascending order.
pub struct KeyWalk<'a, F: DiskFile> {
    pub sources: Vec<CopySource<'a, F>>,
    heap: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    /// Positions of the sources that hold the present key, ascending.
    group: Vec<usize>,
}

impl<'a, F: DiskFile> KeyWalk<'a, F> {
    /// A walk over files, for the copy of entry `copy`.
    fn new(files: &'a [Rc<TsmFile<F>>], copy: u64) -> KeyWalk<'a, F> {
        KeyWalk::of(files.iter().map(|file| CopySource::new(file, file.keys(), copy)).collect())
    }

    /// As [`KeyWalk::new`], with what is known of blocks.
    pub fn with_statistics(files: &'a [Rc<TsmFile<F>>], copy: u64) -> KeyWalk<'a, F> {
        KeyWalk::of(files.iter().map(|file| CopySource::new(file, file.keys_with_statistics(), copy)).collect())
    }

    fn of(sources: Vec<CopySource<'a, F>>) -> KeyWalk<'a, F> {
        let group = (0..sources.len()).collect();
        KeyWalk { sources, heap: BinaryHeap::new(), group }
    }

    /// The sources that hold the next key; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<&[usize]>, ReadError> {
        for position in std::mem::take(&mut self.group) {
            if self.sources[position].next_key().await? {
                self.heap.push(Reverse((self.sources[position].key.clone(), position)));
            }
        }
        let Some(Reverse((key, position))) = self.heap.pop() else { return Ok(None) };
        self.group.push(position);
        while self.heap.peek().is_some_and(|Reverse((other, _))| *other == key) {
            self.group.extend(self.heap.pop().map(|Reverse((_, position))| position));
        }
        Ok(Some(&self.group))
    }
}

/// What a copy does with the files of its shard group, each list in ascending rank.
pub struct Choice<F: DiskFile> {
    pub sources: Vec<Rc<TsmFile<F>>>,
    /// Files that stay, because no block of them is covered by a delete before the copy's entry.
    pub untouched_by_deletes: Vec<Rc<TsmFile<F>>>,
}

/// The files that the copy of entry `copy` takes, of those of its shard group.
pub async fn choose<F: DiskFile>(
    files: &[Rc<TsmFile<F>>],
    copy: u64,
    order: &CopyOrder,
) -> Result<Choice<F>, ReadError> {
    let is_meant = |file: &&Rc<TsmFile<F>>| {
        let (late, generation, _) = file.rank();
        let through = if late { order.late_through.min(order.ordered_through) } else { order.ordered_through };
        file.level() == 1 && generation <= through && generation < copy
    };
    let mut chosen: Vec<_> = files.iter().filter(is_meant).cloned().collect();
    let is_sealed = |file: &&Rc<TsmFile<F>>| file.level() == 2 && file.rank().1 < copy;
    let (named, others): (Vec<_>, Vec<_>) =
        files.iter().filter(is_sealed).cloned().partition(|file| order.sealed.contains(&file.rank().1));
    let may_touch = |file: &Rc<TsmFile<F>>| {
        let record = file.record();
        let overlapped = chosen.iter().any(|other| other.touches(record.min_time, record.max_time));
        overlapped || (order.with_deleted && record.tombstones.iter().any(|of| of.index < copy))
    };
    let candidates: Vec<_> = others.into_iter().filter(may_touch).collect();
    let mut untouched_by_deletes = Vec::new();
    if !candidates.is_empty() {
        let touched = touched(&chosen, &candidates, copy, order.with_deleted).await?;
        for (file, touched) in candidates.into_iter().zip(touched) {
            match touched {
                true => chosen.push(file),
                false if order.with_deleted => untouched_by_deletes.push(file),
                false => {}
            }
        }
    }
    chosen.extend(named);
    chosen.sort_by_key(|file| file.rank());
    Ok(Choice { sources: chosen, untouched_by_deletes })
}

/// Which of the candidates have a block that is to be written anew.
async fn touched<F: DiskFile>(
    chosen: &[Rc<TsmFile<F>>],
    candidates: &[Rc<TsmFile<F>>],
    copy: u64,
    with_deleted: bool,
) -> Result<Vec<bool>, ReadError> {
    let files: Vec<_> = chosen.iter().chain(candidates).cloned().collect();
    let mut walk = KeyWalk::new(&files, copy);
    let mut touched = vec![false; candidates.len()];
    let mut keys = 0;
    while !touched.iter().all(|touched| *touched) {
        let Some(group) = walk.next().await? else { break };
        let group = group.to_vec();
        let (above, below) = group.split_at(group.partition_point(|position| *position < chosen.len()));
        for position in below {
            if touched[*position - chosen.len()] {
                continue;
            }
            let source = &walk.sources[*position];
            let is_overlapped = above.iter().any(|other| overlap(&source.entries, &walk.sources[*other].entries));
            let is_cut = || {
                let deleted = source.deleted();
                let cuts =
                    |entry: &Entry| deleted.iter().any(|(min, max)| *min <= entry.max_time && *max >= entry.min_time);
                source.entries.iter().any(cuts)
            };
            touched[*position - chosen.len()] = is_overlapped || (with_deleted && is_cut());
        }
        keys += 1;
        if keys % KEYS_PER_TURN == 0 {
            breathe().await;
        }
    }
    Ok(touched)
}

/// Whether a block of one list overlaps a block of the other; the blocks of a list ascend and do not overlap.
fn overlap(a: &[Entry], b: &[Entry]) -> bool {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        if x.max_time < y.min_time {
            a.next();
        } else if y.max_time < x.min_time {
            b.next();
        } else {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(spans: &[(i64, i64)]) -> Vec<Entry> {
        let mut start = 0;
        let mut made = Vec::new();
        for (gap, length) in spans {
            let min_time = start + gap;
            made.push(Entry { min_time, max_time: min_time + length, offset: 5, size: 5 });
            start = min_time + length + 1;
        }
        made
    }

    proptest! {
        #[test]
        fn overlap_is_that_of_any_pair(
            a in proptest::collection::vec((0i64..9, 0i64..5), 0..6),
            b in proptest::collection::vec((0i64..9, 0i64..5), 0..6),
        ) {
            let (a, b) = (entries(&a), entries(&b));
            let expected = a.iter().any(|x| b.iter().any(|y| x.min_time <= y.max_time && y.min_time <= x.max_time));
            prop_assert_eq!(overlap(&a, &b), expected);
        }
    }
}
