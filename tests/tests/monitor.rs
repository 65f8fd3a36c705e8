//! What a server tells of itself: SHOW STATS and DIAGNOSTICS, EXPLAIN, the access log, the effective configuration; and
//! continuous queries, which run by themselves.

use serde_json::Value;
use std::time::{Duration, Instant};
use tidemill_perf::http::Client;
use tidemill_tests::subject;

/// Longest wait for something that a server does by itself.
const PATIENCE: Duration = Duration::from_secs(30);

fn ask(client: &mut Client, statement: &str) -> Value {
    let text = subject::query(client, statement, "db=d&epoch=s").unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["results"][0]["series"].clone()
}

fn lines(series: &Value) -> Vec<String> {
    let rows = series[0]["values"].as_array().unwrap();
    rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
}

fn with_points(client: &mut Client) {
    subject::query(client, "CREATE DATABASE d", "").unwrap();
    let points: String = (0..50).map(|n| format!("n,host=h{} v={n},i={n}i {n}\n", n % 5)).collect();
    subject::write(client, "db=d&precision=s", &points).unwrap();
}

#[test]
fn statistics_and_diagnostics_have_upstreams_names() {
    if subject::skip_for_upstream("its storage engine has statistics that are not ours") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    with_points(&mut client);
    let all = ask(&mut client, "SHOW STATS");
    let names: Vec<&str> = all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    for name in ["cq", "database", "httpd", "queryExecutor", "runtime", "subscriber", "tidemill", "write"] {
        assert!(names.contains(&name), "{name} is missing: {names:?}");
    }
    let database = ask(&mut client, "SHOW STATS FOR 'database'");
    assert_eq!(database[0]["tags"]["database"], "d");
    assert_eq!(database[0]["columns"], serde_json::json!(["numMeasurements", "numSeries"]));
    assert_eq!(database[0]["values"][0], serde_json::json!([1, 5]));
    let write = ask(&mut client, "SHOW STATS FOR 'write'");
    assert_eq!(write[0]["values"][0], serde_json::json!([50, 50, 1, 0, 0]));
    assert!(ask(&mut client, "SHOW STATS FOR 'indexes'")[0]["values"][0][0].as_u64().unwrap() > 0);
    assert_eq!(ask(&mut client, "SHOW STATS FOR 'nothing'"), Value::Null);
    let system = ask(&mut client, "SHOW DIAGNOSTICS FOR 'system'");
    assert_eq!(system[0]["columns"], serde_json::json!(["PID", "currentTime", "started", "uptime"]));
    let all = ask(&mut client, "SHOW DIAGNOSTICS");
    let names: Vec<&str> = all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.contains(&"build") && names.contains(&"config-httpd"), "{names:?}");
    let variables: Value = serde_json::from_str(&client.get("/debug/vars").unwrap().text()).unwrap();
    assert_eq!(variables["database:d"]["values"]["numSeries"], 5);
    assert!(variables["system"]["currentTime"].is_string() && variables["memstats"].is_object());
    subject::stop(server);
}

#[test]
fn explain_tells_what_would_be_read_and_analyze_what_was() {
    if subject::skip_for_upstream("its figures are those of its storage engine") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    with_points(&mut client);
    let plan = lines(&ask(&mut client, "EXPLAIN SELECT mean(v), max(i) FROM n WHERE host != 'h0' GROUP BY host"));
    let expected = [
        "EXPRESSION: mean(v::float)",
        "NUMBER OF SHARDS: 1",
        "NUMBER OF SERIES: 4",
        "CACHED VALUES: 80",
        "NUMBER OF FILES: 0",
        "NUMBER OF BLOCKS: 0",
        "SIZE OF BLOCKS: 0",
        "",
        "EXPRESSION: max(i::integer)",
    ];
    assert_eq!(plan[..expected.len()], expected, "{plan:?}");
    let plan = lines(&ask(&mut client, "EXPLAIN SELECT v, host FROM n"));
    assert_eq!(plan[..2], ["EXPRESSION: <nil>", "AUXILIARY FIELDS: v::float, host::tag"]);
    let tree = lines(&ask(&mut client, "EXPLAIN ANALYZE SELECT sum(v) FROM n GROUP BY host"));
    assert_eq!(tree[0], ".");
    for part in
        ["execution_time: ", "planning_time: ", "rows: 5", "series: 5", "points: 50", "expression: sum(v::float)"]
    {
        assert!(tree.iter().any(|line| line.contains(part)), "{part}: {tree:?}");
    }
    assert_eq!(ask(&mut client, "EXPLAIN SELECT v FROM nothing")[0]["values"][2][0], "NUMBER OF SERIES: 0");
    // The same from files.
    subject::stop(server);
    let server = home.start();
    let mut client = subject::client(&server);
    let plan = lines(&ask(&mut client, "EXPLAIN SELECT mean(v) FROM n"));
    assert!(
        plan.contains(&"CACHED VALUES: 0".to_owned()) && plan.contains(&"NUMBER OF BLOCKS: 5".to_owned()),
        "{plan:?}"
    );
    subject::stop(server);
}

