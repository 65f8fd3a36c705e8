use crate::harness::TestServer;
use flate2::{Compression, write::GzEncoder};
use std::io::Write;
use tidemill_http::{Caller, Consistency, Options};
use tidemill_line::Precision;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const GZIP: &str = "Content-Encoding: gzip\r\n";

#[test]
fn targets_and_bodies_arrive() {
    let server = TestServer::start(Options::default());
    let answer = server.post("/write?db=a%20b&rp=r&precision=ms&consistency=ALL&u=me&p=pw", "", "m v=1\n");
    assert_eq!((answer.status, answer.body.len(), answer.header("content-type")), (204, 0, "application/json"));
    assert_eq!(
        server.post("/api/v2/write?bucket=d/r/x&precision=us", "Authorization: Token u:p\r\n", "m v=2").status,
        204
    );
    assert_eq!(server.post("/write?db=d", GZIP, gzip(b"m v=3")).status, 204);
    let chunked = "POST /write?db=d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4;ext=1\r\nm v=\r\n1\r\n4\r\n0\r\n\r\n";
    assert_eq!(server.ask(chunked).status, 204);
    let writes = server.seen.writes.lock().unwrap();
    let bodies: Vec<&[u8]> = writes.iter().map(|write| write.body.as_slice()).collect();
    assert_eq!(bodies, [&b"m v=1\n"[..], b"m v=2", b"m v=3", b"m v=4"]);
    let target = &writes[0].target;
    assert_eq!((target.database.as_str(), target.retention_policy.as_deref()), ("a b", Some("r")));
    assert_eq!((target.precision, target.consistency), (Precision::Millisecond, Consistency::All));
    assert_eq!(target.caller, Caller::User("me".into()));
    let target = &writes[1].target;
    assert_eq!((target.database.as_str(), target.retention_policy.as_deref()), ("d", Some("r/x")));
    assert_eq!(target.precision, Precision::Microsecond);
}

#[test]
fn faults_have_their_texts() {
    let server = TestServer::start(Options::default());
    let cases = [
        ("/write", 400, "database is required"),
        ("/write?db=d&precision=zz", 400, "invalid precision \\\"zz\\\" (use n, u, ms, s, m or h)"),
        ("/write?db=d&consistency=most", 400, "invalid consistency level"),
        ("/write?db=unknown", 404, "database not found: \\\"unknown\\\""),
        ("/write?db=partial", 400, "partial write: a\\nb dropped=0"),
        ("/write?db=full", 507, "disk full"),
        ("/write?db=lost", 500, "timeout"),
        (
            "/api/v2/write",
            404,
            "bucket name \\\"\\\" is missing a slash; not in \\\"database/retention-policy\\\" format",
        ),
        ("/api/v2/write?bucket=/x", 404, "bucket name \\\"/x\\\" is in db/rp form but has an empty database"),
        ("/api/v2/write?bucket=d&precision=n", 400, "invalid precision \\\"n\\\" (use ns, us, ms or s)"),
    ];
    for (target, status, text) in cases {
        let answer = server.post(target, "", "m v=1");
        assert_eq!((answer.status, answer.text()), (status, format!("{{\"error\":\"{text}\"}}\n")), "{target}");
        let header = text.replace("\\\"", "\"").replace("\\n", " ");
        assert_eq!(answer.header("x-influxdb-error"), header);
        assert_eq!(answer.header("connection"), "", "{target} keeps the connection");
    }
    let overloaded = server.post("/write?db=overloaded", "", "m v=1");
    assert_eq!((overloaded.status, overloaded.header("retry-after")), (503, "7"));
    let refused = server.post("/write?db=secret", "", "m v=1");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Basic realm=\"InfluxDB\""));
    assert_eq!(refused.header("x-influxdb-error"), "");
    let csv = server.post("/write?db=lost", "Accept: text/csv\r\n", "m v=1");
    assert_eq!((csv.text().as_str(), csv.header("content-type")), ("error\ntimeout\n", "text/csv"));
    let pretty = server.post("/write?db=lost&pretty=true", "", "m v=1");
    assert_eq!(pretty.text(), "{\n    \"error\": \"timeout\"\n}\n");
}

