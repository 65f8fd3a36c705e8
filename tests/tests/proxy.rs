//! A proxy before servers and clusters: whoever asks it gets what the nodes would say, also while nodes come and go.

use crate::conformance::play_at;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};
use tidemill_perf::http::Client;
use tidemill_tests::{
    cluster::Cluster,
    proxy,
    subject::{self, Home, count, query, skip_for_upstream, write},
};

/// Longest wait for what comes soon.
const PATIENCE: Duration = Duration::from_secs(30);

/// Plays a case file at a proxy before one server.
fn play_through(name: &str) {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let home = Home::new();
    let server = home.start();
    let front = proxy::start(&home, "front", &[server.address()], "");
    play_at(name, &mut subject::client(&front));
    subject::stop(front);
    subject::stop(server);
}

#[test]
fn a_server_behind_a_proxy_answers_as_without_it() {
    for name in ["line_protocol.txt", "requests.txt", "http.txt", "v2_write.txt"] {
        play_through(name);
    }
}

#[test]
fn queries_behind_a_proxy_are_answered_as_without_it() {
    for name in ["select.txt", "formats.txt", "show.txt", "databases.txt", "users.txt"] {
        play_through(name);
    }
}

#[test]
fn a_long_answer_passes_through_whole() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let home = Home::new();
    let server = home.start();
    let front = proxy::start(&home, "front", &[server.address()], "");
    let mut client = subject::client(&front);
    query(&mut client, "CREATE DATABASE d", "").unwrap();
    for block in 0..20 {
        let lines: String = (0..5000).map(|row| format!("m v={row}i {}\n", block * 5000 + row)).collect();
        write(&mut client, "db=d", &lines).unwrap();
    }
    for parameters in ["db=d", "db=d&chunked=true&chunk_size=100", "db=d&epoch=ns&pretty=true"] {
        let through = query(&mut client, "SELECT * FROM m", parameters).unwrap();
        let direct = query(&mut subject::client(&server), "SELECT * FROM m", parameters).unwrap();
        assert!(through == direct, "{parameters}: {} bytes of {}", through.len(), direct.len());
    }
    subject::stop(front);
    subject::stop(server);
}

#[test]
fn databases_that_are_not_listed_are_refused() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let home = Home::new();
    let server = home.start();
    let front = proxy::start(&home, "front", &[server.address()], "databases = [\"d\"]");
    let mut direct = subject::client(&server);
    for name in ["d", "e"] {
        query(&mut direct, &format!("CREATE DATABASE {name}"), "").unwrap();
        write(&mut direct, &format!("db={name}"), "m v=1 1").unwrap();
    }
    let mut client = subject::client(&front);
    write(&mut client, "db=d", "m v=2 2").unwrap();
    assert_eq!(client.write("db=e", b"m v=2 2").unwrap().status, 403);
    for statement in [
        "SELECT * FROM e..m",
        "SELECT * FROM d..m; SELECT * FROM e..m",
        "SELECT * INTO e..n FROM d..m",
        "SELECT * FROM (SELECT * FROM e.autogen.m)",
        "SHOW MEASUREMENTS ON e",
        "DROP DATABASE d",
        "CREATE DATABASE f",
        "not a statement",
    ] {
        let answer = client.query(statement, "db=d").unwrap();
        assert_eq!(answer.status, 403, "{statement}: {}", answer.text());
    }
    assert_eq!(client.query("SELECT * FROM m", "db=e").unwrap().status, 403);
    assert_eq!(client.get("/debug/vars").unwrap().status, 403);
    assert_eq!(count(&mut client, "m"), 2);
    subject::stop(front);
    subject::stop(server);
}

