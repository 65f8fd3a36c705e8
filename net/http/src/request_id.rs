//! Identities of requests that brought none: UUIDs of version 1 (RFC 9562, section 5.1).

use std::cell::Cell;

/// 100 ns intervals between 1582-10-15 and 1970-01-01.
const GREGORIAN_OFFSET: u64 = 0x01b2_1dd2_1381_4000;

/// Makes identities from a clock and a node that the caller chose; two sources with different nodes never collide.
pub struct RequestIds {
    node: [u8; 6],
    clock_sequence: u16,
    /// ns since the epoch.
    clock: Box<dyn Fn() -> u64>,
    last_ticks: Cell<u64>,
}

impl RequestIds {
    /// `clock` gives ns since the epoch; it need not be monotonic.
    pub fn new(node: [u8; 6], clock_sequence: u16, clock: impl Fn() -> u64 + 'static) -> RequestIds {
        RequestIds { node, clock_sequence, clock: Box::new(clock), last_ticks: Cell::new(0) }
    }

    /// The next identity, 36 characters.
    pub fn next_id(&self) -> String {
        let now = (self.clock)() / 100 + GREGORIAN_OFFSET;
        // Two requests in one tick, or a clock that went back, take the ticks that follow.
        let ticks = now.max(self.last_ticks.get() + 1);
        self.last_ticks.set(ticks);
        let [a, b, c, d, e, f] = self.node;
        format!(
            "{:08x}-{:04x}-1{:03x}-{:04x}-{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}",
            ticks as u32,
            (ticks >> 32) as u16,
            (ticks >> 48) & 0xfff,
            0x8000 | (self.clock_sequence & 0x3fff),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_differ_even_when_the_clock_stands() {
        let ids = RequestIds::new([1, 2, 3, 4, 5, 6], 0xffff, || 1_422_568_543_702_900_257);
        let (first, second) = (ids.next_id(), ids.next_id());
        assert_ne!(first, second);
        assert_eq!(first.len(), 36);
        assert!(first.ends_with("-bfff-010203040506"), "{first}");
        assert_eq!(first.as_bytes()[14], b'1');
    }
}
