//! The server of one thread: accepting, connections, deadlines, draining.
//!
//! Owns: the accept loop, one task a connection, one sweep over the deadlines of all of them, and the order in which it
//! ends: stop accepting, close idle connections, let running requests end, close what is late.
//! Invariants: at most so many connections are open as the options say; [`Server::run`] returns only when none is left.
//! Knows nothing of requests: what answers them is a [`Handler`].

use crate::answer::Answer;
use crate::socket::Socket;
use futures_lite::future;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use monoio::net::{TcpListener, TcpStream};
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use tidemill_http::{Connection, Options};

/// Answers the requests of one thread.
pub trait Handler: 'static {
    fn handle(self: Rc<Self>, request: Request<Incoming>, peer: Peer) -> impl Future<Output = Response<Answer>>;
}

/// The connection that a request came by.
#[derive(Clone)]
pub struct Peer {
    pub address: Option<IpAddr>,
    connection: Rc<Connection>,
}

impl Peer {
    /// Bytes of the request may still be on their way: after this answer they are read for a while before the socket
    /// closes.
    pub fn linger(&self) {
        self.connection.linger();
    }
}

/// The HTTP server of one thread.
pub struct Server<H> {
    handler: Rc<H>,
    options: Options,
    connections: RefCell<BTreeMap<u64, Rc<Connection>>>,
    next_connection: Cell<u64>,
    accepted: Cell<u64>,
    overdue: Cell<u64>,
    is_closing: Cell<bool>,
    /// Woken when a connection ends.
    waiters: RefCell<Vec<Waker>>,
}

/// After this pause accepting is tried again when it failed: most failures are a lack of descriptors.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Bytes and time that a connection is still read for after its last answer.
const LINGER_BYTES_MAX: usize = 4 << 20;
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
/// At the limit of connections, how long one may be without a request before it is closed to let others in.
const IDLE_AT_LIMIT_MAX: Duration = Duration::from_secs(1);

impl<H: Handler> Server<H> {
    pub fn new(handler: Rc<H>, options: Options) -> Rc<Server<H>> {
        Rc::new(Server {
            handler,
            options,
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            accepted: Cell::new(0),
            overdue: Cell::new(0),
            is_closing: Cell::new(false),
            waiters: RefCell::default(),
        })
    }

    /// Open connections.
    pub fn connection_count(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Connections so far, and those that a deadline closed.
    pub fn accepted_and_overdue(&self) -> (u64, u64) {
        (self.accepted.get(), self.overdue.get())
    }

    /// Serves the listener until `stop` ends and all connections are closed.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub async fn run(
        self: Rc<Self>,
        listener: std::net::TcpListener,
        stop: impl Future<Output = ()>,
    ) -> std::io::Result<()> {
        let listener = Rc::new(TcpListener::from_std(listener)?);
        monoio::spawn(self.clone().accept_all(listener.clone()));
        let sweep = async {
            loop {
                monoio::time::sleep(self.options.sweep_interval).await;
                self.sweep();
            }
        };
        let serve = async {
            stop.await;
            self.is_closing.set(true);
            // The accept that waits at the ring ends with an error.
            // SAFETY: the listener owns the descriptor and lives longer than this borrow.
            let descriptor = unsafe { BorrowedFd::borrow_raw(listener.as_raw_fd()) };
            let _ = SockRef::from(&descriptor).shutdown(Shutdown::Both);
            drop(listener);
            self.connections.borrow().values().for_each(|connection| connection.wake());
            self.close_all().await;
        };
        future::or(serve, sweep).await;
        Ok(())
    }

