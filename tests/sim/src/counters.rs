//! How often each fault and each event happened. One that never happened in a campaign was not tested.

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        #[derive(Clone, Debug, Default)]
        pub struct Counters {
            $(pub $name: u64,)*
        }

        impl Counters {
            pub fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
            }

            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

counters! {
    messages, dropped, duplicated, long_delayed, clogged, cut_by_partition, partitions, one_way_partitions, heals,
    crashes, crashes_inside_a_step, crashes_of_all, writes_lost, writes_torn, overwrites_in_flight, disk_stalls,
    pauses_beyond_the_lease, clock_jumps, clocks_off_rate,
    elections, entries_committed, proposals, proposals_refused, proposals_acknowledged, proposals_dropped,
    proposals_unknown, truncations, reads, reads_by_lease, reads_by_majority, reads_by_followers, reads_refused,
    membership_changes, joint_memberships_left, leaders_removed, transfers, snapshots_offered, snapshots_installed,
    snapshots_failed, fetches, retractions, heals_with_liveness,
}

impl Counters {
    pub fn zeros(&self) -> Vec<&'static str> {
        self.named().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }
}
