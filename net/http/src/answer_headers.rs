//! The headers that all answers share: who answers, which request is answered, and what browsers want to hear.

use crate::options::Options;
use crate::reply::header_text;
use crate::request_id::RequestIds;
use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

const X_INFLUXDB_VERSION: HeaderName = HeaderName::from_static("x-influxdb-version");
const X_INFLUXDB_BUILD: HeaderName = HeaderName::from_static("x-influxdb-build");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Makes them for the requests of one core.
pub struct AnswerHeaders {
    request_ids: RequestIds,
    /// Of every answer, and of every routed one.
    fixed: HeaderMap,
    routed: Vec<(HeaderName, HeaderValue)>,
}

impl AnswerHeaders {
    pub fn new(options: &Options, request_ids: RequestIds) -> AnswerHeaders {
        let mut fixed = HeaderMap::new();
        fixed.insert(X_INFLUXDB_VERSION, header_text(options.version.as_bytes()));
        fixed.insert(X_INFLUXDB_BUILD, header_text(options.build.as_bytes()));
        let mut routed = Vec::new();
        for (name, value) in &options.headers {
            match name.parse() {
                Ok(name) => routed.push((name, header_text(value.as_bytes()))),
                Err(_) => tracing::error!(name, "not a name of a header; left out of all answers"),
            }
        }
        AnswerHeaders { request_ids, fixed, routed }
    }

    /// Those of an answer to what has no endpoint.
    pub fn unrouted(&self) -> HeaderMap {
        self.fixed.clone()
    }

    /// Those of an endpoint's answer to a request with these headers.
    pub fn routed(&self, request: &HeaderMap) -> HeaderMap {
        let mut headers = self.fixed.clone();
        let given =
            [X_REQUEST_ID, REQUEST_ID].into_iter().find_map(|name| request.get(name).filter(|id| !id.is_empty()));
        let id = given.cloned().unwrap_or_else(|| header_text(self.request_ids.next_id().as_bytes()));
        headers.insert(REQUEST_ID, id.clone());
        headers.insert(X_REQUEST_ID, id);
        if let Some(origin) = request.get(header::ORIGIN) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            let fixed = |text| HeaderValue::from_static(text);
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, fixed("DELETE, GET, OPTIONS, POST, PUT"));
            let allowed = "Accept, Accept-Encoding, Authorization, Content-Length, Content-Type, X-CSRF-Token, \
                           X-HTTP-Method-Override";
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fixed(allowed));
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, fixed("Date, X-InfluxDB-Version, X-InfluxDB-Build"));
        }
        for (name, value) in &self.routed {
            headers.insert(name, value.clone());
        }
        headers
    }
}
