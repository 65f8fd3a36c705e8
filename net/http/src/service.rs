//! The seam to whatever answers requests: what a [`Service`] is asked and what it answers.
//!
//! Owns: the request values with everything that the URL and the headers said, already checked for form, and the
//! outcomes with everything that decides a status code.
//! Invariants: one service per core, shared through `Rc`; nothing here crosses a core.
//! Knows nothing of sockets, nor of how an outcome is spelled in JSON or CSV.

use crate::census::Callers;
use std::future::{Future, ready};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tidemill_influxql::{Query, Statement};
use tidemill_line::{BatchClaim, Precision};
use tidemill_query::{ResultSeries, TimeZone};

/// Answers the requests of one core.
pub trait Service: 'static {
    /// The pieces of one query's answer. Dropped before its end when the client went away.
    type Pieces: Pieces;

    /// Says who sends a request; asked before anything else of it is looked at. `peer` is the address of the
    /// connection's other end.
    ///
    /// # Errors
    /// The answer to the whole request: 401, or 429 and 503 where there are too many to verify.
    fn authenticate(
        &self,
        credentials: Option<Credentials>,
        peer: Option<IpAddr>,
    ) -> impl Future<Output = Result<Caller, Refusal>> {
        let _ = (credentials, peer);
        ready(Ok(Caller::Anyone))
    }

    /// Says whether the caller may see the insides of the server.
    ///
    /// # Errors
    /// The answer to the request: 403.
    fn admit_to_insides(&self, caller: &Caller) -> Result<(), Refusal> {
        let _ = caller;
        Ok(())
    }

    /// Says whether a write to this target may go on; asked before the body is read, so that an unknown database or
    /// an overload costs no transfer and is reported before a fault of the body.
    ///
    /// # Errors
    /// The outcome that the client gets instead.
    fn admit_write(&self, target: &WriteTarget) -> Result<(), WriteOutcome> {
        let _ = target;
        Ok(())
    }

    /// Stores a body of line protocol.
    fn write(&self, request: WriteRequest) -> impl Future<Output = WriteOutcome>;

    /// A statement as a warning names it, with everything that the request leaves to defaults written out.
    fn statement_text(&self, statement: &Statement, database: &str) -> String {
        let _ = database;
        statement.to_string()
    }

    /// Starts a query. An `Err` answers the whole request; errors of single statements come as [`Piece::Error`].
    fn query(&self, request: QueryRequest) -> impl Future<Output = Result<Self::Pieces, Refusal>>;

    /// Makes, reads or lets go a snapshot of the server's files.
    ///
    /// # Errors
    /// The answer to the request instead.
    fn snapshot(&self, request: SnapshotRequest) -> impl Future<Output = Result<SnapshotOutcome, Refusal>> {
        let _ = request;
        ready(Err(Refusal::new(404, "this server makes no snapshots")))
    }

    /// The body of `/cluster`: how the nodes stand, a JSON object.
    ///
    /// # Errors
    /// The server is no node of a cluster, or cannot tell.
    fn cluster(&self) -> impl Future<Output = Result<String, Refusal>> {
        ready(Err(Refusal::new(404, "this server is not a node of a cluster")))
    }

    /// Whether a process of the cluster that proves itself has said this.
    fn is_proved(&self, text: &str, proof: &str) -> bool {
        let _ = (text, proof);
        false
    }

    /// The body of `/cluster/placement`: where series go and what this node leads, a JSON object.
    fn placement(&self) -> impl Future<Output = Result<String, Refusal>> {
        ready(Err(Refusal::new(404, "this server has no partitions")))
    }

    /// The body of `/cluster/pool`: how the storage pool stands, a JSON object.
    ///
    /// # Errors
    /// There is none, or nobody can tell.
    fn pool(&self) -> impl Future<Output = Result<String, Refusal>> {
        ready(Err(Refusal::new(404, "this server is not a node of a cluster with a storage pool")))
    }

    /// Does something with the nodes of the cluster; what came of it, a JSON object.
    ///
    /// # Errors
    /// Why it is not done.
    fn change_cluster(&self, order: ClusterOrder) -> impl Future<Output = Result<String, Refusal>> {
        let _ = order;
        ready(Err(Refusal::new(404, "this server is not a node of a cluster")))
    }

    /// Reads all files of all nodes of the cluster again, and fetches those that are damaged from other nodes, if that is
    /// asked for; a JSON object that says what was found.
    ///
    /// # Errors
    /// The server is no node of a cluster, or cannot tell.
    fn entropy(&self, mends: bool) -> impl Future<Output = Result<String, Refusal>> {
        let _ = mends;
        ready(Err(Refusal::new(404, "this server is not a node of a cluster")))
    }

    /// The body of `/metrics`, in the Prometheus text format (see [`crate::metrics::TextWriter`]).
    fn metrics_text(&self) -> impl Future<Output = String>;

    /// Writes and queries by caller that all cores have counted so far (see `HttpSnapshot::callers`).
    fn callers(&self) -> impl Future<Output = Callers> {
        ready(Callers::new())
    }

    /// The body of `/debug/vars`, a JSON object.
    fn debug_vars(&self) -> impl Future<Output = String>;
}

