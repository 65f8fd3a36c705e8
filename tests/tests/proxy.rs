//! A proxy before servers and clusters: whoever asks it gets what the nodes would say, also while nodes come and go.

use crate::conformance::play_at;
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use tidemill_perf::{http::Client, server::Server};
use tidemill_tests::{
    cluster::{Cluster, Duty},
    proxy,
    subject::{self, Home, count, query, skip_for_upstream, write},
};

/// Longest wait for what comes soon.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node knows proxies by this.
const KNOWN: &str = "[http]\nproxy-secret = \"of the proxies\"\n";

/// Plays a case file at a proxy before one server.
fn play_through(name: &str) {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    // Without a secret a write goes whole to one node, with it in parts with identities.
    for with_secret in [false, true] {
        let home = Home::new();
        let mut setup = home.setup();
        if with_secret {
            let path = home.path().join("known.toml");
            std::fs::write(&path, KNOWN).unwrap();
            setup.arguments.extend(["--config".to_owned(), path.to_string_lossy().into_owned()]);
        }
        let server = subject::start(setup);
        let nodes = [server.address()];
        let front = match with_secret {
            true => proxy::start_known(&home, "front", &nodes, ""),
            false => proxy::start(&home, "front", &nodes, ""),
        };
        play_at(name, &mut subject::client(&front));
        subject::stop(front);
        subject::stop(server);
    }
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
fn bodies_that_find_no_room_are_told_to_come_again() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let home = Home::new();
    let server = home.start();
    let front = proxy::start(&home, "front", &[server.address()], "max-bodies-size = \"10k\"");
    let mut client = subject::client(&front);
    query(&mut client, "CREATE DATABASE d", "").unwrap();
    let answer = client.write("db=d", "m v=1 1\n".repeat(10_000).as_bytes()).unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
    // What it took is given back.
    (0..5).for_each(|_| write(&mut client, "db=d", &"m v=1 1\n".repeat(1000)).unwrap());
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

/// A data group of three nodes and one of one.
const THREE_AND_ONE: [Duty; 4] = [Duty::Data(1), Duty::Data(1), Duty::Data(1), Duty::Data(2)];

fn addresses(cluster: &Cluster, nodes: usize) -> Vec<String> {
    (1..=nodes).map(|node| cluster.node(node).address()).collect()
}

#[test]
fn parts_of_a_write_are_answered_as_the_whole_would_be() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let cluster = Cluster::start_of(&[Duty::Data(1), Duty::Data(2)]);
    let home = Home::new();
    let front = proxy::start_known(&home, "front", &addresses(&cluster, 2), "");
    let mut clients = [subject::client(&front), cluster.client(1)];
    for (client, database) in clients.iter_mut().zip(["d", "e"]) {
        query(client, &format!("CREATE DATABASE {database}"), "").unwrap();
        query(client, &format!("CREATE RETENTION POLICY short ON {database} DURATION 1h REPLICATION 1"), "").unwrap();
        write(client, &format!("db={database}"), "typed,h=1 v=1i 1").unwrap();
    }
    let of_hosts = |line: &dyn Fn(u64) -> String| (0..20).map(line).collect::<String>();
    let bodies = [
        of_hosts(&|host| format!("m,h={host} v={host} {host}\n")),
        of_hosts(&|host| format!("m,h={host} v=\n")),
        of_hosts(&|host| if host % 7 == 3 { format!("bad{host}\n") } else { format!("m,h={host} v=1 5\n") }),
        of_hosts(&|host| format!("typed,h={host} v=\"text\" 7\n")),
        of_hosts(&|host| format!("m,time={host} v=1\n")),
        of_hosts(&|host| format!("m,h={host} s=\"a\nb{host}\" 9\n")),
        "m,h=1 v=\"open\nm,h=2 v=1 1\nm,h=3 v=2 2\n".to_owned(),
        of_hosts(&|host| format!("m,h={host} v=1 {}\n", host * 7 * 86_400_000_000_000)),
        "\n# nothing\n".to_owned(),
        String::new(),
    ];
    for body in &bodies {
        for parameters in
            ["", "&rp=short", "&rp=none", "&precision=s", "&precision=x", "&consistency=all", "&pretty=true"]
        {
            let answers = [("d", 0), ("e", 1)].map(|(database, at)| {
                let answer = clients[at].write(&format!("db={database}{parameters}"), body.as_bytes()).unwrap();
                (answer.status, answer.text(), answer.header("x-influxdb-error").map(str::to_owned))
            });
            let [through, direct] = answers;
            assert_eq!(through, direct, "{parameters} {body}");
        }
    }
    for statement in ["SELECT * FROM m", "SELECT * FROM typed", "SHOW SERIES", "SELECT count(*) FROM short.m"] {
        let [through, direct] = [("d", 0), ("e", 1)]
            .map(|(database, at)| query(&mut clients[at], statement, &format!("db={database}&epoch=ns")).unwrap());
        // Lines without a time have the time of their request.
        if !statement.starts_with("SELECT *") {
            assert_eq!(through, direct, "{statement}");
        }
    }
    assert_eq!(clients[0].write("db=none", b"m v=1").unwrap().status, 404);
    subject::stop(front);
    cluster.stop_all();
}

