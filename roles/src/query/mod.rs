//! The execution of statements: on the core that was asked, and the scans on the cores that own the data.
//!
//! Owns: the way from a parsed request to the pieces of its answer ([`QueryPieces`]), the scans that a SELECT sends to
//! the owning cores ([`scan`]), the table of running queries, and what a query may use ([`QueryLimits`]).
//! Invariants: what a query holds is charged to its budget wherever it is held; a part that does not end with its end
//! marker is an error, never an end (I9); when the answer is dropped, its parts stop at their next batch.
//! Knows nothing of HTTP's encodings, of the log, and of how points are stored.

mod account;
mod answer_table;
mod cardinality;
pub mod continuous;
mod definitions;
mod deletion;
pub(crate) mod elsewhere;
mod error;
mod everywhere;
mod explain;
mod into;
mod limits;
pub mod listing;
mod measurement_filter;
mod monitor;
mod pieces;
mod point_search;
mod running;
pub mod scan;
mod scope;
mod select;
mod series_cursors;
mod show;
mod sources;
mod subscriptions;
mod users;

pub use account::QueryMemory;
pub use continuous::qualified;
pub use error::{StatementError, Stopped};
pub(crate) use everywhere::{kill_here, list as running_here, number_queries};
pub use limits::QueryLimits;
pub(crate) use monitor::host_name;
pub use pieces::QueryPieces;
pub(crate) use running::RunningQueries;
