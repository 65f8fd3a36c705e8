//! Texts of queries: nothing panics, and what was parsed prints as a text that parses to the same tree. The text is also
//! tried as an expression, a regular expression and a duration.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemill_influxql::{
    DurationText, Expr, RegexLiteral, Statement, TimeContext, parse_duration, parse_expr, parse_query, split_time,
};

const NOW: i64 = 1_700_000_000_123_456_789;
const REGEX_BYTES_MAX: usize = 64;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    read_query(&text);
    if let Ok(expr) = parse_expr(&text) {
        read_expr(&expr);
    }
    // Programs of long texts take most of the time and teach little.
    if text.len() <= REGEX_BYTES_MAX
        && let Ok(regex) = RegexLiteral::new(&text)
    {
        assert_eq!(regex.text(), text);
        regex.is_match(data);
    }
    if let Ok(duration_ns) = parse_duration(&text) {
        assert_eq!(parse_duration(&DurationText(duration_ns).to_string()), Ok(duration_ns));
    }
});

fn read_query(text: &str) {
    let Ok(query) = parse_query(text) else { return };
    let printed = format!("{query:#}");
    // A password prints as this word, and then not every text parses again.
    if !printed.contains("[REDACTED]") {
        assert_eq!(parse_query(&printed).as_ref(), Ok(&query), "{printed}");
    }
    for statement in &query.statements {
        statement.required_privileges("db");
        statement.read_only_context_warning();
        if let Statement::Select(select) = statement {
            let _ = select.time_dimension();
            select.fields.iter().for_each(|field| drop(field.column_name()));
            let _ = split_time(select.condition.as_ref(), &TimeContext::utc(NOW));
        }
    }
}

fn read_expr(expr: &Expr) {
    let printed = format!("{expr:#}");
    assert_eq!(parse_expr(&printed).as_ref(), Ok(expr), "{printed}");
    let east = TimeContext { now_ns: None, zone_offset_ns: &|local| local % 50_400_000_000_000 };
    for context in [TimeContext::utc(NOW), east] {
        let _ = split_time(Some(expr), &context);
        expr.clone().reduce(&context).to_string();
    }
}
