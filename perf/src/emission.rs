//! The order in which a client sends its rows of the reference set.
//!
//! By default device by device in time order. Interleaving deals the rows of several devices in turn, disorder holds
//! rows back by up to a lag, duplicates send a row a second time. The set of distinct rows is always the same: only
//! the order and the repetitions change, so the oracle holds for every order.

use crate::devices::{Device, DeviceSpec, STEP_MS};
use crate::random::{Sequence, mix};
use std::ops::Range;

/// How the rows of a client are ordered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SendOrder {
    /// Devices whose rows are sent in turn; 1 is device by device.
    pub interleave: u64,
    /// Part of the rows that come late, 0..=1.
    pub late_part: f64,
    /// Longest lag of a late row.
    pub lag_ms_max: i64,
    /// Part of the rows that are sent twice, 0..=1.
    pub duplicate_part: f64,
}

impl Default for SendOrder {
    fn default() -> Self {
        Self { interleave: 1, late_part: 0.0, lag_ms_max: 0, duplicate_part: 0.0 }
    }
}

/// A duplicate follows its first copy within this many rows of its device.
const DUPLICATE_DISTANCE_MAX: u64 = 1000;

/// One device on its way out.
#[derive(Debug)]
struct Lane {
    device: Device,
    /// Row numbers in sending order; empty when that is simply 0..rows.
    order: Vec<u32>,
    at: u64,
    end: u64,
}

impl Lane {
    fn new(spec: &DeviceSpec, id: u64, order: &SendOrder) -> Self {
        let device = spec.device(id);
        let sending = sending_order(spec, id, order);
        let end = if sending.is_empty() { spec.rows_per_device } else { sending.len() as u64 };
        Self { device, order: sending, at: 0, end }
    }

    fn next(&mut self) -> Option<(Device, u64)> {
        if self.at == self.end {
            return None;
        }
        let row = self.order.get(self.at as usize).map_or(self.at, |row| u64::from(*row));
        self.at += 1;
        Some((self.device, row))
    }
}

/// Row numbers of one device in sending order; empty for plain time order.
fn sending_order(spec: &DeviceSpec, id: u64, order: &SendOrder) -> Vec<u32> {
    let lag_rows = (order.lag_ms_max / STEP_MS).max(0) as u64;
    let late = order.late_part > 0.0 && lag_rows > 0;
    if !late && order.duplicate_part <= 0.0 {
        return Vec::new();
    }
    let mut random = Sequence::new(mix(spec.seed ^ mix(id)));
    let mut keyed: Vec<(u64, u32)> = Vec::with_capacity(spec.rows_per_device as usize * 102 / 100);
    for row in 0..spec.rows_per_device {
        let delay = if late && random.chance(order.late_part) { 1 + random.below(lag_rows) } else { 0 };
        keyed.push((row + delay, row as u32));
        if random.chance(order.duplicate_part) {
            keyed.push((row + delay + random.below(DUPLICATE_DISTANCE_MAX), row as u32));
        }
    }
    // The sort is stable: equal keys keep the order of their rows, so the result depends on nothing but the seed.
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, row)| row).collect()
}

/// Iterates (device, row number) in sending order. The n-th item is the client's position n in acknowledgement logs.
#[derive(Debug)]
pub struct Emission {
    spec: DeviceSpec,
    order: SendOrder,
    devices: Range<u64>,
    lanes: Vec<Lane>,
    turn: usize,
}

impl Emission {
    pub fn new(spec: DeviceSpec, order: SendOrder, devices: Range<u64>) -> Self {
        Self { spec, order, devices, lanes: Vec::new(), turn: 0 }
    }
}

impl Iterator for Emission {
    type Item = (Device, u64);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.lanes.is_empty() {
                let many = self.order.interleave.max(1) as usize;
                self.lanes =
                    self.devices.by_ref().take(many).map(|id| Lane::new(&self.spec, id, &self.order)).collect();
                self.turn = 0;
                if self.lanes.is_empty() {
                    return None;
                }
            }
            if self.turn >= self.lanes.len() {
                self.turn = 0;
            }
            if let Some(item) = self.lanes[self.turn].next() {
                self.turn += 1;
                return Some(item);
            }
            self.lanes.remove(self.turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: DeviceSpec = DeviceSpec { devices: 10, files: 5, rows_per_device: 2000, seed: 3 };

    fn sent(order: SendOrder) -> Vec<(u64, u64)> {
        Emission::new(SPEC, order, 1..11).map(|(device, row)| (device.id, row)).collect()
    }

    #[test]
    fn plain_order_is_device_by_device() {
        let all = sent(SendOrder::default());
        let expected: Vec<_> = (1..11).flat_map(|id| (0..2000).map(move |row| (id, row))).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn interleaving_deals_rows_in_turn_and_loses_none() {
        let mut all = sent(SendOrder { interleave: 4, ..SendOrder::default() });
        assert_eq!(&all[..5], &[(1, 0), (2, 0), (3, 0), (4, 0), (1, 1)]);
        all.sort_unstable();
        assert_eq!(all, sent(SendOrder::default()));
    }

    #[test]
    fn disorder_and_duplicates_keep_the_set_of_rows() {
        let order = SendOrder { interleave: 3, late_part: 0.1, lag_ms_max: 600_000, duplicate_part: 0.01 };
        let mut all = sent(order);
        assert_eq!(all, sent(order), "the same seed gives the same order");
        let twice = all.len() as i64 - 20_000;
        assert!((100..300).contains(&twice), "{twice} duplicates of 20 000 rows at 1 %");
        let mut newest = [-1i64; 11];
        let mut late = 0;
        for (id, row) in &all {
            let row = *row as i64;
            let newest = &mut newest[*id as usize];
            late += u64::from(row < *newest);
            assert!(*newest - row <= 600 + 1000, "row {row} behind {newest}");
            *newest = row.max(*newest);
        }
        assert!((1800..2400).contains(&late), "{late} late rows");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, sent(SendOrder::default()));
    }
}
