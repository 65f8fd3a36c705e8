//! The roles of the one binary, and the only place where wire, log, raft and store meet.
//!
//! ```text
//! main ── options, identity ─┬─ inspect   tools for folders of stopped servers
//!                            ├─ ctl       certificates of a cluster
//!                            ├─ shell     a client
//!                            ├─ proxy     a front of a cluster
//!                            └─ server      standalone, or a node of a cluster
//!                                 └── data ── start (recover, serve, stop), core (what lives on one core)
//!                                       ├── service   HTTP requests
//!                                       ├── write     line protocol to partition batches to logs
//!                                       ├── access    who calls, and what they may do
//!                                       ├── query     statements, scans
//!                                       ├── subscriber  copies of writes for other servers
//!                                       ├── handoff   writes that wait for their partitions
//!                                       ├── udp       line protocol in datagrams
//!                                       ├── pool      files in the storage pool: masters, slaves, shipping, reading
//!                                       ├── replica   raft, log and state machines
//!                                       └── links     what the nodes of a cluster say to each other
//! ```

pub mod access;
pub mod acquaintance;
pub mod backup;
pub mod ctl;
pub mod data;
pub mod data_lock;
pub mod demo;
pub mod file_stamp;
pub mod handoff;
pub mod http_agent;
pub mod https;
pub mod identity;
pub mod inspect;
pub mod line_text;
pub mod links;
pub mod options;
pub mod pool;
pub mod proxy;
pub mod query;
pub mod replica;
pub mod server;
pub mod service;
pub mod shell;
pub mod side_thread;
pub mod subscriber;
pub mod udp;
