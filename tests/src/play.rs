//! Plays the steps of a case against a server.

use crate::answers::{Numbers, body_difference};
use crate::case::{Expectation, Request, Step};
use std::io;
use tidemill_perf::http::{Client, Response, encode};

/// Sends one request.
pub fn send(client: &mut Client, request: &Request) -> io::Result<Response> {
    if request.form {
        let body = format!("q={}", encode(&String::from_utf8_lossy(&request.body)));
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        return client.request(&request.method, &request.target, &headers, body.as_bytes());
    }
    client.request(&request.method, &request.target, &[], &request.body)
}

/// What is wrong with an answer; None when it is as expected. An answer that is not recorded yet is wrong.
pub fn fault(expected: &Expectation, found: &Response) -> Option<String> {
    let Some(status) = expected.status else { return Some("no answer is recorded for this request".into()) };
    if found.status != status {
        return Some(format!("status {} instead of {status}: {}", found.status, found.text()));
    }
    for (name, value) in &expected.headers {
        if found.header(name) != Some(value) {
            return Some(format!("header {name} is {:?} instead of {value:?}", found.header(name)));
        }
    }
    let (due, text) = (expected.body.as_deref()?, found.text());
    if expected.exact {
        let text = text.trim_end_matches('\n');
        return (text != due).then(|| format!("the body is\n{text}\n  instead of\n{due}"));
    }
    body_difference(due, &text, Numbers::Exact)
}

/// Plays one step; the fault is told with the request and its line.
pub fn step(client: &mut Client, step: &Step) -> Result<(), String> {
    let told = |fault: String| format!("line {}:\n{}\n  {fault}", step.request_line, step.text);
    let found = send(client, &step.request).map_err(|error| told(format!("no answer: {error}")))?;
    match fault(&step.expected, &found) {
        Some(fault) => Err(told(fault)),
        None => Ok(()),
    }
}
