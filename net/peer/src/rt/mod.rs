//! The seam to an executor: everything that the transport needs of the core it runs on.
//!
//! Owns the trait and one implementation for each of the two executors; a process uses one of them. Knows nothing of QUIC.

use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

#[cfg(feature = "glommio")]
mod on_glommio;
#[cfg(feature = "monoio")]
mod on_monoio;

#[cfg(feature = "glommio")]
pub use on_glommio::GlommioRt;
#[cfg(feature = "monoio")]
pub use on_monoio::MonoioRt;

/// An executor of one core, inside of which all of this is called.
pub trait Rt: Clone + 'static {
    /// Tells when a socket can be read.
    type Watch: 'static;

    /// The socket stays the caller's: datagrams are moved by its own calls, the executor only says when.
    fn watch(&self, socket: &UdpSocket) -> io::Result<Self::Watch>;

    /// Resolves when there is something to read or an error to take. Dropping it gives up waiting.
    fn readable(watch: &Self::Watch) -> impl Future<Output = io::Result<()>>;

    /// Resolves after the executor had a chance to run everything else, input and output included.
    fn yield_now(watch: &Self::Watch) -> impl Future<Output = ()>;

    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    fn sleep(time: Duration) -> impl Future<Output = ()>;

    fn now() -> Instant {
        Instant::now()
    }
}
