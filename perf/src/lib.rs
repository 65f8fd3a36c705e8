//! Load, queries and measurements for Tidemill and the servers it is compared with.
//!
//! Owns the reference workload (`devices`) with its oracle, the other workloads of the performance goals, a blocking
//! keep-alive HTTP client, a reader that walks an InfluxQL answer without holding it, and the drivers behind the
//! `perf` command. The integration tests use the same parts.
//!
//! Invariants: every row is a pure function of (seed, device, row number), so that any part of a data set can be made
//! again alone; the load generator does no rendering between two requests unless asked to.
//!
//! Knows nothing of the server's crates: whatever it learns of a server comes over HTTP or from `/proc`.

pub mod acknowledgement;
pub mod answer;
pub mod cardinality;
pub mod check;
pub mod cluster;
pub mod compare;
pub mod connections;
pub mod control_group;
pub mod crash;
pub mod devices;
pub mod emission;
pub mod hosts;
pub mod http;
pub mod json;
pub mod load;
pub mod memory;
pub mod oracle;
pub mod probes;
pub mod process;
pub mod proxy;
pub mod random;
pub mod removal;
pub mod replication;
pub mod report;
pub mod scenario;
pub mod series_index;
pub mod server;
pub mod stall_report;
pub mod statements;
pub mod verify;
pub mod workload;
