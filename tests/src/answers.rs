//! Structural comparison of JSON answers.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// How numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Numbers {
    /// Same kind and same value.
    Exact,
    /// Numbers with a fraction or an exponent may differ by this part of their size: two servers may add floats in
    /// different orders.
    Within(f64),
}

/// The first difference in words, with its path; None when the values are equal.
pub fn difference(expected: &Value, found: &Value, numbers: Numbers) -> Option<String> {
    differ("", expected, found, numbers)
}

fn differ(path: &str, expected: &Value, found: &Value, numbers: Numbers) -> Option<String> {
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                let at = format!("{path}.{key}");
                match b.get(key) {
                    None => return Some(format!("{at} is missing; expected {value}")),
                    Some(other) => {
                        if let Some(text) = differ(&at, value, other, numbers) {
                            return Some(text);
                        }
                    }
                }
            }
            b.keys().find(|key| !a.contains_key(*key)).map(|key| format!("{path}.{key} is too much: {}", b[key]))
        }
        (Value::Array(a), Value::Array(b)) => {
            for (index, (value, other)) in a.iter().zip(b).enumerate() {
                if let Some(text) = differ(&format!("{path}[{index}]"), value, other, numbers) {
                    return Some(text);
                }
            }
            (a.len() != b.len()).then(|| format!("{path} has {} entries instead of {}", b.len(), a.len()))
        }
        (Value::Number(a), Value::Number(b)) if close(a, b, numbers) => None,
        _ if expected == found => None,
        _ => Some(format!("{path} is {found} instead of {expected}")),
    }
}

fn close(a: &serde_json::Number, b: &serde_json::Number, numbers: Numbers) -> bool {
    let Numbers::Within(tolerance) = numbers else { return a == b };
    if !a.is_f64() && !b.is_f64() {
        return a == b;
    }
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1e-9),
        _ => false,
    }
}

/// Compares bodies: as JSON documents, line by line, when the expected one is JSON, otherwise as text.
pub fn body_difference(expected: &str, found: &str, numbers: Numbers) -> Option<String> {
    let parse = |text: &str| -> Option<Vec<Value>> {
        text.lines().filter(|line| !line.trim().is_empty()).map(|line| serde_json::from_str(line).ok()).collect()
    };
    match (parse(expected), parse(found)) {
        (Some(a), Some(b)) if !a.is_empty() => difference(&Value::Array(a), &Value::Array(b), numbers),
        _ if expected.trim_end() == found.trim_end() => None,
        _ => Some(format!("the body is {found:?} instead of {expected:?}")),
    }
}

/// The answer with the rows of each series that have the same time in the order of their text, for a comparison that
/// leaves their order free. None when it is not JSON.
pub fn with_equal_times_sorted(body: &str) -> Option<Value> {
    let mut answer: Value = serde_json::from_str(body).ok()?;
    for series in series_of(&mut answer) {
        if let Some(rows) = series["values"].as_array_mut() {
            rows.chunk_by_mut(|a, b| a[0] == b[0]).for_each(|rows| rows.sort_by_cached_key(Value::to_string));
        }
    }
    Some(answer)
}

/// The answer with nulls in the columns whose names begin with `name`. None when it is not JSON.
pub fn without_columns(body: &str, name: &str) -> Option<Value> {
    let mut answer: Value = serde_json::from_str(body).ok()?;
    for series in series_of(&mut answer) {
        let named = |column: &Value| column.as_str().is_some_and(|column| column.starts_with(name));
        let places: Vec<bool> = series["columns"].as_array().into_iter().flatten().map(named).collect();
        for row in series["values"].as_array_mut().into_iter().flatten().filter_map(Value::as_array_mut) {
            row.iter_mut().zip(&places).filter(|(_, named)| **named).for_each(|(cell, _)| *cell = Value::Null);
        }
    }
    Some(answer)
}

/// `expected`, an answer to SHOW SERIES, without the series that `found` lacks and whose key is the beginning of another's.
pub fn without_stale_series(mut expected: Value, found: &Value) -> Value {
    let key = |row: &Value| row[0].as_str().unwrap_or_default().to_owned();
    let mut there = found.clone();
    let there: BTreeSet<String> =
        series_of(&mut there).filter_map(|series| series["values"].as_array()).flatten().map(key).collect();
    for series in series_of(&mut expected) {
        let Some(rows) = series["values"].as_array_mut() else { continue };
        let all: BTreeSet<String> = rows.iter().map(key).collect();
        let begins_another = |key: &str| {
            let longer = format!("{key},");
            all.range(longer.clone()..).next().is_some_and(|next| next.starts_with(&longer))
        };
        rows.retain(|row| there.contains(&key(row)) || !begins_another(&key(row)));
    }
    expected
}

/// The rows of `expected` that `found` has too, in series of the same name.
pub fn only_rows_of(mut expected: Value, found: &Value) -> Value {
    let mut found = found.clone();
    let mut there: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for series in series_of(&mut found) {
        let rows = series["values"].as_array().cloned().unwrap_or_default();
        there.entry(series["name"].to_string()).or_default().extend(rows);
    }
    for series in series_of(&mut expected) {
        let there = there.get(&series["name"].to_string());
        if let Some(rows) = series["values"].as_array_mut() {
            rows.retain(|row| there.is_some_and(|there| there.contains(row)));
        }
    }
    without_empty_series(&mut expected);
    expected
}

