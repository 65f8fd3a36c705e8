//! The server of one core: accepting, connections, deadlines, shutdown.
//!
//! Owns: the accept loop, one task a connection, one sweep over the deadlines of all of them, and the order of a
//! shutdown: stop accepting, close idle connections, let running requests end, close what is late.
//! Invariants: at most [`Options::connection_count_max`] connections are open; [`Server::run`] returns only when none
//! is left.
//! Knows nothing of requests.

use crate::access_log::AccessLog;
use crate::connection::Connection;
use crate::metrics::HttpMetrics;
use crate::options::{HEAD_BYTES_MAX_FLOOR, Options};
use crate::request_id::RequestIds;
use crate::router::Core;
use crate::service::Service;
use crate::socket::Socket;
use crate::tls::Stream;
use futures_lite::future;
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::Timer;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use rustls::ServerConfig;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// What stands before the endpoints of all cores.
#[derive(Clone, Default)]
pub struct Front {
    pub access_log: Option<AccessLog>,
    /// Connections speak TLS.
    pub tls: Option<Arc<ServerConfig>>,
}

/// The HTTP server of one core.
pub struct Server<S> {
    core: Rc<Core<S>>,
    tls: Option<Arc<ServerConfig>>,
    connections: RefCell<BTreeMap<u64, Rc<Connection>>>,
    next_connection: Cell<u64>,
    is_closing: Cell<bool>,
    /// Woken when a connection ends and when the shutdown begins.
    waiters: RefCell<Vec<Waker>>,
}

/// After this pause accepting is tried again when it failed: most failures are a lack of descriptors.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Bytes and time that a connection is still read for after its last answer, so that the answer is not lost to a
/// reset.
const LINGER_BYTES_MAX: usize = 4 << 20;
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

impl<S: Service> Server<S> {
    /// # Panics
    /// If `options.head_bytes_max` is below [`HEAD_BYTES_MAX_FLOOR`] or its header count is 0.
    pub fn new(
        service: Rc<S>,
        options: Options,
        metrics: Rc<HttpMetrics>,
        request_ids: RequestIds,
        front: Front,
    ) -> Server<S> {
        assert!(options.head_bytes_max >= HEAD_BYTES_MAX_FLOOR, "head_bytes_max below {HEAD_BYTES_MAX_FLOOR}");
        assert!(options.header_count_max > 0, "no request has no header");
        Server {
            core: Rc::new(Core::new(service, options, metrics, request_ids, front.access_log)),
            tls: front.tls,
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            is_closing: Cell::new(false),
            waiters: RefCell::default(),
        }
    }

    /// Serves the listener until a shutdown is asked for and all connections are closed. Must run in the executor
    /// that the listener belongs to.
    pub async fn run(self: Rc<Self>, listener: TcpListener) {
        let sweep = async {
            loop {
                Timer::new(self.core.options.sweep_interval).await;
                self.sweep();
            }
        };
        let serve = async {
            future::or(self.accept_all(&listener), self.wait_until(|server| server.is_closing.get())).await;
            drop(listener);
            self.close_all().await;
        };
        future::or(serve, sweep).await;
    }

    /// Asks for a shutdown: no new connection, idle ones are closed, running requests may take
    /// [`Options::shutdown_deadline`].
    pub fn shutdown(&self) {
        self.is_closing.set(true);
        self.wake_waiters();
        self.connections.borrow().values().for_each(|connection| connection.wake());
    }

    /// Open connections.
    pub fn connection_count(&self) -> usize {
        self.connections.borrow().len()
    }

