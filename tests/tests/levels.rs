//! What a client may ask of a cluster beside the ordinary: writes that are known everywhere, or taken by a lone node;
//! reads that may be old; queries of all nodes.

use std::{
    process::Command,
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

/// What `tidemill ctl handoff show` tells of a node.
fn handoff(cluster: &Cluster, node: usize) -> serde_json::Value {
    let shown = Command::new(cluster.setup(node).binary)
        .args(["ctl", "handoff", "show", "--json", "--host", &format!("http://{}", cluster.node(node).address())])
        .output()
        .unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let queues: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let own = queues.as_array().unwrap().iter().find(|queue| queue["node"] == node);
    own.cloned().unwrap_or_else(|| panic!("no node {node} in {queues}"))
}

fn waiting(queue: &serde_json::Value) -> u64 {
    queue["waiting"].as_array().unwrap().iter().map(|group| group["batches"].as_u64().unwrap()).sum()
}

/// Asks again until it holds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..300 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(200));
    }
    panic!("never: {what}");
}

#[test]
fn a_lone_node_keeps_writes_that_ask_for_any_and_delivers_them_in_order() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster =
        Cluster::start_with("[hinted-handoff]\nretry-interval = \"200ms\"\nretry-max-interval = \"1s\"\n");
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    write(&mut cluster.client(1), "db=d&consistency=all", &round(0, 1)).unwrap();
    cluster.kill(2);
    cluster.kill(3);
    let mut alone = cluster.client(1).with_timeout(PATIENCE);
    for value in 2..30 {
        write(&mut alone, "db=d&consistency=any", &round(0, value)).unwrap();
    }
    let queue = handoff(&cluster, 1);
    let kept = waiting(&queue);
    assert!(kept > 28 && kept <= 28 * 4, "a batch a partition and write: {queue}");
    // What must not overtake it is refused while it waits.
    let answer = alone.write("db=d", round(0, 1000).as_bytes()).unwrap();
    assert!(matches!(answer.status, 500 | 503), "{} {}", answer.status, answer.text());
    cluster.kill(1);
    cluster.start_node(1);
    assert_eq!(waiting(&handoff(&cluster, 1)), kept, "after SIGKILL");
    cluster.start_node(2);
    let mut client = cluster.client(1).with_timeout(PATIENCE);
    write(&mut client, "db=d", &round(7, 1)).unwrap();
    for node in [1, 2] {
        assert_eq!(shown(&mut cluster.client(node), 0), (29, 16), "at node {node}");
    }
    eventually("the queue is empty", || waiting(&handoff(&cluster, 1)) == 0);
    let queue = handoff(&cluster, 1);
    assert_eq!(
        (&queue["delivered"], &queue["dropped"], &queue["purged"]),
        (&kept.into(), &0.into(), &0.into()),
        "{queue}"
    );
    let metrics = client.get("/metrics").unwrap().text();
    assert!(metrics.contains("tidemill_handoff_delivered_total"), "{metrics}");
    let statistics = query(&mut client, "SHOW STATS", "").unwrap();
    assert!(statistics.contains("handoff_delivered_total"), "{statistics}");
    // Nothing of it comes again after another start.
    write(&mut client, "db=d", &round(0, 50)).unwrap();
    cluster.kill(1);
    cluster.start_node(1);
    cluster.start_node(3);
    cluster.wait_for_leaders();
    write(&mut cluster.client(1), "db=d&consistency=all", &round(7, 2)).unwrap();
    for node in NODES {
        assert_eq!(shown(&mut cluster.client(node), 0), (50, 16), "at node {node}");
    }
    cluster.stop_all();
}

