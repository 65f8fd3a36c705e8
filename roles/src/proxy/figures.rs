//! What is counted of a proxy, and its `/metrics`.
//!
//! Each thread counts for itself. Once a second it leaves a copy where the others find it, so that any of them can answer
//! for all; no request waits for that.

use super::nodes::Nodes;
use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tidemill_http::metrics::{HttpMetrics, HttpSnapshot, TextWriter};

/// The figures of one thread.
pub struct Figures {
    pub http: HttpMetrics,
    /// Requests refused because too many waited.
    pub refused: Cell<u64>,
    /// Parts of writes that were sent again because nobody knew what became of them.
    pub resent: Cell<u64>,
    /// Writes that went with others.
    pub joined: Cell<u64>,
    pub connections: Cell<u64>,
    pub connections_accepted: Cell<u64>,
    pub connections_overdue: Cell<u64>,
    thread: usize,
    all: Arc<Mutex<BTreeMap<usize, Shown>>>,
}

/// A copy for the other threads.
#[derive(Clone)]
struct Shown {
    http: HttpSnapshot,
    refused: u64,
    resent: u64,
    joined: u64,
    /// By node: whether it is up, whether it has said where series go, connections, requests, failures, falls.
    nodes: BTreeMap<String, [u64; 6]>,
}

/// Where threads leave their figures.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<usize, Shown>>>);

impl Figures {
    pub fn new(thread: usize, board: &Board) -> Figures {
        Figures {
            http: HttpMetrics::default(),
            refused: Cell::new(0),
            resent: Cell::new(0),
            joined: Cell::new(0),
            connections: Cell::new(0),
            connections_accepted: Cell::new(0),
            connections_overdue: Cell::new(0),
            thread,
            all: board.0.clone(),
        }
    }

    /// Leaves a copy.
    pub fn show(&self, nodes: &Nodes) {
        let mut http = self.http.snapshot();
        http.open_connection_count = self.connections.get();
        http.accepted_connection_count = self.connections_accepted.get();
        http.overdue_connection_count = self.connections_overdue.get();
        let by_node = nodes.all().iter().map(|node| {
            let figures = &node.figures;
            let values = [
                u64::from(node.is_up()),
                u64::from(node.has_placement()),
                node.connections() as u64,
                figures.requests.get(),
                figures.failures.get(),
                figures.falls.get(),
            ];
            (node.name.clone(), values)
        });
        let shown = Shown {
            http,
            refused: self.refused.get(),
            resent: self.resent.get(),
            joined: self.joined.get(),
            nodes: by_node.collect(),
        };
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(self.thread, shown);
    }

    /// The text of `/metrics`.
    pub fn text(&self, nodes: &Nodes, in_work: usize) -> String {
        self.show(nodes);
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(own) = all.get(&self.thread) else { return String::new() };
        let mut sum = own.clone();
        for (_, other) in all.iter().filter(|(thread, _)| **thread != self.thread) {
            sum.http.merge(&other.http);
            sum.refused += other.refused;
            sum.resent += other.resent;
            sum.joined += other.joined;
            for (name, values) in &other.nodes {
                let own = sum.nodes.entry(name.clone()).or_default();
                own.iter_mut().zip(values).take(2).for_each(|(own, value)| *own = *value.min(own));
                own.iter_mut().zip(values).skip(2).for_each(|(own, value)| *own += value);
            }
        }
        let mut writer = TextWriter::new();
        sum.http.write_text(&mut writer);
        writer.family("tidemill_proxy_requests_in_work", "gauge", "Requests that are in work.");
        writer.sample("tidemill_proxy_requests_in_work", &[], in_work as f64);
        writer.family("tidemill_proxy_requests_refused_total", "counter", "Requests refused because too many waited.");
        writer.sample("tidemill_proxy_requests_refused_total", &[], sum.refused as f64);
        writer.family("tidemill_proxy_writes_resent_total", "counter", "Parts of writes that were sent again.");
        writer.sample("tidemill_proxy_writes_resent_total", &[], sum.resent as f64);
        writer.family("tidemill_proxy_writes_joined_total", "counter", "Writes that went to the nodes with others.");
        writer.sample("tidemill_proxy_writes_joined_total", &[], sum.joined as f64);
        let families = [
            ("tidemill_proxy_node_up", "gauge", "Whether a node answers."),
            ("tidemill_proxy_node_placed", "gauge", "Whether a node has said where series go, and knows the proxy."),
            ("tidemill_proxy_node_connections", "gauge", "Open connections to a node."),
            ("tidemill_proxy_node_requests_total", "counter", "Requests sent to a node."),
            ("tidemill_proxy_node_failures_total", "counter", "Requests to a node that brought no answer."),
            ("tidemill_proxy_node_falls_total", "counter", "Times that a node was found to be gone."),
        ];
        for (index, (name, kind, help)) in families.into_iter().enumerate() {
            writer.family(name, kind, help);
            for (node, values) in &sum.nodes {
                writer.sample(name, &[("node", node)], values[index] as f64);
            }
        }
        writer.finish()
    }
}
