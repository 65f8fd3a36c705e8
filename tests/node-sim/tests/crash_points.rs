//! The fixed run, the power failing at some of its points.

use tidemill_node_sim::{crash_points, setting};

/// Of the points one in so many; a prime, so that it does not fall into step with the run.
const STRIDE: u64 = 97;

#[test]
fn a_power_loss_at_any_point_loses_and_invents_nothing() {
    let stride = setting("TIDEMILL_SIM_STRIDE").unwrap_or(STRIDE).max(1);
    let report = crash_points::run(stride);
    println!("every {stride}. point: {report:?}");
    assert_eq!(report.zeros(), Vec::<&str>::new(), "a run that met none of a kind has shown nothing about it");
}
