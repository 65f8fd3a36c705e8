use crate::harness::{TestServer, eventually, post};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidemill_http::Options;

const SHORT: Duration = Duration::from_millis(150);

#[test]
fn heads_are_limited_in_bytes() {
    let server = TestServer::start(Options { head_bytes_max: 8192, ..Options::default() });
    let of_size = |size: usize| {
        let empty = "GET /ping HTTP/1.1\r\nHost: x\r\nX: \r\n\r\n";
        format!("GET /ping HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(size - empty.len()))
    };
    let statuses: Vec<u16> = [8000, 8192, 8193, 9000].map(|size| server.ask(of_size(size)).status).into();
    assert_eq!(statuses, [204, 204, 431, 431]);
}

#[test]
fn headers_are_limited_in_number() {
    for count in [7, 100] {
        let server = TestServer::start(Options { header_count_max: count, ..Options::default() });
        let with = |count: usize| {
            let headers: String = (0..count).map(|number| format!("X-{number}: y\r\n")).collect();
            format!("GET /ping HTTP/1.1\r\n{headers}\r\n")
        };
        assert_eq!(server.ask(with(count)).status, 204);
        assert_eq!(server.ask(with(count + 1)).status, 431);
    }
}

#[test]
fn query_texts_are_limited() {
    let server = TestServer::start(Options { query_text_bytes_max: 14, ..Options::default() });
    assert_eq!(server.get("/query?db=empty&q=SHOW+DATABASES").status, 200);
    let answer = server.get("/query?db=empty&q=SHOW+DATABASES%3B");
    assert_eq!(answer.status, 413);
    assert_eq!(answer.text(), "{\"error\":\"the query text is longer than 14 bytes\"}\n");
}

#[test]
fn rows_are_limited_unless_chunked() {
    let server = TestServer::start(Options { row_count_max: 2, ..Options::default() });
    let answer = server.get("/query?db=d&q=SELECT+v+FROM+m&epoch=ns").text();
    assert!(answer.contains("\"values\":[[0,0],[1,0.5]],\"partial\":true}]}]}"), "{answer}");
    let chunked = server.get("/query?db=d&q=SELECT+v+FROM+m&epoch=ns&chunked=true").text();
    assert!(chunked.contains("[2,1]") && !chunked.contains("partial"));
}

#[test]
fn connections_beyond_the_limit_wait() {
    let server = TestServer::start(Options { connection_count_max: 2, ..Options::default() });
    let mut open: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut open {
        client.send("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    assert_eq!(open[0].answer().unwrap().status, 204);
    assert_eq!(open[1].answer().unwrap().status, 204);
    open[2].stream.set_read_timeout(Some(SHORT)).unwrap();
    assert!(open[2].head().is_none());
    open[2].stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    drop(open.remove(0));
    assert_eq!(open[1].answer().unwrap().status, 204);
}

#[test]
fn at_the_limit_idle_connections_make_room() {
    let server = TestServer::start(Options { connection_count_max: 2, ..Options::default() });
    let mut open: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for client in &mut open {
        client.send("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer().unwrap().status, 204);
    }
    let mut third = server.connect();
    third.send("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(third.answer().unwrap().status, 204);
}

#[test]
fn bodies_together_have_a_limit_and_room_comes_back() {
    let server = TestServer::start(Options { bodies_bytes_max: 1000, ..Options::default() });
    let mut first = server.connect();
    first.send("POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 800\r\n\r\nm v=1 1\n");
    let mut second = server.connect();
    let refused = loop {
        second.send("POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\n");
        second.send("m v=1 1\n".repeat(37));
        second.send("    ");
        let answer = second.answer().unwrap();
        if answer.status != 204 {
            break answer;
        }
        // The first body has not been seen yet.
        second = server.connect();
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    assert!(refused.text().contains("budget of request bodies"), "{}", refused.text());
    first.send("m v=1 1\n".repeat(99));
    assert_eq!(first.answer().unwrap().status, 204);
    let mut third = server.connect();
    third.send("POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nm v=1 1\n");
    assert_eq!(third.answer().unwrap().status, 204);
}

#[test]
fn slow_heads_are_cut_off() {
    let server = TestServer::start(Options { head_deadline: SHORT, ..Options::default() });
    let mut silent = server.connect();
    let mut slow = server.connect();
    slow.send("GET /pi");
    assert!(silent.is_closed_at_last() && slow.is_closed_at_last());
    let mut second = server.connect();
    second.send("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(second.answer().unwrap().status, 204);
    second.send("GET /pi");
    assert!(second.is_closed_at_last());
}

#[test]
fn idle_connections_are_closed_and_busy_ones_are_not() {
    let server = TestServer::start(Options { idle_deadline: SHORT, head_deadline: SHORT, ..Options::default() });
    let mut client = server.connect();
    for _ in 0..2 {
        // The service takes twice the deadline.
        client.send(post("/write?db=slow", "", "m v=1"));
        assert_eq!(client.answer().unwrap().status, 204);
    }
    assert!(client.is_closed_at_last());
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("tidemill_http_connections_overdue_total 1\n"), "{metrics}");
}

#[test]
fn slow_bodies_are_refused_but_steady_ones_are_not() {
    let options = Options { body_deadline: SHORT, body_bytes_per_s_min: 1000, ..Options::default() };
    let server = TestServer::start(options);
    let mut client = server.connect();
    client.send("POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nm v=1\n");
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (408, "close"));
    assert_eq!(answer.text(), "{\"error\":\"the request body did not come in time\"}\n");
    assert!(client.is_closed_at_last());
    let mut client = server.connect();
    client.send("POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 1500\r\n\r\n");
    client.send([b' '; 1000]);
    std::thread::sleep(SHORT * 2);
    client.send([b' '; 500]);
    assert_eq!(client.answer().unwrap().status, 204);
}

#[test]
fn readers_that_never_read_are_cut_off() {
    let options = Options { write_deadline: SHORT, write_bytes_per_s_min: u32::MAX, ..Options::default() };
    let server = TestServer::start(options);
    let mut client = server.connect();
    client.send("GET /query?db=endless&q=SELECT+v+FROM+m HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually("the query is dropped", || server.seen.dropped_stream_count.load(Ordering::SeqCst) == 1);
    assert!(client.is_closed_at_last());
}