#[test]
fn the_queue_of_a_lone_node_has_an_end_in_size_and_age() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = Cluster::start_with(
        "[hinted-handoff]\nmax-size = \"16k\"\nmax-age = \"8s\"\npurge-interval = \"500ms\"\ndir = \"hh\"\n",
    );
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    write(&mut cluster.client(1), "db=d&consistency=all", &round(0, 1)).unwrap();
    cluster.kill(2);
    cluster.kill(3);
    let mut alone = cluster.client(1).with_timeout(PATIENCE);
    let refused = (2..100).find_map(|value| {
        let answer = alone.write("db=d&consistency=any", round(0, value).as_bytes()).unwrap();
        (answer.status != 204).then_some(answer)
    });
    let refused = refused.expect("the queue is full at some time");
    assert!(matches!(refused.status, 500 | 503), "{} {}", refused.status, refused.text());
    assert!(refused.text().contains("hinted-handoff"), "{}", refused.text());
    assert!(cluster.folder("data-1").join("hh").is_dir());
    eventually("all that waits becomes too old", || {
        let queue = handoff(&cluster, 1);
        waiting(&queue) == 0 && queue["purged"].as_u64() > Some(0)
    });
    write(&mut alone, "db=d&consistency=any", &round(0, 100)).unwrap();
    let log = std::fs::read_to_string(cluster.setup(1).log).unwrap();
    assert!(log.contains("hinted-handoff.max-age"), "what is lost is told");
    cluster.start_node(2);
    cluster.start_node(3);
    eventually("the rest is delivered", || waiting(&handoff(&cluster, 1)) == 0);
    assert_eq!(shown(&mut cluster.client(2), 0), (100, 16));
    cluster.stop_all();
}

/// The token that an answer carries.
fn token(answer: &tidemill_perf::http::Response) -> String {
    answer.header("x-tidemill-session").unwrap_or_else(|| panic!("no token: {}", answer.text())).to_owned()
}

/// A query in a session.
fn in_session(client: &mut Client, token: &str) -> tidemill_perf::http::Response {
    let target = "/query?db=d&read=session&q=SELECT+count(v)+FROM+m";
    client.request("GET", target, &[("X-Tidemill-Session", token)], &[]).unwrap()
}

#[test]
fn a_node_that_is_alone_answers_what_may_be_old_and_nothing_else() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = Cluster::start();
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    write(&mut cluster.client(1), "db=d&consistency=all", &round(0, 1)).unwrap();
    let statement = "SELECT count(v) FROM m";
    let counted = "[\"1970-01-01T00:00:00Z\",16]";
    for level in ["linearizable", "bounded", "session", "eventual", "EVENTUAL"] {
        for node in NODES {
            let answer = query(&mut cluster.client(node), statement, &format!("db=d&read={level}")).unwrap();
            assert!(answer.contains(counted) || level.eq_ignore_ascii_case("eventual"), "{level} at {node}: {answer}");
        }
    }
    let refused = cluster.client(1).query(statement, "db=d&read=dirty").unwrap();
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("invalid read level"), "{}", refused.text());
    let refused = cluster.client(1).query(statement, "db=d&read=bounded&max_staleness=x").unwrap();
    assert_eq!((refused.status, refused.text().contains("max_staleness")), (400, true));
    // What a session has written at one node it sees at every other one.
    let mut seen = token(&in_session(&mut cluster.client(2), ""));
    for (value, node) in (2..8).zip(NODES.into_iter().cycle()) {
        let lines = format!("m,h=s{value} v=1i 1\n");
        let head = [("X-Tidemill-Session", seen.as_str())];
        let written = cluster.client(node).request("POST", "/write?db=d", &head, lines.as_bytes()).unwrap();
        assert_eq!(written.status, 204, "{}", written.text());
        seen = token(&written);
        let answer = in_session(&mut cluster.client(node % 3 + 1), &seen);
        assert!(answer.text().contains(&format!(",{}]", 14 + value + 1)), "{}", answer.text());
    }
    let nonsense = in_session(&mut cluster.client(1), "nonsense");
    assert_eq!(nonsense.status, 400, "{}", nonsense.text());
    cluster.kill(2);
    cluster.kill(3);
    let mut alone = cluster.client(1).with_timeout(PATIENCE);
    assert!(query(&mut alone, statement, "db=d&read=eventual").unwrap().contains(",22]"));
    assert!(query(&mut alone, "SHOW MEASUREMENTS", "db=d&read=eventual").unwrap().contains("\"m\""));
    assert!(query(&mut alone, statement, "db=d&read=bounded&max_staleness=1h").unwrap().contains(",22]"));
    assert!(in_session(&mut alone, &seen).text().contains(",22]"));
    for level in ["linearizable", "bounded&max_staleness=1ms"] {
        let answer = alone.query(statement, &format!("db=d&read={level}")).unwrap();
        assert!(answer.text().contains("no leader can be reached"), "{level}: {}", answer.text());
    }
    // What changes something is not decided by what may be old.
    let answer = alone.query("CREATE DATABASE e", "read=eventual").unwrap();
    assert!(answer.text().contains("error"), "{}", answer.text());
    cluster.start_node(2);
    cluster.wait_for_leaders();
    cluster.stop_all();
}

