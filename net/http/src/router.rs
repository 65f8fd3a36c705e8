//! From a request's head to its endpoint, and the headers that all answers share.

use crate::accept;
use crate::access_log::{self, AccessLog, Entry};
use crate::answer_headers::{AnswerHeaders, REQUEST_ID};
use crate::body::{RequestRecord, ResponseBody};
use crate::census::{self, Census, Open};
use crate::connection::Connection;
use crate::encode::Format;
use crate::metrics::{Endpoint, HttpMetrics};
use crate::options::Options;
use crate::parameters::{Parameters, credentials};
use crate::prometheus;
use crate::query::{QueryCall, query};
use crate::reply::{Reply, Spelling, TEXT_PLAIN};
use crate::request_id::RequestIds;
use crate::service::{Caller, ClusterOrder, Credentials, Refusal, Service};
use crate::snapshot::{self, snapshot};
use crate::write::{Dialect, WriteCall, X_TIDEMILL_CLAIM, drain, proof, write};
use glommio::timer::Timer;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::request;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

const FLUX_DISABLED: &str =
    "Flux query service disabled. Verify flux-enabled=true in the [http] section of the InfluxDB config.\n";

/// What all requests of a core need.
pub(crate) struct Core<S> {
    pub(crate) service: Rc<S>,
    pub(crate) options: Options,
    pub(crate) metrics: Rc<HttpMetrics>,
    pub(crate) access_log: Option<AccessLog>,
    headers: AnswerHeaders,
}

/// What is noted of a request while it is answered.
struct Notes<'a> {
    /// Bytes of its body.
    received: &'a Cell<u64>,
    entry: &'a RefCell<Option<Entry>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Query,
    Write(Dialect),
    PrometheusWrite,
    PrometheusRead,
    Flux,
    Ping,
    Status,
    Health,
    Metrics,
    DebugVars,
    DebugRequests,
    Snapshots,
    Cluster,
    Placement,
    Pool,
}

/// What is served where.
const ROUTES: [(&str, Route); 16] = [
    ("/query", Route::Query),
    ("/write", Route::Write(Dialect::V1)),
    ("/api/v2/write", Route::Write(Dialect::V2)),
    ("/api/v2/query", Route::Flux),
    ("/api/v1/prom/write", Route::PrometheusWrite),
    ("/api/v1/prom/read", Route::PrometheusRead),
    ("/ping", Route::Ping),
    ("/status", Route::Status),
    ("/health", Route::Health),
    ("/metrics", Route::Metrics),
    ("/debug/vars", Route::DebugVars),
    ("/debug/requests", Route::DebugRequests),
    (snapshot::PATH, Route::Snapshots),
    (CLUSTER_PATH, Route::Cluster),
    (PLACEMENT_PATH, Route::Placement),
    (POOL_PATH, Route::Pool),
];

/// How the nodes of a cluster stand, and what is done with them; not of upstream.
const CLUSTER_PATH: &str = "/cluster";
/// Where series go, for proxies; not of upstream.
const PLACEMENT_PATH: &str = "/cluster/placement";
/// How its storage pool stands.
const POOL_PATH: &str = "/cluster/pool";

/// Paths of all endpoints.
pub fn endpoint_paths() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().map(|(path, _)| *path)
}

impl Route {
    fn of(path: &str) -> Option<Route> {
        if path.starts_with(snapshot::PREFIX) {
            return Some(Route::Snapshots);
        }
        ROUTES.iter().find(|(known, _)| *known == path).map(|(_, route)| *route)
    }

    /// Methods, as the `Allow` header lists them.
    const fn methods(self) -> &'static str {
        match self {
            Route::Query => "GET, POST, OPTIONS",
            Route::Write(Dialect::V1) => "POST, OPTIONS",
            Route::Write(Dialect::V2) | Route::Flux | Route::PrometheusWrite | Route::PrometheusRead => "POST",
            Route::Ping | Route::Status => "GET, HEAD",
            Route::Snapshots => "DELETE, GET, POST",
            Route::Cluster => "GET, POST",
            Route::Health
            | Route::Metrics
            | Route::DebugVars
            | Route::DebugRequests
            | Route::Placement
            | Route::Pool => "GET",
        }
    }

    const fn is_debug(self) -> bool {
        matches!(self, Route::DebugVars | Route::DebugRequests)
    }

    fn allows(self, method: &Method) -> bool {
        self.methods().split(", ").any(|allowed| allowed == method.as_str())
    }

    const fn endpoint(self) -> Endpoint {
        match self {
            Route::Query | Route::Flux | Route::PrometheusRead => Endpoint::Query,
            Route::Write(_) | Route::PrometheusWrite => Endpoint::Write,
            Route::Ping | Route::Status => Endpoint::Ping,
            Route::Health => Endpoint::Health,
            Route::Metrics => Endpoint::Metrics,
            Route::DebugVars => Endpoint::DebugVars,
            Route::DebugRequests | Route::Snapshots | Route::Cluster | Route::Placement | Route::Pool => {
                Endpoint::Other
            }
        }
    }
}

