//! Three nodes: whichever is asked, the answer is that of one server; nodes come and go, and nothing acknowledged does.

use crate::conformance::case_file;
use std::{
    process::Command,
    time::{Duration, Instant},
};
use tidemill_perf::{cluster::leaders as cluster_leaders, server::Server};
use tidemill_tests::{
    cluster::{Cluster, NODES, play_in_turn, write_until_taken},
    subject::{count, query, skip_for_upstream, write},
};

/// Longest wait for one answer of a cluster that has lost a node.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays a case file with each request at another node than the one before.
fn play_at_all_nodes(name: &str) {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    play_in_turn(Cluster::start(), &NODES, &std::fs::read_to_string(case_file(name)).unwrap());
}

#[test]
fn databases_and_policies_made_at_one_node_are_there_at_the_next() {
    play_at_all_nodes("databases.txt");
}

#[test]
fn deletes_and_drops_at_one_node_show_at_the_next() {
    play_at_all_nodes("deletes.txt");
}

#[test]
fn selects_of_points_that_other_nodes_took() {
    play_at_all_nodes("select.txt");
}

#[test]
fn listings_and_cardinalities_are_those_of_all_nodes() {
    play_at_all_nodes("cardinality.txt");
}

#[test]
fn types_of_fields_are_agreed_on() {
    play_at_all_nodes("typing.txt");
}

#[test]
fn points_selected_into_other_measurements() {
    play_at_all_nodes("into.txt");
}

/// `rows` points behind each other from `from` on, in series over all partitions.
fn lines(from: u64, rows: u64) -> String {
    (from..from + rows).map(|at| format!("m,h=h{} v={at}i {}\n", at % 37, at * 1000)).collect()
}

#[test]
fn a_killed_node_is_missed_by_nobody_and_catches_up() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = Cluster::start();
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    let mut written = 0;
    for gone in NODES {
        let others = NODES.into_iter().filter(|node| *node != gone).collect::<Vec<_>>();
        write(&mut cluster.client(gone), "db=d", &lines(written, 500)).unwrap();
        written += 500;
        cluster.kill(gone);
        for node in &others {
            let mut client = cluster.client(*node).with_timeout(PATIENCE);
            write_until_taken(&mut client, &lines(written, 500));
            written += 500;
            assert_eq!(count(&mut client, "m"), written, "at node {node} without node {gone}");
        }
        cluster.start_node(gone);
        assert_eq!(count(&mut cluster.client(gone), "m"), written, "at node {gone}, back again");
    }
    cluster.stop_all();
}

#[test]
fn a_node_that_was_away_for_long_is_given_files() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    // Small segments and long rows: what the lost node lacks is soon in files alone.
    let rows = 200_000;
    let long = |from: u64, rows: u64| -> String {
        let text = |at: u64| format!("{:x}", at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(12);
        (from..from + rows).map(|at| format!("m,h=h{} v={at}i,s=\"{}\" {}\n", at % 37, text(at), at * 1000)).collect()
    };
    let mut cluster = Cluster::start_with("[log]\nsegment-size = \"4m\"\nsegments-max = 8\n");
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    query(&mut cluster.client(1), "CREATE DATABASE gone", "").unwrap();
    cluster.kill(3);
    let mut client = cluster.client(1).with_timeout(PATIENCE);
    for from in (0..rows).step_by(10_000) {
        write_until_taken(&mut client, &long(from, 10_000));
    }
    query(&mut client, "DROP DATABASE gone", "").unwrap();
    cluster.start_node(3);
    assert_eq!(count(&mut cluster.client(3), "m"), rows);
    let databases = query(&mut cluster.client(3), "SHOW DATABASES", "").unwrap();
    assert!(!databases.contains("gone"), "{databases}");
    let log = std::fs::read_to_string(cluster.setup(3).log).unwrap();
    assert!(log.contains("took files over"), "it got entries alone");
    let metrics = cluster.client(1).get("/metrics").unwrap().text();
    assert!(metrics.contains("tidemill_groups_led{core=\"0\"}"), "{metrics}");
    // What it was given is what it would have made: nothing differs.
    let digest = Command::new(cluster.setup(1).binary)
        .args(["ctl", "digest", "--host", &format!("http://{}", cluster.node(2).address())])
        .output()
        .unwrap();
    assert!(digest.status.success(), "{}", String::from_utf8_lossy(&digest.stdout));
    cluster.stop_all();
}

