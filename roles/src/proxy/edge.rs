//! What a proxy does with a request: answers it, refuses it, or passes it on.
//!
//! Invariants: a request that a node may have acted on goes to no other node unless it only reads; a client hears that
//! nobody knows what became of its request, never that it succeeded; no more requests are in work than the options say.

use super::{figures::Figures, gather::Gather, nodes::Nodes, options::ProxyOptions};
use crate::data::Senders;
use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, CONTENT_TYPE, EXPECT, HeaderName, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING, UPGRADE},
    http::request,
};
use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tidemill_edge::{Answer, BodyFailure, Handler, Outgoing, Peer, SendFailure, read_body, within};
use tidemill_http::{
    AnswerHeaders, Parameters, X_TIDEMILL_CLAIM, X_TIDEMILL_PROOF, error_parts, media_type,
    metrics::{Endpoint, RequestFigures},
    statements,
};
use tidemill_influxql::{Query, RequiredPrivilege, Statement};
use tidemill_line::LineRouter;
use tidemill_raft::NodeId;

/// One thread of a proxy.
pub struct Edge {
    pub options: Arc<ProxyOptions>,
    pub nodes: Nodes,
    pub figures: Rc<Figures>,
    pub headers: AnswerHeaders,
    /// Identities of the batches that this thread sends.
    pub senders: Senders,
    pub sender: NodeId,
    /// When its sessions began, ns since the epoch.
    pub session_ns: i64,
    pub router: RefCell<LineRouter>,
    pub gather: Gather,
    /// Of all threads.
    pub load: Arc<Load>,
}

/// Headers that are of one connection (RFC 9110, section 7.6.1).
const OF_ONE_CONNECTION: [HeaderName; 6] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// What a refused client waits, in seconds.
const RETRY_AFTER_S: u32 = 1;
/// For endpoints that have no deadline of their own.
const UNLIMITED: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a path is to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ping,
    Health,
    Metrics,
    Write,
    Query,
    /// Reads, whatever its method.
    Read,
    /// Of a node: passed on, once.
    Other,
}

impl Kind {
    fn of(path: &str) -> Kind {
        match path {
            "/ping" | "/status" => Kind::Ping,
            "/health" => Kind::Health,
            "/metrics" => Kind::Metrics,
            "/write" | "/api/v2/write" | "/api/v1/prom/write" => Kind::Write,
            "/query" => Kind::Query,
            "/api/v1/prom/read" | "/api/v2/query" => Kind::Read,
            _ => Kind::Other,
        }
    }

    const fn endpoint(self) -> Endpoint {
        match self {
            Kind::Ping => Endpoint::Ping,
            Kind::Health => Endpoint::Health,
            Kind::Metrics => Endpoint::Metrics,
            Kind::Write => Endpoint::Write,
            Kind::Query | Kind::Read => Endpoint::Query,
            Kind::Other => Endpoint::Other,
        }
    }
}

/// What the requests of all threads take.
#[derive(Default)]
pub struct Load {
    requests: AtomicUsize,
    body_bytes: AtomicUsize,
}

/// Counts a request for as long as it is in work.
struct InWork {
    load: Arc<Load>,
    body_bytes: usize,
}

impl InWork {
    /// `None`: there are as many as there may be.
    fn begin(load: &Arc<Load>, requests_max: usize) -> Option<InWork> {
        let one = InWork { load: load.clone(), body_bytes: 0 };
        (load.requests.fetch_add(1, Ordering::Relaxed) < requests_max).then_some(one)
    }

    /// Whether there is room for more of its body.
    fn charge(&mut self, bytes: usize, bytes_max: usize) -> bool {
        self.body_bytes += bytes;
        self.load.body_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= bytes_max
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.load.requests.fetch_sub(1, Ordering::Relaxed);
        self.load.body_bytes.fetch_sub(self.body_bytes, Ordering::Relaxed);
    }
}