#[test]
fn lines_of_one_write_without_a_time_have_one_time() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let cluster = Cluster::start_of(&[Duty::Data(1), Duty::Data(2)]);
    let home = Home::new();
    let front = proxy::start_known(&home, "front", &addresses(&cluster, 2), "");
    let mut client = subject::client(&front);
    query(&mut client, "CREATE DATABASE d", "").unwrap();
    let body: String = (0..50).map(|host| format!("m,h={host} v=1\n")).collect();
    write(&mut client, "db=d", &body).unwrap();
    let rows = query(&mut client, "SELECT v FROM m", "db=d&epoch=ns").unwrap();
    let document: serde_json::Value = serde_json::from_str(&rows).unwrap();
    let values = document["results"][0]["series"][0]["values"].as_array().unwrap();
    assert_eq!(values.len(), 50);
    assert!(values.iter().all(|row| row[0] == values[0][0]), "{rows}");
    subject::stop(front);
    cluster.stop_all();
}

/// Writes through a proxy for as long as it is told, each row once, and one point again and again. Every write must be
/// taken. How many rows, and the last value of that point.
fn write_on(address: String, writer: u64, stop: &AtomicBool) -> (u64, u64) {
    let mut client = Client::new(address).with_timeout(Duration::from_secs(60));
    let mut batches = 0;
    while !stop.load(Ordering::Relaxed) {
        let first = batches * 20;
        let mut body: String =
            (first..first + 20).map(|at| format!("m,w=w{writer},h=h{} v={at}i {at}\n", at % 13)).collect();
        // In several weeks, so that a batch of a partition has several images.
        body.push_str(
            &(0..3)
                .map(|week| format!("p,w=w{writer} v={batches}i {}\n", week * 8 * 86_400_000_000_000u64))
                .collect::<String>(),
        );
        let answer = client.write("db=d", body.as_bytes()).unwrap();
        assert_eq!(answer.status, 204, "{}", answer.text());
        batches += 1;
    }
    (batches * 20, batches - 1)
}

#[test]
fn clients_of_a_proxy_do_not_notice_that_nodes_are_lost() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let mut cluster = Cluster::start_of(&THREE_AND_ONE);
    let home = Home::new();
    let nodes = addresses(&cluster, 4);
    let fronts = ["one", "two"].map(|name| proxy::start_known(&home, name, &nodes, ""));
    let mut client = subject::client(&fronts[0]);
    query(&mut client, "CREATE DATABASE d", "").unwrap();
    let done = write_through(&fronts, || {
        std::thread::sleep(Duration::from_secs(2));
        cluster.kill(leader_of_most(&cluster));
        std::thread::sleep(Duration::from_secs(6));
    });
    check_all(&fronts, &done);
    fronts.into_iter().for_each(subject::stop);
    cluster.stop_all();
}

