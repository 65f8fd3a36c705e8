//! When files move to the next level.
//!
//! Owns: the decision that becomes an entry of the log, and what it needs to remember of each shard group.
//! Invariants: it proposes and nothing else: whatever it decides, on whichever node, all replicas do the same.
//! Knows nothing of partitions and clocks: figures and times come in.
//!
//! A copy is proposed, of a shard group in which none is under way, for the first of these that holds:
//!
//! | when | what is copied |
//! |---|---|
//! | points were deleted, and no more were for [`RECLAIM_AFTER`] | L1, and of L2 what the deletes touch: space comes back |
//! | late files have grown to a part of what they lie over, or to a number that queries feel | L1, and of L2 what they touch |
//! | `l1-files-per-l2` ordered files are there | those; and L2 files when several of a size have gathered |
//! | the shard group has ended and nothing came for [`COLD_AFTER`] | everything, so that a series lies in one place |

use std::{collections::BTreeMap, time::Duration};
use tidemill_store::{CopyOrder, Floats, GroupFiles, ShardGroupId};

/// Deletes often come in rows; one copy for all of them.
const RECLAIM_AFTER: Duration = Duration::from_secs(10);
/// Longer than a sender that lost its connection takes to come back.
const COLD_AFTER: Duration = Duration::from_secs(600);
/// Late files are merged when they hold one byte for so many that they lie over: merging them rewrites those.
const LATE_PART: u64 = 4;
/// A query of a series looks into every late file that overlaps its time; past so many it would be slower than the
/// merge is expensive.
const LATE_FILES_MAX: usize = 32;
/// L2 files of one size are brought together when there are so many: each point is copied once for each power of it.
const SEALED_PER_SIZE: usize = 8;

/// Standing settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopySettings {
    /// Ordered L1 files that are copied together; at least 1.
    pub l1_files_per_l2: usize,
    /// Size at which a copy begins another file.
    pub file_bytes_max: u64,
    pub floats: Floats,
}

/// What is remembered between two looks.
#[derive(Default)]
pub struct CopyPolicy {
    /// By partition and shard group.
    seen: BTreeMap<(u32, ShardGroupId), Seen>,
}

#[derive(Clone, Copy)]
struct Seen {
    newest_change: u64,
    changed_ns: u64,
    newest_delete: u64,
    deleted_ns: u64,
}

impl CopyPolicy {
    /// The copies that are worth proposing for the files of a partition now. `has_ended` tells of a shard group whether
    /// its time range is past.
    pub fn decide(
        &mut self,
        partition: u32,
        groups: &[GroupFiles],
        settings: &CopySettings,
        now_ns: u64,
        has_ended: impl Fn(&GroupFiles) -> bool,
    ) -> Vec<CopyOrder> {
        let is_there = |group: &ShardGroupId| groups.iter().any(|files| files.shard_group == *group);
        self.seen.retain(|(of, group), _| *of != partition || is_there(group));
        let mut orders = Vec::new();
        for files in groups {
            let seen = self.note(partition, files, now_ns);
            if files.is_copying {
                continue;
            }
            let is_past = |since_ns: u64, wait: Duration| now_ns.saturating_sub(since_ns) >= wait.as_nanos() as u64;
            let reclaims = files.deleted_files > 0 && is_past(seen.deleted_ns, RECLAIM_AFTER);
            let is_cold = is_past(seen.changed_ns, COLD_AFTER) && has_ended(files);
            orders.extend(choose(files, settings, reclaims, is_cold));
        }
        orders
    }

    fn note(&mut self, partition: u32, files: &GroupFiles, now_ns: u64) -> Seen {
        let new = Seen { newest_change: 0, changed_ns: now_ns, newest_delete: 0, deleted_ns: now_ns };
        let seen = self.seen.entry((partition, files.shard_group)).or_insert(new);
        if files.newest_change() != seen.newest_change {
            (seen.newest_change, seen.changed_ns) = (files.newest_change(), now_ns);
        }
        if files.newest_delete != seen.newest_delete {
            (seen.newest_delete, seen.deleted_ns) = (files.newest_delete, now_ns);
        }
        *seen
    }
}

fn choose(files: &GroupFiles, settings: &CopySettings, reclaims: bool, is_cold: bool) -> Option<CopyOrder> {
    let all = files.ordered.newest.max(files.late.newest);
    let mut order = CopyOrder {
        shard_group: files.shard_group.0,
        ordered_through: all,
        late_through: all,
        sealed: Vec::new(),
        with_deleted: reclaims,
        floats: settings.floats,
        file_bytes_max: settings.file_bytes_max,
    };
    let is_scattered = files.ordered.files + files.late.files > 0 || files.sealed.len() > 1;
    if is_cold && is_scattered {
        order.sealed = files.sealed.iter().map(|(generation, _)| *generation).collect();
        return Some(order);
    }
    if reclaims || late_are_worth_it(files, settings) {
        return Some(order);
    }
    if files.ordered.files >= settings.l1_files_per_l2 {
        order.ordered_through = files.ordered.newest;
        order.late_through = 0;
        order.sealed = of_one_size(files, settings);
        return Some(order);
    }
    None
}

fn late_are_worth_it(files: &GroupFiles, settings: &CopySettings) -> bool {
    let late = &files.late;
    late.files >= LATE_FILES_MAX
        || (late.files >= settings.l1_files_per_l2 && late.bytes.saturating_mul(LATE_PART) >= files.bytes_under_late)
}

