//! What is counted of requests, and the text format in which metrics are asked for.
//!
//! Owns: counters and latency histograms of one core's HTTP surface, their mergeable snapshot, and [`TextWriter`],
//! with which every other part of the server writes its own metrics.

mod text_writer;

pub use text_writer::TextWriter;

use crate::census::{Callers, Census};
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// The endpoints that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    Query,
    Write,
    Ping,
    Health,
    Metrics,
    DebugVars,
    /// Everything that has no route.
    Other,
}

impl Endpoint {
    pub const ALL: [Endpoint; 7] = [
        Endpoint::Query,
        Endpoint::Write,
        Endpoint::Ping,
        Endpoint::Health,
        Endpoint::Metrics,
        Endpoint::DebugVars,
        Endpoint::Other,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Endpoint::Query => "query",
            Endpoint::Write => "write",
            Endpoint::Ping => "ping",
            Endpoint::Health => "health",
            Endpoint::Metrics => "metrics",
            Endpoint::DebugVars => "debug_vars",
            Endpoint::Other => "other",
        }
    }
}

/// The largest latency that is told apart, microseconds: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Two digits: 20 KiB a histogram.
const LATENCY_DIGITS: u8 = 2;

/// What one endpoint has done.
#[derive(Clone, Debug)]
pub struct EndpointSnapshot {
    /// Answers by the first digit of their status, 1 to 5.
    pub status_counts: [u64; 5],
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// From the end of the head to the end of the answer, microseconds.
    pub latency_us: Histogram<u64>,
    /// Sum of all latencies, microseconds.
    pub latency_us_sum: u64,
}

impl EndpointSnapshot {
    fn new() -> EndpointSnapshot {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS);
        EndpointSnapshot {
            status_counts: [0; 5],
            request_bytes: 0,
            response_bytes: 0,
            latency_us: latency_us.expect("constant bounds that the histogram accepts"),
            latency_us_sum: 0,
        }
    }
}

/// The figures of one core, or of several after [`HttpSnapshot::merge`]. May cross cores.
#[derive(Clone, Debug)]
pub struct HttpSnapshot {
    /// In the order of [`Endpoint::ALL`].
    pub endpoints: Vec<EndpointSnapshot>,
    pub open_connection_count: u64,
    pub accepted_connection_count: u64,
    /// Connections closed because a deadline passed.
    pub overdue_connection_count: u64,
    /// Bytes of request bodies that are being read or worked on.
    pub body_bytes_held: u64,
    /// Bodies refused because those had used up their budget.
    pub bodies_without_room: u64,
    /// Writes and queries by caller, while a census is taken.
    pub callers: Callers,
}

impl HttpSnapshot {
    /// Adds the figures of another core.
    pub fn merge(&mut self, other: &HttpSnapshot) {
        for (into, from) in self.endpoints.iter_mut().zip(&other.endpoints) {
            for (into, from) in into.status_counts.iter_mut().zip(from.status_counts) {
                *into += from;
            }
            into.request_bytes += from.request_bytes;
            into.response_bytes += from.response_bytes;
            into.latency_us_sum += from.latency_us_sum;
            into.latency_us += &from.latency_us;
        }
        self.open_connection_count += other.open_connection_count;
        self.accepted_connection_count += other.accepted_connection_count;
        self.overdue_connection_count += other.overdue_connection_count;
        self.body_bytes_held += other.body_bytes_held;
        self.bodies_without_room += other.bodies_without_room;
        for (caller, (writes, queries)) in &other.callers {
            let counts = self.callers.entry(caller.clone()).or_default();
            counts.0 += writes;
            counts.1 += queries;
        }
    }

    /// Writes all figures under `tidemill_http_…`.
    pub fn write_text(&self, writer: &mut TextWriter) {
        let served = || Endpoint::ALL.iter().zip(&self.endpoints);
        writer.family("tidemill_http_requests_total", "counter", "Answered requests by endpoint and class of status.");
        for (endpoint, figures) in served() {
            for (class, count) in (1..).zip(figures.status_counts).filter(|(_, count)| *count > 0) {
                let class = format!("{class}xx");
                let labels = [("endpoint", endpoint.name()), ("status", class.as_str())];
                writer.sample("tidemill_http_requests_total", &labels, count as f64);
            }
        }
        writer.family("tidemill_http_request_bytes_total", "counter", "Bytes of request bodies as sent.");
        for (endpoint, figures) in served() {
            let labels = [("endpoint", endpoint.name())];
            writer.sample("tidemill_http_request_bytes_total", &labels, figures.request_bytes as f64);
        }
        writer.family("tidemill_http_response_bytes_total", "counter", "Bytes of answer bodies as sent.");
        for (endpoint, figures) in served() {
            let labels = [("endpoint", endpoint.name())];
            writer.sample("tidemill_http_response_bytes_total", &labels, figures.response_bytes as f64);
        }
        writer.family("tidemill_http_request_seconds", "summary", "From the end of the head to the end of the answer.");
        for (endpoint, figures) in served().filter(|(_, figures)| !figures.latency_us.is_empty()) {
            let labels = [("endpoint", endpoint.name())];
            let sum = figures.latency_us_sum as f64 / 1e6;
            writer.summary("tidemill_http_request_seconds", &labels, &figures.latency_us, 1e-6, sum);
        }
        writer.family("tidemill_http_connections", "gauge", "Open connections.");
        writer.sample("tidemill_http_connections", &[], self.open_connection_count as f64);
        writer.family("tidemill_http_connections_accepted_total", "counter", "Accepted connections.");
        writer.sample("tidemill_http_connections_accepted_total", &[], self.accepted_connection_count as f64);
        writer.family("tidemill_http_connections_overdue_total", "counter", "Connections closed by a deadline.");
        writer.sample("tidemill_http_connections_overdue_total", &[], self.overdue_connection_count as f64);
        writer.family("tidemill_http_bodies_refused_total", "counter", "Request bodies refused for lack of memory.");
        writer.sample("tidemill_http_bodies_refused_total", &[], self.bodies_without_room as f64);
    }
}