impl<S: Service> Core<S> {
    pub(crate) fn new(
        service: Rc<S>,
        options: Options,
        metrics: Rc<HttpMetrics>,
        request_ids: RequestIds,
        access_log: Option<AccessLog>,
    ) -> Core<S> {
        let headers = AnswerHeaders::new(&options, request_ids);
        Core { service, options, metrics, access_log, headers }
    }

    /// Answers one request.
    pub(crate) async fn handle(
        &self,
        connection: Rc<Connection>,
        request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        connection.begin_request();
        let (head, incoming) = request.into_parts();
        let route = Route::of(head.uri.path());
        let route = route.filter(|route| !route.is_debug() || self.options.serves_debug);
        let received = Rc::new(Cell::new(0));
        let entry = Rc::new(RefCell::new(None));
        let mut record = RequestRecord {
            connection: connection.clone(),
            metrics: self.metrics.clone(),
            endpoint: route.map_or(Endpoint::Other, Route::endpoint),
            started: Instant::now(),
            status: 0,
            request_bytes: received.clone(),
            response_bytes: 0,
            entry: entry.clone(),
        };
        let is_write = route.is_some_and(|route| route.endpoint() == Endpoint::Write);
        let log = self.access_log.as_ref().filter(|log| log.wants(is_write));
        let note = |id: &str| {
            *entry.borrow_mut() = log.map(|log| Entry::new(log, &head, connection.peer(), id));
        };
        let mut headers = self.headers.unrouted();
        let reply = match route {
            None => {
                note("-");
                not_found()
            }
            Some(route) if !route.allows(&head.method) => {
                note("-");
                method_not_allowed(route)
            }
            Some(route) => {
                let format = accept::format(&head.headers);
                headers = self.headers.routed(&head.headers);
                note(headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("-"));
                if head.method == Method::OPTIONS {
                    Reply::empty(StatusCode::OK)
                } else {
                    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
                    let notes = Notes { received: &received, entry: &entry };
                    self.dispatch(route, format, &head, incoming, notes, connection.peer()).await
                }
            }
        };
        if let Some(content_type) = reply.content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        headers.extend(reply.headers);
        if reply.is_last {
            connection.linger();
        }
        record.status = reply.status.as_u16();
        let mut response = Response::new(ResponseBody::new(reply.payload, record));
        *response.status_mut() = reply.status;
        *response.headers_mut() = headers;
        response
    }

    async fn dispatch(
        &self,
        route: Route,
        format: Format,
        head: &request::Parts,
        incoming: Incoming,
        notes: Notes<'_>,
        peer: Option<IpAddr>,
    ) -> Reply {
        let Notes { received, entry } = notes;
        let url = Parameters::from_urlencoded(head.uri.query().unwrap_or_default().as_bytes());
        let spelling = Spelling { format, is_pretty: url.is_true("pretty"), realm: &self.options.realm };
        let (service, options, metrics) = (&*self.service, &self.options, &self.metrics);
        if Census::is_open() && matches!(head.uri.path(), "/query" | "/write") {
            let is_write = route.endpoint() == Endpoint::Write;
            metrics.census.count(access_log::user(&url, &head.headers).as_deref(), peer, is_write);
        }
        let claimed = head.headers.get(&X_TIDEMILL_CLAIM).and_then(|text| text.to_str().ok());
        if route == Route::Placement
            && let Some(text) = claimed
            && service.is_proved(text, proof(&head.headers))
        {
            return placement(service, spelling).await;
        }
        let caller = match self.caller(route, credentials(&url, &head.headers), peer).await {
            Ok(caller) => caller,
            Err(refusal) => {
                return drain(options, metrics, received, head, incoming, Reply::refusal(spelling, &refusal)).await;
            }
        };
        match route {
            Route::Query => {
                let takes_gzip = accept::takes_gzip(&head.headers);
                query(
                    QueryCall { service, options, spelling, takes_gzip, metrics, received, caller, entry },
                    head,
                    &url,
                    incoming,
                )
                .await
            }
            Route::Write(dialect) => {
                write(
                    WriteCall { service, options, spelling, metrics, received, caller },
                    dialect,
                    head,
                    &url,
                    incoming,
                )
                .await
            }
            Route::PrometheusWrite => {
                let call = WriteCall { service, options, spelling, metrics, received, caller };
                prometheus::write(call, head, &url, incoming).await
            }
            Route::PrometheusRead => {
                let call = WriteCall { service, options, spelling, metrics, received, caller };
                prometheus::read(call, &url, incoming).await
            }
            Route::Flux => Reply::of_type(StatusCode::FORBIDDEN, TEXT_PLAIN, FLUX_DISABLED),
            Route::Ping => self.ping(&head.method, &url),
            Route::Status => Reply::empty(StatusCode::NO_CONTENT),
            Route::Health => Reply::of_type(StatusCode::OK, "application/json", self.health()),
            Route::Metrics => {
                let text = service.metrics_text().await;
                Reply::of_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
            }
            Route::Snapshots => snapshot(service, spelling, &caller, &head.method, head.uri.path(), &url).await,
            Route::Cluster => match cluster(service, &head.method, &url).await {
                Ok(text) => Reply::of_type(StatusCode::OK, "application/json; charset=utf-8", text),
                Err(refusal) => Reply::refusal(spelling, &refusal),
            },
            Route::Placement => placement(service, spelling).await,
            Route::Pool => match service.pool().await {
                Ok(text) => Reply::of_type(StatusCode::OK, "application/json; charset=utf-8", text),
                Err(refusal) => Reply::refusal(spelling, &refusal),
            },
            Route::DebugRequests => match census::duration(url.value("seconds")) {
                Ok(duration) => {
                    let _open = Open::new();
                    let before = service.callers().await;
                    Timer::new(duration).await;
                    let text = census::text(&before, &service.callers().await);
                    Reply::of_type(StatusCode::OK, "application/json; charset=utf-8", text).last()
                }
                Err(text) => Reply::error(spelling, StatusCode::BAD_REQUEST, &text),
            },
            Route::DebugVars => {
                Reply::of_type(StatusCode::OK, "application/json; charset=utf-8", service.debug_vars().await)
            }
        }
    }

