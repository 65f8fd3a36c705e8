//! QUIC between the cores of nodes, on the core's own executor.
//!
//! ```text
//! Peers ── shell    tasks: receive, timers, turns                 rt/       glommio, monoio
//!   │        └── driver/   connections as a state machine ── quinn-proto
//!   │              ├── link      one connection: streams by role
//!   │              └── handles   requests and files of the owner
//!   ├── handler, inbox, request, file    what the owner sees
//!   └── frame, message, identity, credentials, authority
//! ```
//!
//! Owns the one UDP socket of a core and one connection to each core of another node: raft messages (opaque, by group,
//! in order per group), heartbeats of all groups in one message, requests with streamed answers, files. Mutual TLS 1.3;
//! a certificate names cluster and node.
//! Invariants: nothing of a peer is acted upon before its certificate and its Hello agree on who it is; every queue has a
//! maximum in bytes ([`Options`]), beyond which sending waits or is refused and reading stops; a frame is used only after
//! its checksum, kind, length and place were right.
//! Knows nothing of raft, logs, queries or what files hold.
//!
//! Unsafe code lives in `socket` (reuse of written memory, one socket option), `rt` (handing over a descriptor) and `lent`
//! (memory of one thread in what QUIC holds).

pub mod authority;
mod credentials;
mod driver;
mod file;
pub mod frame;
mod handler;
mod identity;
mod inbox;
mod lent;
pub mod message;
mod metrics;
mod options;
mod peers;
mod request;
mod rt;
mod shell;
mod socket;

pub use credentials::{AUTHORITY_FILE, CERTIFICATE_FILE, Credentials, CredentialsError, KEY_FILE, PROTOCOL_NAME};
pub use driver::{PeerState, SendError, StreamError};
pub use file::{FileReceiver, FileSender};
pub use handler::Handler;
pub use identity::{ClusterId, IdentityError, NodeId, PeerId, certificate_name, node_of_certificate};
pub use inbox::{HeartbeatBatch, Message};
pub use lent::lend;
pub use metrics::PeerMetrics;
pub use options::{MTU_DEFAULT, MTU_JUMBO, MTU_MIN, Options};
pub use peers::Peers;
pub use request::{Inquiry, Request};
#[cfg(feature = "glommio")]
pub use rt::GlommioRt;
#[cfg(feature = "monoio")]
pub use rt::MonoioRt;
pub use rt::Rt;
pub use socket::bind;
