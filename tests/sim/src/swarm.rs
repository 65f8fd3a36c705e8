//! Settings of one run, drawn from its seed: some faults are off and others strong, because all faults at once hide what
//! one of them alone would show.

use crate::prng::Prng;

/// Chances are parts of a million a tick, or a message.
#[derive(Clone, Debug)]
pub struct Swarm {
    pub nodes: usize,
    /// Members at the start; the others wait to be added.
    pub voters: usize,
    pub drop: u32,
    pub duplicate: u32,
    /// Ticks that a message takes, at most.
    pub delay_max: u64,
    pub long_delay: u32,
    pub clog: u32,
    pub partition: u32,
    pub heal: u32,
    pub one_way: bool,
    /// A leader is made to be replaced without hearing of it.
    pub rival: u32,
    pub crash: u32,
    /// A crash in the middle of what one step asked for.
    pub crash_inside: u32,
    pub crash_all: u32,
    pub down_max: u64,
    pub disk_delay_max: u64,
    pub disk_stall: u32,
    pub pause: u32,
    pub pause_max: u64,
    /// Clocks run at 1 million parts plus or minus this.
    pub rate_spread: u32,
    pub clock_jump: u32,
    pub lease: bool,
    pub propose: u32,
    pub read: u32,
    pub change_members: u32,
    pub transfer: u32,
    pub snapshot: u32,
    pub install_failure: u32,
    pub window_messages_max: usize,
    pub window_bytes_max: usize,
    pub message_bytes_max: usize,
    pub tail_bytes_max: usize,
    pub uncommitted_bytes_max: usize,
    pub heartbeat_ticks: u64,
}

/// Ticks of an election timeout.
pub const ELECTION_TICKS: u64 = 20;
/// Units of a member's clock in a tick.
pub const UNITS_PER_TICK: u64 = 1000;

impl Swarm {
    pub fn draw(random: &mut Prng) -> Swarm {
        let sometimes = |random: &mut Prng, max: u32| {
            if random.below(2) == 0 { 0 } else { random.within(1, u64::from(max)) as u32 }
        };
        let nodes = random.pick(&[3, 3, 3, 4, 5, 5, 6]);
        let lease = random.below(2) == 0;
        let spread = if lease { 20_000 } else { 500_000 };
        Swarm {
            nodes,
            voters: if random.below(8) == 0 { 1 } else { nodes.min(if random.below(2) == 0 { 3 } else { 5 }) },
            drop: sometimes(random, 300_000),
            duplicate: sometimes(random, 100_000),
            delay_max: random.pick(&[1, 1, 2, 4, 8, 16]),
            long_delay: sometimes(random, 20_000),
            clog: sometimes(random, 10_000),
            partition: sometimes(random, 10_000),
            heal: random.within(5_000, 60_000) as u32,
            one_way: random.below(2) == 0,
            rival: sometimes(random, 6_000),
            crash: sometimes(random, 6_000),
            crash_inside: sometimes(random, 2_000),
            crash_all: sometimes(random, 600),
            down_max: random.pick(&[5, 50, 200]),
            disk_delay_max: random.pick(&[0, 1, 4, 12, 40]),
            disk_stall: sometimes(random, 3_000),
            pause: sometimes(random, 5_000),
            pause_max: random.pick(&[10, 60, 120]),
            rate_spread: sometimes(random, spread),
            clock_jump: if lease { 0 } else { sometimes(random, 3_000) },
            lease,
            propose: random.within(10_000, 250_000) as u32,
            read: sometimes(random, 200_000),
            change_members: sometimes(random, 20_000),
            transfer: sometimes(random, 10_000),
            snapshot: sometimes(random, 60_000),
            install_failure: sometimes(random, 400_000),
            window_messages_max: random.pick(&[1, 2, 8, 64]),
            window_bytes_max: random.pick(&[64, 400, 1 << 20]),
            message_bytes_max: random.pick(&[1, 120, 1 << 16]),
            tail_bytes_max: random.pick(&[0, 200, 4000]),
            uncommitted_bytes_max: random.pick(&[200, 1 << 20]),
            heartbeat_ticks: random.pick(&[2, 4, 8, 8]),
        }
    }
}