#[test]
fn a_minority_says_that_it_knows_nothing() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = Cluster::start();
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    write(&mut cluster.client(1), "db=d", &lines(0, 100)).unwrap();
    cluster.kill(2);
    cluster.kill(3);
    let mut left = cluster.client(1).with_timeout(PATIENCE);
    let answer = left.query("SELECT count(v) FROM m", "db=d").unwrap();
    assert!(answer.text().contains("no leader can be reached"), "{}", answer.text());
    let answer = left.write("db=d", lines(100, 100).as_bytes()).unwrap();
    assert!(matches!(answer.status, 500 | 503), "{} {}", answer.status, answer.text());
    cluster.start_node(2);
    cluster.wait_for_leaders();
    let found = count(&mut cluster.client(2), "m");
    // The write that was refused may be stored all the same, as a whole by each partition.
    assert!((100..=200).contains(&found), "{found}");
    write(&mut cluster.client(1), "db=d", &lines(0, 300)).unwrap();
    assert_eq!(count(&mut cluster.client(2), "m"), 300);
    cluster.stop_all();
}

#[test]
fn all_nodes_stop_and_start_again_with_everything() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = Cluster::start();
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    write(&mut cluster.client(2), "db=d", &lines(0, 2000)).unwrap();
    query(&mut cluster.client(3), "DELETE FROM m WHERE time >= 0 AND time < 500000", "db=d").unwrap();
    for ends_well in [true, false] {
        for node in NODES {
            if ends_well {
                cluster.stop(node);
            } else {
                cluster.kill(node);
            }
        }
        NODES.iter().for_each(|node| cluster.start_node(*node));
        cluster.wait_for_leaders();
        for node in NODES {
            assert_eq!(count(&mut cluster.client(node), "m"), 1500, "at node {node}");
        }
    }
    cluster.stop_all();
}

#[test]
fn what_does_not_belong_to_a_node_is_refused() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = Cluster::prepare("");
    cluster.start_node(1);
    cluster.stop(1);
    let refused = |setup: tidemill_perf::server::Setup| format!("{:#}", Server::start(setup).unwrap_err());
    let mut anothers = cluster.setup(2);
    anothers.data = cluster.folder("data-1");
    assert!(refused(anothers).contains("belongs to node 1"), "the folder of another node");
    let mut alone = cluster.setup(1);
    (alone.role, alone.arguments) = (None, Vec::new());
    assert!(refused(alone).contains("belongs to node 1"), "a server without a cluster");
    let mut as_standalone = cluster.setup(1);
    as_standalone.role = Some("standalone".to_owned());
    assert!(refused(as_standalone).contains("tidemill data"), "a configuration of a node");
    let mut cores = cluster.setup(1);
    cores.cores = Some(1);
    assert!(refused(cores).contains("2 cores there and 1 here"), "another number of cores than the others know");
    let text = std::fs::read_to_string(cluster.configuration(1)).unwrap();
    let other = text.replace("certificates-1", "certificates-2");
    std::fs::write(cluster.configuration(1), &other).unwrap();
    assert!(refused(cluster.setup(1)).contains("made out to node 2"), "another node's certificate");
    std::fs::write(cluster.configuration(1), text.replace("partitions = 4", "partitions = 8")).unwrap();
    assert!(refused(cluster.setup(1)).contains("4 partitions"), "another number of partitions");
    let status = Command::new(cluster.setup(1).binary).arg("data").arg("--data").arg(cluster.folder("x")).status();
    assert!(!status.unwrap().success(), "no configuration");
}

#[test]
fn a_node_that_comes_back_leads_its_share_again() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = Cluster::start();
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    cluster.kill(2);
    write_until_taken(&mut cluster.client(1), &lines(0, 500));
    cluster.start_node(2);
    let begun = Instant::now();
    loop {
        let leaders = cluster_leaders(&mut cluster.client(1)).unwrap();
        let leads = |node: u64| leaders.iter().filter(|(group, leader)| group.is_some() && *leader == node).count();
        // Four partitions over three nodes.
        if (1..=3).all(|node| leads(node) >= 1) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{leaders:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(count(&mut cluster.client(2), "m"), 500);
    cluster.stop_all();
}
