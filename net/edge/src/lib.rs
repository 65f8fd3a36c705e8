//! HTTP/1.1 on monoio, towards clients and towards nodes: what a stateless front is made of.
//!
//! Owns: sockets as the protocol engine wants them, the server of one thread ([`Server`]), the connections to a node
//! ([`Pool`]), and bodies that pass through without being held ([`Answer`]).
//! Invariants: everything lives on one thread and nothing is shared with others; an answer that is passed on holds no more
//! than the buffers of its two connections; a connection whose answer was not taken to its end is never used again; a
//! request that was certainly not sent is told from one of which nobody knows what became.
//! Knows nothing of InfluxDB, of nodes' duties and of what bodies mean.
//!
//! ```text
//! server ── socket ── (handler of a role) ── pool ── socket
//!                         └── answer: bytes, or the body of a node's answer
//! ```

mod answer;
mod incoming;
mod pool;
mod server;
mod socket;

pub use answer::{Answer, Outgoing};
pub use incoming::{BodyFailure, read_body};
pub use pool::{Lease, Pool, PoolOptions, SendFailure};
pub use server::{Handler, Peer, Server};

/// Runs a future, and what it spawns, on this thread until it ends.
///
/// # Errors
/// The kernel makes no ring.
pub fn run<F: Future>(future: F) -> std::io::Result<F::Output> {
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build()?;
    Ok(runtime.block_on(future))
}

/// Ends after this time, late by up to two milliseconds.
pub async fn sleep(time: std::time::Duration) {
    monoio::time::sleep(time).await;
}

/// Runs a future beside the others of this thread.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(task));
}

/// What a future gives, unless the time is over first.
pub async fn within<T>(time: std::time::Duration, future: impl Future<Output = T>) -> Option<T> {
    monoio::time::timeout(time, future).await.ok()
}
