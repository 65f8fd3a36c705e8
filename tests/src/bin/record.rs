//! `record FILE..`: plays case files against Debian's influxd, fills in the answers marked `< ?` and reports where the
//! judge answers otherwise than the file says.

use anyhow::{Context, Result};
use tidemill_tests::{case, play, subject};

fn main() -> Result<()> {
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let cases = case::parse(&text).with_context(|| path.clone())?;
        let judge = subject::judge().context("the judge is missing")?;
        let mut client = subject::client(&judge.server);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let (mut recorded, mut different) = (0, 0);
        for case in &cases {
            for step in &case.steps {
                let found = play::send(&mut client, &step.request)?;
                if step.expected.status.is_none() {
                    let body = found.text();
                    let body = body.trim_end();
                    let gap = if body.is_empty() { "" } else { "\n" };
                    lines[step.answer_line - 1] = format!("< {}{gap}{body}", found.status);
                    recorded += 1;
                } else if let Some(fault) = play::fault(&step.expected, &found) {
                    different += 1;
                    let known = case.judge_differs.as_deref().unwrap_or("NOT MARKED");
                    println!("{path}:{} [{}] ({known})\n{}\n  {fault}", step.request_line, case.title, step.text);
                }
            }
        }
        if recorded > 0 {
            std::fs::write(&path, lines.join("\n") + "\n")?;
        }
        println!("{path}: {recorded} recorded, {different} different");
    }
    Ok(())
}
