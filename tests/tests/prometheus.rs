//! Prometheus' remote write and read, by hand-made messages and by Debian's `prometheus`.

use tidemill_perf::http::{Client, Response};
use tidemill_tests::subject;

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn series(labels: &[(&str, &str)], samples: &[(f64, i64)]) -> Vec<u8> {
    let mut message = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        field(&mut label, 1, name.as_bytes());
        field(&mut label, 2, value.as_bytes());
        field(&mut message, 1, &label);
    }
    for (value, time_ms) in samples {
        let mut sample = vec![0x09];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        varint(&mut sample, *time_ms as u64);
        field(&mut message, 2, &sample);
    }
    message
}

/// A ReadRequest of one query.
fn query(start_ms: u64, end_ms: u64, matchers: &[(u64, &str, &str)]) -> Vec<u8> {
    let mut query = vec![0x08];
    varint(&mut query, start_ms);
    query.push(0x10);
    varint(&mut query, end_ms);
    for (kind, name, value) in matchers {
        let mut matcher = vec![0x08];
        varint(&mut matcher, *kind);
        field(&mut matcher, 2, name.as_bytes());
        field(&mut matcher, 3, value.as_bytes());
        field(&mut query, 3, &matcher);
    }
    let mut request = Vec::new();
    field(&mut request, 1, &query);
    request
}

fn post(client: &mut Client, path: &str, message: &[u8]) -> Response {
    let packed = snap::raw::Encoder::new().compress_vec(message).unwrap();
    client.request("POST", &format!("/api/v1/prom/{path}"), &[], &packed).unwrap()
}

fn read(client: &mut Client, request: &[u8]) -> Vec<u8> {
    let answer = post(client, "read?db=d", request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(answer.header("content-encoding"), Some("snappy"));
    snap::raw::Decoder::new().decompress_vec(&answer.body).unwrap()
}

/// A ReadResponse of these series.
fn response(all: &[Vec<u8>]) -> Vec<u8> {
    let mut result = Vec::new();
    all.iter().for_each(|series| field(&mut result, 1, series));
    let mut response = Vec::new();
    field(&mut response, 1, &result);
    response
}

#[test]
fn samples_are_written_and_read_back() {
    if subject::skip_for_upstream("1.6.7 names measurement and tags of samples otherwise") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    subject::query(&mut client, "CREATE DATABASE d", "").unwrap();
    let up_a = ([("__name__", "up"), ("host", "a b")], [(1.5, 1_000), (2.0, 2_000)]);
    let up_b = ([("__name__", "up"), ("host", "c")], [(f64::NAN, 1_000), (4.0, 3_000)]);
    let down = ([("__name__", "down"), ("host", "c")], [(7.0, 1_000), (8.0, 9_000)]);
    let mut message = Vec::new();
    for (labels, samples) in [up_a, up_b, down] {
        field(&mut message, 1, &series(&labels, &samples));
    }
    let answer = post(&mut client, "write?db=d", &message);
    assert_eq!((answer.status, answer.text().as_str()), (204, ""));
    let rows = subject::query(&mut client, "SELECT * FROM up", "db=d&epoch=ms").unwrap();
    let expected = r#""columns":["time","__name__","host","value"],"values":[[1000,"up","a b",1.5],[2000,"up","a b",2],[3000,"up","c",4]]"#;
    assert!(rows.contains(expected), "{rows}");

    let all_up = response(&[series(&up_a.0, &up_a.1), series(&up_b.0, &up_b.1[1..])]);
    assert_eq!(read(&mut client, &query(0, 5_000, &[(0, "__name__", "up")])), all_up);
    let only_a = response(&[series(&up_a.0, &up_a.1[1..])]);
    assert_eq!(read(&mut client, &query(1_001, 5_000, &[(2, "__name__", "u."), (3, "host", "c|d")])), only_a);
    let only_down = response(&[series(&down.0, &down.1[..1])]);
    assert_eq!(read(&mut client, &query(0, 8_999, &[(1, "__name__", "up"), (1, "host", "x")])), only_down);
    assert_eq!(read(&mut client, &query(0, 5_000, &[(0, "__name__", "nothing")])), response(&[]));

    for (path, message, status, text) in [
        ("write?db=nope", &message[..], 404, "database not found: \\\"nope\\\""),
        ("write", &message[..], 400, "database is required"),
        ("write?db=d", &message[..20], 400, "unexpected EOF"),
        ("read?db=d", &query(0, 1, &[])[..], 400, "expected matcher"),
        ("read?db=d", b"", 400, "Prometheus read endpoint currently only supports one query at a time"),
        ("read", b"", 400, "database is required"),
    ] {
        let answer = post(&mut client, path, message);
        assert_eq!((answer.status, answer.text().contains(text)), (status, true), "{path}: {}", answer.text());
    }
    for path in ["write?db=d", "read?db=d"] {
        let answer = client.request("POST", &format!("/api/v1/prom/{path}"), &[], b"\xff\xff\xff").unwrap();
        assert_eq!((answer.status, answer.text().contains("snappy: corrupt input")), (400, true));
    }
    subject::stop(server);
}

/// Ends a process with its owner.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn debians_prometheus_writes_its_samples_and_reads_what_others_wrote() {
    let binary = std::path::Path::new("/usr/bin/prometheus");
    if !binary.exists() {
        return subject::skip("/usr/bin/prometheus is missing (apt-get install prometheus)");
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    subject::query(&mut client, "CREATE DATABASE prom", "").unwrap();
    let own = format!("127.0.0.1:{}", tidemill_perf::server::free_port().unwrap());
    let config = home.path().join("prometheus.yml");
    let remote = server.address();
    let text = format!(
        "global:\n  scrape_interval: 1s\nremote_write:\n  - url: http://{remote}/api/v1/prom/write?db=prom\n\
         remote_read:\n  - url: http://{remote}/api/v1/prom/read?db=prom\n    read_recent: true\n\
         scrape_configs:\n  - job_name: self\n    static_configs:\n      - targets: ['{own}']\n"
    );
    std::fs::write(&config, text).unwrap();
    let log = std::fs::File::create(home.path().join("prometheus.log")).unwrap();
    let command = std::process::Command::new(binary)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", home.path().join("prometheus").display()))
        .arg(format!("--web.listen-address={own}"))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    let running = Running(command.unwrap());
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let line = format!("elsewhere,__name__=elsewhere,job=other value=42 {now_s}");
    subject::write(&mut client, "db=prom&precision=s", &line).unwrap();
    let mut prometheus = Client::new(own).with_timeout(std::time::Duration::from_secs(30));
    let begun = std::time::Instant::now();
    loop {
        let written = subject::query(&mut client, "SELECT last(value) FROM up WHERE job = 'self'", "db=prom").unwrap();
        let read = prometheus.get(&format!("/api/v1/query?query=elsewhere&time={}", now_s + 1));
        let read = read.map(|answer| answer.text()).unwrap_or_default();
        if written.contains("\"values\"") && read.contains("\"42\"") {
            assert!(read.contains(r#""__name__":"elsewhere""#) && read.contains(r#""job":"other""#), "{read}");
            break;
        }
        let told = || std::fs::read_to_string(home.path().join("prometheus.log")).unwrap_or_default();
        assert!(begun.elapsed().as_secs() < 120, "written: {written}\nread: {read}\n{}", told());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    drop(running);
    let series = subject::query(&mut client, "SHOW SERIES CARDINALITY", "db=prom").unwrap();
    assert!(!series.contains("[[0]]"), "{series}");
    subject::stop(server);
}