/// The rows of the first series of an answer.
fn rows(answer: &str) -> Vec<Vec<serde_json::Value>> {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    rows.into_iter().map(|row| row.as_array().unwrap().clone()).collect()
}

#[test]
fn queries_of_all_nodes_are_shown_and_stopped_at_every_node() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = Cluster::start();
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    let lines: String = (0..20_000).map(|at| format!("m,h=h{} v={at}i {at}\n", at % 7)).collect();
    write(&mut cluster.client(1), "db=d", &lines).unwrap();
    // An answer of many windows that nobody reads stays under way.
    let slow = "SELECT count(v) FROM m WHERE time >= 0 AND time < 100000000s GROUP BY time(1ms)";
    let mut reader = cluster.client(2).with_timeout(PATIENCE);
    let mut open = reader.open_query(slow, "db=d&chunked=true").unwrap();
    let find = |client: &mut Client| {
        let shown = query(client, "SHOW QUERIES", "").unwrap();
        assert!(
            shown.contains("[\"qid\",\"node_id\",\"tcp_host\",\"query\",\"database\",\"duration\",\"status\"]"),
            "{shown}"
        );
        rows(&shown).into_iter().find(|row| row[3].as_str().is_some_and(|text| text.starts_with("SELECT count(v)")))
    };
    let mut client = cluster.client(3).with_timeout(PATIENCE);
    let row = find(&mut client).expect("it is shown at another node");
    assert_eq!((row[1].as_u64(), row[6].as_str()), (Some(2), Some("running")), "{row:?}");
    let id = row[0].as_u64().unwrap();
    let refused = client.query(&format!("KILL QUERY {id} ON \"nowhere:1\""), "").unwrap();
    assert!(refused.text().contains("no such host: nowhere:1"), "{}", refused.text());
    let refused = client.query(&format!("KILL QUERY {}", id + 1000), "").unwrap();
    assert!(refused.text().contains("no such query id"), "{}", refused.text());
    query(&mut client, &format!("KILL QUERY {id}"), "").unwrap();
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut open, &mut rest);
    assert!(String::from_utf8_lossy(&rest).contains("query interrupted"), "it ends with its reason");
    eventually("it is gone", || find(&mut client).is_none());
    drop(open);
    // With a host, and the count of that node alone.
    let mut reader = cluster.client(1).with_timeout(PATIENCE);
    let open = reader.open_query(slow, "db=d&chunked=true").unwrap();
    let row = find(&mut client).expect("it is shown");
    let (count, host) = (row[0].as_u64().unwrap() & 0xffff_ffff, row[2].as_str().unwrap().to_owned());
    query(&mut client, &format!("KILL QUERY {count} ON \"{host}\""), "").unwrap();
    drop(open);
    cluster.kill(2);
    let shown = query(&mut client, "SHOW QUERIES", "").unwrap();
    assert!(shown.contains("unreachable"), "no silent partial answer: {shown}");
    cluster.start_node(2);
    cluster.wait_for_leaders();
    cluster.stop_all();
}

#[test]
fn a_continuous_query_runs_at_one_node() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let cluster = Cluster::start();
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    let create = "CREATE CONTINUOUS QUERY q ON d BEGIN SELECT count(v) INTO n FROM m GROUP BY time(1s) END";
    query(&mut cluster.client(2), create, "").unwrap();
    let runs = |node: usize| {
        let shown = query(&mut cluster.client(node), "SHOW STATS FOR 'cq'", "").unwrap();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let series = &shown["results"][0]["series"][0];
        let at = series["columns"].as_array().unwrap().iter().position(|name| name == "queryOk").unwrap();
        series["values"][0][at].as_u64().unwrap()
    };
    eventually("it has run", || NODES.into_iter().map(runs).sum::<u64>() >= 3);
    let all = NODES.map(runs);
    assert_eq!(all.iter().filter(|runs| **runs > 0).count(), 1, "{all:?}");
    cluster.stop_all();
}