    async fn accept_all(self: Rc<Self>, listener: Rc<TcpListener>) {
        let count_max = self.options.connection_count_max;
        while !self.is_closing.get() {
            if count_max > 0 && self.connection_count() >= count_max {
                monoio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                continue;
            }
            match listener.accept().await {
                Ok((stream, address)) if !self.is_closing.get() => self.open(stream, address.ip()),
                Ok(_) => return,
                Err(_) if self.is_closing.get() => return,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    monoio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                }
            }
        }
    }

    fn open(self: &Rc<Self>, stream: TcpStream, address: IpAddr) {
        let number = self.next_connection.get();
        self.next_connection.set(number + 1);
        self.accepted.set(self.accepted.get() + 1);
        let connection = Rc::new(Connection::new(Some(address)));
        self.connections.borrow_mut().insert(number, connection.clone());
        let this = self.clone();
        monoio::spawn(async move {
            this.serve(stream, &connection).await;
            this.connections.borrow_mut().remove(&number);
            let waiters = std::mem::take(&mut *this.waiters.borrow_mut());
            waiters.into_iter().for_each(Waker::wake);
        });
    }

    async fn serve(self: &Rc<Self>, stream: TcpStream, connection: &Rc<Connection>) {
        let (handler, peer) = (&self.handler, Peer { address: connection.peer(), connection: connection.clone() });
        let service = service_fn(|request| {
            let (handler, peer) = (handler.clone(), peer.clone());
            Box::pin(async move {
                let connection = peer.connection.clone();
                connection.begin_request();
                let end = End(Some(connection));
                let response = handler.handle(request, peer).await;
                Ok::<_, Infallible>(response.map(|answer| answer.holding(end)))
            })
        });
        let mut builder = http1::Builder::new();
        builder.max_buf_size(self.options.head_bytes_max).max_header_size(self.options.head_bytes_max);
        // Deadlines are those of the connection.
        builder.header_read_timeout(None);
        let mut served = builder.serve_connection(Socket::new(stream, Some(connection.clone())), service);
        let mut is_told = false;
        let has_ended = poll_fn(|context| {
            if connection.is_condemned(context) {
                return Poll::Ready(false);
            }
            if self.is_closing.get() && !is_told {
                is_told = true;
                Pin::new(&mut served).graceful_shutdown();
            }
            served.poll_without_shutdown(context).map(|result| match result {
                Ok(()) => true,
                Err(error) => {
                    tracing::debug!(%error, "connection ended");
                    false
                }
            })
        })
        .await;
        if has_ended {
            close(served.into_parts().io, connection).await;
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        let connections = self.connections.borrow();
        for connection in connections.values() {
            if connection.enforce_deadlines(now, &self.options) {
                self.overdue.set(self.overdue.get() + 1);
            }
        }
        let count_max = self.options.connection_count_max;
        if count_max > 0 && connections.len() >= count_max {
            let idlest = connections.values().filter_map(|one| one.idle_since().map(|since| (since, one)));
            if let Some((since, connection)) = idlest.min_by_key(|(since, _)| *since)
                && now.saturating_duration_since(since) > IDLE_AT_LIMIT_MAX
            {
                connection.condemn();
            }
        }
    }

    async fn close_all(&self) {
        let late = async {
            monoio::time::sleep(self.options.shutdown_deadline).await;
            self.connections.borrow().values().for_each(|connection| connection.condemn());
            future::pending().await
        };
        let closed = poll_fn(|context| {
            if self.connections.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.waiters.borrow_mut().push(context.waker().clone());
            Poll::Pending
        });
        future::or(closed, late).await;
    }
}

/// Tells the connection that its request has ended, when its answer is dropped.
pub(crate) struct End(Option<Rc<Connection>>);

impl Drop for End {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.end_request();
        }
    }
}

/// Closes a connection behind its last answer.
async fn close(mut socket: Socket, connection: &Connection) {
    let shut = poll_fn(|context| hyper::rt::Write::poll_shutdown(Pin::new(&mut socket), context)).await;
    if shut.is_err() || !connection.is_lingering() {
        return;
    }
    let discard = async {
        let mut left = LINGER_BYTES_MAX;
        while let Ok(count @ 1..) = poll_fn(|context| socket.poll_discard(context)).await {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    };
    let _ = monoio::time::timeout(LINGER_TIME_MAX, discard).await;
}
