//! What a master knows of a slave from its beats: in the memory of the leader alone, and never in the log.

use crate::{Beat, FileId, FilesDigest};
use std::collections::BTreeMap;

/// A slave as its beats tell it.
#[derive(Clone, Debug, Default)]
pub struct Session {
    incarnation: u64,
    sequence: u64,
    files: BTreeMap<FileId, u64>,
    held_bytes: u64,
    told: FilesDigest,
    is_complete: bool,
    pub(crate) capacity_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) heard_ns: u64,
}

impl Session {
    /// Takes a beat in; answers whether the slave has to tell everything anew.
    pub(crate) fn hear(&mut self, beat: &Beat, now_ns: u64) -> bool {
        self.heard_ns = now_ns;
        (self.capacity_bytes, self.free_bytes) = (beat.capacity_bytes, beat.free_bytes);
        let is_next = beat.incarnation == self.incarnation && beat.sequence == self.sequence.wrapping_add(1);
        if beat.restarts {
            self.forget();
        } else if beat.incarnation == self.incarnation && beat.sequence == self.sequence && self.knows_something() {
            // It has not heard the answer: this was taken in before.
            return self.told != beat.told;
        } else if !is_next || !self.knows_something() {
            self.forget();
            return true;
        }
        (self.incarnation, self.sequence) = (beat.incarnation, beat.sequence);
        for file in &beat.removed {
            if let Some(size) = self.files.remove(file) {
                self.told.remove(file);
                self.held_bytes = self.held_bytes.saturating_sub(size);
            }
        }
        for (file, size) in &beat.added {
            match self.files.insert(*file, *size) {
                None => self.told.add(file),
                Some(before) => self.held_bytes = self.held_bytes.saturating_sub(before),
            }
            self.held_bytes = self.held_bytes.saturating_add(*size);
        }
        self.is_complete = beat.is_complete;
        if self.told != beat.told {
            self.forget();
            return true;
        }
        false
    }

    fn knows_something(&self) -> bool {
        self.incarnation != 0 || self.sequence != 0
    }

    fn forget(&mut self) {
        (self.incarnation, self.sequence) = (0, 0);
        self.files.clear();
        self.held_bytes = 0;
        self.told = FilesDigest::default();
        self.is_complete = false;
    }

    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Of the files that it has told.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// When it was heard of last.
    pub fn heard_ns(&self) -> u64 {
        self.heard_ns
    }

    /// Everything that the slave has was told.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// With their sizes.
    pub fn files(&self) -> &BTreeMap<FileId, u64> {
        &self.files
    }

    /// Whether the slave has said that it has a file.
    pub fn has(&self, file: &FileId) -> bool {
        self.files.contains_key(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(byte: u8) -> FileId {
        FileId([byte; 32])
    }

    fn beat(sequence: u64, added: &[u8], removed: &[u8], all: &[u8]) -> Beat {
        Beat {
            slave: 1,
            incarnation: 7,
            sequence,
            capacity_bytes: 9,
            free_bytes: 5,
            restarts: false,
            is_complete: true,
            added: added.iter().map(|byte| (file(*byte), 1)).collect(),
            removed: removed.iter().map(|byte| file(*byte)).collect(),
            told: FilesDigest::of(&all.iter().map(|byte| file(*byte)).collect::<Vec<_>>()),
        }
    }

    #[test]
    fn a_slave_that_was_misunderstood_tells_everything_anew() {
        let mut session = Session::default();
        assert!(session.hear(&beat(4, &[1], &[], &[1]), 0), "nothing was heard before it");
        assert!(!session.hear(&Beat { restarts: true, is_complete: false, ..beat(5, &[1, 2], &[], &[1, 2]) }, 0));
        assert!(!session.is_complete());
        assert!(!session.hear(&beat(6, &[3], &[1], &[2, 3]), 0));
        assert!(!session.hear(&beat(6, &[3], &[1], &[2, 3]), 0), "the answer was lost");
        assert!(session.is_complete() && session.has(&file(3)) && !session.has(&file(1)));
        assert!(session.hear(&beat(8, &[4], &[], &[2, 3, 4]), 0), "one is missing");
        assert!(!session.is_complete());
        assert!(!session.hear(&Beat { restarts: true, ..beat(9, &[2], &[], &[2]) }, 0));
        assert!(session.hear(&beat(10, &[], &[], &[2, 3]), 0), "other files");
        assert!(!session.hear(&Beat { restarts: true, ..beat(11, &[2], &[], &[2]) }, 0));
        assert!(session.hear(&Beat { incarnation: 8, ..beat(12, &[], &[], &[2]) }, 0), "it was started again");
    }
}
