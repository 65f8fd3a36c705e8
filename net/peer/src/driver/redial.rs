//! How long to wait before a peer is called again.

use crate::identity::PeerId;
use crate::options::Options;
use std::time::Duration;

pub(crate) struct Redial {
    min: Duration,
    max: Duration,
    next: Duration,
    random: u64,
}

impl Redial {
    pub fn new(options: &Options, peer: PeerId) -> Redial {
        let random = options.seed ^ peer.node.0.rotate_left(16) ^ u64::from(peer.core);
        Redial { min: options.redial_min, max: options.redial_max, next: options.redial_min, random }
    }

    /// The connection came up.
    pub fn reset(&mut self) {
        self.next = self.min;
    }

    /// The pause to make now. Half of it is chance: nodes that lost the same peer do not call it in step.
    pub fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = f64::from((mixed >> 32) as u32) / f64::from(u32::MAX);
        whole / 2 + (whole / 2).mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NodeId;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again() {
        let options = Options::default();
        let mut redial = Redial::new(&options, PeerId { node: NodeId(2), core: 1 });
        for round in 0..2 {
            let mut whole = options.redial_min;
            for _ in 0..12 {
                let pause = redial.pause();
                assert!(whole / 2 <= pause && pause <= whole, "round {round}: {pause:?} of {whole:?}");
                whole = (whole * 2).min(options.redial_max);
            }
            redial.reset();
        }
    }
}
