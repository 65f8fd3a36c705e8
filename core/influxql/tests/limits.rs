//! Hostile sizes: depth and length are refused with a message or handled without deep recursion.
//! Everything runs on a thread with a small stack, so that recursion shows.

use tidemill_influxql::{EXPRESSION_HEIGHT_MAX, NESTING_MAX, TimeContext, parse_expr, parse_query, split_time};

/// A quarter of the default of a thread.
const STACK_BYTES: usize = 512 * 1024;

fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(test).unwrap().join().unwrap();
}

#[test]
fn deep_nesting_is_refused() {
    on_a_small_stack(|| {
        for (open, middle, close) in [("(", "v", ")"), ("f(", "v", ")"), ("-(", "v", ")"), ("1+(2*(", "v", "))")] {
            let text = format!("SELECT {}{middle}{} FROM n", open.repeat(10_000), close.repeat(10_000));
            let error = parse_query(&text).unwrap_err();
            assert!(error.to_string().contains("nested too deeply"), "{error}");
            assert!(error.position.is_some());
        }
        let subqueries = format!("SELECT v FROM {}n{}", "(SELECT v FROM ".repeat(10_000), ")".repeat(10_000));
        assert!(parse_query(&subqueries).unwrap_err().to_string().contains("nested too deeply"));
    });
}

#[test]
fn nesting_up_to_the_limit_works_on_a_small_stack() {
    on_a_small_stack(|| {
        let level = "a OR b AND c = d + e * (";
        let text = format!("SELECT v FROM n WHERE {}v{}", level.repeat(NESTING_MAX), ")".repeat(NESTING_MAX));
        // Six levels of the tree a parenthesis: too high a tree, refused without having run out of stack.
        assert!(parse_query(&text).unwrap_err().to_string().contains("too long"));
        let plain = format!("SELECT {}v{} FROM n", "(".repeat(NESTING_MAX), ")".repeat(NESTING_MAX));
        let query = parse_query(&plain).unwrap();
        assert_eq!(parse_query(&query.to_string()), Ok(query));
        let subqueries = format!("SELECT v FROM {}n{}", "(SELECT v FROM ".repeat(NESTING_MAX), ")".repeat(NESTING_MAX));
        let query = parse_query(&subqueries).unwrap();
        assert_eq!(query.to_string(), subqueries);
    });
}

#[test]
fn long_sums_are_refused() {
    on_a_small_stack(|| {
        let error = parse_expr(&vec!["v"; 100_000].join(" + ")).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        assert!(parse_expr(&vec!["v"; EXPRESSION_HEIGHT_MAX].join(" + ")).is_ok());
        assert!(parse_expr(&"-".repeat(100_000)).is_err());
        assert!(parse_expr(&"- ".repeat(100_000)).is_err());
    });
}

#[test]
fn long_chains_of_and_and_or_stay_flat() {
    on_a_small_stack(|| {
        for operator in [" OR ", " AND "] {
            let terms: Vec<String> = (0..50_000).map(|index| format!("host = 'h{index}'")).collect();
            let text = terms.join(operator);
            let condition = parse_expr(&text).unwrap();
            assert_eq!(condition.to_string(), text);
            let (range, rest) = split_time(Some(&condition), &TimeContext::utc(0)).unwrap();
            assert_eq!((range.min_ns, range.max_ns), (None, None));
            assert_eq!(rest.map(|rest| rest.to_string()), Some(text));
        }
    });
}

#[test]
fn hostile_regular_expressions_are_refused() {
    on_a_small_stack(|| {
        for pattern in [
            "(".repeat(10_000),
            format!("{}a{}", "(".repeat(10_000), ")".repeat(10_000)),
            "(((a{100}){100}){100})".into(),
            "\\pL{1000}".into(),
            "(?:".repeat(5_000),
        ] {
            assert!(parse_query(&format!("SELECT v FROM /{pattern}/")).is_err());
        }
    });
}
