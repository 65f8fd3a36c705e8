//! Upstream's data come over, and go back, with every answer the same.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tidemill_column::Values;
use tidemill_perf::http::Client;
use tidemill_perf::server::{Kind, Server, Setup};
use tidemill_tests::answers::{Numbers, difference, with_equal_times_sorted};
use tidemill_tests::subject;
use tidemill_tsm::{block, file::FileWriter, key};

/// Floats are added block by block: that moves the last digits of sums and means.
const TOLERANCE: Numbers = Numbers::Within(1e-12);
/// Steps of 50 ms that anything may take.
const PATIENCE: usize = 1200;
const BASE: i64 = 1_700_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    for _ in 0..PATIENCE {
        if is_there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} did not come");
}

/// Upstream's server on a folder with `data`, `wal` and `meta`; None, with a note, when it is not installed.
fn influxd(folder: &Path) -> Option<Server> {
    let Some(binary) = Kind::Influxd.system_binary() else {
        subject::skip("/usr/bin/influxd is missing (apt-get install influxdb)");
        return None;
    };
    let mut setup = Setup::new(Kind::Influxd, binary, folder);
    setup.data = folder.to_owned();
    setup.cold_seconds = 1;
    Some(subject::start(setup))
}

fn tidemill(home: &subject::Home, data: &Path, arguments: &[&str]) -> Server {
    let mut setup = home.setup();
    setup.data = data.to_owned();
    setup.cores = Some(1);
    setup.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    subject::start(setup)
}

fn inspect(home: &subject::Home, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> (bool, String) {
    let mut command = Command::new(home.setup().binary);
    command.arg("inspect").args(arguments.iter().map(|argument| argument.as_ref()));
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn import(home: &subject::Home, upstream: &Path, with_meta: bool, into: &Path) -> (bool, String) {
    let (data, wal, meta) = (upstream.join("data"), upstream.join("wal"), upstream.join("meta/meta.db"));
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"import", &data, &wal, &"--into", &into];
    arguments.extend([&"--cores" as &dyn AsRef<std::ffi::OsStr>, &"1", &"--memory-limit", &"256m"]);
    if with_meta {
        arguments.extend([&"--meta" as &dyn AsRef<std::ffi::OsStr>, &meta]);
    }
    inspect(home, &arguments)
}

/// All files of an extension below a folder, sorted.
fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(files_below(&path, extension)),
            path if path.extension().is_some_and(|found| found == extension) => files.push(path),
            _ => {}
        }
    }
    files.sort();
    files
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Rows of all types that upstream's default build takes, with whatever line protocol lets a name and a text hold.
fn lines(count: i64, start: i64, step: i64) -> String {
    let texts = ["plain", "a \\\"quoted\\\" one", "back\\\\slash", "comma, = space", "é ☃", "new\nline", ""];
    let hosts = ["a", "b\\ c", "x\\,y", "k\\=v"];
    let mut body = String::new();
    for row in 0..count {
        let time = start + row * step;
        let host = hosts[(row * 7 % 4) as usize];
        let integer = [row, -row, i64::MAX, i64::MIN][(row % 4) as usize];
        let float = [row as f64 / 8.0, -0.0, 0.5][(row % 3) as usize];
        let (text, flag) = (texts[(row % 7) as usize], row % 2 == 0);
        body += &format!("cpu,host={host},dc=d{} f={float:?},i={integer}i,s=\"{text}\",b={flag} {time}\n", row % 3);
        if row % 4 == 0 {
            body += &format!("m\\ e\\,as,t\\ k=v f={row},fi\\ eld\\,=1i {time}\n");
        }
    }
    body
}

fn statements() -> Vec<String> {
    let mut statements = vec!["SHOW DATABASES".to_owned()];
    for (database, policies) in [("one", &["autogen", "other"][..]), ("two", &["fine"])] {
        for what in ["MEASUREMENTS", "SERIES", "FIELD KEYS", "TAG KEYS", "RETENTION POLICIES"] {
            statements.push(format!("SHOW {what} ON {database}"));
        }
        for policy in policies {
            for name in ["cpu", "m e,as"] {
                let source = format!("{database}.{policy}.\"{name}\"");
                statements.push(format!("SELECT * FROM {source}"));
                statements.push(format!("SELECT count(*) FROM {source}"));
                statements.push(format!("SELECT mean(f), sum(f), max(i), first(s), last(b) FROM {source} GROUP BY *"));
            }
        }
    }
    statements
}

fn assert_same(expected: &Server, found: &Server, statements: &[String]) {
    let (mut expected, mut found) = (subject::client(expected), subject::client(found));
    for statement in statements {
        let ask = |client: &mut Client| subject::query(client, statement, "epoch=ns").unwrap();
        let (expected, found) = (ask(&mut expected), ask(&mut found));
        assert!(found.contains("series"), "{statement}: {found}");
        let sorted = |answer: &str| with_equal_times_sorted(answer).unwrap();
        let difference = difference(&sorted(&expected), &sorted(&found), TOLERANCE);
        assert!(difference.is_none(), "{statement}: {difference:?}");
    }
}

