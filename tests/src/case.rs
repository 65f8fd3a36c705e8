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
//! - `> raw write PARAMETERS` unescapes `\n \r \t \0 \\` in its single line, for bytes that a text file cannot show;
//!   `> gzip write PARAMETERS` compresses the lines below it.
//! - `+ NAME: VALUE` lines below a `>` line are headers of the request.
//! - `< STATUS` is the status; lines below it are the body. JSON is compared by structure, other text byte for byte
//!   but for the last line end. No lines: the body must be empty. `< STATUS *`: the body is not looked at.
//! - `< STATUS exact`: the body must be equal byte for byte, JSON too. `< STATUS gzip`: the body must come compressed,
//!   and unpacked be as the lines say. `< STATUS msgpack`: a MessagePack document is due for each line of JSON.
//! - A line `\` of a body stands for an empty one.
//! - `< ?` is an answer to be filled in by the `record` binary.
//! - `= NAME: VALUE` below a `<` line wants a header, `= -NAME` wants none of that name, `= NAME: ?` is filled in.
//!
//! Cases of a file run in order on one server, which starts empty.

use anyhow::{Context, Result, bail};
use std::io::Write;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query string.
    pub target: String,
    /// The body is a form that holds a statement.
    pub form: bool,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// How the body of an answer is shown and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// JSON by structure, other text byte for byte but for the last line end.
    Free,
    /// It is not looked at.
    Any,
    /// Byte for byte but for the last line end.
    Exact,
    /// As `Free`, behind gzip.
    Gzip,
    /// As `Free`, a MessagePack document for each line of JSON.
    MessagePack,
}

/// How modes are written behind a status.
const MODES: [(&str, Mode); 5] =
    [("", Mode::Free), ("*", Mode::Any), ("exact", Mode::Exact), ("gzip", Mode::Gzip), ("msgpack", Mode::MessagePack)];

/// The answer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// None: not recorded yet.
    pub status: Option<u16>,
    /// Names in lower case; None: there must be none of that name.
    pub headers: Vec<(String, Option<String>)>,
    pub body: String,
    pub mode: Mode,
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
    let is_header = |line: &&&str| line.starts_with("+ ");
    let mut headers = body
        .iter()
        .take_while(is_header)
        .map(|line| {
            let (name, value) = line[2..].split_once(": ").context("expected `+ NAME: VALUE`")?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect::<Result<Vec<_>>>()?;
    let text = body[headers.len()..].join("\n");
    let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
    let to_write = |rest: &str| -> Result<String> {
        let parameters = rest.strip_prefix("write").context("only writes can be sent so")?;
        Ok(format!("/write?{}", parameters.trim_start()))
    };
    let (method, target, form, body) = match word {
        "write" => ("POST", format!("/write?{rest}"), false, text.into_bytes()),
        "raw" => ("POST", to_write(rest)?, false, unescape(&text)?),
        "gzip" => {
            headers.push(("Content-Encoding".into(), "gzip".into()));
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            packed.write_all(text.as_bytes())?;
            ("POST", to_write(rest)?, false, packed.finish()?)
        }
        "query" => ("POST", format!("/query?{rest}"), true, text.into_bytes()),
        "get" => ("GET", format!("/query?q={}&{rest}", tidemill_perf::http::encode(&text)), false, Vec::new()),
        method if method.chars().all(|c| c.is_ascii_uppercase()) && rest.starts_with('/') => {
            (method, rest.to_owned(), false, text.into_bytes())
        }
        _ => bail!("unknown request {command:?}"),
    };
    Ok(Request { method: method.to_owned(), target, form, headers, body })
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
        .map(|line| match line.strip_prefix("= -") {
            Some(name) => Ok((name.to_ascii_lowercase(), None)),
            None => {
                let (name, value) = line[2..].split_once(": ").context("expected `= NAME: VALUE` or `= -NAME`")?;
                Ok((name.to_ascii_lowercase(), Some(value.to_owned())))
            }
        })
        .collect::<Result<_>>()?;
    let (status, mark) = line.split_once(' ').unwrap_or((line, ""));
    let (_, mode) = MODES.into_iter().find(|(text, _)| *text == mark).with_context(|| format!("what is {mark:?}?"))?;
    let status = if status == "?" { None } else { Some(status.parse().context("the status is no number")?) };
    let body: Vec<&str> = body.into_iter().map(|line| if line == "\\" { "" } else { line }).collect();
    Ok((Expectation { status, headers, body: body.join("\n"), mode }, end))
}

/// The `<` line of an answer and the lines of its body, as they stand in a case file.
pub fn answer_lines(status: u16, mode: Mode, shown: &str) -> String {
    let mark = MODES.into_iter().find(|(_, known)| *known == mode).map_or("", |(text, _)| text);
    let mut lines = format!("< {status} {mark}").trim_end().to_owned();
    if mode != Mode::Any && !shown.is_empty() {
        for line in shown.lines() {
            lines.push('\n');
            lines.push_str(if line.is_empty() { "\\" } else { line });
        }
    }
    lines
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
        assert_eq!(cases[0].steps[1].expected.headers, [("x-a".to_owned(), Some("b".to_owned()))]);
        assert_eq!(cases[1].steps[0].request.body, b"a\tb");
        assert_eq!(cases[1].steps[0].expected.body, "{\"error\":\"x\"}");
        assert_eq!(cases[1].steps[1].expected.status, None);
        assert_eq!((cases[1].steps[1].request_line, cases[1].steps[1].answer_line), (17, 19));
    }

    #[test]
    fn headers_and_modes_are_read_and_written() {
        let text = "## a\n> query db=d\n+ Accept: text/csv\nSELECT\n< 200 exact\n= -X-B\na\n\\\nb\n> gzip write db=d\nm v=1\n< 204 *\n";
        let steps = &parse(text).unwrap()[0].steps;
        assert_eq!(steps[0].request.headers, [("Accept".to_owned(), "text/csv".to_owned())]);
        assert_eq!(steps[0].request.body, b"SELECT");
        assert_eq!((steps[0].expected.mode, steps[0].expected.body.as_str()), (Mode::Exact, "a\n\nb"));
        assert_eq!(steps[0].expected.headers, [("x-b".to_owned(), None)]);
        assert_eq!((steps[1].request.target.as_str(), &steps[1].request.body[..2]), ("/write?db=d", &b"\x1f\x8b"[..]));
        assert_eq!(answer_lines(200, Mode::Exact, "a\n\nb\n"), "< 200 exact\na\n\\\nb");
        assert_eq!(answer_lines(204, Mode::Free, ""), "< 204");
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
