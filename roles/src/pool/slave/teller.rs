//! What a slave tells the masters: that it is there, and which files came and went.
//!
//! Invariants: a beat that was not answered is told again as it was; what the master was told is known, so that no file is
//! named as gone that was never named; who lost count is told everything from the beginning.
//! Knows nothing of how beats travel, nor of clocks.

use std::collections::BTreeSet;
use tidemill_pool::{Beat, FILES_IN_BEAT_MAX, FileId, FilesDigest};

pub struct Teller {
    slave: u64,
    incarnation: u64,
    sequence: u64,
    /// As the beats that were answered say, and the one that waits for its answer.
    told: BTreeSet<FileId>,
    digest: FilesDigest,
    /// Came or went, and no beat says so yet.
    untold: BTreeSet<FileId>,
    restarts: bool,
    unanswered: Option<Beat>,
}

impl Teller {
    pub fn new(slave: u64, incarnation: u64) -> Teller {
        Teller {
            slave,
            incarnation,
            sequence: 0,
            told: BTreeSet::new(),
            digest: FilesDigest::default(),
            untold: BTreeSet::new(),
            restarts: true,
            unanswered: None,
        }
    }

    /// These came or went.
    pub fn note(&mut self, changed: BTreeSet<FileId>) {
        self.untold.extend(changed);
    }

    /// What to say now; `size` is that of a file that is here.
    pub fn beat(&mut self, size: impl Fn(&FileId) -> Option<u64>, capacity_bytes: u64, free_bytes: u64) -> &Beat {
        let Teller { slave, incarnation, sequence, told, digest, untold, restarts, unanswered } = self;
        unanswered.get_or_insert_with(|| {
            let (mut added, mut removed) = (Vec::new(), Vec::new());
            while added.len() < FILES_IN_BEAT_MAX
                && removed.len() < FILES_IN_BEAT_MAX
                && let Some(file) = untold.pop_first()
            {
                match size(&file) {
                    Some(size) if told.insert(file) => {
                        digest.add(&file);
                        added.push((file, size));
                    }
                    None if told.remove(&file) => {
                        digest.remove(&file);
                        removed.push(file);
                    }
                    _ => {}
                }
            }
            Beat {
                slave: *slave,
                incarnation: *incarnation,
                sequence: *sequence,
                capacity_bytes,
                free_bytes,
                restarts: *restarts,
                is_complete: untold.is_empty(),
                added,
                removed,
                told: *digest,
            }
        })
    }

    /// A master has the beat; if it `wants_all`, everything is told again, which `files` are.
    pub fn answered(&mut self, wants_all: bool, files: impl Iterator<Item = FileId>) {
        if self.unanswered.take().is_none() {
            return;
        }
        self.sequence += 1;
        self.restarts = wants_all;
        if wants_all {
            self.told.clear();
            self.digest = FilesDigest::default();
            self.untold = files.collect();
        }
    }

    /// For beats that follow each other at once: there is more to tell.
    pub fn has_more(&self) -> bool {
        !self.untold.is_empty()
    }
}

/// What a master makes of beats, for the tests.
#[cfg(test)]
#[derive(Default)]
struct Listener {
    files: std::collections::BTreeMap<FileId, u64>,
}

#[cfg(test)]
impl Listener {
    fn hear(&mut self, beat: &Beat) {
        if beat.restarts {
            self.files.clear();
        }
        beat.removed.iter().for_each(|file| assert!(self.files.remove(file).is_some(), "{file} was never told of"));
        for (file, size) in &beat.added {
            assert!(self.files.insert(*file, *size).is_none(), "{file} was told of twice");
        }
        assert_eq!(FilesDigest::of(self.files.keys()), beat.told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn file(number: u16) -> FileId {
        FileId(std::array::from_fn(|at| (usize::from(number) * 7 + at) as u8 ^ (number >> (at % 9)) as u8))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Come(u16),
        Go(u16),
        Beat {
            arrives: bool,
            is_answered: bool,
        },
        /// Another master, which knows nothing.
        Forget,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..30u16).prop_map(Step::Come),
            2 => (0..30u16).prop_map(Step::Go),
            4 => any::<(bool, bool)>().prop_map(|(arrives, is_answered)| Step::Beat { arrives, is_answered }),
            1 => Just(Step::Forget),
        ]
    }

    proptest! {
        #[test]
        fn the_master_knows_what_is_here(steps in prop::collection::vec(step(), 0..80)) {
            let mut here: BTreeMap<FileId, u64> = BTreeMap::new();
            let mut teller = Teller::new(1, 2);
            let mut master = Listener::default();
            // The sequence of the newest beat that this master took in.
            let mut heard: Option<u64> = None;
            let mut tell = |teller: &mut Teller, here: &BTreeMap<FileId, u64>, arrives: bool, is_answered: bool, forgets: bool| {
                if forgets {
                    (master, heard) = (Listener::default(), None);
                    return None;
                }
                let beat = teller.beat(|file| here.get(file).copied(), 9, 9).clone();
                if !arrives {
                    return None;
                }
                let is_next = beat.restarts || heard.is_some_and(|heard| beat.sequence == heard + 1);
                let is_same = heard == Some(beat.sequence);
                if is_next && !is_same {
                    master.hear(&beat);
                    heard = Some(beat.sequence);
                }
                if is_answered {
                    teller.answered(!is_next && !is_same, here.keys().copied());
                }
                (beat.is_complete && heard == Some(beat.sequence)).then(|| master.files.clone())
            };
            for step in steps {
                match step {
                    Step::Come(number) => {
                        here.insert(file(number), u64::from(number));
                        teller.note(BTreeSet::from([file(number)]));
                    }
                    Step::Go(number) => {
                        here.remove(&file(number));
                        teller.note(BTreeSet::from([file(number)]));
                    }
                    Step::Beat { arrives, is_answered } => {
                        tell(&mut teller, &here, arrives, is_answered, false);
                    }
                    Step::Forget => {
                        tell(&mut teller, &here, false, false, true);
                    }
                }
            }
            let mut known = None;
            for _ in 0..4 {
                known = tell(&mut teller, &here, true, true, false);
            }
            prop_assert_eq!(known, Some(here));
        }
    }

    #[test]
    fn a_beat_names_so_many_files_and_the_rest_follow() {
        let mut teller = Teller::new(1, 2);
        let files: BTreeSet<FileId> =
            (0..u16::MAX).map(|number| FileId([number.to_le_bytes(); 16].concat().try_into().unwrap())).collect();
        teller.note(files.clone());
        let mut master = Listener::default();
        for _ in 0..files.len().div_ceil(FILES_IN_BEAT_MAX) {
            assert!(teller.has_more());
            let beat = teller.beat(|_| Some(1), 9, 9);
            assert!(beat.added.len() <= FILES_IN_BEAT_MAX);
            master.hear(beat);
            teller.answered(false, std::iter::empty());
        }
        assert!(!teller.has_more() && master.files.len() == files.len());
    }
}