/// Waits until a continuous query has written so many points.
fn wait_for_points(client: &mut Client, measurement: &str, count: u64) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let series = ask(client, &format!("SELECT * FROM {measurement}"));
        let rows = series[0]["values"].as_array().cloned().unwrap_or_default();
        if rows.len() as u64 >= count {
            return rows;
        }
        assert!(begun.elapsed() < PATIENCE, "{} of {count} points came", rows.len());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_continuous_query_computes_each_window_and_what_was_due_while_the_server_was_down() {
    if subject::skip_for_upstream("it forgets what was due while it was down") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    subject::query(&mut client, "CREATE DATABASE d", "").unwrap();
    let create = "CREATE CONTINUOUS QUERY c ON d BEGIN SELECT count(v) INTO counted FROM n GROUP BY time(1s) END";
    subject::query(&mut client, create, "").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // A point in each half second for as long as the test may take.
    let points: String = (0..240).map(|half| format!("n v=1 {}\n", now * 1000 + half * 500)).collect();
    subject::write(&mut client, "db=d&precision=ms", &points).unwrap();
    let before = wait_for_points(&mut client, "counted", 2);
    server.kill().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let server = home.start();
    let mut client = subject::client(&server);
    let rows = wait_for_points(&mut client, "counted", before.len() as u64 + 5);
    let times: Vec<u64> = rows.iter().map(|row| row[0].as_u64().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[1] == pair[0] + 1), "windows are missing: {times:?}");
    assert!(rows.iter().all(|row| row[1] == 2), "{rows:?}");
    assert!(ask(&mut client, "SHOW STATS FOR 'cq'")[0]["values"][0][1].as_u64().unwrap() > 0);
    subject::query(&mut client, "DROP CONTINUOUS QUERY c ON d", "").unwrap();
    subject::stop(server);
}

#[test]
fn a_continuous_query_that_fails_is_tried_again_and_loses_no_window() {
    if subject::skip_for_upstream("it goes on with the next window") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    for statement in ["CREATE DATABASE d", "CREATE DATABASE target"] {
        subject::query(&mut client, statement, "").unwrap();
    }
    let create =
        "CREATE CONTINUOUS QUERY c ON d BEGIN SELECT count(v) INTO target..counted FROM n GROUP BY time(1s) END";
    subject::query(&mut client, create, "").unwrap();
    subject::query(&mut client, "DROP DATABASE target", "").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let points: String = (0..240).map(|half| format!("n v=1 {}\n", now * 1000 + half * 500)).collect();
    subject::write(&mut client, "db=d&precision=ms", &points).unwrap();
    let begun = Instant::now();
    // Columns are queryFail, queryOk.
    while ask(&mut client, "SHOW STATS FOR 'cq'")[0]["values"][0][0].as_u64().unwrap() == 0 {
        assert!(begun.elapsed() < PATIENCE, "no run has failed");
        std::thread::sleep(Duration::from_millis(100));
    }
    subject::query(&mut client, "CREATE DATABASE target", "").unwrap();
    let rows = wait_for_points(&mut client, "target..counted", 3);
    let times: Vec<u64> = rows.iter().map(|row| row[0].as_u64().unwrap()).collect();
    assert!(times[0] <= now + 1 && times.windows(2).all(|pair| pair[1] == pair[0] + 1), "{now}: {times:?}");
    subject::stop(server);
}

