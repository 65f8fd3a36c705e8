//! Upstream's server serves a shard whose file this crate wrote, and this crate reads the files that the server wrote.
//!
//! Needs `influxd` (1.6 or later 1.x) in the path:
//! `cargo test -p tidemill-tsm --test upstream_server -- --ignored`

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidemill_column::{FieldType, Value, Values};
use tidemill_tsm::file::{FileBytes, FileWriter};
use tidemill_tsm::statistics::BlockStatistics;
use tidemill_tsm::{BLOCK_POINTS_DEFAULT, block, key};

/// Steps of 100 ms that anything may take.
const PATIENCE: usize = 300;

struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(folder: &Path) -> Server {
        let free_port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, backup_port, root) = (free_port(), free_port(), folder.display());
        let config = format!(
            "reporting-disabled = true\nbind-address = \"127.0.0.1:{backup_port}\"\n[meta]\ndir = \"{root}/meta\"\n[data]\n\
             dir = \"{root}/data\"\nwal-dir = \"{root}/wal\"\nindex-version = \"inmem\"\n\
             cache-snapshot-write-cold-duration = \"1s\"\n[monitor]\nstore-enabled = false\n[http]\n\
             bind-address = \"127.0.0.1:{port}\"\nlog-enabled = false\n"
        );
        std::fs::write(folder.join("influxdb.conf"), config).unwrap();
        let mut command = Command::new("influxd");
        command.args(["run", "-config"]).arg(folder.join("influxdb.conf"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("influxd in the path");
        let server = Server { child, port };
        wait_for("the server", || server.request("GET", "/ping", "").filter(|answer| answer.contains(" 204 ")));
        server
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.0\r\nAccept: application/csv\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn query(&self, statement: &str) -> String {
        let encoded: String = statement.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.request("POST", &format!("/query?db=d&epoch=ns&q={encoded}"), "").unwrap();
        assert!(answer.contains(" 200 OK"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn write(&self, lines: &str) {
        let answer = self.request("POST", "/write?db=d", lines).unwrap();
        assert!(answer.contains(" 204 "), "{answer}");
    }
}

fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE {
        if let Some(done) = poll() {
            return done;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what} did not appear");
}

/// All TSM files below `folder`.
fn tsm_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(tsm_files(&path)),
            path if path.extension().is_some_and(|extension| extension == "tsm") => files.push(path),
            _ => {}
        }
    }
    files
}

const FIRST_TIME: i64 = 1_700_000_000_000_000_000;

/// A field of each type over `times`, sorted by name.
fn fields(times: &[i64]) -> Vec<(&'static str, Values)> {
    let word = |row: usize| (row as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (row % 60);
    let rows = 0..times.len();
    let texts: Vec<String> = rows.clone().map(|row| format!("text {}", word(row) % 9)).collect();
    vec![
        ("b", Values::Boolean(rows.clone().map(|row| word(row) & 1 == 1).collect())),
        ("f", Values::Float(rows.clone().map(|row| (word(row) % 4096) as f64 / 64.0).collect())),
        ("i", Values::Integer(rows.clone().map(|row| word(row).cast_signed()).collect())),
        ("s", Values::String(texts.iter().map(|text| text.as_bytes()).collect())),
        ("u", Values::Unsigned(rows.map(word).collect())),
    ]
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Float(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::String(value) => String::from_utf8(value.to_vec()).unwrap(),
        Value::Unsigned(value) => value.to_string(),
    }
}

fn file_of(times: &[i64], fields: &[(&str, Values)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = FileWriter::begin(&mut out);
    for (field, values) in fields {
        let mut key = Vec::new();
        key::join(b"ours,host=a\\ b", field.as_bytes(), &mut key).unwrap();
        for start in (0..times.len()).step_by(BLOCK_POINTS_DEFAULT) {
            let rows = start..times.len().min(start + BLOCK_POINTS_DEFAULT);
            let mut bytes = Vec::new();
            block::encode(times, values, rows.clone(), &mut bytes).unwrap();
            let statistics = BlockStatistics::of(times, values, rows.clone());
            let (first, last) = (times[rows.start], times[rows.end - 1]);
            writer.push_block(&key, values.field_type(), first, last, &bytes, Some(&statistics), &mut out).unwrap();
        }
    }
    writer.finish(&mut out);
    out
}

#[test]
#[ignore = "needs upstream's influxd in the path"]
fn files_travel_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data/d");
    let times: Vec<i64> = (0..2500).map(|row| FIRST_TIME + row * 1_000_000_000 + row % 7).collect();
    let fields = fields(&times);

    // 1. The server makes the shard, 2. our file joins it, 3. the server rebuilds its index from the keys in it.
    let server = Server::start(folder.path());
    server.query("CREATE DATABASE d WITH DURATION INF SHARD DURATION 520w");
    server.write(&format!("seed v=1 {FIRST_TIME}"));
    let seed = wait_for("the first file", || tsm_files(&data).pop());
    drop(server);
    let joined = seed.with_file_name("000000002-000000001.tsm");
    std::fs::write(&joined, file_of(&times, &fields)).unwrap();
    let _ = std::fs::remove_file(seed.with_file_name("fields.idx"));

    let server = Server::start(folder.path());
    let answer = server.query("SELECT b, f, i, s, u FROM ours");
    let mut lines = answer.lines();
    assert_eq!(lines.next(), Some("name,tags,time,b,f,i,s,u"));
    for (row, time) in times.iter().enumerate() {
        let values: Vec<String> = fields.iter().map(|(_, values)| text_of(&values.value(row))).collect();
        assert_eq!(lines.next(), Some(&*format!("ours,,{time},{}", values.join(","))));
    }

    let mut body = String::new();
    for (row, time) in times.iter().enumerate() {
        let texts: Vec<String> = fields.iter().map(|(_, values)| text_of(&values.value(row))).collect();
        // The unsigned suffix is not in upstream's default build.
        let [b, f, i, s, _] = &texts[..] else { panic!() };
        body += &format!("theirs b={b},f={f},i={i}i,s=\"{s}\" {time}\n");
    }
    server.write(&body);
    let newest =
        wait_for("the next file", || tsm_files(&data).into_iter().find(|path| *path != seed && *path != joined));
    let bytes = std::fs::read(newest).unwrap();
    let file = FileBytes::open(&bytes).unwrap();
    assert!(file.statistics.is_none());
    assert_eq!(file.index.key_count(), 4);
    for (found, (name, values)) in file.index.iter().zip(&fields) {
        assert_eq!(key::split(found.key), Some((&b"theirs"[..], name.as_bytes())));
        assert_ne!(found.field_type, FieldType::Unsigned);
        let (mut read_times, mut read_values) = (Vec::new(), Values::new(found.field_type));
        for entry in found.entries.iter() {
            let start = read_times.len();
            let stored = file.block(&entry).unwrap();
            block::decode(stored, &mut read_times, &mut read_values).unwrap();
            let mut again = Vec::new();
            block::encode(&read_times, &read_values, start..read_times.len(), &mut again).unwrap();
            assert_eq!(again, stored, "our encoder and upstream's choose the same bytes for {name}");
        }
        assert_eq!((&read_times, &read_values), (&times, values));
    }
}
