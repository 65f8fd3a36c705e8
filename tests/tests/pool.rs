//! The storage pool of real processes: files go there, are copied again when a slave is lost, and go when nobody owns them.

use serde_json::Value;
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};
use tidemill_tests::{
    cluster::{Cluster, Duty, write_until_taken},
    subject::{count, query, skip_for_upstream},
};

const CONFIGURATION: &str = "[pool]\ncopies = 2\nafter = \"0s\"\nslave-timeout = \"4s\"\ndelete-after = \"1s\"\n";
const DATA: usize = 1;
const MASTERS: [usize; 3] = [2, 3, 4];
const SLAVES: [usize; 4] = [5, 6, 7, 8];
/// What a busy machine may take for anything here.
const PATIENCE: Duration = Duration::from_secs(120);

/// Files are sealed as soon as there are any.
fn start_of(duties: &[Duty]) -> Cluster {
    let cluster = Cluster::prepare_of(duties, CONFIGURATION);
    for node in 1..=duties.len() {
        let path = cluster.configuration(node);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("[data]\n", "[data]\nl1-files-per-l2 = 1\n")).unwrap();
    }
    cluster.started()
}

/// What the leader of the masters says, through any node that lives.
fn pool(cluster: &Cluster) -> Option<Value> {
    let answer = cluster.client(DATA).get("/cluster/pool").unwrap();
    (answer.status == 200).then(|| serde_json::from_str(&answer.text()).unwrap())
}

/// Waits until the pool is as it should be; how it is then.
fn wait_for(cluster: &Cluster, what: &str, is_there: impl Fn(&Value) -> bool) -> Value {
    let begin = Instant::now();
    let mut last = None;
    while begin.elapsed() < PATIENCE {
        last = pool(cluster).or(last);
        if let Some(pool) = &last
            && is_there(pool)
        {
            return pool.clone();
        }
        thread::sleep(Duration::from_millis(200));
    }
    panic!("{what} did not come: {last:?}");
}

fn slave(pool: &Value, node: usize) -> &Value {
    pool["slaves"].as_array().unwrap().iter().find(|slave| slave["node"] == node).expect("a slave of the pool")
}

fn is_whole(pool: &Value) -> bool {
    pool["files"]["short"] == 0 && pool["files"]["total"].as_u64() > Some(0)
}

fn lines(from: u64, rows: u64) -> String {
    (from..from + rows).map(|at| format!("m,h=h{} v={at}i {}\n", at % 97, at * 1000)).collect()
}

/// Writes rows and has them in sealed files.
fn write_sealed(cluster: &Cluster, from: u64, rows: u64) {
    let mut client = cluster.client(DATA);
    write_until_taken(&mut client, &lines(from, rows));
    let taken = client.request("POST", "/snapshots", &[], b"").unwrap();
    assert_eq!(taken.status, 201, "{}", taken.text());
}

fn files_below(folder: &Path, extension: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |path: &Path| match path.is_dir() {
        true => files_below(path, extension),
        false => usize::from(path.extension().is_some_and(|known| known == extension)),
    };
    entries.map(|entry| of(&entry.unwrap().path())).sum()
}

fn files_of_slaves(cluster: &Cluster) -> usize {
    SLAVES.iter().map(|node| files_below(&cluster.setup(*node).data.join("pool"), "tsm")).sum()
}

