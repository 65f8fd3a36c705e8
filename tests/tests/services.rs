//! What a server does beside answering: subscriptions, statistics that it stores of itself, line protocol by UDP.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tidemill_perf::http::Client;
use tidemill_perf::server::{Server, free_port};
use tidemill_tests::subject;

/// Longest wait for something that a server does by itself.
const PATIENCE: Duration = Duration::from_secs(30);

fn started_with(home: &subject::Home, config: &str) -> Server {
    let path = home.path().join("t.toml");
    std::fs::write(&path, config).unwrap();
    let mut setup = home.setup();
    setup.arguments.extend(["--config".to_owned(), path.display().to_string()]);
    subject::start(setup)
}

/// Nothing where the statement is an error: a database may not be there yet.
fn series(client: &mut Client, statement: &str) -> Value {
    let Ok(text) = subject::query(client, statement, "db=d&epoch=s") else { return Value::Null };
    serde_json::from_str::<Value>(&text).unwrap()["results"][0]["series"].clone()
}

/// Asks until the answer is as wanted.
fn until(client: &mut Client, statement: &str, mut is_wanted: impl FnMut(&Value) -> bool) {
    let begun = Instant::now();
    loop {
        let found = series(client, statement);
        if is_wanted(&found) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{statement}: {found}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A server that takes each request with 204 and tells of its first line and body.
fn listen() -> (u16, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut length) = (String::new(), 0);
            let _ = lines.read_line(&mut first);
            loop {
                let mut line = String::new();
                if lines.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            let _ = lines.read_exact(&mut body);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            let body = String::from_utf8_lossy(&body).into_owned();
            if sender.send((first.trim().to_owned(), body)).is_err() {
                return;
            }
        }
    });
    (port, requests)
}

#[test]
fn subscriptions_get_what_is_written_and_never_hold_it_up() {
    if subject::skip_for_upstream("1.6.7 writes other figures") {
        return;
    }
    let home = subject::Home::new();
    let server =
        started_with(&home, "[subscriber]\nhttp-timeout = \"1s\"\nwrite-concurrency = 2\nwrite-buffer-size = 3\n");
    let mut client = subject::client(&server);
    subject::query(&mut client, "CREATE DATABASE d; CREATE RETENTION POLICY r ON d DURATION INF REPLICATION 1", "")
        .unwrap();
    let (port, requests) = listen();
    let (other_port, other_requests) = listen();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
    let udp_port = datagrams.local_addr().unwrap().port();
    for statement in [
        format!(
            "CREATE SUBSCRIPTION a ON d.autogen DESTINATIONS ALL 'http://127.0.0.1:{port}', 'udp://127.0.0.1:{udp_port}'"
        ),
        // Nobody listens at the first: the second gets everything.
        format!(
            "CREATE SUBSCRIPTION b ON d.autogen DESTINATIONS ANY 'http://127.0.0.1:9', 'http://127.0.0.1:{other_port}'"
        ),
    ] {
        subject::query(&mut client, &statement, "").unwrap();
    }
    subject::write(&mut client, "db=d&precision=s", "m,b=2,a=1 f=1.5,s=\"x y\" 7\nm i=3i 8\n").unwrap();
    subject::write(&mut client, "db=d&rp=r&precision=s", "elsewhere f=1 7\n").unwrap();
    let expected = "m,a=1,b=2 f=1.5,s=\"x y\" 7000000000\nm i=3i 8000000000\n";
    let (first, body) = requests.recv_timeout(PATIENCE).unwrap();
    assert!(first.starts_with("POST /write?") && first.contains("db=d") && first.contains("rp=autogen"), "{first}");
    assert_eq!(body, expected);
    assert_eq!(other_requests.recv_timeout(PATIENCE).unwrap().1, expected);
    let mut datagram = [0; 1000];
    let received: String = (0..2)
        .map(|_| {
            let length = datagrams.recv(&mut datagram).unwrap();
            String::from_utf8_lossy(&datagram[..length]).into_owned()
        })
        .collect();
    assert_eq!(received, expected);
    // A point that is not stored is not sent.
    let answer = client.write("db=d&precision=s", b"m f=2 9\nm f=\"text\" 10\n").unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(requests.recv_timeout(PATIENCE).unwrap().1, "m f=2 9000000000\n");
    let of_a = |found: &Value| {
        let mut all = found.as_array().unwrap().iter();
        let found = all.find(|one| one["tags"]["name"] == "a" && one["tags"]["mode"] == "ALL");
        found.is_some_and(|one| one["values"][0][0] == 3)
    };
    until(&mut client, "SHOW STATS FOR 'subscriber'", of_a);

    // They are there after a restart, and gone with their policy.
    subject::query(&mut client, "CREATE SUBSCRIPTION c ON d.r DESTINATIONS ALL 'udp://127.0.0.1:9'", "").unwrap();
    let setup = server.setup().clone();
    subject::stop(server);
    let server = subject::start(setup);
    let mut client = subject::client(&server);
    let shown = series(&mut client, "SHOW SUBSCRIPTIONS");
    assert_eq!(shown[0]["columns"], serde_json::json!(["retention_policy", "name", "mode", "destinations"]));
    assert_eq!(shown[0]["values"].as_array().unwrap().len(), 3);
    assert_eq!(shown[0]["values"][2], serde_json::json!(["r", "c", "ALL", ["udp://127.0.0.1:9"]]));
    subject::write(&mut client, "db=d&precision=s", "m f=3 11\n").unwrap();
    let got = |requests: &Receiver<(String, String)>| loop {
        let (_, body) = requests.recv_timeout(PATIENCE).unwrap();
        if body == "m f=3 11000000000\n" {
            return;
        }
    };
    got(&requests);
    got(&other_requests);
    subject::query(&mut client, "DROP SUBSCRIPTION b ON d.autogen", "").unwrap();

    // A destination that answers nobody fills its queue, and writes go on.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let statement = format!("CREATE SUBSCRIPTION s ON d.r DESTINATIONS ALL 'http://127.0.0.1:{silent_port}'");
    subject::query(&mut client, &statement, "").unwrap();
    for second in 0..50 {
        subject::write(&mut client, "db=d&rp=r&precision=s", &format!("n f=1 {second}\n")).unwrap();
    }
    let dropped = |found: &Value| found[0]["values"][0][3].as_u64().is_some_and(|dropped| dropped >= 40);
    until(&mut client, "SHOW STATS FOR 'write'", dropped);
    subject::query(&mut client, "DROP RETENTION POLICY r ON d", "").unwrap();
    assert_eq!(series(&mut client, "SHOW SUBSCRIPTIONS")[0]["values"].as_array().unwrap().len(), 1);
    subject::stop(server);
}