/// What is to be done with the nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterOrder {
    pub verb: String,
    /// Names and values as they stand in the URL.
    pub arguments: Vec<(String, String)>,
}

/// What is asked of snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotRequest {
    /// Make one of everything that was acknowledged so far.
    Take,
    /// The bytes of one of its files from `offset` on. Neither name is checked.
    Read { name: String, path: String, offset: u64 },
    /// It is not needed any more.
    Drop { name: String },
}

/// What came of it.
pub enum SnapshotOutcome {
    /// A JSON object that says the snapshot's name and files.
    Taken(String),
    Bytes(Box<dyn ByteSource>),
    Dropped,
}

/// A pull stream of bytes.
pub trait ByteSource: 'static {
    /// The next bytes, never none of them; `None` behind the last ones, and where they cannot be read.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + '_>>;
}

/// A pull stream of pieces: [`Pieces::next`] is called only when the client has taken enough of the last ones.
pub trait Pieces: 'static {
    /// The next piece, or `None` behind the last one. Cancel-safe: the future may be dropped together with the
    /// stream, never alone.
    fn next(&mut self) -> impl Future<Output = Option<Piece>>;

    /// What the client's session has seen with this answer, if it asked for that.
    fn session(&self) -> Option<String> {
        None
    }
}

/// Where a write goes and who sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteTarget {
    pub database: String,
    /// `None` for the database's default.
    pub retention_policy: Option<String>,
    pub precision: Precision,
    /// Whether `7u` is an unsigned integer. Upstream's default build refuses it, and so does a write that does not ask.
    pub unsigned: bool,
    pub consistency: Consistency,
    /// What a proxy says of the body's batches.
    pub claim: Option<Arc<BatchClaim>>,
    /// What the client's session has seen; it wants to hear what it has seen behind this write.
    pub session: Option<String>,
    pub caller: Caller,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRequest {
    pub target: WriteTarget,
    /// Line protocol, decompressed.
    pub body: Vec<u8>,
}

/// How many replicas must have a write before it is answered. One replica ignores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    Any,
    #[default]
    One,
    Quorum,
    All,
}

/// How new what a query shows must be. A server without others ignores it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReadLevel {
    /// All that was acknowledged before the query.
    #[default]
    Linearizable,
    /// All that was acknowledged so long before it.
    Bounded(Duration),
    /// All that a token stands for; empty: as [`ReadLevel::Linearizable`], and a token comes back.
    Session(String),
    /// Whatever the node has.
    Eventual,
}

/// Who sends a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// Nobody is asked who they are.
    #[default]
    Anyone,
    /// Callers are asked, but there is no admin yet who could have made users.
    Nobody,
    /// A user who has proved it; what they may do is looked up when they do it.
    User(Arc<str>),
}

/// What a request brought to prove who sends it; not yet verified.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// A signed token (`Authorization: Bearer`).
    Bearer(String),
}

