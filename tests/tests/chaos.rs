//! A short run of what `cargo run -p tidemill-tests --bin chaos` does for longer.

use std::time::Duration;
use tidemill_tests::{chaos::Chaos, subject::skip_for_upstream};

#[test]
fn nothing_acknowledged_is_lost_or_missed_by_a_read_while_nodes_die_and_freeze() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let chaos = Chaos { seed: 1, time: Duration::from_secs(20), has_wires: false, has_small_disk: false };
    let report = chaos.run().unwrap_or_else(|error| panic!("{error:#}"));
    assert!(report.rows_acknowledged > 0 && report.reads > report.reads_failed, "{report:?}");
    assert!(report.kills + report.freezes + report.stops > 0, "{report:?}");
}

#[test]
fn nothing_acknowledged_is_lost_or_missed_by_a_read_while_lines_are_cut_and_bad() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let chaos = Chaos { seed: 2, time: Duration::from_secs(20), has_wires: true, has_small_disk: false };
    let report = chaos.run().unwrap_or_else(|error| panic!("{error:#}"));
    assert!(report.rows_acknowledged > 0 && report.reads > report.reads_failed, "{report:?}");
    assert!(report.cuts + report.one_way_cuts + report.isolations + report.bad_lines > 0, "{report:?}");
    assert!(report.datagrams_disturbed > 0 && report.datagrams_passed > 0, "{report:?}");
}
