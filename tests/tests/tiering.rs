//! Sealed files go to the storage pool and are queried there: nothing is lost, doubled or wrong while they move, and what
//! cannot be read is an error.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};
use tidemill_perf::http::Client;
use tidemill_tests::{
    cluster::{Cluster, Duty, write_until_taken},
    subject::{query, skip_for_upstream},
};

const PATIENCE: Duration = Duration::from_secs(120);
const DATA: [usize; 3] = [1, 2, 3];
const SLAVES: [usize; 3] = [5, 6, 7];
const DUTIES: [Duty; 7] =
    [Duty::Data(1), Duty::Data(1), Duty::Data(1), Duty::PoolMaster, Duty::PoolSlave, Duty::PoolSlave, Duty::PoolSlave];
const HOSTS: u64 = 6;

/// What was written, by host: times and values.
#[derive(Default)]
struct Oracle {
    rows: std::collections::BTreeMap<u64, std::collections::BTreeMap<u64, u64>>,
}

impl Oracle {
    /// Notes points and gives them as lines.
    fn lines(&mut self, points: impl Iterator<Item = (u64, u64, u64)>) -> String {
        let mut text = String::new();
        for (host, time, value) in points {
            self.rows.entry(host).or_default().insert(time, value);
            text.push_str(&format!("m,h=h{host} n={value}i,f={value}.25 {time}\n"));
        }
        text
    }

    fn delete(&mut self, host: u64, times: std::ops::Range<u64>) {
        if let Some(rows) = self.rows.get_mut(&host) {
            rows.retain(|time, _| !times.contains(time));
        }
    }

    /// Asks for everything in several ways; what differs, or why there was no answer.
    fn compare(&self, client: &mut Client) -> Result<(), String> {
        let all = || self.rows.values().flat_map(|rows| rows.iter());
        let (count, sum) = (all().count() as u64, all().map(|(_, value)| value).sum::<u64>());
        let row = one_row(client, "SELECT count(n), sum(n) FROM m")?;
        same("count and sum", (row[1].as_u64(), row[2].as_u64()), (Some(count), Some(sum)))?;
        // Cuts blocks, so that their statistics do not answer.
        let (from, to) = (1_234, 7_777);
        let within = || all().filter(|(time, _)| (from..to).contains(*time));
        let statement = format!("SELECT count(f), sum(n) FROM m WHERE time >= {from} AND time < {to}");
        let row = one_row(client, &statement)?;
        let expected = (Some(within().count() as u64), Some(within().map(|(_, value)| value).sum::<u64>()));
        same("a part", (row[1].as_u64(), row[2].as_u64()), expected)?;
        for (host, rows) in &self.rows {
            let answer = ask(client, &format!("SELECT n FROM m WHERE h = 'h{host}'"))?;
            let values = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
            let found: Vec<(u64, u64)> =
                values.iter().map(|row| (row[0].as_u64().unwrap(), row[1].as_u64().unwrap())).collect();
            let expected: Vec<(u64, u64)> = rows.iter().map(|(time, value)| (*time, *value)).collect();
            same(&format!("host {host}: rows"), found.len(), expected.len())?;
            same(&format!("host {host}: values"), found == expected, true)?;
        }
        Ok(())
    }

    fn check(&self, cluster: &Cluster, nodes: &[usize], context: &str) {
        for node in nodes {
            let mut client = cluster.client(*node).with_timeout(PATIENCE);
            self.compare(&mut client).unwrap_or_else(|what| panic!("{context}, at node {node}: {what}"));
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} instead of {expected:?}")) }
}

fn ask(client: &mut Client, statement: &str) -> Result<serde_json::Value, String> {
    let answer = client.query(statement, "db=d&epoch=ns").map_err(|error| error.to_string())?;
    let value: serde_json::Value = serde_json::from_str(&answer.text()).map_err(|error| error.to_string())?;
    let failed = [&value["error"], &value["results"][0]["error"]].into_iter().find_map(|error| error.as_str());
    match failed {
        Some(error) => Err(format!("{statement}: {error}")),
        None => Ok(value),
    }
}

fn one_row(client: &mut Client, statement: &str) -> Result<serde_json::Value, String> {
    Ok(ask(client, statement)?["results"][0]["series"][0]["values"][0].clone())
}

/// Files of a node's partitions whose names end so.
fn files_of(cluster: &Cluster, node: usize, suffix: &str) -> Vec<PathBuf> {
    fn collect(folder: &Path, suffix: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, suffix, found);
            } else if path.to_string_lossy().ends_with(suffix) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&cluster.setup(node).data.join("partitions"), suffix, &mut found);
    found
}

