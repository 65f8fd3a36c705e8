//! `record FILE..`: plays case files against Debian's influxd, fills in the answers marked `< ?` and reports where the
//! judge answers otherwise than the file says.

use anyhow::{Context, Result, anyhow};
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
                    let mode = step.expected.mode;
                    let shown = play::shown(mode, &found).map_err(|fault| anyhow!("{}: {fault}", step.text))?;
                    // The headers that are asked for stand below the status, in front of the body.
                    let answer = case::answer_lines(found.status, mode, &shown);
                    let (status, body) = answer.split_once('\n').unwrap_or((&answer, ""));
                    lines[step.answer_line - 1] = status.to_owned();
                    for (offset, (name, value)) in step.expected.headers.iter().enumerate() {
                        if value.as_deref() == Some("?") {
                            lines[step.answer_line + offset] = match found.header(name) {
                                Some(value) => format!("= {name}: {value}"),
                                None => format!("= -{name}"),
                            };
                        }
                    }
                    if !body.is_empty() {
                        let last = &mut lines[step.answer_line - 1 + step.expected.headers.len()];
                        *last = format!("{last}\n{body}");
                    }
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