/// The L2 files to bring together with the next ordered ones: all up to the largest size of which enough are there. Sizes
/// are powers of [`SEALED_PER_SIZE`] of what the ordered files make.
fn of_one_size(files: &GroupFiles, settings: &CopySettings) -> Vec<u64> {
    let unit = files.ordered.bytes.max(1);
    let size_of = |bytes: u64| (bytes / unit).max(1).ilog(SEALED_PER_SIZE as u64);
    let small = || files.sealed.iter().filter(|(_, bytes)| *bytes < settings.file_bytes_max / 2);
    let count = |size: u32| small().filter(|(_, bytes)| size_of(*bytes) == size).count();
    let sizes = small().map(|(_, bytes)| size_of(*bytes));
    // What is made of one size may fill the next.
    let is_full = |size: &u32| count(*size) + 1 >= SEALED_PER_SIZE;
    let Some(largest) = sizes.filter(is_full).max() else { return Vec::new() };
    small().filter(|(_, bytes)| size_of(*bytes) <= largest).map(|(generation, _)| *generation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_store::{DatabaseId, RunFiles};

    const SETTINGS: CopySettings =
        CopySettings { l1_files_per_l2: 4, file_bytes_max: 1 << 30, floats: Floats::Gorilla };
    const SECOND: u64 = 1_000_000_000;

    fn group(ordered: usize, late: usize) -> GroupFiles {
        GroupFiles {
            shard_group: ShardGroupId(7),
            database: DatabaseId(1),
            policy: 1,
            ordered: RunFiles { files: ordered, bytes: ordered as u64 * 100, newest: ordered as u64 * 10 },
            late: RunFiles { files: late, bytes: late as u64 * 10, newest: late as u64 * 10 },
            sealed: vec![(5, 1000)],
            newest_sealed: 5,
            bytes_under_late: 1000,
            deleted_files: 0,
            newest_delete: 0,
            is_copying: false,
        }
    }

    fn decide(policy: &mut CopyPolicy, files: &GroupFiles, now_s: u64) -> Option<CopyOrder> {
        policy.decide(3, std::slice::from_ref(files), &SETTINGS, now_s * SECOND, |_| true).pop()
    }

    #[test]
    fn ordered_files_go_when_enough_are_there_and_late_ones_stay() {
        let mut policy = CopyPolicy::default();
        assert_eq!(decide(&mut policy, &group(3, 3), 0), None);
        let order = decide(&mut policy, &group(4, 3), 1).unwrap();
        assert_eq!((order.ordered_through, order.late_through, order.sealed), (40, 0, vec![]));
        let busy = GroupFiles { is_copying: true, ..group(9, 9) };
        assert_eq!(decide(&mut policy, &busy, 2), None);
    }

    #[test]
    fn late_files_go_when_they_are_a_part_of_what_they_lie_over_or_many() {
        let mut policy = CopyPolicy::default();
        assert_eq!(decide(&mut policy, &group(3, 24), 0), None);
        let order = decide(&mut policy, &group(3, 25), 1).unwrap();
        assert_eq!((order.ordered_through, order.late_through), (250, 250));
        let wide = |late| GroupFiles { bytes_under_late: 1 << 40, ..group(3, late) };
        assert_eq!(decide(&mut policy, &wide(31), 2), None);
        assert!(decide(&mut policy, &wide(32), 3).is_some());
    }

    #[test]
    fn deletes_give_space_back_when_they_have_paused() {
        let mut policy = CopyPolicy::default();
        let deleted = |index| GroupFiles { deleted_files: 1, newest_delete: index, ..group(1, 0) };
        assert_eq!(decide(&mut policy, &deleted(50), 0), None);
        assert_eq!(decide(&mut policy, &deleted(51), 9), None);
        assert_eq!(decide(&mut policy, &deleted(51), 18), None);
        let order = decide(&mut policy, &deleted(51), 19).unwrap();
        assert!(order.with_deleted && order.sealed.is_empty());
    }

    #[test]
    fn a_shard_group_that_has_gone_cold_is_brought_together_once() {
        let mut policy = CopyPolicy::default();
        let mut files = group(1, 1);
        assert_eq!(decide(&mut policy, &files, 0), None);
        assert_eq!(decide(&mut policy, &files, 599), None);
        let order = decide(&mut policy, &files, 600).unwrap();
        assert_eq!((order.ordered_through, order.late_through, order.sealed), (10, 10, vec![5]));
        (files.ordered, files.late) = (RunFiles::default(), RunFiles::default());
        files.sealed = vec![(60, 1000)];
        assert_eq!(decide(&mut policy, &files, 601), None);
        assert_eq!(decide(&mut policy, &files, 10_000), None);
        let running = policy.decide(3, &[group(1, 1)], &SETTINGS, 99_999 * SECOND, |_| false);
        assert_eq!(running, []);
    }

    #[test]
    fn sealed_files_of_a_size_come_together_so_that_each_point_is_copied_a_few_times() {
        let mut files = group(0, 0);
        files.sealed.clear();
        let (mut written, mut flushed) = (0, 0);
        for number in 0..4000u64 {
            files.ordered = RunFiles { files: 4, bytes: 400, newest: number };
            flushed += 400;
            let order = choose(&files, &SETTINGS, false, false).unwrap();
            let taken = files.sealed.iter().filter(|(generation, _)| order.sealed.contains(generation));
            let bytes = 400 + taken.map(|(_, bytes)| bytes).sum::<u64>();
            files.sealed.retain(|(generation, _)| !order.sealed.contains(generation));
            files.sealed.push((number, bytes));
            written += bytes;
            assert!(files.sealed.len() <= 5 * SEALED_PER_SIZE, "{}", files.sealed.len());
        }
        assert!(written < flushed * 6, "{written} of {flushed}");
    }
}
