//! How often everything happened.

macro_rules! counters {
    ($($name:ident)*) => {
        /// Events of a run or of a campaign.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(pub $name: u64,)*
        }

        impl Counters {
            pub fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
            }

            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    entries
    writes
    rows_late
    bulks
    resent
    duplicates
    refused
    refused_full
    flushes
    copies_ordered
    deletes
    field_drops
    group_drops
    database_drops
    power_losses
    kills
    stops
    failed_calls
    crashes_while_starting
    failed_starts
    failed_flushes
    failed_copies
    flushes_replayed
    deletes_replayed
    drops_replayed
    copies_replayed
    copies_pending_at_start
    copies
    blocks_copied
    blocks_merged
    blocks_joined
    blocks_vanished
    files_late
    files_copied
    files_identical
    indexes_rebuilt
    bits_flipped
    damage_noticed
    writes_dropped
    writes_torn
    writes_reordered
    names_dropped
    short_writes
    eio
    storage_full
    failed_syncs
    cells_compared
}

impl Counters {
    /// What never happened.
    pub fn zeros(&self) -> Vec<&'static str> {
        self.named().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }
}