impl Handler for Edge {
    async fn handle(self: Rc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Answer> {
        let started = Instant::now();
        let (head, incoming) = request.into_parts();
        let kind = Kind::of(head.uri.path());
        let mut request_bytes = 0;
        let response = self.answer(kind, &head, incoming, &peer, &mut request_bytes).await;
        let (figures, status) = (self.figures.clone(), response.status().as_u16());
        response.map(|answer| {
            answer.when_ended(move |response_bytes| {
                let (endpoint, latency) = (kind.endpoint(), started.elapsed());
                figures.http.record(RequestFigures { endpoint, status, latency, request_bytes, response_bytes });
            })
        })
    }
}

impl Edge {
    async fn answer(
        self: &Rc<Self>,
        kind: Kind,
        head: &request::Parts,
        incoming: Incoming,
        peer: &Peer,
        request_bytes: &mut u64,
    ) -> Response<Answer> {
        match (kind, &head.method) {
            (Kind::Ping, &Method::GET | &Method::HEAD) => return self.ping(head),
            (Kind::Health, &Method::GET) => return self.health(head),
            (Kind::Metrics, &Method::GET) => return self.metrics(head),
            _ => {}
        }
        let Some(mut in_work) = InWork::begin(&self.load, self.options.requests_max) else {
            self.figures.refused.set(self.figures.refused.get() + 1);
            peer.linger();
            return self.overloaded(head, "too many requests wait at this proxy, retry later");
        };
        let bytes_max = self.options.bodies_bytes_max;
        let body = match read_body(incoming, &self.options.http, |bytes| in_work.charge(bytes, bytes_max)).await {
            Ok(body) => body,
            Err(failure @ BodyFailure::NoRoom) => {
                self.figures.refused.set(self.figures.refused.get() + 1);
                peer.linger();
                let mut response = self.overloaded(head, &failure.to_string());
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                return response;
            }
            Err(failure) => {
                let status = match failure {
                    BodyFailure::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                    BodyFailure::Late => StatusCode::REQUEST_TIMEOUT,
                    BodyFailure::Broken(_) | BodyFailure::NoRoom => StatusCode::BAD_REQUEST,
                };
                peer.linger();
                let mut response = self.refused(head, status, &failure.to_string());
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                return response;
            }
        };
        *request_bytes = body.len() as u64;
        let url = Parameters::from_urlencoded(head.uri.query().unwrap_or_default().as_bytes());
        let response = match kind {
            Kind::Write => match self.refused_database(head.uri.path(), &url) {
                Some(text) => self.refused(head, StatusCode::FORBIDDEN, &text),
                None => self.write(head, &url, body, peer).await,
            },
            Kind::Query => self.query(head, url, body, peer).await,
            Kind::Read => match self.refused_database(head.uri.path(), &url) {
                Some(text) => self.refused(head, StatusCode::FORBIDDEN, &text),
                None => self.pass(head, body, peer, true, self.query_deadline()).await,
            },
            Kind::Other if !self.options.databases.is_empty() => {
                self.refused(head, StatusCode::FORBIDDEN, "this proxy serves some databases only, and nothing else")
            }
            _ => self.pass(head, body, peer, head.method == Method::GET, UNLIMITED).await,
        };
        response.map(|answer| answer.when_ended(move |_| drop(in_work)))
    }

    fn query_deadline(&self) -> Duration {
        if self.options.query_deadline.is_zero() { UNLIMITED } else { self.options.query_deadline }
    }

    async fn query(&self, head: &request::Parts, url: Parameters, body: Bytes, peer: &Peer) -> Response<Answer> {
        let mut parameters = match head.method {
            Method::POST => Parameters::from_form(&head.headers, &body).unwrap_or_default(),
            _ => Parameters::default(),
        };
        parameters.append(url);
        // What is not understood here is not understood by a node either: it says why.
        let parsed = statements(&parameters, &self.options.http).ok();
        if !self.options.databases.is_empty() {
            let refusal = match &parsed {
                Some(query) => self.refused_statement(query, parameters.value("db")),
                None => Some("this proxy serves some databases only, and cannot tell which are asked for".to_owned()),
            };
            if let Some(text) = refusal {
                return self.refused(head, StatusCode::FORBIDDEN, &text);
            }
        }
        let only_reads = parsed.is_none_or(|query| query.statements.iter().all(Statement::is_read_only));
        self.pass(head, body, peer, only_reads, self.query_deadline()).await
    }

    /// Why a write to, or a read of, the database that a URL names is not passed on.
    fn refused_database(&self, path: &str, url: &Parameters) -> Option<String> {
        let database = match path {
            "/api/v2/write" => url.value("bucket").split('/').next().unwrap_or_default(),
            _ => url.value("db"),
        };
        (!database.is_empty() && !self.options.serves(database)).then(|| not_served(database))
    }

    fn refused_statement(&self, query: &Query, default_database: &str) -> Option<String> {
        query.statements.iter().find_map(|statement| match statement {
            Statement::CreateDatabase(create) if self.options.serves(&create.name) => None,
            Statement::ShowQueries => None,
            statement => statement.required_privileges(default_database).into_iter().find_map(|need| match need {
                RequiredPrivilege::Admin => {
                    Some(format!("this proxy serves some databases only: '{statement}' is for all of them"))
                }
                RequiredPrivilege::Database { database, .. } => {
                    (!self.options.serves(&database)).then(|| not_served(&database))
                }
            }),
        })
    }

