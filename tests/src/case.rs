//! Case files: requests and the answers that are due, as text.
//!
//! ```text
//! # comment
//! ## title of a case
//! ! judge: why Debian's influxd answers otherwise (the reference wins)
//! > write db=d&precision=s
//! n v=1,i=1i 0
//! < 204
//! > query db=d&epoch=s
//! SELECT v FROM n
//! < 200
//! {"results":[..]}
//! ```
//!
//! - `> write PARAMETERS` posts the lines below it, `> query PARAMETERS` a statement as form body; `> get PARAMETERS`
//!   puts the statement into the URL; `> METHOD TARGET` sends anything else, with the lines below it as body.
//! - `> raw write PARAMETERS` unescapes `\n \r \t \0 \\` in its single line, for bytes that a text file cannot show.
//! - `< STATUS` is the status; lines below it are the body. JSON is compared by structure, other text byte for byte
//!   but for the last line end. No lines: the body must be empty. `< STATUS *`: the body is not looked at.
//! - `< STATUS exact`: the body must be equal byte for byte, JSON too.
//! - `< ?` is an answer to be filled in by the `record` binary.
//! - `= NAME: VALUE` below a `<` line wants a header.
//!
//! Cases of a file run in order on one server, which starts empty.

use anyhow::{Context, Result, bail};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query string.
    pub target: String,
    /// The body is a form that holds a statement.
    pub form: bool,
    pub body: Vec<u8>,
}

/// The answer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// None: not recorded yet.
    pub status: Option<u16>,
    pub headers: Vec<(String, String)>,
    /// None: anything.
    pub body: Option<String>,
    /// Compare byte for byte, JSON too.
    pub exact: bool,
}

/// One request with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Line of the `>` and of the `<`, 1-based.
    pub request_line: usize,
    pub answer_line: usize,
    /// The request as it stands in the file, for messages.
    pub text: String,
    pub request: Request,
    pub expected: Expectation,
}

/// Some steps under one title.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub title: String,
    /// Why the judge answers otherwise.
    pub judge_differs: Option<String>,
    pub steps: Vec<Step>,
}

/// Parses a case file.
pub fn parse(text: &str) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let number = at + 1;
        at += 1;
        if let Some(title) = line.strip_prefix("## ") {
            cases.push(Case { title: title.to_owned(), judge_differs: None, steps: Vec::new() });
        } else if let Some(reason) = line.strip_prefix("! judge: ") {
            cases.last_mut().with_context(|| format!("line {number}: before the first case"))?.judge_differs =
                Some(reason.to_owned());
        } else if let Some(command) = line.strip_prefix("> ") {
            let body_end = (at..lines.len())
                .find(|index| lines[*index].starts_with("< "))
                .with_context(|| format!("line {number}: a request without an answer"))?;
            let body = &lines[at..body_end];
            let text = format!("> {command}\n{}", body.join("\n"));
            let request = parse_request(command, body).with_context(|| format!("line {number}"))?;
            let answer_line = body_end + 1;
            let (expected, next) = parse_answer(&lines, body_end).with_context(|| format!("line {answer_line}"))?;
            at = next;
            let case = cases.last_mut().with_context(|| format!("line {number}: before the first case"))?;
            case.steps.push(Step { request_line: number, answer_line, text, request, expected });
        } else if !line.is_empty() && !line.starts_with('#') {
            bail!("line {number}: what is {line:?}?");
        }
    }
    Ok(cases)
}

fn parse_request(command: &str, body: &[&str]) -> Result<Request> {
    let text = body.join("\n");
    let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
    let post = |target: String, form: bool, body: Vec<u8>| Request { method: "POST".into(), target, form, body };
    Ok(match word {
        "write" => post(format!("/write?{rest}"), false, text.into_bytes()),
        "raw" => {
            let parameters = rest.strip_prefix("write").context("only `raw write` is known")?.trim_start();
            post(format!("/write?{parameters}"), false, unescape(&text)?)
        }
        "query" => post(format!("/query?{rest}"), true, text.into_bytes()),
        "get" => Request {
            method: "GET".into(),
            target: format!("/query?q={}&{rest}", tidemill_perf::http::encode(&text)),
            form: false,
            body: Vec::new(),
        },
        method if method.chars().all(|c| c.is_ascii_uppercase()) && rest.starts_with('/') => {
            Request { method: method.to_owned(), target: rest.to_owned(), form: false, body: text.into_bytes() }
        }
        _ => bail!("unknown request {command:?}"),
    })
}

fn parse_answer(lines: &[&str], start: usize) -> Result<(Expectation, usize)> {
    let line = lines[start].trim_start_matches("< ").trim();
    let end = (start + 1..lines.len())
        .find(|index| lines[*index].starts_with("> ") || lines[*index].starts_with('#') || lines[*index].is_empty())
        .unwrap_or(lines.len());
    let (headers, body): (Vec<&str>, Vec<&str>) =
        lines[start + 1..end].iter().copied().partition(|line| line.starts_with("= "));
    let headers = headers
        .into_iter()
        .map(|line| {
            let (name, value) = line[2..].split_once(": ").context("expected `= NAME: VALUE`")?;
            Ok((name.to_ascii_lowercase(), value.to_owned()))
        })
        .collect::<Result<_>>()?;
    let (status, mode) = line.split_once(' ').unwrap_or((line, ""));
    if !matches!(mode, "" | "*" | "exact") {
        bail!("unknown mark {mode:?}");
    }
    let status = if status == "?" { None } else { Some(status.parse().context("the status is no number")?) };
    let body = if mode == "*" || status.is_none() { None } else { Some(body.join("\n")) };
    Ok((Expectation { status, headers, body, exact: mode == "exact" }, end))
}

fn unescape(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            other => bail!("unknown escape {other:?}"),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_cases() {
        let text = "# c\n## one\n! judge: older\n> write db=d\na f=1\nb f=2\n< 204\n> GET /ping\n< 204\n= X-A: b\n\n## two\n> raw write db=d\na\\tb\n< 400\n{\"error\":\"x\"}\n> query db=d\nSELECT\n< ?\n";
        let cases = parse(text).unwrap();
        assert_eq!(cases.len(), 2);
        assert_eq!(cases[0].judge_differs.as_deref(), Some("older"));
        assert_eq!(cases[0].steps[0].request.body, b"a f=1\nb f=2");
        assert_eq!(cases[0].steps[1].expected.headers, [("x-a".to_owned(), "b".to_owned())]);
        assert_eq!(cases[1].steps[0].request.body, b"a\tb");
        assert_eq!(cases[1].steps[0].expected.body.as_deref(), Some("{\"error\":\"x\"}"));
        assert_eq!(cases[1].steps[1].expected.status, None);
        assert_eq!((cases[1].steps[1].request_line, cases[1].steps[1].answer_line), (17, 19));
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        for (text, line) in [
            ("x", "line 1"),
            ("## a\n> query db=d\nSELECT", "line 2"),
            ("> query\n< 200", "line 1"),
            ("## a\n> foo\n< 200", "line 2"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(line), "{error}");
        }
    }
}