/// Three generations of files, tombstones, and a log with writes and deletions in it: filled once, in a folder that
/// stays until the tests end. None when upstream's server is missing.
fn filled() -> Option<&'static Path> {
    static FILLED: OnceLock<Option<subject::Home>> = OnceLock::new();
    let home = FILLED.get_or_init(|| {
        let home = subject::Home::new();
        let server = influxd(home.path())?;
        let mut client = subject::client(&server);
        let mut query = |statement: &str| subject::query(&mut client, statement, "db=one").unwrap();
        query("CREATE DATABASE one");
        query("CREATE RETENTION POLICY other ON one DURATION INF REPLICATION 1 SHARD DURATION 1h");
        query("CREATE DATABASE two WITH DURATION INF REPLICATION 1 SHARD DURATION 1d NAME fine");
        let mut client = subject::client(&server);
        let mut write = |place: &str, lines: String| subject::write(&mut client, place, &lines).unwrap();
        write("db=one&rp=autogen", lines(1500, BASE, SECOND));
        write("db=one&rp=other", lines(200, BASE, 60 * SECOND));
        write("db=two&rp=fine", lines(400, BASE, 400 * SECOND));
        let count = || files_below(&home.path().join("data"), "tsm").len();
        wait_for("the files of a first flush", || count() >= 6);
        // Further ones of the same flush may be on their way.
        std::thread::sleep(Duration::from_secs(1));
        query(&format!("DELETE FROM cpu WHERE dc = 'd1' AND time < {}", BASE + 500 * SECOND));
        let before = count();
        write("db=one&rp=autogen", lines(300, BASE + 1000 * SECOND, SECOND));
        wait_for("the files of a second flush", || count() > before);
        write("db=one&rp=autogen", lines(200, BASE + 1300 * SECOND, SECOND));
        query(&format!("DELETE FROM cpu WHERE dc = 'd2' AND time > {}", BASE + 1400 * SECOND));
        write("db=one&rp=autogen", lines(20, BASE + 1450 * SECOND, SECOND));
        subject::stop(server);
        assert!(!files_below(&home.path().join("data"), "tombstone").is_empty());
        Some(home)
    });
    home.as_ref().map(subject::Home::path)
}

#[test]
fn data_of_upstream_come_over_and_go_back() {
    if subject::skip_for_upstream("it has no import") {
        return;
    }
    let Some(filled) = filled() else { return };
    let home = subject::Home::new();
    let (upstream, into, back) = (home.path().join("upstream"), home.path().join("into"), home.path().join("back"));
    copy_folder(filled, &upstream);
    let (healthy, text) = inspect(&home, &[&"verify", &upstream]);
    assert!(healthy, "{text}");
    let (imported, text) = import(&home, &upstream, true, &into);
    assert!(imported, "{text}");
    let (again, text) = import(&home, &upstream, true, &into);
    assert!(again && text.contains("0 rows of 0 shards"), "{text}");

    let Some(theirs) = influxd(&upstream) else { return };
    let ours = tidemill(&home, &into, &[]);
    assert_same(&theirs, &ours, &statements());
    subject::stop(theirs);
    let (refused, text) = inspect(&home, &[&"export", &into]);
    assert!(!refused && text.contains("in use"), "{text}");

    // The newest rows are only in the log.
    let newest = lines(50, BASE + 2000 * SECOND, SECOND);
    subject::write(&mut subject::client(&ours), "db=one&rp=autogen", &newest).unwrap();
    drop(ours);
    let (exported, text) = inspect(&home, &[&"export", &into, &"--upstream", &back]);
    assert!(exported, "{text}");
    let (healthy, text) = inspect(&home, &[&"verify", &into]);
    assert!(healthy, "{text}");
    let Some(theirs) = influxd(&back) else { return };
    let ours = tidemill(&home, &into, &[]);
    assert_same(&ours, &theirs, &statements());
    subject::stop(theirs);
    subject::stop(ours);
}