/// `expected` with what fill(number) makes of booleans and texts in `found`, false and the empty text, in the place of
/// numbers.
pub fn with_fills_of(expected: Value, found: &Value) -> Value {
    match (expected, found) {
        (Value::Number(_), Value::Bool(false)) => Value::Bool(false),
        (Value::Number(_), Value::String(text)) if text.is_empty() => found.clone(),
        (Value::Array(all), Value::Array(others)) if all.len() == others.len() => {
            Value::Array(all.into_iter().zip(others).map(|(value, other)| with_fills_of(value, other)).collect())
        }
        (Value::Object(all), Value::Object(others)) => {
            let filled = |(key, value): (String, Value)| {
                let value = match others.get(&key) {
                    Some(other) => with_fills_of(value, other),
                    None => value,
                };
                (key, value)
            };
            Value::Object(all.into_iter().map(filled).collect())
        }
        (expected, _) => expected,
    }
}

/// What LIMIT and OFFSET leave of an answer: so many rows of each series, and no series without rows. None when it is
/// not JSON.
pub fn limited(body: &str, (count, skipped): (usize, usize)) -> Option<Value> {
    let mut answer: Value = serde_json::from_str(body).ok()?;
    for series in series_of(&mut answer) {
        if let Some(rows) = series["values"].as_array_mut() {
            *rows = rows.iter().skip(skipped).take(count).cloned().collect();
        }
    }
    without_empty_series(&mut answer);
    Some(answer)
}

fn without_empty_series(answer: &mut Value) {
    for result in answer["results"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(Value::Array(series)) = result.get_mut("series") {
            series.retain(|series| series["values"].as_array().is_some_and(|rows| !rows.is_empty()));
            if series.is_empty() {
                result.remove("series");
            }
        }
    }
}

fn series_of(answer: &mut Value) -> impl Iterator<Item = &mut Value> {
    let results = answer["results"].as_array_mut().into_iter().flatten();
    results.filter_map(|result| result.get_mut("series")?.as_array_mut()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_keys_is_free_and_all_else_is_not() {
        assert_eq!(body_difference(r#"{"a":1,"b":[1,2]}"#, r#"{"b":[1,2],"a":1}"#, Numbers::Exact), None);
        for (expected, found) in [
            (r#"{"a":1}"#, r#"{"a":1.0}"#),
            (r#"{"a":1}"#, r#"{"a":1,"b":2}"#),
            (r#"{"a":1,"b":2}"#, r#"{"a":1}"#),
            (r#"[1,2]"#, r#"[2,1]"#),
            (r#"[1,2]"#, r#"[1,2,3]"#),
            (r#"[null]"#, r#"[0]"#),
            ("text", "other"),
            (r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#),
        ] {
            assert!(body_difference(expected, found, Numbers::Exact).is_some(), "{expected} {found}");
        }
    }

    #[test]
    fn tolerance_is_for_fractions_only() {
        let within = Numbers::Within(1e-12);
        assert_eq!(body_difference("[0.1]", "[0.10000000000000002]", within), None);
        assert!(body_difference("[0.1]", "[0.1001]", within).is_some());
        assert!(body_difference("[9007199254740993]", "[9007199254740992]", within).is_some());
    }

    #[test]
    fn only_rows_of_equal_time_change_their_order() {
        let body = |rows: &str| format!(r#"{{"results":[{{"statement_id":0,"series":[{{"values":{rows}}}]}}]}}"#);
        let sorted = |rows: &str| with_equal_times_sorted(&body(rows)).unwrap();
        assert_eq!(sorted("[[1,2],[1,1],[2,0]]"), sorted("[[1,1],[1,2],[2,0]]"));
        assert_ne!(sorted("[[1,1],[2,0]]"), sorted("[[2,0],[1,1]]"));
        assert_ne!(sorted("[[1,1],[1,1]]"), sorted("[[1,1],[1,2]]"));
        let keys = |keys: &[&str]| -> Value {
            let rows: Vec<[&str; 1]> = keys.iter().map(|key| [*key]).collect();
            serde_json::json!({"results": [{"series": [{"values": rows}]}]})
        };
        let stale = |expected: &[&str], found: &[&str]| without_stale_series(keys(expected), &keys(found));
        assert_eq!(stale(&["m", "m,a=b", "m,a=b,c=d"], &["m,a=b,c=d"]), keys(&["m,a=b,c=d"]));
        assert_ne!(stale(&["m,a=b", "m,a=bc"], &["m,a=bc"]), keys(&["m,a=bc"]));
        let rows_of = |expected: &[&str], found: &[&str]| only_rows_of(keys(expected), &keys(found));
        assert_eq!(rows_of(&["a", "b", "c"], &["a", "c"]), keys(&["a", "c"]));
        assert_ne!(rows_of(&["a", "b"], &["a", "c"]), keys(&["a", "c"]));
        let fills: Value = serde_json::json!([[1, 5, -3], [2, "", false]]);
        let filled = with_fills_of(serde_json::json!([[1, 5, -3], [2, 0, 0]]), &fills);
        assert_eq!(filled, fills);
        assert_ne!(with_fills_of(serde_json::json!([1, true, "a"]), &serde_json::json!([2, false, ""])), fills[0]);
        let slice = |rows: &str, limit| limited(&body(rows), limit).unwrap();
        assert_eq!(slice("[[1],[2],[3]]", (1, 1)), slice("[[2]]", (5, 0)));
        assert_eq!(slice("[[1]]", (1, 1)), serde_json::json!({"results": [{"statement_id": 0}]}));
    }
}
