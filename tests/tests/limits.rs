//! Bounds: bodies too large, compressed bombs, half-sent and malformed requests, statements that would cost too much,
//! a full disk.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tidemill_perf::devices::DeviceSpec;
use tidemill_perf::http::Client;
use tidemill_perf::process;
use tidemill_perf::server::{Kind, Server};
use tidemill_perf::verify::{self, Obligation};
use tidemill_tests::small_disk::SmallDisk;
use tidemill_tests::subject::{self, count, with_database};

/// Upstream's default limit of a request body.
const BODY_BYTES_MAX: usize = 25_000_000;

/// Sends bytes as they are and reads what comes until the server closes or is silent for a while.
fn raw(server: &Server, bytes: &[u8]) -> String {
    raw_and_end(server, bytes).0
}

/// Also whether the server closed the connection.
fn raw_and_end(server: &Server, bytes: &[u8]) -> (String, bool) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The server may answer and close before it read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let closed = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break true,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) => break error.kind() == ErrorKind::ConnectionReset,
        }
        if answer.windows(4).any(|window| window == b"\r\n\r\n") && answer.len() < buffer.len() {
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        }
    };
    (String::from_utf8_lossy(&answer).into_owned(), closed)
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[test]
fn a_body_over_the_limit_is_refused_and_the_server_goes_on() {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = with_database(&server);
    let body = b"m v=1 1\n".repeat(BODY_BYTES_MAX / 8 + 1);
    let answer = client.write("db=d", &body).unwrap();
    assert_eq!((answer.status, answer.text().trim()), (413, r#"{"error":"Request Entity Too Large"}"#));
    let chunk = b"m v=1 1\n".repeat(1 << 17);
    let mut request = b"POST /write?db=d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..BODY_BYTES_MAX / chunk.len() + 1 {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(&chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let answer = raw(&server, &request);
    // A server that closes while bytes are still coming may lose its own answer on the way (a reset).
    assert!(answer.is_empty() || status(&answer) == 413, "{answer}");
    assert_eq!(count(&mut client, "m"), 0, "nothing of a refused body is stored");
    subject::write(&mut client, "db=d", "m v=1 1").unwrap();
    assert_eq!(count(&mut client, "m"), 1);
    subject::stop(server);
}

#[test]
fn a_compressed_bomb_is_refused_while_it_is_read() {
    if subject::skip_for_upstream("upstream unpacks without a limit") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = with_database(&server);
    let mut bombs = Vec::new();
    for fill in [&b"m v=1 1\n"[..], b"\n", b"mmmmmmmm"] {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let block = fill.repeat((1 << 20) / fill.len());
        for _ in 0..400 {
            encoder.write_all(&block).unwrap();
        }
        bombs.push(encoder.finish().unwrap());
    }
    // Many members, each below the limit, and one whose trailer claims to be small.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b'\n'; 10 << 20]).unwrap();
    bombs.push(encoder.finish().unwrap().repeat(40));
    let mut lying = bombs[1].clone();
    let end = lying.len();
    lying[end - 4..].copy_from_slice(&[1, 0, 0, 0]);
    bombs.push(lying);
    let before = process::rss_bytes(server.pid()).unwrap();
    for bomb in &bombs {
        let answer = client.request("POST", "/write?db=d", &[("Content-Encoding", "gzip")], bomb).unwrap();
        assert_eq!(answer.status, 413, "{}", answer.text());
    }
    let grown = process::peak_rss_bytes(server.pid()).unwrap().saturating_sub(before);
    assert!(grown < 4 * BODY_BYTES_MAX as u64, "the server grew by {grown} bytes");
    assert_eq!(count(&mut client, "m"), 0);
    subject::write(&mut client, "db=d", "m v=1 1").unwrap();
    subject::stop(server);
}

#[test]
fn half_sent_requests_store_nothing_and_block_nobody() {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = with_database(&server);
    let whole = b"POST /write?db=d HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\nm v=1 1\nm v=2 2\n";
    let mut open = Vec::new();
    for cut in 0..whole.len() {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(&whole[..cut]).unwrap();
        // One half is closed at once, the other half stays open while others are served.
        if cut % 2 == 0 {
            open.push(stream);
        }
    }
    let chunked = b"POST /write?db=d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nm v=1 1\n\r\n";
    for cut in [chunked.len(), chunked.len() - 4] {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(&chunked[..cut]).unwrap();
        open.push(stream);
    }
    assert_eq!(count(&mut client, "m"), 0);
    subject::write(&mut client, "db=d", "good v=1 1").unwrap();
    drop(open);
    assert_eq!(count(&mut client, "good"), 1);
    assert_eq!(count(&mut client, "m"), 0, "half a body was stored");
    subject::stop(server);
}

#[test]
fn many_idle_connections_do_not_keep_others_out() {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = with_database(&server);
    let idle: Vec<TcpStream> = (0..300)
        .map(|index| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            if index % 2 == 0 {
                stream.write_all(b"POST /write?db=d HT").unwrap();
            }
            stream
        })
        .collect();
    for time in 0..50 {
        subject::write(&mut Client::new(server.address()), "db=d", &format!("m v=1 {time}")).unwrap();
    }
    assert_eq!(count(&mut client, "m"), 50);
    drop(idle);
    subject::stop(server);
}

#[test]
fn malformed_and_ambiguous_requests_are_refused() {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = with_database(&server);
    let write = "POST /write?db=d HTTP/1.1\r\nHost: x\r\n";
    let smuggled = "m v=1 1\n";
    let mut requests = vec![
        "\r\n\r\n\r\n\r\nnonsense\r\n\r\n".to_owned(),
        "GET /ping HTTP/9.9\r\nHost: x\r\n\r\n".to_owned(),
        format!("{write}Content-Length: x\r\n\r\n{smuggled}"),
        format!("{write}Content-Length: -8\r\n\r\n{smuggled}"),
        format!("{write}Content-Length: 8\r\nContent-Length: 9\r\n\r\n{smuggled}"),
        format!("{write}Transfer-Encoding: chunked\r\n\r\nzz\r\n{smuggled}\r\n0\r\n\r\n"),
        format!("{write}Transfer-Encoding: nonsense\r\n\r\n{smuggled}"),
        format!("{write}Bad Header: x\r\nContent-Length: 8\r\n\r\n{smuggled}"),
    ];
    if subject::kind() == Kind::Tidemill {
        requests.extend([
            format!("{write}X: {}\r\nContent-Length: 8\r\n\r\n{smuggled}", "a".repeat(1 << 20)),
            format!("{write}{}Content-Length: 8\r\n\r\n{smuggled}", "X: a\r\n".repeat(5000)),
        ]);
    }
    for request in &requests {
        let answer = raw(&server, request.as_bytes());
        let code = status(&answer);
        let told: String = request.chars().take(160).collect();
        assert!(answer.is_empty() || (400..600).contains(&code), "{told:?} is answered with {answer}");
    }
    assert_eq!(count(&mut client, "m"), 0, "a refused request was stored");
    subject::write(&mut client, "db=d", "m v=1 1").unwrap();
    subject::stop(server);
}

/// RFC 9112 6.3 lets a server read such a request by its chunks, if it closes the connection then, or refuse it. What
/// another reader of the same bytes would take for a second request must not be executed.
#[test]
fn a_request_of_two_lengths_is_the_last_of_its_connection() {
    if subject::skip_for_upstream("it may go on after such a request") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = with_database(&server);
    let write = "POST /write?db=d HTTP/1.1\r\nHost: x\r\n";
    let behind = format!("{write}Content-Length: 13\r\n\r\nbehind v=1 1\n");
    for lengths in [
        "Content-Length: 8\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 8\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ] {
        for body in ["8\r\nm v=1 1\n\r\n0\r\n\r\n", "0\r\n\r\n"] {
            let (answer, closed) = raw_and_end(&server, format!("{write}{lengths}\r\n{body}{behind}").as_bytes());
            assert!(answer.is_empty() || matches!(status(&answer), 204 | 400), "{lengths:?} is answered with {answer}");
            assert!(closed, "{lengths:?} leaves the connection open after {answer}");
        }
    }
    assert!(count(&mut client, "m") <= 1);
    assert_eq!(count(&mut client, "behind"), 0, "what came behind was executed");
    subject::stop(server);
}

#[test]
fn bodies_of_random_bytes_break_nothing() {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = with_database(&server);
    let mut random = tidemill_perf::random::Sequence::new(5);
    let alphabet = b"m,=\\\" \n#v1i.t\t\r\0\xff-eE";
    for _ in 0..300 {
        let length = random.below(400) as usize;
        let body: Vec<u8> = (0..length)
            .map(|_| if random.chance(0.1) { random.next_u64() as u8 } else { *random.pick(alphabet) })
            .collect();
        let answer = client.write("db=d", &body).unwrap();
        // Upstream calls some of these its own fault.
        let expected = matches!(answer.status, 204 | 400) || subject::kind() == Kind::Influxd && answer.status == 500;
        assert!(expected, "{} for {body:?}: {}", answer.status, answer.text());
    }
    subject::write(&mut client, "db=d", "fine v=1 1").unwrap();
    assert_eq!(count(&mut client, "fine"), 1);
    subject::stop(server);
}

#[test]
fn names_are_never_paths() {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    for name in ["..", ".", "../x", "a/b", "a\\b", "", &"n".repeat(300)] {
        let statement = format!("CREATE DATABASE \"{}\"", name.replace('\\', "\\\\"));
        let answer = client.query(&statement, "").unwrap();
        assert!(answer.text().contains("\"error\""), "{statement}: {}", answer.text());
    }
    subject::query(&mut client, "CREATE DATABASE d", "").unwrap();
    let lines = "../../x v=1 1\n/etc/y v=1 1\n.. v=1 1\nm,t=../../z v=1 1\n";
    subject::write(&mut client, "db=d", lines).unwrap();
    for measurement in ["\"../../x\"", "\"/etc/y\"", "\"..\"", "m"] {
        assert_eq!(count(&mut client, measurement), 1, "{measurement}");
    }
    subject::stop(server);
    assert!(!home.path().join("x").exists() && !std::path::Path::new("/etc/y").exists());
}

#[test]
fn statements_that_cost_too_much_are_refused_or_answered() {
    if subject::skip_for_upstream("deep nesting ends upstream's process") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = with_database(&server);
    subject::write(&mut client, "db=d", "m,t=a v=1 1").unwrap();
    let deep = format!("SELECT v FROM m WHERE {}v > 0{}", "(".repeat(10_000), ")".repeat(10_000));
    let minus = format!("SELECT {}v FROM m", "-".repeat(10_001));
    let subqueries = format!("SELECT v FROM {}m{}", "(SELECT v FROM ".repeat(5000), ")".repeat(5000));
    let or = format!("SELECT v FROM m WHERE {}", vec!["t = 'a'"; 50_000].join(" OR "));
    let regex = format!("SELECT v FROM m WHERE t =~ /(a{{1,1000}}){{1,1000}}{}/", "(a*)*".repeat(50));
    let windows = "SELECT count(v) FROM m WHERE time >= 0 AND time < 1000000000s GROUP BY time(1ns)".to_owned();
    for statement in [&deep, &minus, &subqueries, &or, &regex, &windows] {
        let told: String = statement.chars().take(80).collect();
        // The windows statement has 10^18 rows: the client reads a part of whatever comes and goes away.
        let mut visitor = subject::client(&server);
        let mut answer = visitor.open_query(statement, "db=d&chunked=true").unwrap_or_else(|e| panic!("{told}: {e}"));
        assert!(matches!(answer.status, 200 | 400 | 413), "{told}: {}", answer.status);
        let mut piece = vec![0; 1 << 20];
        let _ = answer.read(&mut piece).unwrap();
        drop(answer);
        assert_eq!(count(&mut client, "m"), 1, "after {told}");
    }
    let rss = process::peak_rss_bytes(server.pid()).unwrap();
    assert!(rss < 1 << 30, "peak RSS {rss}");
    subject::stop(server);
}

/// Size of the disk that is filled; the server's own log segments (some 64 MiB each on each core) must fit.
const DISK_MEBIBYTES: u64 = 1024;
/// Rows in one request of the full-disk scenario.
const BATCH_ROWS: u64 = 200;
/// Strings beside the rows of a request, which use up the space.
const PADS: u64 = 64;
const PAD_BYTES: usize = 4096;
/// Requests after which the disk must be full: together they carry more than the disk holds.
const BATCHES_MAX: u64 = DISK_MEBIBYTES * (1 << 20) / (PADS * PAD_BYTES as u64);

#[test]
fn a_full_disk_refuses_writes_answers_reads_and_recovers() {
    if subject::skip_for_upstream("upstream stays wedged until it is started again") {
        return;
    }
    let disk = match SmallDisk::mount(DISK_MEBIBYTES) {
        Ok(disk) => disk,
        Err(error) => return subject::skip(&format!("no small file system can be mounted: {error}")),
    };
    let home = subject::Home::new();
    let mut setup = home.setup();
    setup.data = disk.path().join("data");
    let server = subject::start(setup.clone());
    load_create(&server);
    let spec = DeviceSpec { devices: 100, files: 100, rows_per_device: 10_000, seed: 21 };
    let mut owed = Obligation::none(&spec);
    let mut next = 0;
    let mut client = subject::client(&server);
    for _ in 0..20 {
        assert_eq!(send(&mut client, &spec, &mut next, &mut owed), 204);
    }
    disk.fill().unwrap();
    // Segments that exist already may take some more; then the space ends.
    let mut refused = 0;
    for _ in 0..BATCHES_MAX {
        let status = send(&mut client, &spec, &mut next, &mut owed);
        match status {
            204 => {}
            503 | 507 => {
                refused += 1;
                if refused == 5 {
                    break;
                }
            }
            other => panic!("status {other} on a full disk"),
        }
    }
    assert_eq!(refused, 5, "the disk never was full after {next} rows");
    let (_, verdict) = verify::obligations(&mut subject::client(&server), "d", spec, &owed).unwrap();
    assert!(verdict.is_right(), "reads on a full disk: {:#?}", verdict.findings);
    disk.free().unwrap();
    let mut status = 0;
    for _ in 0..300 {
        status = send(&mut client, &spec, &mut next, &mut owed);
        if status == 204 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(status, 204, "writes do not go on although there is space again");
    // What waited for the disk is still on its way to files, so a write may be asked to come back.
    let mut taken = 0;
    for _ in 0..300 {
        match send(&mut client, &spec, &mut next, &mut owed) {
            204 => taken += 1,
            503 | 507 => std::thread::sleep(Duration::from_millis(100)),
            other => panic!("status {other} although there is space again"),
        }
        if taken == 20 {
            break;
        }
    }
    assert_eq!(taken, 20, "writes are refused although there is space again");
    let (_, verdict) = verify::obligations(&mut subject::client(&server), "d", spec, &owed).unwrap();
    assert!(verdict.is_right(), "after the space came back: {:#?}", verdict.findings);
    subject::stop(server);
    let server = subject::start(setup);
    let (_, verdict) = verify::obligations(&mut subject::client(&server), "d", spec, &owed).unwrap();
    assert!(verdict.is_right(), "after a restart: {:#?}", verdict.findings);
    subject::stop(server);
}

fn load_create(server: &Server) {
    tidemill_perf::load::create_database(&server.address(), "d", 1).unwrap();
}

/// Sends the next rows of the set and books what the answer says of them.
fn send(client: &mut Client, spec: &DeviceSpec, next: &mut u64, owed: &mut Obligation) -> u16 {
    use tidemill_perf::acknowledgement::Outcome;
    let rows = *next..(*next + BATCH_ROWS).min(spec.rows());
    assert!(!rows.is_empty(), "the set is too small for the scenario");
    let mut body = Vec::new();
    for row in rows.clone() {
        let device = spec.device(row / spec.rows_per_device + 1);
        device.push_line(&device.row(row % spec.rows_per_device), &mut body);
    }
    let mut random = tidemill_perf::random::Sequence::new(*next);
    for pad in 0..PADS {
        body.extend_from_slice(format!("pad,n={pad} s=\"").as_bytes());
        body.extend((0..PAD_BYTES).map(|_| b'0' + random.below(64) as u8).map(|b| if b == b'\\' { b'-' } else { b }));
        body.extend_from_slice(format!("\" {next}\n").as_bytes());
    }
    let status = client.write("db=d&precision=ms", &body).unwrap().status;
    let outcome = if status == 204 { Outcome::Acknowledged } else { Outcome::Unknown };
    owed.add(outcome, rows.clone());
    *next = rows.end;
    status
}

#[test]
fn the_small_disk_can_be_filled_and_freed() {
    let disk = match SmallDisk::mount(64) {
        Ok(disk) => disk,
        Err(error) => return subject::skip(&format!("no small file system can be mounted: {error}")),
    };
    disk.fill().unwrap();
    let path = disk.path().join("more");
    let error = std::fs::write(&path, vec![1u8; 1 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    std::fs::remove_file(&path).unwrap();
    disk.free().unwrap();
    std::fs::write(&path, vec![1u8; 1 << 20]).unwrap();
}

/// A server with a limit of its `[data]`.
fn with_data_limit(home: &subject::Home, key: &str, limit: u64) -> Server {
    let config = home.path().join("limits.toml");
    std::fs::write(&config, format!("[data]\n{key} = {limit}\n")).unwrap();
    let mut setup = home.setup();
    setup.arguments = vec!["--config".into(), config.to_string_lossy().into_owned()];
    subject::start(setup)
}

fn series_count(client: &mut Client, database: &str) -> u64 {
    let text = subject::query(client, "SHOW SERIES CARDINALITY", &format!("db={database}")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["results"][0]["series"][0]["values"][0][0].as_u64().unwrap_or(0)
}

/// 40 series fit exactly, over all partitions and cores; the next one is refused by name, known ones go on, and room
/// that a drop makes is room.
#[test]
fn new_series_beyond_the_limit_are_refused_and_known_ones_go_on() {
    if subject::skip_for_upstream("its limit needs the in-memory index") {
        return;
    }
    let home = subject::Home::new();
    let mut server = with_data_limit(&home, "max-series-per-database", 40);
    let mut client = with_database(&server);
    subject::query(&mut client, "CREATE DATABASE other", "").unwrap();
    let lines = |hosts: std::ops::Range<u32>, time: u32| -> String {
        hosts.map(|host| format!("m,host=h{host} v=1 {time}\n")).collect()
    };
    for first in (0..40).step_by(10) {
        subject::write(&mut client, "db=d", &lines(first..first + 10, 1)).unwrap();
    }
    assert_eq!(series_count(&mut client, "d"), 40);
    let refused = |count: u32| {
        format!("{{\"error\":\"partial write: max-series-per-database limit exceeded: (40) dropped={count}\"}}")
    };
    for restart in [false, true] {
        if restart {
            subject::stop(server);
            server = with_data_limit(&home, "max-series-per-database", 40);
            client = subject::client(&server);
        }
        let answer = client.write("db=d", lines(30..45, 2).as_bytes()).unwrap();
        assert_eq!((answer.status, answer.text().trim()), (400, refused(5).as_str()), "restart {restart}");
        assert_eq!(series_count(&mut client, "d"), 40);
    }
    assert_eq!(count(&mut client, "m"), 50, "the known series of a body with new ones are written");
    subject::write(&mut client, "db=d", &lines(0..40, 3)).unwrap();
    // The limit is each database's own.
    subject::write(&mut client, "db=other", &lines(0..40, 1)).unwrap();
    subject::query(&mut client, "DROP SERIES FROM m WHERE host =~ /^h3/", "db=d").unwrap();
    assert_eq!(series_count(&mut client, "d"), 29);
    let answer = client.write("db=d", lines(100..115, 4).as_bytes()).unwrap();
    assert_eq!((answer.status, answer.text().trim()), (400, refused(4).as_str()));
    assert_eq!(series_count(&mut client, "d"), 40);
    subject::stop(server);
}

/// Many clients that bring the same new series and others at the same time: as many as fit are there, no more.
#[test]
fn the_series_limit_holds_for_many_writers_at_once() {
    if subject::skip_for_upstream("its limit needs the in-memory index") {
        return;
    }
    let home = subject::Home::new();
    let server = with_data_limit(&home, "max-series-per-database", 100);
    let mut client = with_database(&server);
    std::thread::scope(|scope| {
        for writer in 0..4u32 {
            let server = &server;
            scope.spawn(move || {
                let mut client = subject::client(server);
                for round in 0..60u32 {
                    let host = |n: u32| {
                        if n.is_multiple_of(2) { round * 10 + n } else { (writer + 1) * 1000 + round * 10 + n }
                    };
                    let body: String = (0..10).map(|n| format!("m,host=h{} v=1 {}\n", host(n), round + 1)).collect();
                    let status = client.write("db=d", body.as_bytes()).unwrap().status;
                    assert!([204, 400, 503].contains(&status), "{status}");
                }
            });
        }
    });
    assert!(series_count(&mut client, "d") <= 100);
    let body: String = (0..200).map(|n| format!("m,host=last{n} v=1 1\n")).collect();
    assert_eq!(client.write("db=d", body.as_bytes()).unwrap().status, 400);
    assert_eq!(series_count(&mut client, "d"), 100, "what fits is taken");
    subject::stop(server);
}

/// The value that a refusal by the limit of 20 values names; the rest of its text is checked.
fn refused_value(answer: &tidemill_perf::http::Response, dropped: u32) -> String {
    let text = answer.text();
    let begin = r#"{"error":"partial write: max-values-per-tag limit exceeded (20/20): measurement=\"m\" tag=\"host\" value=\""#;
    let rest = text.trim().strip_prefix(begin).unwrap_or_else(|| panic!("{} {text}", answer.status));
    let end = format!(r#"\" dropped={dropped}"}}"#);
    let value = rest.strip_suffix(&end).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(answer.status, 400);
    value.to_owned()
}

fn host_count(client: &mut Client) -> u64 {
    let text = subject::query(client, "SHOW TAG VALUES EXACT CARDINALITY FROM m WITH KEY = host", "db=d").unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["results"][0]["series"][0]["values"][0][0].as_u64().unwrap_or(0)
}

/// 20 values of a tag fit exactly, over all partitions and cores; a series with another one is refused by name, new
/// series with known values go on, and room that a drop makes is room.
#[test]
fn new_values_of_a_tag_beyond_the_limit_are_refused_and_known_ones_go_on() {
    if subject::skip_for_upstream("its limit needs the in-memory index") {
        return;
    }
    let home = subject::Home::new();
    let mut server = with_data_limit(&home, "max-values-per-tag", 20);
    let mut client = with_database(&server);
    let lines = |hosts: std::ops::Range<u32>, rest: &str| -> String {
        hosts.map(|host| format!("m,host=h{host}{rest}\n")).collect()
    };
    for first in (0..20).step_by(5) {
        subject::write(&mut client, "db=d", &lines(first..first + 5, " v=1 1")).unwrap();
    }
    for restart in [false, true] {
        if restart {
            subject::stop(server);
            server = with_data_limit(&home, "max-values-per-tag", 20);
            client = subject::client(&server);
        }
        let answer = client.write("db=d", lines(15..25, " v=1 2").as_bytes()).unwrap();
        let value: u32 = refused_value(&answer, 5)[1..].parse().unwrap();
        assert!((20..25).contains(&value), "{value}");
        assert_eq!((host_count(&mut client), series_count(&mut client, "d")), (20, 20), "restart {restart}");
    }
    assert_eq!(count(&mut client, "m"), 25, "the known series of a body with refused ones are written");
    // Series with values that others have are no new values, wherever their partitions are.
    subject::write(&mut client, "db=d", &lines(0..20, ",dc=x v=1 3")).unwrap();
    // The limit is each measurement's own.
    subject::write(&mut client, "db=d", "n,host=other v=1 1\n").unwrap();
    subject::query(&mut client, "DROP SERIES FROM m WHERE host =~ /^h1$/", "db=d").unwrap();
    assert_eq!(host_count(&mut client), 19);
    // Values are not counted anew all the time.
    let is_seen = (0..100).any(|_| {
        let answer = client.write("db=d", lines(100..103, " v=1 4").as_bytes()).unwrap();
        let is_seen = answer.text().contains("dropped=2");
        if is_seen {
            refused_value(&answer, 2);
        } else {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        is_seen
    });
    assert!(is_seen, "the room of a dropped value is never found");
    assert_eq!(host_count(&mut client), 20);
    let answer = client.write("db=d", br#"m,host=say\ "so" v=1 5"#).unwrap();
    assert!(answer.text().contains(r#"value=\"say \\\"so\\\"\""#), "{}", answer.text());
    subject::stop(server);
}

/// Many clients that bring the same new values and others at the same time: as many as fit are there, no more.
#[test]
fn the_limit_of_tag_values_holds_for_many_writers_at_once() {
    if subject::skip_for_upstream("its limit needs the in-memory index") {
        return;
    }
    let home = subject::Home::new();
    let server = with_data_limit(&home, "max-values-per-tag", 100);
    let mut client = with_database(&server);
    std::thread::scope(|scope| {
        for writer in 0..4u32 {
            let server = &server;
            scope.spawn(move || {
                let mut client = subject::client(server);
                for round in 0..40u32 {
                    // Two series of each host, so that a value comes to several partitions at once.
                    let host =
                        |n: u32| if n.is_multiple_of(2) { round * 4 + n } else { (writer + 1) * 1000 + round + n };
                    let line = |n: u32| format!("m,host=h{},cpu={} v=1 {}\n", host(n / 2), n % 2, round + 1);
                    let body: String = (0..8).map(line).collect();
                    let status = client.write("db=d", body.as_bytes()).unwrap().status;
                    assert!([204, 400, 503].contains(&status), "{status}");
                }
            });
        }
    });
    assert!(host_count(&mut client) <= 100);
    let body: String = (0..200).map(|n| format!("m,host=last{n} v=1 1\n")).collect();
    assert_eq!(client.write("db=d", body.as_bytes()).unwrap().status, 400);
    assert_eq!(host_count(&mut client), 100, "what fits is taken");
    subject::stop(server);
}

/// A data set of more files than the process may have open: each week of each partition is one.
#[test]
fn more_files_than_descriptors_are_served() {
    use std::os::unix::fs::PermissionsExt;
    const WEEKS: u64 = 60;
    const SERIES: u64 = 64;
    const WEEK_NS: u64 = 7 * 24 * 3600 * 1_000_000_000;
    if subject::skip_for_upstream("upstream keeps a file open for each") {
        return;
    }
    let home = subject::Home::new();
    let mut setup = home.setup();
    let script = home.path().join("with-few-descriptors");
    let text = format!("#!/bin/sh\nulimit -n 256\nexec '{}' \"$@\"\n", setup.binary.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    setup.binary = script;
    let server = subject::start(setup.clone());
    let mut client = with_database(&server);
    for week in 0..WEEKS {
        let lines: Vec<String> =
            (0..SERIES).map(|series| format!("m,s={series} v={week} {}", week * WEEK_NS + series)).collect();
        subject::write(&mut client, "db=d", &lines.join("\n")).unwrap();
    }
    let total: u64 = SERIES * (0..WEEKS).sum::<u64>();
    let right = format!(r#"[0,{},{total}]"#, SERIES * WEEKS);
    subject::stop(server);
    for _ in 0..2 {
        let server = subject::start(setup.clone());
        let mut client = subject::client(&server);
        for _ in 0..3 {
            let answer = subject::query(&mut client, "SELECT count(v), sum(v) FROM m", "db=d&epoch=ns").unwrap();
            assert!(answer.contains(&right), "{answer}");
            let week =
                subject::query(&mut client, "SELECT sum(v) FROM m WHERE time >= 5w AND time < 6w", "db=d").unwrap();
            assert!(!week.contains("error"), "{week}");
        }
        // Late rows of all weeks: their files are read, merged and replaced while others are read.
        let lines: Vec<String> = (0..WEEKS).map(|week| format!("m,s=1 v={week} {}", week * WEEK_NS + 1)).collect();
        subject::write(&mut client, "db=d", &lines.join("\n")).unwrap();
        subject::stop(server);
    }
}