#[test]
fn damaged_files_of_upstream_are_named_and_the_rest_comes_over() {
    if subject::skip_for_upstream("it has no import") {
        return;
    }
    let Some(filled) = filled() else { return };
    let home = subject::Home::new();
    let (upstream, into) = (home.path().join("upstream"), home.path().join("into"));
    copy_folder(filled, &upstream);
    let victim = files_below(&upstream.join("data/two"), "tsm").remove(0);
    let mut bytes = std::fs::read(&victim).unwrap();
    // In the first block: header, checksum, then the block.
    bytes[12] ^= 4;
    std::fs::write(&victim, bytes).unwrap();
    let (imported, text) = import(&home, &upstream, false, &into);
    assert!(!imported && text.contains(&format!("{}: bytes 5..", victim.display())), "{text}");
    let (healthy, text) = inspect(&home, &[&"verify", &upstream]);
    assert!(!healthy && text.contains(&victim.display().to_string()), "{text}");
    let server = tidemill(&home, &into, &[]);
    let counted =
        subject::query(&mut subject::client(&server), "SELECT count(f) FROM two.fine.\"m e,as\"", "").unwrap();
    assert!(counted.contains(",100]"), "{counted}");
    subject::stop(server);
}

/// A shard of upstream's as a build with unsigned integers writes it; Debian's has none of them in line protocol, but
/// reads them from files.
fn unsigned_shard(folder: &Path, values: &[u64]) {
    let shard = folder.join("data/d/autogen/1");
    std::fs::create_dir_all(&shard).unwrap();
    std::fs::create_dir_all(folder.join("wal/d/autogen/1")).unwrap();
    let times: Vec<i64> = (0..values.len() as i64).map(|row| BASE + row * SECOND).collect();
    let values = Values::Unsigned(values.to_vec());
    let (mut key_bytes, mut points, mut out) = (Vec::new(), Vec::new(), Vec::new());
    key::join(b"m,host=a", b"u", &mut key_bytes).unwrap();
    block::encode(&times, &values, 0..times.len(), &mut points).unwrap();
    let mut writer = FileWriter::begin(&mut out);
    let (first, last) = (times[0], times[times.len() - 1]);
    writer.push_block(&key_bytes, values.field_type(), first, last, &points, None, &mut out).unwrap();
    writer.finish(&mut out);
    std::fs::write(shard.join("000000001-000000001.tsm"), out).unwrap();
}

