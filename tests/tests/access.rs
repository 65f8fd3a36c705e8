//! Who may do what: every kind of proof, by every kind of user, at every endpoint and statement.
//!
//! The rules are written down here a second time, on their own; where Debian's influxd is installed it is asked the
//! same, and must agree.

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::{Sha256, Sha384, Sha512};
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};
use tidemill_influxql::{Statement, parse_query};
use tidemill_perf::http::{Client, encode};
use tidemill_perf::server::{Kind, Server};
use tidemill_tests::subject;

const SECRET: &str = "a secret of this test";
const PASSWORD: &str = "pass:word & more";
/// Far in the future.
const LATER_S: u64 = 4_000_000_000;

/// Users by name, with what they hold on `d`; `root` is an admin.
const USERS: [(&str, Option<&str>); 5] =
    [("root", None), ("reader", Some("READ")), ("writer", Some("WRITE")), ("owner", Some("ALL")), ("stranger", None)];

/// The ways in which a caller proves who they are, and a list of all of them.
macro_rules! proofs {
    ($($proof:ident),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Proof { $($proof),* }

        const PROOFS: &[Proof] = &[$(Proof::$proof),*];
    };
}

proofs! {
    Nothing,
    Basic,
    BasicWrong,
    BasicEmptyUser,
    BasicBroken,
    Url,
    UrlUserOnly,
    Token,
    TokenWithoutColon,
    Bearer,
    Bearer384,
    Bearer512,
    BearerExpired,
    BearerNone,
    BearerRsa,
    BearerOtherSecret,
    BearerEmptySecret,
    BearerWithoutExpiry,
    BearerWithoutName,
    BearerOfNobody,
    BearerTwoParts,
    BearerHuge,
}

use Proof::*;

