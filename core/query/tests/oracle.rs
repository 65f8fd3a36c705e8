//! Random data and statements against a second, naive evaluation: row at a time, everything in memory, no parts.
//!
//! The statements are built from a small description, from which both the text and the naive answer are made. Float
//! values are small whole numbers and quarters, so sums do not depend on their order.

mod source;

use proptest::prelude::*;
use source::{MemorySource, Run, SECOND, text};
use std::collections::{BTreeMap, BTreeSet};
use tidemill_column::Value;

#[derive(Clone, Debug)]
struct Spec {
    /// Function and field; none for a raw select of v, s and the tag.
    calls: Vec<(&'static str, &'static str)>,
    where_tag: Option<(&'static str, &'static str)>,
    where_field: Option<(&'static str, i64)>,
    either: bool,
    range: Option<(i64, i64)>,
    group_host: bool,
    interval: i64,
    offset: i64,
    fill: &'static str,
    descending: bool,
    limit: u64,
    skip: u64,
}

type Point = (String, String, i64, BTreeMap<String, Value>);

fn points() -> impl Strategy<Value = Vec<Point>> {
    let value = prop_oneof![
        4 => (-40i64..40).prop_map(|quarters| Some(quarters as f64 / 4.0)),
        1 => Just(None)
    ];
    let integer = prop_oneof![3 => (-5i64..5).prop_map(Some), 1 => Just(None)];
    let string = prop_oneof![2 => prop::sample::select(vec!["p", "q", "r"]).prop_map(Some), 1 => Just(None)];
    let boolean = prop_oneof![2 => any::<bool>().prop_map(Some), 1 => Just(None)];
    let host = prop::sample::select(vec!["", "a", "b", "c"]);
    let dc = prop::sample::select(vec!["x", "y"]);
    let point = (host, dc, -20i64..60, value, integer, string, boolean).prop_map(|(host, dc, time, v, i, s, b)| {
        let mut fields = BTreeMap::new();
        fields.extend(v.map(|v| ("v".to_owned(), Value::Float(v))));
        fields.extend(i.map(|i| ("i".to_owned(), Value::Integer(i))));
        fields.extend(s.map(|s| ("s".to_owned(), Value::String(s.as_bytes().into()))));
        fields.extend(b.map(|b| ("b".to_owned(), Value::Boolean(b))));
        (host.to_owned(), dc.to_owned(), time, fields)
    });
    prop::collection::vec(point, 1..80)
}

fn spec() -> impl Strategy<Value = Spec> {
    let numeric =
        ["count", "sum", "mean", "min", "max", "first", "last", "spread", "stddev", "median", "mode", "count_distinct"];
    let call = prop_oneof![
        6 => (prop::sample::select(numeric.to_vec()), prop::sample::select(vec!["v", "i"])),
        1 => (prop::sample::select(vec!["count", "first", "last", "mode", "count_distinct"]), prop::sample::select(vec!["s", "b"])),
    ];
    let fill = prop::sample::select(vec!["null", "none", "previous", "linear", "3"]);
    (
        (
            prop::collection::vec(call, 0..4),
            prop::option::of((prop::sample::select(vec!["=", "!="]), prop::sample::select(vec!["a", "b", ""]))),
        ),
        prop::option::of((prop::sample::select(vec![">", "<=", "!="]), -3i64..4)),
        any::<bool>(),
        prop::option::of((-25i64..30, 0i64..50)),
        (any::<bool>(), prop_oneof![Just(0i64), 1i64..25], -7i64..7),
        (fill, any::<bool>(), prop_oneof![2 => Just(0u64), 1 => 1u64..5], prop_oneof![2 => Just(0u64), 1 => 1u64..4]),
    )
        .prop_map(|((calls, where_tag), where_field, either, range, (group_host, interval, offset), rest)| {
            let (fill, descending, limit, skip) = rest;
            Spec {
                interval: if calls.is_empty() { 0 } else { interval },
                fill: if calls.is_empty() { "null" } else { fill },
                calls,
                where_tag,
                where_field,
                either,
                range: range.map(|(from, length)| (from, from + length)),
                group_host,
                offset,
                descending,
                limit,
                skip,
            }
        })
}

impl Spec {
    fn text(&self) -> String {
        let mut fields: Vec<String> = Vec::new();
        for (function, field) in &self.calls {
            fields.push(match *function {
                "count_distinct" => format!("count(distinct({field}))"),
                function => format!("{function}({field})"),
            });
        }
        if fields.is_empty() {
            fields = vec!["v".to_owned(), "s".to_owned(), "dc".to_owned(), "v*i".to_owned()];
        }
        let mut text = format!("SELECT {} FROM m", fields.join(", "));
        let mut conditions = Vec::new();
        let tag = self.where_tag.map(|(operator, value)| format!("host {operator} '{value}'"));
        let field = self.where_field.map(|(operator, value)| format!("i {operator} {value}"));
        match (tag, field) {
            (Some(tag), Some(field)) => {
                conditions.push(format!("({tag} {} {field})", if self.either { "OR" } else { "AND" }));
            }
            (tag, field) => conditions.extend(tag.into_iter().chain(field)),
        }
        if let Some((from, to)) = self.range {
            conditions.push(format!("time >= {from}s AND time <= {to}s"));
        }
        if !conditions.is_empty() {
            text += &format!(" WHERE {}", conditions.join(" AND "));
        }
        let mut dimensions = Vec::new();
        if self.interval > 0 {
            dimensions.push(format!("time({}s, {}s)", self.interval, self.offset));
        }
        if self.group_host {
            dimensions.push("host".to_owned());
        }
        if !dimensions.is_empty() {
            text += &format!(" GROUP BY {}", dimensions.join(", "));
        }
        if self.fill != "null" {
            text += &format!(" FILL({})", self.fill);
        }
        if self.descending {
            text += " ORDER BY time DESC";
        }
        if self.limit > 0 {
            text += &format!(" LIMIT {}", self.limit);
        }
        if self.skip > 0 {
            text += &format!(" OFFSET {}", self.skip);
        }
        text
    }
}

struct Row<'a> {
    time: i64,
    key: String,
    tags: &'a [(String, String)],
    fields: &'a BTreeMap<String, Value>,
}

