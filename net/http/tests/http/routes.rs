use crate::harness::TestServer;
use tidemill_http::Options;

#[test]
fn small_endpoints() {
    let server = TestServer::start(Options::default());
    let ping = server.get("/ping");
    assert_eq!((ping.status, ping.body.len()), (204, 0));
    assert_eq!((ping.header("x-influxdb-version"), ping.header("x-influxdb-build")), ("1.8.10", "OSS"));
    assert_eq!(ping.header("content-type"), "application/json");
    assert_eq!(server.get("/ping?verbose=0").status, 204);
    let verbose = server.get("/ping?verbose=1");
    assert_eq!((verbose.status, verbose.text().as_str()), (200, "{\"version\":\"1.8.10\"}"));
    assert_eq!(server.ask("HEAD /ping HTTP/1.1\r\nHost: x\r\n\r\n").status, 204);
    assert_eq!(server.get("/status").status, 204);
    let health = server.get("/health");
    let expected = "{\"checks\":[],\"message\":\"ready for queries and writes\",\"name\":\"influxdb\",\"status\":\"pass\",\
                    \"version\":\"1.8.10\"}";
    assert_eq!((health.status, health.text().as_str()), (200, expected));
    assert_eq!(server.get("/debug/vars").text(), "{\"system\": {}}");
    let flux = server.post("/api/v2/query", "", "{}");
    assert_eq!(flux.status, 403);
    assert!(flux.text().starts_with("Flux query service disabled."));
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("tidemill_http_requests_total{endpoint=\"ping\",status=\"2xx\"} 5\n"), "{metrics}");
}

#[test]
fn unknown_paths_and_methods() {
    let server = TestServer::start(Options::default());
    for target in ["/", "/ping/", "/querys", "/api/v2/buckets"] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text().as_str()), (404, "404 page not found\n"));
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!((answer.header("request-id"), answer.header("x-influxdb-version")), ("", "1.8.10"));
    }
    let answer = server.ask("DELETE /query HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (405, "Method Not Allowed\n"));
    assert_eq!(answer.header("allow"), "GET, POST, OPTIONS");
    assert_eq!(server.get("/write").status, 405);
    let mut client = server.connect();
    client.send("HEAD /query HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 405);
}

#[test]
fn shared_headers() {
    let options = Options { headers: vec![("X-Own".to_owned(), "yes".to_owned())], ..Options::default() };
    let server = TestServer::start(options);
    let answer = server.get("/ping");
    assert_eq!(answer.header("request-id").len(), 36);
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    assert_eq!((answer.header("x-own"), answer.header("access-control-allow-origin")), ("yes", ""));
    assert!(!answer.header("date").is_empty());
    let answer = server.ask("GET /ping HTTP/1.1\r\nHost: x\r\nRequest-Id: one\r\nX-Request-Id:\r\n\r\n");
    assert_eq!((answer.header("request-id"), answer.header("x-request-id")), ("one", "one"));
    let answer = server.ask("OPTIONS /write HTTP/1.1\r\nHost: x\r\nOrigin: http://o\r\n\r\n");
    assert_eq!((answer.status, answer.body.len(), answer.header("content-type")), (200, 0, ""));
    assert_eq!(answer.header("access-control-allow-origin"), "http://o");
    assert_eq!(answer.header("access-control-allow-methods"), "DELETE, GET, OPTIONS, POST, PUT");
    assert!(answer.header("access-control-allow-headers").starts_with("Accept, Accept-Encoding, Authorization"));
    assert_eq!(answer.header("access-control-expose-headers"), "Date, X-InfluxDB-Version, X-InfluxDB-Build");
}