/// The figures of one core, while they grow.
pub struct HttpMetrics {
    figures: RefCell<HttpSnapshot>,
    open_connection_count: Cell<u64>,
    pub(crate) body_bytes_held: Cell<u64>,
    pub(crate) bodies_without_room: Cell<u64>,
    pub(crate) census: Census,
}

impl Default for HttpMetrics {
    fn default() -> HttpMetrics {
        let figures = HttpSnapshot {
            endpoints: Endpoint::ALL.map(|_| EndpointSnapshot::new()).into(),
            open_connection_count: 0,
            accepted_connection_count: 0,
            overdue_connection_count: 0,
            body_bytes_held: 0,
            bodies_without_room: 0,
            callers: Callers::new(),
        };
        HttpMetrics {
            figures: RefCell::new(figures),
            open_connection_count: Cell::new(0),
            body_bytes_held: Cell::new(0),
            bodies_without_room: Cell::new(0),
            census: Census::default(),
        }
    }
}

/// What one request took.
#[derive(Clone, Copy, Debug)]
pub struct RequestFigures {
    pub endpoint: Endpoint,
    pub status: u16,
    pub latency: Duration,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

impl HttpMetrics {
    /// A copy of the figures up to now.
    pub fn snapshot(&self) -> HttpSnapshot {
        HttpSnapshot {
            open_connection_count: self.open_connection_count.get(),
            body_bytes_held: self.body_bytes_held.get(),
            bodies_without_room: self.bodies_without_room.get(),
            callers: self.census.callers(),
            ..self.figures.borrow().clone()
        }
    }

    /// Counts an answered request.
    pub fn record(&self, request: RequestFigures) {
        let mut figures = self.figures.borrow_mut();
        let endpoint = &mut figures.endpoints[request.endpoint as usize];
        endpoint.status_counts[usize::from((request.status / 100).clamp(1, 5)) - 1] += 1;
        endpoint.request_bytes += request.request_bytes;
        endpoint.response_bytes += request.response_bytes;
        let latency_us = u64::try_from(request.latency.as_micros()).unwrap_or(u64::MAX).min(LATENCY_US_MAX);
        endpoint.latency_us_sum += latency_us;
        endpoint.latency_us.saturating_record(latency_us);
    }

    pub(crate) fn connection_opened(&self) {
        self.open_connection_count.set(self.open_connection_count.get() + 1);
        self.figures.borrow_mut().accepted_connection_count += 1;
    }

    pub(crate) fn connection_closed(&self) {
        self.open_connection_count.set(self.open_connection_count.get() - 1);
    }

    pub(crate) fn connection_overdue(&self) {
        self.figures.borrow_mut().overdue_connection_count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_two_cores_add_up() {
        let request = RequestFigures {
            endpoint: Endpoint::Write,
            status: 204,
            latency: Duration::from_micros(100),
            request_bytes: 10,
            response_bytes: 0,
        };
        let (one, two) = (HttpMetrics::default(), HttpMetrics::default());
        one.record(request);
        two.record(RequestFigures { status: 503, ..request });
        two.connection_opened();
        let mut sum = one.snapshot();
        sum.merge(&two.snapshot());
        let write = &sum.endpoints[Endpoint::Write as usize];
        assert_eq!((write.status_counts, write.request_bytes, write.latency_us.len()), ([0, 1, 0, 0, 1], 20, 2));
        let mut writer = TextWriter::new();
        sum.write_text(&mut writer);
        let text = writer.finish();
        assert!(text.contains("tidemill_http_requests_total{endpoint=\"write\",status=\"2xx\"} 1\n"), "{text}");
        assert!(text.contains("tidemill_http_request_seconds_count{endpoint=\"write\"} 2\n"), "{text}");
        assert!(text.contains("tidemill_http_connections 1\n"), "{text}");
    }

    #[test]
    fn the_order_of_endpoints_is_their_number() {
        for (index, endpoint) in Endpoint::ALL.into_iter().enumerate() {
            assert_eq!(endpoint as usize, index);
        }
    }
}