#[test]
fn the_access_log_has_a_line_for_each_request_and_no_secret() {
    if subject::skip_for_upstream("the line is configured otherwise") {
        return;
    }
    let home = subject::Home::new();
    let log = home.path().join("access.log");
    let config = home.path().join("t.toml");
    let text = format!("[http]\nlog-enabled = true\naccess-log-path = {:?}\n", log.display().to_string());
    std::fs::write(&config, text).unwrap();
    let mut setup = home.setup();
    setup.arguments = vec!["--config".into(), config.display().to_string()];
    let server = subject::start(setup);
    let mut client = subject::client(&server);
    subject::query(&mut client, "CREATE USER a WITH PASSWORD 'hunter2'", "u=a&p=hunter2").unwrap();
    client.get("/query?q=SET%20PASSWORD%20FOR%20a%20%3D%20'hunter2'").unwrap();
    client.request("POST", "/write?db=nope", &[("User-Agent", "tester"), ("X-Request-Id", "id-1")], b"n v=1").unwrap();
    client.get("/nothing").unwrap();
    let begun = Instant::now();
    let lines = loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains("/nothing") {
            break text;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(!lines.contains("hunter2"), "{lines}");
    assert!(lines.contains("{'q': 'CREATE USER a WITH PASSWORD [REDACTED]'}"), "{lines}");
    let write = lines.lines().find(|line| line.contains("/write")).unwrap();
    assert!(write.starts_with("127.0.0.1 - - [") && write.contains("\"POST /write?db=nope HTTP/1.1\" 404 "), "{write}");
    assert!(write.contains("\"-\" \"tester\" id-1 "), "{write}");
    let printed = std::fs::read_to_string(&server.setup().log).unwrap();
    assert!(!printed.contains("hunter2"));
    subject::stop(server);
}

#[test]
fn a_census_counts_the_requests_of_a_while() {
    if subject::skip_for_upstream("its address has the port of a proxy in front") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut asking = subject::client(&server);
    let mut busy = subject::client(&server);
    let answer = std::thread::scope(|scope| {
        let census = scope.spawn(move || asking.get("/debug/requests?seconds=2").unwrap());
        while !census.is_finished() {
            busy.query("SHOW DATABASES", "u=me&p=x").unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        census.join().unwrap()
    });
    let value: Value = serde_json::from_str(&answer.text()).unwrap();
    let counts = &value["me:127.0.0.1"];
    assert!(counts["queries"].as_u64().unwrap() > 5 && counts["writes"] == 0, "{value}");
    let mut client = subject::client(&server);
    assert_eq!(client.get("/debug/requests?seconds=99999").unwrap().status, 400);
    subject::stop(server);
}

#[test]
fn a_query_is_killed_on_all_cores() {
    if subject::skip_for_upstream("the statement is not as long there") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    with_points(&mut client);
    // Windows of a nanosecond: it would not end for minutes.
    let endless = "SELECT count(v) FROM n WHERE time >= 0 AND time < 500s GROUP BY time(1ns), host fill(0)";
    let mut victim = subject::client(&server);
    let answer = std::thread::scope(|scope| {
        let running = scope.spawn(move || victim.query(endless, "db=d").unwrap().text());
        let begun = Instant::now();
        loop {
            let queries = ask(&mut client, "SHOW QUERIES");
            let rows = queries[0]["values"].as_array().unwrap();
            let found = rows.iter().find(|row| row[1].as_str().unwrap().contains("time(1ns)"));
            if let Some(row) = found {
                assert_eq!(row[2], "d");
                subject::query(&mut client, &format!("KILL QUERY {}", row[0]), "").unwrap();
                break;
            }
            assert!(begun.elapsed() < PATIENCE && !running.is_finished(), "{queries}");
        }
        running.join().unwrap()
    });
    assert!(answer.contains("query interrupted"), "{answer}");
    let left = ask(&mut client, "SHOW QUERIES");
    assert_eq!(left[0]["values"].as_array().unwrap().len(), 1, "{left}");
    subject::stop(server);
}

#[test]
fn the_configuration_of_debians_package_is_understood() {
    let stock = std::path::Path::new("/etc/influxdb/influxdb.conf");
    if !stock.exists() || subject::skip_for_upstream("it is its own") {
        return subject::skip("/etc/influxdb/influxdb.conf is missing (apt-get install influxdb)");
    }
    let output = std::process::Command::new(subject::Home::new().setup().binary)
        .args(["config", "--config"])
        .arg(stock)
        .env("TIDEMILL_HTTP_MAX_ROW_LIMIT", "7")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("dir = \"/var/lib/influxdb/data\"") && text.contains("max-row-limit = 7"), "{text}");
}
