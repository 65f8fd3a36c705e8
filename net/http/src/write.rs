//! `/write` and `/api/v2/write`.
//!
//! Owns: the order of the checks (precision, database given, the service's admission, size and compression of the
//! body, consistency, the service) and their texts. An unknown precision or consistency stores nothing; upstream 1.8
//! reports the first and stores the points all the same.

use crate::body::{BodyError, read_body};
use crate::metrics::HttpMetrics;
use crate::options::Options;
use crate::parameters::{Parameters, consistency, session};
use crate::reply::{Reply, Spelling};
use crate::service::{Caller, Consistency, Refusal, Service, WriteOutcome, WriteRequest, WriteTarget};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, EXPECT, HeaderName};
use hyper::http::request;
use hyper::{HeaderMap, StatusCode};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use tidemill_line::{BatchClaim, NoClaim, Precision};

/// What a proxy says of a body or asks for, and its proof that it may.
pub const X_TIDEMILL_CLAIM: HeaderName = HeaderName::from_static("x-tidemill-claim");
pub const X_TIDEMILL_PROOF: HeaderName = HeaderName::from_static("x-tidemill-proof");

/// Which parameters name the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `db`, `rp`, `precision`, `consistency`
    V1,
    /// `bucket`, `precision`
    V2,
}

pub(crate) struct WriteCall<'a, S> {
    pub(crate) service: &'a S,
    pub(crate) options: &'a Options,
    pub(crate) spelling: Spelling<'a>,
    pub(crate) metrics: &'a Rc<HttpMetrics>,
    pub(crate) received: &'a Cell<u64>,
    pub(crate) caller: Caller,
}

impl<S: Service> WriteCall<'_, S> {
    /// The target and the body if the service takes a write to it, and else the answer.
    pub(crate) async fn admit(
        &self,
        target: Result<WriteTarget, Refusal>,
        head: &request::Parts,
        incoming: Incoming,
    ) -> Result<(WriteTarget, Incoming), Reply> {
        let admitted = match target {
            Ok(target) => self.service.admit_write(&target).map(|()| target),
            Err(refusal) => Err(WriteOutcome::Rejected(refusal)),
        };
        match admitted {
            Ok(target) => Ok((target, incoming)),
            Err(outcome) => {
                let reply = Reply::write_outcome(self.spelling, &outcome);
                Err(drain(self.options, self.metrics, self.received, head, incoming, reply).await)
            }
        }
    }
}

/// A body up to this size is read although nobody wants it, so that the connection can be used again.
const DRAINED_BYTES_MAX: u64 = 256 << 10;

/// What a client waits whose body found no room, in seconds: bodies are worked off in milliseconds.
const RETRY_AFTER_S: u32 = 1;

pub(crate) async fn write<S: Service>(
    call: WriteCall<'_, S>,
    dialect: Dialect,
    head: &request::Parts,
    url: &Parameters,
    incoming: Incoming,
) -> Reply {
    let spelling = call.spelling;
    let target = match dialect {
        Dialect::V1 => target_v1(url, call.caller.clone()),
        Dialect::V2 => target_v2(url, call.caller.clone()),
    };
    let (mut target, incoming) = match call.admit(target, head, incoming).await {
        Ok(admitted) => admitted,
        Err(reply) => return reply,
    };
    let is_gzip = head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
    let body = match read_body(incoming, is_gzip, call.options, call.metrics, call.received).await {
        Ok(body) => body,
        Err(error) => return body_error(spelling, &error),
    };
    match consistency(url.value("consistency")) {
        Some(consistency) => target.consistency = consistency,
        None => return Reply::error(spelling, StatusCode::BAD_REQUEST, "invalid consistency level"),
    }
    target.session = session(&head.headers);
    target.claim = match claim(call.service, &head.headers) {
        Ok(claim) => claim,
        Err(refusal) => return Reply::refusal(spelling, &refusal),
    };
    let (body, _charge) = body.into_parts();
    let outcome = call.service.write(WriteRequest { target, body }).await;
    Reply::write_outcome(spelling, &outcome)
}