#[test]
fn unsigned_integers_of_upstream_come_over_and_go_back() {
    if subject::skip_for_upstream("it has no import") {
        return;
    }
    let home = subject::Home::new();
    let (upstream, into, back) = (home.path().join("upstream"), home.path().join("into"), home.path().join("back"));
    let values = [0, 1, 7, u64::MAX, u64::MAX - 1, 1 << 63, 5];
    unsigned_shard(&upstream, &values);
    let (imported, text) = import(&home, &upstream, false, &into);
    assert!(imported && text.contains("7 rows of 1 shards"), "{text}");
    let server = tidemill(&home, &into, &[]);
    let mut client = subject::client(&server);
    let answer = subject::query(&mut client, "SELECT u FROM m", "db=d&epoch=ns").unwrap();
    for (row, value) in values.iter().enumerate() {
        let expected = format!("[{},{value}]", BASE + row as i64 * SECOND);
        assert!(answer.contains(&expected), "{expected}: {answer}");
    }
    let kinds = subject::query(&mut client, "SHOW FIELD KEYS", "db=d").unwrap();
    assert!(kinds.contains(r#"["u","unsigned"]"#), "{kinds}");
    subject::write(&mut client, "db=d&unsigned=true", &format!("m,host=a u=9u {}", BASE - SECOND)).unwrap();
    drop(server);
    let (exported, text) = inspect(&home, &[&"export", &into, &"--upstream", &back]);
    assert!(exported, "{text}");
    let Some(theirs) = influxd(&back) else { return };
    let ours = tidemill(&home, &into, &[]);
    let statements =
        ["SELECT u FROM d..m", "SELECT max(u), min(u), count(u), last(u) FROM d..m", "SHOW FIELD KEYS ON d"];
    assert_same(&ours, &theirs, &statements.map(str::to_owned));
    subject::stop(theirs);
    subject::stop(ours);
}

/// What floats of sealed files are made of.
#[derive(Clone, Copy, PartialEq)]
enum Floats {
    Gorilla,
    Alp,
}

/// A stopped server's folder in which all points lie in sealed files: ordered and late ones, blocks that were copied
/// as they are, merged and joined.
fn sealed(home: &subject::Home, floats: Floats) -> PathBuf {
    let (data, config) = (home.path().join("sealed"), home.path().join("sealed.toml"));
    let encoding = if floats == Floats::Alp { "float-encoding = \"alp\"\n" } else { "" };
    std::fs::write(&config, format!("[data]\npartitions = 2\nl1-files-per-l2 = 1\n{encoding}")).unwrap();
    let server = tidemill(home, &data, &["--config", &config.display().to_string()]);
    let mut client = subject::client(&server);
    subject::query(&mut client, "CREATE DATABASE d WITH SHARD DURATION 1000d NAME p", "").unwrap();
    let decimals = |range: std::ops::Range<i64>, step: i64| -> String {
        let time = |row: i64| BASE + row * step;
        range
            .map(|row| format!("w,host=h{} t={}.{:02} {}\n", row % 5, row * 13 % 97, row * 7 % 100, time(row)))
            .collect()
    };
    // Each part is flushed and copied: in order, in order, late and over blocks that are there (enough of it to be merged
    // soon), in order.
    let parts = [
        lines(4000, BASE, SECOND) + &decimals(0..9000, SECOND),
        lines(3000, BASE + 4000 * SECOND, SECOND) + &decimals(9000..12_000, SECOND),
        lines(4000, BASE + SECOND / 2, SECOND) + &decimals(7..8000, SECOND + SECOND / 3),
        lines(1000, BASE + 9000 * SECOND, SECOND) + &decimals(12_000..13_000, SECOND),
    ];
    for part in parts {
        subject::write(&mut client, "db=d&rp=p", &part).unwrap();
        // A snapshot has everything in files.
        let answer = client.request("POST", "/snapshots", &[], b"").unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
        wait_for("the copy to sealed files", || {
            let metrics = client.get("/metrics").unwrap().text();
            let sum = |name: &str| -> f64 {
                let values = metrics.lines().filter_map(|line| line.rsplit_once(' '));
                let of_name = values.filter(|(place, _)| place.split('{').next() == Some(name));
                of_name.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
            };
            sum("tidemill_files") > 0.0 && sum("tidemill_files") == sum("tidemill_files_l2")
        });
    }
    subject::stop(server);
    data
}

fn sealed_statements() -> Vec<String> {
    let mut statements = vec!["SHOW SERIES ON d".to_owned(), "SHOW FIELD KEYS ON d".to_owned()];
    for source in ["d.p.cpu", "d.p.\"m e,as\"", "d.p.w"] {
        statements.push(format!("SELECT * FROM {source} GROUP BY *"));
        statements.push(format!("SELECT count(*) FROM {source}"));
    }
    statements.push("SELECT mean(t), max(t), min(t), first(t), last(t), sum(t) FROM d.p.w GROUP BY host".to_owned());
    let range = format!("time >= {BASE} AND time < {}", BASE + 12_000 * SECOND);
    statements.push(format!("SELECT mean(t), count(t) FROM d.p.w WHERE {range} GROUP BY time(7m), host"));
    statements.push(format!("SELECT sum(i), count(s), last(b) FROM d.p.cpu WHERE {range} GROUP BY time(7m), dc"));
    statements
}

#[test]
fn sealed_files_are_served_by_upstream_as_they_are() {
    if subject::skip_for_upstream("it has no sealed files") {
        return;
    }
    let home = subject::Home::new();
    let data = sealed(&home, Floats::Gorilla);
    let back = home.path().join("back");
    let (exported, text) = inspect(&home, &[&"export", &data, &"--upstream", &back]);
    assert!(exported, "{text}");
    // The folder and its metadata are the export's; in the place of its one file, ours as they are.
    let theirs = files_below(&back.join("data"), "tsm");
    let [theirs] = &theirs[..] else { panic!("{theirs:?}") };
    let shard = theirs.parent().unwrap().to_owned();
    std::fs::remove_file(theirs).unwrap();
    let ours = files_below(&data.join("partitions"), "tsm");
    assert!(ours.len() > 1, "{ours:?}");
    for (number, path) in ours.iter().enumerate() {
        std::fs::copy(path, shard.join(format!("{:09}-000000001.tsm", number + 1))).unwrap();
    }
    let (healthy, text) = inspect(&home, &[&"verify", &back]);
    assert!(healthy, "{text}");
    let Some(theirs) = influxd(&back) else { return };
    let ours = tidemill(&home, &data, &[]);
    assert_same(&ours, &theirs, &sealed_statements());
    subject::stop(theirs);
    subject::stop(ours);
}

#[test]
fn dense_floats_of_sealed_files_go_back_to_upstream() {
    if subject::skip_for_upstream("it has no sealed files") {
        return;
    }
    let home = subject::Home::new();
    let data = sealed(&home, Floats::Alp);
    let (_, report) = inspect(&home, &[&"report", &data]);
    assert!(report.contains("alp"), "{report}");
    let back = home.path().join("back");
    let (exported, text) = inspect(&home, &[&"export", &data, &"--upstream", &back]);
    assert!(exported, "{text}");
    let (_, report) = inspect(&home, &[&"report", &back]);
    assert!(!report.contains("alp"), "{report}");
    let (healthy, text) = inspect(&home, &[&"verify", &back]);
    assert!(healthy, "{text}");
    let Some(theirs) = influxd(&back) else { return };
    let ours = tidemill(&home, &data, &[]);
    assert_same(&ours, &theirs, &sealed_statements());
    subject::stop(theirs);
    subject::stop(ours);
}