impl Proof {
    /// What goes into the URL and into the header.
    fn parts(self, user: &str) -> (String, Option<String>) {
        let basic = |pair: String| Some(format!("Basic {}", BASE64_STANDARD.encode(pair)));
        let bearer = |token: String| Some(format!("Bearer {token}"));
        let claims = format!(r#"{{"username":"{user}","exp":{LATER_S}}}"#);
        let header = match self {
            Nothing | Url => None,
            Basic => basic(format!("{user}:{PASSWORD}")),
            BasicWrong => basic(format!("{user}:wrong")),
            BasicEmptyUser => basic(format!(":{PASSWORD}")),
            BasicBroken => Some("Basic !".to_owned()),
            // Half a pair in the URL leaves it to the header.
            UrlUserOnly => basic(format!("{user}:{PASSWORD}")),
            // A token is split at spaces, and this password has some.
            Token => Some(format!("Token {user}:{}", PASSWORD.replace(' ', ""))),
            TokenWithoutColon => Some(format!("Token {user}")),
            Bearer => bearer(signed::<Hmac<Sha256>>("HS256", &claims, SECRET)),
            Bearer384 => bearer(signed::<Hmac<Sha384>>("HS384", &claims, SECRET)),
            Bearer512 => bearer(signed::<Hmac<Sha512>>("HS512", &claims, SECRET)),
            BearerExpired => {
                let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 10;
                let claims = format!(r#"{{"username":"{user}","exp":{ended}}}"#);
                bearer(signed::<Hmac<Sha256>>("HS256", &claims, SECRET))
            }
            BearerNone => bearer(signed::<Hmac<Sha256>>("none", &claims, SECRET)),
            BearerRsa => bearer(signed::<Hmac<Sha256>>("RS256", &claims, SECRET)),
            BearerOtherSecret => bearer(signed::<Hmac<Sha256>>("HS256", &claims, "another secret")),
            BearerEmptySecret => bearer(signed::<Hmac<Sha256>>("HS256", &claims, "")),
            BearerWithoutExpiry => {
                bearer(signed::<Hmac<Sha256>>("HS256", &format!(r#"{{"username":"{user}"}}"#), SECRET))
            }
            BearerWithoutName => bearer(signed::<Hmac<Sha256>>("HS256", &format!(r#"{{"exp":{LATER_S}}}"#), SECRET)),
            BearerOfNobody => {
                let claims = format!(r#"{{"username":"{user}-nobody","exp":{LATER_S}}}"#);
                bearer(signed::<Hmac<Sha256>>("HS256", &claims, SECRET))
            }
            BearerTwoParts => bearer("a.b".to_owned()),
            BearerHuge => bearer(format!("{}.b.c", "a".repeat(40_000))),
        };
        let url = match self {
            Url => format!("&u={user}&p={}", encode(PASSWORD)),
            UrlUserOnly => format!("&u={user}"),
            _ => String::new(),
        };
        (url, header)
    }

    /// Why it proves nothing; of the longest text only the beginning is looked at.
    fn failure(self) -> Option<&'static str> {
        Some(match self {
            Basic | Url | UrlUserOnly | Bearer | Bearer384 | Bearer512 => return None,
            Nothing | BasicBroken | TokenWithoutColon => "unable to parse authentication credentials",
            BasicWrong | Token => "authorization failed",
            BasicEmptyUser => "username required",
            BearerExpired => "Token is expired",
            BearerNone => "unexpected signing method: none",
            BearerRsa => "unexpected signing method: RS256",
            BearerOtherSecret | BearerEmptySecret => "signature is invalid",
            BearerWithoutExpiry => "token expiration required",
            BearerWithoutName => "username in token must be a string",
            BearerOfNobody => "user not found",
            BearerTwoParts => "token contains an invalid number of segments",
            BearerHuge => "",
        })
    }

    /// Whether 1.6.7 has it.
    fn is_known_to_the_judge(self) -> bool {
        !matches!(self, Token | TokenWithoutColon | BearerHuge)
    }
}

fn signed<M: Mac + hmac::digest::KeyInit>(algorithm: &str, claims: &str, secret: &str) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(format!(r#"{{"alg":"{algorithm}"}}"#).as_bytes()), encode(claims.as_bytes()));
    let mac = <M as Mac>::new_from_slice(secret.as_bytes()).unwrap().chain_update(signed.as_bytes());
    format!("{signed}.{}", encode(&mac.finalize().into_bytes()))
}

/// What a statement wants: its number in the request, the privilege (`admin`, or one on a database) and the database.
type Needs = &'static [(usize, &'static str, &'static str)];

const NOTHING: Needs = &[];
const READ: Needs = &[(0, "READ", "d")];
const WRITE: Needs = &[(0, "WRITE", "d")];
const ADMIN: Needs = &[(0, "admin", "")];

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Statements as error texts show them but for passwords, and what they want.
    Query(&'static str, Needs),
    Write(&'static str),
    WriteV2(&'static str),
    PrometheusWrite,
    PrometheusRead,
    /// An endpoint that asks nobody, and its status.
    Open(&'static str, u16),
    /// How the nodes of a cluster stand; this server has none.
    Cluster,
    /// Something is to be done with them.
    ChangeCluster,
    /// Where series go.
    Placement,
    /// How the storage pool stands; this server has none.
    Pool,
}

/// Every statement with everything that changes what it wants. Where it could change what others want, it fails behind
/// the check: the users and shards that it names do not exist.
const DEEDS: [Deed; 78] = [
    Deed::Query("SHOW DATABASES", NOTHING),
    Deed::Query("SELECT v FROM m", READ),
    Deed::Query("SELECT v FROM d..m", READ),
    Deed::Query("SELECT v FROM other..m", &[(0, "READ", "other")]),
    Deed::Query("SELECT v FROM m, other..m", &[(0, "READ", "d"), (0, "READ", "other")]),
    Deed::Query("SELECT v FROM (SELECT v FROM m)", READ),
    Deed::Query("SELECT v FROM (SELECT v FROM other..m)", &[(0, "READ", "other")]),
    Deed::Query("SELECT mean(v) FROM m; SELECT v FROM d..m", &[(0, "READ", "d"), (1, "READ", "d")]),
    Deed::Query("SELECT v FROM m; SELECT v FROM other..m", &[(0, "READ", "d"), (1, "READ", "other")]),
    Deed::Query("SELECT v FROM m; DELETE FROM nothing", &[(0, "READ", "d"), (1, "WRITE", "d")]),
    Deed::Query("SELECT v INTO target FROM m", &[(0, "READ", "d"), (0, "WRITE", "d")]),
    Deed::Query("SELECT v INTO other..target FROM m", &[(0, "READ", "d"), (0, "WRITE", "other")]),
    Deed::Query("EXPLAIN SELECT v FROM m", READ),
    Deed::Query("EXPLAIN ANALYZE SELECT v FROM m", READ),
    Deed::Query("SHOW SERIES", READ),
    Deed::Query("SHOW SERIES ON other", &[(0, "READ", "other")]),
    Deed::Query("SHOW MEASUREMENTS", READ),
    Deed::Query("SHOW TAG KEYS", READ),
    Deed::Query("SHOW TAG VALUES WITH KEY = host", READ),
    Deed::Query("SHOW FIELD KEYS ON d", READ),
    Deed::Query("SHOW RETENTION POLICIES ON d", READ),
    Deed::Query("SHOW SERIES CARDINALITY", READ),
    Deed::Query("SHOW SERIES EXACT CARDINALITY", NOTHING),
    Deed::Query("SHOW SERIES EXACT CARDINALITY FROM m", READ),
    Deed::Query("SHOW MEASUREMENT CARDINALITY", READ),
    Deed::Query("SHOW MEASUREMENT EXACT CARDINALITY", NOTHING),
    Deed::Query("SHOW MEASUREMENT EXACT CARDINALITY FROM m", READ),
    Deed::Query("SHOW TAG KEY CARDINALITY", NOTHING),
    Deed::Query("SHOW TAG KEY CARDINALITY FROM m", READ),
    Deed::Query("SHOW TAG VALUES CARDINALITY WITH KEY = host", NOTHING),
    Deed::Query("SHOW TAG VALUES CARDINALITY FROM m WITH KEY = host", READ),
    Deed::Query("SHOW FIELD KEY CARDINALITY", NOTHING),
    Deed::Query("SHOW FIELD KEY CARDINALITY FROM m", READ),
    Deed::Query("SHOW QUERIES", READ),
    Deed::Query("SHOW CONTINUOUS QUERIES", READ),
    Deed::Query("DELETE FROM nothing", WRITE),
    Deed::Query("DROP SERIES FROM nothing", WRITE),
    Deed::Query("DROP RETENTION POLICY nothing ON d", WRITE),
    Deed::Query("DROP RETENTION POLICY nothing ON other", &[(0, "WRITE", "other")]),
    Deed::Query("DROP CONTINUOUS QUERY nothing ON d", WRITE),
    Deed::Query("CREATE CONTINUOUS QUERY c ON d BEGIN SELECT mean(v) INTO target FROM m GROUP BY time(1m) END", READ),
    Deed::Query(
        "CREATE CONTINUOUS QUERY e ON d BEGIN SELECT mean(v) INTO other.autogen.target FROM m GROUP BY time(1m) END",
        &[(0, "READ", "d"), (0, "WRITE", "other")],
    ),
    Deed::Query("SHOW USERS", ADMIN),
    Deed::Query("SHOW GRANTS FOR reader", ADMIN),
    Deed::Query("SHOW SHARDS", ADMIN),
    Deed::Query("SHOW SHARD GROUPS", ADMIN),
    Deed::Query("SHOW STATS", ADMIN),
    Deed::Query("SHOW DIAGNOSTICS", ADMIN),
    Deed::Query("SHOW SUBSCRIPTIONS", ADMIN),
    Deed::Query("DROP MEASUREMENT nothing", ADMIN),
    Deed::Query("DROP FIELD nothing FROM nothing", ADMIN),
    Deed::Query("DROP SHARD 999999", ADMIN),
    Deed::Query("DROP DATABASE nothing", ADMIN),
    Deed::Query("DROP USER nobody", ADMIN),
    Deed::Query("DROP SUBSCRIPTION nothing ON d.autogen", ADMIN),
    Deed::Query("CREATE DATABASE d", ADMIN),
    Deed::Query("CREATE RETENTION POLICY autogen ON d DURATION 0s REPLICATION 1", ADMIN),
    Deed::Query("ALTER RETENTION POLICY nothing ON d REPLICATION 1", ADMIN),
    Deed::Query("CREATE SUBSCRIPTION s ON nothing.autogen DESTINATIONS ALL 'udp://127.0.0.1:9'", ADMIN),
    Deed::Query("CREATE USER reader WITH PASSWORD 'x'", ADMIN),
    Deed::Query("SET PASSWORD FOR nobody = 'x'", ADMIN),
    Deed::Query("GRANT READ ON d TO reader", ADMIN),
    Deed::Query("GRANT ALL PRIVILEGES TO nobody", ADMIN),
    Deed::Query("REVOKE READ ON d FROM nobody", ADMIN),
    Deed::Query("REVOKE ALL PRIVILEGES FROM nobody", ADMIN),
    Deed::Query("KILL QUERY 999999", ADMIN),
    Deed::Write("d"),
    Deed::Write("unknown"),
    Deed::WriteV2("d"),
    Deed::PrometheusWrite,
    Deed::PrometheusRead,
    Deed::Cluster,
    Deed::ChangeCluster,
    Deed::Placement,
    Deed::Pool,
    Deed::Open("/ping", 204),
    Deed::Open("/status", 204),
    Deed::Open("/health", 200),
];

/// Hands all kinds of statements to another macro.
macro_rules! statement_kinds {
    ($with:ident) => {
        $with!(
            AlterRetentionPolicy,
            CreateContinuousQuery,
            CreateDatabase,
            CreateRetentionPolicy,
            CreateSubscription,
            CreateUser,
            Delete,
            DropContinuousQuery,
            DropDatabase,
            DropField,
            DropMeasurement,
            DropRetentionPolicy,
            DropSeries,
            DropShard,
            DropSubscription,
            DropUser,
            Explain,
            Grant,
            GrantAdmin,
            KillQuery,
            Revoke,
            RevokeAdmin,
            Select,
            SetPassword,
            ShowContinuousQueries,
            ShowDatabases,
            ShowDiagnostics,
            ShowFieldKeyCardinality,
            ShowFieldKeys,
            ShowGrants,
            ShowMeasurementCardinality,
            ShowMeasurements,
            ShowQueries,
            ShowRetentionPolicies,
            ShowSeries,
            ShowSeriesCardinality,
            ShowShardGroups,
            ShowShards,
            ShowStats,
            ShowSubscriptions,
            ShowTagKeyCardinality,
            ShowTagKeys,
            ShowTagValues,
            ShowTagValuesCardinality,
            ShowUsers,
        )
    };
}
/// The kind of a statement. A new one fails to compile here until it has a name, and the test until it has a deed.
fn kind(statement: &Statement) -> &'static str {
    macro_rules! kinds {
        ($($kind:ident),* $(,)?) => {
            match statement { $(Statement::$kind { .. } => stringify!($kind)),* }
        };
    }
    statement_kinds!(kinds)
}

/// Names of all kinds of statements.
fn kinds() -> BTreeSet<&'static str> {
    macro_rules! names {
        ($($kind:ident),* $(,)?) => { BTreeSet::from([$(stringify!($kind)),*]) };
    }
    statement_kinds!(names)
}

/// Endpoints that are open and whose answers are long.
const LONG_AND_OPEN: [(&str, u16); 4] =
    [("/metrics", 200), ("/debug/vars", 200), ("/debug/requests?seconds=0", 200), ("/api/v2/query", 403)];
/// Snappy blocks: a remote write of nothing, and a remote read of `__name__="m"` up to 1 ms.
const NO_SAMPLES: &[u8] = b"\x00";
const SAMPLES_OF_M: &[u8] = b"\x13\x48\x0a\x11\x10\x01\x1a\x0d\x12\x08__name__\x1a\x01m";
/// Tells admins how the nodes stand.
const CLUSTER: &str = "/cluster";
/// Tells proxies and admins where series go.
const PLACEMENT: &str = "/cluster/placement";
/// Tells admins how the storage pool stands.
const POOL: &str = "/cluster/pool";
/// Has scenarios of its own in `backup`.
const OF_BACKUPS: &str = "/snapshots";

impl Deed {
    fn is_known_to_the_judge(self) -> bool {
        match self {
            // Its 1.6.7 has no DROP FIELD, no v2 paths and no health.
            Deed::Query(text, _) => !text.contains("DROP FIELD"),
            Deed::Write(_) => true,
            Deed::WriteV2(_) | Deed::PrometheusWrite | Deed::PrometheusRead | Deed::Open(..) => false,
            Deed::Cluster | Deed::ChangeCluster | Deed::Placement | Deed::Pool => false,
        }
    }

    fn send(self, client: &mut Client, url: &str, header: Option<&str>) -> (u16, String) {
        let mut headers: Vec<(&str, &str)> = header.into_iter().map(|value| ("Authorization", value)).collect();
        let answer = match self {
            Deed::Query(text, _) => {
                headers.push(("Content-Type", "application/x-www-form-urlencoded"));
                let body = format!("q={}", encode(text));
                client.request("POST", &format!("/query?db=d{url}"), &headers, body.as_bytes())
            }
            Deed::Write(database) => {
                client.request("POST", &format!("/write?db={database}{url}"), &headers, b"m,host=a v=1 1")
            }
            Deed::WriteV2(bucket) => {
                client.request("POST", &format!("/api/v2/write?bucket={bucket}{url}"), &headers, b"m,host=a v=1 1")
            }
            Deed::PrometheusWrite => {
                client.request("POST", &format!("/api/v1/prom/write?db=d{url}"), &headers, NO_SAMPLES)
            }
            Deed::PrometheusRead => {
                client.request("POST", &format!("/api/v1/prom/read?db=d{url}"), &headers, SAMPLES_OF_M)
            }
            Deed::Open(path, _) => client.request("GET", &format!("{path}?{url}"), &headers, b""),
            Deed::Cluster => client.request("GET", &format!("{CLUSTER}?{url}"), &headers, b""),
            Deed::Placement => client.request("GET", &format!("{PLACEMENT}?{url}"), &headers, b""),
            Deed::Pool => client.request("GET", &format!("{POOL}?{url}"), &headers, b""),
            Deed::ChangeCluster => client.request("POST", &format!("{CLUSTER}?do=drain&node=1{url}"), &headers, b""),
        };
        let answer = answer.unwrap();
        (answer.status, answer.text())
    }

    /// Status, and how the error must begin (nothing: there is none).
    fn expected(self, user: &str, held: Option<&str>, proof: Proof) -> (u16, String) {
        if let Deed::Open(_, status) = self {
            return (status, String::new());
        }
        if let Some(text) = proof.failure() {
            return (401, text.to_owned());
        }
        let holds = |wanted: &str| user == "root" || held == Some("ALL") || held == Some(wanted);
        match self {
            Deed::Query(text, needs) => {
                let is_met = |(_, privilege, database): &&(usize, &str, &str)| {
                    user == "root" || *database == "d" && holds(privilege)
                };
                let Some((statement, privilege, database)) = needs.iter().find(|need| !is_met(need)) else {
                    return (200, String::new());
                };
                let shown = text.split("; ").nth(*statement).unwrap_or(text).replace("'x'", "[REDACTED]");
                let reason = match *privilege {
                    "admin" => "admin privilege".to_owned(),
                    privilege => format!("{privilege} on {database}"),
                };
                let text = "error authorizing query: ";
                (403, format!("{text}{user} not authorized to execute statement '{shown}', requires {reason}"))
            }
            Deed::Write("unknown") => (404, "database not found: \"unknown\"".to_owned()),
            Deed::PrometheusRead if holds("READ") => (200, String::new()),
            Deed::PrometheusRead => (403, format!("error authorizing query: {user} not authorized to execute")),
            Deed::Write(_) | Deed::WriteV2(_) | Deed::PrometheusWrite if holds("WRITE") => (204, String::new()),
            Deed::PrometheusWrite => (403, format!("\"{user}\" user is not authorized to write to database \"d\"")),
            Deed::Write(database) | Deed::WriteV2(database) => {
                (403, format!("\"{user}\" user is not authorized to write to database \"{database}\""))
            }
            Deed::Cluster | Deed::ChangeCluster | Deed::Pool if user == "root" => {
                (404, "this server is not a node of a cluster".to_owned())
            }
            Deed::Placement if user == "root" => (200, String::new()),
            Deed::Cluster | Deed::ChangeCluster | Deed::Placement | Deed::Pool => {
                (403, "error authorizing admin access".to_owned())
            }
            Deed::Open(..) => unreachable!("answered above"),
        }
    }
}

fn with_users(server: &Server) -> Client {
    let mut client = subject::client(server);
    let root = |client: &mut Client, statement: &str| {
        let header = Basic.parts("root").1.unwrap();
        let target = format!("/query?q={}", encode(statement));
        let answer = client.request("POST", &target, &[("Authorization", &header)], b"").unwrap();
        assert!(answer.status == 200 && !answer.text().contains("error"), "{statement}: {}", answer.text());
    };
    let password = PASSWORD;
    // Before there is an admin nobody is asked, and little is allowed.
    let early = client.query("SHOW DATABASES", "").unwrap();
    let text = "error authorizing query: create admin user first or disable authentication";
    assert_eq!((early.status, error_of(&early.text())), (403, text.to_owned()));
    subject::query(&mut client, &format!("CREATE USER root WITH PASSWORD '{password}' WITH ALL PRIVILEGES"), "")
        .unwrap();
    for database in ["d", "other"] {
        root(&mut client, &format!("CREATE DATABASE {database}"));
    }
    for (user, privilege) in USERS.into_iter().skip(1) {
        root(&mut client, &format!("CREATE USER {user} WITH PASSWORD '{password}'"));
        if let Some(privilege) = privilege {
            root(&mut client, &format!("GRANT {privilege} ON d TO {user}"));
        }
    }
    client
}

fn error_of(answer: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    value["error"].as_str().unwrap_or_default().to_owned()
}

fn start_guarded() -> (subject::Home, Server) {
    let home = subject::Home::new();
    let mut setup = home.setup();
    setup.shared_secret = Some(SECRET.into());
    let server = subject::start(setup);
    (home, server)
}

#[test]
fn every_proof_by_every_user_at_every_endpoint() {
    let (_home, server) = start_guarded();
    let mut client = with_users(&server);
    let judge = subject::judge_with(|setup| setup.shared_secret = Some(SECRET.into()));
    let mut judge = judge.as_ref().map(|judge| (judge, with_users(&judge.server)));
    let mut cells = 0;
    for deed in DEEDS {
        for (user, held) in USERS {
            for proof in PROOFS.iter().copied() {
                let (url, header) = proof.parts(user);
                let (status, text) = deed.send(&mut client, &url, header.as_deref());
                let expected = deed.expected(user, held, proof);
                let cell = format!("{deed:?} by {user} with {proof:?}: {text}");
                assert_eq!(status, expected.0, "{cell}");
                let error = error_of(&text);
                assert!(error.starts_with(&expected.1) && error.is_empty() == (status < 400), "{cell}: {expected:?}");
                cells += 1;
                if let Some((_, judge)) = &mut judge
                    && deed.is_known_to_the_judge()
                    && proof.is_known_to_the_judge()
                {
                    let (status, text) = deed.send(judge, &url, header.as_deref());
                    assert_eq!((status, error_of(&text)), (expected.0, error), "upstream differs: {cell}");
                }
            }
        }
    }
    assert!(cells >= 8_000, "{cells}");
    let asked =
        DEEDS.iter().filter_map(|deed| if let Deed::Query(text, _) = deed { Some(parse_query(text)) } else { None });
    let asked: BTreeSet<&str> = asked.flat_map(|query| query.unwrap().statements).map(|one| kind(&one)).collect();
    assert_eq!(asked, kinds(), "each statement has its row here");
    if subject::kind() == Kind::Tidemill {
        let mut covered: BTreeSet<&str> = BTreeSet::from(["/query", "/write", "/api/v2/write", OF_BACKUPS]);
        covered.extend(DEEDS.iter().filter_map(|deed| match deed {
            Deed::Open(path, _) => Some(*path),
            Deed::Cluster => Some(CLUSTER),
            Deed::Placement => Some(PLACEMENT),
            Deed::Pool => Some(POOL),
            _ => None,
        }));
        for (path, status) in LONG_AND_OPEN {
            let method = if path == "/api/v2/query" { "POST" } else { "GET" };
            assert_eq!(client.request(method, path, &[], b"").unwrap().status, status, "{path}");
            covered.insert(path.split('?').next().unwrap_or(path));
        }
        covered.extend(["/api/v1/prom/write", "/api/v1/prom/read"]);
        let all: BTreeSet<&str> = tidemill_http::endpoint_paths().collect();
        assert_eq!(all, covered, "each endpoint has its row here");
    }
    subject::stop(server);
}

#[test]
fn users_and_grants_survive_a_restart_and_show_what_they_should() {
    let (home, server) = start_guarded();
    let mut client = with_users(&server);
    let header = Basic.parts("root").1.unwrap();
    let ask = |client: &mut Client, statement: &str| {
        let target = format!("/query?q={}", encode(statement));
        client.request("POST", &target, &[("Authorization", &header)], b"").unwrap().text()
    };
    let users = r#"{"results":[{"statement_id":0,"series":[{"columns":["user","admin"],"values":[["root",true],["reader",false],["writer",false],["owner",false],["stranger",false]]}]}]}"#;
    assert_eq!(ask(&mut client, "SHOW USERS").trim(), users);
    ask(&mut client, "REVOKE READ ON d FROM owner");
    ask(&mut client, "SET PASSWORD FOR reader = 'changed'");
    ask(&mut client, "DROP USER stranger");
    let log = server.setup().log.clone();
    subject::stop(server);
    let mut setup = home.setup();
    setup.shared_secret = Some(SECRET.into());
    let server = subject::start(setup);
    let mut client = subject::client(&server);
    let grants =
        r#"{"results":[{"statement_id":0,"series":[{"columns":["database","privilege"],"values":[["d","WRITE"]]}]}]}"#;
    assert_eq!(ask(&mut client, "SHOW GRANTS FOR owner").trim(), grants);
    for (statement, error) in [
        ("SHOW GRANTS FOR stranger", "user not found"),
        ("CREATE USER reader WITH PASSWORD 'other'", "user already exists"),
        ("GRANT READ ON nowhere TO reader", "database not found: nowhere"),
        ("GRANT READ ON nowhere TO nobody", "user not found"),
        ("DROP USER nobody", "user not found"),
        ("SET PASSWORD FOR nobody = 'x'", "user not found"),
    ] {
        let expected = format!(r#"{{"results":[{{"statement_id":0,"error":"{error}"}}]}}"#);
        assert_eq!(ask(&mut client, statement).trim(), expected, "{statement}");
    }
    let again = ask(&mut client, "CREATE USER reader WITH PASSWORD 'changed'");
    assert_eq!(again.trim(), r#"{"results":[{"statement_id":0}]}"#);
    let old = client.query("SHOW DATABASES", &format!("u=reader&p={}", encode(PASSWORD))).unwrap();
    assert_eq!((old.status, error_of(&old.text()).as_str()), (401, "authorization failed"));
    let new = client.query("SHOW DATABASES", "u=reader&p=changed").unwrap();
    let seen =
        r#"{"results":[{"statement_id":0,"series":[{"name":"databases","columns":["name"],"values":[["d"]]}]}]}"#;
    assert_eq!((new.status, new.text().trim()), (200, seen));
    subject::stop(server);
    let printed = std::fs::read_to_string(log).unwrap();
    for secret in [PASSWORD, "changed", SECRET, "$2b$"] {
        assert!(!printed.contains(secret), "{secret} in the log");
    }
}
