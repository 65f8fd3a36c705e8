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