    /// Who calls, where the route wants to know it.
    async fn caller(
        &self,
        route: Route,
        credentials: Option<Credentials>,
        peer: Option<IpAddr>,
    ) -> Result<Caller, Refusal> {
        let is_asked = match route {
            Route::Query | Route::Write(_) | Route::PrometheusWrite | Route::PrometheusRead => true,
            Route::Snapshots | Route::Cluster | Route::Placement | Route::Pool => true,
            Route::Ping | Route::Status | Route::Health | Route::Metrics => self.options.ping_auth,
            Route::DebugVars | Route::DebugRequests => self.options.debug_auth,
            // It answers that it is off, whoever asks.
            Route::Flux => false,
        };
        if !is_asked {
            return Ok(Caller::Anyone);
        }
        let caller = self.service.authenticate(credentials, peer).await?;
        if route.is_debug() || matches!(route, Route::Cluster | Route::Placement | Route::Pool) {
            self.service.admit_to_insides(&caller)?;
        }
        Ok(caller)
    }

    fn ping(&self, method: &Method, url: &Parameters) -> Reply {
        if matches!(url.value("verbose"), "" | "0" | "false") {
            return Reply::empty(StatusCode::NO_CONTENT);
        }
        if method == Method::HEAD {
            return Reply::empty(StatusCode::OK);
        }
        let body = format!("{{\"version\":{}}}", Value::from(self.options.version.as_str()));
        Reply::of_type(StatusCode::OK, "application/json", body)
    }

    fn health(&self) -> String {
        let version = Value::from(self.options.version.as_str());
        format!(
            "{{\"checks\":[],\"message\":\"ready for queries and writes\",\"name\":\"influxdb\",\"status\":\"pass\",\
             \"version\":{version}}}"
        )
    }
}

/// How the nodes stand, or what is to be done with them: `do` names it. `entropy` is about their files.
async fn placement<S: Service>(service: &S, spelling: Spelling<'_>) -> Reply {
    match service.placement().await {
        Ok(text) => Reply::of_type(StatusCode::OK, "application/json; charset=utf-8", text),
        Err(refusal) => Reply::refusal(spelling, &refusal),
    }
}

async fn cluster<S: Service>(service: &S, method: &Method, url: &Parameters) -> Result<String, Refusal> {
    match (url.value("entropy"), *method == Method::POST) {
        ("", _) => {}
        ("show", false) => return service.entropy(false).await,
        ("repair", true) => return service.entropy(true).await,
        _ => return Err(Refusal::new(400, "use GET with entropy=show, or POST with entropy=repair")),
    }
    if method != Method::POST {
        return service.cluster().await;
    }
    // The password may be among the others.
    let arguments = url.pairs().filter(|(name, _)| !matches!(*name, "do" | "u" | "p" | "pretty"));
    let arguments = arguments.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    service.change_cluster(ClusterOrder { verb: url.value("do").to_owned(), arguments }).await
}

fn not_found() -> Reply {
    unrouted(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn method_not_allowed(route: Route) -> Reply {
    let mut reply = unrouted(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    reply.headers.push((header::ALLOW, HeaderValue::from_static(route.methods())));
    reply
}

fn unrouted(status: StatusCode, text: &'static str) -> Reply {
    let mut reply = Reply::of_type(status, TEXT_PLAIN, text);
    reply.headers.push((header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
    reply
}
