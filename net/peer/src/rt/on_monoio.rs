//! On monoio, whose timers count in milliseconds and come one late: pauses between packets become bursts there.

use super::Rt;
use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

/// Needs a runtime with timers.
#[derive(Clone, Default)]
pub struct MonoioRt;

impl Rt for MonoioRt {
    type Watch = monoio::net::udp::UdpSocket;

    fn watch(&self, socket: &UdpSocket) -> io::Result<Self::Watch> {
        monoio::net::udp::UdpSocket::from_std(socket.try_clone()?)
    }

    async fn readable(watch: &Self::Watch) -> io::Result<()> {
        watch.readable(true).await
    }

    async fn yield_now(watch: &Self::Watch) {
        // A task that wakes itself starves the ring in 0.2.4, so the pause goes through the ring: a UDP socket can nearly
        // always be written, and when it cannot, waiting for that is what is wanted.
        let _ = watch.writable(true).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        drop(monoio::spawn(task));
    }

    async fn sleep(time: Duration) {
        monoio::time::sleep(time).await;
    }
}
