use crate::harness::{TestServer, eventually};
use flate2::read::GzDecoder;
use std::io::Read;
use std::sync::atomic::Ordering;
use tidemill_http::Options;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const ROWS: &str =
    "[\"1970-01-01T00:00:00Z\",0],[\"1970-01-01T00:00:00.000000001Z\",0.5],[\"1970-01-01T00:00:00.000000002Z\",1]";

#[test]
fn answers_in_all_formats() {
    let server = TestServer::start(Options::default());
    let answer = server.get("/query?db=d&q=SELECT%20v%20FROM%20m");
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, "chunked"));
    assert_eq!(answer.header("content-type"), "application/json");
    let series =
        format!("{{\"name\":\"m\",\"tags\":{{\"host\":\"a\"}},\"columns\":[\"time\",\"v\"],\"values\":[{ROWS}]}}");
    assert_eq!(answer.text(), format!("{{\"results\":[{{\"statement_id\":0,\"series\":[{series}]}}]}}\n"));
    let epoch = server.get("/query?db=d&q=SELECT%20v%20FROM%20m&epoch=ns").text();
    assert!(epoch.contains("[[0,0],[1,0.5],[2,1]]"), "{epoch}");
    let pretty = server.get("/query?db=empty&q=SHOW%20DATABASES&pretty=true").text();
    assert_eq!(pretty, "{\n    \"results\": [\n        {\n            \"statement_id\": 0\n        }\n    ]\n}\n");
    let request = |accept: &str| {
        server.ask(format!("GET /query?db=d&q=SELECT+v+FROM+m HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n"))
    };
    let csv = request("text/csv");
    assert_eq!(
        (csv.header("content-type"), csv.text().as_str()),
        ("text/csv", "name,tags,time,v\nm,host=a,0,0\nm,host=a,1,0.5\nm,host=a,2,1\n")
    );
    let packed = request("application/x-msgpack");
    assert_eq!(packed.header("content-type"), "application/x-msgpack");
    assert!(packed.body.starts_with(b"\x81\xa7results"));
    let chunked = server.get("/query?db=d&q=SELECT+v+FROM+m%3BSELECT+v+FROM+m&chunked=true&chunk_size=2").text();
    assert_eq!(chunked.lines().count(), 4);
    assert!(chunked.lines().next().unwrap().ends_with("],\"partial\":true}],\"partial\":true}]}"), "{chunked}");
}

#[test]
fn parameters_come_from_url_and_forms() {
    let server = TestServer::start(Options::default());
    assert_eq!(server.post("/query?db=url&q=x", FORM, "q=SHOW+DATABASES&db=form&rp=r").status, 200);
    let multipart =
        "--b\r\nContent-Disposition: form-data; name=\"q\"; filename=\"f\"\r\n\r\nSHOW DATABASES\r\n--b--\r\n";
    assert_eq!(
        server.post("/query?db=two", "Content-Type: multipart/form-data; boundary=b\r\n", multipart).status,
        200
    );
    let bound = "/query?q=SELECT+v+FROM+m+WHERE+host%3D%24h&params=%7B%22h%22%3A%22x%22%7D";
    assert_eq!(server.get(bound).status, 200);
    let queries = server.seen.queries.lock().unwrap();
    assert_eq!((queries[0].database.as_str(), queries[0].retention_policy.as_deref()), ("form", Some("r")));
    assert_eq!((queries[1].database.as_str(), queries[1].read_only, queries[2].read_only), ("two", false, true));
    assert_eq!(queries[2].query.statements[0].to_string(), "SELECT v FROM m WHERE host = 'x'");
}

#[test]
fn faults_have_their_texts() {
    let server = TestServer::start(Options::default());
    let cases = [
        ("/query", 400, "missing required parameter \\\"q\\\""),
        ("/query?q=%20%20", 400, "missing required parameter \\\"q\\\""),
        ("/query?q=SELECT+v+FROM+m+WHERE+h%3D%24h", 400, "error parsing query: missing parameter: h"),
        ("/query?db=refused&q=SHOW+DATABASES", 403, "no"),
    ];
    for (target, status, text) in cases {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text()), (status, format!("{{\"error\":\"{text}\"}}\n")), "{target}");
        assert!(!answer.headers.contains_key("transfer-encoding"));
    }
    let syntax = server.get("/query?q=SELEC");
    assert!(syntax.status == 400 && syntax.text().starts_with("{\"error\":\"error parsing query: found SELEC"));
    assert_eq!(server.post("/query", "Content-Type: application/vnd.influxql\r\n", "SHOW DATABASES").status, 400);
    for bad in ["%5B1%5D", "x", "%7B%22a%22"] {
        let answer = server.get(&format!("/query?q=SHOW+DATABASES&params={bad}"));
        assert!(answer.status == 400 && answer.text().starts_with("{\"error\":\"error parsing query parameters: "));
    }
    let failed = server.get("/query?db=failing&q=SHOW+DATABASES%3BSHOW+DATABASES");
    let expected = "{\"results\":[{\"statement_id\":0,\"error\":\"it failed\"},{\"statement_id\":1,\"error\":\"not executed\"}]}\n";
    assert_eq!((failed.status, failed.text().as_str()), (200, expected));
    assert_eq!(server.get("/query?q=%3B").text(), "{}\n");
}

