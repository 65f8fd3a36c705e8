//! What request bodies hold on one core.
//!
//! Owns: the sum of the bytes of all bodies that are being read or worked on, and its limit.
//! Invariant: what a body holds is given back when its [`HeldBody`] is dropped, however its request ends.
//! Knows nothing of what is done with a body.

use crate::metrics::HttpMetrics;
use std::rc::Rc;

/// The core's bodies together are at their limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// A body, or the part of it that has come in, with its share of the core's memory.
pub(crate) struct HeldBody {
    pub(crate) bytes: Vec<u8>,
    charge: Charge,
}

/// A share that grows with what it stands for.
pub(crate) struct Charge {
    metrics: Rc<HttpMetrics>,
    bytes: u64,
    /// Of all bodies of the core together; 0 is unlimited.
    bytes_max: u64,
}

impl Charge {
    pub(crate) fn new(metrics: &Rc<HttpMetrics>, bytes_max: u64) -> Charge {
        Charge { metrics: metrics.clone(), bytes: 0, bytes_max }
    }

    /// Raises the share to `bytes`. Something larger than the limit alone never fits, however idle the core is: limits of
    /// single bodies belong below it.
    pub(crate) fn raise_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        self.try_raise_to(bytes).inspect_err(|NoRoom| {
            self.metrics.bodies_without_room.set(self.metrics.bodies_without_room.get() + 1);
        })
    }

    /// As [`Charge::raise_to`], by somebody who tries again: a failure is not counted.
    pub(crate) fn try_raise_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let more = (bytes as u64).saturating_sub(self.bytes);
        let held = &self.metrics.body_bytes_held;
        if more > 0 && self.bytes_max > 0 && held.get() + more > self.bytes_max {
            return Err(NoRoom);
        }
        held.set(held.get() + more);
        self.bytes += more;
        Ok(())
    }

    pub(crate) fn hold(self, bytes: Vec<u8>) -> HeldBody {
        HeldBody { bytes, charge: self }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let held = &self.metrics.body_bytes_held;
        held.set(held.get() - self.bytes);
    }
}

impl HeldBody {
    /// The body on its own; what it holds counts for as long as the second part lives.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Charge) {
        (self.bytes, self.charge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_one_limit_and_give_their_part_back() {
        let metrics = Rc::new(HttpMetrics::default());
        let (mut one, mut two) = (Charge::new(&metrics, 100), Charge::new(&metrics, 100));
        assert_eq!((one.raise_to(60), two.raise_to(40)), (Ok(()), Ok(())));
        assert_eq!((two.raise_to(41), one.raise_to(10)), (Err(NoRoom), Ok(())));
        assert_eq!((metrics.body_bytes_held.get(), metrics.bodies_without_room.get()), (100, 1));
        drop(one);
        assert_eq!(two.raise_to(100), Ok(()));
        let (bytes, charge) = two.hold(vec![1]).into_parts();
        assert_eq!((bytes, metrics.body_bytes_held.get()), (vec![1], 100));
        drop(charge);
        assert_eq!(metrics.body_bytes_held.get(), 0);
        assert_eq!(Charge::new(&metrics, 0).raise_to(usize::MAX), Ok(()));
    }
}
