//! Plays the steps of a case against a server.

use crate::answers::{Numbers, body_difference};
use crate::case::{Expectation, Mode, Request, Step};
use crate::message_pack;
use std::io::{self, Read};
use tidemill_perf::http::{Client, Response, encode};

/// Sends one request.
pub fn send(client: &mut Client, request: &Request) -> io::Result<Response> {
    let mut headers: Vec<(&str, &str)> = request.headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    if request.form {
        let body = format!("q={}", encode(&String::from_utf8_lossy(&request.body)));
        headers.push(("Content-Type", "application/x-www-form-urlencoded"));
        return client.request(&request.method, &request.target, &headers, body.as_bytes());
    }
    client.request(&request.method, &request.target, &headers, &request.body)
}

/// The body of an answer as a case file shows it.
///
/// # Errors
/// If it should be compressed or MessagePack and is not.
pub fn shown(mode: Mode, found: &Response) -> Result<String, String> {
    match mode {
        Mode::MessagePack => message_pack::as_json(&found.body),
        Mode::Gzip => {
            let mut text = String::new();
            let unpacked = flate2::read::MultiGzDecoder::new(&found.body[..]).read_to_string(&mut text);
            unpacked.map_err(|error| format!("not compressed: {error}"))?;
            Ok(text)
        }
        _ => Ok(found.text()),
    }
}

/// What is wrong with an answer; None when it is as expected. An answer that is not recorded yet is wrong.
pub fn fault(expected: &Expectation, found: &Response) -> Option<String> {
    let Some(status) = expected.status else { return Some("no answer is recorded for this request".into()) };
    if found.status != status {
        return Some(format!("status {} instead of {status}: {}", found.status, found.text()));
    }
    for (name, value) in &expected.headers {
        if found.header(name) != value.as_deref() {
            return Some(format!("header {name} is {:?} instead of {value:?}", found.header(name)));
        }
    }
    let due = expected.body.as_str();
    let text = match shown(expected.mode, found) {
        Ok(text) => text,
        Err(fault) => return Some(fault),
    };
    match expected.mode {
        Mode::Any => None,
        Mode::Free | Mode::Gzip | Mode::MessagePack => body_difference(due, &text, Numbers::Exact),
        Mode::Exact => {
            let text = text.trim_end_matches('\n');
            (text != due).then(|| format!("the body is\n{text}\n  instead of\n{due}"))
        }
    }
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