    /// Gives a request to a node. One that `only_reads` goes to another node where one brings no answer.
    pub(super) async fn pass(
        &self,
        head: &request::Parts,
        body: Bytes,
        peer: &Peer,
        only_reads: bool,
        deadline: Duration,
    ) -> Response<Answer> {
        let started = Instant::now();
        let mut why = String::new();
        for node in self.nodes.in_turn() {
            let left = deadline.saturating_sub(started.elapsed());
            let sent = within(left, node.send(self.outgoing(head, body.clone(), peer))).await;
            let failure = match sent {
                Some(Ok(response)) => return passed_back(response),
                Some(Err(failure)) => failure,
                None => SendFailure::Unknown(format!("no answer within {deadline:?}")),
            };
            why = format!("node {}: {failure}", node.name);
            let is_late = started.elapsed() >= deadline;
            if matches!(failure, SendFailure::Unknown(_)) && (!only_reads || is_late) {
                let text = match only_reads {
                    true => why,
                    false => format!("nobody knows what became of this request: {why}"),
                };
                return self.refused(head, StatusCode::INTERNAL_SERVER_ERROR, &text);
            }
            if is_late {
                break;
            }
        }
        self.overloaded(head, &format!("no node answers: {why}"))
    }

    /// A request as a node gets it.
    pub(super) fn outgoing(&self, head: &request::Parts, body: Bytes, peer: &Peer) -> Request<Outgoing> {
        let mut request = Request::new(Outgoing(body));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = match head.uri.path_and_query().map(|path| path.as_str().parse()) {
            Some(Ok(uri)) => uri,
            _ => head.uri.clone(),
        };
        *request.headers_mut() = end_to_end(&head.headers);
        // What proxies say is not for clients to say.
        for name in [X_TIDEMILL_CLAIM, X_TIDEMILL_PROOF] {
            request.headers_mut().remove(name);
        }
        if let Some(Ok(address)) = peer.address.map(|address| address.to_string().parse()) {
            request.headers_mut().append(X_FORWARDED_FOR, address);
        }
        request
    }

    fn ping(&self, head: &request::Parts) -> Response<Answer> {
        let url = Parameters::from_urlencoded(head.uri.query().unwrap_or_default().as_bytes());
        if head.uri.path() == "/status" || matches!(url.value("verbose"), "" | "0" | "false") {
            return self.own(&head.headers, StatusCode::NO_CONTENT, None, Bytes::new());
        }
        let version = serde_json::json!({ "version": self.options.http.version });
        let body = if head.method == Method::HEAD { String::new() } else { version.to_string() };
        self.own(&head.headers, StatusCode::OK, Some("application/json"), body)
    }

    fn health(&self, head: &request::Parts) -> Response<Answer> {
        let is_well = self.nodes.is_any_up();
        let (status, word, message) = match is_well {
            true => (StatusCode::OK, "pass", "ready for queries and writes"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "fail", "no node answers"),
        };
        let check = |up: bool| if up { "pass" } else { "fail" };
        let checks = self.nodes.all().iter();
        let checks = checks.map(|node| serde_json::json!({ "name": node.name, "status": check(node.is_up()) }));
        let checks: Vec<_> = checks.collect();
        let version = &self.options.http.version;
        let body = serde_json::json!({
            "checks": checks, "message": message, "name": "tidemill proxy", "status": word, "version": version,
        });
        self.own(&head.headers, status, Some("application/json"), body.to_string())
    }

    fn metrics(&self, head: &request::Parts) -> Response<Answer> {
        let text = self.figures.text(&self.nodes, self.load.requests.load(Ordering::Relaxed));
        self.own(&head.headers, StatusCode::OK, Some("text/plain; version=0.0.4; charset=utf-8"), text)
    }

    /// An answer of the proxy's own.
    pub(super) fn own(
        &self,
        request: &HeaderMap,
        status: StatusCode,
        content_type: Option<&'static str>,
        body: impl Into<Bytes>,
    ) -> Response<Answer> {
        let mut response = Response::new(Answer::of_bytes(body));
        *response.status_mut() = status;
        *response.headers_mut() = self.headers.routed(request);
        let content_type = content_type.unwrap_or_else(|| media_type(request));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    pub(super) fn refused(&self, head: &request::Parts, status: StatusCode, text: &str) -> Response<Answer> {
        let url = Parameters::from_urlencoded(head.uri.query().unwrap_or_default().as_bytes());
        let (headers, body) = error_parts(&head.headers, url.is_true("pretty"), text);
        let mut response = self.own(&head.headers, status, None, body);
        response.headers_mut().extend(headers);
        response
    }

    fn overloaded(&self, head: &request::Parts, text: &str) -> Response<Answer> {
        let mut response = self.refused(head, StatusCode::SERVICE_UNAVAILABLE, text);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        response
    }
}

fn not_served(database: &str) -> String {
    format!("database {database:?} is not served by this proxy")
}

/// Headers without those that are of one connection.
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OF_ONE_CONNECTION.iter().chain(&named) {
        kept.remove(name);
    }
    kept
}

/// A node's answer as the client gets it.
fn passed_back(response: Response<Answer>) -> Response<Answer> {
    let (mut head, body) = response.into_parts();
    head.headers = end_to_end(&head.headers);
    Response::from_parts(head, body)
}
