//! Many clients, slow clients and clients that mean harm: bombs of every wrapping, requests that two readers would cut
//! otherwise, floods, and statements that would cost too much.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tidemill_perf::connections::{self, ConnectionsOptions};
use tidemill_perf::http::Client;
use tidemill_perf::process;
use tidemill_perf::server::Server;
use tidemill_tests::subject::{self, count, with_database};

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Sends bytes as they are, half-closes, and reads to the end or for a while.
fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn bombs_in_chunks_in_bombs_and_with_something_behind() {
    if subject::skip_for_upstream("upstream unpacks without a limit") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = with_database(&server);
    let before = process::rss_bytes(server.pid()).unwrap();
    let bomb = packed(&vec![b'\n'; 200 << 20]);
    let chunked = |body: &[u8]| {
        let head =
            "POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut request = head.as_bytes().to_vec();
        for part in body.chunks(1000) {
            request.extend(format!("{:x}\r\n", part.len()).into_bytes());
            request.extend_from_slice(part);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        request
    };
    let answer = raw(&server, &chunked(&bomb));
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // A bomb in a small wrapping is only bytes that are no line protocol.
    let nested = client.request("POST", "/write?db=d", &[("Content-Encoding", "gzip")], &packed(&bomb)).unwrap();
    assert_eq!(nested.status, 400);
    let mut trailed = packed(b"m v=1 1\n");
    trailed.extend_from_slice(b"something behind");
    let trailed = client.request("POST", "/write?db=d", &[("Content-Encoding", "gzip")], &trailed).unwrap();
    assert!(matches!(trailed.status, 204 | 400), "{}", trailed.text());
    let grown = process::peak_rss_bytes(server.pid()).unwrap().saturating_sub(before);
    assert!(grown < 100 << 20, "the server grew by {grown} bytes");
    subject::write(&mut client, "db=d", "good v=1 1").unwrap();
    assert_eq!(count(&mut client, "good"), 1);
    subject::stop(server);
}

/// What one reader takes for the body of a request another could take for the next request. Each of these must be
/// refused, and what stands behind it must not be executed.
#[test]
fn requests_that_could_be_cut_otherwise_are_refused() {
    if subject::skip_for_upstream("Go's server takes some of these") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = with_database(&server);
    let write = "POST /write?db=d HTTP/1.1\r\nHost: x\r\n";
    let behind = format!("{write}Content-Length: 13\r\n\r\nbehind v=1 1\n");
    let body = "8\r\nm v=1 1\n\r\n0\r\n\r\n";
    for broken in [
        format!("{write}Content-Length: +8\r\n\r\nm v=1 1\n"),
        format!("{write}Content-Length: 0x8\r\n\r\nm v=1 1\n"),
        format!("{write}Content-Length: 8, 9\r\n\r\nm v=1 1\n"),
        format!("{write}Content-Length: 99999999999999999999\r\n\r\nm v=1 1\n"),
        format!("{write}Content-Length : 8\r\n\r\nm v=1 1\n"),
        format!("{write}X: a\r\n Content-Length: 8\r\n\r\nm v=1 1\n"),
        format!("{write}X: a\0b\r\nContent-Length: 8\r\n\r\nm v=1 1\n"),
        format!("{write}Transfer-Encoding: xchunked\r\n\r\n{body}"),
        format!("{write}Transfer-Encoding: identity\r\n\r\n{body}"),
        format!("{write}Transfer-Encoding: chunked, identity\r\n\r\n{body}"),
        format!("{write}Transfer-Encoding: chunked\r\n\r\n-8\r\nm v=1 1\n\r\n0\r\n\r\n"),
        format!("{write}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nm v=1 1\n\r\n0\r\n\r\n"),
        format!("{write}Transfer-Encoding: chunked\r\n\r\n8;{}\r\nm v=1 1\n\r\n0\r\n\r\n", "e".repeat(1 << 20)),
        format!("{write}Transfer-Encoding: chunked\r\n\r\n8\r\nm v=1 1\nXX0\r\n\r\n"),
    ] {
        let answer = raw(&server, format!("{broken}{behind}").as_bytes());
        let told: String = broken.chars().take(160).collect();
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5");
        assert!(refused && !answer.contains("204 No Content"), "{told:?} is answered with {answer}");
    }
    assert_eq!(count(&mut client, "behind"), 0, "what came behind was executed");
    subject::stop(server);
}

#[test]
fn floods_dribbles_and_readers_that_do_not_read_keep_nobody_out() {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = with_database(&server);
    let lines: Vec<String> = (0..20_000).map(|time| format!("big v={time} {time}")).collect();
    subject::write(&mut client, "db=d", &lines.join("\n")).unwrap();
    let before = process::rss_bytes(server.pid()).unwrap();
    let connect = |first: &[u8]| {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(first).unwrap();
        stream
    };
    let idle: Vec<TcpStream> = (0..300).map(|_| connect(b"")).collect();
    let mut slow: Vec<TcpStream> = (0..50).map(|_| connect(b"POST /write?db=d HTTP/1.1\r\nHost: x\r\n")).collect();
    let deaf: Vec<TcpStream> =
        (0..20).map(|_| connect(b"GET /query?db=d&q=SELECT+*+FROM+big HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    // Requests one behind the other, without waiting: each is answered.
    let pings = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500);
    let mut stream = connect(&pings);
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (mut answers, mut buffer) = (Vec::new(), [0; 4096]);
    while String::from_utf8_lossy(&answers).matches("\r\n\r\n").count() < 500 {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the connection was closed");
        answers.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(String::from_utf8_lossy(&answers).matches("HTTP/1.1 204").count(), 500);
    for time in 0..50 {
        for stream in &mut slow {
            stream.write_all(b"X").unwrap();
        }
        subject::write(&mut Client::new(server.address()), "db=d", &format!("m v=1 {time}")).unwrap();
    }
    assert_eq!(count(&mut client, "m"), 50);
    if !subject::skip_for_upstream("what a connection may cost") {
        let grown = process::rss_bytes(server.pid()).unwrap().saturating_sub(before);
        assert!(grown < 64 << 20, "370 connections cost {grown} bytes");
    }
    drop((idle, slow, deaf));
    subject::stop(server);
}

/// The small form of `perf connections`, which does the same with ten thousand.
#[test]
fn a_crowd_of_connections_is_cheap_and_leaves_at_its_deadlines() {
    if subject::skip_for_upstream("it waits for heads for ever") {
        return;
    }
    let home = subject::Home::new();
    let options =
        ConnectionsOptions { setup: home.setup(), count: 2_000, duration: Duration::from_secs(3), clients: 2 };
    let report = connections::run(&options).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(report.faults.is_empty(), "{report:#?}");
    assert!(report.crowded.len() > 20, "nobody was served beside them: {report:#?}");
}

#[test]
fn numbers_and_texts_at_their_ends_are_answered_or_refused() {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = with_database(&server);
    subject::write(&mut client, "db=d", "m,t=a v=1 1").unwrap();
    let many = vec!["v"; 20_000].join(",");
    let names: Vec<String> = (0..5000).map(|number| format!("m{number}")).collect();
    for statement in [
        "SELECT v FROM m LIMIT 9223372036854775807 OFFSET 9223372036854775807",
        "SELECT v FROM m GROUP BY t SLIMIT 9223372036854775807 SOFFSET 9223372036854775807",
        "SELECT v FROM m WHERE time > 9223372036854775807",
        "SELECT v FROM m WHERE time < -9223372036854775808",
        "SELECT count(v) FROM m WHERE time >= 0 AND time < 10 GROUP BY time(106751d)",
        "SELECT count(v) FROM m WHERE time >= 0 AND time < 10 GROUP BY time(1ns, 106751d)",
        "SELECT moving_average(v, 9223372036854775807) FROM m",
        "SELECT top(v, 9223372036854775807) FROM m",
        "SELECT percentile(v, 999999999999999999999.0) FROM m",
        "SELECT derivative(v, 106751d) FROM m",
        "SELECT holt_winters(first(v), 100, 1000) FROM m WHERE time >= 0 AND time < 10 GROUP BY time(1ns)",
        "SHOW SERIES LIMIT 9223372036854775807 OFFSET 9223372036854775807",
        "SHOW TAG VALUES WITH KEY =~ /((((a*)*)*)*)*b/",
        &format!("SELECT {many} FROM m"),
        &format!("SELECT v FROM {}", names.join(",")),
        &format!("SELECT v FROM m WHERE t =~ /{}/", "(a|b)".repeat(2000)),
        &format!("SELECT v FROM m WHERE t = '{}'", "x".repeat(500_000)),
        &format!("SELECT \"{}\" FROM m", "x".repeat(500_000)),
    ] {
        let told: String = statement.chars().take(80).collect();
        let answer = client.query(statement, "db=d").unwrap_or_else(|error| panic!("{told}: {error}"));
        assert!(matches!(answer.status, 200 | 400), "{told}: {} {}", answer.status, answer.text());
        assert_eq!(count(&mut client, "m"), 1, "after {told}");
    }
    subject::stop(server);
}