fn tag<'a>(tags: &'a [(String, String)], name: &str) -> &'a str {
    tags.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Float(value) => *value,
        Value::Integer(value) => *value as f64,
        _ => panic!("{value:?} is no number"),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Float(value) if value.is_nan() => "null".to_owned(),
        Value::Float(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::String(value) => format!("\"{}\"", String::from_utf8_lossy(value)),
        Value::Unsigned(value) => value.to_string(),
    }
}

fn ascending(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        (a, b) => number(a).total_cmp(&number(b)),
    }
}

/// A function over (time, value) pairs that are not empty, with the time of the chosen point if it chooses one.
fn apply(function: &str, pairs: &[(i64, Value)]) -> (Option<i64>, Value) {
    let integers = matches!(pairs[0].1, Value::Integer(_));
    let typed = |value: f64| if integers { Value::Integer(value as i64) } else { Value::Float(value) };
    let numbers = || pairs.iter().map(|(_, value)| number(value)).collect::<Vec<f64>>();
    let mut by_value = pairs.to_vec();
    by_value.sort_by(|a, b| ascending(&a.1, &b.1).then(a.0.cmp(&b.0)));
    let chosen = |pair: &(i64, Value)| (Some(pair.0), pair.1.clone());
    match function {
        "count" => (None, Value::Integer(pairs.len() as i64)),
        "count_distinct" => {
            let distinct: BTreeSet<String> = pairs.iter().map(|(_, value)| show(value)).collect();
            (None, Value::Integer(distinct.len() as i64))
        }
        "sum" => (None, typed(numbers().iter().sum())),
        "mean" => (None, Value::Float(numbers().iter().sum::<f64>() / pairs.len() as f64)),
        "min" => chosen(&by_value[0]),
        "max" => {
            let largest = by_value.last().unwrap().1.clone();
            chosen(by_value.iter().find(|(_, value)| *value == largest).unwrap())
        }
        "first" => {
            let earliest = pairs.iter().map(|(time, _)| *time).min().unwrap();
            let mut among = by_value.iter().filter(|(time, _)| *time == earliest);
            // Of booleans the false one, of others the largest.
            let is_boolean = matches!(pairs[0].1, Value::Boolean(_));
            chosen(if is_boolean { among.next().unwrap() } else { among.next_back().unwrap() })
        }
        "last" => {
            let latest = pairs.iter().map(|(time, _)| *time).max().unwrap();
            chosen(by_value.iter().rfind(|(time, _)| *time == latest).unwrap())
        }
        "spread" => (None, typed(number(&by_value.last().unwrap().1) - number(&by_value[0].1))),
        "stddev" => {
            let mut in_time = by_value.clone();
            in_time.sort_by_key(|(time, _)| *time);
            let mut mean = 0.0;
            for (count, (_, value)) in in_time.iter().enumerate() {
                mean += (number(value) - mean) / (count as f64 + 1.0);
            }
            let squares: f64 = in_time.iter().map(|(_, value)| (number(value) - mean).powi(2)).sum();
            let deviation = if pairs.len() < 2 { f64::NAN } else { (squares / (pairs.len() as f64 - 1.0)).sqrt() };
            (None, Value::Float(deviation))
        }
        "median" => {
            let (low, high) = (number(&by_value[(pairs.len() - 1) / 2].1), number(&by_value[pairs.len() / 2].1));
            (None, Value::Float(low + (high - low) / 2.0))
        }
        "mode" => {
            if let Value::Boolean(_) = pairs[0].1 {
                let trues = pairs.iter().filter(|(_, value)| *value == Value::Boolean(true)).count();
                return (None, Value::Boolean(trues * 2 >= pairs.len()));
            }
            let (mut best, mut best_count, mut best_time) = (by_value[0].1.clone(), 0, by_value[0].0);
            let (mut run, mut run_count, mut run_time) = (by_value[0].1.clone(), 0, by_value[0].0);
            for (time, value) in &by_value {
                if *value != run {
                    (run, run_count, run_time) = (value.clone(), 1, *time);
                    continue;
                }
                run_count += 1;
                if best_count > run_count || best_count == run_count && run_time > best_time {
                    continue;
                }
                (best, best_count, best_time) = (value.clone(), run_count, *time);
            }
            (None, best)
        }
        other => panic!("{other}"),
    }
}

