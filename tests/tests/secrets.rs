//! Passwords, tokens and the secret that signs them are in no log, no figure and no answer to somebody else, whatever is
//! asked and however it fails.

use base64::{Engine, prelude::BASE64_STANDARD};
use tidemill_perf::http::{Client, encode};
use tidemill_tests::subject;

const SIGNING: &str = "signing-secret-4711";
/// Each is proof in one way or another, and none may be seen again.
const PASSWORDS: [&str; 6] =
    ["rootpass-0815", "created-by-form-1", "created-by-url-2", "changed-3", "wrong-guess-4", "half-typed-5"];

const CONFIGURATION: &str = r#"
[http]
auth-enabled = true
shared-secret = "signing-secret-4711"
log-enabled = true
[data]
query-log-enabled = true
[coordinator]
log-queries-after = "1us"
[logging]
level = "debug"
"#;

#[test]
fn secrets_are_in_no_log_and_no_figure() {
    if subject::skip_for_upstream("the configuration is ours") {
        return;
    }
    let home = subject::Home::new();
    let path = home.path().join("secrets.toml");
    std::fs::write(&path, CONFIGURATION).unwrap();
    let mut setup = home.setup();
    setup.arguments.extend(["--config".to_owned(), path.to_string_lossy().into_owned()]);
    let server = subject::start(setup);
    let mut client = subject::client(&server);
    let [root, by_form, by_url, changed, wrong, half] = PASSWORDS;
    let basic = |password: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("root:{password}")));
    let form = |client: &mut Client, text: &str, proof: &str| {
        let headers = [("Authorization", proof), ("Content-Type", "application/x-www-form-urlencoded")];
        client.request("POST", "/query", &headers, format!("q={}", encode(text)).as_bytes()).unwrap()
    };
    let first = form(&mut client, &format!("CREATE USER root WITH PASSWORD '{root}' WITH ALL PRIVILEGES"), "");
    assert_eq!(first.status, 200, "{}", first.text());
    let proof = basic(root);
    for text in [
        format!("create user a with /* why */ password '{by_form}'"),
        format!("CREATE USER b WITH PASSWORD\n'{by_form}' -- nothing"),
        format!("SHOW DATABASES; SET PASSWORD FOR a = '{changed}'; SHOW USERS"),
        format!("CREATE USER a WITH PASSWORD '{wrong}'"),
        format!("SET PASSWORD FOR nobody = '{wrong}'"),
        // These do not parse.
        format!("CREATE USER c WITH PASSWORD '{half}"),
        format!("CREATE USER c WITH PASSWORD '{half}' WITH NOTHING"),
        format!("SET PASSWORD FOR a '{half}'"),
        format!("SET PASSWORD FOR a = '{half}' '{half}'"),
    ] {
        form(&mut client, &text, &proof);
    }
    let text = encode(&format!("CREATE USER d WITH PASSWORD '{by_url}'"));
    let bound = encode(&format!(r#"{{"p":"{by_url}"}}"#));
    for target in [
        format!("/query?u=root&p={root}&q={text}"),
        format!("/query?u=root&p={root}&q={}&params={bound}", encode("CREATE USER e WITH PASSWORD $p")),
        format!("/query?u=root&p={wrong}&q=SHOW+DATABASES"),
        format!("/query?p={wrong}&q=SHOW+DATABASES"),
        format!("/write?db=d&u=root&p={wrong}"),
        format!("/api/v1/prom/write?db=d&u=root&p={wrong}"),
        format!("/nothing?u=root&p={wrong}"),
        format!("/query?u=root&p={root}&q=%zz"),
    ] {
        client.request("GET", &target, &[], b"").unwrap();
        client.request("POST", &target, &[], b"m v=1").unwrap();
        client.request("PUT", &target, &[], b"m v=1").unwrap();
    }
    for header in [
        basic(wrong),
        format!("Basic {wrong}"),
        format!("Token root:{wrong}"),
        format!("Token {wrong}"),
        format!("Bearer {wrong}"),
        format!("Bearer {wrong}.{wrong}.{wrong}"),
        format!("Nothing {wrong}"),
    ] {
        let headers = [("Authorization", header.as_str())];
        assert_eq!(client.request("GET", "/query?q=SHOW+DATABASES", &headers, b"").unwrap().status, 401, "{header}");
        client.request("POST", "/write?db=d", &headers, b"m v=1").unwrap();
    }
    let mut seen = Vec::new();
    for target in [
        "/metrics".to_owned(),
        "/debug/vars".to_owned(),
        "/debug/requests?seconds=0".to_owned(),
        format!("/query?q={}", encode("SHOW QUERIES; SHOW STATS; SHOW DIAGNOSTICS; SHOW USERS; SHOW GRANTS FOR a")),
    ] {
        let answer = client.request("GET", &target, &[("Authorization", &proof)], b"").unwrap();
        seen.push((target, answer.text()));
    }
    let log = server.setup().log.clone();
    subject::stop(server);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("CREATE USER") && log.contains("[REDACTED]"), "statements are logged:\n{log}");
    seen.push(("the log".to_owned(), log));
    for (place, text) in &seen {
        let bytes = PASSWORDS.iter().flat_map(|password| {
            [(*password).to_owned(), BASE64_STANDARD.encode(format!("root:{password}")), encode(password)]
        });
        for secret in bytes.chain([SIGNING.to_owned(), "$2b$".to_owned()]) {
            let line = text.lines().find(|line| line.contains(&secret));
            assert_eq!(line, None, "{secret} is in {place}");
        }
    }
}
