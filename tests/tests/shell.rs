//! `tidemill shell`, against the subject and beside Debian's `influx`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tidemill_perf::server::Server;
use tidemill_tests::subject;

/// Statements whose answers the two clients show alike.
const STATEMENTS: [&str; 8] = [
    "SELECT * FROM k",
    "SELECT v FROM k GROUP BY host",
    "SELECT v FROM k; SELECT mean(v) FROM k, n",
    "SHOW TAG VALUES WITH KEY = host",
    "SHOW RETENTION POLICIES",
    "SELECT v FROM nothing",
    "SHOW DATABASES",
    "SELECT bad(",
];

fn shell(server: &Server, arguments: &[&str], input: &str) -> Output {
    let port = port(server);
    let mut command = Command::new(subject::Home::new().setup().binary);
    command.args(["shell", "--host", "127.0.0.1", "--port", &port]).args(arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn port(server: &Server) -> String {
    server.address().rsplit(':').next().unwrap_or_default().to_owned()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn answers_are_shown_as_upstreams_client_shows_them() {
    if subject::skip_for_upstream("the shell is ours") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    assert_eq!(text(&shell(&server, &["--execute", "CREATE DATABASE d"], "")), "");
    for line in ["k,host=a v=1,s=\"p, q\" 1", "k,host=b v=2,i=2i,b=true 1000000000", "n v=1e30 5"] {
        let output = shell(&server, &["--database", "d", "--execute", &format!("insert {line}")], "");
        assert!(output.status.success(), "{}", text(&output));
    }
    let columns = text(&shell(&server, &["--database", "d", "--execute", "SELECT v, s FROM k"], ""));
    assert_eq!(columns, "name: k\ntime       v s\n----       - -\n1          1 p, q\n1000000000 2 \n");
    let csv = text(&shell(&server, &["--format", "csv", "--precision", "rfc3339"], "SELECT v FROM d..n"));
    assert_eq!(csv, "name,time,v\nn,1970-01-01T00:00:00.000000005Z,1e+30\n");
    let bad = shell(&server, &["--execute", "SELECT"], "");
    assert!(!bad.status.success() && text(&bad).starts_with("ERR: error parsing query: "), "{}", text(&bad));

    let influx = Path::new("/usr/bin/influx");
    if !influx.exists() {
        return subject::skip("/usr/bin/influx is missing (apt-get install influxdb-client)");
    }
    let port = port(&server);
    for format in ["column", "csv"] {
        for precision in ["ns", "rfc3339", "s"] {
            for statement in STATEMENTS {
                let ours = shell(
                    &server,
                    &["--database", "d", "--format", format, "--precision", precision, "--execute", statement],
                    "",
                );
                let theirs = Command::new(influx)
                    .args(["-host", "127.0.0.1", "-port", &port, "-database", "d", "-format", format])
                    .args(["-precision", precision, "-execute", statement])
                    .output()
                    .unwrap();
                assert_eq!(text(&ours), text(&theirs), "{format} {precision} {statement}");
                assert_eq!(ours.status.success(), theirs.status.success(), "{statement}");
            }
        }
    }
    subject::stop(server);
}

#[test]
fn files_are_imported() {
    if subject::skip_for_upstream("the shell is ours") {
        return;
    }
    let home = subject::Home::new();
    let server = home.start();
    let file = home.path().join("points.txt");
    let points: String = (0..12_000).map(|n| format!("n,host=h{} v={n} {n}\n", n % 7)).collect();
    let head = "# DDL\nCREATE DATABASE d WITH NAME rp\n# DML\n# CONTEXT-DATABASE:d\n# CONTEXT-RETENTION-POLICY:rp\n";
    std::fs::write(&file, format!("{head}# writing\n{points}")).unwrap();
    let output = shell(&server, &["--import", &file.display().to_string()], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text(&output), "Processed 1 commands\nProcessed 12000 inserts\nFailed 0 inserts\n");
    let count = text(&shell(&server, &["--database", "d", "--format", "csv"], "SELECT count(v) FROM n"));
    assert_eq!(count, "name,time,count\nn,0,12000\n");
    std::fs::write(&file, format!("{head}n v=1 1\nbad\n")).unwrap();
    let output = shell(&server, &["--import", &file.display().to_string()], "");
    assert!(!output.status.success() && text(&output).contains("Failed 2 inserts"), "{}", text(&output));
    subject::stop(server);
}
