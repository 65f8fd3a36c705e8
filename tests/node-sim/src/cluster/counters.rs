//! How often everything happened to a cluster.

tidemill_campaign::counters! {
    entries
    acknowledged
    dropped
    unknown
    refused
    resent
    reads
    reads_refused
    leaders
    hand_overs
    learners_added
    voters_added
    voters_removed
    leaders_removed
    changes_refused
    disks_lost
    power_losses
    outages
    vote_kills
    kills
    pauses
    cuts
    messages
    messages_lost
    files_taken_over
    files_not_taken_over
    flushes
    reliefs
    copies
    deletes
    group_drops
    files_identical
    cells_compared
}