#[test]
fn statistics_are_stored_where_they_are_asked_for() {
    if subject::skip_for_upstream("its statistics are others") {
        return;
    }
    let home = subject::Home::new();
    let server = started_with(&home, "[monitor]\nstore-enabled = true\nstore-interval = \"1s\"\n");
    let mut client = subject::client(&server);
    subject::query(&mut client, "CREATE DATABASE d", "").unwrap();
    subject::write(&mut client, "db=d", "m f=1\n").unwrap();
    let statement = "SELECT last(writeReq) FROM _internal.monitor.httpd WHERE hostname != ''";
    until(&mut client, statement, |found| found[0]["values"][0][1].as_u64().is_some_and(|count| count >= 1));
    until(&mut client, "SELECT last(numSeries) FROM _internal..\"database\" WHERE \"database\" = 'd'", |found| {
        found[0]["values"][0][1] == 1
    });
    let policies = series(&mut client, "SHOW RETENTION POLICIES ON _internal");
    assert_eq!(policies[0]["values"], serde_json::json!([["monitor", "168h0m0s", "24h0m0s", 1, true]]));
    // Whoever drops it sees it again.
    subject::query(&mut client, "DROP DATABASE _internal", "").unwrap();
    until(&mut client, "SHOW DATABASES", |found| {
        found[0]["values"].as_array().unwrap().contains(&serde_json::json!(["_internal"]))
    });
    subject::stop(server);
}

#[test]
fn line_protocol_comes_by_udp() {
    if subject::skip_for_upstream("a batch is gathered for a second there") {
        return;
    }
    let home = subject::Home::new();
    let port = free_port().unwrap();
    let config = format!(
        "[[udp]]\nenabled = true\nbind-address = \"127.0.0.1:{port}\"\ndatabase = \"d\"\nbatch-size = 100\nbatch-timeout = \"100ms\"\nprecision = \"s\"\n"
    );
    let server = started_with(&home, &config);
    let mut client = subject::client(&server);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for second in 0..250 {
        let datagram = format!("m,host=a f={second} {second}");
        sender.send_to(datagram.as_bytes(), ("127.0.0.1", port)).unwrap();
        if second % 50 == 49 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    sender.send_to(b"nonsense\n", ("127.0.0.1", port)).unwrap();
    until(&mut client, "SHOW DATABASES", |found| {
        found[0]["values"].as_array().unwrap().contains(&serde_json::json!(["d"]))
    });
    until(&mut client, "SELECT count(f), last(f) FROM m", |found| {
        found[0]["values"][0] == serde_json::json!([0, 250, 249])
    });
    until(&mut client, "SHOW STATS FOR 'udp'", |found| {
        let place = |name: &str| found[0]["columns"].as_array().unwrap().iter().position(|one| one == name).unwrap();
        let value = |name: &str| found[0]["values"][0][place(name)].as_u64().unwrap();
        value("pointsRx") == 251 && value("batchesTxFail") == 1 && value("batchesTx") >= 2
    });
    subject::stop(server);
}

#[test]
fn the_next_shard_group_is_made_before_its_time() {
    if subject::skip_for_upstream("its shortest check takes ten minutes by default") {
        return;
    }
    let home = subject::Home::new();
    // A group is a week long: its end is never further away than that.
    let server = started_with(&home, "[shard-precreation]\ncheck-interval = \"200ms\"\nadvance-period = \"170h\"\n");
    let mut client = subject::with_database(&server);
    subject::write(&mut client, "db=d", "m v=1").unwrap();
    let groups = |shown: &Value| {
        let all = shown.as_array().into_iter().flatten().flat_map(|series| series["values"].as_array());
        all.flatten().filter(|row| row[1] == "d").count()
    };
    until(&mut client, "SHOW SHARD GROUPS", |shown| groups(shown) == 2);
    subject::stop(server);
}
