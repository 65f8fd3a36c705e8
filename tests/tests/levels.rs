//! What a client may ask of a cluster beside the ordinary: writes that are known everywhere, or taken by a lone node;
//! reads that may be old; queries of all nodes.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};
use tidemill_perf::http::Client;
use tidemill_tests::{
    cluster::{Cluster, NODES},
    subject::{count, query, skip_for_upstream, write},
};

/// Longest wait for one answer of a cluster that has lost nodes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One point in each of some series, all with this value.
fn round(writer: usize, value: u64) -> String {
    (0..16).map(|at| format!("m,w=w{writer},h=h{at} v={value}i {at}\n")).collect()
}

/// Sum and count of what a writer's points show.
fn shown(client: &mut Client, writer: usize) -> (u64, u64) {
    let statement = format!("SELECT min(v), max(v), count(v) FROM m WHERE w = 'w{writer}'");
    let text = query(client, &statement, "db=d").unwrap();
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let row = &answer["results"][0]["series"][0]["values"][0];
    assert_eq!(row[1], row[2], "the rows are those of one write: {text}");
    (row[1].as_u64().unwrap(), row[3].as_u64().unwrap())
}

/// Each writer overwrites its points again and again, at its own node. When a node is lost, of what was on its way to it
/// nobody has heard: it is asked for again, and neither lost, nor answered as unknown, nor stored behind what was written
/// later.
#[test]
fn a_write_whose_leader_is_lost_is_answered_by_its_successor() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = Cluster::start();
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    write(&mut cluster.client(1), "db=d", &round(0, 0)).unwrap();
    for gone in NODES {
        let others: Vec<usize> = NODES.into_iter().filter(|node| *node != gone).collect();
        let mut clients: Vec<Client> =
            (0..6).map(|at| cluster.client(others[at % others.len()]).with_timeout(PATIENCE)).collect();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers: Vec<_> = clients
                .iter_mut()
                .enumerate()
                .map(|(writer, client)| {
                    let stop = &stop;
                    scope.spawn(move || {
                        let mut value = 0;
                        while !stop.load(Ordering::Relaxed) {
                            value += 1;
                            let answer = client.write("db=d", round(writer, value).as_bytes()).unwrap();
                            assert_eq!(answer.status, 204, "{}", answer.text());
                        }
                        value
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(700));
            cluster.kill(gone);
            thread::sleep(Duration::from_secs(5));
            stop.store(true, Ordering::Relaxed);
            for (writer, ended) in writers.into_iter().enumerate() {
                let value = ended.join().unwrap();
                for node in &others {
                    assert_eq!(shown(&mut cluster.client(*node), writer), (value, 16), "writer {writer} at {node}");
                }
            }
        });
        cluster.start_node(gone);
        cluster.wait_for_leaders();
    }
    cluster.stop_all();
}

#[test]
fn all_means_every_replica() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = Cluster::start();
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    for node in NODES {
        write(&mut cluster.client(node), "db=d&consistency=all", &round(node, 1)).unwrap();
    }
    cluster.kill(3);
    let mut client = cluster.client(1).with_timeout(PATIENCE);
    write(&mut client, "db=d&consistency=quorum", &round(1, 2)).unwrap();
    let answer = client.write("db=d&consistency=all", round(1, 3).as_bytes()).unwrap();
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(answer.text().contains("partial write: stored by a majority"), "{}", answer.text());
    assert_eq!(shown(&mut client, 1), (3, 16), "it is there");
    cluster.start_node(3);
    write(&mut client, "db=d&consistency=all", &round(1, 4)).unwrap();
    assert_eq!(shown(&mut cluster.client(3), 1), (4, 16));
    assert_eq!(count(&mut cluster.client(2), "m"), 48);
    cluster.stop_all();
}
