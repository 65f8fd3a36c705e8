//! What clients see around the answers: headers, compression, health, metrics, other ways to send a statement.

use std::io::{Read, Write};
use tidemill_perf::http::Client;
use tidemill_tests::subject;

fn with_data(client: &mut Client) {
    subject::query(client, "CREATE DATABASE d", "").unwrap();
    subject::write(client, "db=d&precision=s", "n v=1 1\nn v=2 2").unwrap();
}

#[test]
fn ping_and_health_say_who_answers() {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    let ping = client.get("/ping").unwrap();
    assert_eq!((ping.status, ping.header("x-influxdb-build")), (204, Some("OSS")));
    let version = ping.header("x-influxdb-version").unwrap_or_default().to_owned();
    assert!(!version.is_empty());
    if !subject::skip_for_upstream("1.6.7 has no verbose ping and no /health") {
        assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{version}");
        let verbose = client.get("/ping?verbose=true").unwrap();
        assert_eq!((verbose.status, verbose.text()), (200, format!("{{\"version\":\"{version}\"}}")));
        for quiet in ["/ping?verbose=0", "/ping?verbose=false", "/ping?verbose="] {
            assert_eq!(client.get(quiet).unwrap().status, 204, "{quiet}");
        }
        let health = client.get("/health").unwrap();
        let value: serde_json::Value = serde_json::from_str(&health.text()).unwrap();
        assert_eq!((health.status, &value["status"], &value["name"]), (200, &"pass".into(), &"influxdb".into()));
    }
    subject::stop(server);
}

#[test]
fn a_request_id_comes_back() {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    let own = client.request("GET", "/ping", &[("X-Request-Id", "abc-1")], b"").unwrap();
    assert_eq!((own.header("x-request-id"), own.header("request-id")), (Some("abc-1"), Some("abc-1")));
    let fresh = client.get("/ping").unwrap();
    assert_eq!(fresh.header("request-id").map(str::len), Some(36));
    assert_eq!(fresh.header("request-id"), fresh.header("x-request-id"));
    subject::stop(server);
}

#[test]
fn answers_are_compressed_on_request_and_bodies_are_unpacked() {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    with_data(&mut client);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(b"n v=3 3\nn v=4 4\n").unwrap();
    let packed = packed.finish().unwrap();
    let written = client.request("POST", "/write?db=d&precision=s", &[("Content-Encoding", "gzip")], &packed).unwrap();
    assert_eq!((written.status, written.text().as_str()), (204, ""));
    let target = "/query?db=d&epoch=s&q=SELECT%20sum(v)%20FROM%20n";
    let plain = client.get(target).unwrap().text();
    assert!(plain.contains("[[0,10]]"), "{plain}");
    let answer = client.request("GET", target, &[("Accept-Encoding", "gzip")], b"").unwrap();
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(&answer.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, plain);
    for (name, body) in [("cut", &packed[..packed.len() / 2]), ("not gzip", &b"n v=5 5"[..])] {
        let answer = client.request("POST", "/write?db=d", &[("Content-Encoding", "gzip")], body).unwrap();
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
    }
    assert_eq!(client.get(target).unwrap().text(), plain, "a broken body stores nothing");
    subject::stop(server);
}

#[test]
fn a_statement_may_come_by_url_or_form_and_the_form_wins() {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    with_data(&mut client);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let target = "/query?db=nope&epoch=s&q=SHOW%20DATABASES";
    let body = b"db=d&q=SELECT+count(v)+FROM+n";
    let answer = client.request("POST", target, &form, body).unwrap();
    assert!(answer.text().contains(r#""columns":["time","count"],"values":[[0,2]]"#), "{}", answer.text());
    subject::stop(server);
}

#[test]
fn metrics_and_variables_are_served() {
    if subject::skip_for_upstream("1.6.7 has metrics of the Go runtime only") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    with_data(&mut client);
    let metrics = client.get("/metrics").unwrap();
    assert_eq!(metrics.status, 200);
    let text = metrics.text();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "not a Prometheus sample: {line}");
    }
    assert!(text.contains("rows"), "{text}");
    let variables = client.get("/debug/vars").unwrap();
    assert_eq!(variables.status, 200);
    let value: serde_json::Value = serde_json::from_str(&variables.text()).unwrap();
    assert!(value.is_object());
    subject::stop(server);
}