impl std::fmt::Debug for Credentials {
    /// Secrets stay out of logs.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::Password { user, .. } => {
                write!(formatter, "Password {{ user: {user:?}, password: [REDACTED] }}")
            }
            Credentials::Bearer(_) => formatter.write_str("Bearer([REDACTED])"),
        }
    }
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// All points are durable: 204.
    Written,
    /// The same, with what the client's session has seen now.
    WrittenInSession(String),
    /// Some points are durable, the text says which are not and why: 400.
    PartialWrite(String),
    /// Nothing was stored, and sending it again is of no use: the status of the refusal.
    Rejected(Refusal),
    /// 404.
    DatabaseNotFound(String),
    /// Nothing was stored for lack of what `why` names; come back in so many seconds: 503 with `Retry-After`.
    Overloaded { why: String, retry_after_s: u32 },
    /// Nothing was stored, the disk is full: 507.
    DiskFull,
    /// All points are durable at a majority of the replicas, but not at all of them, which was asked for: 500.
    NotEverywhere(String),
    /// Nobody knows whether the points are durable (a lost leader, a timeout): 500. Never mapped to success.
    Unknown(String),
}

impl WriteOutcome {
    /// For writes of the server itself: whether all is stored, and else why not.
    pub fn into_result(self) -> Result<(), String> {
        match self {
            WriteOutcome::Written | WriteOutcome::WrittenInSession(_) => Ok(()),
            WriteOutcome::PartialWrite(text) | WriteOutcome::NotEverywhere(text) | WriteOutcome::Unknown(text) => {
                Err(text)
            }
            WriteOutcome::Overloaded { why, .. } => Err(why),
            WriteOutcome::Rejected(refusal) => Err(refusal.text),
            WriteOutcome::DatabaseNotFound(name) => Err(format!("database not found: {name}")),
            WriteOutcome::DiskFull => Err("disk full".to_owned()),
        }
    }
}

/// An answer that is an error as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400 to 599.
    pub status: u16,
    pub text: String,
}

impl Refusal {
    pub fn new(status: u16, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into() }
    }
}

/// One `/query` request.
#[derive(Clone, Debug)]
pub struct QueryRequest {
    /// Parsed, with bound parameters in place.
    pub query: Query,
    /// Default database; empty when the request named none.
    pub database: String,
    /// Default retention policy for unqualified measurements.
    pub retention_policy: Option<String>,
    /// The request asked for one document a piece.
    pub chunked: bool,
    /// Rows that a piece should have; pieces of other sizes are cut and joined on the way out.
    pub chunk_size: usize,
    /// A GET: the answer warns of statements that change something. They are executed all the same.
    pub read_only: bool,
    pub read: ReadLevel,
    pub caller: Caller,
}

/// A part of an answer. Statements come in ascending order, each ends with `StatementDone` or `Error`.
pub enum Piece {
    /// Rows. Rows of the same (name, tags) behind each other belong to one series of the answer.
    Series {
        /// Index among the request's statements.
        statement: u32,
        series: ResultSeries,
        /// Another series piece of this statement follows. Only chunked answers look at it; when it is not known,
        /// `false` is right, and the piece is held back until the next one tells.
        more: bool,
    },
    /// The offsets in which this statement's `time` columns are printed (`tz()`); before its first series.
    Zone { statement: u32, zone: Rc<dyn Zone> },
    /// A note to the client.
    Message { statement: u32, level: String, text: String },
    /// The statement failed. It ends the answer: later statements are reported as not executed and
    /// [`Pieces::next`] is not called again.
    Error { statement: u32, text: String },
    /// The statement is answered.
    StatementDone(u32),
}

/// Offsets of a time zone.
pub trait Zone {
    /// Seconds east of UTC at this instant (ns since the epoch).
    fn offset_seconds(&self, time_ns: i64) -> i32;
}

impl Zone for Arc<TimeZone> {
    fn offset_seconds(&self, time_ns: i64) -> i32 {
        // Offsets are below a day and a half.
        (self.offset_ns(time_ns) / 1_000_000_000) as i32
    }
}
