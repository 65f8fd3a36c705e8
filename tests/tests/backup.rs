//! Backups of a running server, and what is restored from them.

use std::path::Path;
use std::process::{Command, Output};
use tidemill_perf::http::Client;
use tidemill_perf::server::Server;
use tidemill_tests::subject;

const QUESTIONS: [&str; 6] = [
    "SELECT count(v), sum(v), first(v), last(v) FROM m GROUP BY host",
    "SELECT * FROM words",
    "SHOW SERIES ON d",
    "SHOW FIELD KEYS ON d",
    "SHOW RETENTION POLICIES ON d",
    "SELECT count(v) FROM short.m",
];

fn lines(from: i64, to: i64) -> String {
    (from..to).map(|row| format!("m,host=h{} v={row} {row}\n", row % 7)).collect()
}

fn fill(client: &mut Client) {
    subject::query(client, "CREATE DATABASE d", "").unwrap();
    subject::query(client, "CREATE RETENTION POLICY short ON d DURATION 0s REPLICATION 1", "").unwrap();
    subject::query(client, "CREATE DATABASE other", "").unwrap();
    subject::write(client, "db=d", &lines(0, 20_000)).unwrap();
    subject::write(client, "db=d&rp=short", &lines(5, 50)).unwrap();
    subject::write(client, "db=other", "x y=1i 7").unwrap();
    subject::write(client, "db=d", "words,a=ü w=\"ä b\",f=true 1\nwords,a=z w=\"\" 2").unwrap();
    subject::query(client, "DELETE FROM m WHERE host = 'h3' AND time < 10000", "db=d").unwrap();
    // Late, behind whatever was flushed.
    subject::write(client, "db=d", "m,host=h1 v=-1 3\nm,host=new v=-2 4").unwrap();
}

fn answers(client: &mut Client) -> Vec<String> {
    QUESTIONS.iter().map(|question| subject::query(client, question, "db=d").unwrap()).collect()
}

fn tidemill(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(&server.setup().binary);
    command.args(arguments).env("TIDEMILL_PASSWORD", "secret").output().unwrap()
}