/// The naive answer, as the text form of the driver.
fn answer(source: &MemorySource, spec: &Spec, now: i64) -> String {
    let in_range = |time: i64| spec.range.is_none_or(|(from, to)| (from..=to).contains(&time));
    let upper = match (spec.range, spec.interval > 0) {
        (Some((_, to)), _) => to,
        (None, true) => now,
        (None, false) => i64::MAX,
    };
    let mut groups: BTreeMap<String, Vec<Row<'_>>> = BTreeMap::new();
    for series in &source.series {
        for (time, fields) in &series.rows {
            let seconds = *time / SECOND;
            let host = tag(&series.tags, "host");
            let by_tag = spec.where_tag.map(|(operator, value)| (host == value) == (operator == "="));
            let by_field = spec.where_field.map(|(operator, bound)| match fields.get("i") {
                Some(Value::Integer(value)) => match operator {
                    ">" => *value > bound,
                    "<=" => *value <= bound,
                    _ => *value != bound,
                },
                _ => false,
            });
            let passes = match (by_tag, by_field) {
                (Some(one), Some(two)) => {
                    if spec.either {
                        one || two
                    } else {
                        one && two
                    }
                }
                (one, two) => one.or(two).unwrap_or(true),
            };
            if !passes || !in_range(seconds) || seconds > upper {
                continue;
            }
            let group = if spec.group_host { host.to_owned() } else { String::new() };
            let row = Row { time: seconds, key: series.key(), tags: &series.tags, fields };
            groups.entry(group).or_default().push(row);
        }
    }
    let mut lines = Vec::new();
    for (group, mut rows) in groups {
        rows.sort_by(|a, b| (a.time, &a.key).cmp(&(b.time, &b.key)));
        let mut table = if spec.calls.is_empty() { raw_rows(&rows, spec) } else { windows(&rows, spec, now) };
        if spec.descending {
            table.reverse();
        }
        let limit = if spec.limit == 0 { usize::MAX } else { spec.limit as usize };
        let table: Vec<_> = table.into_iter().skip(spec.skip as usize).take(limit).collect();
        if table.is_empty() {
            continue;
        }
        let name = if spec.group_host { format!("m{{host={group}}}") } else { "m".to_owned() };
        let cells: Vec<String> = table.iter().map(|(time, cells)| format!("{time}:{}", cells.join(","))).collect();
        lines.push((name, cells.join(" ")));
    }
    if spec.descending {
        lines.reverse();
    }
    lines.into_iter().map(|(name, cells)| format!("{name} {cells}")).collect::<Vec<_>>().join("\n")
}