#[test]
fn files_survive_slaves_and_masters_and_go_with_their_database() {
    if skip_for_upstream("it has no storage pool") {
        return;
    }
    let mut duties = vec![Duty::Data(1)];
    duties.extend([Duty::PoolMaster; 3]);
    duties.extend([Duty::PoolSlave; 4]);
    let mut cluster = start_of(&duties);
    query(&mut cluster.client(DATA), "CREATE DATABASE d", "").unwrap();
    write_sealed(&cluster, 0, 8_000);
    let whole = wait_for(&cluster, "copies of all files", is_whole);
    let total = whole["files"]["total"].as_u64().unwrap();
    assert!(total >= 1, "{whole}");
    assert_eq!(files_of_slaves(&cluster) as u64, 2 * total);
    // The blocks are the pool's from here on.
    let begin = Instant::now();
    while files_below(&cluster.setup(DATA).data.join("partitions"), "tail") == 0 {
        assert!(begin.elapsed() < PATIENCE, "nothing is handed over: {:?}", pool(&cluster));
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(count(&mut cluster.client(DATA), "m"), 8_000);

    // A slave is lost: what it had is copied again.
    let lost = SLAVES.into_iter().max_by_key(|node| slave(&whole, *node)["files"].as_u64()).unwrap();
    let held = slave(&whole, lost)["files"].as_u64().unwrap();
    assert!(held > 0);
    cluster.kill(lost);
    wait_for(&cluster, "the loss", |pool| slave(pool, lost)["state"] == "lost");
    let whole = wait_for(&cluster, "copies of what was lost", is_whole);
    assert!(whole["since_election"]["repaired_files"].as_u64().unwrap() >= held, "{whole}");
    assert_eq!(count(&mut cluster.client(DATA), "m"), 8_000);

    // The leader of the masters is lost while it places files.
    let leader = whole["leader"].as_u64().unwrap() as usize;
    assert!(MASTERS.contains(&leader));
    write_sealed(&cluster, 8_000, 8_000);
    cluster.kill(leader);
    let is_led_anew = |pool: &Value| pool["leader"] != leader && is_whole(pool);
    wait_for(&cluster, "the next leader", is_led_anew);
    wait_for(&cluster, "more files", |pool| is_whole(pool) && pool["files"]["total"].as_u64() > Some(total));
    assert_eq!(count(&mut cluster.client(DATA), "m"), 16_000);

    // The slave comes back with its files: they are used again.
    cluster.start_node(lost);
    wait_for(&cluster, "the slave's return", |pool| slave(pool, lost)["state"] == "active");
    let text = cluster.ctl(DATA, &["pool", "show"]).unwrap();
    assert!(text.contains("active") && text.contains("leader of the masters"), "{text}");
    cluster.start_node(leader);

    // One gives all up that it has.
    let pool = pool(&cluster).unwrap();
    let full = SLAVES.into_iter().max_by_key(|node| slave(&pool, *node)["files"].as_u64()).unwrap();
    let told = cluster.ctl(DATA, &["pool", "evacuate", &full.to_string()]).unwrap();
    assert!(told.contains("evacuating"), "{told}");
    wait_for(&cluster, "an empty slave", |pool| is_whole(pool) && slave(pool, full)["files"] == 0);
    cluster.ctl(DATA, &["pool", "remove", &full.to_string()]).unwrap();
    assert_eq!(count(&mut cluster.client(DATA), "m"), 16_000);

    // Nobody owns the files any more.
    query(&mut cluster.client(DATA), "DROP DATABASE d", "").unwrap();
    wait_for(&cluster, "an empty pool", |pool| pool["files"]["total"] == 0);
    let begin = Instant::now();
    while SLAVES
        .iter()
        .filter(|node| **node != full)
        .any(|node| files_below(&cluster.setup(*node).data.join("pool"), "tsm") > 0)
    {
        assert!(begin.elapsed() < PATIENCE, "files of nobody are left");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_pool_without_slaves_enough_says_so_and_data_stay_where_they_are() {
    if skip_for_upstream("it has no storage pool") {
        return;
    }
    let mut cluster = start_of(&[Duty::Data(1), Duty::PoolMaster, Duty::PoolSlave]);
    query(&mut cluster.client(DATA), "CREATE DATABASE d", "").unwrap();
    write_sealed(&cluster, 0, 500);
    let short = wait_for(&cluster, "a shortage", |pool| pool["waiting"][0]["why"].is_string());
    let why = short["waiting"][0]["why"].as_str().unwrap();
    assert_eq!(why, "the pool has 1 slave that takes files, 2 copies were asked for");
    assert_eq!(count(&mut cluster.client(DATA), "m"), 500);
    assert_eq!(files_below(&cluster.setup(DATA).data.join("partitions"), "tail"), 0);
    // A second one comes.
    let address = cluster.prepare_joining(4, Duty::PoolSlave);
    cluster.ctl(DATA, &["pool", "add", "4", &address, "--domain", "rack 2"]).unwrap();
    cluster.start_node(4);
    let whole = wait_for(&cluster, "copies", is_whole);
    assert_eq!(slave(&whole, 4)["domain"], "rack 2");
    assert_eq!(count(&mut cluster.client(DATA), "m"), 500);
}

/// A file of a slave's folder, by its size: the larger of them has more that can rot.
fn largest_file(cluster: &Cluster, node: usize) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(cluster.setup(node).data.join("pool/files")).ok()?;
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.max_by_key(|path| std::fs::metadata(path).map_or(0, |found| found.len()))
}

#[test]
fn a_rotten_file_is_found_kept_apart_and_copied_again() {
    if skip_for_upstream("it has no storage pool") {
        return;
    }
    let slaves = [3, 4];
    let cluster = start_of(&[Duty::Data(1), Duty::PoolMaster, Duty::PoolSlave, Duty::PoolSlave]);
    query(&mut cluster.client(DATA), "CREATE DATABASE d", "").unwrap();
    write_sealed(&cluster, 0, 8_000);
    wait_for(&cluster, "copies", is_whole);
    let rotten = largest_file(&cluster, slaves[0]).expect("each of two slaves has every file");
    let mut bytes = std::fs::read(&rotten).unwrap();
    let right = bytes.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let file = std::fs::OpenOptions::new().write(true).open(&rotten).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file.sync_all().unwrap();
    drop(file);

    cluster.ctl(DATA, &["pool", "scrub"]).unwrap();
    let kept = cluster.setup(slaves[0]).data.join("pool/rotten");
    let begin = Instant::now();
    while files_below(&kept, "tsm") == 0 || !std::fs::read(&rotten).is_ok_and(|found| found == right) {
        assert!(begin.elapsed() < PATIENCE, "{} rotten files: {:?}", files_below(&kept, "tsm"), pool(&cluster));
        thread::sleep(Duration::from_millis(100));
    }
    // Files of other partitions may have come meanwhile.
    loop {
        let whole = wait_for(&cluster, "the copy again", is_whole);
        let total = whole["files"]["total"].as_u64().unwrap() as usize;
        let here = slaves.map(|node| files_below(&cluster.setup(node).data.join("pool/files"), "tsm"));
        if here == [total; 2] {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{here:?} of {total} files");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(count(&mut cluster.client(DATA), "m"), 8_000);
}
