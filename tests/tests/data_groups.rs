//! Several data groups: whichever node is asked, the answer is that of one server, though most rows are elsewhere.

use crate::conformance::case_file;
use tidemill_tests::{
    cluster::{Cluster, Duty, play_in_turn, write_until_taken},
    subject::{count, query, skip_for_upstream, write},
};

/// Two data groups of one node, and a third node that only votes on the metadata.
const TWO_AND_META: [Duty; 3] = [Duty::Data(1), Duty::Data(2), Duty::Meta];
/// Two data groups of three.
const TWO_OF_THREE: [Duty; 6] =
    [Duty::Data(1), Duty::Data(1), Duty::Data(1), Duty::Data(2), Duty::Data(2), Duty::Data(2)];

/// Plays a case file with each request at the other data node than the one before.
fn play_at_both(name: &str) {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    play_in_turn(Cluster::start_of(&TWO_AND_META), &[1, 2], &std::fs::read_to_string(case_file(name)).unwrap());
}

#[test]
fn definitions_are_those_of_all_groups() {
    play_at_both("databases.txt");
}

#[test]
fn deletes_and_drops_reach_all_groups() {
    play_at_both("deletes.txt");
}

#[test]
fn selects_join_rows_of_all_groups() {
    play_at_both("select.txt");
}

#[test]
fn functions_over_all_groups() {
    play_at_both("functions.txt");
}

#[test]
fn subqueries_over_all_groups() {
    play_at_both("subqueries.txt");
}

#[test]
fn listings_join_the_indexes_of_all_groups() {
    play_at_both("cardinality.txt");
    play_at_both("show.txt");
}

#[test]
fn points_selected_into_series_of_other_groups() {
    play_at_both("into.txt");
}

fn lines(from: u64, rows: u64) -> String {
    (from..from + rows).map(|at| format!("m,h=h{} v={at}i {}\n", at % 97, at * 1000)).collect()
}

#[test]
fn a_group_that_loses_a_node_goes_on_and_one_that_loses_all_is_missed_by_name() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = Cluster::start_of(&TWO_OF_THREE);
    query(&mut cluster.client(5), "CREATE DATABASE d", "").unwrap();
    let mut written = 0;
    for node in 1..=6 {
        write(&mut cluster.client(node), "db=d", &lines(written, 400)).unwrap();
        written += 400;
        assert_eq!(count(&mut cluster.client(7 - node), "m"), written, "written at node {node}");
    }
    let held = |cluster: &Cluster, node: usize| {
        let described = cluster.described_by(node);
        let nodes = described["nodes"].as_array().unwrap();
        let own = nodes.iter().find(|one| one["node"] == node).unwrap();
        own["groups"].as_array().unwrap().iter().filter_map(|group| group["group"].as_u64()).collect::<Vec<_>>()
    };
    assert_eq!((held(&cluster, 1), held(&cluster, 6)), ((0..4).collect(), (4..8).collect()));
    cluster.kill(4);
    cluster.kill(2);
    for node in [1, 5] {
        write_until_taken(&mut cluster.client(node), &lines(written, 400));
        written += 400;
        assert_eq!(count(&mut cluster.client(6 - node), "m"), written, "written at node {node}");
    }
    cluster.kill(5);
    cluster.kill(6);
    // No part of an answer is left out.
    let error = query(&mut cluster.client(1), "SELECT count(v) FROM m", "db=d").unwrap_err().to_string();
    assert!(error.contains("node 6") || error.contains("node 5") || error.contains("node 4"), "{error}");
    for node in [2, 4, 5, 6] {
        cluster.start_node(node);
    }
    cluster.wait_for_leaders();
    for node in 1..=6 {
        assert_eq!(count(&mut cluster.client(node), "m"), written, "at node {node}");
    }
    cluster.stop_all();
}

#[test]
fn a_meta_node_takes_no_rows_and_says_so() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let cluster = Cluster::start_of(&TWO_AND_META);
    let answer = cluster.client(3).write("db=d", b"m v=1").unwrap();
    assert!(answer.status == 400 && answer.text().contains("ask a data node"), "{} {}", answer.status, answer.text());
    let error = query(&mut cluster.client(3), "SHOW DATABASES", "").unwrap_err().to_string();
    assert!(error.contains("ask a data node"), "{error}");
    cluster.stop_all();
}