fn wait_for(cluster: &Cluster, what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        let pool = cluster.ctl(1, &["pool", "show"]);
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}; {pool:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Has everything in files, which are copied to the next level then.
fn flush(cluster: &Cluster) {
    let taken = cluster.client(1).with_timeout(PATIENCE).request("POST", "/snapshots", &[], b"").unwrap();
    assert_eq!(taken.status, 201, "{}", taken.text());
}

fn is_shipped(cluster: &Cluster) -> bool {
    DATA.iter().all(|node| files_of(cluster, *node, ".tsm").is_empty() && !files_of(cluster, *node, ".tail").is_empty())
}

#[test]
fn files_move_to_the_pool_and_every_query_is_exact_or_an_error() {
    if skip_for_upstream("it has no pool") {
        return;
    }
    let options = "[pool]\nafter = \"0s\"\nslave-timeout = \"3s\"\ndelete-after = \"3s\"\n";
    let cluster = Cluster::prepare_of(&DUTIES, options);
    for node in DATA {
        let path = cluster.configuration(node);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("[data]\n", "[data]\nl1-files-per-l2 = 1\n")).unwrap();
    }
    let mut cluster = cluster.started();
    let mut oracle = Oracle::default();
    query(&mut cluster.client(1), "CREATE DATABASE d", "").unwrap();
    let points = (0..12_000).flat_map(|time| (0..HOSTS).map(move |host| (host, time, time * 7 % 1000 + host)));
    write_until_taken(&mut cluster.client(1).with_timeout(PATIENCE), &oracle.lines(points));

    // Queries all the while.
    let (done, compared) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let clients = DATA.map(|node| cluster.client(node).with_timeout(PATIENCE));
        for mut client in clients {
            let (oracle, done, compared) = (&oracle, &done, &compared);
            scope.spawn(move || {
                while !done.load(SeqCst) {
                    oracle.compare(&mut client).unwrap_or_else(|what| panic!("while files move: {what}"));
                    compared.fetch_add(1, SeqCst);
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            flush(&cluster);
            wait_for(&cluster, "all blocks are in the pool", || is_shipped(&cluster));
            let moved = compared.load(SeqCst);
            wait_for(&cluster, "everything was asked for again", || compared.load(SeqCst) > moved + 6);
        }));
        done.store(true, SeqCst);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });

    // One copy of each file is enough.
    cluster.kill(SLAVES[0]);
    oracle.check(&cluster, &DATA, "a slave is lost");
    cluster.stop(2);
    cluster.start_node(2);
    cluster.wait_for_leaders();
    oracle.check(&cluster, &[2], "a node was started again");
    cluster.start_node(SLAVES[0]);

    // Rows between and over those in the pool, and deletes of some.
    let late = (0..400).map(|number| (number % 3, number * 29, 5_000 + number));
    write_until_taken(&mut cluster.client(2).with_timeout(PATIENCE), &oracle.lines(late));
    oracle.check(&cluster, &DATA, "late rows in memory");
    query(&mut cluster.client(3), "DELETE FROM m WHERE h = 'h4' AND time >= 2000 AND time < 9000", "db=d").unwrap();
    oracle.delete(4, 2_000..9_000);
    oracle.check(&cluster, &DATA, "a delete over files in the pool");
    flush(&cluster);
    wait_for(&cluster, "late rows were merged and shipped", || is_shipped(&cluster));
    oracle.check(&cluster, &DATA, "merged");
    let digest = cluster.ctl(1, &["digest"]).unwrap();
    assert!(!digest.contains("DIFFER"), "{digest}");

    // No copy is left: an error, not a part of the rows.
    SLAVES.into_iter().for_each(|slave| cluster.kill(slave));
    cluster.stop(1);
    cluster.start_node(1);
    cluster.wait_for_leaders();
    let mut client = cluster.client(1).with_timeout(PATIENCE);
    let failed = ask(&mut client, "SELECT n FROM m WHERE h = 'h0'").unwrap_err();
    assert!(failed.contains("storage pool"), "{failed}");
    SLAVES.into_iter().for_each(|slave| cluster.start_node(slave));
    wait_for(&cluster, "the slaves are back", || oracle.compare(&mut cluster.client(1).with_timeout(PATIENCE)).is_ok());
    oracle.check(&cluster, &DATA, "all slaves were away");

    query(&mut cluster.client(1), "DROP DATABASE d", "").unwrap();
    wait_for(&cluster, "dropped files are gone", || {
        DATA.iter().all(|node| files_of(&cluster, *node, ".tail").is_empty())
    });
    cluster.stop_all();
}
