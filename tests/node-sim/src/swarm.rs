//! What a run does how often; drawn from its seed.

use tidemill_disk::sim::Prng;

#[derive(Clone, Debug)]
pub struct Swarm {
    pub clients: u64,
    /// Of one client in one life.
    pub requests: u64,
    pub points_max: u64,
    pub text_bytes_max: u64,
    pub bulk_one_in: u64,
    pub resend_one_in: u64,
    pub nameless_one_in: u64,
    pub flush_one_in: u64,
    pub copy_one_in: u64,
    pub hand_over_one_in: u64,
    /// Of the reads of blocks in the pool, while clients are at work.
    pub pool_fails_one_in: u64,
    pub delete_one_in: u64,
    pub drop_field_one_in: u64,
    pub drop_group_one_in: u64,
    pub drop_database_one_in: u64,
    pub l1_files_per_l2: usize,
    pub lives: u64,
    pub ends_in: Ending,
    /// Operations of a life before the fault that ends it, at most.
    pub fault_within: u64,
    /// A start is struck by the power loss too.
    pub restart_loss_one_in: u64,
    /// Blocks of room that a life finds.
    pub capacity_slack: Option<u64>,
    pub damage: bool,
    pub cache_bytes: usize,
    /// A power loss strikes within so many operations behind a command that takes something away, wherever it comes.
    pub strikes_behind: Option<u64>,
}

/// How each life of a node but the last ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    PowerLoss,
    /// The process is killed; the disk and what it has not made durable stay.
    Kill,
    /// One call fails; then the process is killed.
    FailedCall,
    Stop,
    Any,
}

impl Ending {
    const ONE: [Ending; 5] = [Ending::PowerLoss, Ending::PowerLoss, Ending::Kill, Ending::FailedCall, Ending::Stop];

    /// The ending of one life.
    pub fn one(self, prng: &mut Prng) -> Ending {
        match self {
            Ending::Any => Ending::ONE[prng.below(5) as usize],
            one => one,
        }
    }
}

impl Swarm {
    pub fn draw(prng: &mut Prng) -> Swarm {
        let mut one_of = |choices: &[u64]| choices[prng.below(choices.len() as u64) as usize];
        Swarm {
            clients: one_of(&[1, 2, 4]),
            requests: one_of(&[8, 16, 32]),
            points_max: one_of(&[1, 5, 20]),
            text_bytes_max: one_of(&[1, 50, 600]),
            bulk_one_in: one_of(&[10_000, 10_000, 40]),
            resend_one_in: one_of(&[2, 6, 10_000]),
            nameless_one_in: one_of(&[2, 10_000, 10_000]),
            flush_one_in: one_of(&[3, 6, 12]),
            copy_one_in: one_of(&[6, 20, 10_000]),
            hand_over_one_in: one_of(&[1, 4, 10_000]),
            pool_fails_one_in: one_of(&[2, 4, 12]),
            delete_one_in: one_of(&[4, 10, 30]),
            drop_field_one_in: one_of(&[12, 40, 10_000]),
            drop_group_one_in: one_of(&[12, 40, 10_000]),
            drop_database_one_in: one_of(&[50, 10_000, 10_000]),
            l1_files_per_l2: one_of(&[1, 2, 4]) as usize,
            lives: one_of(&[1, 2, 3, 5]),
            ends_in: [Ending::PowerLoss, Ending::Kill, Ending::FailedCall, Ending::Stop, Ending::Any]
                [one_of(&[0, 0, 1, 2, 3, 4, 4, 4]) as usize],
            fault_within: one_of(&[60, 250, 900]),
            restart_loss_one_in: one_of(&[2, 5, 10_000]),
            capacity_slack: [None, Some(40), Some(120)][one_of(&[0, 0, 0, 1, 2]) as usize],
            damage: one_of(&[0, 1]) == 1,
            cache_bytes: one_of(&[0, 64 << 10, 1 << 20]) as usize,
            strikes_behind: [None, Some(12), Some(50)][one_of(&[0, 0, 1, 2]) as usize],
        }
    }
}
