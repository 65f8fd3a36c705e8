//! The HTTP surface of InfluxDB 1.x on one core: bytes to requests, results to bytes.
//!
//! Owns: connections and their limits, routing, parameters, compression, and the spelling of answers.
//! Invariants: everything runs on the executor of one core and nothing is shared between cores; memory of a request
//! is bounded by [`Options`], memory of an answer by a few buffers, however long it is.
//! Knows nothing of storage: whatever answers is behind [`Service`].
//!
//! ```text
//! server ── socket, connection       one task a connection, one sweep for all deadlines
//!    └── router                      path and method, headers that all answers share
//!          ├── write ── body, gunzip
//!          ├── snapshot
//!          └── query ── answer ── encode ── (indent, gzip) ── body
//! ```

mod accept;
mod access_log;
mod answer;
mod answer_headers;
mod body;
mod census;
mod connection;
pub mod encode;
mod gunzip;
mod held;
mod indent;
pub mod metrics;
mod options;
mod parameters;
pub mod prometheus;
mod query;
mod reply;
mod request_id;
mod router;
mod server;
mod service;
mod snapshot;
mod socket;
mod tls;
mod write;

pub use access_log::{AccessLog, AccessLogOptions, LogWriter, StatusFilter, StatusFilterError};
pub use answer_headers::AnswerHeaders;
pub use census::Callers;
pub use connection::Connection;
pub use gunzip::{Gunzip, GunzipError};
pub use options::{HEAD_BYTES_MAX_FLOOR, Options};
pub use parameters::{Parameters, X_TIDEMILL_SESSION};
pub use query::statements;
pub use reply::{X_TIDEMILL_OUTCOME, error_parts, media_type};
pub use request_id::RequestIds;
pub use router::endpoint_paths;
pub use server::{Front, Server};
pub use service::{
    ByteSource, Caller, ClusterOrder, Consistency, Credentials, Piece, Pieces, QueryRequest, ReadLevel, Refusal,
    Service, SnapshotOutcome, SnapshotRequest, WriteOutcome, WriteRequest, WriteTarget, Zone,
};
pub use write::{X_TIDEMILL_CLAIM, X_TIDEMILL_PROOF};
