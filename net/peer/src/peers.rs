//! The end of one core: what its owner holds.

use crate::credentials::Credentials;
use crate::driver::{Driver, SendError};
use crate::file::FileSender;
use crate::handler::Handler;
use crate::identity::PeerId;
use crate::metrics::PeerMetrics;
use crate::options::Options;
use crate::request::Request;
use crate::rt::Rt;
use crate::shell::Shell;
use crate::socket::Socket;
use bytes::Bytes;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::task::Poll;

/// All connections of one core. Clones are the same.
#[derive(Clone)]
pub struct Peers {
    shell: Rc<Shell>,
    address: SocketAddr,
}

impl Peers {
    /// Starts the tasks of this core's end on its executor; [`Peers::close`] ends them.
    ///
    /// `incarnation` must differ at each start of the process: draw it at random.
    ///
    /// # Panics
    /// If options contradict each other, or the credentials are those of another node than `me`.
    pub fn start<R: Rt>(
        rt: &R,
        me: PeerId,
        incarnation: u64,
        socket: UdpSocket,
        credentials: Credentials,
        options: Options,
        handler: Rc<dyn Handler>,
    ) -> io::Result<Peers> {
        let watch = rt.watch(&socket)?;
        let socket = Socket::new(socket)?;
        let address = socket.local_addr()?;
        let driver = Driver::new(me, credentials, options, socket.segments_max(), incarnation);
        Ok(Peers { shell: Shell::start(rt, driver, socket, watch, handler), address })
    }

    /// Where this end is called.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keeps a connection to the peer: calls it now, and again whenever the connection is lost. Both sides may do so;
    /// two calls that meet become one connection.
    pub fn connect(&self, peer: PeerId, address: SocketAddr) {
        let now = self.shell.now();
        self.shell.with_driver(|driver| driver.connect(peer, address, now));
    }

    /// Closes the connection and calls the peer no more.
    pub fn disconnect(&self, peer: PeerId) {
        let now = self.shell.now();
        self.shell.with_driver(|driver| driver.disconnect(peer, now));
    }

    pub fn is_connected(&self, peer: PeerId) -> bool {
        self.shell.driver.borrow().is_connected(peer)
    }

    /// Queues a raft message for a group of the peer. Messages of one group arrive in order. Those in flight are gone
    /// with their connection: raft sends again.
    pub fn send(&self, peer: PeerId, group: u64, payload: Bytes) -> Result<(), SendError> {
        self.shell.with_driver(|driver| driver.send(peer, group, payload))
    }

    /// [`Peers::send`] when there is room.
    pub async fn send_when_room(&self, peer: PeerId, group: u64, payload: Bytes) -> Result<(), SendError> {
        poll_fn(|context| {
            let is_full = self.shell.driver.borrow_mut().wait_for_room(peer, payload.len(), context.waker());
            if is_full { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        self.send(peer, group, payload)
    }

    /// Queues the newest heartbeat of a group. All that wait for a peer leave as one message.
    pub fn send_heartbeat(&self, peer: PeerId, group: u64, payload: Bytes) -> Result<(), SendError> {
        self.shell.with_driver(|driver| driver.send_heartbeat(peer, group, payload))
    }

    /// Asks the peer; waits while as many requests are open as it allows.
    pub async fn request(&self, peer: PeerId, group: u64, payload: Bytes) -> Result<Request, SendError> {
        let key = poll_fn(|context| {
            match self.shell.with_driver(|driver| driver.open_request(peer, group, &payload, context).transpose()) {
                Some(opened) => Poll::Ready(opened),
                None => Poll::Pending,
            }
        })
        .await?;
        Ok(Request::new(&self.shell, key))
    }

    /// Announces a file of `length` bytes; waits while as many files are on their way as the peer allows.
    pub async fn send_file(
        &self,
        peer: PeerId,
        group: u64,
        description: &[u8],
        length: u64,
    ) -> Result<FileSender, SendError> {
        let key = poll_fn(|context| {
            let opened = |driver: &mut Driver| driver.open_file(peer, group, description, length, context).transpose();
            match self.shell.with_driver(opened) {
                Some(opened) => Poll::Ready(opened),
                None => Poll::Pending,
            }
        })
        .await?;
        Ok(FileSender::new(&self.shell, key, length))
    }

    /// New connections are made with these; those that exist go on.
    pub fn set_credentials(&self, credentials: Credentials) {
        self.shell.with_driver(|driver| driver.set_credentials(credentials));
    }

    pub fn metrics(&self) -> PeerMetrics {
        self.shell.driver.borrow().metrics()
    }

    /// Closes all connections, tells the peers, and ends the tasks.
    pub async fn close(&self) {
        self.shell.close().await;
    }
}
