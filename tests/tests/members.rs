//! Nodes come and go while the cluster runs, and nothing acknowledged goes with them.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};
use tidemill_perf::{cluster::described_by, server::Server};
use tidemill_tests::{
    cluster::{Cluster, Duty, write_until_taken},
    subject::{count, query, skip_for_upstream, write},
};

/// Longest wait for one answer of a cluster whose members change.
const PATIENCE: Duration = Duration::from_secs(60);

/// `rows` points behind each other from `from` on, in series over all partitions.
fn lines(from: u64, rows: u64) -> String {
    (from..from + rows).map(|at| format!("m,h=h{} v={at}i {}\n", at % 37, at * 1000)).collect()
}

/// Writes through a node as long as something is done; how many rows there are then, from `before` on.
fn while_writing(cluster: &mut Cluster, through: usize, before: u64, deed: impl FnOnce(&mut Cluster)) -> u64 {
    let mut client = cluster.client(through).with_timeout(PATIENCE);
    let (done, rows) = (AtomicBool::new(false), AtomicU64::new(before));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                let from = rows.load(SeqCst);
                write_until_taken(&mut client, &lines(from, 100));
                rows.store(from + 100, SeqCst);
            }
        });
        // The writer must end whatever becomes of the deed.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| deed(cluster)));
        done.store(true, SeqCst);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    rows.into_inner()
}

fn founded() -> Cluster {
    founded_as(Cluster::start(), 5)
}

/// A cluster of so many raft groups, the metadata's included, with a thousand rows.
fn founded_as(cluster: Cluster, groups: usize) -> Cluster {
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    write(&mut cluster.client(2), "db=d", &lines(0, 1000)).unwrap();
    wait_until(&cluster, 1, "the cluster is founded", |described| {
        described["holders"].as_array().unwrap().len() == groups
    });
    cluster
}

fn wait_until(cluster: &Cluster, through: usize, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
    let begin = Instant::now();
    let mut client = cluster.client(through).with_timeout(PATIENCE);
    loop {
        let described = described_by(&mut client);
        if described.as_ref().is_ok_and(&is_so) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}: {described:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Nothing is on its way from one node to another.
fn is_settled(described: &serde_json::Value) -> bool {
    described["holders"].as_array().unwrap().iter().all(|holders| holders["wanted"] == holders["noted"])
}

fn count_everywhere(cluster: &Cluster, nodes: &[usize], rows: u64) {
    for node in nodes {
        assert_eq!(count(&mut cluster.client(*node).with_timeout(PATIENCE), "m"), rows, "at node {node}");
    }
}

#[test]
fn a_node_whose_disk_is_gone_is_replaced_while_writes_run() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = founded();
    let rows = while_writing(&mut cluster, 1, 1000, |cluster| {
        cluster.kill(3);
        std::fs::remove_dir_all(cluster.setup(3).data).unwrap();
        cluster.add_node(2, 4);
        cluster.ctl(1, &["replace", "3", "4", "--wait", "60"]).unwrap();
    });
    count_everywhere(&cluster, &[1, 2, 4], rows);
    let digest = cluster.ctl(4, &["digest"]).unwrap();
    assert!(!digest.contains("DIFFER"), "{digest}");
    // The old one is nobody, with or without a disk, and its number is used up.
    for (command, why) in [
        (["replace", "3", "4", "--json"].as_slice(), "node 3 is none of the cluster"),
        (&["add-data", "3", "127.0.0.1:9", "1"], "node 3 was removed"),
        (&["drain", "1"], "no other node can take"),
        (&["remove-data", "4"], "node 4 has a replica"),
    ] {
        let refused = cluster.ctl(2, command).unwrap_err();
        assert!(refused.contains(why), "{command:?}: {refused}");
    }
    cluster.start_node(3);
    let begin = Instant::now();
    while !std::fs::read_to_string(cluster.setup(1).log).unwrap().contains("is not heard") {
        assert!(begin.elapsed() < PATIENCE, "node 1 listens to node 3");
        thread::sleep(Duration::from_millis(50));
    }
    cluster.kill(3);
    // The members are those of the logs and files, not those of the configurations, which still name node 3.
    for node in [1, 2, 4] {
        cluster.kill(node);
    }
    for node in [2, 4] {
        cluster.start_node(node);
    }
    let mut client = cluster.client(4).with_timeout(PATIENCE);
    write_until_taken(&mut client, &lines(rows, 100));
    count_everywhere(&cluster, &[2, 4], rows + 100);
    cluster.start_node(1);
    count_everywhere(&cluster, &[1], rows + 100);
    cluster.stop_all();
}

#[test]
fn a_drained_node_holds_nothing_and_can_go() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = founded();
    let refused = cluster.ctl(1, &["drain", "2"]).unwrap_err();
    assert!(refused.contains("no other node can take the replica of group 0 that node 2 has"), "{refused}");
    cluster.add_node(1, 4);
    // It holds nothing yet, and asks the others.
    count_everywhere(&cluster, &[4], 1000);
    let rows = while_writing(&mut cluster, 3, 1000, |cluster| {
        cluster.ctl(1, &["drain", "2", "--wait", "60"]).unwrap();
    });
    let shown = cluster.ctl(3, &["show"]).unwrap();
    assert!(shown.contains("draining"), "{shown}");
    // What it had is out of date, and it knows.
    write(&mut cluster.client(2), "db=d", &lines(rows, 500)).unwrap();
    let rows = rows + 500;
    count_everywhere(&cluster, &[1, 2, 3, 4], rows);
    let listed = query(&mut cluster.client(2), "SHOW SERIES CARDINALITY", "db=d").unwrap();
    assert_eq!(listed, query(&mut cluster.client(1), "SHOW SERIES CARDINALITY", "db=d").unwrap());
    cluster.ctl(3, &["remove-data", "2"]).unwrap();
    cluster.kill(2);
    count_everywhere(&cluster, &[1, 3, 4], rows);
    write(&mut cluster.client(4), "db=d", &lines(rows, 500)).unwrap();
    count_everywhere(&cluster, &[1, 3, 4], rows + 500);
    cluster.stop_all();
}