/// Files of a node's partitions.
fn files_of(cluster: &Cluster, node: usize) -> Vec<std::path::PathBuf> {
    let folders = |path: std::path::PathBuf| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let partitions = folders(cluster.folder(&format!("data-{node}")).join("partitions"));
    let groups = partitions.flat_map(|partition| folders(partition).filter(|path| path.is_dir()));
    let mut files: Vec<_> =
        groups.flat_map(folders).filter(|path| path.extension().is_some_and(|e| e == "tsm")).collect();
    files.sort();
    files
}

fn entropy(cluster: &Cluster, what: &str) -> std::process::Output {
    let host = format!("http://{}", cluster.node(1).address());
    let mut command = Command::new(cluster.setup(1).binary);
    command.args(["ctl", "entropy", what, "--json", "--host", &host]).output().unwrap()
}

#[test]
fn damaged_files_are_found_and_fetched_from_other_nodes() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let mut cluster = Cluster::start_with("[log]\nsegment-size = \"4m\"\nsegments-max = 8\n");
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    let text = |at: u64| format!("{:x}", at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(12);
    for from in (0..120_000).step_by(10_000) {
        let lines: String = (from..from + 10_000)
            .map(|at| format!("m,h=h{} v={at}i,s=\"{}\" {}\n", at % 37, text(at), at * 1000))
            .collect();
        write(&mut cluster.client(1).with_timeout(PATIENCE), "db=d", &lines).unwrap();
    }
    eventually("node 2 has files", || !files_of(&cluster, 2).is_empty());
    let shown = entropy(&cluster, "show");
    assert!(
        shown.status.success(),
        "{}{}",
        String::from_utf8_lossy(&shown.stdout),
        String::from_utf8_lossy(&shown.stderr)
    );
    cluster.stop(2);
    let damaged = files_of(&cluster, 2).remove(0);
    let mut bytes = std::fs::read(&damaged).unwrap();
    let good = bytes.clone();
    let at = bytes.len() / 3;
    bytes[at] ^= 0x40;
    std::fs::write(&damaged, &bytes).unwrap();
    cluster.start_node(2);
    cluster.wait_for_leaders();
    let shown = entropy(&cluster, "show");
    let told = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(!shown.status.success() && told.contains("findings"), "{told}");
    let repaired = entropy(&cluster, "repair");
    let told = String::from_utf8_lossy(&repaired.stdout).into_owned();
    assert!(
        repaired.status.success() && told.contains("mended_from"),
        "{told}{}",
        String::from_utf8_lossy(&repaired.stderr)
    );
    assert!(std::fs::read(&damaged).is_ok_and(|found| found == good), "byte for byte");
    let shown = entropy(&cluster, "show");
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stdout));
    assert_eq!(count(&mut cluster.client(2), "m"), 120_000);
    cluster.stop_all();
}

#[test]
fn a_node_is_not_open_to_other_machines_by_accident() {
    if skip_for_upstream("it has no cluster") {
        return;
    }
    let cluster = Cluster::prepare("");
    let open = |configuration: &str| {
        let text = std::fs::read_to_string(cluster.configuration(1)).unwrap();
        let path = cluster.folder("exposed.toml");
        std::fs::write(&path, text.replace("[cluster]", &format!("[cluster]\n{configuration}"))).unwrap();
        Command::new(cluster.setup(1).binary)
            .args(["config", "--http", "0.0.0.0:0", "--config"])
            .arg(&path)
            .output()
            .unwrap()
    };
    let refused = open("");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{}", String::from_utf8_lossy(&refused.stdout));
    assert!(why.contains("http.auth-enabled and http.https-enabled") && why.contains("cluster.insecure"), "{why}");
    let taken = open("insecure = true");
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
}
