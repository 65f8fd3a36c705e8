use crate::harness::{TestServer, eventually, post};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidemill_http::Options;

#[test]
fn running_requests_end_and_idle_connections_close() {
    let server = TestServer::start(Options::default());
    let (mut idle, mut used, mut busy) = (server.connect(), server.connect(), server.connect());
    used.send("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(used.answer().unwrap().status, 204);
    busy.send(post("/write?db=slow", "", "m v=1"));
    std::thread::sleep(Duration::from_millis(100));
    server.ask_to_stop();
    assert!(idle.is_closed_at_last() && used.is_closed_at_last());
    assert_eq!(busy.answer().map(|answer| answer.status), Some(204));
    assert!(busy.is_closed_at_last());
    let address = server.address;
    server.join();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn late_requests_are_cut_off() {
    let server = TestServer::start(Options { shutdown_deadline: Duration::from_millis(100), ..Options::default() });
    let mut client = server.connect();
    client.send("GET /query?db=dripping&q=SELECT+v+FROM+m&chunked=true HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 200);
    server.ask_to_stop();
    eventually("the query is dropped", || server.seen.dropped_stream_count.load(Ordering::SeqCst) == 1);
    assert!(client.is_closed_at_last());
    server.join();
}
