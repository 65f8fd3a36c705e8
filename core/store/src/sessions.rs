//! Identities of batches: a retry is never stored twice and never overtakes (I6).
//!
//! A *session* is one sender's run; its batches are numbered upwards and may come out of their order, within a window.
//! Invariants: a batch is new at most once; behind a batch that says that its sender is done with an earlier one, that
//! one is not taken any more; what is said follows from the batches alone, in their order. A session that was forgotten
//! takes nothing any more.
//! Knows nothing of what batches hold.

use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;

/// Sessions that are remembered at most; the one with the smallest id goes first, because ids rise with time.
pub const SESSIONS_MAX: usize = 1024;
/// Sequences of a session that are told apart: one that is further behind the newest is not taken.
pub const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    New,
    /// It is stored.
    Repeated,
    /// Whether it was ever stored is not known, or its sender had given it up. Sessions up to this one are forgotten.
    Forgotten {
        through: u64,
    },
}

/// What a partition remembers of those who wrote to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Sessions {
    known: BTreeMap<u64, Window>,
    /// The largest id that was ever forgotten.
    forgotten_through: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
struct Window {
    newest: u64,
    /// What is below it is not taken any more.
    floor: u64,
    /// A bit for each of the newest sequences, by their lowest digits.
    seen: [u64; WORDS],
}

impl Sessions {
    /// Notes a batch. `behind`: so many sequences before this one may still come. Session zero has no identity: its sender
    /// does not retry.
    pub fn note(&mut self, session: u64, sequence: u64, behind: u16) -> Verdict {
        if session == 0 {
            return Verdict::New;
        }
        if session <= self.forgotten_through && !self.known.contains_key(&session) {
            return Verdict::Forgotten { through: self.forgotten_through };
        }
        let window = self.known.entry(session).or_default();
        let verdict = window.note(sequence, u64::from(behind), self.forgotten_through);
        if self.known.len() > SESSIONS_MAX
            && let Some((forgotten, _)) = self.known.pop_first()
        {
            self.forgotten_through = self.forgotten_through.max(forgotten);
            if forgotten == session {
                return Verdict::Forgotten { through: forgotten };
            }
        }
        verdict
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

impl Window {
    fn note(&mut self, sequence: u64, behind: u64, forgotten: u64) -> Verdict {
        if sequence <= self.newest && self.newest - sequence < WINDOW && self.has(sequence) {
            return Verdict::Repeated;
        }
        if sequence < self.floor {
            return Verdict::Forgotten { through: forgotten };
        }
        if sequence > self.newest {
            let skipped = (sequence - self.newest).min(WINDOW);
            (0..skipped).for_each(|back| self.set(sequence - back, false));
            self.newest = sequence;
        }
        self.set(sequence, true);
        let kept = behind.min(WINDOW - 1);
        self.floor = self.floor.max(sequence.saturating_sub(kept)).max(self.newest.saturating_sub(WINDOW - 1));
        Verdict::New
    }

    fn has(&self, sequence: u64) -> bool {
        self.seen[(sequence / 64) as usize % WORDS] >> (sequence % 64) & 1 == 1
    }

    fn set(&mut self, sequence: u64, is_seen: bool) {
        let word = &mut self.seen[(sequence / 64) as usize % WORDS];
        *word = *word & !(1 << (sequence % 64)) | u64::from(is_seen) << (sequence % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// What a window is to do, with everything remembered.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
        floor: u64,
    }

    impl Model {
        fn note(&mut self, sequence: u64, behind: u64) -> Verdict {
            let newest = self.seen.last().copied().unwrap_or(0);
            if self.seen.contains(&sequence) && (sequence > newest || newest - sequence < WINDOW) {
                return Verdict::Repeated;
            }
            if sequence < self.floor {
                return Verdict::Forgotten { through: 0 };
            }
            self.seen.insert(sequence);
            let newest = newest.max(sequence);
            let floor = sequence.saturating_sub(behind.min(WINDOW - 1)).max(newest.saturating_sub(WINDOW - 1));
            self.floor = self.floor.max(floor);
            Verdict::New
        }
    }

    proptest! {
        #[test]
        fn a_window_is_a_set_that_forgets(
            steps in prop::collection::vec((0u64..40, 0u64..1500, prop_oneof![Just(1023u16), 0u16..1100]), 1..200),
        ) {
            let (mut sessions, mut model, mut newest) = (Sessions::default(), Model::default(), 1u64);
            for (forward, back, behind) in steps {
                newest += forward;
                let sequence = newest.saturating_sub(back).max(1);
                prop_assert_eq!(sessions.note(7, sequence, behind), model.note(sequence, u64::from(behind)));
            }
        }

        #[test]
        fn nothing_is_new_twice(steps in prop::collection::vec((1u64..2000, 1u64..2100, 0u16..2000), 1..300)) {
            let (mut sessions, mut stored) = (Sessions::default(), BTreeSet::new());
            for (session, sequence, behind) in steps {
                if sessions.note(session, sequence, behind) == Verdict::New {
                    prop_assert!(stored.insert((session, sequence)), "{session} {sequence}");
                }
            }
        }
    }

    #[test]
    fn a_batch_that_was_given_up_does_not_overtake() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.note(1, 1, 0), Verdict::New);
        assert_eq!(sessions.note(1, 4, 1), Verdict::New);
        assert_eq!(sessions.note(1, 3, 0), Verdict::New, "it was said that it may come");
        assert_eq!(sessions.note(1, 2, 0), Verdict::Forgotten { through: 0 });
        assert_eq!(sessions.note(1, 3, 0), Verdict::Repeated);
        assert_eq!(sessions.note(0, 3, 0), Verdict::New, "no identity");
    }

    #[test]
    fn a_forgotten_session_takes_nothing_any_more() {
        let mut sessions = Sessions::default();
        for session in 1..=SESSIONS_MAX as u64 + 2 {
            assert_eq!(sessions.note(session + 10, 1, 0), Verdict::New);
        }
        assert_eq!(sessions.len(), SESSIONS_MAX);
        assert_eq!(sessions.note(11, 1, 0), Verdict::Forgotten { through: 12 });
        assert_eq!(sessions.note(12, 2, 0), Verdict::Forgotten { through: 12 });
        assert_eq!(sessions.note(5, 2, 0), Verdict::Forgotten { through: 12 });
        assert_eq!(sessions.note(13, 1, 0), Verdict::Repeated);
    }
}