#[test]
fn a_request_too_many_is_told_to_come_again() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let home = Home::new();
    let server = home.start();
    let front = proxy::start(&home, "front", &[server.address()], "max-requests-waiting = 1");
    let mut client = subject::client(&front);
    query(&mut client, "CREATE DATABASE d", "").unwrap();
    let begin = Instant::now();
    while !client.get("/metrics").unwrap().text().contains("tidemill_proxy_requests_in_work 0\n") {
        assert!(begin.elapsed() < PATIENCE);
    }
    // A body that does not come keeps its request in work.
    let mut slow = TcpStream::connect(front.address()).unwrap();
    slow.write_all(b"POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nm v=1").unwrap();
    while !client.get("/metrics").unwrap().text().contains("tidemill_proxy_requests_in_work 1\n") {
        assert!(begin.elapsed() < PATIENCE);
    }
    let answer = client.write("db=d", b"m v=1 1").unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let metrics = client.get("/metrics").unwrap().text();
    assert!(metrics.contains("tidemill_proxy_requests_refused_total 1\n"), "{metrics}");
    drop(slow);
    while client.write("db=d", b"m v=1 1").unwrap().status != 204 {
        assert!(begin.elapsed() < PATIENCE);
    }
    subject::stop(front);
    subject::stop(server);
}

#[test]
fn what_is_too_large_is_refused_and_the_connection_ends_gently() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let home = Home::new();
    let server = home.start();
    let front = proxy::start(&home, "front", &[server.address()], "max-body-size = \"10k\"");
    let mut client = subject::client(&front);
    query(&mut client, "CREATE DATABASE d", "").unwrap();
    let answer = client.write("db=d", "m v=1 1\n".repeat(10_000).as_bytes()).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "{\"error\":\"Request Entity Too Large\"}\n"));
    write(&mut client, "db=d", "m v=1 1").unwrap();
    subject::stop(front);
    subject::stop(server);
}

#[test]
fn requests_that_are_in_work_end_before_the_proxy_does() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let home = Home::new();
    let server = home.start();
    let front = proxy::start(&home, "front", &[server.address()], "");
    let mut client = subject::client(&front);
    query(&mut client, "CREATE DATABASE d", "").unwrap();
    let mut slow = TcpStream::connect(front.address()).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.write_all(b"POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\nm v=").unwrap();
    // The request is in work once the proxy counts it.
    let begin = Instant::now();
    while !client.get("/metrics").unwrap().text().contains("tidemill_proxy_requests_in_work 1\n") {
        assert!(begin.elapsed() < PATIENCE);
    }
    let address = front.address();
    let stopping = std::thread::spawn(move || subject::stop(front));
    while TcpStream::connect(&address).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "it still takes connections");
        std::thread::sleep(Duration::from_millis(10));
    }
    slow.write_all(b"1 1").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    stopping.join().unwrap();
    assert_eq!(count(&mut subject::client(&server), "m"), 1);
    subject::stop(server);
}

#[test]
fn many_idle_connections_hold_nobody_up() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let home = Home::new();
    let server = home.start();
    let front = proxy::start(&home, "front", &[server.address()], "");
    let idle: Vec<TcpStream> = (0..500).map(|_| TcpStream::connect(front.address()).unwrap()).collect();
    let mut client = subject::client(&front);
    query(&mut client, "CREATE DATABASE d", "").unwrap();
    write(&mut client, "db=d", "m v=1 1").unwrap();
    drop(idle);
    assert_eq!(count(&mut client, "m"), 1);
    subject::stop(front);
    subject::stop(server);
}

fn lines(from: u64, rows: u64) -> String {
    (from..from + rows).map(|at| format!("m,h=h{} v={at}i {}\n", at % 97, at * 1000)).collect()
}

#[test]
fn a_cluster_behind_two_proxies_keeps_every_row() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let mut cluster = Cluster::start();
    let home = Home::new();
    let nodes: Vec<String> = (1..=3).map(|node| cluster.node(node).address()).collect();
    let fronts = ["one", "two"].map(|name| proxy::start(&home, name, &nodes, ""));
    let mut clients: Vec<Client> = fronts.iter().map(subject::client).collect();
    query(&mut clients[0], "CREATE DATABASE d", "").unwrap();
    for batch in 0..20 {
        write(&mut clients[batch as usize % 2], "db=d", &lines(batch * 100, 100)).unwrap();
    }
    for client in &mut clients {
        assert_eq!(count(client, "m"), 2000);
    }
    // Whoever asks a node that is gone is answered by another one.
    cluster.kill(3);
    for _ in 0..6 {
        for client in &mut clients {
            assert_eq!(count(client, "m"), 2000);
        }
    }
    fronts.into_iter().for_each(subject::stop);
    cluster.stop_all();
}