    async fn accept_all(self: &Rc<Self>, listener: &TcpListener) {
        loop {
            let count_max = self.core.options.connection_count_max;
            self.wait_until(|server| count_max == 0 || server.connection_count() < count_max).await;
            match listener.accept().await {
                Ok(stream) => self.open(stream),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    Timer::new(ACCEPT_RETRY_PAUSE).await;
                }
            }
        }
    }

    /// At the limit: makes room for others, who may be waiting, where connections have no request.
    fn close_idlest(&self, now: Instant) {
        let connections = self.connections.borrow();
        let mut idle: Vec<_> = connections
            .values()
            .filter_map(|connection| Some((connection.idle_since()?, connection)))
            .filter(|(since, _)| now.saturating_duration_since(*since) > IDLE_AT_LIMIT_MAX)
            .collect();
        idle.sort_by_key(|(since, _)| *since);
        idle.truncate(self.core.options.connection_count_max / CLOSED_AT_LIMIT_PART + 1);
        idle.iter().for_each(|(_, connection)| connection.condemn());
    }

    fn open(self: &Rc<Self>, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let id = self.next_connection.get();
        self.next_connection.set(id + 1);
        let peer = stream.peer_addr().ok().map(|address| address.ip());
        let connection = Rc::new(Connection::new(peer));
        self.connections.borrow_mut().insert(id, connection.clone());
        self.core.metrics.connection_opened();
        let server = self.clone();
        glommio::spawn_local(async move {
            server.serve(stream, &connection).await;
            server.connections.borrow_mut().remove(&id);
            server.core.metrics.connection_closed();
            server.wake_waiters();
        })
        .detach();
    }

    async fn serve(&self, stream: TcpStream, connection: &Rc<Connection>) {
        let options = &self.core.options;
        let service = service_fn(|request: Request<Incoming>| {
            let (core, connection) = (self.core.clone(), connection.clone());
            Box::pin(async move { Ok::<_, Infallible>(core.handle(connection, request).await) })
        });
        let mut builder = http1::Builder::new();
        builder.max_buf_size(options.head_bytes_max).max_header_size(options.head_bytes_max);
        // Our deadlines are those of the connection.
        builder.header_read_timeout(None);
        if options.header_count_max != HEADER_COUNT_OF_ENGINE {
            builder.max_headers(options.header_count_max);
        }
        let stream = match Stream::new(Socket::new(stream, connection.clone()), self.tls.as_ref()) {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "no TLS session"),
        };
        let mut served = builder.serve_connection(stream, service);
        let mut is_told = false;
        let ended = poll_fn(|context| {
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
        if ended {
            close(served.into_parts().io, connection).await;
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        for connection in self.connections.borrow().values() {
            if connection.enforce_deadlines(now, &self.core.options) {
                self.core.metrics.connection_overdue();
            }
        }
        let count_max = self.core.options.connection_count_max;
        if count_max > 0 && self.connection_count() >= count_max {
            self.close_idlest(now);
        }
    }

    async fn close_all(&self) {
        let all_closed = || self.wait_until(|server| server.connections.borrow().is_empty());
        let is_late = async {
            Timer::new(self.core.options.shutdown_deadline).await;
            true
        };
        let is_late = future::or(
            async {
                all_closed().await;
                false
            },
            is_late,
        )
        .await;
        if is_late {
            self.connections.borrow().values().for_each(|connection| connection.condemn());
            all_closed().await;
        }
    }

    async fn wait_until(&self, is_reached: impl Fn(&Server<S>) -> bool) {
        poll_fn(|context| {
            if is_reached(self) {
                return Poll::Ready(());
            }
            self.waiters.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn wake_waiters(&self) {
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
        waiters.into_iter().for_each(Waker::wake);
    }
}

/// At the limit of connections, how long one may be without a request, and the part of all that a sweep closes.
const IDLE_AT_LIMIT_MAX: Duration = Duration::from_secs(1);
const CLOSED_AT_LIMIT_PART: usize = 8;

/// The protocol engine keeps so many headers on the stack when no count is set.
const HEADER_COUNT_OF_ENGINE: usize = 100;

/// Closes a connection behind its last answer.
async fn close(mut socket: Stream, connection: &Connection) {
    let shut = poll_fn(|context| hyper::rt::Write::poll_shutdown(Pin::new(&mut socket), context)).await;
    if shut.is_err() || !connection.is_lingering() {
        return;
    }
    let discard = async {
        let mut left = LINGER_BYTES_MAX;
        while let Ok(count @ 1..) = socket.discard().await {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    };
    let late = async {
        Timer::new(LINGER_TIME_MAX).await;
    };
    future::or(discard, late).await;
}