fn raw_rows(rows: &[Row<'_>], _: &Spec) -> Vec<(i64, Vec<String>)> {
    let shown = |value: Option<&Value>| value.map_or("null".to_owned(), show);
    rows.iter()
        .filter(|row| ["v", "s", "i"].iter().any(|field| row.fields.contains_key(*field)))
        .map(|row| {
            let product = match (row.fields.get("v"), row.fields.get("i")) {
                (Some(v), Some(i)) => Some(Value::Float(number(v) * number(i))),
                _ => None,
            };
            let dc = tag(row.tags, "dc");
            let cells = vec![
                shown(row.fields.get("v")),
                shown(row.fields.get("s")),
                format!("\"{dc}\""),
                shown(product.as_ref()),
            ];
            (row.time, cells)
        })
        .collect()
}

fn windows(rows: &[Row<'_>], spec: &Spec, now: i64) -> Vec<(i64, Vec<String>)> {
    let start = |time: i64| match spec.interval {
        0 => spec.range.map_or(0, |(from, _)| from),
        interval => time - (time - spec.offset).rem_euclid(interval),
    };
    // Values by call and window.
    let mut results: Vec<BTreeMap<i64, (Option<i64>, Value)>> = Vec::new();
    for (function, field) in &spec.calls {
        let mut pairs: BTreeMap<i64, Vec<(i64, Value)>> = BTreeMap::new();
        for row in rows {
            if let Some(value) = row.fields.get(*field) {
                pairs.entry(start(row.time)).or_default().push((row.time, value.clone()));
            }
        }
        results.push(pairs.into_iter().map(|(window, pairs)| (window, apply(function, &pairs))).collect());
    }
    let present: BTreeSet<i64> = results.iter().flat_map(BTreeMap::keys).copied().collect();
    let (Some(first), Some(_)) = (present.first(), present.last()) else { return Vec::new() };
    let mut starts: Vec<i64> = present.iter().copied().collect();
    if spec.interval > 0 && spec.fill != "none" {
        let from = spec.range.map_or(*first, |(from, _)| start(from));
        // Newest first, an open lower end stops at the last window that is met, which is the oldest one.
        let to = spec.range.map_or(start(now), |(_, to)| start(to));
        starts = (from..=to).step_by(spec.interval as usize).collect();
    }
    // The same call twice is one selector.
    let alike = spec.calls.windows(2).all(|pair| pair[0] == pair[1]);
    let selector = alike && matches!(spec.calls[0], ("min" | "max" | "first" | "last", _));
    let mut cells: Vec<Vec<String>> = vec![Vec::new(); starts.len()];
    for ((function, field), values) in spec.calls.iter().zip(&results) {
        let order: Vec<usize> =
            if spec.descending { (0..starts.len()).rev().collect() } else { (0..starts.len()).collect() };
        let mut previous: Option<(i64, Value)> = None;
        for index in order {
            let window = starts[index];
            let counts = matches!(*function, "count" | "count_distinct");
            let cell = match values.get(&window) {
                Some((_, value)) => {
                    previous = Some((window, value.clone()));
                    show(value)
                }
                None => match spec.fill {
                    "null" if counts && !values.is_empty() => {
                        let before =
                            spec.range.is_none() && !spec.descending && window < *values.keys().next().unwrap();
                        if before { "null".to_owned() } else { "0".to_owned() }
                    }
                    "3" => match (counts, *field, *function) {
                        (true, ..) | (_, "i", _) | (_, "v", _) => "3".to_owned(),
                        (_, "s", _) => "\"\"".to_owned(),
                        _ => "false".to_owned(),
                    },
                    "previous" => previous.as_ref().map_or("null".to_owned(), |(_, value)| show(value)),
                    "linear" => {
                        let next = if spec.descending {
                            values.range(..window).next_back()
                        } else {
                            values.range(window + 1..).next()
                        };
                        match (&previous, next) {
                            (Some((t0, a)), Some((t1, (_, b))))
                                if !matches!(a, Value::String(_) | Value::Boolean(_)) =>
                            {
                                let part = (window - t0) as f64 / (t1 - t0) as f64;
                                let value = (number(b) - number(a)) * part + number(a);
                                match a {
                                    Value::Integer(_) => (value as i64).to_string(),
                                    _ => show(&Value::Float(value)),
                                }
                            }
                            _ => "null".to_owned(),
                        }
                    }
                    _ => "null".to_owned(),
                },
            };
            cells[index].push(cell);
        }
    }
    starts
        .into_iter()
        .zip(cells)
        .map(|(window, cells)| {
            let own = results[0].get(&window).and_then(|(time, _)| *time);
            (if selector && spec.interval == 0 { own.unwrap_or(window) } else { window }, cells)
        })
        .collect()
}

fn source_of(points: &[Point]) -> MemorySource {
    let mut source = MemorySource::default();
    for (host, dc, time, fields) in points {
        if fields.is_empty() {
            continue;
        }
        let mut tags = vec![("dc".to_owned(), dc.clone())];
        if !host.is_empty() {
            tags.push(("host".to_owned(), host.clone()));
        }
        source.point("m", tags, time * SECOND, fields.clone());
    }
    source
}

/// The driver's text without column names.
fn found(source: &MemorySource, query: &str, run: &Run) -> Result<String, String> {
    let answer = text(&source.run(query, run)?);
    let line = |line: &str| {
        let (name, rest) = line.split_once(' ').unwrap();
        format!("{name} {}", rest.split_once(' ').unwrap().1)
    };
    Ok(answer.lines().map(line).collect::<Vec<_>>().join("\n"))
}

/// Fields of which no point holds a value do not exist, and then the statement means something else.
fn has_all_fields(source: &MemorySource) -> bool {
    let schema = source.schema(0, "m");
    schema.fields.len() == 4 && schema.tag_keys.len() == 2
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn answers_equal_the_naive_evaluation(
        points in points(), spec in spec(), partitions in 1u32..6, batch_rows in 1usize..8, chunk_rows in 1usize..40, salt: u64,
        statistics: bool,
    ) {
        let source = source_of(&points);
        prop_assume!(has_all_fields(&source));
        let run =
            Run { now_ns: 80 * SECOND, partitions, batch_rows, chunk_rows, salt, statistics, ..Run::default() };
        let expected = answer(&source, &spec, 80);
        prop_assert_eq!(found(&source, &spec.text(), &run), Ok(expected), "{}", spec.text());
    }

    #[test]
    fn the_spread_over_partitions_does_not_matter(
        points in points(),
        query in prop::sample::select(vec![
            "SELECT top(v, 3) FROM m",
            "SELECT top(v, host, 2), i, s FROM m",
            "SELECT bottom(i, dc, host, 3) FROM m GROUP BY time(7s)",
            "SELECT bottom(v, 2), * FROM m GROUP BY dc",
            "SELECT percentile(v, 50), s FROM m GROUP BY time(20s)",
            "SELECT percentile(i, 90) FROM m GROUP BY host",
            "SELECT max(i), s, host FROM m GROUP BY time(9s)",
            "SELECT last(s), v FROM m GROUP BY dc",
            "SELECT first(b), * FROM m",
            "SELECT distinct(i) FROM m GROUP BY time(30s) ORDER BY time DESC",
            "SELECT * FROM m ORDER BY time DESC LIMIT 7 OFFSET 2",
            "SELECT v, i FROM m WHERE v > 1 OR host = 'a' GROUP BY dc SLIMIT 1",
            "SELECT mean(v), max(i) FROM m WHERE s =~ /p|q/ GROUP BY time(5s), * FILL(linear) SLIMIT 2 SOFFSET 1",
            "SELECT count(v), last(i) FROM m GROUP BY time(3s) FILL(previous) ORDER BY time DESC LIMIT 9",
        ]),
        one in (1u32..6, 1usize..8, 1usize..40, any::<u64>()),
        two in (1u32..6, 1usize..8, 1usize..40, any::<u64>()),
    ) {
        let source = source_of(&points);
        prop_assume!(has_all_fields(&source));
        let run = |(partitions, batch_rows, chunk_rows, salt): (u32, usize, usize, u64)| {
            let statistics = salt & 1 == 0;
            let run =
                Run { now_ns: 80 * SECOND, partitions, batch_rows, chunk_rows, salt, statistics, ..Run::default() };
            source.run(query, &run).map(|answer| text(&answer))
        };
        prop_assert_eq!(run(one), run(two), "{}", query);
    }
}