#[test]
fn clients_of_a_proxy_do_not_notice_nodes_that_freeze_and_come_back() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let mut cluster = Cluster::start_of(&THREE_AND_ONE);
    let home = Home::new();
    let nodes = addresses(&cluster, 4);
    let fronts = ["one", "two"].map(|name| proxy::start_known(&home, name, &nodes, ""));
    query(&mut subject::client(&fronts[0]), "CREATE DATABASE d", "").unwrap();
    let done = write_through(&fronts, || {
        std::thread::sleep(Duration::from_secs(1));
        let frozen = leader_of_most(&cluster);
        signal(cluster.node(frozen).pid(), libc::SIGSTOP);
        std::thread::sleep(Duration::from_secs(6));
        signal(cluster.node(frozen).pid(), libc::SIGCONT);
        std::thread::sleep(Duration::from_secs(3));
        let follower = (1..=3).find(|node| *node != leader_of_most(&cluster)).unwrap();
        cluster.kill(follower);
        std::thread::sleep(Duration::from_secs(1));
        cluster.start_node_at(follower, &nodes[follower - 1]);
        std::thread::sleep(Duration::from_secs(2));
        let stopped = (1..=3).find(|node| *node != follower).unwrap();
        cluster.stop(stopped);
        cluster.start_node_at(stopped, &nodes[stopped - 1]);
        std::thread::sleep(Duration::from_secs(2));
    });
    check_all(&fronts, &done);
    fronts.into_iter().for_each(subject::stop);
    cluster.stop_all();
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: a plain system call, on a process that this test started and that runs.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

/// What four writers wrote while something went on.
fn write_through(fronts: &[Server], meanwhile: impl FnOnce()) -> Vec<(u64, u64)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (address, stop) = (fronts[writer as usize % fronts.len()].address(), &stop);
                scope.spawn(move || write_on(address, writer, stop))
            })
            .collect();
        meanwhile();
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    })
}

/// Every row is there, and no write came behind a later one.
fn check_all(fronts: &[Server], done: &[(u64, u64)]) {
    let rows: u64 = done.iter().map(|(rows, _)| rows).sum();
    assert!(rows > 1000, "{rows}");
    for front in fronts {
        let mut client = subject::client(front);
        assert_eq!(count(&mut client, "m"), rows);
        for (writer, (_, last)) in done.iter().enumerate() {
            let answer = query(&mut client, &format!("SELECT v FROM p WHERE w='w{writer}'"), "db=d&epoch=ns").unwrap();
            let document: serde_json::Value = serde_json::from_str(&answer).unwrap();
            let values = document["results"][0]["series"][0]["values"].as_array().unwrap();
            assert_eq!(values.len(), 3, "{answer}");
            assert!(values.iter().all(|row| row[1].as_u64() == Some(*last)), "{last}: {answer}");
        }
    }
}

/// The node of the first group that leads most partitions.
fn leader_of_most(cluster: &Cluster) -> usize {
    let leads = |node: &usize| {
        let placement = cluster.client(*node).get("/cluster/placement").unwrap().text();
        let placement: serde_json::Value = serde_json::from_str(&placement).unwrap();
        placement["leads"].as_array().map_or(0, Vec::len)
    };
    (1..=3).max_by_key(leads).unwrap()
}

#[test]
fn small_writes_of_many_clients_go_together() {
    if skip_for_upstream("it has no proxy") {
        return;
    }
    let cluster = Cluster::start_of(&[Duty::Data(1), Duty::Data(2)]);
    let home = Home::new();
    let front = proxy::start_known(&home, "front", &addresses(&cluster, 2), "flush-size = \"64k\"");
    let mut client = subject::client(&front);
    query(&mut client, "CREATE DATABASE d", "").unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8u64 {
            let address = front.address();
            scope.spawn(move || {
                let mut client = Client::new(address).with_timeout(PATIENCE);
                for row in 0..100 {
                    // The one point that is written again and again must end with the last value.
                    let body = format!("m,w=w{writer} v={row}i {row}\np,w=w{writer} v={row}i 1");
                    let answer = client.write("db=d", body.as_bytes()).unwrap();
                    assert_eq!(answer.status, 204, "{}", answer.text());
                    if row % 10 == writer {
                        let bad =
                            client.write("db=d", format!("bad{writer}\nm,w=w{writer} v=1i 1000").as_bytes()).unwrap();
                        let text = format!("partial write: unable to parse 'bad{writer}': missing fields dropped=0");
                        assert_eq!((bad.status, bad.header("x-influxdb-error")), (400, Some(text.as_str())));
                    }
                }
            });
        }
    });
    assert_eq!(count(&mut client, "m"), 8 * 101);
    let answer = query(&mut client, "SELECT sum(v), count(v) FROM p", "db=d&epoch=ns").unwrap();
    assert!(answer.contains("[0,792,8]"), "{answer}");
    let metrics = client.get("/metrics").unwrap().text();
    assert!(!metrics.contains("tidemill_proxy_writes_joined_total 0\n"), "{metrics}");
    subject::stop(front);
    cluster.stop_all();
}