/// What a proxy says of the body's batches, once it has proved who it is.
fn claim<S: Service>(service: &S, headers: &HeaderMap) -> Result<Option<Arc<BatchClaim>>, Refusal> {
    let Some(text) = headers.get(&X_TIDEMILL_CLAIM) else { return Ok(None) };
    let (text, proof) = (text.to_str().unwrap_or_default(), proof(headers));
    if !service.is_proved(text, proof) {
        return Err(Refusal::new(403, "this node does not know the proxy: http.proxy-secret is another one"));
    }
    let claim = text.parse().map_err(|error: NoClaim| Refusal::new(400, error.to_string()))?;
    Ok(Some(Arc::new(claim)))
}

/// The proof that a header carries.
pub(crate) fn proof(headers: &HeaderMap) -> &str {
    headers.get(&X_TIDEMILL_PROOF).and_then(|proof| proof.to_str().ok()).unwrap_or_default()
}

pub(crate) fn target_v1(url: &Parameters, caller: Caller) -> Result<WriteTarget, Refusal> {
    let word = url.value("precision");
    let precision = Precision::from_v1_name(word)
        .ok_or_else(|| Refusal::new(400, format!("invalid precision {word:?} (use n, u, ms, s, m or h)")))?;
    let database = url.text("db").ok_or_else(|| Refusal::new(400, "database is required"))?;
    Ok(WriteTarget {
        database,
        retention_policy: url.text("rp"),
        precision,
        unsigned: url.value("unsigned") == "true",
        consistency: Consistency::default(),
        claim: None,
        session: None,
        caller,
    })
}

fn target_v2(url: &Parameters, caller: Caller) -> Result<WriteTarget, Refusal> {
    let word = url.value("precision");
    let precision = Precision::from_v2_name(word)
        .ok_or_else(|| Refusal::new(400, format!("invalid precision {word:?} (use ns, us, ms or s)")))?;
    let bucket = url.value("bucket");
    let (database, retention_policy) = bucket.split_once('/').unwrap_or((bucket, ""));
    if bucket.is_empty() {
        let text = "bucket name \"\" is missing a slash; not in \"database/retention-policy\" format";
        return Err(Refusal::new(404, text));
    }
    if database.is_empty() {
        let text = format!("bucket name {bucket:?} is in db/rp form but has an empty database");
        return Err(Refusal::new(404, text));
    }
    Ok(WriteTarget {
        database: database.to_owned(),
        retention_policy: Some(retention_policy.to_owned()).filter(|name| !name.is_empty()),
        precision,
        unsigned: url.value("unsigned") == "true",
        consistency: Consistency::default(),
        claim: None,
        session: None,
        caller,
    })
}

/// Sends a refusal that was found before the body was read. A client that is still sending would not see the answer
/// if the connection were just closed, and one that waits for "100 Continue" will not send.
pub(crate) async fn drain(
    options: &Options,
    metrics: &Rc<HttpMetrics>,
    received: &Cell<u64>,
    head: &request::Parts,
    incoming: Incoming,
    reply: Reply,
) -> Reply {
    let is_small = incoming.size_hint().exact().is_some_and(|size| size <= DRAINED_BYTES_MAX);
    if !is_small || head.headers.contains_key(EXPECT) {
        return reply.last();
    }
    match read_body(incoming, false, options, metrics, received).await {
        Ok(_) => reply,
        Err(_) => reply.last(),
    }
}

pub(crate) fn body_error(spelling: Spelling<'_>, error: &BodyError) -> Reply {
    match error {
        BodyError::TooLarge => Reply::too_large(spelling),
        BodyError::NoRoom => Reply::overloaded(spelling, &error.to_string(), RETRY_AFTER_S).last(),
        BodyError::Late => Reply::error(spelling, StatusCode::REQUEST_TIMEOUT, &error.to_string()).last(),
        BodyError::Gunzip(_) | BodyError::Broken(_) => {
            Reply::error(spelling, StatusCode::BAD_REQUEST, &error.to_string()).last()
        }
    }
}
