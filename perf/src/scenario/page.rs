//! The page that shows a run: one HTML file with its pictures in it.

use super::run::{DatabaseReport, ScenarioReport};
use super::watch::{Event, Moment};
use crate::report::LoadReport;
use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 220.0;
const BAR: &str = "#9dbad5";
const LINE: &str = "#b03030";
const MARK: &str = "#8e44ad";

/// The whole page.
pub fn html(report: &ScenarioReport) -> String {
    let mut text = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Scenario {0}</title>\n<style>body{{font-family:sans-serif;\
         max-width:1000px;margin:2em auto}}td,th{{padding:.2em .8em;text-align:right}}</style>\n<h1>Scenario {0}, \
         faults {1}</h1>\n",
        report.scenario.number,
        report.faults_name()
    );
    push_table(&mut text, report);
    for database in &report.databases {
        push_database(&mut text, database);
    }
    push_pool(&mut text, &report.watch.moments(), &report.watch.events());
    push_memory(&mut text, report);
    push_events(&mut text, &report.watch.events());
    text
}

fn push_table(text: &mut String, report: &ScenarioReport) {
    text.push_str(
        "<table><tr><th>database<th>rows<th>rows/s<th>reference<th>ratio<th>rows or figures that differ<th>reference\n",
    );
    for (number, database) in report.databases.iter().enumerate() {
        let reference = &report.scenario.reference;
        let rate = database.load.rows_per_wall_second();
        let _ = writeln!(
            text,
            "<tr><td>{}<td>{}<td>{rate:.0}<td>{}<td>{:.1}<td>{}<td>{}",
            database.name,
            database.rows_compared,
            reference.rows_per_second[number],
            rate / reference.rows_per_second[number] as f64,
            database.wrong,
            reference.miscounted[number].unsigned_abs()
        );
    }
    text.push_str("</table>\n");
}

fn push_database(text: &mut String, database: &DatabaseReport) {
    let rows: Vec<f64> = database.load.rows_per_second.iter().map(|rows| *rows as f64).collect();
    let _ = writeln!(text, "<h2>{}: rows by second</h2>", database.name);
    push_bars(text, &rows, "rows", |number| format!("{number} s"));
    let _ = writeln!(text, "<h2>{}: latency of requests</h2>", database.name);
    let steps = latency_steps(&database.load);
    let counts: Vec<f64> = steps.iter().map(|(_, count)| *count as f64).collect();
    push_bars(text, &counts, "requests", |number| {
        steps.get(number).map_or(String::new(), |(ms, _)| format!("{ms} ms"))
    });
}

/// Requests by latency, in steps that double: the upper end in milliseconds and how many.
fn latency_steps(load: &LoadReport) -> Vec<(f64, u64)> {
    let mut steps = Vec::new();
    let (mut from, mut to) = (0_u64, 125_u64);
    let max = load.latency.max();
    while from <= max {
        let count = load.latency.count_between(from + 1, to);
        steps.push((to as f64 / 1e3, count));
        (from, to) = (to, to * 2);
    }
    let first = steps.iter().position(|(_, count)| *count > 0).unwrap_or(0);
    steps.split_off(first)
}

/// Columns from left to right, a label under some of them.
fn push_bars(text: &mut String, values: &[f64], unit: &str, label: impl Fn(usize) -> String) {
    let max = values.iter().copied().fold(1.0, f64::max);
    let column = WIDTH / values.len().max(1) as f64;
    open_picture(text, &format!("{unit}, up to {max:.0}"));
    for (number, value) in values.iter().enumerate() {
        let (x, height) = (number as f64 * column, value / max * HEIGHT);
        let _ = writeln!(
            text,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{BAR}\"/>",
            HEIGHT - height,
            column * 0.9
        );
        if number % values.len().div_ceil(12).max(1) == 0 {
            let _ = writeln!(text, "<text x=\"{x:.1}\" y=\"{}\">{}</text>", HEIGHT + 16.0, label(number));
        }
    }
    text.push_str("</svg>\n");
}

fn open_picture(text: &mut String, title: &str) {
    let _ = writeln!(
        text,
        "<svg viewBox=\"-10 -24 {} {}\" font-size=\"12\">\n<text x=\"0\" y=\"-8\">{title}</text>",
        WIDTH + 20.0,
        HEIGHT + 48.0
    );
}

/// Missing copies by second, with a mark for each event.
fn push_pool(text: &mut String, moments: &[Moment], events: &[Event]) {
    let seconds = moments.last().map_or(1.0, |last| last.at.as_secs_f64()).max(1.0);
    let missing = |moment: &Moment| moment.pool.map_or(0, |pool| pool.missing_copies) as f64;
    let max = moments.iter().map(missing).fold(1.0, f64::max);
    text.push_str("<h2>The pool</h2>\n");
    open_picture(text, &format!("copies that are missing, up to {max:.0}, over {seconds:.0} s"));
    let x = |at: f64| at / seconds * WIDTH;
    for event in events.iter().filter(|event| event.what.ends_with("is killed")) {
        let x = x(event.at.as_secs_f64());
        let _ = writeln!(
            text,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{HEIGHT}\" stroke=\"{MARK}\"><title>{}</title></line>",
            event.what
        );
    }
    let mut points = String::new();
    for moment in moments {
        let _ = write!(points, "{:.1},{:.1} ", x(moment.at.as_secs_f64()), HEIGHT - missing(moment) / max * HEIGHT);
    }
    let _ =
        writeln!(text, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{LINE}\" stroke-width=\"1.5\"/>\n</svg>");
}

fn push_memory(text: &mut String, report: &ScenarioReport) {
    text.push_str("<h2>Memory</h2>\n<table><tr><th>role<th>most resident MiB<th>limit MiB\n");
    for (role, peak, limit) in report.memory_by_role() {
        let mib = |bytes: u64| bytes as f64 / 1048576.0;
        let _ = writeln!(text, "<tr><td>{role}<td>{:.0}<td>{:.0}", mib(peak), mib(limit));
    }
    text.push_str("</table>\n");
}

fn push_events(text: &mut String, events: &[Event]) {
    text.push_str("<h2>What happened</h2>\n<table>\n");
    for event in events {
        let what = event.what.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(text, "<tr><td>{:.1} s<td style=\"text-align:left\">{what}", event.at.as_secs_f64());
    }
    text.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_labels_and_no_value_leaves_the_picture() {
        let mut text = String::new();
        push_bars(&mut text, &[0.0, 5.0, 10.0], "rows", |number| format!("{number} s"));
        assert_eq!((text.matches("<rect").count(), text.matches("<text").count()), (3, 4));
        assert!(text.contains("up to 10") && text.ends_with("</svg>\n"));
        push_bars(&mut text, &[], "rows", |_| String::new());
    }
}