fn backup(server: &Server, target: &Path, further: &[&str]) -> Output {
    let url = format!("http://{}", server.address());
    let target = target.display().to_string();
    tidemill(server, &[&["backup", &target, "--host", &url], further].concat())
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_backup_of_a_running_server_is_restored_exactly() {
    if subject::skip_for_upstream("its backups are of another kind") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    fill(&mut client);
    let expected = answers(&mut client);
    let target = home.path().join("backup");
    let first = backup(&server, &target, &[]);
    assert!(first.status.success(), "{}", text(&first));
    // What comes later is not in it, and goes on as if nothing had been.
    subject::write(&mut client, "db=d", &lines(20_000, 21_000)).unwrap();
    subject::query(&mut client, "DROP DATABASE other", "").unwrap();
    let snapshots = std::fs::read_dir(server.setup().data.join("snapshots")).unwrap().count();
    assert_eq!(snapshots, 0, "the server keeps no snapshot that was copied");

    let data = home.path().join("restored");
    let restored =
        tidemill(&server, &["restore", &target.display().to_string(), "--data", &data.display().to_string()]);
    assert!(restored.status.success(), "{}", text(&restored));
    let mut setup = home.setup();
    setup.data = data;
    // Another number of cores: the backup does not care.
    setup.cores = Some(1);
    let other = subject::start(setup);
    let mut other_client = subject::client(&other);
    assert_eq!(answers(&mut other_client), expected);
    let databases = subject::query(&mut other_client, "SHOW DATABASES", "").unwrap();
    assert!(databases.contains("other"));
    subject::write(&mut other_client, "db=d", "m,host=h1 v=1 99999999").unwrap();
    subject::stop(other);

    let later = answers(&mut client);
    let second = backup(&server, &home.path().join("second"), &["--base", &target.display().to_string()]);
    assert!(second.status.success() && !text(&second).contains(" 0 files, 0 bytes of these"), "{}", text(&second));
    let again = backup(&server, &target, &[]);
    assert!(again.status.success(), "{}", text(&again));
    let data = home.path().join("restored-again");
    let restored =
        tidemill(&server, &["restore", &target.display().to_string(), "--data", &data.display().to_string()]);
    assert!(restored.status.success(), "{}", text(&restored));
    let mut setup = home.setup();
    setup.data = data;
    let other = subject::start(setup);
    assert_eq!(answers(&mut subject::client(&other)), later);
    subject::stop(other);
    subject::stop(server);
}

#[test]
fn a_damaged_backup_is_refused_and_so_is_a_folder_in_use() {
    if subject::skip_for_upstream("its backups are of another kind") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    fill(&mut subject::client(&server));
    let target = home.path().join("backup");
    assert!(backup(&server, &target, &[]).status.success());
    let target_text = target.display().to_string();
    assert!(tidemill(&server, &["backup", &target_text, "--verify"]).status.success());
    let in_use = server.setup().data.display().to_string();
    let refused = tidemill(&server, &["restore", &target_text, "--data", &in_use]);
    assert!(!refused.status.success() && text(&refused).contains("is not empty"), "{}", text(&refused));

    let list = std::fs::read_to_string(target.join("contents")).unwrap();
    let file = list.lines().find_map(|line| line.rsplit(' ').next().filter(|path| path.ends_with(".tsm"))).unwrap();
    let file = target.join(file);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let verified = tidemill(&server, &["backup", &target_text, "--verify"]);
    assert!(!verified.status.success() && text(&verified).contains(".tsm"), "{}", text(&verified));
    let fresh = home.path().join("fresh").display().to_string();
    let restored = tidemill(&server, &["restore", &target_text, "--data", &fresh]);
    assert!(!restored.status.success(), "{}", text(&restored));
    let mut setup = home.setup();
    setup.data = home.path().join("fresh");
    let started = Server::start(setup).map(drop).unwrap_err();
    assert!(format!("{started:#}").contains("restore was not finished"), "{started:#}");
    // The next backup into the folder repairs it.
    assert!(backup(&server, &target, &[]).status.success());
    assert!(tidemill(&server, &["backup", &target_text, "--verify"]).status.success());
    assert!(tidemill(&server, &["restore", &target_text, "--data", &fresh]).status.success());
    subject::stop(server);
}

#[test]
fn a_backup_goes_into_another_database_and_policy_of_a_running_server() {
    if subject::skip_for_upstream("its backups are of another kind") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    fill(&mut client);
    let types = "kinds,t\\ =a\\,b f=-0,i=-9223372036854775808i,u=18446744073709551615u,b=f,s=\"a\\\"\nb\" 5";
    subject::write(&mut client, "db=d&unsigned=true", types).unwrap();
    let target = home.path().join("backup");
    assert!(backup(&server, &target, &[]).status.success());
    let (target, url) = (target.display().to_string(), format!("http://{}", server.address()));
    let restore = |further: &[&str]| tidemill(&server, &[&["restore", &target, "--host", &url], further].concat());

    // The server has other points by now, and takes more while the restore runs.
    subject::query(&mut client, "DROP MEASUREMENT words", "db=d").unwrap();
    subject::write(&mut client, "db=d", "m,host=h0 v=77 0").unwrap();
    let asked = |database: &str, policy: &str| -> Vec<String> {
        ["m", "words", "kinds"].map(|name| format!("SELECT * FROM {database}.{policy}.{name} GROUP BY *")).to_vec()
    };
    let answers = |client: &mut Client, statements: &[String]| -> Vec<String> {
        statements.iter().map(|statement| subject::query(client, statement, "epoch=ns").unwrap()).collect()
    };
    let copied = restore(&["--database", "d", "--new-database", "copy \"of\" d"]);
    assert!(copied.status.success(), "{}", text(&copied));
    let moved = restore(&["--database", "d", "--retention", "autogen", "--new-retention", "kept"]);
    assert!(moved.status.success(), "{}", text(&moved));
    // What is there already is replaced by the same.
    let again = restore(&["--database", "d", "--new-database", "copy \"of\" d"]);
    assert!(again.status.success(), "{}", text(&again));

    let elsewhere = home.path().join("elsewhere");
    let restored = tidemill(&server, &["restore", &target, "--data", &elsewhere.display().to_string()]);
    assert!(restored.status.success(), "{}", text(&restored));
    let mut setup = home.setup();
    setup.data = elsewhere;
    setup.cores = Some(1);
    let original = subject::start(setup);
    let mut original_client = subject::client(&original);
    let expected = answers(&mut original_client, &asked("d", "autogen"));
    assert!(expected[2].contains("18446744073709551615") && expected[2].contains("-9223372036854775808"));
    assert_eq!(answers(&mut client, &asked("\"copy \\\"of\\\" d\"", "autogen")), expected);
    assert_eq!(answers(&mut client, &asked("d", "kept")), expected);
    let short = |database: &str| vec![format!("SELECT * FROM {database}.short.m")];
    let expected = answers(&mut original_client, &short("d"));
    assert_eq!(answers(&mut client, &short("\"copy \\\"of\\\" d\"")), expected);
    subject::stop(original);
    // Where nothing was restored to, the server's own points are what they were.
    let own = subject::query(&mut client, "SELECT v FROM d.autogen.m WHERE time = 0", "epoch=ns").unwrap();
    assert!(own.contains("[0,77]"), "{own}");
    let own = subject::query(&mut client, "SELECT * FROM d.autogen.words", "").unwrap();
    assert!(!own.contains("series"), "{own}");
    subject::stop(server);
}

#[test]
fn a_restore_into_a_running_server_says_what_it_leaves_out_and_takes_nothing_damaged() {
    if subject::skip_for_upstream("its backups are of another kind") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    subject::query(&mut client, "CREATE DATABASE d", "").unwrap();
    subject::write(&mut client, "db=d", "m v=1 1\nm v=2 2\nn v=3i 1").unwrap();
    let target = home.path().join("backup");
    assert!(backup(&server, &target, &[]).status.success());
    let (target_text, url) = (target.display().to_string(), format!("http://{}", server.address()));
    let restore = |further: &[&str]| tidemill(&server, &[&["restore", &target_text, "--host", &url], further].concat());
    let unknown = restore(&["--database", "nowhere"]);
    assert!(!unknown.status.success() && text(&unknown).contains("it has d"), "{}", text(&unknown));
    // Too old for the policy that is there.
    subject::query(&mut client, "CREATE DATABASE young WITH DURATION 1h NAME autogen", "").unwrap();
    let late = restore(&["--database", "d", "--new-database", "young"]);
    assert!(late.status.success() && text(&late).contains("3 of them are older"), "{}", text(&late));
    // A field that has another type there.
    subject::query(&mut client, "CREATE DATABASE typed", "").unwrap();
    subject::write(&mut client, "db=typed", "n v=\"text\" 9").unwrap();
    let refused = restore(&["--database", "d", "--new-database", "typed"]);
    assert!(!refused.status.success() && text(&refused).contains("field type conflict"), "{}", text(&refused));
    let taken = subject::query(&mut client, "SELECT count(v) FROM m", "db=typed").unwrap();
    assert!(taken.contains(",2]"), "{taken}");

    let list = std::fs::read_to_string(target.join("contents")).unwrap();
    let file = list.lines().find_map(|line| line.rsplit(' ').next().filter(|path| path.ends_with(".tsm"))).unwrap();
    let file = target.join(file);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[7] ^= 32;
    std::fs::write(&file, &bytes).unwrap();
    let damaged = restore(&["--database", "d", "--new-database", "fresh"]);
    assert!(!damaged.status.success() && text(&damaged).contains(".tsm"), "{}", text(&damaged));
    let databases = subject::query(&mut client, "SHOW DATABASES", "").unwrap();
    assert!(!databases.contains("fresh"), "{databases}");
    subject::stop(server);
}

#[test]
fn snapshots_are_for_admins_and_their_names_lead_nowhere_else() {
    if subject::skip_for_upstream("it has no snapshots") {
        return;
    }
    let home = subject::Home::new();
    let mut setup = home.setup();
    setup.shared_secret = Some("s".into());
    let server = subject::start(setup);
    let mut client = subject::client(&server);
    subject::query(&mut client, "CREATE USER root WITH PASSWORD 'secret' WITH ALL PRIVILEGES", "").unwrap();
    subject::query(&mut client, "CREATE USER u WITH PASSWORD 'secret'", "u=root&p=secret").unwrap();
    for (proof, status) in [("", 401), ("?u=u&p=secret", 403), ("?u=root&p=secret", 201)] {
        let answer = client.request("POST", &format!("/snapshots{proof}"), &[], b"").unwrap();
        assert_eq!(answer.status, status, "{proof}: {}", answer.text());
    }
    for path in [
        "/snapshots/x/identity",
        "/snapshots/1-1/../identity",
        "/snapshots/1-1/%2e%2e/identity",
        "/snapshots/../identity",
    ] {
        let answer = client.request("GET", &format!("{path}?u=root&p=secret"), &[], b"").unwrap();
        assert!(matches!(answer.status, 400 | 404), "{path}: {} {}", answer.status, answer.text());
    }
    let refused = backup(&server, &home.path().join("b"), &[]);
    assert!(!refused.status.success() && text(&refused).contains("401"), "{}", text(&refused));
    let taken = backup(&server, &home.path().join("b"), &["--username", "root"]);
    assert!(taken.status.success(), "{}", text(&taken));
    subject::stop(server);
}