#[test]
fn a_get_that_changes_something_is_warned() {
    let server = TestServer::start(Options::default());
    let text = server.get("/query?db=empty&q=CREATE+DATABASE+%22a%22").text();
    let expected = "\"messages\":[{\"level\":\"warning\",\"text\":\"deprecated use of 'CREATE DATABASE a' in a read only context, \
                    please use a POST request instead\"}]";
    assert!(text.contains(expected), "{text}");
    assert!(!server.post("/query?db=empty", FORM, "q=CREATE+DATABASE+a").text().contains("messages"));
    assert!(!server.get("/query?db=empty&q=DELETE+FROM+m").text().contains("messages"));
    assert!(server.get("/query?db=empty&q=SELECT+v+INTO+n+FROM+m").text().contains("messages"));
}

#[test]
fn large_answers_stream_and_compress() {
    let server = TestServer::start(Options::default());
    let plain = server.get("/query?db=large&q=SELECT+v+FROM+m&epoch=ns");
    let document: serde_json::Value = serde_json::from_slice(&plain.body).unwrap();
    assert_eq!(document["results"][0]["series"][0]["values"].as_array().unwrap().len(), 1_000_000);
    let request = "GET /query?db=large&q=SELECT+v+FROM+m&epoch=ns HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n";
    let packed = server.ask(request);
    assert_eq!(packed.header("content-encoding"), "gzip");
    let mut unpacked = Vec::new();
    GzDecoder::new(packed.body.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    let error = server.ask("GET /query HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!((error.status, error.header("content-encoding")), (400, ""));
}

#[test]
fn chunks_can_be_read_as_they_come() {
    let server = TestServer::start(Options::default());
    for encoding in ["", "Accept-Encoding: gzip\r\n"] {
        let mut client = server.connect();
        client.send(format!(
            "GET /query?db=dripping&q=SELECT+v+FROM+m&chunked=true&chunk_size=10 HTTP/1.1\r\nHost: x\r\n{encoding}\r\n"
        ));
        assert_eq!(client.head().unwrap().status, 200);
        let first = client.chunk().unwrap();
        let text = match encoding {
            "" => first,
            _ => {
                let mut text = vec![0; 12];
                GzDecoder::new(first.as_slice()).read_exact(&mut text).unwrap();
                text
            }
        };
        assert!(text.starts_with(b"{\"results\":["));
    }
}

#[test]
fn a_client_that_does_not_read_holds_the_query_back() {
    let server = TestServer::start(Options::default());
    let mut client = server.connect();
    client.send("GET /query?db=endless&q=SELECT+v+FROM+m HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 200);
    let mut last = usize::MAX;
    while last != server.seen.piece_count.load(Ordering::SeqCst) {
        last = server.seen.piece_count.load(Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    // Socket buffers of a few MB at some 20 bytes a row.
    assert!(last < 2000, "{last} pieces of 1000 rows");
    assert_eq!(server.seen.dropped_stream_count.load(Ordering::SeqCst), 0);
    drop(client);
    eventually("the query is dropped", || server.seen.dropped_stream_count.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_client_that_goes_away_ends_its_query() {
    let server = TestServer::start(Options::default());
    let mut client = server.connect();
    // Nothing is sent while the query runs, so only the end of the client's stream can tell.
    client.send("GET /query?db=dripping&q=SELECT+v+FROM+m HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually("it runs", || server.seen.piece_count.load(Ordering::SeqCst) > 2);
    drop(client);
    eventually("the query is dropped", || server.seen.dropped_stream_count.load(Ordering::SeqCst) == 1);
    let pieces = server.seen.piece_count.load(Ordering::SeqCst);
    assert!(pieces < 200, "{pieces}");
}

#[test]
fn asynchronous_queries_run_to_their_end() {
    let server = TestServer::start(Options::default());
    let answer = server.get("/query?db=large&q=SELECT+v+FROM+m&async=true");
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    eventually("it has run", || server.seen.dropped_stream_count.load(Ordering::SeqCst) == 1);
    assert_eq!(server.seen.piece_count.load(Ordering::SeqCst), 1002);
}
