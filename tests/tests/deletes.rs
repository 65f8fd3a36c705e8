//! What is dropped is gone from every answer at once and after a start: fields, shards, and what is too old.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidemill_perf::http::Client;
use tidemill_perf::server::Server;
use tidemill_tests::subject;

fn ask(client: &mut Client, statement: &str) -> serde_json::Value {
    let text = subject::query(client, statement, "db=d").unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["results"][0]["series"].clone()
}

fn values(client: &mut Client, statement: &str) -> String {
    ask(client, statement)[0]["values"].to_string()
}

fn started(home: &subject::Home, config: &str) -> (Server, Client) {
    let path = home.path().join("server.toml");
    std::fs::write(&path, config).unwrap();
    let mut setup = home.setup();
    setup.arguments = vec!["--config".to_owned(), path.display().to_string()];
    let server = subject::start(setup);
    let client = subject::client(&server);
    (server, client)
}

#[test]
fn a_dropped_field_is_gone_and_comes_back_with_another_type() {
    if subject::skip_for_upstream("it cannot drop a field") {
        return;
    }
    let home = subject::Home::new();
    let (server, mut client) = started(&home, "");
    subject::query(&mut client, "CREATE DATABASE d", "").unwrap();
    subject::write(&mut client, "db=d", "m,t=a f=1,g=1 1\nm,t=a f=2,g=2 2\nm,t=b f=3 3\nn f=4 4\n").unwrap();
    subject::query(&mut client, "DROP FIELD f FROM m", "db=d").unwrap();
    let check = |client: &mut Client| {
        assert_eq!(values(client, "SHOW FIELD KEYS FROM m"), r#"[["g","float"]]"#);
        assert_eq!(values(client, "SHOW SERIES FROM m"), r#"[["m,t=a"]]"#);
        assert_eq!(values(client, "SELECT f FROM m"), "null");
        assert_eq!(values(client, "SELECT count(*) FROM m"), r#"[["1970-01-01T00:00:00Z",2]]"#);
        assert_eq!(values(client, "SELECT count(f) FROM n"), r#"[["1970-01-01T00:00:00Z",1]]"#);
    };
    check(&mut client);
    subject::stop(server);
    let (server, mut client) = started(&home, "");
    check(&mut client);
    // The rows of the old type are in files now; the shard group is the same.
    subject::write(&mut client, "db=d", "m,t=a f=\"text\" 2\nm,t=c f=\"more\" 5\n").unwrap();
    let check = |client: &mut Client| {
        assert_eq!(values(client, "SHOW FIELD KEYS FROM m"), r#"[["f","string"],["g","float"]]"#);
        let text = values(client, "SELECT f, g FROM m");
        let second = r#"["1970-01-01T00:00:00.000000002Z","text",2]"#;
        assert_eq!(
            text,
            format!(
                r#"[["1970-01-01T00:00:00.000000001Z",null,1],{second},["1970-01-01T00:00:00.000000005Z","more",null]]"#
            )
        );
    };
    check(&mut client);
    subject::stop(server);
    let (server, mut client) = started(&home, "");
    check(&mut client);
    // All of it: the measurement has no series left.
    subject::query(&mut client, "DROP FIELD f FROM m", "db=d").unwrap();
    subject::query(&mut client, "DROP FIELD g FROM m; DROP FIELD g FROM m; DROP FIELD x FROM nowhere", "db=d").unwrap();
    assert_eq!(values(&mut client, "SHOW MEASUREMENTS"), r#"[["n"]]"#);
    subject::stop(server);
}

#[test]
fn shard_groups_that_are_too_old_are_dropped_and_no_others() {
    if subject::skip_for_upstream("its check cannot be hurried") {
        return;
    }
    let home = subject::Home::new();
    let (server, mut client) = started(&home, "[retention]\ncheck-interval = \"200ms\"\n");
    subject::query(&mut client, "CREATE DATABASE d WITH DURATION INF SHARD DURATION 1h", "").unwrap();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let hours_ago = |hours: u64| now_s - hours * 3600;
    let lines: String = [0, 1, 30, 50].iter().map(|hours| format!("m,h={hours} v=1 {}\n", hours_ago(*hours))).collect();
    subject::write(&mut client, "db=d&precision=s", &lines).unwrap();
    subject::query(&mut client, "CREATE DATABASE other; CREATE RETENTION POLICY p ON d DURATION INF REPLICATION 1", "")
        .unwrap();
    subject::write(&mut client, "db=d&rp=p&precision=s", &format!("m,h=50 v=1 {}\n", hours_ago(50))).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(values(&mut client, "SELECT count(v) FROM m"), r#"[["1970-01-01T00:00:00Z",4]]"#);
    // The policy is shortened: what it does not keep goes with the next check.
    subject::query(&mut client, "ALTER RETENTION POLICY autogen ON d DURATION 40h", "").unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while ask(&mut client, "SELECT v FROM m")[0]["values"].as_array().map(Vec::len) != Some(3) {
        assert!(Instant::now() < deadline, "the group is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ask(&mut client, "SHOW SHARDS")[0]["values"].as_array().unwrap().len(), 4);
    // The same series is kept in the other policy.
    assert_eq!(values(&mut client, "SELECT count(v) FROM p.m"), r#"[["1970-01-01T00:00:00Z",1]]"#);
    let answer = client.write("db=d&precision=s", format!("m v=1 {}\n", hours_ago(50)).as_bytes()).unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("partial write: points beyond retention policy dropped=1"), "{}", answer.text());
    // A dropped shard is gone as well, with its files.
    let shards = ask(&mut client, "SHOW SHARDS");
    let oldest = shards[0]["values"][0][0].as_u64().unwrap();
    subject::query(&mut client, &format!("DROP SHARD {oldest}; DROP SHARD 999999"), "").unwrap();
    assert_eq!(ask(&mut client, "SELECT v FROM m")[0]["values"].as_array().unwrap().len(), 2);
    subject::stop(server);
    let (server, mut client) = started(&home, "");
    assert_eq!(ask(&mut client, "SELECT v FROM m")[0]["values"].as_array().unwrap().len(), 2);
    subject::stop(server);
}
