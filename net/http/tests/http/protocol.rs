use crate::harness::{TestServer, post};
use tidemill_http::Options;

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::start(Options::default());
    let mut client = server.connect();
    let mut requests = post("/write?db=slow", "", "m v=1");
    requests.extend(b"GET /query?db=d&q=SELECT+v+FROM+m HTTP/1.1\r\nHost: x\r\n\r\n");
    requests.extend(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    requests.extend(post("/write?db=d", "", "m v=2"));
    client.send(requests);
    let statuses: Vec<u16> = (0..4).map(|_| client.answer().unwrap().status).collect();
    assert_eq!(statuses, [204, 200, 404, 204]);
    let writes = server.seen.writes.lock().unwrap();
    assert_eq!(writes.iter().map(|write| write.body.clone()).collect::<Vec<_>>(), [b"m v=1", b"m v=2"]);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = TestServer::start(Options::default());
    let mut client = server.connect();
    client.stream.set_nodelay(true).unwrap();
    for byte in post("/write?db=d", "", "m v=1") {
        client.send([byte]);
    }
    assert_eq!(client.answer().unwrap().status, 204);
    assert_eq!(server.seen.writes.lock().unwrap()[0].body, b"m v=1");
}

/// Two readings of one stream of bytes are the root of request smuggling: whatever can be read twice is refused, and
/// nothing behind it is answered.
#[test]
fn ambiguous_framing_is_refused_and_closed() {
    let server = TestServer::start(Options::default());
    let smuggled = "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n";
    let heads = [
        "POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nm v=1",
        "POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nm v=1",
        "POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nm v=1",
        "POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /write?db=d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST /write?db=d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST /write?db=d HTTP/1.1\r\nHost: x\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nm v=1",
        "POST /write?db=d HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        "GET /ping HTTP/9.9\r\nHost: x\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\r\n\r\n",
    ];
    for head in heads {
        let mut client = server.connect();
        client.send(format!("{head}{smuggled}"));
        let answer = client.answer();
        assert_eq!(answer.as_ref().map(|answer| answer.status), Some(400), "{head:?}");
        assert!(client.answer().is_none(), "{head:?} let something through");
    }
    assert!(server.seen.writes.lock().unwrap().is_empty());
}

/// RFC 9112, 6.3: a length beside chunks is overridden by them; the connection must end behind the answer, so that
/// nothing that another reader took for a second request is ever one.
#[test]
fn a_length_beside_chunks_ends_the_connection() {
    let server = TestServer::start(Options::default());
    let mut client = server.connect();
    client.send(
        "POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nm v=1\r\n0\r\n\r\nGET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (204, "close"));
    assert!(client.answer().is_none());
    assert_eq!(server.seen.writes.lock().unwrap()[0].body, b"m v=1");
}

#[test]
fn broken_chunks_are_refused() {
    let server = TestServer::start(Options::default());
    for body in [
        "z\r\nm v=1\r\n0\r\n\r\n",
        "5\r\nm v=1m v=2\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "-5\r\n",
        "5 5\r\nm v=1\r\n0\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.send(format!("POST /write?db=d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        let status = client.answer().map(|answer| answer.status);
        assert!(matches!(status, None | Some(400)), "{body:?} gave {status:?}");
        assert!(client.answer().is_none());
    }
    assert!(server.seen.writes.lock().unwrap().is_empty());
}

#[test]
fn half_a_body_is_not_written() {
    let server = TestServer::start(Options::default());
    let mut client = server.connect();
    client.send("POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nm v=1\n");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.answer().is_none_or(|answer| answer.status == 400));
    assert!(server.seen.writes.lock().unwrap().is_empty());
}

#[test]
fn old_clients_get_their_answer_without_chunks() {
    let server = TestServer::start(Options::default());
    let answer = server.ask("GET /query?db=empty&q=SHOW+DATABASES HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, ""));
    assert!(answer.text().ends_with("{\"results\":[{\"statement_id\":0}]}\n"), "{answer:?}");
}
