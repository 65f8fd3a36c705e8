//! Answers before they are HTTP: status, extra headers, payload.

use crate::body::Payload;
use crate::encode::Format;
use crate::parameters::X_TIDEMILL_SESSION;
use crate::service::{Refusal, WriteOutcome};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{HeaderMap, StatusCode};

/// How an endpoint's errors are spelled, and whose name stands in `WWW-Authenticate`.
#[derive(Clone, Copy)]
pub(crate) struct Spelling<'a> {
    pub(crate) format: Format,
    pub(crate) is_pretty: bool,
    pub(crate) realm: &'a str,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// `None` for the format that the client asked for.
    pub(crate) content_type: Option<&'static str>,
    pub(crate) payload: Payload,
    /// Bytes of the request may still be on their way: the connection ends with this answer, gently.
    pub(crate) is_last: bool,
}

pub(crate) const TEXT_PLAIN: &str = "text/plain; charset=utf-8";
const X_INFLUXDB_ERROR: HeaderName = HeaderName::from_static("x-influxdb-error");
/// There where nobody knows what became of a write.
pub const X_TIDEMILL_OUTCOME: HeaderName = HeaderName::from_static("x-tidemill-outcome");
/// Bytes of an error that its header shows.
const ERROR_HEADER_BYTES_MAX: usize = 1024;

impl Reply {
    pub(crate) fn new(status: StatusCode, payload: Payload) -> Reply {
        Reply { status, headers: Vec::new(), content_type: None, payload, is_last: false }
    }

    pub(crate) fn empty(status: StatusCode) -> Reply {
        Reply::new(status, Payload::Bytes(Vec::new()))
    }

    /// A body that is not in the format that the client asked for.
    pub(crate) fn of_type(status: StatusCode, content_type: &'static str, body: impl Into<Vec<u8>>) -> Reply {
        Reply { content_type: Some(content_type), ..Reply::new(status, Payload::Bytes(body.into())) }
    }

    /// An error document.
    pub(crate) fn error(spelling: Spelling<'_>, status: StatusCode, text: &str) -> Reply {
        let mut reply = Reply::new(status, Payload::Bytes(error_document(spelling.format, spelling.is_pretty, text)));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = format!("Basic realm=\"{}\"", spelling.realm);
            reply.headers.push((WWW_AUTHENTICATE, header_text(challenge.as_bytes())));
        } else {
            reply.headers.push((X_INFLUXDB_ERROR, error_header(text)));
        }
        reply
    }

    pub(crate) fn refusal(spelling: Spelling<'_>, refusal: &Refusal) -> Reply {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Reply::error(spelling, status, &refusal.text)
    }

    pub(crate) fn too_large(spelling: Spelling<'_>) -> Reply {
        Reply::error(spelling, StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large").last()
    }

    /// Nothing was done; the client may come back.
    pub(crate) fn overloaded(spelling: Spelling<'_>, why: &str, retry_after_s: u32) -> Reply {
        let mut reply = Reply::error(spelling, StatusCode::SERVICE_UNAVAILABLE, why);
        reply.headers.push((RETRY_AFTER, HeaderValue::from(retry_after_s)));
        reply
    }

    pub(crate) fn write_outcome(spelling: Spelling<'_>, outcome: &WriteOutcome) -> Reply {
        match outcome {
            WriteOutcome::Written => Reply::empty(StatusCode::NO_CONTENT),
            WriteOutcome::WrittenInSession(token) => {
                let mut reply = Reply::empty(StatusCode::NO_CONTENT);
                reply.headers.push((X_TIDEMILL_SESSION, header_text(token.as_bytes())));
                reply
            }
            WriteOutcome::PartialWrite(text) => Reply::error(spelling, StatusCode::BAD_REQUEST, text),
            WriteOutcome::Rejected(refusal) => Reply::refusal(spelling, refusal),
            WriteOutcome::DatabaseNotFound(name) => {
                let text = format!("database not found: {name:?}");
                Reply::error(spelling, StatusCode::NOT_FOUND, &text)
            }
            WriteOutcome::Overloaded { why, retry_after_s } => Reply::overloaded(spelling, why, *retry_after_s),
            WriteOutcome::DiskFull => Reply::error(spelling, StatusCode::INSUFFICIENT_STORAGE, "disk full"),
            WriteOutcome::NotEverywhere(text) => Reply::error(spelling, StatusCode::INTERNAL_SERVER_ERROR, text),
            WriteOutcome::Unknown(text) => {
                let mut reply = Reply::error(spelling, StatusCode::INTERNAL_SERVER_ERROR, text);
                reply.headers.push((X_TIDEMILL_OUTCOME, HeaderValue::from_static("unknown")));
                reply
            }
        }
    }

    /// Ends the connection with this answer.
    pub(crate) fn last(mut self) -> Reply {
        self.is_last = true;
        self.headers.push((CONNECTION, HeaderValue::from_static("close")));
        self
    }
}

fn error_document(format: Format, is_pretty: bool, text: &str) -> Vec<u8> {
    let mut encoder = format.encoder(Default::default());
    let mut body = Vec::new();
    encoder.begin_document(&mut body);
    encoder.end_document(&mut body, Some(text));
    if is_pretty && format == Format::Json { crate::indent::indented(&body) } else { body }
}

fn error_header(text: &str) -> HeaderValue {
    header_text(text.as_bytes().get(..ERROR_HEADER_BYTES_MAX).unwrap_or(text.as_bytes()))
}

/// The body and the headers of an answer that is an error, in the format that the request asks for.
pub fn error_parts(request: &HeaderMap, is_pretty: bool, text: &str) -> (HeaderMap, Vec<u8>) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(request)));
    headers.insert(X_INFLUXDB_ERROR, error_header(text));
    (headers, error_document(crate::accept::format(request), is_pretty, text))
}

/// The media type of answers to a request.
pub fn media_type(request: &HeaderMap) -> &'static str {
    crate::accept::format(request).media_type()
}

/// A header value of any text: what may not stand in a header becomes a space.
pub(crate) fn header_text(text: &[u8]) -> HeaderValue {
    let cleaned: Vec<u8> = text.iter().map(|byte| if *byte < 0x20 || *byte == 0x7f { b' ' } else { *byte }).collect();
    HeaderValue::from_bytes(&cleaned).unwrap_or(HeaderValue::from_static(""))
}
