//! sample(): some points of each window, each as likely as any other.

use super::{Emitted, StreamState};
use crate::window::Windows;
use tidemill_column::Value;

/// A reservoir (Vitter's algorithm R). The seed is the statement's, so that an answer can be had again.
pub(super) struct Sample {
    count: usize,
    windows: Windows,
    random: u64,
    window: Option<i64>,
    seen: u64,
    kept: Vec<(u64, i64, Value)>,
}

impl Sample {
    pub(super) fn new(count: usize, windows: Windows, seed: u64) -> Sample {
        Sample { count, windows, random: seed, window: None, seen: 0, kept: Vec::new() }
    }

    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ (mixed >> 31)) * u128::from(bound)) >> 64) as u64
    }

    fn flush(&mut self, out: &mut Emitted) {
        self.kept.sort_unstable_by_key(|(arrival, ..)| *arrival);
        out.extend(self.kept.drain(..).map(|(_, time, value)| (time, value)));
        self.seen = 0;
    }
}

impl StreamState for Sample {
    fn push(&mut self, time: i64, value: Value, out: &mut Emitted) {
        let start = self.windows.start(time);
        if self.window.replace(start).is_some_and(|window| window != start) {
            self.flush(out);
        }
        self.seen += 1;
        let row = (self.seen, time, value);
        if self.kept.len() < self.count {
            self.kept.push(row);
            return;
        }
        let place = self.below(self.seen) as usize;
        if let Some(kept) = self.kept.get_mut(place) {
            *kept = row;
        }
    }

    fn end(&mut self, out: &mut Emitted) {
        self.flush(out);
    }

    fn byte_size(&self) -> usize {
        self.kept.capacity() * size_of::<(u64, i64, Value)>()
    }
}
