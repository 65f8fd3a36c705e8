//! What the log knows of each group: the rules of its index, its hard state, what is in files.

use crate::{
    Record,
    decision::Finding,
    range::{FramePlace, Places},
};
use std::collections::BTreeMap;
use tidemill_raft::{GroupId, LogIndex, Term};

#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Index and term of the newest entry.
    pub last: Option<(LogIndex, Term)>,
    /// Entries up to here are in files.
    pub released: LogIndex,
    pub hard_state: Option<HardStateAt>,
    /// Where its entries stand.
    pub places: Places,
}

/// The newest hard state, and the segment that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HardStateAt {
    pub term: Term,
    pub vote: Option<u64>,
    pub committed: LogIndex,
    pub sequence: u64,
}

/// A record that raft never writes after the ones before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discontinuity {
    pub finding: Finding,
    pub detail: String,
}

impl Group {
    /// Whether the record may follow what is there; recovery and appending hold to the same rules.
    pub fn check(&self, record: &Record<'_>) -> Result<(), Discontinuity> {
        let wrong = |finding, detail| Err(Discontinuity { finding, detail });
        match *record {
            Record::Entry { group, term, index, .. } => {
                let highest = self.highest();
                if index.0 == 0 || index > highest.next() {
                    let detail =
                        format!("group {}: entry {index} where at most {} can follow", group.0, highest.next());
                    return wrong(Finding::IndexGap, detail);
                }
                // What is replaced may be of a newer term that never had a majority (thesis, figure 3.7).
                if let Some((last, last_term)) = self.last
                    && index > last
                    && term < last_term
                {
                    let detail =
                        format!("group {}: entry {index} of term {term} after {last} of term {last_term}", group.0);
                    return wrong(Finding::TermWentBack, detail);
                }
            }
            Record::HardState { group, term, .. } => {
                if let Some(known) = self.hard_state
                    && term < known.term
                {
                    let detail = format!("group {}: hard state of term {term} after {}", group.0, known.term);
                    return wrong(Finding::TermWentBack, detail);
                }
            }
        }
        Ok(())
    }

    /// The newest entry that is in the log or in files.
    pub fn highest(&self) -> LogIndex {
        self.last.map_or(self.released, |(last, _)| last.max(self.released))
    }

    /// Takes note of a record at this place. `true`: the entry replaces others.
    pub fn note(&mut self, record: &Record<'_>, at: FramePlace) -> bool {
        match *record {
            Record::Entry { term, index, .. } => {
                let replaces = self.last.is_some_and(|(last, _)| index <= last);
                self.last = Some((index, term));
                self.places.note(index, replaces, at);
                replaces
            }
            Record::HardState { term, vote, committed, .. } => {
                self.hard_state = Some(HardStateAt { term, vote, committed, sequence: at.sequence });
                false
            }
        }
    }
}

/// All groups of a log.
pub(crate) type Groups = BTreeMap<GroupId, Group>;

/// The highest index that each group has in one segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(BTreeMap<GroupId, LogIndex>);

impl Held {
    pub fn note(&mut self, group: GroupId, index: LogIndex) {
        let highest = self.0.entry(group).or_insert(index);
        *highest = (*highest).max(index);
    }

    /// Entries of the group from `index` on are replaced by later ones.
    pub fn replaced_from(&mut self, group: GroupId, index: LogIndex) {
        let before = LogIndex(index.0.saturating_sub(1));
        if let Some(highest) = self.0.get_mut(&group) {
            *highest = (*highest).min(before);
        }
    }

    /// Groups with entries that are in no file yet, and the highest of those.
    pub fn pinned<'a>(&'a self, groups: &'a Groups) -> impl Iterator<Item = (GroupId, LogIndex)> + 'a {
        let released = |group| groups.get(group).map_or(LogIndex(0), |group| group.released);
        self.0
            .iter()
            .filter(move |(group, highest)| **highest > released(group))
            .map(|(group, highest)| (*group, *highest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Record<'static> {
        Record::Entry { group: GroupId(1), term: Term(term), index: LogIndex(index), payload: &[] }
    }

    #[test]
    fn gaps_and_terms_that_go_back_are_refused() {
        let mut group = Group { released: LogIndex(5), ..Group::default() };
        assert!(group.check(&entry(6, 1)).is_ok() && group.check(&entry(2, 1)).is_ok());
        assert_eq!(group.check(&entry(7, 1)).unwrap_err().finding, Finding::IndexGap);
        assert_eq!(group.check(&entry(0, 1)).unwrap_err().finding, Finding::IndexGap);
        assert!(!group.note(&entry(6, 3), FramePlace { sequence: 1, ..FramePlace::default() }));
        assert_eq!(group.check(&entry(7, 2)).unwrap_err().finding, Finding::TermWentBack);
        assert_eq!(group.check(&entry(8, 3)).unwrap_err().finding, Finding::IndexGap);
        assert!(group.check(&entry(6, 3)).is_ok(), "the same term again replaces");
        assert!(group.check(&entry(6, 2)).is_ok(), "an older term replaces a newer one that was not committed");
        assert!(group.note(&entry(6, 4), FramePlace { sequence: 1, ..FramePlace::default() }));
        let state =
            |term| Record::HardState { group: GroupId(1), term: Term(term), vote: None, committed: LogIndex(0) };
        group.note(&state(4), FramePlace { sequence: 9, ..FramePlace::default() });
        assert!(group.check(&state(4)).is_ok());
        assert_eq!(group.check(&state(3)).unwrap_err().finding, Finding::TermWentBack);
    }

    #[test]
    fn replaced_entries_pin_nothing() {
        let mut held = Held::default();
        let groups = Groups::from([(GroupId(1), Group { released: LogIndex(4), ..Group::default() })]);
        held.note(GroupId(1), LogIndex(9));
        assert_eq!(held.pinned(&groups).collect::<Vec<_>>(), [(GroupId(1), LogIndex(9))]);
        held.replaced_from(GroupId(1), LogIndex(6));
        assert_eq!(held.pinned(&groups).collect::<Vec<_>>(), [(GroupId(1), LogIndex(5))]);
        held.replaced_from(GroupId(1), LogIndex(5));
        assert_eq!(held.pinned(&groups).count(), 0);
    }
}
