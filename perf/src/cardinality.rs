//! Many series with few points each: one float field, all series of a client interleaved by time.

use crate::devices::push_integer;
use crate::random::{below, draw};
use std::ops::Range;

const START_MS: i64 = 1_563_249_700_000;
const STEP_MS: i64 = 10_000;

/// Which set of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesSpec {
    pub series: u64,
    pub points: u64,
    pub seed: u64,
}

impl SeriesSpec {
    pub fn rows(&self) -> u64 {
        self.series * self.points
    }
}

/// Lines of one client's series.
#[derive(Debug)]
pub struct SeriesLines {
    spec: SeriesSpec,
    series: Range<u64>,
    next: u64,
    point: u64,
}

impl SeriesLines {
    pub fn new(spec: SeriesSpec, client: u64, clients: u64) -> Self {
        let series = spec.series * client / clients..spec.series * (client + 1) / clients;
        Self { spec, next: series.start, series, point: 0 }
    }

    /// Appends the next line; false at the end.
    pub fn push_next(&mut self, out: &mut Vec<u8>) -> bool {
        if self.series.is_empty() || self.point == self.spec.points {
            return false;
        }
        out.extend_from_slice(b"meter,site=s");
        push_integer((self.next % 1000) as i64, out);
        out.extend_from_slice(b",unit=u");
        push_integer(self.next as i64, out);
        out.extend_from_slice(b" value=");
        // Four decimal digits of entropy a point, two of them behind the point.
        let value = below(draw(self.spec.seed, self.next, self.point), 10_000);
        push_integer((value / 100) as i64, out);
        out.push(b'.');
        out.push(b'0' + (value / 10 % 10) as u8);
        out.push(b'0' + (value % 10) as u8);
        out.push(b' ');
        push_integer(START_MS + self.point as i64 * STEP_MS, out);
        out.push(b'\n');
        self.next += 1;
        if self.next == self.series.end {
            self.next = self.series.start;
            self.point += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_gets_every_point_once() {
        let spec = SeriesSpec { series: 17, points: 3, seed: 1 };
        let mut keys = std::collections::BTreeMap::new();
        for client in 0..4 {
            let mut lines = SeriesLines::new(spec, client, 4);
            let mut text = Vec::new();
            while lines.push_next(&mut text) {}
            for line in String::from_utf8(text).unwrap().lines() {
                *keys.entry(line.split(' ').next().unwrap().to_owned()).or_insert(0) += 1;
            }
        }
        assert_eq!(keys.len(), 17);
        assert!(keys.values().all(|count| *count == 3));
    }
}
