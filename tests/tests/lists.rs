//! Long lists of series and of values of tags: whole, in order, cut where they are asked to be, and within the budget of
//! their query.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tidemill_perf::http::Client;
use tidemill_perf::server::Server;
use tidemill_tests::subject;

/// One partition, so that its lists take more than one turn of its core.
fn start(home: &subject::Home, budget: &str) -> Server {
    let config = home.path().join("lists.toml");
    let text = format!("[data]\npartitions = 1\n[coordinator]\nquery-memory-limit = \"{budget}\"\n");
    std::fs::write(&config, text).unwrap();
    let mut setup = home.setup();
    setup.arguments = vec!["--config".into(), config.to_string_lossy().into_owned()];
    subject::start(setup)
}

/// Series of two measurements, in an order that is not theirs; as the answers show them.
fn fill(client: &mut Client) -> BTreeSet<String> {
    subject::query(client, "CREATE DATABASE d", "").unwrap();
    let number = |position: u32| position * 7_919 % 20_000;
    let key = |number: u32| match number % 4 {
        0 => format!("m\\ x,host=h{}", number / 3),
        _ => format!("m,dc=dc{},host=h{}", number % 7, number % 9_001),
    };
    let keys: BTreeSet<String> = (0..20_000).map(|position| key(number(position))).collect();
    for first in (0..20_000).step_by(5_000) {
        let lines: String =
            (first..first + 5_000).map(|position| format!("{} v=1 1\n", key(number(position)))).collect();
        subject::write(client, "db=d", &lines).unwrap();
    }
    keys
}

fn series(client: &mut Client, statement: &str) -> Vec<Value> {
    let text = subject::query(client, statement, "db=d").unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["results"][0]["series"].as_array().cloned().unwrap_or_default()
}

/// The rows of the only series of an answer.
fn keys(client: &mut Client, statement: &str) -> Vec<String> {
    let found = series(client, statement);
    assert!(found.len() <= 1, "{statement}");
    let rows = found.first().and_then(|series| series["values"].as_array()).cloned().unwrap_or_default();
    rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
}

/// By measurement, pairs of tag and value.
fn pairs(client: &mut Client, statement: &str) -> Vec<(String, Vec<(String, String)>)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = |series: &Value| {
        let rows = series["values"].as_array().unwrap().iter();
        rows.map(|row| (text(&row[0]), text(&row[1]))).collect()
    };
    series(client, statement).iter().map(|series| (text(&series["name"]), rows(series))).collect()
}

#[test]
fn long_lists_come_whole_and_in_order_and_are_cut_where_they_are_asked_to_be() {
    if subject::skip_for_upstream("it sorts lists otherwise") {
        return;
    }
    let home = subject::Home::new();
    let server = start(&home, "64m");
    let client = &mut subject::client(&server);
    let all: Vec<String> = fill(client).into_iter().collect();
    assert_eq!(keys(client, "SHOW SERIES"), all);
    assert_eq!(keys(client, "SHOW SERIES LIMIT 7 OFFSET 9990"), all[9_990..9_997]);
    assert_eq!(keys(client, "SHOW SERIES OFFSET 12345"), all[12_345..]);
    assert_eq!(keys(client, "SHOW SERIES LIMIT 20000 OFFSET 12345"), all[12_345..]);
    assert_eq!(keys(client, "SHOW SERIES LIMIT 5 OFFSET 30000"), Vec::<String>::new());
    let of_dc: Vec<String> = all.iter().filter(|key| key.contains("dc=dc3,")).cloned().collect();
    assert_eq!(keys(client, "SHOW SERIES FROM m WHERE dc = 'dc3'"), of_dc);
    let chunked = client.query("SHOW SERIES", "db=d&chunked=true&chunk_size=999").unwrap().text();
    assert_eq!(chunked.lines().count(), all.len().div_ceil(999));

    let mut expected: BTreeMap<&str, BTreeSet<(String, String)>> = BTreeMap::new();
    for key in &all {
        let (measurement, tags) = key.split_once(',').unwrap();
        let name = if measurement == "m" { "m" } else { "m x" };
        let pairs = tags.split(',').map(|tag| tag.split_once('=').unwrap());
        expected.entry(name).or_default().extend(pairs.map(|(tag, value)| (tag.to_owned(), value.to_owned())));
    }
    let cut = |skip: usize, count: usize| -> Vec<(String, Vec<(String, String)>)> {
        let rows = |pairs: &BTreeSet<(String, String)>| pairs.iter().skip(skip).take(count).cloned().collect();
        let tables = expected.iter().map(|(name, pairs)| ((*name).to_owned(), rows(pairs)));
        tables.filter(|(_, pairs): &(_, Vec<_>)| !pairs.is_empty()).collect()
    };
    let both = "SHOW TAG VALUES WITH KEY IN (\"dc\", \"host\")";
    assert_eq!(pairs(client, both), cut(0, usize::MAX));
    assert_eq!(pairs(client, &format!("{both} LIMIT 5 OFFSET 4")), cut(4, 5));
    assert_eq!(pairs(client, &format!("{both} OFFSET 6000")), cut(6_000, usize::MAX));
    let one = pairs(client, "SHOW TAG VALUES FROM m WITH KEY = host WHERE dc = 'dc3' AND host =~ /^h99/");
    let host = |key: &String| key.split_once("host=").unwrap().1.to_owned();
    let hosts: BTreeSet<String> = of_dc.iter().map(host).filter(|host| host.starts_with("h99")).collect();
    assert_eq!(one[0].1.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>(), Vec::from_iter(hosts));
    subject::stop(server);
}

#[test]
fn a_query_that_needs_more_than_its_budget_fails_alone_and_names_itself() {
    if subject::skip_for_upstream("its queries have no budget") {
        return;
    }
    let home = subject::Home::new();
    let server = start(&home, "384k");
    let client = &mut subject::client(&server);
    let all = fill(client);
    for statement in ["SELECT * FROM /./ GROUP BY *", "SELECT count(v) FROM m GROUP BY *"] {
        let text = client.query(statement, "db=d").unwrap().text();
        let answer: Value = serde_json::from_str(&text).unwrap();
        let error = answer["results"][0]["error"].as_str().unwrap_or_default().to_owned();
        let named = error.strip_prefix("query ").and_then(|rest| rest.split_once(' ')).unwrap_or_default();
        assert!(named.0.parse::<u64>().is_ok(), "{statement}: {}", &text[text.len().saturating_sub(300)..]);
        assert_eq!(named.1, "needs more memory than its budget of 393216 bytes", "{statement}");
        // What it held is free, and others go on.
        assert_eq!(keys(client, "SHOW SERIES LIMIT 3"), Vec::from_iter(all.iter().take(3).cloned()));
        assert_eq!(
            series(client, "SELECT count(v) FROM m WHERE dc = 'dc3' AND host = 'h17'")[0]["values"][0][1].as_u64(),
            Some(1)
        );
    }
    subject::write(client, "db=d", "m v=1 2").unwrap();
    subject::stop(server);
}
