//! On glommio, whose timers are 40 to 80 us late and whose sockets know no control messages (so no GSO and no GRO).

use super::Rt;
use glommio::TaskQueueHandle;
use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::Duration;

/// Spawns into one of the core's queues, which should be the one that preempts the others.
#[derive(Clone)]
pub struct GlommioRt {
    queue: Option<TaskQueueHandle>,
}

impl GlommioRt {
    /// `queue` none is the queue of the caller.
    pub fn new(queue: Option<TaskQueueHandle>) -> GlommioRt {
        GlommioRt { queue }
    }
}

impl Rt for GlommioRt {
    type Watch = glommio::net::UdpSocket;

    fn watch(&self, socket: &UdpSocket) -> io::Result<Self::Watch> {
        let descriptor = socket.try_clone()?.into_raw_fd();
        // SAFETY: the descriptor was duplicated for this and is owned by nothing else.
        Ok(unsafe { glommio::net::UdpSocket::from_raw_fd(descriptor) })
    }

    async fn readable(watch: &Self::Watch) -> io::Result<()> {
        // Peeking is the only readiness that glommio offers for UDP: a system call when there is something, else a
        // receive on the ring that preempts. An error of the socket is taken by the receive that follows.
        let _ = watch.peek_from(&mut [0; 1]).await;
        Ok(())
    }

    async fn yield_now(_: &Self::Watch) {
        glommio::executor().yield_task_queue_now().await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        match self.queue {
            Some(queue) => {
                glommio::spawn_local_into(task, queue).expect("the queue lives as long as its executor").detach();
            }
            None => {
                glommio::spawn_local(task).detach();
            }
        }
    }

    async fn sleep(time: Duration) {
        glommio::timer::sleep(time).await;
    }
}