#[test]
fn each_data_group_and_the_metadata_change_their_members_alone() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let of_two = Cluster::start_of(&[Duty::Data(1), Duty::Data(2), Duty::Meta]);
    let mut cluster = founded_as(of_two, 9);
    cluster.add_node_for(1, 4, Duty::Data(2));
    cluster.add_node_for(2, 5, Duty::Meta);
    count_everywhere(&cluster, &[1, 2, 4], 1000);
    let refused = cluster.ctl(1, &["replace", "1", "4"]).unwrap_err();
    assert!(refused.contains("node 4 stores other series than node 1"), "{refused}");
    let refused = cluster.ctl(1, &["move-replica", "0", "1", "4"]).unwrap_err();
    assert!(refused.contains("node 4 stores other series than node 1"), "{refused}");
    let rows = while_writing(&mut cluster, 1, 1000, |cluster| {
        // One partition, the metadata from their only voter to another, then all that is left.
        cluster.ctl(3, &["move-replica", "5", "2", "4", "--wait", "60"]).unwrap();
        let refused = cluster.ctl(1, &["move-replica", "5", "2", "4"]).unwrap_err();
        assert!(refused.contains("replicas of group 5 are at nodes [4]"), "{refused}");
        cluster.ctl(3, &["move-replica", "meta", "3", "5", "--wait", "60"]).unwrap();
        cluster.ctl(5, &["replace", "2", "4", "--wait", "60"]).unwrap();
    });
    count_everywhere(&cluster, &[1, 4], rows);
    // Whoever holds nothing may go, and nobody misses it.
    cluster.ctl(1, &["remove-meta", "3"]).unwrap();
    cluster.kill(2);
    cluster.kill(3);
    query(&mut cluster.client(4), "CREATE DATABASE e", "").unwrap();
    write_until_taken(&mut cluster.client(4), &lines(rows, 500));
    count_everywhere(&cluster, &[1, 4], rows + 500);
    cluster.stop_all();
}

#[test]
fn a_leader_hands_over_to_whom_it_is_told() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let cluster = founded();
    for (group, to) in [("0", "1"), ("0", "2"), ("0", "3"), ("meta", "2"), ("meta", "1"), ("3", "1")] {
        let done = cluster.ctl(2, &["transfer-leader", group, to]).unwrap();
        assert!(done.contains("done"), "{done}");
    }
    let refused = cluster.ctl(1, &["transfer-leader", "0", "9"]).unwrap_err();
    assert!(refused.contains("node 9 is no voter"), "{refused}");
    let refused = cluster.ctl(1, &["transfer-leader", "99", "1"]).unwrap_err();
    assert!(refused.contains("no group 99"), "{refused}");
    count_everywhere(&cluster, &[1, 2, 3], 1000);
    cluster.stop_all();
}

#[test]
fn a_replacement_goes_on_when_nodes_are_killed_in_the_middle_of_it() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = founded();
    let mut rows = 1000;
    cluster.add_node(1, 4);
    cluster.ctl(3, &["replace", "2", "4"]).unwrap();
    for killed in [1, 4, 3] {
        cluster.kill(killed);
        let through = if killed == 3 { 1 } else { 3 };
        let mut client = cluster.client(through).with_timeout(PATIENCE);
        write_until_taken(&mut client, &lines(rows, 200));
        rows += 200;
        cluster.start_node(killed);
    }
    wait_until(&cluster, 1, "node 4 has everything", |described| {
        let nodes = described["nodes"].as_array().unwrap();
        is_settled(described) && nodes.iter().all(|node| node["node"] != 2)
    });
    cluster.kill(2);
    count_everywhere(&cluster, &[1, 3, 4], rows);
    cluster.stop_all();
}

#[test]
fn a_node_that_lost_its_folder_is_not_taken_for_who_it_was() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = founded();
    cluster.kill(3);
    std::fs::remove_dir_all(cluster.setup(3).data).unwrap();
    let setup = cluster.setup(3);
    if let Ok(mut stranger) = Server::start(setup.clone()) {
        let begin = Instant::now();
        while stranger.is_running() {
            assert!(begin.elapsed() < PATIENCE, "the node with an empty folder goes on");
            thread::sleep(Duration::from_millis(50));
        }
    }
    let told = std::fs::read_to_string(&setup.log).unwrap();
    assert!(told.contains("node 3 of this cluster has had another data folder"), "{told}");
    // It has had no say: the two others go on, and would not without each other.
    write_until_taken(&mut cluster.client(1), &lines(1000, 500));
    count_everywhere(&cluster, &[1, 2], 1500);
    cluster.add_node(1, 4);
    cluster.ctl(1, &["replace", "3", "4", "--wait", "60"]).unwrap();
    count_everywhere(&cluster, &[1, 2, 4], 1500);
    cluster.stop_all();
}