#[test]
fn broken_gzip_is_refused() {
    let server = TestServer::start(Options::default());
    let good = gzip(b"m v=1");
    let cases: [(&[u8], &str); 4] = [
        (b"", "EOF"),
        (b"m v=1", "gzip: invalid header"),
        (&good[..good.len() - 3], "unexpected EOF"),
        (&[good.as_slice(), b"x"].concat(), "gzip: invalid header"),
    ];
    for (body, text) in cases {
        let answer = server.post("/write?db=d", GZIP, body);
        assert_eq!((answer.status, answer.text()), (400, format!("{{\"error\":\"{text}\"}}\n")));
    }
    assert!(server.seen.writes.lock().unwrap().is_empty());
    assert_eq!(server.post("/write?db=d", "Content-Encoding: GZIP\r\n", "m v=1").status, 204);
}

#[test]
fn bodies_are_limited_as_sent_and_as_decompressed() {
    let server = TestServer::start(Options { body_bytes_max: 100_000, ..Options::default() });
    let exact = vec![b' '; 100_000];
    let over = vec![b' '; 100_001];
    let chunked = |body: &[u8]| {
        let mut request =
            format!("POST /write?db=d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len())
                .into_bytes();
        request.extend_from_slice(body);
        request.extend_from_slice(b"\r\n0\r\n\r\n");
        request
    };
    assert_eq!(server.post("/write?db=d", "", &exact).status, 204);
    assert_eq!(server.ask(chunked(&exact)).status, 204);
    assert_eq!(server.post("/write?db=d", GZIP, gzip(&exact)).status, 204);
    for answer in [
        server.post("/write?db=d", "", &over),
        server.ask(chunked(&over)),
        server.post("/write?db=d", GZIP, gzip(&over)),
        server.post("/write?db=d", GZIP, gzip(&vec![0; 50 << 20])),
    ] {
        assert_eq!((answer.status, answer.text().as_str()), (413, "{\"error\":\"Request Entity Too Large\"}\n"));
        assert_eq!(answer.header("connection"), "close");
    }
    assert_eq!(server.seen.writes.lock().unwrap().len(), 3);
    // An answer before the body was read reaches a client that sends all of it first.
    let unread = server.post("/write?db=unknown", "", vec![b' '; 1 << 20]);
    assert_eq!((unread.status, unread.header("connection")), (404, "close"));
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on_or_refused() {
    let server = TestServer::start(Options::default());
    let head = |database| {
        format!("POST /write?db={database} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    };
    let mut client = server.connect();
    client.send(head("d"));
    assert_eq!(client.head().unwrap().status, 100);
    client.send("m v=1");
    assert_eq!(client.answer().unwrap().status, 204);
    let mut client = server.connect();
    client.send(head("unknown"));
    assert_eq!(client.answer().unwrap().status, 404);
    assert!(client.is_closed_at_last());
}

#[test]
fn a_caller_who_proves_nothing_is_stopped_before_anything_else_is_looked_at() {
    let server = TestServer::start(Options::default());
    for target in ["/write?db=unknown&u=me&p=wrong", "/write?u=me&p=wrong&precision=zz", "/query?u=me&p=wrong"] {
        let answer = server.post(target, "", "m v=1");
        assert_eq!(answer.status, 401, "{target}");
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"InfluxDB\"");
        assert_eq!(answer.text(), "{\"error\":\"authorization failed\"}\n");
    }
    assert!(server.seen.writes.lock().unwrap().is_empty());
}

#[test]
fn insides_and_pings_ask_for_the_caller_only_where_the_options_say_so() {
    let open = TestServer::start(Options::default());
    for target in ["/debug/vars?u=me&p=wrong", "/ping?u=me&p=wrong", "/metrics?u=me&p=wrong"] {
        assert!(matches!(open.get(target).status, 200 | 204), "{target}");
    }
    let guarded = TestServer::start(Options { ping_auth: true, debug_auth: true, ..Options::default() });
    for target in ["/ping", "/status", "/health", "/metrics", "/debug/vars"] {
        assert_eq!(guarded.get(&format!("{target}?u=me&p=wrong")).status, 401, "{target}");
        assert!(matches!(guarded.get(&format!("{target}?u=root&p=x")).status, 200 | 204), "{target}");
    }
    assert_eq!(guarded.get("/debug/vars?u=me&p=x").status, 403);
    assert_eq!(guarded.get("/ping?u=me&p=x").status, 204);
}
